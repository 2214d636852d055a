//! What each vector of `tests/vectors/bgp` costs.

use std::collections::BTreeSet;

use crate::types::PeerKind;
use crate::vectors::{self, Cost, MessageVector};
use crate::wire::{
    DecodeContext, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, MessageType, RawAttribute, UpdateOutcome,
    decode_control, decode_update, frame,
};

const OPTIONAL_TRANSITIVE_PARTIAL: u8 = 0xe0;

pub(super) fn cost(outcome: &UpdateOutcome) -> Cost {
    match outcome {
        UpdateOutcome::Valid(_) => Cost::Nothing,
        UpdateOutcome::ValidWithDiscards { .. } => Cost::Attribute,
        UpdateOutcome::TreatAsWithdraw { .. } => Cost::Routes,
        UpdateOutcome::Reset(notification) => {
            let (code, subcode) = notification.error.codes();
            Cost::Session(code, subcode)
        }
    }
}

#[test]
fn every_update_costs_what_the_rfcs_say_and_no_more() {
    let mut wrong = Vec::new();
    for vector in vectors::updates() {
        for (peer, expected) in [
            (PeerKind::External, vector.external),
            (PeerKind::Internal, vector.internal),
        ] {
            let context = DecodeContext {
                four_octet_as: vector.four_octet_as,
                ..DecodeContext::new(peer)
            };
            // As it would come: as a whole message, off a connection.
            let mut octets = vectors::framed(2, &vector.body).as_slice().into();
            let seen = match frame(&mut octets, MAX_EXTENDED_LEN) {
                Ok(framed) => {
                    let body = framed.expect("vectors are whole messages").body;
                    cost(&decode_update(&body, &context))
                }
                Err(notification) => {
                    let (code, subcode) = notification.error.codes();
                    Cost::Session(code, subcode)
                }
            };
            if seen != expected {
                let (name, source) = (vector.name, vector.source);
                wrong.push(format!(
                    "{name}, {peer:?}: {seen}, but {source} says {expected}"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn attributes_that_are_not_read_travel_on_or_stay_as_rfc_4271_says() {
    let mut wrong = Vec::new();
    for vector in vectors::updates() {
        for peer in [PeerKind::External, PeerKind::Internal] {
            let context = DecodeContext {
                four_octet_as: vector.four_octet_as,
                ..DecodeContext::new(peer)
            };
            let outcome = decode_update(&vector.body, &context);
            let (UpdateOutcome::Valid(update) | UpdateOutcome::ValidWithDiscards { update, .. }) =
                outcome
            else {
                assert_eq!(vector.told_on, [], "{} is not told on", vector.name);
                continue;
            };
            let attributes = update.attributes.unwrap_or_default();
            let carried: Vec<_> = attributes
                .unknown()
                .iter()
                .map(|raw| (raw.code, raw.value.clone()))
                .collect();
            let partial = |raw: &RawAttribute| raw.flags == OPTIONAL_TRANSITIVE_PARTIAL;
            if carried != vector.told_on || !attributes.unknown().iter().all(partial) {
                let (name, source) = (vector.name, vector.source);
                let carried = attributes.unknown();
                wrong.push(format!("{name} ({source}), {peer:?}: {carried:02x?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What answers the first message in `octets`.
fn answer(octets: &[u8]) -> Option<(u8, u8)> {
    let framed = match frame(&mut octets.into(), MAX_MESSAGE_LEN) {
        Ok(framed) => framed.expect("vectors are whole messages"),
        Err(notification) => return Some(notification.error.codes()),
    };
    if framed.kind == MessageType::Update {
        return None;
    }
    let refused = decode_control(&framed).err();
    refused.map(|notification| notification.error.codes())
}

#[test]
fn every_open_and_every_header_is_answered_as_the_rfcs_say() {
    let wrong: Vec<String> = vectors::opens()
        .into_iter()
        .chain(vectors::messages())
        .filter(|vector| answer(&vector.octets) != vector.refused)
        .map(|vector| {
            let MessageVector {
                name,
                source,
                octets,
                refused,
            } = vector;
            let seen = answer(&octets);
            format!("{name}: {seen:?}, but {source} says {refused:?}")
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn vectors_are_many_have_sources_and_come_once() {
    let updates = vectors::updates();
    assert!(updates.len() > 200, "{}", updates.len());
    let mut names = BTreeSet::new();
    for vector in &updates {
        assert!(names.insert(vector.name), "{} comes twice", vector.name);
        assert!(!vector.source.is_empty(), "{}", vector.name);
    }
    for cost in [
        Cost::Nothing,
        Cost::Attribute,
        Cost::Routes,
        Cost::Session(3, 1),
    ] {
        assert!(updates.iter().any(|vector| vector.external == cost));
    }
}

/// Where the incidents are that no octets can tell: a comment at the test names them.
const BEHAVIOUR: [&str; 3] = [
    include_str!("../../fsm/tests/timers.rs"),
    include_str!("../../policy/as_path.rs"),
    include_str!("../../../../../felix/fib/tests/kernel_fib.rs"),
];

#[test]
fn every_incident_of_the_catalogue_has_a_vector_or_a_test() {
    let vectors: String = vectors::updates()
        .iter()
        .map(|vector| vector.source)
        .chain(vectors::opens().iter().map(|vector| vector.source))
        .collect::<Vec<_>>()
        .join("\n");
    for wanted in [
        "CVE-2022-40302",
        "CVE-2022-40318",
        "CVE-2022-43681",
        "CVE-2023-38802",
        "CVE-2023-46752",
        "CVE-2023-46753",
        "CVE-2023-38283",
        "VU#347067",
        "CVE-2024-31948",
        "frr#22041",
        "frr#22042",
        "frr#19336",
        "frr#22651",
        "CVE-2026-41643",
        "CVE-2026-42285",
        "CVE-2026-41642",
        "GHSA-frrj-87jh-2772",
        "gobgp#3305",
        "gobgp#3392",
        "CVE-2026-49943",
        "2025-05-20",
        "2025-10",
    ] {
        assert!(vectors.contains(wanted), "{wanted} has no vector");
    }
    for wanted in [
        // The octets are a vector; what they broke was the matching of paths.
        "CVE-2026-49943",
        "frr PR 4985",
        "frr PR 6959",
        "frr PR 8530",
        "frr#22362",
    ] {
        let tested = BEHAVIOUR.iter().any(|tests| tests.contains(wanted));
        assert!(tested, "{wanted} has no test");
    }
}
