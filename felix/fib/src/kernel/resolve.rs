//! Finds the link on which a next hop is. Pure.
//!
//! Owns the picture of links and addresses. Does not own how it is learnt, nor next hops further away
//! ([`super::reach`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::FibNextHop;

use crate::link::{InterfaceAddress, Link};

/// A gateway on a link: what a next-hop object of the kernel holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Hop {
    pub(super) gateway: IpAddr,
    /// Interface index.
    pub(super) interface: u32,
}

/// A next hop by what tells it from others: a link-local address means something on its link only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Way {
    address: IpAddr,
    interface: Option<u32>,
}

impl Way {
    pub(super) fn of(next_hop: &FibNextHop) -> Self {
        let on_link = match next_hop.address {
            IpAddr::V6(address) => address.is_unicast_link_local(),
            IpAddr::V4(_) => false,
        };
        Self {
            address: next_hop.address,
            interface: next_hop.interface.filter(|_| on_link),
        }
    }
}

/// Why a next hop cannot be used now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unresolved {
    #[error("next hop {0} is on no connected subnet, and no route leads there")]
    NotConnected(IpAddr),
    #[error("packets to next hop {0} are dropped by the route to {1}")]
    Dropped(IpAddr, Prefix),
    #[error("next hop {0} is an address of this node")]
    Own(IpAddr),
    #[error("link-local next hop {0} came without an interface")]
    NoInterface(IpAddr),
    #[error("next hop {0} is on interface {1}, which is gone")]
    LinkGone(IpAddr, u32),
    #[error("next hop {0} is on {1}, which is down or has no carrier")]
    LinkDown(IpAddr, String),
    #[error("packets to next hop {0} are lost")]
    Lost(IpAddr),
}

/// How a link's usability changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transition {
    /// Nothing of interest.
    None,
    /// Packets can pass again, or for the first time.
    Up,
    /// Packets cannot pass any more.
    Down,
    /// It was down in between: the kernel has dropped what used the link.
    Flapped,
}

/// Links and addresses of the namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Topology {
    links: BTreeMap<u32, Link>,
    addresses: BTreeSet<InterfaceAddress>,
}

impl Topology {
    pub(super) fn new(links: Vec<Link>, addresses: Vec<InterfaceAddress>) -> Self {
        Self {
            links: links.into_iter().map(|link| (link.index, link)).collect(),
            addresses: addresses.into_iter().collect(),
        }
    }

    /// Takes in a link as it is now.
    pub(super) fn set_link(&mut self, link: Link) -> Transition {
        let now = link.is_usable();
        let changes = link.carrier_changes;
        let before = self.links.insert(link.index, link);
        let was = before.as_ref().is_some_and(Link::is_usable);
        match (was, now) {
            (false, true) => Transition::Up,
            (true, false) => Transition::Down,
            // Several changes of the carrier may be told as one, after the last of them.
            (true, true) if before.is_some_and(|link| link.carrier_changes != changes) => {
                Transition::Flapped
            }
            _ => Transition::None,
        }
    }

    pub(super) fn remove_link(&mut self, index: u32) -> Option<Link> {
        self.addresses.retain(|address| address.interface != index);
        self.links.remove(&index)
    }

    /// Whether the address is new.
    pub(super) fn add_address(&mut self, address: InterfaceAddress) -> bool {
        self.addresses.insert(address)
    }

    /// Whether the address was there.
    pub(super) fn remove_address(&mut self, address: &InterfaceAddress) -> bool {
        self.addresses.remove(address)
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|own| own.address == address)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The gateway and link for a next hop, from the longest connected subnet that holds it.
    pub(super) fn resolve(&self, next_hop: &FibNextHop) -> Result<Hop, Unresolved> {
        let address = next_hop.address;
        if let IpAddr::V6(v6) = address
            && v6.is_unicast_link_local()
        {
            let interface = next_hop.interface.ok_or(Unresolved::NoInterface(address))?;
            return self.on_link(address, address, interface);
        }
        if self.has_address(address) {
            return Err(Unresolved::Own(address));
        }
        let interface = self
            .connected(address)
            .ok_or(Unresolved::NotConnected(address))?;
        // RFC 2545 §3: a link-local companion means that the peer shares the link with us; it stays
        // valid when global addresses are renumbered. It says nothing about other links.
        let companion = next_hop
            .link_local
            .filter(|_| next_hop.interface == Some(interface));
        let gateway = companion.map_or(address, IpAddr::V6);
        self.on_link(address, gateway, interface)
    }

