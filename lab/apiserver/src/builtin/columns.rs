//! Table columns of built-in kinds.

use serde_json::{Value, json};

use crate::object;
use crate::table::Column;

/// Columns after the name.
#[must_use]
pub fn of(kind: &str) -> Vec<Column> {
    let string = |name: &str, cell| Column::computed(name, "string", 0, cell);
    let wide = |name: &str, cell| Column::computed(name, "string", 1, cell);
    match kind {
        "Node" => vec![
            string("Status", node_status),
            string("Roles", node_roles),
            Column::age(),
            string("Version", |node| {
                text(&node["status"]["nodeInfo"]["kubeletVersion"], "")
            }),
            wide("Internal-IP", |node| node_address(node, "InternalIP")),
            wide("External-IP", |node| node_address(node, "ExternalIP")),
            wide("OS-Image", |node| {
                text(&node["status"]["nodeInfo"]["osImage"], "<unknown>")
            }),
            wide("Kernel-Version", |node| {
                text(&node["status"]["nodeInfo"]["kernelVersion"], "<unknown>")
            }),
            wide("Container-Runtime", |node| {
                text(
                    &node["status"]["nodeInfo"]["containerRuntimeVersion"],
                    "<unknown>",
                )
            }),
        ],
        "Pod" => vec![
            string("Ready", pod_ready),
            string("Status", pod_status),
            string("Restarts", pod_restarts),
            Column::age(),
            wide("IP", |pod| text(&pod["status"]["podIP"], "<none>")),
            wide("Node", |pod| text(&pod["spec"]["nodeName"], "<none>")),
            wide("Nominated Node", |pod| {
                text(&pod["status"]["nominatedNodeName"], "<none>")
            }),
            wide("Readiness Gates", |_| json!("<none>")),
        ],
        "Namespace" => {
            vec![
                string("Status", |namespace| {
                    text(&namespace["status"]["phase"], "")
                }),
                Column::age(),
            ]
        }
        "Service" => vec![
            string("Type", |service| text(&service["spec"]["type"], "")),
            string("Cluster-IP", |service| {
                text(&service["spec"]["clusterIP"], "<none>")
            }),
            string("External-IP", service_external),
            string("Port(s)", service_ports),
            Column::age(),
            wide("Selector", |service| selector(&service["spec"]["selector"])),
        ],
        "Event" => vec![
            string("Last Seen", |event| {
                text(&event["lastTimestamp"], "<unknown>")
            }),
            string("Type", |event| text(&event["type"], "")),
            string("Reason", |event| text(&event["reason"], "")),
            string("Object", |event| {
                let involved = &event["involvedObject"];
                let kind = involved["kind"].as_str().unwrap_or_default().to_lowercase();
                json!(format!(
                    "{kind}/{}",
                    involved["name"].as_str().unwrap_or_default()
                ))
            }),
            string("Message", |event| text(&event["message"], "")),
        ],
        "Secret" => vec![
            string("Type", |secret| text(&secret["type"], "")),
            Column::computed("Data", "integer", 0, |secret| json!(count(&secret["data"]))),
            Column::age(),
        ],
        "ConfigMap" => vec![
            Column::computed("Data", "integer", 0, |map| {
                json!(count(&map["data"]) + count(&map["binaryData"]))
            }),
            Column::age(),
        ],
        "ServiceAccount" => vec![
            Column::computed("Secrets", "integer", 0, |account| {
                json!(account["secrets"].as_array().map_or(0, Vec::len))
            }),
            Column::age(),
        ],
        "NetworkPolicy" => vec![
            string("Pod-Selector", |policy| {
                selector(&policy["spec"]["podSelector"]["matchLabels"])
            }),
            Column::age(),
        ],
        "EndpointSlice" => vec![
            string("AddressType", |slice| text(&slice["addressType"], "")),
            string("Ports", |slice| {
                joined(&slice["ports"], |port| shown(&port["port"]))
            }),
            string("Endpoints", |slice| {
                joined(&slice["endpoints"], |endpoint| {
                    shown(&endpoint["addresses"][0])
                })
            }),
            Column::age(),
        ],
        "Lease" => vec![
            string("Holder", |lease| text(&lease["spec"]["holderIdentity"], "")),
            Column::age(),
        ],
        "CustomResourceDefinition" => {
            let created = |crd: &Value| text(&crd["metadata"]["creationTimestamp"], "");
            vec![Column::computed("Created At", "date", 0, created)]
        }
        _ => vec![Column::age()],
    }
}

