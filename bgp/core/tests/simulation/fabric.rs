//! What is configured: routers, and the sessions between them, as plain data.
//!
//! Owns the one description that both the speakers and the oracle start from, and its translation
//! into what the machines take. Does not own who is connected how (`design`) nor what changes when
//! (`plan`).

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::fsm::{
    Config, Identity, LocalGracefulRestart, LocalLongLived, LocalRole, PrefixLimit,
};
use caracal_bgp_core::policy::{
    Action, AnyCommunity, Condition, Operation, Policy, PrefixMatch, PrefixSet, Rule, Verdict,
};
use caracal_bgp_core::rib::{
    Ends, MaxPrefixes, Multipath, NextHopMode, OriginCheck, PeerIndex, PeerPolicy, PrivateAs,
    RibConfig,
};
use caracal_bgp_core::types::{Asn, BgpRole, Family, Prefix, RouterId};
use caracal_bgp_core::wire::{Community, LargeCommunity, Origin, PathAttributes};

/// Routers by number, sessions by number.
#[derive(Clone, Debug)]
pub(crate) struct Fabric {
    pub(crate) routers: Vec<Router>,
    pub(crate) links: Vec<Link>,
}

/// One side of a session: the number of its link, and which end.
pub(crate) type Side = (usize, usize);

#[derive(Clone, Debug)]
pub(crate) struct Router {
    pub(crate) asn: u32,
    pub(crate) id: u32,
    pub(crate) cluster: u32,
    pub(crate) transit: bool,
    pub(crate) maximum_paths: usize,
    pub(crate) relax: bool,
    pub(crate) stale_time: Duration,
    pub(crate) deferral: Duration,
    /// Whether there is a kernel that has to acknowledge routes.
    pub(crate) forwards: bool,
    /// Prefixes that the kernel never takes.
    pub(crate) refused: BTreeSet<Prefix>,
    pub(crate) own: BTreeMap<Prefix, Own>,
    pub(crate) protected: Vec<Prefix>,
    /// How the program around the machines is built: see the consts of the same names there.
    pub(crate) program: Program,
}

/// Sizes of queues and paces of a speaker's shell.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    pub(crate) log_limit: usize,
    pub(crate) pull_budget: usize,
    pub(crate) rib_depth: usize,
    pub(crate) burst: usize,
    /// How long the RIB's thread takes to get to its work, in microseconds.
    pub(crate) thinks: (u64, u64),
    /// The same of the kernel.
    pub(crate) installs: (u64, u64),
}

/// What an own route carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) origin: Origin,
    pub(crate) med: Option<u32>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<u32>,
    pub(crate) large: BTreeSet<(u32, u32, u32)>,
}

/// A session, and the wire below it.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) ends: [End; 2],
    /// Time that octets take, in microseconds, least and most.
    pub(crate) latency: (u64, u64),
    /// The longest run of octets that stays together on the way.
    pub(crate) segment: usize,
    /// Octets that are under way, or unread, at most.
    pub(crate) window: usize,
}

/// One end of a session, as its router is configured.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) router: usize,
    pub(crate) address: IpAddr,
    pub(crate) v4: Option<Ipv4Addr>,
    pub(crate) v6: Option<(Ipv6Addr, Option<Ipv6Addr>)>,
    pub(crate) interface: Option<u32>,
    pub(crate) subnets: Vec<Prefix>,
    pub(crate) local_asn: Option<u32>,
    pub(crate) families: Vec<Family>,
    pub(crate) extended_next_hop: bool,
    pub(crate) extended_messages: bool,
    pub(crate) hold_time: Duration,
    pub(crate) send_hold_time: Option<Duration>,
    pub(crate) connect_retry: Duration,
    pub(crate) passive: bool,
    /// Time for which the peer is asked to keep routes; `None` takes no part in graceful restart.
    pub(crate) restart_time: Option<Duration>,
    pub(crate) long_lived: Option<Duration>,
    pub(crate) role: Option<BgpRole>,
    pub(crate) client: bool,
    pub(crate) cluster: Option<u32>,
    pub(crate) allowed_own_as: u8,
    pub(crate) next_hop_mode: NextHopMode,
    pub(crate) as_override: bool,
    pub(crate) private_as: PrivateAs,
    pub(crate) import: Import,
    pub(crate) export: Export,
    pub(crate) limit: Option<u32>,
    pub(crate) limit_restart: Option<Duration>,
}

