//! Puts the table back when somebody else changes it.
//!
//! Owns one thread and the monitor it waits on. Does not own the dataplane, which it shares.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::{Dataplane, Stats};
use crate::error::Error;
use crate::monitor::Foreign;

/// What a repair was for and what came of it.
#[derive(Debug)]
pub struct Repair {
    /// What somebody else did.
    pub cause: Foreign,
    /// What was written, or why it could not be; in that case it is tried again.
    pub outcome: Result<Stats, Error>,
}

/// Repairs a shared [`Dataplane`] for as long as it lives.
pub struct Guard {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// How long the thread takes to notice that it shall stop, and how long it waits after a repair that
/// failed.
const PATIENCE: Duration = Duration::from_millis(200);

impl Guard {
    /// Starts to watch. To be called before the first sync, so that no change falls between the two.
    /// `report` hears of every repair that was necessary.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`] if the monitor or the thread cannot be made.
    pub fn start(
        dataplane: Arc<Mutex<Dataplane>>,
        mut report: impl FnMut(Repair) + Send + 'static,
    ) -> Result<Self, Error> {
        let mut monitor = lock(&dataplane).monitor()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::Builder::new()
            .name("nft-guard".to_owned())
            .spawn(move || {
                let mut again = None;
                while !stopped.load(Ordering::Relaxed) {
                    let cause = match monitor.wait(PATIENCE) {
                        Ok(None) => again.take(),
                        Ok(cause) => cause,
                        Err(outcome) => {
                            // The socket is of no more use; without it every wait counts as a change.
                            report(Repair {
                                cause: Foreign::Overrun,
                                outcome: Err(outcome),
                            });
                            std::thread::sleep(PATIENCE);
                            Some(Foreign::Overrun)
                        }
                    };
                    let Some(cause) = cause else { continue };
                    let outcome = lock(&dataplane).repair();
                    if outcome.is_err() {
                        again = Some(cause.clone());
                    }
                    // A change that left everything as it should be needed no repair.
                    if !matches!(outcome, Ok(Stats { writes: 0, .. })) {
                        report(Repair { cause, outcome });
                    }
                }
            })
            .map_err(|source| Error::Socket {
                action: "start the thread that watches nf_tables",
                source,
            })?;
        Ok(Self {
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A panic in the caller's report is the caller's to see; here it only ends the thread.
            let _ = thread.join();
        }
    }
}

/// A panic elsewhere leaves the dataplane's view at worst stale, which the next sync corrects.
fn lock(dataplane: &Mutex<Dataplane>) -> std::sync::MutexGuard<'_, Dataplane> {
    dataplane.lock().unwrap_or_else(PoisonError::into_inner)
}
