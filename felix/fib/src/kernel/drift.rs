//! What others do to our routes, next hops and groups in the kernel.
//!
//! Owns what lay where before somebody else changed it, until it is put right. Does not own the
//! repair: the planner writes whatever differs, and asks nobody why. Pure.

use std::collections::{BTreeMap, BTreeSet};

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::{Drift, FibWork};

use super::plan::{Actual, Desired, Planner, Slot};
use super::resolve::Hop;

/// Everything that somebody else changed and that is not yet as it should be.
#[derive(Debug, Default)]
pub(super) struct Disturbances {
    /// What lay at prefixes of which the kernel has told since the last judgement.
    heard: BTreeMap<Prefix, Option<Slot>>,
    /// Everything, before the last listing.
    listed: Option<Actual>,
    broken: BTreeMap<Place, Drift>,
    /// A link or address has changed, with which the kernel drops routes and objects itself: what is
    /// missing from the next listing proves nothing about anybody.
    pub(super) unsettled: bool,
}

/// Where something is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    Route(Prefix),
    Hop(Hop),
    Group(u32),
}

impl Disturbances {
    /// Somebody changed what lay at a prefix.
    pub(super) fn route(&mut self, prefix: Prefix, before: Option<Slot>) {
        self.heard.entry(prefix).or_insert(before);
    }

    /// Everything was listed anew, and lay like this before as far as we knew.
    pub(super) fn listed(&mut self, before: Actual) {
        if !self.unsettled {
            self.listed = Some(before);
        }
    }

    /// Tells which changes concern what we want; the others are nobody's fault. To be called when it is
    /// known what is wanted, and before anything is written.
    pub(super) fn judge(&mut self, desired: &Desired, planner: &Planner, actual: &Actual) {
        if let Some(before) = self.listed.take() {
            for (prefix, slot) in before.differences(actual) {
                self.heard.entry(prefix).or_insert(slot);
            }
            self.judge_objects(desired, planner, &before, actual);
        }
        for (prefix, before) in std::mem::take(&mut self.heard) {
            let wanted = planner.installed(desired, &prefix);
            let drift = match (before, actual.slot(&prefix)) {
                (Some(Slot::Ours(was)), now) if wanted == Some(was) => match now {
                    Some(Slot::Ours(is)) if *is == was => continue,
                    Some(_) => Drift::Replaced,
                    None => Drift::Missing,
                },
                (_, Some(Slot::Ours(_))) if wanted.is_none() && desired.may_remove(&prefix) => {
                    Drift::Stray
                }
                _ => continue,
            };
            self.broken.insert(Place::Route(prefix), drift);
        }
    }

    fn judge_objects(
        &mut self,
        desired: &Desired,
        planner: &Planner,
        before: &Actual,
        actual: &Actual,
    ) {
        let gone = |(id, hop): &(&u32, &Hop)| actual.hops.get(*id) != Some(*hop);
        let wanted: BTreeSet<Hop> = desired.hops().collect();
        for (_, hop) in before.hops.iter().filter(gone) {
            if wanted.contains(hop) {
                self.broken.insert(Place::Hop(*hop), Drift::NextHop);
            }
        }
        for (id, members) in planner.groups(desired) {
            let was = before.members_of(id).as_ref() == Some(members);
            if was && actual.members_of(id).as_ref() != Some(members) {
                self.broken.insert(Place::Group(id), Drift::NextHop);
            }
        }
    }

    /// Counts what has been put right, and forgets what is not wanted any more. To be called when all
    /// has been written.
    pub(super) fn settle(
        &mut self,
        desired: &Desired,
        planner: &Planner,
        actual: &Actual,
        work: &FibWork,
    ) {
        self.broken.retain(|place, drift| {
            let (wanted, right) = match place {
                Place::Route(prefix) => {
                    let wanted = planner.installed(desired, prefix);
                    let found = match actual.slot(prefix) {
                        Some(Slot::Ours(route)) => Some(*route),
                        _ => None,
                    };
                    let asked = wanted.is_some() || *drift == Drift::Stray;
                    (asked, wanted == found)
                }
                Place::Hop(hop) => (
                    desired.hops().any(|wanted| wanted == *hop),
                    actual.hops.values().any(|found| found == hop),
                ),
                Place::Group(id) => {
                    let mut groups = planner.groups(desired);
                    let wanted = groups.find(|(bound, _)| bound == id);
                    let right = wanted.is_some_and(|(_, members)| {
                        actual.members_of(*id).as_ref() == Some(members)
                    });
                    (wanted.is_some(), right)
                }
            };
            if wanted && right {
                work.repaired(*drift);
            }
            wanted && !right
        });
    }
}

#[cfg(test)]
mod tests;
