//! The thread that owns the RIB.
//!
//! Owns the one [`Rib`] and the order in which it sees events. Does not own sockets or the FIB:
//! whoever is slower than this thread is never waited for here.

use std::collections::HashMap;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use bytes::Bytes;
use caracal_bgp_core::rib::{Action, Event, Forward, PeerId, Rib, RibConfig, RibOptions};
use caracal_bgp_core::types::NextHop;
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::error::Error;
use crate::fib::{FibChange, FibNextHop, FibRoute};
use crate::fib_thread::FibQueue;

/// Inputs that may wait for the RIB, over all sessions: enough that a burst from several peers
/// keeps it busy, little enough that a query in line is answered soon.
const RIB_DEPTH: usize = 512;
/// Inputs taken in one go before the FIB and the peers hear of their effect.
const BURST: usize = 64;
/// Prefixes per pull: a few messages, so that a keepalive never waits behind more than that.
const PULL_BUDGET: usize = 500;

/// What the RIB thread is given.
pub(crate) enum Input {
    /// An event for the machine.
    Event(Event),
    /// [`Event::PeerUp`], with what to notify when there is something to pull.
    Up(Event, PeerId, Arc<Notify>),
    /// The next messages for a peer.
    Pull(PeerId, oneshot::Sender<Option<Bytes>>),
    /// Anything that reads the RIB.
    Query(Question),
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

    /// The next messages for `peer`; `None` when there are none, or the thread has ended.
    pub(crate) async fn pull(self, peer: PeerId) -> Option<Bytes> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Input::Pull(peer, answer)).await.ok()?;
        answered.await.ok().flatten()
    }

    /// Hands in an event.
    pub(crate) async fn event(&self, event: Event) {
        // A RIB that has ended needs no more events.
        let _ = self.0.send(Input::Event(event)).await;
    }
}

/// Where the RIB thread reports.
pub(crate) struct Outlets {
    pub(crate) fib: FibQueue,
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
    let mut wakers = HashMap::new();
    let mut ways = WaysCache::default();
    let mut rib = Rib::new(config, options, &mut actions);
    loop {
        act(&mut actions, &wakers, &outlets, &mut ways);
        let timeout = rib.poll_timeout().map(tokio::time::Instant::from_std);
        tokio::select! {
            input = inputs.recv() => {
                let Some(input) = input else { return };
                take(&mut rib, input, &mut wakers, &mut actions);
                for _ in 1..BURST {
                    let Ok(input) = inputs.try_recv() else { break };
                    take(&mut rib, input, &mut wakers, &mut actions);
                }
            }
            () = sleep_until(timeout) => rib.handle_timeout(Instant::now(), &mut actions),
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

fn take(
    rib: &mut Rib,
    input: Input,
    wakers: &mut HashMap<PeerId, Arc<Notify>>,
    actions: &mut Vec<Action>,
) {
    let now = Instant::now();
    match input {
        Input::Event(event) => {
            if let Event::PeerDown { peer, .. } = &event {
                wakers.remove(peer);
            }
            rib.handle(now, event, actions);
        }
        Input::Up(event, peer, waker) => {
            wakers.retain(|other, _| other.index != peer.index);
            wakers.insert(peer, waker);
            rib.handle(now, event, actions);
        }
        Input::Pull(peer, answer) => {
            // A writer that has ended meanwhile takes its session with it.
            let _ = answer.send(rib.pull(now, peer, PULL_BUDGET));
        }
        Input::Query(Question(question)) => question(rib),
    }
}

fn act(
    actions: &mut Vec<Action>,
    wakers: &HashMap<PeerId, Arc<Notify>>,
    outlets: &Outlets,
    ways: &mut WaysCache,
) {
    if actions.is_empty() {
        return;
    }
    let mut changes = Vec::new();
    let mut complete = false;
    for action in actions.drain(..) {
        match action {
            Action::Fib {
                prefix,
                forward,
                seq,
            } => changes.push(FibChange {
                prefix,
                route: forward.map(|forward| ways.route(forward)),
                seq,
            }),
            Action::FibComplete => complete = true,
            Action::RestartComplete => {
                tracing::info!("selection runs: every peer has sent its routes, or time is up");
                outlets.restarting.send_replace(false);
            }
            Action::EgressReady { peer } => {
                if let Some(waker) = wakers.get(&peer) {
                    waker.notify_one();
                }
            }
        }
    }
    outlets.fib.push(changes);
    if complete {
        outlets.fib.complete();
    }
    outlets.changes.send_modify(|revision| *revision += 1);
}

/// The last set of next hops in the FIB's terms: most routes that change together go the same way.
#[derive(Default)]
struct WaysCache(Option<(Arc<[Forward]>, Arc<[FibNextHop]>)>);

impl WaysCache {
    fn route(&mut self, forward: Arc<[Forward]>) -> FibRoute {
        if let Some((known, next_hops)) = &self.0
            && Arc::ptr_eq(known, &forward)
        {
            let next_hops = Arc::clone(next_hops);
            return FibRoute { next_hops };
        }
        let mut translated: Vec<FibNextHop> = forward.iter().map(fib_next_hop).collect();
        translated.sort_unstable();
        translated.dedup();
        let next_hops: Arc<[FibNextHop]> = translated.into();
        self.0 = Some((forward, Arc::clone(&next_hops)));
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
