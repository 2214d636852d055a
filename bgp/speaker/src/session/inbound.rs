//! What the peer says: from frames to the machine's events and the RIB's.

use std::time::Instant;

use caracal_bgp_core::fsm::{ConnId, Event, Incoming};
use caracal_bgp_core::rib::{Event as RibEvent, PeerId};
use caracal_bgp_core::wire::{
    self, AttributeFault, Frame, HEADER_LEN, Message, MessageType, RefreshKind, RouteRefresh,
    Update, UpdateOutcome,
};
use tokio::sync::mpsc;

use crate::repeats::Line;
use crate::rib_thread::Input;
use crate::session::wire_facts::family_of;
use crate::session::{Delivery, Established, Session};
use crate::snapshot::ErrorSnapshot;
use crate::status::{Direction, MessageNote, UpdateNote, now_ms};

impl Session {
    /// Gives the RIB what waits for it, as far as it has room.
    pub(super) fn hand_over(&mut self, permit: mpsc::Permit<'_, Input>, rib: &mpsc::Sender<Input>) {
        if let Some(input) = self.outbox.pop_front() {
            permit.send(input);
        }
        while !self.outbox.is_empty()
            && let Ok(permit) = rib.try_reserve()
            && let Some(input) = self.outbox.pop_front()
        {
            permit.send(input);
        }
    }

    pub(super) fn framed(&mut self, conn: ConnId, frame: &Frame, arrived: Instant) {
        let octets = frame.body.len() + HEADER_LEN;
        let counters = &self.setup.board.counters;
        counters.count(Direction::Received, frame.kind, 1, octets as u64);
        self.keep_received(conn, frame);
        if frame.kind == MessageType::Update {
            return self.framed_update(conn, frame, arrived);
        }
        let message = match wire::decode_control(frame) {
            Ok(message) => message,
            Err(notification) => {
                self.note_malformed(notification.to_string(), &frame.body);
                return self.handle(Event::Malformed { conn, notification }, None);
            }
        };
        self.note_received(&message, octets);
        let event = match &message {
            Message::RouteRefresh(refresh) => self.refresh_event(*refresh),
            _ => None,
        };
        let message = message.into();
        self.handle(
            Event::Received { conn, message },
            event.map(Delivery::Event),
        );
    }

    fn framed_update(&mut self, conn: ConnId, frame: &Frame, arrived: Instant) {
        let established = self.established.as_ref().filter(|up| up.conn == conn);
        let Some(Established { id, context, .. }) = established else {
            // The machine knows what an UPDATE means here. It may be what brings the session up;
            // only then are there terms to decode it by.
            let message = Incoming::Update;
            self.handle(Event::Received { conn, message }, None);
            if self.established.as_ref().is_some_and(|up| up.conn == conn) {
                self.framed_update(conn, frame, arrived);
            }
            return;
        };
        let id = *id;
        let outcome = wire::decode_update(&frame.body, context);
        self.record(conn, frame, family_of(&outcome));
        let update = match outcome {
            UpdateOutcome::Valid(update) => update,
            UpdateOutcome::ValidWithDiscards { update, discarded } => {
                self.discarded(&discarded, frame);
                update
            }
            UpdateOutcome::TreatAsWithdraw { withdrawn, reason } => {
                let line = self.malformed.happened(Instant::now(), reason.to_string());
                self.log_malformed(line);
                self.setup.board.counters.treated_as_withdraw();
                self.note_malformed(format!("treated as withdrawal, {reason}"), &frame.body);
                Update {
                    withdrawn,
                    ..Update::default()
                }
            }
            UpdateOutcome::Reset(notification) => {
                self.note_malformed(format!("session reset, {notification}"), &frame.body);
                return self.handle(Event::Malformed { conn, notification }, None);
            }
        };
        let note = MessageNote::Update(summary(&update));
        let octets = frame.body.len() + HEADER_LEN;
        self.setup.board.message(Direction::Received, octets, note);
        let delivery = Delivery::Update(id, update, arrived);
        let message = Incoming::Update;
        self.handle(Event::Received { conn, message }, Some(delivery));
    }

    /// Writes what is due of the lines that the peer causes.
    pub(super) fn log_repeats(&mut self, now: Instant) {
        let line = self.malformed.handle_timeout(now);
        self.log_malformed(line);
        let line = self.discarded.handle_timeout(now);
        self.log_discarded(line);
    }

    /// The same at the end of all.
    pub(super) fn log_rest(&mut self) {
        let line = self.malformed.rest();
        self.log_malformed(line);
        let line = self.discarded.rest();
        self.log_discarded(line);
    }

    fn log_malformed(&self, line: Option<Line<String>>) {
        if let Some(Line { times, what }) = line {
            let peer = &self.setup.name;
            tracing::warn!(%peer, reason = %what, times, "malformed UPDATE treated as withdrawal");
        }
    }

    fn log_discarded(&self, line: Option<Line<String>>) {
        if let Some(Line { times, what }) = line {
            let peer = &self.setup.name;
            tracing::warn!(%peer, fault = %what, times, "attribute discarded");
        }
    }

    fn discarded(&mut self, faults: &[AttributeFault], frame: &Frame) {
        let counters = &self.setup.board.counters;
        counters.attributes_discarded(faults.len());
        let now = Instant::now();
        for fault in faults {
            let line = self.discarded.happened(now, fault.to_string());
            self.log_discarded(line);
            self.note_malformed(format!("attribute discarded, {fault}"), &frame.body);
        }
    }

    fn note_malformed(&self, why: String, body: &[u8]) {
        let note = MessageNote::malformed(why, body);
        let octets = body.len() + HEADER_LEN;
        self.setup.board.message(Direction::Received, octets, note);
    }

    fn note_received(&self, message: &Message, octets: usize) {
        let board = &self.setup.board;
        let note = match message {
            Message::Open(open) => MessageNote::Open(Box::new(open.clone())),
            Message::Notification(notification) => {
                board
                    .counters
                    .notification(Direction::Received, notification);
                let error = ErrorSnapshot {
                    at_ms: now_ms(),
                    text: notification.to_string(),
                };
                board.update(|status| status.last_received_error = Some(error));
                MessageNote::Notification(notification.clone())
            }
            Message::Keepalive => MessageNote::Keepalive,
            Message::RouteRefresh(refresh) => MessageNote::Refresh(*refresh),
            Message::Update(update) => MessageNote::Update(summary(update)),
        };
        board.message(Direction::Received, octets, note);
    }

    /// What a ROUTE-REFRESH means to the RIB; nothing for families that are not routed here, and
    /// for kinds that nobody has defined (RFC 7313 §4).
    fn refresh_event(&self, refresh: RouteRefresh) -> Option<RibEvent> {
        let peer: PeerId = self.established.as_ref()?.id;
        let family = refresh.family.family()?;
        match refresh.kind {
            RefreshKind::Request => Some(RibEvent::Refresh { peer, family }),
            RefreshKind::Begin => Some(RibEvent::RefreshBegun { peer, family }),
            RefreshKind::End => Some(RibEvent::RefreshEnded { peer, family }),
            RefreshKind::Unknown(_) => None,
        }
    }
}

fn summary(update: &Update) -> UpdateNote {
    let count = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
    UpdateNote {
        announced: update
            .reach
            .iter()
            .map(|reach| count(reach.nlri.len()))
            .sum(),
        withdrawn: update
            .withdrawn
            .iter()
            .map(|(_, nlri)| count(nlri.len()))
            .sum(),
        end_of_rib: update.end_of_rib,
    }
}
