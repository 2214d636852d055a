//! What is written reads back the same, and stands where the RFCs say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::fsm::{CloseWhy, DownWhy, PathWhy};
use crate::types::{Asn, Family, NextHop, Nlri, Prefix, RouterId};
use crate::wire::{
    self, AfiSafi, Announcement, Capability, Cease, EncodeContext, MAX_MESSAGE_LEN, Notification,
    Open, PathAttributes,
};

fn peer() -> PeerHeader {
    PeerHeader {
        table: Table::AdjRibIn { post_policy: false },
        instance: Instance::Global,
        address: [192, 0, 2, 1].into(),
        asn: Asn(65001),
        router_id: RouterId(0x0a00_0001),
        two_octet_as: false,
        time: Duration::from_micros(1_700_000_000_000_042),
    }
}

fn octets(message: &Message) -> BytesMut {
    let mut out = BytesMut::new();
    message.encode(&mut out);
    out
}

fn bgp(message: &wire::Message) -> Bytes {
    let mut out = BytesMut::new();
    wire::encode(message, EncodeContext::default(), &mut out).unwrap();
    out.freeze()
}

fn open(asn: u32) -> Bytes {
    bgp(&wire::Message::Open(Open {
        asn: Asn(asn),
        hold_time: Duration::from_secs(90),
        router_id: RouterId(1),
        capabilities: vec![Capability::FourOctetAs(Asn(asn))],
    }))
}

fn updates(count: u32) -> BytesMut {
    let prefix = |index: u32| Prefix::v4(Ipv4Addr::from_bits(index << 8), 24).unwrap();
    let nlri: Vec<Nlri> = (0..count).map(|index| prefix(index).into()).collect();
    let context = EncodeContext::default();
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let mut out = BytesMut::new();
    Announcement::new(
        &PathAttributes::default(),
        &next_hop,
        Family::Ipv4Unicast,
        context,
    )
    .unwrap()
    .write(&nlri, context, &mut out);
    out
}

fn read_all(mut octets: BytesMut) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some(message) = decode(&mut octets).unwrap() {
        messages.push(message);
    }
    assert!(octets.is_empty());
    messages
}

#[test]
fn the_headers_are_those_of_rfc_7854() {
    let message = Message::PeerDown {
        peer: peer(),
        reason: PeerDownReason::RemoteClosed,
    };
    #[rustfmt::skip]
    let expected = [
        3, 0, 0, 0, 49, 2,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1,
        0, 0, 0xfd, 0xe9, 10, 0, 0, 1,
        0x65, 0x53, 0xf1, 0x00, 0, 0, 0, 42,
        4,
    ];
    assert_eq!(octets(&message)[..], expected);
}

#[test]
fn each_table_has_its_peer_type_and_flags() {
    let v6 = IpAddr::V6(Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1));
    let v4 = peer().address;
    let none = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let pre = Table::AdjRibIn { post_policy: false };
    let post = Table::AdjRibIn { post_policy: true };
    let out_pre = Table::AdjRibOut { post_policy: false };
    let out_post = Table::AdjRibOut { post_policy: true };
    let best = |filtered| Table::LocRib { filtered };
    let rd = Instance::RouteDistinguisher(7);
    let cases = [
        (pre, Instance::Global, v4, false, (0, 0x00)),
        (pre, Instance::Global, v6, false, (0, 0x80)),
        (post, Instance::Global, v4, false, (0, 0x40)),
        (pre, Instance::Global, v4, true, (0, 0x20)),
        (out_pre, Instance::Global, v4, false, (0, 0x10)),
        (out_post, Instance::Global, v6, true, (0, 0xf0)),
        (pre, rd, v4, false, (1, 0x00)),
        (out_post, Instance::Local(9), v4, false, (2, 0x50)),
        (best(false), Instance::Global, none, false, (3, 0x00)),
        (best(true), rd, none, false, (3, 0x80)),
    ];
    for (table, instance, address, two_octet_as, (kind, flags)) in cases {
        let peer = PeerHeader {
            table,
            instance,
            address,
            two_octet_as,
            ..peer()
        };
        let values = Vec::new();
        let message = Message::Statistics { peer, values };
        let octets = octets(&message);
        assert_eq!((octets[6], octets[7]), (kind, flags), "{table:?} {address}");
        assert_eq!(read_all(octets), [message]);
    }
}

