//! Label and field selectors.
//!
//! Owns their grammar and evaluation; which fields a resource offers is the registry's.

use serde_json::Value;

use crate::names;
use crate::object;
use crate::resource::ResourceType;
use crate::status::Refusal;

/// One condition on labels.
#[derive(Debug, Clone, PartialEq, Eq)]
enum LabelRule {
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
    Exists(String),
    Missing(String),
}

/// A label selector: all rules have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LabelSelector(Vec<LabelRule>);

impl LabelSelector {
    /// Reads `a=b,c!=d,e in (f,g),h notin (i),j,!k`.
    ///
    /// # Errors
    /// 400 with the part that was not understood.
    pub fn parse(text: &str) -> Result<Self, Refusal> {
        let parts = split_outside_parentheses(text);
        let rules: Result<Vec<LabelRule>, Refusal> = parts
            .into_iter()
            .filter(|part| !part.is_empty())
            .map(parse_label_rule)
            .collect();
        Ok(Self(rules?))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object's labels fulfil it.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|rule| match rule {
            LabelRule::In(key, values) => {
                object::label(object, key).is_some_and(|value| values.iter().any(|v| v == value))
            }
            LabelRule::NotIn(key, values) => {
                object::label(object, key).is_none_or(|value| values.iter().all(|v| v != value))
            }
            LabelRule::Exists(key) => object::label(object, key).is_some(),
            LabelRule::Missing(key) => object::label(object, key).is_none(),
        })
    }
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0_i32);
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim());
    parts
}

fn parse_label_rule(part: &str) -> Result<LabelRule, Refusal> {
    let bad = || Refusal::bad_request(format!("unable to parse requirement: {part:?}"));
    let key = |text: &str| {
        let text = text.trim();
        if names::is_qualified_name(text) {
            Ok(text.to_owned())
        } else {
            Err(bad())
        }
    };
    let value = |text: &str| {
        let text = text.trim();
        if names::is_label_value(text) {
            Ok(text.to_owned())
        } else {
            Err(bad())
        }
    };
    if let Some(missing) = part.strip_prefix('!') {
        return Ok(LabelRule::Missing(key(missing)?));
    }
    if let Some((left, right)) = part.split_once('(') {
        let list = right.trim().strip_suffix(')').ok_or_else(bad)?;
        let values: Result<Vec<String>, Refusal> = list.split(',').map(value).collect();
        let (name, operator) = left
            .trim()
            .split_once(char::is_whitespace)
            .ok_or_else(bad)?;
        return match operator.trim() {
            "in" => Ok(LabelRule::In(key(name)?, values?)),
            "notin" => Ok(LabelRule::NotIn(key(name)?, values?)),
            _ => Err(bad()),
        };
    }
    if let Some((name, wanted)) = part.split_once("!=") {
        return Ok(LabelRule::NotIn(key(name)?, vec![value(wanted)?]));
    }
    if let Some((name, wanted)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return Ok(LabelRule::In(key(name)?, vec![value(wanted)?]));
    }
    Ok(LabelRule::Exists(key(part)?))
}

/// A field selector: all conditions have to hold.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldSelector(Vec<(String, bool, String)>);

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`, and checks that the resource offers the fields.
    ///
    /// # Errors
    /// 400 for bad grammar and for fields that are not offered.
    pub fn parse(text: &str, resource: &ResourceType) -> Result<Self, Refusal> {
        let mut rules = Vec::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let (field, equal, value) = if let Some((field, value)) = part.split_once("!=") {
                (field, false, value)
            } else if let Some((field, value)) =
                part.split_once("==").or_else(|| part.split_once('='))
            {
                (field, true, value)
            } else {
                let why = format!("invalid selector: '{text}'; can't understand '{part}'");
                return Err(Refusal::bad_request(why));
            };
            let known = field == "metadata.name"
                || (field == "metadata.namespace" && resource.namespaced)
                || resource
                    .selectable_fields
                    .iter()
                    .any(|offered| offered == field);
            if !known {
                let why = format!("field label not supported: {field}");
                return Err(Refusal::bad_request(why));
            }
            rules.push((field.to_owned(), equal, value.to_owned()));
        }
        Ok(Self(rules))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the condition of a request for a single object.
    pub fn require_name(&mut self, name: &str) {
        self.0.push(("metadata.name".into(), true, name.into()));
    }

    /// Whether an object fulfils it. An absent field is the empty text.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, equal, wanted)| {
            let actual = match object::at(object, field) {
                Some(Value::String(text)) => text.clone(),
                Some(Value::Null) | None => String::new(),
                Some(other) => other.to_string(),
            };
            (actual == *wanted) == *equal
        })
    }
}
