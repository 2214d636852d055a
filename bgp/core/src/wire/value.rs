//! Values of single path attributes, as their octets say.
//!
//! Each reader takes the whole value and answers with the meaning or with the [`Problem`]; what
//! that costs is decided by the caller.

use std::net::{Ipv4Addr, Ipv6Addr};

use nom::multi::{length_data, many0};
use nom::number::complete::{be_u8, be_u16};
use nom::{IResult, Parser};

use crate::types::{Asn, Family, NextHop, Nlri, RouterId};
use crate::wire::attributes::{
    Aggregator, AsPath, Community, ExtendedCommunity, LargeCommunity, Origin, SortedSet,
};
use crate::wire::fault::Problem;
use crate::wire::iana::{AfiSafi, AttributeCode};
use crate::wire::nlri;

/// Segment types of AS paths (RFC 4271 §4.3, RFC 5065 §3).
const AS_SET: u8 = 1;
const AS_SEQUENCE: u8 = 2;
const AS_CONFED_SEQUENCE: u8 = 3;
const AS_CONFED_SET: u8 = 4;

/// MP_REACH_NLRI without its family's code points.
pub(super) struct MpReach {
    pub(super) family: Family,
    /// `None` when the address cannot be a next hop: the routes are of no use, the session is.
    pub(super) next_hop: Option<NextHop>,
    pub(super) nlri: Vec<Nlri>,
}

pub(super) fn origin(value: &[u8]) -> Result<Origin, Problem> {
    match value {
        [0] => Ok(Origin::Igp),
        [1] => Ok(Origin::Egp),
        [2] => Ok(Origin::Incomplete),
        [_] => Err(Problem::Value),
        _ => Err(Problem::Length(value.len())),
    }
}

/// AS_PATH (RFC 7606 §7.2).
pub(super) fn as_path(value: &[u8], four_octet_as: bool) -> Result<AsPath, Problem> {
    sequence(value, four_octet_as, |kind| match kind {
        AS_CONFED_SEQUENCE => Err(Problem::Confederation),
        _ => Err(Problem::Value),
    })
}

/// AS4_PATH, where segments of confederations are skipped (RFC 6793 §6).
pub(super) fn as4_path(value: &[u8]) -> Result<AsPath, Problem> {
    if value.is_empty() {
        // RFC 6793 §6: unlike AS_PATH, too small for one number.
        return Err(Problem::Length(0));
    }
    sequence(value, true, |kind| match kind {
        AS_CONFED_SEQUENCE => Ok(()),
        _ => Err(Problem::Value),
    })
}

/// The numbers of all AS_SEQUENCE segments; `other` judges segments that are neither sequences nor
/// sets.
fn sequence(
    value: &[u8],
    four_octet_as: bool,
    other: impl Fn(u8) -> Result<(), Problem>,
) -> Result<AsPath, Problem> {
    let width = if four_octet_as { 4 } else { 2 };
    let mut rest = value;
    let mut path = AsPath::default();
    while let Some((kind, members, tail)) = segment(rest, width)? {
        match kind {
            // Nearly every path is one segment: it is read into its final place.
            AS_SEQUENCE if path.is_empty() => path = asns(members, width).collect(),
            AS_SEQUENCE => {
                path = path
                    .asns()
                    .iter()
                    .copied()
                    .chain(asns(members, width))
                    .collect()
            }
            // RFC 9774 §3.
            AS_SET | AS_CONFED_SET => return Err(Problem::AsSet),
            _ => other(kind)?,
        }
        rest = tail;
    }
    if path.contains(Asn::ZERO) {
        return Err(Problem::AsZero);
    }
    Ok(path)
}

/// A segment of a path: its type, its numbers, and what follows it.
type Segment<'a> = (u8, &'a [u8], &'a [u8]);

/// The first segment of `value`, of which each number takes `width` octets.
fn segment(value: &[u8], width: usize) -> Result<Option<Segment<'_>>, Problem> {
    let (kind, count, tail) = match value {
        [] => return Ok(None),
        // RFC 7606 §7.2: an empty segment is malformed.
        [_, 0, ..] => return Err(Problem::Value),
        [kind, count, tail @ ..] => (*kind, *count, tail),
        [_] => return Err(Problem::Length(value.len())),
    };
    let (members, tail) = tail
        .split_at_checked(usize::from(count) * width)
        .ok_or(Problem::Length(value.len()))?;
    Ok(Some((kind, members, tail)))
}

