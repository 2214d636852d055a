//! PATCH of objects.

use serde_json::{Value, json};

use super::body::{self, Body};
use super::{Outcome, WriteOptions, create, drop_unknown_fields, tracking, update};
use crate::api::Api;
use crate::managed_fields;
use crate::object;
use crate::patch::{self, Kind};
use crate::request::Request;
use crate::resource::{Origin, ResourceType};
use crate::status::Refusal;
use crate::store::ObjectKey;

/// Patches an object; the kind of patch is that of the media type.
///
/// # Errors
/// 400, 404, 409, 415 or 422 as the checks find.
pub fn patch(
    api: &mut Api,
    resource: &ResourceType,
    key: &ObjectKey,
    request: &Request,
    options: &WriteOptions,
) -> Result<Outcome, Refusal> {
    let media_type = request.media_type();
    let kind = Kind::from_media_type(&media_type)
        .filter(|kind| *kind != Kind::Strategic || resource.origin == Origin::Builtin)
        .ok_or_else(|| {
            let accepted: Vec<&str> = patch::MEDIA_TYPES
                .iter()
                .copied()
                .filter(|media_type| {
                    resource.origin == Origin::Builtin || !media_type.contains("strategic")
                })
                .collect();
            Refusal::unsupported_media_type(&media_type, &accepted)
        })?;
    let force = request.flag("force")?.unwrap_or_default();
    if kind == Kind::Apply {
        if request.param("fieldManager").is_none() {
            let why = "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is \
                       required for apply patch";
            return Err(Refusal::bad_request(why));
        }
        let body = body::yaml(&request.body)?;
        return apply(api, resource, key, body, force, options);
    }
    if force {
        let why = "PatchOptions.meta.k8s.io \"\" is invalid: force: Forbidden: may not be \
                   specified for non-apply patch";
        return Err(Refusal::unprocessable(why));
    }
    let patch = body::json(&request.body)?;
    let old = api
        .store
        .get(&resource.key(), key)
        .cloned()
        .ok_or_else(|| Refusal::not_found(resource.about(&key.name)))?;
    let mut new = served(resource, &old);
    match kind {
        Kind::Merge => patch::merge::apply(&mut new, &patch.value),
        Kind::Json => patch::json::apply(&mut new, &patch.value)?,
        Kind::Strategic => patch::strategic::apply(&mut new, &patch.value, &resource.schema)?,
        Kind::Apply => unreachable!("apply patches are handled above"),
    }
    let mut warnings = Vec::new();
    body::check_kind(resource, &mut new)?;
    drop_unknown_fields(
        resource,
        &mut new,
        &patch.duplicates,
        options,
        &mut warnings,
    )?;
    if object::name(&new) != key.name {
        let why = format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(&new),
            key.name
        );
        return Err(Refusal::bad_request(why));
    }
    update::check_preconditions(resource, key, &old, &new)?;
    update::restore(resource, &old, &mut new, options);
    managed_fields::track_update(
        Some(&old),
        &mut new,
        &options.writer(resource),
        tracking(resource),
    );
    update::finish(api, resource, key, &old, new, options, warnings)
}

/// The stored object in the version of the request.
fn served(resource: &ResourceType, stored: &Value) -> Value {
    let mut object = stored.clone();
    object["apiVersion"] = json!(resource.api_version());
    object
}

fn apply(
    api: &mut Api,
    resource: &ResourceType,
    key: &ObjectKey,
    body: Body,
    force: bool,
    options: &WriteOptions,
) -> Result<Outcome, Refusal> {
    let mut config = body.value;
    for field in ["apiVersion", "kind"] {
        if config[field].as_str().unwrap_or_default().is_empty() {
            let why = format!(
                "Object '{}' is missing in apply configuration",
                if field == "kind" {
                    "Kind"
                } else {
                    "apiVersion"
                }
            );
            return Err(Refusal::bad_request(why));
        }
    }
    body::check_kind(resource, &mut config)?;
    let mut warnings = Vec::new();
    drop_unknown_fields(
        resource,
        &mut config,
        &body.duplicates,
        options,
        &mut warnings,
    )?;
    create::settle_namespace(
        resource,
        resource.namespaced.then_some(&key.namespace),
        &mut config,
    )?;
    if object::name(&config).is_empty() {
        object::set_meta(&mut config, "name", Some(json!(key.name)));
    } else if object::name(&config) != key.name {
        let why = format!(
            "the name of the object ({}) does not match the name on the URL ({})",
            object::name(&config),
            key.name
        );
        return Err(Refusal::bad_request(why));
    }
    if config["metadata"]["managedFields"]
        .as_array()
        .is_some_and(|list| !list.is_empty())
    {
        return Err(Refusal::bad_request("metadata.managedFields must be nil"));
    }
    object::set_meta(&mut config, "managedFields", None);
    let writer = options.writer(resource);
    let Some(old) = api.store.get(&resource.key(), key).cloned() else {
        if !options.subresource.is_empty() {
            return Err(Refusal::not_found(resource.about(&key.name)));
        }
        if !object::uid(&config).is_empty() || !object::resource_version(&config).is_empty() {
            let why = "uid mismatch: the provided object specified uid or resourceVersion, and \
                       no existing object was found";
            return Err(Refusal::conflict(resource.about(&key.name), why));
        }
        let namespace = resource.namespaced.then_some(key.namespace.as_str());
        create::prepare(api, resource, namespace, &mut config, options)?;
        let empty = json!({
            "apiVersion": config["apiVersion"], "kind": config["kind"], "metadata": {}
        });
        let new = managed_fields::apply(&empty, &config, &writer, force, tracking(resource))?;
        return create::store_new(api, resource, new, options, warnings);
    };
    update::check_preconditions(resource, key, &old, &config)?;
    for field in ["uid", "resourceVersion", "creationTimestamp", "generation"] {
        object::set_meta(&mut config, field, None);
    }
    if resource.has_status && options.subresource.is_empty() {
        config.as_object_mut().map(|map| map.remove("status"));
    }
    let live = served(resource, &old);
    let mut new = managed_fields::apply(&live, &config, &writer, force, tracking(resource))?;
    update::restore(resource, &old, &mut new, options);
    update::finish(api, resource, key, &old, new, options, warnings)
}
