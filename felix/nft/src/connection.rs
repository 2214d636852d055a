//! The netlink socket: sends transactions and queries, receives answers.
//!
//! Owns the socket, its buffers and its sequence numbers. Does not own what is sent. All calls block,
//! but only while the kernel works: it handles a request inside `send`, so an answer that is not there
//! afterwards never comes.

use std::io;

use netlink_sys::protocols::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use nix::sys::socket::{setsockopt, sockopt};

use crate::batch::{Batch, FLAG_ACK, FLAG_DUMP, FLAG_REQUEST};
use crate::error::{Error, Failure};
use crate::wire::{
    ATTRIBUTE_HEADER_LEN, Attributes, HEADER_LEN, Header, Message, Writer, messages, text,
    u32_native,
};

/// A bound `NETLINK_NETFILTER` socket. It owns the tables that it created as
/// [`Exclusive`](crate::object::Ownership::Exclusive) for as long as it lives.
pub struct Connection {
    socket: Socket,
    port: u32,
    sequence: u32,
    send_room: usize,
    buffer: Vec<u8>,
}

/// Receive buffer: a refused batch answers with one message of some 100 bytes per operation.
const RECEIVE_ROOM: usize = 8 << 20;
/// The kernel's dump messages are at most 32 KiB.
const DATAGRAM_ROOM: usize = 64 << 10;
/// Room that `SO_SNDBUF` must have beyond the message (`netlink_sendmsg` keeps 32 bytes).
const SEND_OVERHEAD: usize = 4096;
/// How often a dump that another writer interrupts is repeated.
const DUMP_ATTEMPTS: u32 = 16;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const FLAG_DUMP_INTERRUPTED: u16 = 0x10;
const FLAG_CAPPED: u16 = 0x100;
const FLAG_ACK_ATTRIBUTES: u16 = 0x200;
const EXT_ACK_MESSAGE: u16 = 1;
const EXT_ACK_OFFSET: u16 = 2;

impl Connection {
    /// Opens and binds a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    ///
    /// [`Error::Socket`]; needs no privilege yet.
    pub fn open() -> Result<Self, Error> {
        let failed = |action| move |source| Error::Socket { action, source };
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed("open a netlink socket"))?;
        let address = socket
            .bind_auto()
            .map_err(failed("bind the netlink socket"))?;
        // Without these two, errors still carry their number; with them, words and the place.
        socket
            .set_ext_ack(true)
            .and_then(|()| socket.set_cap_ack(true))
            .map_err(failed("ask for extended acknowledgements"))?;
        force_receive_room(&socket, RECEIVE_ROOM)?;
        Ok(Self {
            socket,
            port: address.port_number(),
            sequence: 0,
            send_room: 0,
            buffer: Vec::with_capacity(DATAGRAM_ROOM),
        })
    }

    /// Netlink port of the socket: the owner that the kernel notes on exclusive tables, and the origin
    /// that it notes on notifications.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Commits a transaction. An empty one is not sent.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] if it was not sent, [`Error::Transaction`] if the kernel refused it,
    /// [`Error::Socket`] if it could not be sent. In each case nothing of it is in force.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let begin = self.sequence.wrapping_add(1);
        // Far from wrapping inside a batch, so that sequence numbers compare as numbers.
        let begin = if begin > u32::MAX / 2 { 1 } else { begin };
        let encoded = batch.encode(begin)?;
        self.sequence = encoded.last + 1;
        self.send(&encoded.bytes)?;

        let mut failures = Vec::new();
        let mut answered = false;
        while !answered {
            self.receive("read the answer to a transaction")?;
            for message in messages(&self.buffer) {
                // Answers to an earlier batch, cut short by an error of its commit.
                if message.kind != NLMSG_ERROR || message.sequence < encoded.begin {
                    continue;
                }
                let verdict = Acknowledgement::read(&message)?;
                answered |= message.sequence == encoded.last || message.sequence == encoded.begin;
                if let Some(error) = verdict.error {
                    failures.push(Failure {
                        operation: batch.describe(&encoded, message.sequence, verdict.offset),
                        error,
                        message: verdict.message,
                    });
                }
            }
        }
        if failures.is_empty() {
            Ok(())
        } else {
            Err(Error::Transaction {
                table: batch.table().to_owned(),
                failures,
            })
        }
    }

    /// Sends a query and gives every answer message to `each`. `what` names it in errors. With
    /// `dump`, answers come in several messages and the query is repeated if the kernel says that the
    /// ruleset changed meanwhile; `each` must therefore be able to start over, told by `None`.
    pub(crate) fn query(
        &mut self,
        what: &str,
        kind: u16,
        family: u8,
        dump: bool,
        body: &dyn Fn(&mut Writer),
        each: &mut dyn FnMut(Option<&Message<'_>>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let refused = |source| Error::Query {
            what: what.to_owned(),
            source,
        };
        for _ in 0..DUMP_ATTEMPTS {
            self.sequence = self.sequence.wrapping_add(1);
            let header = Header {
                kind,
                flags: FLAG_REQUEST | if dump { FLAG_DUMP } else { 0 },
                sequence: self.sequence,
            };
            let mut writer = Writer::default();
            writer.message(header, family, 0, |w| body(w));
            self.send(&writer.into_bytes())?;
            each(None)?;
            match self.collect(dump, each)? {
                Answer::Complete => return Ok(()),
                Answer::Refused(source) => return Err(refused(source)),
                Answer::Interrupted => {}
            }
        }
        Err(refused(io::Error::from_raw_os_error(libc::EINTR)))
    }

    /// Sends one request outside any transaction and waits for its acknowledgement. `what` says what
    /// it does.
    pub(crate) fn request(
        &mut self,
        what: &str,
        kind: u16,
        family: u8,
        body: &dyn Fn(&mut Writer),
    ) -> Result<(), Error> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = Header {
            kind,
            flags: FLAG_REQUEST | FLAG_ACK,
            sequence: self.sequence,
        };
        let mut writer = Writer::default();
        writer.message(header, family, 0, |w| body(w));
        self.send(&writer.into_bytes())?;
        match self.collect(true, &mut |_| Ok(()))? {
            Answer::Refused(source) => Err(Error::Query {
                what: what.to_owned(),
                source,
            }),
            Answer::Complete | Answer::Interrupted => Ok(()),
        }
    }

    fn collect(
        &mut self,
        dump: bool,
        each: &mut dyn FnMut(Option<&Message<'_>>) -> Result<(), Error>,
    ) -> Result<Answer, Error> {
        let mut interrupted = false;
        loop {
            self.receive("read the answer to a query")?;
            for message in messages(&self.buffer) {
                if message.sequence != self.sequence {
                    continue;
                }
                interrupted |= message.flags & FLAG_DUMP_INTERRUPTED != 0;
                match message.kind {
                    NLMSG_ERROR | NLMSG_DONE => {
                        let code = message.payload.get(..4).map_or(0, u32_native).cast_signed();
                        return Ok(match code {
                            0 if interrupted => Answer::Interrupted,
                            0 => Answer::Complete,
                            code if -code == libc::EINTR => Answer::Interrupted,
                            code => Answer::Refused(io::Error::from_raw_os_error(-code)),
                        });
                    }
                    _ => each(Some(&message))?,
                }
                if !dump {
                    return Ok(Answer::Complete);
                }
            }
        }
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let needed = bytes.len() + SEND_OVERHEAD;
        // The default of 212,992 bytes refuses larger messages with EMSGSIZE.
        if needed > self.send_room {
            let room = needed.next_power_of_two().max(1 << 20);
            setsockopt(&self.socket, sockopt::SndBufForce, &room)
                .or_else(|_| setsockopt(&self.socket, sockopt::SndBuf, &room))
                .map_err(|errno| Error::Socket {
                    action: "enlarge the netlink send buffer",
                    source: errno.into(),
                })?;
            self.send_room = room;
        }
        self.socket
            .send_to(bytes, &SocketAddr::new(0, 0), 0)
            .map(|_| ())
            .map_err(|source| Error::Socket {
                action: "send to the kernel",
                source,
            })
    }

    fn receive(&mut self, action: &'static str) -> Result<(), Error> {
        self.buffer.clear();
        self.socket
            .recv(&mut self.buffer, libc::MSG_DONTWAIT)
            .map(|_| ())
            .map_err(|source| Error::Socket { action, source })
    }
}

