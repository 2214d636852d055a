//! Interfaces and addresses from rtnetlink.
//!
//! Owns the sockets and the few attributes that count here. Does not own what they mean. Attributes
//! are picked out one by one: one that a future kernel lays out otherwise then costs itself, not
//! the interface.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, RawFd};

use bytes::BytesMut;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NlaBuffer, NlasIterator,
};
use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{AsyncSocket, AsyncSocketExt, Socket, SocketAddr, TokioSocket};
use nix::errno::Errno;
use nix::sys::socket::sockopt::{RcvBuf, RcvBufForce, ReceiveTimeout};
use nix::sys::socket::{MsgFlags, recv, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

/// Room for the notifications of thousands of links that change at once.
const BUFFER_OCTETS: usize = 4 * 1024 * 1024;
/// More datagrams than the buffer holds, each of which is charged with at least 256 octets.
const DISCARD_LIMIT: usize = BUFFER_OCTETS / 256;
/// The kernel fills at most 32 KiB per datagram, whatever is offered.
const DATAGRAM_OCTETS: usize = 64 * 1024;
/// The kernel answers within the send; only a bug makes us wait.
const ANSWER_SECONDS: i64 = 10;
/// How often a dump is repeated when interfaces change under it.
const DUMP_ATTEMPTS: u32 = 10;

/// Attribute of linux/if_link.h.
const IFLA_CARRIER_CHANGES: u16 = 35;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;
/// Length of `struct ifinfomsg`.
const LINK_HEADER: usize = 16;
/// Length of `struct rtattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// Length of `struct ifaddrmsg`.
const ADDRESS_HEADER: usize = 8;

/// What happened to an interface or an address, or one of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Link(LinkFacts),
    LinkGone(u32),
    Address(AddressFacts),
    AddressGone(AddressFacts),
}

/// What the kernel says of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LinkFacts {
    pub(super) index: u32,
    pub(super) flags: u32,
    pub(super) name: String,
    pub(super) link_layer: Option<[u8; 6]>,
    /// How often the carrier has come and gone: two notifications that arrive together hide what
    /// was between.
    pub(super) carrier_changes: u32,
}

/// What the kernel says of an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AddressFacts {
    pub(super) index: u32,
    /// Our address.
    pub(super) local: IpAddr,
    /// The address that the prefix length belongs to: the other end's on a point-to-point link.
    pub(super) network: IpAddr,
    pub(super) len: u8,
    pub(super) flags: u32,
}

/// A socket for lists.
#[derive(Debug)]
pub(super) struct Lister {
    socket: Socket,
    sequence: u32,
}

impl Lister {
    /// Opens a socket in the calling thread's network namespace; it stays there.
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))?;
        Ok(Self {
            socket,
            sequence: 0,
        })
    }

    /// Every interface, then every address.
    pub(super) fn list(&mut self) -> io::Result<Vec<Change>> {
        let mut all = self.dump(libc::RTM_GETLINK, LINK_HEADER)?;
        all.append(&mut self.dump(libc::RTM_GETADDR, ADDRESS_HEADER)?);
        Ok(all)
    }

    fn dump(&mut self, kind: u16, header: usize) -> io::Result<Vec<Change>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(list) = self.dump_once(kind, header)? {
                return Ok(list);
            }
        }
        Err(io::Error::other(
            "interfaces change faster than they can be listed",
        ))
    }

    /// `None` when the kernel says that the list was disturbed.
    fn dump_once(&mut self, kind: u16, header: usize) -> io::Result<Option<Vec<Change>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = u32::try_from(HEADER + header).expect("a few dozen");
        let mut request = Vec::with_capacity(HEADER + header);
        request.extend(length.to_ne_bytes());
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | NLM_F_DUMP).to_ne_bytes());
        request.extend(self.sequence.to_ne_bytes());
        // Our port, and a header of zeros: of any family.
        request.resize(HEADER + header, 0);
        self.socket.send_to(&request, &SocketAddr::new(0, 0), 0)?;
        let mut list = Vec::new();
        let mut disturbed = false;
        let mut buffer = vec![0; DATAGRAM_OCTETS];
        loop {
            let datagram = receive(self.socket.as_raw_fd(), &mut buffer)?;
            for frame in Frames(datagram) {
                if frame.sequence != self.sequence {
                    continue;
                }
                disturbed |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_DONE => return Ok((!disturbed).then_some(list)),
                    NLMSG_ERROR => return Err(refusal(frame.payload)),
                    kind => list.extend(change(kind, frame.payload)),
                }
            }
        }
    }
}

/// A socket that hears of changes.
pub(super) struct Monitor {
    socket: TokioSocket,
    buffer: BytesMut,
}

/// What a read of a [`Monitor`] gives.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Changes(Vec<Change>),
    /// The kernel dropped notifications: anything may have happened.
    Lost,
}

