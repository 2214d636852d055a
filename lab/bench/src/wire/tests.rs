//! What senders write reads back as it was meant, by our own reader and by the product's, which was written
//! apart from it.

use caracal_bgp_core::types::{NextHop, PeerKind};
use caracal_bgp_core::wire::{
    DecodeContext, Message as CoreMessage, UpdateOutcome, decode_control, decode_update, frame,
};
use proptest::prelude::*;

use super::*;

fn path() -> impl Strategy<Value = Path> {
    let asns = prop::collection::vec(1_u32..=4_000_000_000, 1..12)
        .prop_filter("AS_TRANS", |asns| !asns.contains(&23456));
    let communities = prop::collection::btree_set(any::<u32>(), 0..80);
    let large = prop::collection::btree_set(any::<[u32; 3]>(), 0..30);
    (asns, communities, large, any::<Option<u32>>(), any::<u32>()).prop_map(
        |(as_path, communities, large, med, local_pref)| Path {
            sender: 0,
            origin: 2,
            as_path,
            med,
            local_pref: Some(local_pref),
            communities: communities.into_iter().collect(),
            large_communities: large.into_iter().collect(),
        },
    )
}

fn prefixes() -> impl Strategy<Value = Vec<Prefix>> {
    prop::collection::vec((any::<u32>(), 0_u8..=32), 1..2_500)
        .prop_map(|list| list.iter().map(|(a, l)| Prefix::new(*a, *l)).collect())
}

/// Cuts octets into bodies of messages of one kind.
fn bodies(mut octets: &[u8], kind: u8) -> Vec<&[u8]> {
    let mut bodies = Vec::new();
    while let Some(message) = message(octets).unwrap() {
        assert_eq!(message.kind, kind);
        assert!(message.body.len() + HEADER <= LONGEST);
        bodies.push(message.body);
        octets = &octets[message.body.len() + HEADER..];
    }
    assert!(octets.is_empty(), "something is left");
    bodies
}

fn read(run: &[u8]) -> Vec<Prefix> {
    Nlri(run).collect::<Result<_, _>>().unwrap()
}

const NEXT_HOP: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 1);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn an_announcement_reads_back_here_and_in_the_product(path in path(), prefixes in prefixes()) {
        let mut octets = Vec::new();
        put_announcement(&path, Voice::Sender(NEXT_HOP), &prefixes, &mut octets);
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for body in bodies(&octets, UPDATE) {
            let parts = update(body).unwrap();
            prop_assert!(parts.withdrawn.is_empty());
            ours.extend(read(parts.announced));
            let outcome = decode_update(body, &DecodeContext::new(PeerKind::Internal));
            let UpdateOutcome::Valid(update) = outcome else {
                return Err(TestCaseError::fail(format!("{outcome:?}")));
            };
            let attributes = update.attributes.unwrap();
            let asns: Vec<u32> = attributes.as_path.asns().iter().map(|asn| asn.0).collect();
            prop_assert_eq!(&asns, &path.as_path);
            prop_assert_eq!(attributes.med, path.med);
            prop_assert_eq!(attributes.local_pref, path.local_pref);
            let communities: Vec<u32> = attributes.communities.iter().map(|c| c.0).collect();
            prop_assert_eq!(&communities, &path.communities);
            let large: Vec<[u32; 3]> = attributes
                .large_communities
                .iter()
                .map(|c| [c.global, c.local1, c.local2])
                .collect();
            prop_assert_eq!(&large, &path.large_communities);
            for reach in update.reach {
                prop_assert_eq!(reach.next_hop, NextHop::V4(NEXT_HOP));
                theirs.extend(reach.nlri.iter().map(|nlri| nlri.prefix.to_string()));
            }
        }
        prop_assert_eq!(theirs, prefixes.iter().map(Prefix::to_string).collect::<Vec<_>>());
        prop_assert_eq!(ours, prefixes);
    }

    #[test]
    fn a_withdrawal_reads_back_and_fills_its_messages(prefixes in prefixes()) {
        let mut octets = Vec::new();
        put_withdrawal(&prefixes, &mut octets);
        let all = bodies(&octets, UPDATE);
        let mut ours = Vec::new();
        for (place, body) in all.iter().enumerate() {
            let parts = update(body).unwrap();
            prop_assert!(parts.announced.is_empty() && parts.attributes.is_empty());
            ours.extend(read(parts.withdrawn));
            // Another prefix would not have fitted, the last message aside.
            prop_assert!(place + 1 == all.len() || body.len() + HEADER + 5 > LONGEST);
        }
        prop_assert_eq!(ours, prefixes);
    }

    #[test]
    fn no_octets_bring_the_readers_down(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = message(&octets);
        let _ = open(&octets);
        if let Ok(parts) = update(&octets) {
            let _ = Nlri(parts.withdrawn).count();
            let _ = Nlri(parts.announced).count();
        }
    }
}

