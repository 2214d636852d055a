//! What every router must have been told when nothing happens any more: worked out from what is
//! configured alone, without sessions, messages, tables or time.
//!
//! Owns the fixed point. Takes two functions of one path from the crate, `best_path` and `export`, which
//! have tests of their own beside their code; what must hold of state is here.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_bgp_core::rib::{
    Candidate, EgressConfig, Multipath, Path, PathPeer, Rank, Rib, Source, best_path, export,
};
use caracal_bgp_core::role;
use caracal_bgp_core::types::{Asn, Family, NextHop, PathId, PeerKind, Prefix, RouterId};
use caracal_bgp_core::wire::{Community, EncodeContext, MAX_EXTENDED_LEN, PathAttributes};

use crate::fabric::{End, Fabric, Router, Side, across, index};

/// A path as a router holds it: what it carries, where it leads, and whether it may be used.
pub(crate) type Held = (PathAttributes, Option<NextHop>, bool);

/// What each side of each session has been told, by prefix.
pub(crate) type AdjRibsIn = BTreeMap<(Side, Prefix), Held>;

/// Rounds after which a fabric is not one that converges.
const MAX_ROUNDS: usize = 200;

/// What the RIBs of all routers hold.
pub(crate) fn held<'a>(fabric: &Fabric, ribs: impl Iterator<Item = (usize, &'a Rib)>) -> AdjRibsIn {
    let mut held = AdjRibsIn::new();
    for (router, rib) in ribs {
        let sides = fabric.sides(router);
        for route in rib.routes(None) {
            for known in route.paths {
                let Some(told_by) = known.path.source.index() else {
                    continue;
                };
                let side = sides.iter().find(|side| index(**side) == told_by);
                let path = known.path;
                let attributes = PathAttributes::clone(&path.attributes);
                let value = (attributes, path.next_hop, known.rejected.is_none());
                held.insert((*side.unwrap(), route.prefix), value);
            }
        }
    }
    held
}

/// What they must hold at rest.
pub(crate) fn expected(fabric: &Fabric) -> AdjRibsIn {
    let oracle = Oracle::new(fabric);
    let mut before = AdjRibsIn::new();
    for _ in 0..MAX_ROUNDS {
        let after = oracle.round(&before);
        if after == before {
            return after;
        }
        before = after;
    }
    panic!("the fabric does not converge");
}

struct Oracle<'a> {
    fabric: &'a Fabric,
    peers: BTreeMap<Side, Arc<PathPeer>>,
    egress: BTreeMap<Side, EgressConfig>,
}

impl<'a> Oracle<'a> {
    fn new(fabric: &'a Fabric) -> Self {
        let sides = fabric.every_side();
        let peers = sides
            .iter()
            .map(|side| (*side, Arc::new(peer(fabric, *side))));
        let egress = sides.iter().map(|side| (*side, egress(fabric, *side)));
        Self {
            fabric,
            peers: peers.collect(),
            egress: egress.collect(),
        }
    }

    /// Every router tells its peers once what it has picked from what it was told before.
    fn round(&self, before: &AdjRibsIn) -> AdjRibsIn {
        let mut after = AdjRibsIn::new();
        for router in 0..self.fabric.routers.len() {
            let sides = self.fabric.sides(router);
            for (prefix, best) in self.picked(router, &sides, before) {
                for side in &sides {
                    if let Some(told) = self.told(*side, &prefix, &best) {
                        let to = across(*side);
                        after.insert((to, prefix), self.taken(to, &prefix, told));
                    }
                }
            }
        }
        after
    }

    /// What a router tells of.
    fn picked(&self, router: usize, sides: &[Side], before: &AdjRibsIn) -> BTreeMap<Prefix, Path> {
        let Router {
            own,
            forwards,
            refused,
            maximum_paths,
            relax,
            ..
        } = &self.fabric.routers[router];
        let mut paths: BTreeMap<Prefix, Vec<Path>> = BTreeMap::new();
        for (prefix, own) in own {
            let path = path(Source::Local, own.attributes(), None);
            paths.entry(*prefix).or_default().push(path);
        }
        for side in sides {
            let source = Source::Peer(Arc::clone(&self.peers[side]));
            for ((_, prefix), (attributes, next_hop, usable)) in of_side(before, *side) {
                if *usable {
                    let path = path(source.clone(), attributes.clone(), *next_hop);
                    paths.entry(*prefix).or_default().push(path);
                }
            }
        }
        let multipath = Multipath {
            maximum: *maximum_paths,
            relax: *relax,
        };
        let mut picked = BTreeMap::new();
        for (prefix, paths) in paths {
            let ranks: Vec<Rank> = paths.iter().map(Rank::of).collect();
            let candidates = paths.iter().zip(&ranks).map(|(path, rank)| {
                let id = PathId::default();
                Some(Candidate {
                    rank,
                    id,
                    path,
                    unconfirmed: false,
                    unreachable: false,
                })
            });
            let candidates: Vec<_> = candidates.collect();
            let best = best_path(&candidates, multipath).unwrap().best;
            let best = paths[best].clone();
            // What the kernel does not take is not told.
            let lacking = *forwards && refused.contains(&prefix) && best.source != Source::Local;
            if !lacking {
                picked.insert(prefix, best);
            }
        }
        picked
    }

