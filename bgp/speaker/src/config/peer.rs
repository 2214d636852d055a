//! One session, as plain data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::policy::{ExportPolicy, ImportPolicy, Policy};
use caracal_bgp_core::rib::{NextHopMode, OriginCheck, PrivateAs};
use caracal_bgp_core::types::{Asn, BgpRole, Family, PeerAs, Prefix, RouterId};

use super::{Auth, Secret};

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

/// One session, or all sessions of one range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerConfig {
    /// What it is for, in the words of people.
    pub description: String,
    /// Where the peer is.
    pub remote: Endpoint,
    /// Address to dial from; also restricts which incoming connections are this peer's.
    pub local_address: Option<IpAddr>,
    /// The AS that the peer must name in its OPEN.
    pub peer_as: PeerAs,
    /// The AS that we name to this external peer, instead of the speaker's: it stands in front of the
    /// paths that the peer is told. Our AS by either number in a path of its is a loop.
    pub local_asn: Option<Asn>,
    /// Whether the session may run.
    pub activation: Activation,
    /// How packets are authenticated; the listener must know it before the peer's SYN arrives.
    pub authentication: Auth,
    /// Families to offer; one session carries them all.
    pub families: Vec<Family>,
    /// Families with several paths to one prefix (RFC 7911); none in others.
    pub add_path: BTreeMap<Family, AddPath>,
    /// Whether IPv4 routes may have IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
    /// Whether messages of up to 65535 octets are offered (RFC 8654).
    pub extended_messages: bool,
    /// Hold time to offer: zero or at least 3 s (RFC 4271 §4.2).
    pub hold_time: Duration,
    /// Time between keepalives; a third of the hold time agreed when absent.
    pub keepalive_time: Option<Duration>,
    /// Pause before the peer is dialled again.
    pub connect_retry: Duration,
    /// How long the peer may read nothing (RFC 9687); zero: for ever.
    pub send_hold_time: Duration,
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
    /// TTL or hop limit of packets, sent and received.
    pub ttl: Ttl,
    /// Gateway of a host route to the peer, so that no learnt route can lead away from it.
    pub reachable_by: Option<IpAddr>,
    /// Detection of a dead path.
    pub bfd: Option<BfdConfig>,
    /// Whether the graceful restart capability is offered to this peer.
    pub graceful_restart: bool,
    /// How long the peer is asked to keep our routes; the speaker's own when absent.
    pub restart_time: Option<Duration>,
    /// How long routes are kept beyond that (RFC 9494), zero for not at all; the speaker's own when
    /// absent.
    pub long_lived_stale_time: Option<Duration>,
    /// How many prefixes the peer may announce; any number in other families.
    pub max_prefixes: BTreeMap<Family, MaxPrefixes>,
    /// How often our own AS may occur in a path that is accepted.
    pub allowed_local_as: u8,
    /// Put our AS in place of the peer's in paths that it is told.
    pub as_override: bool,
    /// What happens to private AS numbers in paths that the peer is told.
    pub private_as: PrivateAs,
    /// Our own role towards the peer (RFC 9234).
    pub role: Option<BgpRole>,
    /// Refuse a peer that tells no role.
    pub role_strict: bool,
    /// Whether the peer is a client of this route reflector (RFC 4456). Internal peers only.
    pub route_reflector_client: bool,
    /// The cluster towards this client; the speaker's when absent.
    pub cluster_id: Option<RouterId>,
    /// Which of its routes are accepted, and how they are changed.
    pub import: Arc<ImportPolicy>,
    /// Which routes it is told, among those that the protocol's rules allow, and how changed.
    pub export: Arc<ExportPolicy>,
    /// Whether [`super::SpeakerConfig::blocks`] judges its routes, and how.
    pub validate_origin: OriginCheck,
    /// Why its policies turn traffic away, if they do: the session is about to go down. For display.
    pub draining: Option<String>,
}

impl PeerConfig {
    /// A session with both families, hold time 90 s, retries within 1 s, that accepts and exports
    /// everything.
    pub fn new(remote: SocketAddr, asn: Asn) -> Self {
        Self::at(Endpoint::Address(remote), PeerAs::Number(asn))
    }

    /// The same with any kind of peer.
    pub fn at(remote: Endpoint, peer_as: PeerAs) -> Self {
        Self {
            description: String::new(),
            remote,
            local_address: None,
            peer_as,
            local_asn: None,
            activation: Activation::Run,
            authentication: Auth::None,
            families: Family::ALL.to_vec(),
            add_path: BTreeMap::new(),
            extended_next_hop: false,
            extended_messages: true,
            hold_time: Duration::from_secs(90),
            keepalive_time: None,
            connect_retry: Duration::from_secs(1),
            // RFC 9687 §4: the greater of 8 minutes and twice the hold time.
            send_hold_time: Duration::from_secs(480),
            passive: false,
            next_hop_mode: NextHopMode::Auto,
            next_hop_v4: None,
            next_hop_v6: None,
            ttl: Ttl::Automatic,
            reachable_by: None,
            bfd: None,
            graceful_restart: true,
            restart_time: None,
            long_lived_stale_time: None,
            max_prefixes: BTreeMap::new(),
            allowed_local_as: 0,
            as_override: false,
            private_as: PrivateAs::Keep,
            role: None,
            role_strict: false,
            route_reflector_client: false,
            cluster_id: None,
            import: Arc::new(Policy::accept_all()),
            export: Arc::new(Policy::accept_all()),
            validate_origin: OriginCheck::Off,
            draining: None,
        }
    }

