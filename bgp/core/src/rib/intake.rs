//! What becomes of a path that a peer tells: whether it may be used, and in which form.
//!
//! Owns the checks and changes on the way in. Does not own what happens to the path then.

use std::sync::Arc;

use crate::policy::Verdict;
use crate::rib::machine::Rib;
use crate::rib::origin::OriginValidity;
use crate::rib::path::{Path, PathPeer, PeerIndex, Rejection};
use crate::rib::table::Marks;
use crate::role;
use crate::types::Prefix;
use crate::wire::Community;

impl Rib {
    /// A path as it is used if it may be, whatever the prefix.
    pub(super) fn taken(&self, told: &Path) -> Path {
        let mut path = told.clone();
        let Some(peer) = told.source.peer() else {
            return path;
        };
        // A leak is rejected elsewhere; its attribute stays as it came.
        if let Ok(otc) = role::ingress(peer.role, peer.asn, path.attributes.otc)
            && otc != path.attributes.otc
        {
            Arc::make_mut(&mut path.attributes).otc = otc;
        }
        let shutting_down = &Community::GRACEFUL_SHUTDOWN;
        if !peer.internal && path.attributes.communities.contains(shutting_down) {
            // RFC 8326 §4.2: the lowest preference moves traffic away while another path is there.
            Arc::make_mut(&mut path.attributes).local_pref = Some(0);
        }
        path
    }

    /// What is noted about a path to `prefix` of which [`Rib::judge_path`] has said `unusable`.
    pub(super) fn marks(&self, path: &Path, unusable: bool, prefix: &Prefix) -> Marks {
        let validity = self.validity(path, prefix);
        let rejected = unusable
            || validity == OriginValidity::Foreign
            || path
                .source
                .index()
                .is_some_and(|index| self.judge_prefix(index, prefix).is_some());
        Marks {
            stale: false,
            rejected,
            validity,
        }
    }

    /// Why a path to `prefix` must not be used, if it must not.
    pub(super) fn judge(&self, path: &Path, prefix: &Prefix) -> Option<Rejection> {
        let index = path.source.index()?;
        self.judge_path(path)
            .or_else(|| self.judge_origin(path, prefix))
            .or_else(|| self.judge_prefix(index, prefix))
    }

    /// Checks that hold for every prefix.
    pub(super) fn judge_path(&self, path: &Path) -> Option<Rejection> {
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
            if found != Some(peer.asn) {
                let peer = peer.asn;
                return Some(Rejection::FirstAs { peer, found });
            }
            if policy.import.is_none() {
                return Some(Rejection::NoPolicy);
            }
        } else if attributes.originator_id == Some(self.config.router_id) {
            return Some(Rejection::OriginatorIsSelf);
        } else if attributes.cluster_list.contains(&self.config.cluster_id) {
            return Some(Rejection::ClusterLoop);
        }
        let next_hop = path.next_hop.as_ref()?;
        peer.is_ourselves(next_hop).then_some(Rejection::OwnNextHop)
    }

    fn judge_prefix(&self, index: PeerIndex, prefix: &Prefix) -> Option<Rejection> {
        let protected = |own: &&Prefix| own.contains(prefix);
        if let Some(own) = self.config.protected.iter().find(protected) {
            return Some(Rejection::Protected(*own));
        }
        let policy = self.peers.get(&index)?.policy.import.as_ref()?;
        match policy.evaluate(prefix) {
            (Verdict::Accept, _) => None,
            (Verdict::Reject, rule) => Some(Rejection::Policy {
                rule: rule.map(|rule| rule.name.clone()),
            }),
        }
    }

    fn judge_origin(&self, path: &Path, prefix: &Prefix) -> Option<Rejection> {
        if self.validity(path, prefix) != OriginValidity::Foreign {
            return None;
        }
        let (block, owner) = self.config.blocks.covering(prefix)?;
        Some(Rejection::ForeignBlock {
            block,
            owner: owner.node.clone(),
            originator: originator(path, path.source.peer()?),
        })
    }

    fn validity(&self, path: &Path, prefix: &Prefix) -> OriginValidity {
        let peer = path.source.peer();
        let checked = peer.filter(|peer| {
            self.peers
                .get(&peer.index)
                .is_some_and(|known| known.policy.validate_origin)
        });
        checked.map_or(OriginValidity::Unchecked, |peer| {
            self.config.blocks.validate(prefix, originator(path, peer))
        })
    }
}

/// Who brought the route into the AS: a reflector names it, else it is the peer.
fn originator(path: &Path, peer: &PathPeer) -> crate::types::RouterId {
    path.attributes.originator_id.unwrap_or(peer.router_id)
}
