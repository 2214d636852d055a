//! Real speakers and a station that writes down what it is told.

use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::BytesMut;
use caracal_bgp_core::bmp::{
    self, Message, PeerDownReason, PeerHeader, PeerUp, Statistic, Table, TerminationReason,
};
use caracal_bgp_core::rib::{Path, Rib};
use caracal_bgp_core::types::{FamilySet, NextHop, Nlri, PathId, PeerKind};
use caracal_bgp_core::wire::{
    self, DecodeContext, HEADER_LEN, PathAttributes, UpdateOutcome, decode_control,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use tokio::sync::oneshot;

use super::*;
use crate::config::{AddPath, AddPathSend, BmpRoutes, BmpStation};
use crate::snapshot::StationSnapshot;

const EVERYTHING: [BmpRoutes; 4] = [
    BmpRoutes::PrePolicy,
    BmpRoutes::PostPolicy,
    BmpRoutes::LocRib,
    BmpRoutes::AdjRibOut,
];
const PRE: Table = Table::AdjRibIn { post_policy: false };
const POST: Table = Table::AdjRibIn { post_policy: true };
const LOC: Table = Table::LocRib { filtered: false };
const OUT: Table = Table::AdjRibOut { post_policy: true };
/// Usable as an address, which the small numbers of the lab are not.
const OURSELVES: RouterId = RouterId(0x0a63_0001);
const NOWHERE: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

type Routes = BTreeMap<Nlri, (PathAttributes, NextHop)>;
/// By the name of the table and the peer's address.
type Tables = BTreeMap<(String, IpAddr), Routes>;

fn key(table: Table, address: IpAddr) -> (String, IpAddr) {
    (format!("{table:?}"), address)
}

/// Everything that came on one connection.
#[derive(Debug, Default)]
struct Heard {
    octets: Vec<u8>,
    closed: bool,
}

impl Heard {
    fn messages(&self) -> Vec<Message> {
        let mut stream = BytesMut::from(&self.octets[..]);
        let mut messages = Vec::new();
        while let Some(message) = bmp::decode(&mut stream).unwrap() {
            messages.push(message);
        }
        messages
    }

    fn ups(&self) -> Vec<PeerUp> {
        let messages = self.messages().into_iter();
        messages
            .filter_map(|message| match message {
                Message::PeerUp(up) => Some(*up),
                _ => None,
            })
            .collect()
    }

    fn downs(&self) -> Vec<(PeerHeader, PeerDownReason)> {
        let messages = self.messages().into_iter();
        messages
            .filter_map(|message| match message {
                Message::PeerDown { peer, reason } => Some((peer, reason)),
                _ => None,
            })
            .collect()
    }

    /// What a station makes of it.
    fn tables(&self) -> Tables {
        let mut tables = Tables::new();
        let mut terms: BTreeMap<IpAddr, [FamilySet; 2]> = BTreeMap::new();
        for message in self.messages() {
            match message {
                Message::PeerUp(up) => {
                    terms.insert(up.peer.address, identifiers(&up));
                }
                Message::PeerDown { peer, .. } => {
                    tables.retain(|(_, address), _| *address != peer.address);
                    assert!(terms.remove(&peer.address).is_some(), "down without up");
                }
                Message::RouteMonitoring { peer, update } => {
                    let terms = terms.get(&peer.address);
                    let [receive, send] = *terms.expect("routes of a session that is not up");
                    let add_path = if peer.table == OUT { send } else { receive };
                    let routes = tables.entry(key(peer.table, peer.address)).or_default();
                    take(routes, &update, add_path);
                }
                _ => {}
            }
        }
        tables.retain(|_, routes| !routes.is_empty());
        tables
    }
}

/// Families whose paths have identifiers, as the OPENs say: those that come, those that go.
fn identifiers(up: &PeerUp) -> [FamilySet; 2] {
    let offers = |octets: &[u8], bit: u8| {
        let frame = wire::frame(&mut BytesMut::from(octets), 4096)
            .unwrap()
            .unwrap();
        let wire::Message::Open(open) = decode_control(&frame).unwrap() else {
            panic!("no OPEN");
        };
        let offers = open
            .capabilities
            .into_iter()
            .filter_map(|capability| match capability {
                wire::Capability::AddPath(families) => Some(families),
                _ => None,
            });
        let offers = offers.flatten().filter(|(_, modes)| modes & bit != 0);
        offers
            .filter_map(|(family, _)| family.family())
            .collect::<FamilySet>()
    };
    let both = |a: FamilySet, b: FamilySet| a.iter().filter(|family| b.contains(*family)).collect();
    let (receive, send) = (1, 2);
    [
        both(
            offers(&up.sent_open, receive),
            offers(&up.received_open, send),
        ),
        both(
            offers(&up.sent_open, send),
            offers(&up.received_open, receive),
        ),
    ]
}

fn take(routes: &mut Routes, update: &[u8], add_path: FamilySet) {
    let kinds = [PeerKind::Internal, PeerKind::External].into_iter();
    let read = |kind| {
        let context = DecodeContext {
            add_path,
            ..DecodeContext::new(kind)
        };
        match wire::decode_update(&update[HEADER_LEN..], &context) {
            UpdateOutcome::Valid(update) => Some(update),
            _ => None,
        }
    };
    let Some(update) = kinds.filter_map(read).next() else {
        panic!("not valid: {update:02x?}");
    };
    for nlri in update.withdrawn.into_iter().flat_map(|(_, nlri)| nlri) {
        routes.remove(&nlri);
    }
    for reach in update.reach {
        for nlri in reach.nlri {
            let attributes = update.attributes.clone().unwrap();
            routes.insert(nlri, (attributes, reach.next_hop));
        }
    }
}

/// A station and what it has heard, connection by connection.
#[derive(Clone)]
struct Station {
    address: SocketAddr,
    heard: Arc<Mutex<Vec<Heard>>>,
    /// Whether it reads.
    reads: watch::Sender<bool>,
    /// How many connections it has ended.
    ended: watch::Sender<usize>,
}

impl Station {
    async fn new(lab: &Lab, reads: bool) -> Self {
        let listener = TcpListener::bind((lab.address(200), 0)).await.unwrap();
        let station = Self {
            address: listener.local_addr().unwrap(),
            heard: Arc::default(),
            reads: watch::channel(reads).0,
            ended: watch::channel(0).0,
        };
        let serving = station.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let at = serving.with(|heard| {
                    heard.push(Heard::default());
                    heard.len() - 1
                });
                let mut reads = serving.reads.subscribe();
                let mut ended = serving.ended.subscribe();
                let serving = serving.clone();
                tokio::spawn(async move {
                    let mut buffer = vec![0; 65_536];
                    loop {
                        reads.wait_for(|reads| *reads).await.unwrap();
                        tokio::select! {
                            () = async { drop(ended.wait_for(|ended| *ended > at).await) } => {
                                let _ = stream.shutdown().await;
                                return;
                            }
                            count = stream.read(&mut buffer) => {
                                let count = count.unwrap_or(0);
                                serving.with(|heard| {
                                    heard[at].octets.extend_from_slice(&buffer[..count]);
                                    heard[at].closed = count == 0;
                                });
                                if count == 0 {
                                    return;
                                }
                            }
                        }
                    }
                });
            }
        });
        station
    }

    fn with<T>(&self, look: impl FnOnce(&mut Vec<Heard>) -> T) -> T {
        look(&mut self.heard.lock().unwrap())
    }

    fn last<T: Default>(&self, look: impl FnOnce(&Heard) -> T) -> T {
        self.with(|heard| heard.last().map(look).unwrap_or_default())
    }

    fn config(&self, routes: &[BmpRoutes]) -> BmpStation {
        BmpStation {
            address: self.address,
            routes: routes.to_vec(),
            report_interval: Duration::from_secs(1),
        }
    }

    /// Waits until it knows of `routes` what the speaker has.
    async fn agrees(&self, speaker: &SpeakerHandle, own: RouterId, routes: &[BmpRoutes]) -> Tables {
        let look = || async {
            (
                self.last(Heard::tables),
                expected(speaker, own, routes).await,
            )
        };
        let agree = |(known, held): &(Tables, Tables)| known == held;
        until("the station knows what the speaker has", look, agree)
            .await
            .0
    }
}

