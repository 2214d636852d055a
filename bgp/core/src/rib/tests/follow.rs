//! A station that reads when it likes knows, in the end, what the tables hold.

use std::net::IpAddr;

use super::oracle::{Step, any_step};
use super::*;
use crate::bmp::{self, Feed, Message, PeerDownReason, PeerHeader, SessionFacts, Table, Wanted};

const OURSELVES: RouterId = RouterId(0x0a00_0001);
const EVERYTHING: Wanted = Wanted {
    pre_policy: true,
    post_policy: true,
    loc_rib: true,
    adj_rib_out: true,
};
const PRE: Table = Table::AdjRibIn { post_policy: false };
const POST: Table = Table::AdjRibIn { post_policy: true };
const LOC: Table = Table::LocRib { filtered: false };
const OUT: Table = Table::AdjRibOut { post_policy: true };

type Routes = BTreeMap<Nlri, (PathAttributes, NextHop)>;

/// What a station has understood.
#[derive(Default)]
struct Station {
    /// Sessions that are up, by the peer's address.
    up: BTreeSet<IpAddr>,
    tables: Vec<((Table, IpAddr), Routes)>,
    ends: Vec<(Table, IpAddr, Family)>,
    statistics: Vec<(PeerHeader, Vec<bmp::Statistic>)>,
}

impl Station {
    fn table(&mut self, key: (Table, IpAddr)) -> &mut Routes {
        if let Some(at) = self.tables.iter().position(|(of, _)| *of == key) {
            return &mut self.tables[at].1;
        }
        self.tables.push((key, Routes::new()));
        &mut self.tables.last_mut().unwrap().1
    }

    fn hear(&mut self, octets: &[u8]) {
        let mut stream = BytesMut::from(octets);
        while let Some(message) = bmp::decode(&mut stream).unwrap() {
            match message {
                Message::PeerUp(up) => {
                    assert!(self.up.insert(up.peer.address), "up twice");
                }
                Message::PeerDown { peer, .. } => {
                    assert!(self.up.remove(&peer.address), "down without up");
                    self.tables.retain(|((_, of), _)| *of != peer.address);
                }
                Message::RouteMonitoring { peer, update } => self.update(&peer, &update),
                Message::Statistics { peer, values } => self.statistics.push((peer, values)),
                other => panic!("{other:?} is no matter of a feed"),
            }
        }
        assert!(stream.is_empty(), "a message was cut");
    }

    fn update(&mut self, peer: &PeerHeader, update: &[u8]) {
        assert!(
            self.up.contains(&peer.address),
            "routes of a session that is not up"
        );
        let body = &update[wire::HEADER_LEN..];
        // A Loc-RIB holds routes with and without LOCAL_PREF, which sessions do not mix.
        let kinds = [PeerKind::Internal, PeerKind::External].into_iter();
        let read = |kind| match wire::decode_update(body, &DecodeContext::new(kind)) {
            UpdateOutcome::Valid(update) => Some(update),
            _ => None,
        };
        let Some(update) = kinds.filter_map(read).next() else {
            panic!("a station was told an invalid UPDATE: {update:02x?}");
        };
        let table = self.table((peer.table, peer.address));
        for (_, withdrawn) in update.withdrawn {
            for nlri in withdrawn {
                table.remove(&nlri);
            }
        }
        for reach in update.reach {
            for nlri in reach.nlri {
                let attributes = update.attributes.clone().unwrap();
                table.insert(nlri, (attributes, reach.next_hop));
            }
        }
        if let Some(family) = update.end_of_rib {
            self.ends.push((peer.table, peer.address, family));
        }
    }
}

fn facts(world: &World, peer: u32) -> Arc<SessionFacts> {
    let open = wire::Message::Open(wire::Open {
        asn: asn(peer),
        hold_time: Duration::from_secs(90),
        router_id: RouterId(100 + peer),
        capabilities: Vec::new(),
    });
    let mut octets = BytesMut::new();
    wire::encode(&open, EncodeContext::default(), &mut octets).unwrap();
    let octets = octets.freeze();
    Arc::new(SessionFacts {
        id: world.sessions[&peer],
        negotiated: negotiated(peer),
        local: "172.16.0.0:179".parse().unwrap(),
        remote: (ends(peer).peer, 179).into(),
        interface: None,
        sent_open: octets.clone(),
        received_open: octets,
        since: Duration::ZERO,
        name: format!("p{peer}"),
    })
}

fn feed(world: &World) -> Feed {
    let up = world.sessions.keys().map(|peer| facts(world, *peer));
    Feed::new(EVERYTHING, US, OURSELVES, up)
}

/// Hands the feed what happened since it was last asked.
fn note(world: &mut World, feed: &mut Feed, before: &BTreeMap<u32, PeerId>) {
    for peer in 0..PEERS {
        let (old, new) = (before.get(&peer), world.sessions.get(&peer));
        if old == new {
            continue;
        }
        if let Some(old) = old {
            feed.session_down(*old, PeerDownReason::RemoteClosed);
        }
        if new.is_some() {
            feed.session_up(facts(world, peer));
        }
    }
    for followed in world.followed.drain(..) {
        match followed {
            Followed::Changed(changed) => feed.changed(&changed),
            Followed::Sent(peer, octets) => feed.sent(peer, &octets),
        }
    }
}

