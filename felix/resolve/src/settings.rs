//! BGPConfiguration `default` with `node.<name>` laid over it, and the defaults beneath both.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use caracal_bgp_core::types::{Asn, RouterId};
use caracal_bgp_speaker::config::{BGP_PORT, GracefulRestartConfig};
use caracal_crds::{BgpConfiguration, DurationString, NamedCommunity, PrefixAdvertisement};

/// The configuration of all speakers.
const DEFAULT: &str = "default";
/// What precedes a node's name in the name of its own configuration.
const NODE_PREFIX: &str = "node.";
/// Calico's default AS, which clusters that come from there have in their routers.
const DEFAULT_ASN: Asn = Asn(64512);
const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(240);
const DEFAULT_CONNECT_RETRY: Duration = Duration::from_secs(1);
const DEFAULT_STALE_TIME: Duration = Duration::from_secs(300);
const DEFAULT_MAXIMUM_PATHS: u16 = 16;

/// One node's settings, every one decided.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) asn: Asn,
    /// `None` where the node's address has to stand in.
    pub(crate) router_id: Option<RouterId>,
    /// Whether the router ID comes from `default`, which every node shares.
    pub(crate) shared_router_id: bool,
    pub(crate) listen_port: u16,
    pub(crate) mesh: bool,
    pub(crate) transit: bool,
    pub(crate) cluster_id: Option<RouterId>,
    pub(crate) maximum_paths: usize,
    pub(crate) multipath_relax: bool,
    pub(crate) hold_time: Duration,
    pub(crate) connect_retry: Duration,
    pub(crate) graceful_restart: GracefulRestartConfig,
    pub(crate) communities: Vec<NamedCommunity>,
    pub(crate) prefix_advertisements: Vec<PrefixAdvertisement>,
    /// The object that `communities` and `prefix_advertisements` come from.
    pub(crate) advertised_by: String,
}

impl Settings {
    /// The settings of the speaker called `node`.
    pub(crate) fn of(node: &str, configurations: &BTreeMap<String, BgpConfiguration>) -> Self {
        let own_name = format!("{NODE_PREFIX}{node}");
        let shared = configurations.get(DEFAULT).map(|object| &object.spec);
        let own = configurations.get(&own_name).map(|object| &object.spec);
        // The first that says anything wins: the node's own before the one for all.
        let layers = || [own, shared].into_iter().flatten();
        let restart = || layers().filter_map(|spec| spec.graceful_restart.as_ref());
        let identifier = |address: Ipv4Addr| RouterId::from(address);
        let plain = |duration: DurationString| duration.0;
        let fallback = GracefulRestartConfig::default();
        let own_advertises = own.is_some_and(|spec| !spec.prefix_advertisements.is_empty());
        Self {
            asn: layers()
                .find_map(|spec| spec.as_number)
                .map_or(DEFAULT_ASN, Asn),
            router_id: layers().find_map(|spec| spec.router_id).map(identifier),
            shared_router_id: own.is_none_or(|spec| spec.router_id.is_none()),
            listen_port: layers()
                .find_map(|spec| spec.listen_port)
                .unwrap_or(BGP_PORT),
            mesh: layers()
                .find_map(|spec| spec.node_to_node_mesh_enabled)
                .unwrap_or(true),
            transit: layers().find_map(|spec| spec.transit).unwrap_or(false),
            cluster_id: layers().find_map(|spec| spec.cluster_id).map(identifier),
            maximum_paths: layers()
                .find_map(|spec| spec.maximum_paths)
                .unwrap_or(DEFAULT_MAXIMUM_PATHS)
                .max(1)
                .into(),
            multipath_relax: layers()
                .find_map(|spec| spec.multipath_relax)
                .unwrap_or(true),
            hold_time: layers()
                .find_map(|spec| spec.hold_time)
                .map_or(DEFAULT_HOLD_TIME, plain),
            connect_retry: layers()
                .find_map(|spec| spec.connect_retry_time)
                .map_or(DEFAULT_CONNECT_RETRY, plain),
            graceful_restart: GracefulRestartConfig {
                enabled: restart()
                    .find_map(|restart| restart.enabled)
                    .unwrap_or(true),
                restart_time: restart()
                    .find_map(|restart| restart.restart_time)
                    .map_or(fallback.restart_time, plain),
                stale_time: restart()
                    .find_map(|restart| restart.stale_time)
                    .map_or(DEFAULT_STALE_TIME, plain),
                selection_deferral: fallback.selection_deferral,
            },
            communities: layers()
                .map(|spec| &spec.communities)
                .find(|list| !list.is_empty())
                .cloned()
                .unwrap_or_default(),
            prefix_advertisements: layers()
                .map(|spec| &spec.prefix_advertisements)
                .find(|list| !list.is_empty())
                .cloned()
                .unwrap_or_default(),
            advertised_by: if own_advertises {
                own_name
            } else {
                DEFAULT.to_owned()
            },
        }
    }

    /// The identifier: as configured, else the node's IPv4 address, else a number drawn from its
    /// name, since an identifier need not be an address (RFC 6286 §2.1).
    pub(crate) fn router_id(&self, node: &str, addresses: &[IpAddr]) -> RouterId {
        let from_address = || {
            addresses.iter().find_map(|address| match address {
                IpAddr::V4(v4) => Some(RouterId::from(*v4)),
                IpAddr::V6(_) => None,
            })
        };
        self.router_id
            .or_else(from_address)
            .unwrap_or_else(|| hashed(node))
    }
}

/// FNV-1a, which is stable across builds and machines; never zero.
fn hashed(name: &str) -> RouterId {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, octet| {
        (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193)
    });
    RouterId(hash.max(1))
}
