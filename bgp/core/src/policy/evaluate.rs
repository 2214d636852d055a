//! What becomes of a route.
//!
//! Owns the order of evaluation and its split into what depends on the path and what depends on
//! the prefix. Does not own single conditions and operations.

use smallvec::SmallVec;

use crate::policy::as_path::PathText;
use crate::policy::condition::{Condition, Facets, RouteFacts};
use crate::policy::operation::{Applied, ApplyContext};
use crate::policy::rule::{Action, Rule, Scope, scope};
use crate::policy::{Policy, Verdict};
use crate::types::{Family, Prefix};
use crate::wire::PathAttributes;

/// Names a rule or an amendment of one policy: rules count from 0, amendments follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuleIndex(pub(super) u32);

impl RuleIndex {
    pub(super) fn new(at: usize) -> Self {
        // Four thousand million rules do not fit into memory.
        Self(u32::try_from(at).unwrap_or(u32::MAX))
    }
}

/// Rules whose operations are to be applied, in order. More than a few take heap.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Operations(SmallVec<[RuleIndex; 4]>);

impl Operations {
    /// The rules.
    pub fn rules(&self) -> &[RuleIndex] {
        &self.0
    }

    /// Whether the route passes as it is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn push(&mut self, rule: RuleIndex) {
        self.0.push(rule);
    }
}

/// What becomes of a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Whether it passes.
    pub verdict: Verdict,
    /// The rule that said so; `None` for [`Policy::otherwise`].
    pub rule: Option<RuleIndex>,
    /// What changes it; nothing for a route that does not pass.
    pub operations: Operations,
}

impl Decision {
    /// Whether the route passes.
    pub fn accepts(&self) -> bool {
        self.verdict == Verdict::Accept
    }

    fn reject(rule: Option<RuleIndex>) -> Self {
        Self {
            verdict: Verdict::Reject,
            rule,
            operations: Operations::default(),
        }
    }
}

/// What is left of a policy for one path: see [`Policy::narrow`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Narrowed(Left);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Left {
    /// Every prefix of the path gets this.
    Settled(Decision),
    /// These rules, whose other conditions hold, ask for the prefix; then come these amendments,
    /// each with whether it does.
    Rules {
        rules: SmallVec<[RuleIndex; 8]>,
        amendments: SmallVec<[(RuleIndex, Scope); 2]>,
    },
    /// The prefix decides what later rules see: only the whole policy can tell.
    Whole,
}

impl Narrowed {
    /// The decision for every prefix of the path, where the prefix does not matter.
    pub fn settled(&self) -> Option<&Decision> {
        match &self.0 {
            Left::Settled(decision) => Some(decision),
            Left::Rules { .. } | Left::Whole => None,
        }
    }
}

/// A route as rules see it: as it was told, until one of them changes it.
struct Seen<'a> {
    told: RouteFacts<'a>,
    changed: Option<Box<PathAttributes>>,
    text: Option<PathText>,
}

impl<'a> Seen<'a> {
    fn new(told: RouteFacts<'a>) -> Self {
        Self {
            told,
            changed: None,
            text: None,
        }
    }

    fn holds(&mut self, rule: &Rule, prefix: &Prefix) -> bool {
        let facts = RouteFacts {
            attributes: self.changed.as_deref().unwrap_or(self.told.attributes),
            ..self.told
        };
        rule.holds(prefix, &facts, &mut self.text)
    }

    fn scope(&mut self, rule: &Rule, family: Family) -> Option<Scope> {
        let facts = RouteFacts {
            attributes: self.changed.as_deref().unwrap_or(self.told.attributes),
            ..self.told
        };
        rule.scope(family, &facts, &mut self.text)
    }

    /// Makes the changes of a rule that continues, as far as somebody after it looks.
    fn change(&mut self, rule: &Rule, read_later: Facets) {
        if !rule.writes.meets(read_later) {
            return;
        }
        let told = self.told.attributes;
        let changed = self.changed.get_or_insert_with(|| Box::new(told.clone()));
        for operation in rule.action.operations() {
            operation.rewrite(changed);
        }
        self.text = None;
    }
}

