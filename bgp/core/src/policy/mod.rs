//! Which routes are taken from a peer and told to it, and how they are changed on the way.
//!
//! Owns the rules as plain data, their evaluation, the changes that they make, and the account of
//! why. Does not own where rules come from, nor the checks that no configuration can switch off
//! (loops, protected prefixes), which are [`crate::rib`]'s.
//!
//! # From a route to its fate
//!
//! [`Policy::evaluate`] says what becomes of a route and which rules change it;
//! [`Policy::apply`] makes the changes. Both are functions of their arguments alone, so a caller
//! may keep results:
//!
//! - Routes with one path and one [`Decision::operations`] look the same afterwards, whatever
//!   their prefixes: `(path, operations)` is a key for what `apply` gives.
//! - [`Policy::narrow`] does the work that depends on the path alone, once for all its prefixes;
//!   [`Policy::decide`] does the rest for each. `narrow` and `decide` together are `evaluate`.
//! - [`Narrowed::settled`] tells that one decision holds for every prefix of the path, and
//!   [`Policy::depends_on_prefix`] that this is so for every path.
//! - [`Policy::depends_on_route`] tells that prefixes alone decide.
//!
//! # Order
//!
//! Rules are tried in order. The first that accepts or rejects ends the search; one that continues
//! changes the route for those after it, which see what it has become. A route that no rule
//! accepts or rejects gets [`Policy::otherwise`]. The next hop is the exception: conditions see it
//! as it was told. [`Amendment`]s come last, on what was accepted.

mod as_path;
mod community;
mod condition;
mod evaluate;
mod explain;
mod known;
mod operation;
mod prefix;
mod rule;

pub use as_path::AsPathPattern;
pub use community::{Administrator, AnyCommunity, CommunityPattern, Purpose};
pub use condition::{Condition, InterfaceGlob, NumberRange, RouteFacts, RouteSource, SourceMatch};
pub use evaluate::{Decision, Narrowed, Operations, RuleIndex};
pub use explain::{Explained, Outcome, Step};
pub use known::priority_as_local_pref;
pub use operation::{Applied, ApplyContext, NextHopChange, NextHopTarget, Operation};
pub use prefix::{PrefixMatch, PrefixSet};
pub use rule::{Action, Amendment, Rule};

use condition::Facets;

/// What a policy says about one route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// The route passes.
    Accept,
    /// The route stops here.
    Reject,
}

/// Ordered rules. Equal rules make equal policies.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Policy {
    rules: Vec<Rule>,
    otherwise: Verdict,
    amendments: Vec<Amendment>,
    /// For each rule, what the rules after it read.
    read_later: Vec<Facets>,
}

/// What a policy takes from a peer.
pub type ImportPolicy = Policy;
/// What a policy tells a peer.
pub type ExportPolicy = Policy;

impl Policy {
    /// The first of `rules` that accepts or rejects decides; `otherwise` where none does.
    pub fn new(rules: Vec<Rule>, otherwise: Verdict) -> Self {
        let mut later = Facets::NONE;
        let mut read_later: Vec<Facets> = rules
            .iter()
            .rev()
            .map(|rule| {
                let after = later;
                later |= rule.reads.without(Facets::PREFIX);
                after
            })
            .collect();
        read_later.reverse();
        Self {
            rules,
            otherwise,
            amendments: Vec::new(),
            read_later,
        }
    }

    /// The policy with changes to all that it accepts, made last.
    #[must_use]
    pub fn amended(mut self, amendment: Amendment) -> Self {
        self.amendments.push(amendment);
        self
    }

    /// Accepts everything.
    pub fn accept_all() -> Self {
        Self::new(Vec::new(), Verdict::Accept)
    }

    /// Rejects everything.
    pub fn reject_all() -> Self {
        Self::new(Vec::new(), Verdict::Reject)
    }

    /// Accepts what one of `prefixes` covers and nothing else; `name` says why in `explain`.
    pub fn only(name: &str, prefixes: Vec<PrefixMatch>) -> Self {
        let within = Condition::Prefix(PrefixSet::new(prefixes));
        let rule = Rule::new(name, vec![within], Action::Accept(Vec::new()));
        Self::new(vec![rule], Verdict::Reject)
    }

    /// The rules, in order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// The verdict when no rule accepts or rejects.
    pub fn otherwise(&self) -> Verdict {
        self.otherwise
    }

    /// The changes that come last.
    pub fn amendments(&self) -> &[Amendment] {
        &self.amendments
    }

    /// What people call the rule or amendment of that index; `None` for an index of another
    /// policy.
    pub fn name_of(&self, index: RuleIndex) -> Option<&str> {
        let at = index.0 as usize;
        match self.rules.get(at) {
            Some(rule) => Some(rule.name()),
            None => {
                let amendment = self.amendments.get(at.checked_sub(self.rules.len())?)?;
                Some(amendment.name())
            }
        }
    }

    /// The operations of the rule or amendment of that index; none for an index of another policy.
    pub(super) fn operations_of(&self, index: RuleIndex) -> &[Operation] {
        let at = index.0 as usize;
        match self.rules.get(at) {
            Some(rule) => rule.action.operations(),
            None => at
                .checked_sub(self.rules.len())
                .and_then(|at| self.amendments.get(at))
                .map_or(&[], |amendment| &amendment.operations),
        }
    }
}

impl Default for Policy {
    fn default() -> Self {
        Self::accept_all()
    }
}

#[cfg(test)]
mod tests;
