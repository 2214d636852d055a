//! The task of one peer: drives its machine.
//!
//! Owns the peer's connections, its one sleep and the way of its routes to the RIB. Does not own
//! decisions: it turns what happens into events and does what the machine answers.
//!
//! Nothing here waits for the RIB. Events for it stand in a short line that is emptied as the RIB
//! takes them; while the line is full no more is read from the peer, and TCP slows it down.

mod addresses;
mod connections;
mod inbound;
mod outbound;
mod rotation;
mod telling;
mod wire_facts;

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use caracal_bgp_core::bmp::PeerDownReason;
use caracal_bgp_core::fsm::{
    Action, Admin, Config, ConnId, DownWhy, Event, IdleWhy, Incoming, PathWhy, Peer, Retention,
    Role,
};
use caracal_bgp_core::policy::InterfaceGlob;
use caracal_bgp_core::rib::{Ends, Event as RibEvent, MaxPrefixes, PeerId, PeerIndex};
use caracal_bgp_core::types::Asn;
use caracal_bgp_core::wire::{DecodeContext, Update};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::{AbortHandle, JoinHandle};

use crate::config::{PeerConfig, PeerName};
use crate::connection::{ConnEvent, close_why};
use crate::export::Trace;
use crate::net::Interfaces;
use crate::repeats::Repeats;
use crate::rib_thread::{self, Arrival, Input, PrefixAlarm, RibHandle, Updates, sleep_until};
use crate::session::connections::Wire;
use crate::session::rotation::Rotation;
use crate::status::{DownReason, EventNote, FlapReason, PeerBoard, Why};

/// Reads whose messages are not yet handled, per peer.
const READ_DEPTH: usize = 2;
/// Events that may wait for the RIB, per peer, before reading from the peer stops. One holds the UPDATEs of a
/// whole read.
const OUTBOX_LIMIT: usize = 4;
/// Orders that may wait for the task; it takes them before anything else.
const COMMAND_DEPTH: usize = 16;

/// An order for the task.
#[derive(Debug)]
pub(crate) enum Command {
    /// The peer has connected.
    Incoming(TcpStream),
    /// The peer is at another address now: dial there from now on.
    Remote(SocketAddr),
    /// Where the peer is, is not known any more. Where that is because others are there too, no session is
    /// begun before it is.
    NotFound(Why),
    /// Interfaces have changed: our end of the session may have other addresses.
    Relocate,
    /// The path to the peer is gone.
    PathDown(PathWhy),
    /// The path is back.
    PathUp,
    /// Whether BFD says from now on that the path is up.
    PathProved(bool),
    /// Another configuration of the same peer.
    Configure(Box<Reconfiguration>),
    /// Have the peer tell all its routes again.
    Refresh,
    /// An operator's wish.
    Admin(Admin),
    /// Take the session down for good and end.
    Stop(Admin),
}

/// What changes with another configuration.
#[derive(Debug)]
pub(crate) struct Reconfiguration {
    pub(crate) config: Arc<PeerConfig>,
    pub(crate) machine: Config,
    pub(crate) ignored_interfaces: Arc<[InterfaceGlob]>,
    /// What is agreed in OPEN differs.
    pub(crate) new_session: bool,
}

/// What the task of a peer needs.
pub(crate) struct Setup {
    pub(crate) name: PeerName,
    pub(crate) index: PeerIndex,
    pub(crate) config: Arc<PeerConfig>,
    pub(crate) remote: SocketAddr,
    pub(crate) machine: Config,
    /// What to begin with: up or down.
    pub(crate) wish: Admin,
    /// Whether BFD says that the path is up.
    pub(crate) path_proved: bool,
    pub(crate) rib: RibHandle,
    pub(crate) board: Arc<PeerBoard>,
    /// Where to say that the peer is left alone for its prefix limit.
    pub(crate) barred: Arc<AtomicBool>,
    pub(crate) interfaces: Interfaces,
    /// Interfaces of which no address is named.
    pub(crate) ignored_interfaces: Arc<[InterfaceGlob]>,
    /// True until our own restart is over.
    pub(crate) restarting: watch::Receiver<bool>,
    /// Where those who record hear what passes.
    pub(crate) trace: Trace,
}

