//! BGPFilter: ordered rules for what is taken from and given to peers.

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Ordered rules; the first that matches decides. A route that none matches goes on to the default
/// policy.
#[derive(
    CustomResource, KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize,
)]
#[kube(
    group = "caracal.dev",
    version = "v1alpha1",
    kind = "BGPFilter",
    root = "BgpFilter",
    plural = "bgpfilters",
    singular = "bgpfilter",
    shortname = "bgpf",
    category = "caracal",
    derive = "PartialEq",
    doc = "Ordered rules for the routes taken from and given to BGP peers.",
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BgpFilterSpec {
    /// For IPv4 routes sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "exportV4")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 4)").message("rules of this list have IPv4 prefixes"))]
    pub export_v4: Vec<BgpFilterRule>,

    /// For IPv4 routes received.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "importV4")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 4)").message("rules of this list have IPv4 prefixes"))]
    pub import_v4: Vec<BgpFilterRule>,

    /// For IPv6 routes sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "exportV6")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 6)").message("rules of this list have IPv6 prefixes"))]
    pub export_v6: Vec<BgpFilterRule>,

    /// For IPv6 routes received.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "importV6")]
    #[schemars(length(max = 100))]
    #[x_kube(validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 6)").message("rules of this list have IPv6 prefixes"))]
    pub import_v6: Vec<BgpFilterRule>,
}

/// One rule: every condition given must hold.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.cidr) == has(self.matchOperator)").message("cidr and matchOperator come together"),
    validation = Rule::new("!has(self.prefixLength) || has(self.cidr)").message("prefixLength needs a cidr").field_path(".prefixLength"),
    validation = Rule::new("!has(self.operations) || self.action == 'Accept'").message("operations need action Accept").field_path(".operations"),
)]
pub struct BgpFilterRule {
    /// Prefix to compare with, by `matchOperator`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::cidr")]
    pub cidr: Option<IpNetwork>,

    /// How the route's prefix compares with `cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<MatchOperator>,

    /// Lengths that a prefix within `cidr` may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLengthRange>,

    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RouteSource>,

    /// Name of the outgoing interface; `*` stands for any characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,

    /// Kind of session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<SessionType>,

    /// Communities of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,

    /// AS numbers with which the path begins.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub as_path_prefix: Vec<u32>,

    /// Priority of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483646))]
    pub priority: Option<u32>,

    /// What to do with a route that matches.
    pub action: FilterAction,

    /// Changes to a route that is accepted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub operations: Vec<FilterOperation>,
}

/// How a prefix compares with another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MatchOperator {
    /// The same prefix.
    Equal,
    /// Any other prefix.
    NotEqual,
    /// The same or more specific.
    In,
    /// Neither the same nor more specific.
    NotIn,
}

/// Lengths, both ends included.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixLengthRange {
    /// Shortest; default: the length of `cidr`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub min: Option<u8>,

    /// Longest; default: 32 or 128.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 128))]
    pub max: Option<u8>,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteSource {
    /// Learnt by BGP.
    RemotePeers,
}

/// Kind of session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SessionType {
    /// Between different ASes.
    #[serde(rename = "eBGP")]
    External,
    /// Within one AS.
    #[serde(rename = "iBGP")]
    Internal,
}

/// Communities that a route must carry.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CommunityMatch {
    /// `aa:nn` or `aa:nn:mm`.
    #[schemars(length(min = 1, max = 1), inner(length(min = 3, max = 32)))]
    pub values: Vec<String>,
}

/// What to do with a route that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterAction {
    /// Take it, changed by `operations`.
    Accept,
    /// Drop it.
    Reject,
}

/// One change to a route; exactly one field is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.addCommunity), has(self.prependASPath), has(self.setPriority)].filter(p, p).size() == 1").message("an operation has exactly one of addCommunity, prependASPath, setPriority"))]
pub struct FilterOperation {
    /// Add a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<AddCommunity>,

    /// Put AS numbers in front of the path.
    #[serde(
        default,
        rename = "prependASPath",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_as_path: Option<PrependAsPath>,

    /// Set the priority.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<SetPriority>,
}

/// Add a community.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddCommunity {
    /// `aa:nn` or `aa:nn:mm`.
    #[schemars(schema_with = "schema::community")]
    pub value: String,
}

/// Put AS numbers in front of the path.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrependAsPath {
    /// In the order in which the path shall read.
    #[schemars(length(min = 1, max = 10))]
    pub prefix: Vec<u32>,
}

/// Set the priority.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetPriority {
    /// Lower is preferred.
    #[schemars(range(min = 1, max = 2147483646))]
    pub value: u32,
}
