//! DELETE of objects and collections.

use serde_json::{Value, json};

use super::{Outcome, WriteOptions, body, read, timestamp};
use crate::api::Api;
use crate::builtin;
use crate::object;
use crate::request::Request;
use crate::resource::ResourceType;
use crate::status::Refusal;
use crate::store::ObjectKey;

/// What is to become of the objects that name the deleted one as owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are collected afterwards.
    Background,
    /// They are collected first.
    Foreground,
    /// They stay, without the owner reference.
    Orphan,
}

/// `DeleteOptions`, from body and query.
#[derive(Debug, Clone)]
pub struct DeleteOptions {
    /// `preconditions.uid`
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`
    pub resource_version: Option<String>,
    /// `propagationPolicy`
    pub propagation: Propagation,
    /// `gracePeriodSeconds`
    pub grace_period: Option<i64>,
}

impl DeleteOptions {
    /// Reads the options; the body, if there is one, takes precedence over the query.
    ///
    /// # Errors
    /// 400 or 415 for a body that is not `DeleteOptions`, 422 for values that are not known.
    pub fn read(request: &Request, write: &mut WriteOptions) -> Result<Self, Refusal> {
        let body = if request.body.is_empty() {
            json!({})
        } else {
            body::decode(&request.media_type(), &request.body)?.value
        };
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        if body["dryRun"]
            .as_array()
            .is_some_and(|list| list.iter().any(|value| value == "All"))
        {
            write.dry_run = true;
        }
        let policy = text(&body["propagationPolicy"])
            .or_else(|| request.param("propagationPolicy").map(ToOwned::to_owned));
        let orphan = body["orphanDependents"].as_bool().unwrap_or_default();
        let propagation = match policy.as_deref() {
            None if orphan => Propagation::Orphan,
            None | Some("Background") => Propagation::Background,
            Some("Foreground") => Propagation::Foreground,
            Some("Orphan") => Propagation::Orphan,
            Some(other) => {
                let why = format!(
                    "DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported \
                     value: {other:?}: supported values: \"Foreground\", \"Background\", \
                     \"Orphan\""
                );
                return Err(Refusal::unprocessable(why));
            }
        };
        let grace_period = match body["gracePeriodSeconds"].as_i64() {
            Some(seconds) => Some(seconds),
            None => request
                .number("gracePeriodSeconds")?
                .and_then(|n| i64::try_from(n).ok()),
        };
        Ok(Self {
            uid: text(&body["preconditions"]["uid"]),
            resource_version: text(&body["preconditions"]["resourceVersion"]),
            propagation,
            grace_period,
        })
    }

    /// What the server itself uses when it collects objects.
    #[must_use]
    pub fn background() -> Self {
        Self {
            uid: None,
            resource_version: None,
            propagation: Propagation::Background,
            grace_period: None,
        }
    }
}

/// Result of a deletion.
#[derive(Debug)]
pub enum Deleted {
    /// The object waits for its finalizers or its grace period.
    Pending(Outcome),
    /// The object is gone; the value is the `Status` that says so.
    Gone(Value),
}

/// Deletes one object.
///
/// # Errors
/// 404, or 409 if a precondition does not hold.
pub fn delete(
    api: &mut Api,
    resource: &ResourceType,
    key: &ObjectKey,
    options: &DeleteOptions,
    write: &WriteOptions,
) -> Result<Deleted, Refusal> {
    let about = || resource.about(&key.name);
    let old = api
        .store
        .get(&resource.key(), key)
        .cloned()
        .ok_or_else(|| Refusal::not_found(about()))?;
    check(resource, key, &old, options)?;
    let mut new = (*old).clone();
    add_propagation_finalizer(&mut new, options.propagation);
    let grace = builtin::rules::grace_period(resource, &new, options.grace_period);
    let stays = !object::finalizers(&new).is_empty()
        || grace > 0
        || !builtin::rules::may_go(resource, &new);
    if !stays {
        if !write.dry_run {
            api.remove(resource, key, write.now);
        }
        return Ok(Deleted::Gone(success(resource, &old)));
    }
    if !object::is_terminating(&new) {
        object::set_meta(
            &mut new,
            "deletionTimestamp",
            Some(json!(deadline(write, grace))),
        );
        object::set_meta(&mut new, "deletionGracePeriodSeconds", Some(json!(grace)));
        if let Some(generation) = new["metadata"]["generation"].as_i64() {
            object::set_meta(&mut new, "generation", Some(json!(generation + 1)));
        }
        builtin::rules::mark_terminating(resource, &mut new);
    } else if grace
        < new["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or_default()
    {
        object::set_meta(
            &mut new,
            "deletionTimestamp",
            Some(json!(deadline(write, grace))),
        );
        object::set_meta(&mut new, "deletionGracePeriodSeconds", Some(json!(grace)));
    }
    let object = if write.dry_run {
        std::sync::Arc::new(new)
    } else if new == *old {
        old
    } else {
        let stored = api.store.put(&resource.key(), key, new);
        api.after_write(resource, key, write.now).unwrap_or(stored)
    };
    Ok(Deleted::Pending(Outcome {
        code: 200,
        object,
        warnings: Vec::new(),
    }))
}

fn check(
    resource: &ResourceType,
    key: &ObjectKey,
    old: &Value,
    options: &DeleteOptions,
) -> Result<(), Refusal> {
    if let Some(uid) = options.uid.as_ref().filter(|uid| *uid != object::uid(old)) {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            object::uid(old)
        );
        return Err(Refusal::conflict(resource.about(&key.name), why));
    }
    let stored = object::resource_version(old);
    if let Some(version) = options
        .resource_version
        .as_ref()
        .filter(|version| *version != stored)
    {
        let why = format!(
            "Precondition failed: ResourceVersion in precondition: {version}, ResourceVersion in \
             object meta: {stored}"
        );
        return Err(Refusal::conflict(resource.about(&key.name), why));
    }
    builtin::rules::may_delete(resource, key)
}

fn add_propagation_finalizer(object: &mut Value, propagation: Propagation) {
    let finalizer = match propagation {
        Propagation::Background => return,
        Propagation::Foreground => "foregroundDeletion",
        Propagation::Orphan => "orphan",
    };
    let mut finalizers: Vec<Value> = object::finalizers(object)
        .into_iter()
        .map(Value::from)
        .collect();
    if !finalizers.contains(&Value::from(finalizer)) {
        finalizers.push(finalizer.into());
    }
    object::set_meta(object, "finalizers", Some(Value::Array(finalizers)));
}

fn deadline(write: &WriteOptions, grace_seconds: i64) -> String {
    let later = write
        .now
        .checked_add(jiff::SignedDuration::from_secs(grace_seconds));
    timestamp(later.unwrap_or(write.now))
}

fn success(resource: &ResourceType, old: &Value) -> Value {
    let mut details = json!({
        "name": object::name(old), "kind": resource.plural, "uid": object::uid(old),
    });
    if !resource.group.is_empty() {
        details["group"] = json!(resource.group);
    }
    json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
        "details": details,
    })
}

/// Deletes all objects that a list request would return; answers with that list.
///
/// # Errors
/// As for lists and single deletions; an object that is gone meanwhile is no error.
pub fn delete_collection(
    api: &mut Api,
    resource: &ResourceType,
    namespace: Option<&str>,
    request: &Request,
    options: &DeleteOptions,
    write: &WriteOptions,
) -> Result<read::List, Refusal> {
    let list = read::list(api, resource, namespace, request)?;
    for item in &list.items {
        let key = ObjectKey::new(object::namespace(item), object::name(item));
        match delete(api, resource, &key, options, write) {
            Err(refusal) if refusal.code != 404 => return Err(refusal),
            _ => {}
        }
    }
    Ok(list)
}
