//! Who is on the links of unnumbered peers.
//!
//! Owns one raw socket per interface, and the tasks around the machine of
//! [`caracal_bgp_core::ra`]. Does not own sessions: it reports what it finds, per interface, and
//! only the newest of it.
//!
//! ```text
//!  names --> supervisor --Ground--> task of a link --LinkReport--> board --> Discovery::next
//!  Interfaces ---^                    |      ^
//!                                 raw ICMPv6 socket
//! ```

mod link;
mod socket;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::Ipv6Addr;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caracal_bgp_core::ra::LinkLayer;
use tokio::sync::{Notify, watch};
use tokio::task::{AbortHandle, JoinSet};

use super::interfaces::{InterfaceTable, Interfaces};

/// The pause between two messages, whatever their interfaces: hundreds of links that come up at
/// once must not send hundreds of packets at once.
const PACE: Duration = Duration::from_millis(1);

/// How long to wait after a change of interfaces before looking at it: changes come in bursts, and
/// each look costs as much as there are interfaces.
const SETTLE: Duration = Duration::from_millis(50);

/// What is known of the link of an unnumbered peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkReport {
    /// The interface, by the name it was asked for.
    pub interface: String,
    /// Its index, while there is such an interface.
    pub ifindex: Option<u32>,
    /// What is found there.
    pub state: LinkState,
    /// What keeps the peer from finding us, although the link is up.
    pub trouble: Option<String>,
}

/// What is found on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// There is no interface of the name.
    Absent,
    /// The interface cannot be used, and why.
    Down(&'static str),
    /// No socket could be had, and why; it is tried again.
    Failed(String),
    /// Nobody has advertised itself, or not for 35 s. No reason to end a session that lives:
    /// advertisements may get lost where its segments do not.
    Silent,
    /// The one router on the link.
    Neighbor {
        /// Its link-local address.
        address: Ipv6Addr,
        /// When it was heard last, at the time of the report.
        heard: Instant,
    },
    /// More than one router: who the peer is cannot be told. A session that lives stays; none is to
    /// be begun.
    Several(Vec<Ipv6Addr>),
}

impl fmt::Display for LinkState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("there is no such interface"),
            Self::Down(why) => f.write_str(why),
            Self::Failed(why) => write!(f, "cannot send or hear router advertisements: {why}"),
            Self::Silent => f.write_str("no router has been heard on the link"),
            Self::Neighbor { address, .. } => write!(f, "{address} is the router on the link"),
            Self::Several(addresses) => {
                f.write_str("several routers are on the link:")?;
                addresses
                    .iter()
                    .try_for_each(|address| write!(f, " {address}"))
            }
        }
    }
}

/// Finds the peers of interfaces. Ends, and with it all advertising, when dropped.
#[derive(Debug)]
pub struct Discovery {
    board: Arc<Board>,
    wanted: watch::Sender<BTreeSet<String>>,
    supervisor: AbortHandle,
}

impl Discovery {
    /// Begins on no interface, within the current tokio runtime. `seed` spreads timers between
    /// hosts.
    pub fn start(interfaces: Interfaces, seed: u64) -> Self {
        let (wanted, wishes) = watch::channel(BTreeSet::new());
        let board = Arc::new(Board::default());
        let supervisor = Supervisor {
            interfaces,
            board: Arc::clone(&board),
            pacer: Arc::new(Pacer::default()),
            seed,
            links: BTreeMap::new(),
            tasks: JoinSet::new(),
        };
        Self {
            board,
            wanted,
            supervisor: tokio::spawn(supervisor.run(wishes)).abort_handle(),
        }
    }

    /// The names of all interfaces with an unnumbered peer; replaces what was said before. Those
    /// that stay are not disturbed.
    pub fn set(&self, names: BTreeSet<String>) {
        self.wanted.send_if_modified(|wanted| {
            let differs = *wanted != names;
            *wanted = names;
            differs
        });
    }

    /// Waits until something has changed, and gives the newest report of each interface of which
    /// something has. Of an interface that is no longer wanted nothing is reported. Can be
    /// cancelled without loss.
    pub async fn next(&mut self) -> Vec<LinkReport> {
        loop {
            let changed = self.board.changed.notified();
            let news = self.board.take_news();
            if !news.is_empty() {
                return news;
            }
            changed.await;
        }
    }

    /// What is known of all interfaces now, with the times at which neighbours were heard last.
    pub fn reports(&self) -> Vec<LinkReport> {
        self.board.lock().reports.values().cloned().collect()
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        // The tasks of the links belong to it and end with it.
        self.supervisor.abort();
    }
}

