//! The RIB against brute-force oracles, and the order of events that restarts hang on.

mod events;
mod features;
mod follow;
mod groups;
mod listing;
mod oracle;
mod signature;
mod stale;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::*;
use crate::fsm::{AddPath, Negotiated, PeerGracefulRestart, Retention};
use crate::policy::{Policy, PrefixMatch};
use crate::rib::sessions::{EARLY_END_OF_RIB, SETTLE};
use crate::types::{Asn, Family, FamilySet, NextHop, Nlri, PathId, PeerKind, Prefix, RouterId};
use crate::wire::{
    self, AsPath, Community, DecodeContext, EncodeContext, MessageType, PathAttributes, Reach,
    Update, UpdateOutcome,
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
                local_asn: None,
                import: Arc::default(),
                export: Arc::new(export),
                allowed_own_as: 0,
                as_override: false,
                private_as: PrivateAs::Keep,
                cluster_id: None,
                told_paths: [None; 2],
                validate_origin: OriginCheck::Off,
                max_prefixes: [None; 2],
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
        blocks: Arc::default(),
        originate: BTreeMap::from([(prefix(7), PathAttributes::default())]),
        statics: BTreeMap::new(),
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
        interface_name: None,
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
    /// Next hops that the FIB is to watch.
    tracked: BTreeSet<Forward>,
    complete: usize,
    /// Warnings and ends because of too many prefixes, in order.
    limits: Vec<bool>,
    /// What followers are told, in order.
    followed: Vec<Followed>,
}

/// What comes out of the RIB for those who follow it.
enum Followed {
    Changed(Changed),
    Sent(PeerId, Bytes),
}

impl World {
    fn new(config: RibConfig, defer: Option<Duration>) -> Self {
        let now = Instant::now();
        let mut out = Vec::new();
        let options = RibOptions {
            defer_until: defer.map(|defer| now + defer),
            forwarding: true,
            hash_seed: 1,
            log_limit: 6,
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
            tracked: BTreeSet::new(),
            complete: 0,
            limits: Vec::new(),
            followed: Vec::new(),
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
                Action::PrefixLimit { exceeded, .. } => self.limits.push(exceeded),
                Action::Track { forward, wanted } => {
                    if wanted {
                        self.tracked.insert(forward);
                    } else {
                        self.tracked.remove(&forward);
                    }
                }
                Action::Changed(changed) => self.followed.push(Followed::Changed(changed)),
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
            let retain = retain.iter().copied().map(retention);
            self.handle(Event::PeerDown {
                peer: id,
                retain: retain.collect(),
            });
        }
    }

    fn tell(&mut self, peer: u32, update: Update) {
        if let Some(id) = self.sessions.get(&peer) {
            self.handle(Event::Updates {
                peer: *id,
                updates: vec![update],
            });
        }
    }

    fn end_of_rib(&mut self, peer: u32) {
        for family in Family::ALL {
            self.end_of_family(peer, family);
        }
    }

    fn end_of_family(&mut self, peer: u32, family: Family) {
        let update = Update {
            end_of_rib: Some(family),
            ..Update::default()
        };
        self.tell(peer, update);
    }

    /// Lets one peer read at most `budget` prefixes; whether there was anything.
    fn pull(&mut self, peer: u32, budget: usize) -> bool {
        let Some(id) = self.sessions.get(&peer) else {
            return false;
        };
        let Some(octets) = self.rib.pull(self.now, *id, budget) else {
            return false;
        };
        self.followed.push(Followed::Sent(*id, octets.clone()));
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

fn retention(family: Family) -> Retention {
    Retention {
        family,
        restart_time: RESTART,
        long_lived_time: Duration::ZERO,
    }
}

fn no_restart(peer: u32) -> Negotiated {
    Negotiated {
        graceful_restart: None,
        ..negotiated(peer)
    }
}

fn with_communities(mut update: Update, communities: &[Community]) -> Update {
    update.attributes.as_mut().unwrap().communities = communities.iter().copied().collect();
    update
}
