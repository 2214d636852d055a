//! Removes dead links in batches.
//!
//! Owns the link group that marks a link as dead, and the thread that removes the group. Does not
//! own the decision that a link is dead. Removing a link costs the kernel a grace period of some
//! milliseconds under a lock that every other change waits for; a group costs the same once. The
//! mark is in the kernel, so links that were marked before a crash go at the next start.

use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use netlink_packet_route::link::LinkAttribute;

use super::ignore;
use crate::error::{Error, Result};
use crate::netns::Netns;
use crate::rtnl::Rtnl;
use crate::rtnl::objects::{self, LinkKey};

/// The group of links that wait for removal.
pub const DEAD_GROUP: u32 = 0xdead;

/// How long to gather after the first dead link.
const GATHER: Duration = Duration::from_millis(50);

/// One pending wake-up says all there is to say.
const WAKE_DEPTH: usize = 1;

/// Sets a link down and marks it for a [`Reaper`]; it passes no packet from here on. A link that is
/// gone is no error.
///
/// # Errors
/// [`Error::Refused`].
pub fn bury(rtnl: &mut Rtnl, index: u32) -> Result<()> {
    let group = vec![LinkAttribute::Group(DEAD_GROUP)];
    let request = objects::set_link(LinkKey::Index(index), Some(false), group);
    let result = rtnl.request(request, 0, || format!("mark link {index} as dead"));
    ignore(result, &[libc::ENODEV])
}

/// The thread that removes links which [`bury`] marked; ends when dropped, after a last removal.
#[derive(Debug)]
pub struct Reaper {
    wake: Option<SyncSender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reaper {
    /// Starts the thread for `netns` and removes what an earlier life has left.
    ///
    /// # Errors
    /// [`Error::Socket`], [`Error::Thread`].
    pub fn start(netns: &Netns) -> Result<Self> {
        let rtnl = Rtnl::open_in(netns)?;
        let (wake, woken) = sync_channel(WAKE_DEPTH);
        let thread = thread::Builder::new()
            .name("link-reaper".into())
            .spawn(move || reap_when_woken(rtnl, &woken))
            .map_err(|source| Error::Thread {
                name: "link-reaper",
                source,
            })?;
        let reaper = Self {
            wake: Some(wake),
            thread: Some(thread),
        };
        reaper.wake();
        Ok(reaper)
    }

    /// Says that there are dead links; never blocks.
    pub fn wake(&self) {
        let wake = self.wake.as_ref().expect("the sender lives until the drop");
        // Full means that a removal is due anyway.
        if let Err(TrySendError::Disconnected(())) = wake.try_send(()) {
            tracing::error!("link reaper has ended; dead links stay until the next start");
        }
    }
}

impl Drop for Reaper {
    fn drop(&mut self) {
        self.wake = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("link reaper panicked");
        }
    }
}

fn reap_when_woken(mut rtnl: Rtnl, woken: &Receiver<()>) {
    while woken.recv().is_ok() {
        // What is buried meanwhile goes in the same removal.
        thread::sleep(GATHER);
        if let Err(error) = reap(&mut rtnl) {
            tracing::warn!(%error, "dead links stay until the next attempt");
        }
    }
}

fn reap(rtnl: &mut Rtnl) -> Result<()> {
    let request = objects::delete_group(DEAD_GROUP);
    let result = rtnl.request(request, 0, || "delete dead links".to_owned());
    // ENODEV: the group is empty.
    ignore(result, &[libc::ENODEV])
}
