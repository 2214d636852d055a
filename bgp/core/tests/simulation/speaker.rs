//! A speaker around the two machines, as the program has it: frames to the session's machine, events
//! to the RIB by a queue of bounded length, routes pulled when the connection takes them.
//!
//! Owns a speaker's queues and its sessions. Does not own what its RIB's thread does ([`crate::rib_thread`]),
//! time, or octets on their way (`world`).

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::BytesMut;
use caracal_bgp_core::fsm::{
    Action, Admin, CloseWhy, Config, ConnId, Event, Incoming, Peer, Role, State,
};
use caracal_bgp_core::rib::{Event as RibEvent, FibAnswer, PeerId, Rib, RibOptions};
use caracal_bgp_core::wire::{
    self, DecodeContext, EncodeContext, Frame, MAX_EXTENDED_LEN, Message, MessageType, RefreshKind,
    RouteRefresh, UpdateOutcome,
};

use crate::fabric::{Side, index};
use crate::world::{Job, Owner, WireId, World};

/// A process, or the place of one.
pub(crate) struct Speaker {
    /// `None` while the process does not run.
    pub(crate) rib: Option<Rib>,
    pub(crate) life: u64,
    /// The host has no power.
    pub(crate) off: bool,
    pub(crate) inputs: VecDeque<RibEvent>,
    pub(crate) ready: VecDeque<PeerId>,
    pub(crate) answers: Vec<(Instant, FibAnswer)>,
    pub(crate) due: Option<Instant>,
    pub(crate) frozen: Instant,
    pub(crate) busy: Instant,
    /// Our OPENs say that we come from a restart.
    pub(crate) restarting: bool,
    pub(crate) sessions: BTreeMap<Side, Session>,
}

pub(crate) struct Session {
    pub(crate) machine: Peer,
    pub(crate) conns: BTreeMap<ConnId, WireId>,
    names: u64,
    generation: u64,
    pub(crate) up: Option<Up>,
    pub(crate) dial: Option<u64>,
    timer: Option<Instant>,
    pub(crate) deaf: Instant,
    claim_due: bool,
    claimed: bool,
}

#[derive(Clone)]
pub(crate) struct Up {
    pub(crate) conn: ConnId,
    pub(crate) id: PeerId,
    context: DecodeContext,
}

impl Speaker {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            rib: None,
            life: 0,
            off: false,
            inputs: VecDeque::new(),
            ready: VecDeque::new(),
            answers: Vec::new(),
            due: None,
            frozen: now,
            busy: now,
            restarting: false,
            sessions: BTreeMap::new(),
        }
    }

    /// Whether nothing waits anywhere, and every session is up.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let Some(rib) = &mut self.rib else {
            return false;
        };
        let held = rib.footprint();
        let up = |session: &Session| {
            session.up.is_some() && session.conns.len() == 1 && session.dial.is_none()
        };
        let waiting = self.inputs.len() + self.ready.len() + self.answers.len();
        let owed = held.stale + held.owing + held.journal + rib.fib_pending();
        waiting + owed == 0 && !rib.deferring() && self.sessions.values().all(up)
    }
}

impl World {
    /// The session in that life of its speaker.
    pub(crate) fn session(&mut self, side: Side, life: u64) -> Option<&mut Session> {
        let speaker = &mut self.speakers[self.fabric.end(side).router];
        let same = speaker.life == life && speaker.rib.is_some();
        same.then(|| speaker.sessions.get_mut(&side)).flatten()
    }

    pub(crate) fn living(&mut self, side: Side) -> Option<&mut Session> {
        let life = self.speakers[self.fabric.end(side).router].life;
        self.session(side, life)
    }

