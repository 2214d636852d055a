//! Which routes are taken from a peer and told to it: ordered rules on prefixes.
//!
//! Owns the rules as plain data and their evaluation. Does not own where rules come from, nor the
//! checks that no configuration can switch off (loops, protected prefixes), which are
//! [`crate::rib`]'s.

use std::fmt;

use crate::types::{Family, Prefix};

/// What a policy says about one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The route passes.
    Accept,
    /// The route stops here.
    Reject,
}

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
            Family::Ipv4Unicast => Prefix::v4(std::net::Ipv4Addr::UNSPECIFIED, 0),
            Family::Ipv6Unicast => Prefix::v6(std::net::Ipv6Addr::UNSPECIFIED, 0),
        };
        Self::orlonger(root.expect("length 0 fits every family"))
    }

    /// The covering prefix.
    pub fn within(&self) -> Prefix {
        self.within
    }

    /// Whether `prefix` belongs to the set.
    pub fn matches(&self, prefix: &Prefix) -> bool {
        (self.shortest..=self.longest).contains(&prefix.len()) && self.within.contains(prefix)
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

/// One rule: the verdict for every prefix that one of its matches covers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    /// What people call the rule; appears in `explain`.
    pub name: String,
    /// The prefixes concerned; an empty list concerns none.
    pub prefixes: Vec<PrefixMatch>,
    /// What happens to them.
    pub verdict: Verdict,
}

/// Rules in order, the first match decides; what no rule matches gets [`Policy::otherwise`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    /// The rules, first match first.
    pub rules: Vec<Rule>,
    /// The verdict when no rule matches.
    pub otherwise: Verdict,
}

/// What a policy takes from a peer.
pub type ImportPolicy = Policy;
/// What a policy tells a peer.
pub type ExportPolicy = Policy;

impl Policy {
    /// Accepts everything.
    pub fn accept_all() -> Self {
        Self {
            rules: Vec::new(),
            otherwise: Verdict::Accept,
        }
    }

    /// Rejects everything.
    pub fn reject_all() -> Self {
        Self {
            rules: Vec::new(),
            otherwise: Verdict::Reject,
        }
    }

    /// Accepts what one of `prefixes` covers and nothing else; `name` says why in `explain`.
    pub fn only(name: &str, prefixes: Vec<PrefixMatch>) -> Self {
        Self {
            rules: vec![Rule {
                name: name.to_owned(),
                prefixes,
                verdict: Verdict::Accept,
            }],
            otherwise: Verdict::Reject,
        }
    }

    /// The verdict for `prefix` and the rule that gave it; `None` stands for
    /// [`Policy::otherwise`].
    pub fn evaluate(&self, prefix: &Prefix) -> (Verdict, Option<&Rule>) {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.prefixes.iter().any(|set| set.matches(prefix)));
        (rule.map_or(self.otherwise, |rule| rule.verdict), rule)
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::accept_all()
    }
}

#[cfg(test)]
mod tests {
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
    fn the_first_matching_rule_decides_and_is_named() {
        let policy = Policy {
            rules: vec![
                Rule {
                    name: "no-mgmt".into(),
                    prefixes: vec![PrefixMatch::orlonger(prefix("10.9.0.0/16"))],
                    verdict: Verdict::Reject,
                },
                Rule {
                    name: "pods".into(),
                    prefixes: vec![PrefixMatch::orlonger(prefix("10.0.0.0/8"))],
                    verdict: Verdict::Accept,
                },
            ],
            otherwise: Verdict::Reject,
        };
        let name = |text| {
            let (verdict, rule) = policy.evaluate(&prefix(text));
            (verdict, rule.map(|rule| rule.name.as_str()))
        };
        assert_eq!(name("10.9.1.0/24"), (Verdict::Reject, Some("no-mgmt")));
        assert_eq!(name("10.8.1.0/24"), (Verdict::Accept, Some("pods")));
        assert_eq!(name("192.0.2.0/24"), (Verdict::Reject, None));
    }
}
