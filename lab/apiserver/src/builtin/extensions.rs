//! The merge extensions of built-in schemas.
//!
//! `k8s-openapi` leaves out `x-kubernetes-list-type` and its like, without which neither
//! server-side apply nor strategic merge patches can tell list elements apart. Source: the
//! published OpenAPI documents of Kubernetes 1.34.

use serde_json::{Value, json};

use super::Definitions;

/// How a list field is merged.
enum Merge {
    /// Elements are identified by these keys, for apply and strategic patches.
    Map(&'static [&'static str]),
    /// As `Map`, but strategic patches use this one key.
    MapPatchedBy(&'static [&'static str], &'static str),
    /// Each element stands for itself, and strategic patches merge.
    SetPatched,
    /// Each element stands for itself; strategic patches replace.
    Set,
    /// Apply replaces; strategic patches merge by this key.
    AtomicPatchedBy(&'static str),
}

const CORE: &str = "io.k8s.api.core.v1.";

const LISTS: &[(&str, &str, Merge)] = &[
    ("ObjectMeta", "ownerReferences", Merge::Map(&["uid"])),
    ("ObjectMeta", "finalizers", Merge::SetPatched),
    ("NodeSpec", "podCIDRs", Merge::SetPatched),
    ("NodeStatus", "conditions", Merge::Map(&["type"])),
    ("NodeStatus", "addresses", Merge::Map(&["type"])),
    ("NamespaceStatus", "conditions", Merge::Map(&["type"])),
    ("PodSpec", "containers", Merge::Map(&["name"])),
    ("PodSpec", "initContainers", Merge::Map(&["name"])),
    ("PodSpec", "ephemeralContainers", Merge::Map(&["name"])),
    ("PodSpec", "volumes", Merge::Map(&["name"])),
    ("PodSpec", "imagePullSecrets", Merge::Map(&["name"])),
    ("PodSpec", "hostAliases", Merge::Map(&["ip"])),
    ("PodSpec", "schedulingGates", Merge::Map(&["name"])),
    ("PodSpec", "resourceClaims", Merge::Map(&["name"])),
    (
        "PodSpec",
        "topologySpreadConstraints",
        Merge::MapPatchedBy(&["topologyKey", "whenUnsatisfiable"], "topologyKey"),
    ),
    ("PodStatus", "conditions", Merge::Map(&["type"])),
    ("PodStatus", "podIPs", Merge::Map(&["ip"])),
    ("PodStatus", "hostIPs", Merge::AtomicPatchedBy("ip")),
    ("PodStatus", "resourceClaimStatuses", Merge::Map(&["name"])),
    ("Container", "env", Merge::Map(&["name"])),
    (
        "Container",
        "ports",
        Merge::MapPatchedBy(&["containerPort", "protocol"], "containerPort"),
    ),
    ("Container", "volumeMounts", Merge::Map(&["mountPath"])),
    ("Container", "volumeDevices", Merge::Map(&["devicePath"])),
    ("EphemeralContainer", "env", Merge::Map(&["name"])),
    (
        "EphemeralContainer",
        "ports",
        Merge::MapPatchedBy(&["containerPort", "protocol"], "containerPort"),
    ),
    (
        "EphemeralContainer",
        "volumeMounts",
        Merge::Map(&["mountPath"]),
    ),
    (
        "EphemeralContainer",
        "volumeDevices",
        Merge::Map(&["devicePath"]),
    ),
    ("ResourceRequirements", "claims", Merge::Map(&["name"])),
    (
        "ServiceSpec",
        "ports",
        Merge::MapPatchedBy(&["port", "protocol"], "port"),
    ),
    ("ServiceStatus", "conditions", Merge::Map(&["type"])),
    ("ServiceAccount", "secrets", Merge::Map(&["name"])),
    ("Endpoint", "addresses", Merge::Set),
    (
        "CustomResourceDefinitionStatus",
        "conditions",
        Merge::Map(&["type"]),
    ),
];

/// Objects that are replaced as a whole.
const ATOMIC_OBJECTS: &[&str] = &[
    "LabelSelector",
    "ObjectReference",
    "LocalObjectReference",
    "TypedLocalObjectReference",
    "ConfigMapKeySelector",
    "SecretKeySelector",
    "SecretReference",
    "ObjectFieldSelector",
    "ResourceFieldSelector",
    "OwnerReference",
    "NodeSelector",
    "NodeSelectorTerm",
    "TopologySelectorTerm",
];

/// Definitions that hold anything; their generated schemas say less than they allow.
const ANYTHING: &[&str] = &["FieldsV1", "JSON", "RawExtension"];

/// Writes the extensions into the definitions.
pub fn apply(definitions: &mut Definitions) {
    for (name, definition) in definitions.iter_mut() {
        let short = name.rsplit('.').next().unwrap_or_default();
        for (_, field, merge) in LISTS.iter().filter(|(owner, _, _)| *owner == short) {
            if let Some(property) = definition["properties"].get_mut(*field) {
                extend(property, merge);
            }
        }
        if ATOMIC_OBJECTS.contains(&short) {
            definition["x-kubernetes-map-type"] = json!("atomic");
        }
        if short == "PodSpec"
            && let Some(selector) = definition["properties"].get_mut("nodeSelector")
        {
            selector["x-kubernetes-map-type"] = json!("atomic");
        }
        if short == "ServiceSpec"
            && let Some(selector) = definition["properties"].get_mut("selector")
        {
            selector["x-kubernetes-map-type"] = json!("atomic");
        }
        if ANYTHING.contains(&short) {
            definition["x-kubernetes-preserve-unknown-fields"] = json!(true);
            if short == "JSON" {
                definition.as_object_mut().map(|map| map.remove("type"));
            }
        }
    }
    for (owner, field, default) in [
        ("ContainerPort", "protocol", "TCP"),
        ("ServicePort", "protocol", "TCP"),
    ] {
        if let Some(definition) = definitions.get_mut(&format!("{CORE}{owner}"))
            && let Some(property) = definition["properties"].get_mut(field)
        {
            property["default"] = json!(default);
        }
    }
}

fn extend(property: &mut Value, merge: &Merge) {
    let (list_type, keys, patch_key, patched) = match merge {
        Merge::Map(keys) => ("map", *keys, keys.first().copied(), true),
        Merge::MapPatchedBy(keys, patch_key) => ("map", *keys, Some(*patch_key), true),
        Merge::SetPatched => ("set", &[][..], None, true),
        Merge::Set => ("set", &[][..], None, false),
        Merge::AtomicPatchedBy(key) => ("atomic", &[][..], Some(*key), true),
    };
    property["x-kubernetes-list-type"] = json!(list_type);
    if !keys.is_empty() {
        property["x-kubernetes-list-map-keys"] = json!(keys);
    }
    if let Some(key) = patch_key {
        property["x-kubernetes-patch-merge-key"] = json!(key);
    }
    if patched {
        property["x-kubernetes-patch-strategy"] = json!("merge");
    }
}
