//! The thread that owns the RIB.
//!
//! Owns the one [`Rib`] and the order in which it sees events. Does not own sockets or the FIB:
//! whoever is slower than this thread is never waited for here.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use caracal_bgp_core::bmp::{PeerDownReason, SessionFacts};
use caracal_bgp_core::rib::{
    Action, Event, Forward, MaxPrefixes, PeerId, Rib, RibConfig, RibOptions,
};
use caracal_bgp_core::types::{Family, NextHop};
use caracal_bgp_core::wire::Update;
use tokio::sync::{mpsc, oneshot, watch};

use crate::arrivals::{Run, UpdateToFib};
use crate::error::Error;
use crate::export::{Call, Stations};
use crate::fib::{FibChange, FibNextHop, FibRoute};
use crate::fib_thread::FibQueue;
use crate::status::PeerBoard;

/// Inputs that may wait for the RIB, over all sessions: enough that a burst from several peers
/// keeps it busy, little enough that a query in line is answered soon.
const RIB_DEPTH: usize = 16;
/// Prefixes per pull: enough to pack well, few enough that a keepalive does not wait long behind
/// them.
const PULL_BUDGET: usize = 4096;
/// Pulls that may be on their way to a writer beside the one that it writes.
const OUTLET_DEPTH: usize = 1;
/// Alarms of one session that it has not heard. One of each kind and family comes, and again when
/// its limits change.
const ALARM_DEPTH: usize = 16;
/// How long the thread takes inputs in before the FIB and the peers hear of their effect.
const TAKE_TIME: Duration = Duration::from_millis(5);
/// How long the thread serves peers before it looks at its inputs again.
const SERVE_TIME: Duration = Duration::from_millis(5);

/// What the RIB thread is given.
pub(crate) enum Input {
    /// An event for the machine.
    Event(Event),
    /// [`Event::Updates`], and when they came.
    Updates(Updates),
    /// [`Event::PeerUp`], with the way of its routes to the writer.
    Up(Event, Box<Arrival>),
    /// [`Event::PeerDown`], with what stations are told of it.
    Down(Event, PeerId, PeerDownReason),
    /// For the sake of stations and files.
    Station(Call),
    /// A peer's writer has taken what it was given.
    Pull(PeerId),
    /// Anything that reads the RIB.
    Query(Question),
}

/// UPDATEs of one session in the order in which they came.
pub(crate) struct Updates {
    pub(crate) peer: PeerId,
    pub(crate) updates: Vec<Update>,
    /// When they came, all in one read.
    pub(crate) arrived: Instant,
}

/// A session that has come up.
pub(crate) struct Arrival {
    pub(crate) facts: Arc<SessionFacts>,
    pub(crate) outlet: Outlet,
    pub(crate) board: Arc<PeerBoard>,
}

/// A question to the RIB; it carries the way back itself.
pub(crate) struct Question(pub(crate) Box<dyn FnOnce(&Rib) + Send>);

impl std::fmt::Debug for Question {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Question")
    }
}

/// Talks to the RIB thread; cheap to clone. The thread ends when the last one is gone.
#[derive(Clone)]
pub(crate) struct RibHandle(pub(crate) mpsc::Sender<Input>);

impl RibHandle {
    /// One that nobody listens to, until there is a RIB.
    pub(crate) fn closed() -> Self {
        Self(mpsc::channel(1).0)
    }

    /// Asks the RIB; `None` when the thread has ended.
    pub(crate) async fn query<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Rib) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let query = Question(Box::new(move |rib: &Rib| {
            // Who asked may have given up meanwhile.
            let _ = answer.send(question(rib));
        }));
        self.0.send(Input::Query(query)).await.ok()?;
        answered.await.ok()
    }

    /// Asks for the next messages of `peer`, which come by its outlet when there are any.
    pub(crate) async fn pull(&self, peer: PeerId) {
        // A RIB that has ended has no routes.
        let _ = self.0.send(Input::Pull(peer)).await;
    }

    /// The sessions that are up, by peer; `None` when the thread has ended.
    pub(crate) async fn sessions(&self) -> Option<Vec<Arc<SessionFacts>>> {
        let (answer, answered) = oneshot::channel();
        let call = Input::Station(Call::Sessions(answer));
        self.0.send(call).await.ok()?;
        answered.await.ok()
    }

    /// Hands in an event.
    pub(crate) async fn event(&self, event: Event) {
        // A RIB that has ended needs no more events.
        let _ = self.0.send(Input::Event(event)).await;
    }
}

/// The ways from the RIB to a session.
#[derive(Debug)]
pub(crate) struct Outlet {
    /// Its routes, to the writer.
    routes: mpsc::Sender<Bytes>,
    alarms: mpsc::Sender<PrefixAlarm>,
}

/// The peer tells more than it may, or nearly so.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PrefixAlarm {
    pub(crate) family: Family,
    pub(crate) count: u32,
    /// What it may tell, by the configuration that the RIB had: the session's own may be older or newer.
    pub(crate) limits: MaxPrefixes,
    /// It tells more.
    pub(crate) exceeded: bool,
}

