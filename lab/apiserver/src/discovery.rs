//! Discovery: which groups, versions and resources there are.
//!
//! Owns the plain documents and the aggregated ones (v2 and v2beta1).

use serde_json::{Value, json};

use crate::api::Answer;
use crate::negotiate::MediaRange;
use crate::request::Request;
use crate::resource::{Registry, ResourceType};
use crate::status::Refusal;

/// Version that the server says it is.
pub const KUBERNETES_VERSION: (&str, &str, &str) = ("1", "34", "v1.34.0");

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const SUBRESOURCE_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Answers discovery requests, if the path is one.
///
/// # Errors
/// 404 for groups and versions that are not there; 406.
pub fn answer(
    registry: &Registry,
    request: &Request,
    segments: &[&str],
) -> Result<Option<Answer>, Refusal> {
    let body = match segments {
        ["version"] => version(),
        ["api" | "apis"] => {
            if let Some(answer) = aggregated(registry, request, segments[0] == "api") {
                return Ok(Some(answer));
            }
            if segments[0] == "api" {
                api_versions()
            } else {
                group_list(registry)
            }
        }
        [] => root(registry),
        ["api", version] => resource_list(registry, "", version)?,
        ["apis", name] => {
            let groups = registry.groups();
            let versions = groups.get(name).ok_or_else(Refusal::no_such_path)?;
            let mut body = group(name, versions);
            body["kind"] = json!("APIGroup");
            body["apiVersion"] = json!("v1");
            body
        }
        ["apis", group, version] => resource_list(registry, group, version)?,
        _ => return Ok(None),
    };
    if !accepts_json(&request.accept) {
        return Err(Refusal::not_acceptable());
    }
    Ok(Some(Answer::json(200, &body)))
}

fn accepts_json(accept: &str) -> bool {
    let ranges = MediaRange::parse_all(accept);
    ranges.is_empty()
        || ranges.iter().any(|range| {
            matches!(
                range.media_type,
                "application/json" | "*/*" | "application/*"
            )
        })
}

fn version() -> Value {
    let (major, minor, git) = KUBERNETES_VERSION;
    json!({
        "major": major, "minor": minor, "gitVersion": format!("{git}+caracal"),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

fn root(registry: &Registry) -> Value {
    let mut paths = vec!["/api".to_owned(), "/api/v1".into(), "/apis".into()];
    for (group, versions) in registry.groups() {
        paths.push(format!("/apis/{group}"));
        paths.extend(
            versions
                .iter()
                .map(|version| format!("/apis/{group}/{version}")),
        );
    }
    paths.extend(
        [
            "/healthz",
            "/livez",
            "/openapi/v2",
            "/openapi/v3",
            "/readyz",
            "/version",
        ]
        .map(Into::into),
    );
    json!({"paths": paths})
}

fn api_versions() -> Value {
    json!({
        "kind": "APIVersions", "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
    })
}

fn group_list(registry: &Registry) -> Value {
    let groups: Vec<Value> = registry
        .groups()
        .iter()
        .map(|(name, versions)| group(name, versions))
        .collect();
    json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups})
}

fn group(name: &str, versions: &[&str]) -> Value {
    let entry =
        |version: &str| json!({"groupVersion": format!("{name}/{version}"), "version": version});
    json!({
        "name": name,
        "versions": versions.iter().map(|version| entry(version)).collect::<Vec<_>>(),
        "preferredVersion": versions.first().map(|version| entry(version)),
    })
}

fn of_version<'a>(
    registry: &'a Registry,
    group: &'a str,
    version: &'a str,
) -> impl Iterator<Item = &'a ResourceType> {
    registry
        .iter()
        .map(AsRef::as_ref)
        .filter(move |resource: &&ResourceType| {
            resource.group == group && resource.version == version
        })
}

fn subresources(resource: &ResourceType) -> Vec<&'static str> {
    let mut names = Vec::new();
    if resource.has_status {
        names.push("status");
    }
    names
}

