//! The whole of what one speaker has to do.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use caracal_bgp_core::policy::InterfaceGlob;
use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_speaker::config::{ListenConfig, OriginCheck, SpeakerConfig};
use caracal_bgp_speaker::net::{ao, md5};
use caracal_crds::manifest::Manifests;
use caracal_crds::{
    BgpConfiguration, BgpFilter, BgpPeer, BindMode, IpBlock, IpPool, OriginValidation,
    SecretKeyRef, reasons,
};
use k8s_openapi::api::core::v1::Node;

use crate::finding::{Finding, Findings, ObjectRef};
use crate::peers::Sessions;
use crate::policies::Policies;
use crate::secrets::Secrets;
use crate::session::Ground;
use crate::settings::{Settings, note_unused};
use crate::{blocks, filters, mesh, nodes, origin, watch};

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
    /// BGPFilters.
    pub filters: &'a BTreeMap<String, BgpFilter>,
    /// Secrets that BGPPeers and BGPConfigurations name.
    pub secrets: Secrets<'a>,
    /// What the kernel of the node can do.
    pub kernel: KernelFeatures,
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
    /// loopback, and every start is a cold one. The kernel is taken to lack nothing: who judges files
    /// does not know where they will run, and who runs them asks the kernel.
    pub fn standalone(node_name: &'a str, manifests: &'a Manifests) -> Self {
        static NO_NAMES: BTreeSet<String> = BTreeSet::new();
        static NO_ADDRESSES: BTreeSet<IpAddr> = BTreeSet::new();
        static NONE_UNREAD: BTreeMap<String, String> = BTreeMap::new();
        Self {
            node_name,
            nodes: &manifests.nodes,
            configurations: &manifests.bgp_configurations,
            peers: &manifests.bgp_peers,
            filters: &manifests.bgp_filters,
            secrets: Secrets {
                objects: &manifests.secrets,
                namespace: None,
                unread: &NONE_UNREAD,
            },
            kernel: KernelFeatures::default(),
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

/// What a kernel may lack. By default it has everything; [`KernelFeatures::probe`] asks it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFeatures {
    /// TCP-MD5 signatures (`CONFIG_TCP_MD5SIG`).
    pub tcp_md5: bool,
    /// The TCP authentication option (`CONFIG_TCP_AO`).
    pub tcp_ao: bool,
}

impl KernelFeatures {
    /// What the kernel says. What it gives no answer about it is taken to have: if not, the first
    /// session that needs it says so.
    pub fn probe() -> Self {
        let has = |what: &str, answer: std::io::Result<bool>| {
            answer.unwrap_or_else(|error| {
                tracing::warn!(what, %error, "cannot ask the kernel whether it has this");
                true
            })
        };
        Self {
            tcp_md5: has("TCP-MD5", md5::supported()),
            tcp_ao: has("TCP-AO", ao::supported()),
        }
    }
}

impl Default for KernelFeatures {
    fn default() -> Self {
        Self {
            tcp_md5: true,
            tcp_ao: true,
        }
    }
}

/// What the resources mean for one speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// What the speaker has to do.
    pub config: SpeakerConfig,
    /// What of the resources is not done, by object.
    pub findings: Vec<Finding>,
    /// Keys that this node's sessions need, whether or not they were among the inputs.
    pub secrets: BTreeSet<SecretKeyRef>,
    /// Source address of routes learnt by BGP.
    pub preferred_source: PreferredSource,
    /// Prefixes of the blocks that this node announces or is about to, ascending: each needs a
    /// blackhole route, so that packets to unused addresses do not loop.
    pub own_blocks: Vec<Prefix>,
    /// Configured prefixes that get one as well, ascending: those who send us their packets would
    /// get them back by our default route.
    pub dropped: Vec<Prefix>,
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
    let addresses = inputs.node().map(internal_ips).unwrap_or_default();
    let cordoned = inputs.node().is_some_and(is_cordoned);
    let settings = Settings::of(
        inputs.node_name,
        &addresses,
        cordoned,
        inputs.configurations,
    );
    let speakers = nodes::speakers(inputs.nodes, inputs.configurations, &mut findings);
    let reflects_for = speakers
        .get(inputs.node_name)
        .and_then(|speaker| speaker.reflects_for);
    let loopbacks: Vec<IpAddr> = addresses
        .iter()
        .copied()
        .filter(|address| inputs.loopbacks.contains(address))
        .collect();
    let shared = ObjectRef::new("BGPConfiguration", "default");
    if settings.shared_router_id && inputs.nodes.len() > 1 {
        let message = "every node has this router ID; set it in node.<name> instead";
        findings.add(&shared, "spec.routerID", reasons::INVALID_SPEC, message);
    }
    note_unused(inputs.node_name, inputs.configurations, &mut findings);
    let own = origin::own_blocks(inputs, &mut findings);
    let own_blocks = own.prefixes();

    let mut config = SpeakerConfig::new(settings.identity.asn, settings.identity.router_id);
    config.cluster_id = settings.cluster_id.or(reflects_for);
    config.listen = Some(ListenConfig {
        addrs: listen_addresses(&settings, &addresses, &mut findings),
        port: settings.identity.listen_port,
    });
    config.maximum_paths = settings.maximum_paths;
    config.multipath_relax = settings.multipath_relax;
    config.graceful_restart = settings.graceful_restart.clone();
    config.restarting = inputs.restarting;
    config.originate = origin::originate(&settings, &own, &loopbacks, &mut findings);
    // RIB order of checks: what is protected is refused from every peer, whatever its policy says.
    let hosts = loopbacks.iter().copied().map(Prefix::host);
    config.protected = own_blocks.iter().copied().chain(hosts).collect();
    config.protected.sort_unstable();
    config.ignored_interfaces = settings
        .ignored_interfaces
        .iter()
        .map(InterfaceGlob::new)
        .collect();
    config.bmp = watch::stations(&settings);
    config.mrt = settings.mrt.as_ref().map(watch::dump);

    let ground = Ground {
        settings: &settings,
        secrets: inputs.secrets,
        kernel: inputs.kernel,
        addresses: &addresses,
        reflects_for,
    };
    let policies = Policies::new(
        filters::translated(inputs.filters, &mut findings),
        mesh::pools_and_nodes(inputs),
        settings.honor_graceful_shutdown,
    );
    let mut sessions = Sessions::new(inputs, &ground, &speakers, policies);
    sessions.validates_origin = match settings.origin_validation {
        Some(choice) => choice == OriginValidation::Enabled,
        None => !inputs.nodes.is_empty(),
    };
    sessions.configured(&mut findings);
    if settings.identity.mesh {
        mesh::add(&mut sessions, &mut findings);
    }
    // One who reflects passes on what it learnt; whom RFC 4456 does not name, its policies keep
    // from hearing it.
    config.transit = settings.transit || reflects_for.is_some() || sessions.reflects();
    let secrets = sessions.secrets;
    config.peers = sessions.made;
    if config
        .peers
        .values()
        .any(|peer| peer.validate_origin != OriginCheck::Off)
    {
        config.blocks = blocks::owners(inputs.blocks, inputs.pools, &speakers);
    }
    if config.peers.is_empty() {
        let object = ObjectRef::new("Node", inputs.node_name);
        let message = "no BGPPeer selects this node and the mesh gives it none";
        findings.add(&object, "", reasons::NO_PEERS, message);
    }
    Resolved {
        config,
        findings: findings.into_sorted(),
        secrets,
        preferred_source: preferred_source(&loopbacks),
        own_blocks,
        dropped: origin::dropped(&settings),
    }
}

/// Where to listen; nowhere in particular means everywhere.
fn listen_addresses(
    settings: &Settings,
    addresses: &[IpAddr],
    findings: &mut Findings,
) -> Vec<IpAddr> {
    if settings.bind_mode == BindMode::None {
        return settings.listen_addresses.clone();
    }
    if addresses.is_empty() {
        let object = ObjectRef::new("BGPConfiguration", "default");
        let message = "the node has no InternalIP: the speaker listens on all addresses";
        findings.add(&object, "spec.bindMode", reasons::INVALID_SPEC, message);
    }
    addresses.to_vec()
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

/// Whether no more pods are to come to the node, as before it is taken out of service.
fn is_cordoned(node: &Node) -> bool {
    let spec = node.spec.as_ref();
    spec.and_then(|spec| spec.unschedulable).unwrap_or(false)
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
