//! The supervisor: starts the parts, compares configurations, routes orders.
//!
//! Owns the running configuration and the tasks and threads. Does not own sessions or routes.
//!
//! ```text
//!  SpeakerHandle --Request--> supervisor --Command--> session task, one per peer
//!                                 ^                     |  ^
//!  listener --TcpStream-----------+              events |  | pull
//!  FIB link events ---------------+                     v  |
//!  FIB answers --------------------------------------> RIB thread --> FIB queue --> FIB thread
//! ```

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use caracal_bgp_core::fsm::Admin;
use caracal_bgp_core::rib::{Event as RibEvent, FibAnswer, PeerIndex, RibOptions};
use caracal_bgp_core::types::Prefix;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::api;
use crate::config::{Activation, Change, ListenConfig, PeerConfig, PeerName, SpeakerConfig};
use crate::error::Error;
use crate::explain;
use crate::fib::{FibEvent, Forwarding};
use crate::fib_thread::{self, FibQueue};
use crate::handle::{How, REQUEST_DEPTH, Request, SpeakerHandle, SpeakerOptions};
use crate::net;
use crate::rib_thread::{self, Outlets, RibHandle};
use crate::session::{self, Command, Setup};
use crate::snapshot::{Explanation, FamilySnapshot, RouteSnapshot, SpeakerSnapshot};
use crate::status::Board;
use crate::translate::{families, machine_config, rib_config};

/// Connections and link events that may wait for the supervisor, which only sorts them.
const INTAKE_DEPTH: usize = 64;
/// Answers of the FIB that the RIB is given in one event.
const ANSWERS_AT_ONCE: usize = 512;
/// How long a snapshot waits for a busy RIB before it shows sessions without counts.
const COUNT_PATIENCE: Duration = Duration::from_secs(2);

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
    /// [`Error::PortInUse`], [`Error::Listen`], [`Error::Api`] or [`Error::Thread`]; nothing is
    /// left running then.
    pub async fn start(
        config: SpeakerConfig,
        forwarding: Option<Forwarding>,
        options: SpeakerOptions,
    ) -> Result<SpeakerHandle, Error> {
        let listeners = match &config.listen {
            Some(listen) => net::listen(listen)?,
            None => Vec::new(),
        };
        let (changed, changes) = watch::channel(0);
        let changed = Arc::new(changed);
        let (requests, incoming_requests) = mpsc::channel(REQUEST_DEPTH);
        let handle = SpeakerHandle::new(requests, changes.clone());
        // The API's own handle must not keep the speaker alive: its task is aborted at the end,
        // and the supervisor ends when the callers' handles are gone.
        let (api_requests, incoming_api) = mpsc::channel(REQUEST_DEPTH);
        let api = options
            .api_socket
            .as_deref()
            .map(|path| api::serve(path, SpeakerHandle::new(api_requests, changes)))
            .transpose()?;

        let mut peers = Peers::default();
        for name in config.peers.keys() {
            peers.name(name);
        }
        let rib_options = RibOptions {
            defer_until: config
                .restarting
                .then(|| Instant::now() + config.graceful_restart.selection_deferral),
            forwarding: forwarding.is_some(),
            hash_seed: random_seed(),
        };
        let (restarting_sender, restarting) = watch::channel(config.restarting);
        let fib_queue = FibQueue::default();
        let outlets = Outlets {
            fib: fib_queue.clone(),
            changes: Arc::clone(&changed),
            restarting: restarting_sender,
        };
        let (rib, rib_thread) = rib_thread::spawn(
            rib_config(&config, &peers.configs(&config)),
            rib_options,
            outlets,
        )?;
        let mut threads = vec![rib_thread];
        let mut tasks = Vec::new();
        let (intake, arrivals) = mpsc::channel(INTAKE_DEPTH);
        if let Some(Forwarding { fib, events }) = forwarding {
            threads.push(fib_thread::spawn(fib_queue.clone(), fib)?);
            tasks.push(tokio::spawn(forward_answers(
                events,
                rib.clone(),
                intake.clone(),
            )));
        }
        let mut supervisor = Supervisor {
            board: Board::new(changed),
            config,
            peers,
            rib,
            restarting,
            fib_queue,
            intake,
            listeners: Vec::new(),
            tasks,
            threads,
            api,
            api_socket: options.api_socket,
        };
        supervisor.accept_on(listeners);
        for name in supervisor.config.peers.keys().cloned().collect::<Vec<_>>() {
            supervisor.start_peer(&name);
        }
        supervisor.release_peers_behind_dead_links().await;
        tokio::spawn(supervisor.run(incoming_requests, incoming_api, arrivals));
        Ok(handle)
    }
}

