//! OpenAPI documents: v3, by group and version.
//!
//! Owns their assembly from the definitions of built-ins and the schemas of CRDs. v2 is not
//! offered: clients fall back to v3 on 404.

use serde_json::{Map, Value, json};

use crate::api::{Answer, Api};
use crate::builtin::{self, LIST_META, OBJECT_META, REFERENCE_PREFIX};
use crate::request::Request;
use crate::resource::{Origin, ResourceType, join_group_version};
use crate::status::Refusal;

/// Answers OpenAPI requests, if the path is one.
///
/// # Errors
/// 404 for groups and versions that are not there.
pub fn answer(api: &Api, request: &Request, segments: &[&str]) -> Result<Option<Answer>, Refusal> {
    let ["openapi", "v3", rest @ ..] = segments else {
        return Ok(None);
    };
    // Clients that want protobuf list JSON as well; anything else is served JSON regardless.
    let _ = request;
    let body = match rest {
        [] => index(api),
        ["api", version] => document(api, "", version)?,
        ["apis", group, version] => document(api, group, version)?,
        _ => return Err(Refusal::no_such_path()),
    };
    Ok(Some(Answer::json(200, &body)))
}

fn index(api: &Api) -> Value {
    let hash = api.registry.generation();
    let mut paths = Map::new();
    for resource in api.registry.iter() {
        let prefix = if resource.group.is_empty() {
            "api"
        } else {
            "apis"
        };
        let group_version = join_group_version(&resource.group, &resource.version);
        let path = format!("{prefix}/{group_version}");
        let url = format!("/openapi/v3/{path}?hash={hash}");
        paths.insert(path, json!({"serverRelativeURL": url}));
    }
    json!({"paths": paths})
}

fn document(api: &Api, group: &str, version: &str) -> Result<Value, Refusal> {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    for resource in api
        .registry
        .iter()
        .filter(|resource| resource.group == group && resource.version == version)
    {
        let name = add_schemas(api, resource, &mut schemas);
        add_paths(resource, &name, &mut paths);
    }
    if paths.is_empty() {
        return Err(Refusal::no_such_path());
    }
    let delete_options = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
    add_definition(api, delete_options, &mut schemas);
    Ok(json!({
        "openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "v1.34.0"},
        "paths": paths, "components": {"schemas": schemas},
    }))
}

fn reference(name: &str) -> Value {
    json!({"$ref": format!("{REFERENCE_PREFIX}{name}")})
}

fn group_version_kind(resource: &ResourceType, kind: &str) -> Value {
    json!({"group": resource.group, "version": resource.version, "kind": kind})
}

/// Adds the schemas of a kind and of its list; returns the name of the kind's.
fn add_schemas(api: &Api, resource: &ResourceType, schemas: &mut Map<String, Value>) -> String {
    let name = match resource.origin {
        Origin::Builtin => {
            let name = builtin::definition_of(&resource.group, &resource.kind)
                .expect("every built-in resource has a definition");
            add_definition(api, name, schemas);
            name.to_owned()
        }
        Origin::Custom => {
            let reversed: Vec<&str> = resource.group.rsplit('.').collect();
            let name = format!(
                "{}.{}.{}",
                reversed.join("."),
                resource.version,
                resource.kind
            );
            schemas.insert(name.clone(), custom_schema(resource));
            add_definition(api, OBJECT_META, schemas);
            name
        }
    };
    if let Some(schema) = schemas.get_mut(&name) {
        schema["x-kubernetes-group-version-kind"] =
            json!([group_version_kind(resource, &resource.kind)]);
    }
    add_definition(api, LIST_META, schemas);
    let list = json!({
        "description": format!("{} is a list of {}", resource.list_kind, resource.kind),
        "type": "object", "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": described(reference(LIST_META), "Standard list metadata."),
            "items": {"type": "array", "items": reference(&name)},
        },
        "x-kubernetes-group-version-kind": [group_version_kind(resource, &resource.list_kind)],
    });
    schemas.insert(format!("{name}List"), list);
    name
}

