//! One session as the engine keeps it: the machine, its way to the peer, and what was counted.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use caracal_bgp_core::bfd::{
    Auth, Change, Discard, Interval, MAX_PACKET_LEN, Packet, Remote, Session, State, Timing, Why,
};

use super::transmit::{NoWay, Ports, Sent, Transmitter};
use super::{OUTBOX, Report};
use crate::config::Spec;
use crate::proto::SessionKey;
use crate::registry::Transition;

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: SessionKey,
    pub(super) spec: Spec,
    /// `None` until there has been a way to the peer.
    pub(super) session: Option<Session>,
    pub(super) port: Option<u16>,
    transmitter: Option<Transmitter>,
    /// Whether the socket waits to be opened anew.
    reopening: bool,
    problem: Option<(Obstacle, String)>,
    armed: Option<Instant>,
    changes: u64,
    /// The latest change, where it was left out of the reports.
    unreported: Option<Transition>,
    counters: Counters,
}

/// What keeps packets from the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obstacle {
    /// There is no socket.
    NoWay,
    /// The kernel does not send.
    Unsent,
    /// Packets leave, and something answers that they should not.
    Refused,
}

#[derive(Clone, Debug, Default)]
struct Counters {
    sent: u64,
    unsent: u64,
    received: u64,
    discarded: u64,
    last_discard: Option<Discard>,
}

/// What the engine knows of a session.
#[derive(Clone, Debug)]
pub(crate) struct Details {
    pub(crate) key: SessionKey,
    pub(crate) problem: Option<String>,
    pub(crate) local_address: Option<IpAddr>,
    pub(crate) source_port: Option<u16>,
    pub(crate) timing: Timing,
    pub(crate) auth: Option<String>,
    pub(crate) machine: Option<MachineDetails>,
    pub(crate) sent: u64,
    pub(crate) unsent: u64,
    pub(crate) received: u64,
    pub(crate) discarded: u64,
    pub(crate) last_discard: Option<Discard>,
}

/// What the machine knows.
#[derive(Clone, Debug)]
pub(crate) struct MachineDetails {
    pub(crate) state: State,
    pub(crate) why: Why,
    pub(crate) remote: Remote,
    pub(crate) discriminator: u32,
    pub(crate) transmit: Option<Interval>,
    pub(crate) receive: Option<Interval>,
    pub(crate) detection: Option<Duration>,
}

impl Entry {
    pub(super) fn new(key: SessionKey, spec: Spec) -> Self {
        Self {
            key,
            spec,
            session: None,
            port: None,
            transmitter: None,
            reopening: false,
            problem: None,
            armed: None,
            changes: 0,
            unreported: None,
            counters: Counters::default(),
        }
    }

    /// Opens the way to the peer, anew if there was one.
    pub(super) fn open(&mut self, ports: &mut Ports, outbox: &mut VecDeque<Report>) -> bool {
        // The old socket has the port.
        self.transmitter = None;
        match Transmitter::open(&self.key, &mut self.port, ports) {
            Ok(transmitter) => {
                self.transmitter = Some(transmitter);
                self.reopening = false;
                self.clear(Obstacle::NoWay, outbox);
                true
            }
            Err(NoWay(why)) => {
                self.note(Obstacle::NoWay, why, outbox);
                false
            }
        }
    }

    /// Index of the interface that packets must come by, where one was asked for.
    pub(super) fn interface(&self) -> Option<u32> {
        self.transmitter.as_ref()?.interface
    }

    /// Whether the timer of `due` is the one that counts; it is no more.
    pub(super) fn disarm(&mut self, due: Instant) -> bool {
        let counts = self.armed == Some(due);
        if counts {
            self.armed = None;
        }
        counts
    }

    /// Whether a timer at `due` is needed: none at all runs out earlier.
    pub(super) fn arm(&mut self, due: Instant) -> bool {
        let needed = self.armed.is_none_or(|armed| due < armed);
        if needed {
            self.armed = Some(due);
        }
        needed
    }

    /// A packet is about to be looked at.
    pub(super) fn begin_receive(&mut self) {
        self.counters.received += 1;
    }

