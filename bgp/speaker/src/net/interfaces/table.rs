//! Interfaces and their addresses at one moment, and what a session wants to know of them.
//!
//! Owns the answers. Does not own how the table is kept up to date.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caracal_bgp_core::policy::InterfaceGlob;
use caracal_bgp_core::rib::Ends;
use caracal_bgp_core::types::Prefix;

use super::netlink::{AddressFacts, Change, LinkFacts};

/// Flags of linux/if.h.
const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
/// Flags of linux/if_addr.h. The first also marks temporary IPv6 addresses.
const IFA_F_SECONDARY: u32 = 0x01;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_DEPRECATED: u32 = 0x20;
const IFA_F_TENTATIVE: u32 = 0x40;

/// An interface, as sessions show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it has carrier.
    pub running: bool,
}

/// An interface with all that counts here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    facts: LinkFacts,
    addresses: Vec<AddressFacts>,
}

impl Link {
    /// Its index.
    pub fn index(&self) -> u32 {
        self.facts.index
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.facts.name
    }

    /// Whether it is set up.
    pub fn is_up(&self) -> bool {
        self.facts.flags & IFF_UP != 0
    }

    /// Whether it has carrier.
    pub fn is_running(&self) -> bool {
        self.facts.flags & IFF_RUNNING != 0
    }

    /// Its Ethernet address.
    pub fn link_layer(&self) -> Option<[u8; 6]> {
        self.facts.link_layer
    }

    /// How often its carrier has come and gone.
    pub fn carrier_changes(&self) -> u32 {
        self.facts.carrier_changes
    }

    /// Whether `address` is a link-local address of ours on it that can be used.
    pub fn has_link_local(&self, address: Ipv6Addr) -> bool {
        self.link_locals()
            .any(|held| held.usable && held.address == address)
    }

    /// Our link-local address, the lowest where there are several, once nobody else has claimed it
    /// (RFC 4862 §5.4).
    pub fn link_local(&self) -> Option<Ipv6Addr> {
        self.link_locals()
            .filter(|held| held.usable)
            .map(|held| held.address)
            .min()
    }

    /// Why there is no [`Link::link_local`].
    pub fn no_link_local(&self) -> &'static str {
        let mut held = self.link_locals().peekable();
        if held.peek().is_none() {
            "it has no link-local address (is IPv6 disabled?)"
        } else if held.any(|held| held.failed) {
            "another node on the link has its link-local address"
        } else {
            "its link-local address is not yet known to be unique"
        }
    }

    fn link_locals(&self) -> impl Iterator<Item = LinkLocal> {
        self.addresses.iter().filter_map(|held| match held.local {
            IpAddr::V6(address) if address.is_unicast_link_local() => Some(LinkLocal {
                address,
                usable: is_usable(held),
                failed: held.flags & IFA_F_DADFAILED != 0,
            }),
            _ => None,
        })
    }

    /// The same in short.
    pub fn summary(&self) -> Interface {
        Interface {
            index: self.facts.index,
            name: self.facts.name.clone(),
            running: self.is_running(),
        }
    }

    fn is_loopback(&self) -> bool {
        self.facts.flags & IFF_LOOPBACK != 0
    }

    /// The address to show to others: no secondary, temporary or deprecated one where there is
    /// another.
    fn first_v4(&self) -> Option<Ipv4Addr> {
        let of = |held: &AddressFacts| match held.local {
            IpAddr::V4(v4) if !v4.is_loopback() => Some(v4),
            _ => None,
        };
        self.best(of)
    }

    fn first_global_v6(&self) -> Option<Ipv6Addr> {
        let of = |held: &AddressFacts| match held.local {
            IpAddr::V6(v6) if !v6.is_loopback() && !v6.is_unicast_link_local() => Some(v6),
            _ => None,
        };
        self.best(of)
    }

    fn best<T>(&self, of: impl Fn(&AddressFacts) -> Option<T>) -> Option<T> {
        let candidates = self.addresses.iter().filter(|held| is_usable(held));
        let candidates = candidates.filter_map(|held| Some((held.flags, of(held)?)));
        candidates
            .min_by_key(|(flags, _)| flags & (IFA_F_SECONDARY | IFA_F_DEPRECATED))
            .map(|(_, address)| address)
    }
}

