//! The RIB against a brute-force oracle, and the order of events that restarts hang on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::fsm::{Negotiated, PeerGracefulRestart};
use crate::policy::{Policy, PrefixMatch};
use crate::rib::sessions::{EARLY_END_OF_RIB, SETTLE};
use crate::types::{Asn, Family, FamilySet, NextHop, Nlri, PathId, PeerKind, Prefix, RouterId};
use crate::wire::{
    self, AsPath, DecodeContext, EncodeContext, PathAttributes, Reach, Update, UpdateOutcome,
};

const US: Asn = Asn(65_000);
const PEERS: u32 = 4;
const V4: Family = Family::Ipv4Unicast;
const RESTART: Duration = Duration::from_secs(100);

/// Peers 0 and 1 are external, 2 and 3 internal; 2 is a client.
fn asn(peer: u32) -> Asn {
    if peer < 2 { Asn(65_001 + peer) } else { US }
}

fn kind(peer: u32) -> PeerKind {
    if asn(peer) == US {
        PeerKind::Internal
    } else {
        PeerKind::External
    }
}

fn config() -> RibConfig {
    let peers = (0..PEERS)
        .map(|peer| {
            let export = if peer == 1 {
                Policy::only("low", vec![PrefixMatch::orlonger(prefix(0))])
            } else {
                Policy::accept_all()
            };
            let policy = PeerPolicy {
                import: Arc::default(),
                export: Arc::new(export),
                next_hop_mode: NextHopMode::Auto,
                next_hop_v4: None,
                next_hop_v6: None,
                client: peer == 2,
                graceful_restart: true,
            };
            (PeerIndex(peer), policy)
        })
        .collect();
    RibConfig {
        asn: US,
        router_id: RouterId(1),
        cluster_id: RouterId(1),
        transit: true,
        multipath: Multipath {
            maximum: 4,
            relax: true,
        },
        stale_time: Duration::from_secs(300),
        protected: vec!["10.255.0.0/16".parse().unwrap()],
        originate: BTreeMap::from([(prefix(7), PathAttributes::default())]),
        peers,
    }
}

fn prefix(index: u8) -> Prefix {
    Prefix::v4([10, index, 0, 0].into(), 16).unwrap()
}

fn negotiated(peer: u32) -> Negotiated {
    Negotiated {
        graceful_restart: Some(PeerGracefulRestart {
            restarting: false,
            notification: true,
            restart_time: RESTART,
            families: Family::ALL.map(|family| (family, true)).to_vec(),
        }),
        ..Negotiated::plain(US, asn(peer), RouterId(100 + peer))
    }
}

fn ends(peer: u32) -> Ends {
    Ends {
        peer: [172, 16, 1, peer as u8].into(),
        local_v4: Some([172, 16, 0, peer as u8].into()),
        local_v6: None,
        interface: Some(peer + 1),
        subnets: Vec::new(),
    }
}

fn announcement(peer: u32, prefixes: &[Prefix], hops: &[u32]) -> Update {
    let mut path: Vec<Asn> = hops.iter().copied().map(Asn).collect();
    if peer < 2 {
        path.insert(0, asn(peer));
    }
    Update {
        reach: vec![Reach {
            family: V4,
            next_hop: NextHop::V4([172, 16, 1, peer as u8].into()),
            nlri: prefixes.iter().copied().map(Nlri::from).collect(),
        }],
        attributes: Some(PathAttributes {
            as_path: AsPath::new(path),
            local_pref: (peer >= 2).then_some(100),
            ..PathAttributes::default()
        }),
        ..Update::default()
    }
}

/// A RIB with a FIB that answers when told to, and peers that believe what they are told.
struct World {
    rib: Rib,
    now: Instant,
    generation: u64,
    sessions: BTreeMap<u32, PeerId>,
    /// What each peer believes, from the octets it was sent.
    believed: BTreeMap<u32, BTreeMap<Prefix, (PathAttributes, NextHop)>>,
    ended: BTreeMap<u32, BTreeSet<Family>>,
    fib: BTreeMap<Prefix, Arc<[Forward]>>,
    unanswered: Vec<(Prefix, u64)>,
    complete: usize,
}

impl World {
    fn new(config: RibConfig, defer: Option<Duration>) -> Self {
        let now = Instant::now();
        let mut out = Vec::new();
        let options = RibOptions {
            defer_until: defer.map(|defer| now + defer),
            forwarding: true,
            hash_seed: 1,
        };
        let rib = Rib::new(config, options, &mut out);
        let mut world = Self {
            rib,
            now,
            generation: 0,
            sessions: BTreeMap::new(),
            believed: BTreeMap::new(),
            ended: BTreeMap::new(),
            fib: BTreeMap::new(),
            unanswered: Vec::new(),
            complete: 0,
        };
        world.act(out);
        world
    }

