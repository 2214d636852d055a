//! POST of objects.

use serde_json::{Value, json};

use super::{
    Outcome, WriteOptions, body::Body, check_object, drop_unknown_fields, timestamp, tracking,
};
use crate::api::Api;
use crate::builtin;
use crate::managed_fields;
use crate::names;
use crate::object;
use crate::resource::{Origin, ResourceType};
use crate::schema::default;
use crate::status::Refusal;
use crate::store::ObjectKey;

/// Creates an object from a decoded body.
///
/// # Errors
/// 400, 403, 404, 409 or 422 as the checks find.
pub fn create(
    api: &mut Api,
    resource: &ResourceType,
    namespace: Option<&str>,
    body: Body,
    options: &WriteOptions,
) -> Result<Outcome, Refusal> {
    let mut warnings = Vec::new();
    let mut new = body.value;
    super::body::check_kind(resource, &mut new)?;
    drop_unknown_fields(resource, &mut new, &body.duplicates, options, &mut warnings)?;
    prepare(api, resource, namespace, &mut new, options)?;
    managed_fields::track_update(
        None,
        &mut new,
        &options.writer(resource),
        tracking(resource),
    );
    store_new(api, resource, new, options, warnings)
}

/// Validates and stores an object that is complete except for its defaults and identity.
pub(super) fn store_new(
    api: &mut Api,
    resource: &ResourceType,
    mut new: Value,
    options: &WriteOptions,
    warnings: Vec<String>,
) -> Result<Outcome, Refusal> {
    let generated = new["metadata"]["generateName"].is_string() && object::name(&new).is_empty();
    if generated {
        let base = object::meta_str(&new, "generateName").to_owned();
        let name = names::generate(&base, api.identifiers.next_bits());
        object::set_meta(&mut new, "name", Some(json!(name)));
    }
    object::set_meta(&mut new, "uid", Some(json!(api.identifiers.next_uid())));
    apply_defaults(api, resource, &mut new);
    check_object(resource, &new, None)?;
    let name = object::name(&new).to_owned();
    let key = ObjectKey::new(object::namespace(&new), &name);
    if api.store.get(&resource.key(), &key).is_some() {
        let about = resource.about(&name);
        return Err(if generated {
            Refusal::generated_name_taken(about)
        } else {
            Refusal::already_exists(about)
        });
    }
    let object = if options.dry_run {
        std::sync::Arc::new(new)
    } else {
        let stored = api.store.put(&resource.key(), &key, new);
        api.after_write(resource, &key, options.now)
            .unwrap_or(stored)
    };
    Ok(Outcome {
        code: 201,
        object,
        warnings,
    })
}

/// Fills in defaults: those of the schema, and the hand-written ones of built-ins.
pub(super) fn apply_defaults(api: &Api, resource: &ResourceType, object: &mut Value) {
    default::apply(&resource.schema, object);
    if resource.origin == Origin::Builtin {
        builtin::defaults::apply(api, resource, object);
    }
}

/// Sets what the server decides, and checks the namespace.
pub(super) fn prepare(
    api: &Api,
    resource: &ResourceType,
    namespace: Option<&str>,
    new: &mut Value,
    options: &WriteOptions,
) -> Result<(), Refusal> {
    if !object::resource_version(new).is_empty() {
        return Err(Refusal::bad_request(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    settle_namespace(resource, namespace, new)?;
    let in_namespace = object::namespace(new).to_owned();
    if resource.namespaced {
        api.check_namespace_open(resource, &in_namespace, object::name(new))?;
    }
    for field in [
        "uid",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "selfLink",
        "managedFields",
    ] {
        object::set_meta(new, field, None);
    }
    object::set_meta(
        new,
        "creationTimestamp",
        Some(json!(timestamp(options.now))),
    );
    let has_generation =
        resource.origin == Origin::Custom || builtin::rules::has_generation(resource);
    object::set_meta(new, "generation", has_generation.then(|| json!(1)));
    if resource.has_status && !builtin::rules::status_settable_on_create(resource) {
        new.as_object_mut().map(|map| map.remove("status"));
    }
    builtin::rules::prepare_for_create(resource, new);
    Ok(())
}

/// The namespace is the path's; a body may only repeat it.
pub(super) fn settle_namespace(
    resource: &ResourceType,
    namespace: Option<&str>,
    new: &mut Value,
) -> Result<(), Refusal> {
    let given = object::namespace(new).to_owned();
    if !resource.namespaced {
        object::set_meta(new, "namespace", None);
        return Ok(());
    }
    let wanted = namespace.unwrap_or("default");
    if !given.is_empty() && given != wanted {
        let why = format!(
            "the namespace of the provided object does not match the namespace sent on the \
             request ({given} != {wanted})"
        );
        return Err(Refusal::bad_request(why));
    }
    object::set_meta(new, "namespace", Some(json!(wanted)));
    Ok(())
}
