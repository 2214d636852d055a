//! BGPConfiguration: what a speaker is.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::{Bfd, DurationString, PasswordSource, schema};

/// Settings of speakers: `default` for all, `node.<name>` for one, field by field over `default`.
/// A field that neither has takes the default that its doc gives.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "caracal.dev",
    version = "v1alpha1",
    kind = "BGPConfiguration",
    root = "BgpConfiguration",
    plural = "bgpconfigurations",
    singular = "bgpconfiguration",
    shortname = "bgpconf",
    category = "caracal",
    derive = "PartialEq",
    doc = "Settings of BGP speakers: `default` for all, `node.<name>` for one.",
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.asNumber"),
    printcolumn(name = "Router ID", type_ = "string", json_path = ".spec.routerID"),
    printcolumn(name = "Mesh", type_ = "boolean", json_path = ".spec.nodeToNodeMeshEnabled"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.listenPort", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == 'default' || self.metadata.name.startsWith('node.')").message("a BGPConfiguration is named default or node.<name>"),
    validation = Rule::new("self.metadata.name == 'default' || !has(self.spec.nodeMeshPassword)").message("nodeMeshPassword is of the whole mesh: it stands in default").field_path(".spec.nodeMeshPassword"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.nodeMeshPassword) || !has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled").message("nodeMeshPassword needs the mesh").field_path(".nodeMeshPassword"),
    validation = Rule::new("!has(self.bindMode) || self.bindMode == 'None' || !has(self.listenAddresses)").message("bindMode NodeIP and listenAddresses exclude each other").field_path(".listenAddresses"),
    validation = Rule::new("!has(self.holdTime) || !has(self.keepaliveTime) || !self.holdTime.matches('^([0-9]{1,9}(s|m|h))+$') || !self.keepaliveTime.matches('^([0-9]{1,9}(s|m|h))+$') || duration(self.holdTime) == duration('0s') || duration(self.keepaliveTime) < duration(self.holdTime)").message("keepaliveTime is shorter than holdTime").field_path(".keepaliveTime"),
    validation = Rule::new("!has(self.holdTime) || !has(self.sendHoldTime) || !self.holdTime.matches('^([0-9]{1,9}(s|m|h))+$') || !self.sendHoldTime.matches('^([0-9]{1,9}(s|m|h))+$') || duration(self.sendHoldTime) == duration('0s') || duration(self.sendHoldTime) > duration(self.holdTime)").message("sendHoldTime is 0s or longer than holdTime (RFC 9687)").field_path(".sendHoldTime"),
)]
pub struct BgpConfigurationSpec {
    /// Own AS number. Default 64512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::asn")]
    pub as_number: Option<u32>,

    /// BGP identifier: four octets, or `hash` for a number drawn from the node's name. Default: the
    /// node's IPv4 address, else `hash`.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    pub router_id: Option<RouterIdSource>,

    /// TCP port to listen on, and to connect to where a peer names none. Default 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: Option<u16>,

    /// Addresses to listen on. Default None: all of both families.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bind_mode: Option<BindMode>,

    /// Addresses to listen on, instead of those of `bindMode`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::ips::<0, 16>")]
    pub listen_addresses: Vec<IpAddr>,

    /// Interfaces that the speaker leaves out of account: no next hop is taken from them. `*` stands
    /// for any characters.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 15)))]
    pub ignored_interfaces: Vec<String>,

    /// Whether all nodes, but those that are route reflectors, peer with each other by iBGP.
    /// Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,

    /// Password of the mesh's TCP-MD5 signatures (RFC 2385), 1 to 80 octets. Only in `default`, as
    /// all nodes must have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_password: Option<PasswordSource>,

    /// How long mesh peers shall wait for our return. Default: `gracefulRestart.restartTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::restart_time")]
    pub node_mesh_max_restart_time: Option<DurationString>,

    /// BFD on mesh sessions. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_mesh_bfd: Option<Bfd>,

    /// Pass on what was learnt. Default false: a node announces only its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transit: Option<bool>,

    /// Cluster identifier as a route reflector (RFC 4456). Default: the router ID.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::router_id")]
    pub cluster_id: Option<Ipv4Addr>,

    /// How many equal paths one destination may have. Default 16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 256))]
    pub maximum_paths: Option<u16>,

