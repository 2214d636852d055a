//! Strategic merge patch: a merge patch that knows how lists are keyed.
//!
//! Owns the directives `$patch`, `$deleteFromPrimitiveList`, `$setElementOrder` and
//! `$retainKeys`. Only built-in kinds have the schema extensions that it needs.

use serde_json::{Map, Value};

use crate::schema::Schema;
use crate::status::Refusal;

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_PRIMITIVES: &str = "$deleteFromPrimitiveList/";
const ELEMENT_ORDER: &str = "$setElementOrder/";

/// Applies a patch.
///
/// # Errors
/// 400 for a malformed directive or an element without its merge key.
pub fn apply(target: &mut Value, patch: &Value, schema: &Schema) -> Result<(), Refusal> {
    let Value::Object(patch) = patch else {
        return Err(Refusal::bad_request(
            "strategic merge patch: must be an object",
        ));
    };
    merge_objects(target, patch, Some(schema))
}

fn merge_objects(
    target: &mut Value,
    patch: &Map<String, Value>,
    schema: Option<&Schema>,
) -> Result<(), Refusal> {
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(map) = target else {
        return Ok(());
    };
    match patch.get(PATCH).and_then(Value::as_str) {
        Some("replace") => {
            *map = without_directives(patch);
            return Ok(());
        }
        Some("delete") => {
            map.clear();
            return Ok(());
        }
        Some("merge") | None => {}
        Some(other) => {
            let why = format!("strategic merge patch: unknown $patch directive {other:?}");
            return Err(Refusal::bad_request(why));
        }
    }
    if let Some(kept) = patch.get(RETAIN_KEYS).and_then(Value::as_array) {
        map.retain(|key, _| kept.iter().any(|other| other == key.as_str()));
    }
    for (key, value) in patch {
        if let Some(list) = key.strip_prefix(DELETE_PRIMITIVES) {
            if let Some(current) = map.get_mut(list).and_then(Value::as_array_mut) {
                let gone = value.as_array().map(Vec::as_slice).unwrap_or_default();
                current.retain(|element| !gone.contains(element));
            }
            continue;
        }
        if key.starts_with('$') {
            continue;
        }
        let inner = schema.and_then(|schema| schema.field(key));
        match value {
            Value::Null => {
                map.remove(key);
            }
            Value::Object(patch) => {
                let current = map.entry(key.clone()).or_insert(Value::Null);
                merge_objects(current, patch, inner)?;
                if patch
                    .get(PATCH)
                    .is_some_and(|directive| directive == "delete")
                {
                    map.remove(key);
                }
            }
            Value::Array(patch) => {
                let current = map
                    .entry(key.clone())
                    .or_insert_with(|| Value::Array(Vec::new()));
                merge_lists(current, patch, inner)?;
            }
            other => {
                map.insert(key.clone(), other.clone());
            }
        }
    }
    for (key, order) in patch {
        if let Some(list) = key.strip_prefix(ELEMENT_ORDER)
            && let (Some(Value::Array(current)), Some(order)) =
                (map.get_mut(list), order.as_array())
        {
            let inner = schema.and_then(|schema| schema.field(list));
            reorder(
                current,
                order,
                inner.and_then(|schema| schema.patch_merge_key.as_deref()),
            );
        }
    }
    Ok(())
}

fn without_directives(patch: &Map<String, Value>) -> Map<String, Value> {
    patch
        .iter()
        .filter(|(key, value)| !key.starts_with('$') && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

fn merge_lists(
    target: &mut Value,
    patch: &[Value],
    schema: Option<&Schema>,
) -> Result<(), Refusal> {
    let replaces = patch.iter().any(|element| element[PATCH] == "replace");
    let merges = schema.is_some_and(|schema| schema.patch_merge);
    if replaces || !merges {
        let elements = patch
            .iter()
            .filter(|element| {
                element
                    .get(PATCH)
                    .is_none_or(|directive| directive != "replace")
            })
            .cloned()
            .collect();
        *target = Value::Array(elements);
        return Ok(());
    }
    if !target.is_array() {
        *target = Value::Array(Vec::new());
    }
    let Value::Array(list) = target else {
        return Ok(());
    };
    let Some(key) = schema.and_then(|schema| schema.patch_merge_key.as_deref()) else {
        for element in patch {
            if !list.contains(element) {
                list.push(element.clone());
            }
        }
        return Ok(());
    };
    let element_schema = schema.and_then(Schema::element);
    for element in patch {
        let Value::Object(map) = element else {
            return Err(Refusal::bad_request(
                "strategic merge patch: list element is no object",
            ));
        };
        let Some(identity) = map.get(key) else {
            let why = format!("map: {element} does not contain declared merge key: {key}");
            return Err(Refusal::bad_request(why));
        };
        let position = list
            .iter()
            .position(|other| other.get(key) == Some(identity));
        match (map.get(PATCH).and_then(Value::as_str), position) {
            (Some("delete"), _) => list.retain(|other| other.get(key) != Some(identity)),
            (_, Some(position)) => merge_objects(&mut list[position], map, element_schema)?,
            (_, None) => list.push(Value::Object(without_directives(map))),
        }
    }
    Ok(())
}

/// Brings elements into the given order; those it does not name keep their place after the one
/// they followed.
fn reorder(list: &mut Vec<Value>, order: &[Value], key: Option<&str>) {
    let rank = |element: &Value| {
        order.iter().position(|wanted| match key {
            Some(key) => wanted.get(key) == element.get(key),
            None => wanted == element,
        })
    };
    let mut last = 0;
    let mut ranked: Vec<(usize, Value)> = std::mem::take(list)
        .into_iter()
        .map(|element| {
            last = rank(&element).unwrap_or(last);
            (last, element)
        })
        .collect();
    ranked.sort_by_key(|(rank, _)| *rank);
    list.extend(ranked.into_iter().map(|(_, element)| element));
}
