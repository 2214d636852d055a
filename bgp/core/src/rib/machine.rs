//! The RIB as a pure machine: events in, actions out, output pulled.
//!
//! Owns the order of things: import checks, when selection runs, who is woken. Does not own storage
//! ([`super::table`]), the decision ([`super::best`]), sessions and their restarts
//! ([`super::sessions`]) or the output of one peer ([`super::pull`]).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Instant;

use crate::policy::Verdict;
use crate::rib::egress::{EgressConfig, Exported};
use crate::rib::event::{Action, Event, RibConfig};
use crate::rib::intern::Interner;
use crate::rib::journal::Journal;
use crate::rib::path::{Path, PathPeer, PeerId, PeerIndex, Rejection, Source};
use crate::rib::peer::{Peer, Position};
use crate::rib::pull::Group;
use crate::rib::sessions::Deferral;
use crate::rib::table::{Scope, Table};
use crate::types::{Family, NextHop, Prefix};
use crate::wire::{PathAttributes, Update};

/// Routes of one speaker: what peers told, what was selected, what peers are told.
#[derive(Debug)]
pub struct Rib {
    pub(super) config: RibConfig,
    pub(super) table: Table,
    pub(super) peers: BTreeMap<PeerIndex, Peer>,
    pub(super) journal: Journal,
    pub(super) groups: HashMap<Arc<EgressConfig>, Group>,
    pub(super) exported: Interner<Exported>,
    attributes: Interner<PathAttributes>,
    pub(super) deferral: Option<Deferral>,
}

