//! Messages to octets.
//!
//! Owns packing: as many prefixes per UPDATE as fit, never two sets of attributes or two next hops
//! in one. Does not own what is told to whom.

use bytes::{BufMut, BytesMut};

use crate::error::Error;
use crate::types::{Family, FamilySet, NextHop, Nlri};
use crate::wire::attributes::PathAttributes;
use crate::wire::iana::{AfiSafi, AttributeCode, MessageType, RefreshKind, flags};
use crate::wire::message::{Message, RouteRefresh, Update};
use crate::wire::{HEADER_LEN, MAX_MESSAGE_LEN, nlri, open, write};

/// What the session's terms mean to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncodeContext {
    /// Whether AS numbers take four octets (RFC 6793).
    pub four_octet_as: bool,
    /// Families whose paths carry identifiers (RFC 7911).
    pub add_path: FamilySet,
    /// The longest message that the peer takes: [`MAX_MESSAGE_LEN`], or
    /// [`super::MAX_EXTENDED_LEN`] (RFC 8654).
    pub max_len: usize,
}

impl Default for EncodeContext {
    /// Four-octet AS numbers, one path per prefix, messages of the classic length.
    fn default() -> Self {
        Self {
            four_octet_as: true,
            add_path: FamilySet::EMPTY,
            max_len: MAX_MESSAGE_LEN,
        }
    }
}

/// Flags, type, and a length of two octets.
const LONG_ATTRIBUTE_HEADER: usize = 4;
/// The two length fields of an UPDATE.
const UPDATE_LENGTHS: usize = 4;

/// Appends `message` to `out`; an UPDATE may become several messages.
///
/// # Errors
/// [`Error::AttributesTooLong`] when an UPDATE's attributes leave no room for a prefix; `out` then
/// holds what came before.
pub fn encode(message: &Message, context: EncodeContext, out: &mut BytesMut) -> Result<(), Error> {
    match message {
        Message::Open(value) => framed(MessageType::Open, out, |out| open::encode(value, out)),
        Message::Update(update) => return encode_update(update, context, out),
        Message::Notification(notification) => framed(MessageType::Notification, out, |out| {
            // RFC 8654 §5: no longer than what the peer takes.
            notification.encode(out, context.max_len - HEADER_LEN);
        }),
        Message::Keepalive => framed(MessageType::Keepalive, out, |_| {}),
        Message::RouteRefresh(refresh) => put_refresh(*refresh, out),
    }
    Ok(())
}

/// Appends `update` to `out`: withdrawals, announcements, End-of-RIB, in this order.
///
/// # Errors
/// As [`Announcement::new`].
pub fn encode_update(
    update: &Update,
    context: EncodeContext,
    out: &mut BytesMut,
) -> Result<(), Error> {
    for (family, nlri) in &update.withdrawn {
        withdraw(*family, nlri, context, out);
    }
    if let Some(attributes) = &update.attributes {
        for reach in &update.reach {
            Announcement::new(attributes, &reach.next_hop, reach.family, context)?.write(
                &reach.nlri,
                context,
                out,
            );
        }
    }
    if let Some(family) = update.end_of_rib {
        end_of_rib(family, out);
    }
    Ok(())
}

/// Everything of an announcement but its prefixes, ready for the wire: encoded once, written with
/// as many runs of prefixes as share it. Two are equal exactly when a peer could not tell them
/// apart.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Announcement {
    family: Family,
    /// Octets of `octets` that belong into MP_REACH_NLRI before its prefixes; `None` where prefixes
    /// have their classic place at the end of the message.
    mp_head: Option<u8>,
    /// The head of MP_REACH_NLRI, then every other attribute.
    octets: Box<[u8]>,
}

impl Announcement {
    /// Encodes what prefixes of `family` with these attributes share.
    ///
    /// # Errors
    /// [`Error::AttributesTooLong`] when no message has room for even one prefix beside them: the
    /// routes cannot be told to this peer and have to be withdrawn from it.
    pub fn new(
        attributes: &PathAttributes,
        next_hop: &NextHop,
        family: Family,
        context: EncodeContext,
    ) -> Result<Self, Error> {
        let longest = nlri::longest(family, context.add_path.contains(family));
        let room = context.max_len - HEADER_LEN - UPDATE_LENGTHS - longest;
        let announcement = Self::encode(attributes, next_hop, family, context);
        if announcement.fixed_len() <= room {
            return Ok(announcement);
        }
        // RFC 8654 §4: attributes that nobody needs may be what makes the difference to a peer that
        // takes no extended messages.
        let mut lean = attributes.clone();
        lean.drop_informational();
        let lean = Self::encode(&lean, next_hop, family, context);
        if lean.fixed_len() <= room {
            return Ok(lean);
        }
        Err(Error::AttributesTooLong {
            octets: announcement.fixed_len(),
        })
    }

    fn encode(
        attributes: &PathAttributes,
        next_hop: &NextHop,
        family: Family,
        context: EncodeContext,
    ) -> Self {
        // What usual attributes take, so that they are written without a second allocation.
        let mut octets = Vec::with_capacity(128);
        let (mp_head, classic) = match (family, next_hop) {
            (Family::Ipv4Unicast, NextHop::V4(address)) => (None, Some(*address)),
            _ => {
                put_mp_reach_head(family, next_hop, &mut octets);
                let head = u8::try_from(octets.len()).expect("a head has at most 37 octets");
                (Some(head), None)
            }
        };
        write::attributes(attributes, classic, context.four_octet_as, &mut octets);
        Self {
            family,
            mp_head,
            octets: octets.into_boxed_slice(),
        }
    }

    /// The family of the prefixes that it can be written with.
    pub fn family(&self) -> Family {
        self.family
    }