struct LinkLocal {
    address: Ipv6Addr,
    usable: bool,
    failed: bool,
}

/// Whether the address can be a source: not while it may be another node's (RFC 4862 §5.4).
fn is_usable(held: &AddressFacts) -> bool {
    let tentative = held.flags & (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC) == IFA_F_TENTATIVE;
    !tentative && held.flags & IFA_F_DADFAILED == 0
}

/// All interfaces at one moment.
#[derive(Debug, Default)]
pub struct InterfaceTable {
    links: BTreeMap<u32, Link>,
    by_name: HashMap<String, u32>,
    /// The interfaces that hold an address: several where it is link-local.
    holders: HashMap<IpAddr, Vec<u32>>,
    loopback: Option<u32>,
    subnets: HashSet<Prefix>,
    /// Lengths of `subnets` that occur, by family.
    lengths: [Vec<u8>; 2],
}

impl InterfaceTable {
    pub(super) fn new(facts: &Facts) -> Self {
        let mut table = Self::default();
        for (index, link) in &facts.links {
            let addresses = facts.addresses.get(index).cloned().unwrap_or_default();
            table.add(Link {
                facts: link.clone(),
                addresses,
            });
        }
        for lengths in &mut table.lengths {
            lengths.sort_unstable();
            lengths.dedup();
        }
        table
    }

    fn add(&mut self, link: Link) {
        let index = link.index();
        self.by_name.insert(link.name().to_owned(), index);
        if link.is_loopback() {
            self.loopback.get_or_insert(index);
        }
        for held in &link.addresses {
            self.holders.entry(held.local).or_default().push(index);
            if let Some(subnet) = subnet(held) {
                self.subnets.insert(subnet);
                self.lengths[usize::from(held.local.is_ipv6())].push(subnet.len());
            }
        }
        self.links.insert(index, link);
    }

    /// The interface called `name`.
    pub fn by_name(&self, name: &str) -> Option<&Link> {
        self.links.get(self.by_name.get(name)?)
    }

    /// The interface of this index.
    pub fn by_index(&self, index: u32) -> Option<&Link> {
        self.links.get(&index)
    }

    /// All interfaces, by index.
    pub fn links(&self) -> impl Iterator<Item = &Link> {
        self.links.values()
    }

    /// The interface that holds `local`; `ifindex` says which, where the address is link-local.
    pub fn interface_of(&self, local: IpAddr, ifindex: Option<u32>) -> Option<Interface> {
        self.holder(local, ifindex).map(Link::summary)
    }

    /// The interface that leads to `remote` without a router; `ifindex` says which, where the address is
    /// link-local. Of several on one subnet one that has carrier.
    pub fn towards(&self, remote: IpAddr, ifindex: Option<u32>) -> Option<Interface> {
        if let Some(index) = ifindex {
            return self.by_index(index).map(Link::summary);
        }
        let on_subnet = |link: &Link| {
            let subnets = link.addresses.iter().filter_map(subnet);
            let around = subnets.filter(|subnet| subnet.contains_addr(remote));
            around.map(|subnet| subnet.len()).max()
        };
        let links = self.links.values();
        let candidates = links.filter_map(|link| Some((on_subnet(link)?, link.is_running(), link)));
        let best = candidates.max_by_key(|(len, running, _)| (*len, *running));
        best.map(|(_, _, link)| link.summary())
    }

    /// The TTL for an external peer at `remote`: 1 when it is on a connected subnet.
    pub fn external_ttl(&self, remote: IpAddr) -> Option<u8> {
        let connected = self.lengths[usize::from(remote.is_ipv6())]
            .iter()
            .filter_map(|length| Prefix::new(remote, *length).ok())
            .any(|subnet| self.subnets.contains(&subnet));
        connected.then_some(1)
    }

