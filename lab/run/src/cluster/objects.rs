//! The Kubernetes objects of a lab, computed from its plan and sidecar.

use std::net::IpAddr;

use caracal_lab_topology::{Plan, PlannedNode, Role, Sidecar, sidecar};
use serde_json::{Value, json};

use crate::routers::RESTART_SECONDS;

/// API version of this project's resources.
pub const API: &str = "caracal.dev/v1alpha1";

/// Nodes with their loopbacks as InternalIPs, as a cloud provider or kubelet would register them.
pub fn nodes(plan: &Plan) -> Vec<Value> {
    plan.with_role(Role::Node)
        .map(|node| {
            json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {
                    "name": node.name,
                    "labels": {
                        "kubernetes.io/hostname": node.name,
                        "kubernetes.io/os": "linux",
                        "topology.kubernetes.io/rack": node.rack,
                    },
                },
                "status": {
                    "addresses": [
                        {"type": "InternalIP", "address": node.loopback_v4},
                        {"type": "InternalIP", "address": node.loopback_v6},
                        {"type": "Hostname", "address": node.name},
                    ],
                },
            })
        })
        .collect()
}

/// Pools, BGP configurations and peers: what an operator of such a fabric would write.
pub fn configuration(plan: &Plan, sidecar: &Sidecar) -> Vec<Value> {
    let mut objects: Vec<Value> = sidecar.cluster.pools.iter().map(pool).collect();
    objects.push(json!({
        "apiVersion": API,
        "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": {
            "nodeToNodeMeshEnabled": false,
            "maximumPaths": 16,
            "multipathRelax": true,
            "gracefulRestart": {"restartTime": format!("{RESTART_SECONDS}s")},
        },
    }));
    for node in plan.with_role(Role::Node) {
        objects.push(json!({
            "apiVersion": API,
            "kind": "BGPConfiguration",
            "metadata": {"name": format!("node.{}", node.name)},
            "spec": {"asNumber": node.asn, "routerID": node.loopback_v4},
        }));
        objects.extend(peers(plan, node));
    }
    objects
}

fn pool(pool: &sidecar::Pool) -> Value {
    json!({
        "apiVersion": API,
        "kind": "IPPool",
        "metadata": {"name": pool.name},
        "spec": {
            "subnets": [{"ipv4": pool.ipv4, "ipv6": pool.ipv6}],
            "blockBits": pool.block_bits,
        },
    })
}

fn peers<'a>(plan: &'a Plan, node: &'a PlannedNode) -> impl Iterator<Item = Value> + 'a {
    plan.sessions(&node.name).into_iter().map(move |session| {
        json!({
            "apiVersion": API,
            "kind": "BGPPeer",
            "metadata": {"name": format!("{}-{}", node.name, session.peer.name)},
            "spec": {
                "node": node.name,
                "peerIP": session.remote.v4,
                "localAddress": session.local.v4,
                "asNumber": session.peer.asn,
            },
        })
    })
}

/// Namespaces of the sidecar.
pub fn namespaces(sidecar: &Sidecar) -> Vec<Value> {
    sidecar
        .cluster
        .namespaces
        .iter()
        .map(|namespace| {
            json!({
                "apiVersion": "v1",
                "kind": "Namespace",
                "metadata": {"name": namespace.name, "labels": namespace.labels},
            })
        })
        .collect()
}

/// A pod as the scheduler leaves it: bound to its node, without addresses.
pub fn pod(pod: &sidecar::Pod) -> Value {
    let ports: Vec<Value> = pod
        .ports
        .iter()
        .map(|port| {
            let protocol = match port.port.protocol {
                caracal_lab_topology::Protocol::Tcp => "TCP",
                caracal_lab_topology::Protocol::Udp => "UDP",
            };
            json!({"name": port.name, "containerPort": port.port.port, "protocol": protocol})
        })
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": pod.name, "namespace": pod.namespace, "labels": pod.labels},
        "spec": {
            "nodeName": pod.node,
            "containers": [{"name": "echo", "image": "echo", "ports": ports}],
        },
    })
}

/// The status that kubelet writes once the pod's network is up.
pub fn pod_status(addresses: &[IpAddr], host: IpAddr) -> Value {
    let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({
        "status": {
            "phase": "Running",
            "hostIP": host,
            "podIP": addresses.first(),
            "podIPs": ips,
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use caracal_lab_topology::{Clab, Fabric};

    #[test]
    fn every_node_gets_its_as_its_router_id_and_a_peer_per_uplink() {
        let text = include_str!("../../../topologies/two-rack.clab.yml");
        let sidecar = include_str!("../../../topologies/two-rack.lab.yml");
        let clab = Clab::parse("clab", text).expect("a shipped file");
        let sidecar = Sidecar::parse("lab", sidecar).expect("a shipped file");
        let plan = Plan::new("clab", &clab, Fabric::Ebgp).expect("a shipped file");
        let objects = configuration(&plan, &sidecar);
        let of_kind = |kind: &str| objects.iter().filter(|o| o["kind"] == kind).count();
        assert_eq!(of_kind("IPPool"), 1);
        assert_eq!(of_kind("BGPConfiguration"), 1 + 4);
        assert_eq!(of_kind("BGPPeer"), 4 * 2);
    }
}