fn text(value: &Value, absent: &str) -> Value {
    json!(
        value
            .as_str()
            .filter(|text| !text.is_empty())
            .unwrap_or(absent)
    )
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<none>".into(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn count(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn joined(list: &Value, show: fn(&Value) -> String) -> Value {
    let texts: Vec<String> = list.as_array().into_iter().flatten().map(show).collect();
    if texts.is_empty() {
        json!("<unset>")
    } else {
        json!(texts.join(","))
    }
}

fn selector(labels: &Value) -> Value {
    let pairs: Vec<String> = labels
        .as_object()
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    if pairs.is_empty() {
        json!("<none>")
    } else {
        json!(pairs.join(","))
    }
}

fn node_status(node: &Value) -> Value {
    let ready = node["status"]["conditions"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|condition| condition["type"] == "Ready")
        .map(|condition| condition["status"].as_str().unwrap_or_default());
    let mut status = match ready {
        Some("True") => "Ready",
        Some("False") => "NotReady",
        _ => "Unknown",
    }
    .to_owned();
    if node["spec"]["unschedulable"] == true {
        status.push_str(",SchedulingDisabled");
    }
    json!(status)
}

fn node_roles(node: &Value) -> Value {
    let roles: Vec<&str> = node["metadata"]["labels"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, _)| key.strip_prefix("node-role.kubernetes.io/"))
        .collect();
    if roles.is_empty() {
        json!("<none>")
    } else {
        json!(roles.join(","))
    }
}

fn node_address(node: &Value, kind: &str) -> Value {
    let address = node["status"]["addresses"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|address| address["type"] == kind)
        .and_then(|address| address["address"].as_str());
    json!(address.unwrap_or("<none>"))
}

fn pod_ready(pod: &Value) -> Value {
    let total = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let ready = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|status| status["ready"] == true)
        .count();
    json!(format!("{ready}/{total}"))
}

fn pod_status(pod: &Value) -> Value {
    if object::is_terminating(pod) {
        return json!("Terminating");
    }
    match pod["status"]["reason"].as_str() {
        Some(reason) => json!(reason),
        None => text(&pod["status"]["phase"], "Unknown"),
    }
}

fn pod_restarts(pod: &Value) -> Value {
    let restarts: i64 = pod["status"]["containerStatuses"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|status| status["restartCount"].as_i64())
        .sum();
    json!(restarts.to_string())
}

fn service_external(service: &Value) -> Value {
    let addresses: Vec<&str> = service["status"]["loadBalancer"]["ingress"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|ingress| {
            ingress["ip"]
                .as_str()
                .or_else(|| ingress["hostname"].as_str())
        })
        .chain(
            service["spec"]["externalIPs"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str),
        )
        .collect();
    match (addresses.is_empty(), service["spec"]["type"].as_str()) {
        (false, _) => json!(addresses.join(",")),
        (true, Some("LoadBalancer")) => json!("<pending>"),
        (true, _) => json!("<none>"),
    }
}

fn service_ports(service: &Value) -> Value {
    let ports: Vec<String> = service["spec"]["ports"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            match port["nodePort"].as_i64() {
                Some(node_port) => format!("{}:{node_port}/{protocol}", port["port"]),
                None => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    if ports.is_empty() {
        json!("<none>")
    } else {
        json!(ports.join(","))
    }
}
