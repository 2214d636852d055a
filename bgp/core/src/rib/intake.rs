//! What becomes of a path that a peer tells: whether it may be used, and in which form.
//!
//! Owns the checks and changes on the way in. Does not own what happens to the path then.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::policy::{
    ApplyContext, Decision, Explained, ImportPolicy, Narrowed, NextHopChange, Operations,
    RouteFacts, RouteSource,
};
use crate::rib::machine::Rib;
use crate::rib::origin::{OriginCheck, OriginValidity, Originator};
use crate::rib::path::{Path, PathPeer, PeerIndex, Rejection};
use crate::rib::paths::{PathRef, Paths};
use crate::rib::table::Marks;
use crate::role;
use crate::types::{BgpRole, Family, NextHop, PeerKind, Prefix};
use crate::wire::Community;

/// One path on its way in: what needs no prefix is worked out, once for all that it leads to.
pub(super) struct Intake {
    /// As the peer told it; held.
    pub(super) told: PathRef,
    /// As it is used where no rule changes it; held.
    taken: PathRef,
    /// It must not be used, whatever the prefix.
    unusable: bool,
    peer: PeerIndex,
    originator: Originator,
    policy: Arc<ImportPolicy>,
    narrowed: Narrowed,
    /// What rules made of it, each held; `None` where they left it without a next hop.
    changed: SmallVec<[(Operations, Option<PathRef>); 1]>,
}

impl Intake {
    /// Gives back its holds.
    pub(super) fn end(self, paths: &mut Paths) {
        paths.release(self.told);
        paths.release(self.taken);
        for path in self.changed.into_iter().filter_map(|(_, path)| path) {
            paths.release(path);
        }
    }
}

impl Rib {
    /// Takes in a path to prefixes of `family`; `None` for one that no known peer told.
    pub(super) fn intake(&mut self, told: Path, family: Family) -> Option<Intake> {
        let peer = told.source.peer()?;
        let index = peer.index;
        let policy = &self.peers.get(&index)?.policy;
        let originator = originator(&told, peer, policy.validate_origin);
        let policy = Arc::clone(&policy.import);
        let unusable = self.judge_path(&told).is_some();
        let taken = taken(&told);
        let narrowed = policy.narrow(family, &facts(&taken)?);
        Some(Intake {
            told: self.table.paths.intern(told),
            taken: self.table.paths.intern(taken),
            unusable,
            peer: index,
            originator,
            policy,
            narrowed,
            changed: SmallVec::new(),
        })
    }

    /// The form in which the path leads to `prefix`, and what is noted about it. The caller gets no
    /// hold.
    pub(super) fn admit(&mut self, intake: &mut Intake, prefix: &Prefix) -> (PathRef, Marks) {
        let validity = self.validity(intake.peer, intake.originator, prefix);
        let mut marks = Marks {
            stale: false,
            refreshing: false,
            rejected: intake.unusable
                || validity == OriginValidity::Foreign
                || self.protector(prefix).is_some(),
            validity,
        };
        if marks.rejected {
            return (intake.taken, marks);
        }
        let decision = match intake.narrowed.settled() {
            Some(decision) if decision.operations.is_empty() => {
                marks.rejected = !decision.accepts();
                return (intake.taken, marks);
            }
            Some(decision) => decision.clone(),
            None => {
                let taken = self.table.paths.get(intake.taken);
                let Some(facts) = facts(taken) else {
                    return (intake.taken, marks);
                };
                intake.policy.decide(&intake.narrowed, prefix, &facts)
            }
        };
        if !decision.accepts() {
            marks.rejected = true;
            return (intake.taken, marks);
        }
        match self.changed(intake, &decision) {
            Some(used) => (used, marks),
            None => {
                marks.rejected = true;
                (intake.taken, marks)
            }
        }
    }

    /// What the operations of a decision make of the path; `None` when they leave no next hop.
    fn changed(&mut self, intake: &mut Intake, decision: &Decision) -> Option<PathRef> {
        if decision.operations.is_empty() {
            return Some(intake.taken);
        }
        let known = intake
            .changed
            .iter()
            .find(|(operations, _)| *operations == decision.operations);
        if let Some((_, path)) = known {
            return *path;
        }
        let taken = self.table.paths.get(intake.taken);
        let path = apply(&intake.policy, decision, taken);
        let path = path.map(|path| self.table.paths.intern(path));
        intake.changed.push((decision.operations.clone(), path));
        path
    }

    /// Why a path to `prefix` must not be used, if it must not.
    pub(super) fn judge(&self, told: &Path, prefix: &Prefix) -> Option<Rejection> {
        let peer = told.source.peer()?;
        if let Some(rejection) = self.judge_path(told) {
            return Some(rejection);
        }
        let check = self.peers.get(&peer.index)?.policy.validate_origin;
        let originator = originator(told, peer, check);
        if self.validity(peer.index, originator, prefix) == OriginValidity::Foreign {
            let (block, owner) = self.config.blocks.covering(prefix)?;
            return Some(Rejection::ForeignBlock {
                block,
                owner: owner.node.clone(),
                originator: originator.router(),
            });
        }
        if let Some(own) = self.protector(prefix) {
            return Some(Rejection::Protected(own));
        }
        let policy = &self.peers.get(&peer.index)?.policy.import;
        let taken = taken(told);
        let decision = policy.evaluate(prefix, &facts(&taken)?);
        if decision.accepts() {
            let usable = apply(policy, &decision, &taken).is_some();
            return (!usable).then_some(Rejection::NoNextHop);
        }
        let rule = decision.rule.and_then(|rule| policy.name_of(rule));
        Some(Rejection::Policy {
            rule: rule.map(str::to_owned),
        })
    }

