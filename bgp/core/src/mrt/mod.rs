//! MRT: tables and messages as records in files (RFC 6396, RFC 8050).
//!
//! Owns the records as values and their octets. Does not own files, nor what is dumped when.
//!
//! A dump of a table is one [`Record::Peers`] and then a [`Record::Rib`] for each prefix. A trace of
//! sessions is any mixture of [`Record::Message`] and [`Record::StateChange`].

#[cfg(any(test, feature = "test-support"))]
mod decode;
mod encode;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

#[cfg(any(test, feature = "test-support"))]
pub use decode::{Malformed, decode};

use crate::fsm::State;
use crate::types::{Asn, NextHop, PathId, Prefix, RouterId};
use crate::wire::PathAttributes;

/// A record. Times are since the beginning of 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Who the peers of the table are that follows (RFC 6396 §4.3.1).
    Peers {
        /// When the table was dumped, in whole seconds.
        time: Duration,
        /// The peers.
        peers: PeerTable,
    },
    /// The paths to one prefix (RFC 6396 §4.3.2).
    Rib {
        /// When the table was dumped, in whole seconds.
        time: Duration,
        /// The paths.
        rib: RibEntries,
    },
    /// A message of a session (RFC 6396 §4.4.2).
    Message {
        /// When it came or went, to the microsecond.
        time: Duration,
        /// Over which session.
        session: Session,
        /// How its UPDATEs are to be read, and whose the message is.
        form: MessageForm,
        /// The message, header included.
        message: Bytes,
    },
    /// A session has changed its state (RFC 6396 §4.4.1).
    StateChange {
        /// When, to the microsecond.
        time: Duration,
        /// Which.
        session: Session,
        /// Its state before.
        from: State,
        /// Its state after.
        to: State,
    },
}

/// The peers that a dump of a table speaks of by number (RFC 6396 §4.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTable {
    /// Our identifier.
    pub collector: RouterId,
    /// What the table is called; often empty.
    pub view: String,
    /// The peers, by number; at most 65,535. Routes of our own need an entry too.
    pub peers: Vec<PeerEntry>,
}

/// A peer in a [`PeerTable`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerEntry {
    /// Its identifier.
    pub router_id: RouterId,
    /// Its address.
    pub address: IpAddr,
    /// Its AS.
    pub asn: Asn,
}

/// The paths to one prefix (RFC 6396 §4.3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibEntries {
    /// Counts the prefixes of a dump, from zero.
    pub sequence: u32,
    /// The prefix.
    pub prefix: Prefix,
    /// Whether the paths have identifiers that mean something (RFC 8050 §4).
    pub with_ids: bool,
    /// The paths; at most 65,535.
    pub paths: Vec<RibPath>,
}

/// One path to a prefix (RFC 6396 §4.3.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RibPath {
    /// The number of its peer in the [`PeerTable`].
    pub peer: u16,
    /// When it came, in whole seconds.
    pub time: Duration,
    /// Its identifier; written only with [`RibEntries::with_ids`].
    pub id: PathId,
    /// Where packets go.
    pub next_hop: NextHop,
    /// The rest of its attributes.
    pub attributes: Arc<PathAttributes>,
}

/// The two ends of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The peer's AS.
    pub peer_asn: Asn,
    /// Our AS.
    pub local_asn: Asn,
    /// The interface that leads to the peer, or zero; the last sixteen bits of it are kept.
    pub interface: u16,
    /// The peer's address.
    pub peer: IpAddr,
    /// Our address, of the family of the peer's.
    pub local: IpAddr,
}

/// Whose a message is and how its UPDATEs are to be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MessageForm {
    /// Whether AS numbers take four octets.
    pub four_octet_as: bool,
    /// Whether paths carry identifiers (RFC 8050 §3).
    pub add_path: bool,
    /// Whether it is ours and not the peer's.
    pub sent: bool,
}

/// Types of records (RFC 6396 §4).
mod record_type {
    pub(super) const TABLE_DUMP_V2: u16 = 13;
    /// With microseconds (RFC 6396 §3).
    pub(super) const BGP4MP_ET: u16 = 17;
}

/// Subtypes of dumps of tables (RFC 6396 §4.3, RFC 8050 §4).
mod dump_subtype {
    pub(super) const PEER_INDEX_TABLE: u16 = 1;
    pub(super) const RIB_IPV4_UNICAST: u16 = 2;
    pub(super) const RIB_IPV6_UNICAST: u16 = 4;
    pub(super) const RIB_IPV4_UNICAST_ADDPATH: u16 = 8;
    pub(super) const RIB_IPV6_UNICAST_ADDPATH: u16 = 10;
}

/// Subtypes of traces of sessions (RFC 6396 §4.4).
mod trace_subtype {
    use super::MessageForm;

    pub(super) const STATE_CHANGE_AS4: u16 = 5;

    /// Forms and the subtypes that say them (RFC 6396 §4.4, RFC 8050 §3).
    pub(super) const MESSAGES: [(u16, MessageForm); 8] = [
        (1, form(false, false, false)),
        (4, form(true, false, false)),
        (6, form(false, false, true)),
        (7, form(true, false, true)),
        (8, form(false, true, false)),
        (9, form(true, true, false)),
        (10, form(false, true, true)),
        (11, form(true, true, true)),
    ];

    const fn form(four_octet_as: bool, add_path: bool, sent: bool) -> MessageForm {
        MessageForm {
            four_octet_as,
            add_path,
            sent,
        }
    }
}

/// States and their numbers (RFC 6396 §4.4.1).
const STATES: [(State, u16); 6] = [
    (State::Idle, 1),
    (State::Connect, 2),
    (State::Active, 3),
    (State::OpenSent, 4),
    (State::OpenConfirm, 5),
    (State::Established, 6),
];
