//! IPPool: the addresses that pods may get, cut into blocks for nodes.

use ipnetwork::{Ipv4Network, Ipv6Network};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AddressRange, Condition, schema};

/// Addresses for pods, cut into blocks of `2^blockBits` addresses.
///
/// Blocks are numbered through the subnets in their order. Subnets are therefore only ever appended:
/// another order would give every block other addresses.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "caracal.dev",
    version = "v1alpha1",
    kind = "IPPool",
    root = "IpPool",
    plural = "ippools",
    singular = "ippool",
    shortname = "ipp",
    category = "caracal",
    status = "IpPoolStatus",
    derive = "PartialEq",
    doc = "Addresses for pods, cut into blocks that nodes hold.",
    printcolumn(name = "IPv4", type_ = "string", json_path = ".spec.subnets[0].ipv4"),
    printcolumn(name = "IPv6", type_ = "string", json_path = ".spec.subnets[0].ipv6"),
    printcolumn(name = "Block Bits", type_ = "integer", json_path = ".spec.blockBits", priority = "1"),
    printcolumn(name = "Blocks", type_ = "integer", json_path = ".status.blocks.total"),
    printcolumn(name = "Used", type_ = "integer", json_path = ".status.blocks.used"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52 && !self.metadata.name.contains('.')").message("a pool's name has no dot and at most 52 characters, so that block names stay labels"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.subnets.map(s, (has(s.ipv4) ? s.ipv4 : '') + ' ' + (has(s.ipv6) ? s.ipv6 : '')).join(',') + ',').startsWith(oldSelf.subnets.map(s, (has(s.ipv4) ? s.ipv4 : '') + ' ' + (has(s.ipv6) ? s.ipv6 : '')).join(',') + ',')")
        .message("subnets may only be appended: a changed, removed or reordered one would give blocks other addresses").field_path(".subnets"),
    validation = Rule::new("self.subnets.all(s, has(s.ipv4) == has(self.subnets[0].ipv4) && has(s.ipv6) == has(self.subnets[0].ipv6))")
        .message("all subnets of a pool have the same families").field_path(".subnets"),
    validation = Rule::new("self.subnets.all(s, (!has(s.ipv4) || (32 - cidr(s.ipv4).prefixLength() >= self.blockBits)) && (!has(s.ipv6) || (128 - cidr(s.ipv6).prefixLength() >= self.blockBits)))")
        .message("a subnet holds at least one block of 2^blockBits addresses").field_path(".subnets"),
    validation = Rule::new("self.subnets.all(s, !has(s.ipv6) || (128 - cidr(s.ipv6).prefixLength() <= self.blockBits + 20))")
        .message("a subnet holds at most 2^20 blocks").field_path(".subnets"),
    validation = Rule::new("!('LoadBalancer' in self.uses) || (self.uses.size() == 1 && self.nodeSelector == 'all()' && !self.disableBGPExport)")
        .message("a pool for LoadBalancer has no other use, selects all() nodes and is exported"),
)]
pub struct IpPoolSpec {
    /// Address ranges, IPv4 and IPv6 side by side. Append-only.
    #[schemars(length(min = 1, max = 64))]
    pub subnets: Vec<Subnet>,

    /// A block holds `2^blockBits` addresses of each family: 6 gives /26 and /122.
    #[serde(default = "default_block_bits")]
    #[schemars(range(min = 2, max = 10))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("blockBits is immutable: blocks in use have this size"))]
    pub block_bits: u8,

    /// What the addresses are for.
    #[serde(default = "default_uses")]
    #[schemars(length(min = 1, max = 3))]
    pub uses: Vec<PoolUse>,

    /// Nodes that get blocks of this pool.
    #[serde(default = "default_selector")]
    #[schemars(schema_with = "schema::selector")]
    pub node_selector: String,

    /// Namespaces whose pods get addresses of this pool.
    #[serde(default = "default_selector")]
    #[schemars(schema_with = "schema::selector")]
    pub namespace_selector: String,

    /// Whether a pod may name this pool in an annotation.
    #[serde(default)]
    pub allow_pod_selection: bool,

    /// Among the pools that fit, lower comes first.
    #[serde(default = "default_priority")]
    #[schemars(range(min = 0, max = 10000))]
    pub priority: i32,

    /// Addresses never given out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub reserved: Vec<AddressRange>,

    /// How long a freed address, and a released block, rests before its next use. The default
    /// outlives a connection-tracking entry in SYN_SENT (120 s).
    #[serde(default = "default_cooldown_seconds")]
    #[schemars(range(min = 0, max = 86400))]
    pub cooldown_seconds: u32,

