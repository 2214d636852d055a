//! What the kernel says about interfaces and addresses, kept at hand.
//!
//! Owns one netlink socket that hears of changes, and the facts. Thousands of sessions ask without
//! a system call each: [`Interfaces::current`] is a shared table, built anew only when something
//! has changed since it was asked for last.

mod netlink;
mod table;

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use self::table::{Interface, InterfaceTable, Link};

use self::netlink::{Heard, Lister, Monitor};
use self::table::Facts;
use crate::error::Error;

/// Everything is listed anew this often, in case a notification went missing unseen.
const RESYNC: Duration = Duration::from_secs(60);
/// How long to wait when the kernel refuses to tell.
const RETRY: Duration = Duration::from_secs(1);

/// The interfaces of the network namespace in which [`Interfaces::start`] was called. Cheap to
/// clone; watching ends with the last clone.
#[derive(Clone, Debug)]
pub struct Interfaces(Arc<Watched>);

#[derive(Debug)]
struct Watched {
    shared: Arc<Shared>,
    task: AbortHandle,
}

impl Drop for Watched {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    facts: Facts,
    /// The facts as a table, until they change.
    table: Option<Arc<InterfaceTable>>,
}

impl Interfaces {
    /// Lists all interfaces and watches them from now on, within the current tokio runtime.
    ///
    /// # Errors
    /// [`Error::Interfaces`] when the kernel does not tell.
    pub fn start() -> Result<Self, Error> {
        // Listening comes first: what changes while the list is made is then heard of, and applied
        // to it once more.
        let monitor = Monitor::open().map_err(watching)?;
        let mut lister = Lister::open().map_err(watching)?;
        let facts = Facts::of(lister.list().map_err(watching)?);
        let shared = Arc::new(Shared {
            state: Mutex::new(State { facts, table: None }),
            changes: watch::Sender::new(0),
        });
        let task = tokio::spawn(follow(monitor, lister, Arc::clone(&shared))).abort_handle();
        Ok(Self(Arc::new(Watched { shared, task })))
    }

    /// The interfaces as they are known now.
    pub fn current(&self) -> Arc<InterfaceTable> {
        let mut state = self.0.shared.lock();
        let State { facts, table } = &mut *state;
        Arc::clone(table.get_or_insert_with(|| Arc::new(InterfaceTable::new(facts))))
    }

    /// Counts changes; who waits for the next one looks at [`Interfaces::current`] then.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.shared.changes.subscribe()
    }
}

impl InterfaceTable {
    /// Lists all interfaces once.
    ///
    /// # Errors
    /// [`Error::Interfaces`] when the kernel does not tell.
    pub fn read() -> Result<Self, Error> {
        let list = Lister::open().and_then(|mut lister| lister.list());
        Ok(Self::new(&Facts::of(list.map_err(watching)?)))
    }
}

fn watching(source: io::Error) -> Error {
    Error::Interfaces { source }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        // Whoever panicked with it left facts, if old ones; the next list replaces them.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the facts by `change`, which says whether anything differs.
    fn update(&self, change: impl FnOnce(&mut Facts) -> bool) {
        let mut state = self.lock();
        if change(&mut state.facts) {
            state.table = None;
            drop(state);
            self.changes.send_modify(|count| *count += 1);
        }
    }
}

async fn follow(mut monitor: Monitor, mut lister: Lister, shared: Arc<Shared>) {
    let mut resync = tokio::time::interval(RESYNC);
    resync.reset();
    loop {
        let heard = tokio::select! {
            _ = resync.tick() => Heard::Lost,
            heard = monitor.read() => match heard {
                Ok(heard) => heard,
                Err(error) => {
                    tracing::warn!(%error, "cannot hear of interfaces; listing them instead");
                    tokio::time::sleep(RETRY).await;
                    Heard::Lost
                }
            },
        };
        let list = match heard {
            Heard::Changes(changes) => {
                shared.update(|facts| {
                    // Each must be applied, whatever the others have done.
                    let apply = |differs, change| facts.apply(change) || differs;
                    changes.into_iter().fold(false, apply)
                });
                continue;
            }
            Heard::Lost => lister.list(),
        };
        match list {
            Ok(list) => shared.update(|facts| {
                let new = Facts::of(list);
                let differs = new != *facts;
                *facts = new;
                differs
            }),
            Err(error) => {
                tracing::warn!(%error, "cannot list interfaces");
                tokio::time::sleep(RETRY).await;
                resync.reset_immediately();
            }
        }
    }
}
