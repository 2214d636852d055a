//! Dialling: when to, and when not.

use std::time::{Duration, Instant};

use super::Peer;
use crate::fsm::event::{Action, Note};
use crate::fsm::why::{CloseWhy, DownWhy};

/// How long a dial may take: two retransmitted SYNs, after which a fresh dial finds a returning
/// peer sooner than the kernel's growing waits do.
const DIAL_TIMEOUT: Duration = Duration::from_secs(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dial {
    Off,
    WaitUntil(Instant),
    UnderWayUntil(Instant),
}

impl Peer {
    /// Runs the timer of the dial, when it is due.
    pub(super) fn dial_due(&mut self, now: Instant, out: &mut Vec<Action>) {
        match self.dial {
            Dial::WaitUntil(at) if at <= now => self.dial_now(now, out),
            Dial::UnderWayUntil(at) if at <= now => {
                out.push(Action::CancelDial);
                self.dial_failed(now, CloseWhy::TimedOut, out);
            }
            _ => {}
        }
    }

    pub(super) fn dial_failed(&mut self, now: Instant, why: CloseWhy, out: &mut Vec<Action>) {
        if !matches!(self.dial, Dial::UnderWayUntil(_)) {
            return;
        }
        self.dial = Dial::Off;
        let why = DownWhy::ConnectionLost(why);
        out.push(Action::Note(Note::AttemptFailed { why }));
        self.ensure_dial(now, out);
    }

    /// Arms the next dial when nothing else can lead to a session.
    pub(super) fn ensure_dial(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.may_dial() || self.dial != Dial::Off {
            return;
        }
        let wait = self.backoff.wait(&mut self.jitter);
        self.dial = Dial::WaitUntil(now + wait);
        out.push(Action::Note(Note::RetryIn(wait)));
    }

    pub(super) fn dial_now(&mut self, now: Instant, out: &mut Vec<Action>) {
        if !self.may_dial() {
            // A connection of the peer's is on its way; if it fails, the next dial is armed.
            if matches!(self.dial, Dial::WaitUntil(_)) {
                self.dial = Dial::Off;
            }
            return;
        }
        self.dial = Dial::UnderWayUntil(now + DIAL_TIMEOUT);
        out.push(Action::Dial);
    }

    fn may_dial(&self) -> bool {
        self.may_not_begin().is_none() && !self.config.passive && self.connections.is_empty()
    }

    pub(super) fn cancel_dial(&mut self, out: &mut Vec<Action>) {
        if matches!(self.dial, Dial::UnderWayUntil(_)) {
            out.push(Action::CancelDial);
        }
        self.dial = Dial::Off;
    }
}