    /// The ends of a session from `local` to `peer`, with our addresses of both families on its
    /// interface (RFC 2545 §3: the global and the link-local one). `ifindex` says which interface,
    /// where the session runs between link-local addresses. Of an interface that `ignored` matches,
    /// nothing is named but the session's own address.
    pub fn ends(
        &self,
        local: IpAddr,
        ifindex: Option<u32>,
        peer: IpAddr,
        ignored: &[InterfaceGlob],
    ) -> (Ends, Option<Interface>) {
        let carrier = self.holder(local, ifindex);
        let is_ignored = |link: &&Link| ignored.iter().any(|glob| glob.matches(link.name()));
        let link = carrier.filter(|link| !is_ignored(link));
        let local_v4 = match local {
            IpAddr::V4(local) => Some(local),
            IpAddr::V6(_) => link.and_then(Link::first_v4),
        };
        let (global, own_link_local) = match local {
            IpAddr::V6(local) if local.is_unicast_link_local() => (None, Some(local)),
            IpAddr::V6(local) => (Some(local), None),
            IpAddr::V4(_) => (None, None),
        };
        let global = global.or_else(|| link.and_then(Link::first_global_v6));
        let link_local = own_link_local.or_else(|| link.and_then(Link::link_local));
        let local_v6 = match (global, link_local) {
            (Some(global), link_local) => Some((global, link_local)),
            (None, Some(link_local)) => Some((link_local, None)),
            (None, None) => None,
        };
        let addresses = link.map(|link| link.addresses.as_slice());
        let mut subnets: Vec<Prefix> = addresses
            .unwrap_or_default()
            .iter()
            .filter_map(subnet)
            .filter(|subnet| subnet.contains_addr(peer))
            .collect();
        // Many addresses of one subnet are one subnet.
        subnets.sort_unstable();
        subnets.dedup();
        let ends = Ends {
            peer,
            local_v4,
            local_v6,
            interface: carrier.map(Link::index),
            interface_name: carrier.map(|link| link.name().to_owned()),
            subnets,
        };
        (ends, carrier.map(Link::summary))
    }

    fn holder(&self, local: IpAddr, ifindex: Option<u32>) -> Option<&Link> {
        let holders = self.holders.get(&local).map(Vec::as_slice);
        let holders = holders.unwrap_or_default();
        let index = match ifindex {
            Some(wanted) => holders.iter().find(|index| **index == wanted),
            None => holders.first(),
        };
        // The loopback interface answers to all of 127.0.0.0/8, though it lists one address.
        let index = index.or(self.loopback.as_ref().filter(|_| local.is_loopback()))?;
        self.links.get(index)
    }
}

/// What is reached without a router by this address.
fn subnet(held: &AddressFacts) -> Option<Prefix> {
    Prefix::new(held.network, held.len).ok()
}

/// What the kernel has said, in its own terms.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    links: BTreeMap<u32, LinkFacts>,
    addresses: BTreeMap<u32, Vec<AddressFacts>>,
}

impl Facts {
    pub(super) fn of(changes: Vec<Change>) -> Self {
        let mut facts = Self::default();
        for change in changes {
            facts.apply(change);
        }
        facts
    }

    /// Takes note of `change`; whether anything differs.
    pub(super) fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Link(link) => {
                let former = self.links.insert(link.index, link.clone());
                former != Some(link)
            }
            Change::LinkGone(index) => {
                let had_addresses = self.addresses.remove(&index).is_some();
                self.links.remove(&index).is_some() || had_addresses
            }
            Change::Address(address) => {
                let held = self.addresses.entry(address.index).or_default();
                match held.iter_mut().find(|held| is_same(held, &address)) {
                    Some(held) if *held == address => false,
                    Some(held) => {
                        *held = address;
                        true
                    }
                    None => {
                        held.push(address);
                        true
                    }
                }
            }
            Change::AddressGone(address) => {
                let Some(held) = self.addresses.get_mut(&address.index) else {
                    return false;
                };
                let before = held.len();
                held.retain(|held| !is_same(held, &address));
                let changed = held.len() != before;
                if held.is_empty() {
                    self.addresses.remove(&address.index);
                }
                changed
            }
        }
    }
}

/// Whether both are one address: an interface may hold one twice, with two prefix lengths.
fn is_same(a: &AddressFacts, b: &AddressFacts) -> bool {
    (a.local, a.network, a.len) == (b.local, b.network, b.len)
}

#[cfg(test)]
mod tests;
