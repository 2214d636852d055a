//! The resources that come with the server.
//!
//! Owns the list of them and their schemas, which are those of `k8s-openapi` plus the merge
//! extensions that its schemas lack. Defaults, columns and hand-written rules are in the
//! submodules.

pub mod columns;
pub mod defaults;
pub mod extensions;
pub mod rules;

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Value, json};

use crate::resource::{NameRule, Origin, Registry, ResourceType};
use crate::schema::Schema;

/// Prefix of references between definitions.
pub const REFERENCE_PREFIX: &str = "#/components/schemas/";
/// Name of the definition of object metadata.
pub const OBJECT_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta";
/// Name of the definition of list metadata.
pub const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// OpenAPI definitions by name.
pub type Definitions = BTreeMap<String, Value>;

struct Builtin {
    group: &'static str,
    version: &'static str,
    kind: &'static str,
    plural: &'static str,
    singular: &'static str,
    short_names: &'static [&'static str],
    categories: &'static [&'static str],
    namespaced: bool,
    has_status: bool,
    name_rule: NameRule,
    definition: &'static str,
    selectable: &'static [&'static str],
}

const BUILTINS: &[Builtin] = &[
    Builtin {
        group: "",
        version: "v1",
        kind: "Node",
        plural: "nodes",
        singular: "node",
        short_names: &["no"],
        categories: &[],
        namespaced: false,
        has_status: true,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.core.v1.Node",
        selectable: &["spec.unschedulable"],
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        namespaced: true,
        has_status: true,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.core.v1.Pod",
        selectable: &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        short_names: &["ns"],
        categories: &[],
        namespaced: false,
        has_status: true,
        name_rule: NameRule::Label,
        definition: "io.k8s.api.core.v1.Namespace",
        selectable: &["status.phase"],
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        namespaced: true,
        has_status: true,
        name_rule: NameRule::Label1035,
        definition: "io.k8s.api.core.v1.Service",
        selectable: &["spec.clusterIP", "spec.type"],
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        categories: &[],
        namespaced: true,
        has_status: false,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.core.v1.Event",
        selectable: &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        short_names: &[],
        categories: &[],
        namespaced: true,
        has_status: false,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.core.v1.Secret",
        selectable: &["type"],
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        categories: &[],
        namespaced: true,
        has_status: false,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.core.v1.ServiceAccount",
        selectable: &[],
    },
    Builtin {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        categories: &[],
        namespaced: true,
        has_status: false,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.core.v1.ConfigMap",
        selectable: &[],
    },
    Builtin {
        group: "networking.k8s.io",
        version: "v1",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        categories: &[],
        namespaced: true,
        has_status: false,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.networking.v1.NetworkPolicy",
        selectable: &[],
    },
    Builtin {
        group: "discovery.k8s.io",
        version: "v1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        singular: "endpointslice",
        short_names: &[],
        categories: &[],
        namespaced: true,
        has_status: false,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.discovery.v1.EndpointSlice",
        selectable: &[],
    },
    Builtin {
        group: "coordination.k8s.io",
        version: "v1",
        kind: "Lease",
        plural: "leases",
        singular: "lease",
        short_names: &[],
        categories: &[],
        namespaced: true,
        has_status: false,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.api.coordination.v1.Lease",
        selectable: &[],
    },
    Builtin {
        group: "apiextensions.k8s.io",
        version: "v1",
        kind: "CustomResourceDefinition",
        plural: "customresourcedefinitions",
        singular: "customresourcedefinition",
        short_names: &["crd", "crds"],
        categories: &["api-extensions"],
        namespaced: false,
        has_status: true,
        name_rule: NameRule::Subdomain,
        definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
        selectable: &[],
    },
];

/// OpenAPI name of the definition of a built-in kind.
#[must_use]
pub fn definition_of(group: &str, kind: &str) -> Option<&'static str> {
    BUILTINS
        .iter()
        .find(|builtin| builtin.group == group && builtin.kind == kind)
        .map(|builtin| builtin.definition)
}

