//! A synchronous rtnetlink client: requests, dumps and batches over one socket.
//!
//! Owns sockets, sequence numbers, acknowledgements and the retry of disturbed dumps. Does not own
//! the meaning of messages ([`message`], [`nexthop`]) or any decision what to send. Synchronous,
//! because every caller is a thread that waits for the kernel anyway, and the kernel answers a
//! request before the send returns.

pub(crate) mod message;
pub(crate) mod nexthop;
pub(crate) mod objects;
mod socket;

use std::os::fd::{AsFd, BorrowedFd};

use libc::{EAGAIN, ENOBUFS};
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
};

use self::message::{Frame, Message};
use self::socket::RawSocket;
use crate::error::{Error, Refusal, Result};
use crate::netns::Netns;

/// Messages that go to the kernel in one send. Each may come back as an error of some 200 octets
/// that the kernel accounts as 1 KiB; all of them must fit the receive buffer before we read one.
const BATCH_MESSAGES: usize = 512;

/// How often a dump is repeated when the table changes under it.
const DUMP_ATTEMPTS: u32 = 10;

/// An rtnetlink socket, bound to the namespace in which it was opened.
#[derive(Debug)]
pub struct Rtnl {
    socket: RawSocket,
    sequence: u32,
}

/// What became of one message of a batch.
pub(crate) type Outcome = Result<(), Refusal>;

