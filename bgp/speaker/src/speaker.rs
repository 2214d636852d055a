//! The supervisor: starts the parts, hands connections and orders to sessions.
//!
//! Owns the running configuration and the tasks and threads. Does not own sessions or routes.
//!
//! ```text
//!  SpeakerHandle --Request--> supervisor --Command--> session task, one per peer
//!                               ^  ^  ^                 |  ^
//!  listeners --Incoming---------+  |  |          events |  | routes
//!  interfaces, discovery ----------+  |                 v  |
//!  FIB link events -------------------+              RIB thread --> FIB queue --> FIB thread
//!                                                       ^                            |
//!                                                       +---------- answers ---------+
//! ```

mod answers;
mod apply;
mod detection;
mod links;
mod listing;
mod peers;
mod roll_call;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use caracal_bfdd::client::ClientEvent;
use caracal_bgp_core::fsm::Admin;
use caracal_bgp_core::rib::{Event as RibEvent, FibAnswer, RibOptions};
use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_core::wire::{self, Cease, EncodeContext, Message, Notification};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::api;
use crate::arrivals::UpdateToFib;
use crate::config::{PeerName, SpeakerConfig};
use crate::error::Error;
use crate::export::{Dump, DumpStream, Exports, Own};
use crate::fib::{FibEvent, FibWindow, FibWork, Forwarding};
use crate::fib_thread::{self, FibQueue};
use crate::handle::{
    BfdOptions, Clear, How, REQUEST_DEPTH, Request, SpeakerHandle, SpeakerOptions,
};
use crate::net::{Discovery, Incoming, Interfaces, LinkReport, Listeners, Source};
use crate::repeats::{Line, Repeats};
use crate::rib_thread::{self, Outlets, RibHandle, sleep_until};
use crate::session::Command;
use crate::speaker::detection::Detection;
use crate::speaker::links::Links;
use crate::speaker::listing::Listings;
use crate::speaker::peers::{Caller, Peers};
use crate::status::Board;
use crate::translate::rib_config;

/// Batches of connections, and other news, that may wait for the supervisor, which only sorts them.
const INTAKE_DEPTH: usize = 64;
/// Answers of the FIB that the RIB is given in one event.
const ANSWERS_AT_ONCE: usize = 512;
/// How often peers that ranges let in are looked at.
const ROLL_CALL: Duration = Duration::from_secs(1);
/// How long the BFD process may take to end sessions.
const FAREWELL: Duration = Duration::from_secs(1);

/// A BGP speaker.
#[derive(Debug)]
pub struct Speaker;

