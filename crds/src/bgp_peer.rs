//! BGPPeer: whom a speaker talks to.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Bfd, DurationString, PasswordSource, PeerAddress, TcpAo, schema};

/// A session that the selected speakers have.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "caracal.dev",
    version = "v1alpha1",
    kind = "BGPPeer",
    root = "BgpPeer",
    plural = "bgppeers",
    singular = "bgppeer",
    shortname = "bgpp",
    category = "caracal",
    derive = "PartialEq",
    doc = "A BGP session that the selected speakers have.",
    printcolumn(name = "Peer", type_ = "string", json_path = ".spec.peerIP"),
    printcolumn(name = "AS", type_ = "integer", json_path = ".spec.asNumber"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.node"),
    printcolumn(
        name = "Node Selector",
        type_ = "string",
        json_path = ".spec.nodeSelector"
    ),
    printcolumn(
        name = "Interface",
        type_ = "string",
        json_path = ".spec.interface",
        priority = "1"
    ),
    printcolumn(
        name = "Range",
        type_ = "string",
        json_path = ".spec.listenRange",
        priority = "1"
    ),
    printcolumn(
        name = "Peer Selector",
        type_ = "string",
        json_path = ".spec.peerSelector",
        priority = "1"
    ),
    printcolumn(
        name = "Filters",
        type_ = "string",
        json_path = ".spec.filters",
        priority = "1"
    ),
    printcolumn(
        name = "Description",
        type_ = "string",
        json_path = ".spec.description",
        priority = "1"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.node) || !has(self.nodeSelector)").message("node and nodeSelector exclude each other"),
    validation = Rule::new("[has(self.peerIP), has(self.interface), has(self.listenRange), has(self.peerSelector)].filter(p, p).size() == 1").message("give exactly one of peerIP, interface, listenRange, peerSelector"),
    validation = Rule::new("has(self.peerSelector) || has(self.asNumber) != has(self.peerAS)").message("give asNumber or peerAS"),
    validation = Rule::new("!has(self.peerSelector) || (!has(self.asNumber) && !has(self.peerAS))").message("with peerSelector, the AS number is the selected node's").field_path(".asNumber"),
    validation = Rule::new("!has(self.reversePeering) || has(self.peerSelector)").message("reversePeering needs peerSelector").field_path(".reversePeering"),
    validation = Rule::new("!has(self.listenLimit) || has(self.listenRange)").message("listenLimit needs listenRange").field_path(".listenLimit"),
    validation = Rule::new("!has(self.localAddress) || has(self.peerIP) || has(self.listenRange)").message("localAddress needs peerIP or listenRange").field_path(".localAddress"),
    validation = Rule::new("!has(self.localAddress) || !has(self.peerIP) || self.localAddress.contains(':') == (self.peerIP.split(':').size() > 2)").message("localAddress and peerIP are of one family").field_path(".localAddress"),
    validation = Rule::new("!has(self.localAddress) || !has(self.sourceAddress) || self.sourceAddress == 'None'").message("localAddress and sourceAddress UseNodeIP exclude each other").field_path(".sourceAddress"),
    validation = Rule::new("!has(self.password) || !has(self.tcpAO)").message("password and tcpAO exclude each other").field_path(".password"),
    validation = Rule::new("!has(self.ttlSecurity) || !has(self.ebgpMultiHop)").message("ttlSecurity and ebgpMultiHop exclude each other").field_path(".ebgpMultiHop"),
    validation = Rule::new("!has(self.maxRestartTime) || !has(self.gracefulRestart) || !has(self.gracefulRestart.restartTime)").message("maxRestartTime and gracefulRestart.restartTime are one setting").field_path(".maxRestartTime"),
    validation = Rule::new("!has(self.holdTime) || !has(self.keepaliveTime) || !self.holdTime.matches('^([0-9]{1,9}(s|m|h))+$') || !self.keepaliveTime.matches('^([0-9]{1,9}(s|m|h))+$') || duration(self.holdTime) == duration('0s') || duration(self.keepaliveTime) < duration(self.holdTime)").message("keepaliveTime is shorter than holdTime").field_path(".keepaliveTime"),
    validation = Rule::new("!has(self.holdTime) || !has(self.sendHoldTime) || !self.holdTime.matches('^([0-9]{1,9}(s|m|h))+$') || !self.sendHoldTime.matches('^([0-9]{1,9}(s|m|h))+$') || duration(self.sendHoldTime) == duration('0s') || duration(self.sendHoldTime) > duration(self.holdTime)").message("sendHoldTime is 0s or longer than holdTime (RFC 9687)").field_path(".sendHoldTime"),
    validation = Rule::new("!has(self.roleStrict) || has(self.role)").message("roleStrict needs role").field_path(".roleStrict"),
    validation = Rule::new("!has(self.peerAS) || self.peerAS != 'Internal' || !(has(self.role) || has(self.ebgpMultiHop) || has(self.localASNumber) || has(self.asOverride) || has(self.removePrivateAS))").message("role, ebgpMultiHop, localASNumber, asOverride and removePrivateAS are for peers of other ASes"),
)]
pub struct BgpPeerSpec {
    /// What the session is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub description: Option<String>,

