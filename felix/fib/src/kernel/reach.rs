//! Where packets to a next hop go that may be on no link of ours: where the route to its address leads.
//! Pure.
//!
//! Owns the routes of other programs, and the choice between those and ours. Does not own our routes
//! ([`super::plan`]) nor links ([`super::resolve`]).
//!
//! ```text
//!   route 10.64.3.0/26 --> next hop 10.250.0.7 --by our route to 10.250.0.7/32--> {A, B}
//!   route 10.64.4.0/26 --> next hop 192.0.2.9  --by another's route to 0.0.0.0/0--> {C}
//! ```
//!
//! Only what is on a link of ours, and routes of others, may carry a next hop: a route that itself leads
//! to a next hop further away carries none. So nothing holds itself up, however routes change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_speaker::FibNextHop;
use caracal_bgp_speaker::fib::Reachability;

use super::plan::{Desired, GroupKey, Target};
use super::resolve::{Hop, Topology, Unresolved, Way};
use crate::METRIC_BGP;
use crate::rtnl::objects::{KernelRoute, RouteWay};

/// Routes of other programs in the main table.
#[derive(Clone, Debug, Default)]
pub(super) struct Underlay {
    /// By prefix and metric. A route without ways drops its packets.
    routes: BTreeMap<Prefix, BTreeMap<u32, BTreeSet<RouteWay>>>,
}

impl Underlay {
    /// Takes in a route, beside what lies at its prefix with its metric or in the place of it.
    pub(super) fn add(&mut self, route: &KernelRoute, replaces: bool) {
        let at_prefix = self.routes.entry(route.prefix).or_default();
        let ways = at_prefix.entry(route.metric).or_default();
        if replaces {
            ways.clear();
        }
        ways.extend(&route.ways);
    }

    /// A route is gone, or some of its ways.
    pub(super) fn remove(&mut self, route: &KernelRoute) {
        let Some(at_prefix) = self.routes.get_mut(&route.prefix) else {
            return;
        };
        if let Some(ways) = at_prefix.get_mut(&route.metric) {
            ways.retain(|way| !route.ways.contains(way));
            if ways.is_empty() {
                at_prefix.remove(&route.metric);
            }
        }
        if at_prefix.is_empty() {
            self.routes.remove(&route.prefix);
        }
    }

    /// The routes to `address`: the longest first, and of those of one prefix the one with the lowest
    /// metric.
    fn leads_to(
        &self,
        address: IpAddr,
    ) -> impl Iterator<Item = (Prefix, u32, &BTreeSet<RouteWay>)> {
        let at_prefixes =
            covering(address).filter_map(move |prefix| Some((prefix, self.routes.get(&prefix)?)));
        at_prefixes.flat_map(|(prefix, routes)| {
            let routes = routes.iter();
            routes.map(move |(metric, ways)| (prefix, *metric, ways))
        })
    }
}

/// All that says where packets go.
pub(super) struct Reach<'a> {
    pub(super) topology: &'a Topology,
    pub(super) underlay: &'a Underlay,
    pub(super) desired: &'a Desired,
    /// Ways on which packets are lost, by the speaker's word.
    pub(super) lost: &'a BTreeSet<Way>,
}

impl Reach<'_> {
    /// The gateways and links for a next hop. Several where the route to it has several. The groups
    /// of all routes by which next hops may be reached must have their members.
    pub(super) fn resolve(&self, next_hop: &FibNextHop) -> Result<BTreeSet<Hop>, Unresolved> {
        if self.lost.contains(&Way::of(next_hop)) {
            return Err(Unresolved::Lost(next_hop.address));
        }
        match self.topology.resolve(next_hop) {
            Err(Unresolved::NotConnected(address)) => Ok(self.over_routes(address)?.1),
            on_link => Ok(BTreeSet::from([on_link?])),
        }
    }

    /// Where a next hop leads, whatever the speaker knows to be lost on it: it is told so that it can
    /// choose.
    pub(super) fn reachability(&self, next_hop: &FibNextHop) -> Reachability {
        match self.topology.resolve(next_hop) {
            Ok(_) => Reachability::Direct,
            Err(Unresolved::NotConnected(address)) => match self.over_routes(address) {
                Ok((Some(ours), _)) => Reachability::Over(ours),
                Ok((None, _)) => Reachability::Direct,
                Err(_) => Reachability::Unreachable,
            },
            Err(_) => Reachability::Unreachable,
        }
    }

    /// The address of a next hop that is on no link of ours.
    pub(super) fn is_further_away(&self, next_hop: &FibNextHop) -> Option<IpAddr> {
        match self.topology.resolve(next_hop) {
            Err(Unresolved::NotConnected(address)) => Some(address),
            _ => None,
        }
    }

    /// Next hops of a group that are on no link of ours.
    pub(super) fn further_away(&self, key: &GroupKey) -> impl Iterator<Item = IpAddr> {
        key.iter()
            .filter_map(move |next_hop| self.is_further_away(next_hop))
    }

    /// Where the route to an address leads, and at which prefix it is if it is ours.
    fn over_routes(&self, address: IpAddr) -> Result<(Option<Prefix>, BTreeSet<Hop>), Unresolved> {
        let rank = |prefix: &Prefix, metric: u32| (prefix.len(), std::cmp::Reverse(metric));
        let ours = self.over_ours(address);
        let others = self.over_others(address);
        let best = match (ours, others) {
            (Some((ours, hops)), Some((others, metric, _)))
                if rank(&ours, METRIC_BGP) >= rank(&others, metric) =>
            {
                Some((Some(ours), ours, hops))
            }
            (_, Some((others, _, hops))) => Some((None, others, hops)),
            (ours, None) => ours.map(|(ours, hops)| (Some(ours), ours, hops)),
        };
        let (ours, prefix, hops) = best.ok_or(Unresolved::NotConnected(address))?;
        if hops.is_empty() {
            return Err(Unresolved::Dropped(address, prefix));
        }
        Ok((ours, hops))
    }

    /// The longest route of ours to `address` of which something can be used, and what that is: nothing
    /// where it drops its packets.
    fn over_ours(&self, address: IpAddr) -> Option<(Prefix, BTreeSet<Hop>)> {
        let mut routes = self.desired.leads_to(address);
        routes.find_map(|(prefix, target, members)| match target {
            Target::Blackhole => Some((prefix, BTreeSet::new())),
            Target::Group(key) => {
                let on_link = self.further_away(key).next().is_none();
                (on_link && !members.is_empty()).then(|| (prefix, members.clone()))
            }
        })
    }

    /// The same of another's routes, with its metric.
    fn over_others(&self, address: IpAddr) -> Option<(Prefix, u32, BTreeSet<Hop>)> {
        let mut routes = self.underlay.leads_to(address);
        routes.find_map(|(prefix, metric, ways)| {
            let hops = ways.iter().filter_map(|way| {
                let gateway = way.gateway.unwrap_or(address);
                self.topology.on_link(address, gateway, way.interface).ok()
            });
            let hops: BTreeSet<Hop> = hops.collect();
            (ways.is_empty() || !hops.is_empty()).then_some((prefix, metric, hops))
        })
    }
}

/// The prefixes that hold an address, the longest first.
pub(super) fn covering(address: IpAddr) -> impl Iterator<Item = Prefix> {
    let bits = Family::of(address).address_bits();
    (0..=bits)
        .rev()
        .filter_map(move |len| Prefix::new(address, len).ok())
}

#[cfg(test)]
mod tests;
