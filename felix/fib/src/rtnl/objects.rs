//! Builders and readers for links, addresses, neighbours and routes.
//!
//! Owns the translation between this crate's values and messages. Does not own sockets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, BorrowedFd};

use caracal_bgp_core::types::{Family, Prefix};
use netlink_packet_core::DefaultNla;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, Prop, State,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteNextHop, RouteProtocol,
    RouteScope, RouteType, RouteVia,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::message::Message;

/// The main routing table.
pub(crate) const TABLE_MAIN: u8 = libc::RT_TABLE_MAIN;

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// A network interface as the kernel describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Interface index, unique in its namespace.
    pub index: u32,
    /// Name, at most 15 octets.
    pub name: String,
    /// Further names by which the link can be found.
    pub alternative_names: Vec<String>,
    /// Free text that an operator sees.
    pub alias: Option<String>,
    /// Ethernet address, where the link has one.
    pub mac: Option<MacAddress>,
    /// Largest packet, in octets.
    pub mtu: u32,
    /// Set up by the administrator.
    pub up: bool,
    /// Something is connected: `IFF_LOWER_UP`.
    pub carrier: bool,
    /// Ready to send: the kernel has acted upon the carrier. Never true for links that keep no such
    /// state (lo), nor for a new link whose first carrier is still to be acted upon: both are
    /// reported as unknown.
    pub operational: bool,
    /// How often the carrier came or went; tells a flap that is over from no flap.
    pub carrier_changes: u32,
    /// Interface index of the other end of a veth, in its own namespace.
    pub peer_index: Option<u32>,
    /// Link group.
    pub group: u32,
}

impl Link {
    /// Reads a notification or an answer.
    pub(crate) fn from_message(message: LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::LowerUp),
            ..Self::default()
        };
        for attribute in message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name = name,
                LinkAttribute::IfAlias(alias) => link.alias = Some(alias),
                LinkAttribute::Mtu(mtu) => link.mtu = mtu,
                LinkAttribute::Address(mac) => link.mac = mac.try_into().ok(),
                LinkAttribute::CarrierChanges(count) => link.carrier_changes = count,
                LinkAttribute::Link(index) => link.peer_index = Some(index),
                LinkAttribute::Group(group) => link.group = group,
                LinkAttribute::OperState(state) => link.operational = state == State::Up,
                LinkAttribute::PropList(list) => {
                    for property in list {
                        if let Prop::AltIfName(name) = property {
                            link.alternative_names.push(name);
                        }
                    }
                }
                _ => {}
            }
        }
        link
    }

    /// Whether packets can leave by the link.
    pub fn is_usable(&self) -> bool {
        self.up && self.carrier
    }
}

/// An address on an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceAddress {
    /// Interface index.
    pub interface: u32,
    /// The address.
    pub address: IpAddr,
    /// Width of the subnet that the address puts on the link, in bits.
    pub prefix_len: u8,
    /// The far end of a point-to-point address; the address itself elsewhere.
    pub peer: IpAddr,
}

impl InterfaceAddress {
    /// Reads a notification or an answer; `None` when it names no address.
    pub(crate) fn from_message(message: &AddressMessage) -> Option<Self> {
        let (mut address, mut local) = (None, None);
        for attribute in &message.attributes {
            match attribute {
                AddressAttribute::Address(value) => address = Some(*value),
                AddressAttribute::Local(value) => local = Some(*value),
                _ => {}
            }
        }
        Some(Self {
            interface: message.header.index,
            address: local.or(address)?,
            prefix_len: message.header.prefix_len,
            peer: address.or(local)?,
        })
    }
}

