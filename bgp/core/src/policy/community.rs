//! Communities as rules name them: values, and patterns with a `*` for any part.
//!
//! Owns the text forms of all three kinds and matching. Does not own their encoding in messages,
//! which is [`crate::wire`]'s.
//!
//! | kind | forms |
//! |---|---|
//! | standard, RFC 1997 | `65000:1`, `65000:*`, well-known names such as `no-export` |
//! | large, RFC 8092 | `4200000000:1:2`, `65000:*:*` |
//! | extended, RFC 4360 | `rt:65000:1`, `soo:10.0.0.1:5`, `rt:65000:*`, `0x0002fde800000001` |

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::error::Error;
use crate::types::Asn;
use crate::wire::{Community, ExtendedCommunity, LargeCommunity};

/// One community of any kind.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AnyCommunity {
    /// Four octets (RFC 1997).
    Standard(Community),
    /// Eight octets (RFC 4360).
    Extended(ExtendedCommunity),
    /// Twelve octets (RFC 8092).
    Large(LargeCommunity),
}

impl FromStr for AnyCommunity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Ok(community) = text.parse() {
            return Ok(Self::Standard(community));
        }
        if let Ok(community) = text.parse() {
            return Ok(Self::Large(community));
        }
        extended(text)
            .map(Self::Extended)
            .ok_or_else(|| Error::ParseAnyCommunity { text: text.into() })
    }
}

impl fmt::Display for AnyCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(community) => fmt::Display::fmt(community, f),
            Self::Extended(community) => write_extended(*community, f),
            Self::Large(community) => fmt::Display::fmt(community, f),
        }
    }
}

impl fmt::Debug for AnyCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Octet 0 of transitive extended communities that begin with an administrator (RFC 4360 §3,
/// RFC 5668 §2).
const TWO_OCTET_AS: u8 = 0x00;
const IPV4_ADDRESS: u8 = 0x01;
const FOUR_OCTET_AS: u8 = 0x02;

/// What an extended community with an administrator says (RFC 4360 §4, §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Purpose {
    /// Route Target, `rt`.
    RouteTarget,
    /// Route Origin, also Site of Origin, `soo`.
    RouteOrigin,
}

impl Purpose {
    const ALL: [Self; 2] = [Self::RouteTarget, Self::RouteOrigin];

    /// Octet 1.
    fn subtype(self) -> u8 {
        match self {
            Self::RouteTarget => 0x02,
            Self::RouteOrigin => 0x03,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::RouteTarget => "rt",
            Self::RouteOrigin => "soo",
        }
    }

    fn named(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|purpose| purpose.name() == text)
    }
}

/// Who gives an extended community its meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Administrator {
    /// An AS, in two octets where it fits and in four otherwise.
    As(Asn),
    /// The holder of an address.
    Address(Ipv4Addr),
}

impl fmt::Display for Administrator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::As(asn) => asn.fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

impl Administrator {
    fn parse(text: &str) -> Option<Self> {
        match text.parse() {
            Ok(number) => Some(Self::As(Asn(number))),
            Err(_) => text.parse().ok().map(Self::Address),
        }
    }
}

/// The parts of an extended community with an administrator; `None` for other types.
fn parts(community: ExtendedCommunity) -> Option<(Purpose, Administrator, u32)> {
    let [kind, subtype, rest @ ..] = community.0;
    let purpose = Purpose::ALL
        .into_iter()
        .find(|purpose| purpose.subtype() == subtype)?;
    let [a, b, c, d, e, f] = rest;
    let four = u32::from_be_bytes([a, b, c, d]);
    let last_two = u32::from(u16::from_be_bytes([e, f]));
    let (administrator, local) = match kind {
        TWO_OCTET_AS => (
            Administrator::As(Asn(u16::from_be_bytes([a, b]).into())),
            u32::from_be_bytes([c, d, e, f]),
        ),
        IPV4_ADDRESS => (Administrator::Address(Ipv4Addr::from_bits(four)), last_two),
        FOUR_OCTET_AS => (Administrator::As(Asn(four)), last_two),
        _ => return None,
    };
    Some((purpose, administrator, local))
}

/// The community of these parts; `None` where the local part does not fit.
fn of_parts(
    purpose: Purpose,
    administrator: Administrator,
    local: u32,
) -> Option<ExtendedCommunity> {
    let (kind, four) = match administrator {
        Administrator::As(asn) => match asn.two_octet() {
            Some(asn) => {
                let ([a, b], [c, d, e, f]) = (asn.to_be_bytes(), local.to_be_bytes());
                let octets = [TWO_OCTET_AS, purpose.subtype(), a, b, c, d, e, f];
                return Some(ExtendedCommunity(octets));
            }
            None => (FOUR_OCTET_AS, asn.0.to_be_bytes()),
        },
        Administrator::Address(address) => (IPV4_ADDRESS, address.octets()),
    };
    let ([a, b, c, d], [e, f]) = (four, u16::try_from(local).ok()?.to_be_bytes());
    let octets = [kind, purpose.subtype(), a, b, c, d, e, f];
    Some(ExtendedCommunity(octets))
}

