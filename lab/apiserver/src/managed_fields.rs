//! Who wrote which fields: `metadata.managedFields`.
//!
//! Owns the entries and how updates and applies change them; the sets are
//! [`crate::field_set`]'s. Follows structured-merge-diff v4.

use serde_json::{Value, json};

use crate::field_set::{FieldSet, difference};
use crate::object;
use crate::schema::Schema;
use crate::status::{Cause, Refusal};

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// By server-side apply.
    Apply,
    /// By anything else.
    Update,
}

/// Who writes, and how.
#[derive(Debug, Clone)]
pub struct Writer {
    /// Name of the field manager.
    pub manager: String,
    /// `status` or empty.
    pub subresource: String,
    /// RFC 3339 time of the write.
    pub time: String,
    /// `apiVersion` the fields are named in.
    pub api_version: String,
}

#[derive(Debug, Clone)]
struct Entry {
    manager: String,
    operation: Operation,
    api_version: String,
    time: String,
    subresource: String,
    fields: FieldSet,
}

impl Entry {
    fn is(&self, writer: &Writer, operation: Operation) -> bool {
        self.manager == writer.manager
            && self.operation == operation
            && self.subresource == writer.subresource
            && self.api_version == writer.api_version
    }
}

fn read(object: &Value) -> Vec<Entry> {
    let Some(list) = object["metadata"]["managedFields"].as_array() else {
        return Vec::new();
    };
    list.iter()
        .filter(|entry| entry.get("fieldsV1").is_some())
        .map(|entry| {
            let text = |key: &str| entry[key].as_str().unwrap_or_default().to_owned();
            Entry {
                manager: text("manager"),
                operation: if entry["operation"] == "Apply" {
                    Operation::Apply
                } else {
                    Operation::Update
                },
                api_version: text("apiVersion"),
                time: text("time"),
                subresource: text("subresource"),
                fields: FieldSet::from_fields_v1(&entry["fieldsV1"]),
            }
        })
        .collect()
}

fn write(object: &mut Value, mut entries: Vec<Entry>) {
    entries.retain(|entry| !entry.fields.is_empty());
    // Applies first, then by time: the order in which upstream lists them.
    entries.sort_by(|a, b| {
        (a.operation == Operation::Update, &a.time, &a.manager).cmp(&(
            b.operation == Operation::Update,
            &b.time,
            &b.manager,
        ))
    });
    let list: Vec<Value> = entries
        .into_iter()
        .map(|entry| {
            let mut value = json!({
                "manager": entry.manager,
                "operation": match entry.operation {
                    Operation::Apply => "Apply",
                    Operation::Update => "Update",
                },
                "apiVersion": entry.api_version,
                "time": entry.time,
                "fieldsType": "FieldsV1",
                "fieldsV1": entry.fields.to_fields_v1(),
            });
            if !entry.subresource.is_empty() {
                value["subresource"] = json!(entry.subresource);
            }
            value
        })
        .collect();
    let value = if list.is_empty() {
        None
    } else {
        Some(Value::Array(list))
    };
    object::set_meta(object, "managedFields", value);
}

/// Fields nobody owns: identity and what the server itself writes.
fn strip(set: &mut FieldSet) {
    for path in [&["apiVersion"][..], &["kind"]] {
        set.remove_branch(path);
    }
    for field in [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "generation",
        "managedFields",
        "resourceVersion",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
    ] {
        set.remove_branch(&["metadata", field]);
    }
    let metadata = crate::field_set::Step::field("metadata");
    if set
        .child(&metadata)
        .is_some_and(|inner| inner.is_member() && inner.paths().len() == 1)
    {
        set.remove_branch(&["metadata"]);
    }
}

/// Fields that a request to this subresource (or to the main resource) cannot own.
fn reset(set: &mut FieldSet, subresource: &str, has_status: bool, custom: bool) {
    if subresource == "status" {
        if custom {
            set.keep_branches(&["status"]);
        } else {
            set.remove_branch(&["spec"]);
        }
    } else if has_status {
        set.remove_branch(&["status"]);
    }
}

/// What tracking needs to know of the resource.
#[derive(Debug, Clone, Copy)]
pub struct Tracking<'a> {
    /// Schema of the objects.
    pub schema: &'a Schema,
    /// Whether `status` is a subresource.
    pub has_status: bool,
    /// Whether it is a custom resource.
    pub custom: bool,
}

