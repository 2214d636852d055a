//! What a speaker is told to do, as plain data.
//!
//! Owns the shape of the whole desired state: [`crate::SpeakerHandle::apply`] compares an old and
//! a new value and touches only the peers whose part differs. Does not own where it comes from
//! (resources, files) nor its text form.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

pub use caracal_bgp_core::policy::{
    ExportPolicy, ImportPolicy, Policy, PrefixMatch, Rule, Verdict,
};
pub use caracal_bgp_core::rib::NextHopMode;
use caracal_bgp_core::types::{Asn, Family, Prefix, RouterId};
use caracal_bgp_core::wire::{Community, LargeCommunity};

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

/// Graceful restart (RFC 4724) with notifications (RFC 8538).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GracefulRestartConfig {
    /// Whether the capability is offered at all.
    pub enabled: bool,
    /// How long peers are asked to keep our routes while we are away; at most 4095 s on the wire.
    pub restart_time: Duration,
    /// How long stale routes of a peer that came back stay without its End-of-RIB.
    pub stale_time: Duration,
    /// How long our own selection waits for the End-of-RIB of our peers after a restart
    /// (RFC 4724 §4.1, Selection_Deferral_Timer).
    pub selection_deferral: Duration,
}

impl Default for GracefulRestartConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            restart_time: Duration::from_secs(120),
            stale_time: Duration::from_secs(360),
            selection_deferral: Duration::from_secs(30),
        }
    }
}

/// What a peer is called: the key of everything kept about it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName(pub String);

impl From<&str> for PeerName {
    fn from(name: &str) -> Self {
        Self(name.to_owned())
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// Address and port to dial; connections from the address are this peer's, whatever their
    /// port.
    pub remote: SocketAddr,
    /// Address to dial from; also restricts which incoming connections are this peer's.
    pub local_address: Option<IpAddr>,
    /// The AS that the peer must name in its OPEN.
    pub asn: Asn,
    /// Families to offer; one session carries them all.
    pub families: Vec<Family>,
    /// Hold time to offer: zero or at least 3 s (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// Pause before the peer is dialled again.
    pub connect_retry: Duration,
    /// Wait for the peer to connect; never dial.
    pub passive: bool,
    /// Which next hop the peer is told.
    pub next_hop_mode: NextHopMode,
    /// Next hop to name for IPv4 routes where the rules say "self"; otherwise the session's local
    /// address, or an IPv4 address of its interface.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Next hop to name for IPv6 routes where the rules say "self"; otherwise the session's local
    /// address, or a global IPv6 address of its interface.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Whether the peer is a client of this route reflector (RFC 4456). Internal peers only.
    pub route_reflector_client: bool,
    /// Which of its routes are accepted.
    pub import: ImportPolicy,
    /// Which routes it is told, among those that the protocol's rules allow.
    pub export: ExportPolicy,
    /// Whether the graceful restart capability is offered to this peer.
    pub graceful_restart: bool,
    /// TTL or hop limit of outgoing packets. `None`: 1 for an external peer on a connected subnet,
    /// as routers expect, so that the session dies with its link; else the system's default.
    pub ttl: Option<u8>,
}

impl PeerConfig {
    /// A session with both families, hold time 90 s, retries within 1 s, that accepts and exports
    /// everything.
    pub fn new(remote: SocketAddr, asn: Asn) -> Self {
        Self {
            remote,
            local_address: None,
            asn,
            families: Family::ALL.to_vec(),
            hold_time: Duration::from_secs(90),
            connect_retry: Duration::from_secs(1),
            passive: false,
            next_hop_mode: NextHopMode::Auto,
            next_hop_v4: None,
            next_hop_v6: None,
            route_reflector_client: false,
            import: Policy::accept_all(),
            export: Policy::accept_all(),
            graceful_restart: true,
            ttl: None,
        }
    }

    /// Whether going from `self` to `other` needs a new session. Policies and next hops change
    /// under a living one.
    pub fn needs_new_session(&self, other: &Self) -> bool {
        let session_part = |peer: &Self| Self {
            import: Policy::accept_all(),
            export: Policy::accept_all(),
            next_hop_mode: NextHopMode::Auto,
            next_hop_v4: None,
            next_hop_v6: None,
            ..peer.clone()
        };
        session_part(self) != session_part(other)
    }
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