impl Monitor {
    /// Opens a socket in the calling thread's network namespace; it stays there.
    pub(super) fn open() -> io::Result<Self> {
        const RTNLGRP_LINK: u32 = 1;
        const RTNLGRP_IPV4_IFADDR: u32 = 5;
        const RTNLGRP_IPV6_IFADDR: u32 = 9;
        let mut socket = TokioSocket::new(NETLINK_ROUTE)?;
        let inner = socket.socket_mut();
        inner.bind_auto()?;
        // FORCE goes beyond the machine's limit, and needs a capability that a lab may lack.
        setsockopt(&*inner, RcvBufForce, &BUFFER_OCTETS)
            .or_else(|_| setsockopt(&*inner, RcvBuf, &BUFFER_OCTETS))?;
        for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
            inner.add_membership(group)?;
        }
        Ok(Self {
            socket,
            buffer: BytesMut::with_capacity(DATAGRAM_OCTETS),
        })
    }

    /// Waits for a datagram.
    pub(super) async fn read(&mut self) -> io::Result<Heard> {
        self.buffer.clear();
        self.buffer.reserve(DATAGRAM_OCTETS);
        match self.socket.recv_from(&mut self.buffer).await {
            // Only the kernel, whose port is 0, knows about interfaces.
            Ok(sender) if sender.port_number() != 0 => Ok(Heard::Changes(Vec::new())),
            Ok(_) => {
                let changes = Frames(&self.buffer)
                    .filter_map(|frame| change(frame.kind, frame.payload))
                    .collect();
                Ok(Heard::Changes(changes))
            }
            Err(error) if is_overrun(&error) => {
                self.discard()?;
                Ok(Heard::Lost)
            }
            Err(error) => Err(error),
        }
    }

    /// Throws away what waits. The kernel tells of lost notifications before it hands out those
    /// that it had kept, which are the older ones: applied to a list made now, they would undo what
    /// the lost ones said.
    fn discard(&mut self) -> io::Result<()> {
        for _ in 0..DISCARD_LIMIT {
            self.buffer.clear();
            let socket = self.socket.socket_ref();
            match socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if is_overrun(&error) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        // They come faster than they can be read; the next loss is told again.
        Ok(())
    }
}

fn is_overrun(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOBUFS as i32)
}

fn receive(socket: RawFd, buffer: &mut [u8]) -> io::Result<&[u8]> {
    loop {
        match recv(socket, buffer, MsgFlags::empty()) {
            Ok(length) => return Ok(&buffer[..length]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// The errno in an error message, negative on the wire.
fn refusal(payload: &[u8]) -> io::Error {
    let code = word(payload, 0).unwrap_or_default().cast_signed();
    io::Error::from_raw_os_error(code.wrapping_neg())
}

/// The messages of a datagram.
struct Frames<'a>(&'a [u8]);

struct Frame<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    payload: &'a [u8],
}

impl<'a> Iterator for Frames<'a> {
    type Item = Frame<'a>;

    fn next(&mut self) -> Option<Frame<'a>> {
        let octets = self.0;
        let length = word(octets, 0)? as usize;
        let header: &[u8; HEADER] = octets.first_chunk()?;
        let payload = octets.get(HEADER..length)?;
        self.0 = octets.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Frame {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: word(header, 8)?,
            payload,
        })
    }
}

fn word(octets: &[u8], at: usize) -> Option<u32> {
    let octets = octets.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*octets))
}

/// What a message says; `None` when it is about something else.
fn change(kind: u16, payload: &[u8]) -> Option<Change> {
    match kind {
        libc::RTM_NEWLINK => link(payload).map(Change::Link),
        libc::RTM_DELLINK => link_index(payload).map(Change::LinkGone),
        libc::RTM_NEWADDR => address(payload).map(Change::Address),
        libc::RTM_DELADDR => address(payload).map(Change::AddressGone),
        _ => None,
    }
}

fn link_index(payload: &[u8]) -> Option<u32> {
    // A bridge announces its ports with a family of its own, also when one only leaves it.
    let unspecific = libc::c_int::from(*payload.first()?) == libc::AF_UNSPEC;
    unspecific.then(|| word(payload, 4)).flatten()
}

fn link(payload: &[u8]) -> Option<LinkFacts> {
    let index = link_index(payload)?;
    let flags = word(payload, 8)?;
    let mut name = None;
    let mut link_layer = None;
    let mut carrier_changes = 0;
    for (kind, value) in attributes(payload.get(LINK_HEADER..)?) {
        match kind {
            libc::IFLA_IFNAME => {
                let text = value.strip_suffix(&[0]).unwrap_or(value);
                name = Some(String::from_utf8_lossy(text).into_owned());
            }
            libc::IFLA_ADDRESS => link_layer = value.try_into().ok(),
            IFLA_CARRIER_CHANGES => carrier_changes = word(value, 0).unwrap_or_default(),
            _ => {}
        }
    }
    Some(LinkFacts {
        index,
        flags,
        name: name?,
        link_layer,
        carrier_changes,
    })
}

