//! One peer in the RIB: its session, and what the table holds of it.
//!
//! Owns the state. Does not own the decisions on it, which are [`super::machine`]'s.

use std::sync::Arc;
use std::time::Instant;

use crate::fsm::Negotiated;
use crate::rib::dest_set::DestSet;
use crate::rib::event::{Action, Ends, PeerPolicy};
use crate::rib::groups::GroupId;
use crate::rib::path::{PathPeer, PeerId};
use crate::rib::table::Marks;
use crate::types::{Family, FamilySet};

/// A configured peer, up or not.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) policy: PeerPolicy,
    pub(super) session: Option<Session>,
    /// Destinations to which the table holds a path of this peer.
    pub(super) dests: DestSet,
    /// How many such paths there are, by family.
    counts: [Counts; Family::ALL.len()],
}

/// Paths of one peer and family in the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) received: usize,
    pub(super) rejected: usize,
    pub(super) stale: usize,
}

/// A session that is up.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: PeerId,
    pub(super) negotiated: Negotiated,
    pub(super) ends: Ends,
    pub(super) path_peer: Arc<PathPeer>,
    pub(super) end_of_rib_received: FamilySet,
    /// Whether the peer has announced anything in this session.
    pub(super) has_announced: bool,
    /// Families of which the peer has told nearly as much as it may, and the shell knows.
    pub(super) warned: FamilySet,
    /// Families of which it has told more.
    pub(super) exceeded: FamilySet,
    pub(super) egress: Egress,
}

/// How far a peer has been told.
#[derive(Debug)]
pub(super) struct Egress {
    pub(super) group: GroupId,
    /// Families whose End-of-RIB is still to be sent.
    pub(super) end_of_rib_owed: FamilySet,
    /// Families whose refresh waits for that.
    pub(super) refresh_owed: FamilySet,
    /// Families whose refresh has not begun (RFC 7313 §4).
    pub(super) begin_owed: FamilySet,
    /// Families whose refresh has begun and not ended.
    pub(super) end_owed: FamilySet,
    /// When End-of-RIB goes out although the FIB has not answered for everything.
    pub(super) end_of_rib_at: Instant,
    /// The last pull found nothing: the peer must be told when there is something again.
    pub(super) idle: bool,
}

impl Session {
    /// Has the shell pull for the peer, if it waits; whether it did.
    pub(super) fn rouse(&mut self, out: &mut Vec<Action>) -> bool {
        let waits = std::mem::take(&mut self.egress.idle);
        if waits {
            out.push(Action::EgressReady { peer: self.id });
        }
        waits
    }
}

impl Peer {
    pub(super) fn new(policy: PeerPolicy) -> Self {
        Self {
            policy,
            session: None,
            dests: DestSet::default(),
            counts: Default::default(),
        }
    }

    /// The session, if `id` is the one that is up.
    pub(super) fn session(&mut self, id: PeerId) -> Option<&mut Session> {
        self.session.as_mut().filter(|session| session.id == id)
    }

    pub(super) fn counts(&self, family: Family) -> Counts {
        self.counts[family.index()]
    }

    /// Counts a path that has come to the table.
    pub(super) fn count(&mut self, family: Family, marks: Marks) {
        let counts = &mut self.counts[family.index()];
        counts.received += 1;
        counts.rejected += usize::from(marks.rejected);
        counts.stale += usize::from(marks.stale);
    }

    /// Counts a path that has left the table.
    pub(super) fn uncount(&mut self, family: Family, marks: Marks) {
        let counts = &mut self.counts[family.index()];
        counts.received -= 1;
        counts.rejected -= usize::from(marks.rejected);
        counts.stale -= usize::from(marks.stale);
    }
}