/// What is taken from a peer, and how it is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Import {
    pub(crate) closed: bool,
    pub(crate) rejects: BTreeSet<Prefix>,
    pub(crate) local_pref: Option<u32>,
    pub(crate) tags: Option<(u32, BTreeSet<Prefix>)>,
}

/// What a peer is told, and how it is changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Export {
    pub(crate) closed: bool,
    pub(crate) rejects: BTreeSet<Prefix>,
    pub(crate) med: Option<u32>,
    pub(crate) prepends: usize,
    pub(crate) tags: Option<(u32, BTreeSet<Prefix>)>,
}

impl Fabric {
    pub(crate) fn end(&self, (link, end): Side) -> &End {
        &self.links[link].ends[end]
    }

    pub(crate) fn end_mut(&mut self, (link, end): Side) -> &mut End {
        &mut self.links[link].ends[end]
    }

    pub(crate) fn router_at(&self, side: Side) -> &Router {
        &self.routers[self.end(side).router]
    }

    /// Our AS on the session, as its peer sees it.
    pub(crate) fn asn(&self, side: Side) -> u32 {
        let own = self.router_at(side).asn;
        self.end(side).local_asn.unwrap_or(own)
    }

    pub(crate) fn internal(&self, side: Side) -> bool {
        self.asn(side) == self.asn(across(side))
    }

    /// The sessions of a router.
    pub(crate) fn sides(&self, router: usize) -> Vec<Side> {
        let sides = (0..self.links.len()).flat_map(|link| [(link, 0), (link, 1)]);
        sides
            .filter(|side| self.end(*side).router == router)
            .collect()
    }

    pub(crate) fn every_side(&self) -> Vec<Side> {
        let links = 0..self.links.len();
        links.flat_map(|link| [(link, 0), (link, 1)]).collect()
    }

    pub(crate) fn rib_config(&self, router: usize) -> RibConfig {
        let Router {
            asn,
            id,
            cluster,
            transit,
            maximum_paths,
            relax,
            stale_time,
            ref own,
            ref protected,
            ..
        } = self.routers[router];
        let peers = self.sides(router).into_iter();
        RibConfig {
            asn: Asn(asn),
            router_id: RouterId(id),
            cluster_id: RouterId(cluster),
            transit,
            multipath: Multipath {
                maximum: maximum_paths,
                relax,
            },
            stale_time,
            protected: protected.clone(),
            blocks: Arc::default(),
            originate: own
                .iter()
                .map(|(prefix, own)| (*prefix, own.attributes()))
                .collect(),
            statics: BTreeMap::new(),
            peers: peers
                .map(|side| (index(side), self.peer_policy(side)))
                .collect(),
        }
    }

    fn peer_policy(&self, side: Side) -> PeerPolicy {
        let end = self.end(side);
        let own = self.asn(side);
        PeerPolicy {
            local_asn: end.local_asn.map(Asn),
            import: Arc::new(end.import.policy()),
            export: Arc::new(end.export.policy(own)),
            allowed_own_as: end.allowed_own_as,
            as_override: end.as_override,
            private_as: end.private_as,
            cluster_id: end.cluster.map(RouterId),
            told_paths: [None; Family::ALL.len()],
            validate_origin: OriginCheck::Off,
            max_prefixes: Family::ALL.map(|_| {
                end.limit.map(|limit| MaxPrefixes {
                    limit,
                    warn_at: limit / 2 + 1,
                    terminates: true,
                })
            }),
            next_hop_mode: end.next_hop_mode,
            next_hop_v4: None,
            next_hop_v6: None,
            client: end.client && self.internal(side),
            graceful_restart: end.restart_time.is_some(),
        }
    }

