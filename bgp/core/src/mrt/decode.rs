//! Octets to records, for those who check what is dumped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use nom::bytes::complete::take;
use nom::combinator::{all_consuming, map, map_res};
use nom::multi::{count, length_count, length_data};
use nom::number::complete::{be_u8, be_u16, be_u32, be_u128};
use nom::{IResult, Parser};

use crate::fsm::State;
use crate::mrt::{
    MessageForm, PeerEntry, PeerTable, Record, RibEntries, RibPath, STATES, Session, dump_subtype,
    record_type, trace_subtype,
};
use crate::types::{Asn, Family, NextHop, PathId, PeerKind, Prefix, RouterId};
use crate::wire::{AttributeCode, DecodeContext, PathAttributes, UpdateOutcome, decode_update};

/// What is no MRT record, or not one of those that this speaker writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed;

const HEADER_LEN: usize = 12;

type Parsed<'a, T> = IResult<&'a [u8], T>;

/// Takes the first record out of `buffer`; `None` until the whole of it is there.
///
/// # Errors
/// [`Malformed`]; what follows the record may still be good.
pub fn decode(buffer: &mut BytesMut) -> Result<Option<Record>, Malformed> {
    let Some(header) = buffer.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    let [s0, s1, s2, s3, k0, k1, b0, b1, l0, l1, l2, l3] = *header;
    let seconds = Duration::from_secs(u32::from_be_bytes([s0, s1, s2, s3]).into());
    let kind = u16::from_be_bytes([k0, k1]);
    let subtype = u16::from_be_bytes([b0, b1]);
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).map_err(|_| Malformed)?;
    if buffer.len() - HEADER_LEN < length {
        return Ok(None);
    }
    buffer.advance(HEADER_LEN);
    let body = buffer.split_to(length).freeze();
    let record = match kind {
        record_type::TABLE_DUMP_V2 => dump(seconds, subtype, &body),
        record_type::BGP4MP_ET => trace(seconds, subtype, &body),
        _ => None,
    };
    record.map(Some).ok_or(Malformed)
}

fn dump(time: Duration, subtype: u16, body: &[u8]) -> Option<Record> {
    let (family, with_ids) = match subtype {
        dump_subtype::PEER_INDEX_TABLE => {
            let (_, peers) = all_consuming(peers).parse(body).ok()?;
            return Some(Record::Peers { time, peers });
        }
        dump_subtype::RIB_IPV4_UNICAST => (Family::Ipv4Unicast, false),
        dump_subtype::RIB_IPV6_UNICAST => (Family::Ipv6Unicast, false),
        dump_subtype::RIB_IPV4_UNICAST_ADDPATH => (Family::Ipv4Unicast, true),
        dump_subtype::RIB_IPV6_UNICAST_ADDPATH => (Family::Ipv6Unicast, true),
        _ => return None,
    };
    let head: Parsed<'_, _> = (be_u32, be_u8).parse(body);
    let (rest, (sequence, length)) = head.ok()?;
    let (octets, rest) = rest.split_at_checked(length.div_ceil(8).into())?;
    let prefix = prefix(family, octets, length)?;
    let path = (be_u16, be_u32, cond_id(with_ids), length_data(be_u16));
    let paths: Parsed<'_, _> = all_consuming(length_count(be_u16, path)).parse(rest);
    let (_, paths) = paths.ok()?;
    let path = |(peer, seconds, id, attributes): (u16, u32, u32, &[u8])| {
        let (attributes, next_hop) = read_attributes(attributes, prefix)?;
        Some(RibPath {
            peer,
            time: Duration::from_secs(seconds.into()),
            id: PathId(id),
            next_hop,
            attributes: Arc::new(attributes),
        })
    };
    let rib = RibEntries {
        sequence,
        prefix,
        with_ids,
        paths: paths.into_iter().map(path).collect::<Option<_>>()?,
    };
    Some(Record::Rib { time, rib })
}

fn cond_id<'a>(
    with_ids: bool,
) -> impl Parser<&'a [u8], Output = u32, Error = nom::error::Error<&'a [u8]>> {
    map(
        take(if with_ids { 4_usize } else { 0 }),
        |octets: &[u8]| {
            octets
                .iter()
                .fold(0, |id, octet| id << 8 | u32::from(*octet))
        },
    )
}

fn prefix(family: Family, octets: &[u8], length: u8) -> Option<Prefix> {
    let mut address = [0; 16];
    address.get_mut(..octets.len())?.copy_from_slice(octets);
    match family {
        Family::Ipv4Unicast => {
            let [a, b, c, d, ..] = address;
            Prefix::v4(Ipv4Addr::new(a, b, c, d), length)
        }
        Family::Ipv6Unicast => Prefix::v6(Ipv6Addr::from(address), length),
    }
}

fn peers(input: &[u8]) -> Parsed<'_, PeerTable> {
    let (input, collector) = be_u32(input)?;
    let view = map_res(length_data(be_u16), str::from_utf8);
    let (input, view) = map(view, str::to_owned).parse(input)?;
    let (input, peers) = length_count(be_u16, peer).parse(input)?;
    let table = PeerTable {
        collector: RouterId(collector),
        view,
        peers,
    };
    Ok((input, table))
}

