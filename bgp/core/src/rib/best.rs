//! The decision process (RFC 4271 §9.1.2.2, RFC 4456 §9): one best path, and those that share its
//! load.
//!
//! Owns the order of preference as a function of the set of paths alone: the order in which they
//! arrived, or stand in the slice, has no influence. RFC 5004's preference for the older external
//! path would break this and is left out. Does not own whether a path may be used at all.

use std::cmp::Ordering;
use std::fmt;

use crate::rib::path::{Path, Source};
use crate::types::{Asn, RouterId};

/// The steps of the decision, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// Our own route beats every learnt one.
    OwnRoute,
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
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OwnRoute => "own route",
            Self::LocalPref => "local preference",
            Self::AsPathLength => "AS path length",
            Self::Origin => "origin",
            Self::Med => "MED",
            Self::External => "external over internal",
            Self::RouterId => "router ID",
            Self::ClusterListLength => "cluster list length",
            Self::PeerAddress => "peer address",
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
    /// For each path, the step at which it lost; `None` for the winner and for rejected paths.
    pub lost_at: Vec<Option<Step>>,
    /// The last step that was needed to leave one path only; `None` when there was only one.
    pub decided_by: Option<Step>,
}

/// Picks the best of the paths that are not rejected; `None` when none is left.
pub fn best_path(paths: &[Path], multipath: Multipath) -> Option<Selection> {
    let usable: Vec<usize> = (0..paths.len())
        .filter(|index| paths[*index].rejected.is_none())
        .collect();
    let mut lost_at = vec![None; paths.len()];

    // MED only compares within one neighbouring AS. Comparing pairs as they come would make the
    // result depend on their order, so each AS first sends its own best (deterministic MED).
    let mut champions: Vec<usize> = Vec::new();
    for &index in &usable {
        let group = med_group(&paths[index]);
        match champions
            .iter_mut()
            .find(|champion| med_group(&paths[**champion]) == group)
        {
            None => champions.push(index),
            Some(champion) if prefer(&paths[index], &paths[*champion]).0 == Ordering::Less => {
                *champion = index;
            }
            Some(_) => {}
        }
    }
    let best = *champions
        .iter()
        .min_by(|a, b| prefer(&paths[**a], &paths[**b]).0)?;
    for &index in &usable {
        let champion = champions
            .iter()
            .copied()
            .find(|champion| med_group(&paths[*champion]) == med_group(&paths[index]))
            .unwrap_or(best);
        let beaten_by = if champion == index { best } else { champion };
        if index != best {
            lost_at[index] = prefer(&paths[beaten_by], &paths[index]).1;
        }
    }
    let decided_by = lost_at.iter().flatten().max().copied();

    let mut sharing: Vec<usize> = usable
        .into_iter()
        .filter(|&index| shares_load(&paths[index], &paths[best], multipath.relax))
        // A champion may tie with the best and still have beaten this one by MED.
        .filter(|&index| lost_at[index].is_none_or(|step| step > Step::External))
        .collect();
    sharing.sort_by(|a, b| {
        (*a != best)
            .cmp(&(*b != best))
            .then_with(|| tie_break(&paths[*a], &paths[*b]).0)
    });
    sharing.truncate(multipath.maximum.max(1));

    Some(Selection {
        best,
        multipath: sharing,
        lost_at,
        decided_by,
    })
}

/// Paths among which MED counts: those that the same neighbouring AS told, and those born in our
/// own AS together (RFC 4271 §9.1.2.2 c).
fn med_group(path: &Path) -> Option<Option<Asn>> {
    match path.source {
        Source::Local => None,
        Source::Peer(_) => Some(path.attributes.as_path.first()),
    }
}

/// `Less` when `a` is preferred, and the step that decides.
fn prefer(a: &Path, b: &Path) -> (Ordering, Option<Step>) {
    let steps = [
        (Step::OwnRoute, own(b).cmp(&own(a))),
        (Step::LocalPref, b.local_pref().cmp(&a.local_pref())),
        (
            Step::AsPathLength,
            a.attributes.as_path.len().cmp(&b.attributes.as_path.len()),
        ),
        (Step::Origin, a.attributes.origin.cmp(&b.attributes.origin)),
        (Step::Med, compare_med(a, b)),
        (Step::External, internal(a).cmp(&internal(b))),
    ];
    steps
        .into_iter()
        .find(|(_, ordering)| ordering.is_ne())
        .map_or_else(
            || tie_break(a, b),
            |(step, ordering)| (ordering, Some(step)),
        )
}

fn tie_break(a: &Path, b: &Path) -> (Ordering, Option<Step>) {
    let address = |path: &Path| path.source.peer().map(|peer| (peer.address, peer.index));
    let steps = [
        (Step::RouterId, originator(a).cmp(&originator(b))),
        (
            Step::ClusterListLength,
            a.attributes
                .cluster_list
                .len()
                .cmp(&b.attributes.cluster_list.len()),
        ),
        (Step::PeerAddress, address(a).cmp(&address(b))),
    ];
    steps
        .into_iter()
        .find(|(_, ordering)| ordering.is_ne())
        .map_or((Ordering::Equal, None), |(step, ordering)| {
            (ordering, Some(step))
        })
}

fn own(path: &Path) -> bool {
    path.source == Source::Local
}

fn internal(path: &Path) -> bool {
    path.source.peer().is_some_and(|peer| peer.internal)
}

fn compare_med(a: &Path, b: &Path) -> Ordering {
    if med_group(a) != med_group(b) {
        return Ordering::Equal;
    }
    // RFC 4271 §9.1.2.2 c: absent counts as the lowest.
    a.attributes
        .med
        .unwrap_or(0)
        .cmp(&b.attributes.med.unwrap_or(0))
}

/// RFC 4456 §9: the ORIGINATOR_ID stands in for the router ID of the one who reflected.
fn originator(path: &Path) -> Option<RouterId> {
    path.attributes
        .originator_id
        .or_else(|| path.source.peer().map(|peer| peer.router_id))
}

fn shares_load(path: &Path, best: &Path, relax: bool) -> bool {
    // Own routes are delivered here; there is nothing to share.
    let own_alone = own(best) && path != best;
    !own_alone
        && own(path) == own(best)
        && path.local_pref() == best.local_pref()
        && path.attributes.origin == best.attributes.origin
        && internal(path) == internal(best)
        && compare_med(path, best).is_eq()
        && if relax {
            path.attributes.as_path.len() == best.attributes.as_path.len()
        } else {
            path.attributes.as_path == best.attributes.as_path
        }
}

#[cfg(test)]
mod tests;
