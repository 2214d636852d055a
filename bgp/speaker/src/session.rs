//! The task of one peer: drives its machine.
//!
//! Owns the peer's connections, its one sleep and the way of its routes to the RIB. Does not own
//! decisions: it turns what happens into events and does what the machine answers.
//!
//! Nothing here waits for the RIB. Events for it stand in a short line that is emptied as the RIB
//! takes them; while the line is full no more is read from the peer, and TCP slows it down.

mod inbound;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use caracal_bgp_core::fsm::{
    Action, Admin, Config, ConnId, DownWhy, Event, Incoming, Note, PathWhy, Peer, Retention, Role,
    State,
};
use caracal_bgp_core::rib::{Event as RibEvent, PeerId, PeerIndex};
use caracal_bgp_core::types::PeerKind;
use caracal_bgp_core::wire::{self, DecodeContext, EncodeContext, Message, MessageType};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::config::{PeerConfig, PeerName, Ttl};
use crate::connection::{ConnEvent, Connection, close_why};
use crate::net;
use crate::rib_thread::{self, Input, RibHandle, sleep_until};
use crate::snapshot::{ErrorSnapshot, SessionState};
use crate::status::{Direction, EventNote, FlapReason, MessageNote, PeerBoard, now_ms};

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
    pub(crate) board: Arc<PeerBoard>,
    /// True until our own restart is over.
    pub(crate) restarting: watch::Receiver<bool>,
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
        let connection = Connection::spawn(
            conn,
            local,
            stream,
            self.setup.machine.max_receive_len(),
            events,
            self.setup.rib.clone(),
            Arc::clone(&self.setup.board),
        );
        self.connections.insert(conn, connection);
        self.handle(Event::Connected { conn, role }, None);
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
                Action::Down { why, retain } => self.down(why, retain),
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
        let external = machine.peer_kind() == PeerKind::External;
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
        self.note_sent(message, octets.len());
        if let Some(connection) = self.connections.get(&conn)
            && !connection.write(octets.freeze())
        {
            // Keepalives queued before say the same; the send hold timer ends the session.
            tracing::warn!(peer = %self.setup.name, "the peer does not read: message not queued");
        }
    }

    fn note_sent(&self, message: &Message, octets: usize) {
        let board = &self.setup.board;
        let (kind, note) = match message {
            Message::Open(open) => (MessageType::Open, MessageNote::Open(Box::new(open.clone()))),
            Message::Notification(notification) => {
                board.counters.notification(Direction::Sent, notification);
                let error = ErrorSnapshot {
                    at_ms: now_ms(),
                    text: notification.to_string(),
                };
                board.update(|status| status.last_sent_error = Some(error));
                let note = MessageNote::Notification(notification.clone());
                (MessageType::Notification, note)
            }
            Message::Keepalive => (MessageType::Keepalive, MessageNote::Keepalive),
            Message::RouteRefresh(refresh) => {
                (MessageType::RouteRefresh, MessageNote::Refresh(*refresh))
            }
            Message::Update(_) => (MessageType::Update, MessageNote::Routes(1)),
        };
        board
            .counters
            .count(Direction::Sent, kind, 1, octets as u64);
        board.message(Direction::Sent, octets, note);
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
        self.established = Some(Established {
            conn,
            id,
            // The RIB judges the first AS, so that people can see the route and the reason.
            context: negotiated.decode_context(),
        });
        self.setup.board.update(|status| {
            status.established_count += 1;
            status.local_address = Some(local);
            status.interface = interface;
            status.negotiated = Some(negotiated.clone());
            status.why.clear();
        });
        let (outlet, routes) = rib_thread::outlet();
        if let Some(connection) = self.connections.get(&conn)
            && !connection.established(id, routes)
        {
            tracing::warn!(peer = %self.setup.name, "the peer does not read: no routes are sent");
        }
        let event = RibEvent::PeerUp {
            peer: id,
            negotiated,
            ends,
        };
        self.outbox.push_back(Input::Up(event, id, outlet));
    }

    fn down(&mut self, why: DownWhy, retain: Vec<Retention>) {
        tracing::info!(peer = %self.setup.name, reason = %why, ?retain, "session down");
        let board = &self.setup.board;
        board.update(|status| {
            status.why = why.to_string();
            status.negotiated = None;
        });
        board.counters.flap(FlapReason::of(&why));
        board.event(EventNote::Down(why));
        if let Some(Established { id, .. }) = self.established.take() {
            self.claim_due = true;
            self.outbox
                .push_back(Input::Event(RibEvent::PeerDown { peer: id, retain }));
        }
    }

    fn note(&mut self, note: Note) {
        let peer = &self.setup.name;
        let board = &self.setup.board;
        match note {
            Note::StateChanged { from, to } => {
                tracing::info!(%peer, ?from, state = ?to, "session state");
                board.event(EventNote::State { from, to });
                board.update(|status| {
                    status.state = session_state(to);
                    status.since_ms = now_ms();
                });
            }
            Note::AttemptFailed { why } => {
                tracing::debug!(%peer, reason = %why, "attempt failed");
                // Losing a collision to the session that is up explains nothing.
                if self.established.is_none() {
                    board.update(|status| status.why = why.to_string());
                }
                board.event(EventNote::AttemptFailed(why));
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
