//! Tables: the form in which kubectl asks for objects that it prints.
//!
//! Owns columns and cells; which form is asked for is [`crate::negotiate`]'s.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::object;
use crate::resource::ResourceType;

/// How the cell of a column is computed.
#[derive(Debug, Clone)]
pub enum Cell {
    /// JSONPath of the simple kind used in CRDs: `.a.b`, `[0]`, `[*]`, `[?(@.k=="v")]`, quoted keys.
    Path(String),
    /// Hand-written, for built-ins. The function gets the object and an RFC 3339 time.
    Computed(fn(&Value) -> Value),
}

/// One column of a table.
#[derive(Debug, Clone)]
pub struct Column {
    /// Header.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    pub kind: String,
    /// Format, often empty.
    pub format: String,
    /// Description.
    pub description: String,
    /// 0 is always shown, greater only by `-o wide`.
    pub priority: i64,
    /// Where the cells come from.
    pub cell: Cell,
}

impl Column {
    /// A hand-written column.
    #[must_use]
    pub fn computed(name: &str, kind: &str, priority: i64, cell: fn(&Value) -> Value) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            format: String::new(),
            description: String::new(),
            priority,
            cell: Cell::Computed(cell),
        }
    }

    /// The age column.
    #[must_use]
    pub fn age() -> Self {
        Self {
            name: "Age".into(),
            kind: "date".into(),
            format: String::new(),
            description: "CreationTimestamp is a timestamp representing the server time when this \
                          object was created."
                .into(),
            priority: 0,
            cell: Cell::Path(".metadata.creationTimestamp".into()),
        }
    }
}

/// Columns of a CRD version, from its `additionalPrinterColumns`; without any, the age.
#[must_use]
pub fn custom_columns(declared: &Value) -> Vec<Column> {
    let Some(list) = declared.as_array().filter(|list| !list.is_empty()) else {
        return vec![Column::age()];
    };
    list.iter()
        .map(|column| {
            let text = |key: &str| column[key].as_str().unwrap_or_default().to_owned();
            Column {
                name: text("name"),
                kind: text("type"),
                format: text("format"),
                description: text("description"),
                priority: column["priority"].as_i64().unwrap_or_default(),
                cell: Cell::Path(text("jsonPath")),
            }
        })
        .collect()
}

/// What of each object a row carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// Its metadata.
    Metadata,
    /// All of it.
    Object,
}

/// How a table is to be made.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// What of each object a row carries.
    pub include: Include,
    /// Whether the columns are described; in a watch only the first table does.
    pub with_columns: bool,
    /// Time that ages are relative to.
    pub now: Timestamp,
}

/// A table of objects.
#[must_use]
pub fn table<'a>(
    resource: &ResourceType,
    objects: impl Iterator<Item = &'a Value>,
    list_metadata: Value,
    options: Options,
) -> Value {
    let definitions: Vec<Value> = std::iter::once(json!({
        "name": "Name", "type": "string", "format": "name", "priority": 0,
        "description": "Name must be unique within a namespace.",
    }))
    .chain(resource.columns.iter().map(|column| {
        json!({
            "name": column.name, "type": column.kind, "format": column.format,
            "description": column.description, "priority": column.priority,
        })
    }))
    .collect();
    let rows: Vec<Value> = objects
        .map(|object| row(resource, object, options))
        .collect();
    json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list_metadata,
        "columnDefinitions": if options.with_columns { json!(definitions) } else { Value::Null },
        "rows": rows,
    })
}

fn row(resource: &ResourceType, object: &Value, options: Options) -> Value {
    let cells: Vec<Value> = std::iter::once(json!(object::name(object)))
        .chain(
            resource
                .columns
                .iter()
                .map(|column| cell(column, object, options.now)),
        )
        .collect();
    let mut row = json!({"cells": cells});
    match options.include {
        Include::None => {}
        Include::Metadata => row["object"] = partial(object),
        Include::Object => row["object"] = object.clone(),
    }
    row
}

/// The metadata of an object, as `PartialObjectMetadata`.
#[must_use]
pub fn partial(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1",
        "metadata": object["metadata"],
    })
}