    /// Starts a speaker; `kept` when the kernel has kept the routes of its former life.
    pub(crate) fn start(&mut self, router: usize, kept: bool) {
        if self.speakers[router].rib.is_some() {
            return;
        }
        let program = &self.fabric.routers[router];
        let options = RibOptions {
            defer_until: kept.then(|| self.now + program.deferral),
            forwarding: program.forwards,
            hash_seed: self.random.next(),
            log_limit: program.program.log_limit,
        };
        let mut actions = Vec::new();
        let rib = Rib::new(self.fabric.rib_config(router), options, &mut actions);
        let frozen = self.speakers[router].frozen;
        let life = self.speakers[router].life + 1;
        self.speakers[router] = Speaker {
            rib: Some(rib),
            life,
            restarting: kept,
            frozen,
            ..Speaker::new(self.now)
        };
        self.switched_on(router);
        for side in self.fabric.sides(router) {
            let session = Session {
                machine: Peer::new(self.fabric.machine_config(side, kept)),
                conns: BTreeMap::new(),
                names: 0,
                generation: 0,
                up: None,
                dial: None,
                timer: None,
                deaf: self.now,
                claim_due: false,
                claimed: false,
            };
            self.speakers[router].sessions.insert(side, session);
            self.tell(side, Event::Admin(Admin::Up));
        }
        self.rib_acts(router, actions);
        self.rouse(router);
    }

    /// The process is gone; with `off`, its host too, so that nothing is said to anybody.
    pub(crate) fn end(&mut self, router: usize, off: bool) {
        let speaker = &mut self.speakers[router];
        let ended = std::mem::replace(speaker, Speaker::new(self.now));
        speaker.life = ended.life;
        speaker.off = off;
        let ids: Vec<WireId> = self.wires.keys().copied().collect();
        for id in ids {
            for at in 0..2 {
                let Some(wire) = self.wires.get(&id) else {
                    break;
                };
                let ours = self.fabric.end((wire.link, at)).router == router;
                if ours && matches!(wire.ends[at].owner, Owner::Live(_) | Owner::Pending) {
                    if off {
                        self.switch_off(id, at);
                    } else {
                        self.close(id, at);
                    }
                }
            }
        }
    }

    /// Gives a session's machine an event, when there is one.
    pub(crate) fn tell(&mut self, side: Side, event: Event) {
        self.handle(side, event, None);
    }

    fn handle(&mut self, side: Side, event: Event, delivery: Option<RibEvent>) {
        let now = self.now;
        let Some(session) = self.living(side) else {
            return;
        };
        let mut actions = Vec::new();
        session.machine.handle(now, event, &mut actions);
        self.act(side, actions, delivery);
    }

    pub(crate) fn timer(&mut self, side: Side, life: u64) {
        let now = self.now;
        let Some(session) = self.session(side, life) else {
            return;
        };
        if session.timer.is_none_or(|at| at > now) {
            return;
        }
        session.timer = None;
        let conns: Vec<(ConnId, WireId)> = session.conns.iter().map(|(c, w)| (*c, *w)).collect();
        let up = session.up.clone();
        for (conn, wire) in conns {
            let end = self.wires.get_mut(&wire).map(|wire| &mut wire.ends[side.1]);
            if end.is_some_and(|end| std::mem::take(&mut end.wrote)) {
                self.handle(side, Event::Wrote { conn }, None);
            }
            // The peer has spoken; it is the RIB's line that is full.
            let current = up.as_ref().is_some_and(|up| up.conn == conn);
            if current && self.is_full(side) && self.has_unread(wire, side.1) {
                let message = Incoming::Keepalive;
                self.handle(side, Event::Received { conn, message }, None);
            }
        }
        let Some(session) = self.session(side, life) else {
            return;
        };
        let mut actions = Vec::new();
        session.machine.handle_timeout(now, &mut actions);
        self.act(side, actions, None);
    }

    pub(crate) fn connected(&mut self, side: Side, life: u64, wire: WireId, dialled: bool) {
        let Some(session) = self.session(side, life) else {
            return self.close(wire, side.1);
        };
        session.names += 1;
        let conn = ConnId(session.names);
        session.conns.insert(conn, wire);
        if dialled {
            session.dial = None;
        }
        if let Some(wire) = self.wires.get_mut(&wire) {
            wire.ends[side.1].owner = Owner::Live(conn);
        }
        let role = if dialled { Role::Active } else { Role::Passive };
        self.tell(side, Event::Connected { conn, role });
    }

    pub(crate) fn refused(&mut self, side: Side, life: u64) {
        if let Some(session) = self.session(side, life) {
            session.dial = None;
            let why = CloseWhy::Refused;
            self.tell(side, Event::DialFailed { why });
        }
    }

    /// The other side has closed.
    pub(crate) fn ended(&mut self, side: Side, conn: ConnId) {
        if let Some(session) = self.living(side) {
            session.conns.remove(&conn);
            let why = CloseWhy::Eof;
            self.tell(side, Event::Closed { conn, why });
        }
    }

