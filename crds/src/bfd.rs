//! Bidirectional forwarding detection, as peers and the mesh have it.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{DurationString, PasswordSource, schema};

/// Bidirectional forwarding detection.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.minimumTTL) || (has(self.multiHop) && self.multiHop)").message("minimumTTL needs multiHop").field_path(".minimumTTL"))]
pub struct Bfd {
    /// Watch the path to the peer. Default true.
    #[serde(default = "yes")]
    pub enabled: bool,

    /// The shortest time between packets that we send. Default 300ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bfd_interval")]
    pub minimum_transmit_interval: Option<DurationString>,

    /// The shortest time between packets that we can take. Default 300ms.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::bfd_interval")]
    pub minimum_receive_interval: Option<DurationString>,

    /// How many packets in a row must be missing before the path counts as down. Default 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 255))]
    pub detect_multiplier: Option<u8>,

    /// Whether routers may stand between (RFC 5883). Default: for iBGP peers, and eBGP peers with
    /// `ebgpMultiHop` or a `ttlSecurity` of more than one hop.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub multi_hop: Option<bool>,

    /// Packets of a multi-hop session that arrive with a lower TTL are dropped. Default: all pass.
    #[serde(
        default,
        rename = "minimumTTL",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(range(min = 1, max = 254))]
    pub minimum_ttl: Option<u8>,

    /// Establish no session before BFD is up: it waits when both sides have said who they are, and the peer is
    /// told so. Default false.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strict: Option<bool>,

    /// What a failure of BFD means where the peer's BFD may have ended with its BGP alone: the peer says
    /// so with its C bit (RFC 5880 §4.1). Where it says otherwise, the path is dead. Default
    /// PreferFailover.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnBfdFailure>,

    /// Key of meticulous keyed SHA1 authentication, 1 to 20 octets. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<PasswordSource>,
}

/// What to take a failure of BFD for that may be one of the peer's control plane alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum OnBfdFailure {
    /// For a dead path: the peer's routes go at once, also those that were kept across a restart.
    #[default]
    PreferFailover,
    /// For a restart of the peer: routes stay for its restart time, as graceful restart allows.
    PreferRestart,
}

fn yes() -> bool {
    true
}
