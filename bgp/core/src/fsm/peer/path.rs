//! What is known of the path to the peer: dead, proved, or neither; and whether it is known to lead to the
//! peer.
//!
//! A session that is to wait for BFD does so with both OPENs out and without our KEEPALIVE, so that a peer
//! that begins BFD when it has heard from us is waited for as well as one that has begun before
//! (draft-ietf-idr-bgp-bfd-strict-mode §8.5.5).

use std::time::Instant;

use super::Peer;
use crate::fsm::event::Action;
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

    /// Without knowing who the peer is, nothing is begun, and what has been begun is given up.
    pub(super) fn peer_known(&mut self, now: Instant, known: bool, out: &mut Vec<Action>) {
        let before = std::mem::replace(&mut self.known, known);
        if known && !before {
            self.backoff.reset();
            self.dial_now(now, out);
        }
        if known {
            return;
        }
        self.cancel_dial(out);
        let begun = self.connections.iter().filter(|it| !it.is_established());
        for conn in begun.map(|it| it.id).collect::<Vec<_>>() {
            let rejected = Notification::cease(Cease::ConnectionRejected, "");
            self.refuse(now, conn, rejected, out);
        }
    }

    /// Whether a session must wait until the path is proved. That the peer has BFD switched off
    /// (AdminDown) ends no session, and begins none: `strict` is for who wants none without BFD.
    pub(super) fn awaits_path(&self) -> bool {
        self.config.bfd_strict && !self.path_proved
    }

    /// Has our KEEPALIVE follow where the path is proved, or need not be.
    pub(super) fn release_proved(&mut self, now: Instant, out: &mut Vec<Action>) {
        if self.awaits_path() {
            return;
        }
        for at in 0..self.connections.len() {
            let connection = &mut self.connections[at];
            let conn = connection.id;
            if connection.release(now, COLLISION_WAIT) {
                self.send_keepalive(now, conn, out);
            }
        }
    }
}
