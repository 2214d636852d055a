//! JSON patch (RFC 6902).

use serde_json::Value;

use crate::status::Refusal;

/// Applies all operations of a patch, or none.
///
/// # Errors
/// 400 for a malformed patch; 422 for an operation that does not fit the document, a failed
/// `test` among them.
pub fn apply(target: &mut Value, patch: &Value) -> Result<(), Refusal> {
    let operations = patch
        .as_array()
        .ok_or_else(|| Refusal::bad_request("json patch: must be an array"))?;
    let mut document = target.clone();
    for operation in operations {
        step(&mut document, operation)?;
    }
    *target = document;
    Ok(())
}

fn step(document: &mut Value, operation: &Value) -> Result<(), Refusal> {
    let text = |key: &str| {
        operation.get(key).and_then(Value::as_str).ok_or_else(|| {
            Refusal::bad_request(format!("json patch: operation lacks {key:?}: {operation}"))
        })
    };
    let value = || {
        operation.get("value").cloned().ok_or_else(|| {
            Refusal::bad_request(format!(
                "json patch: operation lacks \"value\": {operation}"
            ))
        })
    };
    let path = text("path")?;
    match text("op")? {
        "add" => add(document, path, value()?),
        "remove" => remove(document, path).map(drop),
        "replace" => {
            let wanted = value()?;
            let place = document
                .pointer_mut(path)
                .ok_or_else(|| missing("replace", path))?;
            *place = wanted;
            Ok(())
        }
        "move" => {
            let moved = remove(document, text("from")?)?;
            add(document, path, moved)
        }
        "copy" => {
            let from = text("from")?;
            let copied = document
                .pointer(from)
                .cloned()
                .ok_or_else(|| missing("copy", from))?;
            add(document, path, copied)
        }
        "test" => {
            // RFC 6902 section 4.6: an absent target is a failed test, too.
            if document.pointer(path).unwrap_or(&Value::Null) == &value()? {
                Ok(())
            } else {
                Err(Refusal::unprocessable(format!(
                    "testing value {path} failed: test failed"
                )))
            }
        }
        other => Err(Refusal::bad_request(format!(
            "json patch: unexpected kind: {other}"
        ))),
    }
}

fn missing(operation: &str, path: &str) -> Refusal {
    Refusal::unprocessable(format!(
        "{operation} operation does not apply: doc is missing path: {path}: missing value"
    ))
}

fn parent<'a>(document: &'a mut Value, path: &str) -> Option<(&'a mut Value, String)> {
    let (parent, key) = path.rsplit_once('/')?;
    let key = key.replace("~1", "/").replace("~0", "~");
    Some((document.pointer_mut(parent)?, key))
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Refusal> {
    if path.is_empty() {
        *document = value;
        return Ok(());
    }
    let (parent, key) = parent(document, path).ok_or_else(|| missing("add", path))?;
    match parent {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(list) => {
            let index = if key == "-" {
                Some(list.len())
            } else {
                key.parse().ok()
            };
            let index = index
                .filter(|index| *index <= list.len())
                .ok_or_else(|| missing("add", path))?;
            list.insert(index, value);
        }
        _ => return Err(missing("add", path)),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, Refusal> {
    let (parent, key) = parent(document, path).ok_or_else(|| missing("remove", path))?;
    let removed = match parent {
        Value::Object(map) => map.remove(&key),
        Value::Array(list) => key
            .parse()
            .ok()
            .filter(|index| *index < list.len())
            .map(|index: usize| list.remove(index)),
        _ => None,
    };
    removed.ok_or_else(|| missing("remove", path))
}