    /// Appends UPDATEs that announce `nlri`, as few as hold them. `context` is that of
    /// [`Announcement::new`].
    pub fn write(&self, nlri: &[Nlri], context: EncodeContext, out: &mut BytesMut) {
        let with_ids = context.add_path.contains(self.family);
        let fixed = self.fixed_len();
        let room = context.max_len - HEADER_LEN - UPDATE_LENGTHS - fixed;
        for (batch, run) in batches(nlri, with_ids, room) {
            framed(MessageType::Update, out, |out| {
                out.put_u16(0);
                let Some(head) = self.mp_head.map(usize::from) else {
                    put_len(fixed, out);
                    out.put_slice(&self.octets);
                    return nlri::encode(batch, run, with_ids, out);
                };
                put_len(fixed + run, out);
                // RFC 7606 §5.1: first, so that a fault behind it cannot hide the prefixes.
                put_long_header(AttributeCode::MpReach, head + run, out);
                out.put_slice(&self.octets[..head]);
                nlri::encode(batch, run, with_ids, out);
                out.put_slice(&self.octets[head..]);
            });
        }
    }

    /// Octets of path attributes without prefixes.
    fn fixed_len(&self) -> usize {
        let header = self.mp_head.map_or(0, |_| LONG_ATTRIBUTE_HEADER);
        header + self.octets.len()
    }
}

impl std::fmt::Debug for Announcement {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {:02x?}", self.family, self.octets)
    }
}

/// Appends UPDATEs that withdraw `nlri`, all of `family`.
pub fn withdraw(family: Family, nlri: &[Nlri], context: EncodeContext, out: &mut BytesMut) {
    let with_ids = context.add_path.contains(family);
    let head = match family {
        Family::Ipv4Unicast => 0,
        Family::Ipv6Unicast => LONG_ATTRIBUTE_HEADER + 3,
    };
    let room = context.max_len - HEADER_LEN - UPDATE_LENGTHS - head;
    for (batch, run) in batches(nlri, with_ids, room) {
        framed(MessageType::Update, out, |out| match family {
            Family::Ipv4Unicast => {
                put_len(run, out);
                nlri::encode(batch, run, with_ids, out);
                out.put_u16(0);
            }
            Family::Ipv6Unicast => {
                out.put_u16(0);
                put_len(head + run, out);
                put_long_header(AttributeCode::MpUnreach, 3 + run, out);
                put_family(family, out);
                nlri::encode(batch, run, with_ids, out);
            }
        });
    }
}

/// Appends the End-of-RIB marker of `family` (RFC 4724 §2).
pub fn end_of_rib(family: Family, out: &mut BytesMut) {
    framed(MessageType::Update, out, |out| {
        out.put_u16(0);
        match family {
            Family::Ipv4Unicast => out.put_u16(0),
            Family::Ipv6Unicast => {
                out.put_u16(6);
                out.put_slice(&[flags::OPTIONAL, AttributeCode::MpUnreach.into(), 3]);
                put_family(family, out);
            }
        }
    });
}

/// Appends a ROUTE-REFRESH about `family` (RFC 2918 §3, RFC 7313 §3.2).
pub fn route_refresh(family: Family, kind: RefreshKind, out: &mut BytesMut) {
    let family = family.into();
    put_refresh(RouteRefresh { family, kind }, out);
}

fn put_refresh(refresh: RouteRefresh, out: &mut BytesMut) {
    framed(MessageType::RouteRefresh, out, |out| {
        out.put_u16(refresh.family.afi);
        out.put_u8(refresh.kind.into());
        out.put_u8(refresh.family.safi);
    });
}

/// Cuts `nlri` into runs of at most `room` octets, each with its length; `room` holds any single
/// path.
fn batches(nlri: &[Nlri], with_ids: bool, room: usize) -> impl Iterator<Item = (&[Nlri], usize)> {
    let mut rest = nlri;
    std::iter::from_fn(move || {
        let mut run = 0;
        let mut count = 0;
        for path in rest {
            let len = nlri::encoded_len(path, with_ids);
            if run + len > room {
                break;
            }
            run += len;
            count += 1;
        }
        let (batch, tail) = rest.split_at(count);
        rest = tail;
        (!batch.is_empty()).then_some((batch, run))
    })
}

/// Writes the header, lets `body` write the rest, and fills in the length.
fn framed(kind: MessageType, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0xff, 16);
    out.put_u16(0);
    out.put_u8(kind.into());
    body(out);
    let length = u16::try_from(out.len() - start).expect("bodies are cut to the longest message");
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

fn put_len(length: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(length).expect("parts of a message are shorter than the message"));
}

fn put_family(family: Family, out: &mut impl BufMut) {
    let AfiSafi { afi, safi } = family.into();
    out.put_u16(afi);
    out.put_u8(safi);
}

fn put_mp_reach_head(family: Family, next_hop: &NextHop, out: &mut Vec<u8>) {
    put_family(family, out);
    match next_hop {
        NextHop::V4(address) => {
            out.put_u8(4);
            out.put_slice(&address.octets());
        }
        NextHop::V6 { global, link_local } => {
            out.put_u8(if link_local.is_some() { 32 } else { 16 });
            out.put_slice(&global.octets());
            if let Some(link_local) = link_local {
                out.put_slice(&link_local.octets());
            }
        }
    }
    out.put_u8(0);
}

/// MP attributes are the only ones of which the length is known before the content.
fn put_long_header(code: AttributeCode, length: usize, out: &mut BytesMut) {
    out.put_u8(flags::OPTIONAL | flags::EXTENDED_LENGTH);
    out.put_u8(code.into());
    put_len(length, out);
}