    fn handle(&mut self, event: Event) {
        let mut out = Vec::new();
        self.rib.handle(self.now, event, &mut out);
        self.act(out);
    }

    fn advance(&mut self, by: Duration) {
        self.now += by;
        let mut out = Vec::new();
        self.rib.handle_timeout(self.now, &mut out);
        self.act(out);
    }

    fn act(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Fib {
                    prefix,
                    forward,
                    seq,
                } => {
                    match forward {
                        Some(forward) => self.fib.insert(prefix, forward),
                        None => self.fib.remove(&prefix),
                    };
                    self.unanswered.push((prefix, seq));
                }
                Action::FibComplete => self.complete += 1,
                Action::RestartComplete | Action::EgressReady { .. } => {}
            }
        }
    }

    fn answer_all(&mut self) {
        self.answer_all_with(None);
    }

    fn answer_all_with(&mut self, failed: Option<String>) {
        let answers = std::mem::take(&mut self.unanswered)
            .into_iter()
            .map(|(prefix, seq)| FibAnswer {
                prefix,
                seq,
                failed: failed.clone(),
            });
        self.handle(Event::Answered(answers.collect()));
    }

    fn up(&mut self, peer: u32) {
        self.up_with(peer, negotiated(peer));
    }

    fn up_with(&mut self, peer: u32, negotiated: Negotiated) {
        self.generation += 1;
        let id = PeerId {
            index: PeerIndex(peer),
            generation: self.generation,
        };
        self.sessions.insert(peer, id);
        self.believed.insert(peer, BTreeMap::new());
        self.ended.insert(peer, BTreeSet::new());
        self.handle(Event::PeerUp {
            peer: id,
            negotiated,
            ends: ends(peer),
        });
    }

    fn down(&mut self, peer: u32, retain: &[Family]) {
        if let Some(id) = self.sessions.remove(&peer) {
            self.handle(Event::PeerDown {
                peer: id,
                retain: retain.to_vec(),
                restart_time: RESTART,
            });
        }
    }

    fn tell(&mut self, peer: u32, update: Update) {
        if let Some(id) = self.sessions.get(&peer) {
            self.handle(Event::Update { peer: *id, update });
        }
    }

    fn end_of_rib(&mut self, peer: u32) {
        for family in Family::ALL {
            let update = Update {
                end_of_rib: Some(family),
                ..Update::default()
            };
            self.tell(peer, update);
        }
    }

    /// Lets one peer read at most `budget` prefixes; whether there was anything.
    fn pull(&mut self, peer: u32, budget: usize) -> bool {
        let Some(id) = self.sessions.get(&peer) else {
            return false;
        };
        let Some(octets) = self.rib.pull(self.now, *id, budget) else {
            return false;
        };
        let context = DecodeContext::new(kind(peer));
        let mut stream = BytesMut::from(&octets[..]);
        while let Some(frame) = wire::frame(&mut stream, wire::MAX_MESSAGE_LEN).unwrap() {
            let UpdateOutcome::Valid(update) = wire::decode_update(&frame.body, &context) else {
                panic!("we sent an invalid UPDATE");
            };
            let believed = self.believed.get_mut(&peer).unwrap();
            for nlri in update.withdrawn.into_iter().flat_map(|(_, list)| list) {
                assert!(
                    believed.remove(&nlri.prefix).is_some(),
                    "withdrew the unknown"
                );
            }
            for reach in update.reach {
                for nlri in reach.nlri {
                    let attributes = update.attributes.clone().unwrap();
                    believed.insert(nlri.prefix, (attributes, reach.next_hop));
                }
            }
            if let Some(family) = update.end_of_rib {
                self.ended.get_mut(&peer).unwrap().insert(family);
            }
        }
        assert!(stream.is_empty(), "a message was cut");
        true
    }

    fn pull_all(&mut self) {
        for peer in 0..PEERS {
            while self.pull(peer, 3) {}
        }
    }

    fn believes(&self, peer: u32, prefix: Prefix) -> bool {
        self.believed[&peer].contains_key(&prefix)
    }
}

fn no_restart(peer: u32) -> Negotiated {
    Negotiated {
        graceful_restart: None,
        ..negotiated(peer)
    }
}

