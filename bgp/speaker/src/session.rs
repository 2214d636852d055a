//! The task of one peer: drives its machine.
//!
//! Owns the peer's connections, its one sleep and the way of its routes to the RIB. Does not own
//! decisions: it turns what happens into events and does what the machine answers.
//!
//! Nothing here waits for the RIB. Events for it stand in a short line that is emptied as the RIB
//! takes them; while the line is full no more is read from the peer, and TCP slows it down.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use caracal_bgp_core::fsm::{
    Action, Admin, Config, ConnId, Event, Incoming, LocalGracefulRestart, Note, PathWhy, Peer,
    Role, State,
};
use caracal_bgp_core::rib::{Event as RibEvent, PeerId, PeerIndex};
use caracal_bgp_core::types::Asn;
use caracal_bgp_core::wire::{
    self, DecodeContext, EncodeContext, Frame, Message, MessageType, RefreshKind, Update,
    UpdateOutcome,
};
use tokio::net::TcpStream;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::board::{Board, now_ms};
use crate::config::{PeerConfig, PeerName, SpeakerConfig, Ttl};
use crate::connection::{ConnEvent, Connection, close_why};
use crate::net;
use crate::rib_thread::{Input, RibHandle, sleep_until};
use crate::snapshot::{ErrorSnapshot, SessionState};

/// Messages framed but not yet handled, per peer: a few socket buffers' worth.
const FRAME_DEPTH: usize = 64;
/// Events that may wait for the RIB, per peer, before reading from the peer stops.
const OUTBOX_LIMIT: usize = 64;
/// Orders that may wait for the task; it takes them before anything else.
const COMMAND_DEPTH: usize = 16;

/// An order for the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// The peer has connected.
    Incoming(TcpStream),
    /// The link under the session is gone.
    PathDown,
    /// The link is back.
    PathUp,
    /// Take the session down for good and end.
    Stop(Admin),
}

/// What the task of a peer needs.
pub(crate) struct Setup {
    pub(crate) name: PeerName,
    pub(crate) index: PeerIndex,
    pub(crate) config: PeerConfig,
    pub(crate) remote: SocketAddr,
    pub(crate) machine: Config,
    pub(crate) rib: RibHandle,
    pub(crate) board: Board,
    /// True until our own restart is over.
    pub(crate) restarting: watch::Receiver<bool>,
}

/// The machine's configuration for `peer`. `restarting`: we come from a restart during which the
/// kernel kept our routes, and have not yet selected anew.
pub(crate) fn machine_config(
    speaker: &SpeakerConfig,
    peer: &PeerConfig,
    asn: Asn,
    index: PeerIndex,
    restarting: bool,
) -> Config {
    let restart = &speaker.graceful_restart;
    let mut families = peer.families.clone();
    families.sort_unstable();
    families.dedup();
    Config {
        local_asn: speaker.asn,
        router_id: speaker.router_id,
        peer_asn: asn,
        graceful_restart: (restart.enabled && peer.graceful_restart).then(|| {
            LocalGracefulRestart {
                restart_time: peer.restart_time.unwrap_or(restart.restart_time),
                restarting,
                // RFC 4724 §3: the F bit claims that forwarding survived *this* restart.
                families: families.iter().map(|f| (*f, restarting)).collect(),
            }
        }),
        families,
        hold_time: peer.hold_time,
        connect_retry: peer.connect_retry,
        passive: peer.passive,
        // Spreads the timers of our peers, and those of speakers that start together.
        jitter_seed: u64::from(speaker.router_id.0) << 32 | u64::from(index.0),
    }
}

/// Starts the task.
pub(crate) fn spawn(setup: Setup) -> (mpsc::Sender<Command>, JoinHandle<()>) {
    let (commands, orders) = mpsc::channel(COMMAND_DEPTH);
    let (events, arrivals) = mpsc::channel(FRAME_DEPTH);
    let session = Session {
        machine: Peer::new(setup.machine.clone()),
        setup,
        generation: 0,
        next_conn: 0,
        connections: HashMap::new(),
        closing: Vec::new(),
        events,
        dial: None,
        established: None,
        outbox: VecDeque::new(),
        claim_due: false,
        stopping: false,
    };
    (commands, tokio::spawn(session.run(orders, arrivals)))
}

struct Session {
    setup: Setup,
    machine: Peer,
    generation: u64,
    next_conn: u64,
    connections: HashMap<ConnId, Connection>,
    closing: Vec<JoinHandle<()>>,
    events: mpsc::Sender<ConnEvent>,
    dial: Option<AbortHandle>,
    established: Option<Established>,
    outbox: VecDeque<Input>,
    /// A session has come up and gone: our next OPEN claims forwarding.
    claim_due: bool,
    stopping: bool,
}

