//! Peers that share the work of being told: what they believe in the end is what each would believe
//! if it were told alone, however they come, go, lag and change.

use super::*;

const CLIENTS: u32 = 8;
const PREFIXES: u8 = 5;
/// Clients from here on are told every path, not only the best.
const GREEDY: u32 = 5;
/// So few that clients fall behind.
const LOG_LIMIT: usize = 6;

fn address(peer: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, peer as u8)
}

/// Clients of a reflector that reach it at one address: one group, as long as `open` is the same.
fn club_config(open: &[bool]) -> RibConfig {
    let peers = (0..CLIENTS).map(|peer| {
        let export = match open[peer as usize] {
            true => Policy::accept_all(),
            false => Policy::only("low", vec![PrefixMatch::orlonger(prefix(0))]),
        };
        let policy = PeerPolicy {
            client: true,
            export: Arc::new(export),
            ..config().peers[&PeerIndex(2)].clone()
        };
        (PeerIndex(peer), policy)
    });
    RibConfig {
        originate: BTreeMap::new(),
        statics: BTreeMap::new(),
        peers: peers.collect(),
        ..config()
    }
}

/// The reflector and what its clients believe.
struct Club {
    rib: Rib,
    open: Vec<bool>,
    generation: u64,
    sessions: BTreeMap<u32, PeerId>,
    /// What clients have told: a MED for each prefix and path identifier.
    told: BTreeMap<(u32, Nlri), u32>,
    believed: BTreeMap<u32, BTreeMap<Nlri, (PathAttributes, NextHop)>>,
    /// Clients that have asked for everything again, and may hear what they know; and what of it they
    /// have heard. What they have not heard in the end they forget (RFC 7313 §4.2).
    refreshing: BTreeMap<u32, BTreeSet<Nlri>>,
}

impl Club {
    fn new() -> Self {
        let open = vec![true; CLIENTS as usize];
        let options = RibOptions {
            log_limit: LOG_LIMIT,
            ..RibOptions::default()
        };
        Self {
            rib: Rib::new(club_config(&open), options, &mut Vec::new()),
            open,
            generation: 0,
            sessions: BTreeMap::new(),
            told: BTreeMap::new(),
            believed: BTreeMap::new(),
            refreshing: BTreeMap::new(),
        }
    }

    fn handle(&mut self, event: Event) {
        self.rib.handle(Instant::now(), event, &mut Vec::new());
    }

    fn up(&mut self, peer: u32) {
        self.down(peer);
        self.generation += 1;
        let id = PeerId {
            index: PeerIndex(peer),
            generation: self.generation,
        };
        self.sessions.insert(peer, id);
        self.believed.insert(peer, BTreeMap::new());
        self.handle(Event::PeerUp {
            peer: id,
            negotiated: terms(peer),
            ends: Ends {
                peer: address(peer).into(),
                local_v4: Some([198, 51, 100, 1].into()),
                ..ends(0)
            },
        });
    }

    fn down(&mut self, peer: u32) {
        if let Some(id) = self.sessions.remove(&peer) {
            self.believed.remove(&peer);
            self.refreshing.remove(&peer);
            self.told.retain(|(source, _), _| *source != peer);
            self.handle(Event::PeerDown {
                peer: id,
                retain: Vec::new(),
            });
        }
    }

    fn announce(&mut self, peer: u32, nlri: Nlri, med: u32) {
        if let Some(id) = self.sessions.get(&peer).copied() {
            self.told.insert((peer, nlri), med);
            self.handle(Event::Updates {
                peer: id,
                updates: vec![route(peer, nlri, med)],
            });
        }
    }

    fn withdraw(&mut self, peer: u32, nlri: Nlri) {
        if let Some(id) = self.sessions.get(&peer).copied() {
            self.told.remove(&(peer, nlri));
            let update = Update {
                withdrawn: vec![(V4, vec![nlri])],
                ..Update::default()
            };
            self.handle(Event::Updates {
                peer: id,
                updates: vec![update],
            });
        }
    }

    /// Has some clients told less, or everything again.
    fn change_policy(&mut self, peers: &[u32], open: bool) {
        for peer in peers {
            self.open[*peer as usize] = open;
        }
        self.handle(Event::Configure(club_config(&self.open)));
    }

    fn refresh(&mut self, peer: u32) {
        if let Some(id) = self.sessions.get(&peer).copied() {
            self.refreshing.entry(peer).or_default();
            self.handle(Event::Refresh {
                peer: id,
                family: V4,
            });
        }
    }

