//! The first packet of a flow, as far as policy sees it.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::plan::Protocol;

/// The first packet of a flow: source before source NAT, destination after destination NAT. Packets of
/// flows that exist are no matter of policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Packet {
    /// Source address.
    pub source: IpAddr,
    /// Destination address, of the same family.
    pub destination: IpAddr,
    /// What it carries.
    pub payload: Payload,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Payload {
    /// A protocol with ports, and the destination port.
    Port(Protocol, u16),
    /// Another protocol, by its number in the IP header. Only rules without ports allow it.
    Other(u8),
}

impl fmt::Display for Packet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {} {}",
            self.source, self.destination, self.payload
        )
    }
}

impl fmt::Display for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(protocol, port) => write!(f, "{protocol}/{port}"),
            Self::Other(number) => write!(f, "protocol {number}"),
        }
    }
}