impl Rtnl {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Socket`] when the kernel gives none.
    pub fn open() -> Result<Self> {
        Ok(Self {
            socket: RawSocket::open()?,
            sequence: 0,
        })
    }

    /// Opens a socket in `netns`; it stays there.
    ///
    /// # Errors
    /// Those of [`Netns::run`] and [`Rtnl::open`].
    pub fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// The number by which notifications tell changes made over this socket from others'.
    pub(crate) fn port(&self) -> u32 {
        self.socket.port()
    }

    /// Sends one request and waits for its acknowledgement. `doing` completes "cannot …".
    pub(crate) fn request(
        &mut self,
        message: Message,
        flags: u16,
        doing: impl FnOnce() -> String,
    ) -> Result<()> {
        let mut outcomes = self.batch(&[(message, flags)])?;
        let outcome = outcomes
            .pop()
            .expect("a batch answers each of its messages");
        outcome.map_err(|source| Error::Refused {
            doing: doing(),
            source,
        })
    }

    /// Sends many requests and returns one outcome per request, in order.
    ///
    /// Only the last message of each send asks for an acknowledgement: the kernel works through them
    /// in order and reports failures unasked, so what it did not mention has succeeded.
    pub(crate) fn batch(&mut self, requests: &[(Message, u16)]) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for chunk in requests.chunks(BATCH_MESSAGES) {
            self.send_chunk(chunk, &mut outcomes)?;
        }
        Ok(outcomes)
    }

    /// Sends a request that is answered by one object, which `decode` picks out.
    pub(crate) fn get<T>(
        &mut self,
        message: Message,
        doing: impl FnOnce() -> String,
        mut decode: impl FnMut(Message) -> Option<T>,
    ) -> Result<Option<T>> {
        let sequence = self.next_sequence();
        let mut buffer = Vec::new();
        message.encode(NLM_F_REQUEST | NLM_F_ACK, sequence, &mut buffer);
        self.socket.send(&buffer)?;
        let mut found = None;
        loop {
            let datagram = self.socket.receive()?;
            for frame in Frame::split(&datagram) {
                if frame.sequence != sequence {
                    continue;
                }
                if frame.kind != NLMSG_ERROR {
                    found = found.or(decode(Message::decode(&frame)?));
                    continue;
                }
                return match frame.acknowledgement() {
                    Ok(()) => Ok(found),
                    Err(source) => Err(Error::Refused {
                        doing: doing(),
                        source,
                    }),
                };
            }
        }
    }

    /// Lists objects of one kind. A dump that the kernel marks as disturbed is repeated; messages
    /// that cannot be decoded are logged and skipped, because they are never ours.
    pub(crate) fn dump<T>(
        &mut self,
        what: &'static str,
        request: &Message,
        mut decode: impl FnMut(Message) -> Option<T>,
    ) -> Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            if let Some(list) = self.dump_once(what, request, &mut decode)? {
                return Ok(list);
            }
        }
        Err(Error::Unsteady {
            what,
            attempts: DUMP_ATTEMPTS,
        })
    }

    fn dump_once<T>(
        &mut self,
        what: &'static str,
        request: &Message,
        decode: &mut impl FnMut(Message) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        let sequence = self.next_sequence();
        let mut buffer = Vec::new();
        request.encode(NLM_F_REQUEST | NLM_F_DUMP, sequence, &mut buffer);
        self.socket.send(&buffer)?;
        let mut list = Vec::new();
        let mut disturbed = false;
        loop {
            let datagram = self.socket.receive()?;
            for frame in Frame::split(&datagram) {
                if frame.sequence != sequence {
                    continue;
                }
                disturbed |= frame.flags & NLM_F_DUMP_INTR != 0;
                match frame.kind {
                    NLMSG_DONE => return Ok((!disturbed).then_some(list)),
                    NLMSG_ERROR => {
                        if let Err(source) = frame.acknowledgement() {
                            let doing = format!("list {what}");
                            return Err(Error::Refused { doing, source });
                        }
                    }
                    _ => match Message::decode(&frame) {
                        Ok(message) => list.extend(decode(message)),
                        Err(error) => tracing::debug!(%error, what, "message skipped in dump"),
                    },
                }
            }
        }
    }

    fn send_chunk(&mut self, chunk: &[(Message, u16)], outcomes: &mut Vec<Outcome>) -> Result<()> {
        let start = outcomes.len();
        outcomes.resize(start + chunk.len(), Ok(()));
        let first = self.sequence.wrapping_add(1);
        let mut buffer = Vec::new();
        let mut last = first;
        for (index, (message, flags)) in chunk.iter().enumerate() {
            last = self.next_sequence();
            let acknowledge = if index + 1 == chunk.len() {
                NLM_F_ACK
            } else {
                0
            };
            message.encode(NLM_F_REQUEST | acknowledge | flags, last, &mut buffer);
        }
        self.socket.send(&buffer)?;
        loop {
            let datagram = self.socket.receive()?;
            for frame in Frame::split(&datagram) {
                let index = frame.sequence.wrapping_sub(first) as usize;
                if frame.kind != NLMSG_ERROR || index >= chunk.len() {
                    continue;
                }
                outcomes[start + index] = frame.acknowledgement();
                if frame.sequence == last {
                    return Ok(());
                }
            }
        }
    }

    fn next_sequence(&mut self) -> u32 {
        self.sequence = self.sequence.wrapping_add(1);
        self.sequence
    }
}

/// A socket that hears of changes, made by anyone, in its namespace.
#[derive(Debug)]
pub(crate) struct Monitor {
    socket: RawSocket,
}

/// What a read from a [`Monitor`] gives.
pub(crate) enum Heard {
    /// Changes in the order in which they happened, each with the port of who asked for it and the
    /// flags of the request.
    Changes(Vec<Change>),
    /// The kernel dropped notifications: anything may have happened.
    Lost,
    /// There is nothing to read.
    Nothing,
}

/// One notification.
pub(crate) struct Change {
    pub(crate) message: Message,
    pub(crate) port: u32,
    pub(crate) flags: u16,
}

impl Monitor {
    /// Joins the multicast groups of links, addresses, routes and next hops.
    pub(crate) fn open() -> Result<Self> {
        const RTNLGRP_LINK: u32 = 1;
        const RTNLGRP_IPV4_IFADDR: u32 = 5;
        const RTNLGRP_IPV4_ROUTE: u32 = 7;
        const RTNLGRP_IPV6_IFADDR: u32 = 9;
        const RTNLGRP_IPV6_ROUTE: u32 = 11;
        const RTNLGRP_NEXTHOP: u32 = 32;
        let mut socket = RawSocket::open()?;
        for group in [
            RTNLGRP_LINK,
            RTNLGRP_IPV4_IFADDR,
            RTNLGRP_IPV4_ROUTE,
            RTNLGRP_IPV6_IFADDR,
            RTNLGRP_IPV6_ROUTE,
            RTNLGRP_NEXTHOP,
        ] {
            socket.join(group)?;
        }
        socket.set_non_blocking()?;
        Ok(Self { socket })
    }

    /// Opens a monitor in `netns`; it stays there.
    pub(crate) fn open_in(netns: &Netns) -> Result<Self> {
        netns.run(Self::open)?
    }

    /// Reads what one datagram holds, without waiting.
    pub(crate) fn read(&mut self) -> Result<Heard> {
        let datagram = match self.socket.receive() {
            Ok(datagram) => datagram,
            Err(Error::Socket { source, .. }) => match source.raw_os_error() {
                Some(EAGAIN) => return Ok(Heard::Nothing),
                Some(ENOBUFS) => return Ok(Heard::Lost),
                _ => {
                    let doing = "receive notifications";
                    return Err(Error::Socket { doing, source });
                }
            },
            Err(error) => return Err(error),
        };
        let mut changes = Vec::new();
        for frame in Frame::split(&datagram) {
            match Message::decode(&frame) {
                Ok(message) => changes.push(Change {
                    message,
                    port: frame.port,
                    flags: frame.flags,
                }),
                Err(error) => tracing::debug!(%error, "notification skipped"),
            }
        }
        Ok(Heard::Changes(changes))
    }
}

impl AsFd for Monitor {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
