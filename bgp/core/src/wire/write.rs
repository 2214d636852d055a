//! Path attributes to octets.
//!
//! Owns everything but the multiprotocol attributes, which the encoder writes around prefixes. Does
//! not own how much fits into a message.

use std::net::Ipv4Addr;

use crate::types::Asn;
use crate::wire::attributes::{Aggregator, AsPath, PathAttributes};
use crate::wire::iana::{AttributeCode, flags};

const AS_SEQUENCE: u8 = 2;
/// Numbers that the count octet of a segment can announce.
const MAX_SEGMENT: usize = 255;

const WELL_KNOWN: u8 = flags::TRANSITIVE;
const NON_TRANSITIVE: u8 = flags::OPTIONAL;
const TRANSITIVE: u8 = flags::OPTIONAL | flags::TRANSITIVE;

/// Appends `attributes`, ascending by type (RFC 4271 §5) up to those that are only carried.
/// `next_hop` is there where prefixes have their classic place.
pub(crate) fn attributes(
    attributes: &PathAttributes,
    next_hop: Option<Ipv4Addr>,
    four_octet_as: bool,
    out: &mut Vec<u8>,
) {
    let PathAttributes {
        origin,
        as_path,
        med,
        local_pref,
        atomic_aggregate,
        communities,
        large_communities,
        originator_id,
        cluster_list,
        otc,
        ..
    } = attributes;
    put(out, WELL_KNOWN, AttributeCode::Origin, [*origin as u8]);
    put_as_path(
        out,
        WELL_KNOWN,
        AttributeCode::AsPath,
        as_path,
        four_octet_as,
    );
    if let Some(address) = next_hop {
        put(out, WELL_KNOWN, AttributeCode::NextHop, address.octets());
    }
    if let Some(med) = med {
        put(out, NON_TRANSITIVE, AttributeCode::Med, med.to_be_bytes());
    }
    if let Some(preference) = local_pref {
        let preference = preference.to_be_bytes();
        put(out, WELL_KNOWN, AttributeCode::LocalPref, preference);
    }
    if *atomic_aggregate {
        put(out, WELL_KNOWN, AttributeCode::AtomicAggregate, []);
    }
    let aggregator = attributes.aggregator();
    if let Some(aggregator) = &aggregator {
        put_aggregator(out, AttributeCode::Aggregator, aggregator, four_octet_as);
    }
    let octets = communities
        .iter()
        .map(|community| community.0.to_be_bytes());
    put_list(out, TRANSITIVE, AttributeCode::Communities, octets);
    if let Some(originator) = originator_id {
        let originator = originator.0.to_be_bytes();
        put(out, NON_TRANSITIVE, AttributeCode::OriginatorId, originator);
    }
    let octets = cluster_list.iter().map(|cluster| cluster.0.to_be_bytes());
    put_list(out, NON_TRANSITIVE, AttributeCode::ClusterList, octets);
    let octets = attributes
        .ext_communities()
        .iter()
        .map(|community| community.0);
    put_list(out, TRANSITIVE, AttributeCode::ExtCommunities, octets);
    if !four_octet_as {
        put_four_octet_supplements(out, as_path, aggregator.as_ref());
    }
    let octets = large_communities.iter().map(|community| {
        let mut octets = [0; 12];
        octets[..4].copy_from_slice(&community.global.to_be_bytes());
        octets[4..8].copy_from_slice(&community.local1.to_be_bytes());
        octets[8..].copy_from_slice(&community.local2.to_be_bytes());
        octets
    });
    put_list(out, TRANSITIVE, AttributeCode::LargeCommunities, octets);
    if let Some(asn) = otc {
        // RFC 9234 §5: exactly four octets, whatever AS numbers take elsewhere.
        let asn = asn.0.to_be_bytes();
        put(out, TRANSITIVE, AttributeCode::OnlyToCustomer, asn);
    }
    for raw in attributes.unknown() {
        put_header(out, raw.flags, raw.code.into(), raw.value.len());
        out.extend_from_slice(&raw.value);
    }
}

/// RFC 6793 §4.2.2: what does not fit into two octets travels beside what does.
fn put_four_octet_supplements(out: &mut Vec<u8>, path: &AsPath, aggregator: Option<&Aggregator>) {
    let fits = |asn: &Asn| asn.two_octet().is_some();
    if !path.asns().iter().all(fits) {
        put_as_path(out, TRANSITIVE, AttributeCode::As4Path, path, true);
    }
    if let Some(aggregator) = aggregator.filter(|aggregator| !fits(&aggregator.asn)) {
        put_aggregator(out, AttributeCode::As4Aggregator, aggregator, true);
    }
}

fn put<const N: usize>(out: &mut Vec<u8>, kind: u8, code: AttributeCode, value: [u8; N]) {
    put_header(out, kind, code, N);
    out.extend_from_slice(&value);
}

/// An empty list is no attribute: RFC 7606 has receivers withdraw the route for it.
fn put_list<const N: usize>(
    out: &mut Vec<u8>,
    kind: u8,
    code: AttributeCode,
    items: impl ExactSizeIterator<Item = [u8; N]>,
) {
    if items.len() == 0 {
        return;
    }
    put_header(out, kind, code, items.len() * N);
    for item in items {
        out.extend_from_slice(&item);
    }
}

fn put_header(out: &mut Vec<u8>, kind: u8, code: AttributeCode, length: usize) {
    match u8::try_from(length) {
        Ok(length) => {
            out.extend_from_slice(&[kind & !flags::EXTENDED_LENGTH, code.into(), length]);
        }
        Err(_) => {
            // Longer than any message: the encoder finds that no prefix fits and writes nothing.
            let [high, low] = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
            out.extend_from_slice(&[kind | flags::EXTENDED_LENGTH, code.into(), high, low]);
        }
    }
}

fn put_as_path(out: &mut Vec<u8>, kind: u8, code: AttributeCode, path: &AsPath, four: bool) {
    let segments = path.len().div_ceil(MAX_SEGMENT);
    let width = if four { 4 } else { 2 };
    put_header(out, kind, code, segments * 2 + path.len() * width);
    for segment in path.asns().chunks(MAX_SEGMENT) {
        let count = u8::try_from(segment.len()).expect("chunks hold at most 255 numbers");
        out.extend_from_slice(&[AS_SEQUENCE, count]);
        for asn in segment {
            put_asn(out, *asn, four);
        }
    }
}

fn put_aggregator(out: &mut Vec<u8>, code: AttributeCode, aggregator: &Aggregator, four: bool) {
    put_header(out, TRANSITIVE, code, if four { 8 } else { 6 });
    put_asn(out, aggregator.asn, four);
    out.extend_from_slice(&aggregator.router.octets());
}

fn put_asn(out: &mut Vec<u8>, asn: Asn, four: bool) {
    if four {
        out.extend_from_slice(&asn.0.to_be_bytes());
    } else {
        // RFC 6793 §4.2.2: what does not fit is AS_TRANS here and itself in AS4_PATH.
        let trans = Asn::TRANS.two_octet().unwrap_or_default();
        out.extend_from_slice(&asn.two_octet().unwrap_or(trans).to_be_bytes());
    }
}
