//! What the peer is told by the machine, in octets and in the records.
//!
//! Routes go another way: from the RIB to the connection's writer.

use bytes::BytesMut;
use caracal_bgp_core::fsm::ConnId;
use caracal_bgp_core::wire::{self, EncodeContext, Message, MessageType};

use crate::session::Session;
use crate::snapshot::ErrorSnapshot;
use crate::status::{Direction, MessageNote, now_ms};

impl Session {
    pub(super) fn send(&mut self, conn: ConnId, message: &Message) {
        let mut octets = BytesMut::new();
        if let Err(error) = wire::encode(message, EncodeContext::default(), &mut octets) {
            tracing::error!(peer = %self.setup.name, %error, "cannot encode a message");
            return;
        }
        self.note_sent(message, octets.len());
        let octets = octets.freeze();
        self.keep_sent(conn, message, &octets);
        if let Some(wire) = self.connections.get(&conn)
            && !wire.connection.write(octets)
        {
            // Keepalives queued before say the same; the send hold timer ends the session.
            tracing::warn!(peer = %self.setup.name, "the peer does not read: message not queued");
        }
    }

    fn note_sent(&self, message: &Message, octets: usize) {
        let board = &self.setup.board;
        let (kind, note) = match message {
            Message::Open(open) => (MessageType::Open, MessageNote::Open(Box::new(open.clone()))),
            Message::Notification(notification) => {
                board.counters.notification(Direction::Sent, notification);
                let error = ErrorSnapshot {
                    at_ms: now_ms(),
                    text: notification.to_string(),
                };
                board.update(|status| status.last_sent_error = Some(error));
                let note = MessageNote::Notification(notification.clone());
                (MessageType::Notification, note)
            }
            Message::Keepalive => (MessageType::Keepalive, MessageNote::Keepalive),
            Message::RouteRefresh(refresh) => {
                (MessageType::RouteRefresh, MessageNote::Refresh(*refresh))
            }
            Message::Update(_) => (MessageType::Update, MessageNote::Routes(1)),
        };
        board
            .counters
            .count(Direction::Sent, kind, 1, octets as u64);
        board.message(Direction::Sent, octets, note);
    }
}
