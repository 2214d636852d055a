//! PUT of objects, and the part of it that patches share.

use std::sync::Arc;

use serde_json::{Value, json};

use super::{
    Outcome, WriteOptions, body::Body, check_object, create, drop_unknown_fields, tracking,
};
use crate::api::Api;
use crate::builtin;
use crate::managed_fields;
use crate::object;
use crate::resource::{Origin, ResourceType};
use crate::status::{Cause, Refusal};
use crate::store::ObjectKey;

/// Replaces an object with a decoded body.
///
/// # Errors
/// 400, 404, 409 or 422 as the checks find.
pub fn replace(
    api: &mut Api,
    resource: &ResourceType,
    key: &ObjectKey,
    body: Body,
    options: &WriteOptions,
) -> Result<Outcome, Refusal> {
    let mut warnings = Vec::new();
    let mut new = body.value;
    super::body::check_kind(resource, &mut new)?;
    drop_unknown_fields(resource, &mut new, &body.duplicates, options, &mut warnings)?;
    create::settle_namespace(
        resource,
        resource.namespaced.then_some(&key.namespace),
        &mut new,
    )?;
    match object::name(&new) {
        "" => return Err(Refusal::bad_request("name must be provided")),
        name if name == key.name => {}
        name => {
            let why = format!(
                "the name of the object ({name}) does not match the name on the URL ({})",
                key.name
            );
            return Err(Refusal::bad_request(why));
        }
    }
    let Some(old) = api.store.get(&resource.key(), key).cloned() else {
        // Leases are among the few types that PUT may create.
        if resource.group == "coordination.k8s.io" && options.subresource.is_empty() {
            object::set_meta(&mut new, "resourceVersion", None);
            let namespace = Some(key.namespace.as_str());
            let body = Body {
                value: new,
                duplicates: Vec::new(),
            };
            return create::create(api, resource, namespace, body, options);
        }
        return Err(Refusal::not_found(resource.about(&key.name)));
    };
    if resource.origin == Origin::Custom && object::resource_version(&new).is_empty() {
        let shown = json!(0);
        let why = "must be specified for an update";
        let cause = Cause::invalid("metadata.resourceVersion", &shown, why);
        return Err(Refusal::invalid(
            resource.about_kind(&key.name),
            vec![cause],
        ));
    }
    check_preconditions(resource, key, &old, &new)?;
    restore(resource, &old, &mut new, options);
    managed_fields::track_update(
        Some(&old),
        &mut new,
        &options.writer(resource),
        tracking(resource),
    );
    finish(api, resource, key, &old, new, options, warnings)
}

/// A resourceVersion or uid in the body has to be that of the stored object.
pub(super) fn check_preconditions(
    resource: &ResourceType,
    key: &ObjectKey,
    old: &Value,
    new: &Value,
) -> Result<(), Refusal> {
    let (wanted, stored) = (object::uid(new), object::uid(old));
    if !wanted.is_empty() && wanted != stored {
        let why = format!(
            "Precondition failed: UID in precondition: {wanted}, UID in object meta: {stored}"
        );
        return Err(Refusal::conflict(resource.about(&key.name), why));
    }
    let wanted = object::resource_version(new);
    if !wanted.is_empty() && wanted != object::resource_version(old) {
        let why = "the object has been modified; please apply your changes to the latest version \
                   and try again";
        return Err(Refusal::conflict(resource.about(&key.name), why));
    }
    Ok(())
}

/// Puts back what this request cannot change.
pub(super) fn restore(
    resource: &ResourceType,
    old: &Value,
    new: &mut Value,
    options: &WriteOptions,
) {
    for field in [
        "name",
        "namespace",
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
        "selfLink",
    ] {
        object::set_meta(new, field, old["metadata"].get(field).cloned());
    }
    let custom = resource.origin == Origin::Custom;
    match options.subresource.as_str() {
        "status" if custom => {
            let mut kept = old.clone();
            object::copy_field(new, &mut kept, "status");
            let managed = new["metadata"].get("managedFields").cloned();
            object::set_meta(&mut kept, "managedFields", managed);
            kept["apiVersion"] = new["apiVersion"].clone();
            *new = kept;
        }
        "status" => object::copy_field(old, new, "spec"),
        "finalize" => {
            let mut kept = old.clone();
            kept["spec"]["finalizers"] = new["spec"]["finalizers"].clone();
            *new = kept;
        }
        _ if resource.has_status => object::copy_field(old, new, "status"),
        _ => {}
    }
    if options.subresource.is_empty() {
        builtin::rules::prepare_for_update(resource, old, new);
    }
}

/// Defaults, validates and stores a changed object, unless nothing changed.
pub(super) fn finish(
    api: &mut Api,
    resource: &ResourceType,
    key: &ObjectKey,
    old: &Arc<Value>,
    mut new: Value,
    options: &WriteOptions,
    warnings: Vec<String>,
) -> Result<Outcome, Refusal> {
    create::apply_defaults(api, resource, &mut new);
    bump_generation(resource, old, &mut new);
    check_object(resource, &new, Some(old))?;
    if is_same(old, &new) {
        return Ok(Outcome {
            code: 200,
            object: Arc::clone(old),
            warnings,
        });
    }
    if options.dry_run {
        return Ok(Outcome {
            code: 200,
            object: Arc::new(new),
            warnings,
        });
    }
    let goes = object::is_terminating(&new)
        && object::finalizers(&new).is_empty()
        && object::meta_str(&new, "deletionGracePeriodSeconds").is_empty()
        && new["metadata"]["deletionGracePeriodSeconds"]
            .as_i64()
            .unwrap_or(0)
            == 0
        && builtin::rules::may_go(resource, &new);
    let stored = api.store.put(&resource.key(), key, new);
    if goes {
        // The removal of the last finalizer is answered with the object as it was at the end.
        api.remove(resource, key, options.now);
        return Ok(Outcome {
            code: 200,
            object: stored,
            warnings,
        });
    }
    let object = api
        .after_write(resource, key, options.now)
        .unwrap_or(stored);
    Ok(Outcome {
        code: 200,
        object,
        warnings,
    })
}

/// Changes of anything but metadata and status count as a new generation.
fn bump_generation(resource: &ResourceType, old: &Value, new: &mut Value) {
    let counted = resource.origin == Origin::Custom || builtin::rules::has_generation(resource);
    if !counted {
        return;
    }
    let strip = |value: &Value| {
        let mut rest = value.clone();
        if let Some(map) = rest.as_object_mut() {
            map.remove("metadata");
            map.remove("apiVersion");
            if resource.has_status {
                map.remove("status");
            }
        }
        rest
    };
    if strip(old) != strip(new) {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default() + 1;
        object::set_meta(new, "generation", Some(json!(generation)));
    }
}

/// Whether two objects differ in nothing but the times in `managedFields`.
fn is_same(old: &Value, new: &Value) -> bool {
    if old == new {
        return true;
    }
    let strip = |value: &Value| {
        let mut rest = value.clone();
        if let Some(list) = rest["metadata"]["managedFields"].as_array_mut() {
            for entry in list.iter_mut() {
                entry.as_object_mut().map(|map| map.remove("time"));
            }
            list.sort_by_key(ToString::to_string);
        }
        rest
    };
    strip(old) == strip(new)
}
