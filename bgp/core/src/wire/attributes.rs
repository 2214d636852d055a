//! Path attributes as values.
//!
//! Owns what a route carries besides its prefix and its next hop. The next hop stays outside
//! because it belongs to each run of prefixes (MP_REACH_NLRI names its own), and because routes
//! that differ in nothing else should share one set. Does not own octets: see the decoder and
//! encoder beside this module.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use crate::error::Error;
use crate::types::{Asn, RouterId};

/// All attributes of a route that travel with it; equal exactly when every attribute is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathAttributes {
    /// How the route entered BGP.
    pub origin: Origin,
    /// The ASes it came through.
    pub as_path: AsPath,
    /// MULTI_EXIT_DISC, absent unless the neighbouring AS sent one.
    pub med: Option<u32>,
    /// LOCAL_PREF; absent on what an external peer sent.
    pub local_pref: Option<u32>,
    /// Whether ATOMIC_AGGREGATE is there.
    pub atomic_aggregate: bool,
    /// Who aggregated the route.
    pub aggregator: Option<Aggregator>,
    /// COMMUNITIES, ascending and without duplicates: RFC 1997 calls them a set.
    pub communities: Vec<Community>,
    /// EXTENDED COMMUNITIES, ascending and without duplicates.
    pub ext_communities: Vec<ExtendedCommunity>,
    /// LARGE_COMMUNITY, ascending and without duplicates (RFC 8092 §5).
    pub large_communities: Vec<LargeCommunity>,
    /// The router that brought the route into the AS (RFC 4456 §8).
    pub originator_id: Option<RouterId>,
    /// Clusters that reflected the route, latest first (RFC 4456 §8).
    pub cluster_list: Vec<RouterId>,
    /// Optional transitive attributes that this speaker carries without reading, by type code.
    pub unknown: Vec<RawAttribute>,
}

/// ORIGIN (RFC 4271 §5.1.1), ordered as best path prefers it: the lowest first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Origin {
    /// Interior to the originating AS.
    #[default]
    Igp,
    /// Learnt by EGP.
    Egp,
    /// By some other means.
    Incomplete,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Igp => "igp",
            Self::Egp => "egp",
            Self::Incomplete => "incomplete",
        })
    }
}

/// AS_PATH as one sequence, the latest AS first.
///
/// Sets cannot occur: RFC 9774 §3 has routes with them withdrawn on arrival, and segments of a
/// confederation come only from members of one. Where a sequence exceeds the 255 numbers that a
/// segment holds is the encoder's affair.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct AsPath(Vec<Asn>);

impl AsPath {
    /// A path through `asns`, the latest first.
    pub fn new(asns: impl Into<Vec<Asn>>) -> Self {
        Self(asns.into())
    }

    /// The numbers, the latest first.
    pub fn asns(&self) -> &[Asn] {
        &self.0
    }

    /// The number of hops, repetitions included.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the route was born in the AS of the one who tells it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The neighbouring AS that sent the route.
    pub fn first(&self) -> Option<Asn> {
        self.0.first().copied()
    }

    /// The AS in which the route was born.
    pub fn origin(&self) -> Option<Asn> {
        self.0.last().copied()
    }

    /// How often `asn` occurs.
    pub fn occurrences(&self, asn: Asn) -> usize {
        self.0.iter().filter(|hop| **hop == asn).count()
    }

    /// Whether `asn` occurs.
    pub fn contains(&self, asn: Asn) -> bool {
        self.0.contains(&asn)
    }

    /// The path with `asn` put `times` times in front.
    #[must_use]
    pub fn prepended(&self, asn: Asn, times: usize) -> Self {
        let mut asns = Vec::with_capacity(self.0.len() + times);
        asns.resize(times, asn);
        asns.extend_from_slice(&self.0);
        Self(asns)
    }
}

impl fmt::Display for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, asn) in self.0.iter().enumerate() {
            let space = if index == 0 { "" } else { " " };
            write!(f, "{space}{asn}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for AsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{self}]")
    }
}

/// AGGREGATOR (RFC 4271 §5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// The AS that aggregated.
    pub asn: Asn,
    /// The router that did it, by its identifier.
    pub router: Ipv4Addr,
}

/// A community (RFC 1997): an AS number in the high half, its local meaning in the low half.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Community(pub u32);

