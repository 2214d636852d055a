//! Wakes a thread that waits in epoll.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::error::Error;

/// One end to wake with, one to be woken by; they are the same.
#[derive(Clone, Debug)]
pub(crate) struct Wake(Arc<EventFd>);

impl Wake {
    pub(crate) fn new() -> Result<Self, Error> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let event = EventFd::from_flags(flags).map_err(|source| Error::System {
            doing: "make an event descriptor",
            source: source.into(),
        })?;
        Ok(Self(Arc::new(event)))
    }

    /// Wakes the other end, now or the next time it waits.
    pub(crate) fn wake(&self) {
        // The one error that can be is that it is to be woken 2^64 times already.
        let _ = self.0.write(1);
    }

    /// Has been woken.
    pub(crate) fn clear(&self) {
        // The one error that can be is that there is nothing to clear.
        let _ = self.0.read();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
