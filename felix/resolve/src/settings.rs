//! BGPConfiguration `default` with `node.<name>` laid over it, and the defaults beneath both.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use caracal_bgp_core::types::{Asn, RouterId};
use caracal_bgp_speaker::config::{BGP_PORT, GracefulRestartConfig};
use caracal_crds::{
    Bfd, BgpConfiguration, BgpConfigurationSpec, BindMode, BmpStation, DurationString, MrtDump,
    NamedCommunity, OriginValidation, OriginatedPrefix, PasswordSource, PrefixAdvertisement,
    RouterIdSource, reasons,
};

use crate::finding::{Findings, ObjectRef};

/// The configuration of all speakers.
pub(crate) const DEFAULT: &str = "default";
/// What precedes a node's name in the name of its own configuration.
const NODE_PREFIX: &str = "node.";
/// Calico's default AS, which clusters that come from there have in their routers.
const DEFAULT_ASN: Asn = Asn(64512);
const DEFAULT_HOLD_TIME: Duration = Duration::from_secs(240);
const DEFAULT_CONNECT_RETRY: Duration = Duration::from_secs(1);
const DEFAULT_STALE_TIME: Duration = Duration::from_secs(300);
const DEFAULT_MAXIMUM_PATHS: u16 = 16;

/// What others have to know of a node's speaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
    pub(crate) listen_port: u16,
    pub(crate) mesh: bool,
}

/// One node's settings, every one decided.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) identity: Identity,
    /// Whether the router ID comes from `default`, which every node shares.
    pub(crate) shared_router_id: bool,
    pub(crate) bind_mode: BindMode,
    pub(crate) listen_addresses: Vec<IpAddr>,
    pub(crate) ignored_interfaces: Vec<String>,
    pub(crate) mesh_password: Option<PasswordSource>,
    pub(crate) mesh_restart_time: Option<Duration>,
    pub(crate) mesh_bfd: Option<Bfd>,
    pub(crate) transit: bool,
    pub(crate) cluster_id: Option<RouterId>,
    pub(crate) maximum_paths: usize,
    pub(crate) multipath_relax: bool,
    pub(crate) hold_time: Duration,
    pub(crate) keepalive_time: Option<Duration>,
    pub(crate) send_hold_time: Option<Duration>,
    pub(crate) connect_retry: Duration,
    /// Whether graceful restart is offered to peers that say nothing of it.
    pub(crate) offers_restart: bool,
    pub(crate) graceful_restart: GracefulRestartConfig,
    /// Why all sessions turn traffic away, if they do.
    pub(crate) drain: Option<&'static str>,
    pub(crate) honor_graceful_shutdown: bool,
    pub(crate) require_filters: bool,
    pub(crate) origin_validation: Option<OriginValidation>,
    pub(crate) bmp: Vec<BmpStation>,
    pub(crate) mrt: Option<MrtDump>,
    pub(crate) communities: Vec<NamedCommunity>,
    /// With the object that they come from.
    pub(crate) prefix_advertisements: (String, Vec<PrefixAdvertisement>),
    /// With the object that they come from.
    pub(crate) originated_prefixes: (String, Vec<OriginatedPrefix>),
}

/// The specifications that count for one node: its own, then the one for all.
struct Layers<'a>([Option<&'a BgpConfigurationSpec>; 2]);

impl<'a> Layers<'a> {
    fn of(node: &str, configurations: &'a BTreeMap<String, BgpConfiguration>) -> Self {
        let spec = |name: &str| configurations.get(name).map(|object| &object.spec);
        Self([spec(&format!("{NODE_PREFIX}{node}")), spec(DEFAULT)])
    }