    /// Lets one client take messages once; whether there were any.
    fn pull(&mut self, peer: u32, budget: usize) -> bool {
        let Some(id) = self.sessions.get(&peer) else {
            return false;
        };
        let Some(octets) = self.rib.pull(Instant::now(), *id, budget) else {
            if let Some(heard) = self.refreshing.remove(&peer) {
                for nlri in self.believed[&peer].keys() {
                    assert!(heard.contains(nlri), "{peer} has not heard {nlri} again");
                }
            }
            return false;
        };
        let believed = self.believed.get_mut(&peer).unwrap();
        let mut heard = self.refreshing.get_mut(&peer);
        let mut stream = BytesMut::from(&octets[..]);
        while let Some(frame) = wire::frame(&mut stream, wire::MAX_MESSAGE_LEN).unwrap() {
            let context = DecodeContext {
                add_path: terms(peer).add_path.send,
                ..DecodeContext::new(PeerKind::Internal)
            };
            let UpdateOutcome::Valid(update) = wire::decode_update(&frame.body, &context) else {
                panic!("we sent an invalid UPDATE");
            };
            for nlri in update.withdrawn.into_iter().flat_map(|(_, list)| list) {
                let known = believed.remove(&nlri);
                assert!(known.is_some(), "{peer} did not know {nlri}");
            }
            for reach in update.reach {
                let told = (update.attributes.clone().unwrap(), reach.next_hop);
                for nlri in reach.nlri {
                    let known = believed.insert(nlri, told.clone());
                    assert!(
                        known.as_ref() != Some(&told) || heard.is_some(),
                        "{peer} knew {nlri}"
                    );
                    if let Some(heard) = &mut heard {
                        heard.insert(nlri);
                    }
                }
            }
        }
        true
    }

    fn pull_all(&mut self) {
        for peer in 0..CLIENTS {
            while self.pull(peer, 2) {}
        }
    }

    /// What a client should believe about a prefix: one path, or each that another has told.
    fn expected(&self, peer: u32, index: u8) -> Vec<(PathAttributes, NextHop)> {
        if !self.open[peer as usize] && index != 0 {
            return Vec::new();
        }
        let told = self
            .told
            .iter()
            .filter(|((_, nlri), _)| nlri.prefix == prefix(index));
        let mut told: Vec<(u32, u32, PathId)> = told
            .map(|((source, nlri), med)| (*med, *source, nlri.id))
            .collect();
        // All else being equal, the lowest MED decides within our own AS, then the router ID.
        told.sort();
        if peer < GREEDY {
            told.truncate(1);
        }
        told.into_iter()
            .filter(|(_, source, _)| *source != peer)
            .map(|(med, source, _)| {
                let update = route(source, prefix(index).into(), med);
                let mut attributes = update.attributes.unwrap();
                attributes.originator_id = Some(RouterId(100 + source));
                attributes.cluster_list = [RouterId(1)].into();
                (attributes, update.reach[0].next_hop)
            })
            .collect()
    }

    /// Whoever asks is told exactly what clients believe, also while they lag behind.
    fn check_listing(&self) {
        for (peer, believed) in &self.believed {
            let index = PeerIndex(*peer);
            let (prefixes, next) =
                self.rib
                    .listed(Listed::AdvertisedTo(index), None, Cursor::default());
            assert_eq!(next, None);
            let mut told = BTreeMap::new();
            for prefix in prefixes {
                for (id, exported) in self.rib.advertised(index, &prefix) {
                    let twice = told.insert(
                        Nlri { prefix, id },
                        (exported.attributes, exported.next_hop),
                    );
                    assert_eq!(twice, None, "{prefix} listed twice to client {peer}");
                }
            }
            assert_eq!(told, *believed, "told to client {peer}");
        }
    }

    fn check(&mut self) {
        self.pull_all();
        for (peer, believed) in &self.believed {
            for index in 0..PREFIXES {
                let believed = believed
                    .iter()
                    .filter(|(nlri, _)| nlri.prefix == prefix(index));
                let mut paths: Vec<_> = believed.map(|(_, path)| path.clone()).collect();
                paths.sort_by_key(|(attributes, _)| (attributes.med, attributes.originator_id));
                assert_eq!(
                    paths,
                    self.expected(*peer, index),
                    "client {peer}, prefix {index}"
                );
            }
        }
        let views = self.rib.peers();
        for (peer, believed) in &self.believed {
            assert_eq!(
                views[&PeerIndex(*peer)][0].advertised,
                believed.len(),
                "count of client {peer}"
            );
        }
        let untold = self.rib.untold();
        for peer in self.believed.keys() {
            assert_eq!(untold[&PeerIndex(*peer)], 0, "left for client {peer}");
        }
    }
}

#[test]
fn a_client_that_does_not_read_shows_by_what_it_has_not_been_told() {
    let mut club = Club::new();
    for peer in 0..3 {
        club.up(peer);
    }
    club.pull_all();
    for index in 0..PREFIXES {
        club.announce(0, prefix(index).into(), 1);
    }
    while club.pull(1, 2) {}
    let untold = |club: &Club| -> Vec<usize> { club.rib.untold().into_values().collect() };
    let all = usize::from(PREFIXES);
    assert_eq!(
        untold(&club),
        [all, 0, all],
        "the first one told them itself"
    );
    // So much that it has to read on its own.
    for med in 2..20 {
        club.announce(0, prefix(0).into(), med);
        while club.pull(1, 2) {}
    }
    let seen = untold(&club);
    assert!(seen[2] > all && seen[1] == 0, "{seen:?}");
    club.pull_all();
    assert_eq!(untold(&club), [0, 0, 0]);
}

