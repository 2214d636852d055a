//! What the agent keeps of each object.
//!
//! A node's heartbeat, a pod's probe results and every writer's bookkeeping change objects without
//! meaning anything here. Dropping them at the door keeps memory, the snapshot and the number of
//! events small.

use k8s_openapi::api::core::v1::{
    Container, Namespace, Node, NodeSpec, NodeStatus, Pod, PodStatus,
};
use kube::ResourceExt;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Writers' bookkeeping, and the resource version, which moves with every write.
pub(crate) fn metadata<K: ResourceExt>(object: &mut K) {
    versioned(object);
    object.meta_mut().resource_version = None;
}

/// Writers' bookkeeping alone, for objects that the agent writes: a write names the version that it
/// was judged from.
pub(crate) fn versioned<K: ResourceExt>(object: &mut K) {
    object.managed_fields_mut().clear();
    object.annotations_mut().remove(LAST_APPLIED);
}

/// A namespace is its labels.
pub(crate) fn namespace(namespace: &mut Namespace) {
    metadata(namespace);
    namespace.annotations_mut().clear();
    namespace.spec = None;
    namespace.status = None;
}

/// A node is its labels and annotations, UID and addresses.
pub(crate) fn node(node: &mut Node) {
    metadata(node);
    node.spec = node.spec.take().map(|spec| NodeSpec {
        unschedulable: spec.unschedulable,
        ..NodeSpec::default()
    });
    node.status = node.status.take().map(|status| NodeStatus {
        addresses: status.addresses,
        ..NodeStatus::default()
    });
}

/// A pod is its labels, where it runs, its ports, its addresses and whether it has ended.
pub(crate) fn pod(pod: &mut Pod) {
    metadata(pod);
    pod.annotations_mut().clear();
    if let Some(spec) = &mut pod.spec {
        let ports_only = |containers: Vec<Container>| {
            containers
                .into_iter()
                .filter(|container| container.ports.is_some())
                .map(|container| Container {
                    name: container.name,
                    ports: container.ports,
                    restart_policy: container.restart_policy,
                    ..Container::default()
                })
                .collect()
        };
        let whole = std::mem::take(spec);
        spec.node_name = whole.node_name;
        spec.host_network = whole.host_network;
        spec.containers = ports_only(whole.containers);
        spec.init_containers = whole.init_containers.map(ports_only);
    }
    pod.status = pod.status.take().map(|status| PodStatus {
        phase: status.phase,
        pod_ip: status.pod_ip,
        pod_ips: status.pod_ips,
        ..PodStatus::default()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_heartbeat_is_no_change() {
        let parse = |version: &str, beat: &str| -> Node {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "n1", "uid": "u", "resourceVersion": version},
                "status": {
                    "addresses": [{"type": "InternalIP", "address": "10.0.0.1"}],
                    "conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": beat}],
                },
            }))
            .unwrap()
        };
        let mut first = parse("1", "2026-01-01T00:00:00Z");
        let mut second = parse("2", "2026-01-01T00:00:10Z");
        assert_ne!(first, second);
        node(&mut first);
        node(&mut second);
        assert_eq!(first, second);
        assert_eq!(
            first.status.unwrap().addresses.unwrap()[0].address,
            "10.0.0.1"
        );
    }

    #[test]
    fn a_pod_keeps_what_policies_read() {
        let mut object: Pod = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "p", "namespace": "ns", "labels": {"app": "web"}},
            "spec": {
                "nodeName": "n1",
                "containers": [
                    {"name": "c", "image": "i", "ports": [{"name": "http", "containerPort": 80}]},
                    {"name": "silent", "image": "i"},
                ],
            },
            "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.1"}], "message": "m"},
        }))
        .unwrap();
        pod(&mut object);
        let spec = object.spec.as_ref().unwrap();
        assert_eq!(spec.node_name.as_deref(), Some("n1"));
        assert_eq!(spec.containers.len(), 1);
        assert_eq!(
            spec.containers[0].ports.as_ref().unwrap()[0].container_port,
            80
        );
        let status = object.status.as_ref().unwrap();
        assert_eq!(status.phase.as_deref(), Some("Running"));
        assert_eq!(status.pod_ips.as_ref().unwrap().len(), 1);
        assert_eq!(status.message, None);
    }
}