impl Rib {
    /// A RIB with its own routes and no others.
    ///
    /// `defer_until` is set after a restart during which forwarding went on: until then at the
    /// latest, selection and FIB changes wait for the End-of-RIB of every peer that takes part in
    /// graceful restart, and a little longer for routes that follow it.
    pub fn new(config: RibConfig, defer_until: Option<Instant>, out: &mut Vec<Action>) -> Self {
        let waiting = config
            .peers
            .iter()
            .filter(|(_, policy)| policy.graceful_restart)
            .map(|(index, _)| *index)
            .collect();
        let mut rib = Self {
            peers: new_peers(&config),
            table: Table::default(),
            journal: Journal::default(),
            groups: HashMap::new(),
            exported: Interner::new(),
            attributes: Interner::new(),
            deferral: defer_until.map(|until| Deferral::new(until, waiting)),
            config,
        };
        for (prefix, attributes) in rib.config.originate.clone() {
            rib.originate(prefix, attributes, out);
        }
        if rib.deferral.is_none() {
            out.push(Action::FibComplete);
        }
        rib
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Configure(config) => self.configure(config, out),
            Event::PeerUp {
                peer,
                negotiated,
                ends,
            } => self.peer_up(now, peer, negotiated, ends, out),
            Event::PeerDown {
                peer,
                retain,
                restart_time,
            } => self.peer_down(now, peer, &retain, restart_time, out),
            Event::PathDown { index } => self.path_down(index, out),
            Event::Update { peer, update } => self.update(peer, update, out),
            Event::Refresh { peer, family } => self.refresh(peer, family),
            Event::Installed { prefix, seq } => self.answer(prefix, seq, None),
            Event::InstallFailed { prefix, seq, why } => self.answer(prefix, seq, Some(why)),
        }
        self.end_deferral_if_due(now, out);
        self.wake(now, out);
    }

    /// When [`Rib::handle_timeout`] has to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stale = self.peers.values().flat_map(|peer| peer.stale.values());
        let end_of_rib = self
            .peers
            .values()
            .filter_map(|peer| peer.session.as_ref())
            .map(|session| &session.egress)
            .filter(|egress| egress.idle && !egress.end_of_rib_owed.is_empty())
            .filter(|_| self.deferral.is_none())
            .map(|egress| &egress.end_of_rib_at);
        let deferral = self.deferral.as_ref().map(Deferral::wake);
        stale.chain(end_of_rib).chain(deferral).min().copied()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        let due: Vec<(PeerIndex, Family)> = self
            .peers
            .iter()
            .flat_map(|(index, peer)| peer.stale.iter().map(|stale| (*index, stale)))
            .filter(|(_, (_, at))| **at <= now)
            .map(|(index, (family, _))| (index, *family))
            .collect();
        for (index, family) in due {
            self.sweep_stale(index, family, out);
        }
        self.end_deferral_if_due(now, out);
        self.wake(now, out);
    }

    /// Whether selection still waits for peers after a restart.
    pub fn deferring(&self) -> bool {
        self.deferral.is_some()
    }

    fn configure(&mut self, config: RibConfig, out: &mut Vec<Action>) {
        let old = std::mem::replace(&mut self.config, config);
        let removed: Vec<PeerIndex> = self
            .peers
            .keys()
            .filter(|index| !self.config.peers.contains_key(index))
            .copied()
            .collect();
        for index in removed {
            self.forget_paths(index, |_, _| true, out);
            self.peers.remove(&index);
            self.stop_waiting_for(index);
        }
        for (index, policy) in &self.config.peers {
            self.peers
                .entry(*index)
                .or_insert_with(|| Peer::new(policy.clone()))
                .policy = policy.clone();
        }

        if self.import_differs(&old) {
            self.rejudge();
        }
        for prefix in old.originate.keys() {
            if !self.config.originate.contains_key(prefix) {
                self.table.remove(prefix, None);
                self.reselect(*prefix, out);
            }
        }
        for (prefix, attributes) in self.config.originate.clone() {
            if old.originate.get(&prefix) != Some(&attributes) {
                self.originate(prefix, attributes, out);
            }
        }
        if self.import_differs(&old) || self.config.multipath != old.multipath {
            self.reselect_all(out);
        }
        self.regroup();
        self.release();
    }

    /// Whether a path may be judged otherwise than under `old`.
    fn import_differs(&self, old: &RibConfig) -> bool {
        let config = &self.config;
        (config.asn, config.router_id, config.cluster_id)
            != (old.asn, old.router_id, old.cluster_id)
            || config.protected != old.protected
            || config.peers.iter().any(|(index, policy)| {
                old.peers
                    .get(index)
                    .is_some_and(|old| old.import != policy.import)
            })
    }

    fn originate(&mut self, prefix: Prefix, attributes: PathAttributes, out: &mut Vec<Action>) {
        let path = Path {
            source: Source::Local,
            attributes: self.attributes.intern(attributes),
            next_hop: None,
            stale: false,
            rejected: None,
        };
        self.table.insert(prefix, path);
        self.reselect(prefix, out);
    }

    fn update(&mut self, id: PeerId, update: Update, out: &mut Vec<Action>) {
        let Some(session) = self
            .peers
            .get_mut(&id.index)
            .and_then(|peer| peer.session(id))
        else {
            return;
        };
        session.has_announced |= !update.reach.is_empty();
        let path_peer = Arc::clone(&session.path_peer);
        let own_v4 = session.egress.config.self_v4;
        let own_v6 = session.egress.config.self_v6;

        // RFC 4271 §4.3: withdrawals first; a prefix in both is announced.
        for prefix in update.withdrawn.iter().flat_map(|(_, prefixes)| prefixes) {
            self.withdraw(id.index, prefix, out);
        }
        if let Some(attributes) = update.attributes {
            let attributes = self.attributes.intern(attributes);
            let looped = self.judge_attributes(&path_peer, &attributes);
            for reach in update.reach {
                let own_next_hop = match reach.next_hop {
                    NextHop::V4(address) => own_v4 == Some(address),
                    NextHop::V6 { global, .. } => own_v6.is_some_and(|(own, _)| own == global),
                };
                let whole = looped
                    .clone()
                    .or_else(|| own_next_hop.then_some(Rejection::OwnNextHop));
                for prefix in reach.nlri {
                    let rejected = whole
                        .clone()
                        .or_else(|| self.judge_prefix(id.index, &prefix));
                    let path = Path {
                        source: Source::Peer(Arc::clone(&path_peer)),
                        attributes: Arc::clone(&attributes),
                        next_hop: Some(reach.next_hop),
                        stale: false,
                        rejected,
                    };
                    self.announce(id.index, prefix, path, out);
                }
            }
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(id, family, out);
        }
    }

    fn announce(&mut self, index: PeerIndex, prefix: Prefix, path: Path, out: &mut Vec<Action>) {
        if let Some(peer) = self.peers.get_mut(&index) {
            peer.prefixes.insert(prefix);
        }
        self.table.insert(prefix, path);
        self.reselect(prefix, out);
    }

    fn withdraw(&mut self, index: PeerIndex, prefix: &Prefix, out: &mut Vec<Action>) {
        if let Some(peer) = self.peers.get_mut(&index) {
            peer.prefixes.remove(prefix);
        }
        if self.table.remove(prefix, Some(index)) {
            self.reselect(*prefix, out);
        }
    }

    fn refresh(&mut self, id: PeerId, family: Family) {
        let then = self.journal.end();
        if let Some(session) = self
            .peers
            .get_mut(&id.index)
            .and_then(|peer| peer.session(id))
        {
            session.egress.position = Position::Walk {
                after: None,
                then,
                resend: Some(family),
            };
        }
    }

    fn answer(&mut self, prefix: Prefix, seq: u64, failed: Option<String>) {
        if self.table.answer(prefix, seq, failed) {
            self.journal.append(prefix);
        }
    }

    /// Loop checks, which no configuration can switch off.
    fn judge_attributes(&self, peer: &PathPeer, attributes: &PathAttributes) -> Option<Rejection> {
        if attributes.as_path.contains(self.config.asn) {
            return Some(Rejection::AsLoop);
        }
        if !peer.internal {
            let found = attributes.as_path.first();
            return (found != Some(peer.asn)).then_some(Rejection::FirstAs {
                peer: peer.asn,
                found,
            });
        }
        if attributes.originator_id == Some(self.config.router_id) {
            return Some(Rejection::OriginatorIsSelf);
        }
        attributes
            .cluster_list
            .contains(&self.config.cluster_id)
            .then_some(Rejection::ClusterLoop)
    }

    fn judge_prefix(&self, index: PeerIndex, prefix: &Prefix) -> Option<Rejection> {
        let protected = |own: &&Prefix| own.contains(prefix);
        if let Some(own) = self.config.protected.iter().find(protected) {
            return Some(Rejection::Protected(*own));
        }
        let policy = &self.peers.get(&index)?.policy.import;
        match policy.evaluate(prefix) {
            (Verdict::Accept, _) => None,
            (Verdict::Reject, rule) => Some(Rejection::Policy {
                rule: rule.map(|rule| rule.name.clone()),
            }),
        }
    }

    /// Judges every learnt path again after a change of configuration.
    fn rejudge(&mut self) {
        let mut verdicts = Vec::new();
        for (prefix, entry) in &self.table.entries {
            for path in &entry.paths {
                let Some(peer) = path.source.peer() else {
                    continue;
                };
                // A next hop that was our own end of the session stays so while it lasts.
                let rejected = match &path.rejected {
                    Some(Rejection::OwnNextHop) => Some(Rejection::OwnNextHop),
                    _ => self
                        .judge_attributes(peer, &path.attributes)
                        .or_else(|| self.judge_prefix(peer.index, prefix)),
                };
                if rejected != path.rejected {
                    verdicts.push((*prefix, peer.index, rejected));
                }
            }
        }
        for (prefix, index, rejected) in verdicts {
            if let Some(path) = self.table.path_mut(&prefix, index) {
                path.rejected = rejected;
            }
        }
    }

    /// Takes away the paths of a peer that `goes` names.
    pub(super) fn forget_paths(
        &mut self,
        index: PeerIndex,
        goes: impl Fn(&Prefix, &Path) -> bool,
        out: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get_mut(&index) else {
            return;
        };
        let table = &mut self.table;
        let gone: Vec<Prefix> = peer
            .prefixes
            .iter()
            .filter(|prefix| {
                table
                    .path_mut(prefix, index)
                    .is_some_and(|path| goes(prefix, path))
            })
            .copied()
            .collect();
        for prefix in gone {
            self.withdraw(index, &prefix, out);
        }
    }

    fn reselect(&mut self, prefix: Prefix, out: &mut Vec<Action>) {
        let scope = match self.deferral {
            Some(_) => Scope::OwnRoutes,
            None => Scope::All,
        };
        if self
            .table
            .reselect(prefix, self.config.multipath, scope, out)
        {
            self.journal.append(prefix);
        }
    }

    pub(super) fn reselect_all(&mut self, out: &mut Vec<Action>) {
        let prefixes: Vec<Prefix> = self.table.entries.keys().copied().collect();
        for prefix in prefixes {
            self.reselect(prefix, out);
        }
    }

    /// Tells the shell about peers that wait and for whom there is something again.
    fn wake(&mut self, now: Instant, out: &mut Vec<Action>) {
        let end = self.journal.end();
        let settled = self.deferral.is_none() && self.table.pending() == 0;
        let deferring = self.deferral.is_some();
        for session in self
            .peers
            .values_mut()
            .filter_map(|peer| peer.session.as_mut())
        {
            let egress = &mut session.egress;
            let end_of_rib = !egress.end_of_rib_owed.is_empty()
                && (settled || !deferring && egress.end_of_rib_at <= now);
            if egress.idle && (egress.position != Position::Journal(end) || end_of_rib) {
                egress.idle = false;
                out.push(Action::EgressReady { peer: session.id });
            }
        }
        self.trim_journal();
    }

    pub(super) fn trim_journal(&mut self) {
        let slowest = self
            .peers
            .values()
            .filter_map(|peer| peer.session.as_ref())
            .map(|session| match session.egress.position {
                Position::Walk { then, .. } => then,
                Position::Journal(position) => position,
            })
            .min()
            .unwrap_or(self.journal.end());
        self.journal.trim(slowest, self.table.entries.len());
    }

    /// Gives back what mass removal left behind.
    pub(super) fn release(&mut self) {
        self.attributes.sweep();
        self.exported.sweep();
    }

    /// How many values the RIB holds beside the table: attribute sets, exported sets, journal
    /// entries and groups. For tests of its bounds.
    pub fn footprint(&mut self) -> [usize; 4] {
        self.release();
        [
            self.attributes.len(),
            self.exported.len(),
            self.journal.len(),
            self.groups.len(),
        ]
    }
}

fn new_peers(config: &RibConfig) -> BTreeMap<PeerIndex, Peer> {
    config
        .peers
        .iter()
        .map(|(index, policy)| (*index, Peer::new(policy.clone())))
        .collect()
}
