//! Sets of prefixes, as rules name them.
//!
//! Owns matching one prefix against few or many ranges. Does not own what follows from a match.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::{Family, Prefix};

/// Sets up to this size are walked; larger ones are searched. Below it the walk is as fast and
/// needs no index.
const WALKED: usize = 16;

/// Stands for "no entry encloses this one" in an index.
const ROOT: u32 = u32::MAX;

/// A set of prefixes: those inside [`PrefixMatch::within`] whose length lies in a range.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PrefixMatch {
    within: Prefix,
    shortest: u8,
    longest: u8,
}

impl PrefixMatch {
    /// `prefix` alone.
    pub fn exact(prefix: Prefix) -> Self {
        Self {
            within: prefix,
            shortest: prefix.len(),
            longest: prefix.len(),
        }
    }

    /// `prefix` and everything more specific.
    pub fn orlonger(prefix: Prefix) -> Self {
        Self {
            within: prefix,
            shortest: prefix.len(),
            longest: prefix.family().address_bits(),
        }
    }

    /// Everything more specific than `prefix`, which itself does not match.
    pub fn longer(prefix: Prefix) -> Self {
        Self {
            within: prefix,
            // 255 exceeds every length: a host prefix has nothing inside.
            shortest: prefix.len() + 1,
            longest: prefix.family().address_bits(),
        }
    }

    /// What lies in `prefix` with a length from `shortest` to `longest`, both included.
    pub fn lengths(prefix: Prefix, shortest: u8, longest: u8) -> Self {
        Self {
            within: prefix,
            shortest,
            longest,
        }
    }

    /// Every route of `family`.
    pub fn any(family: Family) -> Self {
        let root = match family {
            Family::Ipv4Unicast => Prefix::v4(Ipv4Addr::UNSPECIFIED, 0),
            Family::Ipv6Unicast => Prefix::v6(Ipv6Addr::UNSPECIFIED, 0),
        };
        Self::orlonger(root.expect("length 0 fits every family"))
    }

    /// The covering prefix.
    pub fn within(&self) -> Prefix {
        self.within
    }

    /// Whether `prefix` belongs to the set.
    pub fn matches(&self, prefix: &Prefix) -> bool {
        self.has_length(prefix.len()) && self.within.contains(prefix)
    }

    fn has_length(&self, length: u8) -> bool {
        (self.shortest..=self.longest).contains(&length)
    }
}

impl fmt::Display for PrefixMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.shortest == self.longest && self.shortest == self.within.len() {
            return self.within.fmt(f);
        }
        write!(f, "{}{{{},{}}}", self.within, self.shortest, self.longest)
    }
}

impl fmt::Debug for PrefixMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Several [`PrefixMatch`]es: what one of them covers belongs to the set. Equal sets are equal
/// values, in whatever order they were given.
///
/// Takes 8 octets beside the matches themselves, and the search in a set of *n* costs log *n*
/// comparisons plus one for each entry that encloses the prefix.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct PrefixSet {
    /// Ascending, so that what encloses an entry stands before it.
    matches: Vec<PrefixMatch>,
    /// For each match, the last one before it that encloses its [`PrefixMatch::within`], or
    /// [`ROOT`]. Empty for a set that is walked.
    enclosing: Vec<u32>,
}

impl PrefixSet {
    /// The set of all that one of `matches` covers.
    pub fn new(matches: impl Into<Vec<PrefixMatch>>) -> Self {
        let mut matches = matches.into();
        matches.sort_unstable();
        matches.dedup();
        let indexed = matches.len() > WALKED && matches.len() < ROOT as usize;
        let enclosing = if indexed {
            enclosing(&matches)
        } else {
            Vec::new()
        };
        Self { matches, enclosing }
    }

    /// The matches, ascending.
    pub fn matches(&self) -> &[PrefixMatch] {
        &self.matches
    }

    /// Whether `prefix` belongs to the set.
    pub fn contains(&self, prefix: &Prefix) -> bool {
        if self.enclosing.is_empty() {
            return self.matches.iter().any(|set| set.matches(prefix));
        }
        // Everything that encloses `prefix` sorts before it, and encloses or is the last entry
        // that does: the chain from there meets each of them.
        let after = self
            .matches
            .partition_point(|entry| entry.within <= *prefix);
        let mut at = after.checked_sub(1);
        while let Some(index) = at {
            let entry = &self.matches[index];
            if entry.matches(prefix) {
                return true;
            }
            let next = self.enclosing[index];
            at = (next != ROOT).then_some(next as usize);
        }
        false
    }

    /// Whether `address` lies in one of the matches, whatever lengths they ask for.
    pub fn covers(&self, address: IpAddr) -> bool {
        self.matches
            .iter()
            .any(|entry| entry.within.contains_addr(address))
    }

    /// Whether a prefix of `family` can belong to the set.
    pub fn concerns(&self, family: Family) -> bool {
        self.matches
            .iter()
            .any(|entry| entry.within.family() == family)
    }
}

