//! The physical world of a lab: namespaces for the boxes, and cables whose middle belongs to the lab.
//!
//! ```text
//!   node a            wire namespace              node b
//!   eth1 <--veth--> w0u =[ bridge w0 ]= w0d <--veth--> eth7
//! ```
//!
//! The middle is where a cable is cut, counted and captured without touching either box: with `w0u` down
//! the box sees the loss of its carrier, as with a real cable. Beside the cables there is the management
//! network: a bridge whose ports cannot reach each other, with the API server on it.

use std::fs::File;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context, anyhow};
use caracal_lab_topology::{Plan, PlannedEnd, PlannedLink, Role};
use futures::TryStreamExt;
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoPortData, InfoPortKind, InfoVeth, LinkAttribute, LinkInfo,
    LinkMessage,
};
use rtnetlink::{Handle, LinkBridge, LinkUnspec, LinkVeth};

use crate::namespace::Namespace;
use crate::state::StateDir;

/// The API server's address on the management network.
pub const MANAGEMENT_V4: Ipv4Addr = Ipv4Addr::new(172, 31, 255, 1);

/// Octets of the management network's prefix.
const MANAGEMENT_LENGTH: u8 = 24;

/// Interfaces in the wire namespace are numbered from here. A veth whose peer has the same number looks
/// to the kernel like a device without a lower one, and the loss of its carrier is then reported up to a
/// second late (`linkwatch_urgent_event`); boxes number their interfaces from 1.
const WIRE_INDEX: u32 = 10_000;

/// A built topology.
#[derive(Debug)]
pub struct Fabric {
    plan: Plan,
    wire: Namespace,
    management: Namespace,
}

/// Packets and octets that a box has sent into its end of a cable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EndCounters {
    /// Packets.
    pub packets: u64,
    /// Octets.
    pub octets: u64,
}

impl Fabric {
    /// Builds every namespace and cable of a plan.
    ///
    /// # Errors
    /// The kernel refuses a namespace, link, address or setting; the message names it.
    pub fn build(plan: &Plan, state: &StateDir) -> anyhow::Result<Self> {
        let wire = Namespace::create(&state.namespace("wire"))?;
        let management = Namespace::create(&state.namespace("management"))?;
        set_sysctls(&wire, &[("net.ipv6.conf.default.disable_ipv6", "1")])?;
        set_sysctls(
            &management,
            &[
                ("net.ipv6.conf.default.disable_ipv6", "1"),
                ("net.ipv4.ip_forward", "0"),
            ],
        )?;
        let fabric = Self {
            plan: plan.clone(),
            wire,
            management,
        };
        for node in plan.nodes.values() {
            let namespace = Namespace::create(&state.namespace(&node.name))?;
            set_sysctls(&namespace, LINK_SYSCTLS)?;
            if node.role == Role::Node {
                set_sysctls(&namespace, HOSTILE_SYSCTLS)?;
            }
        }
        for link in &plan.links {
            fabric
                .build_link(link, state)
                .with_context(|| format!("cannot build link {}", describe(link)))?;
        }
        fabric
            .build_management(state)
            .context("cannot build the management network")?;
        for node in plan.nodes.values() {
            fabric
                .address_loopback(&node.name, state)
                .with_context(|| format!("cannot address the loopback of {}", node.name))?;
        }
        Ok(fabric)
    }

    /// The namespace in which all cables have their middle.
    pub fn wire(&self) -> &Namespace {
        &self.wire
    }

    /// The namespace of the management network.
    pub fn management(&self) -> &Namespace {
        &self.management
    }