impl Speaker {
    /// Starts a speaker within the current tokio runtime; it runs until
    /// [`SpeakerHandle::shutdown`], or until the last handle is gone.
    ///
    /// Without `forwarding` nothing is forwarded, and peers are told of routes as they are selected.
    ///
    /// # Errors
    /// [`Error::PortInUse`], [`Error::Listen`], [`Error::Api`], [`Error::Interfaces`] or
    /// [`Error::Thread`]; nothing is left running then.
    pub async fn start(
        config: SpeakerConfig,
        forwarding: Option<Forwarding>,
        options: SpeakerOptions,
    ) -> Result<SpeakerHandle, Error> {
        let interfaces = Interfaces::start()?;
        let discovery = Discovery::start(interfaces.clone(), random_seed());
        let (changed, changes) = watch::channel(0);
        let changed = Arc::new(changed);
        let (requests, incoming_requests) = mpsc::channel(REQUEST_DEPTH);
        let handle = SpeakerHandle::new(requests, changes.clone());
        // The API's own handle must not keep the speaker alive: its task is aborted at the end,
        // and the supervisor ends when the callers' handles are gone.
        let (api_requests, incoming_api) = mpsc::channel(REQUEST_DEPTH);
        let rib_options = RibOptions {
            defer_until: config
                .restarting
                .then(|| Instant::now() + config.graceful_restart.selection_deferral),
            forwarding: forwarding.is_some(),
            hash_seed: random_seed(),
            ..RibOptions::default()
        };
        let mut peers = Peers::default();
        peers.set_ranges(&config);
        let (restarting_sender, restarting) = watch::channel(config.restarting);
        let fib_queue = FibQueue::default();
        let update_to_fib = Arc::new(UpdateToFib::default());
        let (intake, arrivals) = mpsc::channel(INTAKE_DEPTH);
        let (incoming, connections) = mpsc::channel(INTAKE_DEPTH);
        let mut supervisor = Supervisor {
            board: Board::new(Arc::clone(&changed)),
            config,
            peers,
            rib: RibHandle::closed(),
            restarting,
            fib_queue: fib_queue.clone(),
            update_to_fib: Arc::clone(&update_to_fib),
            fib_work: forwarding.as_ref().map(|it| it.fib.work()),
            fib_window: forwarding.as_ref().and_then(|it| it.fib.window()),
            links: Links::new(interfaces.clone(), discovery),
            intake,
            incoming,
            bfd: options.bfd,
            detection: None,
            unwatched: BTreeSet::new(),
            listeners: None,
            tasks: Vec::new(),
            listings: Listings::default(),
            threads: Vec::new(),
            api: None,
            api_socket: options.api_socket,
            exports: Exports::default(),
            strangers: Repeats::default(),
            turned_away: BTreeMap::new(),
        };
        supervisor.listen().await?;
        supervisor.api = supervisor
            .api_socket
            .as_deref()
            .map(|path| {
                let handle = SpeakerHandle::new(api_requests, changes);
                api::serve(path, handle)
            })
            .transpose()?;
        let added = supervisor.add_configured();
        let outlets = Outlets {
            fib: fib_queue.clone(),
            update_to_fib: Arc::clone(&update_to_fib),
            changes: changed,
            restarting: restarting_sender,
        };
        let routes = rib_config(&supervisor.config, &supervisor.peers.configs());
        let (rib, rib_thread) = rib_thread::spawn(routes, rib_options, outlets)?;
        supervisor.rib = rib.clone();
        supervisor.threads.push(rib_thread);
        if let Some(Forwarding { fib, events }) = forwarding {
            let thread = fib_thread::spawn(fib_queue, fib)?;
            supervisor.threads.push(thread);
            let intake = supervisor.intake.clone();
            let answers = forward_answers(events, rib, intake, update_to_fib);
            supervisor.tasks.push(tokio::spawn(answers));
        }
        // After all that can fail: what is told from here on is ended with the speaker.
        let exports = &mut supervisor.exports;
        exports.apply(&supervisor.config, &supervisor.rib).await;
        for name in &added {
            supervisor.start_peer(name);
        }
        supervisor.watch_unnumbered();
        supervisor.watch_paths().await;
        supervisor.release_peers_behind_dead_links().await;
        let inputs = Inputs {
            requests: incoming_requests,
            api_requests: incoming_api,
            arrivals,
            connections,
            interfaces: interfaces.changes(),
        };
        tokio::spawn(supervisor.run(inputs));
        Ok(handle)
    }
}

/// What comes to the supervisor from below.
enum Arrival {
    Link {
        ifindex: u32,
        name: String,
        up: bool,
    },
    /// Peers that ranges let in have neither a connection nor a route.
    Absent(Vec<PeerName>),
}

/// All ways to the supervisor but that of discovery, which it owns.
struct Inputs {
    requests: mpsc::Receiver<Request>,
    api_requests: mpsc::Receiver<Request>,
    arrivals: mpsc::Receiver<Arrival>,
    connections: mpsc::Receiver<Vec<Incoming>>,
    interfaces: watch::Receiver<u64>,
}

/// What the supervisor does next.
enum Turn {
    Request(Request),
    Arrival(Arrival),
    Connections(Vec<Incoming>),
    InterfacesChanged,
    Found(Vec<LinkReport>),
    Detected(ClientEvent),
    RollCall,
    /// Nobody has a handle any more.
    Forsaken,
}