    /// Until when a speaker does not read from a peer, if it does not.
    pub(crate) fn deaf(&mut self, side: Side) -> Option<Instant> {
        let now = self.now;
        let session = self.living(side)?;
        (session.deaf > now).then_some(session.deaf)
    }

    /// Whether the RIB has no room for what a peer says.
    pub(crate) fn is_full(&self, side: Side) -> bool {
        let router = self.fabric.end(side).router;
        self.speakers[router].inputs.len() >= self.fabric.routers[router].program.rib_depth
    }

    /// Takes the next whole message off a connection; whether there was one.
    pub(crate) fn framed(&mut self, side: Side, conn: ConnId, wire: WireId) -> bool {
        let max_len = match self.living(side) {
            Some(session) => session.machine.config().max_receive_len(),
            None => MAX_EXTENDED_LEN,
        };
        let Some(wire) = self.wires.get_mut(&wire) else {
            return false;
        };
        let buffer = &mut wire.ends[side.1].buffer;
        let Some(frame) = wire::frame(buffer, max_len).expect("speakers frame what they send")
        else {
            return false;
        };
        self.take(side, conn, &frame);
        true
    }

    fn take(&mut self, side: Side, conn: ConnId, frame: &Frame) {
        let up = self.living(side).and_then(|session| session.up.clone());
        let up = up.filter(|up| up.conn == conn);
        if frame.kind == MessageType::Update {
            self.totals.updates += 1;
            self.stirred = self.now;
            let Some(up) = up else {
                self.handle(
                    side,
                    Event::Received {
                        conn,
                        message: Incoming::Update,
                    },
                    None,
                );
                let session = self.living(side);
                if session.is_some_and(|it| it.up.as_ref().is_some_and(|up| up.conn == conn)) {
                    self.take(side, conn, frame);
                }
                return;
            };
            let UpdateOutcome::Valid(update) = wire::decode_update(&frame.body, &up.context) else {
                panic!("{side:?} cannot read an UPDATE: {:02x?}", frame.body);
            };
            let input = RibEvent::Updates {
                peer: up.id,
                updates: vec![update],
            };
            let message = Incoming::Update;
            return self.handle(side, Event::Received { conn, message }, Some(input));
        }
        let message = wire::decode_control(frame).expect("speakers can read what they send");
        let input = match (&message, up) {
            (Message::RouteRefresh(refresh), Some(up)) => refreshing(*refresh, up.id),
            _ => None,
        };
        let message = message.into();
        self.handle(side, Event::Received { conn, message }, input);
    }

    fn act(&mut self, side: Side, actions: Vec<Action>, mut delivery: Option<RibEvent>) {
        let router = self.fabric.end(side).router;
        for action in actions {
            match action {
                Action::Dial => self.dial(side),
                Action::CancelDial => {
                    if let Some(session) = self.living(side) {
                        session.dial = None;
                    }
                }
                Action::Send { conn, message } => self.send(side, conn, &message),
                Action::Close { conn } => {
                    let wire = self.living(side).and_then(|it| it.conns.remove(&conn));
                    if let Some(wire) = wire {
                        self.close(wire, side.1);
                    }
                }
                Action::Up { conn, negotiated } => {
                    let ends = self.fabric.ends(side);
                    self.totals.sessions += 1;
                    let Some(session) = self.living(side) else {
                        continue;
                    };
                    session.generation += 1;
                    let id = PeerId {
                        index: index(side),
                        generation: session.generation,
                    };
                    session.up = Some(Up {
                        conn,
                        id,
                        context: negotiated.decode_context(),
                    });
                    let up = RibEvent::PeerUp {
                        peer: id,
                        negotiated,
                        ends,
                    };
                    self.ask(router, up);
                }
                Action::Down { retain, .. } => {
                    let Some(session) = self.living(side) else {
                        continue;
                    };
                    session.claim_due = true;
                    if let Some(up) = session.up.take() {
                        let peer = up.id;
                        self.ask(router, RibEvent::PeerDown { peer, retain });
                    }
                }
                Action::Deliver { .. } => {
                    if let Some(event) = delivery.take() {
                        self.ask(router, event);
                    }
                }
                Action::DropRetained => {
                    let index = index(side);
                    self.ask(router, RibEvent::PathDown { index });
                }
                Action::Note(_) => {}
            }
        }
        self.claim_forwarding(side);
        let life = self.speakers[router].life;
        let Some(session) = self.living(side) else {
            return;
        };
        let timeout = session.machine.poll_timeout();
        if timeout != session.timer {
            session.timer = timeout;
            if let Some(at) = timeout {
                self.enqueue(at, Job::Machine(side, life));
            }
        }
    }

