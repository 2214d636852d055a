//! Filling in of schema defaults.

use serde_json::Value;

use super::{Additional, Schema};

/// Fills in defaults for absent fields, and for `null` where the schema does not allow it.
pub fn apply(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(map) => {
            for (key, inner) in &schema.properties {
                let replace_null = matches!(map.get(key), Some(Value::Null))
                    && !inner.nullable
                    && inner.default.is_some();
                if (replace_null || !map.contains_key(key))
                    && let Some(default) = &inner.default
                {
                    map.insert(key.clone(), default.clone());
                }
                if let Some(value) = map.get_mut(key) {
                    apply(inner, value);
                }
            }
            if let Additional::Schema(inner) = &schema.additional {
                for (key, value) in map.iter_mut() {
                    if !schema.properties.contains_key(key) {
                        apply(inner, value);
                    }
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.element() {
                for value in list {
                    apply(items, value);
                }
            }
        }
        _ => {}
    }
}
