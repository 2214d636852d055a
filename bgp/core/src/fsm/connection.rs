//! One TCP connection on its way to being the session, and the timers that run on it.

use std::time::{Duration, Instant};

use crate::fsm::event::{ConnId, Role};
use crate::fsm::terms::Negotiated;

/// RFC 9687 §6: the send hold time is this, or twice the hold time where that is longer.
const MIN_SEND_HOLD: Duration = Duration::from_secs(8 * 60);

#[derive(Clone, Debug)]
pub(super) struct Connection {
    pub(super) id: ConnId,
    pub(super) role: Role,
    pub(super) phase: Phase,
    /// Accepted while a session was up, and so not part of a simultaneous open.
    pub(super) newcomer: bool,
    pub(super) hold: Option<Instant>,
    pub(super) keepalive: Option<Instant>,
    pub(super) send_hold: Option<Instant>,
}

#[derive(Clone, Debug)]
pub(super) enum Phase {
    OpenSent,
    OpenConfirm(Box<Negotiated>),
    Established {
        negotiated: Box<Negotiated>,
        since: Instant,
    },
}

impl Connection {
    pub(super) fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established { .. })
    }

    /// The terms, as soon as the peer's OPEN was accepted.
    pub(super) fn negotiated(&self) -> Option<&Negotiated> {
        match &self.phase {
            Phase::OpenSent => None,
            Phase::OpenConfirm(negotiated) | Phase::Established { negotiated, .. } => {
                Some(negotiated)
            }
        }
    }

    /// Enters Established; `None` unless the peer's OPEN was accepted before.
    pub(super) fn establish(&mut self, now: Instant) -> Option<Negotiated> {
        let Phase::OpenConfirm(negotiated) = &self.phase else {
            return None;
        };
        let negotiated = negotiated.clone();
        let terms = Negotiated::clone(&negotiated);
        let silent = terms.hold_time.is_zero();
        self.hold = (!silent).then(|| now + terms.hold_time);
        // RFC 9687 §4: without keepalives there may rightly be nothing to send for hours.
        self.send_hold = (!silent).then(|| now + send_hold(&terms));
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
            self.send_hold = Some(now + send_hold(negotiated));
        }
    }

    pub(super) fn timers(&self) -> impl Iterator<Item = Instant> {
        [self.hold, self.keepalive, self.send_hold]
            .into_iter()
            .flatten()
    }
}

fn send_hold(negotiated: &Negotiated) -> Duration {
    MIN_SEND_HOLD.max(negotiated.hold_time * 2)
}
