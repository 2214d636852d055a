//! Runs of prefixes (RFC 4271 §4.3): a length in bits, then as many octets as hold them.
//!
//! Written by hand because every route of a table passes through these two loops.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;

use crate::types::{Family, Nlri, PathId, Prefix};

/// A run that does not parse; RFC 7606 §5.3 leaves no choice but to end the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedNlri;

/// Reads the whole of `input` as prefixes of `family`, each behind its path identifier where
/// `with_ids` (RFC 7911 §3). Bits beyond a prefix's length are irrelevant (RFC 4271 §4.3) and
/// cleared.
pub(super) fn decode(
    input: &[u8],
    family: Family,
    with_ids: bool,
) -> Result<Vec<Nlri>, MalformedNlri> {
    // One loop for each form, so that what does not change within a run is not asked about in it.
    match (family, with_ids) {
        (Family::Ipv4Unicast, false) => run(input, no_id, ipv4),
        (Family::Ipv4Unicast, true) => run(input, path_id, ipv4),
        (Family::Ipv6Unicast, false) => run(input, no_id, ipv6),
        (Family::Ipv6Unicast, true) => run(input, path_id, ipv6),
    }
}

fn ipv4(octets: [u8; 4], len: u8) -> Option<Prefix> {
    Prefix::v4(Ipv4Addr::from(octets), len)
}

fn ipv6(octets: [u8; 16], len: u8) -> Option<Prefix> {
    Prefix::v6(Ipv6Addr::from(octets), len)
}

fn no_id(input: &[u8]) -> Option<(PathId, &[u8])> {
    Some((PathId::default(), input))
}

fn path_id(input: &[u8]) -> Option<(PathId, &[u8])> {
    let (octets, tail) = input.split_first_chunk()?;
    Some((PathId(u32::from_be_bytes(*octets)), tail))
}

fn run<I, P, const WIDTH: usize>(
    mut input: &[u8],
    id: I,
    prefix: P,
) -> Result<Vec<Nlri>, MalformedNlri>
where
    I: Fn(&[u8]) -> Option<(PathId, &[u8])>,
    P: Fn([u8; WIDTH], u8) -> Option<Prefix>,
{
    // A /24 takes four octets and a /48 seven: a guess that spares most runs a second allocation.
    let mut nlri = Vec::with_capacity(input.len().div_ceil(WIDTH / 4 + 3));
    while !input.is_empty() {
        let (id, tail) = id(input).ok_or(MalformedNlri)?;
        let (len, tail) = tail.split_first().ok_or(MalformedNlri)?;
        let octets = usize::from(len.div_ceil(8));
        // Where a whole address would fit, it is read, and what is no part of the prefix cleared
        // with the rest of the host bits: one load instead of a copy of unknown length.
        let (address, tail) = match tail.first_chunk::<WIDTH>() {
            Some(whole) if octets <= WIDTH => (*whole, &tail[octets..]),
            _ => {
                let (significant, tail) = tail.split_at_checked(octets).ok_or(MalformedNlri)?;
                (padded(significant).ok_or(MalformedNlri)?, tail)
            }
        };
        let prefix = prefix(address, *len).ok_or(MalformedNlri)?;
        nlri.push(Nlri { prefix, id });
        input = tail;
    }
    Ok(nlri)
}

/// Appends a run of paths that takes `length` octets, with their identifiers where `with_ids`.
pub(super) fn encode(nlri: &[Nlri], length: usize, with_ids: bool, out: &mut BytesMut) {
    let end = out.len() + length;
    let mut at = out.len();
    // Room is asked for once, and for one address more: each is written whole, as a store of known
    // length, and what is no part of the prefix is written over by the next.
    out.resize(end + 16, 0);
    for path in nlri {
        if with_ids {
            at = put(out, at, path.id.0.to_be_bytes(), 4);
        }
        let len = path.prefix.len();
        at = put(out, at, [len], 1);
        let octets = usize::from(len.div_ceil(8));
        at = match path.prefix.addr() {
            IpAddr::V4(address) => put(out, at, address.octets(), octets),
            IpAddr::V6(address) => put(out, at, address.octets(), octets),
        };
    }
    debug_assert_eq!(at, end, "the caller has added up the run");
    out.truncate(end);
}

/// Writes `octets` at `at`, of which the first `count` count; where the next go.
fn put<const N: usize>(out: &mut [u8], at: usize, octets: [u8; N], count: usize) -> usize {
    out[at..at + N].copy_from_slice(&octets);
    at + count
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
