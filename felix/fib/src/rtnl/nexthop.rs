//! Next-hop objects (`linux/nexthop.h`), which `netlink-packet-route` does not know.

use std::net::IpAddr;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, NlasIterator, emit_u32, parse_ip, parse_u32,
};

pub(crate) const RTM_NEWNEXTHOP: u16 = 104;
pub(crate) const RTM_DELNEXTHOP: u16 = 105;
pub(crate) const RTM_GETNEXTHOP: u16 = 106;

const NHA_ID: u16 = 1;
const NHA_GROUP: u16 = 2;
const NHA_OIF: u16 = 5;
const NHA_GATEWAY: u16 = 6;

/// `struct nhmsg`.
const HEADER_OCTETS: usize = 8;
/// `struct nexthop_grp`.
const MEMBER_OCTETS: usize = 8;

/// A next-hop object: either a gateway on an interface, or a group of other objects.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NexthopMessage {
    /// `AF_INET`, `AF_INET6`, or `AF_UNSPEC` for groups.
    pub(crate) family: u8,
    /// Who made it, in the number space of route protocols.
    pub(crate) protocol: u8,
    /// `RTNH_F_*`.
    pub(crate) flags: u32,
    /// The object's number, unique in the namespace.
    pub(crate) id: Option<u32>,
    /// Gateway, of `family`.
    pub(crate) gateway: Option<IpAddr>,
    /// Interface index.
    pub(crate) interface: Option<u32>,
    /// Numbers of a group's members; empty for a single next hop.
    pub(crate) members: Vec<u32>,
}

impl NexthopMessage {
    /// Reads an object; attributes of no use to us are passed over.
    pub(crate) fn parse(octets: &[u8]) -> Result<Self, DecodeError> {
        let header = octets
            .get(..HEADER_OCTETS)
            .ok_or_else(|| DecodeError::from("next-hop header is cut short"))?;
        let mut message = Self {
            family: header[0],
            protocol: header[2],
            flags: parse_u32(&header[4..8])?,
            ..Self::default()
        };
        for attribute in NlasIterator::new(&octets[HEADER_OCTETS..]) {
            let attribute = attribute?;
            let value = attribute.value();
            match attribute.kind() {
                NHA_ID => message.id = Some(parse_u32(value)?),
                NHA_OIF => message.interface = Some(parse_u32(value)?),
                NHA_GATEWAY => message.gateway = Some(parse_ip(value)?),
                NHA_GROUP => {
                    for member in value.chunks_exact(MEMBER_OCTETS) {
                        message.members.push(parse_u32(&member[..4])?);
                    }
                }
                _ => {}
            }
        }
        Ok(message)
    }

    fn attributes(&self) -> Vec<DefaultNla> {
        let number = |kind, value: u32| DefaultNla::new(kind, value.to_ne_bytes().to_vec());
        let mut list = Vec::new();
        list.extend(self.id.map(|id| number(NHA_ID, id)));
        if !self.members.is_empty() {
            let mut value = vec![0; self.members.len() * MEMBER_OCTETS];
            for (slot, member) in value.chunks_exact_mut(MEMBER_OCTETS).zip(&self.members) {
                // The weight, minus one, stays zero: all members are equal.
                emit_u32(&mut slot[..4], *member).expect("a member's slot holds its number");
            }
            list.push(DefaultNla::new(NHA_GROUP, value));
        }
        list.extend(self.interface.map(|index| number(NHA_OIF, index)));
        list.extend(self.gateway.map(|gateway| {
            let value = match gateway {
                IpAddr::V4(address) => address.octets().to_vec(),
                IpAddr::V6(address) => address.octets().to_vec(),
            };
            DefaultNla::new(NHA_GATEWAY, value)
        }));
        list
    }
}

impl Emitable for NexthopMessage {
    fn buffer_len(&self) -> usize {
        HEADER_OCTETS + self.attributes().as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        let (header, rest) = buffer.split_at_mut(HEADER_OCTETS);
        header.fill(0);
        header[0] = self.family;
        header[2] = self.protocol;
        header[4..8].copy_from_slice(&self.flags.to_ne_bytes());
        self.attributes().as_slice().emit(rest);
    }
}
