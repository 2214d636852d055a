//! BGPPeer: whom a speaker talks to.

use std::net::IpAddr;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DurationString, PeerAddress, schema};

/// A session that the selected speakers have.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.node) || !has(self.nodeSelector)").message("node and nodeSelector exclude each other"),
    validation = Rule::new("!has(self.localAddress) || self.localAddress.contains(':') == (self.peerIP.split(':').size() > 2)").message("localAddress and peerIP are of one family").field_path(".localAddress"),
)]
pub struct BgpPeerSpec {
    /// The one node that uses this peer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub node: Option<String>,

    /// The nodes that use this peer. Default, where `node` is absent too: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::selector")]
    pub node_selector: Option<String>,

    /// Address of the peer, with its port where that is not the configuration's `listenPort`.
    #[serde(rename = "peerIP")]
    pub peer_ip: PeerAddress,

    /// Own address of the session. Default: the kernel's choice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::ip")]
    pub local_address: Option<IpAddr>,

    /// AS number of the peer; equal to our own means iBGP.
    #[schemars(schema_with = "schema::asn")]
    pub as_number: u32,

    /// Address families to offer. Default: both.
    #[serde(default = "Family::all")]
    #[schemars(length(min = 1, max = 2))]
    #[x_kube(validation = Rule::new("self.all(f, self.filter(g, g == f).size() == 1)").message("each family at most once"))]
    pub families: Vec<Family>,

    /// Whose address the routes sent carry as next hop.
    #[serde(default)]
    pub next_hop_mode: NextHopMode,

    /// Wait for the peer to connect.
    #[serde(default)]
    pub passive: bool,

    /// Hold time to propose. Default: the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::hold_time")]
    pub hold_time: Option<DurationString>,

    /// How long to wait between attempts to connect. Default: the configuration's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_retry_time: Option<DurationString>,

    /// Reflect routes to and from this iBGP peer (RFC 4456).
    #[serde(default)]
    pub route_reflector_client: bool,
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
