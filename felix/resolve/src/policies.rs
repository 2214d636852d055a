//! The policies of sessions: filters, then what holds where no filter decides, then what comes
//! last whatever they say.
//!
//! Owns their composition and RFC 8212. Equal sessions share one policy. Does not own what a filter
//! means.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_bgp_core::policy::{
    Action, Amendment, Condition, Policy, PrefixMatch, PrefixSet, Rule, Verdict,
};
use caracal_bgp_core::types::{Family, FamilySet, PeerKind};

use crate::filters::{Direction, FilterRules};

/// What holds for a route that no filter decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fallback {
    /// It passes.
    Accept,
    /// It passes if it lies in a pool or is a node's address: nodes speak for pods and for
    /// themselves.
    PoolsAndNodes,
    /// It passes if it is our own.
    OwnRoutes,
    /// It does not pass, and without a filter there is no policy at all (RFC 8212).
    Absent,
}

/// All that decides what a policy is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Wanted {
    pub(crate) direction: Direction,
    pub(crate) kind: PeerKind,
    /// Families of the session.
    pub(crate) families: FamilySet,
    /// Names of filters, in order.
    pub(crate) filters: Vec<String>,
    pub(crate) fallback: Fallback,
    /// Whether a family without a rule has no policy, whatever `fallback` says.
    pub(crate) require_filters: bool,
    /// Whether the session is about to go down.
    pub(crate) drain: bool,
}

/// A policy, with the families for which there is none.
#[derive(Clone, Debug)]
pub(crate) struct Made {
    pub(crate) policy: Arc<Policy>,
    pub(crate) absent: Vec<Family>,
}

/// Makes policies, each once.
#[derive(Debug)]
pub(crate) struct Policies {
    filters: BTreeMap<String, FilterRules>,
    pools_and_nodes: Rule,
    honor_graceful_shutdown: bool,
    made: BTreeMap<Wanted, Made>,
}

impl Policies {
    /// `pools_and_nodes` is what nodes may say.
    pub(crate) fn new(
        filters: BTreeMap<String, FilterRules>,
        pools_and_nodes: Vec<PrefixMatch>,
        honor_graceful_shutdown: bool,
    ) -> Self {
        let within = Condition::Prefix(PrefixSet::new(pools_and_nodes));
        Self {
            filters,
            pools_and_nodes: Rule::new("pools and nodes", vec![within], Action::Accept(Vec::new())),
            honor_graceful_shutdown,
            made: BTreeMap::new(),
        }
    }

    /// Whether there is a filter of that name.
    pub(crate) fn has_filter(&self, name: &str) -> bool {
        self.filters.contains_key(name)
    }

    /// The policy.
    pub(crate) fn make(&mut self, wanted: Wanted) -> Made {
        if let Some(made) = self.made.get(&wanted) {
            return made.clone();
        }
        let made = self.compose(&wanted);
        self.made.insert(wanted, made.clone());
        made
    }

    fn compose(&self, wanted: &Wanted) -> Made {
        let mut rules = Vec::new();
        let mut explicit = FamilySet::EMPTY;
        for name in &wanted.filters {
            let Some(filter) = self.filters.get(name) else {
                // It could have said anything.
                rules.push(Rule::reject_rest(format!("filter {name} is missing")));
                explicit = FamilySet::ALL;
                break;
            };
            for family in Family::ALL {
                let of_family = filter.of(wanted.direction, family);
                rules.extend_from_slice(of_family);
                if !of_family.is_empty() {
                    explicit.insert(family);
                }
            }
        }
        let defaults = wanted.fallback != Fallback::Absent && !wanted.require_filters;
        let absent: Vec<Family> = wanted
            .families
            .iter()
            .filter(|family| !defaults && !explicit.contains(*family))
            .collect();
        if rules.is_empty() && !absent.is_empty() && absent.len() == wanted.families.iter().count()
        {
            let policy = Arc::new(Policy::not_configured());
            return Made { policy, absent };
        }
        rules.extend(absent.iter().copied().map(Rule::not_configured));
        let otherwise = match wanted.fallback {
            Fallback::Accept => Verdict::Accept,
            Fallback::OwnRoutes => {
                rules.push(Rule::own_routes_only("only own routes are told"));
                Verdict::Accept
            }
            Fallback::PoolsAndNodes => {
                rules.push(self.pools_and_nodes.clone());
                Verdict::Reject
            }
            Fallback::Absent => Verdict::Reject,
        };
        let policy = Policy::new(rules, otherwise);
        let policy = self
            .amendments(wanted)
            .into_iter()
            .fold(policy, Policy::amended);
        Made {
            policy: Arc::new(policy),
            absent,
        }
    }

    fn amendments(&self, wanted: &Wanted) -> Vec<Amendment> {
        let honor = self.honor_graceful_shutdown;
        match wanted.direction {
            Direction::Import if wanted.drain => vec![Amendment::drain_import()],
            Direction::Import if honor => vec![Amendment::honour_graceful_shutdown()],
            Direction::Export if wanted.drain => vec![Amendment::drain_export(wanted.kind)],
            Direction::Import | Direction::Export => Vec::new(),
        }
    }
}
