//! A raw ICMPv6 socket on one interface.
//!
//! Owns the options that make it hear only what discovery is about, from nodes on the link. Does
//! not own what is said.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket as StdSocket};
use std::num::NonZeroU32;
use std::os::fd::AsRawFd;

use caracal_bgp_core::ra::{ALL_ROUTERS, Envelope, HOP_LIMIT, kind};
use nix::cmsg_space;
use nix::sys::socket::sockopt::Ipv6RecvPacketInfo;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn6, recvmsg, sendmsg, setsockopt,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;

use crate::net::sockopt::{self, PlainOption};

/// The longest message that is read. An advertisement has a few dozen octets; options beyond this
/// make it malformed, and their sender unheard.
const LONGEST: usize = 4096;

/// Hears and sends on one interface, whatever its name becomes.
#[derive(Debug)]
pub(super) struct LinkSocket {
    // Of its kind only in that tokio offers no raw sockets: nothing but readiness is asked of it.
    socket: UdpSocket,
    index: u32,
}

/// A message, and what its header said.
#[derive(Debug)]
pub(super) struct Datagram {
    pub(super) envelope: Envelope,
    pub(super) octets: Vec<u8>,
}

impl LinkSocket {
    pub(super) fn open(index: NonZeroU32) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        // First of all the filter: what comes before it is set stays in the queue.
        sockopt::set(&socket, PlainOption::Icmp6Filter, &filter())?;
        socket.bind_device_by_index_v6(Some(index))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_hoplimit_v6(true)?;
        setsockopt(&socket, Ipv6RecvPacketInfo, &true)?;
        // RFC 4861 §4: who hears less knows that a router was between.
        socket.set_multicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_unicast_hops_v6(HOP_LIMIT.into())?;
        socket.set_multicast_loop_v6(false)?;
        let index = index.get();
        // Solicitations go to all routers. All nodes, whom advertisements are for, we belong to
        // without a word, and each membership costs memory of which sockets have little.
        socket.join_multicast_v6(&ALL_ROUTERS, index)?;
        Ok(Self {
            socket: UdpSocket::from_std(StdSocket::from(socket))?,
            index,
        })
    }

    /// Waits for a message that came by this interface.
    pub(super) async fn receive(&self) -> io::Result<Datagram> {
        loop {
            let received = self
                .socket
                .async_io(Interest::READABLE, || self.receive_now());
            if let Some(datagram) = received.await? {
                return Ok(datagram);
            }
        }
    }

    fn receive_now(&self) -> io::Result<Option<Datagram>> {
        let mut octets = vec![0; LONGEST];
        let mut parts = [IoSliceMut::new(&mut octets)];
        let mut control = cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let message = recvmsg::<SockaddrIn6>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::empty(),
        )?;
        let mut hop_limit = None;
        let mut index = None;
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::Ipv6HopLimit(hops) => hop_limit = u8::try_from(hops).ok(),
                ControlMessageOwned::Ipv6PacketInfo(info) => index = Some(info.ipi6_ifindex),
                _ => {}
            }
        }
        let length = message.bytes;
        let source = message.address.map(|address| address.ip());
        let (Some(source), Some(hop_limit)) = (source, hop_limit) else {
            // The kernel always says both; a message without them cannot be trusted.
            return Ok(None);
        };
        if index != Some(self.index) {
            return Ok(None);
        }
        octets.truncate(length);
        let envelope = Envelope { source, hop_limit };
        Ok(Some(Datagram { envelope, octets }))
    }

    /// Sends from `source`, an address of ours on the interface. Does not wait: what finds no room
    /// is said again later.
    pub(super) fn send(&self, source: Ipv6Addr, to: Ipv6Addr, octets: &[u8]) -> io::Result<()> {
        let target = SockaddrIn6::from(SocketAddrV6::new(to, 0, 0, self.index));
        let info = libc::in6_pktinfo {
            ipi6_addr: libc::in6_addr {
                s6_addr: source.octets(),
            },
            ipi6_ifindex: self.index,
        };
        sendmsg(
            self.socket.as_raw_fd(),
            &[IoSlice::new(octets)],
            &[ControlMessage::Ipv6PacketInfo(&info)],
            MsgFlags::empty(),
            Some(&target),
        )?;
        Ok(())
    }
}

/// `struct icmp6_filter`: a bit for each type, set where the socket does not hear it.
fn filter() -> [u8; 32] {
    let mut words = [u32::MAX; 8];
    for heard in [
        kind::ROUTER_SOLICITATION,
        kind::ROUTER_ADVERTISEMENT,
        kind::NEIGHBOR_SOLICITATION,
    ] {
        words[usize::from(heard / 32)] &= !(1 << (heard % 32));
    }
    let mut octets = [0; 32];
    for (octets, word) in octets.chunks_exact_mut(4).zip(words) {
        octets.copy_from_slice(&word.to_ne_bytes());
    }
    octets
}
