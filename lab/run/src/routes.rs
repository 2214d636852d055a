//! The kernel's routes of a box, as far as the lab needs to look at them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use futures::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};

use crate::namespace::Namespace;
use crate::next_hop_objects;

/// Destinations of all routes of the main table that a daemon put there, as `prefix/length`, with the number
/// of their next hops.
///
/// # Errors
/// The namespace cannot be entered or the kernel not be asked.
pub fn destinations(namespace: &Namespace) -> anyhow::Result<BTreeMap<String, usize>> {
    let mut destinations = BTreeMap::new();
    let objects = next_hop_objects::ways(namespace)?;
    for route in dump(namespace)? {
        if route.header.kind != RouteType::Unicast || route.header.protocol == RouteProtocol::Kernel
        {
            continue;
        }
        if let Some(destination) = destination(&route) {
            // IPv6 routes of some daemons come one by one, a next hop each.
            *destinations.entry(destination).or_default() += next_hops(&route, &objects);
        }
    }
    Ok(destinations)
}

fn next_hops(route: &RouteMessage, objects: &BTreeMap<u32, usize>) -> usize {
    let counted = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::MultiPath(hops) => Some(hops.len()),
            // An object that is gone takes its routes with it.
            RouteAttribute::NhId(id) => Some(objects.get(id).copied().unwrap_or(0)),
            _ => None,
        });
    counted.unwrap_or(1)
}

/// Deletes every route of the main table that a daemon put there, as the loss of power does.
///
/// # Errors
/// The namespace cannot be entered or the kernel refuses.
pub fn flush(namespace: &Namespace) -> anyhow::Result<()> {
    let routes = dump(namespace)?;
    namespace.rtnl(|handle| async move {
        let deletions = routes
            .into_iter()
            .filter(|route| route.header.protocol != RouteProtocol::Kernel)
            .map(|route| handle.route().del(key_of(&route)).execute());
        for result in futures::future::join_all(deletions).await {
            match result {
                // The carrier's loss may have taken it already.
                Err(rtnetlink::Error::NetlinkError(error)) if error.raw_code() == -libc::ESRCH => {}
                other => other.context("cannot delete a route")?,
            }
        }
        Ok(())
    })
}

/// What names a route to the kernel, without where it leads: that may be gone already.
fn key_of(route: &RouteMessage) -> RouteMessage {
    let mut key = RouteMessage::default();
    key.header = route.header.clone();
    key.attributes = route
        .attributes
        .iter()
        .filter(|attribute| {
            matches!(
                attribute,
                RouteAttribute::Destination(_)
                    | RouteAttribute::Table(_)
                    | RouteAttribute::Priority(_)
            )
        })
        .cloned()
        .collect();
    key
}

fn dump(namespace: &Namespace) -> anyhow::Result<Vec<RouteMessage>> {
    namespace.rtnl(|handle| async move {
        let mut routes = Vec::new();
        for family in [AddressFamily::Inet, AddressFamily::Inet6] {
            let mut request = RouteMessage::default();
            request.header.address_family = family;
            let answers = handle.route().get(request).execute();
            let found: Vec<RouteMessage> =
                answers.try_collect().await.context("cannot read routes")?;
            routes.extend(found.into_iter().filter(|r| r.header.table == MAIN_TABLE));
        }
        Ok(routes)
    })
}

const MAIN_TABLE: u8 = libc::RT_TABLE_MAIN;

fn destination(route: &RouteMessage) -> Option<String> {
    route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(RouteAddress::Inet(address)) => Some(format!(
                "{}/{}",
                IpAddr::from(*address),
                route.header.destination_prefix_length
            )),
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => Some(format!(
                "{}/{}",
                IpAddr::from(*address),
                route.header.destination_prefix_length
            )),
            _ => None,
        })
}
