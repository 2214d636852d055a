//! BGPFilter: ordered rules for what is taken from and given to peers.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// Ordered rules; the first that accepts or rejects decides. A route that none does goes on to the
/// next filter of the peer, and after the last one to the default policy.
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
        name = "Description",
        type_ = "string",
        json_path = ".spec.description"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BgpFilterSpec {
    /// What the filter is for, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub description: Option<String>,

    /// For IPv4 routes sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "exportV4")]
    #[schemars(length(max = 100))]
    #[x_kube(
        validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 4)").message("rules of this list have IPv4 prefixes"),
        validation = Rule::new("self.all(r, !has(r.prefixes) || r.prefixes.all(p, cidr(p.cidr).ip().family() == 4))").message("rules of this list have IPv4 prefixes"),
        validation = Rule::new("self.all(r, !has(r.operations) || r.operations.all(o, !has(o.setNextHop) || !has(o.setNextHop.mode) || o.setNextHop.mode != 'PeerAddress'))").message("setNextHop.mode PeerAddress is for import: a peer is not told that it is its own next hop"),
    )]
    pub export_v4: Vec<BgpFilterRule>,

    /// For IPv4 routes received.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "importV4")]
    #[schemars(length(max = 100))]
    #[x_kube(
        validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 4)").message("rules of this list have IPv4 prefixes"),
        validation = Rule::new("self.all(r, !has(r.prefixes) || r.prefixes.all(p, cidr(p.cidr).ip().family() == 4))").message("rules of this list have IPv4 prefixes"),
        validation = Rule::new("self.all(r, !has(r.operations) || r.operations.all(o, !has(o.setNextHop) || !has(o.setNextHop.mode) || o.setNextHop.mode == 'PeerAddress'))").message("setNextHop.mode Self and Unchanged are for export"),
    )]
    pub import_v4: Vec<BgpFilterRule>,

    /// For IPv6 routes sent.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "exportV6")]
    #[schemars(length(max = 100))]
    #[x_kube(
        validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 6)").message("rules of this list have IPv6 prefixes"),
        validation = Rule::new("self.all(r, !has(r.prefixes) || r.prefixes.all(p, cidr(p.cidr).ip().family() == 6))").message("rules of this list have IPv6 prefixes"),
        validation = Rule::new("self.all(r, !has(r.operations) || r.operations.all(o, !has(o.setNextHop) || !has(o.setNextHop.mode) || o.setNextHop.mode != 'PeerAddress'))").message("setNextHop.mode PeerAddress is for import: a peer is not told that it is its own next hop"),
        validation = Rule::new("self.all(r, !has(r.operations) || r.operations.all(o, !has(o.setNextHop) || !has(o.setNextHop.address) || ip(o.setNextHop.address).family() == 6))").message("IPv6 routes have IPv6 next hops"),
    )]
    pub export_v6: Vec<BgpFilterRule>,

    /// For IPv6 routes received.
    #[serde(default, skip_serializing_if = "Vec::is_empty", rename = "importV6")]
    #[schemars(length(max = 100))]
    #[x_kube(
        validation = Rule::new("self.all(r, !has(r.cidr) || cidr(r.cidr).ip().family() == 6)").message("rules of this list have IPv6 prefixes"),
        validation = Rule::new("self.all(r, !has(r.prefixes) || r.prefixes.all(p, cidr(p.cidr).ip().family() == 6))").message("rules of this list have IPv6 prefixes"),
        validation = Rule::new("self.all(r, !has(r.operations) || r.operations.all(o, !has(o.setNextHop) || !has(o.setNextHop.mode) || o.setNextHop.mode == 'PeerAddress'))").message("setNextHop.mode Self and Unchanged are for export"),
        validation = Rule::new("self.all(r, !has(r.operations) || r.operations.all(o, !has(o.setNextHop) || !has(o.setNextHop.address) || ip(o.setNextHop.address).family() == 6))").message("IPv6 routes have IPv6 next hops"),
    )]
    pub import_v6: Vec<BgpFilterRule>,
}

/// One rule: every condition given must hold.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.cidr) == has(self.matchOperator)").message("cidr and matchOperator come together"),
    validation = Rule::new("!has(self.prefixLength) || has(self.cidr)").message("prefixLength needs a cidr").field_path(".prefixLength"),
    validation = Rule::new("!has(self.operations) || self.action != 'Reject'").message("operations need action Accept or Continue").field_path(".operations"),
    validation = Rule::new("!has(self.priority) || !has(self.localPref)").message("priority and localPref are one value in two notations").field_path(".priority"),
)]
pub struct BgpFilterRule {
    /// What `caracal bgp explain` calls the rule. Default: its place in the list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub name: Option<String>,

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