    /// Takes the carrier from every cable of a box, or gives it back, as fast as the kernel can.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_carrier_of(&self, node: &str, on: bool) -> anyhow::Result<()> {
        let links: Vec<&PlannedLink> = self.plan.ends(node).map(|(link, _, _)| link).collect();
        self.set_carriers(&links, on)
    }

    /// Takes the carrier from one cable, or gives it back.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_carrier(&self, link: &PlannedLink, on: bool) -> anyhow::Result<()> {
        self.set_carriers(&[link], on)
    }

    /// Cuts every node off the API server, or lets them back: their connections hang, as behind a switch
    /// that has failed.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_management_reachable(&self, on: bool) -> anyhow::Result<()> {
        self.management.rtnl(|handle| async move {
            let builder = LinkUnspec::new_with_name("br0");
            let message = if on { builder.up() } else { builder.down() }.build();
            handle
                .link()
                .set(message)
                .execute()
                .await
                .context("cannot switch the management bridge")
        })
    }

    /// What a box has sent into a cable so far, as counted in the middle.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub fn sent_into(&self, link: &PlannedLink, node: &str) -> anyhow::Result<EndCounters> {
        let name = port_name(link, link.upper.node == node);
        self.wire.rtnl(|handle| async move {
            let message = get_link(&handle, &name).await?;
            let stats = message
                .attributes
                .iter()
                .find_map(|attribute| match attribute {
                    LinkAttribute::Stats64(stats) => Some(*stats),
                    _ => None,
                });
            let stats = stats.ok_or_else(|| anyhow!("the kernel gives no counters of {name}"))?;
            Ok(EndCounters {
                packets: stats.rx_packets,
                octets: stats.rx_bytes,
            })
        })
    }

    fn set_carriers(&self, links: &[&PlannedLink], on: bool) -> anyhow::Result<()> {
        let names: Vec<String> = links
            .iter()
            .flat_map(|link| [port_name(link, true), port_name(link, false)])
            .collect();
        self.wire.rtnl(|handle| async move {
            let changes = names.iter().map(|name| {
                let builder = LinkUnspec::new_with_name(name);
                let message = if on { builder.up() } else { builder.down() }.build();
                handle.link().set(message).execute()
            });
            futures::future::try_join_all(changes)
                .await
                .context("cannot switch a cable")?;
            Ok(())
        })
    }

    fn build_link(&self, link: &PlannedLink, state: &StateDir) -> anyhow::Result<()> {
        let bridge = format!("w{}", link.index);
        let first = WIRE_INDEX + link.index as u32 * 3;
        self.wire.rtnl(|handle| async move {
            // Snooping off: a bridge that has not seen a querier would else drop neighbour discovery.
            let message = LinkBridge::new(&bridge)
                .mcast_snooping(false)
                .forward_delay(0)
                .index(first)
                .mtu(link.mtu)
                .up()
                .build();
            handle.link().add(message).execute().await?;
            for (offset, upper) in [(1, true), (2, false)] {
                let end = if upper { &link.upper } else { &link.lower };
                let target = File::open(state.namespace(&end.node))?;
                let message = veth(
                    &port_name(link, upper),
                    first + offset,
                    &end.interface,
                    &target,
                    link.mtu,
                    Some(first),
                );
                handle.link().add(message).execute().await?;
            }
            Ok(())
        })?;
        for end in [&link.upper, &link.lower] {
            address_end(&Namespace::at(&state.namespace(&end.node)), end)?;
        }
        Ok(())
    }

    fn build_management(&self, state: &StateDir) -> anyhow::Result<()> {
        let nodes: Vec<&str> = self
            .plan
            .with_role(Role::Node)
            .map(|n| n.name.as_str())
            .collect();
        let (first, nodes) = (WIRE_INDEX, &nodes);
        self.management.rtnl(|handle| async move {
            let bridge = LinkBridge::new("br0")
                .mcast_snooping(false)
                .index(first)
                .up()
                .build();
            handle.link().add(bridge).execute().await?;
            handle
                .address()
                .add(first, MANAGEMENT_V4.into(), MANAGEMENT_LENGTH)
                .execute()
                .await?;
            handle
                .link()
                .set(LinkUnspec::new_with_name("lo").up().build())
                .execute()
                .await?;
            for (number, node) in nodes.iter().enumerate() {
                let target = File::open(state.namespace(node))?;
                let port = format!("m{number}");
                let index = first + 1 + number as u32;
                let message = veth(&port, index, "eth0", &target, 1500, Some(first));
                handle.link().add(message).execute().await?;
                // An isolated port reaches the bridge itself and no other port.
                let isolate = LinkUnspec::new_with_name(&port)
                    .set_port_kind(InfoPortKind::Bridge)
                    .set_port_data(InfoPortData::BridgePort(vec![InfoBridgePort::Isolated(
                        true,
                    )]))
                    .build();
                handle.link().set(isolate).execute().await?;
            }
            Ok(())
        })?;
        for (number, node) in nodes.iter().enumerate() {
            let address = management_address(number);
            Namespace::at(&state.namespace(node)).rtnl(|handle| async move {
                let index = get_link(&handle, "eth0").await?.header.index;
                handle
                    .address()
                    .add(index, address.into(), MANAGEMENT_LENGTH)
                    .execute()
                    .await?;
                handle
                    .link()
                    .set(LinkUnspec::new_with_index(index).up().build())
                    .execute()
                    .await?;
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Gives a box its loopback addresses. A node's loopback stays down: to raise it is its agent's duty.
    fn address_loopback(&self, name: &str, state: &StateDir) -> anyhow::Result<()> {
        let node = &self.plan.nodes[name];
        let gateway = self
            .plan
            .ends(name)
            .next()
            .map(|(_, _, far)| (far.v4, far.v6));
        Namespace::at(&state.namespace(name)).rtnl(|handle| async move {
            let lo = get_link(&handle, "lo").await?.header.index;
            if node.role != Role::Outside {
                let v4: IpAddr = node.loopback_v4.into();
                handle.address().add(lo, v4, 32).execute().await?;
                let v6: IpAddr = node.loopback_v6.into();
                handle.address().add(lo, v6, 128).execute().await?;
            }
            if node.role != Role::Node {
                handle
                    .link()
                    .set(LinkUnspec::new_with_index(lo).up().build())
                    .execute()
                    .await?;
            }
            if let (Role::Outside, Some((v4, v6))) = (node.role, gateway) {
                add_default_routes(&handle, v4, v6).await?;
            }
            Ok(())
        })
    }
}

/// Address of the n-th node on the management network.
pub fn management_address(number: usize) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(MANAGEMENT_V4) + 1 + number as u32)
}

/// Whether an address belongs to the management network, or names nobody in particular.
pub fn is_management(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.octets()[..3] == MANAGEMENT_V4.octets()[..3]
                || v4.is_loopback()
                || v4.is_unspecified()
                || v4.is_multicast()
        }
        IpAddr::V6(v6) => {
            v6.is_unicast_link_local()
                || v6.is_multicast()
                || v6.is_unspecified()
                || v6.is_loopback()
        }
    }
}