#[test]
fn a_batch_of_updates_becomes_one_message_each() {
    let batch = updates(3000);
    let mut out = BytesMut::new();
    route_monitoring(&peer(), &batch, &mut out);
    let messages = read_all(out);
    assert!(messages.len() > 2);
    let mut again = BytesMut::new();
    for message in messages {
        let Message::RouteMonitoring { peer: of, update } = message else {
            panic!("{message:?}");
        };
        assert_eq!(of, peer());
        assert!(update.len() <= MAX_MESSAGE_LEN);
        again.extend_from_slice(&update);
    }
    assert_eq!(again, batch);
    let nothing: [&[u8]; 4] = [
        &[],
        &batch[..18],
        &batch[..40],
        &bgp(&wire::Message::Keepalive),
    ];
    for octets in nothing {
        let mut out = BytesMut::new();
        route_monitoring(&peer(), octets, &mut out);
        assert!(out.is_empty());
    }
}

#[test]
fn an_update_that_came_is_passed_on_as_it_came() {
    let update = updates(7);
    let (mut one, mut other) = (BytesMut::new(), BytesMut::new());
    route_monitoring(&peer(), &update, &mut one);
    received_update(&peer(), &update[wire::HEADER_LEN..], &mut other);
    assert_eq!(one, other);
}

#[test]
fn the_loc_rib_comes_up_with_opens_that_say_how_to_read_it() {
    let families = [Family::Ipv4Unicast, Family::Ipv6Unicast];
    let add_path = [Family::Ipv4Unicast].into_iter().collect();
    let up = PeerUp::of_loc_rib(Asn(70000), RouterId(9), &families, add_path, "global");
    let message = Message::PeerUp(Box::new(up.clone()));
    assert_eq!(read_all(octets(&message)), [message]);
    assert_eq!(up.sent_open, up.received_open);
    let mut open = BytesMut::from(&up.sent_open[..]);
    let open = wire::frame(&mut open, MAX_MESSAGE_LEN).unwrap().unwrap();
    let Ok(wire::Message::Open(open)) = wire::decode_control(&open) else {
        panic!("not an OPEN");
    };
    assert_eq!((open.asn, open.four_octet_as()), (Asn(70000), true));
    assert_eq!(open.families(), families.map(AfiSafi::from));
    assert_eq!(open.add_path(Family::Ipv4Unicast), (true, true));
    assert_eq!(open.add_path(Family::Ipv6Unicast), (false, false));
}

#[test]
fn a_station_is_told_why_a_session_ended() {
    let cease = || Notification::cease(Cease::AdministrativeShutdown, "bye");
    let cases = [
        (
            DownWhy::AdminDown,
            Some(cease()),
            PeerDownReason::LocalNotification(cease()),
        ),
        (
            DownWhy::NotificationReceived(cease()),
            None,
            PeerDownReason::RemoteNotification(cease()),
        ),
        (
            DownWhy::NotificationSent(cease()),
            None,
            PeerDownReason::LocalNotification(cease()),
        ),
        (
            DownWhy::ConnectionLost(CloseWhy::Eof),
            None,
            PeerDownReason::RemoteClosed,
        ),
        (DownWhy::LocalRestart, None, PeerDownReason::LocalEvent(8)),
        (
            DownWhy::PathDown(PathWhy::LinkDown),
            None,
            PeerDownReason::LocalEvent(18),
        ),
        (DownWhy::PeerRestarted, None, PeerDownReason::LocalEvent(17)),
    ];
    for (why, sent, expected) in cases {
        assert_eq!(PeerDownReason::of(&why, sent), expected, "{why:?}");
    }
}

#[test]
fn text_that_is_too_long_is_cut_between_characters_and_empty_text_left_out() {
    let long = "ä".repeat(40_000);
    let message = Message::Termination {
        reason: TerminationReason::OutOfResources,
        text: long,
    };
    let [Message::Termination { text, .. }] = &read_all(octets(&message))[..] else {
        panic!("not one Termination");
    };
    assert_eq!(*text, "ä".repeat(32_767));
    let bare = Message::Termination {
        reason: TerminationReason::AdministrativelyClosed,
        text: String::new(),
    };
    assert_eq!(octets(&bare)[..], [3, 0, 0, 0, 12, 5, 0, 1, 0, 2, 0, 0]);
}

#[test]
fn a_time_that_does_not_fit_is_said_to_be_unknown() {
    let time = Duration::from_secs(1 << 33) + Duration::from_micros(7);
    let peer = PeerHeader { time, ..peer() };
    let values = Vec::new();
    let [Message::Statistics { peer, .. }] =
        &read_all(octets(&Message::Statistics { peer, values }))[..]
    else {
        panic!("not one report");
    };
    assert_eq!(peer.time, Duration::ZERO);
}

