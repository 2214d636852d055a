//! BGPConfiguration: what a speaker is.

use std::net::Ipv4Addr;

use ipnetwork::IpNetwork;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use crate::{DurationString, schema};

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
)]
#[serde(rename_all = "camelCase")]
pub struct BgpConfigurationSpec {
    /// Own AS number. Default 64512.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::asn")]
    pub as_number: Option<u32>,

    /// BGP identifier. Default: the node's IPv4 address.
    #[serde(default, rename = "routerID", skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::router_id")]
    pub router_id: Option<Ipv4Addr>,

    /// TCP port to listen on, and to connect to where a peer names none. Default 179.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub listen_port: Option<u16>,

    /// Whether all nodes peer with each other by iBGP. Default true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_to_node_mesh_enabled: Option<bool>,

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

    /// How long to wait between attempts to connect. Default 1s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_time: Option<DurationString>,

    /// Graceful restart, RFC 4724.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graceful_restart: Option<GracefulRestart>,

    /// Names for communities, used by `prefixAdvertisements`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub communities: Vec<NamedCommunity>,

    /// Prefixes to originate, with their communities.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 100))]
    pub prefix_advertisements: Vec<PrefixAdvertisement>,
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

/// A prefix to originate.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrefixAdvertisement {
    /// The prefix.
    #[schemars(schema_with = "schema::cidr")]
    pub cidr: IpNetwork,

    /// Names from `communities`, or `aa:nn` or `aa:nn:mm`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub communities: Vec<String>,
}