/// Addresses are usable at once in every box.
const LINK_SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv6.conf.all.disable_ipv6", "0"),
    ("net.ipv6.conf.default.disable_ipv6", "0"),
    ("net.ipv6.conf.all.accept_dad", "0"),
    ("net.ipv6.conf.default.accept_dad", "0"),
    ("net.ipv6.conf.default.dad_transmits", "0"),
    ("net.ipv6.conf.default.accept_ra", "0"),
];

/// A cluster node starts with every setting wrong, so that one which its agent forgets is noticed.
const HOSTILE_SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "0"),
    ("net.ipv6.conf.all.forwarding", "0"),
    ("net.ipv4.conf.all.rp_filter", "1"),
    ("net.ipv4.conf.default.rp_filter", "1"),
    ("net.ipv4.fib_multipath_hash_policy", "0"),
    ("net.ipv6.fib_multipath_hash_policy", "0"),
];

/// Writes settings inside a namespace.
fn set_sysctls(namespace: &Namespace, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    namespace.run(|| {
        for (key, value) in settings {
            let path = Path::new("/proc/sys").join(key.replace('.', "/"));
            std::fs::write(&path, value).with_context(|| format!("cannot set {key} to {value}"))?;
        }
        Ok(())
    })
}

fn address_end(namespace: &Namespace, end: &PlannedEnd) -> anyhow::Result<()> {
    namespace.rtnl(|handle| async move {
        let index = get_link(&handle, &end.interface).await?.header.index;
        handle
            .address()
            .add(index, end.v4.into(), 31)
            .execute()
            .await?;
        handle
            .address()
            .add(index, end.v6.into(), 127)
            .execute()
            .await?;
        handle
            .link()
            .set(LinkUnspec::new_with_index(index).up().build())
            .execute()
            .await?;
        Ok(())
    })
}

async fn add_default_routes(handle: &Handle, v4: Ipv4Addr, v6: Ipv6Addr) -> anyhow::Result<()> {
    use rtnetlink::RouteMessageBuilder;
    let route = RouteMessageBuilder::<Ipv4Addr>::new().gateway(v4).build();
    handle.route().add(route).execute().await?;
    let route = RouteMessageBuilder::<Ipv6Addr>::new().gateway(v6).build();
    handle.route().add(route).execute().await?;
    Ok(())
}

/// A veth made in place: one end here, the other in the box's namespace under its final name.
fn veth(
    name: &str,
    index: u32,
    peer: &str,
    peer_namespace: &File,
    mtu: u32,
    controller: Option<u32>,
) -> LinkMessage {
    let mut builder = LinkVeth::new(name, peer).index(index).mtu(mtu).up();
    if let Some(controller) = controller {
        builder = builder.controller(controller);
    }
    let mut message = builder.build();
    for attribute in &mut message.attributes {
        let LinkAttribute::LinkInfo(infos) = attribute else {
            continue;
        };
        for info in infos {
            if let LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(peer))) = info {
                peer.attributes
                    .push(LinkAttribute::NetNsFd(peer_namespace.as_raw_fd()));
                peer.attributes.push(LinkAttribute::Mtu(mtu));
            }
        }
    }
    message
}

async fn get_link(handle: &Handle, name: &str) -> anyhow::Result<LinkMessage> {
    let mut answers = handle.link().get().match_name(name.to_owned()).execute();
    answers
        .try_next()
        .await
        .with_context(|| format!("cannot read link {name}"))?
        .ok_or_else(|| anyhow!("there is no link {name}"))
}

/// Name of a cable's port in the wire namespace.
fn port_name(link: &PlannedLink, upper: bool) -> String {
    format!("w{}{}", link.index, if upper { 'u' } else { 'd' })
}

fn describe(link: &PlannedLink) -> String {
    format!(
        "{}:{} to {}:{}",
        link.upper.node, link.upper.interface, link.lower.node, link.lower.interface
    )
}
