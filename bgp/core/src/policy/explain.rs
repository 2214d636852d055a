//! Why a policy decides as it does, rule by rule.
//!
//! Owns the account that `caracal bgp explain` shows. It is made by evaluating again, so that
//! evaluation itself keeps no notes.

use std::fmt;

use crate::policy::condition::RouteFacts;
use crate::policy::evaluate::{Decision, RuleIndex};
use crate::policy::{Action, Policy};
use crate::types::Prefix;

/// The account of one decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explained {
    /// What became of each rule, up to the one that decided, then of the amendments to what was
    /// accepted.
    pub steps: Vec<Step>,
    /// The decision itself.
    pub decision: Decision,
}

/// One rule or amendment that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Which.
    pub rule: RuleIndex,
    /// What people call it.
    pub name: String,
    /// What became of it.
    pub outcome: Outcome,
}

/// What became of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Every condition holds.
    Matched {
        /// The conditions; none for a rule that is about every route.
        conditions: Vec<String>,
        /// What followed: accept, reject or continue, with the changes.
        action: String,
    },
    /// It is not about this route.
    Missed {
        /// The first condition that does not hold.
        condition: String,
    },
}

impl Policy {
    /// Why [`Policy::evaluate`] decides about the route as it does.
    pub fn explain(&self, prefix: &Prefix, route: &RouteFacts<'_>) -> Explained {
        let decision = self.evaluate(prefix, route);
        let mut attributes = route.attributes.clone();
        let mut steps = Vec::new();
        for (at, rule) in self.rules.iter().enumerate() {
            let facts = RouteFacts {
                attributes: &attributes,
                ..*route
            };
            let missed = rule
                .conditions
                .iter()
                .find(|condition| !condition.holds(prefix, &facts, &mut None));
            let matched = missed.is_none();
            let outcome = match missed {
                Some(condition) => Outcome::Missed {
                    condition: condition.to_string(),
                },
                None => Outcome::Matched {
                    conditions: rule.conditions.iter().map(ToString::to_string).collect(),
                    action: rule.action.to_string(),
                },
            };
            steps.push(self.step(at, outcome));
            match &rule.action {
                Action::Accept(_) | Action::Reject if matched => break,
                Action::Continue(operations) if matched => {
                    for operation in operations {
                        operation.rewrite(&mut attributes);
                    }
                }
                _ => {}
            }
        }
        if decision.accepts() {
            for (at, amendment) in self.amendments.iter().enumerate() {
                if !amendment.holds(prefix, route, &mut None) {
                    continue;
                }
                let conditions = amendment.conditions.iter().map(ToString::to_string);
                let action = Action::Continue(amendment.operations.clone());
                let outcome = Outcome::Matched {
                    conditions: conditions.collect(),
                    action: action.to_string(),
                };
                steps.push(self.step(self.rules.len() + at, outcome));
            }
        }
        Explained { steps, decision }
    }

    fn step(&self, at: usize, outcome: Outcome) -> Step {
        let rule = RuleIndex::new(at);
        Step {
            rule,
            name: self.name_of(rule).unwrap_or_default().to_owned(),
            outcome,
        }
    }
}

impl fmt::Display for Explained {
    /// One line per step, then the verdict.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for step in &self.steps {
            writeln!(f, "{step}")?;
        }
        let verdict = if self.decision.accepts() {
            "accepted"
        } else {
            "rejected"
        };
        let last = |rule| self.steps.iter().find(|step| step.rule == rule);
        match self.decision.rule.and_then(last) {
            Some(step) => write!(f, "{verdict} by '{}'", step.name),
            None => write!(f, "{verdict}: no rule decides"),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Outcome::Missed { condition } => {
                write!(f, "'{}' does not match: not {condition}", self.name)
            }
            Outcome::Matched { conditions, action } if conditions.is_empty() => {
                write!(f, "'{}' matches everything: {action}", self.name)
            }
            Outcome::Matched { conditions, action } => {
                let conditions = conditions.join("; ");
                write!(f, "'{}' matches ({conditions}): {action}", self.name)
            }
        }
    }
}
