//! What a speaker is told to do, as plain data.
//!
//! Owns the shape of the whole desired state: [`crate::SpeakerHandle::apply`] compares an old and
//! a new value and touches only the peers whose part differs. Does not own where it comes from
//! (resources, files) nor its text form. What a change costs is in [`Change`].

mod change;
mod peer;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::policy::InterfaceGlob;
pub use caracal_bgp_core::policy::{
    ExportPolicy, ImportPolicy, Policy, PrefixMatch, Rule, Verdict,
};
pub use caracal_bgp_core::rib::{NextHopMode, OriginCheck, PrivateAs};
use caracal_bgp_core::types::{Asn, Prefix, RouterId};
pub use caracal_bgp_core::types::{BgpRole, PeerAs};
use caracal_bgp_core::wire::{Community, LargeCommunity};

pub use crate::net::ao::{AoAlgorithm, AoKey, AoKeyId, AoKeys};
pub use crate::net::{Auth, Secret};
pub use change::Change;
pub use peer::{
    Activation, AddPath, AddPathSend, BfdConfig, Endpoint, Lack, MaxPrefixAction, MaxPrefixes,
    OnBfdFailure, PeerConfig, PeerName, Ttl,
};

/// The port that IANA gave BGP.
pub const BGP_PORT: u16 = 179;

/// The whole desired state of one speaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpeakerConfig {
    /// The AS that the speaker belongs to. A change restarts every session.
    pub asn: Asn,
    /// BGP identifier, not zero (RFC 6286). A change restarts every session.
    pub router_id: RouterId,
    /// The cluster for which the speaker reflects; [`SpeakerConfig::router_id`] when absent
    /// (RFC 4456 §7).
    pub cluster_id: Option<RouterId>,
    /// Where to wait for peers; `None` listens nowhere.
    pub listen: Option<ListenConfig>,
    /// Whether learnt routes are told on. A node's speaker announces only its own.
    pub transit: bool,
    /// The most next hops of one route, at least 1.
    pub maximum_paths: usize,
    /// Whether paths of equal length but different ASes share the load.
    pub multipath_relax: bool,
    /// Graceful restart (RFC 4724), both roles.
    pub graceful_restart: GracefulRestartConfig,
    /// Whether this start follows a crash or restart during which the kernel kept forwarding:
    /// sets the Restart State and Forwarding State bits of the first OPENs and defers selection.
    /// Read at start only.
    pub restarting: bool,
    /// Sessions by name.
    pub peers: BTreeMap<PeerName, PeerConfig>,
    /// Own routes. They are announced at once and never written to the FIB.
    pub originate: BTreeMap<Prefix, Origination>,
    /// Prefixes that are ours alone: they and everything inside them are never accepted from a
    /// peer (own blocks, own loopbacks).
    pub protected: Vec<Prefix>,
    /// Blocks and who holds them, by prefix, and nodes' addresses likewise: what a peer with
    /// [`PeerConfig::validate_origin`] may announce of them. The longest that holds a prefix counts.
    /// Empty where nobody asks.
    pub blocks: Vec<(Prefix, Arc<BlockOwner>)>,
    /// Interfaces whose addresses are never named as next hop and whose subnets count as shared
    /// with nobody.
    pub ignored_interfaces: Vec<InterfaceGlob>,
    /// Stations that watch.
    pub bmp: Vec<BmpStation>,
    /// Dumps to files.
    pub mrt: Option<MrtDump>,
}

impl SpeakerConfig {
    /// A speaker that listens on the BGP port of every address and has no peers.
    pub fn new(asn: Asn, router_id: RouterId) -> Self {
        Self {
            asn,
            router_id,
            cluster_id: None,
            listen: Some(ListenConfig::default()),
            transit: false,
            maximum_paths: 16,
            multipath_relax: false,
            graceful_restart: GracefulRestartConfig::default(),
            restarting: false,
            peers: BTreeMap::new(),
            originate: BTreeMap::new(),
            protected: Vec::new(),
            blocks: Vec::new(),
            ignored_interfaces: Vec::new(),
            bmp: Vec::new(),
            mrt: None,
        }
    }
}

/// Where the speaker waits for connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenConfig {
    /// Local addresses; empty means every address of both families.
    pub addrs: Vec<IpAddr>,
    /// TCP port.
    pub port: u16,
}

impl Default for ListenConfig {
    fn default() -> Self {
        Self {
            addrs: Vec::new(),
            port: BGP_PORT,
        }
    }
}

/// Graceful restart (RFC 4724) with notifications (RFC 8538). Whom it is offered to, each peer says:
/// [`PeerConfig::graceful_restart`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestartConfig {
    /// How long peers are asked to keep our routes while we are away; at most 4095 s on the wire.
    pub restart_time: Duration,
    /// How long stale routes of a peer that came back stay without its End-of-RIB.
    pub stale_time: Duration,
    /// How long our own selection waits for the End-of-RIB of our peers after a restart
    /// (RFC 4724 §4.1, Selection_Deferral_Timer).
    pub selection_deferral: Duration,
    /// How long routes are kept, at the lowest preference, beyond the restart time (RFC 9494);
    /// zero does not offer it.
    pub long_lived_stale_time: Duration,
}

impl Default for GracefulRestartConfig {
    fn default() -> Self {
        Self {
            restart_time: Duration::from_secs(120),
            stale_time: Duration::from_secs(360),
            selection_deferral: Duration::from_secs(30),
            long_lived_stale_time: Duration::ZERO,
        }
    }
}

/// Who holds a block of addresses, for judging who may announce it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOwner {
    /// Name of the node.
    pub node: String,
    /// Identifiers that its speaker may have; they count behind a reflector.
    pub router_ids: Vec<RouterId>,
    /// Addresses of the node; they count on sessions with the node itself.
    pub addresses: Vec<IpAddr>,
    /// The node is not there any more, or another one of the same name took its place, or nobody is
    /// known to hold the block: the record may be out of date, so nobody is refused for it.
    pub stale: bool,
}

/// A station that is told about sessions and routes by BMP (RFC 7854).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BmpStation {
    /// Where it listens.
    pub address: SocketAddr,
    /// What it is told, ascending and without duplicates.
    pub routes: Vec<BmpRoutes>,
    /// How often it is told counts (RFC 7854 §4.8); not zero.
    pub report_interval: Duration,
}

/// Routes that a BMP station is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BmpRoutes {
    /// What peers tell, before any policy (RFC 7854 §5).
    PrePolicy,
    /// What of it is used (RFC 7854 §5).
    PostPolicy,
    /// What was picked (RFC 9069).
    LocRib,
    /// What peers are told, after any policy (RFC 8671).
    AdjRibOut,
}

/// Dumps in MRT format (RFC 6396).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MrtDump {
    /// Existing folder for the files.
    pub directory: PathBuf,
    /// Whether messages and state changes are written, and when a new file of them begins.
    pub updates: Option<Duration>,
    /// How often the whole table is written.
    pub tables: Option<Duration>,
}

/// What an own route carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origination {
    /// COMMUNITIES.
    pub communities: Vec<Community>,
    /// LARGE_COMMUNITY.
    pub large_communities: Vec<LargeCommunity>,
    /// MULTI_EXIT_DISC for external peers.
    pub med: Option<u32>,
    /// LOCAL_PREF for internal peers; 100 when absent.
    pub local_pref: Option<u32>,
}