    /// Prefixes of which one must match.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub prefixes: Vec<PrefixEntry>,

    /// Where the route comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<RouteSource>,

    /// Name of the interface of the session that told the route, which is the one with our own address
    /// on it: `lo` between loopbacks, whichever way packets take. `*` stands for any characters, `?` for
    /// one. Own routes have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 15))]
    pub interface: Option<String>,

    /// Kind of session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer_type: Option<SessionType>,

    /// Communities of the route.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub communities: Option<CommunityMatch>,

    /// AS numbers with which the path begins: the latest AS first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub as_path_prefix: Vec<u32>,

    /// Regular expression that is found in the path, such as `_65001_` or `^65001(_65001)*$`. `_`
    /// stands for the beginning, the end and the space between two numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub as_path_regex: Option<String>,

    /// Count of numbers in the path, repetitions included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub as_path_length: Option<NumberRange>,

    /// How the route entered BGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<RouteOrigin>,

    /// MULTI_EXIT_DISC. A route without one does not match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub med: Option<NumberRange>,

    /// LOCAL_PREF; 100 where a route has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_pref: Option<NumberRange>,

    /// Priority of the route: 2147483647 less LOCAL_PREF.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 2147483646))]
    pub priority: Option<u32>,

    /// Prefixes of which one holds the next hop that was told.
    #[serde(
        default,
        rename = "nextHopCIDRs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(schema_with = "schema::cidrs::<0, 16>")]
    pub next_hop_cidrs: Vec<IpNetwork>,

    /// What to do with a route that matches.
    pub action: FilterAction,

    /// Changes to a route that goes on, made in order.
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
#[x_kube(validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min is at most max"))]
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

/// One of several prefixes.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixEntry {
    /// The prefix.
    #[schemars(schema_with = "schema::cidr")]
    pub cidr: IpNetwork,

    /// Whether more specific prefixes match too. Default In: they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_operator: Option<EntryOperator>,

    /// Lengths that a prefix within `cidr` may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_length: Option<PrefixLengthRange>,
}

/// How a prefix compares with one of several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum EntryOperator {
    /// The same prefix.
    Equal,
    /// The same or more specific.
    In,
}

/// Numbers, both ends included.
#[derive(KubeSchema, Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.min) || has(self.max)").message("give min, max or both"),
    validation = Rule::new("!has(self.min) || !has(self.max) || self.min <= self.max").message("min is at most max"),
)]
pub struct NumberRange {
    /// Lowest. Default 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub min: Option<u32>,

    /// Highest. Default 4294967295.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::number")]
    pub max: Option<u32>,
}

/// Where a route comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteSource {
    /// Learnt by BGP.
    RemotePeers,
    /// Learnt by BGP from another AS.
    ExternalPeers,
    /// Learnt by BGP from our own AS.
    InternalPeers,
    /// Originated by this speaker.
    Local,
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

/// How a route entered BGP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RouteOrigin {
    /// Interior to the originating AS.
    #[serde(rename = "IGP")]
    Igp,
    /// Learnt by EGP.
    #[serde(rename = "EGP")]
    Egp,
    /// By some other means.
    Incomplete,
}

/// Communities that a route must carry. Every list given must be satisfied. Each entry is `aa:nn`
/// or the name of a well-known community, `aa:nn:mm` (large), `rt:aa:nn`, `soo:aa:nn` or `0x` and
/// 16 digits (extended); a part may be `*`.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.values) || has(self.anyOf) || has(self.allOf)").message("give values, anyOf or allOf"))]
pub struct CommunityMatch {
    /// The one that the route must carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::community_patterns::<1, 1>")]
    pub values: Vec<String>,

    /// Those of which the route must carry one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::community_patterns::<1, 16>")]
    pub any_of: Vec<String>,

    /// Those which the route must all carry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::community_patterns::<1, 16>")]
    pub all_of: Vec<String>,
}

/// What to do with a route that matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum FilterAction {
    /// Take it, changed by `operations`.
    Accept,
    /// Drop it.
    Reject,
    /// Change it by `operations` and go on with the next rule, which sees what it has become.
    Continue,
}

