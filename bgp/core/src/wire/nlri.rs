//! Runs of prefixes (RFC 4271 §4.3): a length in bits, then as many octets as hold them.
//!
//! Written by hand because every route of a table passes through these two loops.

use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::{BufMut, BytesMut};

use crate::types::{Family, Prefix};

/// A run that does not parse; RFC 7606 §5.3 leaves no choice but to end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedNlri;

/// Reads the whole of `input` as prefixes of `family`. Bits beyond a prefix's length are
/// irrelevant (RFC 4271 §4.3) and cleared.
pub(super) fn decode(mut input: &[u8], family: Family) -> Result<Vec<Prefix>, MalformedNlri> {
    // A /24 takes four octets: a guess that spares most runs a second allocation.
    let mut prefixes = Vec::with_capacity(input.len() / 4 + 1);
    while let Some((len, tail)) = input.split_first() {
        let octets = usize::from(len.div_ceil(8));
        let (significant, tail) = tail.split_at_checked(octets).ok_or(MalformedNlri)?;
        let prefix = match family {
            Family::Ipv4Unicast => padded(significant)
                .and_then(|address: [u8; 4]| Prefix::v4(Ipv4Addr::from(address), *len)),
            Family::Ipv6Unicast => padded(significant)
                .and_then(|address: [u8; 16]| Prefix::v6(Ipv6Addr::from(address), *len)),
        };
        prefixes.push(prefix.ok_or(MalformedNlri)?);
        input = tail;
    }
    Ok(prefixes)
}

/// Writes one prefix.
pub(super) fn encode(prefix: &Prefix, out: &mut BytesMut) {
    let octets = encoded_len(prefix) - 1;
    out.put_u8(prefix.len());
    match prefix.addr() {
        std::net::IpAddr::V4(address) => out.put_slice(&address.octets()[..octets]),
        std::net::IpAddr::V6(address) => out.put_slice(&address.octets()[..octets]),
    }
}

/// Octets that `prefix` takes in a run.
pub(super) fn encoded_len(prefix: &Prefix) -> usize {
    1 + usize::from(prefix.len().div_ceil(8))
}

fn padded<const N: usize>(significant: &[u8]) -> Option<[u8; N]> {
    let mut address = [0; N];
    address
        .get_mut(..significant.len())?
        .copy_from_slice(significant);
    Some(address)
}