struct Established {
    conn: ConnId,
    id: PeerId,
    context: DecodeContext,
}

impl Session {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Command>,
        mut arrivals: mpsc::Receiver<ConnEvent>,
    ) {
        let rib = self.setup.rib.0.clone();
        let mut restarting = self.setup.restarting.clone();
        self.handle(Event::Admin(Admin::Up), None);
        loop {
            let wake = self
                .machine
                .poll_timeout()
                .map(tokio::time::Instant::from_std);
            let full = self.outbox.len() >= OUTBOX_LIMIT;
            tokio::select! {
                // Orders and timers first: neither may starve while a peer talks without pause.
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => self.obey(Command::Stop(Admin::Restart)),
                },
                () = sleep_until(wake) => self.timeout(arrivals.len()),
                permit = rib.reserve(), if !self.outbox.is_empty() => {
                    match permit {
                        Ok(permit) => {
                            if let Some(input) = self.outbox.pop_front() {
                                permit.send(input);
                            }
                        }
                        // The speaker is ending.
                        Err(_) => self.outbox.clear(),
                    }
                }
                Ok(()) = restarting.changed() => {
                    if !*restarting.borrow_and_update() {
                        self.handle(Event::RestartComplete, None);
                    }
                }
                Some(arrival) = arrivals.recv(), if !full => self.arrive(arrival),
            }
            self.claim_forwarding_if_due();
            if self.stopping && self.connections.is_empty() {
                for closing in self.closing {
                    // Ends within the linger time, or was cancelled with the runtime.
                    let _ = closing.await;
                }
                return;
            }
            self.closing.retain(|closing| !closing.is_finished());
        }
    }

    /// RFC 4724 §3: the F bit of the first OPEN says whether forwarding survived our start. Later
    /// sessions of the same life find it untouched; without the claim the peer would drop our
    /// routes each time that only the session had failed.
    fn claim_forwarding_if_due(&mut self) {
        if !self.claim_due || self.stopping || !self.connections.is_empty() {
            return;
        }
        self.claim_due = false;
        let Some(own) = &mut self.setup.machine.graceful_restart else {
            return;
        };
        if own.families.iter().all(|(_, forwarding)| *forwarding) {
            return;
        }
        own.families
            .iter_mut()
            .for_each(|(_, forwarding)| *forwarding = true);
        own.restarting = false;
        self.cancel_dial();
        self.machine = Peer::new(self.setup.machine.clone());
        self.handle(Event::Admin(Admin::Up), None);
    }

    fn obey(&mut self, order: Command) {
        match order {
            Command::Incoming(stream) => self.connected(stream, Role::Passive),
            Command::PathDown => {
                self.handle(
                    Event::PathDown {
                        why: PathWhy::LinkDown,
                    },
                    None,
                );
                // A restart of ours must not wait for a peer behind a dead link.
                let index = self.setup.index;
                self.outbox
                    .push_back(Input::Event(RibEvent::PathDown { index }));
            }
            Command::PathUp => self.handle(Event::PathUp, None),
            Command::Stop(wish) => {
                self.stopping = true;
                self.handle(Event::Admin(wish), None);
            }
        }
    }

    fn timeout(&mut self, unhandled: usize) {
        let now = Instant::now();
        let wrote: Vec<ConnId> = self
            .connections
            .iter_mut()
            .filter_map(|(conn, connection)| connection.wrote().then_some(*conn))
            .collect();
        for conn in wrote {
            self.handle(Event::Wrote { conn }, None);
        }
        // The peer has spoken; it is us who have not listened while the RIB was busy. Its word
        // counts from when it was framed.
        if (unhandled > 0 || self.outbox.len() >= OUTBOX_LIMIT)
            && let Some(established) = &self.established
        {
            let conn = established.conn;
            let message = Incoming::Keepalive;
            self.handle(Event::Received { conn, message }, None);
        }
        let mut actions = Vec::new();
        self.machine.handle_timeout(now, &mut actions);
        self.act(actions, None);
    }

    fn arrive(&mut self, arrival: ConnEvent) {
        match arrival {
            ConnEvent::Frame(conn, frame) => self.framed(conn, &frame),
            ConnEvent::Malformed(conn, notification) => {
                self.handle(Event::Malformed { conn, notification }, None);
            }
            ConnEvent::Closed(conn, why) => {
                self.handle(Event::Closed { conn, why }, None);
                if let Some(connection) = self.connections.remove(&conn) {
                    self.closing.push(connection.close());
                }
            }
            ConnEvent::Dialled(Ok(stream)) => self.connected(stream, Role::Active),
            ConnEvent::Dialled(Err(error)) => {
                let why = close_why(&error);
                self.handle(Event::DialFailed { why }, None);
            }
        }
    }

    fn connected(&mut self, stream: TcpStream, role: Role) {
        let remote = self.setup.remote.ip();
        let prepared = net::prepare(&stream, remote, self.ttl()).and_then(|()| stream.local_addr());
        let local = match prepared {
            Ok(local) => local.ip().to_canonical(),
            Err(error) => {
                tracing::warn!(peer = %self.setup.name, %error, "cannot prepare the connection");
                if role == Role::Active {
                    let why = close_why(&error);
                    self.handle(Event::DialFailed { why }, None);
                }
                return;
            }
        };
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let events = self.events.clone();
        let connection = Connection::spawn(conn, local, stream, events, self.setup.rib.clone());
        self.connections.insert(conn, connection);
        self.handle(Event::Connected { conn, role }, None);
    }

    fn framed(&mut self, conn: ConnId, frame: &Frame) {
        if frame.kind == MessageType::Update {
            return self.framed_update(conn, frame);
        }
        let message = match wire::decode_control(frame) {
            Ok(message) => message,
            Err(notification) => return self.handle(Event::Malformed { conn, notification }, None),
        };
        if let Message::Notification(notification) = &message {
            let text = notification.to_string();
            self.setup.board.update(&self.setup.name, |status| {
                status.last_received_error = Some(ErrorSnapshot {
                    at_ms: now_ms(),
                    text,
                });
            });
        }
        let input = match &message {
            Message::RouteRefresh(refresh) if refresh.kind == RefreshKind::Request => {
                self.established.as_ref().and_then(|established| {
                    Some(RibEvent::Refresh {
                        peer: established.id,
                        family: refresh.family.family()?,
                    })
                })
            }
            _ => None,
        };
        let message = message.into();
        self.handle(Event::Received { conn, message }, input);
    }

    fn framed_update(&mut self, conn: ConnId, frame: &Frame) {
        let established = self.established.as_ref().filter(|up| up.conn == conn);
        let Some(Established { id, context, .. }) = established else {
            // The machine knows what an UPDATE means here. It may be what brings the session up;
            // only then are there terms to decode it by.
            let message = Incoming::Update;
            self.handle(Event::Received { conn, message }, None);
            if self.established.as_ref().is_some_and(|up| up.conn == conn) {
                self.framed_update(conn, frame);
            }
            return;
        };
        let peer = &self.setup.name;
        let update = match wire::decode_update(&frame.body, context) {
            UpdateOutcome::Valid(update) => update,
            UpdateOutcome::ValidWithDiscards { update, discarded } => {
                for fault in discarded {
                    tracing::warn!(%peer, %fault, "attribute discarded");
                }
                update
            }
            UpdateOutcome::TreatAsWithdraw { withdrawn, reason } => {
                tracing::warn!(%peer, %reason, "malformed UPDATE treated as withdrawal");
                Update {
                    withdrawn,
                    ..Update::default()
                }
            }
            UpdateOutcome::Reset(notification) => {
                return self.handle(Event::Malformed { conn, notification }, None);
            }
        };
        let input = RibEvent::Update { peer: *id, update };
        let message = Incoming::Update;
        self.handle(Event::Received { conn, message }, Some(input));
    }

    /// Gives the machine `event`; `delivery` goes to the RIB if the machine says so.
    fn handle(&mut self, event: Event, delivery: Option<RibEvent>) {
        let mut actions = Vec::new();
        self.machine.handle(Instant::now(), event, &mut actions);
        self.act(actions, delivery);
    }

    fn act(&mut self, actions: Vec<Action>, mut delivery: Option<RibEvent>) {
        for action in actions {
            match action {
                Action::Dial => self.dial(),
                Action::CancelDial => self.cancel_dial(),
                Action::Send { conn, message } => self.send(conn, &message),
                Action::Close { conn } => {
                    if let Some(connection) = self.connections.remove(&conn) {
                        self.closing.push(connection.close());
                    }
                }
                Action::Up { conn, negotiated } => self.up(conn, negotiated),
                Action::Deliver { .. } => {
                    if let Some(event) = delivery.take() {
                        self.outbox.push_back(Input::Event(event));
                    }
                }
                Action::Down {
                    why,
                    retain,
                    restart_time,
                } => self.down(&why.to_string(), retain, restart_time),
                Action::DropRetained => {
                    let index = self.setup.index;
                    self.outbox
                        .push_back(Input::Event(RibEvent::PathDown { index }));
                }
                Action::Note(note) => self.note(note),
            }
        }
    }

    fn dial(&mut self) {
        self.cancel_dial();
        let remote = self.setup.remote;
        let local_address = self.setup.config.local_address;
        let ttl = self.ttl();
        let events = self.events.clone();
        let task = tokio::spawn(async move {
            let result = net::dial(local_address, remote, ttl).await;
            // A peer that has ended needs no answer.
            let _ = events.send(ConnEvent::Dialled(result)).await;
        });
        self.dial = Some(task.abort_handle());
    }

    fn cancel_dial(&mut self) {
        if let Some(dial) = self.dial.take() {
            dial.abort();
        }
    }

    /// RFC 4271 §5 has external peers one hop away: with TTL 1 the session cannot creep around a
    /// dead link.
    fn ttl(&self) -> Option<u8> {
        let machine = &self.setup.machine;
        let external = machine.local_asn != machine.peer_asn;
        let automatic = || {
            external
                .then(|| net::external_ttl(self.setup.remote.ip()))
                .flatten()
        };
        match self.setup.config.ttl {
            Ttl::Automatic => automatic(),
            Ttl::Send(ttl) => Some(ttl),
            // RFC 5082 §3: what is sent starts with the greatest.
            Ttl::Security { .. } => Some(u8::MAX),
        }
    }

    fn send(&mut self, conn: ConnId, message: &Message) {
        let mut octets = BytesMut::new();
        if let Err(error) = wire::encode(message, EncodeContext::default(), &mut octets) {
            tracing::error!(peer = %self.setup.name, %error, "cannot encode a message");
            return;
        }
        if let Message::Notification(notification) = message {
            let text = notification.to_string();
            self.setup.board.update(&self.setup.name, |status| {
                status.last_sent_error = Some(ErrorSnapshot {
                    at_ms: now_ms(),
                    text,
                });
            });
        }
        if let Some(connection) = self.connections.get(&conn)
            && !connection.write(octets.freeze())
        {
            // Keepalives queued before say the same; the send hold timer ends the session.
            tracing::warn!(peer = %self.setup.name, "the peer does not read: message not queued");
        }
    }

    fn up(&mut self, conn: ConnId, negotiated: caracal_bgp_core::fsm::Negotiated) {
        self.generation += 1;
        let id = PeerId {
            index: self.setup.index,
            generation: self.generation,
        };
        let Some(local) = self
            .connections
            .get(&conn)
            .map(|connection| connection.local)
        else {
            return;
        };
        let (ends, interface) = net::ends(local, self.setup.remote.ip());
        let kind = self.setup.machine.peer_kind();
        self.established = Some(Established {
            conn,
            id,
            // The RIB judges the first AS, so that people can see the route and the reason.
            context: DecodeContext {
                four_octet_as: negotiated.four_octet_as,
                families: negotiated.families.iter().copied().collect(),
                ..DecodeContext::new(kind)
            },
        });
        self.setup.board.update(&self.setup.name, |status| {
            status.established_count += 1;
            status.local_address = Some(local);
            status.interface = interface;
            status.negotiated = Some(negotiated.clone());
            status.why.clear();
        });
        let ready = Arc::new(Notify::new());
        if let Some(connection) = self.connections.get(&conn)
            && !connection.established(id, Arc::clone(&ready))
        {
            tracing::warn!(peer = %self.setup.name, "the peer does not read: no routes are sent");
        }
        let event = RibEvent::PeerUp {
            peer: id,
            negotiated,
            ends,
        };
        self.outbox.push_back(Input::Up(event, id, ready));
    }

    fn down(
        &mut self,
        why: &str,
        retain: Vec<caracal_bgp_core::types::Family>,
        restart_time: Duration,
    ) {
        tracing::info!(peer = %self.setup.name, reason = why, ?retain, "session down");
        self.setup.board.update(&self.setup.name, |status| {
            status.why = why.to_owned();
            status.negotiated = None;
        });
        if let Some(Established { id, .. }) = self.established.take() {
            self.claim_due = true;
            self.outbox.push_back(Input::Event(RibEvent::PeerDown {
                peer: id,
                retain,
                restart_time,
            }));
        }
    }

    fn note(&mut self, note: Note) {
        let peer = &self.setup.name;
        match note {
            Note::StateChanged { from, to } => {
                tracing::info!(%peer, ?from, state = ?to, "session state");
                let state = session_state(to);
                self.setup.board.update(peer, |status| {
                    status.state = state;
                    status.since_ms = now_ms();
                });
            }
            Note::AttemptFailed { why } => {
                tracing::debug!(%peer, reason = %why, "attempt failed");
                // Losing a collision to the session that is up explains nothing.
                if self.established.is_none() {
                    let why = why.to_string();
                    self.setup.board.update(peer, |status| status.why = why);
                }
            }
            Note::RetryIn(wait) => tracing::debug!(%peer, ?wait, "will dial again"),
            Note::FamiliesIgnored(families) => {
                tracing::warn!(%peer, ?families, "the peer offers families that are not configured");
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
