//! One path to a prefix: who told it and what it carries.
//!
//! Owns the values that selection and export read. Does not own their storage, nor what the table
//! notes about a path to one prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::rib::origin::OriginValidity;
use crate::role::Leak;
use crate::types::{Asn, BgpRole, NextHop, PathId, Prefix, RouterId};
use crate::wire::{Community, PathAttributes};

/// Names a configured peer for as long as the speaker lives; never given to another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerIndex(pub u32);

/// Names one session of a peer: what arrives under an older generation is of a session that is
/// gone, and is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId {
    /// Which peer.
    pub index: PeerIndex,
    /// Grows with every session of that peer.
    pub generation: u64,
}

/// The default LOCAL_PREF of routes that carry none.
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// What one source says, whatever the prefix: a whole run of prefixes shares one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    /// Who told it.
    pub source: Source,
    /// What it carries.
    pub attributes: Arc<PathAttributes>,
    /// Where its packets go; `None` for own routes.
    pub next_hop: Option<NextHop>,
    /// Kept beyond the restart time of the peer that told it (RFC 9494 §4.3): used when there is
    /// nothing else.
    pub long_lived: bool,
    /// Its packets are dropped here (RFC 7999), as a rule said.
    pub blackhole: bool,
}

impl Path {
    /// Whether this path is a last resort: we keep it beyond its time, or somebody before us does.
    pub fn is_last_resort(&self) -> bool {
        self.long_lived || self.attributes.communities.contains(&Community::LLGR_STALE)
    }

    /// LOCAL_PREF as the selection uses it.
    pub fn local_pref(&self) -> u32 {
        self.attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF)
    }
}

/// Who told a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Source {
    /// We did.
    Local,
    /// A peer did.
    Peer(Arc<PathPeer>),
}

impl Source {
    /// The peer, unless the path is our own.
    pub fn peer(&self) -> Option<&PathPeer> {
        match self {
            Self::Local => None,
            Self::Peer(peer) => Some(peer),
        }
    }

    /// The peer's name in the RIB, unless the path is our own.
    pub fn index(&self) -> Option<PeerIndex> {
        self.peer().map(|peer| peer.index)
    }
}

/// What selection and export need to know about the session that told a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PathPeer {
    /// Which peer.
    pub index: PeerIndex,
    /// Its AS.
    pub asn: Asn,
    /// Its identifier.
    pub router_id: RouterId,
    /// Its address.
    pub address: IpAddr,
    /// Whether it is in our AS.
    pub internal: bool,
    /// Whether we reflect for it (RFC 4456).
    pub client: bool,
    /// Our role in the session (RFC 9234).
    pub role: Option<BgpRole>,
    /// Index of the interface that carries the session, where it is known.
    pub interface: Option<u32>,
    /// Its name.
    pub interface_name: Option<Box<str>>,
    /// Our own end of the session, as the peer may name it as next hop.
    pub own_v4: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub own_v6: Option<Ipv6Addr>,
}

impl PathPeer {
    /// Whether `next_hop` is our own end of the session.
    pub fn is_ourselves(&self, next_hop: &NextHop) -> bool {
        match next_hop {
            NextHop::V4(address) => self.own_v4 == Some(*address),
            NextHop::V6 { global, .. } => self.own_v6 == Some(*global),
        }
    }
}

/// A path to one prefix as the table holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TablePath {
    /// What is used: as the source told it, changed by the import policy.
    pub path: Path,
    /// Which of several that the source tells.
    pub id: PathId,
    /// Kept from before the peer's restart (RFC 4724 §4.2); used like any other meanwhile.
    pub stale: bool,
    /// How its originator agrees with the owner of the block that it lies in.
    pub validity: OriginValidity,
    /// Why it must not be used; the path is kept so that people can ask, and so that a change of
    /// policy needs no word from the peer.
    pub rejected: Option<Rejection>,
}

/// Why a path must not be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Our AS is in the path (RFC 4271 §9.1.2).
    AsLoop,
    /// An external peer's route does not start with its own AS (RFC 4271 §6.3).
    FirstAs {
        /// The peer's AS.
        peer: Asn,
        /// What the path starts with.
        found: Option<Asn>,
    },
    /// We brought the route into the AS ourselves (RFC 4456 §8).
    OriginatorIsSelf,
    /// We reflected the route before (RFC 4456 §8).
    ClusterLoop,
    /// The next hop is our own end of the session (RFC 4271 §5.1.3).
    OwnNextHop,
    /// It lies in a prefix that is ours alone.
    Protected(Prefix),
    /// It lies in a block of another node than the one that originates it.
    ForeignBlock {
        /// The block.
        block: Prefix,
        /// The node that holds it.
        owner: String,
        /// Who originates the route.
        originator: RouterId,
    },
    /// It leaks: by our roles it should not have come this way (RFC 9234 §5).
    Leak(Leak),
    /// A rule of the import policy names a next hop that there is not.
    NoNextHop,
    /// The import policy says no, by a rule or because none matched.
    Policy {
        /// The rule; `None` when no rule matched.
        rule: Option<String>,
    },
}

impl Rejection {
    /// The kind of reason in one word that never changes: for counts and for programs.
    pub fn word(&self) -> &'static str {
        match self {
            Self::AsLoop => "as-loop",
            Self::FirstAs { .. } => "first-as",
            Self::OriginatorIsSelf => "originator-is-self",
            Self::ClusterLoop => "cluster-loop",
            Self::OwnNextHop => "own-next-hop",
            Self::Protected(_) => "protected",
            Self::ForeignBlock { .. } => "foreign-block",
            Self::Leak(_) => "leak",
            Self::NoNextHop => "no-next-hop",
            Self::Policy { .. } => "policy",
        }
    }

    /// The rule of the import policy that says no.
    pub fn rule(&self) -> Option<&str> {
        match self {
            Self::Policy { rule } => rule.as_deref(),
            _ => None,
        }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AsLoop => f.write_str("our AS is in its path"),
            Self::FirstAs {
                peer,
                found: Some(found),
            } => write!(
                f,
                "its path starts with AS {found}, not with the peer's AS {peer}"
            ),
            Self::FirstAs { peer, found: None } => {
                write!(f, "its path is empty, the peer's AS {peer} is missing")
            }
            Self::OriginatorIsSelf => f.write_str("we originated it: ORIGINATOR_ID is ours"),
            Self::ClusterLoop => f.write_str("we reflected it before: CLUSTER_LIST names us"),
            Self::OwnNextHop => f.write_str("its next hop is ourselves"),
            Self::Protected(prefix) => write!(f, "it lies in {prefix}, which is ours alone"),
            Self::ForeignBlock {
                block,
                owner,
                originator,
            } => write!(
                f,
                "it lies in {block}, which belongs to node {owner}, and comes from {originator}"
            ),
            Self::Leak(leak) => leak.fmt(f),
            Self::NoNextHop => f.write_str("the import policy names a next hop that there is not"),
            Self::Policy { rule: Some(rule) } => {
                write!(f, "the import policy rejects it: rule '{rule}'")
            }
            Self::Policy { rule: None } => {
                f.write_str("the import policy rejects it: no rule accepts it")
            }
        }
    }
}
