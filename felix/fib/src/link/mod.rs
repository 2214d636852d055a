//! Links, addresses, neighbours and routes, one operation at a time.
//!
//! Owns plain operations over an [`Rtnl`] handle, each acknowledged by the kernel before it
//! returns. Does not own any desired state; see [`crate::pod`] and [`crate::kernel`] for that.

pub mod reaper;

use std::net::IpAddr;

use caracal_bgp_core::types::Prefix;
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::LinkAttribute;

use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::rtnl::Rtnl;
use crate::rtnl::message::Message;
use crate::rtnl::objects::{self, LinkKey, RouteSpec, RouteTarget, VethEnd};
pub use crate::rtnl::objects::{InterfaceAddress, Link, MacAddress};

/// The longest name of a link, in octets.
pub const NAME_OCTETS: usize = 15;
/// The longest alternative name, in octets.
pub const ALTERNATIVE_NAME_OCTETS: usize = 127;

const CREATE: u16 = NLM_F_CREATE | NLM_F_EXCL;
const PUT: u16 = NLM_F_CREATE | NLM_F_REPLACE;

/// Finds a link by its name or by an alternative name.
///
/// # Errors
/// [`Error::Refused`] for any answer but "no such device".
pub fn find(rtnl: &mut Rtnl, name: &str) -> Result<Option<Link>> {
    // The kernel compares a plain name with names only, and an alternative name with both.
    let request = objects::get_link(LinkKey::AnyName(name));
    match rtnl.get(request, || format!("look up link {name}"), link_of) {
        Err(error) if error.is_refusal(libc::ENODEV) => Ok(None),
        found => found,
    }
}

/// As [`find`], for a link that must exist.
///
/// # Errors
/// [`Error::NoLink`] when it does not.
pub fn expect(rtnl: &mut Rtnl, name: &str) -> Result<Link> {
    find(rtnl, name)?.ok_or_else(|| Error::NoLink {
        name: name.to_owned(),
    })
}

/// Every link of the namespace.
///
/// # Errors
/// [`Error::Refused`], [`Error::Unsteady`].
pub fn list(rtnl: &mut Rtnl) -> Result<Vec<Link>> {
    rtnl.dump("links", &objects::list_links(), link_of)
}

/// Makes a veth pair: `near` in the namespace of `rtnl`, `far` in `far_netns` or the same one. Both
/// ends are down.
///
/// # Errors
/// [`Error::Name`] for a name that does not fit, [`Error::Refused`] with `EEXIST` for one in use.
pub fn create_veth(
    rtnl: &mut Rtnl,
    near: &str,
    far: &str,
    far_netns: Option<&Netns>,
    mtu: Option<u32>,
) -> Result<()> {
    use std::os::fd::AsFd;
    check_name("link name", near, NAME_OCTETS)?;
    check_name("link name", far, NAME_OCTETS)?;
    let end = |name, netns| VethEnd {
        name,
        mac: None,
        mtu,
        netns,
    };
    let request = objects::create_veth(&end(near, None), &end(far, far_netns.map(AsFd::as_fd)));
    rtnl.request(request, CREATE, || {
        format!("create veth pair {near} and {far}")
    })
}

/// Removes a link; one that is already gone is no error.
///
/// # Errors
/// [`Error::Refused`].
pub fn delete(rtnl: &mut Rtnl, index: u32) -> Result<()> {
    let request = objects::delete_link(LinkKey::Index(index));
    let result = rtnl.request(request, 0, || format!("delete link {index}"));
    ignore(result, &[libc::ENODEV])
}

/// Sets a link up or down.
///
/// # Errors
/// [`Error::Refused`].
pub fn set_up(rtnl: &mut Rtnl, index: u32, up: bool) -> Result<()> {
    let request = objects::set_link(LinkKey::Index(index), Some(up), Vec::new());
    let direction = if up { "up" } else { "down" };
    rtnl.request(request, 0, || format!("set link {index} {direction}"))
}

/// Sets the loopback link up: without it a node cannot even reach its own addresses.
///
/// # Errors
/// [`Error::Refused`].
pub fn set_loopback_up(rtnl: &mut Rtnl) -> Result<()> {
    let request = objects::set_link(LinkKey::Name("lo"), Some(true), Vec::new());
    rtnl.request(request, 0, || "set link lo up".to_owned())
}