    /// The one node that uses this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,

    /// The nodes that use this peer. Default, where `node` is absent too: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub node_selector: Option<String>,

    /// Address of the peer, with its port where that is not the configuration's `listenPort`.
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    pub peer_ip: Option<PeerAddress>,

    /// Interface at whose other end the peer is found by router advertisements: an unnumbered
    /// session between link-local addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::interface")]
    pub interface: Option<String>,

    /// Prefixes from whose addresses peers may connect, without being named each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cidrs::<1, 16>")]
    pub listen_range: Option<Vec<IpNetwork>>,

    /// How many peers `listenRange` may have at a time. Default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub listen_limit: Option<u32>,

    /// The nodes to peer with, each as its own peer, at its InternalIP and with its AS number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub peer_selector: Option<String>,

    /// Whether the nodes that `peerSelector` selects peer back by themselves. Default Auto.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse_peering: Option<ReversePeering>,

    /// AS number of the peer; equal to our own means iBGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::asn")]
    pub as_number: Option<u32>,

    /// Instead of `asNumber`: ours, or any other one, whichever the peer names.
    #[serde(default, rename = "peerAS", skip_serializing_if = "Option::is_none")]
    pub peer_as: Option<PeerAs>,

    /// Our AS number towards this eBGP peer. Default: the configuration's `asNumber`.
    #[serde(
        default,
        rename = "localASNumber",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "schema::asn")]
    pub local_as_number: Option<u32>,

    /// Own address of the session. Default: the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip")]
    pub local_address: Option<IpAddr>,

    /// Whether the node's InternalIP is the own address of the session. Default None: the kernel
    /// chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_address: Option<SourceAddress>,

    /// Password of TCP-MD5 signatures (RFC 2385), 1 to 80 octets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordSource>,

    /// Keys of the TCP authentication option (RFC 5925).
    #[serde(default, rename = "tcpAO", skip_serializing_if = "Option::is_none")]
    pub tcp_ao: Option<TcpAo>,

    /// Hold time to propose. Default: the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hold_time")]
    pub hold_time: Option<DurationString>,

    /// Time between keepalives. Default: the configuration's, else a third of the hold time agreed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::keepalive_time")]
    pub keepalive_time: Option<DurationString>,

    /// How long to wait between attempts to connect. Default: the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_time: Option<DurationString>,

    /// How long a peer may read nothing before the session ends (RFC 9687); 0s: for ever.
    /// Default: the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::whole_seconds")]
    pub send_hold_time: Option<DurationString>,

    /// Wait for the peer to connect.
    #[serde(default)]
    pub passive: bool,

    /// Address families to offer. Default: both.
    #[serde(default = "Family::all")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(validation = Rule::new("self.all(f, self.filter(g, g == f).size() == 1)").message("each family at most once"))]
    pub families: Vec<Family>,

    /// Several paths to one prefix (RFC 7911), by family.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(validation = Rule::new("self.all(f, self.filter(g, g.family == f.family).size() == 1)").message("each family at most once"))]
    pub add_path: Vec<AddPath>,

    /// IPv4 routes with IPv6 next hops (RFC 8950). Default: with `interface`, and between nodes that
    /// have IPv6 addresses alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_next_hop: Option<bool>,

    /// Messages of up to 65535 octets (RFC 8654). Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extended_messages: Option<bool>,

    /// Whose address the routes sent carry as next hop.
    #[serde(default)]
    pub next_hop_mode: NextHopMode,

    /// How many hops away the peer may be: packets that came further are dropped (GTSM, RFC 5082).
    /// Both sides must have it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 254))]
    pub ttl_security: Option<u8>,

    /// TTL of packets to an eBGP peer that is not on a connected subnet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub ebgp_multi_hop: Option<u8>,

    /// Gateway by which the peer is reached, whatever routes are learnt: a host route of our own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip")]
    pub reachable_by: Option<IpAddr>,

    /// Bidirectional forwarding detection (RFC 5880).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bfd: Option<Bfd>,

    /// Graceful restart. Fields that are absent are the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<PeerGracefulRestart>,

    /// The same as `gracefulRestart.restartTime`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::restart_time")]
    pub max_restart_time: Option<DurationString>,

    /// How many prefixes the peer may announce, by family. Default for a family that is not listed:
    /// `limit: 2000000` with `action: Warn`, which ends no session, and which one table of the
    /// whole Internet does not reach.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(validation = Rule::new("self.all(f, self.filter(g, g.family == f.family).size() == 1)").message("each family at most once"))]
    pub max_prefixes: Vec<MaxPrefixes>,

    /// How often our own AS number may occur in a path that is accepted. Default 0.
    #[serde(
        default,
        rename = "numAllowedLocalASNumbers",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 0, max = 10))]
    pub num_allowed_local_as_numbers: Option<u8>,

    /// Replace the peer's AS number by ours in the paths that it is told. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_override: Option<bool>,

    /// What happens to private AS numbers in the paths that the peer is told. Default: nothing.
    #[serde(
        default,
        rename = "removePrivateAS",
        skip_serializing_if = "Option::is_none"
    )]
    pub remove_private_as: Option<RemovePrivateAs>,

    /// What the peer is to us (RFC 9234). Our own role is the other end of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<PeerRole>,

    /// Refuse a peer that tells no role. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role_strict: Option<bool>,

    /// Reflect routes to and from this iBGP peer (RFC 4456).
    #[serde(default)]
    pub route_reflector_client: bool,

    /// Cluster identifier towards this client. Default: the configuration's.
    #[serde(default, rename = "clusterID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::router_id")]
    pub cluster_id: Option<std::net::Ipv4Addr>,

    /// Names of BGPFilters, tried in this order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 253)))]
    pub filters: Vec<String>,

    /// Exchange nothing in a direction and family that no rule of `filters` is about, even where
    /// a default policy would do. Default: the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub require_filters: Option<bool>,

    /// Ask this peer to use other ways, and use others ourselves, before the session goes down
    /// (RFC 8326).
    #[serde(default)]
    pub drain: bool,

    /// Keep the session down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_down: Option<AdminDown>,
}

