//! What a rule may ask of a route.
//!
//! Owns the conditions, the facts they are asked of, and which facts each of them reads. Does not
//! own the order in which rules are tried.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};

use crate::policy::as_path::{AsPathPattern, PathText};
use crate::policy::community::CommunityPattern;
use crate::policy::prefix::PrefixSet;
use crate::rib::DEFAULT_LOCAL_PREF;
use crate::types::{Asn, Family, NextHop, PeerKind, Prefix};
use crate::wire::{AsPath, Origin, PathAttributes};

/// All that conditions read of a route besides its prefix. Borrows everything: making one costs
/// nothing.
#[derive(Clone, Copy, Debug)]
pub struct RouteFacts<'a> {
    /// What the route carries: as the peer told it on import, as the table has it on export.
    pub attributes: &'a PathAttributes,
    /// Where its packets go; `None` for own routes.
    pub next_hop: Option<&'a NextHop>,
    /// Who told it.
    pub source: RouteSource,
    /// The interface of the session that told it: the one with our own address on the session, so `lo`
    /// between loopbacks, and not the way that packets take. Own routes have none.
    pub interface: Option<&'a str>,
    /// The kind of the session that the policy belongs to.
    pub peer: PeerKind,
}

impl<'a> RouteFacts<'a> {
    /// An own route that carries `attributes`, on a session of kind `peer`.
    pub fn own(attributes: &'a PathAttributes, peer: PeerKind) -> Self {
        Self {
            attributes,
            next_hop: None,
            source: RouteSource::Own,
            interface: None,
            peer,
        }
    }
}

/// Who told a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RouteSource {
    /// We originate it.
    Own,
    /// A peer of this kind told it.
    Peer(PeerKind),
}

/// Which sources a condition lets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SourceMatch {
    /// What we originate.
    Own,
    /// What any peer told.
    Learnt,
    /// What a peer of this kind told.
    LearntFrom(PeerKind),
}

impl SourceMatch {
    fn matches(self, source: RouteSource) -> bool {
        match (self, source) {
            (Self::Own, RouteSource::Own) | (Self::Learnt, RouteSource::Peer(_)) => true,
            (Self::LearntFrom(wanted), RouteSource::Peer(found)) => wanted == found,
            _ => false,
        }
    }
}

/// Numbers from a least to a most, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NumberRange {
    /// The lowest.
    pub least: u32,
    /// The highest.
    pub most: u32,
}

impl NumberRange {
    /// `number` alone.
    pub fn exactly(number: u32) -> Self {
        Self {
            least: number,
            most: number,
        }
    }

    /// Whether `number` lies inside.
    pub fn contains(self, number: u32) -> bool {
        (self.least..=self.most).contains(&number)
    }
}

impl fmt::Display for NumberRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.least, self.most) {
            (least, most) if least == most => write!(f, "{least}"),
            (0, most) => write!(f, "at most {most}"),
            (least, u32::MAX) => write!(f, "at least {least}"),
            (least, most) => write!(f, "from {least} to {most}"),
        }
    }
}

/// The name of an interface, with `*` for any characters and `?` for any one.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceGlob(String);

impl InterfaceGlob {
    /// The glob as written.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether `name` looks like it. Takes at most the product of both lengths in steps.
    pub fn matches(&self, name: &str) -> bool {
        let (glob, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut at, mut read) = (0, 0);
        // Where to go on when what follows the last star does not fit.
        let mut retry: Option<(usize, usize)> = None;
        while read < name.len() {
            match glob.get(at) {
                Some(b'*') => {
                    retry = Some((at, read));
                    at += 1;
                }
                Some(b'?') => (at, read) = (at + 1, read + 1),
                Some(character) if *character == name[read] => (at, read) = (at + 1, read + 1),
                _ => match retry {
                    Some((star, from)) => {
                        retry = Some((star, from + 1));
                        (at, read) = (star + 1, from + 1);
                    }
                    None => return false,
                },
            }
        }
        glob[at..].iter().all(|character| *character == b'*')
    }
}

