//! Sessions that come and go: our own deferral after a restart, and the group that a session's output
//! belongs to (RFC 4724 §4).
//!
//! Owns what happens when a session's state changes. Does not own what happens when a route changes,
//! which is [`super::machine`]'s, nor what stays of a session that has ended ([`super::stale`]).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fsm::{Negotiated, Retention};
use crate::rib::egress::EgressConfig;
use crate::rib::event::{Action, Changed, Ends, PeerPolicy, RibConfig};
use crate::rib::machine::Rib;
use crate::rib::path::{PathPeer, PeerId, PeerIndex};
use crate::rib::peer::{Egress, Session};
use crate::types::{Family, FamilySet, PeerKind};

/// How long End-of-RIB waits for the FIB to answer for the first table. A peer that gets it too
/// early drops routes that we are about to confirm; one that gets it late only keeps stale routes
/// longer.
const END_OF_RIB_PATIENCE: Duration = Duration::from_secs(10);

/// How long selection waits beyond the last End-of-RIB, or beyond the first route of a peer that ended before
/// it: FRR sends End-of-RIB at once, its own routes then, and what it learnt seconds later.
pub(super) const SETTLE: Duration = Duration::from_secs(5);

/// How long selection waits for the first route of a peer that has sent End-of-RIB and nothing else. FRR
/// sends it at once and its routes when its update groups have formed, which takes seconds; a selection in
/// between would take next hops out of the kernel that come back right after.
pub(super) const EARLY_END_OF_RIB: Duration = Duration::from_secs(12);

/// Selection waits for peers after a restart (RFC 4724 §4.1).
#[derive(Debug)]
pub(super) struct Deferral {
    /// At the latest; RFC 4724's Selection_Deferral_Timer.
    deadline: Instant,
    waiting: BTreeSet<PeerIndex>,
    /// When the last peer had sent its End-of-RIB.
    ended: Option<Instant>,
    /// When every one of them had sent routes, too.
    complete: Option<Instant>,
    /// When to look again.
    wake: Instant,
}

impl Deferral {
    pub(super) fn new(deadline: Instant, waiting: BTreeSet<PeerIndex>) -> Self {
        Self {
            deadline,
            waiting,
            ended: None,
            complete: None,
            wake: deadline,
        }
    }

    pub(super) fn wake(&self) -> &Instant {
        &self.wake
    }

    /// Whether the wait is over. `silent` tells whether a peer has ended without a single route, `heard`
    /// whether any peer has ended at all: without one there is nothing to settle.
    fn is_over(&mut self, now: Instant, heard: bool, silent: bool) -> bool {
        if self.deadline <= now {
            return true;
        }
        if !self.waiting.is_empty() {
            return false;
        }
        if !heard {
            return true;
        }
        let ended = *self.ended.get_or_insert(now);
        let over = if silent {
            ended + EARLY_END_OF_RIB
        } else {
            *self.complete.get_or_insert(now) + SETTLE
        };
        self.wake = over.min(self.deadline);
        self.wake <= now
    }
}

impl Rib {
    pub(super) fn peer_up(
        &mut self,
        now: Instant,
        id: PeerId,
        negotiated: Negotiated,
        ends: Ends,
        out: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get(&id.index) else {
            return;
        };
        if let Some(session) = &peer.session {
            if session.id.generation >= id.generation {
                return;
            }
            let old = session.id;
            self.peer_down(now, old, &[], out);
        }
        self.keep_stale_of_returning(now, id.index, &negotiated, out);
        // RFC 4724 §4.1: peers that do not take part, and peers that restart themselves and wait
        // for us in turn, are not waited for.
        let restart = negotiated.graceful_restart.as_ref();
        if restart.is_none_or(|restart| restart.restarting) {
            self.stop_waiting_for(id.index);
        }
        let Some(peer) = self.peers.get_mut(&id.index) else {
            return;
        };
        let ends = concerning(ends, &negotiated);
        let config = egress_config(&self.config, &peer.policy, &negotiated, &ends);
        let path_peer = path_peer(id.index, &peer.policy, &negotiated, &ends, &config);
        let group = self.groups.join(config, id.index, ends.peer, &self.table);
        let mut session = Session {
            id,
            path_peer: Arc::new(path_peer),
            end_of_rib_received: FamilySet::EMPTY,
            has_announced: false,
            warned: FamilySet::EMPTY,
            exceeded: FamilySet::EMPTY,
            egress: Egress {
                group,
                begin_owed: FamilySet::EMPTY,
                end_owed: FamilySet::EMPTY,
                refresh_owed: FamilySet::EMPTY,
                end_of_rib_owed: negotiated.family_set(),
                end_of_rib_at: now + END_OF_RIB_PATIENCE,
                idle: true,
            },
            negotiated,
            ends,
        };
        session.rouse(out);
        peer.session = Some(session);
        self.owing.insert(id.index);
    }

    pub(super) fn peer_down(
        &mut self,
        now: Instant,
        id: PeerId,
        retain: &[Retention],
        out: &mut Vec<Action>,
    ) {
        let index = id.index;
        if self
            .peers
            .get_mut(&index)
            .and_then(|peer| peer.session(id))
            .is_none()
        {
            return;
        }
        let before = self.stale_times(index);
        self.end_session(index);
        self.retain(now, index, retain, before, out);
    }

    pub(super) fn path_down(&mut self, index: PeerIndex, out: &mut Vec<Action>) {
        self.end_session(index);
        self.forget_paths(index, |_, _| true, out);
        self.stop_waiting_for(index);
    }