fn asns(members: &[u8], width: usize) -> impl ExactSizeIterator<Item = Asn> {
    members.chunks_exact(width).map(|octets| {
        Asn(match octets {
            [a, b, c, d] => u32::from_be_bytes([*a, *b, *c, *d]),
            _ => octets
                .iter()
                .fold(0, |number, octet| number << 8 | u32::from(*octet)),
        })
    })
}

/// NEXT_HOP (RFC 7606 §7.3; RFC 4271 §6.3 asks for a valid host address).
pub(super) fn next_hop(value: &[u8]) -> Result<NextHop, Problem> {
    let address = Ipv4Addr::from(exactly::<4>(value)?);
    if !is_host_v4(address) {
        return Err(Problem::Value);
    }
    Ok(NextHop::V4(address))
}

pub(super) fn number(value: &[u8]) -> Result<u32, Problem> {
    Ok(u32::from_be_bytes(exactly(value)?))
}

pub(super) fn router_id(value: &[u8]) -> Result<RouterId, Problem> {
    number(value).map(RouterId)
}

/// An attribute whose presence is its meaning.
pub(super) fn empty(value: &[u8]) -> Result<bool, Problem> {
    exactly::<0>(value).map(|_| true)
}

/// AGGREGATOR and AS4_AGGREGATOR.
pub(super) fn aggregator(value: &[u8], four_octet_as: bool) -> Result<Aggregator, Problem> {
    let wrong_length = Problem::Length(value.len());
    let (asn, router) = if four_octet_as {
        let (asn, router) = value.split_first_chunk().ok_or(wrong_length)?;
        (Asn(u32::from_be_bytes(*asn)), router)
    } else {
        let (asn, router) = value.split_first_chunk().ok_or(wrong_length)?;
        (Asn(u16::from_be_bytes(*asn).into()), router)
    };
    let router = Ipv4Addr::from(exactly::<4>(router).map_err(|_| Problem::Length(value.len()))?);
    if asn == Asn::ZERO {
        return Err(Problem::AsZero);
    }
    Ok(Aggregator { asn, router })
}

pub(super) fn communities(value: &[u8]) -> Result<SortedSet<Community>, Problem> {
    list(value, |octets| Community(u32::from_be_bytes(octets))).map(SortedSet::from)
}

pub(super) fn ext_communities(value: &[u8]) -> Result<SortedSet<ExtendedCommunity>, Problem> {
    list(value, ExtendedCommunity).map(SortedSet::from)
}

pub(super) fn large_communities(value: &[u8]) -> Result<SortedSet<LargeCommunity>, Problem> {
    let large = |octets: [u8; 12]| {
        let part = |at: usize| {
            u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
        };
        LargeCommunity {
            global: part(0),
            local1: part(4),
            local2: part(8),
        }
    };
    list(value, large).map(SortedSet::from)
}

/// CLUSTER_LIST, whose order matters.
pub(super) fn cluster_list(value: &[u8]) -> Result<Box<[RouterId]>, Problem> {
    list(value, |octets| RouterId(u32::from_be_bytes(octets))).map(Vec::into_boxed_slice)
}

/// Only to Customer (RFC 9234 §5). AS 0 is nobody's (RFC 7607).
pub(super) fn only_to_customer(value: &[u8]) -> Result<Asn, Problem> {
    match number(value)? {
        0 => Err(Problem::AsZero),
        number => Ok(Asn(number)),
    }
}

/// The form of attributes that are carried or dropped without being read.
pub(super) fn carried(code: AttributeCode, value: &[u8]) -> Result<(), Problem> {
    match code {
        // RFC 7606 §4: an attribute that is not said to may not be empty.
        AttributeCode::Aigp | AttributeCode::PrefixSid | AttributeCode::LinkState
            if value.is_empty() =>
        {
            Err(Problem::Length(0))
        }
        // RFC 7606 §7.15.
        AttributeCode::Ipv6ExtCommunities => list(value, |octets: [u8; 20]| octets).map(|_| ()),
        // RFC 7311 §3: a TLV's length counts its own three octets.
        AttributeCode::Aigp => whole(many0(aigp_tlv).parse(value)),
        // RFC 8669 §3.
        AttributeCode::PrefixSid => whole(many0((be_u8, length_data(be_u16))).parse(value)),
        // RFC 9552 §5.3.
        AttributeCode::LinkState => whole(many0((be_u16, length_data(be_u16))).parse(value)),
        _ => Ok(()),
    }
}