/// What a link request names the link by.
#[derive(Clone, Copy)]
pub(crate) enum LinkKey<'a> {
    Index(u32),
    Name(&'a str),
    /// An alternative name, or a name.
    AnyName(&'a str),
}

fn keyed(key: LinkKey<'_>) -> LinkMessage {
    const IFLA_ALT_IFNAME: u16 = 53;
    let mut message = LinkMessage::default();
    match key {
        LinkKey::Index(index) => message.header.index = index,
        LinkKey::Name(name) => message
            .attributes
            .push(LinkAttribute::IfName(name.to_owned())),
        LinkKey::AnyName(name) => {
            let mut octets = name.as_bytes().to_vec();
            octets.push(0);
            let attribute = DefaultNla::new(IFLA_ALT_IFNAME, octets);
            message.attributes.push(LinkAttribute::Other(attribute));
        }
    }
    message
}

pub(crate) fn get_link(key: LinkKey<'_>) -> Message {
    RouteNetlinkMessage::GetLink(keyed(key)).into()
}

pub(crate) fn list_links() -> Message {
    RouteNetlinkMessage::GetLink(LinkMessage::default()).into()
}

pub(crate) fn delete_link(key: LinkKey<'_>) -> Message {
    RouteNetlinkMessage::DelLink(keyed(key)).into()
}

pub(crate) fn delete_group(group: u32) -> Message {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::Group(group));
    RouteNetlinkMessage::DelLink(message).into()
}

/// Sets a link up or down and changes `attributes`, in one step.
pub(crate) fn set_link(
    key: LinkKey<'_>,
    up: Option<bool>,
    attributes: Vec<LinkAttribute>,
) -> Message {
    let mut message = keyed(key);
    if let Some(up) = up {
        message.header.change_mask = LinkFlags::Up;
        message.header.flags.set(LinkFlags::Up, up);
    }
    message.attributes.extend(attributes);
    RouteNetlinkMessage::SetLink(message).into()
}

pub(crate) fn add_alternative_name(key: LinkKey<'_>, name: &str) -> Message {
    let mut message = keyed(key);
    let property = Prop::AltIfName(name.to_owned());
    message
        .attributes
        .push(LinkAttribute::PropList(vec![property]));
    RouteNetlinkMessage::NewLinkProp(message).into()
}

/// One end of a veth pair that is to be.
pub(crate) struct VethEnd<'a> {
    pub(crate) name: &'a str,
    pub(crate) mac: Option<MacAddress>,
    pub(crate) mtu: Option<u32>,
    /// Where the end goes; the requester's namespace when `None`.
    pub(crate) netns: Option<BorrowedFd<'a>>,
}

impl VethEnd<'_> {
    fn message(&self) -> LinkMessage {
        let mut message = keyed(LinkKey::Name(self.name));
        let attributes = &mut message.attributes;
        attributes.extend(self.mac.map(|mac| LinkAttribute::Address(mac.to_vec())));
        attributes.extend(self.mtu.map(LinkAttribute::Mtu));
        attributes.extend(
            self.netns
                .map(|netns| LinkAttribute::NetNsFd(netns.as_raw_fd())),
        );
        message
    }
}

pub(crate) fn create_veth(near: &VethEnd<'_>, far: &VethEnd<'_>) -> Message {
    let mut message = near.message();
    message.attributes.push(LinkAttribute::LinkInfo(vec![
        LinkInfo::Kind(InfoKind::Veth),
        LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(far.message()))),
    ]));
    RouteNetlinkMessage::NewLink(message).into()
}

pub(crate) fn list_addresses() -> Message {
    RouteNetlinkMessage::GetAddress(AddressMessage::default()).into()
}

fn address_message(interface: u32, address: IpAddr, prefix_len: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(address);
    message.header.index = interface;
    message.header.prefix_len = prefix_len;
    message.header.scope = match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => AddressScope::Link,
        _ => AddressScope::Universe,
    };
    message.attributes.push(AddressAttribute::Local(address));
    message.attributes.push(AddressAttribute::Address(address));
    message
}