    /// How many blocks of this pool a node may hold.
    #[serde(default = "default_max_blocks_per_node")]
    #[schemars(range(min = 1, max = 1024))]
    pub max_blocks_per_node: u32,

    /// Grant no more blocks; those held stay.
    #[serde(default)]
    pub disabled: bool,

    /// Keep this pool's blocks out of BGP.
    #[serde(default, rename = "disableBGPExport")]
    pub disable_bgp_export: bool,

    /// Masquerade what pods of this pool send to addresses outside all pools.
    #[serde(default)]
    pub nat_outgoing: bool,
}

/// One range per family; where both are present they have equally many host bits.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.ipv4) || has(self.ipv6)").message("a subnet has an ipv4 or an ipv6 prefix, or both"),
    validation = Rule::new("!has(self.ipv4) || !has(self.ipv6) || 32 - cidr(self.ipv4).prefixLength() == 128 - cidr(self.ipv6).prefixLength()")
        .message("ipv4 and ipv6 have equally many host bits, such as /19 and /115"),
    validation = Rule::new("!has(self.ipv4) || (!cidr('169.254.0.0/16').containsCIDR(self.ipv4) && !cidr(self.ipv4).containsCIDR('169.254.0.0/16') && !cidr('127.0.0.0/8').containsCIDR(self.ipv4) && !cidr('224.0.0.0/3').containsCIDR(self.ipv4) && !cidr(self.ipv4).containsCIDR('0.0.0.0/8'))")
        .message("no link-local, loopback, multicast or unspecified addresses").field_path(".ipv4"),
    validation = Rule::new("!has(self.ipv6) || (!cidr('fe80::/10').containsCIDR(self.ipv6) && !cidr(self.ipv6).containsCIDR('fe80::/10') && !cidr('ff00::/8').containsCIDR(self.ipv6) && !cidr(self.ipv6).containsIP('::1'))")
        .message("no link-local, loopback, multicast or unspecified addresses").field_path(".ipv6"),
)]
pub struct Subnet {
    /// IPv4 prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv4_cidr")]
    pub ipv4: Option<Ipv4Network>,

    /// IPv6 prefix.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ipv6_cidr")]
    pub ipv6: Option<Ipv6Network>,

    /// Whether new blocks are cut from it.
    #[serde(default)]
    pub state: SubnetState,
}

/// Whether new blocks are cut from a subnet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SubnetState {
    /// New blocks are granted.
    #[default]
    Active,
    /// No new blocks; those held stay until they are empty.
    Draining,
}

/// What a pool's addresses are for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
pub enum PoolUse {
    /// Pods.
    Pod,
    /// Services of type LoadBalancer.
    LoadBalancer,
    /// Loopback addresses of nodes.
    NodeLoopback,
}

/// What the controller found and counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct IpPoolStatus {
    /// `Ready`, `Overlap`, `Exhausted`, `Terminating`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub conditions: Vec<Condition>,

    /// Blocks of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<BlockCounts>,

    /// Addresses of the pool, each family counted once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub addresses: Option<AddressCounts>,
}

/// Blocks by state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BlockCounts {
    /// Blocks that the subnets hold.
    pub total: u32,
    /// Blocks offered to or held by nodes.
    pub used: u32,
    /// Of those, blocks that take no new pods.
    pub draining: u32,
    /// Blocks of nodes that went away, and released ones that still rest.
    pub quarantined: u32,
}

/// Address positions of a pool: a pair of IPv4 and IPv6 address counts once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AddressCounts {
    /// Positions in all blocks.
    pub total: u64,
    /// Positions that `reserved` takes away.
    pub reserved: u64,
}

fn default_block_bits() -> u8 {
    6
}

fn default_uses() -> Vec<PoolUse> {
    vec![PoolUse::Pod]
}

fn default_selector() -> String {
    "all()".to_owned()
}

fn default_priority() -> i32 {
    100
}

fn default_cooldown_seconds() -> u32 {
    130
}

fn default_max_blocks_per_node() -> u32 {
    8
}

impl Default for IpPoolSpec {
    /// The schema's defaults, with no subnet: add at least one.
    fn default() -> Self {
        IpPoolSpec {
            subnets: Vec::new(),
            block_bits: default_block_bits(),
            uses: default_uses(),
            node_selector: default_selector(),
            namespace_selector: default_selector(),
            allow_pod_selection: false,
            priority: default_priority(),
            reserved: Vec::new(),
            cooldown_seconds: default_cooldown_seconds(),
            max_blocks_per_node: default_max_blocks_per_node(),
            disabled: false,
            disable_bgp_export: false,
            nat_outgoing: false,
        }
    }
}