/// The ways from the RIB to a session that has come up.
pub(crate) fn outlet() -> (Outlet, mpsc::Receiver<Bytes>, mpsc::Receiver<PrefixAlarm>) {
    let (routes, routes_out) = mpsc::channel(OUTLET_DEPTH);
    let (alarms, alarms_out) = mpsc::channel(ALARM_DEPTH);
    (Outlet { routes, alarms }, routes_out, alarms_out)
}

/// Where the RIB thread reports.
pub(crate) struct Outlets {
    pub(crate) fib: FibQueue,
    /// Where is noted what UPDATEs ask of the FIB.
    pub(crate) update_to_fib: Arc<UpdateToFib>,
    /// Grows with every burst that had an effect.
    pub(crate) changes: Arc<watch::Sender<u64>>,
    /// Turns false when our restart is over.
    pub(crate) restarting: watch::Sender<bool>,
}

/// Starts the thread.
pub(crate) fn spawn(
    config: RibConfig,
    options: RibOptions,
    outlets: Outlets,
) -> Result<(RibHandle, thread::JoinHandle<()>), Error> {
    let (sender, inputs) = mpsc::channel(RIB_DEPTH);
    let failed = |source| Error::Thread {
        name: "RIB",
        source,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(failed)?;
    let thread = thread::Builder::new()
        .name("bgp-rib".into())
        .spawn(move || runtime.block_on(run(config, options, inputs, outlets)))
        .map_err(failed)?;
    Ok((RibHandle(sender), thread))
}

async fn run(
    config: RibConfig,
    options: RibOptions,
    mut inputs: mpsc::Receiver<Input>,
    outlets: Outlets,
) {
    let mut actions = Vec::new();
    let rib = Rib::new(config, options, &mut actions);
    let mut worker = Worker {
        rib,
        actions,
        writers: HashMap::new(),
        ready: VecDeque::new(),
        outlets,
        ways: WaysCache::default(),
        stations: Stations::default(),
        followed: false,
        runs: Vec::new(),
    };
    worker.note_requests(0, None);
    loop {
        worker.act();
        worker.serve();
        if worker.ready.is_empty() && !worker.stations.has_ready() {
            let timeout = worker
                .rib
                .poll_timeout()
                .map(tokio::time::Instant::from_std);
            tokio::select! {
                input = inputs.recv() => match input {
                    Some(input) => worker.take(input),
                    None => return,
                },
                () = sleep_until(timeout) => worker.handle_timeout(),
            }
        } else {
            worker.handle_timeout();
        }
        let begun = Instant::now();
        while begun.elapsed() < TAKE_TIME {
            match inputs.try_recv() {
                Ok(input) => worker.take(input),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return,
            }
        }
    }
}

/// Sleeps until `deadline`, or for ever when there is none.
pub(crate) async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

struct Worker {
    rib: Rib,
    actions: Vec<Action>,
    writers: HashMap<PeerId, Outlet>,
    /// Peers for whom there is something to pull, and whose writers take it.
    ready: VecDeque<PeerId>,
    outlets: Outlets,
    ways: WaysCache,
    stations: Stations,
    /// The RIB says what changes.
    followed: bool,
    /// What is behind the requests to the FIB among `actions`.
    runs: Vec<Run>,
}

impl Worker {
    fn take(&mut self, input: Input) {
        match input {
            Input::Event(event) => {
                self.warn_of_dead_ends(&event);
                self.handle(event, None);
            }
            Input::Updates(Updates {
                peer,
                updates,
                arrived,
            }) => self.handle(Event::Updates { peer, updates }, Some(arrived)),
            Input::Up(event, arrival) => {
                let Arrival {
                    facts,
                    outlet,
                    board,
                } = *arrival;
                let peer = facts.id;
                self.writers.retain(|other, _| other.index != peer.index);
                self.writers.insert(peer, outlet);
                self.stations.session_up(facts, board);
                self.handle(event, None);
            }
            Input::Down(event, peer, reason) => {
                self.writers.remove(&peer);
                self.stations.session_down(peer, &reason);
                self.warn_of_dead_ends(&event);
                self.handle(event, None);
            }
            Input::Station(call) => {
                self.stations.call(call, &self.rib);
                let wanted = self.stations.follow_table();
                if wanted != self.followed {
                    self.followed = wanted;
                    self.handle(Event::Follow { wanted }, None);
                }
            }
            Input::Pull(peer) => self.ready.push_back(peer),
            Input::Query(Question(question)) => question(&self.rib),
        }
    }

    /// Has the RIB take an event in; `arrived` is when, for an UPDATE.
    fn handle(&mut self, event: Event, arrived: Option<Instant>) {
        let before = self.actions.len();
        self.rib.handle(Instant::now(), event, &mut self.actions);
        self.note_requests(before, arrived);
    }

    /// Notes what was behind the requests to the FIB among the actions from `before` on. Their numbers
    /// grow, so that the last one says it all.
    fn note_requests(&mut self, before: usize, arrived: Option<Instant>) {
        let mut latest = self.actions[before..].iter().rev();
        let last = latest.find_map(|action| match action {
            Action::Fib { seq, .. } => Some(*seq),
            _ => None,
        });
        if let Some(last) = last {
            self.runs.push(Run { last, arrived });
        }
    }

    /// Tells the FIB at once of next hops that lead nowhere any more: to work out what becomes of
    /// each route takes longer than packets should be lost.
    fn warn_of_dead_ends(&mut self, event: &Event) {
        let index = match event {
            Event::PeerDown { peer, retain } if retain.is_empty() => peer.index,
            Event::PathDown { index } => *index,
            _ => return,
        };
        // What is older and leads there goes first: it would take the warning back.
        self.act();
        let ways = self.rib.ways_of(index);
        self.outlets.fib.lose(ways.iter().map(fib_next_hop));
    }

    fn handle_timeout(&mut self) {
        let now = Instant::now();
        if self.rib.poll_timeout().is_some_and(|due| due <= now) {
            let before = self.actions.len();
            self.rib.handle_timeout(now, &mut self.actions);
            self.note_requests(before, None);
        }
    }

    /// Gives peers what there is for them, a while long.
    fn serve(&mut self) {
        let now = Instant::now();
        while let Some(peer) = self.ready.pop_front() {
            let Some(writer) = self.writers.get(&peer) else {
                continue;
            };
            // A writer that is not ready asks again when it has taken what is under way; one that
            // has ended takes its session with it.
            if let Ok(permit) = writer.routes.try_reserve()
                && let Some(octets) = self.rib.pull(now, peer, PULL_BUDGET)
            {
                self.stations.sent(peer, &octets);
                permit.send(octets);
            }
            if now.elapsed() > SERVE_TIME {
                break;
            }
        }
        if !self.stations.is_empty() {
            self.stations.settle(&self.rib);
            self.stations.serve(&self.rib, SERVE_TIME);
        }
    }

    fn act(&mut self) {
        if self.actions.is_empty() {
            return;
        }
        let mut changes = Vec::new();
        let mut tracked = Vec::new();
        let mut complete = false;
        for action in self.actions.drain(..) {
            match action {
                Action::Fib {
                    prefix,
                    forward,
                    seq,
                } => changes.push(FibChange {
                    prefix,
                    route: forward.map(|forward| self.ways.route(forward)),
                    seq,
                }),
                Action::Track { forward, wanted } => tracked.push((fib_next_hop(&forward), wanted)),
                Action::FibComplete => complete = true,
                Action::RestartComplete => {
                    tracing::info!("selection runs: every peer has sent its routes, or time is up");
                    self.outlets.restarting.send_replace(false);
                }
                Action::EgressReady { peer } => self.ready.push_back(peer),
                Action::Changed(changed) => self.stations.changed(&changed),
                Action::PrefixLimit {
                    peer,
                    family,
                    count,
                    limits,
                    exceeded,
                } => {
                    let alarm = PrefixAlarm {
                        family,
                        count,
                        limits,
                        exceeded,
                    };
                    // There is room for each that can come; a session that has ended needs none.
                    if let Some(outlet) = self.writers.get(&peer) {
                        let _ = outlet.alarms.try_send(alarm);
                    }
                }
            }
        }
        // Before the FIB can answer.
        if !self.runs.is_empty() {
            let runs = self.runs.drain(..);
            self.outlets.update_to_fib.asked(Instant::now(), runs);
        }
        self.outlets.fib.track(tracked);
        self.outlets.fib.push(changes);
        if complete {
            self.outlets.fib.complete();
        }
        self.outlets.changes.send_modify(|revision| *revision += 1);
    }
}

/// The last set of next hops in the FIB's terms: most routes that change together go the same way.
#[derive(Default)]
struct WaysCache {
    forward: Option<Arc<[Forward]>>,
    next_hops: Arc<[FibNextHop]>,
}

impl WaysCache {
    fn route(&mut self, forward: Arc<[Forward]>) -> FibRoute {
        let known = self.forward.as_ref();
        if !known.is_some_and(|known| Arc::ptr_eq(known, &forward)) {
            let mut translated: Vec<FibNextHop> = forward.iter().map(fib_next_hop).collect();
            translated.sort_unstable();
            translated.dedup();
            self.next_hops = translated.into();
            self.forward = Some(forward);
        }
        let next_hops = Arc::clone(&self.next_hops);
        FibRoute { next_hops }
    }
}

fn fib_next_hop(way: &Forward) -> FibNextHop {
    FibNextHop {
        address: way.next_hop.addr(),
        link_local: match way.next_hop {
            NextHop::V6 { link_local, .. } => link_local,
            NextHop::V4(_) => None,
        },
        interface: way.interface,
    }
}

/// The way that the RIB knows by this next hop.
pub(crate) fn way(next_hop: &FibNextHop) -> Forward {
    Forward {
        next_hop: match next_hop.address {
            IpAddr::V4(address) => NextHop::V4(address),
            IpAddr::V6(global) => NextHop::V6 {
                global,
                link_local: next_hop.link_local,
            },
        },
        interface: next_hop.interface,
    }
}
