//! The echo server that runs in every pod: answers over TCP and UDP with its own address and the one that
//! it saw, so that a probe can tell who answered and whether anybody rewrote a source.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use anyhow::Context;
use caracal_lab_topology::{Probe, Protocol};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, UdpSocket};

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// The server's own address, as the packet was addressed.
    pub server: IpAddr,
    /// The source that the server saw.
    pub seen: IpAddr,
}

impl Answer {
    /// Reads an answer; `None` when the text is not one.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (server, seen) = text.trim_end().split_once(' ')?;
        Some(Self {
            server: server.parse().ok()?,
            seen: seen.parse().ok()?,
        })
    }

    fn text(server: SocketAddr, seen: SocketAddr) -> String {
        format!(
            "{} {}\n",
            server.ip().to_canonical(),
            seen.ip().to_canonical()
        )
    }
}

/// Serves on every given port until the process ends.
///
/// # Errors
/// A port cannot be bound.
pub async fn serve(ports: &[Probe]) -> anyhow::Result<()> {
    let mut servers = tokio::task::JoinSet::new();
    for probe in ports {
        // One socket serves both families: the kernel maps IPv4 into IPv6.
        let address = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), probe.port);
        match probe.protocol {
            Protocol::Tcp => {
                let listener = TcpListener::bind(address)
                    .await
                    .with_context(|| format!("cannot bind {probe}"))?;
                servers.spawn(serve_tcp(listener));
            }
            Protocol::Udp => {
                let socket = UdpSocket::bind(address)
                    .await
                    .with_context(|| format!("cannot bind {probe}"))?;
                servers.spawn(serve_udp(socket));
            }
        }
    }
    while servers.join_next().await.is_some() {}
    Ok(())
}

async fn serve_tcp(listener: TcpListener) {
    loop {
        let Ok((mut stream, seen)) = listener.accept().await else {
            continue;
        };
        tokio::spawn(async move {
            if let Ok(server) = stream.local_addr() {
                // The client may be gone; that is its own affair.
                let _ = stream
                    .write_all(Answer::text(server, seen).as_bytes())
                    .await;
            }
        });
    }
}

async fn serve_udp(socket: UdpSocket) {
    let socket = Arc::new(socket);
    let mut buffer = [0; 2048];
    loop {
        let Ok((_, seen)) = socket.recv_from(&mut buffer).await else {
            continue;
        };
        let server = local_address_towards(seen);
        let _ = socket
            .send_to(Answer::text(server, seen).as_bytes(), seen)
            .await;
    }
}

/// The address that the kernel would answer from. A pod has one of each family.
fn local_address_towards(peer: SocketAddr) -> SocketAddr {
    let unspecified = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0);
    std::net::UdpSocket::bind(unspecified)
        .and_then(|socket| {
            socket.connect(peer)?;
            socket.local_addr()
        })
        .unwrap_or(unspecified)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_carries_both_addresses_in_their_own_family() {
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:80".parse().expect("a literal");
        let seen: SocketAddr = "[::ffff:10.0.0.2]:4711".parse().expect("a literal");
        let answer = Answer::parse(Answer::text(mapped, seen).as_bytes()).expect("our own text");
        assert_eq!(answer.server.to_string(), "10.0.0.1");
        assert_eq!(answer.seen.to_string(), "10.0.0.2");
        assert_eq!(Answer::parse(b"nonsense"), None);
    }
}
