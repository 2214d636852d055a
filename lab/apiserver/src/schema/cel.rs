//! `x-kubernetes-validations` rules.
//!
//! Owns the mapping between the CEL validator and causes, and ratcheting; the language itself is
//! the `kube-cel` crate's.

use std::fmt;

use kube_cel::{ErrorKind, RootContext, Validator};
use serde_json::Value;

use crate::status::Cause;

/// The compiled rules of one schema.
pub struct Rules {
    source: Value,
    compiled: kube_cel::CompiledSchema,
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules").finish_non_exhaustive()
    }
}

impl Rules {
    /// Compiles the rules of a schema.
    #[must_use]
    pub fn compile(schema: &Value) -> Self {
        Self {
            source: schema.clone(),
            compiled: kube_cel::compile_schema(schema),
        }
    }

    /// Rules that do not compile, as texts; a CRD with any is refused.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        fn collect(schema: &kube_cel::CompiledSchema, errors: &mut Vec<String>) {
            errors.extend(schema.compilation_errors().iter().map(ToString::to_string));
            schema
                .properties
                .values()
                .for_each(|inner| collect(inner, errors));
            schema.items.iter().for_each(|inner| collect(inner, errors));
            schema
                .additional_properties
                .iter()
                .for_each(|inner| collect(inner, errors));
        }
        let mut errors = Vec::new();
        collect(&self.compiled, &mut errors);
        errors
    }

    /// Evaluates all rules; transition rules only if there is an `old` object.
    #[must_use]
    pub fn check(&self, group: &str, object: &Value, old: Option<&Value>) -> Vec<Cause> {
        let root = RootContext {
            api_version: object["apiVersion"].as_str().unwrap_or_default().into(),
            api_group: group.into(),
            kind: object["kind"].as_str().unwrap_or_default().into(),
        };
        let validator = Validator::new();
        let outcome =
            validator.validate_compiled_with_context(&self.compiled, object, old, Some(&root));
        let Err(errors) = outcome else {
            return Vec::new();
        };
        errors
            .into_vec()
            .into_iter()
            .filter(|error| !self.is_tolerated(error, object, old))
            .map(|error| cause(&error, object))
            .collect()
    }

    /// An update is not refused for a rule over a value it leaves as it was (ratcheting);
    /// transition rules are about the change, so they always count.
    fn is_tolerated(
        &self,
        error: &kube_cel::ValidationError,
        object: &Value,
        old: Option<&Value>,
    ) -> bool {
        let Some(old) = old else { return false };
        if error.rule.contains("oldSelf") {
            return false;
        }
        let scope = rule_scope(&self.source, &error.rule, &error.field_path);
        match (lookup(object, scope), lookup(old, scope)) {
            (Some(now), Some(before)) => now == before,
            _ => false,
        }
    }
}

/// Path of the value that a rule is about: a `fieldPath` makes the reported path longer.
fn rule_scope<'a>(schema: &Value, rule: &str, path: &'a str) -> &'a str {
    let mut ends: Vec<usize> = path
        .char_indices()
        .filter(|(_, c)| matches!(c, '.' | '['))
        .map(|(at, _)| at)
        .collect();
    ends.push(path.len());
    ends.push(0);
    ends.sort_unstable();
    ends.into_iter()
        .rev()
        .map(|end| &path[..end])
        .find(|prefix| {
            schema_at(schema, prefix).is_some_and(|node| {
                node["x-kubernetes-validations"]
                    .as_array()
                    .is_some_and(|rules| rules.iter().any(|r| r["rule"] == rule))
            })
        })
        .unwrap_or(path)
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.split(['.', '['])
        .map(|step| step.trim_end_matches(']').trim_matches('"'))
        .filter(|s| !s.is_empty())
}

fn schema_at<'a>(schema: &'a Value, path: &str) -> Option<&'a Value> {
    steps(path).try_fold(schema, |node, step| {
        node["properties"].get(step).or_else(|| {
            if step.bytes().all(|byte| byte.is_ascii_digit()) {
                node.get("items")
            } else {
                node.get("additionalProperties")
            }
        })
    })
}

fn lookup<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    steps(path).try_fold(object, |node, step| match node {
        Value::Array(list) => list.get(step.parse::<usize>().ok()?),
        other => other.get(step),
    })
}

fn cause(error: &kube_cel::ValidationError, object: &Value) -> Cause {
    let path = error.field_path.trim_start_matches('.').to_owned();
    let shown = lookup(object, &path).cloned().unwrap_or(Value::Null);
    match (&error.kind, error.reason.as_deref()) {
        (ErrorKind::ValidationFailure, Some("FieldValueRequired")) => {
            Cause::required(path, &error.message)
        }
        (ErrorKind::ValidationFailure, Some("FieldValueForbidden")) => {
            Cause::forbidden(path, &error.message)
        }
        (ErrorKind::ValidationFailure, Some("FieldValueDuplicate")) => Cause {
            reason: "FieldValueDuplicate",
            message: format!("Duplicate value: {}", error.message),
            field: path,
        },
        _ => Cause::invalid(path, &shown, &error.message),
    }
}
