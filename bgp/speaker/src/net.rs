//! Sockets, and what the kernel says about the interface that carries a session.
//!
//! Owns how connections are made and listeners bound. Does not own what is said on them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use caracal_bgp_core::rib::Ends;
use caracal_bgp_core::types::Prefix;
use nix::ifaddrs::{InterfaceAddress, getifaddrs};
use nix::net::if_::{InterfaceFlags, if_nametoindex};
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::config::ListenConfig;
use crate::error::Error;

/// Connections that may wait to be accepted; peers dial again anyway.
const LISTEN_BACKLOG: i32 = 128;

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) name: String,
    /// Whether it has carrier.
    pub(crate) running: bool,
}

/// Binds every address of `config`.
pub(crate) fn listen(config: &ListenConfig) -> Result<Vec<TcpListener>, Error> {
    if !config.addrs.is_empty() {
        return config
            .addrs
            .iter()
            .map(|address| listen_on(SocketAddr::new(*address, config.port)))
            .collect();
    }
    let v4 = listen_on(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), config.port))?;
    match listen_on(SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), config.port)) {
        Ok(v6) => Ok(vec![v4, v6]),
        // A kernel without IPv6 has no IPv6 peers either.
        Err(Error::Listen { source, .. }) if no_such_family(&source) => Ok(vec![v4]),
        Err(error) => Err(error),
    }
}

fn listen_on(address: SocketAddr) -> Result<TcpListener, Error> {
    bind_listener(address).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => Error::PortInUse { address },
        _ => Error::Listen { address, source },
    })
}

fn bind_listener(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    // A speaker that restarts finds connections of its former life in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // IPv4 has a listener of its own; peers then show with plain IPv4 addresses.
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(LISTEN_BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn no_such_family(error: &io::Error) -> bool {
    // EAFNOSUPPORT: no IPv6 in the kernel; EADDRNOTAVAIL: IPv6 disabled by sysctl.
    error.raw_os_error() == Some(nix::errno::Errno::EAFNOSUPPORT as i32)
        || error.kind() == io::ErrorKind::AddrNotAvailable
}

/// Dials `remote` from `local`.
pub(crate) async fn dial(
    local: Option<IpAddr>,
    remote: SocketAddr,
    ttl: Option<u8>,
) -> io::Result<TcpStream> {
    let socket = if remote.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    if let Some(local) = local {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::new(local, 0))?;
    }
    set_ttl(&SockRef::from(&socket), remote.ip(), ttl)?;
    socket.connect(remote).await
}

/// Prepares a connection, dialled or accepted.
pub(crate) fn prepare(stream: &TcpStream, remote: IpAddr, ttl: Option<u8>) -> io::Result<()> {
    // Keepalives and small updates must not wait for more to send.
    stream.set_nodelay(true)?;
    set_ttl(&SockRef::from(stream), remote, ttl)
}

fn set_ttl(socket: &SockRef<'_>, remote: IpAddr, ttl: Option<u8>) -> io::Result<()> {
    match (ttl, remote) {
        (None, _) => Ok(()),
        (Some(ttl), IpAddr::V4(_)) => socket.set_ttl_v4(ttl.into()),
        (Some(ttl), IpAddr::V6(_)) => socket.set_unicast_hops_v6(ttl.into()),
    }
}

/// The TTL for an external peer at `remote`: 1 when it is on a connected subnet.
pub(crate) fn external_ttl(remote: IpAddr) -> Option<u8> {
    addresses()
        .iter()
        .filter_map(subnet)
        .any(|subnet| subnet.contains_addr(remote))
        .then_some(1)
}

/// The interface that holds `local`.
pub(crate) fn interface_of(local: IpAddr) -> Option<Interface> {
    let holder = addresses().into_iter().find(|entry| {
        // The loopback interface answers to all of 127.0.0.0/8, though it lists one address.
        address(entry) == Some(local)
            || local.is_loopback() && entry.flags.contains(InterfaceFlags::IFF_LOOPBACK)
    })?;
    Some(Interface {
        index: if_nametoindex(holder.interface_name.as_str()).ok()?,
        running: holder.flags.contains(InterfaceFlags::IFF_RUNNING),
        name: holder.interface_name,
    })
}

/// The ends of a session from `local` to `peer`, with our addresses of both families on its
/// interface (RFC 2545 §3: the global and the link-local one).
pub(crate) fn ends(local: IpAddr, peer: IpAddr) -> (Ends, Option<Interface>) {
    let interface = interface_of(local);
    let on_interface: Vec<InterfaceAddress> = addresses()
        .into_iter()
        .filter(|entry| {
            interface
                .as_ref()
                .is_some_and(|interface| interface.name == entry.interface_name)
        })
        .collect();
    let first =
        |wanted: &dyn Fn(&IpAddr) -> bool| on_interface.iter().filter_map(address).find(wanted);
    let local_v4 =
        match local {
            IpAddr::V4(local) => Some(local),
            IpAddr::V6(_) => first(&|address| address.is_ipv4() && !address.is_loopback())
                .and_then(|address| match address {
                    IpAddr::V4(address) => Some(address),
                    IpAddr::V6(_) => None,
                }),
        };
    let v6 = |address: IpAddr| match address {
        IpAddr::V6(address) => Some(address),
        IpAddr::V4(_) => None,
    };
    let link_local =
        first(&|address| v6(*address).is_some_and(|v6| v6.is_unicast_link_local())).and_then(v6);
    let global = match local {
        IpAddr::V6(local) if !local.is_unicast_link_local() => Some(local),
        _ => first(&|address| {
            v6(*address).is_some_and(|v6| !v6.is_unicast_link_local() && !v6.is_loopback())
        })
        .and_then(v6),
    };
    let local_v6 = match (global, link_local) {
        (Some(global), link_local) => Some((global, link_local)),
        (None, Some(link_local)) => Some((link_local, None)),
        (None, None) => None,
    };
    let subnets = on_interface
        .iter()
        .filter_map(subnet)
        .filter(|subnet| subnet.contains_addr(peer))
        .collect();
    let ends = Ends {
        peer,
        local_v4,
        local_v6,
        interface: interface.as_ref().map(|interface| interface.index),
        interface_name: interface.as_ref().map(|interface| interface.name.clone()),
        subnets,
    };
    (ends, interface)
}

/// Every address of this network namespace; none when the kernel does not say, which leaves
/// next hops to configuration.
fn addresses() -> Vec<InterfaceAddress> {
    match getifaddrs() {
        Ok(addresses) => addresses.collect(),
        Err(error) => {
            tracing::warn!(%error, "cannot list interface addresses");
            Vec::new()
        }
    }
}

fn address(entry: &InterfaceAddress) -> Option<IpAddr> {
    let storage = entry.address.as_ref()?;
    let v4 = storage.as_sockaddr_in().map(|address| address.ip().into());
    v4.or_else(|| storage.as_sockaddr_in6().map(|address| address.ip().into()))
}

fn subnet(entry: &InterfaceAddress) -> Option<Prefix> {
    let mask = entry.netmask.as_ref()?;
    let len = match address(entry)? {
        IpAddr::V4(_) => mask.as_sockaddr_in()?.ip().to_bits().count_ones(),
        IpAddr::V6(_) => mask.as_sockaddr_in6()?.ip().to_bits().count_ones(),
    };
    Prefix::new(address(entry)?, u8::try_from(len).ok()?).ok()
}