fn address(payload: &[u8]) -> Option<AddressFacts> {
    let header: &[u8; ADDRESS_HEADER] = payload.first_chunk()?;
    let index = word(header, 4)?;
    let mut flags = u32::from(header[2]);
    let mut local = None;
    let mut network = None;
    for (kind, value) in attributes(payload.get(ADDRESS_HEADER..)?) {
        match kind {
            libc::IFA_LOCAL => local = ip(value),
            libc::IFA_ADDRESS => network = ip(value),
            // The header has room for eight of the flags only.
            libc::IFA_FLAGS => flags = word(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    // IPv6 addresses without another end have no IFA_LOCAL.
    let network = network.or(local)?;
    Some(AddressFacts {
        index,
        local: local.unwrap_or(network),
        network,
        len: header[1],
        flags,
    })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    if let Ok(v4) = <[u8; 4]>::try_from(value) {
        return Some(Ipv4Addr::from(v4).into());
    }
    let v6 = <[u8; 16]>::try_from(value).ok()?;
    Some(Ipv6Addr::from(v6).into())
}

/// Attributes up to the first that is malformed.
fn attributes(octets: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    NlasIterator::new(octets).map_while(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute.ok()?;
        let (kind, length) = (attribute.kind(), attribute.value_length());
        let value = attribute
            .into_inner()
            .get(ATTRIBUTE_HEADER..)?
            .get(..length)?;
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len() + 4).unwrap();
        let mut out = [length.to_ne_bytes(), kind.to_ne_bytes()].concat();
        out.extend(value);
        out.resize(out.len().next_multiple_of(4), 0);
        out
    }

    fn link_message(family: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
        let mut out = vec![family, 0, 1, 0];
        out.extend(7_u32.to_ne_bytes());
        out.extend(0x1_1043_u32.to_ne_bytes());
        out.extend(0_u32.to_ne_bytes());
        out.extend(attributes.concat());
        out
    }

    #[test]
    fn an_interface_is_its_index_flags_name_and_address() {
        let message = link_message(
            0,
            &[
                attribute(libc::IFLA_IFNAME, b"eth1\0"),
                attribute(999, &[1, 2, 3]),
                attribute(IFLA_CARRIER_CHANGES, &5_u32.to_ne_bytes()),
                attribute(libc::IFLA_ADDRESS, &[2, 0, 0, 0, 0, 1]),
            ],
        );
        let expected = LinkFacts {
            index: 7,
            flags: 0x1_1043,
            name: "eth1".into(),
            link_layer: Some([2, 0, 0, 0, 0, 1]),
            carrier_changes: 5,
        };
        let heard = change(libc::RTM_NEWLINK, &message);
        assert_eq!(heard, Some(Change::Link(expected)));
        let gone = change(libc::RTM_DELLINK, &message);
        assert_eq!(gone, Some(Change::LinkGone(7)));
    }

    #[test]
    fn a_port_that_leaves_its_bridge_is_not_gone() {
        let bridge = u8::try_from(libc::AF_BRIDGE).unwrap();
        let message = link_message(bridge, &[attribute(libc::IFLA_IFNAME, b"eth1\0")]);
        assert_eq!(change(libc::RTM_DELLINK, &message), None);
        assert_eq!(change(libc::RTM_NEWLINK, &message), None);
    }

    #[test]
    fn a_point_to_point_address_has_its_prefix_at_the_other_end() {
        let mut message = vec![2, 31, 0x80, 0];
        message.extend(7_u32.to_ne_bytes());
        message.extend(attribute(libc::IFA_ADDRESS, &[10, 0, 0, 1]));
        message.extend(attribute(libc::IFA_LOCAL, &[10, 0, 0, 0]));
        message.extend(attribute(libc::IFA_FLAGS, &0x280_u32.to_ne_bytes()));
        let expected = AddressFacts {
            index: 7,
            local: "10.0.0.0".parse().unwrap(),
            network: "10.0.0.1".parse().unwrap(),
            len: 31,
            flags: 0x280,
        };
        let heard = change(libc::RTM_NEWADDR, &message);
        assert_eq!(heard, Some(Change::Address(expected)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn any_datagram_ends(octets in proptest::collection::vec(any::<u8>(), 0..300)) {
            for frame in Frames(&octets) {
                let _ = change(frame.kind, frame.payload);
            }
            for kind in [libc::RTM_NEWLINK, libc::RTM_DELLINK, libc::RTM_NEWADDR] {
                let _ = change(kind, &octets);
            }
        }
    }
}