/// An address family, IANA's AFI and SAFI in words.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum Family {
    /// AFI 1, SAFI 1.
    #[serde(rename = "ipv4-unicast")]
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    #[serde(rename = "ipv6-unicast")]
    Ipv6Unicast,
}

impl Family {
    /// Both, IPv4 first.
    pub fn all() -> Vec<Family> {
        vec![Family::Ipv4Unicast, Family::Ipv6Unicast]
    }
}

/// Whether the nodes that `peerSelector` selects peer back by themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ReversePeering {
    /// They do.
    #[default]
    Auto,
    /// They need a BGPPeer of their own.
    Manual,
}

/// The AS of a peer, relative to ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PeerAs {
    /// Ours.
    Internal,
    /// Any other.
    External,
}

/// Where the own address of a session comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum SourceAddress {
    /// From the node's InternalIP of the session's family.
    #[serde(rename = "UseNodeIP")]
    UseNodeIp,
    /// From the kernel.
    #[default]
    None,
}

/// Several paths to one prefix, in one family.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.sendCount) == (has(self.send) && self.send == 'Best')").message("send Best and sendCount come together").field_path(".sendCount"))]
pub struct AddPath {
    /// Which family.
    pub family: Family,

    /// Which paths the peer is told. Default None: the best alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub send: Option<AddPathSend>,

