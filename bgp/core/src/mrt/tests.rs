//! What is written reads back the same, and stands where the RFCs say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::error::Error;
use crate::types::Family;
use crate::wire::tests::strategies;
use crate::wire::{self, AsPath, EncodeContext, RawAttribute};

fn octets(record: &Record) -> BytesMut {
    let mut out = BytesMut::new();
    record.encode(&mut out).unwrap();
    out
}

fn read_all(mut octets: BytesMut) -> Vec<Record> {
    let mut records = Vec::new();
    while let Some(record) = decode(&mut octets).unwrap() {
        records.push(record);
    }
    assert!(octets.is_empty());
    records
}

fn keepalive() -> Bytes {
    let mut out = BytesMut::new();
    wire::encode(
        &wire::Message::Keepalive,
        EncodeContext::default(),
        &mut out,
    )
    .unwrap();
    out.freeze()
}

fn session() -> Session {
    Session {
        peer_asn: Asn(70_000),
        local_asn: Asn(65_000),
        interface: 3,
        peer: [192, 0, 2, 1].into(),
        local: [192, 0, 2, 2].into(),
    }
}

#[test]
fn the_header_and_the_ends_of_a_session_are_those_of_rfc_6396() {
    let record = Record::StateChange {
        time: Duration::new(0x6553_f100, 42_000),
        session: session(),
        from: State::OpenConfirm,
        to: State::Established,
    };
    #[rustfmt::skip]
    let expected = [
        0x65, 0x53, 0xf1, 0x00, 0, 17, 0, 5, 0, 0, 0, 28, 0, 0, 0, 42,
        0, 1, 0x11, 0x70, 0, 0, 0xfd, 0xe8, 0, 3, 0, 1,
        192, 0, 2, 1, 192, 0, 2, 2,
        0, 5, 0, 6,
    ];
    assert_eq!(octets(&record)[..], expected);
}

#[test]
fn a_table_of_peers_and_a_path_are_those_of_rfc_6396() {
    let peers = Record::Peers {
        time: Duration::from_secs(1),
        peers: PeerTable {
            collector: RouterId(0x0a00_0001),
            view: "v".into(),
            peers: vec![PeerEntry {
                router_id: RouterId(0x0a00_0002),
                address: [192, 0, 2, 1].into(),
                asn: Asn(65_001),
            }],
        },
    };
    #[rustfmt::skip]
    let expected = [
        0, 0, 0, 1, 0, 13, 0, 1, 0, 0, 0, 22,
        10, 0, 0, 1, 0, 1, b'v', 0, 1,
        2, 10, 0, 0, 2, 192, 0, 2, 1, 0, 0, 0xfd, 0xe9,
    ];
    assert_eq!(octets(&peers)[..], expected);
    let path = Record::Rib {
        time: Duration::from_secs(1),
        rib: RibEntries {
            sequence: 7,
            prefix: "2001:db8::/32".parse().unwrap(),
            with_ids: true,
            paths: vec![RibPath {
                peer: 5,
                time: Duration::from_secs(2),
                id: PathId(9),
                next_hop: IpAddr::V6(Ipv6Addr::LOCALHOST).into(),
                attributes: Arc::default(),
            }],
        },
    };
    let mut expected = vec![
        0, 0, 0, 1, 0, 13, 0, 10, 0, 0, 0, 50, //
        0, 0, 0, 7, 32, 0x20, 1, 0x0d, 0xb8, 0, 1, //
        0, 5, 0, 0, 0, 2, 0, 0, 0, 9, 0, 27, //
        0x40, 1, 1, 0, 0x40, 2, 0, // The next hop alone:
        0x80, 14, 17, 16,
    ];
    expected.extend_from_slice(&[0; 15]);
    expected.push(1);
    assert_eq!(octets(&path)[..], expected);
}

#[test]
fn two_octet_sessions_are_traced_as_such() {
    for (subtype, form) in trace_subtype::MESSAGES {
        let record = Record::Message {
            time: Duration::ZERO,
            session: session(),
            form,
            message: keepalive(),
        };
        let written = octets(&record);
        assert_eq!(u16::from_be_bytes([written[6], written[7]]), subtype);
        let Some(Record::Message { session, .. }) = read_all(written).pop() else {
            panic!("not a message");
        };
        // RFC 6793 §9: a number that does not fit is AS_TRANS.
        let shown = if form.four_octet_as { 70_000 } else { 23_456 };
        assert_eq!(session.peer_asn, Asn(shown));
    }
}

