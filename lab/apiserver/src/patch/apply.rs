//! The value side of server-side apply: merging a configuration in, taking dropped fields out.
//!
//! Who owns what, and so what is dropped, is [`crate::managed_fields`]'s.

use serde_json::Value;

use crate::field_set::{FieldSet, Shape, Step, shape};
use crate::schema::Schema;

/// Merges a configuration into an object, list elements by their identity.
#[must_use]
pub fn merge(live: &Value, config: &Value, schema: Option<&Schema>) -> Value {
    match (shape(live, schema), shape(config, schema)) {
        (Shape::Map(before), Shape::Map(after)) => {
            let mut merged = before.clone();
            for (key, value) in after {
                let inner = schema.and_then(|schema| schema.field(key));
                let value = match before.get(key) {
                    Some(old) => merge(old, value, inner),
                    None => value.clone(),
                };
                merged.insert(key.clone(), value);
            }
            Value::Object(merged)
        }
        (Shape::List(before), Shape::List(after)) => {
            let inner = schema.and_then(Schema::element);
            merge_lists(&before, &after, inner)
        }
        _ => config.clone(),
    }
}

/// Elements in the order of the configuration, with elements only the live list has kept where
/// they stand relative to their predecessor.
fn merge_lists(
    before: &[(Step, &Value)],
    after: &[(Step, &Value)],
    schema: Option<&Schema>,
) -> Value {
    let find = |list: &[(Step, &Value)], step: &Step| {
        list.iter()
            .find(|(other, _)| other == step)
            .map(|(_, value)| (*value).clone())
    };
    let mut merged: Vec<Value> = Vec::with_capacity(before.len() + after.len());
    let mut emitted: Vec<&Step> = Vec::new();
    let mut pending = before.iter().peekable();
    for (step, value) in after {
        if let Some(old) = find(before, step) {
            while let Some((next, kept)) = pending.peek() {
                if next == step {
                    pending.next();
                    break;
                }
                let in_config = after.iter().any(|(other, _)| other == next);
                if in_config {
                    if emitted.contains(&next) {
                        pending.next();
                        continue;
                    }
                    break;
                }
                merged.push((*kept).clone());
                emitted.push(next);
                pending.next();
            }
            merged.push(merge(&old, value, schema));
        } else {
            merged.push((*value).clone());
        }
        emitted.push(step);
    }
    for (step, value) in before {
        if !emitted.contains(&step) {
            merged.push((*value).clone());
        }
    }
    Value::Array(merged)
}

/// Takes the `dropped` fields out of an object. What is `held` (wanted still, or owned by others)
/// stays, with everything above it; a parent of which nothing is held goes as a whole, defaults
/// that the server had put into it included.
pub fn remove(object: &mut Value, dropped: &FieldSet, held: &FieldSet, schema: Option<&Schema>) {
    let keep = |value: &mut Value, step: &Step, schema: Option<&Schema>| -> bool {
        match (dropped.child(step), held.child(step)) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(dropped), Some(held)) => {
                remove(value, dropped, held, schema);
                true
            }
        }
    };
    let elements: Vec<Step> = match shape(object, schema) {
        Shape::List(elements) => elements.into_iter().map(|(step, _)| step).collect(),
        _ => Vec::new(),
    };
    match object {
        Value::Object(map) => map.retain(|key, value| {
            let inner = schema.and_then(|schema| schema.field(key));
            keep(value, &Step::field(key), inner)
        }),
        Value::Array(list) => {
            let inner = schema.and_then(Schema::element);
            let mut steps = elements.iter();
            list.retain_mut(|element| steps.next().is_none_or(|step| keep(element, step, inner)));
        }
        _ => {}
    }
}
