//! What the fuzz targets share: the terms that an input begins with, and a session without sockets.
//!
//! Owns the form of inputs, so that the seeds ([`seeds`]) and the targets agree on it.

pub mod session;

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::types::{Family, FamilySet, PeerKind};
use caracal_bgp_core::wire::{
    self, DecodeContext, EncodeContext, Frame, MAX_EXTENDED_LEN, Message, MessageType,
};

/// The terms of a session, from the first octet of an input.
#[derive(Clone, Copy, Debug)]
pub struct Terms(pub u8);

impl Terms {
    /// An external session with four-octet AS numbers, both families and no extension.
    pub const PLAIN: Self = Self(0b0000_0110);
    /// The same with a two-octet peer.
    pub const TWO_OCTETS: Self = Self(0b0000_0100);

    fn bit(self, bit: u8) -> bool {
        self.0 & 1 << bit != 0
    }

    /// As the decoder sees them.
    pub fn decode(self) -> DecodeContext {
        let kind = if self.bit(0) {
            PeerKind::Internal
        } else {
            PeerKind::External
        };
        DecodeContext {
            four_octet_as: self.bit(1),
            families: set(self.bit(2), !self.bit(3)),
            add_path: set(self.bit(4), self.bit(5)),
            extended_next_hop: self.bit(6),
            ..DecodeContext::new(kind)
        }
    }

    /// As the encoder sees them. AS numbers take four octets, as those of a two-octet peer are
    /// completed when they are read.
    pub fn encode(self) -> EncodeContext {
        EncodeContext {
            add_path: self.decode().add_path,
            max_len: MAX_EXTENDED_LEN,
            ..EncodeContext::default()
        }
    }
}

fn set(ipv4: bool, ipv6: bool) -> FamilySet {
    let ipv4 = ipv4.then_some(Family::Ipv4Unicast);
    let ipv6 = ipv6.then_some(Family::Ipv6Unicast);
    ipv4.into_iter().chain(ipv6).collect()
}

/// What `body` says as a message of this type, if it says anything.
pub fn control(kind: MessageType, body: &[u8]) -> Option<Message> {
    let frame = Frame {
        kind,
        body: Bytes::copy_from_slice(body),
    };
    wire::decode_control(&frame).ok()
}

/// Checks that what was read is written and read back as the same.
pub fn reads_back(message: &Message) {
    let mut octets = BytesMut::new();
    wire::encode(message, EncodeContext::default(), &mut octets).expect("no UPDATE");
    let framed = wire::frame(&mut octets, MAX_EXTENDED_LEN)
        .expect("what we write is well-formed")
        .expect("what we write is whole");
    assert!(octets.is_empty());
    assert_eq!(wire::decode_control(&framed).as_ref(), Ok(message));
}

/// Seeds for each target, by name.
pub fn seeds() -> Vec<(&'static str, Vec<Vec<u8>>)> {
    use caracal_bgp_core::vectors;

    let body = |octets: &[u8]| octets.get(wire::HEADER_LEN..).unwrap_or_default().to_vec();
    let updates = vectors::updates();
    let update = updates.iter().flat_map(|vector| {
        let terms = if vector.four_octet_as {
            Terms::PLAIN
        } else {
            Terms::TWO_OCTETS
        };
        // The same octets as another kind of session would read them.
        [terms.0, terms.0 | 1, terms.0 | 0b0111_0000].map(|terms| with_first(terms, &vector.body))
    });
    let frames = updates
        .iter()
        .map(|vector| vectors::framed(2, &vector.body))
        .chain(vectors::messages().into_iter().map(|vector| vector.octets))
        .chain(vectors::opens().into_iter().map(|vector| vector.octets))
        .flat_map(|octets| [with_first(0, &octets), with_first(1, &octets)]);
    let opens = vectors::opens();
    let notifications: Vec<Vec<u8>> = (1..=8)
        .flat_map(|code| (0..=11).map(move |subcode| vec![code, subcode]))
        .chain([
            b"\x06\x02\x03bye".to_vec(),
            b"\x06\x04\xffbye".to_vec(),
            b"\x06\x09\x06\x02\x02\xc3\x28".to_vec(),
            b"\x06\x01\x00\x01\x01\x00\x00\x03\xe8".to_vec(),
        ])
        .collect();
    let refreshes = vectors::messages()
        .into_iter()
        .filter(|vector| vector.octets.get(18) == Some(&5))
        .map(|vector| body(&vector.octets));
    vec![
        ("frame", frames.collect()),
        (
            "open",
            opens.iter().map(|open| body(&open.octets)).collect(),
        ),
        ("update", update.collect()),
        ("notification", notifications),
        ("refresh", refreshes.collect()),
        ("session", session::seeds()),
        ("bmp", bmp_seeds()),
        ("mrt", mrt_seeds()),
        ("bfd", bfd_seeds()),
        ("ra", ra_seeds()),
        ("as_path", as_path_seeds()),
    ]
}

fn with_first(first: u8, rest: &[u8]) -> Vec<u8> {
    let mut octets = vec![first];
    octets.extend_from_slice(rest);
    octets
}