fn extended(text: &str) -> Option<ExtendedCommunity> {
    if let Some(digits) = text.strip_prefix("0x") {
        return hexadecimal(digits).map(|value| ExtendedCommunity(value.to_be_bytes()));
    }
    let (purpose, rest) = text.split_once(':')?;
    let (administrator, local) = rest.split_once(':')?;
    of_parts(
        Purpose::named(purpose)?,
        Administrator::parse(administrator)?,
        local.parse().ok()?,
    )
}

/// Exactly 16 digits, and nothing that `from_str_radix` takes besides.
fn hexadecimal(digits: &str) -> Option<u64> {
    let well_formed = digits.len() == 16 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    well_formed.then(|| u64::from_str_radix(digits, 16).ok())?
}

fn write_extended(community: ExtendedCommunity, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // A small AS number in the four-octet form would read back in the two-octet one.
    let named = parts(community).filter(|&(purpose, administrator, local)| {
        of_parts(purpose, administrator, local) == Some(community)
    });
    match named {
        Some((purpose, administrator, local)) => {
            write!(f, "{}:{administrator}:{local}", purpose.name())
        }
        None => fmt::Display::fmt(&community, f),
    }
}

/// Communities of one kind that look alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommunityPattern {
    /// Standard ones whose bits under `mask` are `value`.
    Standard {
        /// Which bits count.
        mask: u32,
        /// What they have to be.
        value: u32,
    },
    /// Large ones; `None` for a part that may be anything.
    Large {
        /// The first part.
        global: Option<u32>,
        /// The second.
        local1: Option<u32>,
        /// The third.
        local2: Option<u32>,
    },
    /// Extended ones with an administrator; `None` for a part that may be anything. An AS number
    /// matches in both of its encodings.
    Extended {
        /// What they are for.
        purpose: Purpose,
        /// Who gives them a meaning.
        administrator: Option<Administrator>,
        /// Which meaning.
        local: Option<u32>,
    },
    /// This extended one, of whatever type.
    Octets(ExtendedCommunity),
}

impl CommunityPattern {
    /// Whether a standard community looks like this.
    pub fn matches_standard(&self, community: Community) -> bool {
        matches!(*self, Self::Standard { mask, value } if community.0 & mask == value)
    }

    /// Whether a large community looks like this.
    pub fn matches_large(&self, community: LargeCommunity) -> bool {
        let Self::Large {
            global,
            local1,
            local2,
        } = *self
        else {
            return false;
        };
        is(global, community.global) && is(local1, community.local1) && is(local2, community.local2)
    }

    /// Whether an extended community looks like this.
    pub fn matches_extended(&self, community: ExtendedCommunity) -> bool {
        match *self {
            Self::Octets(octets) => octets == community,
            Self::Extended {
                purpose,
                administrator,
                local,
            } => parts(community).is_some_and(|found| {
                found.0 == purpose && is(administrator, found.1) && is(local, found.2)
            }),
            _ => false,
        }
    }
}

fn is<T: PartialEq>(wanted: Option<T>, found: T) -> bool {
    wanted.is_none_or(|wanted| wanted == found)
}

impl From<AnyCommunity> for CommunityPattern {
    fn from(community: AnyCommunity) -> Self {
        match community {
            AnyCommunity::Standard(Community(value)) => Self::Standard {
                mask: u32::MAX,
                value,
            },
            AnyCommunity::Large(large) => Self::Large {
                global: Some(large.global),
                local1: Some(large.local1),
                local2: Some(large.local2),
            },
            AnyCommunity::Extended(octets) => match parts(octets) {
                Some((purpose, administrator, local)) => Self::Extended {
                    purpose,
                    administrator: Some(administrator),
                    local: Some(local),
                },
                None => Self::Octets(octets),
            },
        }
    }
}

impl FromStr for CommunityPattern {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some(digits) = text.strip_prefix("0x") {
            // Written as octets, they are meant as octets.
            return hexadecimal(digits)
                .map(|value| Self::Octets(ExtendedCommunity(value.to_be_bytes())))
                .ok_or_else(|| Error::ParseAnyCommunity { text: text.into() });
        }
        match text.parse::<AnyCommunity>() {
            Ok(community) => Ok(community.into()),
            Err(error) if text.contains('*') => wildcard(text).ok_or(error),
            Err(error) => Err(error),
        }
    }
}