/// The definitions of all built-in kinds and of what they refer to.
#[must_use]
pub fn definitions() -> Definitions {
    let mut generator = SchemaSettings::openapi3().into_generator();
    let generate: [fn(&mut SchemaGenerator); 14] = [
        |g| drop(g.subschema_for::<core::Node>()),
        |g| drop(g.subschema_for::<core::Pod>()),
        |g| drop(g.subschema_for::<core::Namespace>()),
        |g| drop(g.subschema_for::<core::Service>()),
        |g| drop(g.subschema_for::<core::Event>()),
        |g| drop(g.subschema_for::<core::Secret>()),
        |g| drop(g.subschema_for::<core::ServiceAccount>()),
        |g| drop(g.subschema_for::<core::ConfigMap>()),
        |g| drop(g.subschema_for::<NetworkPolicy>()),
        |g| drop(g.subschema_for::<EndpointSlice>()),
        |g| drop(g.subschema_for::<Lease>()),
        |g| drop(g.subschema_for::<CustomResourceDefinition>()),
        |g| drop(g.subschema_for::<meta::ListMeta>()),
        |g| drop(g.subschema_for::<meta::DeleteOptions>()),
    ];
    for add in generate {
        add(&mut generator);
    }
    let mut definitions: Definitions = generator.take_definitions(true).into_iter().collect();
    extensions::apply(&mut definitions);
    definitions
}

/// Registers all built-in resources.
pub fn register(registry: &mut Registry, definitions: &Definitions) {
    for builtin in BUILTINS {
        let reference = json!({"$ref": format!("{REFERENCE_PREFIX}{}", builtin.definition)});
        let inlined = inline(&reference, definitions);
        registry.insert(ResourceType {
            group: builtin.group.into(),
            version: builtin.version.into(),
            kind: builtin.kind.into(),
            list_kind: format!("{}List", builtin.kind),
            plural: builtin.plural.into(),
            singular: builtin.singular.into(),
            short_names: builtin
                .short_names
                .iter()
                .map(ToString::to_string)
                .collect(),
            categories: builtin.categories.iter().map(ToString::to_string).collect(),
            namespaced: builtin.namespaced,
            has_status: builtin.has_status,
            origin: Origin::Builtin,
            name_rule: builtin.name_rule,
            schema: Arc::new(Schema::parse(&inlined)),
            openapi: None,
            cel: None,
            columns: columns::of(builtin.kind),
            selectable_fields: builtin.selectable.iter().map(ToString::to_string).collect(),
        });
    }
}

/// The schema of object metadata, for custom resources.
#[must_use]
pub fn object_meta(definitions: &Definitions) -> Value {
    inline(
        &json!({"$ref": format!("{REFERENCE_PREFIX}{OBJECT_META}")}),
        definitions,
    )
}

/// A schema with all references replaced by what they refer to, and without descriptions.
///
/// A definition that contains itself becomes "anything" where it repeats.
#[must_use]
pub fn inline(schema: &Value, definitions: &Definitions) -> Value {
    fn walk<'a>(node: &'a Value, definitions: &'a Definitions, open: &mut Vec<&'a str>) -> Value {
        match node {
            Value::Object(map) => {
                let reference = map
                    .get("$ref")
                    .and_then(Value::as_str)
                    .and_then(|reference| reference.strip_prefix(REFERENCE_PREFIX));
                let mut result = serde_json::Map::new();
                if let Some(name) = reference {
                    if open.contains(&name) || name.ends_with(".JSONSchemaProps") {
                        return json!({"x-kubernetes-preserve-unknown-fields": true});
                    }
                    if let Some(definition) = definitions.get(name) {
                        open.push(name);
                        if let Value::Object(inner) = walk(definition, definitions, open) {
                            result = inner;
                        }
                        open.pop();
                    }
                }
                for (key, value) in map {
                    let prose = key == "description" && value.is_string();
                    if key != "$ref" && !prose {
                        result.insert(key.clone(), walk(value, definitions, open));
                    }
                }
                merge_single_part(&mut result);
                Value::Object(result)
            }
            Value::Array(list) => list
                .iter()
                .map(|value| walk(value, definitions, open))
                .collect(),
            other => other.clone(),
        }
    }
    walk(schema, definitions, &mut Vec::new())
}

/// OpenAPI 3.0 has no siblings of references, so `allOf` with one part stands for the part itself.
fn merge_single_part(node: &mut serde_json::Map<String, Value>) {
    let single = node
        .get("allOf")
        .and_then(Value::as_array)
        .is_some_and(|parts| parts.len() == 1);
    if single
        && !node.contains_key("type")
        && let Some(Value::Array(mut parts)) = node.remove("allOf")
        && let Some(Value::Object(part)) = parts.pop()
    {
        for (key, value) in part {
            node.entry(key).or_insert(value);
        }
    }
}