fn take(world: &World, feed: &mut Feed, station: &mut Station) {
    let mut octets = BytesMut::new();
    feed.next(&world.rib, Duration::from_secs(1), &mut octets);
    station.hear(&octets);
}

fn take_all(world: &World, feed: &mut Feed, station: &mut Station) {
    while !feed.is_idle() {
        take(world, feed, station);
    }
}

fn run(world: &mut World, step: Step) {
    match step {
        Step::Up(peer) => world.up(peer),
        Step::Down(peer, keep) => world.down(peer, if keep { &Family::ALL } else { &[] }),
        Step::Announce(peer, index, hops) => {
            let update = announcement(peer, &[prefix(index)], &hops);
            world.tell(peer, update);
        }
        Step::Withdraw(peer, index) => {
            let update = Update {
                withdrawn: vec![(V4, vec![prefix(index).into()])],
                ..Update::default()
            };
            world.tell(peer, update);
        }
        Step::EndOfRib(peer) => world.end_of_rib(peer),
        Step::Answer => world.answer_all(),
        Step::Pull(peer) => {
            world.pull(peer, 1);
        }
        Step::PathDown(peer) => {
            // As the session's task says it: its end first.
            world.down(peer, &Family::ALL);
            let index = PeerIndex(peer);
            world.handle(Event::PathDown { index });
        }
        Step::Refresh(peer) => {
            if let Some(id) = world.sessions.get(&peer) {
                let (peer, family) = (*id, V4);
                world.handle(Event::Refresh { peer, family });
            }
        }
        Step::Time => world.advance(Duration::from_secs(60)),
    }
}

/// What the tables hold, as a station should know it.
fn expected(world: &World) -> Vec<((Table, IpAddr), Routes)> {
    let mut tables = Vec::new();
    for peer in world.sessions.keys() {
        let index = PeerIndex(*peer);
        let (mut pre, mut post, mut out) = (Routes::new(), Routes::new(), Routes::new());
        for route in world.rib.routes(None) {
            for received in world.rib.received(index, &route.prefix) {
                let nlri = Nlri {
                    prefix: route.prefix,
                    id: received.entry.id,
                };
                let path = |path: &Path| ((*path.attributes).clone(), path.next_hop.unwrap());
                pre.insert(nlri, path(&received.told));
                if received.entry.rejected.is_none() {
                    post.insert(nlri, path(&received.entry.path));
                }
            }
            for (id, exported) in world.rib.advertised(index, &route.prefix) {
                let nlri = Nlri {
                    prefix: route.prefix,
                    id,
                };
                out.insert(nlri, (exported.attributes, exported.next_hop));
            }
        }
        let address = ends(*peer).peer;
        tables.extend(
            [(PRE, pre), (POST, post), (OUT, out)]
                .map(|(table, routes)| ((table, address), routes)),
        );
    }
    let mut selected = Routes::new();
    for route in world.rib.routes(None) {
        if let Some(path) = route.announced {
            let ourselves = || NextHop::ourselves(OURSELVES, V4);
            let next_hop = path.next_hop.unwrap_or_else(ourselves);
            selected.insert(route.prefix.into(), ((*path.attributes).clone(), next_hop));
        }
    }
    tables.push(((LOC, IpAddr::V4(Ipv4Addr::UNSPECIFIED)), selected));
    tables
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_station_knows_what_the_tables_hold_whenever_it_begins_and_reads(
        before in prop::collection::vec(any_step(), 0..40),
        steps in prop::collection::vec((any_step(), any::<bool>()), 0..60),
    ) {
        let mut world = World::new(config(), None);
        for step in before {
            run(&mut world, step);
        }
        world.handle(Event::Follow { wanted: true });
        world.followed.clear();
        let mut feed = feed(&world);
        let mut station = Station::default();
        for (step, reads) in steps {
            let sessions = world.sessions.clone();
            run(&mut world, step);
            note(&mut world, &mut feed, &sessions);
            if reads {
                take(&world, &mut feed, &mut station);
            }
        }
        let sessions = world.sessions.clone();
        world.answer_all();
        for peer in 0..PEERS {
            world.end_of_rib(peer);
        }
        world.answer_all();
        world.pull_all();
        note(&mut world, &mut feed, &sessions);
        take_all(&world, &mut feed, &mut station);
        for (key, routes) in expected(&world) {
            let known = std::mem::take(station.table(key));
            prop_assert_eq!(known, routes, "{:?}", key);
        }
        for (key, left) in station.tables {
            prop_assert!(left.is_empty(), "{:?}: {:?}", key, left);
        }
    }
}