/// What comes to the supervisor from below.
enum Arrival {
    Connection(TcpStream, SocketAddr),
    Link {
        ifindex: u32,
        name: String,
        up: bool,
    },
}

#[derive(Default)]
struct Peers {
    next_index: u32,
    /// Names in the RIB; a peer whose session is made anew gets a new one.
    indices: BTreeMap<PeerName, PeerIndex>,
    running: BTreeMap<PeerName, (mpsc::Sender<Command>, JoinHandle<()>)>,
}

impl Peers {
    /// Gives `name` an index that no peer has had.
    fn name(&mut self, name: &PeerName) {
        self.indices
            .insert(name.clone(), PeerIndex(self.next_index));
        self.next_index += 1;
    }

    /// What is configured for each index.
    fn configs<'a>(&self, config: &'a SpeakerConfig) -> BTreeMap<PeerIndex, &'a PeerConfig> {
        let peers = self.indices.iter();
        peers
            .filter_map(|(name, index)| Some((*index, config.peers.get(name)?)))
            .collect()
    }

    fn names(&self) -> BTreeMap<PeerIndex, PeerName> {
        self.indices
            .iter()
            .map(|(name, index)| (*index, name.clone()))
            .collect()
    }
}

struct Supervisor {
    config: SpeakerConfig,
    peers: Peers,
    rib: RibHandle,
    board: Board,
    restarting: watch::Receiver<bool>,
    fib_queue: FibQueue,
    intake: mpsc::Sender<Arrival>,
    listeners: Vec<JoinHandle<()>>,
    tasks: Vec<JoinHandle<()>>,
    threads: Vec<thread::JoinHandle<()>>,
    api: Option<JoinHandle<()>>,
    api_socket: Option<std::path::PathBuf>,
}

impl Supervisor {
    async fn run(
        mut self,
        mut requests: mpsc::Receiver<Request>,
        mut api_requests: mpsc::Receiver<Request>,
        mut arrivals: mpsc::Receiver<Arrival>,
    ) {
        let (how, done) = loop {
            let request = tokio::select! {
                request = requests.recv() => match request {
                    Some(request) => request,
                    None => break (How::GracefulRestart, None),
                },
                Some(request) = api_requests.recv() => request,
                Some(arrival) = arrivals.recv() => {
                    self.arrive(arrival).await;
                    continue;
                }
            };
            match request {
                Request::Apply(config, done) => {
                    let result = self.apply(*config).await;
                    // Whoever asked may have given up; what was asked has happened.
                    let _ = done.send(result);
                }
                Request::Snapshot(answer) => self.snapshot(answer),
                Request::Routes(within, answer) => self.routes(within, answer),
                Request::Explain(prefix, answer) => self.explain(prefix, answer),
                Request::History(peer, answer) => {
                    // Whoever asked may have given up.
                    let _ = answer.send(self.board.get(&peer).map(|board| board.history()));
                }
                Request::Shutdown(how, done) => break (how, Some(done)),
                #[cfg(test)]
                Request::WithRib(question, done) => {
                    let _ = self.rib.0.send(rib_thread::Input::Query(question)).await;
                    let _ = done.send(());
                }
            }
        };
        self.shutdown(how).await;
        if let Some(done) = done {
            let _ = done.send(());
        }
    }

    async fn apply(&mut self, new: SpeakerConfig) -> Result<(), Error> {
        let old = std::mem::replace(&mut self.config, new);
        let everyone = old
            .change(&self.config)
            .includes(Change::NEW_SESSION.and(Change::NEXT_SESSION));
        let stays = |name: &PeerName, config: &PeerConfig, new: &SpeakerConfig| {
            !everyone
                && new
                    .peers
                    .get(name)
                    .is_some_and(|peer| stays_up(config, peer))
        };
        for (name, config) in &old.peers {
            if !stays(name, config, &self.config) {
                self.peers.indices.remove(name);
                self.stop_peer(name).await;
            }
        }
        let new_names: Vec<PeerName> = self
            .config
            .peers
            .keys()
            .filter(|name| !self.peers.indices.contains_key(name))
            .cloned()
            .collect();
        for name in &new_names {
            self.peers.name(name);
        }
        let config = rib_config(&self.config, &self.peers.configs(&self.config));
        self.rib.event(RibEvent::Configure(config)).await;
        for name in &new_names {
            self.start_peer(name);
        }
        if self.config.listen != old.listen {
            return self.listen_anew().await;
        }
        Ok(())
    }

    async fn listen_anew(&mut self) -> Result<(), Error> {
        for listener in self.listeners.drain(..) {
            listener.abort();
            // The address is free once the task has dropped its socket.
            let _ = listener.await;
        }
        let listen: Option<ListenConfig> = self.config.listen.clone();
        if let Some(listen) = &listen {
            self.accept_on(net::listen(listen)?);
        }
        Ok(())
    }