/// An address that is usable at once: without duplicate detection, which takes a second.
pub(crate) fn add_address(interface: u32, address: IpAddr, prefix_len: u8) -> Message {
    let mut message = address_message(interface, address, prefix_len);
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad;
        let flags = AddressAttribute::Flags(AddressFlags::Nodad);
        message.attributes.push(flags);
    }
    RouteNetlinkMessage::NewAddress(message).into()
}

pub(crate) fn delete_address(interface: u32, address: IpAddr, prefix_len: u8) -> Message {
    RouteNetlinkMessage::DelAddress(address_message(interface, address, prefix_len)).into()
}

/// A neighbour entry that never expires and is never asked for.
pub(crate) fn permanent_neighbour(interface: u32, address: IpAddr, mac: MacAddress) -> Message {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(address);
    message.header.ifindex = interface;
    message.header.state = NeighbourState::Permanent;
    message.header.kind = RouteType::Unicast;
    let destination = match address {
        IpAddr::V4(address) => NeighbourAddress::Inet(address),
        IpAddr::V6(address) => NeighbourAddress::Inet6(address),
    };
    message
        .attributes
        .push(NeighbourAttribute::Destination(destination));
    message
        .attributes
        .push(NeighbourAttribute::LinkLayerAddress(mac.to_vec()));
    RouteNetlinkMessage::NewNeighbour(message).into()
}

/// A route of the main table, as it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RouteSpec {
    pub(crate) prefix: Prefix,
    pub(crate) protocol: u8,
    pub(crate) metric: u32,
    pub(crate) target: RouteTarget,
    pub(crate) source: Option<IpAddr>,
}

/// Where a route leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RouteTarget {
    /// A next-hop object.
    Object(u32),
    /// Neighbours on the link itself.
    Link(u32),
    /// A gateway on the link, taken on trust.
    Gateway { gateway: IpAddr, interface: u32 },
    /// A gateway that the kernel finds the link of.
    Via(IpAddr),
    /// Packets are dropped silently.
    Blackhole,
    /// Left open: a request to delete matches any.
    Any,
}

impl RouteSpec {
    fn message(&self) -> RouteMessage {
        let mut message = RouteMessage::default();
        let header = &mut message.header;
        header.address_family = family(self.prefix.family());
        header.destination_prefix_length = self.prefix.len();
        header.table = TABLE_MAIN;
        header.protocol = RouteProtocol::from(self.protocol);
        header.kind = match self.target {
            RouteTarget::Blackhole => RouteType::BlackHole,
            RouteTarget::Any => RouteType::Unspec,
            _ => RouteType::Unicast,
        };
        header.scope = match self.target {
            RouteTarget::Link(_) if self.prefix.family() == Family::Ipv4Unicast => RouteScope::Link,
            RouteTarget::Any => RouteScope::NoWhere,
            _ => RouteScope::Universe,
        };
        let attributes = &mut message.attributes;
        if self.prefix.len() > 0 {
            attributes.push(RouteAttribute::Destination(self.prefix.addr().into()));
        }
        if self.metric > 0 {
            attributes.push(RouteAttribute::Priority(self.metric));
        }
        attributes.extend(
            self.source
                .map(|source| RouteAttribute::PrefSource(source.into())),
        );
        match self.target {
            RouteTarget::Object(id) => attributes.push(RouteAttribute::NhId(id)),
            RouteTarget::Link(index) => attributes.push(RouteAttribute::Oif(index)),
            RouteTarget::Gateway { gateway, interface } => {
                attributes.push(RouteAttribute::Gateway(gateway.into()));
                attributes.push(RouteAttribute::Oif(interface));
                if gateway.is_ipv4() {
                    header.flags = RouteFlags::Onlink;
                }
            }
            RouteTarget::Via(gateway) => attributes.push(RouteAttribute::Gateway(gateway.into())),
            RouteTarget::Blackhole | RouteTarget::Any => {}
        }
        message
    }

    pub(crate) fn add(&self) -> Message {
        RouteNetlinkMessage::NewRoute(self.message()).into()
    }