impl Policy {
    /// What becomes of `route` to `prefix`.
    #[inline]
    pub fn evaluate(&self, prefix: &Prefix, route: &RouteFacts<'_>) -> Decision {
        if self.rules.is_empty() && self.amendments.is_empty() {
            return Decision {
                verdict: self.otherwise,
                rule: None,
                operations: Operations::default(),
            };
        }
        self.try_rules(prefix, route)
    }

    fn try_rules(&self, prefix: &Prefix, route: &RouteFacts<'_>) -> Decision {
        let mut operations = Operations::default();
        let mut seen = Seen::new(*route);
        for (at, rule) in self.rules.iter().enumerate() {
            if !seen.holds(rule, prefix) {
                continue;
            }
            let index = RuleIndex::new(at);
            match &rule.action {
                Action::Reject => return Decision::reject(Some(index)),
                Action::Accept(changes) => {
                    if !changes.is_empty() {
                        operations.push(index);
                    }
                    return self.accept(Some(index), operations, prefix, route);
                }
                Action::Continue(_) => {
                    operations.push(index);
                    seen.change(rule, self.read_later[at]);
                }
            }
        }
        match self.otherwise {
            Verdict::Accept => self.accept(None, operations, prefix, route),
            Verdict::Reject => Decision::reject(None),
        }
    }

    fn accept(
        &self,
        rule: Option<RuleIndex>,
        mut operations: Operations,
        prefix: &Prefix,
        route: &RouteFacts<'_>,
    ) -> Decision {
        let mut text = None;
        for (at, amendment) in self.amendments.iter().enumerate() {
            if amendment.holds(prefix, route, &mut text) {
                operations.push(self.amendment(at));
            }
        }
        Decision {
            verdict: Verdict::Accept,
            rule,
            operations,
        }
    }

    fn amendment(&self, at: usize) -> RuleIndex {
        RuleIndex::new(self.rules.len() + at)
    }

    /// Does all that needs no prefix: what is left for the prefixes of `family` that `route` leads
    /// to. Worth it from the second prefix on.
    pub fn narrow(&self, family: Family, route: &RouteFacts<'_>) -> Narrowed {
        let mut seen = Seen::new(*route);
        let mut rules: SmallVec<[RuleIndex; 8]> = SmallVec::new();
        let mut undecided = false;
        for (at, rule) in self.rules.iter().enumerate() {
            let Some(scope) = seen.scope(rule, family) else {
                continue;
            };
            rules.push(RuleIndex::new(at));
            match (&rule.action, scope) {
                (Action::Continue(_), Scope::All) => seen.change(rule, self.read_later[at]),
                (Action::Continue(_), Scope::Some) => {
                    if rule.writes.meets(self.read_later[at]) {
                        return Narrowed(Left::Whole);
                    }
                    undecided = true;
                }
                (Action::Accept(_) | Action::Reject, Scope::Some) => undecided = true,
                // No rule beyond is ever asked.
                (Action::Accept(_) | Action::Reject, Scope::All) => break,
            }
        }
        let mut text = None;
        let amendments: SmallVec<[(RuleIndex, Scope); 2]> = self
            .amendments
            .iter()
            .enumerate()
            .filter_map(|(at, amendment)| {
                let scope = scope(&amendment.conditions, family, route, &mut text)?;
                Some((self.amendment(at), scope))
            })
            .collect();
        undecided |= amendments.iter().any(|(_, scope)| *scope == Scope::Some);
        let left = Left::Rules { rules, amendments };
        if undecided {
            return Narrowed(left);
        }
        Narrowed(Left::Settled(self.walk(&left, |_| true)))
    }

