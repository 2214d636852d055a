//! IPBlock and IPBlockRequest: who holds which block, and who wants one.

use ipnetwork::{Ipv4Network, Ipv6Network};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, Time, schema};

/// One block of a pool in the hand of one node, both families. Its name `<pool>-<index>` makes its
/// creation the claim: of two creators one gets "already exists".
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "caracal.dev",
    version = "v1alpha1",
    kind = "IPBlock",
    root = "IpBlock",
    plural = "ipblocks",
    singular = "ipblock",
    shortname = "ipb",
    category = "caracal",
    status = "IpBlockStatus",
    selectable = ".spec.nodeName",
    selectable = ".spec.pool",
    derive = "PartialEq",
    doc = "One block of a pool in the hand of one node. Creating it is the claim.",
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool", priority = "1"),
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "IPv4", type_ = "string", json_path = ".spec.ipv4"),
    printcolumn(name = "IPv6", type_ = "string", json_path = ".spec.ipv6"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.used"),
    printcolumn(name = "Epoch", type_ = "integer", json_path = ".spec.epoch", priority = "1"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name == self.spec.pool + '-' + string(self.spec.index)").message("a block is named <pool>-<index>"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.pool == oldSelf.pool && self.index == oldSelf.index && self.nodeName == oldSelf.nodeName && self.nodeUID == oldSelf.nodeUID && self.epoch == oldSelf.epoch && self.requestGeneration == oldSelf.requestGeneration")
        .message("a block is immutable but for drain: delete it and create another"),
    validation = Rule::new("has(self.ipv4) == has(oldSelf.ipv4) && (!has(self.ipv4) || self.ipv4 == oldSelf.ipv4) && has(self.ipv6) == has(oldSelf.ipv6) && (!has(self.ipv6) || self.ipv6 == oldSelf.ipv6)")
        .message("a block's addresses are immutable"),
    validation = Rule::new("has(self.ipv4) || has(self.ipv6)").message("a block has an ipv4 or an ipv6 prefix, or both"),
    validation = Rule::new("!has(self.ipv4) || !has(self.ipv6) || 32 - cidr(self.ipv4).prefixLength() == 128 - cidr(self.ipv6).prefixLength()")
        .message("ipv4 and ipv6 have equally many host bits"),
    validation = Rule::new("!oldSelf.drain || self.drain").message("draining is not taken back").field_path(".drain"),
)]
pub struct IpBlockSpec {
    /// Name of the pool.
    #[schemars(length(min = 1, max = 52))]
    pub pool: String,

    /// Number of the block in the pool, counted through its subnets.
    #[schemars(range(min = 0, max = 2147483647))]
    pub index: u32,

    /// IPv4 addresses of the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv4_cidr")]
    pub ipv4: Option<Ipv4Network>,

    /// IPv6 addresses of the block.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv6_cidr")]
    pub ipv6: Option<Ipv6Network>,

    /// The node that holds it.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,

    /// UID of that node object. A node of the same name but another UID is another node: the old
    /// one may still run its pods.
    #[serde(rename = "nodeUID")]
    #[schemars(length(min = 1, max = 64))]
    pub node_uid: String,

    /// Leadership under which the block was granted; later leaders count higher. An agent ignores
    /// a grant older than the newest one that it has seen.
    #[schemars(range(min = 0))]
    pub epoch: i64,

    /// Generation of the request that this block answers; 0 for the first block of a node.
    #[serde(default)]
    #[schemars(range(min = 0))]
    pub request_generation: i64,

    /// No new addresses from this block; it is released when the last pod has gone.
    #[serde(default)]
    pub drain: bool,
}

/// Where a block is in its life.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum BlockPhase {
    /// Granted; the agent has not taken it up.
    #[default]
    Offered,
    /// The agent announces it and gives out its addresses.
    Active,
    /// Announced, no new addresses.
    Draining,
    /// No address in use, announced no more; rests until it is deleted.
    Released,
    /// Its node is gone; rests until nothing can still use it.
    Quarantined,
}

/// What the agent, and at the end the controller, say about a block.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpBlockStatus {
    /// Where the block is in its life.
    #[serde(default)]
    pub phase: BlockPhase,

    /// UID of the node whose agent took the block up.
    #[serde(
        default,
        rename = "observedNodeUID",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64))]
    pub observed_node_uid: Option<String>,

    /// Epoch that the agent has seen when it took the block up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_epoch: Option<i64>,

    /// Positions in use, coarse: written when it moved by a quarter, not for each pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<u32>,

    /// When the phase was entered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,

    /// Why it is in this phase.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

/// A node's wish for blocks of one pool. Named `<node>.<pool>`, owned by the Node.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "caracal.dev",
    version = "v1alpha1",
    kind = "IPBlockRequest",
    root = "IpBlockRequest",
    plural = "ipblockrequests",
    singular = "ipblockrequest",
    shortname = "ipbr",
    category = "caracal",
    status = "IpBlockRequestStatus",
    selectable = ".spec.nodeName",
    derive = "PartialEq",
    doc = "A node's wish for blocks of one pool.",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeName"),
    printcolumn(name = "Pool", type_ = "string", json_path = ".spec.pool"),
    printcolumn(name = "Want", type_ = "integer", json_path = ".spec.want"),
    printcolumn(
        name = "Granted",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Granted')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Granted')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.nodeName == oldSelf.nodeName && self.nodeUID == oldSelf.nodeUID && self.pool == oldSelf.pool").message("node and pool of a request are immutable"),
    validation = Rule::new("self.generation >= oldSelf.generation").message("generation only grows").field_path(".generation"),
)]
pub struct IpBlockRequestSpec {
    /// The node that asks.
    #[schemars(length(min = 1, max = 253))]
    pub node_name: String,

    /// UID of its Node object.
    #[serde(rename = "nodeUID")]
    #[schemars(length(min = 1, max = 64))]
    pub node_uid: String,

    /// The pool wanted.
    #[schemars(length(min = 1, max = 52))]
    pub pool: String,

    /// Counts the node's demands: a grant answers one generation, however often it is read.
    #[schemars(range(min = 1))]
    pub generation: i64,

    /// How many blocks this generation asks for.
    #[serde(default = "default_want")]
    #[schemars(range(min = 1, max = 16))]
    pub want: u32,
}

/// How a request was answered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpBlockRequestStatus {
    /// Names of the blocks granted for [`IpBlockRequestStatus::observed_generation`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)))]
    pub granted: Vec<String>,

    /// `spec.generation` that this status answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Granted`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,
}

fn default_want() -> u32 {
    1
}

impl IpBlock {
    /// The phase, Offered where no agent has written a status yet.
    pub fn phase(&self) -> BlockPhase {
        self.status
            .as_ref()
            .map(|status| status.phase)
            .unwrap_or_default()
    }
}

impl IpBlockSpec {
    /// The only name that a block of this pool and index may have.
    pub fn block_name(&self) -> String {
        format!("{}-{}", self.pool, self.index)
    }
}

impl IpBlockRequestSpec {
    /// The only name that a node's request for a pool may have.
    pub fn request_name(&self) -> String {
        format!("{}.{}", self.node_name, self.pool)
    }
}