/// Starts the task.
pub(crate) fn spawn(setup: Setup) -> (mpsc::Sender<Command>, JoinHandle<()>) {
    let (commands, orders) = mpsc::channel(COMMAND_DEPTH);
    let (events, arrivals) = mpsc::channel(READ_DEPTH);
    let session = Session {
        machine: Peer::new(setup.machine.clone()),
        rotation: Rotation::new(&setup.config.authentication),
        setup,
        generation: 0,
        next_conn: 0,
        connections: HashMap::new(),
        peer_asn: None,
        closing: Vec::new(),
        events,
        dial: None,
        established: None,
        outbox: VecDeque::new(),
        claim_due: false,
        claimed: false,
        malformed: Repeats::default(),
        discarded: Repeats::default(),
        unknown: None,
        stopping: false,
        removed: false,
        idle: true,
    };
    (commands, tokio::spawn(session.run(orders, arrivals)))
}

struct Session {
    setup: Setup,
    machine: Peer,
    generation: u64,
    next_conn: u64,
    connections: HashMap<ConnId, Wire>,
    /// The peer's AS in the present session, or in the last one.
    peer_asn: Option<Asn>,
    closing: Vec<JoinHandle<()>>,
    events: mpsc::Sender<ConnEvent>,
    dial: Option<AbortHandle>,
    established: Option<Established>,
    outbox: VecDeque<Input>,
    /// How far connections are with the keys that are configured.
    rotation: Rotation,
    /// A session has come up and gone: our next OPEN claims forwarding.
    claim_due: bool,
    /// Our OPENs claim forwarding, whatever happened at our start.
    claimed: bool,
    /// UPDATEs that were treated as withdrawals.
    malformed: Repeats<String>,
    /// Attributes that were discarded.
    discarded: Repeats<String>,
    /// Why it cannot be told who the peer is, while that is so.
    unknown: Option<Why>,
    stopping: bool,
    /// The peer is wanted no more.
    removed: bool,
    /// Whatever is said of it was said when nobody tried.
    idle: bool,
}

/// What a message means to the RIB, if the machine lets it pass.
enum Delivery {
    Update(PeerId, Update, Instant),
    Event(RibEvent),
}

struct Established {
    conn: ConnId,
    id: PeerId,
    /// Our end and the peer's.
    local: IpAddr,
    remote: SocketAddr,
    /// What the RIB was last told of them.
    ends: Ends,
    context: DecodeContext,
    alarms: mpsc::Receiver<PrefixAlarm>,
}

