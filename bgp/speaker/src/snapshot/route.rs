//! Routes as a speaker tells them.

use std::net::IpAddr;

use caracal_bgp_core::types::Prefix;
use serde::{Deserialize, Serialize};

use super::text;

/// What is said about one prefix. In a listing of what one peer told, was told or was not told, only
/// paths of that kind are in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSnapshot {
    /// Which prefix.
    #[serde(with = "text")]
    pub prefix: Prefix,
    /// Where the route stands on its way to the kernel.
    pub fib: FibSnapshot,
    /// Whether peers are told about it, policies permitting.
    pub announced: bool,
    /// All paths: the best first, then the others of its multipath set, then the rest.
    pub paths: Vec<PathSnapshot>,
}

/// Where a route stands on its way to the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state", content = "why")]
pub enum FibSnapshot {
    /// Own routes and unusable ones have nothing to install.
    None,
    /// Handed over, not yet acknowledged.
    Pending,
    /// In the kernel.
    Installed,
    /// Refused, with the reason.
    Failed(String),
}

/// What the kernel holds at a prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelSnapshot {
    /// The route.
    #[serde(flatten)]
    pub route: KernelRoute,
    /// Whether it is the one that should be there.
    pub in_sync: bool,
    /// When the kernel was last asked for all that it holds, milliseconds since the Unix epoch; what it
    /// has told of since is taken in.
    pub checked_ms: u64,
}

/// A route in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum KernelRoute {
    /// None of ours, nor another in its place.
    Absent,
    /// One of ours.
    Forwarding {
        /// Its protocol, as `ip route` shows it.
        protocol: u8,
        /// Where packets go.
        next_hops: Vec<KernelNextHop>,
    },
    /// One of ours by which packets are dropped.
    Dropping {
        /// Its protocol.
        protocol: u8,
    },
    /// Another program's in the place of ours.
    Foreign {
        /// Its protocol.
        protocol: u8,
    },
}

/// A next hop in the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelNextHop {
    /// The gateway.
    pub address: IpAddr,
    /// The name of the interface that leads there.
    pub interface: String,
}

/// One path to a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathSnapshot {
    /// The peer that told it, or `local`; empty where that is not known.
    pub from: String,
    /// Which of several that one peer tells (RFC 7911), zero where it tells one.
    pub path_id: u32,
    /// Where its packets go; `None` for own routes.
    pub next_hop: Option<IpAddr>,
    /// AS_PATH as text.
    pub as_path: String,
    /// ORIGIN as text.
    pub origin: String,
    /// LOCAL_PREF as used in the selection, or as told; absent where a peer is told none.
    pub local_pref: Option<u32>,
    /// MULTI_EXIT_DISC.
    pub med: Option<u32>,
    /// COMMUNITIES as text.
    pub communities: Vec<String>,
    /// LARGE_COMMUNITY as text.
    pub large_communities: Vec<String>,
    /// EXTENDED COMMUNITIES, each as `0x` and 16 digits.
    pub extended_communities: Vec<String>,
    /// Whether ATOMIC_AGGREGATE is there.
    pub atomic_aggregate: bool,
    /// AGGREGATOR: AS number and router.
    pub aggregator: Option<String>,
    /// ORIGINATOR_ID.
    pub originator_id: Option<String>,
    /// CLUSTER_LIST as text.
    pub cluster_list: Vec<String>,
    /// Whether it won.
    pub best: bool,
    /// Whether packets use it: the best path and those that share its load.
    pub multipath: bool,
    /// Whether it is kept from before the peer's restart.
    pub stale: bool,
    /// Whether it lies in a block, and nobody can say if it comes from the node that holds it.
    pub unconfirmed: bool,
    /// Why it cannot be used, or is not told, if so.
    pub rejected: Option<String>,
    /// The step of the selection at which it lost, if it did.
    pub lost_at: Option<String>,
}

/// The answer to "why does this prefix go where it goes?".
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// What was asked.
    #[serde(with = "text")]
    pub asked: Prefix,
    /// The longest prefix in the table that covers it, with all its paths.
    pub route: Option<RouteSnapshot>,
    /// What the kernel holds there; absent where nothing is forwarded, or where the FIB was too busy to
    /// say.
    pub kernel: Option<KernelSnapshot>,
    /// The decision in sentences, in their order.
    pub sentences: Vec<String>,
    /// What the import policy made of each path, in the order of the paths; own routes have none.
    pub import: Vec<PolicyTrace>,
    /// What each peer with a session is told, by name.
    pub told: Vec<ToldSnapshot>,
}

/// What a policy made of one path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyTrace {
    /// The peer that told the path.
    pub from: String,
    /// Which of its paths.
    pub path_id: u32,
    /// Rule by rule, then the verdict.
    pub steps: Vec<String>,
}

/// What one peer is told of a route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldSnapshot {
    /// Which.
    pub peer: String,
    /// The next hop that it is told; absent when it is told nothing.
    pub next_hop: Option<IpAddr>,
    /// Why it is told nothing.
    pub withheld: Option<String>,
}
