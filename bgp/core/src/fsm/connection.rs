//! One TCP connection on its way to being the session, and the timers that run on it.

use std::time::{Duration, Instant};

use crate::fsm::config::Config;
use crate::fsm::event::{ConnId, Role};
use crate::fsm::open;
use crate::fsm::terms::Negotiated;

#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) role: Role,
    pub(super) phase: Phase,
    /// Accepted while a session had been up for a while, and so not part of a simultaneous open.
    pub(super) newcomer: bool,
    pub(super) hold: Option<Instant>,
    pub(super) keepalive: Option<Instant>,
    pub(super) send_hold: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Beside a session: our OPEN waits for the peer's, or for the end of the session.
    OpenDelayed,
    OpenSent,
    OpenConfirm(Box<Negotiated>),
    /// The peer's KEEPALIVE came too, but another connection may yet win, until this time.
    Confirmed(Box<Negotiated>, Instant),
    Established {
        negotiated: Box<Negotiated>,
        since: Instant,
    },
}

impl Connection {
    pub(super) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established { .. })
    }

    pub(super) fn is_delayed(&self) -> bool {
        matches!(self.phase, Phase::OpenDelayed)
    }

    /// The terms, as soon as the peer's OPEN was accepted.
    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        match &self.phase {
            Phase::OpenDelayed | Phase::OpenSent => None,
            Phase::OpenConfirm(negotiated)
            | Phase::Confirmed(negotiated, _)
            | Phase::Established { negotiated, .. } => Some(negotiated),
        }
    }

    /// The peer's first KEEPALIVE: the connection is fit for Established, and waits for at most
    /// `wait` to be chosen.
    pub(super) fn confirm(&mut self, now: Instant, wait: Duration) {
        if let Phase::OpenConfirm(negotiated) = &self.phase {
            if !negotiated.hold_time.is_zero() {
                self.hold = Some(now + negotiated.hold_time);
            }
            self.phase = Phase::Confirmed(negotiated.clone(), now + wait);
        }
    }

    /// Enters Established; `None` unless the peer's KEEPALIVE came before.
    pub(super) fn establish(&mut self, now: Instant) -> Option<Negotiated> {
        let Phase::Confirmed(negotiated, _) = &self.phase else {
            return None;
        };
        let negotiated = negotiated.clone();
        let terms = Negotiated::clone(&negotiated);
        let unless_zero = |time: Duration| (!time.is_zero()).then(|| now + time);
        self.hold = unless_zero(terms.hold_time);
        self.send_hold = unless_zero(terms.send_hold_time);
        self.phase = Phase::Established {
            negotiated,
            since: now,
        };
        Some(terms)
    }

    /// A message came over the session.
    pub(super) fn restart_hold(&mut self, now: Instant) {
        if let Phase::Established { negotiated, .. } = &self.phase
            && self.hold.is_some()
        {
            self.hold = Some(now + negotiated.hold_time);
        }
    }

    /// A message reached the socket.
    pub(super) fn restart_send_hold(&mut self, now: Instant) {
        if let Phase::Established { negotiated, .. } = &self.phase
            && self.send_hold.is_some()
        {
            self.send_hold = Some(now + negotiated.send_hold_time);
        }
    }

    /// Takes over another pace of keepalives, which counts from the next one on, and another patience
    /// with a peer that does not read.
    pub(super) fn repace(&mut self, now: Instant, config: &Config) {
        match &mut self.phase {
            Phase::OpenDelayed | Phase::OpenSent => {}
            Phase::OpenConfirm(negotiated) | Phase::Confirmed(negotiated, _) => {
                open::repace(config, negotiated);
            }
            Phase::Established { negotiated, .. } => {
                open::repace(config, negotiated);
                let patience = negotiated.send_hold_time;
                self.send_hold = (!patience.is_zero()).then(|| now + patience);
            }
        }
    }

    pub(super) fn timers(&self) -> impl Iterator<Item = Instant> {
        let wait = match self.phase {
            Phase::Confirmed(_, until) => Some(until),
            _ => None,
        };
        [self.hold, self.keepalive, self.send_hold, wait]
            .into_iter()
            .flatten()
    }
}
