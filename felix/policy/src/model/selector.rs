//! Label selectors: what they say and what they match.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Labels;

/// A label selector in normal form: a set of requirements that must all hold. Two selectors that list
/// the same requirements in another order, or use `matchLabels` for an `In` with one value, are equal.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LabelSelector {
    /// The requirements; none means that everything matches.
    pub requirements: BTreeSet<Requirement>,
}

/// One condition on one label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Requirement {
    /// Label key.
    pub key: String,
    /// What must hold of it.
    pub operator: Operator,
}

/// What a requirement demands of its label.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Operator {
    /// The label exists and has one of these values.
    In(BTreeSet<String>),
    /// The label is missing, or has none of these values.
    NotIn(BTreeSet<String>),
    /// The label exists.
    Exists,
    /// The label is missing.
    DoesNotExist,
    /// An operator of a later API version; makes the selector invalid.
    Unknown(String),
}

impl LabelSelector {
    /// The selector that matches everything.
    #[must_use]
    pub fn everything() -> Self {
        Self::default()
    }

    /// Adds `key=value`, as `matchLabels` does.
    #[must_use]
    pub fn with_label(self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.with(key, Operator::In(BTreeSet::from([value.into()])))
    }

    /// Adds a requirement, as `matchExpressions` does.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, operator: Operator) -> Self {
        self.requirements.insert(Requirement {
            key: key.into(),
            operator,
        });
        self
    }

    /// True if there is no requirement.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.requirements.is_empty()
    }

    /// False if a requirement cannot be understood: an unknown operator, or `In` or `NotIn` without
    /// values, which the API forbids.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        self.requirements
            .iter()
            .all(|requirement| match &requirement.operator {
                Operator::In(values) | Operator::NotIn(values) => !values.is_empty(),
                Operator::Exists | Operator::DoesNotExist => true,
                Operator::Unknown(_) => false,
            })
    }

    /// Whether an object with `labels` is selected. An invalid selector selects nothing: part of it is
    /// not understood, and matching the rest would select more than was asked for.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.is_valid()
            && self
                .requirements
                .iter()
                .all(|requirement| requirement.holds(labels))
    }
}

impl Requirement {
    fn holds(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| values.contains(value)),
            Operator::NotIn(values) => value.is_none_or(|value| !values.contains(value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Unknown(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[&str]) -> BTreeSet<String> {
        values.iter().map(|value| (*value).to_owned()).collect()
    }

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn operators_follow_the_api_text() {
        let a1 = labels(&[("a", "1")]);
        let none = Labels::new();
        let cases = [
            (Operator::In(values(&["1", "2"])), true, false),
            (Operator::In(values(&["2"])), false, false),
            (Operator::NotIn(values(&["1"])), false, true),
            (Operator::NotIn(values(&["2"])), true, true),
            (Operator::Exists, true, false),
            (Operator::DoesNotExist, false, true),
            (Operator::Unknown("Gt".to_owned()), false, false),
            (Operator::In(values(&[])), false, false),
            (Operator::NotIn(values(&[])), false, false),
        ];
        for (operator, with_label, without) in cases {
            let selector = LabelSelector::everything().with("a", operator.clone());
            assert_eq!(selector.matches(&a1), with_label, "{operator:?} on a=1");
            assert_eq!(selector.matches(&none), without, "{operator:?} without a");
        }
    }

    #[test]
    fn requirements_are_joined_by_and() {
        let selector = LabelSelector::everything()
            .with_label("a", "1")
            .with("b", Operator::Exists);
        assert!(selector.matches(&labels(&[("a", "1"), ("b", "")])));
        assert!(!selector.matches(&labels(&[("a", "1")])));
        assert!(!selector.matches(&labels(&[("b", "")])));
    }

    #[test]
    fn the_empty_selector_matches_everything() {
        assert!(LabelSelector::everything().matches(&Labels::new()));
        assert!(LabelSelector::everything().matches(&labels(&[("a", "1")])));
    }

    #[test]
    fn match_labels_equals_in_with_one_value() {
        assert_eq!(
            LabelSelector::everything().with_label("a", "1"),
            LabelSelector::everything().with("a", Operator::In(values(&["1"]))),
        );
    }
}