#[test]
fn a_path_of_which_the_attributes_do_not_fit_is_an_error_and_leaves_nothing_behind() {
    let mut attributes = PathAttributes {
        as_path: AsPath::new(vec![Asn(1); 10_000]),
        ..Default::default()
    };
    let raw = |code| RawAttribute {
        flags: 0xe0,
        code,
        value: vec![0; 20_000],
    };
    attributes.set_unknown(vec![raw(200), raw(201)]);
    let record = Record::Rib {
        time: Duration::ZERO,
        rib: RibEntries {
            sequence: 0,
            prefix: "10.0.0.0/8".parse().unwrap(),
            with_ids: false,
            paths: vec![RibPath {
                peer: 0,
                time: Duration::ZERO,
                id: PathId(0),
                next_hop: IpAddr::V4(Ipv4Addr::LOCALHOST).into(),
                attributes: Arc::new(attributes),
            }],
        },
    };
    let mut out = BytesMut::from(&b"before"[..]);
    assert!(matches!(
        record.encode(&mut out),
        Err(Error::AttributesTooLong { .. })
    ));
    assert_eq!(out[..], b"before"[..]);
}

fn seconds() -> impl Strategy<Value = Duration> {
    any::<u32>().prop_map(|seconds| Duration::from_secs(seconds.into()))
}

fn peers() -> impl Strategy<Value = PeerTable> {
    let peer =
        (any::<u32>(), any::<IpAddr>(), any::<u32>()).prop_map(|(id, address, asn)| PeerEntry {
            router_id: RouterId(id),
            address,
            asn: Asn(asn),
        });
    (any::<u32>(), ".{0,10}", vec(peer, 0..5)).prop_map(|(collector, view, peers)| PeerTable {
        collector: RouterId(collector),
        view,
        peers,
    })
}

fn rib() -> impl Strategy<Value = RibEntries> {
    strategies::family().prop_flat_map(|family| {
        let next_hop = prop_oneof![
            strategies::next_hop(family),
            strategies::next_hop(Family::Ipv6Unicast),
        ];
        let path = (
            any::<u16>(),
            seconds(),
            any::<u32>().prop_map(PathId),
            next_hop,
            strategies::attributes(),
        );
        let of = (any::<u32>(), strategies::prefix(family), any::<bool>());
        (of, vec(path, 0..4)).prop_map(|((sequence, prefix, with_ids), paths)| RibEntries {
            sequence,
            prefix,
            with_ids,
            paths: paths
                .into_iter()
                .map(|(peer, time, id, next_hop, attributes)| RibPath {
                    peer,
                    time,
                    id: if with_ids { id } else { PathId::default() },
                    next_hop,
                    attributes: Arc::new(attributes),
                })
                .collect(),
        })
    })
}

fn any_session() -> impl Strategy<Value = Session> {
    let v4 = any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (IpAddr::V4(a), IpAddr::V4(b)));
    let v6 = any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (IpAddr::V6(a), IpAddr::V6(b)));
    let ends = prop_oneof![v4, v6];
    (any::<(u16, u16, u16)>(), ends).prop_map(
        |((peer_asn, local_asn, interface), (peer, local))| Session {
            peer_asn: Asn(peer_asn.into()),
            local_asn: Asn(local_asn.into()),
            interface,
            peer,
            local,
        },
    )
}

fn record() -> impl Strategy<Value = Record> {
    let micros = || (seconds(), 0..1_000_000_u64).prop_map(|(s, m)| s + Duration::from_micros(m));
    let state = || (0..6_usize).prop_map(|index| STATES[index].0);
    let form = (0..8_usize).prop_map(|index| trace_subtype::MESSAGES[index].1);
    prop_oneof![
        (seconds(), peers()).prop_map(|(time, peers)| Record::Peers { time, peers }),
        (seconds(), rib()).prop_map(|(time, rib)| Record::Rib { time, rib }),
        (micros(), any_session(), form).prop_map(|(time, session, form)| Record::Message {
            time,
            session,
            form,
            message: keepalive(),
        }),
        (micros(), any_session(), state(), state()).prop_map(|(time, session, from, to)| {
            Record::StateChange {
                time,
                session,
                from,
                to,
            }
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn records_read_back_as_written(records in vec(record(), 0..4)) {
        let mut octets = BytesMut::new();
        for record in &records {
            record.encode(&mut octets).unwrap();
        }
        prop_assert_eq!(read_all(octets), records);
    }

    #[test]
    fn arbitrary_octets_bring_the_decoder_down_in_no_way(
        record in record(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut octets = octets(&record);
        for (at, octet) in damage {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets.truncate(cut.index(octets.len()) + 1);
        let _ = decode(&mut octets);
    }
}
