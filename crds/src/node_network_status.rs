//! NodeNetworkStatus: what a node's agent sees and does, for people and tools.

use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BlockPhase, Condition, Family, Time, schema};

/// One per node, of the node's name, written by its agent on change and never more than every few
/// seconds; where only counts change, less and less often while they go on changing.
///
/// What it holds is bounded: an API server takes no object of more than a mebibyte and a half.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "caracal.dev",
    version = "v1alpha1",
    kind = "NodeNetworkStatus",
    plural = "nodenetworkstatuses",
    singular = "nodenetworkstatus",
    shortname = "nns",
    category = "caracal",
    status = "NodeNetworkStatusStatus",
    derive = "PartialEq",
    doc = "What the agent of one node sees and does.",
    printcolumn(name = "AS", type_ = "integer", json_path = ".status.asNumber"),
    printcolumn(name = "Router ID", type_ = "string", json_path = ".status.routerID"),
    printcolumn(name = "Sessions", type_ = "string", json_path = ".status.sessionsEstablished"),
    printcolumn(name = "IPv4 Routes", type_ = "integer", json_path = ".status.routes.ipv4"),
    printcolumn(name = "IPv6 Routes", type_ = "integer", json_path = ".status.routes.ipv6"),
    printcolumn(name = "Why", type_ = "string", json_path = ".status.conditions[?(@.status=='False')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == self.spec.nodeName").message("a NodeNetworkStatus is named as its node"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.nodeName == oldSelf.nodeName").message("nodeName is immutable"))]
pub struct NodeNetworkStatusSpec {
    /// The node.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,
}

/// What the agent sees.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeNetworkStatusStatus {
    /// Version of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,

    /// Own AS number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,

    /// Own BGP identifier.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::router_id")]
    pub router_id: Option<Ipv4Addr>,

    /// Sessions established of those configured, as `3/4`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub sessions_established: Option<String>,

    /// Every session that the node should have, by peer name. Of more than there is room for, those
    /// that are down come first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub sessions: Vec<SessionStatus>,

    /// How many sessions there was no room for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_left_out: Option<u32>,

    /// Routes that must not be used, by session and reason, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub rejected: Vec<RejectedRoutes>,

    /// Routes in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub routes: Option<RouteCounts>,

    /// Blocks that the node holds, by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub blocks: Vec<BlockSummary>,

    /// The policy ruleset in the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataplane: Option<DataplaneSummary>,

    /// `SessionsEstablished`, `RoutesProgrammed`, `PolicyProgrammed`, `AddressesAvailable`, `Accepted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// What the node calls it: the name of the BGPPeer, with `/` and the address or node where the
    /// BGPPeer is of several, or `mesh:` and the name of a node.
    #[schemars(length(max = 512))]
    pub name: String,

    /// Address of the peer, once it is known.
    #[serde(default, rename = "peerIP", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip")]
    pub peer_ip: Option<IpAddr>,

    /// AS number of the peer, once it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_number: Option<u32>,

    /// State of the session.
    pub state: SessionState,

    /// Since when it is established, or is not: what comes and goes between two attempts does not
    /// count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// Why it is not established: one of [`crate::reasons`]. Of one that is, `NoPolicy` where nothing is
    /// taken or nothing told for want of a policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// The same for people, with codes and addresses. Of one that is established, what is unusual.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// The last NOTIFICATION, of both directions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<SessionError>,

    /// Families in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub families: Vec<Family>,

    /// Routes of all families, once they have been counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefixes: Option<PrefixCounts>,
}

/// A NOTIFICATION that ended a session or an attempt at one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionError {
    /// Who sent it.
    pub direction: ErrorDirection,
    /// When. Of several alike, with no session between them, the first.
    pub time: Time,
    /// Code, subcode and what the sender adds, in words.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// Who sent a NOTIFICATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ErrorDirection {
    /// The node.
    Sent,
    /// The peer.
    Received,
}

/// Routes of a session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PrefixCounts {
    /// Told by the peer.
    pub received: u32,
    /// Those of them that may be used.
    pub accepted: u32,
    /// Told to the peer.
    pub advertised: u32,
}

/// Routes of a session that must not be used, for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RejectedRoutes {
    /// Name of the session.
    #[schemars(length(max = 512))]
    pub session: String,
    /// The kind of reason, in one word that never changes: `as-loop`, `policy` and others.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The rule of the import policy that says no, where one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub rule: Option<String>,
    /// How many there are.
    pub count: u32,
    /// The first of them in the order of prefixes.
    #[schemars(schema_with = "schema::cidrs::<1, 8>")]
    pub prefixes: Vec<IpNetwork>,
    /// Why the first one is, for people.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// State of a session (RFC 4271 §8.2.2).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum SessionState {
    /// Not trying.
    #[default]
    Idle,
    /// Connecting.
    Connect,
    /// Waiting to connect again, or for the peer to.
    Active,
    /// OPEN sent.
    OpenSent,
    /// OPEN received, waiting for the first KEEPALIVE.
    OpenConfirm,
    /// Up.
    Established,
}

/// Routes in the kernel that BGP asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RouteCounts {
    /// IPv4 routes.
    pub ipv4: u32,
    /// IPv6 routes.
    pub ipv6: u32,
    /// Routes that the kernel refused.
    #[serde(default)]
    pub failed: u32,
}

/// A block that the node holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockSummary {
    /// Name of the IPBlock.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Phase as the agent sees it.
    pub phase: BlockPhase,
}

/// The policy ruleset in the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataplaneSummary {
    /// Distinct policy lists among the node's pods.
    pub classes: u32,
    /// Distinct groups of addresses that policies speak of.
    pub identities: u32,
}
