//! Messages to octets.
//!
//! Owns packing: as many prefixes per UPDATE as fit, never two sets of attributes or two next hops
//! in one. Does not own what is told to whom.

use std::net::Ipv4Addr;

use bytes::{BufMut, BytesMut};

use crate::error::Error;
use crate::types::{Asn, Family, NextHop, Prefix};
use crate::wire::attributes::{Aggregator, AsPath, PathAttributes};
use crate::wire::iana::{AfiSafi, AttributeCode, MessageType, flags};
use crate::wire::message::{Message, Update};
use crate::wire::{HEADER_LEN, MAX_MESSAGE_LEN, nlri, open};

/// What the session's terms mean to the encoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EncodeContext {
    /// Whether AS numbers take four octets (RFC 6793).
    pub four_octet_as: bool,
}

const AS_SEQUENCE: u8 = 2;
/// Numbers that the count octet of a segment can announce.
const MAX_SEGMENT: usize = 255;
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
            notification.encode(out, MAX_MESSAGE_LEN - HEADER_LEN);
        }),
        Message::Keepalive => framed(MessageType::Keepalive, out, |_| {}),
        Message::RouteRefresh(refresh) => framed(MessageType::RouteRefresh, out, |out| {
            out.put_u16(refresh.family.afi);
            out.put_u8(refresh.kind.into());
            out.put_u8(refresh.family.safi);
        }),
    }
    Ok(())
}

/// Appends `update` to `out`: withdrawals, announcements, End-of-RIB, in this order.
///
/// # Errors
/// As [`announce`].
pub fn encode_update(
    update: &Update,
    context: EncodeContext,
    out: &mut BytesMut,
) -> Result<(), Error> {
    for (family, prefixes) in &update.withdrawn {
        withdraw(*family, prefixes, out);
    }
    if let Some(attributes) = &update.attributes {
        for reach in &update.reach {
            announce(
                attributes,
                &reach.next_hop,
                reach.family,
                &reach.nlri,
                context,
                out,
            )?;
        }
    }
    if let Some(family) = update.end_of_rib {
        end_of_rib(family, out);
    }
    Ok(())
}

/// Appends UPDATEs that announce `prefixes`, all of `family`.
///
/// # Errors
/// [`Error::AttributesTooLong`] when the attributes leave no room for even one prefix: the routes
/// cannot be told to this peer and have to be withdrawn from it.
pub fn announce(
    attributes: &PathAttributes,
    next_hop: &NextHop,
    family: Family,
    prefixes: &[Prefix],
    context: EncodeContext,
    out: &mut BytesMut,
) -> Result<(), Error> {
    let mut shared = BytesMut::new();
    match (family, next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(address)) => {
            encode_attributes(attributes, Some(*address), context, &mut shared);
            let room = room(shared.len(), family)?;
            for batch in batches(prefixes, room) {
                framed(MessageType::Update, out, |out| {
                    out.put_u16(0);
                    put_len(shared.len(), out);
                    out.put_slice(&shared);
                    batch.iter().for_each(|prefix| nlri::encode(prefix, out));
                });
            }
        }
        _ => {
            encode_attributes(attributes, None, context, &mut shared);
            let mut head = BytesMut::new();
            put_mp_reach_head(family, next_hop, &mut head);
            let fixed = shared.len() + LONG_ATTRIBUTE_HEADER + head.len();
            let room = room(fixed, family)?;
            for batch in batches(prefixes, room) {
                let run = run_len(batch);
                framed(MessageType::Update, out, |out| {
                    out.put_u16(0);
                    put_len(fixed + run, out);
                    // RFC 7606 §5.1: first, so that a fault behind it cannot hide the prefixes.
                    put_long_header(AttributeCode::MpReach, head.len() + run, out);
                    out.put_slice(&head);
                    batch.iter().for_each(|prefix| nlri::encode(prefix, out));
                    out.put_slice(&shared);
                });
            }
        }
    }
    Ok(())
}

