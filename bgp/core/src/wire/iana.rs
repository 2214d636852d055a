//! Numbers that IANA registers for BGP, one type per registry; unlisted values are kept.
//!
//! <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml>

use std::fmt;

use crate::types::Family;

/// Any pair of address family and subsequent address family identifiers (RFC 4760 §3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AfiSafi {
    /// Address family identifier.
    pub afi: u16,
    /// Subsequent address family identifier.
    pub safi: u8,
}

impl AfiSafi {
    /// The family, when this speaker routes it.
    pub fn family(self) -> Option<Family> {
        Family::ALL
            .into_iter()
            .find(|family| Self::from(*family) == self)
    }
}

impl From<Family> for AfiSafi {
    fn from(family: Family) -> Self {
        match family {
            Family::Ipv4Unicast => Self { afi: 1, safi: 1 },
            Family::Ipv6Unicast => Self { afi: 2, safi: 1 },
        }
    }
}

impl fmt::Display for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.family() {
            Some(family) => family.fmt(f),
            None => write!(f, "AFI {} SAFI {}", self.afi, self.safi),
        }
    }
}

impl fmt::Debug for AfiSafi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
