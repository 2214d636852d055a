//! The seam between the speaker and whatever forwards packets.
//!
//! Owns the trait [`Fib`], the plain data that crosses it, and the counts of what a FIB does. Does not
//! own the kernel.
//!
//! ```text
//! RIB thread --FibChange--> pending, latest per prefix --> FIB thread --Fib::apply--> kernel
//!     ^                                                                                  |
//!     +------------------------- FibEvent (bounded channel) <---------------------------+
//! ```

mod work;

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;

pub use caracal_bgp_core::rib::Reachability;
use caracal_bgp_core::types::Prefix;
use tokio::sync::{mpsc, oneshot};

pub use work::{Drift, FibWork, WriteOutcome};

use crate::snapshot::KernelSnapshot;

/// How many events a FIB may have under way before it waits for the speaker. One batch of
/// acknowledgements fits; a FIB that waits delays only itself.
pub const FIB_EVENT_DEPTH: usize = 4096;

/// Writes routes to where packets are forwarded.
///
/// Called from one thread of its own: it may block for as long as the kernel takes. While it does,
/// the speaker keeps only the latest change per prefix.
pub trait Fib: Send {
    /// Brings the routes named in `changes` to the state that they ask for, with replace
    /// semantics. Every change is answered in time by [`FibEvent::Installed`] or
    /// [`FibEvent::Failed`] with its `seq`, withdrawals included; a newer change of the same
    /// prefix answers for the older ones too.
    fn apply(&mut self, changes: Vec<FibChange>);

    /// Packets that go these ways are lost, and no route needs them but those of which changes follow
    /// soon: leave them out of whatever has other ways. A later change that names one of them means
    /// that it can be used again.
    fn lose(&mut self, next_hops: Vec<FibNextHop>);

    /// Say with [`FibEvent::Reached`] where these next hops lead: at once, unless it is
    /// [`Reachability::Direct`], and whenever that changes; of those with `false` no longer. One that says
    /// nothing has all of them lead somewhere.
    fn track(&mut self, next_hops: Vec<(FibNextHop, bool)>) {
        let _ = next_hops;
    }

    /// The first complete table has been handed over: routes of ours that no change has named
    /// since start are left over from an earlier life and go. Called once, after the last
    /// [`Fib::apply`] of the first table.
    fn initial_sync_complete(&mut self);

    /// Where it counts what it does; asked once, before the first [`Fib::apply`].
    fn work(&self) -> Arc<FibWork>;

    /// Where others look at what it holds; asked once, before the first [`Fib::apply`]. One that holds
    /// nothing to look at has none.
    fn window(&self) -> Option<Arc<dyn FibWindow>> {
        None
    }
}

/// Shows what a FIB holds, beside its changes.
pub trait FibWindow: Send + Sync {
    /// Has `answer` be told what lies at `prefix`, when there is time. Does not block.
    fn look(&self, prefix: Prefix, answer: oneshot::Sender<KernelSnapshot>);
}

/// The FIB of a speaker that forwards.
pub struct Forwarding {
    /// Takes the routes.
    pub fib: Box<dyn Fib>,
    /// Its answers, and what it sees of links.
    pub events: mpsc::Receiver<FibEvent>,
}

/// The desired state of one prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibChange {
    /// Which route.
    pub prefix: Prefix,
    /// How to forward; `None` removes the route.
    pub route: Option<FibRoute>,
    /// Grows with every change; names it in the answer.
    pub seq: u64,
}

/// How packets for a prefix are forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FibRoute {
    /// Next hops of equal cost, ascending, without duplicates; none for a route whose packets are
    /// dropped.
    pub next_hops: Arc<[FibNextHop]>,
}

/// One next hop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FibNextHop {
    /// The address that the peer named; link-local only when it named nothing else.
    pub address: IpAddr,
    /// The link-local companion, where the peer named one (RFC 2545 §3).
    pub link_local: Option<Ipv6Addr>,
    /// Index of the interface over which the session with the peer runs, where it is known.
    /// Needed to use a link-local address; for others the FIB looks the way up itself.
    pub interface: Option<u32>,
}

/// What a FIB reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibEvent {
    /// The kernel acknowledged the change; for a removal, the route is gone.
    Installed {
        /// Which route.
        prefix: Prefix,
        /// [`FibChange::seq`] of the change.
        seq: u64,
        /// Whether nothing was said of the change before: it has not failed in between.
        first: bool,
    },
    /// The kernel refused. The speaker tells nobody about the route.
    Failed {
        /// Which route.
        prefix: Prefix,
        /// [`FibChange::seq`] of the change.
        seq: u64,
        /// The reason, for people.
        why: String,
    },
    /// A next hop that is tracked leads elsewhere than was said before.
    Reached {
        /// Which.
        next_hop: FibNextHop,
        /// Where it leads now.
        reachability: Reachability,
    },
    /// An interface lost its carrier or went away: sessions on it end at once.
    LinkDown {
        /// Interface index.
        ifindex: u32,
        /// Interface name.
        name: String,
    },
    /// An interface is usable again: peers on it are dialled at once.
    LinkUp {
        /// Interface index.
        ifindex: u32,
        /// Interface name.
        name: String,
    },
    /// The FIB compared everything with the kernel and repaired what differed.
    Resynced,
}
