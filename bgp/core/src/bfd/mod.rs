//! Bidirectional Forwarding Detection (RFC 5880) as a pure machine.
//!
//! Owns what a BFD system knows and decides: [`Packet`] turns octets into control packets and back,
//! [`Demux`] finds the session of a packet and checks its path (RFC 5881, RFC 5883), [`Session`]
//! runs one session. Does not own sockets, clocks or randomness, and does not know who asked for a
//! session.
//!
//! Asynchronous mode is complete, and a peer in Demand mode is honoured; the Demand bit is never
//! set by us. The Echo function is left out: Required Min Echo RX Interval is sent as zero, so no
//! peer sends echoes either (RFC 5880 §6.8.1).

mod auth;
mod demux;
mod event;
mod iana;
mod interval;
mod packet;
mod session;
#[cfg(test)]
mod tests;

pub use auth::{Auth, AuthKind, Key, Secret};
pub use demux::{Arrival, Demux, Hops, Path};
pub use event::{Action, Change, Config, Event, Remote, Timing, Why};
pub use iana::{AuthType, Diag, State};
pub use interval::Interval;
pub use packet::{AuthSection, Discard, MAX_PACKET_LEN, Packet, Password};
pub use session::Session;

/// What cannot be configured, and why.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An interval of zero, or of more than 32 bits of microseconds.
    #[error("an interval of {0:?} cannot be told to a peer (1 µs to 4294 s)")]
    Interval(std::time::Duration),
    /// Detect Mult of zero.
    #[error("a detect multiplier of zero would never see a peer up")]
    DetectMult,
    /// A key that is empty or longer than its algorithm takes.
    #[error("key {id} has {octets} octets: {kind} takes 1 to {longest}")]
    Secret {
        /// Key ID.
        id: u8,
        /// Its length.
        octets: usize,
        /// The algorithm.
        kind: AuthKind,
        /// What the algorithm takes.
        longest: usize,
    },
    /// Two keys with one ID.
    #[error("there are two keys with ID {0}")]
    DuplicateKey(u8),
    /// The key to send with is not among the keys.
    #[error("key {0} is to be sent with, but there is no such key")]
    NoSuchKey(u8),
}
