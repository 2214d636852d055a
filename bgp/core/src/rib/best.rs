//! The decision process (RFC 4271 §9.1.2.2, RFC 4456 §9): one best path, and those that share its
//! load.
//!
//! Owns the order of preference as a function of the set of paths alone: the order in which they
//! arrived, or stand in the slice, has no influence. RFC 5004's preference for the older external
//! path would break this and is left out. Does not own whether a path may be used at all.

use std::cmp::Ordering;
use std::fmt;
use std::net::IpAddr;

use smallvec::SmallVec;

use crate::rib::path::{Path, PeerIndex, Source};
use crate::types::{Asn, PathId, RouterId};
use crate::wire::Origin;

/// The steps of the decision, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Our own route beats every learnt one.
    OwnRoute,
    /// The word of a block's holder before that of one who cannot be confirmed to hold it.
    BlockHolder,
    /// A next hop that leads somewhere before one that leads nowhere. The latter is a candidate only
    /// where there is nothing else (RFC 4271 §9.1.2.1), for the FIB to say why.
    NextHop,
    /// What is kept beyond its time is a last resort (RFC 9494 §4.3).
    LongLived,
    /// The highest LOCAL_PREF (RFC 4271 §9.1.1).
    LocalPref,
    /// The shortest AS_PATH (§9.1.2.2 a).
    AsPathLength,
    /// The lowest ORIGIN (b).
    Origin,
    /// The lowest MULTI_EXIT_DISC among paths of one neighbouring AS (c).
    Med,
    /// External before internal (d).
    External,
    /// It ties up to here but loses the roll call: the lowest ORIGINATOR_ID or router ID (f).
    RouterId,
    /// The shortest CLUSTER_LIST (RFC 4456 §9).
    ClusterListLength,
    /// The lowest peer address (g).
    PeerAddress,
    /// The lowest path identifier, between paths that one peer told.
    PathId,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnRoute => "own route",
            Self::BlockHolder => "holder of the block",
            Self::NextHop => "unreachable next hop",
            Self::LongLived => "long-lived stale",
            Self::LocalPref => "local preference",
            Self::AsPathLength => "AS path length",
            Self::Origin => "origin",
            Self::Med => "MED",
            Self::External => "external over internal",
            Self::RouterId => "router ID",
            Self::ClusterListLength => "cluster list length",
            Self::PeerAddress => "peer address",
            Self::PathId => "path identifier",
        })
    }
}

/// What to do with paths that tie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Multipath {
    /// The most paths to use; at least 1.
    pub maximum: usize,
    /// Whether AS paths need only be of equal length, not equal.
    pub relax: bool,
}

/// The outcome for one prefix. Indices are those of the slice that was judged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selection {
    /// The winner.
    pub best: usize,
    /// The winner and the paths that share its load, most preferred first.
    pub multipath: Vec<usize>,
    /// For each path, the step at which it lost; `None` for the winner and for unusable paths.
    pub lost_at: Vec<Option<Step>>,
    /// The last step that was needed to leave one path only; `None` when there was only one.
    pub decided_by: Option<Step>,
}

/// What the decision knows of a path; worked out once for all prefixes that share the path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rank {
    local_pref: u32,
    /// The first AS of the path; AS 0, which no path holds (RFC 7607), where it is empty.
    neighbour: Asn,
    /// RFC 4271 §9.1.2.2 c: absent counts as the lowest.
    med: u32,
    /// RFC 4456 §9: the ORIGINATOR_ID stands in for the router ID of the one who reflected. Of own
    /// routes zero; there is but one to a prefix.
    originator: RouterId,
    as_path_len: u16,
    cluster_list_len: u16,
    origin: Origin,
    own: bool,
    last_resort: bool,
    internal: bool,
}

