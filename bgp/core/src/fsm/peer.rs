//! The peer machine: connections, timers, messages (RFC 4271 §8).

mod admin;
mod collision;
mod dial;
mod path;

use std::time::{Duration, Instant};

use crate::fsm::config::Config;
use crate::fsm::connection::{Connection, OPEN_TIMEOUT, Phase};
use crate::fsm::event::{Action, ConnId, Event, Incoming, Note, Role, State};
use crate::fsm::open::{self, MIN_KEEPALIVE};
use crate::fsm::pace::{Backoff, Jitter};
use crate::fsm::peer::collision::COLLISION_WAIT;
use crate::fsm::peer::dial::Dial;
use crate::fsm::retention::retention;
use crate::fsm::terms::Negotiated;
use crate::fsm::why::{DownWhy, IdleWhy};
use crate::types::Family;
use crate::wire::iana::{FsmError, OpenError};
use crate::wire::{
    Cease, Message, Notification, NotificationError, Open, RefreshKind, RouteRefresh,
};

/// A session that lived this long proves the peer sound: waits start anew (RFC 4271 §8.1.1,
/// DampPeerOscillations).
const SOUND_AFTER: Duration = Duration::from_secs(10);

/// The session with one peer.
///
/// Any sequence of events is valid input; events on connections that are gone are ignored.
#[derive(Clone, Debug)]
pub struct Peer {
    config: Config,
    /// Why the peer is left alone; `None` while it runs.
    idle: Option<IdleWhy>,
    /// Whether BFD says that the path is up.
    path_proved: bool,
    /// Whether it is known who the peer is.
    known: bool,
    restarting: bool,
    jitter: Jitter,
    backoff: Backoff,
    dial: Dial,
    /// By family: an excess over a limit that is not, or no longer, configured here.
    early_excess: [Option<(ConnId, u32)>; Family::ALL.len()],
    /// At most two: before the session, one of each role; with a session, it and a newcomer.
    connections: Vec<Connection>,
}

impl Peer {
    /// A peer that waits for [`super::Admin::Up`].
    pub fn new(config: Config) -> Self {
        Self {
            idle: Some(IdleWhy::NotStarted),
            path_proved: false,
            known: true,
            restarting: config
                .graceful_restart
                .as_ref()
                .is_some_and(|own| own.restarting),
            jitter: Jitter::new(config.jitter_seed),
            backoff: Backoff::new(config.connect_retry),
            dial: Dial::Off,
            early_excess: Default::default(),
            connections: Vec::new(),
            config,
        }
    }

    /// The configuration given.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The state as seen from outside.
    pub fn state(&self) -> State {
        let of_connection = |connection: &Connection| match connection.phase {
            Phase::OpenDelayed => State::Active,
            // Where the draft has the session wait (draft-ietf-idr-bgp-bfd-strict-mode §8.5.5).
            Phase::OpenSent { .. } | Phase::AwaitsPath { .. } => State::OpenSent,
            Phase::OpenConfirm(_) | Phase::Confirmed(..) => State::OpenConfirm,
            Phase::Established { .. } => State::Established,
        };
        let most_advanced = self.connections.iter().map(of_connection).max();
        most_advanced.unwrap_or(match self.dial {
            _ if self.may_not_begin().is_some() => State::Idle,
            Dial::UnderWayUntil(_) => State::Connect,
            Dial::Off | Dial::WaitUntil(_) => State::Active,
        })
    }

    /// The terms of the session, while there is one.
    pub fn negotiated(&self) -> Option<&Negotiated> {
        self.connections
            .iter()
            .find_map(|connection| match &connection.phase {
                Phase::Established { negotiated, .. } => Some(&**negotiated),
                _ => None,
            })
    }

    /// Why the peer is left alone, while it is.
    pub fn idle_why(&self) -> Option<&IdleWhy> {
        self.may_not_begin().filter(|_| self.connections.is_empty())
    }

    /// Why no session may begin.
    fn may_not_begin(&self) -> Option<&IdleWhy> {
        let unknown = (!self.known).then_some(&IdleWhy::Unknown);
        self.idle.as_ref().or(unknown)
    }