/// Records a write that is not an apply. `old` is `None` for a create.
///
/// A body with `managedFields: [{}]` (or `[]`) clears all earlier entries.
pub fn track_update(old: Option<&Value>, new: &mut Value, writer: &Writer, tracking: Tracking<'_>) {
    let sent = new["metadata"].get("managedFields").cloned();
    let cleared = sent.as_ref().and_then(Value::as_array).is_some_and(|list| {
        list.iter()
            .all(|entry| entry.as_object().is_none_or(serde_json::Map::is_empty))
    });
    let mut entries = match old {
        Some(_) if cleared => {
            object::set_meta(new, "managedFields", None);
            return;
        }
        // Clients may edit entries; what they send counts as the state before this write.
        Some(old) => {
            if sent.is_some() {
                read(new)
            } else {
                read(old)
            }
        }
        None => Vec::new(),
    };
    let before = old.cloned().unwrap_or_else(|| json!({}));
    let mut change = difference(&before, new, Some(tracking.schema));
    strip(&mut change.changed);
    strip(&mut change.removed);
    reset(
        &mut change.changed,
        &writer.subresource,
        tracking.has_status,
        tracking.custom,
    );
    for entry in &mut entries {
        entry.fields.subtract_below(&change.removed);
        if !entry.is(writer, Operation::Update) {
            entry.fields.subtract(&change.changed);
        }
    }
    if !change.changed.is_empty() {
        match entries
            .iter_mut()
            .find(|entry| entry.is(writer, Operation::Update))
        {
            Some(entry) => {
                entry.fields.union(&change.changed);
                entry.time.clone_from(&writer.time);
            }
            None => entries.push(entry(writer, Operation::Update, change.changed)),
        }
    }
    write(new, entries);
}

fn entry(writer: &Writer, operation: Operation, fields: FieldSet) -> Entry {
    Entry {
        manager: writer.manager.clone(),
        operation,
        api_version: writer.api_version.clone(),
        time: writer.time.clone(),
        subresource: writer.subresource.clone(),
        fields,
    }
}

/// Carries out a server-side apply of `config` on `live`; returns the new object, before
/// defaulting and validation.
///
/// # Errors
/// 409 with one cause per conflicting field, unless `force`.
pub fn apply(
    live: &Value,
    config: &Value,
    writer: &Writer,
    force: bool,
    tracking: Tracking<'_>,
) -> Result<Value, Refusal> {
    let schema = Some(tracking.schema);
    let mut entries = read(live);
    let mut wanted = FieldSet::of(config, schema);
    strip(&mut wanted);
    reset(
        &mut wanted,
        &writer.subresource,
        tracking.has_status,
        tracking.custom,
    );

    let mut merged = crate::patch::apply::merge(live, config, schema);

    // Fields this manager applied before and no longer wants go, unless others own them too.
    let position = entries
        .iter()
        .position(|entry| entry.is(writer, Operation::Apply));
    if let Some(position) = position {
        let mut dropped = entries[position].fields.clone();
        dropped.subtract(&wanted);
        let mut held = wanted.clone();
        for (_, other) in entries
            .iter()
            .enumerate()
            .filter(|(index, _)| *index != position)
        {
            held.union(&other.fields);
        }
        dropped.subtract(&held);
        crate::patch::apply::remove(&mut merged, &dropped, &held, schema);
    }

    let mut change = difference(live, &merged, schema);
    strip(&mut change.changed);
    let mut causes = Vec::new();
    for other in entries
        .iter_mut()
        .filter(|entry| !entry.is(writer, Operation::Apply))
    {
        let contested = other
            .fields
            .intersection(&change.changed)
            .intersection(&wanted);
        if contested.is_empty() {
            continue;
        }
        if force {
            other.fields.subtract(&contested);
        } else {
            causes.extend(
                contested
                    .paths()
                    .into_iter()
                    .map(|field| conflict(other, field)),
            );
        }
    }
    if !causes.is_empty() {
        return Err(Refusal::apply_conflict(causes));
    }
    strip(&mut change.removed);
    for other in &mut entries {
        other.fields.subtract_below(&change.removed);
    }
    match position {
        Some(position) => {
            let mine = &mut entries[position];
            if mine.fields != wanted || !change.changed.is_empty() || !change.removed.is_empty() {
                mine.time.clone_from(&writer.time);
            }
            mine.fields = wanted;
        }
        None => entries.push(entry(writer, Operation::Apply, wanted)),
    }
    write(&mut merged, entries);
    Ok(merged)
}

fn conflict(owner: &Entry, field: String) -> Cause {
    let subresource = if owner.subresource.is_empty() {
        String::new()
    } else {
        format!(" with subresource {:?}", owner.subresource)
    };
    let how = match owner.operation {
        Operation::Apply => String::new(),
        Operation::Update => format!(" using {}", owner.api_version),
    };
    Cause {
        reason: "FieldManagerConflict",
        message: format!("conflict with {:?}{subresource}{how}", owner.manager),
        field,
    }
}