impl Rank {
    /// The rank of `path`.
    pub fn of(path: &Path) -> Self {
        let attributes = &path.attributes;
        let peer = path.source.peer();
        let len = |length: usize| u16::try_from(length).unwrap_or(u16::MAX);
        Self {
            own: path.source == Source::Local,
            last_resort: path.is_last_resort(),
            local_pref: path.local_pref(),
            as_path_len: len(attributes.as_path.len()),
            origin: attributes.origin,
            neighbour: attributes.as_path.first().unwrap_or(Asn::ZERO),
            med: attributes.med.unwrap_or(0),
            internal: peer.is_some_and(|peer| peer.internal),
            originator: attributes
                .originator_id
                .or_else(|| peer.map(|peer| peer.router_id))
                .unwrap_or(RouterId(0)),
            cluster_list_len: len(attributes.cluster_list.len()),
        }
    }

    /// Paths among which MED counts: those that the same neighbouring AS told, and those that
    /// peers told which were born in our own AS (RFC 4271 §9.1.2.2 c).
    fn med_group(&self) -> (bool, Asn) {
        (self.own, self.neighbour)
    }
}

/// A path that may be used, as the decision sees it.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its rank.
    pub rank: &'a Rank,
    /// Which of its source's paths to the prefix it is.
    pub id: PathId,
    /// Whether nobody can say if its originator holds the block that it lies in.
    pub unconfirmed: bool,
    /// Whether its next hop leads nowhere now.
    pub unreachable: bool,
    /// The path itself, for the steps that are rarely reached.
    pub path: &'a Path,
}

