//! BGP messages on the wire.
//!
//! Owns the octets: framing, decoding with the outcome that RFC 7606 prescribes, encoding. Does not
//! own sessions ([`crate::fsm`]) or routes ([`crate::rib`]); it keeps no state between messages.

pub mod attributes;
pub mod iana;
pub mod message;
pub mod notification;

pub use attributes::{
    Aggregator, AsPath, Community, ExtendedCommunity, LargeCommunity, Origin, PathAttributes,
    RawAttribute,
};
pub use iana::{AfiSafi, AttributeCode, Cease, MessageType, RefreshKind};
pub use message::{Capability, GracefulRestart, Message, Open, Reach, RouteRefresh, Update};
pub use notification::{Notification, NotificationError};