    fn accept_on(&mut self, listeners: Vec<TcpListener>) {
        for listener in listeners {
            let intake = self.intake.clone();
            self.listeners.push(tokio::spawn(accept(listener, intake)));
        }
    }

    fn start_peer(&mut self, name: &PeerName) {
        let (Some(config), Some(index)) =
            (self.config.peers.get(name), self.peers.indices.get(name))
        else {
            return;
        };
        let restarting = *self.restarting.borrow();
        let remote = match startable(config) {
            Ok(ends) => ends,
            Err(why) => {
                self.board.open(name).update(|status| status.why = why);
                return;
            }
        };
        let setup = Setup {
            name: name.clone(),
            index: *index,
            config: config.clone(),
            remote,
            machine: machine_config(&self.config, config, *index, restarting),
            rib: self.rib.clone(),
            board: self.board.open(name),
            restarting: self.restarting.clone(),
        };
        self.peers
            .running
            .insert(name.clone(), session::spawn(setup));
    }

    async fn stop_peer(&mut self, name: &PeerName) {
        if let Some((commands, task)) = self.peers.running.remove(name) {
            // A task that is gone has stopped.
            let _ = commands.send(Command::Stop(Admin::Deconfigure)).await;
            let _ = task.await;
        }
        self.board.remove(name);
    }

