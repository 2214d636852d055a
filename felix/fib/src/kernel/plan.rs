//! Compares the routes that should be with those that are, and plans the writes between. Pure.
//!
//! Owns the order of writes (next hops before groups before routes; removal the other way round),
//! the numbers of objects, and their reuse. Does not own sockets or the reasons of failures.
//!
//! ```text
//!   route 10.1.0.0/26 --\
//!   route 10.2.0.0/26 ----> group {A, B} ---> hop A (gateway, link)
//!   route 10.3.0.0/26 --/             \-----> hop B
//! ```
//!
//! Every route leads to a group, also where one next hop makes the whole group: the group is named by
//! the next hops that the RIB chose, and holds those of them that can be used now. So the loss or the
//! return of a neighbour changes groups, of which there are few, and leaves routes alone.

mod desired;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use caracal_bgp_core::types::Prefix;

use super::resolve::Hop;
pub(super) use desired::{Desired, GroupKey, Route, Target};

/// Numbers of our objects begin here. The number space is shared by all programs of the namespace;
/// others count from 1.
const FIRST_ID: u32 = 0x0ca2_0000;

/// Where a route of ours leads in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InstalledTarget {
    Object(u32),
    Blackhole,
    /// Somewhere we never send it: someone used our protocol number.
    Other,
}

/// A route of ours in the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Installed {
    pub(super) target: InstalledTarget,
    pub(super) source: Option<IpAddr>,
}

/// What the kernel holds at a prefix with our metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slot {
    Ours(Installed),
    /// Another's route, put in the place of ours: to be taken back.
    Stolen(u8),
    /// Another's route, by protocol, which was there before us: never to be touched.
    Foreign(u8),
}

/// What the kernel holds, as far as it concerns us.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Actual {
    pub(super) hops: BTreeMap<u32, Hop>,
    pub(super) groups: BTreeMap<u32, BTreeSet<u32>>,
    /// Objects that we cannot read but that carry our protocol number.
    pub(super) strange: BTreeSet<u32>,
    /// Numbers of other programs' objects.
    pub(super) taken: BTreeSet<u32>,
    routes: BTreeMap<Prefix, Slot>,
    references: BTreeMap<u32, usize>,
}

impl Actual {
    /// How many routes of ours there are, blackholes too.
    pub(super) fn ours(&self) -> usize {
        let ours = |slot: &&Slot| matches!(slot, Slot::Ours(_));
        self.routes.values().filter(ours).count()
    }

    pub(super) fn slot(&self, prefix: &Prefix) -> Option<&Slot> {
        self.routes.get(prefix)
    }

    pub(super) fn set_slot(&mut self, prefix: Prefix, slot: Option<Slot>) {
        if let Some(id) = object_of(slot.as_ref()) {
            *self.references.entry(id).or_default() += 1;
        }
        let before = match slot {
            Some(slot) => self.routes.insert(prefix, slot),
            None => self.routes.remove(&prefix),
        };
        if let Some(id) = object_of(before.as_ref())
            && let Some(count) = self.references.get_mut(&id)
        {
            *count -= 1;
            if *count == 0 {
                self.references.remove(&id);
            }
        }
    }

    /// After a new listing: what was ours in `before` and is another's now has been taken from us.
    pub(super) fn inherit_ownership(&mut self, before: &Self) {
        for (prefix, slot) in &mut self.routes {
            if let Slot::Foreign(protocol) = *slot
                && matches!(before.slot(prefix), Some(Slot::Ours(_) | Slot::Stolen(_)))
            {
                *slot = Slot::Stolen(protocol);
            }
        }
    }

    /// What lay at each prefix at which something else lies in `now`.
    pub(super) fn differences(&self, now: &Self) -> Vec<(Prefix, Option<Slot>)> {
        let gone = self.routes.iter();
        let gone = gone.filter(|(prefix, slot)| now.slot(prefix) != Some(*slot));
        let gone = gone.map(|(prefix, slot)| (*prefix, Some(*slot)));
        let new = now.routes.keys();
        let new = new.filter(|prefix| !self.routes.contains_key(prefix));
        gone.chain(new.map(|prefix| (*prefix, None))).collect()
    }