#[test]
fn our_open_is_understood_by_the_product_and_its_own_by_us() {
    let own = Open {
        asn: 4_200_000_001,
        hold: 180,
        router_id: 0x0a14_0101,
        four_octets: true,
    };
    let mut octets = Vec::new();
    put_open(&own, &mut octets);
    let body = bodies(&octets, OPEN)[0];
    assert_eq!(open(body), Ok(own));
    let mut buffer = bytes::BytesMut::from(&octets[..]);
    let frame = frame(&mut buffer, LONGEST).unwrap().unwrap();
    let CoreMessage::Open(theirs) = decode_control(&frame).unwrap() else {
        panic!("not an OPEN");
    };
    assert_eq!(theirs.asn.0, own.asn);
    assert_eq!(theirs.router_id.0, own.router_id);
    assert_eq!(theirs.hold_time.as_secs(), 180);
    assert!(theirs.four_octet_as());
    assert!(theirs.graceful_restart().is_none());
}

#[test]
fn an_open_without_four_octets_has_its_number_in_two() {
    let own = Open {
        asn: 65001,
        hold: 0,
        router_id: 1,
        four_octets: false,
    };
    let mut octets = Vec::new();
    put_open(&own, &mut octets);
    assert_eq!(open(bodies(&octets, OPEN)[0]), Ok(own));
}

#[test]
fn a_message_is_there_only_when_all_of_it_is() {
    let mut octets = Vec::new();
    put_keepalive(&mut octets);
    put_end_of_rib(&mut octets);
    for length in 0..HEADER {
        assert_eq!(message(&octets[..length]), Ok(None), "{length} octets");
    }
    let first = message(&octets).unwrap().unwrap();
    assert_eq!((first.kind, first.body.len()), (KEEPALIVE, 0));
    for length in HEADER..HEADER + 23 {
        assert_eq!(
            message(&octets[HEADER..length]),
            Ok(None),
            "{length} octets"
        );
    }
    let second = message(&octets[HEADER..]).unwrap().unwrap();
    assert_eq!((second.kind, second.body), (UPDATE, &[0; 4][..]));
}

#[test]
fn what_is_no_message_or_no_update_is_an_error() {
    let mut octets = Vec::new();
    put_keepalive(&mut octets);
    octets[3] = 0;
    assert!(message(&octets).is_err());
    octets[3] = 0xff;
    octets[17] = 18;
    assert!(message(&octets).is_err());
    for body in [
        &[][..],
        &[0, 1, 0, 0],
        &[0, 0, 0, 1],
        &[0, 0],
        &[0xff, 0xff, 0, 0],
    ] {
        assert!(update(body).is_err(), "{body:?}");
    }
    for run in [&[33_u8][..], &[24, 1, 2], &[8]] {
        let read: Vec<_> = Nlri(run).collect();
        assert!(matches!(read[..], [Err(_)]), "{run:?}");
    }
}
