//! BGP messages on the wire.
//!
//! Owns the octets: framing, decoding with the outcome that RFC 7606 prescribes, encoding. Does not
//! own sessions ([`crate::fsm`]) or routes ([`crate::rib`]); it keeps no state between messages.
//!
//! ```text
//! octets --frame--> Frame --decode_control--> Message, or the NOTIFICATION to end with
//!                         --decode_update---> UpdateOutcome
//! Message --encode--> octets     Announcement::write / withdraw / end_of_rib --> octets, packed
//! ```

pub mod attributes;
pub mod capability;
mod control;
mod decode;
mod encode;
mod fault;
mod frame;
pub mod iana;
pub mod message;
mod nlri;
pub mod notification;
mod open;
#[cfg(test)]
pub(crate) mod tests;
mod text;
mod value;
mod write;

pub use attributes::{
    Aggregator, AsPath, Community, ExtendedCommunity, LargeCommunity, Origin, PathAttributes,
    RareAttributes, RawAttribute, SortedSet,
};
pub use capability::{Capability, GracefulRestart, LongLived};
pub use control::decode_control;
pub use decode::{DecodeContext, UpdateOutcome, decode_update};
pub use encode::{
    Announcement, EncodeContext, encode, encode_update, end_of_rib, route_refresh, withdraw,
};
pub use fault::{AttributeFault, Problem};
pub use frame::{Frame, HEADER_LEN, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, frame, message_at};
pub use iana::{AfiSafi, AttributeCode, Cease, MessageType, RefreshKind};
pub use message::{Message, Open, Reach, RouteRefresh, Update};
pub use notification::{Notification, NotificationError};
pub use text::printable;
pub(crate) use write::attributes as encode_attributes;