fn cell(column: &Column, object: &Value, now: Timestamp) -> Value {
    match &column.cell {
        Cell::Computed(compute) => compute(object),
        Cell::Path(path) => {
            let found = find(object, path);
            match (found.as_slice(), column.kind.as_str()) {
                ([] | [Value::Null], "date") => json!("<unknown>"),
                ([], "string") => json!(""),
                ([] | [Value::Null], _) => Value::Null,
                ([one], "date") => json!(age(one, now)),
                ([one], "string") => json!(text(one)),
                ([one], "integer") => one
                    .as_i64()
                    .map_or_else(|| (*one).clone(), |number| json!(number)),
                ([one], _) => (*one).clone(),
                // Several hits are shown as one text, as JSONPath printing does.
                (many, _) => {
                    let texts: Vec<String> = many.iter().map(|value| text(value)).collect();
                    json!(texts.join(","))
                }
            }
        }
    }
}

/// The time since a timestamp as people read it: two units while the second one matters.
fn age(timestamp: &Value, now: Timestamp) -> String {
    let Some(then) = timestamp
        .as_str()
        .and_then(|text| text.parse::<Timestamp>().ok())
    else {
        return "<invalid>".into();
    };
    let seconds = now.duration_since(then).as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let two = |a: i64, unit_a: &str, b: i64, unit_b: &str| {
        if b == 0 {
            format!("{a}{unit_a}")
        } else {
            format!("{a}{unit_a}{b}{unit_b}")
        }
    };
    match seconds {
        ..-1 => "<invalid>".into(),
        -1..120 => format!("{}s", seconds.max(0)),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// All values at a JSONPath.
#[must_use]
pub fn find<'a>(object: &'a Value, path: &str) -> Vec<&'a Value> {
    let mut found = vec![object];
    let mut rest = path
        .trim()
        .trim_start_matches('{')
        .trim_end_matches('}')
        .trim_start_matches('$');
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let Some(end) = closing_bracket(after) else {
                return Vec::new();
            };
            found = index(&found, after[..end].trim());
            rest = &after[end + 1..];
        } else {
            let after = rest.strip_prefix('.').unwrap_or(rest);
            let (key, length) = leading_key(after);
            if key == "*" {
                found = index(&found, "*");
            } else if !key.is_empty() {
                found = found
                    .into_iter()
                    .filter_map(|value| value.get(&key))
                    .collect();
            }
            rest = &after[length..];
            if length == 0 && rest == after && !rest.starts_with('[') {
                return found;
            }
        }
    }
    found
}

/// The key at the start of a path, with `\.` meaning a dot, and how long it is there.
fn leading_key(path: &str) -> (String, usize) {
    let mut key = String::new();
    let mut escaped = false;
    for (at, c) in path.char_indices() {
        match c {
            '\\' if !escaped => escaped = true,
            '.' | '[' if !escaped => return (key, at),
            _ => {
                key.push(c);
                escaped = false;
            }
        }
    }
    (key, path.len())
}

fn closing_bracket(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (None, '\'' | '"') => quote = Some(c),
            (Some(open), c) if c == open => quote = None,
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn index<'a>(values: &[&'a Value], inner: &str) -> Vec<&'a Value> {
    let unquoted = inner.trim_matches(['\'', '"']);
    values
        .iter()
        .flat_map(|value| -> Vec<&'a Value> {
            if inner == "*" {
                return match value {
                    Value::Array(list) => list.iter().collect(),
                    Value::Object(map) => map.values().collect(),
                    _ => Vec::new(),
                };
            }
            if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
                return value
                    .as_array()
                    .into_iter()
                    .flatten()
                    .filter(|v| passes(v, filter))
                    .collect();
            }
            if unquoted.len() != inner.len() {
                return value.get(unquoted).into_iter().collect();
            }
            let Some(list) = value.as_array() else {
                return Vec::new();
            };
            let position = match inner.parse::<i64>() {
                Ok(n) if n < 0 => list
                    .len()
                    .checked_sub(usize::try_from(-n).unwrap_or(usize::MAX)),
                Ok(n) => usize::try_from(n).ok(),
                Err(_) => None,
            };
            position
                .and_then(|position| list.get(position))
                .into_iter()
                .collect()
        })
        .collect()
}

/// `@.key=="value"`, or `@.key` for mere presence.
fn passes(value: &Value, filter: &str) -> bool {
    let filter = filter.trim();
    let (path, wanted, equal) = match (filter.split_once("=="), filter.split_once("!=")) {
        (Some((path, wanted)), _) => (path, Some(wanted), true),
        (None, Some((path, wanted))) => (path, Some(wanted), false),
        (None, None) => (filter, None, true),
    };
    let found = find(value, path.trim().trim_start_matches('@'));
    match wanted {
        None => !found.is_empty(),
        Some(wanted) => {
            let wanted = wanted.trim().trim_matches(['\'', '"']);
            found.iter().any(|value| text(value) == wanted) == equal
        }
    }
}