    /// Something came from the peer, so something listens there.
    pub(super) fn heard(&mut self, outbox: &mut VecDeque<Report>) {
        self.clear(Obstacle::Refused, outbox);
    }

    /// It was thrown away.
    pub(super) fn discarded(&mut self, reason: Discard) {
        self.counters.received = self.counters.received.saturating_sub(1);
        self.note_discard(reason);
    }

    pub(super) fn note_discard(&mut self, reason: Discard) {
        self.counters.discarded += 1;
        self.counters.last_discard = Some(reason);
    }

    /// Sends; says whether the socket must be opened anew.
    pub(super) fn send(&mut self, packet: &Packet, outbox: &mut VecDeque<Report>) -> bool {
        let Some(transmitter) = &self.transmitter else {
            self.counters.unsent += 1;
            return false;
        };
        let mut octets = [0; MAX_PACKET_LEN];
        let len = packet.encode(&mut octets);
        match transmitter.send(&octets[..len]) {
            Sent::Yes => {
                self.counters.sent += 1;
                self.clear(Obstacle::Unsent, outbox);
                false
            }
            Sent::AfterError(why) => {
                self.counters.sent += 1;
                self.note(Obstacle::Refused, why, outbox);
                false
            }
            Sent::No { why, reopen } => {
                self.counters.unsent += 1;
                self.note(Obstacle::Unsent, why, outbox);
                let begin = reopen && !self.reopening;
                self.reopening |= reopen;
                begin
            }
        }
    }

    fn note(&mut self, obstacle: Obstacle, why: String, outbox: &mut VecDeque<Report>) {
        let problem = Some((obstacle, why));
        if self.problem != problem {
            self.problem = problem;
            self.report_problem(outbox);
        }
    }

    fn clear(&mut self, obstacle: Obstacle, outbox: &mut VecDeque<Report>) {
        if self
            .problem
            .as_ref()
            .is_some_and(|(other, _)| *other == obstacle)
        {
            self.problem = None;
            self.report_problem(outbox);
        }
    }

    fn report_problem(&self, outbox: &mut VecDeque<Report>) {
        // For the log; whoever asks reads it from the details.
        if outbox.len() < OUTBOX {
            let key = self.key.clone();
            let problem = self.problem.as_ref().map(|(_, why)| why.clone());
            outbox.push_back(Report::Problem { key, problem });
        }
    }

    /// The report of a change, if there is room for it.
    pub(super) fn changed(&mut self, at: Instant, change: Change, room: bool) -> Option<Report> {
        self.changes += 1;
        let transition = Transition {
            number: self.changes,
            at,
            change,
        };
        if !room {
            self.unreported = Some(transition);
            return None;
        }
        // Whatever was left out before is older than this.
        self.unreported = None;
        let key = self.key.clone();
        Some(Report::Changed { key, transition })
    }

    /// The report of the latest change, where it was left out.
    pub(super) fn catch_up(&mut self) -> Option<Report> {
        let transition = self.unreported.take()?;
        let key = self.key.clone();
        Some(Report::Changed { key, transition })
    }

    pub(super) fn details(&self) -> Details {
        let machine = self.session.as_ref().map(|session| MachineDetails {
            state: session.state(),
            why: session.why(),
            remote: *session.remote(),
            discriminator: session.discriminator().get(),
            transmit: session.send_interval(),
            receive: session.receive_interval(),
            detection: session.detection_time(),
        });
        let auth = |auth: &Auth| format!("{}, key {}", auth.kind(), auth.send_key());
        Details {
            key: self.key.clone(),
            problem: self.problem.as_ref().map(|(_, why)| why.clone()),
            local_address: self.transmitter.as_ref().map(|way| way.local),
            source_port: self.port,
            timing: self.spec.timing,
            auth: self.spec.auth.as_ref().map(auth),
            machine,
            sent: self.counters.sent,
            unsent: self.counters.unsent,
            received: self.counters.received,
            discarded: self.counters.discarded,
            last_discard: self.counters.last_discard,
        }
    }
}