    fn iter(&self) -> impl Iterator<Item = &'a BgpConfigurationSpec> {
        self.0.into_iter().flatten()
    }

    /// What the first that says anything says.
    fn first<T>(&self, field: impl Fn(&'a BgpConfigurationSpec) -> Option<T>) -> Option<T> {
        self.iter().find_map(field)
    }

    fn list<T: Clone + 'a>(
        &self,
        field: impl Fn(&'a BgpConfigurationSpec) -> &'a Vec<T>,
    ) -> Vec<T> {
        let mut lists = self.iter().map(field);
        lists
            .find(|list| !list.is_empty())
            .cloned()
            .unwrap_or_default()
    }

    fn time(
        &self,
        field: impl Fn(&'a BgpConfigurationSpec) -> Option<DurationString>,
    ) -> Option<Duration> {
        self.first(field).map(|duration| duration.0)
    }
}

impl Identity {
    /// The identity of the speaker called `node`, whose InternalIPs are `addresses`.
    pub(crate) fn of(
        node: &str,
        addresses: &[IpAddr],
        configurations: &BTreeMap<String, BgpConfiguration>,
    ) -> Self {
        Self::within(&Layers::of(node, configurations), node, addresses)
    }

    fn within(layers: &Layers<'_>, node: &str, addresses: &[IpAddr]) -> Self {
        Self {
            asn: layers.first(|spec| spec.as_number).map_or(DEFAULT_ASN, Asn),
            router_id: router_id(layers.first(|spec| spec.router_id), node, addresses),
            listen_port: layers.first(|spec| spec.listen_port).unwrap_or(BGP_PORT),
            mesh: layers
                .first(|spec| spec.node_to_node_mesh_enabled)
                .unwrap_or(true),
        }
    }
}

impl Settings {
    /// The settings of the speaker called `node`, whose InternalIPs are `addresses`, and which is
    /// `cordoned` or not.
    pub(crate) fn of(
        node: &str,
        addresses: &[IpAddr],
        cordoned: bool,
        configurations: &BTreeMap<String, BgpConfiguration>,
    ) -> Self {
        let layers = Layers::of(node, configurations);
        let [own, shared] = layers.0;
        let restart = |field: fn(&caracal_crds::GracefulRestart) -> Option<DurationString>| {
            layers.time(|spec| spec.graceful_restart.as_ref().and_then(field))
        };
        let shutdown = |field: fn(&caracal_crds::GracefulShutdown) -> Option<bool>| {
            layers.first(|spec| spec.graceful_shutdown.as_ref().and_then(field))
        };
        let fallback = GracefulRestartConfig::default();
        let object = |has: fn(&BgpConfigurationSpec) -> bool| match own.is_some_and(has) {
            true => format!("{NODE_PREFIX}{node}"),
            false => DEFAULT.to_owned(),
        };
        // One that a node has of its own shadows both notations of the one for all.
        let listen = layers
            .iter()
            .find(|spec| spec.bind_mode.is_some() || !spec.listen_addresses.is_empty());
        Self {
            identity: Identity::within(&layers, node, addresses),
            shared_router_id: own.is_none_or(|spec| spec.router_id.is_none())
                && shared
                    .is_some_and(|spec| matches!(spec.router_id, Some(RouterIdSource::Address(_)))),
            bind_mode: listen.and_then(|spec| spec.bind_mode).unwrap_or_default(),
            listen_addresses: listen
                .map(|spec| spec.listen_addresses.clone())
                .unwrap_or_default(),
            ignored_interfaces: layers.list(|spec| &spec.ignored_interfaces),
            mesh_password: shared.and_then(|spec| spec.node_mesh_password.clone()),
            mesh_restart_time: layers.time(|spec| spec.node_mesh_max_restart_time),
            mesh_bfd: layers.first(|spec| spec.node_mesh_bfd.clone()),
            transit: layers.first(|spec| spec.transit).unwrap_or(false),
            cluster_id: layers.first(|spec| spec.cluster_id).map(RouterId::from),
            maximum_paths: layers
                .first(|spec| spec.maximum_paths)
                .unwrap_or(DEFAULT_MAXIMUM_PATHS)
                .max(1)
                .into(),
            multipath_relax: layers.first(|spec| spec.multipath_relax).unwrap_or(true),
            hold_time: layers
                .time(|spec| spec.hold_time)
                .unwrap_or(DEFAULT_HOLD_TIME),
            keepalive_time: layers.time(|spec| spec.keepalive_time),
            send_hold_time: layers.time(|spec| spec.send_hold_time),
            connect_retry: layers
                .time(|spec| spec.connect_retry_time)
                .unwrap_or(DEFAULT_CONNECT_RETRY),
            offers_restart: layers
                .first(|spec| spec.graceful_restart.as_ref()?.enabled)
                .unwrap_or(true),
            graceful_restart: GracefulRestartConfig {
                restart_time: restart(|restart| restart.restart_time)
                    .unwrap_or(fallback.restart_time),
                stale_time: restart(|restart| restart.stale_time).unwrap_or(DEFAULT_STALE_TIME),
                selection_deferral: fallback.selection_deferral,
                long_lived_stale_time: restart(|restart| restart.long_lived_stale_time)
                    .unwrap_or(fallback.long_lived_stale_time),
            },
            drain: if shutdown(|shutdown| shutdown.drain).unwrap_or(false) {
                // Named before the cordon, as it outlasts it.
                Some("gracefulShutdown.drain")
            } else if cordoned && shutdown(|shutdown| shutdown.on_cordon).unwrap_or(true) {
                Some("the node is cordoned")
            } else {
                None
            },
            honor_graceful_shutdown: shutdown(|shutdown| shutdown.honor).unwrap_or(true),
            require_filters: layers.first(|spec| spec.require_filters).unwrap_or(false),
            origin_validation: layers.first(|spec| spec.origin_validation),
            bmp: layers.list(|spec| &spec.bmp),
            mrt: layers.first(|spec| spec.mrt.clone()),
            communities: layers.list(|spec| &spec.communities),
            prefix_advertisements: (
                object(|spec| !spec.prefix_advertisements.is_empty()),
                layers.list(|spec| &spec.prefix_advertisements),
            ),
            originated_prefixes: (
                object(|spec| !spec.originated_prefixes.is_empty()),
                layers.list(|spec| &spec.originated_prefixes),
            ),
        }
    }
}

/// The identifier: as configured, else the node's IPv4 address, else a number drawn from its
/// name, since an identifier need not be an address (RFC 6286 §2.1).
fn router_id(configured: Option<RouterIdSource>, node: &str, addresses: &[IpAddr]) -> RouterId {
    let from_address = || {
        addresses.iter().find_map(|address| match address {
            IpAddr::V4(v4) => Some(RouterId::from(*v4)),
            IpAddr::V6(_) => None,
        })
    };
    match configured {
        Some(RouterIdSource::Address(address)) => RouterId::from(address),
        Some(RouterIdSource::Hash) => hashed(node),
        None => from_address().unwrap_or_else(|| hashed(node)),
    }
}

/// FNV-1a, which is stable across builds and machines; never zero.
fn hashed(name: &str) -> RouterId {
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, octet| {
        (hash ^ u32::from(octet)).wrapping_mul(0x0100_0193)
    });
    RouterId(hash.max(1))
}

/// Says what of the configurations that count for `node` nobody acts on.
pub(crate) fn note_unused(
    node: &str,
    configurations: &BTreeMap<String, BgpConfiguration>,
    findings: &mut Findings,
) {
    for name in [format!("{NODE_PREFIX}{node}"), DEFAULT.to_owned()] {
        let Some(spec) = configurations.get(&name).map(|object| &object.spec) else {
            continue;
        };
        let fields = [
            (
                "spec.serviceClusterIPs",
                !spec.service_cluster_ips.is_empty(),
            ),
            (
                "spec.serviceExternalIPs",
                !spec.service_external_ips.is_empty(),
            ),
            (
                "spec.serviceLoadBalancerIPs",
                !spec.service_load_balancer_ips.is_empty(),
            ),
            (
                "spec.serviceLoadBalancerAggregation",
                spec.service_load_balancer_aggregation.is_some(),
            ),
        ];
        let object = ObjectRef::new("BGPConfiguration", &*name);
        for (field, set) in fields {
            if set {
                let message = "addresses of Services are not advertised in this version";
                findings.add(&object, field, reasons::NOT_IMPLEMENTED, message);
            }
        }
    }
}