#[test]
fn the_end_of_the_first_table_is_marked_once_for_each_table() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[9]));
    let mut feed = feed(&world);
    let mut station = Station::default();
    take_all(&world, &mut feed, &mut station);
    let address = ends(0).peer;
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    for (table, address) in [
        (PRE, address),
        (POST, address),
        (OUT, address),
        (LOC, nowhere),
    ] {
        for family in Family::ALL {
            let marks = station.ends.iter();
            let marks = marks
                .filter(|end| **end == (table, address, family))
                .count();
            assert_eq!(marks, 1, "{table:?} {family}");
        }
    }
}

#[test]
fn nothing_is_said_to_nobody() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[9]));
    world.answer_all();
    let changes = |world: &World| {
        let followed = world.followed.iter();
        followed
            .filter(|it| matches!(it, Followed::Changed(_)))
            .count()
    };
    assert_eq!(changes(&world), 0);
    world.handle(Event::Follow { wanted: true });
    world.tell(0, announcement(0, &[prefix(3)], &[9]));
    assert_eq!(
        changes(&world),
        1,
        "the FIB has not answered: nothing else is selected"
    );
    world.answer_all();
    assert_eq!(changes(&world), 2);
    world.tell(0, announcement(0, &[prefix(3)], &[9]));
    assert_eq!(changes(&world), 2, "the peer said nothing new");
}

#[test]
fn a_station_that_never_reads_is_given_up_and_costs_no_more_than_the_table() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.handle(Event::Follow { wanted: true });
    let mut feed = feed(&world);
    let mut station = Station::default();
    take_all(&world, &mut feed, &mut station);
    // The same few routes again and again are few names.
    for round in 0..1000 {
        world.tell(
            0,
            announcement(0, &[prefix(1), prefix(2)], &[9 + round % 2]),
        );
        let sessions = world.sessions.clone();
        note(&mut world, &mut feed, &sessions);
    }
    assert!(!feed.is_overrun(&world.rib));
    // What a peer is told keeps its words: so much of it does not wait.
    let id = world.sessions[&0];
    let words = Bytes::from(vec![0; 1024 * 1024]);
    for _ in 0..33 {
        assert!(!feed.is_overrun(&world.rib));
        feed.sent(id, &words);
    }
    assert!(feed.is_overrun(&world.rib));
}

#[test]
fn routes_that_go_with_their_session_are_not_named_each() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.handle(Event::Follow { wanted: true });
    let mut feed = feed(&world);
    let mut station = Station::default();
    take_all(&world, &mut feed, &mut station);
    let many: Vec<_> = (1..100).map(prefix).collect();
    world.tell(0, announcement(0, &many, &[9]));
    let sessions = world.sessions.clone();
    note(&mut world, &mut feed, &sessions);
    assert_eq!(feed.waiting_of(PeerIndex(0)), many.len());
    // Named, not yet taken, and the session ends.
    world.down(0, &[]);
    note(&mut world, &mut feed, &sessions);
    assert_eq!(feed.waiting_of(PeerIndex(0)), 0);
    take_all(&world, &mut feed, &mut station);
}

#[test]
fn counts_of_a_report_are_those_of_the_tables() {
    let mut world = World::new(config(), None);
    world.up(0);
    // One is looped, and not used.
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[9]));
    world.tell(0, announcement(0, &[prefix(3)], &[US.0]));
    world.answer_all();
    let mut feed = feed(&world);
    let mut station = Station::default();
    take_all(&world, &mut feed, &mut station);
    feed.report(&world.rib, Duration::from_secs(5), |_| 4);
    take_all(&world, &mut feed, &mut station);
    let [(of_peer, counts), (of_table, selected)] = &station.statistics[..] else {
        panic!("{:?}", station.statistics);
    };
    assert_eq!((of_peer.address, of_table.table), (ends(0).peer, LOC));
    for count in [
        bmp::Statistic::AdjRibIn(3),
        bmp::Statistic::AdjRibInOf(V4.into(), 3),
        bmp::Statistic::RejectedByPolicy(1),
        bmp::Statistic::UpdatesTreatedAsWithdraw(4),
    ] {
        assert!(counts.contains(&count), "{count:?} in {counts:?}");
    }
    assert!(
        selected.contains(&bmp::Statistic::LocRib(3)),
        "{selected:?}"
    );
}

#[test]
fn a_dump_knows_the_peers_of_all_paths_also_of_those_whose_session_is_gone() {
    let mut world = World::new(config(), None);
    for peer in [0, 1, 2] {
        world.up(peer);
        world.tell(peer, announcement(peer, &[prefix(1)], &[9]));
    }
    world.down(0, &Family::ALL);
    world.down(1, &[]);
    let peers = world.rib.path_peers();
    let peers: Vec<(u32, IpAddr)> = peers.iter().map(|it| (it.index.0, it.address)).collect();
    assert_eq!(peers, [(0, ends(0).peer), (2, ends(2).peer)]);
    let told = world.rib.told_paths(&prefix(1));
    let sources: Vec<Option<PeerIndex>> = told.iter().map(|it| it.path.source.index()).collect();
    assert_eq!(sources, [Some(PeerIndex(0)), Some(PeerIndex(2))]);
}
