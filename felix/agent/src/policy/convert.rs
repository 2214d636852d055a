//! Kubernetes objects in the words of the policy compiler.
//!
//! Owns nothing but the reading of fields. What a missing field *means* is the compiler's business;
//! what cannot be read becomes something that matches nothing, never something that matches more.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use caracal_policy::model::{
    ContainerPort, Endpoint, IpBlock, LabelSelector, Labels, Namespace, NetworkPolicy, Node,
    Operator, Peer, Pod, PodName, PolicyPort, PolicyRule, PolicyType, PortProtocol, PortRef,
};
use caracal_policy::plan::PolicyName;
use k8s_openapi::api::core::v1 as core;
use k8s_openapi::api::networking::v1 as networking;
use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::ResourceExt;

use crate::endpoint::Wired;

/// A pod.
pub(crate) fn pod(object: &core::Pod) -> Pod {
    let name = PodName::new(object.namespace().unwrap_or_default(), object.name_any());
    let spec = object.spec.as_ref();
    let status = object.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    let listed = status.and_then(|status| status.pod_ips.iter().flatten().next());
    let addresses: BTreeSet<IpAddr> = match listed {
        Some(_) => status
            .into_iter()
            .flat_map(|status| status.pod_ips.iter().flatten())
            .filter_map(|ip| ip.ip.parse().ok())
            .collect(),
        // Servers older than dual stack write only the singular field.
        None => status
            .and_then(|status| status.pod_ip.as_deref())
            .and_then(|ip| ip.parse().ok())
            .into_iter()
            .collect(),
    };
    Pod {
        uid: object.uid().unwrap_or_default(),
        created: object
            .creation_timestamp()
            .map(since_epoch)
            .unwrap_or_default(),
        labels: object.labels().clone(),
        node: spec
            .and_then(|spec| spec.node_name.clone())
            .filter(|node| !node.is_empty()),
        addresses,
        host_network: spec.and_then(|spec| spec.host_network).unwrap_or_default(),
        terminated: matches!(phase, Some("Succeeded" | "Failed")),
        ports: spec.map(container_ports).unwrap_or_default(),
        ..Pod::new(name, String::new())
    }
}

fn since_epoch(time: meta::Time) -> Duration {
    Duration::from_secs(u64::try_from(time.0.as_second()).unwrap_or_default())
}

fn container_ports(spec: &core::PodSpec) -> Vec<ContainerPort> {
    let init = spec.init_containers.iter().flatten();
    spec.containers
        .iter()
        .chain(init)
        .flat_map(|container| container.ports.iter().flatten())
        .filter_map(|port| {
            let PortProtocol::Known(protocol) = PortProtocol::from_api(port.protocol.as_deref())
            else {
                return None;
            };
            Some(ContainerPort {
                name: port.name.clone()?,
                protocol,
                number: u16::try_from(port.container_port).ok()?,
            })
        })
        .collect()
}

/// A namespace.
pub(crate) fn namespace(object: &core::Namespace) -> Namespace {
    Namespace::new(object.name_any(), object.labels().clone())
}

/// A node with every address that its object lists.
pub(crate) fn node(object: &core::Node) -> Node {
    let listed = object
        .status
        .iter()
        .flat_map(|status| status.addresses.iter().flatten());
    Node {
        name: object.name_any(),
        addresses: listed
            .filter_map(|entry| entry.address.parse().ok())
            .collect(),
    }
}

/// A local endpoint.
pub(crate) fn endpoint(wired: &Wired) -> Option<Endpoint> {
    let pod = wired.pod.as_ref()?;
    Some(Endpoint {
        interface: wired.interface.clone(),
        pod: PodName::new(&pod.namespace, &pod.name),
        pod_uid: pod.uid.clone(),
        addresses: wired.addresses(),
    })
}

/// A policy. One without a specification selects every pod of its namespace, as an empty selector
/// does: the API server never stores such an object, so a stray one denies rather than allows.
pub(crate) fn network_policy(object: &networking::NetworkPolicy) -> NetworkPolicy {
    let spec = object.spec.clone().unwrap_or_default();
    let types = spec.policy_types.unwrap_or_default();
    NetworkPolicy {
        name: PolicyName::new(object.namespace().unwrap_or_default(), object.name_any()),
        pod_selector: spec.pod_selector.as_ref().map(selector).unwrap_or_default(),
        policy_types: types
            .into_iter()
            .map(|kind| match kind.as_str() {
                "Ingress" => PolicyType::Ingress,
                "Egress" => PolicyType::Egress,
                _ => PolicyType::Unknown(kind),
            })
            .collect(),
        ingress: spec
            .ingress
            .iter()
            .flatten()
            .map(|entry| rule(entry.from.as_deref(), entry.ports.as_deref()))
            .collect(),
        egress: spec
            .egress
            .iter()
            .flatten()
            .map(|entry| rule(entry.to.as_deref(), entry.ports.as_deref()))
            .collect(),
    }
}

fn rule(
    peers: Option<&[networking::NetworkPolicyPeer]>,
    ports: Option<&[networking::NetworkPolicyPort]>,
) -> PolicyRule {
    PolicyRule {
        peers: peers.unwrap_or_default().iter().map(peer).collect(),
        ports: ports.unwrap_or_default().iter().map(port).collect(),
    }
}