impl fmt::Display for InterfaceGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for InterfaceGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One thing that a rule asks of a route. The conditions of a rule must all hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// The prefix is of this family.
    Family(Family),
    /// The session that the policy belongs to is of this kind.
    Peer(PeerKind),
    /// The route comes from there.
    Source(SourceMatch),
    /// ORIGIN is this.
    Origin(Origin),
    /// The AS path has that many numbers, repetitions included.
    AsPathLength(NumberRange),
    /// There is a MULTI_EXIT_DISC, and it is one of these.
    Med(NumberRange),
    /// LOCAL_PREF is one of these; 100 where the route has none, as in the selection.
    LocalPref(NumberRange),
    /// The prefix belongs to the set.
    Prefix(PrefixSet),
    /// The prefix does not belong to the set.
    NotPrefix(PrefixSet),
    /// The next hop, as it was told, lies in one of the prefixes.
    NextHop(PrefixSet),
    /// The interface is called so.
    Interface(InterfaceGlob),
    /// The AS path begins with these numbers.
    AsPathPrefix(Vec<Asn>),
    /// One of these communities is there. Never holds when the list is empty.
    AnyCommunity(Vec<CommunityPattern>),
    /// Each of these communities is there. Always holds when the list is empty.
    AllCommunities(Vec<CommunityPattern>),
    /// The expression is found in the AS path.
    AsPath(AsPathPattern),
}

impl Condition {
    /// Whether it holds for a route to `prefix`. `text` is a place for the text of the AS path.
    pub(super) fn holds(
        &self,
        prefix: &Prefix,
        route: &RouteFacts<'_>,
        text: &mut Option<PathText>,
    ) -> bool {
        match self {
            Self::Family(family) => prefix.family() == *family,
            Self::Prefix(set) => set.contains(prefix),
            Self::NotPrefix(set) => !set.contains(prefix),
            _ => self.holds_for_route(route, text),
        }
    }

    /// Whether it holds for every prefix of a route, for conditions that read no prefix.
    pub(super) fn holds_for_route(
        &self,
        route: &RouteFacts<'_>,
        text: &mut Option<PathText>,
    ) -> bool {
        let attributes = route.attributes;
        match self {
            Self::Family(_) | Self::Prefix(_) | Self::NotPrefix(_) => true,
            Self::Peer(kind) => route.peer == *kind,
            Self::Source(wanted) => wanted.matches(route.source),
            Self::Origin(origin) => attributes.origin == *origin,
            Self::AsPathLength(range) => {
                let length = u32::try_from(attributes.as_path.len()).unwrap_or(u32::MAX);
                range.contains(length)
            }
            Self::Med(range) => attributes.med.is_some_and(|med| range.contains(med)),
            Self::LocalPref(range) => {
                range.contains(attributes.local_pref.unwrap_or(DEFAULT_LOCAL_PREF))
            }
            Self::NextHop(prefixes) => route
                .next_hop
                .is_some_and(|next_hop| prefixes.covers(next_hop.addr())),
            Self::Interface(glob) => route.interface.is_some_and(|name| glob.matches(name)),
            Self::AsPathPrefix(asns) => attributes.as_path.asns().starts_with(asns),
            Self::AnyCommunity(patterns) => {
                patterns.iter().any(|pattern| carries(attributes, pattern))
            }
            Self::AllCommunities(patterns) => {
                patterns.iter().all(|pattern| carries(attributes, pattern))
            }
            Self::AsPath(pattern) => pattern.matches(&attributes.as_path, text),
        }
    }

    /// What it reads of a route.
    pub(super) fn reads(&self) -> Facets {
        match self {
            Self::Family(_) | Self::Prefix(_) | Self::NotPrefix(_) => Facets::PREFIX,
            Self::Peer(_) | Self::Source(_) | Self::Interface(_) | Self::NextHop(_) => {
                Facets::SESSION
            }
            Self::Origin(_) => Facets::ORIGIN,
            Self::Med(_) => Facets::MED,
            Self::LocalPref(_) => Facets::LOCAL_PREF,
            Self::AnyCommunity(_) | Self::AllCommunities(_) => Facets::COMMUNITIES,
            Self::AsPathLength(_) | Self::AsPathPrefix(_) | Self::AsPath(_) => Facets::AS_PATH,
        }
    }

    /// What it costs to ask, for putting the cheap ones first.
    pub(super) fn cost(&self) -> u8 {
        match self {
            Self::Family(_) | Self::Peer(_) | Self::Source(_) | Self::Origin(_) => 0,
            Self::AsPathLength(_) | Self::Med(_) | Self::LocalPref(_) => 1,
            Self::Prefix(_) | Self::NotPrefix(_) | Self::NextHop(_) => 2,
            Self::Interface(_) | Self::AsPathPrefix(_) => 3,
            Self::AnyCommunity(_) | Self::AllCommunities(_) => 4,
            Self::AsPath(_) => 5,
        }
    }
}