    /// Ends what belongs to a session; its paths are another matter.
    pub(super) fn end_session(&mut self, index: PeerIndex) {
        for family in Family::ALL {
            self.stale.remove(&(index, family));
            self.refreshing.remove(&(index, family));
        }
        self.owing.remove(&index);
        let session = self
            .peers
            .get_mut(&index)
            .and_then(|peer| peer.session.take());
        if let Some(session) = session {
            self.groups
                .leave(session.egress.group, index, &mut self.table);
            self.trim_journal();
        }
    }

    pub(super) fn end_of_rib(&mut self, id: PeerId, family: Family, out: &mut Vec<Action>) {
        // RFC 4724 §4.2: what was not told again is gone.
        self.sweep_stale(id.index, family, out);
        let Some(session) = self
            .peers
            .get_mut(&id.index)
            .and_then(|peer| peer.session(id))
        else {
            return;
        };
        session.end_of_rib_received.insert(family);
        let all = session
            .negotiated
            .families
            .iter()
            .all(|family| session.end_of_rib_received.contains(*family));
        if all {
            self.stop_waiting_for(id.index);
        }
        if self.followed {
            let peer = id.index;
            out.push(Action::Changed(Changed::EndOfRib { peer, family }));
        }
    }

    pub(super) fn stop_waiting_for(&mut self, index: PeerIndex) {
        if let Some(deferral) = &mut self.deferral {
            deferral.waiting.remove(&index);
        }
    }

    pub(super) fn end_deferral_if_due(&mut self, now: Instant, out: &mut Vec<Action>) {
        let Some(deferral) = &mut self.deferral else {
            return;
        };
        let sessions = self.peers.values().filter_map(|peer| peer.session.as_ref());
        let mut ended = sessions.filter(|session| !session.end_of_rib_received.is_empty());
        let heard = ended.clone().next().is_some();
        let silent = ended.any(|session| !session.has_announced);
        if !deferral.is_over(now, heard, silent) {
            return;
        }
        self.deferral = None;
        self.reselect_all(out);
        // End-of-RIB waits for the FIB from here on, however long the sessions have been up.
        for peer in self.peers.values_mut() {
            if let Some(session) = &mut peer.session {
                session.egress.end_of_rib_at = now + END_OF_RIB_PATIENCE;
            }
        }
        out.push(Action::FibComplete);
        out.push(Action::RestartComplete);
    }

    /// Brings every session into the group that its present configuration asks for; one that moves
    /// is told the difference.
    pub(super) fn regroup(&mut self, out: &mut Vec<Action>) {
        let wanted = self.peers.iter().filter_map(|(index, peer)| {
            let session = peer.session.as_ref()?;
            let (negotiated, ends) = (&session.negotiated, &session.ends);
            let config = egress_config(&self.config, &peer.policy, negotiated, ends);
            Some((*index, (session.egress.group, config, ends.peer)))
        });
        let wanted = wanted.collect();
        let moved = self.groups.rearrange(&wanted, &mut self.table);
        for (index, group) in moved {
            if let Some(session) = self
                .peers
                .get_mut(&index)
                .and_then(|peer| peer.session.as_mut())
            {
                session.egress.group = group;
            }
        }
        for session in self
            .peers
            .values_mut()
            .filter_map(|peer| peer.session.as_mut())
        {
            session.rouse(out);
        }
    }
}

/// Of our end's addresses those that routes of the session can name: others come and go without judging
/// its routes again, as link-local ones do when a link is a second old.
pub(super) fn concerning(mut ends: Ends, negotiated: &Negotiated) -> Ends {
    let ipv6 = negotiated.family_set().contains(Family::Ipv6Unicast);
    if !ipv6 && !negotiated.extended_next_hop {
        ends.local_v6 = None;
        ends.subnets.retain(|subnet| subnet.addr().is_ipv4());
    }
    ends
}

/// What paths of a session say of their peer.
pub(super) fn path_peer(
    index: PeerIndex,
    policy: &PeerPolicy,
    negotiated: &Negotiated,
    ends: &Ends,
    egress: &EgressConfig,
) -> PathPeer {
    PathPeer {
        index,
        asn: negotiated.peer_asn,
        router_id: negotiated.peer_router_id,
        address: ends.peer,
        internal: negotiated.peer_kind() == PeerKind::Internal,
        role: negotiated.role,
        client: policy.client,
        interface: ends.interface,
        interface_name: ends.interface_name.as_deref().map(Into::into),
        own_v4: egress.self_v4,
        own_v6: egress.self_v6.map(|(global, _)| global),
    }
}

pub(super) fn egress_config(
    config: &RibConfig,
    policy: &PeerPolicy,
    negotiated: &Negotiated,
    ends: &Ends,
) -> EgressConfig {
    EgressConfig {
        local_asn: negotiated.local_asn,
        cluster_id: policy.cluster_id.unwrap_or(config.cluster_id),
        peer: negotiated.peer_kind(),
        role: negotiated.role,
        replaced_asn: policy.as_override.then_some(negotiated.peer_asn),
        private_as: policy.private_as,
        told_paths: policy.told_paths,
        long_lived: negotiated.long_lived.is_some(),
        extended_next_hop: negotiated.extended_next_hop,
        client: policy.client,
        transit: config.transit,
        families: negotiated.family_set(),
        next_hop_mode: policy.next_hop_mode,
        self_v4: policy.next_hop_v4.or(ends.local_v4),
        self_v6: policy
            .next_hop_v6
            .map(|global| (global, None))
            .or(ends.local_v6),
        subnets: ends.subnets.clone(),
        policy: Arc::clone(&policy.export),
        encode: negotiated.encode_context(),
    }
}
