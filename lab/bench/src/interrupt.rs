//! Ctrl-C and SIGTERM: everything that was started is stopped, and the program ends in order.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};
use nix::sys::signal::{SigSet, Signal};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Turns SIGINT and SIGTERM into a flag. Called before any other thread is made, because it blocks the signals
/// for all threads to come.
///
/// # Errors
/// The kernel refuses.
pub fn install() -> anyhow::Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block().context("cannot block signals")?;
    std::thread::Builder::new()
        .name("signals".into())
        .spawn(move || {
            while signals.wait().is_ok() {
                INTERRUPTED.store(true, Ordering::Relaxed);
            }
        })
        .context("cannot start a thread")?;
    Ok(())
}

/// Fails once the user has had enough.
///
/// # Errors
/// A signal came.
pub fn check() -> anyhow::Result<()> {
    if INTERRUPTED.load(Ordering::Relaxed) {
        bail!("interrupted");
    }
    Ok(())
}
