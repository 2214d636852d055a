//! The nouns that every part of the speaker shares: AS numbers, router IDs, address families,
//! prefixes and next hops.
//!
//! Owns their invariants (a prefix never carries host bits) and their text forms. Does not own
//! any wire encoding, which is [`crate::wire`]'s.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::error::Error;

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

/// An address family that this speaker routes.
///
/// Any other pair that a peer names stays a [`crate::wire::AfiSafi`] and never becomes a `Family`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// AFI 1, SAFI 1.
    Ipv4Unicast,
    /// AFI 2, SAFI 1.
    Ipv6Unicast,
}

impl Family {
    /// Every family, in the order in which it is announced.
    pub const ALL: [Self; 2] = [Self::Ipv4Unicast, Self::Ipv6Unicast];

    /// Width of an address of the family, in bits.
    pub fn address_bits(self) -> u8 {
        match self {
            Self::Ipv4Unicast => 32,
            Self::Ipv6Unicast => 128,
        }
    }

    /// The family of `address`.
    pub fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4Unicast,
            IpAddr::V6(_) => Self::Ipv6Unicast,
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ipv4Unicast => "ipv4-unicast",
            Self::Ipv6Unicast => "ipv6-unicast",
        })
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL
            .into_iter()
            .find(|family| family.to_string() == text)
            .ok_or_else(|| Error::ParseFamily { text: text.into() })
    }
}

/// A set of families, for terms that are agreed family by family.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FamilySet(u8);

impl FamilySet {
    /// No family.
    pub const EMPTY: Self = Self(0);
    /// Every family.
    pub const ALL: Self = Self(0b11);

    /// Whether `family` belongs to the set.
    pub fn contains(self, family: Family) -> bool {
        self.0 & Self::bit(family) != 0
    }

    /// Adds `family`.
    pub fn insert(&mut self, family: Family) {
        self.0 |= Self::bit(family);
    }

    /// Takes `family` out; whether it was there.
    pub fn remove(&mut self, family: Family) -> bool {
        let had = self.contains(family);
        self.0 &= !Self::bit(family);
        had
    }

    /// Whether no family belongs to the set.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The families of both sets.
    pub fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The families, in the order of [`Family::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Family> {
        Family::ALL
            .into_iter()
            .filter(move |family| self.contains(*family))
    }

    fn bit(family: Family) -> u8 {
        1 << family as u8
    }
}

impl FromIterator<Family> for FamilySet {
    fn from_iter<I: IntoIterator<Item = Family>>(families: I) -> Self {
        let mut set = Self::EMPTY;
        families.into_iter().for_each(|family| set.insert(family));
        set
    }
}

impl fmt::Debug for FamilySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

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

/// Tells the paths to one prefix apart on a session that carries several (RFC 7911 §3). Its value
/// means nothing beyond the session; zero is a value like any other.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What an UPDATE announces or withdraws: one path to a prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// Where it leads.
    pub prefix: Prefix,
    /// Which of several; zero on a session with one path per prefix.
    pub id: PathId,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Self {
            prefix,
            id: PathId::default(),
        }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            PathId(0) => fmt::Display::fmt(&self.prefix, f),
            id => write!(f, "{}{id:?}", self.prefix),
        }
    }
}

impl fmt::Debug for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether a peer shares our AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// iBGP.
    Internal,
    /// eBGP.
    External,
}

/// Where packets for a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// IPv6 next hops come alone or with a link-local companion (RFC 2545 §3).
    V6 {
        /// The global address; a link-local one when the peer sent nothing else.
        global: Ipv6Addr,
        /// The link-local address on the shared link.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address by which the next hop is known; the global one where there are two.
    pub fn addr(&self) -> IpAddr {
        match *self {
            Self::V4(address) => address.into(),
            Self::V6 { global, .. } => global.into(),
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(global) => Self::V6 {
                global,
                link_local: None,
            },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
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

    #[test]
    fn router_ids_compare_as_integers_and_show_as_dotted_quads() {
        let low: RouterId = "9.0.0.1".parse().unwrap();
        let high: RouterId = "10.0.0.1".parse().unwrap();
        assert!(low < high);
        assert_eq!(high.to_string(), "10.0.0.1");
        assert!("10".parse::<RouterId>().is_err());
    }
}