fn header() -> impl Strategy<Value = PeerHeader> {
    let table = prop_oneof![
        any::<bool>().prop_map(|post_policy| Table::AdjRibIn { post_policy }),
        any::<bool>().prop_map(|post_policy| Table::AdjRibOut { post_policy }),
    ];
    let instance = prop_oneof![
        Just(Instance::Global),
        any::<u64>().prop_map(Instance::RouteDistinguisher),
        any::<u64>().prop_map(Instance::Local),
    ];
    let micros = 0..u64::from(u32::MAX) * 1_000_000;
    let of_peer = (table, instance, any::<IpAddr>(), any::<bool>());
    let best = (any::<bool>(), any::<u64>()).prop_map(|(filtered, distinguisher)| {
        let instance = match distinguisher % 3 {
            0 => Instance::Global,
            _ => Instance::RouteDistinguisher(distinguisher),
        };
        let address = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        (Table::LocRib { filtered }, instance, address, false)
    });
    let which = prop_oneof![of_peer, best];
    (which, any::<u32>(), any::<u32>(), micros).prop_map(
        |((table, instance, address, two_octet_as), asn, router_id, micros)| PeerHeader {
            table,
            instance,
            address,
            asn: Asn(asn),
            router_id: RouterId(router_id),
            two_octet_as,
            time: Duration::from_micros(micros),
        },
    )
}

fn statistic() -> impl Strategy<Value = Statistic> {
    let family = any::<(u16, u8)>().prop_map(|(afi, safi)| AfiSafi { afi, safi });
    let value = prop_oneof![
        any::<u32>().prop_map(statistics::Value::Counter),
        any::<u64>().prop_map(statistics::Value::Gauge),
        (family, any::<u64>()).prop_map(|(family, n)| statistics::Value::OfFamily(family, n)),
    ];
    (0..18_u16, value).prop_filter_map("another form", |(kind, value)| {
        Statistic::from_parts(kind, value)
    })
}

fn notification() -> impl Strategy<Value = Notification> {
    (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..60)).prop_map(|(code, subcode, data)| {
        let error = wire::NotificationError::from_codes(code, subcode);
        Notification { error, data }
    })
}

fn reason() -> impl Strategy<Value = PeerDownReason> {
    prop_oneof![
        notification().prop_map(PeerDownReason::LocalNotification),
        any::<u16>().prop_map(PeerDownReason::LocalEvent),
        notification().prop_map(PeerDownReason::RemoteNotification),
        Just(PeerDownReason::RemoteClosed),
        Just(PeerDownReason::NoLongerMonitored),
        ".{0,20}".prop_map(|table_name| PeerDownReason::LocalTable { table_name }),
    ]
}

fn peer_up() -> impl Strategy<Value = PeerUp> {
    let texts = (".{0,20}", ".{0,20}", ".{0,20}");
    (header(), any::<u128>(), any::<(u16, u16)>(), texts).prop_map(
        |(peer, local, (port, remote_port), (table_name, admin_label, text))| {
            let v4 = Ipv4Addr::from_bits((local & 0xffff_ffff) as u32);
            let local = if peer.address.is_ipv6() {
                Ipv6Addr::from_bits(local).into()
            } else {
                IpAddr::V4(v4)
            };
            PeerUp {
                peer,
                local: SocketAddr::new(local, port),
                remote_port,
                sent_open: open(65000),
                received_open: open(peer.asn.0),
                table_name,
                admin_label,
                text,
            }
        },
    )
}

fn message() -> impl Strategy<Value = Message> {
    let initiation =
        (".{0,40}", ".{0,40}", ".{0,40}").prop_map(|(system_description, system_name, text)| {
            Initiation {
                system_description,
                system_name,
                text,
            }
        });
    let monitoring = (header(), 1..40_u32).prop_map(|(peer, count)| Message::RouteMonitoring {
        peer,
        update: updates(count).freeze(),
    });
    let termination = (any::<u16>(), ".{0,40}").prop_map(|(code, text)| {
        let mut codes = TerminationReason::CODES.iter();
        let listed = codes.find_map(|(reason, of)| (*of == code % 8).then_some(*reason));
        let reason = listed.unwrap_or(TerminationReason::Unknown(code.max(5)));
        Message::Termination { reason, text }
    });
    prop_oneof![
        monitoring,
        (header(), vec(statistic(), 0..20))
            .prop_map(|(peer, values)| Message::Statistics { peer, values }),
        (header(), reason()).prop_map(|(peer, reason)| Message::PeerDown { peer, reason }),
        peer_up().prop_map(|up| Message::PeerUp(Box::new(up))),
        initiation.prop_map(Message::Initiation),
        termination,
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn messages_read_back_as_written(messages in vec(message(), 0..4)) {
        let mut octets = BytesMut::new();
        for message in &messages {
            message.encode(&mut octets);
        }
        prop_assert_eq!(read_all(octets), messages);
    }

    #[test]
    fn arbitrary_octets_bring_the_decoder_down_in_no_way(
        message in message(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut octets = octets(&message);
        for (at, octet) in damage {
            let at = at.index(octets.len());
            octets[at] = octet;
        }
        octets.truncate(cut.index(octets.len()) + 1);
        let _ = decode(&mut octets);
    }
}