struct Supervisor {
    config: SpeakerConfig,
    peers: Peers,
    rib: RibHandle,
    board: Board,
    restarting: watch::Receiver<bool>,
    fib_queue: FibQueue,
    update_to_fib: Arc<UpdateToFib>,
    /// Where there is a FIB.
    fib_work: Option<Arc<FibWork>>,
    /// Where there is one to look into.
    fib_window: Option<Arc<dyn FibWindow>>,
    links: Links,
    bfd: Option<BfdOptions>,
    /// Once a peer has asked for it.
    detection: Option<Detection>,
    /// Peers of whom it was said that there is nobody to watch their paths.
    unwatched: BTreeSet<PeerName>,
    intake: mpsc::Sender<Arrival>,
    incoming: mpsc::Sender<Vec<Incoming>>,
    listeners: Option<Listeners>,
    tasks: Vec<JoinHandle<()>>,
    listings: Listings,
    threads: Vec<thread::JoinHandle<()>>,
    api: Option<JoinHandle<()>>,
    api_socket: Option<std::path::PathBuf>,
    exports: Exports,
    /// Connections of nobody's, whatever their address: whoever scans has many.
    strangers: Repeats<Source>,
    /// Connections for which a range had no place.
    turned_away: BTreeMap<PeerName, Repeats<Source>>,
}

