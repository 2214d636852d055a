//! CustomResourceDefinitions: their defaults, their validation, and the resources they declare.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::builtin;
use crate::crud::timestamp;
use crate::names;
use crate::object;
use crate::resource::{NameRule, Origin, ResourceType};
use crate::schema::{Schema, cel, strings};
use crate::status::Cause;
use crate::store::ObjectKey;
use crate::table;

/// Finalizer that makes the instances go first.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Group and plural that a definition declares.
#[must_use]
pub fn group_and_plural(definition: &Value) -> (String, String) {
    let spec = &definition["spec"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    (text(&spec["group"]), text(&spec["names"]["plural"]))
}

/// Fills in names derived from the kind.
pub fn default(definition: &mut Value) {
    let kind = definition["spec"]["names"]["kind"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    if kind.is_empty() {
        return;
    }
    let names = &mut definition["spec"]["names"];
    if names["singular"].as_str().unwrap_or_default().is_empty() {
        names["singular"] = json!(kind.to_ascii_lowercase());
    }
    if names["listKind"].as_str().unwrap_or_default().is_empty() {
        names["listKind"] = json!(format!("{kind}List"));
    }
    if definition["spec"]["conversion"].is_null() {
        definition["spec"]["conversion"] = json!({"strategy": "None"});
    }
}

/// Validates a definition.
#[must_use]
pub fn check(definition: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let spec = &definition["spec"];
    let (group, plural) = group_and_plural(definition);
    for (path, value) in [
        ("spec.group", group.as_str()),
        ("spec.names.plural", plural.as_str()),
        (
            "spec.names.kind",
            spec["names"]["kind"].as_str().unwrap_or_default(),
        ),
    ] {
        if value.is_empty() {
            causes.push(Cause::required(path, ""));
        }
    }
    if object::name(definition) != format!("{plural}.{group}") {
        let why = "must be spec.names.plural+\".\"+spec.group";
        causes.push(Cause::invalid(
            "metadata.name",
            &definition["metadata"]["name"],
            why,
        ));
    }
    if !names::is_subdomain(&group) || !group.contains('.') {
        causes.push(Cause::invalid(
            "spec.group",
            &spec["group"],
            "should be a domain with at least one dot",
        ));
    }
    if !matches!(spec["scope"].as_str(), Some("Namespaced" | "Cluster")) {
        causes.push(Cause {
            reason: "FieldValueNotSupported",
            message: format!(
                "Unsupported value: {}: supported values: \"Cluster\", \"Namespaced\"",
                spec["scope"]
            ),
            field: "spec.scope".into(),
        });
    }
    let versions = spec["versions"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    if versions
        .iter()
        .filter(|version| version["storage"] == true)
        .count()
        != 1
    {
        let why = "must have exactly one version marked as storage version";
        causes.push(Cause::invalid("spec.versions", &spec["versions"], why));
    }
    for (index, version) in versions.iter().enumerate() {
        check_version(version, &format!("spec.versions[{index}]"), &mut causes);
    }
    if let Some(old) = old {
        for path in [
            "spec.group",
            "spec.names.plural",
            "spec.names.kind",
            "spec.scope",
        ] {
            if object::at(old, path) != object::at(definition, path) {
                let value = object::at(definition, path).unwrap_or(&Value::Null);
                causes.push(Cause::invalid(path, value, "field is immutable"));
            }
        }
    }
    causes
}

fn check_version(version: &Value, path: &str, causes: &mut Vec<Cause>) {
    let schema = &version["schema"]["openAPIV3Schema"];
    let schema_path = format!("{path}.schema.openAPIV3Schema");
    if !schema.is_object() {
        causes.push(Cause::required(schema_path, "schemas are required"));
        return;
    }
    if schema["type"] != "object" {
        let path = format!("{schema_path}.type");
        causes.push(Cause::invalid(
            path,
            &schema["type"],
            "must be object at the root",
        ));
    }
    check_structure(schema, &schema_path, causes);
    for error in cel::Rules::compile(schema).errors() {
        let path = format!("{schema_path}.x-kubernetes-validations");
        causes.push(Cause::invalid(path, &Value::Null, error));
    }
}

/// A structural schema says the type of each of its nodes.
fn check_structure(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let open = schema["x-kubernetes-int-or-string"] == true
        || schema["x-kubernetes-preserve-unknown-fields"] == true;
    if schema["type"].as_str().unwrap_or_default().is_empty() && !open {
        let why = "must not be empty for specified object fields";
        causes.push(Cause::required(format!("{path}.type"), why));
    }
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_some() {
        let why = "additionalProperties and properties are mutual exclusive";
        causes.push(Cause::forbidden(
            format!("{path}.additionalProperties"),
            why,
        ));
    }
    if let Some(pattern) = schema["pattern"].as_str()
        && let Err(error) = regex::Regex::new(pattern)
    {
        let why = format!("must be a valid regular expression, but isn't: {error}");
        causes.push(Cause::invalid(
            format!("{path}.pattern"),
            &schema["pattern"],
            why,
        ));
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        check_structure(property, &format!("{path}.properties[{name}]"), causes);
    }
    if let Some(items) = schema.get("items") {
        check_structure(items, &format!("{path}.items"), causes);
    } else if schema["type"] == "array" {
        causes.push(Cause::required(
            format!("{path}.items"),
            "must be specified",
        ));
    }
    if schema["additionalProperties"].is_object() {
        let inner = &schema["additionalProperties"];
        check_structure(inner, &format!("{path}.additionalProperties"), causes);
    }
}

/// Establishes a definition: writes its status and finalizer, and serves its resources.
pub fn take_up(api: &mut Api, definition: &Value, now: Timestamp) {
    let mut new = definition.clone();
    establish(&mut new, now);
    let (group, plural) = group_and_plural(&new);
    api.registry.remove(&group, &plural);
    for resource in resources(api, &new) {
        api.registry.insert(resource);
    }
    if new == *definition {
        return;
    }
    if let Some(resource) = api
        .registry
        .get("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        .map(|resource| resource.key())
    {
        let key = ObjectKey::new("", object::name(&new));
        api.store.put(&resource, &key, new);
    }
}

/// Stops serving the resources of a removed definition.
pub fn drop_types(api: &mut Api, definition: &Value) {
    let (group, plural) = group_and_plural(definition);
    api.registry.remove(&group, &plural);
}

fn establish(definition: &mut Value, now: Timestamp) {
    let storage = definition["spec"]["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .unwrap_or_default();
    let names = definition["spec"]["names"].clone();
    let status = &mut definition["status"];
    status["acceptedNames"] = names;
    let mut stored: Vec<Value> = status["storedVersions"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    if !stored.contains(&storage) {
        stored.push(storage);
    }
    status["storedVersions"] = Value::Array(stored);
    for (kind, reason, message) in [
        ("NamesAccepted", "NoConflicts", "no conflicts found"),
        (
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted",
        ),
    ] {
        if !status["conditions"].is_array() {
            status["conditions"] = json!([]);
        }
        if let Some(conditions) = status["conditions"].as_array_mut()
            && !conditions.iter().any(|condition| condition["type"] == kind)
        {
            conditions.push(json!({
                "type": kind, "status": "True", "lastTransitionTime": timestamp(now),
                "reason": reason, "message": message,
            }));
        }
    }
    let mut finalizers: Vec<Value> = object::finalizers(definition)
        .into_iter()
        .map(Value::from)
        .collect();
    if !object::is_terminating(definition) && !finalizers.contains(&json!(CLEANUP_FINALIZER)) {
        finalizers.push(json!(CLEANUP_FINALIZER));
        object::set_meta(definition, "finalizers", Some(Value::Array(finalizers)));
    }
}

fn resources(api: &Api, definition: &Value) -> Vec<ResourceType> {
    let spec = &definition["spec"];
    let names = &spec["names"];
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = builtin::object_meta(&api.definitions);
    spec["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|version| version["served"] != false)
        .map(|version| {
            let published = version["schema"]["openAPIV3Schema"].clone();
            let schema = with_metadata(&published, &metadata);
            let parsed = Schema::parse(&schema);
            let cel = parsed.has_cel.then(|| cel::Rules::compile(&published));
            ResourceType {
                group: text(&spec["group"]),
                version: text(&version["name"]),
                kind: text(&names["kind"]),
                list_kind: text(&names["listKind"]),
                plural: text(&names["plural"]),
                singular: text(&names["singular"]),
                short_names: strings(&names["shortNames"]),
                categories: strings(&names["categories"]),
                namespaced: spec["scope"] == "Namespaced",
                has_status: version["subresources"].get("status").is_some(),
                origin: Origin::Custom,
                name_rule: NameRule::Subdomain,
                schema: Arc::new(parsed),
                openapi: Some(published),
                cel,
                columns: table::custom_columns(&version["additionalPrinterColumns"]),
                selectable_fields: version["selectableFields"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|field| text(&field["jsonPath"]).trim_start_matches('.').to_owned())
                    .collect(),
            }
        })
        .collect()
}

/// The schema with that of metadata put in; restrictions on the name given by the CRD stay.
fn with_metadata(published: &Value, metadata: &Value) -> Value {
    let mut schema = published.clone();
    let mut merged = metadata.clone();
    if let Some(own) = published["properties"]["metadata"]["properties"].as_object() {
        let own: BTreeMap<&String, &Value> = own.iter().collect();
        for (name, rules) in own {
            if let Some(map) = rules.as_object() {
                for (key, value) in map {
                    merged["properties"][name][key] = value.clone();
                }
            }
        }
    }
    schema["properties"]["metadata"] = merged;
    for field in ["apiVersion", "kind"] {
        if schema["properties"].get(field).is_none() {
            schema["properties"][field] = json!({"type": "string"});
        }
    }
    schema
}