impl Session {
    async fn run(
        mut self,
        mut orders: mpsc::Receiver<Command>,
        mut arrivals: mpsc::Receiver<ConnEvent>,
    ) {
        let rib = self.setup.rib.0.clone();
        let mut restarting = self.setup.restarting.clone();
        self.handle(Event::PathProved(self.setup.path_proved), None);
        self.handle(Event::Admin(self.setup.wish.clone()), None);
        loop {
            let wake = self
                .machine
                .poll_timeout()
                .map(tokio::time::Instant::from_std);
            let lines = [&self.malformed, &self.discarded].into_iter();
            let lines = lines.filter_map(Repeats::poll_timeout).min();
            let rekey = self.rotation.poll_timeout();
            let full = self.outbox.len() >= OUTBOX_LIMIT;
            tokio::select! {
                // Orders and timers first: neither may starve while a peer talks without pause.
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.obey(order),
                    None => self.obey(Command::Stop(Admin::Restart)),
                },
                () = sleep_until(wake) => self.timeout(arrivals.len()),
                () = sleep_until(lines.map(Into::into)) => self.log_repeats(Instant::now()),
                () = sleep_until(rekey.map(Into::into)) => self.rekey(),
                permit = rib.reserve(), if !self.outbox.is_empty() => {
                    match permit {
                        Ok(permit) => self.hand_over(permit, &rib),
                        // The speaker is ending.
                        Err(_) => self.outbox.clear(),
                    }
                }
                Ok(()) = restarting.changed() => {
                    if !*restarting.borrow_and_update() {
                        self.handle(Event::RestartComplete, None);
                    }
                }
                Some(alarm) = alarm(&mut self.established) => self.alarmed(&alarm),
                Some(arrival) = arrivals.recv(), if !full => self.arrive(arrival),
            }
            self.claim_forwarding_if_due();
            if self.stopping && self.connections.is_empty() {
                self.log_rest();
                // The RIB goes on without this peer and has to know that its session is over. Where
                // the speaker ends it must not: it would withdraw what it heard here from others.
                let last_words = self.outbox.drain(..).filter(|_| self.removed);
                for input in last_words {
                    if rib.send(input).await.is_err() {
                        break;
                    }
                }
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
        self.claimed = true;
        let mut machine = self.setup.machine.clone();
        claim_forwarding(&mut machine);
        if machine != self.setup.machine {
            self.configure_machine(machine, false);
        }
    }

    fn obey(&mut self, order: Command) {
        match order {
            Command::Incoming(stream) => self.connected(stream, Role::Passive),
            Command::Remote(remote) => {
                self.setup.remote = remote;
                self.unknown = None;
                self.handle(Event::PeerKnown(true), None);
            }
            Command::NotFound(why) => {
                // Silence alone means nothing: advertisements may get lost where segments do not.
                if why.reason == DownReason::SeveralPeers || self.unknown.is_some() {
                    self.unknown = Some(why);
                    self.handle(Event::PeerKnown(false), None);
                }
            }
            Command::Relocate => self.relocate(),
            Command::PathDown(why) => {
                self.handle(Event::PathDown { why }, None);
                if why == PathWhy::LinkDown {
                    // A restart of ours must not wait for a peer behind a dead link.
                    self.forget_routes();
                }
            }
            Command::PathUp => self.handle(Event::PathUp, None),
            Command::PathProved(proved) => self.handle(Event::PathProved(proved), None),
            Command::Configure(change) => self.configure(*change),
            Command::Refresh => {
                for family in self.setup.machine.families.clone() {
                    self.handle(Event::RequestRefresh { family }, None);
                }
            }
            Command::Admin(wish) => self.handle(Event::Admin(wish), None),
            Command::Stop(wish) => {
                self.stopping = true;
                self.removed |= wish == Admin::Deconfigure;
                self.handle(Event::Admin(wish), None);
            }
        }
    }

    fn configure(&mut self, change: Reconfiguration) {
        let Reconfiguration {
            config,
            mut machine,
            ignored_interfaces,
            mut new_session,
        } = change;
        self.setup.ignored_interfaces = ignored_interfaces;
        let before = std::mem::replace(&mut self.setup.config, config);
        if self.claimed {
            claim_forwarding(&mut machine);
        }
        if before.authentication != self.setup.config.authentication {
            new_session |= !self.change_keys(new_session);
        }
        let transport = self.transport();
        for handle in self.keys() {
            if let Err(error) = transport.rehop(handle) {
                tracing::warn!(peer = %self.setup.name, %error, "cannot change the TTL");
            }
        }
        self.configure_machine(machine, new_session);
        self.relocate();
    }

    fn configure_machine(&mut self, machine: Config, new_session: bool) {
        self.setup.machine = machine.clone();
        let config = Box::new(machine);
        let event = Event::Configure {
            config,
            new_session,
        };
        self.handle(event, None);
    }

    /// The peer tells more than it may, or nearly so.
    fn alarmed(&mut self, alarm: &PrefixAlarm) {
        let PrefixAlarm {
            family,
            count,
            limits: MaxPrefixes {
                limit, terminates, ..
            },
            exceeded,
        } = *alarm;
        let peer = &self.setup.name;
        if exceeded {
            tracing::warn!(%peer, %family, count, limit, "the peer exceeds its prefix limit");
        } else {
            tracing::warn!(%peer, %family, count, limit, "the peer nears its prefix limit");
        }
        let text = format!("{count} {family} prefixes of at most {limit}");
        self.setup.board.event(EventNote::Other(text));
        if exceeded
            && terminates
            && let Some(Established { conn, .. }) = self.established
        {
            let event = Event::PrefixLimitExceeded {
                conn,
                family,
                limit,
            };
            self.handle(event, None);
        }
    }

    /// Has the RIB take in what came, behind all before it. UPDATEs of one read go together.
    fn deliver(&mut self, delivery: Delivery) {
        let (peer, update, arrived) = match delivery {
            Delivery::Event(event) => return self.outbox.push_back(Input::Event(event)),
            Delivery::Update(peer, update, arrived) => (peer, update, arrived),
        };
        if let Some(Input::Updates(last)) = self.outbox.back_mut()
            && (last.peer, last.arrived) == (peer, arrived)
        {
            return last.updates.push(update);
        }
        self.outbox.push_back(Input::Updates(Updates {
            peer,
            updates: vec![update],
            arrived,
        }));
    }

    fn forget_routes(&mut self) {
        let index = self.setup.index;
        self.outbox
            .push_back(Input::Event(RibEvent::PathDown { index }));
    }

    fn timeout(&mut self, unhandled: usize) {
        let now = Instant::now();
        let wrote: Vec<ConnId> = self
            .connections
            .iter_mut()
            .filter_map(|(conn, wire)| wire.connection.wrote().then_some(*conn))
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
            ConnEvent::Frames(conn, frames, arrived) => {
                for frame in &frames {
                    self.framed(conn, frame, arrived);
                }
            }
            ConnEvent::Malformed(conn, notification) => {
                self.handle(Event::Malformed { conn, notification }, None);
            }
            ConnEvent::Closed(conn, why) => {
                self.handle(Event::Closed { conn, why }, None);
                self.let_go(conn);
            }
            ConnEvent::Dialled(Ok(stream)) => self.connected(stream, Role::Active),
            ConnEvent::Dialled(Err(error)) => {
                let why = close_why(&error);
                self.handle(Event::DialFailed { why }, None);
            }
        }
    }

