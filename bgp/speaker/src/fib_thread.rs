//! The thread that hands routes to the FIB.
//!
//! Owns the changes that the FIB has not taken yet: the latest per prefix, so that memory is
//! bounded by the table however slow the kernel is. Does not own answers, which come back as
//! [`crate::FibEvent`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread;

use caracal_bgp_core::types::Prefix;

use crate::error::Error;
use crate::fib::{Fib, FibChange, FibNextHop};

/// Changes on their way to the FIB; shared by the RIB thread, which never waits here, and the
/// FIB thread.
#[derive(Clone, Debug, Default)]
pub(crate) struct FibQueue(Arc<(Mutex<Waiting>, Condvar)>);

#[derive(Debug, Default)]
struct Waiting {
    changes: BTreeMap<Prefix, FibChange>,
    /// Next hops lost after `changes` were pushed.
    lost: BTreeSet<FibNextHop>,
    /// Next hops to be tracked, or no longer.
    tracked: BTreeMap<FibNextHop, bool>,
    /// The first table is complete with `changes`.
    complete: bool,
    closed: bool,
}

/// What the FIB is told next, in this order.
struct Batch {
    tracked: Vec<(FibNextHop, bool)>,
    changes: Vec<FibChange>,
    lost: Vec<FibNextHop>,
    complete: bool,
}

impl FibQueue {
    /// Puts `changes` in line.
    pub(crate) fn push(&self, changes: impl IntoIterator<Item = FibChange>) {
        let mut waiting = self.lock();
        if waiting.closed {
            return;
        }
        for change in changes {
            if let Some(route) = change.route.as_ref().filter(|_| !waiting.lost.is_empty()) {
                let again = route.next_hops.iter();
                again.for_each(|next_hop| {
                    waiting.lost.remove(next_hop);
                });
            }
            waiting.changes.insert(change.prefix, change);
        }
        self.0.1.notify_one();
    }

    /// Says that packets which go these ways are lost.
    pub(crate) fn lose(&self, next_hops: impl IntoIterator<Item = FibNextHop>) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.lost.extend(next_hops);
            self.0.1.notify_one();
        }
    }

    /// Has next hops tracked, or no longer: before the changes that wait, which may name them.
    pub(crate) fn track(&self, next_hops: impl IntoIterator<Item = (FibNextHop, bool)>) {
        let mut waiting = self.lock();
        if !waiting.closed {
            waiting.tracked.extend(next_hops);
            self.0.1.notify_one();
        }
    }

    /// Everything of the first table has been pushed.
    pub(crate) fn complete(&self) {
        self.lock().complete = true;
        self.0.1.notify_one();
    }

    /// How many changes wait.
    pub(crate) fn len(&self) -> usize {
        self.lock().changes.len()
    }

    /// Takes no more changes and drops those that wait: what the FIB holds stays.
    pub(crate) fn close(&self) {
        let mut waiting = self.lock();
        waiting.closed = true;
        waiting.changes.clear();
        waiting.lost.clear();
        waiting.tracked.clear();
        waiting.complete = false;
        self.0.1.notify_one();
    }

    /// The next batch; `None` once closed.
    fn take(&self) -> Option<Batch> {
        let (_, arrival) = &*self.0;
        let mut waiting = self.lock();
        loop {
            if waiting.closed {
                return None;
            }
            let silent =
                waiting.changes.is_empty() && waiting.lost.is_empty() && waiting.tracked.is_empty();
            if !silent || waiting.complete {
                return Some(Batch {
                    tracked: std::mem::take(&mut waiting.tracked).into_iter().collect(),
                    changes: std::mem::take(&mut waiting.changes).into_values().collect(),
                    lost: std::mem::take(&mut waiting.lost).into_iter().collect(),
                    complete: std::mem::take(&mut waiting.complete),
                });
            }
            waiting = arrival
                .wait(waiting)
                .unwrap_or_else(std::sync::PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // Every change under the lock is whole: a thread that died left nothing half done.
        self.0
            .0
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

/// Starts the thread; it ends when `queue` is closed.
pub(crate) fn spawn(
    queue: FibQueue,
    mut fib: Box<dyn Fib>,
) -> Result<thread::JoinHandle<()>, Error> {
    thread::Builder::new()
        .name("bgp-fib".into())
        .spawn(move || {
            while let Some(batch) = queue.take() {
                if !batch.tracked.is_empty() {
                    fib.track(batch.tracked);
                }
                if !batch.changes.is_empty() {
                    fib.apply(batch.changes);
                }
                if !batch.lost.is_empty() {
                    fib.lose(batch.lost);
                }
                if batch.complete {
                    fib.initial_sync_complete();
                }
            }
        })
        .map_err(|source| Error::Thread {
            name: "FIB",
            source,
        })
}
