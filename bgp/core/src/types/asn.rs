//! AS numbers.

use std::fmt;

/// An autonomous system number, always four octets wide in memory (RFC 6793).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Asn(pub u32);

impl Asn {
    /// AS 0 must appear in no OPEN and in no path (RFC 7607).
    pub const ZERO: Self = Self(0);
    /// Stands for a four-octet number where only two octets fit (RFC 6793 §9).
    pub const TRANS: Self = Self(23456);

    /// The number in two octets, or `None` when it needs four.
    pub fn two_octet(self) -> Option<u16> {
        u16::try_from(self.0).ok()
    }

    /// Whether the number is for private use (RFC 6996).
    pub fn is_private(self) -> bool {
        matches!(self.0, 64_512..=65_534 | 4_200_000_000..=4_294_967_294)
    }
}

impl fmt::Display for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Debug for Asn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AS{}", self.0)
    }
}

impl From<u32> for Asn {
    fn from(number: u32) -> Self {
        Self(number)
    }
}
