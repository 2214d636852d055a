//! The connections of a peer: how they are dialled, what they are signed with, when they are let go.
//!
//! Owns no decision about which of them stays: that is the machine's.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU8;
use std::sync::Arc;
use std::time::Instant;

use caracal_bgp_core::fsm::{CloseWhy, ConnId, Event, Role};
use caracal_bgp_core::types::PeerKind;
use tokio::net::TcpStream;

use crate::config::Ttl;
use crate::connection::{ConnEvent, Connection};
use crate::error::Error;
use crate::net::{Hops, KeyHandle, Rekeyed, Transport};
use crate::session::Session;
use crate::session::rotation::Rotation;
use crate::session::wire_facts::WireFacts;
use crate::status::EventNote;

/// A connection, and what is known of it beside.
pub(super) struct Wire {
    pub(super) connection: Connection,
    /// None where the socket was gone before it could be held.
    key: Option<KeyHandle>,
    pub(super) facts: WireFacts,
}

impl Session {
    pub(super) fn connected(&mut self, stream: TcpStream, role: Role) {
        // What we dialled was readied before its SYN.
        let adopted = match role {
            Role::Active => Ok(()),
            Role::Passive => self.transport().adopt(&stream),
        };
        let ends = adopted.and_then(|()| {
            let doing = "find the ends of a connection";
            let local = stream.local_addr();
            let ends =
                local.and_then(|local| Ok((canonical(local), canonical(stream.peer_addr()?))));
            ends.map_err(|source| Error::Transport { doing, source })
        });
        let (local, remote) = match ends {
            Ok(ends) => ends,
            Err(error) => {
                tracing::warn!(peer = %self.setup.name, %error, "cannot use a connection");
                let text = format!("cannot use a connection: {error}");
                self.setup.board.event(EventNote::Other(text));
                if role == Role::Active {
                    let why = CloseWhy::Other(error.to_string());
                    self.handle(Event::DialFailed { why }, None);
                }
                return;
            }
        };
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let key = KeyHandle::of(&stream).ok();
        let events = self.events.clone();
        let connection = Connection::spawn(
            conn,
            local.ip(),
            stream,
            self.setup.machine.max_receive_len(),
            events,
            self.setup.rib.clone(),
            Arc::clone(&self.setup.board),
        );
        let wire = Wire {
            connection,
            key,
            facts: WireFacts::new(local, remote),
        };
        self.connections.insert(conn, wire);
        self.handle(Event::Connected { conn, role }, None);
    }

    pub(super) fn let_go(&mut self, conn: ConnId) {
        if let Some(wire) = self.connections.remove(&conn) {
            self.closing.push(wire.connection.close());
        }
    }

    pub(super) fn dial(&mut self) {
        self.cancel_dial();
        let transport = self.transport();
        let (local, remote) = (self.setup.config.local_address, self.setup.remote);
        let events = self.events.clone();
        let task = tokio::spawn(async move {
            let result = transport.dial(local, remote).await;
            // A peer that has ended needs no answer.
            let _ = events.send(ConnEvent::Dialled(result)).await;
        });
        self.dial = Some(task.abort_handle());
    }

    pub(super) fn cancel_dial(&mut self) {
        if let Some(dial) = self.dial.take() {
            dial.abort();
        }
    }

    /// The keys of living connections.
    pub(super) fn keys(&self) -> impl Iterator<Item = &KeyHandle> {
        self.connections
            .values()
            .filter_map(|wire| wire.key.as_ref())
    }

    /// What the connections of the peer have in common.
    pub(super) fn transport(&self) -> Transport {
        let config = &self.setup.config;
        let hops = match config.ttl {
            Ttl::Automatic => self.automatic_hops(),
            Ttl::Send(ttl) => NonZeroU8::new(ttl).map_or(Hops::System, Hops::Limit),
            Ttl::Security { hops } => Hops::security(hops),
        };
        Transport {
            hops,
            auth: config.authentication.clone(),
        }
    }

    /// RFC 4271 §5 has external peers one hop away: with TTL 1 the session cannot creep around a
    /// dead link.
    fn automatic_hops(&self) -> Hops {
        let external = self.setup.machine.peer_kind() == PeerKind::External;
        let table = self.setup.interfaces.current();
        let ttl = external
            .then(|| table.external_ttl(self.setup.remote.ip()))
            .flatten();
        ttl.and_then(NonZeroU8::new)
            .map_or(Hops::System, Hops::Limit)
    }

    /// Has living connections take over the keys that are configured now, unless they `end` for another
    /// reason. Whether they can.
    pub(super) fn change_keys(&mut self, end: bool) -> bool {
        let wanted = &self.setup.config.authentication;
        if end || self.keys().next().is_none() {
            // Last words are signed as all before them.
            self.rotation = Rotation::new(wanted);
            return true;
        }
        let live = self.rotation.turn_to(wanted);
        if live {
            self.rekey();
        }
        live
    }

    /// Brings living connections to the keys that are configured now.
    pub(super) fn rekey(&mut self) {
        let wanted = &self.setup.config.authentication;
        let held = self.rotation.held();
        let rekeyed = |handle: &KeyHandle| match handle.rekey(held, wanted) {
            Ok(progress) => Some(progress),
            Err(error) => {
                tracing::error!(peer = %self.setup.name, %error, "cannot change the key");
                let text = format!("cannot change the key of the session: {error}");
                self.setup.board.event(EventNote::Other(text));
                None
            }
        };
        let answers: Vec<Option<Rekeyed>> = self.keys().map(rekeyed).collect();
        self.rotation.tried(wanted, answers, Instant::now());
    }
}

/// An address without the IPv6 form of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(v4) => SocketAddr::new(v4.into(), address.port()),
        IpAddr::V6(_) => address,
    }
}
