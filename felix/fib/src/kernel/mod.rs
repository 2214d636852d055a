//! The speaker's routes in the kernel.
//!
//! Owns the kernel's side of [`caracal_bgp_speaker::Fib`]: a thread that keeps the routes and
//! next-hop objects marked [`crate::PROTOCOL_BGP`] as they should be, whoever disturbs them. Does
//! not own routes to pods ([`crate::pod`]), nor any choice between routes.
//!
//! ```text
//!  speaker's FIB thread --apply--> Mailbox (latest per prefix) --wake--> worker --netlink--> kernel
//!  agent -----------FibControl------^                                     |  ^                 |
//!  speaker's RIB <---------------FibEvent (bounded)-----------------------+  +--notifications--+
//! ```
//!
//! Nothing is deleted before the first table is complete; what an earlier life left in the kernel is
//! read back, and only the difference is written. Dropping [`KernelFib`] leaves everything in place.

mod drift;
mod mailbox;
mod observe;
mod plan;
mod reach;
mod resolve;
mod tracked;
mod worker;
mod write;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::fib::FIB_EVENT_DEPTH;
use caracal_bgp_speaker::snapshot::KernelSnapshot;
use caracal_bgp_speaker::{Fib, FibChange, FibEvent, FibNextHop, FibWindow, FibWork};
use tokio::sync::{mpsc, oneshot};

use self::mailbox::Mailbox;
use self::resolve::Way;
use self::worker::{Outlets, Worker};
use crate::error::{Error, Result};
use crate::netns::Netns;

/// How often everything is compared with the kernel when no notification asks for it.
pub const RESYNC_INTERVAL: Duration = Duration::from_secs(60);

/// What [`KernelFib`] starts with.
#[derive(Clone, Debug)]
pub struct FibOptions {
    /// Prefixes whose packets are dropped unless a longer route exists: this node's own blocks.
    pub blackholes: BTreeSet<Prefix>,
    /// The address from which this node itself speaks over the speaker's routes.
    pub preferred_source: PreferredSource,
    /// How often everything is compared without a cause; [`RESYNC_INTERVAL`] where nothing speaks
    /// against it.
    pub resync_interval: Duration,
}

impl Default for FibOptions {
    fn default() -> Self {
        Self {
            blackholes: BTreeSet::new(),
            preferred_source: PreferredSource::default(),
            resync_interval: RESYNC_INTERVAL,
        }
    }
}

/// A source address per family. One that is not assigned to a link is left out until it is: the
/// kernel would refuse the routes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PreferredSource {
    /// For IPv4 routes.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6 routes.
    pub v6: Option<Ipv6Addr>,
}

impl PreferredSource {
    fn for_prefix(&self, prefix: &Prefix) -> Option<IpAddr> {
        match prefix.addr() {
            IpAddr::V4(_) => self.v4.map(IpAddr::V4),
            IpAddr::V6(_) => self.v6.map(IpAddr::V6),
        }
    }
}

/// The kernel as the speaker's FIB.
#[derive(Debug)]
pub struct KernelFib {
    mailbox: Arc<Mailbox>,
    work: Arc<FibWork>,
    worker: Option<JoinHandle<()>>,
}

/// What the agent tells the kernel's routes besides the speaker. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FibControl {
    mailbox: Arc<Mailbox>,
    inherited: usize,
}

impl KernelFib {
    /// Reads back what the kernel holds in `netns` and starts the worker.
    ///
    /// The events must be received until the end: the worker waits for room.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Namespace`], [`Error::Refused`] when the kernel cannot be read.
    pub fn start(
        netns: &Netns,
        options: FibOptions,
    ) -> Result<(Self, FibControl, mpsc::Receiver<FibEvent>)> {
        let (mailbox, wake) = Mailbox::new()?;
        let mailbox = Arc::new(mailbox);
        let (events, receiver) = mpsc::channel(FIB_EVENT_DEPTH);
        let work = Arc::new(FibWork::default());
        let outlets = Outlets {
            events,
            work: work.clone(),
        };
        let worker = Worker::open(netns, options, mailbox.clone(), wake, outlets)?;
        let inherited = worker.inherited();
        let worker = thread::Builder::new()
            .name("kernel-fib".into())
            .spawn(move || worker.run())
            .map_err(|source| Error::Thread {
                name: "kernel-fib",
                source,
            })?;
        let control = FibControl {
            mailbox: mailbox.clone(),
            inherited,
        };
        let fib = Self {
            mailbox,
            work,
            worker: Some(worker),
        };
        Ok((fib, control, receiver))
    }

    /// Ends the worker and waits for it. The routes stay. Events must still be received, or their
    /// receiver dropped, until this returns.
    pub fn stop(mut self) {
        self.mailbox.close();
        if let Some(worker) = self.worker.take()
            && worker.join().is_err()
        {
            tracing::error!("the kernel-fib thread panicked");
        }
    }
}

impl Drop for KernelFib {
    /// Ends the worker without waiting: it may be waiting for a speaker that has ended.
    fn drop(&mut self) {
        self.mailbox.close();
    }
}

impl Fib for KernelFib {
    fn apply(&mut self, changes: Vec<FibChange>) {
        self.mailbox.post(|mail| {
            for change in changes {
                if let Some(route) = change.route.as_ref().filter(|_| !mail.lost.is_empty()) {
                    for next_hop in route.next_hops.iter() {
                        mail.lost.remove(&Way::of(next_hop));
                    }
                }
                mail.changes.insert(change.prefix, change);
            }
        });
    }

    fn lose(&mut self, next_hops: Vec<FibNextHop>) {
        self.mailbox
            .post(|mail| mail.lost.extend(next_hops.iter().map(Way::of)));
    }

    fn track(&mut self, next_hops: Vec<(FibNextHop, bool)>) {
        self.mailbox.post(|mail| mail.tracked.extend(next_hops));
    }

    fn initial_sync_complete(&mut self) {
        self.mailbox.post(|mail| mail.initial_sync_complete = true);
    }

    fn work(&self) -> Arc<FibWork> {
        self.work.clone()
    }

    fn window(&self) -> Option<Arc<dyn FibWindow>> {
        Some(Arc::new(Window(self.mailbox.clone())))
    }
}

/// The way to the worker for those who only look.
#[derive(Debug)]
struct Window(Arc<Mailbox>);

impl FibWindow for Window {
    fn look(&self, prefix: Prefix, answer: oneshot::Sender<KernelSnapshot>) {
        self.0.post(|mail| mail.looks.push((prefix, answer)));
    }
}

impl FibControl {
    /// How many routes an earlier life had left in the kernel at the start. With any, packets were
    /// forwarded all the while: the speaker may say so to its peers (RFC 4724 §3, Forwarding State).
    /// A blackhole is as good a witness as a route to a peer: it stands behind a block of this node,
    /// whose routes to pods stay in the kernel just as it does, and a node that learns nothing from
    /// its peers has no other.
    #[must_use]
    pub fn inherited(&self) -> usize {
        self.inherited
    }

    /// Replaces the set of blackhole routes: this node's own blocks, so that packets for unused
    /// addresses do not follow the default route out and come back.
    pub fn set_blackholes(&self, blackholes: BTreeSet<Prefix>) {
        self.mailbox.post(|mail| mail.blackholes = Some(blackholes));
    }

    /// Changes the source address that the node itself uses over the speaker's routes.
    pub fn set_preferred_source(&self, source: PreferredSource) {
        self.mailbox
            .post(|mail| mail.preferred_source = Some(source));
    }
}
