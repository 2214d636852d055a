//! What is known of the path to the peer: dead, proved, or neither.
//!
//! A session that is to wait for BFD does so with both OPENs out and without our KEEPALIVE, so that a peer
//! that begins BFD when it has heard from us is waited for as well as one that has begun before
//! (draft-ietf-idr-bgp-bfd-strict-mode §8.5.5).

use std::time::Instant;

use super::Peer;
use crate::fsm::connection::Phase;
use crate::fsm::event::{Action, ConnId, PathProof};
use crate::fsm::peer::collision::COLLISION_WAIT;
use crate::fsm::retention::final_word;
use crate::fsm::terms::Negotiated;
use crate::fsm::why::{DownWhy, PathWhy};
use crate::wire::{Cease, Notification};

impl Peer {
    pub(super) fn path_down(&mut self, now: Instant, why: PathWhy, out: &mut Vec<Action>) {
        let sessionless = self.negotiated().is_none();
        let word = match why {
            // Nothing goes out of a dead link.
            PathWhy::LinkDown => None,
            // RFC 9384 §§2, 3. One direction may still work, and a peer that hears it must not keep
            // sending packets along the path that does not.
            PathWhy::BfdDown | PathWhy::BfdSilent => Some(Notification::cease(Cease::BfdDown, "")),
        };
        let may_restart = why == PathWhy::BfdSilent;
        let word = |terms: Option<&Negotiated>| match &word {
            Some(word) if may_restart => Some(word.clone()),
            word => word.as_ref().map(|word| final_word(word, terms)),
        };
        self.close_all(now, &DownWhy::PathDown(why), word, out);
        if sessionless && !may_restart {
            out.push(Action::DropRetained);
        }
        self.ensure_dial(now, out);
    }

    /// Whether a session with these terms must wait until the path is proved.
    pub(super) fn awaits_path(&self, negotiated: &Negotiated) -> bool {
        let enough = match self.proof {
            PathProof::None => false,
            PathProof::Up => true,
            // §8.7.1 is of speakers that have agreed on waiting.
            PathProof::Waived => negotiated.bfd_strict,
        };
        self.config.bfd_strict && !enough
    }

    /// Moves on every connection that need not wait for its path any more.
    pub(super) fn release_proved(&mut self, now: Instant, out: &mut Vec<Action>) {
        let proved = self.connections.iter().filter_map(|connection| {
            let Phase::AwaitsPath {
                negotiated,
                confirmed,
            } = &connection.phase
            else {
                return None;
            };
            let proved = !self.awaits_path(negotiated);
            proved.then(|| (connection.id, Negotiated::clone(negotiated), *confirmed))
        });
        let proved: Vec<(ConnId, Negotiated, bool)> = proved.collect();
        for (conn, negotiated, confirmed) in proved {
            self.find_mut(conn).accept(now, negotiated);
            self.send_keepalive(now, conn, out);
            if confirmed {
                self.find_mut(conn).confirm(now, COLLISION_WAIT);
            }
        }
    }
}