fn carries(attributes: &PathAttributes, pattern: &CommunityPattern) -> bool {
    match pattern {
        CommunityPattern::Standard { .. } => attributes
            .communities
            .iter()
            .any(|community| pattern.matches_standard(*community)),
        CommunityPattern::Large { .. } => attributes
            .large_communities
            .iter()
            .any(|community| pattern.matches_large(*community)),
        CommunityPattern::Extended { .. } | CommunityPattern::Octets(_) => attributes
            .ext_communities()
            .iter()
            .any(|community| pattern.matches_extended(*community)),
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = |kind: &PeerKind| match kind {
            PeerKind::Internal => "iBGP",
            PeerKind::External => "eBGP",
        };
        match self {
            Self::Family(family) => write!(f, "family {family}"),
            Self::Peer(peer) => write!(f, "session {}", kind(peer)),
            Self::Source(SourceMatch::Own) => f.write_str("own route"),
            Self::Source(SourceMatch::Learnt) => f.write_str("learnt from a peer"),
            Self::Source(SourceMatch::LearntFrom(peer)) => {
                write!(f, "learnt from an {} peer", kind(peer))
            }
            Self::Origin(origin) => write!(f, "origin {origin}"),
            Self::AsPathLength(range) => write!(f, "AS path length {range}"),
            Self::Med(range) => write!(f, "MED {range}"),
            Self::LocalPref(range) => write!(f, "local preference {range}"),
            Self::Prefix(set) => write!(f, "prefix in {set}"),
            Self::NotPrefix(set) => write!(f, "prefix not in {set}"),
            Self::NextHop(set) => write!(f, "next hop in {set}"),
            Self::Interface(glob) => write!(f, "interface {glob}"),
            Self::AsPathPrefix(asns) => {
                write!(f, "AS path begins with {}", AsPath::new(asns.as_slice()))
            }
            Self::AnyCommunity(patterns) => write!(f, "any community of {}", List(patterns)),
            Self::AllCommunities(patterns) => write!(f, "communities {}", List(patterns)),
            Self::AsPath(pattern) => write!(f, "AS path matches {pattern}"),
        }
    }
}

/// Values with commas between them.
pub(super) struct List<'a, T>(pub(super) &'a [T]);

impl<T: fmt::Display> fmt::Display for List<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, value) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{value}")?;
        }
        Ok(())
    }
}

/// Parts of a route that conditions read and operations write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Facets(u8);

impl Facets {
    pub(super) const NONE: Self = Self(0);
    pub(super) const PREFIX: Self = Self(1);
    /// What no operation changes: source, interface, kind of session, next hop as told.
    pub(super) const SESSION: Self = Self(1 << 1);
    pub(super) const ORIGIN: Self = Self(1 << 2);
    pub(super) const AS_PATH: Self = Self(1 << 3);
    pub(super) const MED: Self = Self(1 << 4);
    pub(super) const LOCAL_PREF: Self = Self(1 << 5);
    pub(super) const COMMUNITIES: Self = Self(1 << 6);

    pub(super) fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(super) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl BitOr for Facets {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Facets {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl FromIterator<Facets> for Facets {
    fn from_iter<I: IntoIterator<Item = Facets>>(facets: I) -> Self {
        facets.into_iter().fold(Self::NONE, BitOr::bitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_whole_names() {
        for (glob, name, expected) in [
            ("eth0", "eth0", true),
            ("eth0", "eth01", false),
            ("eth*", "eth", true),
            ("eth*", "eth0.100", true),
            ("eth*", "veth0", false),
            ("*", "", true),
            ("*0", "eth100", true),
            ("e*h*0", "eth10", true),
            ("e*h*0", "eth11", false),
            ("eth?", "eth1", true),
            ("eth?", "eth", false),
            ("", "", true),
            ("", "x", false),
            ("**a**", "bab", true),
        ] {
            assert_eq!(
                InterfaceGlob::new(glob).matches(name),
                expected,
                "{glob} {name}"
            );
        }
    }

    #[test]
    fn ranges_read_as_people_say_them() {
        let range = |least, most| NumberRange { least, most }.to_string();
        assert_eq!(range(5, 5), "5");
        assert_eq!(range(0, 5), "at most 5");
        assert_eq!(range(5, u32::MAX), "at least 5");
        assert_eq!(range(5, 7), "from 5 to 7");
    }
}
