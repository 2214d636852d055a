//! What others want of the worker, until it has time.
//!
//! Owns the hand-over: posting never blocks for longer than a map insertion, and what is held is
//! bounded by the table, because a newer change of a prefix takes the place of the older.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, MutexGuard, PoisonError};

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::snapshot::KernelSnapshot;
use caracal_bgp_speaker::{FibChange, FibNextHop};
use tokio::sync::oneshot;

use super::PreferredSource;
use super::resolve::Way;
use crate::error::{Error, Result};

/// Everything posted since the last look.
#[derive(Debug, Default)]
pub(super) struct Mail {
    pub(super) changes: BTreeMap<Prefix, FibChange>,
    /// Ways lost after `changes` were posted.
    pub(super) lost: BTreeSet<Way>,
    /// Next hops to be tracked, or no longer.
    pub(super) tracked: BTreeMap<FibNextHop, bool>,
    pub(super) initial_sync_complete: bool,
    pub(super) blackholes: Option<BTreeSet<Prefix>>,
    pub(super) preferred_source: Option<PreferredSource>,
    /// Who wants to know what lies at a prefix.
    pub(super) looks: Vec<(Prefix, oneshot::Sender<KernelSnapshot>)>,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    bell: UnixStream,
}

/// The end of the bell that the worker polls.
#[derive(Debug)]
pub(super) struct Wake(UnixStream);

impl Mailbox {
    pub(super) fn new() -> Result<(Self, Wake)> {
        let pair = || -> io::Result<_> {
            let (bell, wake) = UnixStream::pair()?;
            bell.set_nonblocking(true)?;
            wake.set_nonblocking(true)?;
            Ok((bell, wake))
        };
        let (bell, wake) = pair().map_err(|source| Error::Socket {
            doing: "make a wake-up pair for polling",
            source,
        })?;
        let mail = Mutex::default();
        Ok((Self { mail, bell }, Wake(wake)))
    }

    pub(super) fn post(&self, write: impl FnOnce(&mut Mail)) {
        write(&mut self.lock());
        // A full bell has rung already; a closed one belongs to a worker that has ended.
        let _ = (&self.bell).write(&[1]);
    }

    pub(super) fn close(&self) {
        self.post(|mail| mail.closed = true);
    }

    pub(super) fn take(&self) -> Mail {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Mail> {
        // A post that panicked has left whole values behind; nothing spans several of them.
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Wake {
    /// Makes the bell silent until the next post.
    pub(super) fn quiet(&mut self) {
        let mut rings = [0; 256];
        while matches!(self.0.read(&mut rings), Ok(count) if count == rings.len()) {}
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
