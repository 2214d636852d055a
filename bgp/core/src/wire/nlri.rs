//! Runs of prefixes (RFC 4271 §4.3): a length in bits, then as many octets as hold them.
//!
//! Written by hand because every route of a table passes through these two loops.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use crate::types::{Family, Nlri, PathId, Prefix};

/// A run that does not parse; RFC 7606 §5.3 leaves no choice but to end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedNlri;

/// Reads the whole of `input` as prefixes of `family`, each behind its path identifier where
/// `with_ids` (RFC 7911 §3). Bits beyond a prefix's length are irrelevant (RFC 4271 §4.3) and
/// cleared.
pub(super) fn decode(
    mut input: &[u8],
    family: Family,
    with_ids: bool,
) -> Result<Vec<Nlri>, MalformedNlri> {
    // A /24 takes four octets: a guess that spares most runs a second allocation.
    let mut nlri = Vec::with_capacity(input.len() / if with_ids { 8 } else { 4 } + 1);
    while !input.is_empty() {
        let mut id = PathId::default();
        if with_ids {
            let (octets, tail) = input.split_first_chunk().ok_or(MalformedNlri)?;
            id = PathId(u32::from_be_bytes(*octets));
            input = tail;
        }
        let (len, tail) = input.split_first().ok_or(MalformedNlri)?;
        let octets = usize::from(len.div_ceil(8));
        let (significant, tail) = tail.split_at_checked(octets).ok_or(MalformedNlri)?;
        let prefix = match family {
            Family::Ipv4Unicast => padded(significant)
                .and_then(|address: [u8; 4]| Prefix::v4(Ipv4Addr::from(address), *len)),
            Family::Ipv6Unicast => padded(significant)
                .and_then(|address: [u8; 16]| Prefix::v6(Ipv6Addr::from(address), *len)),
        };
        let prefix = prefix.ok_or(MalformedNlri)?;
        nlri.push(Nlri { prefix, id });
        input = tail;
    }
    Ok(nlri)
}

/// Writes one path, with its identifier where `with_ids`.
pub(super) fn encode(nlri: &Nlri, with_ids: bool, out: &mut BytesMut) {
    if with_ids {
        out.put_u32(nlri.id.0);
    }
    let prefix = &nlri.prefix;
    let octets = usize::from(prefix.len().div_ceil(8));
    out.put_u8(prefix.len());
    match prefix.addr() {
        std::net::IpAddr::V4(address) => out.put_slice(&address.octets()[..octets]),
        std::net::IpAddr::V6(address) => out.put_slice(&address.octets()[..octets]),
    }
}

/// Octets that a path takes in a run.
pub(super) fn encoded_len(nlri: &Nlri, with_ids: bool) -> usize {
    let id = if with_ids { 4 } else { 0 };
    id + 1 + usize::from(nlri.prefix.len().div_ceil(8))
}

/// Octets that the longest path of `family` takes.
pub(super) fn longest(family: Family, with_ids: bool) -> usize {
    let id = if with_ids { 4 } else { 0 };
    id + 1 + usize::from(family.address_bits() / 8)
}

fn padded<const N: usize>(significant: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address
        .get_mut(..significant.len())?
        .copy_from_slice(significant);
    Some(address)
}
