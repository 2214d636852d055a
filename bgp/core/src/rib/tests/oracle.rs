//! Any sequence of events against the plainest way to compute its result.

use super::*;

#[derive(Clone, Debug)]
pub(super) enum Step {
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

pub(super) fn any_step() -> impl Strategy<Value = Step> {
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
                blackhole: false,
                next_hop: None,
                long_lived: false,
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

                    role: None,
                    interface: ends(*peer).interface,

                    interface_name: None,
                    own_v4: ends(*peer).local_v4,
                    own_v6: None,
                })),
                attributes: Arc::new(attributes),
                blackhole: false,
                next_hop: Some(update.reach[0].next_hop),
                long_lived: false,
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
        policy: config.peers[&PeerIndex(peer)].export.clone(),
        replaced_asn: None,
        role: None,
        private_as: PrivateAs::Keep,
        told_paths: [None; 2],
        long_lived: false,
        extended_next_hop: false,
        encode: EncodeContext::default(),
    }
}

proptest! {
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
                    unconfirmed: false,
                    unreachable: false,
                    path,
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