    /// What the import policy says of a path to `prefix`, rule by rule; `None` for own routes.
    pub(super) fn explain_intake(&self, told: &Path, prefix: &Prefix) -> Option<Explained> {
        let policy = &self.peers.get(&told.source.index()?)?.policy.import;
        Some(policy.explain(prefix, &facts(&taken(told))?))
    }

    /// Checks that hold for every prefix.
    fn judge_path(&self, path: &Path) -> Option<Rejection> {
        let peer = path.source.peer()?;
        let policy = &self.peers.get(&peer.index)?.policy;
        let attributes = &path.attributes;
        let mut own = attributes.as_path.occurrences(self.config.asn);
        if let Some(local) = policy.local_asn.filter(|local| *local != self.config.asn) {
            own += attributes.as_path.occurrences(local);
        }
        if own > policy.allowed_own_as.into() {
            return Some(Rejection::AsLoop);
        }
        if let Err(leak) = role::ingress(peer.role, peer.asn, attributes.otc) {
            return Some(Rejection::Leak(leak));
        }
        if !peer.internal {
            let found = attributes.as_path.first();
            // RFC 7947 §2.2.2.1: a route server leaves its own AS out.
            let transparent = peer.role == Some(BgpRole::RouteServerClient) && found.is_some();
            if found != Some(peer.asn) && !transparent {
                let peer = peer.asn;
                return Some(Rejection::FirstAs { peer, found });
            }
        } else if attributes.originator_id == Some(self.config.router_id) {
            return Some(Rejection::OriginatorIsSelf);
        } else if self.is_own_cluster(&attributes.cluster_list) {
            return Some(Rejection::ClusterLoop);
        }
        let next_hop = path.next_hop.as_ref()?;
        peer.is_ourselves(next_hop).then_some(Rejection::OwnNextHop)
    }

    /// The prefix of ours alone that holds `prefix`.
    fn protector(&self, prefix: &Prefix) -> Option<Prefix> {
        let mut protected = self.config.protected.iter();
        protected.find(|own| own.contains(prefix)).copied()
    }

    fn validity(&self, peer: PeerIndex, originator: Originator, prefix: &Prefix) -> OriginValidity {
        let checked = self.peers.get(&peer);
        if checked.is_some_and(|peer| peer.policy.validate_origin != OriginCheck::Off) {
            self.config.blocks.validate(prefix, originator)
        } else {
            OriginValidity::Unchecked
        }
    }
}

/// A path as it is used where no rule changes it.
fn taken(told: &Path) -> Path {
    let mut path = told.clone();
    // A leak is rejected elsewhere; its attribute stays as it came.
    if let Some(peer) = told.source.peer()
        && let Ok(otc) = role::ingress(peer.role, peer.asn, path.attributes.otc)
        && otc != path.attributes.otc
    {
        Arc::make_mut(&mut path.attributes).otc = otc;
    }
    path
}

/// A path as the rules of its session see it.
fn facts(path: &Path) -> Option<RouteFacts<'_>> {
    let peer = path.source.peer()?;
    let kind = kind(peer);
    Some(RouteFacts {
        attributes: &path.attributes,
        next_hop: path.next_hop.as_ref(),
        source: RouteSource::Peer(kind),
        interface: peer.interface_name.as_deref(),
        peer: kind,
    })
}

pub(super) fn kind(peer: &PathPeer) -> PeerKind {
    if peer.internal {
        PeerKind::Internal
    } else {
        PeerKind::External
    }
}

/// What a decision makes of a path; `None` when it leaves no next hop.
fn apply(policy: &ImportPolicy, decision: &Decision, taken: &Path) -> Option<Path> {
    let peer = taken.source.peer()?;
    let context = ApplyContext {
        own: peer
            .own_v6
            .map(|own| std::net::IpAddr::from(own).into())
            .or(peer.own_v4.map(NextHop::V4)),
        peer: Some(peer.address.into()),
    };
    let applied = policy.apply(decision, (*taken.attributes).clone(), &context);
    let next_hop = match applied.next_hop {
        NextHopChange::None | NextHopChange::Unchanged => taken.next_hop,
        NextHopChange::To(next_hop) => Some(next_hop),
        NextHopChange::Unavailable => return None,
    };
    let mut attributes = applied.attributes;
    // RFC 9494 §4.3: it stays, and with it the lowest preference, whatever a rule removes.
    let stale = Community::LLGR_STALE;
    if taken.attributes.communities.contains(&stale) {
        attributes.communities.insert(stale);
    }
    Some(Path {
        attributes: Arc::new(attributes),
        next_hop,
        blackhole: applied.blackhole,
        ..taken.clone()
    })
}

/// Who brought the route into the AS: a reflector names it, else it is the peer.
fn originator(path: &Path, peer: &PathPeer, check: OriginCheck) -> Originator {
    if check == OriginCheck::Relayed {
        return Originator::Router(path.attributes.originator_id.unwrap_or(peer.router_id));
    }
    Originator::Peer {
        address: peer.address,
        router: peer.router_id,
    }
}