    /// Equal paths may go through different neighbouring ASes. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multipath_relax: Option<bool>,

    /// Hold time to propose. Default 240s; 0s turns keepalives off.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hold_time")]
    pub hold_time: Option<DurationString>,

    /// Time between keepalives. Default: a third of the hold time agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::keepalive_time")]
    pub keepalive_time: Option<DurationString>,

    /// How long a peer may read nothing before the session ends (RFC 9687); 0s: for ever.
    /// Default: twice the hold time, at least 480s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::whole_seconds")]
    pub send_hold_time: Option<DurationString>,

    /// How long to wait between attempts to connect. Default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_time: Option<DurationString>,

    /// Graceful restart, RFC 4724.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,

    /// Graceful shutdown, RFC 8326.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_shutdown: Option<GracefulShutdown>,

    /// Exchange nothing with an eBGP peer in a direction and family that no rule of its filters is
    /// about, even where a default policy would do. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_filters: Option<bool>,

    /// Whether blocks and addresses of nodes are believed only from the nodes that have them. Default:
    /// Enabled where there are Node objects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin_validation: Option<OriginValidation>,

    /// Stations that are told about sessions and routes by BMP (RFC 7854).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 4))]
    #[x_kube(validation = Rule::new("self.all(s, self.filter(t, t.address == s.address && t.port == s.port).size() == 1)").message("each station at most once"))]
    pub bmp: Vec<BmpStation>,

    /// Dumps of messages and tables in MRT format (RFC 6396).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mrt: Option<MrtDump>,

    /// Names for communities, used by `prefixAdvertisements` and `originatedPrefixes`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub communities: Vec<NamedCommunity>,

    /// Communities of own routes, by where they lie. Announces nothing by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,

    /// Prefixes to announce, beside a node's blocks and loopbacks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub originated_prefixes: Vec<OriginatedPrefix>,

    /// Not acted on yet: ranges of ClusterIPs to advertise.
    #[serde(
        default,
        rename = "serviceClusterIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 100))]
    pub service_cluster_ips: Vec<ServiceRange>,

    /// Not acted on yet: ranges of external IPs of Services to advertise.
    #[serde(
        default,
        rename = "serviceExternalIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 100))]
    pub service_external_ips: Vec<ServiceRange>,

    /// Not acted on yet: ranges of load balancer IPs of Services to advertise.
    #[serde(
        default,
        rename = "serviceLoadBalancerIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 100))]
    pub service_load_balancer_ips: Vec<ServiceRange>,

    /// Not acted on yet: whether load balancer ranges are advertised whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_load_balancer_aggregation: Option<ServiceAggregation>,
}

/// Settings of graceful restart.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GracefulRestart {
    /// Offer it. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// How long peers shall wait for our return. Default 120s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::restart_time")]
    pub restart_time: Option<DurationString>,

    /// How long routes of a restarted peer stay until its End-of-RIB. Default 300s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stale_time: Option<DurationString>,

    /// How long routes are kept, at the lowest preference, beyond the restart time (RFC 9494).
    /// Default 0s: not offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::long_lived_time")]
    pub long_lived_stale_time: Option<DurationString>,
}

/// Graceful shutdown (RFC 8326).
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GracefulShutdown {
    /// Ask all peers to use other ways than through this speaker. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<bool>,

    /// Do the same while the node is cordoned (`spec.unschedulable` of its Node object), which
    /// `kubectl drain` begins with. Default true: nothing is withdrawn, so that pods that run on are
    /// reached as before; only what others announce too, or are a way to, is sought there first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_cordon: Option<bool>,

    /// Use routes of peers that ask for it only for want of others. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub honor: Option<bool>,
}

/// Where a BGP identifier comes from: four octets in dotted notation, or the name of the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RouterIdSource {
    /// This one.
    Address(Ipv4Addr),
    /// A number drawn from the name of the node, the same at every start.
    Hash,
}

/// Why a text is no [`RouterIdSource`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no router ID; expected four octets such as 10.0.0.1, or hash")]
pub struct InvalidRouterId {
    /// The text as given.
    pub text: String,
}

impl TryFrom<String> for RouterIdSource {
    type Error = InvalidRouterId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        match text.parse::<Ipv4Addr>() {
            Ok(address) if !address.is_unspecified() => Ok(RouterIdSource::Address(address)),
            _ if text == "hash" => Ok(RouterIdSource::Hash),
            _ => Err(InvalidRouterId { text }),
        }
    }
}

