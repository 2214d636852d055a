//! What each malformation costs: the table of RFC 7606 and vectors that have broken speakers.

use crate::types::{Asn, Family, NextHop, PeerKind};
use crate::wire::{
    AsPath, DecodeContext, HEADER_LEN, MAX_MESSAGE_LEN, Notification, UpdateOutcome, decode_update,
    frame,
};

/// Outcome, by how much is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cost {
    Nothing,
    Attribute,
    Routes,
    Session(u8, u8),
}
use Cost::{Attribute, Nothing, Routes, Session};

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

fn cost(outcome: &UpdateOutcome) -> Cost {
    match outcome {
        UpdateOutcome::Valid(_) => Nothing,
        UpdateOutcome::ValidWithDiscards { .. } => Attribute,
        UpdateOutcome::TreatAsWithdraw { .. } => Routes,
        UpdateOutcome::Reset(Notification { error, .. }) => {
            let (code, subcode) = error.codes();
            Session(code, subcode)
        }
    }
}

const ORIGIN: &str = "400101 00";
const AS_PATH: &str = "400206 0201 0000fde8";
const NEXT_HOP: &str = "400304 c0000201";
const NLRI: &str = "18 0a0000";

/// Name, the attribute under test, and what it costs from an external and an internal peer. The
/// attribute replaces the good one of its type, when that is one of the mandatory three.
#[rustfmt::skip]
const TABLE: &[(&str, &str, Cost, Cost)] = &[
    ("well-formed MED", "800404 00000001", Nothing, Nothing),
    ("ORIGIN optional", "c00101 00", Routes, Routes),
    ("ORIGIN partial", "600101 00", Routes, Routes),
    ("ORIGIN length 0", "400100", Routes, Routes),
    ("ORIGIN length 2", "400102 0000", Routes, Routes),
    ("ORIGIN 3", "400101 03", Routes, Routes),
    ("ORIGIN 4", "400101 04", Routes, Routes),
    ("ORIGIN 255", "400101 ff", Routes, Routes),
    ("AS_PATH optional", "c00206 0201 0000fde8", Routes, Routes),
    ("AS_PATH segment type 0", "400206 0001 0000fde8", Routes, Routes),
    ("AS_PATH segment type 5", "400206 0501 0000fde8", Routes, Routes),
    ("AS_PATH empty segment", "400202 0200", Routes, Routes),
    ("AS_PATH overrun", "400206 0202 0000fde8", Routes, Routes),
    ("AS_PATH underrun", "400207 0201 0000fde8 02", Routes, Routes),
    ("AS_PATH with AS 0", "400206 0201 00000000", Routes, Routes),
    ("AS_PATH with AS_SET", "400206 0101 0000fde8", Routes, Routes),
    ("AS_PATH with AS_CONFED_SET", "400206 0401 0000fde8", Routes, Routes),
    ("AS_PATH with AS_CONFED_SEQUENCE", "400206 0301 0000fde8", Routes, Routes),
    ("empty AS_PATH", "400200", Nothing, Nothing),
    ("NEXT_HOP 0.0.0.0", "400304 00000000", Routes, Routes),
    ("NEXT_HOP loopback", "400304 7f000001", Routes, Routes),
    ("NEXT_HOP multicast", "400304 e0000001", Routes, Routes),
    ("NEXT_HOP broadcast", "400304 ffffffff", Routes, Routes),
    ("NEXT_HOP length 3", "400303 c00002", Routes, Routes),
    ("NEXT_HOP length 5", "400305 c000020100", Routes, Routes),
    ("MED well-known", "400404 00000001", Routes, Routes),
    ("MED partial", "a00404 00000001", Routes, Routes),
    ("MED length 0", "800400", Routes, Routes),
    ("MED length 3", "800403 000001", Routes, Routes),
    ("MED length 5", "800405 0000000100", Routes, Routes),
    ("LOCAL_PREF", "400504 00000064", Attribute, Nothing),
    ("LOCAL_PREF length 3", "400503 000064", Attribute, Routes),
    ("LOCAL_PREF length 0", "400500", Attribute, Routes),
    ("LOCAL_PREF optional", "c00504 00000064", Attribute, Routes),
    ("ATOMIC_AGGREGATE length 1", "400601 00", Attribute, Attribute),
    ("ATOMIC_AGGREGATE optional", "c00600", Routes, Routes),
    ("AGGREGATOR", "c00708 0000fde8 c0000201", Nothing, Nothing),
    ("AGGREGATOR length 5", "c00705 0000fde8 c0", Attribute, Attribute),
    ("AGGREGATOR length 7", "c00707 0000fde8 c00002", Attribute, Attribute),
    ("AGGREGATOR length 9", "c00709 0000fde8 c000020100", Attribute, Attribute),
    ("AGGREGATOR with AS 0", "c00708 00000000 c0000201", Attribute, Attribute),
    ("COMMUNITIES well-known", "400804 fde80001", Routes, Routes),
    ("COMMUNITIES partial", "e00804 fde80001", Nothing, Nothing),
    ("COMMUNITIES length 0", "c00800", Routes, Routes),
    ("COMMUNITIES length 5", "c00805 fde8000100", Routes, Routes),
    ("ORIGINATOR_ID", "800904 0a000001", Attribute, Nothing),
    ("ORIGINATOR_ID length 3", "800903 0a0000", Attribute, Routes),
    ("ORIGINATOR_ID length 5", "800905 0a00000100", Attribute, Routes),
    ("CLUSTER_LIST", "800a04 0a000001", Attribute, Nothing),
    ("CLUSTER_LIST length 0", "800a00", Attribute, Routes),
    ("CLUSTER_LIST length 5", "800a05 0a00000100", Attribute, Routes),
    ("EXT_COMMUNITIES length 0", "c01000", Routes, Routes),
    ("EXT_COMMUNITIES length 9", "c01009 000000000000000000", Routes, Routes),
    ("AS4_PATH from a four-octet peer", "c01106 0201 0000fde8", Attribute, Attribute),
    ("AS4_PATH well-known", "401106 0201 0000fde8", Routes, Routes),
    ("AS4_AGGREGATOR from a four-octet peer", "c01208 0000fde8 c0000201", Attribute, Attribute),
    ("IPv6 ext. communities length 21", "c01915 000000000000000000000000000000000000000000", Routes, Routes),
    ("AIGP", "801a0b 01000b 0000000000000001", Nothing, Nothing),
    ("AIGP with a bad TLV", "801a03 010002", Attribute, Attribute),
    ("AIGP overrun", "801a0b 01000c 0000000000000001", Attribute, Attribute),
    ("BGP-LS with a bad TLV", "801d03 040000", Attribute, Attribute),
    ("LARGE_COMMUNITY length 0", "c02000", Routes, Routes),
    ("LARGE_COMMUNITY length 13", "c0200d 00000001000000010000000100", Routes, Routes),
    ("OTC", "c02304 0000fde8", Nothing, Nothing),
    ("OTC length 3", "c02303 00fde8", Routes, Routes),
    ("OTC length 5", "c02305 0000fde800", Routes, Routes),
    ("OTC 0", "c02304 00000000", Routes, Routes),
    ("Prefix-SID", "c0280a 010007 00000000000001", Nothing, Nothing),
    ("Prefix-SID with a bad TLV", "c02803 010007", Attribute, Attribute),
    ("Prefix-SID all zero", "c02808 0000000000000000", Attribute, Attribute),
    ("tunnel encapsulation of garbage", "c01704 deadbeef", Nothing, Nothing),
    ("entropy label of garbage", "c01c04 deadbeef", Nothing, Nothing),
    ("unknown optional transitive", "c0fe01 00", Nothing, Nothing),
    ("unknown optional non-transitive", "80fe01 00", Nothing, Nothing),
    ("unknown well-known", "40fe01 00", Session(3, 2), Session(3, 2)),
    ("a repeated MED", "800404 00000001 800404 00000002", Attribute, Attribute),
    ("overrun of the attribute area", "c0fe05 00", Routes, Routes),
    ("a lone flags octet", "c0", Routes, Routes),
    ("an extended length cut short", "d0fe00", Routes, Routes),
    // MP_REACH_NLRI and MP_UNREACH_NLRI.
    ("MP_REACH", "800e1e 000201 10 20010db8000000000000000000000001 00 4020010db800000001", Nothing, Nothing),
    ("MP_REACH next hop of 9", "800e17 000201 09 20010db80000000000 00 4020010db800000001", Session(3, 9), Session(3, 9)),
    ("MP_REACH next hop overrun", "800e15 000201 40 20010db8000000000000000000000001 00", Session(3, 9), Session(3, 9)),
    ("MP_REACH truncated", "800e0c 000201 10 20010db800000000", Session(3, 9), Session(3, 9)),
    ("MP_REACH empty", "800e00", Session(3, 9), Session(3, 9)),
    ("MP_REACH prefix of /129", "800e26 000201 10 20010db8000000000000000000000001 00 81 20010db800000000000000000000000000", Session(3, 9), Session(3, 9)),
    ("MP_REACH next hop ::", "800e1e 000201 10 00000000000000000000000000000000 00 4020010db800000001", Routes, Routes),
    ("MP_REACH well-known", "400e1e 000201 10 20010db8000000000000000000000001 00 4020010db800000001", Routes, Routes),
    ("MP_REACH twice", "800e15 000201 10 20010db8000000000000000000000001 00 800e15 000201 10 20010db8000000000000000000000001 00", Session(3, 1), Session(3, 1)),
    ("MP_REACH of a family not negotiated", "800e05 000102 0000", Attribute, Attribute),
    ("MP_UNREACH", "800f0c 000201 40 20010db800000001", Nothing, Nothing),
    ("MP_UNREACH overrun", "800f08 000201 40 20010db8", Session(3, 9), Session(3, 9)),
    ("MP_UNREACH short", "800f02 0002", Session(3, 9), Session(3, 9)),
    ("MP_UNREACH twice", "800f03 000201 800f03 000201", Session(3, 1), Session(3, 1)),
];

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
fn every_malformation_costs_what_rfc_7606_says_and_no_more() {
    let mut wrong = Vec::new();
    for (name, attribute, external, internal) in TABLE {
        for (peer, expected) in [
            (PeerKind::External, external),
            (PeerKind::Internal, internal),
        ] {
            let body = update(&[], &completed(&octets(attribute)), &octets(NLRI));
            let seen = cost(&decode_update(&body, &context(peer, true)));
            if seen != *expected {
                wrong.push(format!("{name}, {peer:?}: {seen:?}, expected {expected:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn faults_that_only_two_octet_peers_can_make() {
    const CASES: &[(&str, &str, Cost)] = &[
        ("AGGREGATOR length 6", "c00706 fde8 c0000201", Nothing),
        ("AGGREGATOR length 8", "c00708 0000fde8 c0000201", Attribute),
        ("AS4_PATH", "c01106 0201 00010000", Nothing),
        ("AS4_PATH segment type 0", "c01106 0001 00010000", Attribute),
        ("AS4_PATH with AS 0", "c01106 0201 00000000", Attribute),
        ("AS4_PATH with AS_SET", "c01106 0101 00010000", Routes),
        ("AS4_PATH length 1", "c01101 02", Attribute),
        (
            "AS4_AGGREGATOR length 7",
            "c01207 00010000 c00002",
            Attribute,
        ),
        (
            "AS4_AGGREGATOR length 9",
            "c01209 00010000 c000020100",
            Attribute,
        ),
    ];
    for (name, attribute, expected) in CASES {
        let mut attributes = octets(&format!("{ORIGIN} 400204 0201 5ba0 {NEXT_HOP}"));
        attributes.extend(octets(attribute));
        let body = update(&[], &attributes, &octets(NLRI));
        let outcome = decode_update(&body, &context(PeerKind::External, false));
        assert_eq!(cost(&outcome), *expected, "{name}");
    }
}

#[test]
fn missing_mandatory_attributes_cost_the_routes() {
    let context = context(PeerKind::External, true);
    for missing in 0..3 {
        let mut attributes = Vec::new();
        for (index, good) in [ORIGIN, AS_PATH, NEXT_HOP].iter().enumerate() {
            if index != missing {
                attributes.extend(octets(good));
            }
        }
        let outcome = decode_update(&update(&[], &attributes, &octets(NLRI)), &context);
        assert_eq!(cost(&outcome), Routes, "attribute {}", missing + 1);
    }
}

#[test]
fn lengths_and_prefixes_that_cannot_be_trusted_cost_the_session() {
    const CASES: &[(&str, &str, Cost)] = &[
        ("empty body", "", Session(3, 1)),
        (
            "withdrawn length beyond the message",
            "0005 0000",
            Session(3, 1),
        ),
        (
            "attribute length beyond the message",
            "0000 0005 4001",
            Session(3, 1),
        ),
        ("no attribute length", "0000", Session(3, 1)),
        (
            "withdrawn prefix of /33",
            "0006 21 0a00000000 0000",
            Session(3, 10),
        ),
        (
            "withdrawn prefix cut short",
            "0002 18 0a 0000",
            Session(3, 10),
        ),
    ];
    let context = context(PeerKind::External, true);
    for (name, body, expected) in CASES {
        assert_eq!(
            cost(&decode_update(&octets(body), &context)),
            *expected,
            "{name}"
        );
    }
    for nlri in ["21 0a00000000", "18 0a00"] {
        let body = update(&[], &completed(&[]), &octets(nlri));
        assert_eq!(
            cost(&decode_update(&body, &context)),
            Session(3, 10),
            "{nlri}"
        );
    }
}

#[test]
fn without_reachable_prefixes_a_fault_that_would_cost_routes_costs_the_session() {
    let context = context(PeerKind::External, true);
    let body = update(&[], &octets("400101 03"), &[]);
    assert_eq!(cost(&decode_update(&body, &context)), Session(3, 6));
    let body = update(&octets("180a0000"), &octets("800403 000001"), &[]);
    assert_eq!(cost(&decode_update(&body, &context)), Session(3, 5));
    // Faults that cost an attribute only do not.
    let body = update(&[], &octets("400601 00"), &[]);
    assert_eq!(cost(&decode_update(&body, &context)), Attribute);
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

/// Octets that crashed or reset other speakers, whole messages.
#[test]
fn vectors_that_have_broken_speakers_are_answered() {
    const CASES: &[(&str, &str, Cost)] = &[
        (
            "CVE-2026-41643: AS4_PATH of one octet before a broken AS_PATH",
            "0000 000b 40110102 400204ffffdead",
            Session(3, 4),
        ),
        (
            "CVE-2023-46753: nothing but an unknown transitive attribute",
            "0000 0004 c0fe01 00",
            Nothing,
        ),
        (
            "CVE-2023-46753 with a prefix: mandatory attributes missing",
            "0000 0004 c0fe01 00 180a0000",
            Routes,
        ),
        (
            "CVE-2023-46752: MP_REACH of one octet",
            "0000 0004 800e01 00",
            Session(3, 9),
        ),
        (
            "CVE-2023-38802: corrupt tunnel encapsulation",
            "0000 001b 400101 00 400206 0201 0000fde8 400304 c0000201 c01704 ffffffff 180a0000",
            Nothing,
        ),
        (
            "attribute 28 of garbage, 2023-08",
            "0000 0017 400101 00 400206 0201 0000fde8 400304 c0000201 e01c00 180a0000",
            Nothing,
        ),
        (
            "CVE-2024-31948: Prefix-SID with a short TLV",
            "0000 0018 400101 00 400206 0201 0000fde8 400304 c0000201 c02801 05 180a0000",
            Attribute,
        ),
        (
            "attribute 40 all zero, 2025-05-20",
            "0000 001a 400101 00 400206 0201 0000fde8 400304 c0000201 c02803 000000 180a0000",
            Nothing,
        ),
        (
            "OTC of 1024 octets, 2025-10",
            "0000 041a 400101 00 400206 0201 0000fde8 400304 c0000201 d0230400",
            Session(3, 1),
        ),
        (
            "NEXT_HOP shorter than four",
            "0000 0006 400101 00 4003 180a0000",
            Routes,
        ),
    ];
    let context = context(PeerKind::External, true);
    for (name, body, expected) in CASES {
        let mut body = octets(body);
        let length = u16::try_from(body.len() + HEADER_LEN).unwrap();
        let mut message = vec![0xff; 16];
        message.extend_from_slice(&length.to_be_bytes());
        message.push(2);
        message.append(&mut body);
        let framed = frame(&mut message.as_slice().into(), MAX_MESSAGE_LEN)
            .unwrap()
            .unwrap();
        assert_eq!(
            cost(&decode_update(&framed.body, &context)),
            *expected,
            "{name}"
        );
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
    assert_eq!(cost(&decode_update(&body, &context)), Nothing);
    context.first_as = Some(Asn(65001));
    assert_eq!(cost(&decode_update(&body, &context)), Routes);
}
