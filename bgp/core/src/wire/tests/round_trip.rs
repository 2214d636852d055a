//! Properties: what is written reads back the same; no octets bring the decoders down.

use std::net::Ipv4Addr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use proptest::collection::vec;
use proptest::prelude::*;

use super::strategies::{announcement, asn, attributes};
use crate::types::{Asn, Family, FamilySet, NextHop, Nlri, PeerKind, Prefix, RouterId};
use crate::wire::*;

/// The terms of a session, as both sides see them.
#[derive(Clone, Copy, Debug)]
struct Terms {
    four_octet_as: bool,
    add_path: FamilySet,
    max_len: usize,
}

impl Terms {
    fn decode(self) -> DecodeContext {
        DecodeContext {
            four_octet_as: self.four_octet_as,
            add_path: self.add_path,
            extended_next_hop: true,
            ..DecodeContext::new(PeerKind::Internal)
        }
    }

    fn encode(self) -> EncodeContext {
        EncodeContext {
            four_octet_as: self.four_octet_as,
            add_path: self.add_path,
            max_len: self.max_len,
        }
    }
}

const PLAIN: Terms = Terms {
    four_octet_as: true,
    add_path: FamilySet::EMPTY,
    max_len: MAX_MESSAGE_LEN,
};

fn terms() -> impl Strategy<Value = Terms> {
    let add_path = prop_oneof![Just(FamilySet::EMPTY), Just(FamilySet::ALL)];
    let max_len = prop_oneof![Just(MAX_MESSAGE_LEN), Just(MAX_EXTENDED_LEN)];
    (any::<bool>(), add_path, max_len).prop_map(|(four_octet_as, add_path, max_len)| Terms {
        four_octet_as,
        add_path,
        max_len,
    })
}

/// `nlri` without identifiers, where the session has none.
fn as_told(nlri: &[Nlri], family: Family, terms: Terms) -> Vec<Nlri> {
    let plain = |nlri: &Nlri| nlri.prefix.into();
    let with_ids = terms.add_path.contains(family);
    let told = nlri.iter();
    told.map(|nlri| if with_ids { *nlri } else { plain(nlri) })
        .collect()
}

/// Every UPDATE in `octets`, all of which must be valid.
fn updates(mut octets: BytesMut, terms: Terms) -> Vec<Update> {
    let mut updates = Vec::new();
    while let Some(frame) = frame(&mut octets, terms.max_len).unwrap() {
        assert_eq!(frame.kind, MessageType::Update);
        match decode_update(&frame.body, &terms.decode()) {
            UpdateOutcome::Valid(update) => updates.push(update),
            other => panic!("{other:?}"),
        }
    }
    assert!(octets.is_empty());
    updates
}

fn capability() -> impl Strategy<Value = Capability> {
    let afi_safi = || any::<(u16, u8)>().prop_map(|(afi, safi)| AfiSafi { afi, safi });
    let restart = (
        any::<(bool, bool)>(),
        0..4096_u64,
        vec((afi_safi(), any::<bool>()), 0..4),
    );
    let long_lived =
        (afi_safi(), any::<bool>(), 0..1_u64 << 24).prop_map(|(family, forwarding, seconds)| {
            LongLived {
                family,
                forwarding,
                stale_time: Duration::from_secs(seconds),
            }
        });
    prop_oneof![
        afi_safi().prop_map(Capability::Multiprotocol),
        Just(Capability::RouteRefresh),
        Just(Capability::EnhancedRouteRefresh),
        Just(Capability::ExtendedMessage),
        Just(Capability::BfdStrict),
        Just(Capability::LinkLocalNextHop),
        restart.prop_map(|((restarting, notification), seconds, families)| {
            Capability::GracefulRestart(GracefulRestart {
                restarting,
                notification,
                restart_time: Duration::from_secs(seconds),
                families,
            })
        }),
        vec((afi_safi(), any::<u16>()), 0..4).prop_map(Capability::ExtendedNextHop),
        vec((afi_safi(), any::<u8>()), 0..4).prop_map(Capability::AddPath),
        any::<u8>().prop_map(Capability::Role),
        vec(long_lived, 0..4).prop_map(Capability::LongLivedRestart),
        ("\\PC{0,40}", "\\PC{0,20}")
            .prop_map(|(host, domain)| Capability::Hostname { host, domain }),
        "\\PC{0,60}".prop_map(Capability::SoftwareVersion),
        (128..=255_u8, vec(any::<u8>(), 0..255))
            .prop_map(|(code, value)| Capability::Unknown { code, value }),
    ]
}

