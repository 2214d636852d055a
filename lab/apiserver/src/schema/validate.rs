//! Validation of values against schemas.
//!
//! Owns the value rules; CEL rules are in [`super::cel`].

use serde_json::Value;

use super::{Additional, ListType, Rules, Schema, Type, child, formats};
use crate::status::Cause;

/// Checks a value; `old` is the value before an update.
///
/// Subtrees equal to the old ones are not checked: an update must not be refused for what it does
/// not touch (ratcheting).
#[must_use]
pub fn validate(schema: &Schema, value: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    walk(schema, value, old, "", &mut causes);
    causes
}

fn walk(schema: &Schema, value: &Value, old: Option<&Value>, path: &str, causes: &mut Vec<Cause>) {
    if old == Some(value) {
        return;
    }
    if value.is_null() && schema.nullable {
        return;
    }
    if !check_type(schema, value, path, causes) {
        return;
    }
    check_rules(&schema.rules, schema, value, path, causes);
    match value {
        Value::Object(map) => {
            for key in &schema.rules.required {
                if !map.contains_key(key) {
                    causes.push(Cause::required(child(path, key), ""));
                }
            }
            if schema.embedded_resource {
                for key in ["apiVersion", "kind"] {
                    if map
                        .get(key)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                        .is_empty()
                    {
                        causes.push(Cause::required(child(path, key), "must not be empty"));
                    }
                }
            }
            for (key, value) in map {
                if let Some(inner) = schema.field(key) {
                    let before = old.and_then(|old| old.get(key));
                    walk(inner, value, before, &child(path, key), causes);
                }
            }
        }
        Value::Array(list) => {
            check_list_type(schema, list, path, causes);
            if let Some(items) = schema.element() {
                for (index, value) in list.iter().enumerate() {
                    let before = correlated(&schema.list_type, value, index, old);
                    walk(items, value, before, &format!("{path}[{index}]"), causes);
                }
            }
        }
        _ => {}
    }
}

/// The element of the old list that an element of the new one stands for.
///
/// Only lists with keys can be correlated; for others an equal element counts as unchanged.
fn correlated<'a>(
    list_type: &ListType,
    value: &Value,
    _index: usize,
    old: Option<&'a Value>,
) -> Option<&'a Value> {
    let old = old?.as_array()?;
    match list_type {
        ListType::Map(keys) => old
            .iter()
            .find(|before| keys.iter().all(|key| before.get(key) == value.get(key))),
        ListType::Set => old.iter().find(|before| *before == value),
        ListType::Atomic => None,
    }
}

fn check_type(schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) -> bool {
    if schema.int_or_string {
        let fits = value.is_string() || value.is_i64() || value.is_u64();
        if !fits {
            causes.push(wrong_type(path, value, "integer,string"));
        }
        return fits;
    }
    let Some(kind) = schema.kind else { return true };
    let fits = match kind {
        Type::Object => value.is_object(),
        Type::Array => value.is_array(),
        Type::String => value.is_string(),
        Type::Integer => {
            value.is_i64() || value.is_u64() || value.as_f64().is_some_and(|f| f.fract() == 0.0)
        }
        Type::Number => value.is_number(),
        Type::Boolean => value.is_boolean(),
    };
    if !fits {
        causes.push(wrong_type(path, value, kind.name()));
    }
    fits
}

fn wrong_type(path: &str, value: &Value, wanted: &str) -> Cause {
    let got = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let mut cause = Cause::invalid(
        path,
        value,
        format!("{path} in body must be of type {wanted}: {got:?}"),
    );
    cause.reason = "FieldValueTypeInvalid";
    cause
}

fn check_list_type(schema: &Schema, list: &[Value], path: &str, causes: &mut Vec<Cause>) {
    for (index, value) in list.iter().enumerate() {
        let earlier = &list[..index];
        let duplicate = match &schema.list_type {
            ListType::Atomic => schema.rules.unique_items && earlier.contains(value),
            ListType::Set => earlier.contains(value),
            ListType::Map(keys) => earlier
                .iter()
                .any(|other| keys.iter().all(|key| other.get(key) == value.get(key))),
        };
        if duplicate {
            let mut cause = Cause::invalid(format!("{path}[{index}]"), value, "");
            cause.reason = "FieldValueDuplicate";
            cause.message = format!("Duplicate value: {value}");
            causes.push(cause);
        }
    }
}