/// The newest report of each interface.
#[derive(Debug, Default)]
struct Board {
    state: Mutex<BoardState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct BoardState {
    /// Interfaces of which anything is reported.
    wanted: BTreeSet<String>,
    reports: BTreeMap<String, LinkReport>,
    /// Interfaces of which [`Discovery::next`] has not told the newest.
    news: BTreeSet<String>,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces what is known of an interface, and tells it where more than a time differs.
    fn report(&self, report: LinkReport) {
        let mut state = self.lock();
        let name = report.interface.clone();
        // The last words of a task that has just been ended.
        if !state.wanted.contains(&name) {
            return;
        }
        let former = state.reports.insert(name.clone(), report.clone());
        if former.is_none_or(|former| former.differs(&report)) {
            tracing::info!(interface = %name, state = %report.state, "unnumbered link");
            state.news.insert(name);
            drop(state);
            self.changed.notify_one();
        }
    }

    fn want(&self, wanted: &BTreeSet<String>) {
        let mut state = self.lock();
        state.reports.retain(|name, _| wanted.contains(name));
        state.news.retain(|name| wanted.contains(name));
        state.wanted.clone_from(wanted);
    }

    fn take_news(&self) -> Vec<LinkReport> {
        let mut state = self.lock();
        let names = std::mem::take(&mut state.news);
        let reports = names.iter().filter_map(|name| state.reports.get(name));
        reports.cloned().collect()
    }
}

impl LinkReport {
    fn differs(&self, other: &Self) -> bool {
        let timeless = |report: &Self| match report.state {
            LinkState::Neighbor { address, .. } => Err(address),
            ref state => Ok(state.clone()),
        };
        (self.ifindex, &self.trouble) != (other.ifindex, &other.trouble)
            || timeless(self) != timeless(other)
    }
}

/// What a link's task stands on.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Ground {
    Absent,
    Down {
        ifindex: u32,
        why: &'static str,
    },
    Ready {
        ifindex: NonZeroU32,
        /// How often the carrier has come and gone.
        carrier_changes: u32,
        address: Ipv6Addr,
        link_layer: Option<LinkLayer>,
    },
}

impl Ground {
    /// `former` is the address that was used so far; it stays while it can.
    fn of(name: &str, table: &InterfaceTable, former: Option<Ipv6Addr>) -> Self {
        let Some(link) = table.by_name(name) else {
            return Self::Absent;
        };
        let down = |why| Self::Down {
            ifindex: link.index(),
            why,
        };
        if !link.is_up() {
            return down("the interface is set down");
        }
        if !link.is_running() {
            return down("the interface has no carrier");
        }
        let former = former.filter(|address| link.has_link_local(*address));
        let address = former.or_else(|| link.link_local());
        match (NonZeroU32::new(link.index()), address) {
            (Some(ifindex), Some(address)) => Self::Ready {
                ifindex,
                carrier_changes: link.carrier_changes(),
                address,
                link_layer: link.link_layer(),
            },
            (_, None) => down(link.no_link_local()),
            // The kernel numbers from 1.
            (None, _) => Self::Absent,
        }
    }

    fn address(&self) -> Option<Ipv6Addr> {
        match self {
            Self::Ready { address, .. } => Some(*address),
            Self::Absent | Self::Down { .. } => None,
        }
    }
}

/// Spreads what all links send.
#[derive(Debug, Default)]
struct Pacer(Mutex<Option<Instant>>);

impl Pacer {
    /// When the next message may leave.
    fn slot(&self, now: Instant) -> Instant {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = next.map_or(now, |next| next.max(now));
        *next = Some(slot + PACE);
        slot
    }
}

/// Starts and ends the tasks of links, and tells them what becomes of their interfaces.
struct Supervisor {
    interfaces: Interfaces,
    board: Arc<Board>,
    pacer: Arc<Pacer>,
    seed: u64,
    links: BTreeMap<String, (watch::Sender<Ground>, AbortHandle)>,
    /// Owns the tasks, so that they end with it.
    tasks: JoinSet<()>,
}

impl Supervisor {
    async fn run(mut self, mut wishes: watch::Receiver<BTreeSet<String>>) {
        let mut changes = self.interfaces.changes();
        loop {
            let wanted = wishes.borrow_and_update().clone();
            changes.mark_unchanged();
            self.follow(&wanted);
            tokio::select! {
                wish = wishes.changed() => {
                    // Nobody can ask for reports any more.
                    if wish.is_err() {
                        return;
                    }
                }
                Ok(()) = changes.changed() => tokio::time::sleep(SETTLE).await,
                Some(_) = self.tasks.join_next() => {}
            }
        }
    }

    fn follow(&mut self, wanted: &BTreeSet<String>) {
        let table = self.interfaces.current();
        self.board.want(wanted);
        self.links.retain(|name, (_, task)| {
            let stays = wanted.contains(name) && !task.is_finished();
            if !stays {
                task.abort();
            }
            stays
        });
        for name in wanted {
            let known = self.links.get(name);
            let former = known.and_then(|(told, _)| told.borrow().address());
            let ground = Ground::of(name, &table, former);
            if let Some((told, _)) = known {
                told.send_if_modified(|told| {
                    let differs = *told != ground;
                    *told = ground;
                    differs
                });
                continue;
            }
            let (told, hears) = watch::channel(ground);
            let link = link::LinkTask {
                name: name.clone(),
                ground: hears,
                board: Arc::clone(&self.board),
                pacer: Arc::clone(&self.pacer),
                seed: self.seed ^ name_hash(name),
            };
            let task = self.tasks.spawn(link.run());
            self.links.insert(name.clone(), (told, task));
        }
    }
}

/// Another number for each name, the same on each start (FNV-1a).
fn name_hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(octet)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests;
