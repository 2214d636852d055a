//! Reads the kernel's routes and next-hop objects into [`Actual`], and routes of others into [`Underlay`],
//! whole or change by change.
//!
//! Owns what counts as ours: protocol and metric for routes, protocol for objects. Pure but for the
//! dumps.

use std::collections::BTreeSet;

use caracal_bgp_core::types::{Family, Prefix};
use netlink_packet_core::NLM_F_REPLACE;
use netlink_packet_route::RouteNetlinkMessage;

use super::plan::{Actual, Installed, InstalledTarget, Slot};
use super::reach::Underlay;
use super::resolve::{Hop, Topology};
use crate::error::Result;
use crate::link;
use crate::rtnl::message::Message;
use crate::rtnl::nexthop::NexthopMessage;
use crate::rtnl::objects::{self, InterfaceAddress, KernelRoute, Link};
use crate::rtnl::{Change, Rtnl};
use crate::{METRIC_BGP, PROTOCOL_BGP};

/// Lists everything that concerns us.
pub(super) fn read_back(rtnl: &mut Rtnl) -> Result<(Actual, Underlay)> {
    let request = Message::GetNexthop(NexthopMessage::default());
    let objects = rtnl.dump("next-hop objects", &request, |message| match message {
        Message::NewNexthop(object) => Some(object),
        _ => None,
    })?;
    let (mut actual, mut underlay) = (Actual::default(), Underlay::default());
    for object in objects {
        add_object(&mut actual, object);
    }
    for family in Family::ALL {
        let routes = rtnl.dump(
            "routes",
            &objects::list_routes(family),
            |message| match message {
                Message::Route(RouteNetlinkMessage::NewRoute(route)) => {
                    KernelRoute::from_message(&route)
                }
                _ => None,
            },
        )?;
        for route in routes {
            if route.protocol != PROTOCOL_BGP {
                underlay.add(&route, false);
            }
            if route.metric == METRIC_BGP {
                actual.set_slot(route.prefix, Some(slot_of(&route)));
            }
        }
    }
    Ok((actual, underlay))
}

/// Lists links and addresses.
pub(super) fn read_topology(rtnl: &mut Rtnl) -> Result<Topology> {
    let links = link::list(rtnl)?;
    let addresses = link::addresses(rtnl)?;
    Ok(Topology::new(links, addresses))
}

/// What a notification is about, as far as it concerns us.
#[derive(Debug)]
pub(super) enum Observation {
    LinkIs(Link),
    LinkGone(u32),
    AddressAdded(InterfaceAddress),
    AddressRemoved(InterfaceAddress),
    /// Someone changed what lies at a prefix with our metric.
    RouteChanged {
        prefix: Prefix,
        before: Option<Slot>,
    },
    /// Only what others have at a prefix is otherwise than before.
    OthersChanged(Prefix),
    /// Someone changed an object of ours; the kernel tells nothing about what fell with it.
    ObjectChanged,
    Nothing,
}

/// Reads a notification and notes in `actual` and `underlay` what it says about routes. Changes that we
/// made ourselves, over the socket with `own_port`, are known already.
pub(super) fn observe(
    actual: &mut Actual,
    underlay: &mut Underlay,
    change: Change,
    own_port: u32,
) -> Observation {
    let by_us = change.port == own_port;
    match change.message {
        Message::Route(RouteNetlinkMessage::NewLink(message)) => {
            Observation::LinkIs(Link::from_message(message))
        }
        Message::Route(RouteNetlinkMessage::DelLink(message)) => {
            Observation::LinkGone(message.header.index)
        }
        Message::Route(RouteNetlinkMessage::NewAddress(message)) => {
            InterfaceAddress::from_message(&message)
                .map_or(Observation::Nothing, Observation::AddressAdded)
        }
        Message::Route(RouteNetlinkMessage::DelAddress(message)) => {
            InterfaceAddress::from_message(&message)
                .map_or(Observation::Nothing, Observation::AddressRemoved)
        }
        Message::Route(RouteNetlinkMessage::NewRoute(message)) if !by_us => {
            let Some(route) = KernelRoute::from_message(&message) else {
                return Observation::Nothing;
            };
            let replaces = change.flags & NLM_F_REPLACE != 0;
            if route.protocol != PROTOCOL_BGP {
                underlay.add(&route, replaces);
            }
            match route.metric {
                METRIC_BGP => route_appeared(actual, &route, replaces),
                _ => Observation::OthersChanged(route.prefix),
            }
        }
        Message::Route(RouteNetlinkMessage::DelRoute(message)) if !by_us => {
            let Some(route) = KernelRoute::from_message(&message) else {
                return Observation::Nothing;
            };
            if route.protocol != PROTOCOL_BGP {
                underlay.remove(&route);
            }
            match route.metric {
                METRIC_BGP => route_vanished(actual, &route),
                _ => Observation::OthersChanged(route.prefix),
            }
        }
        Message::NewNexthop(object) | Message::DelNexthop(object) if !by_us => match object.id {
            Some(id) if object.protocol == PROTOCOL_BGP || owns(actual, id) => {
                Observation::ObjectChanged
            }
            Some(id) => {
                actual.taken.insert(id);
                Observation::Nothing
            }
            None => Observation::Nothing,
        },
        _ => Observation::Nothing,
    }
}

fn add_object(actual: &mut Actual, object: NexthopMessage) {
    let Some(id) = object.id else {
        return;
    };
    if object.protocol != PROTOCOL_BGP {
        actual.taken.insert(id);
        return;
    }
    match (object.gateway, object.interface) {
        _ if !object.members.is_empty() => {
            let members: BTreeSet<u32> = object.members.into_iter().collect();
            actual.groups.insert(id, members);
        }
        (Some(gateway), Some(interface)) => {
            actual.hops.insert(id, Hop { gateway, interface });
        }
        _ => {
            actual.strange.insert(id);
        }
    }
}

fn slot_of(route: &KernelRoute) -> Slot {
    if route.protocol != PROTOCOL_BGP {
        return Slot::Foreign(route.protocol);
    }
    let target = match route.object {
        Some(id) => InstalledTarget::Object(id),
        None if route.blackhole => InstalledTarget::Blackhole,
        None => InstalledTarget::Other,
    };
    Slot::Ours(Installed {
        target,
        source: route.source,
    })
}

fn route_appeared(actual: &mut Actual, route: &KernelRoute, replaces: bool) -> Observation {
    let slot = slot_of(route);
    let before = actual.slot(&route.prefix).copied();
    let slot = match (slot, before) {
        (Slot::Foreign(protocol), Some(Slot::Ours(_))) if replaces => Slot::Stolen(protocol),
        // It lies beside ours, which still stands first.
        (Slot::Foreign(_), Some(_)) => return Observation::OthersChanged(route.prefix),
        (slot, _) => slot,
    };
    let prefix = route.prefix;
    actual.set_slot(prefix, Some(slot));
    Observation::RouteChanged { prefix, before }
}

fn route_vanished(actual: &mut Actual, route: &KernelRoute) -> Observation {
    let prefix = route.prefix;
    let before = actual.slot(&prefix).copied();
    let was_ours = matches!(before, Some(Slot::Ours(_)));
    if was_ours != (route.protocol == PROTOCOL_BGP) {
        return Observation::OthersChanged(prefix);
    }
    actual.set_slot(prefix, None);
    Observation::RouteChanged { prefix, before }
}

fn owns(actual: &Actual, id: u32) -> bool {
    actual.hops.contains_key(&id) || actual.groups.contains_key(&id) || actual.strange.contains(&id)
}
