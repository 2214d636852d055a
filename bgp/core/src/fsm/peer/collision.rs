//! Two connections with one peer: which one becomes the session (RFC 4271 §6.8).
//!
//! Both sides compare alike, but at different times: each when it has seen both OPENs. So the
//! connection that would lose is not established while the other one's OPEN may still come, and
//! a connection beside an established session gets no OPEN from us before it is judged.

use std::time::{Duration, Instant};

use super::{Peer, send};
use crate::fsm::connection::{Connection, Phase};
use crate::fsm::event::{Action, ConnId, Role};
use crate::fsm::terms::Negotiated;
use crate::fsm::why::DownWhy;
use crate::wire::{Cease, Notification};

/// How long a connection that is fit for Established waits for the OPEN on the one that would win
/// a collision with it. That OPEN left the peer when the connection opened, so a round trip is
/// enough; a peer that never sends it must not cost more than a moment.
pub(super) const COLLISION_WAIT: Duration = Duration::from_secs(1);

impl Peer {
    /// Compares `conn`, of which the OPEN has just come, with the other connection; ends the other
    /// one if it loses. False when `conn` itself loses.
    pub(super) fn survives_collision(
        &mut self,
        now: Instant,
        conn: ConnId,
        negotiated: &Negotiated,
        out: &mut Vec<Action>,
    ) -> bool {
        let newcomer = self
            .find(conn)
            .is_some_and(|connection| connection.newcomer);
        let Some(other) = self.connections.iter().find(|other| other.id != conn) else {
            return true;
        };
        let (other_id, other_role) = (other.id, other.role);
        match &other.phase {
            // Nothing is known of the other side's view of it yet; its own OPEN will decide.
            Phase::OpenDelayed | Phase::OpenSent { .. } => true,
            Phase::AwaitsPath { .. } | Phase::OpenConfirm(_) | Phase::Confirmed(..) => {
                if other_role == self.collision_winner(negotiated) {
                    return false;
                }
                self.lose_collision(now, other_id, out);
                true
            }
            Phase::Established {
                negotiated: old, ..
            } => {
                // RFC 4271 §6.8: an established connection outlives a newcomer. RFC 4724 §5 turns
                // that round for peers that restart, as soon as they connect. Waiting for an
                // OPEN with the R bit keeps the late half of a simultaneous open, or a stray
                // connection, from ending a sound session.
                let keeps_routes = old
                    .graceful_restart
                    .as_ref()
                    .is_some_and(|restart| !restart.families.is_empty());
                let restarted = negotiated
                    .graceful_restart
                    .as_ref()
                    .is_some_and(|restart| restart.restarting);
                if !(newcomer && keeps_routes && restarted) {
                    return false;
                }
                out.push(Action::Close { conn: other_id });
                self.remove(now, other_id, DownWhy::PeerRestarted, out);
                true
            }
        }
    }

    pub(super) fn lose_collision(&mut self, now: Instant, conn: ConnId, out: &mut Vec<Action>) {
        send(
            conn,
            Notification::cease(Cease::CollisionResolution, ""),
            out,
        );
        out.push(Action::Close { conn });
        self.remove(now, conn, DownWhy::CollisionLost, out);
    }

    /// After every event: moves on the connection whose reason to wait is gone.
    pub(super) fn settle(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.release_proved(now, out);
        let chosen = self.connections.iter().find(|connection| {
            matches!(&connection.phase, Phase::Confirmed(negotiated, until)
                if *until <= now || !self.may_lose_to_another(connection, negotiated))
        });
        if let Some(conn) = chosen.map(|connection| connection.id) {
            self.establish(now, conn, out);
        }
        let in_session = self.connections.iter().any(Connection::is_established);
        let mut connections = self.connections.iter();
        let delayed = connections.find(|connection| connection.is_delayed());
        if let Some(conn) = delayed.map(|connection| connection.id)
            && !in_session
        {
            self.send_open(conn, out);
        }
    }

    /// Whether the peer, where it has seen both OPENs, has chosen another connection already.
    /// Establishing `connection` then would end that one here, while the peer ends this one.
    fn may_lose_to_another(&self, connection: &Connection, negotiated: &Negotiated) -> bool {
        let winner = self.collision_winner(negotiated);
        connection.role != winner
            && self
                .connections
                .iter()
                .any(|other| other.role == winner && matches!(other.phase, Phase::OpenSent { .. }))
    }

    /// RFC 4271 §6.8: the connection opened by the higher identifier stays, both compared as
    /// unsigned integers; RFC 6286 §2.3: then by the larger AS number.
    fn collision_winner(&self, negotiated: &Negotiated) -> Role {
        let ours = (self.config.router_id, self.config.local_asn);
        let theirs = (negotiated.peer_router_id, negotiated.peer_asn);
        if ours > theirs {
            Role::Active
        } else {
            Role::Passive
        }
    }
}