    /// How many paths `Best` sends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 64))]
    pub send_count: Option<u8>,

    /// Take several paths from the peer. Default false.
    #[serde(default)]
    pub receive: bool,
}

/// Which paths a peer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AddPathSend {
    /// The best alone.
    #[default]
    None,
    /// Every usable one.
    All,
    /// The best few.
    Best,
}

/// Whose address the routes sent carry as next hop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum NextHopMode {
    /// Ours to eBGP peers and for what we originate; otherwise as learnt.
    #[default]
    Auto,
    /// Always ours, for reflected routes too.
    #[serde(rename = "Self")]
    Own,
    /// Always as learnt.
    Keep,
}

/// Graceful restart with one peer.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerGracefulRestart {
    /// Offer it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// How long the peer shall wait for our return.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::restart_time")]
    pub restart_time: Option<DurationString>,

    /// How long routes are kept, at the lowest preference, beyond the restart time (RFC 9494).
    /// 0s offers it not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::long_lived_time")]
    pub long_lived_stale_time: Option<DurationString>,
}

/// How many prefixes of one family a peer may announce. Where the session carries several paths to a
/// prefix (`addPath`), each path counts. Routes that a filter rejects count too.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.limit) != (has(self.action) && self.action == 'None')").message("either a limit or action None").field_path(".limit"),
    validation = Rule::new("!has(self.warningPercent) || !has(self.action) || self.action != 'None'").message("warningPercent needs a limit").field_path(".warningPercent"),
    validation = Rule::new("!has(self.restartAfter) || !has(self.action) || self.action == 'Terminate'").message("restartAfter needs action Terminate").field_path(".restartAfter"),
)]
pub struct MaxPrefixes {
    /// Which family.
    pub family: Family,

    /// The most that is accepted without consequences. Absent with `action: None`, where there is no
    /// such number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 4294967295_u32))]
    pub limit: Option<u32>,

    /// Share of the limit at which a warning is given, in percent. Default 75.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub warning_percent: Option<u8>,

    /// What happens beyond the limit. Default Terminate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<MaxPrefixAction>,

    /// When a session that was ended so may come back. Default: never, until it is cleared or the
    /// limit of this family changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart_after: Option<DurationString>,
}

/// What happens beyond the limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum MaxPrefixAction {
    /// The session ends with Cease (Maximum Number of Prefixes Reached).
    #[default]
    Terminate,
    /// Nothing but another warning.
    Warn,
    /// There is no limit, and no warning.
    None,
}

/// What happens to private AS numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum RemovePrivateAs {
    /// They go.
    Remove,
    /// Our own stands in their place, so that the path keeps its length.
    Replace,
}

/// What a peer is to us (RFC 9234).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum PeerRole {
    /// It gives us transit.
    Provider,
    /// We give it transit.
    Customer,
    /// It is a route server, and we are its client.
    RouteServer,
    /// We are a route server, and it is our client.
    RouteServerClient,
    /// We exchange our own and our customers' routes.
    Peer,
}

/// A session that is kept down.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AdminDown {
    /// What the peer reads (RFC 9003). Of a text beyond 255 octets, it reads the beginning.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 255))]
    pub message: String,
}