fn enclosing(matches: &[PrefixMatch]) -> Vec<u32> {
    let mut open: Vec<u32> = Vec::new();
    let mut enclosing = Vec::with_capacity(matches.len());
    for (index, entry) in matches.iter().enumerate() {
        while let Some(last) = open.last()
            && !matches[*last as usize].within.contains(&entry.within)
        {
            open.pop();
        }
        enclosing.push(open.last().copied().unwrap_or(ROOT));
        let index = u32::try_from(index).expect("larger sets are walked");
        open.push(index);
    }
    enclosing
}

impl FromIterator<PrefixMatch> for PrefixSet {
    fn from_iter<I: IntoIterator<Item = PrefixMatch>>(matches: I) -> Self {
        Self::new(matches.into_iter().collect::<Vec<_>>())
    }
}

/// How many matches a text names before it only counts the rest.
const SHOWN: usize = 4;

impl fmt::Display for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, entry) in self.matches.iter().take(SHOWN).enumerate() {
            let comma = if index == 0 { "" } else { ", " };
            write!(f, "{comma}{entry}")?;
        }
        match self.matches.len() {
            0 => f.write_str("nothing"),
            length if length > SHOWN => write!(f, " and {} more", length - SHOWN),
            _ => Ok(()),
        }
    }
}

impl fmt::Debug for PrefixSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(&self.matches).finish()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn prefix_sets_hold_what_their_lengths_say() {
        let ten = prefix("10.0.0.0/8");
        let cases = [
            (PrefixMatch::exact(ten), "10.0.0.0/8", true),
            (PrefixMatch::exact(ten), "10.0.0.0/9", false),
            (PrefixMatch::orlonger(ten), "10.0.0.0/8", true),
            (PrefixMatch::orlonger(ten), "10.1.2.3/32", true),
            (PrefixMatch::orlonger(ten), "0.0.0.0/0", false),
            (PrefixMatch::longer(ten), "10.0.0.0/8", false),
            (PrefixMatch::longer(ten), "10.0.0.0/9", true),
            (PrefixMatch::lengths(ten, 24, 26), "10.1.1.0/26", true),
            (PrefixMatch::lengths(ten, 24, 26), "10.1.1.0/27", false),
            (PrefixMatch::any(Family::Ipv4Unicast), "10.0.0.0/8", true),
            (
                PrefixMatch::any(Family::Ipv4Unicast),
                "2001:db8::/32",
                false,
            ),
            (PrefixMatch::longer(prefix("::1/128")), "::1/128", false),
        ];
        for (set, candidate, expected) in cases {
            assert_eq!(
                set.matches(&prefix(candidate)),
                expected,
                "{set} {candidate}"
            );
        }
    }

    #[test]
    fn equal_sets_are_equal_values_in_whatever_order() {
        let (a, b) = (prefix("10.0.0.0/8"), prefix("10.1.0.0/16"));
        let one = PrefixSet::new([PrefixMatch::exact(a), PrefixMatch::exact(b)]);
        let other = PrefixSet::new([
            PrefixMatch::exact(b),
            PrefixMatch::exact(a),
            PrefixMatch::exact(b),
        ]);
        assert_eq!(one, other);
        assert_eq!(one.to_string(), "10.0.0.0/8, 10.1.0.0/16");
    }

    #[test]
    fn a_long_set_shows_its_beginning_and_its_size() {
        let set: PrefixSet = (0..20)
            .map(|i| PrefixMatch::exact(prefix(&format!("10.{i}.0.0/16"))))
            .collect();
        assert_eq!(
            set.to_string(),
            "10.0.0.0/16, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16 and 16 more"
        );
    }

    /// Few address bits, so that prefixes nest and repeat.
    fn any_prefix() -> impl Strategy<Value = Prefix> {
        (any::<bool>(), 0_u8..=3, 0_u8..=32).prop_map(|(v6, bits, len)| {
            let top = u32::from(bits) << 30 | u32::from(bits) << 8;
            match v6 {
                false => Prefix::v4(Ipv4Addr::from_bits(top), len),
                true => Prefix::v6(Ipv6Addr::from_bits(u128::from(top) << 96), len * 4),
            }
            .expect("in range")
        })
    }

    fn any_match() -> impl Strategy<Value = PrefixMatch> {
        (any_prefix(), 0_u8..=32, 0_u8..=128)
            .prop_map(|(within, low, high)| PrefixMatch::lengths(within, low, high))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_searched_set_holds_what_a_walk_would_find(
            matches in prop::collection::vec(any_match(), 17..60),
            candidates in prop::collection::vec(any_prefix(), 1..60),
        ) {
            let set = PrefixSet::new(matches.clone());
            for candidate in candidates {
                let walked = matches.iter().any(|entry| entry.matches(&candidate));
                prop_assert_eq!(set.contains(&candidate), walked, "{}", candidate);
            }
        }
    }
}
