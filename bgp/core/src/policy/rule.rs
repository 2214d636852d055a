//! Rules: conditions with what follows from them.
//!
//! Owns one rule. Does not own the order of several.

use std::fmt;

use crate::policy::as_path::PathText;
use crate::policy::condition::{Condition, Facets, RouteFacts};
use crate::policy::operation::Operation;
use crate::types::{Family, Prefix};

/// One rule: what happens to the routes for which every condition holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rule {
    pub(super) name: String,
    /// The cheap ones first.
    pub(super) conditions: Vec<Condition>,
    pub(super) action: Action,
    pub(super) reads: Facets,
    pub(super) writes: Facets,
}

/// What happens to a route that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// It passes, changed by the operations, and no further rule is asked.
    Accept(Vec<Operation>),
    /// It stops here, and no further rule is asked.
    Reject,
    /// It is changed by the operations, and the next rule is asked about what it has become.
    Continue(Vec<Operation>),
}

impl Action {
    /// The changes to the route.
    pub fn operations(&self) -> &[Operation] {
        match self {
            Self::Accept(operations) | Self::Continue(operations) => operations,
            Self::Reject => &[],
        }
    }
}

impl Rule {
    /// A rule that is called `name` in `explain`. Without conditions it is about every route.
    pub fn new(name: impl Into<String>, mut conditions: Vec<Condition>, action: Action) -> Self {
        conditions.sort_by_key(Condition::cost);
        Self {
            name: name.into(),
            reads: conditions.iter().map(Condition::reads).collect(),
            writes: action.operations().iter().map(Operation::writes).collect(),
            conditions,
            action,
        }
    }

    /// What people call the rule.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What must hold, in the order in which it is asked.
    pub fn conditions(&self) -> &[Condition] {
        &self.conditions
    }

    /// What then happens.
    pub fn action(&self) -> &Action {
        &self.action
    }

    pub(super) fn holds(
        &self,
        prefix: &Prefix,
        route: &RouteFacts<'_>,
        text: &mut Option<PathText>,
    ) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(prefix, route, text))
    }

    /// Whether the rule is about some prefix of `family` that `route` leads to, and if so, whether
    /// about every one.
    pub(super) fn scope(
        &self,
        family: Family,
        route: &RouteFacts<'_>,
        text: &mut Option<PathText>,
    ) -> Option<Scope> {
        scope(&self.conditions, family, route, text)
    }
}

/// Which prefixes of a route a rule is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    All,
    Some,
}

pub(super) fn scope(
    conditions: &[Condition],
    family: Family,
    route: &RouteFacts<'_>,
    text: &mut Option<PathText>,
) -> Option<Scope> {
    let mut scope = Scope::All;
    for condition in conditions {
        match condition {
            Condition::Family(wanted) if *wanted != family => return None,
            Condition::Prefix(set) if !set.concerns(family) => return None,
            Condition::Prefix(_) => scope = Scope::Some,
            Condition::NotPrefix(set) if set.concerns(family) => scope = Scope::Some,
            _ if !condition.holds_for_route(route, text) => return None,
            _ => {}
        }
    }
    Some(scope)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Accept(_) => "accept",
            Self::Reject => "reject",
            Self::Continue(_) => "continue",
        })?;
        for (index, operation) in self.operations().iter().enumerate() {
            let comma = if index == 0 { ": " } else { ", " };
            write!(f, "{comma}{operation}")?;
        }
        Ok(())
    }
}

/// Changes to routes that were accepted already, made after all others.
///
/// The conditions are asked of the route as it was before any operation: what a filter does to
/// communities does not hide from here what the peer said.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Amendment {
    pub(super) name: String,
    pub(super) conditions: Vec<Condition>,
    pub(super) operations: Vec<Operation>,
}

impl Amendment {
    /// Changes that are called `name` in `explain`.
    pub fn new(
        name: impl Into<String>,
        mut conditions: Vec<Condition>,
        operations: Vec<Operation>,
    ) -> Self {
        conditions.sort_by_key(Condition::cost);
        Self {
            name: name.into(),
            conditions,
            operations,
        }
    }

    /// What people call the changes.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn holds(
        &self,
        prefix: &Prefix,
        route: &RouteFacts<'_>,
        text: &mut Option<PathText>,
    ) -> bool {
        self.conditions
            .iter()
            .all(|condition| condition.holds(prefix, route, text))
    }
}
