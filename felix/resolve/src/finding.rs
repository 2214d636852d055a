//! What could not be followed, in words that fit a condition.

use std::fmt;

/// Which object a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Kind, as in manifests.
    pub kind: &'static str,
    /// Name.
    pub name: String,
}

impl ObjectRef {
    pub(crate) fn new(kind: &'static str, name: impl Into<String>) -> Self {
        Self {
            kind,
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.name)
    }
}

/// One thing that the resources ask for and the speaker does not do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// The object to change.
    pub object: ObjectRef,
    /// Its field, such as `spec.nodeSelector`; empty for the object as a whole.
    pub field: String,
    /// One of [`caracal_crds::reasons`].
    pub reason: &'static str,
    /// What is wrong and what was done instead.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.object)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        write!(f, "{} ({})", self.message, self.reason)
    }
}

/// Findings in the making.
#[derive(Debug, Default)]
pub(crate) struct Findings(Vec<Finding>);

impl Findings {
    pub(crate) fn add(
        &mut self,
        object: &ObjectRef,
        field: &str,
        reason: &'static str,
        message: impl Into<String>,
    ) {
        self.0.push(Finding {
            object: object.clone(),
            field: field.to_owned(),
            reason,
            message: message.into(),
        });
    }

    /// By object, so that the same inputs read the same.
    pub(crate) fn into_sorted(mut self) -> Vec<Finding> {
        self.0.sort();
        self.0.dedup();
        self.0
    }
}