/// Appends UPDATEs that withdraw `prefixes`, all of `family`.
pub fn withdraw(family: Family, prefixes: &[Prefix], out: &mut BytesMut) {
    let head = match family {
        Family::Ipv4Unicast => 0,
        Family::Ipv6Unicast => LONG_ATTRIBUTE_HEADER + 3,
    };
    let room = MAX_MESSAGE_LEN - HEADER_LEN - UPDATE_LENGTHS - head;
    for batch in batches(prefixes, room) {
        let run = run_len(batch);
        framed(MessageType::Update, out, |out| match family {
            Family::Ipv4Unicast => {
                put_len(run, out);
                batch.iter().for_each(|prefix| nlri::encode(prefix, out));
                out.put_u16(0);
            }
            Family::Ipv6Unicast => {
                out.put_u16(0);
                put_len(head + run, out);
                put_long_header(AttributeCode::MpUnreach, 3 + run, out);
                put_family(family, out);
                batch.iter().for_each(|prefix| nlri::encode(prefix, out));
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

/// Octets left for prefixes beside `fixed` octets of attributes.
fn room(fixed: usize, family: Family) -> Result<usize, Error> {
    let longest = 1 + usize::from(family.address_bits() / 8);
    (MAX_MESSAGE_LEN - HEADER_LEN - UPDATE_LENGTHS)
        .checked_sub(fixed)
        .filter(|room| *room >= longest)
        .ok_or(Error::AttributesTooLong { octets: fixed })
}

/// Cuts `prefixes` into runs of at most `room` octets; `room` holds any single prefix.
fn batches(prefixes: &[Prefix], room: usize) -> impl Iterator<Item = &[Prefix]> {
    let mut rest = prefixes;
    std::iter::from_fn(move || {
        let mut used = 0;
        let count = rest
            .iter()
            .take_while(|prefix| {
                used += nlri::encoded_len(prefix);
                used <= room
            })
            .count();
        let (batch, tail) = rest.split_at(count);
        rest = tail;
        (!batch.is_empty()).then_some(batch)
    })
}

fn run_len(batch: &[Prefix]) -> usize {
    batch.iter().map(nlri::encoded_len).sum()
}

/// Writes the header, lets `body` write the rest, and fills in the length.
fn framed(kind: MessageType, out: &mut BytesMut, body: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_bytes(0xff, 16);
    out.put_u16(0);
    out.put_u8(kind.into());
    body(out);
    let length = u16::try_from(out.len() - start).expect("bodies are cut to MAX_MESSAGE_LEN");
    out[start + 16..start + 18].copy_from_slice(&length.to_be_bytes());
}

fn put_len(length: usize, out: &mut BytesMut) {
    out.put_u16(u16::try_from(length).expect("parts of a message are shorter than the message"));
}

fn put_family(family: Family, out: &mut BytesMut) {
    let AfiSafi { afi, safi } = family.into();
    out.put_u16(afi);
    out.put_u8(safi);
}

fn put_mp_reach_head(family: Family, next_hop: &NextHop, out: &mut BytesMut) {
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

/// Everything but the multiprotocol attributes, ascending by type (RFC 4271 §5) up to those that
/// are only carried.
fn encode_attributes(
    attributes: &PathAttributes,
    next_hop: Option<Ipv4Addr>,
    context: EncodeContext,
    out: &mut BytesMut,
) {
    const WELL_KNOWN: u8 = flags::TRANSITIVE;
    const NON_TRANSITIVE: u8 = flags::OPTIONAL;
    const TRANSITIVE: u8 = flags::OPTIONAL | flags::TRANSITIVE;

    let four = context.four_octet_as;
    put(
        out,
        WELL_KNOWN,
        AttributeCode::Origin,
        &[attributes.origin as u8],
    );
    put(
        out,
        WELL_KNOWN,
        AttributeCode::AsPath,
        &segments(&attributes.as_path, four),
    );
    if let Some(address) = next_hop {
        put(out, WELL_KNOWN, AttributeCode::NextHop, &address.octets());
    }
    if let Some(med) = attributes.med {
        put(out, NON_TRANSITIVE, AttributeCode::Med, &med.to_be_bytes());
    }
    if let Some(preference) = attributes.local_pref {
        put(
            out,
            WELL_KNOWN,
            AttributeCode::LocalPref,
            &preference.to_be_bytes(),
        );
    }
    if attributes.atomic_aggregate {
        put(out, WELL_KNOWN, AttributeCode::AtomicAggregate, &[]);
    }
    if let Some(aggregator) = &attributes.aggregator {
        put(
            out,
            TRANSITIVE,
            AttributeCode::Aggregator,
            &aggregator_octets(aggregator, four),
        );
    }
    let communities = attributes
        .communities
        .iter()
        .flat_map(|c| c.0.to_be_bytes());
    put_list(out, TRANSITIVE, AttributeCode::Communities, communities);
    if let Some(originator) = attributes.originator_id {
        put(
            out,
            NON_TRANSITIVE,
            AttributeCode::OriginatorId,
            &originator.0.to_be_bytes(),
        );
    }
    let clusters = attributes
        .cluster_list
        .iter()
        .flat_map(|id| id.0.to_be_bytes());
    put_list(out, NON_TRANSITIVE, AttributeCode::ClusterList, clusters);
    let extended = attributes.ext_communities.iter().flat_map(|c| c.0);
    put_list(out, TRANSITIVE, AttributeCode::ExtCommunities, extended);
    if !four
        && attributes
            .as_path
            .asns()
            .iter()
            .any(|asn| asn.two_octet().is_none())
    {
        // RFC 6793 §4.2.2: the true numbers travel beside the ones that fit.
        put(
            out,
            TRANSITIVE,
            AttributeCode::As4Path,
            &segments(&attributes.as_path, true),
        );
    }
    if let Some(aggregator) = &attributes.aggregator
        && !four
        && aggregator.asn.two_octet().is_none()
    {
        put(
            out,
            TRANSITIVE,
            AttributeCode::As4Aggregator,
            &aggregator_octets(aggregator, true),
        );
    }
    let large = attributes
        .large_communities
        .iter()
        .flat_map(|c| [c.global, c.local1, c.local2])
        .flat_map(u32::to_be_bytes);
    put_list(out, TRANSITIVE, AttributeCode::LargeCommunities, large);
    for raw in &attributes.unknown {
        put(out, raw.flags, raw.code.into(), &raw.value);
    }
}

fn put(out: &mut BytesMut, kind: u8, code: AttributeCode, value: &[u8]) {
    match u8::try_from(value.len()) {
        Ok(length) => out.put_slice(&[kind & !flags::EXTENDED_LENGTH, code.into(), length]),
        Err(_) => {
            // Longer than a message: announce() finds that no prefix fits and writes nothing.
            let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
            out.put_slice(&[kind | flags::EXTENDED_LENGTH, code.into()]);
            out.put_u16(length);
        }
    }
    out.put_slice(value);
}

/// An empty list is no attribute: RFC 7606 has receivers withdraw the route for it.
fn put_list(out: &mut BytesMut, kind: u8, code: AttributeCode, octets: impl Iterator<Item = u8>) {
    let value: Vec<u8> = octets.collect();
    if !value.is_empty() {
        put(out, kind, code, &value);
    }
}

fn segments(path: &AsPath, four_octet_as: bool) -> Vec<u8> {
    let mut octets = Vec::with_capacity(2 + path.len() * 4);
    for segment in path.asns().chunks(MAX_SEGMENT) {
        octets.push(AS_SEQUENCE);
        octets.push(u8::try_from(segment.len()).expect("chunks hold at most 255 numbers"));
        for asn in segment {
            put_asn(*asn, four_octet_as, &mut octets);
        }
    }
    octets
}

fn aggregator_octets(aggregator: &Aggregator, four_octet_as: bool) -> Vec<u8> {
    let mut octets = Vec::with_capacity(8);
    put_asn(aggregator.asn, four_octet_as, &mut octets);
    octets.extend_from_slice(&aggregator.router.octets());
    octets
}

fn put_asn(asn: Asn, four_octet_as: bool, octets: &mut Vec<u8>) {
    if four_octet_as {
        octets.extend_from_slice(&asn.0.to_be_bytes());
    } else {
        // RFC 6793 §4.2.2: what does not fit is AS_TRANS here and itself in AS4_PATH.
        let trans = Asn::TRANS.two_octet().unwrap_or_default();
        octets.extend_from_slice(&asn.two_octet().unwrap_or(trans).to_be_bytes());
    }
}
