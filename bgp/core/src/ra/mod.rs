//! Router discovery on the link of an unnumbered peer (RFC 4861).
//!
//! Owns the messages by which two routers on a link learn each other's link-local address, and when
//! they are sent. Does not own sockets, interfaces or sessions: an address that was found is told
//! to the shell, and the rest is BGP's.
//!
//! We advertise with a router lifetime of zero: we are a router that wants to be known, not the
//! default router of anybody (RFC 4861 §6.2.3).

mod link;
#[cfg(test)]
mod tests;
mod wire;

pub use link::{
    Action, Destination, Event, Link, MIN_DELAY_BETWEEN_RAS, NEIGHBOR_LIFETIME, Settings, View,
};
pub use wire::{
    ALL_NODES, ALL_ROUTERS, Advertisement, Envelope, HOP_LIMIT, Invalid, LinkLayer, Message, kind,
};