/// One change to a route; exactly one field is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.addCommunity), has(self.removeCommunity), has(self.setCommunities), has(self.prependASPath), has(self.setPriority), has(self.setLocalPref), has(self.setMED), has(self.addMED), has(self.removeMED), has(self.setOrigin), has(self.setNextHop), has(self.blackhole)].filter(p, p).size() == 1").message("an operation has exactly one of addCommunity, removeCommunity, setCommunities, prependASPath, setPriority, setLocalPref, setMED, addMED, removeMED, setOrigin, setNextHop, blackhole"))]
pub struct FilterOperation {
    /// Add a community.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub add_community: Option<AddCommunity>,

    /// Remove communities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remove_community: Option<RemoveCommunity>,

    /// Replace all communities of the kinds given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_communities: Option<SetCommunities>,

    /// Put AS numbers in front of the path.
    #[serde(
        default,
        rename = "prependASPath",
        skip_serializing_if = "Option::is_none"
    )]
    pub prepend_as_path: Option<PrependAsPath>,

    /// Set the priority, and LOCAL_PREF with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_priority: Option<SetPriority>,

    /// Set LOCAL_PREF. Peers of other ASes are told none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_local_pref: Option<SetNumber>,

    /// Set MULTI_EXIT_DISC.
    #[serde(default, rename = "setMED", skip_serializing_if = "Option::is_none")]
    pub set_med: Option<SetNumber>,

    /// Add to MULTI_EXIT_DISC.
    #[serde(default, rename = "addMED", skip_serializing_if = "Option::is_none")]
    pub add_med: Option<AddMed>,

    /// Remove MULTI_EXIT_DISC.
    #[serde(default, rename = "removeMED", skip_serializing_if = "Option::is_none")]
    pub remove_med: Option<NoArguments>,

    /// Set ORIGIN.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_origin: Option<SetOrigin>,

    /// Name another next hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub set_next_hop: Option<SetNextHop>,

    /// Drop the packets of the route on this speaker, and tell it to no other AS (RFC 7999).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blackhole: Option<NoArguments>,
}

/// Add a community.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddCommunity {
    /// `aa:nn` or a well-known name, `aa:nn:mm`, `rt:aa:nn`, `soo:aa:nn`, or `0x` and 16 digits.
    #[schemars(schema_with = "schema::any_community")]
    pub value: String,
}

/// Remove communities.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoveCommunity {
    /// As in `addCommunity`; a part may be `*`. `*:*` removes all standard ones.
    #[schemars(schema_with = "schema::community_pattern")]
    pub value: String,
}

/// Replace communities. Kinds that are absent stay; an empty list leaves none of its kind.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.standard) || has(self.extended) || has(self.large)").message("give standard, extended or large"))]
pub struct SetCommunities {
    /// `aa:nn` or well-known names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::standard_communities::<0, 8>")]
    pub standard: Option<Vec<String>>,

    /// `rt:aa:nn`, `soo:aa:nn`, or `0x` and 16 digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::extended_communities::<0, 8>")]
    pub extended: Option<Vec<String>>,

    /// `aa:nn:mm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::large_communities::<0, 8>")]
    pub large: Option<Vec<String>>,
}

/// Put AS numbers in front of the path.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrependAsPath {
    /// In the order in which the path shall read.
    #[schemars(schema_with = "schema::asns::<1, 10>")]
    pub prefix: Vec<u32>,
}

/// Set the priority.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetPriority {
    /// Lower is preferred: LOCAL_PREF becomes 2147483647 less this.
    #[schemars(range(min = 1, max = 2147483646))]
    pub value: u32,
}

/// Set a number.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetNumber {
    /// The number.
    #[schemars(schema_with = "schema::number")]
    pub value: u32,
}

/// Add to MULTI_EXIT_DISC.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AddMed {
    /// What to add, negative to subtract; the result stays within its range. A route without MED
    /// counts as 0.
    #[schemars(range(min = -4294967295_i64, max = 4294967295_i64))]
    pub value: i64,
}

/// An operation that says all by its name.
#[derive(KubeSchema, Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NoArguments {}

/// Set ORIGIN.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SetOrigin {
    /// The new one.
    pub value: RouteOrigin,
}

/// Name another next hop; exactly one field is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.address) != has(self.mode)").message("give address or mode"))]
pub struct SetNextHop {
    /// This address. On export, the route is withheld from a peer whose session cannot carry it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip")]
    pub address: Option<IpAddr>,

    /// One that depends on the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<NextHopTarget>,
}

/// A next hop that depends on the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NextHopTarget {
    /// On export: ourselves, as the peer reaches us.
    #[serde(rename = "Self")]
    Own,
    /// On import: the peer, whatever it named.
    PeerAddress,
    /// On export: as it was learnt, whatever `nextHopMode` says; ourselves where the learnt one is
    /// link-local or of a family that the session cannot carry.
    Unchanged,
}
