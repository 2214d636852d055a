//! BGP messages on the wire.
//!
//! Owns the octets: framing, decoding with the outcome that RFC 7606 prescribes, encoding. Does not
//! own sessions ([`crate::fsm`]) or routes ([`crate::rib`]); it keeps no state between messages.

pub mod attributes;
pub mod iana;

pub use attributes::{
    Aggregator, AsPath, Community, ExtendedCommunity, LargeCommunity, Origin, PathAttributes,
    RawAttribute,
};
pub use iana::AfiSafi;
