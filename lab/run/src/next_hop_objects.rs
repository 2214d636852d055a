//! The kernel's next-hop objects of a box (`linux/nexthop.h`): how many ways each stands for.
//!
//! Read by a plain netlink socket, since the route library does not know them. A route that leads to an
//! object names only its number where `net.ipv4.nexthop_compat_mode` is off.

use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, bail, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send,
    socket,
};

use crate::namespace::Namespace;

const RTM_NEWNEXTHOP: u16 = 104;
const RTM_GETNEXTHOP: u16 = 106;
const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;

/// Octets of `struct nlmsghdr`, `struct nhmsg`, `struct rtattr` and `struct nexthop_grp`.
const MESSAGE_HEADER: usize = 16;
const OBJECT_HEADER: usize = 8;
const ATTRIBUTE_HEADER: usize = 4;
const MEMBER: usize = 8;

/// By the number of each object: one for a next hop, the number of members for a group.
///
/// # Errors
/// The namespace cannot be entered, or the kernel has no next-hop objects.
pub fn ways(namespace: &Namespace) -> anyhow::Result<BTreeMap<u32, usize>> {
    namespace.run(|| dump().context("cannot read next-hop objects"))
}

fn dump() -> anyhow::Result<BTreeMap<u32, usize>> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    send(socket.as_raw_fd(), &request(), MsgFlags::empty())?;
    let mut ways = BTreeMap::new();
    let mut buffer = vec![0; 64 << 10];
    while read(&socket, &mut buffer, &mut ways)? {}
    Ok(ways)
}

fn request() -> Vec<u8> {
    let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
    let mut octets = Vec::with_capacity(MESSAGE_HEADER + OBJECT_HEADER);
    octets.extend(((MESSAGE_HEADER + OBJECT_HEADER) as u32).to_ne_bytes());
    octets.extend(RTM_GETNEXTHOP.to_ne_bytes());
    octets.extend(flags.to_ne_bytes());
    octets.resize(MESSAGE_HEADER + OBJECT_HEADER, 0);
    octets
}

/// Reads one datagram of the answer; false after the last.
fn read(
    socket: &OwnedFd,
    buffer: &mut [u8],
    ways: &mut BTreeMap<u32, usize>,
) -> anyhow::Result<bool> {
    let octets = recv(socket.as_raw_fd(), buffer, MsgFlags::MSG_TRUNC)?;
    ensure!(octets <= buffer.len(), "the kernel's answer was cut");
    for (kind, body) in Pieces::messages(&buffer[..octets]) {
        match i32::from(kind) {
            libc::NLMSG_DONE => return Ok(false),
            libc::NLMSG_ERROR => bail!("the kernel refuses"),
            _ if kind == RTM_NEWNEXTHOP => {
                let object = object(body).context("an object without a number")?;
                ways.insert(object.0, object.1);
            }
            _ => {}
        }
    }
    Ok(true)
}

fn object(body: &[u8]) -> Option<(u32, usize)> {
    let mut id = None;
    let mut ways = 1;
    for (kind, value) in Pieces::attributes(body.get(OBJECT_HEADER..)?) {
        match kind {
            NHA_ID => id = Some(u32::from_ne_bytes(value.try_into().ok()?)),
            NHA_GROUP => ways = value.len() / MEMBER,
            _ => {}
        }
    }
    Some((id?, ways))
}

/// Messages or attributes, one after the other: kind and what follows the header.
struct Pieces<'a> {
    rest: &'a [u8],
    header: usize,
}

impl<'a> Pieces<'a> {
    fn messages(rest: &'a [u8]) -> Self {
        let header = MESSAGE_HEADER;
        Self { rest, header }
    }

    fn attributes(rest: &'a [u8]) -> Self {
        let header = ATTRIBUTE_HEADER;
        Self { rest, header }
    }
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let number = |at: usize, octets: usize| {
            let field = self.rest.get(at..at + octets)?;
            let bytes = |index| field.get(index).copied().unwrap_or(0);
            Some(u32::from_ne_bytes([bytes(0), bytes(1), bytes(2), bytes(3)]))
        };
        // `nlmsghdr` begins with a length of four octets, `rtattr` with one of two.
        let wide = if self.header == MESSAGE_HEADER { 4 } else { 2 };
        let len = usize::try_from(number(0, wide)?).ok()?;
        let kind = u16::try_from(number(wide, 2)?).ok()?;
        let piece = self.rest.get(..len)?;
        let body = piece.get(self.header..)?;
        self.rest = self.rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, body))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_has_as_many_ways_as_members_and_a_next_hop_has_one() {
        let attribute = |kind: u16, value: &[u8]| {
            let mut octets = ((ATTRIBUTE_HEADER + value.len()) as u16)
                .to_ne_bytes()
                .to_vec();
            octets.extend(kind.to_ne_bytes());
            octets.extend(value);
            octets.resize(octets.len().next_multiple_of(4), 0);
            octets
        };
        let id = attribute(NHA_ID, &7u32.to_ne_bytes());
        let header = vec![0; OBJECT_HEADER];
        let gateway = [header.clone(), id.clone(), attribute(6, &[10, 0, 0, 1])].concat();
        assert_eq!(object(&gateway), Some((7, 1)));
        let group = [header.clone(), id, attribute(NHA_GROUP, &[0; 3 * MEMBER])].concat();
        assert_eq!(object(&group), Some((7, 3)));
        assert_eq!(object(&header), None);
        assert_eq!(object(&group[..5]), None);
    }
}
