//! Messages as they pass, for those who record them.
//!
//! Owns the ways from sessions to readers. Does not own what is recorded where. A session never
//! waits: what a reader leaves waiting has a bound, beyond which messages are counted and left out.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::fsm::State;
use caracal_bgp_core::mrt::{MessageForm, Record, Session};
use tokio::sync::mpsc;

/// Records that may wait for a reader.
const DEPTH: usize = 8192;
/// Octets that may wait for a reader.
const OCTETS: usize = 16 * 1024 * 1024;

/// All readers; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Readers>);

#[derive(Debug, Default)]
struct Readers {
    /// Whether there is any: all that a session looks at where nobody records.
    any: AtomicBool,
    /// Records that were left out, over all readers since the start.
    dropped: AtomicU64,
    all: Mutex<Vec<Reader>>,
}

#[derive(Debug)]
struct Reader {
    records: mpsc::Sender<Bytes>,
    backlog: Arc<Backlog>,
}

#[derive(Debug, Default)]
struct Backlog {
    octets: AtomicUsize,
    lost: AtomicUsize,
}

/// What is recorded of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageFacts {
    pub(crate) session: Session,
    pub(crate) form: MessageForm,
}

/// What waits for readers, and what was left out as they were too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Records {
    pub(crate) waiting: usize,
    pub(crate) dropped: u64,
}

impl Trace {
    /// Whether anybody records.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.any.load(Ordering::Relaxed)
    }

    /// A message has passed, header included.
    pub(crate) fn message(&self, facts: MessageFacts, message: Bytes) {
        self.record(&Record::Message {
            time: since_epoch(),
            session: facts.session,
            form: facts.form,
            message,
        });
    }

    /// A session has changed its state.
    pub(crate) fn state(&self, session: Session, from: State, to: State) {
        self.record(&Record::StateChange {
            time: since_epoch(),
            session,
            from,
            to,
        });
    }

    fn record(&self, record: &Record) {
        let mut octets = BytesMut::new();
        if let Err(error) = record.encode(&mut octets) {
            return tracing::error!(%error, "cannot record a message");
        }
        let octets = octets.freeze();
        let mut readers = lock(&self.0.all);
        readers.retain(|reader| reader.take(&octets, &self.0.dropped));
        self.0.any.store(!readers.is_empty(), Ordering::Relaxed);
    }

    /// How records fare.
    pub(crate) fn backlog(&self) -> Records {
        let readers = lock(&self.0.all);
        let waiting = |reader: &Reader| reader.records.max_capacity() - reader.records.capacity();
        Records {
            waiting: readers.iter().map(waiting).sum(),
            dropped: self.0.dropped.load(Ordering::Relaxed),
        }
    }

    /// Begins to record for one reader more.
    pub(crate) fn read(&self) -> TraceReader {
        let (records, incoming) = mpsc::channel(DEPTH);
        let backlog = Arc::new(Backlog::default());
        let reader = Reader {
            records,
            backlog: Arc::clone(&backlog),
        };
        let mut readers = lock(&self.0.all);
        readers.push(reader);
        self.0.any.store(true, Ordering::Relaxed);
        TraceReader {
            records: incoming,
            backlog,
        }
    }
}

impl Reader {
    /// Hands a record over; false when nobody reads any more.
    fn take(&self, record: &Bytes, dropped: &AtomicU64) -> bool {
        let waiting = self.backlog.octets.load(Ordering::Relaxed);
        let permit = match self.records.try_reserve() {
            Err(mpsc::error::TrySendError::Closed(())) => return false,
            Ok(permit) if waiting + record.len() <= OCTETS => permit,
            Ok(_) | Err(mpsc::error::TrySendError::Full(())) => {
                self.backlog.lost.fetch_add(1, Ordering::Relaxed);
                dropped.fetch_add(1, Ordering::Relaxed);
                return true;
            }
        };
        let octets = &self.backlog.octets;
        octets.fetch_add(record.len(), Ordering::Relaxed);
        permit.send(record.clone());
        true
    }
}

/// Reads what passes from the moment on in which it was made.
#[derive(Debug)]
pub(crate) struct TraceReader {
    records: mpsc::Receiver<Bytes>,
    backlog: Arc<Backlog>,
}

impl TraceReader {
    /// The next record. `None` never comes while there is a speaker.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let record = self.records.recv().await?;
        let octets = &self.backlog.octets;
        octets.fetch_sub(record.len(), Ordering::Relaxed);
        Some(record)
    }

    /// How many were left out since the last call.
    pub(crate) fn lost(&mut self) -> usize {
        self.backlog.lost.swap(0, Ordering::Relaxed)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A list of channels is whole whatever a task that died was doing with it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The time since the beginning of 1970; zero on a clock that stands before it.
pub(super) fn since_epoch() -> Duration {
    let now = SystemTime::now();
    now.duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use caracal_bgp_core::types::Asn;

    use super::*;

    const SESSION: Session = Session {
        peer_asn: Asn(65_001),
        local_asn: Asn(65_000),
        interface: 0,
        peer: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
        local: std::net::IpAddr::V4(Ipv4Addr::LOCALHOST),
    };

    fn pass(trace: &Trace, length: usize) {
        let facts = MessageFacts {
            session: SESSION,
            form: MessageForm::default(),
        };
        trace.message(facts, vec![0; length].into());
    }

    #[tokio::test]
    async fn what_a_reader_does_not_take_is_bounded_and_counted() {
        let trace = Trace::default();
        assert!(!trace.is_wanted());
        let mut slow = trace.read();
        let mut quick = trace.read();
        assert!(trace.is_wanted());
        const LONG: usize = 60_000;
        let mut taken = 0;
        for _ in 0..1000 {
            pass(&trace, LONG);
            taken += quick.next().await.map_or(0, |record| record.len());
        }
        assert!(taken > 1000 * LONG);
        assert_eq!(quick.lost(), 0);
        let lost = slow.lost();
        assert!(lost > 1000 - OCTETS / LONG - 1, "{lost}");
        let records = trace.backlog();
        assert_eq!(records.dropped, lost as u64);
        assert_eq!(records.waiting, 1000 - lost);
        // What it takes makes room for more.
        for _ in 0..1000 - lost {
            slow.next().await.unwrap();
        }
        pass(&trace, 10);
        slow.next().await.unwrap();
        assert_eq!(slow.lost(), 0);
    }

    #[test]
    fn nothing_is_recorded_once_the_last_reader_has_gone() {
        let trace = Trace::default();
        drop(trace.read());
        pass(&trace, 10);
        assert!(!trace.is_wanted());
    }
}
