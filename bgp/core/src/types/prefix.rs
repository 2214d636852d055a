//! IP prefixes without host bits.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::Error;
use crate::types::Family;

/// An IP prefix whose host bits are zero.
///
/// Ordered by family, then address, then length, so that a covering prefix sorts directly before
/// what it covers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix(Bits);

// std's address types are byte arrays: a Prefix stays 18 octets, where a u128 would make it 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Bits {
    V4(Ipv4Addr, u8),
    V6(Ipv6Addr, u8),
}

impl Hash for Prefix {
    // Numbers are hashed several times as fast as the slices that a derive would take them for, and
    // every route of a table is looked up by its prefix.
    fn hash<H: Hasher>(&self, state: &mut H) {
        match self.0 {
            Bits::V4(address, len) => {
                state.write_u64(u64::from(address.to_bits()) << 8 | u64::from(len));
            }
            Bits::V6(address, len) => {
                state.write_u128(address.to_bits());
                state.write_u8(len);
            }
        }
    }
}

impl Prefix {
    /// The prefix of `len` bits that holds `address`; host bits are cleared.
    ///
    /// # Errors
    /// [`Error::PrefixLength`] when `len` exceeds the width of the family.
    pub fn new(address: IpAddr, len: u8) -> Result<Self, Error> {
        match address {
            IpAddr::V4(v4) => Self::v4(v4, len),
            IpAddr::V6(v6) => Self::v6(v6, len),
        }
        .ok_or(Error::PrefixLength { address, len })
    }

    /// The IPv4 prefix of `len` bits that holds `address`; `None` when `len` exceeds 32.
    pub fn v4(address: Ipv4Addr, len: u8) -> Option<Self> {
        (len <= 32).then(|| Self(Bits::V4(mask_v4(address, len), len)))
    }

    /// The IPv6 prefix of `len` bits that holds `address`; `None` when `len` exceeds 128.
    pub fn v6(address: Ipv6Addr, len: u8) -> Option<Self> {
        (len <= 128).then(|| Self(Bits::V6(mask_v6(address, len), len)))
    }

    /// The prefix that holds `address` alone.
    pub fn host(address: IpAddr) -> Self {
        Self(match address {
            IpAddr::V4(v4) => Bits::V4(v4, 32),
            IpAddr::V6(v6) => Bits::V6(v6, 128),
        })
    }

    /// The lowest address.
    pub fn addr(&self) -> IpAddr {
        match self.0 {
            Bits::V4(address, _) => address.into(),
            Bits::V6(address, _) => address.into(),
        }
    }

    /// The number of significant bits.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length in bits, not a count of items"
    )]
    pub fn len(&self) -> u8 {
        match self.0 {
            Bits::V4(_, len) | Bits::V6(_, len) => len,
        }
    }

    /// The unicast family of the prefix.
    pub fn family(&self) -> Family {
        match self.0 {
            Bits::V4(..) => Family::Ipv4Unicast,
            Bits::V6(..) => Family::Ipv6Unicast,
        }
    }

    /// Whether `other` is this prefix or more specific than it.
    pub fn contains(&self, other: &Self) -> bool {
        match (self.0, other.0) {
            (Bits::V4(a, len), Bits::V4(b, other)) => len <= other && mask_v4(b, len) == a,
            (Bits::V6(a, len), Bits::V6(b, other)) => len <= other && mask_v6(b, len) == a,
            _ => false,
        }
    }

    /// Whether `address` lies inside.
    pub fn contains_addr(&self, address: IpAddr) -> bool {
        self.contains(&Self::host(address))
    }

    /// Whether some address lies in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(other) || other.contains(self)
    }

    /// Whether the prefix holds one address only.
    pub fn is_host(&self) -> bool {
        self.len() == self.family().address_bits()
    }
}

fn mask_v4(address: Ipv4Addr, len: u8) -> Ipv4Addr {
    // A shift by the full width overflows; length 0 keeps no bit.
    let mask = u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0);
    Ipv4Addr::from_bits(address.to_bits() & mask)
}

fn mask_v6(address: Ipv6Addr, len: u8) -> Ipv6Addr {
    let mask = u128::MAX.checked_shl(128 - u32::from(len)).unwrap_or(0);
    Ipv6Addr::from_bits(address.to_bits() & mask)
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr(), self.len())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Prefix {
    type Err = Error;

    /// Reads `address/length`; a bare address is its host prefix. Host bits are cleared.
    fn from_str(text: &str) -> Result<Self, Error> {
        let malformed = || Error::ParsePrefix { text: text.into() };
        match text.split_once('/') {
            Some((address, len)) => {
                let address = address.parse().map_err(|_| malformed())?;
                Self::new(address, len.parse().map_err(|_| malformed())?)
            }
            None => Ok(Self::host(text.parse().map_err(|_| malformed())?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_never_carries_host_bits() {
        const CASES: &[(&str, &str)] = &[
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("10.1.2.3/0", "0.0.0.0/0"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("2001:db8::ffff/127", "2001:db8::fffe/127"),
            ("2001:db8::1/0", "::/0"),
            ("fe80::1", "fe80::1/128"),
        ];
        for (text, shown) in CASES {
            assert_eq!(prefix(text).to_string(), *shown, "{text}");
        }
    }

    #[test]
    fn malformed_prefixes_say_what_was_read() {
        for text in ["10.0.0.0/33", "::/129", "10.0.0/8", "10.0.0.0/", "x/8", ""] {
            let error = text.parse::<Prefix>().unwrap_err().to_string();
            assert!(error.contains(text.split('/').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn a_prefix_contains_itself_and_more_specifics_of_its_family_only() {
        let ten = prefix("10.0.0.0/8");
        assert!(ten.contains(&ten));
        assert!(ten.contains(&prefix("10.255.0.0/16")));
        assert!(!ten.contains(&prefix("0.0.0.0/0")));
        assert!(!prefix("0.0.0.0/0").contains(&prefix("::/0")));
        assert!(prefix("10.1.0.0/16").overlaps(&ten));
        assert!(ten.contains_addr("10.2.3.4".parse().unwrap()));
    }

    #[test]
    fn covering_prefixes_sort_before_what_they_cover() {
        let mut list = ["10.0.0.0/16", "::/0", "10.0.0.0/8", "9.0.0.0/8"].map(prefix);
        list.sort();
        assert_eq!(
            list,
            ["9.0.0.0/8", "10.0.0.0/8", "10.0.0.0/16", "::/0"].map(prefix)
        );
    }

    #[test]
    fn a_prefix_stays_small() {
        assert_eq!(size_of::<Prefix>(), 18);
    }
}