fn custom_schema(resource: &ResourceType) -> Value {
    let mut schema = resource
        .openapi
        .clone()
        .unwrap_or_else(|| json!({"type": "object"}));
    let what = "Standard object's metadata.";
    schema["properties"]["metadata"] = described(reference(OBJECT_META), what);
    for (field, what) in [
        (
            "apiVersion",
            "APIVersion defines the versioned schema of this representation of an object.",
        ),
        (
            "kind",
            "Kind is a string value representing the REST resource this object represents.",
        ),
    ] {
        schema["properties"][field] = json!({"type": "string", "description": what});
    }
    schema
}

/// OpenAPI 3.0 ignores what stands beside a reference, so that goes around it.
fn described(reference: Value, description: &str) -> Value {
    json!({"description": description, "allOf": [reference]})
}

/// Adds a definition and what it refers to.
fn add_definition(api: &Api, name: &str, schemas: &mut Map<String, Value>) {
    if schemas.contains_key(name) {
        return;
    }
    let Some(definition) = api.definitions.get(name) else {
        return;
    };
    let mut needed = Vec::new();
    let published = publish(definition, &mut needed);
    schemas.insert(name.to_owned(), published);
    for name in needed {
        add_definition(api, &name, schemas);
    }
}

fn publish(node: &Value, needed: &mut Vec<String>) -> Value {
    match node {
        Value::Object(map) => {
            if let Some(target) = map.get("$ref").and_then(Value::as_str) {
                if let Some(name) = target.strip_prefix(REFERENCE_PREFIX) {
                    needed.push(name.to_owned());
                }
                if map.len() == 1 {
                    return node.clone();
                }
                let mut around = map.clone();
                around.remove("$ref");
                around.insert("allOf".into(), json!([{"$ref": target}]));
                return Value::Object(around);
            }
            map.iter()
                .map(|(key, value)| (key.clone(), publish(value, needed)))
                .collect()
        }
        Value::Array(list) => list.iter().map(|value| publish(value, needed)).collect(),
        other => other.clone(),
    }
}

fn query(name: &str, kind: &str) -> Value {
    json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
}

/// kubectl looks up in the paths whether PATCH takes `fieldValidation` and `dryRun`.
fn add_paths(resource: &ResourceType, name: &str, paths: &mut Map<String, Value>) {
    let prefix = if resource.group.is_empty() {
        "/api"
    } else {
        "/apis"
    };
    let base = format!("{prefix}/{}", resource.api_version());
    let collection = if resource.namespaced {
        format!("{base}/namespaces/{{namespace}}/{}", resource.plural)
    } else {
        format!("{base}/{}", resource.plural)
    };
    let one = reference(name);
    let many = reference(&format!("{name}List"));
    let operation = |action: &str, result: &Value, body: bool| {
        let mut operation = json!({
            "responses": {"200": {
                "description": "OK", "content": {"application/json": {"schema": result}},
            }},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": group_version_kind(resource, &resource.kind),
        });
        if body {
            operation["parameters"] = json!([
                query("dryRun", "string"),
                query("fieldManager", "string"),
                query("fieldValidation", "string"),
            ]);
            operation["requestBody"] = json!({"content": {"application/json": {"schema": result}}});
        }
        operation
    };
    let mut patch = operation("patch", &one, true);
    if let Some(list) = patch["parameters"].as_array_mut() {
        list.push(query("force", "boolean"));
    }
    let objects = json!({
        "get": operation("list", &many, false),
        "post": operation("post", &one, true),
        "delete": operation("deletecollection", &one, false),
    });
    let object = json!({
        "get": operation("get", &one, false),
        "put": operation("put", &one, true),
        "patch": patch,
        "delete": operation("delete", &one, false),
    });
    paths.insert(format!("{collection}/{{name}}"), object);
    if resource.namespaced {
        paths.insert(
            format!("{base}/{}", resource.plural),
            json!({"get": operation("list", &many, false)}),
        );
    }
    paths.insert(collection, objects);
}
