//! What operators hear of a session: on the board, in the log and in the peer's history.
//!
//! Owns when something is news. Does not own what happens, nor why: the machine says both.

use caracal_bgp_core::fsm::{DownWhy, IdleWhy, Note, State};

use crate::session::Session;
use crate::snapshot::SessionState;
use crate::status::{EventNote, Said, Status, Why, now_ms};

impl Session {
    /// Whoever tries is not left alone any more: why it was is over.
    pub(super) fn explain_running(&mut self) {
        if self.idle && self.machine.idle_why().is_none() {
            self.idle = false;
            self.setup.board.update(Status::forget_why);
        }
    }

    /// Says why nothing is tried, which is more than what ended the last session.
    pub(super) fn explain_idle(&mut self) {
        let why = self.machine.idle_why().and_then(|why| match why {
            IdleWhy::Unknown => self.unknown.clone(),
            why => Why::idle(why),
        });
        if let Some(why) = why {
            self.idle = true;
            self.setup.board.stays_down(why);
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        let peer = &self.setup.name;
        let board = &self.setup.board;
        match note {
            Note::StateChanged { from, to } => {
                // Dialling comes and goes every second while a peer is away.
                if from == State::Established || to == State::Established {
                    tracing::info!(%peer, ?from, state = ?to, "session state");
                } else {
                    tracing::debug!(%peer, ?from, state = ?to, "session state");
                }
                board.event(EventNote::State { from, to });
                self.record_state(from, to);
                board.update(|status| {
                    status.state = session_state(to);
                    if to > State::OpenSent {
                        status.goes_on();
                    }
                    status.since_ms = now_ms();
                });
            }
            Note::AttemptFailed { why } => {
                let reason = Why::ended(&why);
                // Losing a collision to a connection that goes on explains nothing.
                let explains = self.machine.state() < State::OpenSent;
                if explains && board.attempt_failed(reason.clone()) == Said::News {
                    tracing::info!(%peer, %reason, "attempt failed");
                } else {
                    tracing::debug!(%peer, %reason, "attempt failed");
                }
                board.event(EventNote::AttemptFailed(why));
            }
            Note::AwaitsPath => {
                let why = Why::ended(&DownWhy::PathUnproved);
                if board.waits(why.clone()) == Said::News {
                    tracing::info!(%peer, reason = %why, "session waits");
                } else {
                    tracing::debug!(%peer, reason = %why, "session waits");
                }
            }
            Note::RetryIn(wait) => tracing::debug!(%peer, ?wait, "will dial again"),
            Note::FamiliesIgnored(families) => {
                tracing::warn!(%peer, ?families, "the peer offers families that are not configured");
                let text =
                    format!("the peer offers families that are not configured: {families:?}");
                board.event(EventNote::Other(text));
            }
            Note::RefreshImpossible(family) => {
                tracing::warn!(%peer, %family, "the peer cannot be asked for its routes again");
                let text = format!("the peer cannot be asked for its {family} routes again");
                board.event(EventNote::Other(text));
            }
        }
    }
}

fn session_state(state: State) -> SessionState {
    match state {
        State::Idle => SessionState::Idle,
        State::Active => SessionState::Active,
        State::Connect => SessionState::Connect,
        State::OpenSent => SessionState::OpenSent,
        State::OpenConfirm => SessionState::OpenConfirm,
        State::Established => SessionState::Established,
    }
}