#[test]
fn a_learnt_route_is_told_only_after_the_fib_has_it_and_withdrawn_at_once() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.pull_all();
    assert!(world.believes(2, prefix(7)), "own routes do not wait");
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.pull_all();
    assert!(!world.believes(2, prefix(1)));
    world.answer_all();
    world.pull_all();
    assert!(world.believes(2, prefix(1)));
    assert!(!world.believes(0, prefix(1)), "split horizon");
    world.tell(
        0,
        Update {
            withdrawn: vec![(V4, vec![prefix(1).into()])],
            ..Update::default()
        },
    );
    world.pull_all();
    assert!(!world.believes(2, prefix(1)), "a withdrawal waited");
}

#[test]
fn a_route_that_the_fib_refuses_is_told_to_nobody() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.answer_all_with(Some("no space".to_owned()));
    world.pull_all();
    assert!(!world.believes(2, prefix(1)));
    let route = world.rib.covering(&prefix(1)).unwrap();
    assert_eq!(route.fib, FibState::Failed("no space".into()));
}

#[test]
fn loops_and_protected_prefixes_are_kept_with_their_reason_and_never_used() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.tell(0, announcement(0, &[prefix(1)], &[65_000]));
    let protected: Prefix = "10.255.3.0/26".parse().unwrap();
    world.tell(0, announcement(0, &[protected], &[]));
    let mut looped = announcement(2, &[prefix(2)], &[]);
    looped.attributes.as_mut().unwrap().originator_id = Some(RouterId(1));
    world.tell(2, looped);
    let mut looped = announcement(2, &[prefix(3)], &[]);
    looped.attributes.as_mut().unwrap().cluster_list = [RouterId(5), RouterId(1)].into();
    world.tell(2, looped);
    let mut own_next_hop = announcement(2, &[prefix(4)], &[]);
    own_next_hop.reach[0].next_hop = NextHop::V4([172, 16, 0, 2].into());
    world.tell(2, own_next_hop);
    assert!(world.fib.is_empty());
    let why = |prefix| world.rib.routes(Some(prefix))[0].paths[0].rejected.clone();
    assert_eq!(why(prefix(1)), Some(Rejection::AsLoop));
    assert_eq!(
        why(protected),
        Some(Rejection::Protected("10.255.0.0/16".parse().unwrap()))
    );
    assert_eq!(why(prefix(2)), Some(Rejection::OriginatorIsSelf));
    assert_eq!(why(prefix(3)), Some(Rejection::ClusterLoop));
    assert_eq!(why(prefix(4)), Some(Rejection::OwnNextHop));
}

#[test]
fn a_new_import_policy_judges_old_routes_without_a_word_from_the_peer() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    let mut closed = config();
    closed.peers.get_mut(&PeerIndex(0)).unwrap().import = Arc::new(Policy::reject_all());
    world.handle(Event::Configure(closed));
    assert!(world.fib.is_empty());
    world.handle(Event::Configure(config()));
    assert!(world.fib.contains_key(&prefix(1)));
}

#[test]
fn equal_paths_become_one_route_with_many_ways() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(1);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.tell(1, announcement(1, &[prefix(1)], &[]));
    assert_eq!(world.fib[&prefix(1)].len(), 2);
    world.down(1, &[]);
    assert_eq!(world.fib[&prefix(1)].len(), 1);
}

#[test]
fn stale_routes_stay_until_end_of_rib_and_only_what_was_told_again_remains() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down(0, &[V4]);
    assert_eq!(world.fib.len(), 2, "retained");
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    assert_eq!(world.fib.len(), 2);
    world.end_of_rib(0);
    assert_eq!(world.fib.keys().copied().collect::<Vec<_>>(), [prefix(1)]);
}

#[test]
fn stale_routes_go_when_the_peer_does_not_come_back_in_time() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    world.advance(RESTART - Duration::from_secs(1));
    assert_eq!(world.fib.len(), 1);
    world.advance(Duration::from_secs(1));
    assert!(world.fib.is_empty());
    assert_eq!(world.rib.poll_timeout(), None);
}

#[test]
fn stale_routes_go_at_once_when_the_peer_lost_its_forwarding_state_or_its_path() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    let mut lost = negotiated(0);
    lost.graceful_restart.as_mut().unwrap().families = vec![(V4, false)];
    world.up_with(0, lost);
    assert!(world.fib.is_empty(), "F bit clear");

    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    world.handle(Event::PathDown {
        index: PeerIndex(0),
    });
    assert!(world.fib.is_empty(), "path down");
}

