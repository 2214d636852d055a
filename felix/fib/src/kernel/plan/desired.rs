//! What should be in the kernel.
//!
//! Owns the routes that are wanted, and the groups that they lead to for as long as any does. Does not own
//! which next hops can be used ([`crate::kernel::reach`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::FibNextHop;

use crate::kernel::reach::covering;
use crate::kernel::resolve::Hop;

/// The next hops that the RIB chose: what names a group.
pub(in crate::kernel) type GroupKey = Arc<[FibNextHop]>;

/// Where a route should lead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) enum Target {
    Group(GroupKey),
    Blackhole,
}

/// A route as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::kernel) struct Route {
    pub(in crate::kernel) target: Target,
    /// The address from which this node itself speaks over the route.
    pub(in crate::kernel) source: Option<IpAddr>,
}

/// Everything that should be in the kernel.
#[derive(Clone, Debug, Default)]
pub(in crate::kernel) struct Desired {
    pub(super) routes: BTreeMap<Prefix, Route>,
    pub(super) groups: BTreeMap<GroupKey, DesiredGroup>,
    unnamed: Unnamed,
}

/// What becomes of routes of ours that were found in the kernel and that nobody has spoken of.
#[derive(Clone, Debug)]
enum Unnamed {
    /// They stay: the RIB may still ask for them. Prefixes that it gave up do not count.
    Keep {
        given_up: BTreeSet<Prefix>,
    },
    Remove,
}

impl Default for Unnamed {
    fn default() -> Self {
        Self::Keep {
            given_up: BTreeSet::new(),
        }
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct DesiredGroup {
    pub(super) members: BTreeSet<Hop>,
    /// How many routes lead here; the group goes with the last of them.
    routes: usize,
}

impl Desired {
    /// Sets or removes a route. A new group has no members until [`Desired::set_members`].
    pub(in crate::kernel) fn set(&mut self, prefix: Prefix, route: Option<Route>) {
        if let Unnamed::Keep { given_up } = &mut self.unnamed {
            match route {
                Some(_) => given_up.remove(&prefix),
                None => given_up.insert(prefix),
            };
        }
        if let Some(Route {
            target: Target::Group(key),
            ..
        }) = &route
        {
            self.groups.entry(key.clone()).or_default().routes += 1;
        }
        let before = match route {
            Some(route) => self.routes.insert(prefix, route),
            None => self.routes.remove(&prefix),
        };
        if let Some(Route {
            target: Target::Group(key),
            ..
        }) = before
        {
            let group = self.groups.get_mut(&key);
            let group = group.expect("a group lives as long as a route leads to it");
            group.routes -= 1;
            if group.routes == 0 {
                self.groups.remove(&key);
            }
        }
    }

    /// From here on what is not asked for goes.
    pub(in crate::kernel) fn complete(&mut self) {
        self.unnamed = Unnamed::Remove;
    }

    /// Whether everything that should be in the kernel is known.
    pub(in crate::kernel) fn is_complete(&self) -> bool {
        matches!(self.unnamed, Unnamed::Remove)
    }

    /// Whether the kernel's route at a prefix may go when it is not wanted.
    pub(in crate::kernel) fn may_remove(&self, prefix: &Prefix) -> bool {
        match &self.unnamed {
            Unnamed::Remove => true,
            Unnamed::Keep { given_up } => {
                self.routes.contains_key(prefix) || given_up.contains(prefix)
            }
        }
    }

    /// Where the routes to `address` lead, the longest first; a group with what can be used of it now.
    pub(in crate::kernel) fn leads_to(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (Prefix, &Target, &BTreeSet<Hop>)> {
        const NOWHERE: &BTreeSet<Hop> = &BTreeSet::new();
        covering(address).filter_map(move |prefix| {
            let target = &self.routes.get(&prefix)?.target;
            let members = match target {
                Target::Group(key) => self.members(key)?,
                Target::Blackhole => NOWHERE,
            };
            Some((prefix, target, members))
        })
    }

    pub(in crate::kernel) fn keys(&self) -> Vec<GroupKey> {
        self.groups.keys().cloned().collect()
    }

    pub(in crate::kernel) fn members(&self, key: &GroupKey) -> Option<&BTreeSet<Hop>> {
        self.groups.get(key).map(|group| &group.members)
    }

    /// Next hops that can be used now and that some group wants.
    pub(in crate::kernel) fn hops(&self) -> impl Iterator<Item = Hop> {
        let groups = self.groups.values();
        groups.flat_map(|group| group.members.iter().copied())
    }

    /// Says which next hops of a group can be used now.
    pub(in crate::kernel) fn set_members(&mut self, key: &GroupKey, members: BTreeSet<Hop>) {
        if let Some(group) = self.groups.get_mut(key) {
            group.members = members;
        }
    }
}