/// What a speaker's tables hold.
async fn expected(speaker: &SpeakerHandle, own: RouterId, wanted: &[BmpRoutes]) -> Tables {
    let (answer, held) = oneshot::channel();
    let wanted = wanted.to_vec();
    let look = move |rib: &Rib| {
        let _ = answer.send(held_by(rib, own, &wanted));
    };
    speaker.with_rib(look).await;
    held.await.unwrap()
}

fn held_by(rib: &Rib, own: RouterId, wanted: &[BmpRoutes]) -> Tables {
    let mut tables = Tables::new();
    let mut hold = |table, address, nlri, attributes: &PathAttributes, next_hop| {
        let routes: &mut Routes = tables.entry(key(table, address)).or_default();
        routes.insert(nlri, (attributes.clone(), next_hop));
    };
    let next_hop = |path: &Path, family| {
        let ourselves = || NextHop::ourselves(own, family);
        path.next_hop.unwrap_or_else(ourselves)
    };
    for route in rib.routes(None) {
        let prefix = route.prefix;
        let family = prefix.family();
        for peer in rib.path_peers() {
            let (index, address) = (peer.index, peer.address);
            for received in rib.received(index, &prefix) {
                let id = received.entry.id;
                let nlri = Nlri { prefix, id };
                let (told, used) = (&received.told, &received.entry.path);
                if wanted.contains(&BmpRoutes::PrePolicy) {
                    hold(PRE, address, nlri, &told.attributes, next_hop(told, family));
                }
                if wanted.contains(&BmpRoutes::PostPolicy) && received.entry.rejected.is_none() {
                    hold(
                        POST,
                        address,
                        nlri,
                        &used.attributes,
                        next_hop(used, family),
                    );
                }
            }
            if wanted.contains(&BmpRoutes::AdjRibOut) {
                for (id, told) in rib.advertised(index, &prefix) {
                    let nlri = Nlri { prefix, id };
                    hold(OUT, address, nlri, &told.attributes, told.next_hop);
                }
            }
        }
        if let Some(path) = route
            .announced
            .filter(|_| wanted.contains(&BmpRoutes::LocRib))
        {
            let nlri = prefix.into();
            hold(
                LOC,
                NOWHERE,
                nlri,
                &path.attributes,
                next_hop(&path, family),
            );
        }
    }
    tables
}