    /// `restarting`: the router comes from a restart over which its kernel kept its routes.
    pub(crate) fn machine_config(&self, side: Side, restarting: bool) -> Config {
        let end = self.end(side);
        let router = self.router_at(side);
        let peer = Asn(self.asn(across(side)));
        let families = || end.families.iter().copied();
        Config {
            families: end.families.clone(),
            hold_time: end.hold_time,
            send_hold_time: end.send_hold_time,
            connect_retry: end.connect_retry,
            passive: end.passive,
            prefix_limits: Family::ALL.map(|_| {
                end.limit.map(|limit| PrefixLimit {
                    limit,
                    restart_after: end.limit_restart,
                })
            }),
            graceful_restart: end.restart_time.map(|restart_time| LocalGracefulRestart {
                restart_time,
                restarting,
                families: families().map(|family| (family, restarting)).collect(),
            }),
            long_lived: end
                .long_lived
                .filter(|_| end.restart_time.is_some())
                .map(|long_lived| LocalLongLived {
                    stale_times: families().map(|family| (family, long_lived)).collect(),
                    longest: Some(long_lived),
                }),
            extended_next_hop: end.extended_next_hop,
            extended_messages: end.extended_messages,
            role: end.role.map(|role| LocalRole { role, strict: true }),
            identity: Identity::default(),
            jitter_seed: u64::from(router.id) << 32 | side.0 as u64,
            ..Config::new(Asn(self.asn(side)), RouterId(router.id), peer)
        }
    }

    pub(crate) fn ends(&self, side: Side) -> Ends {
        let end = self.end(side);
        Ends {
            peer: self.end(across(side)).address,
            local_v4: end.v4,
            local_v6: end.v6,
            interface: end.interface,
            interface_name: None,
            subnets: end.subnets.clone(),
        }
    }
}

/// The other end of the session.
pub(crate) fn across((link, end): Side) -> Side {
    (link, 1 - end)
}

/// What the session is called in the RIBs of its ends.
pub(crate) fn index((link, _): Side) -> PeerIndex {
    PeerIndex(u32::try_from(link).unwrap())
}

impl Own {
    pub(crate) fn attributes(&self) -> PathAttributes {
        let large = self.large.iter();
        PathAttributes {
            origin: self.origin,
            med: self.med,
            local_pref: self.local_pref,
            communities: self.communities.iter().copied().map(Community).collect(),
            large_communities: large
                .map(|(global, one, two)| LargeCommunity {
                    global: *global,
                    local1: *one,
                    local2: *two,
                })
                .collect(),
            ..PathAttributes::default()
        }
    }
}

impl Import {
    fn policy(&self) -> Policy {
        let mut rules = rejecting(self.closed, &self.rejects);
        rules.extend(self.tags.as_ref().map(tagging));
        if let Some(local_pref) = self.local_pref {
            let operations = vec![Operation::SetLocalPref(local_pref)];
            rules.push(Rule::new("prefer", vec![], Action::Continue(operations)));
        }
        Policy::new(rules, Verdict::Accept)
    }
}

impl Export {
    pub(crate) fn policy(&self, own: u32) -> Policy {
        let mut rules = rejecting(self.closed, &self.rejects);
        rules.extend(self.tags.as_ref().map(tagging));
        let mut operations = Vec::new();
        operations.extend(self.med.map(Operation::SetMed));
        if self.prepends > 0 {
            operations.push(Operation::Prepend(vec![Asn(own); self.prepends]));
        }
        if !operations.is_empty() {
            rules.push(Rule::new("change", vec![], Action::Accept(operations)));
        }
        Policy::new(rules, Verdict::Accept)
    }
}

fn rejecting(closed: bool, prefixes: &BTreeSet<Prefix>) -> Vec<Rule> {
    if closed {
        return vec![Rule::new("closed", vec![], Action::Reject)];
    }
    if prefixes.is_empty() {
        return Vec::new();
    }
    vec![Rule::new("rejects", vec![within(prefixes)], Action::Reject)]
}

fn tagging((community, prefixes): &(u32, BTreeSet<Prefix>)) -> Rule {
    let community = AnyCommunity::Standard(Community(*community));
    let operations = vec![Operation::AddCommunity(community)];
    Rule::new("tags", vec![within(prefixes)], Action::Continue(operations))
}

fn within(prefixes: &BTreeSet<Prefix>) -> Condition {
    let exact: Vec<PrefixMatch> = prefixes.iter().copied().map(PrefixMatch::exact).collect();
    Condition::Prefix(PrefixSet::new(exact))
}