impl From<RouterIdSource> for String {
    fn from(source: RouterIdSource) -> Self {
        match source {
            RouterIdSource::Address(address) => address.to_string(),
            RouterIdSource::Hash => "hash".to_owned(),
        }
    }
}

impl JsonSchema for RouterIdSource {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "RouterIdSource".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema::router_id_source(generator)
    }
}

/// Addresses to listen on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BindMode {
    /// All of both families.
    #[default]
    None,
    /// The node's InternalIPs.
    #[serde(rename = "NodeIP")]
    NodeIp,
}

/// Whether blocks and addresses of nodes are believed only from the nodes that have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OriginValidation {
    /// A block that another node holds is rejected, and so is anything more specific, and the
    /// address of another node.
    Enabled,
    /// Whoever announces one is believed.
    Disabled,
}

/// A station that is told about sessions and routes by BMP.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BmpStation {
    /// Its address.
    #[schemars(schema_with = "schema::ip")]
    pub address: IpAddr,

    /// Its TCP port.
    #[schemars(range(min = 1, max = 65535))]
    pub port: u16,

    /// Which routes it is told. Default PrePolicy.
    #[serde(default = "BmpRoutes::default_set")]
    #[schemars(length(min = 1, max = 4))]
    #[x_kube(validation = Rule::new("self.all(r, self.filter(q, q == r).size() == 1)").message("each at most once"))]
    pub routes: Vec<BmpRoutes>,

    /// How often it is told counts (RFC 7854 §4.8). Default 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::statistics_interval")]
    pub statistics_interval: Option<DurationString>,
}

/// Routes that a BMP station is told.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum BmpRoutes {
    /// What peers tell, before any policy (RFC 7854).
    PrePolicy,
    /// What of it is used, after import policy (RFC 7854).
    PostPolicy,
    /// What was picked (RFC 9069).
    LocRib,
    /// What peers are told, after export policy (RFC 8671).
    AdjRibOut,
}

impl BmpRoutes {
    fn default_set() -> Vec<BmpRoutes> {
        vec![BmpRoutes::PrePolicy]
    }
}

/// Dumps in MRT format.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(has(self.updates) && self.updates) || has(self.tableInterval)").message("give updates: true or tableInterval"))]
pub struct MrtDump {
    /// Existing folder for the files.
    #[schemars(schema_with = "schema::absolute_path")]
    pub directory: String,

    /// Write every message received and every change of a session's state.
    #[serde(default)]
    pub updates: bool,

    /// When a new file of messages begins. Default 15m.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::dump_interval")]
    pub rotate_interval: Option<DurationString>,

    /// How often the whole table is written. Default: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::dump_interval")]
    pub table_interval: Option<DurationString>,
}

/// A range of addresses of Services.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceRange {
    /// The range.
    #[schemars(schema_with = "schema::cidr")]
    pub cidr: IpNetwork,
}

/// Whether ranges are advertised whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ServiceAggregation {
    /// The range, from every node.
    Enabled,
    /// Each address, from nodes that have endpoints for it.
    Disabled,
}

/// A name for a community.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NamedCommunity {
    /// How `prefixAdvertisements` refer to it.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,

    /// `aa:nn` or `aa:nn:mm`.
    #[schemars(schema_with = "schema::community")]
    pub value: String,
}

/// Communities of own routes.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixAdvertisement {
    /// Own routes to this prefix and to those inside it carry the communities: blocks, loopbacks,
    /// `originatedPrefixes`.
    #[schemars(schema_with = "schema::cidr")]
    pub cidr: IpNetwork,

    /// Names from `communities`, or `aa:nn` or `aa:nn:mm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub communities: Vec<String>,
}

/// A prefix to announce.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OriginatedPrefix {
    /// The prefix.
    #[schemars(schema_with = "schema::cidr")]
    pub cidr: IpNetwork,

    /// Drop packets to it for which there is no longer route, so that they do not follow the default
    /// route back to those who were told the prefix. Default false: the kernel is left as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub blackhole: bool,

    /// Names from `communities`, or `aa:nn` or `aa:nn:mm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub communities: Vec<String>,
}
