//! Tells when somebody else changes our table.
//!
//! Owns a socket of its own in the multicast group `NFNLGRP_NFTABLES`. Does not own what is done about
//! a change.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::batch::{MSG_DELTABLE, MSG_NEWGEN, SUBSYSTEM_NFTABLES};
use crate::connection::force_receive_room;
use crate::dump::ANY_TABLE;
use crate::error::Error;
use crate::wire::{FAMILY_INET, messages};

/// Watches one inet table.
pub struct Monitor {
    socket: Socket,
    table: String,
    own_port: u32,
    /// What happened in the transaction whose notifications are being read.
    pending: Option<Touch>,
    buffer: Vec<u8>,
}

/// What somebody else did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The table was changed or deleted in one transaction.
    Changed {
        /// The table itself was deleted.
        deleted: bool,
        /// Name of the process (`comm`), where the kernel tells.
        process: Option<String>,
    },
    /// Notifications were lost: anything may have happened.
    Overrun,
}

#[derive(Clone, Copy)]
struct Touch {
    deleted: bool,
}

const GROUP_NFTABLES: u32 = 7;
const GENERATION_PROCESS_NAME: u16 = 3;
/// A flush of a table with 10,000 elements notifies each of them.
const RECEIVE_ROOM: usize = 16 << 20;
const DATAGRAM_ROOM: usize = 64 << 10;

impl Monitor {
    /// Watches `table` for changes that do not come from the socket with netlink port `own_port`.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`]; joining the group needs CAP_NET_ADMIN.
    pub fn open(table: impl Into<String>, own_port: u32) -> Result<Self, Error> {
        let failed = |action| move |source| Error::Socket { action, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open a netlink socket"))?;
        socket
            .bind(&SocketAddr::new(0, 0))
            .map_err(failed("bind the netlink socket"))?;
        socket
            .add_membership(GROUP_NFTABLES)
            .map_err(failed("watch nf_tables"))?;
        force_receive_room(&socket, RECEIVE_ROOM)?;
        Ok(Self {
            socket,
            table: table.into(),
            own_port,
            pending: None,
            buffer: Vec::with_capacity(DATAGRAM_ROOM),
        })
    }

    /// Waits until somebody else's transaction touches the table, at most `timeout`; `None` if none did.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`].
    pub fn wait(&mut self, timeout: Duration) -> Result<Option<Foreign>, Error> {
        let deadline = Instant::now() + timeout;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            // Rounded up, so that the last wait is not a busy loop.
            let left = PollTimeout::try_from(left + Duration::from_micros(999))
                .unwrap_or(PollTimeout::MAX);
            let mut descriptors = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
            match poll(&mut descriptors, left) {
                Ok(0) => return Ok(None),
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(errno) => {
                    return Err(Error::Socket {
                        action: "wait for nf_tables notifications",
                        source: errno.into(),
                    });
                }
            }
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, libc::MSG_DONTWAIT) {
                Ok(_) => {}
                Err(error) if error.raw_os_error() == Some(libc::ENOBUFS) => {
                    self.pending = None;
                    return Ok(Some(Foreign::Overrun));
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
                Err(source) => {
                    return Err(Error::Socket {
                        action: "read nf_tables notifications",
                        source,
                    });
                }
            }
            if let Some(foreign) = self.digest()? {
                return Ok(Some(foreign));
            }
        }
    }

    /// Notifications of a transaction end with the new generation, which names the process.
    fn digest(&mut self) -> Result<Option<Foreign>, Error> {
        let mut foreign = None;
        for message in messages(&self.buffer) {
            if message.kind >> 8 != SUBSYSTEM_NFTABLES {
                continue;
            }
            let (family, attributes) = message.netfilter()?;
            match message.kind & 0xff {
                MSG_NEWGEN => {
                    if let Some(touch) = self.pending.take() {
                        let deleted = touch.deleted
                            || matches!(foreign, Some(Foreign::Changed { deleted: true, .. }));
                        foreign = Some(Foreign::Changed {
                            deleted,
                            process: attributes.string(GENERATION_PROCESS_NAME),
                        });
                    }
                }
                kind => {
                    let ours = family == FAMILY_INET
                        && attributes.string(ANY_TABLE).as_deref() == Some(&self.table);
                    if ours && message.port != self.own_port {
                        let touch = self.pending.get_or_insert(Touch { deleted: false });
                        touch.deleted |= kind == MSG_DELTABLE;
                    }
                }
            }
        }
        Ok(foreign)
    }
}
