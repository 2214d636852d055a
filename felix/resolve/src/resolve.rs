//! The whole of what one speaker has to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_speaker::config::{ListenConfig, SpeakerConfig};
use caracal_crds::manifest::Manifests;
use caracal_crds::{BgpConfiguration, BgpPeer, IpBlock, IpPool, reasons};
use k8s_openapi::api::core::v1::Node;

use crate::finding::{Finding, Findings, ObjectRef};
use crate::settings::Settings;
use crate::{mesh, origin, peers};

/// All that decides what one speaker does; objects by name.
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// The node whose speaker it is. There need not be a Node object of that name.
    pub node_name: &'a str,
    /// Nodes of the cluster.
    pub nodes: &'a BTreeMap<String, Node>,
    /// BGPConfigurations; those of other nodes tell their AS numbers.
    pub configurations: &'a BTreeMap<String, BgpConfiguration>,
    /// BGPPeers.
    pub peers: &'a BTreeMap<String, BgpPeer>,
    /// IPPools.
    pub pools: &'a BTreeMap<String, IpPool>,
    /// IPBlocks of all nodes, or at least of this one.
    pub blocks: &'a BTreeMap<String, IpBlock>,
    /// Names of blocks that this node has taken up, whether or not their status says so yet: the
    /// API server may be away.
    pub taken_up: &'a BTreeSet<String>,
    /// Addresses found on the loopback interface of the node.
    pub loopbacks: &'a BTreeSet<IpAddr>,
    /// See [`SpeakerConfig::restarting`].
    pub restarting: bool,
}

impl<'a> Inputs<'a> {
    /// A speaker that runs from files alone: no block was taken up, nothing is known of the
    /// loopback, and every start is a cold one.
    pub fn standalone(node_name: &'a str, manifests: &'a Manifests) -> Self {
        static NO_NAMES: BTreeSet<String> = BTreeSet::new();
        static NO_ADDRESSES: BTreeSet<IpAddr> = BTreeSet::new();
        Self {
            node_name,
            nodes: &manifests.nodes,
            configurations: &manifests.bgp_configurations,
            peers: &manifests.bgp_peers,
            pools: &manifests.ip_pools,
            blocks: &manifests.ip_blocks,
            taken_up: &NO_NAMES,
            loopbacks: &NO_ADDRESSES,
            restarting: false,
        }
    }

    pub(crate) fn node(&self) -> Option<&'a Node> {
        self.nodes.get(self.node_name)
    }
}

/// What the resources mean for one speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the speaker has to do.
    pub config: SpeakerConfig,
    /// What of the resources is not done, by object.
    pub findings: Vec<Finding>,
    /// Source address of routes learnt by BGP.
    pub preferred_source: PreferredSource,
    /// Prefixes of the blocks that this node announces or is about to, ascending: each needs a
    /// blackhole route, so that packets to unused addresses do not loop.
    pub own_blocks: Vec<Prefix>,
}

/// The node's loopback addresses, one per family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreferredSource {
    /// First IPv4 InternalIP that sits on the loopback.
    pub v4: Option<Ipv4Addr>,
    /// First IPv6 InternalIP that sits on the loopback.
    pub v6: Option<Ipv6Addr>,
}

/// Resolves the resources. The same inputs give the same result; nothing is read or written.
pub fn resolve(inputs: &Inputs<'_>) -> Resolved {
    let mut findings = Findings::default();
    let settings = Settings::of(inputs.node_name, inputs.configurations);
    let addresses = inputs.node().map(internal_ips).unwrap_or_default();
    let loopbacks: Vec<IpAddr> = addresses
        .iter()
        .copied()
        .filter(|address| inputs.loopbacks.contains(address))
        .collect();
    if settings.router_id.is_some() && settings.shared_router_id && inputs.nodes.len() > 1 {
        let object = ObjectRef::new("BGPConfiguration", "default");
        let message = "every node has this router ID; set it in node.<name> instead";
        findings.add(&object, "spec.routerID", reasons::INVALID_SPEC, message);
    }
    let router_id = settings.router_id(inputs.node_name, &addresses);
    let own = origin::own_blocks(inputs, &mut findings);
    let own_blocks = own.prefixes();

    let mut config = SpeakerConfig::new(settings.asn, router_id);
    config.cluster_id = settings.cluster_id;
    config.listen = Some(ListenConfig {
        addrs: Vec::new(),
        port: settings.listen_port,
    });
    config.transit = settings.transit;
    config.maximum_paths = settings.maximum_paths;
    config.multipath_relax = settings.multipath_relax;
    config.graceful_restart = settings.graceful_restart.clone();
    config.restarting = inputs.restarting;
    config.originate = origin::originate(&settings, &own, &loopbacks, &mut findings);
    // RIB order of checks: what is protected is refused from every peer, whatever its policy says.
    let hosts = loopbacks.iter().copied().map(Prefix::host);
    config.protected = own_blocks.iter().copied().chain(hosts).collect();
    config.protected.sort_unstable();
    config.peers = peers::configured(inputs, &settings, &addresses, &mut findings);
    if settings.mesh {
        mesh::add(inputs, &settings, &addresses, &mut config.peers);
    }
    if config.peers.is_empty() {
        let object = ObjectRef::new("Node", inputs.node_name);
        let message = "no BGPPeer selects this node and the mesh gives it none";
        findings.add(&object, "", reasons::NO_PEERS, message);
    }
    Resolved {
        config,
        findings: findings.into_sorted(),
        preferred_source: preferred_source(&loopbacks),
        own_blocks,
    }
}

/// The node's addresses of type InternalIP, in the order of its status; others are no addresses of
/// the underlay.
pub(crate) fn internal_ips(node: &Node) -> Vec<IpAddr> {
    let status = node.status.as_ref();
    let addresses = status.and_then(|status| status.addresses.as_ref());
    addresses
        .into_iter()
        .flatten()
        .filter(|address| address.type_ == "InternalIP")
        .filter_map(|address| address.address.parse().ok())
        .collect()
}

fn preferred_source(loopbacks: &[IpAddr]) -> PreferredSource {
    let first = |family| {
        loopbacks
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family)
    };
    PreferredSource {
        v4: match first(Family::Ipv4Unicast) {
            Some(IpAddr::V4(address)) => Some(address),
            _ => None,
        },
        v6: match first(Family::Ipv6Unicast) {
            Some(IpAddr::V6(address)) => Some(address),
            _ => None,
        },
    }
}
