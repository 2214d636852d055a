//! How the connections of one peer are made and readied.
//!
//! Owns what a socket needs before it dials, and a connection before a word is said on it. Does not
//! own when to dial, nor what is said.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};

use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};

use super::auth::{self, Auth, KeyHandle};
use super::gate;
use super::hops::Hops;
use crate::error::Error;

/// Class selector 6, network control (RFC 4594 §3.2): where queues are full, a session's
/// keepalives go before what the routes are for.
const NETWORK_CONTROL: u32 = 0xc0;

/// What the connections of a peer have in common.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transport {
    /// How far away the peer may be.
    pub hops: Hops,
    /// How segments are signed.
    pub auth: Auth,
}

impl Transport {
    /// Dials `remote`, which has the interface as scope when it is link-local, from `local`.
    ///
    /// # Errors
    /// The kernel's; a key that it refuses is an [`Error`] within.
    pub async fn dial(&self, local: Option<IpAddr>, remote: SocketAddr) -> io::Result<TcpStream> {
        let socket = if remote.is_ipv4() {
            TcpSocket::new_v4()?
        } else {
            TcpSocket::new_v6()?
        };
        mark_as_control(&SockRef::from(&socket), remote.is_ipv4())?;
        self.hops.apply(&socket, remote.ip())?;
        // Before the SYN, which must be signed like everything after it.
        auth::before_dial(&socket, remote, &self.auth).map_err(io::Error::other)?;
        if let Some(local) = local {
            socket.set_reuseaddr(true)?;
            socket.bind(source_address(local, remote))?;
        }
        let stream = socket.connect(remote).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Lets a living connection span as many hops as this one's may.
    ///
    /// # Errors
    /// The kernel's.
    pub fn rehop(&self, connection: &KeyHandle) -> io::Result<()> {
        self.hops.apply(connection, connection.remote())
    }

    /// Readies a connection that the peer has made.
    ///
    /// # Errors
    /// [`Error::Unsigned`] and others where the peer does not sign as it should, or the connection
    /// is gone; it must not be used then.
    pub fn adopt(&self, stream: &TcpStream) -> Result<(), Error> {
        let doing = "ready a connection";
        let failed = move |source| Error::Transport { doing, source };
        let remote = stream.peer_addr().map_err(failed)?;
        // Keepalives and small updates must not wait for more to send.
        stream.set_nodelay(true).map_err(failed)?;
        // The listener's TTL is not the peer's.
        self.hops.apply(stream, remote.ip()).map_err(failed)?;
        // What the listener's filter was for has this peer's own floor now, and only now: each
        // segment is looked at by one or the other.
        gate::detach(stream).map_err(failed)?;
        auth::enforce(stream, &self.auth)
    }
}

/// Marks what `socket` sends as network control.
pub(super) fn mark_as_control(socket: &SockRef<'_>, ipv4: bool) -> io::Result<()> {
    if ipv4 {
        socket.set_tos_v4(NETWORK_CONTROL)
    } else {
        socket.set_tclass_v6(NETWORK_CONTROL)
    }
}

/// A link-local address of ours is on the interface of the peer's.
fn source_address(local: IpAddr, remote: SocketAddr) -> SocketAddr {
    match (local, remote) {
        (IpAddr::V6(ours), SocketAddr::V6(theirs)) if ours.is_unicast_link_local() => {
            SocketAddrV6::new(ours, 0, 0, theirs.scope_id()).into()
        }
        _ => SocketAddr::new(local, 0),
    }
}