/// Terms of a session with a client: all may tell several paths, some are told all.
fn terms(peer: u32) -> Negotiated {
    let send = match peer < GREEDY {
        true => FamilySet::EMPTY,
        false => FamilySet::ALL,
    };
    Negotiated {
        add_path: AddPath {
            send,
            receive: FamilySet::ALL,
        },
        ..Negotiated::plain(US, US, RouterId(100 + peer))
    }
}

fn route(peer: u32, nlri: Nlri, med: u32) -> Update {
    let mut update = announcement(2, &[nlri.prefix], &[]);
    update.reach[0].nlri = vec![nlri];
    update.reach[0].next_hop = NextHop::V4(address(peer));
    update.attributes.as_mut().unwrap().med = Some(med);
    update
}

#[test]
fn a_refresh_tells_everything_although_the_configuration_changes_amid_it() {
    let everybody: Vec<u32> = (0..CLIENTS).collect();
    for moved in [&[0][..], &everybody] {
        let mut club = Club::new();
        club.up(0);
        club.up(1);
        for index in 0..PREFIXES {
            club.announce(1, prefix(index).into(), 1);
        }
        club.check();
        club.refresh(0);
        assert!(club.pull(0, 1), "the refresh has begun");
        club.change_policy(moved, false);
        club.change_policy(moved, true);
        club.check();
    }
}

#[derive(Clone, Debug)]
enum Step {
    Up(u32),
    Down(u32),
    Announce(u32, Nlri, u32),
    Withdraw(u32, Nlri),
    Pull(u32, usize),
    Policy(Vec<u32>, bool),
    Refresh(u32),
    Check,
}

fn any_step() -> impl Strategy<Value = Step> {
    let peer = || 0..CLIENTS;
    let nlri = || {
        (0..PREFIXES, 0_u32..3).prop_map(|(index, id)| Nlri {
            prefix: prefix(index),
            id: PathId(id),
        })
    };
    let some = prop::collection::vec(peer(), 0..CLIENTS as usize);
    prop_oneof![
        3 => peer().prop_map(Step::Up),
        1 => peer().prop_map(Step::Down),
        8 => (peer(), nlri(), 1_u32..3).prop_map(|(peer, nlri, med)| {
            Step::Announce(peer, nlri, med)
        }),
        3 => (peer(), nlri()).prop_map(|(peer, nlri)| Step::Withdraw(peer, nlri)),
        6 => (peer(), 1_usize..4).prop_map(|(peer, budget)| Step::Pull(peer, budget)),
        1 => (some, any::<bool>()).prop_map(|(peers, open)| Step::Policy(peers, open)),
        1 => any::<bool>().prop_map(|open| Step::Policy((0..CLIENTS).collect(), open)),
        1 => peer().prop_map(Step::Refresh),
        1 => Just(Step::Check),
    ]
}

proptest! {
    #[test]
    fn clients_end_up_with_the_same_as_if_each_were_told_alone(
        steps in prop::collection::vec(any_step(), 0..120)
    ) {
        let mut club = Club::new();
        let empty = club.rib.footprint();
        for step in steps {
            match step {
                Step::Up(peer) => club.up(peer),
                Step::Down(peer) => club.down(peer),
                Step::Announce(peer, nlri, med) => club.announce(peer, nlri, med),
                Step::Withdraw(peer, nlri) => club.withdraw(peer, nlri),
                Step::Pull(peer, budget) => { club.pull(peer, budget); }
                Step::Policy(peers, open) => club.change_policy(&peers, open),
                Step::Refresh(peer) => club.refresh(peer),
                Step::Check => club.check(),
            }
            club.check_listing();
        }
        club.check();
        for peer in 0..CLIENTS {
            club.down(peer);
        }
        prop_assert_eq!(club.rib.footprint(), empty);
        prop_assert!(club.rib.is_empty());
    }
}

#[test]
fn a_client_that_takes_nothing_costs_the_others_nothing_and_catches_up_at_once() {
    let mut club = Club::new();
    for peer in 0..3 {
        club.up(peer);
    }
    club.pull_all();
    for round in 0..2000 {
        club.announce(0, prefix((round % 5) as u8).into(), round);
        club.pull(1, 10);
    }
    let journal = club.rib.footprint().journal;
    assert!(journal < 1500, "the journal grew to {journal}");
    let mut pulls = 0;
    while club.pull(2, 10) {
        pulls += 1;
    }
    assert!(pulls <= 3, "it was told of {pulls} old rounds");
    club.check();
}
