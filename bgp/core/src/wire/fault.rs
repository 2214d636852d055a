//! What can be wrong with a path attribute, and the NOTIFICATION for it.

use std::fmt;

use crate::types::Asn;
use crate::wire::iana::{AfiSafi, AttributeCode, UpdateError};
use crate::wire::notification::Notification;

/// One attribute and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeFault {
    /// Which attribute.
    pub code: AttributeCode,
    /// What is wrong.
    pub problem: Problem,
}

/// What is wrong with an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// Its flags contradict its type.
    Flags(u8),
    /// Its value cannot have this many octets.
    Length(usize),
    /// Its value means nothing.
    Value,
    /// It runs beyond the attributes' total length.
    Overrun,
    /// The route cannot do without it.
    Missing,
    /// It was there before; the first one counts (RFC 7606 §3).
    Duplicate,
    /// Only internal peers may send it.
    FromExternal,
    /// A peer with four-octet AS numbers must not send it (RFC 6793 §4.1).
    FromFourOctetSpeaker,
    /// AS 0 (RFC 7607).
    AsZero,
    /// AS_SET or AS_CONFED_SET (RFC 9774 §3).
    AsSet,
    /// A segment of a confederation from outside one (RFC 5065 §5).
    Confederation,
    /// The path does not begin with the peer's AS (RFC 4271 §6.3).
    FirstAs(Asn),
    /// A family that the session does not carry.
    Family(AfiSafi),
    /// No speaker may send it unless all understand it, and we do not.
    UnrecognizedWellKnown,
}

impl AttributeFault {
    /// The NOTIFICATION of RFC 4271 §6.3, should the session have to end for it. `attribute` is
    /// the attribute as it came, flags to value.
    pub(super) fn notification(&self, attribute: &[u8]) -> Notification {
        let (error, data) = match (&self.problem, self.code) {
            (Problem::Missing, code) => {
                return Notification::new(UpdateError::MissingWellKnown, [code.into()]);
            }
            (Problem::Overrun | Problem::Duplicate, _) => {
                return Notification::new(UpdateError::MalformedAttributeList, []);
            }
            (Problem::UnrecognizedWellKnown, _) => (UpdateError::UnrecognizedWellKnown, attribute),
            // RFC 4760 §7: whatever is incorrect in them.
            (_, AttributeCode::MpReach | AttributeCode::MpUnreach) => {
                (UpdateError::OptionalAttribute, attribute)
            }
            (Problem::Flags(_), _) => (UpdateError::AttributeFlags, attribute),
            (_, AttributeCode::AsPath) => {
                return Notification::new(UpdateError::MalformedAsPath, []);
            }
            (Problem::Length(_), _) => (UpdateError::AttributeLength, attribute),
            (_, AttributeCode::Origin) => (UpdateError::InvalidOrigin, attribute),
            (_, AttributeCode::NextHop) => (UpdateError::InvalidNextHop, attribute),
            _ => (UpdateError::OptionalAttribute, attribute),
        };
        Notification::new(error, data)
    }
}

impl fmt::Display for AttributeFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            AttributeCode::Unknown(code) => write!(f, "attribute {code}: ")?,
            code => write!(f, "{code}: ")?,
        }
        match &self.problem {
            Problem::Flags(flags) => write!(f, "flags 0x{flags:02x} contradict the type"),
            Problem::Length(length) => write!(f, "wrong length {length}"),
            Problem::Value => f.write_str("meaningless value"),
            Problem::Overrun => f.write_str("runs beyond the total attribute length"),
            Problem::Missing => f.write_str("missing"),
            Problem::Duplicate => f.write_str("occurs more than once"),
            Problem::FromExternal => f.write_str("sent by an external peer"),
            Problem::FromFourOctetSpeaker => {
                f.write_str("sent by a peer with four-octet AS numbers")
            }
            Problem::AsZero => f.write_str("holds AS 0"),
            Problem::AsSet => f.write_str("holds an AS_SET"),
            Problem::Confederation => f.write_str("holds a confederation segment"),
            Problem::FirstAs(asn) => write!(f, "does not begin with the peer's AS {asn}"),
            Problem::Family(family) => write!(f, "family {family} is not negotiated"),
            Problem::UnrecognizedWellKnown => f.write_str("unrecognized but well-known"),
        }
    }
}
