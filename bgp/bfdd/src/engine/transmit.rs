//! The sockets that packets go out by: one per session, with a source port of its own.
//!
//! Owns source ports and the way to one peer. Does not own what is sent.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};

use nix::errno::Errno;
use nix::net::if_::if_nametoindex;
use socket2::{Domain, Protocol, Socket, Type};

use super::receive::{MULTIHOP_PORT, SINGLE_HOP_PORT};
use crate::proto::SessionKey;

/// Source ports (RFC 5881 §4).
const PORTS: std::ops::RangeInclusive<u16> = 49152..=65535;
/// How many ports are tried before waiting for better times: others on this machine use some.
const PORT_ATTEMPTS: usize = 64;
/// RFC 5881 §5: the most there is, so that the peer can tell how far we are.
const TTL: u8 = 255;
/// Network control (CS6): what liveness hangs on is not queued behind the traffic it watches.
const TRAFFIC_CLASS: u32 = 0xc0;

/// Source ports in use. RFC 5881 §4: unique among all sessions of the system.
#[derive(Debug, Default)]
pub(super) struct Ports {
    used: BTreeSet<u16>,
    chance: RandomState,
    draws: u64,
}

impl Ports {
    /// A port that no session has; taken until it is given back.
    fn take(&mut self) -> Option<u16> {
        let width = u64::from(PORTS.end() - PORTS.start()) + 1;
        self.draws += 1;
        let start = self.chance.hash_one(self.draws) % width;
        (0..width)
            .map(|step| PORTS.start() + ((start + step) % width) as u16)
            .find(|port| self.used.insert(*port))
    }

    pub(super) fn give_back(&mut self, port: u16) {
        self.used.remove(&port);
    }
}

/// The way to one peer.
#[derive(Debug)]
pub(super) struct Transmitter {
    socket: UdpSocket,
    /// Our address, also where the kernel chose it.
    pub(super) local: IpAddr,
    /// Index of the interface, where one was asked for.
    pub(super) interface: Option<u32>,
}

/// Why there is no way, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct NoWay(pub(super) String);

impl Transmitter {
    /// Opens the way, from `port` where there is one already: it stays the same for the life of a
    /// session (RFC 5881 §4). A port taken is left in `port`, whatever happens.
    pub(super) fn open(
        key: &SessionKey,
        port: &mut Option<u16>,
        ports: &mut Ports,
    ) -> Result<Self, NoWay> {
        let interface = key.interface.as_deref();
        let index = interface
            .map(if_nametoindex)
            .transpose()
            .map_err(|error| no_way(&format!("no interface {}", shown(interface)), error))?;
        let socket = prepare(key, interface)?;
        let local = key.local.unwrap_or(match key.peer {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        });
        bind(&socket, local, index, port, ports)?;
        let peer_port = if key.multihop {
            MULTIHOP_PORT
        } else {
            SINGLE_HOP_PORT
        };
        // Connected, the kernel looks up the route once, and tells when nobody listens there.
        socket
            .connect(&scoped(key.peer, peer_port, index).into())
            .map_err(|error| no_way(&format!("no way to {}", key.peer), error))?;
        let socket = UdpSocket::from(socket);
        let local = socket
            .local_addr()
            .map_err(|error| no_way("no source address", error))?;
        Ok(Self {
            socket,
            local: local.ip(),
            interface: index,
        })
    }

    /// Sends, without waiting.
    pub(super) fn send(&self, octets: &[u8]) -> Sent {
        match self.socket.send(octets) {
            Ok(_) => Sent::Yes,
            // The error may be that of an earlier packet, told by ICMP, and this one was not tried.
            Err(first) => match self.socket.send(octets) {
                Ok(_) => Sent::AfterError(explain(&first)),
                Err(error) => {
                    let passing = matches!(
                        error.raw_os_error().map(Errno::from_raw),
                        Some(Errno::EPERM | Errno::EAGAIN | Errno::ENOBUFS | Errno::ECONNREFUSED)
                    );
                    Sent::No {
                        why: explain(&error),
                        reopen: !passing,
                    }
                }
            },
        }
    }
}

/// What became of a packet.
#[derive(Debug)]
pub(super) enum Sent {
    Yes,
    /// It went out, but there was an answer to an earlier one that it should not have gone.
    AfterError(String),
    /// It did not go out.
    No {
        why: String,
        /// Whether the interface or address may be another by now.
        reopen: bool,
    },
}

fn prepare(key: &SessionKey, interface: Option<&str>) -> Result<Socket, NoWay> {
    let prepared = || -> io::Result<Socket> {
        let domain = if key.peer.is_ipv4() {
            Domain::IPV4
        } else {
            Domain::IPV6
        };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        if key.peer.is_ipv4() {
            socket.set_ttl_v4(TTL.into())?;
            socket.set_tos_v4(TRAFFIC_CLASS)?;
        } else {
            socket.set_only_v6(true)?;
            socket.set_unicast_hops_v6(TTL.into())?;
            socket.set_tclass_v6(TRAFFIC_CLASS)?;
        }
        Ok(socket)
    };
    let socket = prepared().map_err(|error| no_way("no socket", error))?;
    if let Some(interface) = interface {
        socket
            .bind_device(Some(interface.as_bytes()))
            .map_err(|error| no_way(&format!("no use of interface {interface}"), error))?;
    }
    Ok(socket)
}

fn bind(
    socket: &Socket,
    local: IpAddr,
    index: Option<u32>,
    port: &mut Option<u16>,
    ports: &mut Ports,
) -> Result<(), NoWay> {
    for _ in 0..PORT_ATTEMPTS {
        let Some(number) = port.or_else(|| ports.take()) else {
            return Err(NoWay("every source port is in use".to_owned()));
        };
        *port = Some(number);
        match socket.bind(&scoped(local, number, index).into()) {
            Ok(()) => return Ok(()),
            // Somebody else's. It stays marked as used while we look on, so it is not drawn again.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                *port = ports.take();
                ports.give_back(number);
            }
            Err(error) => return Err(no_way(&format!("no sending from {local}"), error)),
        }
    }
    Err(NoWay(format!(
        "{PORT_ATTEMPTS} source ports were in use by others"
    )))
}

/// Link-local addresses are nothing without their interface.
fn scoped(address: IpAddr, port: u16, index: Option<u32>) -> SocketAddr {
    match address {
        IpAddr::V6(v6) if v6.is_unicast_link_local() => {
            SocketAddrV6::new(v6, port, 0, index.unwrap_or(0)).into()
        }
        _ => SocketAddr::new(address, port),
    }
}

fn shown(interface: Option<&str>) -> &str {
    interface.unwrap_or("?")
}

fn no_way(doing: &str, error: impl Into<io::Error>) -> NoWay {
    NoWay(format!("{doing}: {}", explain(&error.into())))
}

/// What the kernel says, and what it means here.
fn explain(error: &io::Error) -> String {
    let text = match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => "the peer answers that nothing listens for BFD there",
        Some(Errno::EPERM) => "a packet filter here does not let packets out",
        Some(Errno::EHOSTUNREACH) => "the peer does not answer on the link (no route to host)",
        Some(errno) => errno.desc(),
        None => return error.to_string(),
    };
    text.to_owned()
}
