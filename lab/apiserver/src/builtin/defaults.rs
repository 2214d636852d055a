//! Hand-written defaults of built-in kinds: those that clients see or rely on.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use serde_json::{Value, json};

use crate::api::Api;
use crate::resource::ResourceType;

/// First address given to services: 10.96.0.1 is the API server's in most clusters.
const FIRST_CLUSTER_IP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);

/// Fills in defaults.
pub fn apply(api: &Api, resource: &ResourceType, object: &mut Value) {
    match resource.kind.as_str() {
        "Pod" => pod(object),
        "Service" => service(api, resource, object),
        "NetworkPolicy" => network_policy(object),
        "EndpointSlice" => endpoint_slice(object),
        "Secret" => set(object, "type", json!("Opaque")),
        "CustomResourceDefinition" => crate::crd::default(object),
        _ => {}
    }
}

fn set(object: &mut Value, field: &str, default: Value) {
    if let Some(map) = object.as_object_mut()
        && map.get(field).is_none_or(Value::is_null)
    {
        map.insert(field.into(), default);
    }
}

fn elements<'a>(object: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    object
        .get_mut(field)
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

fn pod(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    set(spec, "restartPolicy", json!("Always"));
    set(spec, "dnsPolicy", json!("ClusterFirst"));
    set(spec, "schedulerName", json!("default-scheduler"));
    set(spec, "terminationGracePeriodSeconds", json!(30));
    set(spec, "securityContext", json!({}));
    set(spec, "enableServiceLinks", json!(true));
    for list in ["containers", "initContainers"] {
        for container in elements(spec, list) {
            let image = container["image"].as_str().unwrap_or_default();
            let last = image.rsplit('/').next().unwrap_or_default();
            let latest = !last.contains([':', '@']) || last.ends_with(":latest");
            let policy = if latest { "Always" } else { "IfNotPresent" };
            set(container, "imagePullPolicy", json!(policy));
            set(
                container,
                "terminationMessagePath",
                json!("/dev/termination-log"),
            );
            set(container, "terminationMessagePolicy", json!("File"));
            set(container, "resources", json!({}));
            for port in elements(container, "ports") {
                set(port, "protocol", json!("TCP"));
            }
        }
    }
}

fn service(api: &Api, resource: &ResourceType, object: &mut Value) {
    if !object["spec"].is_object() {
        object["spec"] = json!({});
    }
    let spec = &mut object["spec"];
    set(spec, "type", json!("ClusterIP"));
    set(spec, "sessionAffinity", json!("None"));
    set(spec, "internalTrafficPolicy", json!("Cluster"));
    for port in elements(spec, "ports") {
        set(port, "protocol", json!("TCP"));
        let target = port["port"].clone();
        set(port, "targetPort", target);
    }
    if spec["type"] == "ExternalName" {
        return;
    }
    if spec["clusterIP"].as_str().unwrap_or_default().is_empty() {
        spec["clusterIP"] = json!(free_cluster_ip(api, resource).to_string());
    }
    let first = spec["clusterIP"].clone();
    set(spec, "clusterIPs", json!([first]));
    set(spec, "ipFamilies", json!(["IPv4"]));
    set(spec, "ipFamilyPolicy", json!("SingleStack"));
}

fn free_cluster_ip(api: &Api, resource: &ResourceType) -> Ipv4Addr {
    let used: BTreeSet<Ipv4Addr> = api
        .store
        .list(&resource.key(), None)
        .filter_map(|(_, service)| service["spec"]["clusterIP"].as_str()?.parse().ok())
        .collect();
    let mut candidate = FIRST_CLUSTER_IP;
    while used.contains(&candidate) {
        candidate = Ipv4Addr::from(u32::from(candidate).wrapping_add(1));
    }
    candidate
}

fn network_policy(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|spec| spec.is_object()) else {
        return;
    };
    let egress = spec["egress"]
        .as_array()
        .is_some_and(|rules| !rules.is_empty());
    let types = if egress {
        json!(["Ingress", "Egress"])
    } else {
        json!(["Ingress"])
    };
    set(spec, "policyTypes", types);
    set(spec, "podSelector", json!({}));
    for direction in ["ingress", "egress"] {
        for rule in elements(spec, direction) {
            for port in elements(rule, "ports") {
                set(port, "protocol", json!("TCP"));
            }
        }
    }
}

fn endpoint_slice(object: &mut Value) {
    for port in elements(object, "ports") {
        set(port, "name", json!(""));
        set(port, "protocol", json!("TCP"));
    }
}