fn bmp_seeds() -> Vec<Vec<u8>> {
    use caracal_bgp_core::bmp::{Initiation, Message, PeerDownReason, PeerUp, Statistic};
    use caracal_bgp_core::types::{Asn, RouterId};
    use caracal_bgp_core::wire::{Cease, Notification};

    let up = PeerUp::of_loc_rib(
        Asn(65000),
        RouterId(1),
        &Family::ALL,
        FamilySet::ALL,
        "global",
    );
    let peer = up.peer;
    let of = Family::Ipv4Unicast.into();
    let cease = Notification::cease(Cease::AdministrativeShutdown, "bye");
    let messages = [
        Message::Initiation(Initiation {
            system_description: "caracal".into(),
            system_name: "leaf1".into(),
            text: "hello".into(),
        }),
        Message::PeerUp(Box::new(up)),
        Message::PeerDown {
            peer,
            reason: PeerDownReason::LocalNotification(cease),
        },
        Message::Statistics {
            peer,
            values: vec![
                Statistic::RejectedByPolicy(1),
                Statistic::AdjRibIn(2),
                Statistic::LocRibOf(of, 3),
            ],
        },
        Message::RouteMonitoring {
            peer,
            update: Bytes::from(caracal_bgp_core::vectors::framed(2, &[0, 0, 0, 0])),
        },
    ];
    let octets = |message: &Message| {
        let mut octets = BytesMut::new();
        message.encode(&mut octets);
        octets.to_vec()
    };
    messages.iter().map(octets).collect()
}

fn mrt_seeds() -> Vec<Vec<u8>> {
    use std::sync::Arc;
    use std::time::Duration;

    use caracal_bgp_core::fsm::State;
    use caracal_bgp_core::mrt::{
        MessageForm, PeerEntry, PeerTable, Record, RibEntries, RibPath, Session,
    };
    use caracal_bgp_core::types::{Asn, NextHop, PathId, RouterId};

    let time = Duration::from_secs(1);
    let session = Session {
        peer_asn: Asn(1),
        local_asn: Asn(2),
        interface: 3,
        peer: [192, 0, 2, 1].into(),
        local: [192, 0, 2, 2].into(),
    };
    let rib = |prefix: &str, next_hop, with_ids| Record::Rib {
        time,
        rib: RibEntries {
            sequence: 0,
            prefix: prefix.parse().expect("a prefix"),
            with_ids,
            paths: vec![RibPath {
                peer: 0,
                time,
                id: PathId(0),
                next_hop,
                attributes: Arc::default(),
            }],
        },
    };
    let v4 = NextHop::V4([192, 0, 2, 1].into());
    let v6 = NextHop::V6 {
        global: "2001:db8::1".parse().expect("an address"),
        link_local: None,
    };
    let records = [
        Record::Peers {
            time,
            peers: PeerTable {
                collector: RouterId(1),
                view: "main".into(),
                peers: vec![PeerEntry {
                    router_id: RouterId(2),
                    address: [192, 0, 2, 1].into(),
                    asn: Asn(1),
                }],
            },
        },
        rib("10.0.0.0/8", v4, false),
        rib("10.0.0.0/8", v6, true),
        rib("2001:db8::/32", v6, true),
        Record::StateChange {
            time,
            session,
            from: State::Idle,
            to: State::Established,
        },
        Record::Message {
            time,
            session,
            form: MessageForm::default(),
            message: Bytes::from(caracal_bgp_core::vectors::framed(4, &[])),
        },
    ];
    let octets = |record: &Record| {
        let mut octets = BytesMut::new();
        record
            .encode(&mut octets)
            .expect("the attributes are short");
        octets.to_vec()
    };
    records.iter().map(octets).collect()
}

/// Sessions that come up with each kind of key, go down, and are given up.
fn bfd_seeds() -> Vec<Vec<u8>> {
    let packet = |state: u8, your: u8| {
        let mut octets = vec![24, 0x20, state << 6, 3, 24, 0, 0, 0, 1, 0, 0, 0, your];
        octets.extend([0, 15, 66, 64, 0, 15, 66, 64, 0, 0, 0, 0]);
        octets
    };
    let mut lives = vec![
        [
            vec![0],
            packet(1, 0),
            packet(2, 7),
            packet(3, 7),
            vec![64, 64],
        ]
        .concat(),
    ];
    for keys in 0..6 {
        // Down, Init, Up with a poll; timers; silence; given up and wanted again.
        lives.push(vec![
            keys, 69, 1, 1, 69, 2, 2, 69, 7, 3, 64, 64, 67, 10, 69, 11, 4, 64, 64, 64, 65, 64, 66,
            68, 1,
        ]);
    }
    lives
}

fn ra_seeds() -> Vec<Vec<u8>> {
    use caracal_bgp_core::ra::{Advertisement, Message};

    let source_link = Some([2, 0, 0, 0, 0, 2]);
    let messages = [
        Message::Solicitation { source_link },
        Message::Advertisement(Advertisement {
            hop_limit: 64,
            source_link,
            mtu: Some(1500),
            ..Advertisement::default()
        }),
        Message::NeighborSolicitation {
            target: std::net::Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff),
            source_link,
        },
    ];
    let step = |message: &Message, who: u8| {
        let octets = message.encode();
        [vec![octets.len() as u8, who], octets].concat()
    };
    let all = messages.iter().map(|message| step(message, 0));
    let two = [
        step(&messages[1], 0),
        step(&messages[1], 1),
        vec![128, 128, 129, 128],
    ]
    .concat();
    all.chain([two]).collect()
}

fn as_path_seeds() -> Vec<Vec<u8>> {
    let path = [2, 0, 0, 0xfd, 0xe8, 0, 0, 0xfd, 0xe9];
    [
        "^$",
        "_65000_",
        "^65000_",
        "_65001$",
        "^65000$",
        "^65000( 65001)*$",
        "[0-9]+_6500[01]",
    ]
    .iter()
    .map(|text| [&path, text.as_bytes()].concat())
    .collect()
}
