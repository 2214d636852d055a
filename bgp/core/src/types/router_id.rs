//! BGP identifiers.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::error::Error;

/// A BGP identifier: four octets, unique within an AS, not necessarily an address (RFC 6286).
///
/// Compared as an unsigned integer, as collision resolution and best path ask.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RouterId(pub u32);

impl RouterId {
    /// The identifier as the dotted quad that people write.
    pub fn as_ipv4(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.0)
    }
}

impl fmt::Display for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ipv4().fmt(f)
    }
}

impl fmt::Debug for RouterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_ipv4().fmt(f)
    }
}

impl From<Ipv4Addr> for RouterId {
    fn from(address: Ipv4Addr) -> Self {
        Self(address.to_bits())
    }
}

impl FromStr for RouterId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let address: Ipv4Addr = text
            .parse()
            .map_err(|_| Error::ParseRouterId { text: text.into() })?;
        Ok(address.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn router_ids_compare_as_integers_and_show_as_dotted_quads() {
        let low: RouterId = "9.0.0.1".parse().unwrap();
        let high: RouterId = "10.0.0.1".parse().unwrap();
        assert!(low < high);
        assert_eq!(high.to_string(), "10.0.0.1");
        assert!("10".parse::<RouterId>().is_err());
    }
}
