//! Ctrl-C and SIGTERM: a flag that every wait of a run looks at.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;

/// Whether somebody asked the run to end.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Watches for the signals on a runtime.
    ///
    /// # Errors
    /// The signals cannot be watched.
    pub fn watch(runtime: &tokio::runtime::Handle) -> anyhow::Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let interrupt = Self::default();
        let flag = interrupt.clone();
        let _guard = runtime.enter();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hangup = signal(SignalKind::hangup())?;
        runtime.spawn(async move {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
            flag.0.store(true, Ordering::Relaxed);
        });
        Ok(interrupt)
    }

    /// Fails once the run was asked to end.
    ///
    /// # Errors
    /// It was.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Lets time pass: the length of a measurement, not a wait for something to happen.
    ///
    /// # Errors
    /// The run was asked to end meanwhile.
    pub fn pass(&self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        loop {
            self.check()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
