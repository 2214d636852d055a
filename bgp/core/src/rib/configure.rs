//! What another configuration, or another place of a session, does to the routes that are there.
//!
//! Owns which of them are judged, selected and told again. Does not own how: that is
//! [`super::intake`]'s, [`super::machine`]'s and [`super::groups`]'.

use std::collections::{BTreeMap, HashMap, hash_map};
use std::sync::Arc;

use crate::rib::event::{Action, Ends, PeerPolicy, RibConfig};
use crate::rib::intake::Intake;
use crate::rib::machine::Rib;
use crate::rib::path::{Path, PathPeer, PeerIndex, Source};
use crate::rib::paths::PathRef;
use crate::rib::peer::Peer;
use crate::rib::sessions::{concerning, egress_config, path_peer};
use crate::rib::table::{DestId, Entry, Marks};
use crate::types::{Family, FamilySet, PathId, Prefix, RouterId};
use crate::wire::{Community, PathAttributes};

impl Rib {
    pub(super) fn configure(&mut self, config: RibConfig, out: &mut Vec<Action>) {
        let old = std::mem::replace(&mut self.config, config);
        let old_clusters = std::mem::replace(&mut self.own_clusters, own_clusters(&self.config));
        let removed: Vec<PeerIndex> = self
            .peers
            .keys()
            .filter(|index| !self.config.peers.contains_key(index))
            .copied()
            .collect();
        for index in removed {
            self.end_session(index);
            self.forget_paths(index, |_, _| true, out);
            self.peers.remove(&index);
            self.stop_waiting_for(index);
        }
        let policies = self.config.peers.iter();
        let absent = policies.filter(|(_, policy)| !policy.graceful_restart);
        for index in absent.map(|(index, _)| *index).collect::<Vec<_>>() {
            self.stop_waiting_for(index);
        }
        let mut limited_otherwise = Vec::new();
        for (index, policy) in &self.config.peers {
            let peer = self.peers.entry(*index);
            let peer = peer.or_insert_with(|| Peer::new(policy.clone()));
            let before = std::mem::replace(&mut peer.policy, policy.clone());
            if let Some(session) = &mut peer.session
                && before.max_prefixes != policy.max_prefixes
            {
                session.warned = FamilySet::EMPTY;
                session.exceeded = FamilySet::EMPTY;
                limited_otherwise.push(session.id);
            }
        }
        for id in limited_otherwise {
            for family in Family::ALL {
                self.check_limit(id, family, out);
            }
        }

        let renewed = self.renew_path_peers();
        let rejudge =
            !renewed.is_empty() || self.own_clusters != old_clusters || self.import_differs(&old);
        if rejudge {
            self.rejudge(self.table.sorted(), &renewed, out);
        }
        if (&self.config.originate, &self.config.statics) != (&old.originate, &old.statics) {
            let (before, now) = (own_routes(&old), own_routes(&self.config));
            for prefix in before.keys().filter(|prefix| !now.contains_key(prefix)) {
                self.disown(prefix, out);
            }
            for (prefix, own) in now {
                if before.get(&prefix) != Some(&own) {
                    self.originate(prefix, own, out);
                }
            }
        }
        if rejudge || self.config.multipath != old.multipath {
            self.reselect_all(out);
        }
        self.regroup(out);
    }

    /// Whether a path may be judged otherwise than under `old`.
    fn import_differs(&self, old: &RibConfig) -> bool {
        let config = &self.config;
        (config.asn, config.router_id) != (old.asn, old.router_id)
            || config.protected != old.protected
            || config.blocks != old.blocks
            || config.peers.iter().any(|(index, policy)| {
                let judged_by = |policy: &PeerPolicy| {
                    (
                        policy.import.clone(),
                        policy.local_asn,
                        policy.allowed_own_as,
                        policy.validate_origin,
                    )
                };
                old.peers
                    .get(index)
                    .is_some_and(|old| judged_by(old) != judged_by(policy))
            })
    }

    pub(super) fn originate(&mut self, prefix: Prefix, own: Path, out: &mut Vec<Action>) {
        let path = self.table.paths.intern(own);
        let dest = self.table.find_or_add(prefix);
        let (id, marks) = (PathId::default(), Marks::default());
        self.insert(dest, (path, path), id, marks, out);
        self.table.paths.release(path);
    }

    fn disown(&mut self, prefix: &Prefix, out: &mut Vec<Action>) {
        if let Some(dest) = self.table.find(prefix) {
            self.withdraw(dest, None, PathId::default(), out);
        }
    }

