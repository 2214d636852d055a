//! One TCP connection on its way to being the session, and the timers that run on it.

use std::time::{Duration, Instant};

use crate::fsm::config::Config;
use crate::fsm::event::{ConnId, Role};
use crate::fsm::open;
use crate::fsm::terms::Negotiated;
use crate::fsm::why::DownWhy;
use crate::wire::iana::OpenError;
use crate::wire::{Notification, NotificationError};

/// How long a connection may stay without the peer's OPEN, or its first KEEPALIVE where the hold
/// time is zero. RFC 4271 §8.2.2 suggests four minutes; a peer that lost power would then block a
/// slot for as long.
pub(super) const OPEN_TIMEOUT: Duration = Duration::from_secs(30);

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
    OpenSent {
        /// The configuration that our OPEN told of.
        offered: Box<Config>,
    },
    /// The peer's OPEN was accepted; our KEEPALIVE waits until the path is proved, if it must be.
    AwaitsPath {
        negotiated: Box<Negotiated>,
        /// The peer's KEEPALIVE came.
        confirmed: bool,
    },
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
            Phase::OpenDelayed | Phase::OpenSent { .. } => None,
            Phase::AwaitsPath { negotiated, .. }
            | Phase::OpenConfirm(negotiated)
            | Phase::Confirmed(negotiated, _)
            | Phase::Established { negotiated, .. } => Some(negotiated),
        }
    }

    /// Why it ends with this word of the peer.
    pub(super) fn ended_by(&self, word: Notification) -> DownWhy {
        let said = match &self.phase {
            Phase::OpenSent { offered } => offered.local_asn,
            Phase::AwaitsPath { negotiated, .. }
            | Phase::OpenConfirm(negotiated)
            | Phase::Confirmed(negotiated, _) => negotiated.local_asn,
            Phase::OpenDelayed | Phase::Established { .. } => {
                return DownWhy::NotificationReceived(word);
            }
        };
        match word.error {
            NotificationError::Open(OpenError::BadPeerAs) => DownWhy::OwnAsRefused { said },
            _ => DownWhy::NotificationReceived(word),
        }
    }

    /// The peer's OPEN was accepted. The path is awaited for as long as its KEEPALIVE then is.
    pub(super) fn accept(&mut self, now: Instant, negotiated: Negotiated) {
        self.hold = Some(now + patience(&negotiated));
        self.phase = Phase::AwaitsPath {
            negotiated: Box::new(negotiated),
            confirmed: false,
        };
    }

    /// The path need not be awaited any more, so that our KEEPALIVE goes out; whether that is news.
    pub(super) fn release(&mut self, now: Instant, wait: Duration) -> bool {
        let Phase::AwaitsPath {
            negotiated,
            confirmed,
        } = &self.phase
        else {
            return false;
        };
        let confirmed = *confirmed;
        self.hold = Some(now + patience(negotiated));
        self.phase = Phase::OpenConfirm(negotiated.clone());
        if confirmed {
            self.confirm(now, wait);
        }
        true
    }

    /// The peer's first KEEPALIVE: the connection is fit for Established, as soon as its path is, and
    /// then waits for at most `wait` to be chosen.
    pub(super) fn confirm(&mut self, now: Instant, wait: Duration) {
        match &mut self.phase {
            Phase::AwaitsPath { confirmed, .. } => *confirmed = true,
            Phase::OpenConfirm(negotiated) => {
                if !negotiated.hold_time.is_zero() {
                    self.hold = Some(now + negotiated.hold_time);
                }
                self.phase = Phase::Confirmed(negotiated.clone(), now + wait);
            }
            _ => {}
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
            Phase::OpenDelayed | Phase::OpenSent { .. } => {}
            Phase::AwaitsPath { negotiated, .. }
            | Phase::OpenConfirm(negotiated)
            | Phase::Confirmed(negotiated, _) => {
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

/// How long to wait for the next step of a peer whose OPEN was accepted.
fn patience(negotiated: &Negotiated) -> Duration {
    match negotiated.hold_time {
        Duration::ZERO => OPEN_TIMEOUT,
        hold_time => hold_time,
    }
}