impl Community {
    /// Traffic should leave this path before it goes away (RFC 8326).
    pub const GRACEFUL_SHUTDOWN: Self = Self(0xffff_0000);
    /// The route is kept beyond its restart time (RFC 9494).
    pub const LLGR_STALE: Self = Self(0xffff_0006);
    /// The route must not be kept beyond its restart time (RFC 9494).
    pub const NO_LLGR: Self = Self(0xffff_0007);
    /// Traffic for the route is to be dropped (RFC 7999).
    pub const BLACKHOLE: Self = Self(0xffff_029a);
    /// Not beyond the AS or confederation (RFC 1997).
    pub const NO_EXPORT: Self = Self(0xffff_ff01);
    /// To no peer at all (RFC 1997).
    pub const NO_ADVERTISE: Self = Self(0xffff_ff02);
    /// Not beyond the member AS (RFC 1997).
    pub const NO_EXPORT_SUBCONFED: Self = Self(0xffff_ff03);
    /// Not over bilateral peerings (RFC 3765).
    pub const NO_PEER: Self = Self(0xffff_ff04);

    const NAMES: [(Self, &str); 8] = [
        (Self::GRACEFUL_SHUTDOWN, "graceful-shutdown"),
        (Self::LLGR_STALE, "llgr-stale"),
        (Self::NO_LLGR, "no-llgr"),
        (Self::BLACKHOLE, "blackhole"),
        (Self::NO_EXPORT, "no-export"),
        (Self::NO_ADVERTISE, "no-advertise"),
        (Self::NO_EXPORT_SUBCONFED, "no-export-subconfed"),
        (Self::NO_PEER, "no-peer"),
    ];
}

impl fmt::Display for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Self::NAMES.iter().find(|(value, _)| value == self) {
            Some((_, name)) => f.write_str(name),
            None => write!(f, "{}:{}", self.0 >> 16, self.0 & 0xffff),
        }
    }
}

impl fmt::Debug for Community {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Community {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        if let Some((value, _)) = Self::NAMES.iter().find(|(_, name)| *name == text) {
            return Ok(*value);
        }
        let halves = text.split_once(':').and_then(|(high, low)| {
            let high: u16 = high.parse().ok()?;
            let low: u16 = low.parse().ok()?;
            Some((high, low))
        });
        let (high, low) = halves.ok_or_else(|| Error::ParseCommunity { text: text.into() })?;
        Ok(Self(u32::from(high) << 16 | u32::from(low)))
    }
}

/// An extended community (RFC 4360), kept as its eight octets.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ExtendedCommunity(pub [u8; 8]);

impl ExtendedCommunity {
    /// Whether it may cross AS borders: the transitive bit is zero (RFC 4360 §2).
    pub fn is_transitive(self) -> bool {
        self.0[0] & 0x40 == 0
    }
}

impl fmt::Display for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:016x}", u64::from_be_bytes(self.0))
    }
}

impl fmt::Debug for ExtendedCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A large community (RFC 8092).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LargeCommunity {
    /// The AS that gives the rest its meaning.
    pub global: u32,
    /// First operand.
    pub local1: u32,
    /// Second operand.
    pub local2: u32,
}

impl fmt::Display for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.global, self.local1, self.local2)
    }
}

impl fmt::Debug for LargeCommunity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for LargeCommunity {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Option<Vec<u32>> = text.split(':').map(|part| part.parse().ok()).collect();
        match parts.as_deref() {
            Some(&[global, local1, local2]) => Ok(Self {
                global,
                local1,
                local2,
            }),
            _ => Err(Error::ParseLargeCommunity { text: text.into() }),
        }
    }
}

/// An attribute carried without being understood (RFC 4271 §5).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RawAttribute {
    /// Flags as they go out: the Partial bit is set on what this speaker does not recognise.
    pub flags: u8,
    /// Type code.
    pub code: u8,
    /// The value as it came.
    pub value: Vec<u8>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn communities_read_back_as_they_show() {
        for text in [
            "65000:1",
            "0:0",
            "no-export",
            "graceful-shutdown",
            "blackhole",
        ] {
            let community: Community = text.parse().unwrap();
            assert_eq!(community.to_string(), text);
        }
        for text in ["65536:1", "1", "1:2:3", "", "no-such"] {
            assert!(text.parse::<Community>().is_err(), "{text}");
        }
        let large: LargeCommunity = "4200000000:1:2".parse().unwrap();
        assert_eq!(large.to_string(), "4200000000:1:2");
        assert!("1:2".parse::<LargeCommunity>().is_err());
    }

    #[test]
    fn prepending_leaves_the_rest_of_the_path_alone() {
        let path = AsPath::new([Asn(2), Asn(3)]).prepended(Asn(1), 2);
        assert_eq!(path.to_string(), "1 1 2 3");
        assert_eq!(path.first(), Some(Asn(1)));
        assert_eq!(path.origin(), Some(Asn(3)));
        assert_eq!(path.occurrences(Asn(1)), 2);
    }
}
