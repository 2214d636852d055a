//! What is left of UPDATEs that are not quite as they should be; `vectors.rs` says what they cost.

use super::vectors::cost;
use crate::types::{Asn, Family, FamilySet, NextHop, PeerKind};
use crate::vectors::Cost;
use crate::wire::{AsPath, Community, DecodeContext, UpdateOutcome, decode_update};

fn context(peer: PeerKind, four_octet_as: bool) -> DecodeContext {
    DecodeContext {
        four_octet_as,
        ..DecodeContext::new(peer)
    }
}

fn octets(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex
        .bytes()
        .filter(|digit| digit.is_ascii_hexdigit())
        .collect();
    digits
        .chunks_exact(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

fn update(withdrawn: &[u8], attributes: &[u8], nlri: &[u8]) -> Vec<u8> {
    let mut body = u16::try_from(withdrawn.len())
        .unwrap()
        .to_be_bytes()
        .to_vec();
    body.extend_from_slice(withdrawn);
    body.extend_from_slice(&u16::try_from(attributes.len()).unwrap().to_be_bytes());
    body.extend_from_slice(attributes);
    body.extend_from_slice(nlri);
    body
}

const ORIGIN: &str = "400101 00";
const AS_PATH: &str = "400206 0201 0000fde8";
const NEXT_HOP: &str = "400304 c0000201";
const NLRI: &str = "18 0a0000";

/// The good mandatory attributes, less those of the types that `tested` brings along.
fn completed(tested: &[u8]) -> Vec<u8> {
    let mut attributes = tested.to_vec();
    // A truncated attribute must stay last, or it would swallow the good ones.
    let mut mandatory = Vec::new();
    for (code, good) in [(1, ORIGIN), (2, AS_PATH), (3, NEXT_HOP)] {
        if tested.get(1) != Some(&code) {
            mandatory.extend(octets(good));
        }
    }
    mandatory.append(&mut attributes);
    mandatory
}

#[test]
fn treating_as_withdraw_names_every_prefix_of_the_update() {
    let attributes = completed(&octets(
        "800e1e 000201 10 20010db8000000000000000000000001 00 4020010db800000001
         800f0c 000201 40 20010db800000002 800403 000001",
    ));
    let body = update(&octets("180b0000"), &attributes, &octets(NLRI));
    let UpdateOutcome::TreatAsWithdraw { withdrawn, reason } =
        decode_update(&body, &context(PeerKind::External, true))
    else {
        panic!("not treated as withdraw");
    };
    let mut shown: Vec<String> = withdrawn
        .iter()
        .flat_map(|(_, prefixes)| prefixes.iter().map(ToString::to_string))
        .collect();
    shown.sort();
    let expected = [
        "10.0.0.0/24",
        "11.0.0.0/24",
        "2001:db8:0:1::/64",
        "2001:db8:0:2::/64",
    ];
    assert_eq!(shown, expected);
    assert_eq!(reason.to_string(), "MULTI_EXIT_DISC: wrong length 3");
}

// RFC 7606 §3 (g).
#[test]
fn of_an_attribute_that_comes_twice_the_first_counts() {
    let twice = "800404 00000001 800404 00000002 c00804 fde80001 c00804 fde80002";
    let body = update(&[], &completed(&octets(twice)), &octets(NLRI));
    let outcome = decode_update(&body, &context(PeerKind::External, true));
    let UpdateOutcome::ValidWithDiscards { update, discarded } = outcome else {
        panic!("{outcome:?}");
    };
    let attributes = update.attributes.unwrap();
    assert_eq!(attributes.med, Some(1));
    let communities: Vec<Community> = attributes.communities.iter().copied().collect();
    assert_eq!(communities, [Community(0xfde8_0001)]);
    assert_eq!(discarded.len(), 2);
}

// The vectors are of sessions that agreed on neither.
#[test]
fn path_identifiers_and_ipv6_next_hops_of_ipv4_are_read_where_agreed_on() {
    let of_message = Cost::Session(3, 10);
    let of_attribute = Cost::Session(3, 9);
    let reach = |value: &str| {
        let value = octets(value);
        let mut attribute = vec![0x80, 14, u8::try_from(value.len()).unwrap()];
        attribute.extend(value);
        update(&[], &completed(&attribute), &[])
    };
    let announced = |nlri: &str| update(&[], &completed(&[]), &octets(nlri));
    let withdrawn = |routes: &str| update(&octets(routes), &[], &[]);
    let six = "20010db8000000000000000000000001";
    let plain = context(PeerKind::External, true);
    let with_ids = DecodeContext {
        add_path: FamilySet::ALL,
        ..plain.clone()
    };
    let with_next_hops = DecodeContext {
        extended_next_hop: true,
        ..plain
    };
    let cases = [
        (&with_ids, announced("00000001 18 0a0000"), Cost::Nothing),
        (&with_ids, announced("18 0a0000"), of_message),
        (&with_ids, announced("000000"), of_message),
        (&with_ids, announced("00000001"), of_message),
        (&with_ids, announced("00000001 21 0a00000000"), of_message),
        (&with_ids, withdrawn("00000001 18 0a0000"), Cost::Nothing),
        (&with_ids, withdrawn("000000"), of_message),
        (
            &with_ids,
            reach(&format!("000201 10 {six} 00 00000001 4020010db800000001")),
            Cost::Nothing,
        ),
        (
            &with_ids,
            reach(&format!("000201 10 {six} 00 000000")),
            of_attribute,
        ),
        (
            &with_next_hops,
            reach(&format!("000101 10 {six} 00 180a0001")),
            Cost::Nothing,
        ),
        (
            &with_next_hops,
            reach(&format!(
                "000101 20 {six} fe800000000000000000000000000001 00 180a0001"
            )),
            Cost::Nothing,
        ),
        (
            &with_next_hops,
            reach("000101 04 c0000201 00 180a0001"),
            Cost::Nothing,
        ),
        (
            &with_next_hops,
            reach("000101 0c 0000000000000000 c0000201 00 180a0001"),
            of_attribute,
        ),
        (
            &with_next_hops,
            reach(&format!("000101 18 0000000000000000 {six} 00 180a0001")),
            of_attribute,
        ),
    ];
    for (number, (context, body, expected)) in cases.iter().enumerate() {
        let outcome = decode_update(body, context);
        assert_eq!(cost(&outcome), *expected, "case {number}: {outcome:?}");
    }
}

#[test]
fn paths_of_two_octet_peers_are_completed_from_as4_path() {
    let decode = |attributes: &str| {
        let body = update(&[], &octets(attributes), &octets(NLRI));
        match decode_update(&body, &context(PeerKind::External, false)) {
            UpdateOutcome::Valid(update) => update.attributes.unwrap(),
            other => panic!("{other:?}"),
        }
    };
    let path = |asns: &[u32]| AsPath::new(asns.iter().copied().map(Asn).collect::<Vec<_>>());
    // AS_PATH 100 23456 23456, AS4_PATH 65536 65537.
    let head = "400101 00 400208 0203 0064 5ba0 5ba0 400304 c0000201";
    let merged = decode(&format!("{head} c0110a 0202 00010000 00010001"));
    assert_eq!(merged.as_path, path(&[100, 65536, 65537]));
    // AS4_PATH longer than AS_PATH is ignored.
    let longer = decode(&format!(
        "{head} c01112 0204 00010000 00010001 00010002 00010003"
    ));
    assert_eq!(longer.as_path, path(&[100, 23456, 23456]));
    // An AGGREGATOR that is not AS_TRANS makes both AS4 attributes stale.
    let stale = decode(&format!(
        "{head} c00706 0065 c0000201 c0110a 0202 00010000 00010001 c01208 00010000 c0000202"
    ));
    assert_eq!(stale.as_path, path(&[100, 23456, 23456]));
    assert_eq!(stale.aggregator().unwrap().asn, Asn(101));
    let fresh = decode(&format!(
        "{head} c00706 5ba0 c0000201 c0110a 0202 00010000 00010001 c01208 00010000 c0000202"
    ));
    assert_eq!(fresh.as_path, path(&[100, 65536, 65537]));
    assert_eq!(fresh.aggregator().unwrap().asn, Asn(65536));
}

#[test]
fn end_of_rib_is_an_update_with_nothing_else_in_it() {
    const CASES: &[(&str, Option<Family>)] = &[
        ("0000 0000", Some(Family::Ipv4Unicast)),
        ("0000 0006 800f03 000201", Some(Family::Ipv6Unicast)),
        ("0000 0006 800f03 000101", Some(Family::Ipv4Unicast)),
        ("0000 0006 800f03 000102", None),
        ("0004 180a0000 0000", None),
        ("0000 000f 800f0c 000201 40 20010db800000001", None),
    ];
    for (body, expected) in CASES {
        let outcome = decode_update(&octets(body), &context(PeerKind::External, true));
        let (UpdateOutcome::Valid(update) | UpdateOutcome::ValidWithDiscards { update, .. }) =
            outcome
        else {
            panic!("{body}: {outcome:?}");
        };
        assert_eq!(update.end_of_rib, *expected, "{body}");
    }
}

#[test]
fn ipv6_next_hops_come_in_three_shapes() {
    let global = "20010db8000000000000000000000001";
    let link_local = "fe800000000000000000000000000001";
    let zero = "00000000000000000000000000000000";
    let cases = [
        (format!("000201 10 {global} 00"), "2001:db8::1", None),
        (
            format!("000201 20 {global}{link_local} 00"),
            "2001:db8::1",
            Some("fe80::1"),
        ),
        (format!("000201 20 {global}{zero} 00"), "2001:db8::1", None),
        (format!("000201 20 {zero}{link_local} 00"), "fe80::1", None),
        (format!("000201 10 {link_local} 00"), "fe80::1", None),
    ];
    for (value, global, link_local) in cases {
        let mut value = octets(&value);
        value.extend(octets("4020010db800000001"));
        let mut attributes = octets(&format!("{ORIGIN} {AS_PATH} 800e"));
        attributes.push(u8::try_from(value.len()).unwrap());
        attributes.append(&mut value);
        let body = update(&[], &attributes, &[]);
        let outcome = decode_update(&body, &context(PeerKind::External, true));
        let UpdateOutcome::Valid(update) = outcome else {
            panic!("{outcome:?}");
        };
        let expected = NextHop::V6 {
            global: global.parse().unwrap(),
            link_local: link_local.map(|text| text.parse().unwrap()),
        };
        assert_eq!(update.reach[0].next_hop, expected);
    }
}

#[test]
fn families_outside_the_session_are_set_aside() {
    let mut context = context(PeerKind::External, true);
    context.families = [Family::Ipv6Unicast].into_iter().collect();
    let body = update(&octets("180b0000"), &completed(&[]), &octets(NLRI));
    let UpdateOutcome::ValidWithDiscards { update, discarded } = decode_update(&body, &context)
    else {
        panic!("not set aside");
    };
    assert!(update.reach.is_empty() && update.withdrawn.is_empty());
    assert_eq!(discarded.len(), 1);
}

#[test]
fn a_path_that_does_not_begin_with_the_peers_as_costs_the_routes_where_asked_for() {
    let mut context = context(PeerKind::External, true);
    let body = update(&[], &completed(&[]), &octets(NLRI));
    context.first_as = Some(Asn(65000));
    assert_eq!(cost(&decode_update(&body, &context)), Cost::Nothing);
    context.first_as = Some(Asn(65001));
    assert_eq!(cost(&decode_update(&body, &context)), Cost::Routes);
}