    /// Our end of a session has got other addresses: what the peer is told, and what of its routes
    /// points to ourselves, may differ.
    pub(super) fn relocated(&mut self, index: PeerIndex, ends: Ends, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&index) else {
            return;
        };
        let Some(session) = &mut peer.session else {
            return;
        };
        let ends = concerning(ends, &session.negotiated);
        if session.ends == ends {
            return;
        }
        session.ends = ends;
        let dests: Vec<DestId> = peer.dests.iter().collect();
        let renewed = self.renew_path_peers();
        if !renewed.is_empty() {
            self.rejudge(dests.iter().copied(), &renewed, out);
            for dest in dests {
                self.reselect(dest, out);
            }
        }
        self.regroup(out);
    }

    /// Takes over what paths say of their peer where that has changed under a living session: what
    /// they said before and what they say now.
    fn renew_path_peers(&mut self) -> Vec<(Arc<PathPeer>, Arc<PathPeer>)> {
        let mut renewed = Vec::new();
        for Peer {
            policy, session, ..
        } in self.peers.values_mut()
        {
            let Some(session) = session else {
                continue;
            };
            let egress = egress_config(&self.config, policy, &session.negotiated, &session.ends);
            let index = session.id.index;
            let new = path_peer(index, policy, &session.negotiated, &session.ends, &egress);
            if new != *session.path_peer {
                let new = Arc::new(new);
                let old = std::mem::replace(&mut session.path_peer, Arc::clone(&new));
                renewed.push((old, new));
            }
        }
        renewed
    }

    /// Judges every path that `dests` have learnt again. Paths of peers in `renewed` become paths of their
    /// new selves.
    fn rejudge(
        &mut self,
        dests: impl IntoIterator<Item = DestId>,
        renewed: &[(Arc<PathPeer>, Arc<PathPeer>)],
        out: &mut Vec<Action>,
    ) {
        let mut intakes: HashMap<(PathRef, Family), Intake> = HashMap::new();
        for id in dests {
            for at in 0..self.table.dest(id).paths.len() {
                let dest = self.table.dest(id);
                let (entry, prefix) = (dest.paths[at], dest.prefix);
                let key = (entry.told, prefix.family());
                let intake = match intakes.entry(key) {
                    hash_map::Entry::Occupied(known) => known.into_mut(),
                    hash_map::Entry::Vacant(unknown) => {
                        let mut told = self.table.paths.get(entry.told).clone();
                        let new = renewed
                            .iter()
                            .find(|(old, _)| told.source.peer() == Some(&**old));
                        if let Some((_, new)) = new {
                            told.source = Source::Peer(Arc::clone(new));
                        }
                        let Some(intake) = self.intake(told, prefix.family()) else {
                            continue;
                        };
                        unknown.insert(intake)
                    }
                };
                let told = intake.told;
                let (used, marks) = self.admit(intake, &prefix);
                let marks = Marks {
                    stale: entry.marks.stale,
                    refreshing: entry.marks.refreshing,
                    ..marks
                };
                let entry = Entry {
                    told,
                    used,
                    marks,
                    ..entry
                };
                self.put(id, at, entry, out);
            }
        }
        for intake in intakes.into_values() {
            intake.end(&mut self.table.paths);
        }
    }
}

/// The paths of own routes, those that others are told and those that they are not.
pub(super) fn own_routes(config: &RibConfig) -> BTreeMap<Prefix, Path> {
    let own = |attributes: PathAttributes, next_hop| Path {
        source: Source::Local,
        attributes: Arc::new(attributes),
        next_hop,
        long_lived: false,
        blackhole: false,
    };
    let secret = PathAttributes {
        communities: vec![Community::NO_ADVERTISE].into(),
        ..PathAttributes::default()
    };
    let statics = config.statics.iter();
    let statics = statics.map(|(prefix, to)| (*prefix, own(secret.clone(), Some(*to))));
    let told = config.originate.iter();
    let told = told.map(|(prefix, attributes)| (*prefix, own(attributes.clone(), None)));
    statics.chain(told).collect()
}

/// Every cluster that the speaker is, ascending: to clients it may be another one each.
pub(super) fn own_clusters(config: &RibConfig) -> Vec<RouterId> {
    let of_peers = config.peers.values().filter_map(|peer| peer.cluster_id);
    let mut clusters: Vec<RouterId> = of_peers.chain([config.cluster_id]).collect();
    clusters.sort_unstable();
    clusters.dedup();
    clusters
}

pub(super) fn new_peers(config: &RibConfig) -> BTreeMap<PeerIndex, Peer> {
    config
        .peers
        .iter()
        .map(|(index, policy)| (*index, Peer::new(policy.clone())))
        .collect()
}
