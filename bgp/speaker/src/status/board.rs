//! The latest status of every peer.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use caracal_bgp_core::fsm::Negotiated;
use tokio::sync::watch;

use crate::config::PeerName;
use crate::net::Interface;
use crate::snapshot::{BfdSnapshot, ErrorSnapshot, SessionState};
use crate::status::counters::{Counters, Direction};
use crate::status::history::{EventNote, History, HistorySnapshot, MessageNote};
use crate::status::why::{DownReason, Why};

/// Every peer; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Board {
    peers: Arc<Mutex<BTreeMap<PeerName, Arc<PeerBoard>>>>,
    changes: Arc<watch::Sender<u64>>,
}

/// Whether a reason is another one than before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    News,
    Before,
}

/// One peer.
#[derive(Debug)]
pub(crate) struct PeerBoard {
    status: Mutex<Status>,
    history: Mutex<History>,
    pub(crate) counters: Counters,
    changes: Arc<watch::Sender<u64>>,
}

/// The status of one peer.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    pub(crate) state: SessionState,
    pub(crate) since_ms: u64,
    /// Why there is no session; nothing while there is one, or before anything has happened.
    pub(crate) why: Option<Why>,
    /// Since when that is so; of attempts, when the last one failed.
    pub(crate) why_ms: u64,
    /// Attempts that have failed since there was a session, or since the peer was left alone.
    pub(crate) attempts: u32,
    pub(crate) last_sent_error: Option<ErrorSnapshot>,
    pub(crate) last_received_error: Option<ErrorSnapshot>,
    pub(crate) established_count: u64,
    /// Where the peer is, as far as is known.
    pub(crate) remote: Option<SocketAddr>,
    pub(crate) local_address: Option<IpAddr>,
    /// The interface of the present session, or of the last one.
    pub(crate) interface: Option<Interface>,
    pub(crate) negotiated: Option<Negotiated>,
    pub(crate) bfd: Option<BfdSnapshot>,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            state: SessionState::Idle,
            since_ms: now_ms(),
            why: None,
            why_ms: 0,
            attempts: 0,
            last_sent_error: None,
            last_received_error: None,
            established_count: 0,
            remote: None,
            local_address: None,
            interface: None,
            negotiated: None,
            bfd: None,
        }
    }
}

impl Board {
    pub(crate) fn new(changes: Arc<watch::Sender<u64>>) -> Self {
        Self {
            peers: Arc::default(),
            changes,
        }
    }

    /// The board of `peer`, a blank one if there is none.
    pub(crate) fn open(&self, peer: &PeerName) -> Arc<PeerBoard> {
        let mut peers = lock(&self.peers);
        let board = peers.entry(peer.clone()).or_insert_with(|| {
            Arc::new(PeerBoard {
                status: Mutex::default(),
                history: Mutex::default(),
                counters: Counters::default(),
                changes: Arc::clone(&self.changes),
            })
        });
        Arc::clone(board)
    }

    /// The board of `peer`, if it has one.
    pub(crate) fn get(&self, peer: &PeerName) -> Option<Arc<PeerBoard>> {
        lock(&self.peers).get(peer).cloned()
    }

    /// Forgets `peer`.
    pub(crate) fn remove(&self, peer: &PeerName) {
        lock(&self.peers).remove(peer);
        self.tell_watchers();
    }

    /// Has watchers look again.
    pub(crate) fn tell_watchers(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }

    /// The status of `peer`.
    pub(crate) fn status(&self, peer: &PeerName) -> Status {
        self.get(peer)
            .map(|board| board.status())
            .unwrap_or_default()
    }
}

impl Status {
    /// A session has ended because of `why`.
    pub(crate) fn ended(&mut self, why: Why) {
        self.say(why, 0);
    }

    fn stays_down(&mut self, why: Why) -> Said {
        if self.attempts == 0 && self.why.as_ref() == Some(&why) {
            return Said::Before;
        }
        self.say(why, 0);
        Said::News
    }

    fn attempt_failed(&mut self, why: Why) -> Said {
        self.say(why, self.attempts.saturating_add(1))
    }

    /// The attempt under way waits, because of `why`.
    fn waits(&mut self, why: Why) -> Said {
        self.say(why, self.attempts)
    }

    /// The attempt under way does not wait any more.
    pub(crate) fn goes_on(&mut self) {
        let waited = |why: &Why| why.reason == DownReason::AwaitsPath;
        self.why = self.why.take().filter(|why| !waited(why));
    }

    fn say(&mut self, why: Why, attempts: u32) -> Said {
        let news = self.why.as_ref() != Some(&why);
        (self.why, self.why_ms, self.attempts) = (Some(why), now_ms(), attempts);
        if news { Said::News } else { Said::Before }
    }

    /// No reason is known for there being no session.
    pub(crate) fn forget_why(&mut self) {
        (self.why, self.attempts) = (None, 0);
    }
}

impl PeerBoard {
    /// Changes the status and tells watchers.
    pub(crate) fn update(&self, change: impl FnOnce(&mut Status)) {
        change(&mut lock(&self.status));
        self.tell_watchers();
    }

    /// There is no session and nothing is tried, because of `why`.
    pub(crate) fn stays_down(&self, why: Why) {
        let said = lock(&self.status).stays_down(why);
        if said == Said::News {
            self.tell_watchers();
        }
    }

    /// An attempt at a session has failed. Watchers need not hear of one that failed like the last.
    pub(crate) fn attempt_failed(&self, why: Why) -> Said {
        let said = lock(&self.status).attempt_failed(why);
        if said == Said::News {
            self.tell_watchers();
        }
        said
    }

    /// The attempt under way waits, because of `why`.
    pub(crate) fn waits(&self, why: Why) -> Said {
        let said = lock(&self.status).waits(why);
        self.tell_watchers();
        said
    }

    /// Whether anything is shown of what BFD says.
    pub(crate) fn knows_path(&self) -> bool {
        lock(&self.status).bfd.is_some()
    }

    /// Nothing is known of the path.
    pub(crate) fn forget_path(&self) {
        let known = lock(&self.status).bfd.take();
        if known.is_some() {
            self.tell_watchers();
        }
    }

    fn tell_watchers(&self) {
        self.changes.send_modify(|revision| *revision += 1);
    }

    pub(crate) fn status(&self) -> Status {
        lock(&self.status).clone()
    }

    /// Notes what happened.
    pub(crate) fn event(&self, note: EventNote) {
        lock(&self.history).event(now_ms(), note);
    }

    /// Notes a message that passed.
    pub(crate) fn message(&self, direction: Direction, octets: usize, note: MessageNote) {
        lock(&self.history).message(now_ms(), direction, octets, note);
    }

    pub(crate) fn history(&self) -> HistorySnapshot {
        lock(&self.history).snapshot()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // All of it is plain data: what a task that died left is still worth showing.
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Milliseconds since the Unix epoch; zero on a clock that stands before it.
pub(crate) fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|elapsed| u64::try_from(elapsed.as_millis()).ok())
        .unwrap_or(0)
}