    pub(crate) fn delete(&self) -> Message {
        RouteNetlinkMessage::DelRoute(self.message()).into()
    }
}

/// A route of the main table, as the kernel holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KernelRoute {
    pub(crate) prefix: Prefix,
    pub(crate) protocol: u8,
    pub(crate) metric: u32,
    pub(crate) object: Option<u32>,
    pub(crate) blackhole: bool,
    pub(crate) interface: Option<u32>,
    pub(crate) source: Option<IpAddr>,
    /// Where packets go, each of them one of these ways; none where they are dropped or refused.
    pub(crate) ways: BTreeSet<RouteWay>,
}

/// One of the ways of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RouteWay {
    /// Who forwards the packets; `None` where their destination is on the link itself.
    pub(crate) gateway: Option<IpAddr>,
    /// Interface index.
    pub(crate) interface: u32,
}

impl KernelRoute {
    /// Reads a notification or an answer; `None` for other tables and families, and for what the
    /// kernel clones from routes.
    pub(crate) fn from_message(message: &RouteMessage) -> Option<Self> {
        let header = &message.header;
        let mut address = match header.address_family {
            AddressFamily::Inet => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            AddressFamily::Inet6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            _ => return None,
        };
        let cloned = RouteFlags::Cloned;
        if header.table != TABLE_MAIN || header.flags.contains(cloned) {
            return None;
        }
        let (mut metric, mut object, mut interface, mut source) = (0, None, None, None);
        let (mut gateway, mut ways) = (None, BTreeSet::new());
        for attribute in &message.attributes {
            match attribute {
                RouteAttribute::Destination(value) => address = ip(value)?,
                RouteAttribute::Priority(value) => metric = *value,
                RouteAttribute::NhId(id) => object = Some(*id),
                RouteAttribute::Oif(index) => interface = Some(*index),
                RouteAttribute::PrefSource(value) => source = ip(value),
                RouteAttribute::MultiPath(several) => ways = several.iter().map(way).collect(),
                other => gateway = gateway.or(gateway_in(other)),
            }
        }
        if header.kind != RouteType::Unicast {
            ways.clear();
        } else if ways.is_empty() {
            ways.extend(interface.map(|interface| RouteWay { gateway, interface }));
        }
        Some(Self {
            prefix: Prefix::new(address, header.destination_prefix_length).ok()?,
            protocol: header.protocol.into(),
            metric,
            object,
            blackhole: header.kind == RouteType::BlackHole,
            interface,
            source,
            ways,
        })
    }
}

fn way(next_hop: &RouteNextHop) -> RouteWay {
    RouteWay {
        gateway: next_hop.attributes.iter().find_map(gateway_in),
        interface: next_hop.interface_index,
    }
}

/// The gateway that an attribute names, be it of the route's family or of the other (RFC 8950).
fn gateway_in(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Via(RouteVia::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

/// Asks for the main table of one family.
pub(crate) fn list_routes(of: Family) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = family(of);
    message.header.table = TABLE_MAIN;
    RouteNetlinkMessage::GetRoute(message).into()
}

/// Asks which route packets to `address` take.
pub(crate) fn match_route(address: IpAddr) -> Message {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(address);
    message.header.destination_prefix_length = Prefix::host(address).len();
    message.header.flags = RouteFlags::FibMatch;
    let destination = RouteAttribute::Destination(address.into());
    message.attributes.push(destination);
    RouteNetlinkMessage::GetRoute(message).into()
}

fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(v4) => Some((*v4).into()),
        RouteAddress::Inet6(v6) => Some((*v6).into()),
        _ => None,
    }
}

fn family(of: Family) -> AddressFamily {
    match of {
        Family::Ipv4Unicast => AddressFamily::Inet,
        Family::Ipv6Unicast => AddressFamily::Inet6,
    }
}

fn family_of(address: IpAddr) -> AddressFamily {
    family(Family::of(address))
}
