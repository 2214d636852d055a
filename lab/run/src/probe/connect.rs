//! New TCP connections at a steady rate: whether a flow can be *begun* during a fault.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::namespace::Namespace;

/// A connection that takes longer needed a SYN twice: the first was lost.
const PATIENCE: Duration = Duration::from_millis(900);

/// Running connection attempts from one place to another.
pub struct Connections {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<anyhow::Result<ConnectionCount>>,
}

/// What became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ConnectionCount {
    /// Connections begun.
    pub begun: u64,
    /// Connections that were not accepted and answered at once.
    pub failed: u64,
    /// Why the first one failed.
    pub first_failure: Option<String>,
}

impl Connections {
    /// Begins `rate` connections a second, spread over the targets in turn.
    ///
    /// # Errors
    /// The namespace cannot be entered.
    pub fn start(from: &Namespace, targets: Vec<SocketAddr>, rate: u32) -> anyhow::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = from.spawn("connector", move || {
            Ok(connect_all(&targets, rate, &stopped))
        })?;
        Ok(Self { stop, thread })
    }

    /// Ends and counts.
    ///
    /// # Errors
    /// The namespace could not be entered.
    pub fn finish(self) -> anyhow::Result<ConnectionCount> {
        self.stop.store(true, Ordering::Relaxed);
        match self.thread.join() {
            Ok(count) => count,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn connect_all(targets: &[SocketAddr], rate: u32, stop: &AtomicBool) -> ConnectionCount {
    let start = Instant::now();
    let interval = Duration::from_secs(1) / rate;
    let mut count = ConnectionCount::default();
    for (number, target) in targets.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let due = start + interval * number as u32;
        if let Some(wait) = due.checked_duration_since(Instant::now()) {
            std::thread::sleep(wait);
        }
        count.begun += 1;
        if let Err(error) = connect(*target) {
            count.failed += 1;
            count.first_failure.get_or_insert_with(|| {
                format!(
                    "{target} after {:.1} s: {error}",
                    start.elapsed().as_secs_f64()
                )
            });
        }
    }
    count
}

fn connect(target: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect_timeout(&target, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    if answer.is_empty() {
        Err(std::io::ErrorKind::UnexpectedEof.into())
    } else {
        Ok(())
    }
}
