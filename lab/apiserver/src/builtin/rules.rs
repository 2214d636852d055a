//! Hand-written rules of built-in kinds.
//!
//! Only those that clients of a network stack can meet; the rest of what real servers check is
//! accepted.

use serde_json::{Value, json};

use crate::object;
use crate::resource::{Origin, ResourceType};
use crate::status::{Cause, Refusal};
use crate::store::ObjectKey;

/// Namespaces that cannot be deleted.
pub const PERMANENT_NAMESPACES: &[&str] =
    &["default", "kube-system", "kube-public", "kube-node-lease"];

/// Whether objects carry `metadata.generation`.
#[must_use]
pub fn has_generation(resource: &ResourceType) -> bool {
    matches!(
        resource.kind.as_str(),
        "Pod" | "NetworkPolicy" | "EndpointSlice" | "CustomResourceDefinition"
    )
}

/// Whether a create may set `status` although it is a subresource.
#[must_use]
pub fn status_settable_on_create(resource: &ResourceType) -> bool {
    resource.origin == Origin::Builtin && resource.is_core("nodes")
}

/// Sets what a new object of a built-in kind always has.
pub fn prepare_for_create(resource: &ResourceType, new: &mut Value) {
    if resource.origin == Origin::Custom {
        return;
    }
    match resource.kind.as_str() {
        "Namespace" => {
            let name = object::name(new).to_owned();
            if !name.is_empty() {
                new["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
            }
            new["spec"] = json!({"finalizers": ["kubernetes"]});
            new["status"] = json!({"phase": "Active"});
        }
        "Pod" => new["status"] = json!({"phase": "Pending", "qosClass": "BestEffort"}),
        "Service" => new["status"] = json!({"loadBalancer": {}}),
        _ => {}
    }
    merge_string_data(resource, new);
}

/// Puts back what an update of a built-in kind cannot change.
pub fn prepare_for_update(resource: &ResourceType, old: &Value, new: &mut Value) {
    if resource.origin == Origin::Custom {
        return;
    }
    match resource.kind.as_str() {
        "Namespace" => {
            new["spec"]["finalizers"] = old["spec"]["finalizers"].clone();
            let name = object::name(new).to_owned();
            new["metadata"]["labels"]["kubernetes.io/metadata.name"] = json!(name);
        }
        "Service" => {
            for field in ["clusterIP", "clusterIPs"] {
                if new["spec"].get(field).is_none_or(Value::is_null)
                    && let Some(value) = old["spec"].get(field)
                {
                    new["spec"][field] = value.clone();
                }
            }
        }
        _ => {}
    }
    merge_string_data(resource, new);
}

/// `stringData` is write-only: it ends up, encoded, in `data`.
fn merge_string_data(resource: &ResourceType, new: &mut Value) {
    use base64::Engine as _;
    if !resource.is_core("secrets") {
        return;
    }
    let Some(Value::Object(plain)) = new.as_object_mut().and_then(|map| map.remove("stringData"))
    else {
        return;
    };
    for (key, value) in plain {
        let text = value.as_str().unwrap_or_default();
        new["data"][&key] = json!(base64::engine::general_purpose::STANDARD.encode(text));
    }
}

/// Whether nothing of the kind's own holds back a removal.
#[must_use]
pub fn may_go(resource: &ResourceType, object: &Value) -> bool {
    if resource.is_core("namespaces") {
        return object["spec"]["finalizers"]
            .as_array()
            .is_none_or(Vec::is_empty);
    }
    true
}

/// Seconds between the request to delete an object and its removal.
///
/// Only pods that are on a node have any: their kubelet removes them.
#[must_use]
pub fn grace_period(resource: &ResourceType, object: &Value, asked: Option<i64>) -> i64 {
    if !resource.is_core("pods") {
        return 0;
    }
    let scheduled = object["spec"]["nodeName"]
        .as_str()
        .is_some_and(|name| !name.is_empty());
    let done = matches!(
        object["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed")
    );
    if !scheduled || done {
        return 0;
    }
    asked
        .or_else(|| object["spec"]["terminationGracePeriodSeconds"].as_i64())
        .unwrap_or(30)
        .max(0)
}

/// What else changes when an object begins to terminate.
pub fn mark_terminating(resource: &ResourceType, object: &mut Value) {
    if resource.is_core("namespaces") {
        object["status"]["phase"] = json!("Terminating");
    }
}

/// Objects that must not be deleted at all.
///
/// # Errors
/// 403.
pub fn may_delete(resource: &ResourceType, key: &ObjectKey) -> Result<(), Refusal> {
    if resource.is_core("namespaces") && PERMANENT_NAMESPACES.contains(&key.name.as_str()) {
        let why = "this namespace may not be deleted";
        return Err(Refusal::forbidden(resource.about(&key.name), why));
    }
    Ok(())
}

/// Validates an object of a built-in kind.
#[must_use]
pub fn check(resource: &ResourceType, object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    match resource.kind.as_str() {
        "Pod" => pod(object, old, &mut causes),
        "Service" => service(object, &mut causes),
        "NetworkPolicy" => network_policy(object, &mut causes),
        "EndpointSlice" => endpoint_slice(object, old, &mut causes),
        "Node" => node(object, old, &mut causes),
        "Lease" => lease(object, &mut causes),
        "CustomResourceDefinition" => causes.extend(crate::crd::check(object, old)),
        _ => {}
    }
    causes
}

fn pod(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let containers = object["spec"]["containers"].as_array();
    if containers.is_none_or(Vec::is_empty) {
        causes.push(Cause::required("spec.containers", ""));
    }
    for (index, container) in containers.into_iter().flatten().enumerate() {
        for field in ["name", "image"] {
            if container[field].as_str().unwrap_or_default().is_empty() {
                causes.push(Cause::required(
                    format!("spec.containers[{index}].{field}"),
                    "",
                ));
            }
        }
    }
    let Some(old) = old else { return };
    // Updates may change images, tolerations, gates and deadlines, and nothing else of the spec.
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "schedulingGates",
            "ephemeralContainers",
        ] {
            spec.as_object_mut().map(|map| map.remove(field));
        }
        for list in ["containers", "initContainers"] {
            for container in spec[list].as_array_mut().into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        spec
    };
    if fixed(old) != fixed(object) {
        let why = "pod updates may not change fields other than \
                   `spec.containers[*].image`,`spec.initContainers[*].image`,\
                   `spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing \
                   tolerations),`spec.terminationGracePeriodSeconds`";
        causes.push(Cause::forbidden("spec", why));
    }
}