    fn told(&self, side: Side, prefix: &Prefix, best: &Path) -> Option<(PathAttributes, NextHop)> {
        if best.source.index() == Some(index(side)) {
            return None;
        }
        let exported = export(prefix, best, &self.egress[&side]).ok()?;
        let to_itself = exported.next_hop.addr() == self.peers[&side].address;
        (!to_itself).then_some((exported.attributes, exported.next_hop))
    }

    /// What becomes of a path at the one who is told.
    fn taken(
        &self,
        side: Side,
        prefix: &Prefix,
        (mut attributes, next_hop): (PathAttributes, NextHop),
    ) -> Held {
        let end = self.fabric.end(side);
        let router = self.fabric.router_at(side);
        let peer = &self.peers[&side];
        if !peer.internal {
            attributes.local_pref = None;
        }
        let otc = role::ingress(peer.role, peer.asn, attributes.otc);
        let mut own = vec![Asn(router.asn)];
        own.extend(end.local_asn.map(Asn).filter(|asn| asn.0 != router.asn));
        let occurrences = own.iter().map(|asn| attributes.as_path.occurrences(*asn));
        let looped = occurrences.sum::<usize>() > usize::from(end.allowed_own_as);
        let strange = !peer.internal && attributes.as_path.first() != Some(peer.asn);
        let clusters = self.fabric.sides(end.router);
        let clusters = clusters
            .into_iter()
            .filter_map(|side| self.fabric.end(side).cluster)
            .chain([router.cluster]);
        let reflected = peer.internal
            && (attributes.originator_id == Some(RouterId(router.id))
                || clusters
                    .into_iter()
                    .any(|id| attributes.cluster_list.contains(&RouterId(id))));
        let unusable = otc.is_err()
            || looped
            || strange
            || reflected
            || peer.is_ourselves(&next_hop)
            || router.protected.iter().any(|own| own.contains(prefix));
        if let Ok(otc) = otc {
            attributes.otc = otc;
        }
        let import = &end.import;
        if unusable || import.closed || import.rejects.contains(prefix) {
            return (attributes, Some(next_hop), false);
        }
        if let Some((tag, prefixes)) = &import.tags
            && prefixes.contains(prefix)
        {
            attributes.communities.insert(Community(*tag));
        }
        attributes.local_pref = import.local_pref.or(attributes.local_pref);
        (attributes, Some(next_hop), true)
    }
}

fn of_side(held: &AdjRibsIn, side: Side) -> impl Iterator<Item = (&(Side, Prefix), &Held)> {
    held.iter().filter(move |((of, _), _)| *of == side)
}

fn path(source: Source, attributes: PathAttributes, next_hop: Option<NextHop>) -> Path {
    Path {
        source,
        attributes: Arc::new(attributes),
        next_hop,
        long_lived: false,
        blackhole: false,
    }
}

/// The peer at the other end of `side`.
fn peer(fabric: &Fabric, side: Side) -> PathPeer {
    let (own, other) = (fabric.end(side), across(side));
    let internal = fabric.internal(side);
    PathPeer {
        index: index(side),
        asn: Asn(fabric.asn(other)),
        router_id: RouterId(fabric.router_at(other).id),
        address: fabric.end(other).address,
        internal,
        client: own.client && internal,
        role: own.role.filter(|_| !internal),
        interface: own.interface,
        interface_name: None,
        own_v4: own.v4,
        own_v6: own.v6.map(|(global, _)| global),
    }
}

/// How a router tells the peer at the other end of `side`.
fn egress(fabric: &Fabric, side: Side) -> EgressConfig {
    let (own, other) = (fabric.end(side), fabric.end(across(side)));
    let router = fabric.router_at(side);
    let internal = fabric.internal(side);
    let long = |end: &End| end.restart_time.and(end.long_lived).is_some();
    let families = own.families.iter().copied();
    EgressConfig {
        local_asn: Asn(fabric.asn(side)),
        cluster_id: RouterId(own.cluster.unwrap_or(router.cluster)),
        peer: if internal {
            PeerKind::Internal
        } else {
            PeerKind::External
        },
        role: own.role.filter(|_| !internal),
        replaced_asn: own.as_override.then(|| Asn(fabric.asn(across(side)))),
        private_as: own.private_as,
        told_paths: [None; Family::ALL.len()],
        long_lived: long(own) && long(other),
        extended_next_hop: own.extended_next_hop && other.extended_next_hop,
        client: own.client && internal,
        transit: router.transit,
        families: families
            .filter(|family| other.families.contains(family))
            .collect(),
        next_hop_mode: own.next_hop_mode,
        self_v4: own.v4,
        self_v6: own.v6,
        subnets: own.subnets.clone(),
        policy: Arc::new(own.export.policy(fabric.asn(side))),
        encode: EncodeContext {
            max_len: MAX_EXTENDED_LEN,
            ..EncodeContext::default()
        },
    }
}