    fn handle(&mut self, event: Event, delivery: Option<Delivery>) {
        let mut actions = Vec::new();
        self.machine.handle(Instant::now(), event, &mut actions);
        self.act(actions, delivery);
    }

    fn act(&mut self, actions: Vec<Action>, mut delivery: Option<Delivery>) {
        let barred = matches!(self.machine.idle_why(), Some(IdleWhy::PrefixLimit { .. }));
        // Before the state is shown: who sees the peer idle has to see why.
        self.setup.barred.store(barred, Ordering::Release);
        self.explain_running();
        let reason = self.down_reason(&actions);
        for action in actions {
            match action {
                Action::Dial => self.dial(),
                Action::CancelDial => self.cancel_dial(),
                Action::Send { conn, message } => self.send(conn, &message),
                Action::Close { conn } => {
                    self.let_go(conn);
                }
                Action::Up { conn, negotiated } => self.up(conn, negotiated),
                Action::Deliver { .. } => {
                    if let Some(delivery) = delivery.take() {
                        self.deliver(delivery);
                    }
                }
                Action::Down { why, retain } => self.down(why, retain, reason.as_ref()),
                Action::DropRetained => self.forget_routes(),
                Action::Note(note) => self.note(note),
            }
        }
        self.explain_idle();
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
            .map(|wire| wire.connection.local)
        else {
            return;
        };
        let remote = self.setup.remote;
        let (ends, interface) = self.addresses(local, remote);
        let Some(facts) = self.facts(conn, id, &negotiated, ends.interface) else {
            return;
        };
        self.peer_asn = Some(negotiated.peer_asn);
        let (outlet, routes, alarms) = rib_thread::outlet();
        self.established = Some(Established {
            conn,
            id,
            local,
            remote,
            ends: ends.clone(),
            // The RIB judges the first AS, so that people can see the route and the reason.
            context: negotiated.decode_context(),
            alarms,
        });
        self.setup.board.update(|status| {
            status.established_count += 1;
            status.remote = Some(remote);
            status.local_address = Some(local);
            status.interface = interface;
            status.negotiated = Some(negotiated.clone());
            status.forget_why();
        });
        if let Some(wire) = self.connections.get(&conn)
            && !wire.connection.established(id, routes)
        {
            tracing::warn!(peer = %self.setup.name, "the peer does not read: no routes are sent");
        }
        let event = RibEvent::PeerUp {
            peer: id,
            negotiated,
            ends,
        };
        let board = Arc::clone(&self.setup.board);
        let arrival = Box::new(Arrival {
            facts,
            outlet,
            board,
        });
        self.outbox.push_back(Input::Up(event, arrival));
    }

    fn down(&mut self, why: DownWhy, retain: Vec<Retention>, reason: Option<&PeerDownReason>) {
        tracing::info!(peer = %self.setup.name, reason = %why, ?retain, "session down");
        let board = &self.setup.board;
        board.update(|status| {
            status.ended(Why::ended(&why));
            status.negotiated = None;
        });
        board.counters.flap(FlapReason::of(&why));
        board.event(EventNote::Down(why));
        if let Some(Established { id, .. }) = self.established.take() {
            self.claim_due = true;
            let event = RibEvent::PeerDown { peer: id, retain };
            let reason = reason.cloned().unwrap_or(PeerDownReason::RemoteClosed);
            self.outbox.push_back(Input::Down(event, id, reason));
        }
    }
}

/// The next alarm of the session, while there is one.
async fn alarm(established: &mut Option<Established>) -> Option<PrefixAlarm> {
    match established {
        Some(established) => established.alarms.recv().await,
        None => None,
    }
}

/// RFC 4724 §3: forwarding has survived what happened since our start.
fn claim_forwarding(machine: &mut Config) {
    if let Some(own) = &mut machine.graceful_restart {
        let kept = own.families.iter_mut();
        kept.for_each(|(_, forwarding)| *forwarding = true);
        own.restarting = false;
    }
}

#[cfg(test)]
mod tests;