/// Fails if tshark, where it is installed, finds anything wrong with what a station heard.
fn dissect(octets: &[u8]) {
    const PORT: u16 = 11_019;
    let mut file = Vec::new();
    // Magic, version 2.4, zone, accuracy, longest packet, link type 101: raw IP.
    file.extend_from_slice(&0xa1b2_c3d4_u32.to_be_bytes());
    file.extend_from_slice(&[0, 2, 0, 4]);
    for field in [0_u32, 0, 65_535, 101] {
        file.extend_from_slice(&field.to_be_bytes());
    }
    // The connection may go on, and be in the middle of a message.
    let mut shown = BytesMut::new();
    let mut rest = octets;
    while let Some(&[_, a, b, c, d, _]) = rest.first_chunk() {
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        let Some((message, tail)) = rest.split_at_checked(length) else {
            break;
        };
        rest = tail;
        match bmp::decode(&mut BytesMut::from(message)).unwrap() {
            // tshark 4.0 takes what follows the OPENs for more BGP.
            Some(Message::PeerUp(mut up)) => {
                up.table_name.clear();
                up.text.clear();
                Message::PeerUp(up).encode(&mut shown);
            }
            _ => shown.extend_from_slice(message),
        }
    }
    let mut sequence = 1_u32;
    for segment in shown.chunks(1400) {
        let length = u16::try_from(40 + segment.len()).unwrap();
        let mut packet = vec![0x45, 0];
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0x40, 0, 64, 6, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        packet.extend_from_slice(&40_000_u16.to_be_bytes());
        packet.extend_from_slice(&PORT.to_be_bytes());
        packet.extend_from_slice(&sequence.to_be_bytes());
        packet.extend_from_slice(&[0, 0, 0, 1, 0x50, 0x18, 0xff, 0xff, 0, 0, 0, 0]);
        packet.extend_from_slice(segment);
        sequence += u32::try_from(segment.len()).unwrap();
        for field in [0, 0, u32::from(length), u32::from(length)] {
            file.extend_from_slice(&u32::to_be_bytes(field));
        }
        file.extend_from_slice(&packet);
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("station.pcap");
    std::fs::write(&path, file).unwrap();
    let tshark = Command::new("tshark")
        .arg("-r")
        .arg(&path)
        .args([
            "-V",
            "-O",
            "bmp,bgp",
            "-d",
            &format!("tcp.port=={PORT},bmp"),
        ])
        .stdin(Stdio::null())
        .output();
    let Ok(output) = tshark else {
        caracal_skip::missing!("tshark is not installed");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("BGP Monitoring Protocol"), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let wrong = |line: &&str| line.contains("Malformed") || line.contains("Expert Info");
    if let Some(at) = lines.iter().position(wrong) {
        panic!("{}", lines[at.saturating_sub(60)..=at].join("\n"));
    }
}

async fn station_snapshot(speaker: &SpeakerHandle) -> StationSnapshot {
    speaker.snapshot().await.unwrap().stations.remove(0)
}

/// `count` prefixes with a handful of different attributes.
fn originate(config: &mut SpeakerConfig, second: u8, count: u32) {
    for number in 0..count {
        let [_, _, high, low] = number.to_be_bytes();
        let prefix = Prefix::v4([100, second + high, low, 0].into(), 24).unwrap();
        let own = Origination {
            med: Some(number % 7),
            communities: vec![wire::Community(number % 5)],
            ..Origination::default()
        };
        config.originate.insert(prefix, own);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_knows_sessions_and_all_tables_from_the_first_to_the_last_word() {
    let lab = Lab::new();
    let station = Station::new(&lab, true).await;
    let (mut a, mut b, mut c) = (
        lab.speaker(1, 65_001),
        lab.speaker(2, 65_002),
        lab.speaker(3, 65_001),
    );
    lab.link(&mut a, &mut b);
    lab.link(&mut a, &mut c);
    // One peer tells several paths to a prefix, with identifiers.
    for (config, other) in [(&mut a, 2), (&mut b, 1)] {
        let several = AddPath {
            send: AddPathSend::All,
            receive: true,
        };
        let peer = config.peers.get_mut(&name(other)).unwrap();
        peer.add_path = Family::ALL.map(|family| (family, several)).into();
    }
    originate(&mut b, 0, 700);
    a.bmp = vec![station.config(&EVERYTHING)];
    a.router_id = OURSELVES;
    let own_id = a.router_id;
    let (mut config, a) = (a.clone(), start(a).await);
    let (b_config, b) = (b.clone(), start(b).await);
    let c = start(c).await;
    established(&a, 2).await;
    established(&a, 3).await;
    reachable(&a, own(2, Family::Ipv6Unicast)).await;
    reachable(&a, own(3, Family::Ipv4Unicast)).await;
    let known = station.agrees(&a, own_id, &EVERYTHING).await;
    assert!(known[&key(PRE, lab.address(2))].len() >= 702);
    assert!(known[&key(LOC, NOWHERE)].len() >= 704);
    assert!(known[&key(OUT, lab.address(3))].len() >= 702);
    let with_ids = known[&key(PRE, lab.address(2))].keys();
    assert!(
        with_ids.clone().any(|nlri| nlri.id != PathId(0)),
        "{with_ids:?}"
    );

    // Sessions come with the OPENs that really passed.
    let (first, ups) = station.last(|heard| (heard.messages().into_iter().next(), heard.ups()));
    assert!(matches!(first, Some(Message::Initiation(_))), "{first:?}");
    let of_b = ups
        .iter()
        .find(|up| up.peer.address == lab.address(2))
        .unwrap();
    let open = |octets: &[u8]| {
        let frame = wire::frame(&mut BytesMut::from(octets), 4096)
            .unwrap()
            .unwrap();
        match decode_control(&frame).unwrap() {
            wire::Message::Open(open) => (open.asn, open.router_id, open.hold_time),
            other => panic!("{other:?}"),
        }
    };
    let hold_time = Duration::from_secs(240);
    assert_eq!(
        open(&of_b.sent_open),
        (Asn(65_001), OURSELVES, config.peers[&name(2)].hold_time)
    );
    assert_eq!(open(&of_b.received_open).0, Asn(65_002));
    assert_eq!(open(&of_b.received_open).1, RouterId(2));
    assert!(open(&of_b.received_open).2 <= hold_time);
    assert_eq!(of_b.local.ip(), lab.address(1));
    assert_eq!(of_b.remote_port, lab.port, "we have dialled its port");
    assert_eq!(of_b.peer.asn, Asn(65_002));

    // What changes is told, in every table that it concerns.
    let mut less = b_config;
    originate(&mut less, 8, 10);
    less.originate
        .retain(|prefix, _| !prefix.to_string().starts_with("100.0."));
    less.originate.remove(&own(2, Family::Ipv6Unicast));
    b.apply(less).await.unwrap();
    gone(&a, own(2, Family::Ipv6Unicast)).await;
    config.peers.get_mut(&name(3)).unwrap().import = Policy::reject_all().into();
    a.apply(config.clone()).await.unwrap();
    let refused = |route: &Option<RouteSnapshot>| {
        let path = route.as_ref().map(|route| &route.paths[0]);
        path.is_some_and(|path| path.rejected.is_some())
    };
    until(
        "refused",
        || route(&a, own(3, Family::Ipv4Unicast)),
        refused,
    )
    .await;
    let known = station.agrees(&a, own_id, &EVERYTHING).await;
    assert!(!known.contains_key(&key(POST, lab.address(3))));
    assert!(known.contains_key(&key(PRE, lab.address(3))));

    // Counts come on their own.
    let received = known[&key(PRE, lab.address(2))].len() as u64;
    let counted = |messages: &Vec<Message>| {
        messages.iter().any(|message| match message {
            Message::Statistics { peer, values } => {
                peer.address == lab.address(2) && values.contains(&Statistic::AdjRibIn(received))
            }
            _ => false,
        })
    };
    let messages = || async { station.last(Heard::messages) };
    until("counts", messages, counted).await;

    // The end of a session says why.
    let text = "gone fishing".to_owned();
    b.shutdown(How::Cease { message: text }).await;
    let downs = || async { station.last(Heard::downs) };
    let one = |downs: &Vec<(PeerHeader, PeerDownReason)>| downs.len() == 1;
    let downs = until("a session is down", downs, one).await;
    assert_eq!(downs[0].0.address, lab.address(2));
    let PeerDownReason::RemoteNotification(notification) = &downs[0].1 else {
        panic!("{downs:?}");
    };
    assert!(
        notification.to_string().contains("gone fishing"),
        "{notification}"
    );
    station.agrees(&a, own_id, &EVERYTHING).await;

    // A station that is no longer configured reads so.
    config.bmp.clear();
    a.apply(config).await.unwrap();
    let closed = || async { station.last(|heard| heard.closed) };
    until("the connection is closed", closed, |closed| *closed).await;
    let last = station.last(|heard| heard.messages().pop());
    let ended = matches!(
        last,
        Some(Message::Termination {
            reason: TerminationReason::AdministrativelyClosed,
            ..
        })
    );
    assert!(ended, "{last:?}");
    assert!(a.snapshot().await.unwrap().stations.is_empty());
    dissect(&station.last(|heard| heard.octets.clone()));
    c.shutdown(How::GracefulRestart).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_comes_back_or_comes_late_is_told_everything_anew() {
    let lab = Lab::new();
    let station = Station::new(&lab, true).await;
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    originate(&mut b, 0, 300);
    a.router_id = OURSELVES;
    let own_id = a.router_id;
    let (mut config, a) = (a.clone(), start(a).await);
    let _b = start(b).await;
    reachable(&a, own(2, Family::Ipv6Unicast)).await;

    let routes = [BmpRoutes::PrePolicy, BmpRoutes::LocRib];
    config.bmp = vec![station.config(&routes)];
    a.apply(config.clone()).await.unwrap();
    station.agrees(&a, own_id, &routes).await;
    let connections =
        |count| move |seen: &StationSnapshot| seen.connections == count && seen.connected;
    until("connected", || station_snapshot(&a), connections(1)).await;

    station.ended.send_replace(1);
    let again = until("connected again", || station_snapshot(&a), connections(2)).await;
    assert_eq!(again.why, "");
    station.agrees(&a, own_id, &routes).await;
    let synchronised = |seen: &StationSnapshot| seen.synchronised;
    until("synchronised", || station_snapshot(&a), synchronised).await;

    // Another wish is another connection; what has not changed goes on.
    config.bmp = vec![station.config(&EVERYTHING)];
    a.apply(config.clone()).await.unwrap();
    station.agrees(&a, own_id, &EVERYTHING).await;
    config.originate.clear();
    a.apply(config).await.unwrap();
    station.agrees(&a, own_id, &EVERYTHING).await;
    assert_eq!(station.with(|heard| heard.len()), 3);
    dissect(&station.last(|heard| heard.octets.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_station_that_is_away_or_does_not_read_holds_nothing_up_and_catches_up() {
    let lab = Lab::new();
    let station = Station::new(&lab, false).await;
    let (mut a, mut b, mut c) = (
        lab.speaker(1, 65_001),
        lab.speaker(2, 65_002),
        lab.speaker(3, 65_003),
    );
    lab.link(&mut a, &mut b);
    lab.link(&mut a, &mut c);
    let nobody = BmpStation {
        address: SocketAddr::new(lab.address(201), lab.port),
        ..station.config(&EVERYTHING)
    };
    a.bmp = vec![station.config(&EVERYTHING), nobody];
    a.router_id = OURSELVES;
    let own_id = a.router_id;
    let a = start(a).await;
    let (config, b) = (b.clone(), start(b).await);
    let c = start(c).await;
    reachable(&c, own(2, Family::Ipv4Unicast)).await;
    // More than sockets hold, over and over.
    let total = 20_000;
    for round in 0..4_u8 {
        let mut next = config.clone();
        if round % 2 == 0 {
            originate(&mut next, 0, total);
        }
        b.apply(next).await.unwrap();
        let [_, _, high, low] = (total - 1).to_be_bytes();
        let last = Prefix::v4([100, high, low, 0].into(), 24).unwrap();
        if round % 2 == 0 {
            reachable(&c, last).await;
        } else {
            gone(&c, last).await;
        }
    }
    let mut next = config;
    originate(&mut next, 0, total / 2);
    b.apply(next).await.unwrap();
    let stations = || async { a.snapshot().await.unwrap().stations };
    let refused = |seen: &Vec<StationSnapshot>| {
        let nobody = seen.iter().find(|it| it.address.ip() == lab.address(201));
        nobody.is_some_and(|it| !it.connected && it.why.contains("cannot connect"))
    };
    until("the reason is shown", stations, refused).await;
    assert_eq!(peer(&a, 2).await.established_count, 1);
    station.reads.send_replace(true);
    station.agrees(&a, own_id, &EVERYTHING).await;
    assert_eq!(station.with(|heard| heard.len()), 1, "it was not cut off");
}
