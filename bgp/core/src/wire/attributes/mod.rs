//! Path attributes as values.
//!
//! Owns what a route carries besides its prefix and its next hop. The next hop stays outside
//! because it belongs to each run of prefixes (MP_REACH_NLRI names its own), and because routes
//! that differ in nothing else should share one set. Does not own octets: see the decoder and
//! encoder beside this module.

mod as_path;
mod community;
mod rare;
mod set;

use std::fmt;
use std::net::Ipv4Addr;

pub use as_path::AsPath;
pub use community::{Community, ExtendedCommunity, LargeCommunity};
pub use rare::RareAttributes;
pub use set::SortedSet;

use crate::types::{Asn, RouterId};
use crate::wire::iana::AttributeCode;

/// All attributes of a route that travel with it; equal exactly when every attribute is.
///
/// Tables hold one of these for every distinct set, so it is kept to 112 octets: what few routes
/// carry stands apart, behind methods.
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
    /// COMMUNITIES: RFC 1997 calls them a set.
    pub communities: SortedSet<Community>,
    /// LARGE_COMMUNITY (RFC 8092 §5).
    pub large_communities: SortedSet<LargeCommunity>,
    /// The router that brought the route into the AS (RFC 4456 §8).
    pub originator_id: Option<RouterId>,
    /// Clusters that reflected the route, latest first (RFC 4456 §8).
    pub cluster_list: Box<[RouterId]>,
    /// Only to Customer: the AS from which on the route goes to customers only (RFC 9234 §5).
    pub otc: Option<Asn>,
    /// AGGREGATOR, EXTENDED COMMUNITIES and what is only carried: see the methods. Public so that the
    /// other fields can be given with `..`.
    pub rare: RareAttributes,
}

impl PathAttributes {
    /// Who aggregated the route.
    pub fn aggregator(&self) -> Option<Aggregator> {
        self.rare.get().and_then(|rare| rare.aggregator)
    }

    /// Says who aggregated the route.
    pub fn set_aggregator(&mut self, aggregator: Option<Aggregator>) {
        if self.aggregator() != aggregator {
            self.rare.edit(|rare| rare.aggregator = aggregator);
        }
    }

    /// EXTENDED COMMUNITIES, ascending and without duplicates.
    pub fn ext_communities(&self) -> &[ExtendedCommunity] {
        self.rare
            .get()
            .map_or(&[], |rare| rare.ext_communities.as_ref())
    }

    /// Changes the EXTENDED COMMUNITIES.
    pub fn edit_ext_communities(&mut self, edit: impl FnOnce(&mut SortedSet<ExtendedCommunity>)) {
        self.rare.edit(|rare| edit(&mut rare.ext_communities));
    }

    /// Optional transitive attributes that this speaker carries without reading, by type code.
    pub fn unknown(&self) -> &[RawAttribute] {
        self.rare.get().map_or(&[], |rare| rare.unknown.as_ref())
    }

    /// Replaces the attributes that are only carried.
    pub fn set_unknown(&mut self, mut unknown: Vec<RawAttribute>) {
        unknown.sort_by_key(|attribute| attribute.code);
        self.rare.edit(|rare| rare.unknown = unknown.into());
    }

    /// Leaves out what has no bearing on which route is best or where packets go (RFC 7606 §2).
    pub(super) fn drop_informational(&mut self) {
        self.atomic_aggregate = false;
        self.set_aggregator(None);
        let informational = |raw: &RawAttribute| AttributeCode::from(raw.code).is_informational();
        if self.unknown().iter().any(informational) {
            let kept = self.unknown().iter().filter(|raw| !informational(raw));
            self.set_unknown(kept.cloned().collect());
        }
    }

    /// Octets on the heap, as far as they are asked for there: for those who count memory.
    pub fn heap_octets(&self) -> usize {
        size_of_val(self.as_path.asns())
            + size_of_val(&self.communities[..])
            + size_of_val(&self.large_communities[..])
            + size_of_val(&self.cluster_list[..])
            + self.rare.heap_octets()
    }
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

/// AGGREGATOR (RFC 4271 §5.1.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Aggregator {
    /// The AS that aggregated.
    pub asn: Asn,
    /// The router that did it, by its identifier.
    pub router: Ipv4Addr,
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
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_set_of_attributes_stays_small() {
        assert_eq!(size_of::<PathAttributes>(), 112);
        assert_eq!(PathAttributes::default().heap_octets(), 0);
        let usual = PathAttributes {
            as_path: AsPath::new([Asn(1), Asn(2), Asn(3)]),
            communities: [Community(1), Community(2)].into(),
            ..PathAttributes::default()
        };
        assert_eq!(usual.heap_octets(), 12 + 8);
    }

    #[test]
    fn what_was_rare_and_is_gone_leaves_no_trace() {
        let aggregator = Aggregator {
            asn: Asn(1),
            router: Ipv4Addr::LOCALHOST,
        };
        let community = ExtendedCommunity([0, 2, 0, 1, 0, 0, 0, 1]);
        let raw = |code| RawAttribute {
            flags: 0xe0,
            code,
            value: vec![1],
        };
        let plain = PathAttributes::default();
        let changes: [fn(&mut PathAttributes); 3] = [
            |attributes| attributes.set_aggregator(None),
            |attributes| attributes.edit_ext_communities(SortedSet::clear),
            |attributes| attributes.set_unknown(Vec::new()),
        ];
        let mut full = plain.clone();
        full.set_aggregator(Some(aggregator));
        full.edit_ext_communities(|communities| {
            communities.insert(community);
        });
        full.set_unknown(vec![raw(200), raw(100)]);
        assert_ne!(full, plain);
        assert_eq!(full.aggregator(), Some(aggregator));
        assert_eq!(full.ext_communities(), [community]);
        assert_eq!(full.unknown(), [raw(100), raw(200)]);
        let seen = HashSet::from([plain.clone()]);
        for first in 0..3 {
            let mut emptied = full.clone();
            for step in 0..3 {
                assert_ne!(emptied, plain);
                changes[(first + step) % 3](&mut emptied);
            }
            assert_eq!(emptied, plain);
            assert!(seen.contains(&emptied));
            assert_eq!(emptied.heap_octets(), 0);
        }
    }
}
