//! Addresses in the notations that manifests use beside plain ones: `address[:port]` of a peer and
//! ranges of a pool.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use ipnetwork::IpNetwork;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use crate::schema;

/// Where a peer listens: `10.0.1.1`, `10.0.1.1:1790`, `fd00::1` or `[fd00::1]:1790`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PeerAddress {
    /// Address of the remote speaker.
    pub ip: IpAddr,
    /// TCP port, where it differs from the one that the configuration names.
    pub port: Option<u16>,
}

/// Why a text is no [`PeerAddress`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no peer address; expected an IP address, with a port as 10.0.1.1:1790 or [fd00::1]:1790"
)]
pub struct InvalidPeerAddress {
    /// The text as given.
    pub text: String,
}

impl FromStr for PeerAddress {
    type Err = InvalidPeerAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(PeerAddress { ip, port: None });
        }
        match text.parse::<SocketAddr>() {
            Ok(socket) if socket.port() != 0 => Ok(PeerAddress {
                ip: socket.ip(),
                port: Some(socket.port()),
            }),
            _ => Err(InvalidPeerAddress {
                text: text.to_owned(),
            }),
        }
    }
}

impl TryFrom<String> for PeerAddress {
    type Error = InvalidPeerAddress;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<PeerAddress> for String {
    fn from(address: PeerAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => SocketAddr::new(self.ip, port).fmt(f),
            None => self.ip.fmt(f),
        }
    }
}

impl JsonSchema for PeerAddress {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PeerAddress".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema::peer_address(generator)
    }
}

/// Addresses of one family, both ends included: `10.64.0.0-10.64.0.15`, `fd00:64::/124` or one
/// address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    first: IpAddr,
    last: IpAddr,
}

/// Why a text is no [`AddressRange`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no address range; expected first-last of one family, a CIDR or an address")]
pub struct InvalidAddressRange {
    /// The text as given.
    pub text: String,
}

impl AddressRange {
    /// Lowest address.
    pub fn first(&self) -> IpAddr {
        self.first
    }

    /// Highest address; never below [`AddressRange::first`] and of the same family.
    pub fn last(&self) -> IpAddr {
        self.last
    }
}

impl FromStr for AddressRange {
    type Err = InvalidAddressRange;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidAddressRange {
            text: text.to_owned(),
        };
        let (first, last) = if let Some((first, last)) = text.split_once('-') {
            (
                first.parse().map_err(|_| invalid())?,
                last.parse().map_err(|_| invalid())?,
            )
        } else {
            let network: IpNetwork = text.parse().map_err(|_| invalid())?;
            (network.network(), network.broadcast())
        };
        match (first, last) {
            (IpAddr::V4(a), IpAddr::V4(b)) if a <= b => Ok(AddressRange { first, last }),
            (IpAddr::V6(a), IpAddr::V6(b)) if a <= b => Ok(AddressRange { first, last }),
            _ => Err(invalid()),
        }
    }
}

impl TryFrom<String> for AddressRange {
    type Error = InvalidAddressRange;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> Self {
        range.to_string()
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            self.first.fmt(f)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

impl JsonSchema for AddressRange {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AddressRange".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        schema::address_range(generator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_addresses_round_trip() {
        for text in ["10.0.1.1", "10.0.1.1:1790", "fd00::1", "[fd00::1]:1790"] {
            assert_eq!(text.parse::<PeerAddress>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "leaf-1",
            "10.0.1.1:0",
            "10.0.1.1:70000",
            "10.0.1.0/31",
            "fd00::1:",
        ] {
            assert!(text.parse::<PeerAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn ranges_are_ends_cidrs_or_single_addresses() {
        for (text, first, last) in [
            ("10.64.0.0-10.64.0.15", "10.64.0.0", "10.64.0.15"),
            ("10.64.0.0/28", "10.64.0.0", "10.64.0.15"),
            ("10.64.0.9", "10.64.0.9", "10.64.0.9"),
            ("fd00:64::/124", "fd00:64::", "fd00:64::f"),
        ] {
            let range: AddressRange = text.parse().unwrap();
            assert_eq!(
                (range.first().to_string(), range.last().to_string()),
                (first.into(), last.into())
            );
        }
        for text in [
            "10.0.0.2-10.0.0.1",
            "10.0.0.1-fd00::1",
            "10.0.0.1-",
            "x",
            "",
        ] {
            assert!(text.parse::<AddressRange>().is_err(), "{text:?}");
        }
    }
}