fn check_rules(rules: &Rules, schema: &Schema, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let mut say = |why: String| causes.push(Cause::invalid(path, value, why));
    if let Some(text) = value.as_str() {
        let length = text.chars().count() as u64;
        if let Some(min) = rules.min_length.filter(|min| length < *min) {
            say(format!(
                "{path} in body should be at least {min} chars long"
            ));
        }
        if let Some(max) = rules.max_length.filter(|max| length > *max) {
            say(format!("{path} in body should be at most {max} chars long"));
        }
        if let Some(pattern) = rules
            .pattern
            .as_ref()
            .filter(|pattern| !pattern.is_match(text))
        {
            say(format!(
                "{path} in body should match '{}'",
                pattern.as_str()
            ));
        }
        if let Some(format) = rules
            .format
            .as_ref()
            .filter(|format| !formats::matches(format, text))
        {
            say(format!("{path} in body must be of type {format}: {text:?}"));
        }
    }
    if let Some(number) = value.as_f64() {
        if let Some((min, exclusive)) = rules.minimum
            && (number < min || (exclusive && number == min))
        {
            let relation = if exclusive {
                "greater than"
            } else {
                "greater than or equal to"
            };
            say(format!("{path} in body should be {relation} {min}"));
        }
        if let Some((max, exclusive)) = rules.maximum
            && (number > max || (exclusive && number == max))
        {
            let relation = if exclusive {
                "less than"
            } else {
                "less than or equal to"
            };
            say(format!("{path} in body should be {relation} {max}"));
        }
        if let Some(step) = rules
            .multiple_of
            .filter(|step| (number / step).fract() != 0.0)
        {
            say(format!("{path} in body should be a multiple of {step}"));
        }
        if let Some(format) = rules
            .format
            .as_ref()
            .filter(|_| schema.kind == Some(Type::Integer))
        {
            let fits = match format.as_str() {
                "int32" => value.as_i64().is_some_and(|n| i32::try_from(n).is_ok()),
                _ => true,
            };
            if !fits {
                say(format!(
                    "{path} in body must be of type {format}: {value:?}"
                ));
            }
        }
    }
    if let Some(list) = value.as_array() {
        let count = list.len() as u64;
        if let Some(min) = rules.min_items.filter(|min| count < *min) {
            say(format!("{path} in body should have at least {min} items"));
        }
        if let Some(max) = rules.max_items.filter(|max| count > *max) {
            causes.push(too_many(path, count, max, "items"));
        }
    } else if let Some(map) = value.as_object() {
        let count = map.len() as u64;
        if let Some(min) = rules.min_properties.filter(|min| count < *min) {
            say(format!(
                "{path} in body should have at least {min} properties"
            ));
        }
        if let Some(max) = rules.max_properties.filter(|max| count > *max) {
            causes.push(too_many(path, count, max, "properties"));
        }
    }
    if let Some(allowed) = rules
        .one_of_values
        .as_ref()
        .filter(|allowed| !allowed.contains(value))
    {
        let list: Vec<String> = allowed.iter().map(ToString::to_string).collect();
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {value}: supported values: {}",
                list.join(", ")
            ),
            field: path.into(),
        });
    }
    check_composition(rules, value, path, causes);
}

fn too_many(path: &str, count: u64, max: u64, what: &str) -> Cause {
    Cause {
        reason: "FieldValueTooMany",
        message: format!("Too many: {count}: must have at most {max} {what}"),
        field: path.into(),
    }
}

fn check_composition(rules: &Rules, value: &Value, path: &str, causes: &mut Vec<Cause>) {
    let fits = |schema: &Schema| {
        let mut inner = Vec::new();
        walk(schema, value, None, path, &mut inner);
        inner.is_empty()
    };
    for schema in &rules.all_of {
        walk(schema, value, None, path, causes);
    }
    if !rules.any_of.is_empty() && !rules.any_of.iter().any(fits) {
        let why = format!("{path} in body must validate at least one schema (anyOf)");
        causes.push(Cause::invalid(path, value, why));
    }
    if !rules.one_of.is_empty() && rules.one_of.iter().filter(|schema| fits(schema)).count() != 1 {
        let why = format!("{path} in body must validate one and only one schema (oneOf)");
        causes.push(Cause::invalid(path, value, why));
    }
    if let Some(schema) = &rules.not
        && fits(schema)
    {
        let why = format!("{path} in body must not validate the schema (not)");
        causes.push(Cause::invalid(path, value, why));
    }
}

/// Whether a schema admits fields it does not name.
#[must_use]
pub fn is_open(schema: &Schema) -> bool {
    schema.preserve_unknown || matches!(schema.additional, Additional::Any)
}
