//! What goes into the RIB and what comes out, as plain data.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::fsm::{Negotiated, Retention};
use crate::policy::{ExportPolicy, ImportPolicy};
use crate::rib::best::Multipath;
use crate::rib::egress::{NextHopMode, PrivateAs};
use crate::rib::origin::{BlockOwners, OriginCheck};
use crate::rib::path::{PeerId, PeerIndex};
use crate::types::{Asn, Family, NextHop, Nlri, Prefix, RouterId};
use crate::wire::{PathAttributes, Update};

/// What a RIB is made with and keeps.
#[derive(Clone, Copy, Debug)]
pub struct RibOptions {
    /// Set after a restart during which forwarding went on: until then at the latest, selection and
    /// FIB changes wait for the End-of-RIB of every peer that takes part in graceful restart, and a
    /// little longer for routes that follow it.
    pub defer_until: Option<Instant>,
    /// Whether there is a FIB that answers: peers are told about a route once it has it.
    pub forwarding: bool,
    /// Decides what collides in tables of what peers send; best drawn at random.
    pub hash_seed: u64,
    /// Changes that are kept, encoded, for the slowest of the peers that are told the same; as many as a
    /// quarter of what they were told if that is more. Beyond it that peer goes on alone: it costs the
    /// others nothing, and memory stays bounded.
    pub log_limit: usize,
}

impl Default for RibOptions {
    /// No restart, no FIB, and a log that holds what a peer on a slow link takes in some seconds.
    fn default() -> Self {
        Self {
            defer_until: None,
            forwarding: false,
            hash_seed: 0,
            log_limit: 64 * 1024,
        }
    }
}

/// The desired state of a RIB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibConfig {
    /// Our AS.
    pub asn: Asn,
    /// Our identifier.
    pub router_id: RouterId,
    /// The cluster that we reflect for.
    pub cluster_id: RouterId,
    /// Whether learnt routes are passed on.
    pub transit: bool,
    /// How many paths share load.
    pub multipath: Multipath,
    /// How long stale routes of a peer that came back wait for its End-of-RIB.
    pub stale_time: Duration,
    /// Prefixes that are ours alone, with everything inside.
    pub protected: Vec<Prefix>,
    /// Which node may originate which block, for the peers that are checked.
    pub blocks: Arc<BlockOwners>,
    /// Own routes and what they carry.
    pub originate: BTreeMap<Prefix, PathAttributes>,
    /// Routes that are ours alone and lead to these next hops: nobody is told, and no learnt route to
    /// the same prefix is used.
    pub statics: BTreeMap<Prefix, NextHop>,
    /// Peers, up or not.
    pub peers: BTreeMap<PeerIndex, PeerPolicy>,
}

/// What is configured for one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerPolicy {
    /// Our AS on this session, where it is not [`RibConfig::asn`].
    pub local_asn: Option<Asn>,
    /// Which of its routes are used, and how they are changed.
    pub import: Arc<ImportPolicy>,
    /// Which routes it may be told, and how they are changed.
    pub export: Arc<ExportPolicy>,
    /// How often our own AS may stand in the path of a route of its.
    pub allowed_own_as: u8,
    /// Whether its AS is replaced by ours in what it is told, so that its other sites accept it.
    pub as_override: bool,
    /// What becomes of AS numbers for private use in what it is told.
    pub private_as: PrivateAs,
    /// The cluster towards it, where it is not [`RibConfig::cluster_id`].
    pub cluster_id: Option<RouterId>,
    /// How many of the best paths to a prefix it is told, by family, where the session carries
    /// several; `None` for all of them.
    pub told_paths: [Option<u8>; Family::ALL.len()],
    /// Whether its routes must come from the node that holds their block.
    pub validate_origin: OriginCheck,
    /// How many paths it may tell.
    pub max_prefixes: [Option<MaxPrefixes>; Family::ALL.len()],
    /// Which next hop it is told.
    pub next_hop_mode: NextHopMode,
    /// Ourselves for IPv4 routes, instead of what the session's interface says.
    pub next_hop_v4: Option<Ipv4Addr>,
    /// Ourselves for IPv6 routes, instead of what the session's interface says.
    pub next_hop_v6: Option<Ipv6Addr>,
    /// Whether we reflect for it.
    pub client: bool,
    /// Whether a restart of ours waits for its End-of-RIB: it takes part, and nothing keeps it down.
    pub graceful_restart: bool,
}

/// How many paths of one family a peer may tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxPrefixes {
    /// The most that it may tell.
    pub limit: u32,
    /// As many are worth a warning.
    pub warn_at: u32,
    /// Whether the session ends over more; else it is another warning.
    pub terminates: bool,
}

/// The two ends of a session, as far as routes are concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The peer's address.
    pub peer: IpAddr,
    /// Our IPv4 address on the session's interface.
    pub local_v4: Option<Ipv4Addr>,
    /// Our global IPv6 address on the session's interface, and the link-local one.
    pub local_v6: Option<(Ipv6Addr, Option<Ipv6Addr>)>,
    /// Index of that interface.
    pub interface: Option<u32>,
    /// Its name.
    pub interface_name: Option<String>,
    /// Subnets of that interface that hold the peer.
    pub subnets: Vec<Prefix>,
}

