//! The BGP Monitoring Protocol: what a speaker tells a monitoring station (RFC 7854).
//!
//! Owns the messages as values and their octets, for Adj-RIB-In, Adj-RIB-Out (RFC 8671) and Loc-RIB
//! (RFC 9069), and what one station is still to be told ([`Feed`]). Does not own the connection to a
//! station, which only listens.
//!
//! ```text
//! Message --encode--> octets      UPDATEs --route_monitoring / received_update--> octets
//! what changed --> Feed --pulled, routes looked up in the RIB--> octets
//! ```

#[cfg(any(test, feature = "test-support"))]
mod decode;
mod encode;
mod feed;
mod peer;
mod statistics;
#[cfg(test)]
mod tests;

use bytes::Bytes;

#[cfg(any(test, feature = "test-support"))]
pub use decode::{Malformed, decode};
pub use encode::{received_update, route_monitoring};
pub use feed::{Feed, SessionFacts, Wanted};
pub use peer::{Instance, PeerDownReason, PeerHeader, PeerUp, Table};
pub use statistics::Statistic;

/// The version that this module speaks (RFC 7854 §4.1).
const VERSION: u8 = 3;
/// Version, length, type.
const HEADER_LEN: usize = 6;

/// A BMP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Routes of a peer, or of the Loc-RIB (RFC 7854 §4.6).
    RouteMonitoring {
        /// Whose routes, and when they came.
        peer: PeerHeader,
        /// One BGP UPDATE, header included.
        update: Bytes,
    },
    /// Counts (RFC 7854 §4.8).
    Statistics {
        /// Of what.
        peer: PeerHeader,
        /// The counts.
        values: Vec<Statistic>,
    },
    /// A session has ended, or is no longer told of (RFC 7854 §4.9).
    PeerDown {
        /// Which.
        peer: PeerHeader,
        /// Why.
        reason: PeerDownReason,
    },
    /// A session has come up, or the Loc-RIB is told of from now on (RFC 7854 §4.10).
    PeerUp(Box<PeerUp>),
    /// The first message on a connection (RFC 7854 §4.3).
    Initiation(Initiation),
    /// The last message on a connection (RFC 7854 §4.5).
    Termination {
        /// Why it ends.
        reason: TerminationReason,
        /// More about it; may be empty.
        text: String,
    },
}

/// What a speaker says of itself (RFC 7854 §4.4).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Initiation {
    /// Program and version: sysDescr of the MIB.
    pub system_description: String,
    /// Host name: sysName of the MIB.
    pub system_name: String,
    /// Anything else; empty is left out.
    pub text: String,
}

/// Why a speaker ends a connection (RFC 7854 §4.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TerminationReason {
    /// An operator ended it; it may come back.
    AdministrativelyClosed,
    /// No reason is given.
    Unspecified,
    /// There is no memory or the like for it.
    OutOfResources,
    /// The station has another connection with this speaker.
    RedundantConnection,
    /// An operator ended it for good.
    PermanentlyClosed,
    /// A value that the registry did not list when this was written.
    Unknown(u16),
}

impl TerminationReason {
    const CODES: [(Self, u16); 5] = [
        (Self::AdministrativelyClosed, 0),
        (Self::Unspecified, 1),
        (Self::OutOfResources, 2),
        (Self::RedundantConnection, 3),
        (Self::PermanentlyClosed, 4),
    ];

    fn code(self) -> u16 {
        match self {
            Self::Unknown(code) => code,
            _ => {
                let mut codes = Self::CODES.iter();
                let found = codes.find(|(reason, _)| *reason == self);
                found.expect("every listed reason has a code").1
            }
        }
    }
}

/// Message types (RFC 7854 §4.1).
mod message_type {
    pub(super) const ROUTE_MONITORING: u8 = 0;
    pub(super) const STATISTICS: u8 = 1;
    pub(super) const PEER_DOWN: u8 = 2;
    pub(super) const PEER_UP: u8 = 3;
    pub(super) const INITIATION: u8 = 4;
    pub(super) const TERMINATION: u8 = 5;
}

/// Types of information in Initiation and Termination messages (RFC 7854 §§4.4, 4.5). Those of Peer
/// Up messages are a registry of their own (RFC 9736), which agrees on the string.
mod info {
    pub(super) const STRING: u16 = 0;
    pub(super) const REASON: u16 = 1;
    pub(super) const SYSTEM_DESCRIPTION: u16 = 1;
    pub(super) const SYSTEM_NAME: u16 = 2;
    /// RFC 9069 §5.2.1.
    pub(super) const TABLE_NAME: u16 = 3;
    /// RFC 8671 §6.3.1.
    pub(super) const ADMIN_LABEL: u16 = 4;
}
