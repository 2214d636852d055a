//! Removal of fields that the schema does not know.
//!
//! Owns the walk; whether removed fields are an error, a warning or nothing is the caller's.

use serde_json::Value;

use super::{Additional, Schema, child};

/// Removes unknown fields from a whole object and returns their paths in walk order.
///
/// `apiVersion`, `kind` and `metadata` are kept at the root and in embedded resources.
pub fn prune(schema: &Schema, object: &mut Value) -> Vec<String> {
    let mut removed = Vec::new();
    walk(schema, object, "", true, &mut removed);
    removed
}

fn walk(schema: &Schema, value: &mut Value, path: &str, resource: bool, removed: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let keys: Vec<String> = map.keys().cloned().collect();
            for key in keys {
                let here = child(path, &key);
                let reserved =
                    resource && matches!(key.as_str(), "apiVersion" | "kind" | "metadata");
                if let Some(inner) = schema.field(&key) {
                    if let Some(value) = map.get_mut(&key) {
                        let embedded = inner.embedded_resource;
                        walk(inner, value, &here, embedded, removed);
                    }
                } else if !reserved && !keeps_unknown(schema) {
                    map.remove(&key);
                    removed.push(here);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.element() {
                for (index, value) in list.iter_mut().enumerate() {
                    let here = format!("{path}[{index}]");
                    walk(items, value, &here, items.embedded_resource, removed);
                }
            }
        }
        _ => {}
    }
}

fn keeps_unknown(schema: &Schema) -> bool {
    schema.preserve_unknown
        || matches!(schema.additional, Additional::Any)
        || (schema.kind.is_none() && schema.properties.is_empty())
}