/// A pattern with a `*` in it.
fn wildcard(text: &str) -> Option<CommunityPattern> {
    let parts: Vec<&str> = text.split(':').collect();
    match *parts.as_slice() {
        [high, low] => {
            let (high, low) = (part::<u16>(high)?, part::<u16>(low)?);
            let mask = |part: Option<u16>| u32::from(part.map_or(0, |_| u16::MAX));
            let value = |part: Option<u16>| u32::from(part.unwrap_or(0));
            Some(CommunityPattern::Standard {
                mask: mask(high) << 16 | mask(low),
                value: value(high) << 16 | value(low),
            })
        }
        [first, second, third] => match Purpose::named(first) {
            Some(purpose) => Some(CommunityPattern::Extended {
                purpose,
                administrator: match second {
                    "*" => None,
                    text => Some(Administrator::parse(text)?),
                },
                local: part(third)?,
            }),
            None => Some(CommunityPattern::Large {
                global: part(first)?,
                local1: part(second)?,
                local2: part(third)?,
            }),
        },
        _ => None,
    }
}

fn part<T: FromStr>(text: &str) -> Option<Option<T>> {
    match text {
        "*" => Some(None),
        number => number.parse().ok().map(Some),
    }
}

impl fmt::Display for CommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Part<T>(Option<T>);
        impl<T: fmt::Display> fmt::Display for Part<T> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match &self.0 {
                    Some(value) => value.fmt(f),
                    None => f.write_str("*"),
                }
            }
        }
        match *self {
            Self::Standard { mask, value } if mask == u32::MAX => {
                fmt::Display::fmt(&Community(value), f)
            }
            Self::Standard { mask, value } => {
                let high = Part((mask >> 16 != 0).then_some(value >> 16));
                let low = Part((mask & 0xffff != 0).then_some(value & 0xffff));
                write!(f, "{high}:{low}")
            }
            Self::Large {
                global,
                local1,
                local2,
            } => write!(f, "{}:{}:{}", Part(global), Part(local1), Part(local2)),
            Self::Extended {
                purpose,
                administrator,
                local,
            } => write!(
                f,
                "{}:{}:{}",
                purpose.name(),
                Part(administrator),
                Part(local)
            ),
            Self::Octets(octets) => fmt::Display::fmt(&octets, f),
        }
    }
}

impl fmt::Debug for CommunityPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_of_every_kind_read_back_as_they_show() {
        for text in [
            "65000:1",
            "no-export",
            "4200000000:1:2",
            "rt:65000:4200000000",
            "rt:4200000000:7",
            "soo:10.0.0.1:65535",
            "0x4302000000000001",
        ] {
            let community: AnyCommunity = text.parse().unwrap();
            assert_eq!(community.to_string(), text);
            let pattern: CommunityPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
        for text in [
            "",
            "*",
            "65536:1",
            "rt:4200000000:65536",
            "rt:10.0.0.1:65536",
            "rt:65000",
            "0x1",
            "0x+302000000000001",
            "xx:1:1",
            "1:2:3:4",
        ] {
            assert!(text.parse::<AnyCommunity>().is_err(), "{text}");
            assert!(text.parse::<CommunityPattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_star_stands_for_any_value_of_one_part() {
        let cases = [
            ("65000:*", "65000:7", true),
            ("65000:*", "65001:7", false),
            ("*:7", "65001:7", true),
            ("*:7", "65001:8", false),
            ("*:*", "0:0", true),
            ("no-export", "65535:65281", true),
            ("65000:*:3", "65000:9:3", true),
            ("65000:*:3", "65000:9:4", false),
            ("*:*:*", "1:2:3", true),
            ("*:*:*", "1:2", false),
            ("*:*", "1:2:3", false),
            ("rt:65000:*", "rt:65000:1", true),
            ("rt:65000:*", "soo:65000:1", false),
            ("rt:*:1", "rt:10.0.0.1:1", true),
            ("rt:*:1", "0x4302000000000001", false),
            // The same AS in four octets.
            ("rt:65000:1", "0x02020000fde80001", true),
            ("0x02020000fde80001", "rt:65000:1", false),
        ];
        for (pattern, value, expected) in cases {
            let pattern: CommunityPattern = pattern.parse().unwrap();
            let found = match value.parse().unwrap() {
                AnyCommunity::Standard(value) => pattern.matches_standard(value),
                AnyCommunity::Extended(value) => pattern.matches_extended(value),
                AnyCommunity::Large(value) => pattern.matches_large(value),
            };
            assert_eq!(found, expected, "{pattern} {value}");
        }
    }

    #[test]
    fn patterns_show_their_stars() {
        for text in ["65000:*", "*:7", "*:*", "1:*:3", "rt:*:1", "soo:65000:*"] {
            let pattern: CommunityPattern = text.parse().unwrap();
            assert_eq!(pattern.to_string(), text);
        }
    }
}
