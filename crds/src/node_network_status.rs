//! NodeNetworkStatus: what a node's agent sees and does, for people and tools.

use std::net::{IpAddr, Ipv4Addr};

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{BlockPhase, Condition, Family, Time, schema};

/// One per node, of the node's name, written by its agent on change and never more than every few
/// seconds.
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

    /// Every session that the node should have, by peer name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 1024))]
    pub sessions: Vec<SessionStatus>,

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

    /// `SessionsEstablished`, `RoutesProgrammed`, `PolicyProgrammed`, `AddressesAvailable`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// One session.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionStatus {
    /// Name of the BGPPeer, or of the node for a mesh session.
    #[schemars(length(max = 253))]
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

    /// When it entered this state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// Why it is not established: one of [`crate::reasons`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,

    /// The same for people, with codes and addresses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,

    /// Families in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub families: Vec<Family>,
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