/// Changes the largest packet that a link takes, in octets.
///
/// # Errors
/// [`Error::Refused`].
pub fn set_mtu(rtnl: &mut Rtnl, index: u32, mtu: u32) -> Result<()> {
    let attributes = vec![LinkAttribute::Mtu(mtu)];
    let request = objects::set_link(LinkKey::Index(index), None, attributes);
    rtnl.request(request, 0, || format!("set MTU of link {index} to {mtu}"))
}

/// Every address of the namespace.
///
/// # Errors
/// [`Error::Refused`], [`Error::Unsteady`].
pub fn addresses(rtnl: &mut Rtnl) -> Result<Vec<InterfaceAddress>> {
    rtnl.dump("addresses", &objects::list_addresses(), address_of)
}

/// Puts an address on a link, usable at once (no duplicate detection); one that is there already
/// is no error.
///
/// # Errors
/// [`Error::Refused`].
pub fn add_address(rtnl: &mut Rtnl, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
    let request = objects::add_address(index, address, prefix_len);
    rtnl.request(request, PUT, || {
        format!("add address {address}/{prefix_len} to link {index}")
    })
}

/// Takes an address from a link; one that is not there is no error.
///
/// # Errors
/// [`Error::Refused`].
pub fn delete_address(rtnl: &mut Rtnl, index: u32, address: IpAddr, prefix_len: u8) -> Result<()> {
    let request = objects::delete_address(index, address, prefix_len);
    let result = rtnl.request(request, 0, || {
        format!("delete address {address}/{prefix_len} from link {index}")
    });
    ignore(result, &[libc::EADDRNOTAVAIL, libc::ENODEV])
}

/// Sets a neighbour entry that never expires.
///
/// # Errors
/// [`Error::Refused`].
pub fn set_neighbor(rtnl: &mut Rtnl, index: u32, address: IpAddr, mac: MacAddress) -> Result<()> {
    let request = objects::permanent_neighbour(index, address, mac);
    rtnl.request(request, PUT, || {
        format!("set neighbour {address} of link {index}")
    })
}

/// Where a plain route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// To neighbours on the link with this index.
    Link(u32),
    /// To a gateway on a connected subnet.
    Gateway(IpAddr),
    /// To a gateway on the link with this index, whether or not a subnet says that it is there.
    GatewayOn(IpAddr, u32),
}

/// Adds or replaces a plain route in the main table, with metric 0 (1024 for IPv6).
///
/// # Errors
/// [`Error::Refused`].
pub fn set_route(rtnl: &mut Rtnl, prefix: Prefix, via: Via, protocol: u8) -> Result<()> {
    let route = RouteSpec {
        prefix,
        protocol,
        metric: 0,
        target: match via {
            Via::Link(index) => RouteTarget::Link(index),
            Via::Gateway(gateway) => RouteTarget::Via(gateway),
            Via::GatewayOn(gateway, interface) => RouteTarget::Gateway { gateway, interface },
        },
        source: None,
    };
    rtnl.request(route.add(), PUT, || {
        format!("set route {prefix} via {via:?}")
    })
}

/// Refuses a name that the kernel would refuse or cut.
pub(crate) fn check_name(what: &'static str, name: &str, limit: usize) -> Result<()> {
    if name.is_empty() || name.len() > limit {
        return Err(Error::Name {
            what,
            name: name.to_owned(),
            limit,
        });
    }
    Ok(())
}

/// Turns refusals that mean "already so" into success.
pub(crate) fn ignore(result: Result<()>, errnos: &[i32]) -> Result<()> {
    match result {
        Err(error) if errnos.iter().any(|&errno| error.is_refusal(errno)) => Ok(()),
        other => other,
    }
}

pub(crate) fn link_of(message: Message) -> Option<Link> {
    match message {
        Message::Route(RouteNetlinkMessage::NewLink(message)) => Some(Link::from_message(message)),
        _ => None,
    }
}

pub(crate) fn address_of(message: Message) -> Option<InterfaceAddress> {
    match message {
        Message::Route(RouteNetlinkMessage::NewAddress(message)) => {
            InterfaceAddress::from_message(&message)
        }
        _ => None,
    }
}