/// Explains the choice among paths; `None` stands for those that may not be used, and is the answer
/// when no other is left.
pub fn best_path(paths: &[Option<Candidate<'_>>], multipath: Multipath) -> Option<Selection> {
    let usable: Vec<(usize, Candidate<'_>)> = paths
        .iter()
        .enumerate()
        .filter_map(|(index, path)| Some((index, (*path)?)))
        .collect();
    let candidates: Vec<Candidate<'_>> = usable.iter().map(|(_, candidate)| *candidate).collect();
    let champions = champions(&candidates);
    let best = pick(&candidates)?;
    let mut lost_at = vec![None; paths.len()];
    for (index, candidate) in candidates.iter().enumerate() {
        let champion = champions
            .iter()
            .copied()
            .find(|champion| candidates[*champion].rank.med_group() == candidate.rank.med_group())
            .unwrap_or(best);
        // It went where the first of the two beat it: it need not have been there any more when
        // its AS compared MEDs.
        let beaten_by = [best, champion];
        lost_at[usable[index].0] = beaten_by
            .into_iter()
            .filter_map(|better| prefer(&candidates[better], candidate).1)
            .min();
    }
    let multipath = sharing(&candidates, best, multipath);
    Some(Selection {
        best: usable[best].0,
        multipath: multipath.into_iter().map(|index| usable[index].0).collect(),
        decided_by: lost_at.iter().flatten().max().copied(),
        lost_at,
    })
}

/// The best of `candidates`; `None` when there is none.
pub(super) fn pick(candidates: &[Candidate<'_>]) -> Option<usize> {
    let order = |a: &usize, b: &usize| prefer(&candidates[*a], &candidates[*b]).0;
    if med_matters(candidates) {
        champions(candidates).into_iter().min_by(order)
    } else {
        (0..candidates.len()).min_by(order)
    }
}

/// The paths that share the load of `best`, itself first, most preferred first.
pub(super) fn sharing(
    candidates: &[Candidate<'_>],
    best: usize,
    multipath: Multipath,
) -> SmallVec<[usize; 8]> {
    let mut sharing: SmallVec<[usize; 8]> = (0..candidates.len())
        .filter(|index| {
            *index == best || shares_load(&candidates[*index], &candidates[best], multipath.relax)
        })
        .collect();
    if sharing.len() > 1 && med_matters(candidates) {
        // A path may tie with the best and all the same have lost by MED within its own AS.
        let champions = champions(candidates);
        sharing.retain(|index| {
            champions.iter().all(|champion| {
                champion == index
                    || candidates[*champion].rank.med_group() != candidates[*index].rank.med_group()
                    || prefer(&candidates[*champion], &candidates[*index])
                        .1
                        .is_none_or(|step| step > Step::External)
            })
        });
    }
    if sharing.len() > 1 {
        sharing.sort_by(|a, b| {
            (*a != best)
                .cmp(&(*b != best))
                .then_with(|| tie_break(&candidates[*a], &candidates[*b]).0)
        });
    }
    sharing.truncate(multipath.maximum.max(1));
    sharing
}

/// Whether MED can make a difference at all, which is rare.
fn med_matters(candidates: &[Candidate<'_>]) -> bool {
    candidates
        .split_first()
        .is_some_and(|(first, rest)| rest.iter().any(|other| other.rank.med != first.rank.med))
}

/// The best of each neighbouring AS.
///
/// MED only compares within one. Comparing pairs as they come would make the result depend on their
/// order, so each AS first sends its own best (deterministic MED).
fn champions(candidates: &[Candidate<'_>]) -> SmallVec<[usize; 8]> {
    let mut champions: SmallVec<[usize; 8]> = SmallVec::new();
    for (index, candidate) in candidates.iter().enumerate() {
        let group = candidate.rank.med_group();
        match champions
            .iter_mut()
            .find(|champion| candidates[**champion].rank.med_group() == group)
        {
            None => champions.push(index),
            Some(champion) if prefer(candidate, &candidates[*champion]).0 == Ordering::Less => {
                *champion = index;
            }
            Some(_) => {}
        }
    }
    champions
}

/// `Less` when `a` is preferred, and the step that decides.
fn prefer(a: &Candidate<'_>, b: &Candidate<'_>) -> (Ordering, Option<Step>) {
    let (x, y) = (a.rank, b.rank);
    let decided = step(Step::OwnRoute, y.own.cmp(&x.own))
        .or_else(|| step(Step::BlockHolder, a.unconfirmed.cmp(&b.unconfirmed)))
        .or_else(|| step(Step::NextHop, a.unreachable.cmp(&b.unreachable)))
        .or_else(|| step(Step::LongLived, x.last_resort.cmp(&y.last_resort)))
        .or_else(|| step(Step::LocalPref, y.local_pref.cmp(&x.local_pref)))
        .or_else(|| step(Step::AsPathLength, x.as_path_len.cmp(&y.as_path_len)))
        .or_else(|| step(Step::Origin, x.origin.cmp(&y.origin)))
        .or_else(|| step(Step::Med, compare_med(x, y)))
        .or_else(|| step(Step::External, x.internal.cmp(&y.internal)));
    decided.unwrap_or_else(|| tie_break(a, b))
}

fn tie_break(a: &Candidate<'_>, b: &Candidate<'_>) -> (Ordering, Option<Step>) {
    let (x, y) = (a.rank, b.rank);
    step(Step::RouterId, x.originator.cmp(&y.originator))
        .or_else(|| {
            let lengths = x.cluster_list_len.cmp(&y.cluster_list_len);
            step(Step::ClusterListLength, lengths)
        })
        .or_else(|| step(Step::PeerAddress, peer(a).cmp(&peer(b))))
        .or_else(|| step(Step::PathId, a.id.cmp(&b.id)))
        .unwrap_or((Ordering::Equal, None))
}

fn peer(candidate: &Candidate<'_>) -> Option<(IpAddr, PeerIndex)> {
    let peer = candidate.path.source.peer()?;
    Some((peer.address, peer.index))
}

fn step(step: Step, ordering: Ordering) -> Option<(Ordering, Option<Step>)> {
    ordering.is_ne().then_some((ordering, Some(step)))
}

fn compare_med(a: &Rank, b: &Rank) -> Ordering {
    if a.med_group() == b.med_group() {
        a.med.cmp(&b.med)
    } else {
        Ordering::Equal
    }
}

fn shares_load(path: &Candidate<'_>, best: &Candidate<'_>, relax: bool) -> bool {
    let (a, b) = (path.rank, best.rank);
    // Own routes are delivered here; there is nothing to share.
    !b.own
        && !a.own
        && path.unconfirmed == best.unconfirmed
        && path.unreachable == best.unreachable
        && a.last_resort == b.last_resort
        && a.local_pref == b.local_pref
        && a.as_path_len == b.as_path_len
        && a.origin == b.origin
        && a.internal == b.internal
        && compare_med(a, b).is_eq()
        && (relax || path.path.attributes.as_path == best.path.attributes.as_path)
}

#[cfg(test)]
mod tests;
