//! The sockets that packets come in by: one per port and family.
//!
//! Owns datagrams, and where and how they came. Does not know sessions.

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use caracal_bgp_core::bfd::{Arrival, Discard, Packet};
use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, SockaddrStorage, recvmmsg, setsockopt,
    sockopt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::Error;

/// UDP port of single-hop sessions (RFC 5881 §4).
pub(super) const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port of multihop sessions (RFC 5883 §5).
pub(super) const MULTIHOP_PORT: u16 = 4784;

/// Packets taken by one system call.
const BATCH: usize = 32;
/// The Length field has one octet, so what is beyond is no packet's (RFC 5880 §4.1).
const LONGEST: usize = 256;
/// What waits in the kernel while we are kept from running: a second of a thousand fast sessions.
const RECEIVE_BUFFER: usize = 4 << 20;

/// A packet, or why it is none, and how it came.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) arrival: Arrival,
    pub(super) packet: Result<Packet, Discard>,
}

/// One receiving socket.
#[derive(Debug)]
pub(crate) struct Receiver {
    socket: Socket,
    multihop: bool,
}

impl Receiver {
    /// Binds every socket. Without IPv6 in the kernel there are those of IPv4 only.
    pub(crate) fn bind_all() -> Result<Vec<Self>, Error> {
        let mut receivers = Vec::new();
        for (port, multihop) in [(SINGLE_HOP_PORT, false), (MULTIHOP_PORT, true)] {
            for any in [
                IpAddr::V4(Ipv4Addr::UNSPECIFIED),
                IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            ] {
                let address = SocketAddr::new(any, port);
                match bind(address) {
                    Ok(socket) => receivers.push(Self { socket, multihop }),
                    Err(error) if any.is_ipv6() && is_no_such_family(&error) => {
                        tracing::warn!(%error, "no IPv6 here: IPv6 sessions cannot come up");
                    }
                    Err(source) => {
                        return Err(match source.kind() {
                            io::ErrorKind::AddrInUse => Error::PortInUse { address },
                            io::ErrorKind::PermissionDenied => Error::Permission { address },
                            _ => Error::Listen { address, source },
                        });
                    }
                }
            }
        }
        Ok(receivers)
    }
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn bind(address: SocketAddr) -> io::Result<Socket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv4() {
        setsockopt(&socket, sockopt::Ipv4PacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv4RecvTtl, &true)?;
    } else {
        socket.set_only_v6(true)?;
        setsockopt(&socket, sockopt::Ipv6RecvPacketInfo, &true)?;
        setsockopt(&socket, sockopt::Ipv6RecvHopLimit, &true)?;
    }
    // Beyond the system's limit where we may; the smaller one will do too.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
        socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    }
    // No SO_REUSEADDR: with another BFD daemon on the port, each would miss packets of the other.
    socket.bind(&address.into())?;
    Ok(socket)
}

fn is_no_such_family(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::EAFNOSUPPORT as i32)
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Buffers for one batch; used for all sockets in turn.
pub(super) struct Batch {
    headers: MultiHeaders<SockaddrStorage>,
    buffers: Box<[[u8; LONGEST]; BATCH]>,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            headers: headers(),
            buffers: Box::new([[0; LONGEST]; BATCH]),
        }
    }

    /// Appends what has come to `received`, and how many came without saying how; says whether there
    /// may be more.
    pub(super) fn read(
        &mut self,
        receiver: &Receiver,
        received: &mut Vec<Received>,
        incomplete: &mut u64,
    ) -> io::Result<bool> {
        let mut slices = self
            .buffers
            .each_mut()
            .map(|buffer| [IoSliceMut::new(buffer)]);
        let descriptor = receiver.socket.as_raw_fd();
        let flags = MsgFlags::MSG_DONTWAIT;
        let messages = match recvmmsg(descriptor, &mut self.headers, &mut slices, flags, None) {
            Ok(messages) => messages,
            Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::EINTR) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let (mut count, mut unknown) = (0, 0);
        for message in messages {
            count += 1;
            let octets = message.iovs().next().unwrap_or_default();
            match arrival(&message, receiver.multihop) {
                Some(arrival) => received.push(Received {
                    arrival,
                    packet: Packet::decode(octets),
                }),
                None => unknown += 1,
            }
        }
        if unknown > 0 {
            // The room for ancillary data shrinks to what came last, so it is made anew.
            self.headers = headers();
            *incomplete += unknown;
        }
        Ok(count == BATCH)
    }
}

fn headers() -> MultiHeaders<SockaddrStorage> {
    MultiHeaders::preallocate(BATCH, Some(cmsg_space!(libc::in6_pktinfo, libc::c_int)))
}

/// How a datagram came; `None` when the kernel did not say all of it.
fn arrival(message: &RecvMsg<'_, '_, SockaddrStorage>, multihop: bool) -> Option<Arrival> {
    let sender = message.address?;
    let peer = match (sender.as_sockaddr_in(), sender.as_sockaddr_in6()) {
        (Some(v4), _) => IpAddr::V4(v4.ip()),
        (None, Some(v6)) => IpAddr::V6(v6.ip()),
        (None, None) => return None,
    };
    let (mut destination, mut ttl) = (None, None);
    for ancillary in message.cmsgs().ok()? {
        match ancillary {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let local = Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr));
                let interface = u32::try_from(info.ipi_ifindex).ok()?;
                destination = Some((IpAddr::V4(local), interface));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                destination = Some((IpAddr::V6(local), info.ipi6_ifindex));
            }
            ControlMessageOwned::Ipv4Ttl(value) | ControlMessageOwned::Ipv6HopLimit(value) => {
                ttl = u8::try_from(value).ok();
            }
            _ => {}
        }
    }
    let (local, interface) = destination?;
    Some(Arrival {
        local,
        peer,
        interface,
        ttl: ttl?,
        multihop,
    })
}