    /// The link of the longest subnet that holds `address`; usable links first, then lower indexes.
    fn connected(&self, address: IpAddr) -> Option<u32> {
        let candidates = self.addresses.iter().filter_map(|own| {
            let subnet = Prefix::new(own.peer, own.prefix_len).ok()?;
            let usable = self.links.get(&own.interface).is_some_and(Link::is_usable);
            let rank = (subnet.len(), usable, std::cmp::Reverse(own.interface));
            subnet
                .contains_addr(address)
                .then_some((rank, own.interface))
        });
        candidates.max().map(|(_, interface)| interface)
    }

    /// A gateway on a link, on the way to `address`.
    pub(super) fn on_link(
        &self,
        address: IpAddr,
        gateway: IpAddr,
        interface: u32,
    ) -> Result<Hop, Unresolved> {
        match self.links.get(&interface) {
            None => Err(Unresolved::LinkGone(address, interface)),
            // The kernel refuses objects on such links (ENETDOWN).
            Some(link) if !link.is_usable() => {
                Err(Unresolved::LinkDown(address, link.name.clone()))
            }
            Some(_) => Ok(Hop { gateway, interface }),
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in crate::kernel) fn link(index: u32, usable: bool) -> Link {
        Link {
            index,
            name: format!("up{index}"),
            up: true,
            carrier: usable,
            ..Link::default()
        }
    }

    pub(in crate::kernel) fn address(interface: u32, text: &str) -> InterfaceAddress {
        let (address, len) = text.split_once('/').unwrap();
        let address = address.parse().unwrap();
        InterfaceAddress {
            interface,
            address,
            prefix_len: len.parse().unwrap(),
            peer: address,
        }
    }

    fn topology() -> Topology {
        Topology::new(
            vec![link(1, true), link(2, true), link(3, false)],
            vec![
                address(1, "10.0.0.1/8"),
                address(2, "10.1.0.1/24"),
                address(3, "10.3.0.1/24"),
                address(1, "2001:db8::1/64"),
            ],
        )
    }

    fn next_hop(address: &str, link_local: Option<&str>, interface: Option<u32>) -> FibNextHop {
        FibNextHop {
            address: address.parse().unwrap(),
            link_local: link_local.map(|text| text.parse().unwrap()),
            interface,
        }
    }

    #[test]
    fn next_hops_resolve_over_the_longest_connected_subnet_or_say_why_not() {
        let cases = [
            (next_hop("10.9.9.9", None, None), "10.9.9.9 on 1"),
            (next_hop("10.1.0.2", None, None), "10.1.0.2 on 2"),
            // The interface of the session is no statement about a third party's address.
            (next_hop("10.1.0.2", None, Some(1)), "10.1.0.2 on 2"),
            (
                next_hop("2001:db8::2", Some("fe80::2"), Some(1)),
                "fe80::2 on 1",
            ),
            (
                next_hop("2001:db8::2", Some("fe80::2"), Some(2)),
                "2001:db8::2 on 1",
            ),
            (
                next_hop("2001:db8::2", Some("fe80::2"), None),
                "2001:db8::2 on 1",
            ),
            (next_hop("fe80::9", None, Some(2)), "fe80::9 on 2"),
            (next_hop("fe80::9", None, None), "came without an interface"),
            (
                next_hop("fe80::9", None, Some(9)),
                "interface 9, which is gone",
            ),
            (next_hop("10.3.0.2", None, None), "up3, which is down"),
            (next_hop("192.0.2.1", None, None), "no connected subnet"),
            (next_hop("10.0.0.1", None, None), "an address of this node"),
        ];
        for (next_hop, expected) in cases {
            let got = match topology().resolve(&next_hop) {
                Ok(hop) => format!("{} on {}", hop.gateway, hop.interface),
                Err(why) => why.to_string(),
            };
            assert!(got.contains(expected), "{next_hop:?}: {got}");
        }
    }

    #[test]
    fn a_flap_that_is_over_when_it_is_told_still_counts() {
        let mut topology = topology();
        assert_eq!(topology.set_link(link(1, true)), Transition::None);
        let mut flapped = link(1, true);
        flapped.carrier_changes = 2;
        assert_eq!(topology.set_link(flapped), Transition::Flapped);
        assert_eq!(topology.set_link(link(1, false)), Transition::Down);
        assert_eq!(topology.set_link(link(1, true)), Transition::Up);
        assert_eq!(topology.set_link(link(7, false)), Transition::None);
    }
}
