//! Output, pulled: each peer takes messages at its own pace and is told the state of the moment.
//!
//! Owns the order in which a session gets what is due: routes, then End-of-RIB. Does not own when a
//! peer pulls, nor what routes are told in which words ([`super::group`]).

use std::time::Instant;

use bytes::{Bytes, BytesMut};

use crate::rib::group::Sources;
use crate::rib::machine::Rib;
use crate::rib::path::PeerId;
use crate::types::FamilySet;
use crate::wire::{self, RefreshKind};

impl Rib {
    /// The next messages for `peer`, about as many as `budget` prefixes take; `None` when there is
    /// nothing until [`crate::rib::Action::EgressReady`] names the peer, or when the session is
    /// gone.
    pub fn pull(&mut self, now: Instant, peer: PeerId, budget: usize) -> Option<Bytes> {
        let session = self.peers.get_mut(&peer.index)?.session(peer)?;
        let group = self.groups.get_mut(session.egress.group)?;
        let begun = std::mem::take(&mut session.egress.begin_owed);
        if !begun.is_empty() {
            begun
                .iter()
                .for_each(|family| session.egress.end_owed.insert(family));
            return Some(bracket(begun, RefreshKind::Begin));
        }
        let mut sources = Sources {
            table: &mut self.table,
            path_ids: &mut self.path_ids,
        };
        while let Some(octets) = group.next(peer.index, &mut sources, budget) {
            if !octets.is_empty() {
                return Some(octets);
            }
        }
        group.merge(peer.index, &mut sources, budget);
        let ended = std::mem::take(&mut session.egress.end_owed);
        if !ended.is_empty() {
            return Some(bracket(ended, RefreshKind::End));
        }

        // RFC 4724 §4.1: End-of-RIB ends the first dump; after a restart that is the one which
        // follows selection, and which the FIB has seen.
        let settled = self.table.pending() == 0;
        let egress = &mut session.egress;
        if self.deferral.is_none() && (settled || egress.end_of_rib_at <= now) {
            self.owing.remove(&peer.index);
            let owed = std::mem::take(&mut egress.end_of_rib_owed);
            if !owed.is_empty() {
                let mut octets = BytesMut::new();
                owed.iter()
                    .for_each(|family| wire::end_of_rib(family, &mut octets));
                let refresh = std::mem::take(&mut egress.refresh_owed);
                for family in refresh.iter() {
                    group.resend(peer.index, family, &mut self.table);
                    egress.begin_owed.insert(family);
                }
                return Some(octets.freeze());
            }
        }
        egress.idle = true;
        self.untrimmed += 1;
        if self.untrimmed >= self.peers.len() {
            self.trim_journal();
        }
        None
    }

    /// Forgets the part of the journal that nobody will read any more.
    pub(super) fn trim_journal(&mut self) {
        self.untrimmed = 0;
        let slowest = self.groups.iter().filter_map(|group| group.slowest()).min();
        let end = self.table.journal.end();
        let size = self.table.len();
        self.table.journal.trim(slowest.unwrap_or(end), size);
    }
}

/// The messages that enclose routes which are told again (RFC 7313 §4).
fn bracket(families: FamilySet, kind: RefreshKind) -> Bytes {
    let mut octets = BytesMut::new();
    for family in families.iter() {
        wire::route_refresh(family, kind, &mut octets);
    }
    octets.freeze()
}