enum Answer {
    Complete,
    Interrupted,
    Refused(io::Error),
}

/// Enlarges a socket's receive buffer, past the system's limit where privileged.
pub(crate) fn force_receive_room(socket: &Socket, room: usize) -> Result<(), Error> {
    setsockopt(socket, sockopt::RcvBufForce, &room)
        .or_else(|_| setsockopt(socket, sockopt::RcvBuf, &room))
        .map_err(|errno| Error::Socket {
            action: "enlarge the netlink receive buffer",
            source: errno.into(),
        })
}

/// An `NLMSG_ERROR`, which also says that nothing is wrong.
struct Acknowledgement {
    error: Option<io::Error>,
    message: Option<String>,
    /// Where in the request the kernel saw the mistake.
    offset: Option<u32>,
}

impl Acknowledgement {
    fn read(message: &Message<'_>) -> Result<Self, Error> {
        let malformed = || Error::Malformed {
            what: "acknowledgement",
        };
        let code = u32_native(message.payload.get(..4).ok_or_else(malformed)?).cast_signed();
        let request = message.payload.get(4..).ok_or_else(malformed)?;
        // The request's header follows, and the request itself unless the answer is capped.
        let echoed = if message.flags & FLAG_CAPPED != 0 {
            HEADER_LEN
        } else {
            let length = u32_native(request.get(..4).ok_or_else(malformed)?) as usize;
            length.next_multiple_of(ATTRIBUTE_HEADER_LEN)
        };
        let attributes = if message.flags & FLAG_ACK_ATTRIBUTES != 0 {
            Attributes(request.get(echoed..).unwrap_or(&[]))
        } else {
            Attributes(&[])
        };
        Ok(Self {
            error: (code != 0).then(|| io::Error::from_raw_os_error(-code)),
            message: attributes.get(EXT_ACK_MESSAGE).map(text),
            // Netlink's own attributes are in host order.
            offset: attributes
                .get(EXT_ACK_OFFSET)
                .filter(|value| value.len() == 4)
                .map(u32_native),
        })
    }
}