    /// When [`Self::handle_timeout`] has something to do; `None` while nothing is armed.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let dial = match self.dial {
            Dial::Off => None,
            Dial::WaitUntil(at) | Dial::UnderWayUntil(at) => Some(at),
        };
        let timers = self.connections.iter().flat_map(Connection::timers);
        timers.chain(dial).chain(self.held_until()).min()
    }

    /// Takes in what happened and appends what the shell must do.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        let before = self.state();
        match event {
            Event::Connected { conn, role } => self.connected(now, conn, role, out),
            Event::DialFailed { why } => self.dial_failed(now, why, out),
            Event::Received { conn, message } => self.received(now, conn, message, out),
            Event::Malformed { conn, notification } => {
                self.malformed(now, conn, notification, out);
            }
            Event::Closed { conn, why } => {
                self.remove(now, conn, DownWhy::ConnectionLost(why), out);
            }
            Event::Wrote { conn } => {
                if self.find(conn).is_some() {
                    self.find_mut(conn).restart_send_hold(now);
                }
            }
            Event::PathDown { why } => self.path_down(now, why, out),
            Event::PathUp => {
                self.backoff.reset();
                self.dial_now(now, out);
            }
            Event::PathProved(proved) => self.path_proved = proved,
            Event::PeerKnown(known) => self.peer_known(now, known, out),
            Event::RestartComplete => self.restarting = false,
            Event::PrefixLimitExceeded {
                conn,
                family,
                limit,
            } => self.prefix_limit_exceeded(now, conn, family, limit, out),
            Event::RequestRefresh { family } => self.request_refresh(family, out),
            Event::Configure {
                config,
                new_session,
            } => self.configure(now, *config, new_session, out),
            Event::Admin(wish) => self.admin(now, wish, out),
        }
        self.settle(now, out);
        self.note_change(before, out);
    }

    /// Runs every timer that is due; spurious calls do nothing.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        let before = self.state();
        if self.held_until().is_some_and(|until| until <= now) {
            self.start(now, out);
        }
        self.dial_due(now, out);
        let due = |timer: Option<Instant>| timer.is_some_and(|at| at <= now);
        let conns: Vec<ConnId> = self
            .connections
            .iter()
            .map(|connection| connection.id)
            .collect();
        for conn in conns {
            let Some(connection) = self.find(conn) else {
                continue;
            };
            if due(connection.hold) {
                let why = match connection.phase {
                    Phase::AwaitsPath { .. } => DownWhy::PathUnproved,
                    _ => DownWhy::HoldTimerExpired,
                };
                self.expire(now, conn, why, out);
            } else if due(connection.send_hold) {
                self.expire(now, conn, DownWhy::SendHoldTimerExpired, out);
            } else if due(connection.keepalive) {
                self.send_keepalive(now, conn, out);
            }
        }
        self.settle(now, out);
        self.note_change(before, out);
    }

    fn connected(&mut self, now: Instant, conn: ConnId, role: Role, out: &mut Vec<Action>) {
        if role == Role::Active {
            // Only the dial under way can succeed; the answer to a cancelled one comes too late.
            if !matches!(self.dial, Dial::UnderWayUntil(_)) {
                out.push(Action::Close { conn });
                return;
            }
            self.dial = Dial::Off;
        }
        if self.may_not_begin().is_some() {
            send(
                conn,
                Notification::cease(Cease::ConnectionRejected, ""),
                out,
            );
            out.push(Action::Close { conn });
            return;
        }
        // A peer has one connection of its own at a time: the older one is dead on its side.
        let session_age = self.connections.iter().find_map(|existing| {
            let Phase::Established { since, .. } = existing.phase else {
                return None;
            };
            Some(now.saturating_duration_since(since))
        });
        let superseded = self.connections.iter().find(|existing| {
            !existing.is_established() && (session_age.is_some() || existing.role == role)
        });
        if let Some(superseded) = superseded.map(|existing| existing.id) {
            self.lose_collision(now, superseded, out);
        }
        self.connections.push(Connection {
            id: conn,
            role,
            phase: Phase::OpenDelayed,
            newcomer: session_age.is_some_and(|age| age >= COLLISION_WAIT),
            hold: Some(now + OPEN_TIMEOUT),
            keepalive: None,
            send_hold: None,
        });
        // Beside a session, our OPEN would make a peer that has not yet established it resolve
        // the collision for the newcomer, which we are about to refuse: both would be lost. RFC
        // 4271 §8.1.1 allows the delay (DelayOpen).
        if session_age.is_none() {
            self.send_open(conn, out);
        }
    }

    fn send_open(&mut self, conn: ConnId, out: &mut Vec<Action>) {
        out.push(Action::Send {
            conn,
            message: Message::Open(open::ours(&self.config, self.restarting)),
        });
        self.find_mut(conn).phase = Phase::OpenSent {
            offered: Box::new(self.config.clone()),
        };
    }

    fn received(&mut self, now: Instant, conn: ConnId, message: Incoming, out: &mut Vec<Action>) {
        let Some(connection) = self.find(conn) else {
            return;
        };
        match (&connection.phase, message) {
            (_, Incoming::Notification(notification)) => {
                out.push(Action::Close { conn });
                let why = connection.ended_by(notification);
                self.remove(now, conn, why, out);
            }
            (Phase::OpenDelayed | Phase::OpenSent { .. }, Incoming::Open(open)) => {
                self.opened(now, conn, &open, out);
            }
            (Phase::AwaitsPath { .. } | Phase::OpenConfirm(_), Incoming::Keepalive) => {
                self.find_mut(conn).confirm(now, COLLISION_WAIT);
            }
            (Phase::Confirmed(..), Incoming::Keepalive) => {}
            // Only a peer that has established this connection sends routes on it: it has chosen.
            (Phase::Confirmed(..), Incoming::Update | Incoming::RouteRefresh) => {
                self.establish(now, conn, out);
                out.push(Action::Deliver { conn });
            }
            (Phase::Established { .. }, Incoming::Keepalive) => {
                self.find_mut(conn).restart_hold(now)
            }
            (Phase::Established { .. }, Incoming::Update | Incoming::RouteRefresh) => {
                self.find_mut(conn).restart_hold(now);
                out.push(Action::Deliver { conn });
            }
            // RFC 6608 §3: the subcode says in which state the message came.
            (Phase::OpenDelayed, _) => {
                self.refuse(now, conn, unexpected(FsmError::Unspecific), out);
            }
            (Phase::OpenSent { .. } | Phase::AwaitsPath { .. }, _) => {
                self.refuse(now, conn, unexpected(FsmError::UnexpectedInOpenSent), out);
            }
            (Phase::OpenConfirm(_) | Phase::Confirmed(..), _) => {
                self.refuse(
                    now,
                    conn,
                    unexpected(FsmError::UnexpectedInOpenConfirm),
                    out,
                );
            }
            (Phase::Established { .. }, Incoming::Open(_)) => {
                self.refuse(
                    now,
                    conn,
                    unexpected(FsmError::UnexpectedInEstablished),
                    out,
                );
            }
        }
    }

    /// The peer's OPEN: negotiates, then resolves a collision.
    fn opened(&mut self, now: Instant, conn: ConnId, open: &Open, out: &mut Vec<Action>) {
        // What the peer was offered counts, whatever is configured since.
        let offered = match self.find(conn).map(|connection| &connection.phase) {
            Some(Phase::OpenSent { offered }) => offered,
            _ => &self.config,
        };
        let mut negotiated = match open::negotiate(offered, open) {
            Ok(negotiated) => negotiated,
            Err(notification) => {
                let why = match notification.error {
                    NotificationError::Open(OpenError::BadPeerAs) => DownWhy::PeerAsRefused {
                        said: open.asn,
                        configured: offered.peer_asn,
                    },
                    _ => DownWhy::NotificationSent(notification.clone()),
                };
                return self.refuse_because(now, conn, notification, why, out);
            }
        };
        open::repace(&self.config, &mut negotiated);
        if !self.survives_collision(now, conn, &negotiated, out) {
            return self.lose_collision(now, conn, out);
        }
        let ignored = open::ignored_families(&negotiated, open);
        if !ignored.is_empty() {
            out.push(Action::Note(Note::FamiliesIgnored(ignored)));
        }
        if self.find(conn).is_some_and(Connection::is_delayed) {
            self.send_open(conn, out);
        }
        self.find_mut(conn).accept(now, negotiated);
        if self.awaits_path() {
            out.push(Action::Note(Note::AwaitsPath));
        }
    }

    fn establish(&mut self, now: Instant, conn: ConnId, out: &mut Vec<Action>) {
        let others = self.connections.iter().map(|other| other.id);
        let others: Vec<ConnId> = others.filter(|other| *other != conn).collect();
        for other in others {
            self.lose_collision(now, other, out);
        }
        self.cancel_dial(out);
        if let Some(negotiated) = self.find_mut(conn).establish(now) {
            out.push(Action::Up { conn, negotiated });
        }
    }

    fn send_keepalive(&mut self, now: Instant, conn: ConnId, out: &mut Vec<Action>) {
        out.push(Action::Send {
            conn,
            message: Message::Keepalive,
        });
        let negotiated = self.find(conn).and_then(Connection::negotiated);
        let interval = negotiated.map_or(Duration::ZERO, |negotiated| negotiated.keepalive);
        // RFC 4271 §4.4: jitter does not bring them closer together than a second.
        let next =
            (!interval.is_zero()).then(|| now + self.jitter.apply(interval).max(MIN_KEEPALIVE));
        self.find_mut(conn).keepalive = next;
    }

    /// What came on a connection cannot be decoded.
    fn malformed(
        &mut self,
        now: Instant,
        conn: ConnId,
        notification: Notification,
        out: &mut Vec<Action>,
    ) {
        let connection = self.find(conn);
        let agreed = connection
            .and_then(Connection::negotiated)
            .is_some_and(|terms| terms.enhanced_route_refresh);
        let of_refresh = matches!(notification.error, NotificationError::RouteRefresh(_));
        // RFC 7313 §5: the length of a bracket is an error only to speakers that agreed on
        // brackets. To others it is a subtype that means nothing, in a state that allows one.
        if of_refresh && !agreed && connection.is_some_and(Connection::is_established) {
            self.find_mut(conn).restart_hold(now);
            return;
        }
        self.refuse(now, conn, notification, out);
    }

    /// Ends a connection of which no session is to come, as when the peer broke a rule.
    fn refuse(
        &mut self,
        now: Instant,
        conn: ConnId,
        notification: Notification,
        out: &mut Vec<Action>,
    ) {
        let why = DownWhy::NotificationSent(notification.clone());
        self.refuse_because(now, conn, notification, why, out);
    }

    fn refuse_because(
        &mut self,
        now: Instant,
        conn: ConnId,
        notification: Notification,
        why: DownWhy,
        out: &mut Vec<Action>,
    ) {
        if self.find(conn).is_none() {
            return;
        }
        send(conn, notification, out);
        out.push(Action::Close { conn });
        self.remove(now, conn, why, out);
    }

    fn request_refresh(&self, family: Family, out: &mut Vec<Action>) {
        let session = self
            .connections
            .iter()
            .find(|connection| connection.is_established());
        let able = session.filter(|session| {
            session
                .negotiated()
                .is_some_and(|terms| terms.can_refresh(family))
        });
        let Some(session) = able else {
            out.push(Action::Note(Note::RefreshImpossible(family)));
            return;
        };
        out.push(Action::Send {
            conn: session.id,
            message: Message::RouteRefresh(RouteRefresh {
                family: family.into(),
                kind: RefreshKind::Request,
            }),
        });
    }

    fn expire(&mut self, now: Instant, conn: ConnId, why: DownWhy, out: &mut Vec<Action>) {
        let notification = match why {
            DownWhy::SendHoldTimerExpired => {
                Notification::new(NotificationError::SendHoldTimerExpired, [])
            }
            DownWhy::PathUnproved => Notification::cease(Cease::BfdDown, ""),
            _ => Notification::new(NotificationError::HoldTimerExpired, []),
        };
        send(conn, notification, out);
        out.push(Action::Close { conn });
        self.remove(now, conn, why, out);
    }

    /// Ends every connection; `word` is what to say on one with these terms, if anything.
    fn close_all(
        &mut self,
        now: Instant,
        why: &DownWhy,
        word: impl Fn(Option<&Negotiated>) -> Option<Notification>,
        out: &mut Vec<Action>,
    ) {
        while let Some(connection) = self.connections.first() {
            let conn = connection.id;
            if let Some(notification) = word(connection.negotiated()) {
                send(conn, notification, out);
            }
            out.push(Action::Close { conn });
            self.remove(now, conn, why.clone(), out);
        }
    }

    /// Forgets a connection and tells what that means.
    fn remove(&mut self, now: Instant, conn: ConnId, why: DownWhy, out: &mut Vec<Action>) {
        let Some(at) = self
            .connections
            .iter()
            .position(|connection| connection.id == conn)
        else {
            return;
        };
        match self.connections.remove(at).phase {
            Phase::Established { negotiated, since } => {
                if now.saturating_duration_since(since) >= SOUND_AFTER {
                    self.backoff.reset();
                }
                let retain = retention(&self.config, &why, &negotiated);
                out.push(Action::Down { why, retain });
            }
            Phase::OpenDelayed
            | Phase::OpenSent { .. }
            | Phase::AwaitsPath { .. }
            | Phase::OpenConfirm(_)
            | Phase::Confirmed(..) => {
                out.push(Action::Note(Note::AttemptFailed { why }));
            }
        }
        self.ensure_dial(now, out);
    }

    fn note_change(&self, from: State, out: &mut Vec<Action>) {
        let to = self.state();
        if from != to {
            out.push(Action::Note(Note::StateChanged { from, to }));
        }
    }

    fn find(&self, conn: ConnId) -> Option<&Connection> {
        self.connections
            .iter()
            .find(|connection| connection.id == conn)
    }

    fn find_mut(&mut self, conn: ConnId) -> &mut Connection {
        self.connections
            .iter_mut()
            .find(|connection| connection.id == conn)
            .expect("callers have found the connection before and removed none since")
    }
}

fn send(conn: ConnId, notification: Notification, out: &mut Vec<Action>) {
    out.push(Action::Send {
        conn,
        message: Message::Notification(notification),
    });
}

fn unexpected(error: FsmError) -> Notification {
    Notification::new(error, [])
}