    async fn arrive(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Connection(stream, remote) => self.connected(stream, remote).await,
            Arrival::Link { ifindex, name, up } => {
                tracing::info!(interface = %name, up, "link");
                for peer in self.peers_on(ifindex, &name) {
                    let order = if up {
                        Command::PathUp
                    } else {
                        Command::PathDown
                    };
                    self.order(&peer, order).await;
                }
            }
        }
    }

    async fn connected(&mut self, stream: TcpStream, remote: SocketAddr) {
        let from = remote.ip().to_canonical();
        let local = stream.local_addr().map(|local| local.ip().to_canonical());
        let peer = self.config.peers.iter().find(|(_, peer)| {
            peer.remote.address().map(|address| address.ip()) == Some(from)
                && peer
                    .local_address
                    .is_none_or(|wanted| local.as_ref().is_ok_and(|local| *local == wanted))
        });
        match peer {
            Some((name, _)) => {
                let name = name.clone();
                self.order(&name, Command::Incoming(stream)).await;
            }
            // Dropping the stream closes it; strangers get no word.
            None => tracing::warn!(%remote, "connection from an address that is no peer's"),
        }
    }

    async fn order(&self, peer: &PeerName, order: Command) {
        if let Some((commands, _)) = self.peers.running.get(peer) {
            // A task that is gone obeys nothing any more.
            let _ = commands.send(order).await;
        }
    }

    /// Peers whose session runs, or ran last, over the interface, or would run over it.
    fn peers_on(&self, ifindex: u32, name: &str) -> Vec<PeerName> {
        let on_interface = |peer: &PeerName, config: &PeerConfig| {
            let known = self.board.status(peer).interface;
            let interface = known.or_else(|| interface_of_config(config));
            interface.is_some_and(|found| found.index == ifindex || found.name == name)
        };
        self.config
            .peers
            .iter()
            .filter(|(peer, config)| on_interface(peer, config))
            .map(|(peer, _)| peer.clone())
            .collect()
    }

    /// After a restart, selection does not wait for peers behind links that died meanwhile.
    async fn release_peers_behind_dead_links(&self) {
        if !self.config.restarting {
            return;
        }
        for (name, config) in &self.config.peers {
            if interface_of_config(config).is_some_and(|interface| !interface.running) {
                self.order(name, Command::PathDown).await;
            }
        }
    }

    fn snapshot(&self, answer: oneshot::Sender<SpeakerSnapshot>) {
        let rib = self.rib.clone();
        let board = self.board.clone();
        let config = self.config.clone();
        let indices = self.peers.indices.clone();
        // In a task of its own: a busy RIB delays the answer, not the supervisor.
        tokio::spawn(async move {
            let wanted = indices.clone();
            let counts = rib.query(move |rib| {
                let mut views = rib.peers();
                let families: BTreeMap<PeerName, Vec<FamilySnapshot>> = wanted
                    .into_iter()
                    .map(|(name, index)| (name, families(views.remove(&index).unwrap_or_default())))
                    .collect();
                (families, rib.deferring(), rib.len(), rib.fib_pending())
            });
            let counts = tokio::time::timeout(COUNT_PATIENCE, counts).await;
            let (mut families, deferring, prefixes, fib_pending) =
                counts.ok().flatten().unwrap_or_default();
            let peers = config
                .peers
                .iter()
                .map(|(name, peer)| {
                    let families = families.remove(name).unwrap_or_default();
                    board.snapshot(name, peer, config.asn, families)
                })
                .collect();
            let _ = answer.send(SpeakerSnapshot {
                asn: config.asn,
                router_id: config.router_id,
                deferring,
                prefixes,
                fib_pending,
                peers,
            });
        });
    }

    fn routes(&self, within: Option<Prefix>, answer: oneshot::Sender<Vec<RouteSnapshot>>) {
        let rib = self.rib.clone();
        let names = self.peers.names();
        tokio::spawn(async move {
            if let Some(views) = rib.query(move |rib| rib.routes(within)).await {
                let routes = views.iter().map(|view| explain::route(view, &names));
                let _ = answer.send(routes.collect());
            }
        });
    }

    fn explain(&self, prefix: Prefix, answer: oneshot::Sender<Explanation>) {
        let rib = self.rib.clone();
        let names = self.peers.names();
        tokio::spawn(async move {
            let found = rib.query(move |rib| {
                let view = rib.covering(&prefix);
                let told = view
                    .as_ref()
                    .map(|view| rib.told(&view.prefix))
                    .unwrap_or_default();
                (view, told)
            });
            if let Some((view, told)) = found.await {
                let explained = explain::explain(prefix, view.as_ref(), &told, &names);
                let _ = answer.send(explained);
            }
        });
    }

    async fn shutdown(mut self, how: How) {
        // First of all, so that the end of sessions takes no route from packets under way.
        self.fib_queue.close();
        for listener in self.listeners.drain(..) {
            listener.abort();
        }
        let wish = match how {
            How::GracefulRestart => Admin::Restart,
            How::Cease { message } => Admin::Down { text: message },
        };
        let mut ending = Vec::new();
        for (commands, task) in std::mem::take(&mut self.peers.running).into_values() {
            let _ = commands.send(Command::Stop(wish.clone())).await;
            ending.push(task);
        }
        for task in ending {
            let _ = task.await;
        }
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

/// Hands the FIB's answers to the RIB and link events to the supervisor.
async fn forward_answers(
    mut events: mpsc::Receiver<FibEvent>,
    rib: RibHandle,
    intake: mpsc::Sender<Arrival>,
) {
    let mut arrived = Vec::new();
    while events.recv_many(&mut arrived, ANSWERS_AT_ONCE).await > 0 {
        let mut answers = Vec::new();
        for event in arrived.drain(..) {
            let link = |ifindex, name, up| Arrival::Link { ifindex, name, up };
            let arrival = match event {
                FibEvent::Installed { prefix, seq } => {
                    let failed = None;
                    answers.push(FibAnswer {
                        prefix,
                        seq,
                        failed,
                    });
                    continue;
                }
                FibEvent::Failed { prefix, seq, why } => {
                    tracing::warn!(%prefix, %why, "the FIB refused a route");
                    let failed = Some(why);
                    answers.push(FibAnswer {
                        prefix,
                        seq,
                        failed,
                    });
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

async fn accept(listener: TcpListener, intake: mpsc::Sender<Arrival>) {
    loop {
        match listener.accept().await {
            Ok((stream, remote)) => {
                if intake
                    .send(Arrival::Connection(stream, remote))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Out of descriptors: a pause lets others close theirs.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Address of the peer.
///
/// # Errors
/// Why there can be no session, for people.
fn startable(config: &PeerConfig) -> Result<SocketAddr, String> {
    match &config.activation {
        Activation::Run => {}
        Activation::Down { message } if message.is_empty() => {
            return Err("administratively down".to_owned());
        }
        Activation::Down { message } => return Err(format!("administratively down: {message}")),
        Activation::Held { why } => return Err(why.clone()),
    }
    let remote = config.remote.address();
    let remote = remote.ok_or("peers without an address are not supported yet")?;
    if config.authentication.is_some() {
        // Without the key the session would run unprotected.
        return Err("authentication is not supported yet".to_owned());
    }
    Ok(remote)
}

/// Whether a living session can take over `to`: the table does what concerns routes, and a client
/// is one from its next session on.
fn stays_up(from: &PeerConfig, to: &PeerConfig) -> bool {
    from.change(to)
        .only(Change::REFRESH_IN.and(Change::REEXPORT))
        && from.route_reflector_client == to.route_reflector_client
}

fn interface_of_config(config: &PeerConfig) -> Option<net::Interface> {
    let local: IpAddr = config.local_address?;
    net::interface_of(local)
}

#[cfg(test)]
mod tests;
