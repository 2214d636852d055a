//! One peer in the RIB: its session, its stale routes, and how far it has been told.
//!
//! Owns the state. Does not own the decisions on it, which are [`super::machine`]'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use crate::fsm::Negotiated;
use crate::rib::egress::{EgressConfig, Exported};
use crate::rib::event::{Ends, PeerPolicy};
use crate::rib::path::{PathPeer, PeerId};
use crate::types::{Family, Prefix};

/// A configured peer, up or not.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) policy: PeerPolicy,
    pub(super) session: Option<Session>,
    /// Prefixes for which the table holds a path of this peer.
    pub(super) prefixes: BTreeSet<Prefix>,
    /// Families with stale routes, and when these go.
    pub(super) stale: BTreeMap<Family, Instant>,
}

/// A session that is up.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: PeerId,
    pub(super) negotiated: Negotiated,
    pub(super) ends: Ends,
    pub(super) path_peer: Arc<PathPeer>,
    pub(super) end_of_rib_received: BTreeSet<Family>,
    /// Whether the peer has announced anything in this session.
    pub(super) has_announced: bool,
    pub(super) egress: Egress,
}

/// How far a peer has been told.
#[derive(Debug)]
pub(super) struct Egress {
    pub(super) config: Arc<EgressConfig>,
    pub(super) position: Position,
    /// Adj-RIB-Out: what the peer believes.
    pub(super) advertised: BTreeMap<Prefix, Arc<Exported>>,
    /// Families whose End-of-RIB is still to be sent.
    pub(super) end_of_rib_owed: BTreeSet<Family>,
    /// When End-of-RIB goes out although the FIB has not answered for everything.
    pub(super) end_of_rib_at: Instant,
    /// The last pull found nothing: the peer must be told when there is something again.
    pub(super) idle: bool,
}

/// Where a peer reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// In the table: the peer is new, fell behind, or must be told everything again.
    Walk {
        /// Everything up to this prefix has been told.
        after: Option<Prefix>,
        /// Where the journal goes on once the walk is done.
        then: u64,
        /// The family that is told even where the peer knows it already (RFC 2918).
        resend: Option<Family>,
    },
    /// In the journal, at this position.
    Journal(u64),
}

impl Peer {
    pub(super) fn new(policy: PeerPolicy) -> Self {
        Self {
            policy,
            session: None,
            prefixes: BTreeSet::new(),
            stale: BTreeMap::new(),
        }
    }

    /// The session, if `id` is the one that is up.
    pub(super) fn session(&mut self, id: PeerId) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.id == id)
    }
}