prop_compose! {
    fn open()(
        asn in asn(),
        seconds in any::<u16>(),
        router_id in any::<u32>(),
        mut capabilities in vec(capability(), 0..12),
        at in any::<prop::sample::Index>(),
    ) -> Open {
        let at = at.index(capabilities.len() + 1);
        capabilities.insert(at, Capability::FourOctetAs(asn));
        Open {
            asn,
            hold_time: Duration::from_secs(seconds.into()),
            router_id: RouterId(router_id),
            capabilities,
        }
    }
}

fn control() -> impl Strategy<Value = Message> {
    let notification =
        (any::<u8>(), any::<u8>(), vec(any::<u8>(), 0..300)).prop_map(|(code, subcode, data)| {
            Notification {
                error: NotificationError::from_codes(code, subcode),
                data,
            }
        });
    let refresh = any::<(u16, u8, u8)>().prop_map(|(afi, safi, kind)| RouteRefresh {
        family: AfiSafi { afi, safi },
        kind: kind.into(),
    });
    prop_oneof![
        open().prop_map(Message::Open),
        notification.prop_map(Message::Notification),
        Just(Message::Keepalive),
        refresh.prop_map(Message::RouteRefresh),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn control_messages_read_back_as_written(message in control()) {
        let mut octets = BytesMut::new();
        encode(&message, EncodeContext::default(), &mut octets).unwrap();
        let framed = frame(&mut octets, MAX_MESSAGE_LEN).unwrap().unwrap();
        prop_assert_eq!(decode_control(&framed), Ok(message));
        prop_assert!(octets.is_empty());
    }

    #[test]
    fn announcements_read_back_as_written_in_as_few_updates_as_fit(
        attributes in attributes(),
        (family, next_hop, nlri) in announcement(),
        terms in terms(),
    ) {
        let mut octets = BytesMut::new();
        let announcement =
            Announcement::new(&attributes, &next_hop, family, terms.encode()).unwrap();
        announcement.write(&nlri, terms.encode(), &mut octets);
        let total = octets.len();
        let updates = updates(octets, terms);
        for update in &updates {
            prop_assert_eq!(update.attributes.as_ref(), Some(&attributes));
            prop_assert_eq!(update.reach.len(), 1);
            prop_assert_eq!(update.reach[0].next_hop, next_hop);
            prop_assert!(update.withdrawn.is_empty() && update.end_of_rib.is_none());
        }
        // All but the last are full: one more path of the longest kind would not have fitted.
        if updates.len() > 1 {
            prop_assert!(total > (updates.len() - 1) * (terms.max_len - 21));
        }
        let told: Vec<Nlri> = updates
            .into_iter()
            .flat_map(|update| update.reach.into_iter().flat_map(|reach| reach.nlri))
            .collect();
        prop_assert_eq!(told, as_told(&nlri, family, terms));
    }

    #[test]
    fn withdrawals_read_back_as_written(
        (family, _, nlri) in announcement(),
        terms in terms(),
    ) {
        let mut octets = BytesMut::new();
        withdraw(family, &nlri, terms.encode(), &mut octets);
        let mut told = Vec::new();
        for update in updates(octets, terms) {
            prop_assert!(update.reach.is_empty() && update.end_of_rib.is_none());
            for (withdrawn_family, nlri) in update.withdrawn {
                prop_assert_eq!(withdrawn_family, family);
                told.extend(nlri);
            }
        }
        prop_assert_eq!(told, as_told(&nlri, family, terms));
    }

    #[test]
    fn arbitrary_octets_bring_no_decoder_down(
        octets in vec(any::<u8>(), 0..200),
        kind in 0..8_u8,
        terms in terms(),
    ) {
        let _ = frame(&mut BytesMut::from(&octets[..]), terms.max_len);
        let _ = decode_update(&octets, &terms.decode());
        let _ = decode_control(&Frame { kind: kind.into(), body: Bytes::from(octets) });
    }

    /// Valid messages with a few octets changed reach deeper than noise does.
    #[test]
    fn damaged_updates_bring_nothing_down_and_what_survives_reads_back(
        attributes in attributes(),
        (family, next_hop, nlri) in announcement(),
        terms in terms(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut octets = BytesMut::new();
        Announcement::new(&attributes, &next_hop, family, terms.encode())
            .unwrap()
            .write(&nlri[..1], terms.encode(), &mut octets);
        let mut body = octets.split_off(HEADER_LEN);
        for (at, octet) in damage {
            let at = at.index(body.len());
            body[at] = octet;
        }
        let outcome = decode_update(&body, &terms.decode());
        if let UpdateOutcome::Valid(update)
            | UpdateOutcome::ValidWithDiscards { update, .. } = outcome
        {
            let mut again = BytesMut::new();
            let terms = Terms { four_octet_as: true, ..terms };
            encode_update(&update, terms.encode(), &mut again).unwrap();
            let mut folded = Update::default();
            for part in updates(again, terms) {
                folded.reach.extend(part.reach);
                folded.withdrawn.extend(part.withdrawn);
                folded.attributes = part.attributes.or(folded.attributes);
                folded.end_of_rib = part.end_of_rib.or(folded.end_of_rib);
            }
            prop_assert_eq!(folded, update);
        }
    }
}

#[test]
fn end_of_rib_reads_back_for_each_family() {
    for family in Family::ALL {
        let mut octets = BytesMut::new();
        end_of_rib(family, &mut octets);
        let expected = Update {
            end_of_rib: Some(family),
            ..Update::default()
        };
        assert_eq!(updates(octets, PLAIN), [expected]);
    }
}

#[test]
fn attributes_that_leave_no_room_are_an_error() {
    let attributes = PathAttributes {
        as_path: AsPath::new(vec![Asn(1); 2000]),
        ..PathAttributes::default()
    };
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let family = Family::Ipv4Unicast;
    let told = |context| Announcement::new(&attributes, &next_hop, family, context);
    assert!(told(EncodeContext::default()).is_err());
    let extended = EncodeContext {
        max_len: MAX_EXTENDED_LEN,
        ..EncodeContext::default()
    };
    assert!(told(extended).is_ok());
}

/// RFC 8654 §4.
#[test]
fn attributes_that_only_inform_go_where_they_leave_no_room() {
    let mut attributes = PathAttributes {
        as_path: AsPath::new(vec![Asn(1); 1003]),
        atomic_aggregate: true,
        ..PathAttributes::default()
    };
    attributes.set_aggregator(Some(Aggregator {
        asn: Asn(1),
        router: Ipv4Addr::LOCALHOST,
    }));
    let raw = |code, length| RawAttribute {
        flags: 0xe0,
        code,
        value: vec![0; length],
    };
    let prefix_sid = u8::from(AttributeCode::PrefixSid);
    attributes.set_unknown(vec![raw(prefix_sid, 51), raw(99, 1)]);
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    let family = Family::Ipv4Unicast;
    let nlri = [Nlri::from("10.0.0.0/8".parse::<Prefix>().unwrap())];
    let told = |terms: Terms| {
        let mut octets = BytesMut::new();
        Announcement::new(&attributes, &next_hop, family, terms.encode())
            .unwrap()
            .write(&nlri, terms.encode(), &mut octets);
        updates(octets, terms).pop().unwrap().attributes.unwrap()
    };
    let lean = told(PLAIN);
    assert_eq!((lean.atomic_aggregate, lean.aggregator()), (false, None));
    assert_eq!(lean.unknown(), [raw(99, 1)]);
    assert_eq!(lean.as_path, attributes.as_path);
    let max_len = MAX_EXTENDED_LEN;
    assert_eq!(told(Terms { max_len, ..PLAIN }), attributes);
}

#[test]
fn only_to_customer_takes_four_octets_with_every_peer() {
    // A speaker that wrote 1,024 of them had its sessions reset all over the Internet.
    let attributes = PathAttributes {
        otc: Some(Asn(0x0102_0304)),
        ..PathAttributes::default()
    };
    let next_hop = NextHop::V4(Ipv4Addr::new(192, 0, 2, 1));
    for four_octet_as in [false, true] {
        let context = EncodeContext {
            four_octet_as,
            ..EncodeContext::default()
        };
        let family = Family::Ipv4Unicast;
        let mut octets = BytesMut::new();
        Announcement::new(&attributes, &next_hop, family, context)
            .unwrap()
            .write(
                &[Prefix::host(next_hop.addr()).into()],
                context,
                &mut octets,
            );
        let tail = &octets[octets.len() - 5 - 7..octets.len() - 5];
        assert_eq!(tail, [0xc0, 35, 4, 1, 2, 3, 4]);
    }
}

#[test]
fn ipv4_prefixes_with_an_ipv4_next_hop_are_also_read_from_mp_reach() {
    let attributes = [
        &[0x80, 14, 11, 0, 1, 1, 4, 192, 0, 2, 1, 0, 8, 10][..],
        &[0x40, 1, 1, 0, 0x40, 2, 6, 2, 1, 0, 0, 0xfd, 0xe8],
    ]
    .concat();
    let length = u8::try_from(attributes.len()).unwrap();
    let body = [&[0, 0, 0, length][..], &attributes].concat();
    let UpdateOutcome::Valid(update) = decode_update(&body, &PLAIN.decode()) else {
        panic!("not valid");
    };
    assert_eq!(update.reach[0].family, Family::Ipv4Unicast);
    assert_eq!(
        update.reach[0].nlri,
        ["10.0.0.0/8".parse::<Prefix>().unwrap().into()]
    );
}