fn peer(entry: &networking::NetworkPolicyPeer) -> Peer {
    let ip_block = match &entry.ip_block {
        None => None,
        Some(block) => {
            let except = block.except.iter().flatten().map(String::as_str);
            match IpBlock::parse(&block.cidr, except) {
                Ok(parsed) => Some(parsed),
                Err(_) => return Peer::nobody(),
            }
        }
    };
    Peer {
        pod_selector: entry.pod_selector.as_ref().map(selector),
        namespace_selector: entry.namespace_selector.as_ref().map(selector),
        ip_block,
    }
}

fn port(entry: &networking::NetworkPolicyPort) -> PolicyPort {
    let first = entry.port.as_ref().map(|port| match port {
        IntOrString::Int(number) => PortRef::from_api_number(i64::from(*number)),
        IntOrString::String(name) => PortRef::Name(name.clone()),
    });
    let (port, end_port) = match entry.end_port.map(u16::try_from) {
        None => (first, None),
        Some(Ok(last)) => (first, Some(last)),
        // Without its end the range would be the one port `first`, which nobody asked for.
        Some(Err(_)) => (
            Some(PortRef::Invalid(
                entry.end_port.map(i64::from).unwrap_or_default(),
            )),
            None,
        ),
    };
    PolicyPort {
        protocol: PortProtocol::from_api(entry.protocol.as_deref()),
        port,
        end_port,
    }
}

fn selector(object: &meta::LabelSelector) -> LabelSelector {
    let labels: Labels = object.match_labels.clone().unwrap_or_default();
    let mut selector = LabelSelector::everything();
    for (key, value) in labels {
        selector = selector.with_label(key, value);
    }
    for requirement in object.match_expressions.iter().flatten() {
        let values: BTreeSet<String> = requirement.values.iter().flatten().cloned().collect();
        let operator = match requirement.operator.as_str() {
            "In" => Operator::In(values),
            "NotIn" => Operator::NotIn(values),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            other => Operator::Unknown(other.to_owned()),
        };
        selector = selector.with(&requirement.key, operator);
    }
    selector
}

#[cfg(test)]
mod tests {
    use caracal_policy::plan::Protocol;
    use serde_json::json;

    use super::*;

    fn policy(spec: serde_json::Value) -> NetworkPolicy {
        let object = json!({"metadata": {"name": "p", "namespace": "ns"}, "spec": spec});
        network_policy(&serde_json::from_value(object).unwrap())
    }

    #[test]
    fn fields_keep_their_shape() {
        let policy = policy(json!({
            "podSelector": {"matchLabels": {"app": "db"},
                "matchExpressions": [{"key": "tier", "operator": "NotIn", "values": ["x"]}]},
            "policyTypes": ["Ingress", "Sideways"],
            "ingress": [{
                "from": [{"podSelector": {}}, {"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}],
                "ports": [{"port": "http"}, {"protocol": "UDP", "port": 53, "endPort": 60}],
            }],
        }));
        assert_eq!(policy.pod_selector.requirements.len(), 2);
        assert_eq!(
            policy.policy_types[1],
            PolicyType::Unknown("Sideways".into())
        );
        let rule = &policy.ingress[0];
        assert_eq!(rule.peers[0], Peer::pods(LabelSelector::everything()));
        let block = IpBlock::parse("10.0.0.0/8", ["10.1.0.0/16"]).unwrap();
        assert_eq!(rule.peers[1], Peer::addresses(block));
        assert_eq!(rule.ports[0], PolicyPort::named(Protocol::Tcp, "http"));
        assert_eq!(rule.ports[1], PolicyPort::range(Protocol::Udp, 53, 60));
    }

    #[test]
    fn what_cannot_be_read_matches_nothing() {
        let policy = policy(json!({
            "podSelector": {},
            "ingress": [{
                "from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["nonsense"]}}],
                "ports": [{"port": 70000}, {"port": 80, "endPort": 70000}, {"protocol": "ICMP"}],
            }],
        }));
        let rule = &policy.ingress[0];
        assert_eq!(rule.peers, [Peer::nobody()]);
        assert_eq!(rule.ports[0].port, Some(PortRef::Invalid(70000)));
        assert_eq!(rule.ports[1].port, Some(PortRef::Invalid(70000)));
        assert_eq!(rule.ports[2].protocol, PortProtocol::Unknown("ICMP".into()));
    }

    #[test]
    fn a_pod_lists_both_families_and_its_named_ports() {
        let object: core::Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "ns", "uid": "u", "labels": {"a": "b"},
                "creationTimestamp": "1970-01-01T00:01:00Z"},
            "spec": {"nodeName": "n1", "containers": [
                {"name": "c", "ports": [{"containerPort": 80}, {"name": "dns", "protocol": "UDP", "containerPort": 53}]}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1",
                "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]},
        }))
        .unwrap();
        let pod = pod(&object);
        assert_eq!(pod.addresses.len(), 2);
        assert_eq!(pod.created, Duration::from_secs(60));
        assert_eq!(pod.node.as_deref(), Some("n1"));
        assert_eq!(pod.ports.len(), 1);
        assert_eq!(
            (pod.ports[0].protocol, pod.ports[0].number),
            (Protocol::Udp, 53)
        );
    }
}