    /// RFC 4724 §3: what has survived since our start, the OPENs after the first session may say.
    fn claim_forwarding(&mut self, side: Side) {
        if let Some(session) = self.living(side)
            && session.claim_due
            && session.conns.is_empty()
        {
            session.claim_due = false;
            session.claimed = true;
            self.configure(side, false);
        }
    }

    /// Gives a session's machine what is configured now.
    pub(crate) fn configure(&mut self, side: Side, new_session: bool) {
        let restarting = self.speakers[self.fabric.end(side).router].restarting;
        let mut config: Config = self.fabric.machine_config(side, restarting);
        let Some(session) = self.living(side) else {
            return;
        };
        if let Some(own) = config.graceful_restart.as_mut().filter(|_| session.claimed) {
            own.families.iter_mut().for_each(|(_, kept)| *kept = true);
            own.restarting = false;
        }
        if config != *session.machine.config() || new_session {
            let config = Box::new(config);
            let event = Event::Configure {
                config,
                new_session,
            };
            self.tell(side, event);
        }
    }

    fn dial(&mut self, side: Side) {
        let token = self.number();
        let latency = 2 * self.latency(side.0);
        let life = self.speakers[self.fabric.end(side).router].life;
        if let Some(session) = self.living(side) {
            session.dial = Some(token);
            self.enqueue(self.now + latency, Job::Dialled(side, life, token));
        }
    }

    fn send(&mut self, side: Side, conn: ConnId, message: &Message) {
        let mut octets = BytesMut::new();
        wire::encode(message, EncodeContext::default(), &mut octets).expect("not an UPDATE");
        let Some(id) = self
            .living(side)
            .and_then(|it| it.conns.get(&conn).copied())
        else {
            return;
        };
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.ends[side.1].control.push_back(octets.freeze());
            self.write(id, side.1);
        }
    }

    /// A connection takes more routes.
    pub(crate) fn writer_is_free(&mut self, side: Side, conn: ConnId) {
        let router = self.fabric.end(side).router;
        let up = self.living(side).and_then(|session| session.up.as_ref());
        if let Some(id) = up.filter(|up| up.conn == conn).map(|up| up.id) {
            self.speakers[router].ready.push_back(id);
            self.rouse(router);
        }
    }

    /// When something last kept octets, or those who read them, from going on.
    pub(crate) fn hindered(&self) -> Instant {
        let hosts = self.speakers.iter().flat_map(|speaker| {
            let deaf = speaker.sessions.values().map(|session| session.deaf);
            deaf.chain([speaker.frozen, speaker.busy])
        });
        let holes = self.holes.iter().copied();
        hosts.chain(holes).max().unwrap_or(self.now)
    }

    /// Whether nothing waits in a speaker or before a wire.
    pub(crate) fn is_quiet(&mut self) -> bool {
        let established = |session: &Session| session.machine.state() == State::Established;
        let all_up = |speaker: &Speaker| speaker.sessions.values().all(established);
        let written = self.wires.values().flat_map(|wire| &wire.ends);
        let written = written
            .into_iter()
            .all(|end| end.routes.is_none() && end.writing.is_empty() && end.control.is_empty());
        written
            && self.speakers.iter().all(all_up)
            && self.speakers.iter_mut().all(Speaker::is_quiet)
    }
}

fn refreshing(refresh: RouteRefresh, peer: PeerId) -> Option<RibEvent> {
    let family = refresh.family.family()?;
    Some(match refresh.kind {
        RefreshKind::Request => RibEvent::Refresh { peer, family },
        RefreshKind::Begin => RibEvent::RefreshBegun { peer, family },
        RefreshKind::End => RibEvent::RefreshEnded { peer, family },
        RefreshKind::Unknown(_) => return None,
    })
}