#[test]
fn a_second_restart_drops_what_was_stale_from_the_first() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.down(0, &[V4]);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.down(0, &[V4]);
    assert_eq!(world.fib.keys().copied().collect::<Vec<_>>(), [prefix(1)]);
}

#[test]
fn events_of_an_older_session_are_ignored() {
    let mut world = World::new(config(), None);
    world.up(0);
    let old = world.sessions[&0];
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.handle(Event::PeerDown {
        peer: old,
        retain: vec![],
        restart_time: RESTART,
    });
    world.handle(Event::Update {
        peer: old,
        update: announcement(0, &[prefix(2)], &[]),
    });
    assert_eq!(world.fib.keys().copied().collect::<Vec<_>>(), [prefix(1)]);
}

#[test]
fn after_a_restart_selection_waits_for_every_peer_that_takes_part() {
    let mut world = World::new(config(), Some(Duration::from_secs(30)));
    for peer in [0, 1, 2] {
        world.up(peer);
    }
    world.up_with(3, no_restart(3));
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.end_of_rib(0);
    world.pull_all();
    assert!(world.believes(2, prefix(7)), "own routes do not wait");
    world.end_of_rib(1);
    assert!(world.fib.is_empty() && world.complete == 0);
    assert!(world.rib.deferring());
    world.end_of_rib(2);
    world.advance(SETTLE);
    assert!(
        world.rib.deferring(),
        "two peers have ended without a route"
    );
    world.tell(1, announcement(1, &[prefix(1)], &[]));
    world.tell(2, announcement(2, &[prefix(2)], &[]));
    assert!(world.fib.is_empty(), "more may follow");
    world.advance(SETTLE);
    assert_eq!((world.fib.len(), world.complete), (2, 1));
    world.pull_all();
    assert!(world.ended[&2].is_empty(), "the FIB has not answered yet");
    world.answer_all();
    world.pull_all();
    assert!(world.believes(2, prefix(1)));
    assert_eq!(world.ended[&2].len(), 2);
}

#[test]
fn after_a_restart_selection_waits_no_longer_than_its_deadline() {
    let mut world = World::new(config(), Some(Duration::from_secs(30)));
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.advance(Duration::from_secs(29));
    assert!(world.fib.is_empty());
    world.advance(Duration::from_secs(1));
    assert_eq!((world.fib.len(), world.complete), (1, 1));
}

#[test]
fn after_a_restart_a_peer_behind_a_dead_link_is_not_waited_for() {
    let mut world = World::new(config(), Some(Duration::from_secs(30)));
    for peer in 1..PEERS {
        world.up(peer);
        world.end_of_rib(peer);
    }
    assert!(world.rib.deferring());
    world.handle(Event::PathDown {
        index: PeerIndex(0),
    });
    world.advance(EARLY_END_OF_RIB);
    assert!(!world.rib.deferring());
}

#[test]
fn end_of_rib_does_not_wait_for_a_stuck_fib_for_ever() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.tell(0, announcement(0, &[prefix(1)], &[]));
    world.pull_all();
    assert!(world.ended[&0].is_empty());
    assert!(world.rib.poll_timeout().is_some());
    world.advance(Duration::from_secs(11));
    world.pull_all();
    assert_eq!(world.ended[&0].len(), 2);
    assert_eq!(world.rib.poll_timeout(), None);
}

#[test]
fn a_refresh_tells_everything_again() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.pull_all();
    world.believed.get_mut(&0).unwrap().clear();
    world.handle(Event::Refresh {
        peer: world.sessions[&0],
        family: V4,
    });
    world.pull_all();
    assert!(world.believes(0, prefix(7)));
}

#[test]
fn a_reader_that_fell_behind_is_told_the_difference_from_the_table() {
    let mut world = World::new(config(), None);
    world.up(0);
    world.up(2);
    world.tell(0, announcement(0, &[prefix(1), prefix(2)], &[]));
    world.answer_all();
    world.pull_all();
    for round in 0..4000 {
        world.tell(0, announcement(0, &[prefix(1)], &[1 + round % 2]));
        if round == 2000 {
            world.tell(
                0,
                Update {
                    withdrawn: vec![(V4, vec![prefix(2).into()])],
                    ..Update::default()
                },
            );
        }
    }
    world.answer_all();
    let journal = world.rib.footprint()[2];
    assert!(journal < 2000, "journal grew to {journal}");
    world.pull_all();
    assert!(!world.believes(2, prefix(2)));
    let (attributes, _) = &world.believed[&2][&prefix(1)];
    assert_eq!(attributes.as_path.to_string(), "65001 2");
}

