//! OPEN: what is accepted, what is refused and how.

use std::time::Duration;

use bytes::{Bytes, BytesMut};

use crate::types::{Asn, Family, RouterId};
use crate::wire::{
    AfiSafi, Capability, EncodeContext, Frame, GracefulRestart, LongLived, MAX_MESSAGE_LEN,
    Message, MessageType, Open, decode_control, encode, frame,
};

const HEAD: [u8; 9] = [4, 0xfd, 0xe8, 0, 90, 10, 0, 0, 1];

fn decode(parameters: &[u8]) -> Result<Open, (u8, u8)> {
    decode_body([&HEAD, parameters].concat())
}

fn decode_body(body: Vec<u8>) -> Result<Open, (u8, u8)> {
    let frame = Frame {
        kind: MessageType::Open,
        body: Bytes::from(body),
    };
    match decode_control(&frame) {
        Ok(Message::Open(open)) => Ok(open),
        Ok(other) => panic!("{other:?}"),
        Err(notification) => Err(notification.error.codes()),
    }
}

#[test]
fn capabilities_are_read_whether_in_one_parameter_or_in_many() {
    let many = [16, 2, 6, 1, 4, 0, 1, 0, 1, 2, 6, 65, 4, 0, 1, 0, 0];
    let one = [14, 2, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 1, 0, 0];
    let extended = [
        255, 255, 0, 15, 2, 0, 12, 1, 4, 0, 1, 0, 1, 65, 4, 0, 1, 0, 0,
    ];
    for parameters in [&many[..], &one[..], &extended[..]] {
        let open = decode(parameters).unwrap();
        assert_eq!(open.asn, Asn(65536));
        assert_eq!(open.families(), [Family::Ipv4Unicast.into()]);
        assert!(open.four_octet_as());
    }
}

#[test]
fn without_capabilities_the_peer_speaks_ipv4_unicast_and_two_octets() {
    let open = decode(&[0]).unwrap();
    assert_eq!(open.asn, Asn(65000));
    assert_eq!(open.hold_time, Duration::from_secs(90));
    assert_eq!(open.router_id, RouterId(0x0a00_0001));
    assert_eq!(open.families(), [Family::Ipv4Unicast.into()]);
    assert!(!open.four_octet_as());
}

#[test]
fn what_only_needs_keeping_is_kept_whatever_its_form() {
    let open = decode(&[11, 2, 9, 69, 3, 1, 2, 3, 250, 2, 7, 7]).unwrap();
    let raw = |code, value: &[u8]| Capability::Unknown {
        code,
        value: value.to_vec(),
    };
    assert_eq!(open.capabilities, [raw(69, &[1, 2, 3]), raw(250, &[7, 7])]);
}

#[test]
fn malformed_opens_are_refused_with_the_exact_codes() {
    let cases: &[(&str, &[u8], (u8, u8))] = &[
        ("no parameter length", &[], (2, 0)),
        ("parameters beyond the message", &[4, 2, 2], (2, 0)),
        ("octets behind the parameters", &[0, 1], (2, 0)),
        ("truncated parameter header", &[1, 2], (2, 0)),
        ("parameter beyond the parameters", &[2, 2, 9], (2, 0)),
        ("capability beyond its parameter", &[4, 2, 2, 1, 4], (2, 0)),
        ("truncated capability header", &[3, 2, 1, 1], (2, 0)),
        (
            "multiprotocol of three octets",
            &[7, 2, 5, 1, 3, 0, 1, 0],
            (2, 0),
        ),
        ("four-octet AS of two", &[6, 2, 4, 65, 2, 0, 1], (2, 0)),
        ("role of two octets", &[6, 2, 4, 9, 2, 0, 0], (2, 0)),
        ("role without a value", &[4, 2, 2, 9, 0], (2, 0)),
        (
            "graceful restart of three",
            &[7, 2, 5, 64, 3, 0, 1, 0],
            (2, 0),
        ),
        ("extended form cut short", &[255, 255, 0], (2, 0)),
        (
            "extended form beyond the message",
            &[255, 255, 1, 0, 2],
            (2, 0),
        ),
        ("authentication parameter", &[3, 1, 1, 0], (2, 4)),
        ("unknown parameter", &[2, 9, 0], (2, 4)),
    ];
    for (name, parameters, codes) in cases {
        assert_eq!(decode(parameters), Err(*codes), "{name}");
    }
    let mut version_3 = HEAD.to_vec();
    version_3[0] = 3;
    version_3.push(0);
    assert_eq!(decode_body(version_3), Err((2, 1)));
}