    /// The next hops of a group, by what they are; `None` where one of them is missing, or the group.
    pub(super) fn members_of(&self, id: u32) -> Option<BTreeSet<Hop>> {
        let members = self.groups.get(&id)?;
        members
            .iter()
            .map(|member| self.hops.get(member).copied())
            .collect()
    }

    /// Notes that the kernel has acknowledged a write.
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::AddHop { id, hop } => {
                self.hops.insert(*id, *hop);
            }
            Op::PutGroup { id, members, .. } => {
                self.groups.insert(*id, members.clone());
            }
            Op::PutRoute { prefix, route } => self.set_slot(*prefix, Some(Slot::Ours(*route))),
            Op::DeleteRoute { prefix } => self.set_slot(*prefix, None),
            Op::DeleteObject { id } => {
                self.hops.remove(id);
                self.groups.remove(id);
                self.strange.remove(id);
            }
        }
    }

    fn is_used(&self, id: u32) -> bool {
        self.hops.contains_key(&id)
            || self.groups.contains_key(&id)
            || self.strange.contains(&id)
            || self.taken.contains(&id)
    }
}

fn object_of(slot: Option<&Slot>) -> Option<u32> {
    match slot {
        Some(Slot::Ours(Installed {
            target: InstalledTarget::Object(id),
            ..
        })) => Some(*id),
        _ => None,
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Op {
    /// Make a next-hop object; its number is free.
    AddHop { id: u32, hop: Hop },
    /// Make a group, or change the members of an existing one in one step.
    PutGroup {
        id: u32,
        members: BTreeSet<u32>,
        exists: bool,
    },
    /// Add a route, or change it in one step.
    PutRoute { prefix: Prefix, route: Installed },
    /// Remove a route of ours.
    DeleteRoute { prefix: Prefix },
    /// Remove a next hop or group to which nothing leads any more.
    DeleteObject { id: u32 },
}

/// Which routes to compare.
#[derive(Clone, Copy, Debug)]
pub(super) enum Scope<'a> {
    All,
    Only(&'a BTreeSet<Prefix>),
}

/// Plans writes, and remembers which object stands for which group.
#[derive(Debug, Default)]
pub(super) struct Planner {
    bindings: BTreeMap<GroupKey, u32>,
}

impl Planner {
    /// The writes that bring the routes of `scope`, and every group, to what is desired. Objects
    /// that become superfluous stay, until [`Planner::plan_cleanup`]: were a write to fail, the
    /// kernel would drop every route that still leads to a removed object.
    pub(super) fn plan(&mut self, desired: &Desired, actual: &Actual, scope: Scope<'_>) -> Vec<Op> {
        self.bind(desired, actual, scope);
        let mut ops = self.plan_objects(desired, actual);
        let mut removals = Vec::new();
        let mut compare = |prefix: &Prefix| {
            let wanted = self.installed(desired, prefix);
            match (wanted, actual.slot(prefix)) {
                (Some(route), Some(Slot::Ours(found))) if route == *found => {}
                (Some(_), Some(Slot::Foreign(_))) => {}
                (Some(route), _) => ops.push(Op::PutRoute {
                    prefix: *prefix,
                    route,
                }),
                (None, Some(Slot::Ours(_))) if desired.may_remove(prefix) => {
                    removals.push(Op::DeleteRoute { prefix: *prefix });
                }
                (None, _) => {}
            }
        };
        match scope {
            Scope::Only(prefixes) => prefixes.iter().for_each(&mut compare),
            Scope::All => {
                let mut all: BTreeSet<Prefix> = desired.routes.keys().copied().collect();
                all.extend(actual.routes.keys());
                all.iter().for_each(&mut compare);
            }
        }
        ops.extend(removals);
        ops
    }

    /// Removes objects to which nothing leads and that stand for no group; none before everything
    /// desired is known.
    pub(super) fn plan_cleanup(&mut self, desired: &Desired, actual: &Actual) -> Vec<Op> {
        if !desired.is_complete() {
            return Vec::new();
        }
        self.bindings
            .retain(|key, _| desired.groups.contains_key(key));
        let bound: BTreeSet<u32> = self.bindings.values().copied().collect();
        let unused = |id: &u32| !actual.references.contains_key(id);
        let mut ops = Vec::new();
        let mut needed: BTreeSet<u32> = BTreeSet::new();
        for (&id, members) in &actual.groups {
            let alive = self.is_alive(desired, id, &bound);
            if alive || !unused(&id) {
                needed.extend(members);
            } else {
                ops.push(Op::DeleteObject { id });
            }
        }
        let single = actual.hops.keys().chain(&actual.strange);
        let superfluous = single.filter(|id| !needed.contains(id) && unused(id));
        ops.extend(superfluous.map(|&id| Op::DeleteObject { id }));
        ops
    }

    /// The groups that the kernel should hold now, by number.
    pub(super) fn groups<'a>(
        &'a self,
        desired: &'a Desired,
    ) -> impl Iterator<Item = (u32, &'a BTreeSet<Hop>)> {
        let bound = self.bindings.iter();
        let members = bound.filter_map(|(key, id)| Some((*id, desired.members(key)?)));
        members.filter(|(_, members)| !members.is_empty())
    }

    /// The route as the kernel should hold it now; `None` also where no next hop can be used.
    pub(super) fn installed(&self, desired: &Desired, prefix: &Prefix) -> Option<Installed> {
        let route = desired.routes.get(prefix)?;
        let target = match &route.target {
            Target::Blackhole => InstalledTarget::Blackhole,
            Target::Group(key) => {
                let group = desired.groups.get(key)?;
                if group.members.is_empty() {
                    return None;
                }
                InstalledTarget::Object(*self.bindings.get(key)?)
            }
        };
        Some(Installed {
            target,
            source: route.source,
        })
    }

    /// A group whose next hops are all out of use has no members to keep it: the kernel knows no
    /// empty group.
    fn is_alive(&self, desired: &Desired, id: u32, bound: &BTreeSet<u32>) -> bool {
        bound.contains(&id)
            && self.bindings.iter().any(|(key, &bound)| {
                bound == id && desired.members(key).is_some_and(|set| !set.is_empty())
            })
    }

    /// Gives each group that is used a number: its own, that of an equal group which the kernel holds
    /// and which a route of this group already leads to, that of any equal group, or a new one.
    fn bind(&mut self, desired: &Desired, actual: &Actual, scope: Scope<'_>) {
        self.bindings.retain(|key, id| {
            desired.groups.contains_key(key)
                && !actual.taken.contains(id)
                && !actual.hops.contains_key(id)
                && !actual.strange.contains(id)
        });
        let unbound: Vec<&GroupKey> = desired
            .groups
            .iter()
            .filter(|(key, group)| !group.members.is_empty() && !self.bindings.contains_key(*key))
            .map(|(key, _)| key)
            .collect();
        if unbound.is_empty() {
            return;
        }
        let mut free: BTreeSet<u32> = actual.groups.keys().copied().collect();
        for id in self.bindings.values() {
            free.remove(id);
        }
        let mut adopt = |bindings: &mut BTreeMap<GroupKey, u32>, prefix: &Prefix| {
            if let Some(id) = object_of(actual.slot(prefix))
                && let Some(Route {
                    target: Target::Group(key),
                    ..
                }) = desired.routes.get(prefix)
                && !bindings.contains_key(key)
                && free.contains(&id)
                && actual.members_of(id).as_ref() == desired.members(key)
            {
                free.remove(&id);
                bindings.insert(key.clone(), id);
            }
        };
        match scope {
            Scope::Only(prefixes) => {
                for prefix in prefixes {
                    adopt(&mut self.bindings, prefix);
                }
            }
            Scope::All => {
                for prefix in desired.routes.keys() {
                    adopt(&mut self.bindings, prefix);
                }
            }
        }
        self.take_over(desired, actual, scope, &mut free);
        for key in unbound {
            if self.bindings.contains_key(key) {
                continue;
            }
            let equal = free
                .iter()
                .copied()
                .find(|&id| actual.members_of(id).as_ref() == desired.members(key));
            let id = match equal {
                Some(id) => {
                    free.remove(&id);
                    id
                }
                None => self.new_id(actual, &BTreeSet::new()),
            };
            self.bindings.insert(key.clone(), id);
        }
    }

    /// Where the routes of a group go elsewhere together, the group goes there under them: one write
    /// instead of one for each. It is left to those that most of them make for.
    fn take_over(
        &mut self,
        desired: &Desired,
        actual: &Actual,
        scope: Scope<'_>,
        free: &mut BTreeSet<u32>,
    ) {
        if free.is_empty() || !desired.is_complete() {
            return;
        }
        let mut moves: BTreeMap<(u32, &GroupKey), usize> = BTreeMap::new();
        // Neighbours mostly move alike.
        let mut run: Option<((u32, &GroupKey), usize)> = None;
        let mut count = |prefix: &Prefix| {
            let (Some(id), Some(Target::Group(key))) = (
                object_of(actual.slot(prefix)),
                desired.routes.get(prefix).map(|route| &route.target),
            ) else {
                return;
            };
            match &mut run {
                Some(((last, name), length)) if *last == id && Arc::ptr_eq(name, key) => {
                    *length += 1;
                }
                _ => {
                    if let Some((to, length)) = run.replace(((id, key), 1)) {
                        *moves.entry(to).or_default() += length;
                    }
                }
            }
        };
        match scope {
            Scope::Only(prefixes) => prefixes.iter().for_each(&mut count),
            Scope::All => desired.routes.keys().for_each(&mut count),
        }
        if let Some((to, length)) = run {
            *moves.entry(to).or_default() += length;
        }
        let mut moves: Vec<((u32, &GroupKey), usize)> = moves.into_iter().collect();
        moves.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        for ((id, key), _) in moves {
            let wanted = desired.members(key).is_some_and(|set| !set.is_empty());
            if wanted && !self.bindings.contains_key(key) && free.remove(&id) {
                self.bindings.insert(key.clone(), id);
            }
        }
    }

    fn plan_objects(&self, desired: &Desired, actual: &Actual) -> Vec<Op> {
        let mut numbers: BTreeMap<Hop, u32> = BTreeMap::new();
        for (&id, &hop) in &actual.hops {
            numbers.entry(hop).or_insert(id);
        }
        let mut hops = Vec::new();
        let mut groups = Vec::new();
        let mut planned = BTreeSet::new();
        for (key, group) in &desired.groups {
            let Some(&id) = self.bindings.get(key) else {
                continue;
            };
            if group.members.is_empty() {
                continue;
            }
            let mut members = BTreeSet::new();
            for &hop in &group.members {
                let number = *numbers.entry(hop).or_insert_with(|| {
                    let id = self.new_id(actual, &planned);
                    planned.insert(id);
                    hops.push(Op::AddHop { id, hop });
                    id
                });
                members.insert(number);
            }
            let found = actual.groups.get(&id);
            if found != Some(&members) {
                groups.push(Op::PutGroup {
                    id,
                    members,
                    exists: found.is_some(),
                });
            }
        }
        hops.extend(groups);
        hops
    }

    fn new_id(&self, actual: &Actual, planned: &BTreeSet<u32>) -> u32 {
        let highest = [
            actual.hops.keys().next_back(),
            actual.groups.keys().next_back(),
            actual.strange.iter().next_back(),
            self.bindings.values().max(),
            planned.iter().next_back(),
        ];
        let highest = highest.into_iter().flatten().max();
        let mut id = highest.map_or(FIRST_ID, |id| id.wrapping_add(1).max(FIRST_ID));
        while actual.is_used(id) {
            id = id.wrapping_add(1).max(FIRST_ID);
        }
        id
    }
}

#[cfg(test)]
mod tests;