#[test]
fn memory_returns_to_its_baseline_after_churn() {
    let mut world = World::new(config(), None);
    world.up(2);
    world.pull_all();
    let before = world.rib.footprint();
    for round in 0..50_u32 {
        world.up(0);
        for hop in 1..100 {
            world.tell(
                0,
                announcement(0, &[prefix((hop % 7) as u8)], &[hop, round + 1]),
            );
        }
        world.answer_all();
        world.pull_all();
        world.down(0, &[]);
        world.pull_all();
        world.sessions.remove(&0);
    }
    assert_eq!(world.rib.footprint(), before);
    assert_eq!(world.rib.len(), 1, "the own route is left");
}

#[derive(Clone, Debug)]
enum Step {
    Up(u32),
    Down(u32, bool),
    Announce(u32, u8, Vec<u32>),
    Withdraw(u32, u8),
    EndOfRib(u32),
    Answer,
    Pull(u32),
    PathDown(u32),
    Refresh(u32),
    Time,
}

fn any_step() -> impl Strategy<Value = Step> {
    let peer = || 0..PEERS;
    let hops = prop::collection::vec(prop_oneof![1_u32..4, Just(65_000)], 0..3);
    prop_oneof![
        2 => peer().prop_map(Step::Up),
        1 => (peer(), any::<bool>()).prop_map(|(peer, keep)| Step::Down(peer, keep)),
        6 => (peer(), 0_u8..9, hops).prop_map(|(peer, index, hops)| {
            Step::Announce(peer, if index == 8 { 255 } else { index }, hops)
        }),
        2 => (peer(), 0_u8..8).prop_map(|(peer, index)| Step::Withdraw(peer, index)),
        1 => peer().prop_map(Step::EndOfRib),
        2 => Just(Step::Answer),
        2 => peer().prop_map(Step::Pull),
        1 => peer().prop_map(Step::PathDown),
        1 => peer().prop_map(Step::Refresh),
        1 => Just(Step::Time),
    ]
}

/// What each peer has told, kept in the plainest way.
#[derive(Default)]
struct Oracle {
    told: BTreeMap<u32, BTreeMap<Prefix, (Update, bool)>>,
    stale_until: BTreeMap<u32, Instant>,
}

impl Oracle {
    fn drop_stale(&mut self, peer: u32) {
        self.stale_until.remove(&peer);
        if let Some(told) = self.told.get_mut(&peer) {
            told.retain(|_, (_, stale)| !*stale);
        }
    }

    fn apply(&mut self, world: &World, step: &Step) {
        match step {
            Step::Up(peer) => {
                if world.sessions.contains_key(peer) {
                    self.told.remove(peer);
                    self.stale_until.remove(peer);
                } else if let Some(until) = self.stale_until.get_mut(peer) {
                    *until = world.now + Duration::from_secs(300);
                }
            }
            Step::Down(peer, keep) if world.sessions.contains_key(peer) => {
                if *keep {
                    self.drop_stale(*peer);
                    for (_, stale) in self.told.entry(*peer).or_default().values_mut() {
                        *stale = true;
                    }
                    self.stale_until.insert(*peer, world.now + RESTART);
                } else {
                    self.told.remove(peer);
                    self.stale_until.remove(peer);
                }
            }
            Step::Announce(peer, index, hops) if world.sessions.contains_key(peer) => {
                let update = announcement(*peer, &[prefix(*index)], hops);
                let told = self.told.entry(*peer).or_default();
                told.insert(prefix(*index), (update, false));
            }
            Step::Withdraw(peer, index) if world.sessions.contains_key(peer) => {
                self.told.entry(*peer).or_default().remove(&prefix(*index));
            }
            Step::EndOfRib(peer) if world.sessions.contains_key(peer) => self.drop_stale(*peer),
            Step::PathDown(peer) => {
                self.told.remove(peer);
                self.stale_until.remove(peer);
            }
            Step::Time => {
                let now = world.now + Duration::from_secs(60);
                let due: Vec<u32> = self
                    .stale_until
                    .iter()
                    .filter(|(_, until)| **until <= now)
                    .map(|(peer, _)| *peer)
                    .collect();
                due.into_iter().for_each(|peer| self.drop_stale(peer));
            }
            _ => {}
        }
    }