/// What happened.
#[expect(
    clippy::large_enum_variant,
    reason = "few events are under way at a time, and a session comes up once"
)]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The desired state changed.
    Configure(RibConfig),
    /// A session came up.
    PeerUp {
        /// Its name from now on.
        peer: PeerId,
        /// Its terms.
        negotiated: Negotiated,
        /// Its addresses.
        ends: Ends,
    },
    /// A session ended.
    PeerDown {
        /// Which.
        peer: PeerId,
        /// What stays of its routes, as stale.
        retain: Vec<Retention>,
    },
    /// The path to the peer is dead: nothing of its routes stays, whatever was retained.
    PathDown {
        /// Which peer.
        index: PeerIndex,
    },
    /// Our end of a peer's session has got other addresses, if it has one.
    Relocated {
        /// Which peer.
        index: PeerIndex,
        /// Its addresses from now on.
        ends: Ends,
    },
    /// Valid UPDATEs arrived.
    Updates {
        /// Where.
        peer: PeerId,
        /// What, in the order in which they came.
        updates: Vec<Update>,
    },
    /// The peer asks for everything of a family again (RFC 2918).
    Refresh {
        /// Which peer.
        peer: PeerId,
        /// Which family.
        family: Family,
    },
    /// Somebody wants the peer to be told everything of a family again, if it has a session.
    Resend {
        /// Which peer.
        index: PeerIndex,
        /// Which family.
        family: Family,
    },
    /// The peer begins to tell everything of a family again (RFC 7313 §4).
    RefreshBegun {
        /// Which peer.
        peer: PeerId,
        /// Which family.
        family: Family,
    },
    /// It has told everything: what it did not tell again is gone.
    RefreshEnded {
        /// Which peer.
        peer: PeerId,
        /// Which family.
        family: Family,
    },
    /// What became of [`Action::Fib`]s.
    Answered(Vec<FibAnswer>),
    /// What [`Action::Track`] asked about, as it is now.
    Reached(Vec<(Forward, Reachability)>),
    /// Whether somebody follows the table: [`Action::Changed`] comes only then.
    Follow {
        /// Somebody does.
        wanted: bool,
    },
}

/// What the FIB has to say to one [`Action::Fib`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibAnswer {
    /// Which prefix.
    pub prefix: Prefix,
    /// The number of the change.
    pub seq: u64,
    /// Why it could not be done, for people; `None` when it was.
    pub failed: Option<String>,
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Bring the FIB to this state and answer with [`Event::Answered`]. A later change of the same
    /// prefix replaces this one. Never comes from a RIB without a FIB.
    Fib {
        /// Which prefix.
        prefix: Prefix,
        /// Where its packets go, ascending and without duplicates; nowhere when it is empty: they
        /// are dropped. `None` removes the route.
        forward: Option<Arc<[Forward]>>,
        /// Names the change in the answer; grows with every change.
        seq: u64,
    },
    /// Say with [`Event::Reached`] where this next hop leads, at once unless it is [`Reachability::Direct`], and
    /// whenever that changes; or do so no longer. Never comes from a RIB without a FIB.
    Track {
        /// Which.
        forward: Forward,
        /// Whether to go on.
        wanted: bool,
    },
    /// The first complete table is in the `Fib` actions up to here: what else the FIB holds of
    /// ours is left over from an earlier life. Comes once.
    FibComplete,
    /// Our restart is over: sessions from now on are not announced as restarting.
    RestartComplete,
    /// There is something to pull for the peer.
    EgressReady {
        /// Which.
        peer: PeerId,
    },
    /// The peer tells more than it may, or nearly so. Comes once per session for each, and again
    /// when the limits of the session have changed.
    PrefixLimit {
        /// Which peer.
        peer: PeerId,
        /// Which family.
        family: Family,
        /// How many paths it has told.
        count: u32,
        /// What it may tell, as configured when this was said.
        limits: MaxPrefixes,
        /// Whether it has told more than it may: the session has to end where
        /// [`MaxPrefixes::terminates`] says so.
        exceeded: bool,
    },
    /// Something is otherwise than before, for those who follow the table. It says what to look at
    /// ([`crate::rib::Rib::entry`], [`crate::rib::Rib::selected`]), and may come once too often.
    Changed(Changed),
}

/// What is otherwise than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Changed {
    /// What a peer tells about a prefix under an identifier, or what is made of that.
    Entry {
        /// The peer.
        peer: PeerIndex,
        /// The prefix, and which of its paths.
        nlri: Nlri,
    },
    /// The path that is used and told.
    Selected(Prefix),
    /// A peer has told everything of a family.
    EndOfRib {
        /// The peer.
        peer: PeerIndex,
        /// The family.
        family: Family,
    },
}

/// Where a next hop leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// To a link of ours, or where a route of another program leads.
    Direct,
    /// Where the route leads that the FIB was asked for at this prefix.
    Over(Prefix),
    /// Nowhere.
    Unreachable,
}

/// One of the ways of a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Forward {
    /// The next hop as the peer named it.
    pub next_hop: NextHop,
    /// The interface that carries the session with that peer.
    pub interface: Option<u32>,
}
