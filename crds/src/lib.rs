//! The resource types of `caracal.dev/v1alpha1`.
//!
//! Owns: the Rust types, their schemas with CEL rules and printer columns, the condition types and
//! reasons, the selector language, the generated YAML, and the reading of the same resources from
//! manifest files. Does not own: what a resource makes a component do, or any access to an API
//! server.
//!
//! The types accept unknown fields, as every Kubernetes client must, because a newer server may
//! send more than this build knows. Files written by people are read by [`manifest`], where an
//! unknown field is an error with its line.

#![expect(
    clippy::duplicated_attributes,
    reason = "two printer columns of one type are not a repetition"
)]
#![expect(
    unreachable_pub,
    reason = "the schema derive repeats each public type inside a private function"
)]

mod address;
mod authentication;
mod bfd;
mod bgp_configuration;
mod bgp_filter;
mod bgp_peer;
pub mod conditions;
mod duration;
mod generate;
mod ip_block;
mod ip_pool;
pub mod manifest;

mod node_network_status;
pub mod reasons;
mod schema;
pub mod selector;

pub use address::{AddressRange, PeerAddress};
pub use authentication::{PasswordSource, SecretKeyRef, TcpAo, TcpAoAlgorithm, TcpAoKey};
pub use bfd::{Bfd, OnBfdFailure};
pub use bgp_configuration::{
    BgpConfiguration, BgpConfigurationSpec, BindMode, BmpRoutes, BmpStation, GracefulRestart,
    GracefulShutdown, InvalidRouterId, MrtDump, NamedCommunity, OriginValidation, OriginatedPrefix,
    PrefixAdvertisement, RouterIdSource, ServiceAggregation, ServiceRange,
};
pub use bgp_filter::{
    AddCommunity, AddMed, BgpFilter, BgpFilterRule, BgpFilterSpec, CommunityMatch, EntryOperator,
    FilterAction, FilterOperation, MatchOperator, NextHopTarget, NoArguments, NumberRange,
    PrefixEntry, PrefixLengthRange, PrependAsPath, RemoveCommunity, RouteOrigin, RouteSource,
    SessionType, SetCommunities, SetNextHop, SetNumber, SetOrigin, SetPriority,
};
pub use bgp_peer::{
    AddPath, AddPathSend, AdminDown, BgpPeer, BgpPeerSpec, Family, MaxPrefixAction, MaxPrefixes,
    NextHopMode, PeerAs, PeerGracefulRestart, PeerRole, RemovePrivateAs, ReversePeering,
    SourceAddress,
};
pub use duration::DurationString;
pub use generate::{all, file_name, yaml};
pub use ip_block::{
    BlockPhase, IpBlock, IpBlockRequest, IpBlockRequestSpec, IpBlockRequestStatus, IpBlockSpec,
    IpBlockStatus,
};
pub use ip_pool::{
    AddressCounts, BlockCounts, IpPool, IpPoolSpec, IpPoolStatus, PoolUse, Subnet, SubnetState,
};
pub use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
pub use node_network_status::{
    BlockSummary, DataplaneSummary, ErrorDirection, NodeNetworkStatus, NodeNetworkStatusSpec,
    NodeNetworkStatusStatus, PrefixCounts, RejectedRoutes, RouteCounts, SessionError, SessionState,
    SessionStatus,
};

/// API group of every resource of this crate.
pub const GROUP: &str = "caracal.dev";

/// The only served and stored version.
pub const VERSION: &str = "v1alpha1";

/// Label or annotation of a Node that makes it a route reflector, with its cluster identifier in
/// dotted notation (RFC 4456); the label counts where both are there.
pub const ROUTE_REFLECTOR_CLUSTER_ID: &str = "caracal.dev/route-reflector-cluster-id";

/// Label on an [`IpBlock`] with the name of the node that holds it.
pub const LABEL_NODE: &str = "caracal.dev/node";

/// Label on an [`IpBlock`] with the name of its pool.
pub const LABEL_POOL: &str = "caracal.dev/pool";
