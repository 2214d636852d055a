//! The messages of rtnetlink: those that `netlink-packet-route` knows, and next-hop objects.

use netlink_packet_core::{
    DecodeError, Emitable, NLA_TYPE_MASK, NLM_F_ACK_TLVS, NetlinkHeader, ParseableParametrized,
};
use netlink_packet_route::RouteNetlinkMessage;

use super::nexthop::{NexthopMessage, RTM_DELNEXTHOP, RTM_GETNEXTHOP, RTM_NEWNEXTHOP};
use crate::error::{Error, Refusal, Result};

const HEADER_OCTETS: usize = 16;
const ALIGNMENT: usize = 4;

/// One rtnetlink message.
#[derive(Clone, Debug)]
pub(crate) enum Message {
    /// A link, address, neighbour, route or anything else of long standing.
    Route(RouteNetlinkMessage),
    /// A next-hop object comes into being, changes or is listed.
    NewNexthop(NexthopMessage),
    /// A next-hop object goes.
    DelNexthop(NexthopMessage),
    /// A question for next-hop objects.
    GetNexthop(NexthopMessage),
}

impl Message {
    /// Appends the message with its header to `out`.
    pub(crate) fn encode(&self, flags: u16, sequence: u32, out: &mut Vec<u8>) {
        let start = out.len();
        let body = match self {
            Self::Route(message) => message.buffer_len(),
            Self::NewNexthop(message) | Self::DelNexthop(message) | Self::GetNexthop(message) => {
                message.buffer_len()
            }
        };
        let mut header = NetlinkHeader::default();
        header.length = (HEADER_OCTETS + body) as u32;
        header.message_type = self.kind();
        header.flags = flags;
        header.sequence_number = sequence;
        out.resize(start + aligned(HEADER_OCTETS + body), 0);
        let (head, rest) = out[start..].split_at_mut(HEADER_OCTETS);
        header.emit(head);
        match self {
            Self::Route(message) => message.emit(&mut rest[..body]),
            Self::NewNexthop(message) | Self::DelNexthop(message) | Self::GetNexthop(message) => {
                message.emit(&mut rest[..body]);
            }
        }
    }

    /// Reads what a frame holds.
    pub(crate) fn decode(frame: &Frame<'_>) -> Result<Self> {
        let failed = |error: DecodeError| Error::Decode {
            what: "a message",
            why: format!("type {}: {error}", frame.kind),
        };
        let nexthop = || NexthopMessage::parse(frame.payload).map_err(failed);
        Ok(match frame.kind {
            RTM_NEWNEXTHOP => Self::NewNexthop(nexthop()?),
            RTM_DELNEXTHOP => Self::DelNexthop(nexthop()?),
            kind => Self::Route(
                RouteNetlinkMessage::parse_with_param(frame.payload, kind).map_err(failed)?,
            ),
        })
    }

    fn kind(&self) -> u16 {
        match self {
            Self::Route(message) => message.message_type(),
            Self::NewNexthop(_) => RTM_NEWNEXTHOP,
            Self::DelNexthop(_) => RTM_DELNEXTHOP,
            Self::GetNexthop(_) => RTM_GETNEXTHOP,
        }
    }
}

impl From<RouteNetlinkMessage> for Message {
    fn from(message: RouteNetlinkMessage) -> Self {
        Self::Route(message)
    }
}

/// One message as it lies in a datagram.
pub(crate) struct Frame<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
    pub(crate) port: u32,
    payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Cuts a datagram into its messages; ends where a length makes no sense.
    pub(crate) fn split(mut datagram: &'a [u8]) -> impl Iterator<Item = Self> {
        std::iter::from_fn(move || {
            let length = word(datagram.get(..4)?) as usize;
            let message = datagram.get(..length).filter(|_| length >= HEADER_OCTETS)?;
            datagram = datagram.get(aligned(length)..).unwrap_or_default();
            Some(Self {
                kind: half(&message[4..6]),
                flags: half(&message[6..8]),
                sequence: word(&message[8..12]),
                port: word(&message[12..16]),
                payload: &message[HEADER_OCTETS..],
            })
        })
    }

    /// Reads an `NLMSG_ERROR`: zero is an acknowledgement.
    pub(crate) fn acknowledgement(&self) -> Result<(), Refusal> {
        let errno = self.payload.get(..4).map_or(libc::EPROTO, |octets| {
            i32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]]).wrapping_neg()
        });
        if errno == 0 {
            return Ok(());
        }
        let message = self.extended_text();
        Err(Refusal { errno, message })
    }

    /// The kernel's sentence, which follows the header of the refused message.
    fn extended_text(&self) -> Option<String> {
        const NLMSGERR_ATTR_MSG: u16 = 1;
        if self.flags & NLM_F_ACK_TLVS == 0 {
            return None;
        }
        let mut attributes = self.payload.get(4 + HEADER_OCTETS..)?;
        loop {
            let length = usize::from(half(attributes.get(..2)?));
            let kind = half(attributes.get(2..4)?) & NLA_TYPE_MASK;
            let value = attributes.get(4..length)?;
            if kind == NLMSGERR_ATTR_MSG {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                return Some(String::from_utf8_lossy(text).into_owned());
            }
            attributes = attributes.get(aligned(length)..)?;
        }
    }
}

fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

fn half(octets: &[u8]) -> u16 {
    u16::from_ne_bytes([octets[0], octets[1]])
}

fn word(octets: &[u8]) -> u32 {
    u32::from_ne_bytes([octets[0], octets[1], octets[2], octets[3]])
}