#[test]
fn graceful_restart_flags_and_time_share_two_octets() {
    let open = decode(&[
        16, 2, 14, 64, 10, 0xc0, 0x78, 0, 1, 1, 0x80, 0, 2, 1, 0, 2, 0,
    ])
    .unwrap();
    let expected = GracefulRestart {
        restarting: true,
        notification: true,
        restart_time: Duration::from_secs(120),
        families: vec![
            (Family::Ipv4Unicast.into(), true),
            (Family::Ipv6Unicast.into(), false),
        ],
    };
    assert_eq!(open.graceful_restart(), Some(&expected));
    assert_eq!(open.capabilities[1], Capability::RouteRefresh);
}

#[test]
fn newer_capabilities_are_read_where_they_have_their_form_and_kept_where_not() {
    let raw = |code, value: &[u8]| Capability::Unknown {
        code,
        value: value.to_vec(),
    };
    let long_lived = |seconds| {
        Capability::LongLivedRestart(vec![LongLived {
            family: Family::Ipv4Unicast.into(),
            forwarding: true,
            stale_time: Duration::from_secs(seconds),
        }])
    };
    let host = |host: &str, domain: &str| Capability::Hostname {
        host: host.into(),
        domain: domain.into(),
    };
    let cases: Vec<(u8, &[u8], Capability)> = vec![
        (9, &[3], Capability::Role(3)),
        (9, &[200], Capability::Role(200)),
        (71, &[0, 1, 1, 0x80, 0, 14, 16], long_lived(3600)),
        (
            71,
            &[0, 1, 1, 0xff, 0xff, 0xff, 0xff],
            long_lived(0xff_ffff),
        ),
        (71, &[], Capability::LongLivedRestart(Vec::new())),
        (
            71,
            &[0, 1, 1, 0x80, 0, 14],
            raw(71, &[0, 1, 1, 0x80, 0, 14]),
        ),
        (73, b"\x02r1\x03lab", host("r1", "lab")),
        (73, b"\x02r1\x00", host("r1", "")),
        (73, b"\x02r1", raw(73, b"\x02r1")),
        (73, b"\x02r1\x00x", raw(73, b"\x02r1\x00x")),
        (73, b"\x01\xff\x00", raw(73, b"\x01\xff\x00")),
        (75, b"\x03frr", Capability::SoftwareVersion("frr".into())),
        (75, b"\x04frr", raw(75, b"\x04frr")),
        (70, &[0], raw(70, &[0])),
        (6, &[], Capability::ExtendedMessage),
        (74, &[], Capability::BfdStrict),
        (74, &[0], raw(74, &[0])),
        (77, &[], Capability::LinkLocalNextHop),
        (77, &[0], raw(77, &[0])),
        (
            5,
            &[0, 1, 0, 1, 0, 2],
            Capability::ExtendedNextHop(vec![(Family::Ipv4Unicast.into(), 2)]),
        ),
        // RFC 8950 has two octets for a SAFI that has one.
        (5, &[0, 1, 1, 1, 0, 2], raw(5, &[0, 1, 1, 1, 0, 2])),
    ];
    for (code, value, expected) in cases {
        let length = u8::try_from(value.len()).unwrap();
        let head = [length + 4, 2, length + 2, code, length];
        let open = decode(&[&head, value].concat()).unwrap();
        assert_eq!(open.capabilities, [expected]);
    }
}

#[test]
fn names_too_long_for_a_capability_are_cut_between_characters() {
    let long = "ä".repeat(200);
    let open = Open {
        asn: Asn(65000),
        hold_time: Duration::from_secs(9),
        router_id: RouterId(1),
        capabilities: vec![
            Capability::Hostname {
                host: long.clone(),
                domain: long.clone(),
            },
            Capability::SoftwareVersion(long),
        ],
    };
    let mut octets = BytesMut::new();
    encode(&Message::Open(open), EncodeContext::default(), &mut octets).unwrap();
    let framed = frame(&mut octets, MAX_MESSAGE_LEN).unwrap().unwrap();
    let Ok(Message::Open(open)) = decode_control(&framed) else {
        panic!("not an OPEN");
    };
    let cut = Capability::Hostname {
        host: "ä".repeat(126),
        domain: String::new(),
    };
    let expected = [cut, Capability::SoftwareVersion("ä".repeat(127))];
    assert_eq!(open.capabilities, expected);
}

#[test]
fn more_capabilities_than_an_octet_can_count_use_the_extended_form() {
    let families = (0..60).map(|afi| Capability::Multiprotocol(AfiSafi { afi, safi: 1 }));
    let open = Open {
        asn: Asn(65000),
        hold_time: Duration::from_secs(9),
        router_id: RouterId(1),
        capabilities: families.collect(),
    };
    let mut octets = BytesMut::new();
    let message = Message::Open(open.clone());
    encode(&message, EncodeContext::default(), &mut octets).unwrap();
    assert_eq!(octets[28..30], [255, 255]);
    let framed = frame(&mut octets, MAX_MESSAGE_LEN).unwrap().unwrap();
    assert_eq!(decode_control(&framed), Ok(message));
}