fn service(object: &Value, causes: &mut Vec<Cause>) {
    let external = object["spec"]["type"] == "ExternalName";
    let headless = object["spec"]["clusterIP"] == "None";
    let ports = object["spec"]["ports"].as_array();
    if ports.is_none_or(Vec::is_empty) && !external && !headless {
        causes.push(Cause::required("spec.ports", ""));
    }
    let count = ports.map_or(0, Vec::len);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        check_port(&port["port"], &format!("spec.ports[{index}].port"), causes);
        if count > 1 && port["name"].as_str().unwrap_or_default().is_empty() {
            causes.push(Cause::required(format!("spec.ports[{index}].name"), ""));
        }
    }
}

fn check_port(port: &Value, path: &str, causes: &mut Vec<Cause>) {
    if let Some(number) = port.as_i64().filter(|number| !(1..=65535).contains(number)) {
        causes.push(Cause::invalid(
            path,
            &json!(number),
            "must be between 1 and 65535, inclusive",
        ));
    }
}

fn network_policy(object: &Value, causes: &mut Vec<Cause>) {
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        for (index, rule) in object["spec"][direction]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
        {
            let rule_path = format!("spec.{direction}[{index}]");
            for (index, peer) in rule[peers].as_array().into_iter().flatten().enumerate() {
                network_policy_peer(peer, &format!("{rule_path}.{peers}[{index}]"), causes);
            }
            for (index, port) in rule["ports"].as_array().into_iter().flatten().enumerate() {
                network_policy_port(port, &format!("{rule_path}.ports[{index}]"), causes);
            }
        }
    }
}

fn network_policy_peer(peer: &Value, path: &str, causes: &mut Vec<Cause>) {
    let block = &peer["ipBlock"];
    let selects = peer.get("podSelector").is_some() || peer.get("namespaceSelector").is_some();
    if block.is_null() {
        if !selects {
            causes.push(Cause::required(path, "must specify a peer"));
        }
        return;
    }
    if selects {
        let why = "may not specify both ipBlock and another peer";
        causes.push(Cause::forbidden(path, why));
    }
    let blocks = std::iter::once((format!("{path}.ipBlock.cidr"), &block["cidr"])).chain(
        block["except"]
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(|(index, value)| (format!("{path}.ipBlock.except[{index}]"), value)),
    );
    for (path, value) in blocks {
        if !value
            .as_str()
            .is_some_and(|text| crate::schema::formats::matches("cidr", text))
        {
            causes.push(Cause::invalid(path, value, "must be a valid CIDR value"));
        }
    }
}

fn network_policy_port(port: &Value, path: &str, causes: &mut Vec<Cause>) {
    check_port(&port["port"], &format!("{path}.port"), causes);
    let Some(end) = port["endPort"].as_i64() else {
        return;
    };
    match port["port"].as_i64() {
        Some(first) if end < first => {
            let why = "must be greater than or equal to `port`";
            causes.push(Cause::invalid(format!("{path}.endPort"), &json!(end), why));
        }
        Some(_) => {}
        None => {
            let why = "may not be specified when `port` is not specified or non-numeric";
            causes.push(Cause::invalid(format!("{path}.endPort"), &json!(end), why));
        }
    }
}

fn endpoint_slice(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let kind = &object["addressType"];
    if !["IPv4", "IPv6", "FQDN"].iter().any(|known| kind == known) {
        causes.push(Cause::invalid(
            "addressType",
            kind,
            "must be IPv4, IPv6 or FQDN",
        ));
    }
    if old.is_some_and(|old| old["addressType"] != *kind) {
        causes.push(Cause::invalid("addressType", kind, "field is immutable"));
    }
}

fn node(object: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let Some(old) = old else { return };
    for field in ["podCIDR", "providerID"] {
        let before = old["spec"][field].as_str().unwrap_or_default();
        if !before.is_empty() && object["spec"][field] != before {
            let path = format!("spec.{field}");
            let why = "node updates may not change this field except from \"\" to valid";
            causes.push(Cause::forbidden(path, why));
        }
    }
}

fn lease(object: &Value, causes: &mut Vec<Cause>) {
    for field in ["leaseDurationSeconds", "leaseTransitions"] {
        let value = &object["spec"][field];
        let least = i64::from(field == "leaseDurationSeconds");
        if value.as_i64().is_some_and(|number| number < least) {
            let why = format!("must be at least {least}");
            causes.push(Cause::invalid(format!("spec.{field}"), value, why));
        }
    }
}