    /// Whether there may be no session before BFD is up.
    pub fn waits_for_bfd(&self) -> bool {
        self.bfd.as_ref().is_some_and(|bfd| bfd.strict)
    }
}

/// Where a peer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Address and port to dial; connections from the address are this peer's, whatever their
    /// port.
    Address(SocketAddr),
    /// At the other end of an interface, with a link-local address that router advertisements
    /// tell.
    Interface {
        /// Name of the interface, which need not be there yet.
        name: String,
        /// TCP port to dial.
        port: u16,
    },
    /// Anywhere in these prefixes: each address that connects is a peer of its own while its
    /// session lasts. Never dialled. An address that another peer names is that peer's.
    Range {
        /// Where peers may be.
        prefixes: Vec<Prefix>,
        /// How many there may be at a time, at least 1.
        limit: usize,
    },
}

impl Endpoint {
    /// The address that is known without asking the network.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Address(address) => Some(*address),
            Self::Interface { .. } | Self::Range { .. } => None,
        }
    }

    /// The interface that the peer is on the other end of.
    pub fn interface(&self) -> Option<&str> {
        match self {
            Self::Interface { name, .. } => Some(name),
            Self::Address(_) | Self::Range { .. } => None,
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Interface { name, .. } => f.write_str(name),
            Self::Range { prefixes, .. } => {
                for (index, prefix) in prefixes.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{prefix}")?;
                }
                Ok(())
            }
        }
    }
}

/// Whether a session may run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Activation {
    /// It may.
    #[default]
    Run,
    /// An operator keeps it down: Cease (Administrative Shutdown) with this text (RFC 9003), at
    /// most 255 octets.
    Down {
        /// What the peer reads.
        message: String,
    },
    /// Something that it needs is missing. It must neither dial nor accept, as it would run without
    /// protection.
    Held {
        /// What.
        lack: Lack,
        /// The same for people.
        why: String,
    },
}

/// What a session may lack without which it must not run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lack {
    /// What holds its key.
    Secret,
    /// The key in it.
    SecretKey,
    /// A key that can be used.
    ValidSecret,
    /// A kernel that can do what it asks for.
    KernelSupport,
    /// A configuration that makes sense.
    ValidConfiguration,
}

/// Several paths to one prefix (RFC 7911).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddPath {
    /// What the peer is told.
    pub send: AddPathSend,
    /// Whether several paths are taken from the peer.
    pub receive: bool,
}

/// Which paths a peer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AddPathSend {
    /// The best alone, without identifiers.
    #[default]
    None,
    /// Every usable one.
    All,
    /// That many of the best, at least 1.
    Best(u8),
}

/// TTL or hop limit of a session's packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ttl {
    /// 1 towards an external peer on a connected subnet, as routers expect, so that the session
    /// dies with its link; else the system's default. What is received is not looked at.
    #[default]
    Automatic,
    /// This one is sent. What is received is not looked at.
    Send(u8),
    /// 255 is sent, and nothing is taken that came over more hops (RFC 5082).
    Security {
        /// 1 for a peer on a connected subnet; at most 254.
        hops: u8,
    },
}

/// Detection of a dead path (RFC 5880).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BfdConfig {
    /// The shortest time between packets that we send.
    pub transmit: Duration,
    /// The shortest time between packets that we can take.
    pub receive: Duration,
    /// How many packets in a row must be missing before the path counts as down.
    pub detect_multiplier: u8,
    /// Whether routers may stand between (RFC 5883), and the lowest TTL that is then taken.
    pub multi_hop: Option<u8>,
    /// Establish no session before BFD is up.
    pub strict: bool,
    /// What a failure means that may be one of the peer's control plane alone.
    pub on_failure: OnBfdFailure,
    /// Key of meticulous keyed SHA1 (RFC 5880 §6.7.4), 1 to 20 octets.
    pub password: Option<Secret>,
}

/// What to take a failure of BFD for where the peer's BFD may have ended with its BGP (C bit clear). Where
/// it cannot have, the path is dead (RFC 5882 §4.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum OnBfdFailure {
    /// For a dead path: a peer that died without a word loses its routes at once, and so does one that
    /// restarts.
    #[default]
    PreferFailover,
    /// For a restart: routes stay as graceful restart allows, and packets for a dead peer are lost
    /// meanwhile.
    PreferRestart,
}

/// How many prefixes of one family a peer may announce; of several paths to one prefix, each counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MaxPrefixes {
    /// The most that is accepted without consequences.
    pub limit: u32,
    /// Share of the limit at which a warning is given, in percent.
    pub warning_percent: u8,
    /// What happens beyond the limit.
    pub action: MaxPrefixAction,
}

/// What happens beyond the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MaxPrefixAction {
    /// Another warning.
    Warn,
    /// Cease (Maximum Number of Prefixes Reached, RFC 4486).
    Terminate {
        /// When the session may come back; `None`: when it is cleared, or the limit of the family or
        /// what is agreed in OPEN changes.
        restart_after: Option<Duration>,
    },
}
