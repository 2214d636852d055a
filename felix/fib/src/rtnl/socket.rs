//! One netlink socket with the options that this crate relies on.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use netlink_sys::protocols::NETLINK_ROUTE;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::sockopt::{RcvBufForce, ReceiveTimeout, SndBufForce};
use nix::sys::socket::{MsgFlags, recv, setsockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::error::{Error, Result};

/// Room for the acknowledgements of a batch, and for a burst of notifications while routes change.
const BUFFER_OCTETS: usize = 8 * 1024 * 1024;

/// The kernel fills at most 32 KiB per datagram, whatever is offered.
const DATAGRAM_OCTETS: usize = 64 * 1024;

/// The kernel answers within the send; only a bug makes us wait.
const ANSWER_SECONDS: i64 = 10;

#[derive(Debug)]
pub(super) struct RawSocket {
    socket: Socket,
    port: u32,
    buffer: Vec<u8>,
}

impl RawSocket {
    pub(super) fn open() -> Result<Self> {
        let failed = |doing| move |source| Error::Socket { doing, source };
        let mut socket = Socket::new(NETLINK_ROUTE).map_err(failed("open"))?;
        let address = socket.bind_auto().map_err(failed("bind"))?;
        // Reasons in words, where the kernel has them.
        socket
            .set_ext_ack(true)
            .map_err(failed("ask for extended acknowledgements"))?;
        // Acknowledgements without a copy of the request.
        socket
            .set_cap_ack(true)
            .map_err(failed("ask for short acknowledgements"))?;
        // Dumps filtered by the kernel by what their request's header names.
        socket
            .set_netlink_get_strict_chk(true)
            .map_err(failed("ask for strict checks"))?;
        // FORCE: beyond the machine's limit, which fits hundreds of messages, not thousands.
        setsockopt(&socket, RcvBufForce, &BUFFER_OCTETS)
            .map_err(|errno| failed("enlarge the receive buffer")(errno.into()))?;
        setsockopt(&socket, SndBufForce, &BUFFER_OCTETS)
            .map_err(|errno| failed("enlarge the send buffer")(errno.into()))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(ANSWER_SECONDS))
            .map_err(|errno| failed("limit waiting")(errno.into()))?;
        Ok(Self {
            socket,
            port: address.port_number(),
            buffer: vec![0; DATAGRAM_OCTETS],
        })
    }

    pub(super) fn port(&self) -> u32 {
        self.port
    }

    pub(super) fn join(&mut self, group: u32) -> Result<()> {
        self.socket
            .add_membership(group)
            .map_err(|source| Error::Socket {
                doing: "join a multicast group",
                source,
            })
    }

    pub(super) fn set_non_blocking(&self) -> Result<()> {
        self.socket
            .set_non_blocking(true)
            .map_err(|source| Error::Socket {
                doing: "stop waiting",
                source,
            })
    }

    pub(super) fn send(&mut self, octets: &[u8]) -> Result<()> {
        let kernel = SocketAddr::new(0, 0);
        match self.socket.send_to(octets, &kernel, 0) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Socket {
                doing: "send",
                source,
            }),
        }
    }

    /// One datagram, of one or more messages.
    pub(super) fn receive(&mut self) -> Result<Vec<u8>> {
        loop {
            match recv(self.socket.as_raw_fd(), &mut self.buffer, MsgFlags::empty()) {
                Ok(length) => return Ok(self.buffer[..length].to_vec()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Error::Socket {
                        doing: "receive",
                        source: io::Error::from(errno),
                    });
                }
            }
        }
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