    /// All paths to `prefix` that may be used.
    fn paths(&self, prefix: Prefix) -> Vec<Path> {
        let mut paths = Vec::new();
        if prefix == self::prefix(7) {
            paths.push(Path {
                source: Source::Local,
                attributes: Arc::default(),
                next_hop: None,
            });
        }
        for (peer, told) in &self.told {
            let Some((update, _)) = told.get(&prefix) else {
                continue;
            };
            let attributes = update.attributes.clone().unwrap();
            if attributes.as_path.contains(US) || prefix == self::prefix(255) {
                continue;
            }
            paths.push(Path {
                source: Source::Peer(Arc::new(PathPeer {
                    index: PeerIndex(*peer),
                    asn: asn(*peer),
                    router_id: RouterId(100 + peer),
                    address: ends(*peer).peer,
                    internal: asn(*peer) == US,
                    client: *peer == 2,
                    interface: ends(*peer).interface,
                    own_v4: ends(*peer).local_v4,
                    own_v6: None,
                })),
                attributes: Arc::new(attributes),
                next_hop: Some(update.reach[0].next_hop),
            });
        }
        paths
    }
}

fn egress(peer: u32) -> EgressConfig {
    let config = config();
    EgressConfig {
        local_asn: US,
        cluster_id: config.cluster_id,
        peer: kind(peer),
        client: peer == 2,
        transit: true,
        families: FamilySet::ALL,
        next_hop_mode: NextHopMode::Auto,
        self_v4: ends(peer).local_v4,
        self_v6: None,
        subnets: Vec::new(),
        policy: Arc::clone(&config.peers[&PeerIndex(peer)].export),
        encode: EncodeContext::default(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn every_peer_ends_up_with_policy_applied_to_the_best_of_all_paths(
        steps in prop::collection::vec(any_step(), 0..80)
    ) {
        let mut world = World::new(config(), None);
        let mut oracle = Oracle::default();
        for step in steps {
            oracle.apply(&world, &step);
            match step {
                Step::Up(peer) => world.up(peer),
                Step::Down(peer, keep) => world.down(peer, if keep { &Family::ALL } else { &[] }),
                Step::Announce(peer, index, hops) => {
                    world.tell(peer, announcement(peer, &[prefix(index)], &hops));
                }
                Step::Withdraw(peer, index) => world.tell(peer, Update {
                    withdrawn: vec![(V4, vec![prefix(index).into()])],
                    ..Update::default()
                }),
                Step::EndOfRib(peer) => world.end_of_rib(peer),
                Step::Answer => world.answer_all(),
                Step::Pull(peer) => { world.pull(peer, 2); }
                Step::PathDown(peer) => {
                    world.sessions.remove(&peer);
                    world.handle(Event::PathDown { index: PeerIndex(peer) });
                }
                Step::Refresh(peer) => if let Some(id) = world.sessions.get(&peer) {
                    world.handle(Event::Refresh { peer: *id, family: V4 });
                },
                Step::Time => world.advance(Duration::from_secs(60)),
            }
        }
        world.answer_all();
        world.pull_all();

        for index in (0..8).chain([255]) {
            let prefix = prefix(index);
            let paths = oracle.paths(prefix);
            let ranks: Vec<Rank> = paths.iter().map(Rank::of).collect();
            let candidates: Vec<_> = paths.iter().zip(&ranks)
                .map(|(path, rank)| Some(Candidate {
                    rank,
                    id: PathId::default(),
                    attributes: &path.attributes,
                }))
                .collect();
            let best = best_path(&candidates, config().multipath);
            let mut ways: Vec<Forward> = best.iter().flat_map(|best| &best.multipath)
                .filter_map(|index| Some(Forward {
                    next_hop: paths[*index].next_hop?,
                    interface: paths[*index].source.peer()?.interface,
                }))
                .collect();
            ways.sort();
            prop_assert_eq!(world.fib.get(&prefix).map_or(&[][..], |ways| ways), ways);
            for peer in world.sessions.keys() {
                let expected = best.as_ref()
                    .map(|best| &paths[best.best])
                    .filter(|path| path.source.index() != Some(PeerIndex(*peer)))
                    .and_then(|path| export(&prefix, path, &egress(*peer)).ok())
                    .map(|told| (told.attributes, told.next_hop));
                prop_assert_eq!(
                    world.believed[peer].get(&prefix), expected.as_ref(),
                    "peer {} prefix {}", peer, prefix
                );
            }
        }
        for peer in world.sessions.keys() {
            prop_assert_eq!(world.ended[peer].len(), 2, "End-of-RIB to peer {}", peer);
        }
    }
}