fn resource_list(registry: &Registry, group: &str, version: &str) -> Result<Value, Refusal> {
    let mut resources = Vec::new();
    for resource in of_version(registry, group, version) {
        let mut entry = json!({
            "name": resource.plural, "singularName": resource.singular,
            "namespaced": resource.namespaced, "kind": resource.kind, "verbs": VERBS,
            "storageVersionHash": storage_hash(resource),
        });
        if !resource.short_names.is_empty() {
            entry["shortNames"] = json!(resource.short_names);
        }
        if !resource.categories.is_empty() {
            entry["categories"] = json!(resource.categories);
        }
        resources.push(entry);
        for subresource in subresources(resource) {
            resources.push(json!({
                "name": format!("{}/{subresource}", resource.plural), "singularName": "",
                "namespaced": resource.namespaced, "kind": resource.kind,
                "verbs": SUBRESOURCE_VERBS,
            }));
        }
    }
    if resources.is_empty() {
        return Err(Refusal::no_such_path());
    }
    let group_version = crate::resource::join_group_version(group, version);
    Ok(json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version,
        "resources": resources,
    }))
}

/// Opaque to clients; equal for all versions of a resource.
fn storage_hash(resource: &ResourceType) -> String {
    use base64::Engine as _;
    let text = format!("{}/{}", resource.group, resource.kind);
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    base64::engine::general_purpose::STANDARD.encode(hash.to_be_bytes())
}

/// The aggregated document, if it is what the client accepts best.
fn aggregated(registry: &Registry, request: &Request, core: bool) -> Option<Answer> {
    let version = MediaRange::parse_all(&request.accept)
        .iter()
        .find_map(|range| {
            if !matches!(range.media_type, "application/json" | "*/*") {
                return None;
            }
            match range.parameter("as") {
                None => Some(None),
                Some("APIGroupDiscoveryList")
                    if range.parameter("g") == Some("apidiscovery.k8s.io") =>
                {
                    match range.parameter("v") {
                        Some(version @ ("v2" | "v2beta1")) => Some(Some(version.to_owned())),
                        _ => None,
                    }
                }
                Some(_) => None,
            }
        })
        .flatten()?;
    let groups: Vec<Value> = if core {
        vec![aggregated_group(registry, "", &["v1"])]
    } else {
        registry
            .groups()
            .iter()
            .map(|(name, versions)| aggregated_group(registry, name, versions))
            .collect()
    };
    let body = json!({
        "kind": "APIGroupDiscoveryList", "apiVersion": format!("apidiscovery.k8s.io/{version}"),
        "metadata": {}, "items": groups,
    });
    let mut answer = Answer::json(200, &body);
    answer.content_type =
        format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
    answer.etag = Some(format!("\"{}\"", registry.generation()));
    Some(answer)
}

fn aggregated_group(registry: &Registry, name: &str, versions: &[&str]) -> Value {
    let metadata = if name.is_empty() {
        json!({})
    } else {
        json!({"name": name})
    };
    let versions: Vec<Value> = versions
        .iter()
        .map(|version| {
            let resources: Vec<Value> = of_version(registry, name, version)
                .map(aggregated_resource)
                .collect();
            json!({"version": version, "freshness": "Current", "resources": resources})
        })
        .collect();
    json!({"metadata": metadata, "versions": versions})
}

fn aggregated_resource(resource: &ResourceType) -> Value {
    let kind = json!({
        "group": resource.group, "version": resource.version, "kind": resource.kind,
    });
    let mut entry = json!({
        "resource": resource.plural, "responseKind": kind,
        "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
        "singularResource": resource.singular, "verbs": VERBS,
    });
    if !resource.short_names.is_empty() {
        entry["shortNames"] = json!(resource.short_names);
    }
    if !resource.categories.is_empty() {
        entry["categories"] = json!(resource.categories);
    }
    let below: Vec<Value> = subresources(resource)
        .iter()
        .map(|name| json!({"subresource": name, "responseKind": kind, "verbs": SUBRESOURCE_VERBS}))
        .collect();
    if !below.is_empty() {
        entry["subresources"] = json!(below);
    }
    entry
}