    /// What becomes of a route to `prefix`, given what [`Policy::narrow`] made of this policy for
    /// the same route and the family of `prefix`.
    pub fn decide(&self, narrowed: &Narrowed, prefix: &Prefix, route: &RouteFacts<'_>) -> Decision {
        match &narrowed.0 {
            Left::Settled(decision) => decision.clone(),
            Left::Whole => self.evaluate(prefix, route),
            left @ Left::Rules { .. } => self.walk(left, |conditions| {
                conditions.iter().all(|condition| match condition {
                    Condition::Prefix(set) => set.contains(prefix),
                    Condition::NotPrefix(set) => !set.contains(prefix),
                    _ => true,
                })
            }),
        }
    }

    /// Tries the rules that are left; `holds` judges the conditions that are left.
    fn walk(&self, left: &Left, holds: impl Fn(&[Condition]) -> bool) -> Decision {
        let Left::Rules { rules, amendments } = left else {
            return Decision::reject(None);
        };
        let mut operations = Operations::default();
        let mut ended = None;
        for index in rules {
            let rule = &self.rules[index.0 as usize];
            if !holds(&rule.conditions) {
                continue;
            }
            match &rule.action {
                Action::Reject => return Decision::reject(Some(*index)),
                Action::Accept(changes) => {
                    if !changes.is_empty() {
                        operations.push(*index);
                    }
                    ended = Some(*index);
                    break;
                }
                Action::Continue(_) => operations.push(*index),
            }
        }
        if ended.is_none() && self.otherwise == Verdict::Reject {
            return Decision::reject(None);
        }
        for (index, scope) in amendments {
            let amendment = &self.amendments[index.0 as usize - self.rules.len()];
            if *scope == Scope::All || holds(&amendment.conditions) {
                operations.push(*index);
            }
        }
        Decision {
            verdict: Verdict::Accept,
            rule: ended,
            operations,
        }
    }

    /// Makes the changes that `decision` asks for; to be called with a decision of this policy on
    /// a route that carries `attributes`.
    pub fn apply(
        &self,
        decision: &Decision,
        attributes: PathAttributes,
        context: &ApplyContext,
    ) -> Applied {
        let mut applied = Applied {
            attributes,
            ..Applied::default()
        };
        for rule in decision.operations.rules() {
            for operation in self.operations_of(*rule) {
                operation.apply(&mut applied, context);
            }
        }
        applied
    }

    /// Whether two prefixes of `family` that one path leads to may fare differently.
    pub fn depends_on_prefix(&self, family: Family) -> bool {
        let asks = |conditions: &[Condition]| {
            let other_family = |condition: &Condition| match condition {
                Condition::Family(wanted) => *wanted != family,
                Condition::Prefix(set) => !set.concerns(family),
                _ => false,
            };
            let prefix = |condition: &Condition| match condition {
                Condition::Prefix(set) | Condition::NotPrefix(set) => set.concerns(family),
                _ => false,
            };
            !conditions.iter().any(other_family) && conditions.iter().any(prefix)
        };
        self.rules.iter().any(|rule| asks(&rule.conditions))
            || self
                .amendments
                .iter()
                .any(|amendment| asks(&amendment.conditions))
    }

    /// Whether two paths to one prefix may fare differently.
    pub fn depends_on_route(&self) -> bool {
        let rules = self.rules.iter().map(|rule| rule.reads);
        let amendments = self
            .amendments
            .iter()
            .flat_map(|amendment| amendment.conditions.iter().map(Condition::reads));
        let reads: Facets = rules.chain(amendments).collect();
        reads.without(Facets::PREFIX) != Facets::NONE
    }

    /// Whether some route may be changed.
    pub fn changes_routes(&self) -> bool {
        let rules = self.rules.iter().map(|rule| rule.action.operations());
        let amendments = self
            .amendments
            .iter()
            .map(|amendment| &*amendment.operations);
        rules
            .chain(amendments)
            .any(|operations| !operations.is_empty())
    }
}