impl Supervisor {
    async fn run(mut self, mut inputs: Inputs) {
        let mut roll_call = tokio::time::interval(ROLL_CALL);
        roll_call.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (how, done) = loop {
            let turn = tokio::select! {
                request = inputs.requests.recv() => request.map_or(Turn::Forsaken, Turn::Request),
                Some(request) = inputs.api_requests.recv() => Turn::Request(request),
                Some(arrival) = inputs.arrivals.recv() => Turn::Arrival(arrival),
                Some(batch) = inputs.connections.recv() => Turn::Connections(batch),
                Ok(()) = inputs.interfaces.changed() => Turn::InterfacesChanged,
                reports = self.links.discovery.next() => Turn::Found(reports),
                event = Detection::next(&mut self.detection) => Turn::Detected(event),
                _ = roll_call.tick() => Turn::RollCall,
            };
            match turn {
                Turn::Request(Request::Shutdown(how, done)) => break (how, Some(done)),
                Turn::Request(request) => self.answer(request).await,
                Turn::Arrival(Arrival::Link { ifindex, name, up }) => {
                    self.link_seen(ifindex, name, up).await;
                }
                Turn::Arrival(Arrival::Absent(names)) => self.let_go(names).await,
                Turn::Connections(batch) => self.connected(batch).await,
                Turn::InterfacesChanged => self.interfaces_changed().await,
                Turn::Found(reports) => self.found(reports).await,
                Turn::Detected(event) => self.detected(event).await,
                Turn::RollCall => {
                    self.call_roll();
                    self.follow_moved_peers().await;
                    self.log_repeats(Instant::now());
                }
                Turn::Forsaken => break (How::GracefulRestart, None),
            }
        };
        self.shutdown(how).await;
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    async fn answer(&mut self, request: Request) {
        match request {
            Request::Apply(config, done) => {
                let result = self.apply(*config).await;
                // It may give other reasons for what is as before.
                self.board.tell_watchers();
                // Whoever asked may have given up; what was asked has happened.
                let _ = done.send(result);
            }
            Request::Snapshot(answer) => self.snapshot(answer),
            Request::List(query, answer) => self.list(query, answer),
            Request::Peer(name, answer) => self.peer_detail(&name, answer),
            Request::Rejected(answer) => self.rejected(answer),
            Request::Explain(prefix, answer) => self.explain(prefix, answer),
            Request::History(peer, answer) => {
                let _ = answer.send(self.board.get(&peer).map(|board| board.history()));
            }
            Request::Dump(what, answer) => {
                let stream = match what {
                    Dump::Table => {
                        let own = Own::of(&self.config);
                        let (stream, work) = DumpStream::table(own, self.rib.clone());
                        self.listings.start(work);
                        stream
                    }
                    Dump::Updates => self.exports.updates(),
                };
                let _ = answer.send(stream);
            }
            Request::Clear(peer, clear, done) => {
                let _ = done.send(self.clear(peer.as_ref(), &clear).await);
            }
            // Taken before.
            Request::Shutdown(..) => {}
            #[cfg(test)]
            Request::WithRib(question, done) => {
                let _ = self.rib.0.send(rib_thread::Input::Query(question)).await;
                let _ = done.send(());
            }
            #[cfg(test)]
            Request::Found(reports, done) => {
                self.found(reports).await;
                let _ = done.send(());
            }
        }
    }

    fn is_restarting(&self) -> bool {
        *self.restarting.borrow()
    }

    /// Hands connections to the peers that made them.
    async fn connected(&mut self, batch: Vec<Incoming>) {
        let mut callers = Vec::new();
        let mut fresh = Vec::new();
        for incoming in batch {
            let Incoming { source, local, .. } = incoming;
            let unnumbered = source.ifindex.and_then(|ifindex| self.unnumbered(ifindex));
            match self.peers.caller(source, local, unnumbered.as_ref()) {
                Caller::Known(name) => callers.push((name, incoming)),
                Caller::New(name) => {
                    tracing::info!(peer = %name, "a range lets a peer in");
                    fresh.push(name.clone());
                    callers.push((name, incoming));
                }
                // Dropping a stream closes it; strangers get no word.
                Caller::Full(range) => {
                    turn_away(&incoming.stream);
                    let turned_away = self.turned_away.entry(range.clone()).or_default();
                    let line = turned_away.happened(Instant::now(), source);
                    log_turned_away(&range, line);
                }
                Caller::Stranger => {
                    log_stranger(self.strangers.happened(Instant::now(), source));
                }
            }
        }
        if !fresh.is_empty() {
            self.peers.index_addresses();
            self.configure_rib().await;
        }
        for name in &fresh {
            self.start_peer(name);
        }
        if !fresh.is_empty() {
            self.watch_paths().await;
        }
        for (name, incoming) in callers {
            self.order(&name, Command::Incoming(incoming.stream)).await;
        }
    }

    /// The peer at the other end of an interface, whether it has been found there or not: nobody else is
    /// let in from there.
    fn unnumbered(&self, ifindex: u32) -> Option<PeerName> {
        let table = self.links.interfaces.current();
        let interface = table.by_index(ifindex)?.name();
        let mut peers = self.config.peers.iter();
        let found = peers.find(|(_, peer)| peer.remote.interface() == Some(interface));
        found.map(|(name, _)| name.clone())
    }

    async fn order(&self, peer: &PeerName, order: Command) {
        let peer = self.peers.get(peer);
        if let Some((commands, _)) = peer.and_then(|peer| peer.session.as_ref()) {
            // A task that is gone obeys nothing any more.
            let _ = commands.send(order).await;
        }
    }

    /// Clears one peer, or all; how many there were.
    async fn clear(&self, peer: Option<&PeerName>, clear: &Clear) -> usize {
        let names = match peer {
            Some(name) => vec![name.clone()],
            None => self.peers.names(),
        };
        let mut cleared = 0;
        for name in names {
            let Some(peer) = self.peers.get(&name) else {
                continue;
            };
            cleared += 1;
            tracing::info!(peer = %name, ?clear, "clear");
            let order = match clear {
                Clear::Hard { message } => Command::Admin(Admin::Clear {
                    text: message.clone(),
                }),
                Clear::In => Command::Refresh,
                Clear::Out => {
                    for family in Family::ALL {
                        let index = peer.index;
                        self.rib.event(RibEvent::Resend { index, family }).await;
                    }
                    continue;
                }
            };
            self.order(&name, order).await;
        }
        cleared
    }

    /// Writes what is due of the lines that strangers cause.
    fn log_repeats(&mut self, now: Instant) {
        log_stranger(self.strangers.handle_timeout(now));
        for (range, repeats) in &mut self.turned_away {
            log_turned_away(range, repeats.handle_timeout(now));
        }
        let ranges = &self.config.peers;
        self.turned_away
            .retain(|range, _| ranges.contains_key(range));
    }

    async fn shutdown(mut self, how: How) {
        // First of all, so that the end of sessions takes no route from packets under way.
        self.fib_queue.close();
        self.close_listeners().await;
        let for_good = matches!(how, How::Cease { .. });
        let wish = match how {
            How::GracefulRestart => Admin::Restart,
            How::Cease { message } => Admin::Down { text: message },
        };
        let mut ending = Vec::new();
        for name in self.peers.names() {
            if let Some((commands, task)) = self.peers.remove(&name).and_then(|peer| peer.session) {
                let _ = commands.send(Command::Stop(wish.clone())).await;
                ending.push(task);
            }
        }
        for task in ending {
            let _ = task.await;
        }
        // For a restart they stay: the next life finds them as they are.
        if for_good && let Some(detection) = self.detection.take() {
            detection.end(FAREWELL).await;
        }
        self.listings.end().await;
        self.exports.close().await;
        for task in self.tasks.drain(..).chain(self.api.take()) {
            task.abort();
            let _ = task.await;
        }
        if let Some(path) = &self.api_socket {
            // One that is gone already is no loss.
            let _ = std::fs::remove_file(path);
        }
        drop(self.rib);
        let threads = self.threads;
        let joined = tokio::task::spawn_blocking(move || {
            for thread in threads {
                if thread.join().is_err() {
                    tracing::error!("a thread of the speaker panicked");
                }
            }
        });
        let _ = joined.await;
    }
}

fn log_stranger(line: Option<Line<Source>>) {
    if let Some(Line { times, what }) = line {
        tracing::warn!(source = %what, times, "connection from an address that is no peer's");
    }
}

/// Tells one whose range has no place left why its connection ends at once (RFC 4486 §4).
fn turn_away(stream: &TcpStream) {
    let rejected = Message::Notification(Notification::cease(Cease::ConnectionRejected, ""));
    let mut octets = BytesMut::new();
    if wire::encode(&rejected, EncodeContext::default(), &mut octets).is_ok() {
        // A connection that is new has room for so little; one that has not ends without a word.
        let _ = stream.try_write(&octets);
    }
}

fn log_turned_away(range: &PeerName, line: Option<Line<Source>>) {
    if let Some(Line { times, what }) = line {
        tracing::warn!(source = %what, %range, times, "the range has as many peers as it may have");
    }
}

fn log_refused(line: Option<Line<(Prefix, String)>>) {
    if let Some(Line { times, what }) = line {
        let (prefix, reason) = what;
        tracing::warn!(%prefix, %reason, times, "the FIB refused a route");
    }
}

/// Hands the FIB's answers to the RIB and link events to the supervisor.
async fn forward_answers(
    mut events: mpsc::Receiver<FibEvent>,
    rib: RibHandle,
    intake: mpsc::Sender<Arrival>,
    update_to_fib: Arc<UpdateToFib>,
) {
    let mut arrived = Vec::new();
    let mut acknowledged = Vec::new();
    let mut refused = Repeats::default();
    loop {
        let lines = refused.poll_timeout().map(Into::into);
        tokio::select! {
            count = events.recv_many(&mut arrived, ANSWERS_AT_ONCE) => if count == 0 {
                return log_refused(refused.rest());
            },
            () = sleep_until(lines) => log_refused(refused.handle_timeout(Instant::now())),
        }
        // Before anything waits for the RIB.
        let now = Instant::now();
        let mut answers = Vec::new();
        let mut reached = Vec::new();
        for event in arrived.drain(..) {
            let link = |ifindex, name, up| Arrival::Link { ifindex, name, up };
            let arrival = match event {
                FibEvent::Installed { prefix, seq, first } => {
                    let failed = None;
                    if first {
                        acknowledged.push((prefix.family(), seq));
                    }
                    answers.push(FibAnswer {
                        prefix,
                        seq,
                        failed,
                    });
                    continue;
                }
                FibEvent::Failed { prefix, seq, why } => {
                    log_refused(refused.happened(now, (prefix, why.clone())));
                    let failed = Some(why);
                    answers.push(FibAnswer {
                        prefix,
                        seq,
                        failed,
                    });
                    continue;
                }
                FibEvent::Reached {
                    next_hop,
                    reachability,
                } => {
                    reached.push((rib_thread::way(&next_hop), reachability));
                    continue;
                }
                FibEvent::Resynced => {
                    tracing::debug!("FIB resynchronised");
                    continue;
                }
                FibEvent::LinkDown { ifindex, name } => link(ifindex, name, false),
                FibEvent::LinkUp { ifindex, name } => link(ifindex, name, true),
            };
            if intake.send(arrival).await.is_err() {
                return;
            }
        }
        update_to_fib.acknowledged(now, &acknowledged);
        acknowledged.clear();
        if !reached.is_empty() {
            rib.event(RibEvent::Reached(reached)).await;
        }
        if !answers.is_empty() {
            rib.event(RibEvent::Answered(answers)).await;
        }
    }
}

/// What peers cannot guess: the hasher's keys are random in each process.
fn random_seed() -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests;