fn peer(input: &[u8]) -> Parsed<'_, PeerEntry> {
    let (input, (kind, router_id)) = (be_u8, be_u32).parse(input)?;
    let (input, address) = address(input, kind & 1 != 0)?;
    let (input, asn) = asn(input, kind & 2 != 0)?;
    let entry = PeerEntry {
        router_id: RouterId(router_id),
        address,
        asn,
    };
    Ok((input, entry))
}

fn address(input: &[u8], ipv6: bool) -> Parsed<'_, IpAddr> {
    if ipv6 {
        return map(be_u128, |bits| Ipv6Addr::from_bits(bits).into()).parse(input);
    }
    map(be_u32, |bits| Ipv4Addr::from_bits(bits).into()).parse(input)
}

fn asn(input: &[u8], four_octet_as: bool) -> Parsed<'_, Asn> {
    if four_octet_as {
        return map(be_u32, Asn).parse(input);
    }
    map(be_u16, |asn| Asn(asn.into())).parse(input)
}

/// Reads attributes by making an UPDATE of them.
fn read_attributes(octets: &[u8], prefix: Prefix) -> Option<(PathAttributes, NextHop)> {
    let (afi, octets_of) = match prefix.addr() {
        IpAddr::V4(address) => (1, address.octets().to_vec()),
        IpAddr::V6(address) => (2, address.octets().to_vec()),
    };
    let mut nlri = vec![prefix.len()];
    nlri.extend_from_slice(octets_of.get(..prefix.len().div_ceil(8).into())?);
    let mut attributes = Vec::new();
    let mut rest = octets;
    let mut classic = true;
    while let [flags, code, tail @ ..] = rest {
        let extended = flags & 0x10 != 0;
        let parsed: Parsed<'_, &[u8]> = if extended {
            length_data(be_u16).parse(tail)
        } else {
            length_data(be_u8).parse(tail)
        };
        let (tail, value) = parsed.ok()?;
        if *code == u8::from(AttributeCode::MpReach) {
            classic = false;
            // From the next hop alone to the whole attribute.
            let mut whole = vec![0, afi, 1];
            whole.extend_from_slice(value);
            whole.push(0);
            whole.extend_from_slice(&nlri);
            attributes.extend_from_slice(&[0x90, *code]);
            attributes.extend_from_slice(&u16::try_from(whole.len()).ok()?.to_be_bytes());
            attributes.append(&mut whole);
        } else {
            attributes.extend_from_slice(&rest[..rest.len() - tail.len()]);
        }
        rest = tail;
    }
    rest.is_empty().then_some(())?;
    // The classic NEXT_HOP speaks of IPv4 prefixes only.
    (!classic || afi == 1).then_some(())?;
    let mut body = vec![0, 0];
    body.extend_from_slice(&u16::try_from(attributes.len()).ok()?.to_be_bytes());
    body.append(&mut attributes);
    if classic {
        body.append(&mut nlri);
    }
    let context = DecodeContext {
        extended_next_hop: true,
        ..DecodeContext::new(PeerKind::Internal)
    };
    match decode_update(&body, &context) {
        UpdateOutcome::Valid(mut update) => {
            let next_hop = update.reach.pop()?.next_hop;
            Some((update.attributes?, next_hop))
        }
        _ => None,
    }
}

fn trace(seconds: Duration, subtype: u16, body: &Bytes) -> Option<Record> {
    let micros: Parsed<'_, u32> = be_u32(&body[..]);
    let (rest, micros) = micros.ok()?;
    (micros < 1_000_000).then_some(())?;
    let time = seconds + Duration::from_micros(micros.into());
    if subtype == trace_subtype::STATE_CHANGE_AS4 {
        let (rest, session) = session(rest, true).ok()?;
        let states: Parsed<'_, _> = all_consuming((be_u16, be_u16)).parse(rest);
        let (_, (from, to)) = states.ok()?;
        return Some(Record::StateChange {
            time,
            session,
            from: state(from)?,
            to: state(to)?,
        });
    }
    let mut forms = trace_subtype::MESSAGES.iter();
    let form: MessageForm = forms.find_map(|(of, form)| (*of == subtype).then_some(*form))?;
    let (message, session) = session(rest, form.four_octet_as).ok()?;
    Some(Record::Message {
        time,
        session,
        form,
        message: body.slice_ref(message),
    })
}

fn session(input: &[u8], four_octet_as: bool) -> Parsed<'_, Session> {
    let (input, peer_asn) = asn(input, four_octet_as)?;
    let (input, local_asn) = asn(input, four_octet_as)?;
    let (input, (interface, afi)) = (be_u16, be_u16).parse(input)?;
    let (input, addresses) = count(|input| address(input, afi == 2), 2).parse(input)?;
    let session = Session {
        peer_asn,
        local_asn,
        interface,
        peer: addresses[0],
        local: addresses[1],
    };
    Ok((input, session))
}

fn state(number: u16) -> Option<State> {
    let mut states = STATES.iter();
    states.find_map(|(state, of)| (*of == number).then_some(*state))
}