/// The family at the head of a multiprotocol attribute, and what follows.
pub(super) fn afi_safi(value: &[u8]) -> Result<(AfiSafi, &[u8]), Problem> {
    let [afi_high, afi_low, safi, content @ ..] = value else {
        return Err(Problem::Length(value.len()));
    };
    let afi = u16::from_be_bytes([*afi_high, *afi_low]);
    Ok((AfiSafi { afi, safi: *safi }, content))
}

/// How a family's MP_REACH_NLRI is written on a session.
#[derive(Clone, Copy)]
pub(super) struct MpForm {
    /// Paths carry identifiers (RFC 7911).
    pub(super) with_ids: bool,
    /// The next hop may be of IPv6 where the prefixes are of IPv4 (RFC 8950).
    pub(super) extended_next_hop: bool,
}

/// What follows the family in MP_REACH_NLRI (RFC 4760 §3). An error costs the session.
pub(super) fn mp_reach(content: &[u8], family: Family, form: MpForm) -> Result<MpReach, Problem> {
    let wrong_length = || Problem::Length(content.len());
    let (length, tail) = content.split_first().ok_or_else(wrong_length)?;
    let (next_hop, tail) = tail
        .split_at_checked(usize::from(*length))
        .ok_or_else(wrong_length)?;
    let (_reserved, paths) = tail.split_first().ok_or_else(wrong_length)?;
    let next_hop = match family {
        // RFC 8950 §3: the length tells which family the next hop is of.
        Family::Ipv4Unicast if next_hop.len() == 4 || !form.extended_next_hop => {
            let address = Ipv4Addr::from(exactly::<4>(next_hop)?);
            is_host_v4(address).then_some(NextHop::V4(address))
        }
        _ => next_hop_v6(next_hop)?,
    };
    let nlri = nlri::decode(paths, family, form.with_ids).map_err(|_| Problem::Value)?;
    Ok(MpReach {
        family,
        next_hop,
        nlri,
    })
}

/// RFC 2545 §3: a global address, or that and a link-local one.
fn next_hop_v6(octets: &[u8]) -> Result<Option<NextHop>, Problem> {
    let (global, tail) = octets
        .split_first_chunk::<16>()
        .ok_or(Problem::Length(octets.len()))?;
    let global = Ipv6Addr::from(*global);
    let link_local = match tail {
        [] => None,
        _ => Some(Ipv6Addr::from(exactly::<16>(tail)?)).filter(Ipv6Addr::is_unicast_link_local),
    };
    let usable = !(global.is_unspecified() || global.is_loopback() || global.is_multicast());
    Ok(match link_local {
        _ if usable => Some(NextHop::V6 { global, link_local }),
        // Some speakers with nothing but a link-local address leave the global half zero.
        Some(link_local) if global.is_unspecified() => Some(NextHop::V6 {
            global: link_local,
            link_local: None,
        }),
        _ => None,
    })
}

fn is_host_v4(address: Ipv4Addr) -> bool {
    // 0/8 is "this network"; 224/4 multicast and 240/4 reserved, broadcast included.
    !(address.octets()[0] == 0 || address.is_loopback() || address.octets()[0] >= 224)
}

fn exactly<const N: usize>(value: &[u8]) -> Result<[u8; N], Problem> {
    value.try_into().map_err(|_| Problem::Length(value.len()))
}

/// A list that is malformed when empty or when a piece is left over.
fn list<const N: usize, T>(value: &[u8], read: impl Fn([u8; N]) -> T) -> Result<Vec<T>, Problem> {
    match value.as_chunks() {
        (items, []) if !items.is_empty() => Ok(items.iter().copied().map(read).collect()),
        _ => Err(Problem::Length(value.len())),
    }
}

fn aigp_tlv(input: &[u8]) -> IResult<&[u8], &[u8]> {
    let (input, _kind) = be_u8(input)?;
    let (input, length) = be_u16(input)?;
    let content = length.checked_sub(3).map(usize::from);
    match content.and_then(|content| input.split_at_checked(content)) {
        Some((content, tail)) => Ok((tail, content)),
        None => Err(nom::Err::Error(nom::error::Error::new(
            input,
            nom::error::ErrorKind::LengthValue,
        ))),
    }
}

fn whole<T>(parsed: IResult<&[u8], T>) -> Result<(), Problem> {
    match parsed {
        Ok(([], _)) => Ok(()),
        _ => Err(Problem::Value),
    }
}
