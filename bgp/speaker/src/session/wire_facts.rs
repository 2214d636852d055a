//! What stations and records say of a connection: its ends, its OPENs, how its UPDATEs are read.
//!
//! Owns the copies that are kept for them. Does not own what becomes of them ([`crate::export`]).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use caracal_bgp_core::bmp::{PeerDownReason, SessionFacts};
use caracal_bgp_core::fsm::{Action, ConnId, Negotiated, State};
use caracal_bgp_core::mrt::{MessageForm, Session as Ends};
use caracal_bgp_core::rib::PeerId;
use caracal_bgp_core::types::{Asn, Family, Nlri};
use caracal_bgp_core::wire::{Frame, HEADER_LEN, Message, MessageType, UpdateOutcome};

use crate::config::PeerAs;
use crate::export::MessageFacts;
use crate::session::Session;

/// What is kept of a connection.
#[derive(Clone, Debug)]
pub(super) struct WireFacts {
    pub(super) local: SocketAddr,
    pub(super) remote: SocketAddr,
    pub(super) sent_open: Bytes,
    pub(super) received_open: Bytes,
}

impl WireFacts {
    pub(super) fn new(local: SocketAddr, remote: SocketAddr) -> Self {
        Self {
            local,
            remote,
            sent_open: Bytes::new(),
            received_open: Bytes::new(),
        }
    }
}

impl Session {
    /// A session that has come up, as stations are told of it.
    pub(super) fn facts(
        &self,
        conn: ConnId,
        id: PeerId,
        negotiated: &Negotiated,
        interface: Option<u32>,
    ) -> Option<Arc<SessionFacts>> {
        let wire = self.connections.get(&conn)?.facts.clone();
        Some(Arc::new(SessionFacts {
            id,
            negotiated: negotiated.clone(),
            local: wire.local,
            remote: wire.remote,
            interface,
            sent_open: wire.sent_open,
            received_open: wire.received_open,
            since: std::time::Duration::from_millis(crate::status::now_ms()),
            name: self.setup.name.0.clone(),
        }))
    }

    /// Keeps the OPEN that came, and has records made of what came.
    pub(super) fn keep_received(&mut self, conn: ConnId, frame: &Frame) {
        if frame.kind == MessageType::Open
            && let Some(wire) = self.connections.get_mut(&conn)
        {
            wire.facts.received_open = whole(frame);
        }
        // UPDATEs are recorded once it is known what they are about.
        if frame.kind != MessageType::Update {
            self.record(conn, frame, None);
        }
    }

    /// Keeps the OPEN that was sent.
    pub(super) fn keep_sent(&mut self, conn: ConnId, message: &Message, octets: &Bytes) {
        if let (Message::Open(_), Some(wire)) = (message, self.connections.get_mut(&conn)) {
            wire.facts.sent_open = octets.clone();
        }
    }

    /// Has a record made of a message, if anybody records. `family` is that of its routes.
    pub(super) fn record(&self, conn: ConnId, frame: &Frame, family: Option<Family>) {
        let trace = &self.setup.trace;
        if !trace.is_wanted() {
            return;
        }
        let up = self.established.as_ref().filter(|up| up.conn == conn);
        let form = MessageForm {
            four_octet_as: up.is_none_or(|up| up.context.four_octet_as),
            // RFC 8050 §3: it is about the routes in this message.
            add_path: up
                .zip(family)
                .is_some_and(|(up, family)| up.context.add_path.contains(family)),
            sent: false,
        };
        let session = self.ends(Some(conn));
        trace.message(MessageFacts { session, form }, whole(frame));
    }

    /// Has a record made of a change of state, if anybody records.
    pub(super) fn record_state(&self, from: State, to: State) {
        if self.setup.trace.is_wanted() {
            self.setup.trace.state(self.ends(None), from, to);
        }
    }

    /// Why the session ends, as stations are told it, if it ends by these actions.
    pub(super) fn down_reason(&self, actions: &[Action]) -> Option<PeerDownReason> {
        let conn = self.established.as_ref()?.conn;
        let why = actions.iter().find_map(|action| match action {
            Action::Down { why, .. } => Some(why),
            _ => None,
        })?;
        let sent = actions.iter().find_map(|action| match action {
            Action::Send {
                conn: on,
                message: Message::Notification(notification),
            } if *on == conn => Some(notification.clone()),
            _ => None,
        });
        Some(PeerDownReason::of(why, sent))
    }

    /// Both ends, of one connection or of any that there is.
    fn ends(&self, conn: Option<ConnId>) -> Ends {
        let machine = &self.setup.machine;
        let any = || self.connections.values().next();
        let wire = conn
            .and_then(|conn| self.connections.get(&conn))
            .or_else(any);
        let wire = wire.map(|wire| &wire.facts);
        let peer = wire.map_or(self.setup.remote, |wire| wire.remote);
        let unknown = match peer.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let configured = match self.setup.config.peer_as {
            PeerAs::Number(asn) => asn,
            PeerAs::Internal => machine.local_asn,
            // Nobody knows before its OPEN has come.
            PeerAs::External => Asn(0),
        };
        let interface = match peer {
            SocketAddr::V6(v6) => v6.scope_id(),
            SocketAddr::V4(_) => 0,
        };
        Ends {
            peer_asn: self.peer_asn.unwrap_or(configured),
            local_asn: machine.local_asn,
            interface: u16::try_from(interface & u32::from(u16::MAX)).unwrap_or_default(),
            peer: peer.ip(),
            local: wire.map_or(unknown, |wire| wire.local.ip()),
        }
    }
}

/// The family of the routes in an UPDATE, as far as it could be read.
pub(super) fn family_of(outcome: &UpdateOutcome) -> Option<Family> {
    let first = |withdrawn: &[(Family, Vec<Nlri>)]| withdrawn.first().map(|(family, _)| *family);
    match outcome {
        UpdateOutcome::Valid(update) | UpdateOutcome::ValidWithDiscards { update, .. } => {
            let reach = update.reach.first().map(|reach| reach.family);
            reach.or(first(&update.withdrawn)).or(update.end_of_rib)
        }
        UpdateOutcome::TreatAsWithdraw { withdrawn, .. } => first(withdrawn),
        UpdateOutcome::Reset(_) => None,
    }
}

/// A message as it came, header included.
fn whole(frame: &Frame) -> Bytes {
    let mut octets = BytesMut::with_capacity(HEADER_LEN + frame.body.len());
    octets.put_bytes(0xff, 16);
    let length = u16::try_from(HEADER_LEN + frame.body.len());
    octets.put_u16(length.expect("a message that came has a length of two octets"));
    octets.put_u8(frame.kind.into());
    octets.put_slice(&frame.body);
    octets.freeze()
}
