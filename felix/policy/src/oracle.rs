//! The meaning of NetworkPolicy, straight from its text.
//!
//! Owns the answer to "may this packet pass, and why": every packet is judged by walking the objects
//! with no index, no interning and no compiled form. It shares nothing with the compiler but the
//! object shapes and label selection, so that each can convict the other, and it is what `explain`
//! and `policy test` show to people. Speed is no concern here.
//!
//! Both ends are judged wherever they are; a node enforces only the ends that are its own.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::model::{
    IpBlock, Labels, NetworkPolicy, Peer, Pod, PolicyPort, PolicyRule, PolicyType, PortProtocol,
    PortRef, World,
};
use crate::packet::{Packet, Payload};
use crate::plan::{Direction, PolicyName};

/// The answer for one packet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// Whether the packet arrives: neither end refuses it.
    pub allowed: bool,
    /// What the source's egress policies say.
    pub egress: Side,
    /// What the destination's ingress policies say.
    pub ingress: Side,
}

/// What one end of a flow says, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Side {
    /// Policy does not look at this end: no pod, a pod on the host network, or an unknown address.
    NotAPod,
    /// Both ends are the same pod: the packet never leaves it.
    SamePod,
    /// The node may always reach its own pods.
    FromOwnNode,
    /// No policy isolates the pod in this direction.
    NotIsolated,
    /// A rule allows it; the first one, in order of policy name.
    Allowed {
        /// The policy.
        policy: PolicyName,
        /// Position in its `ingress` or `egress` list, from 0.
        rule: usize,
    },
    /// Policies isolate the pod, and no rule of theirs allows the packet.
    Denied {
        /// All policies that isolate the pod in this direction, in order of name.
        isolated_by: Vec<PolicyName>,
    },
    /// The pod is wired here, but its object has not been seen, so nobody knows which policies apply.
    LabelsUnknown,
}

impl Side {
    /// Whether this end lets the packet pass.
    #[must_use]
    pub fn allows(&self) -> bool {
        !matches!(self, Self::Denied { .. } | Self::LabelsUnknown)
    }
}

/// Judges `packet` in `world`.
#[must_use]
pub fn verdict(world: &World, packet: &Packet) -> Verdict {
    let egress = judge(world, packet, Direction::Egress);
    let ingress = judge(world, packet, Direction::Ingress);
    Verdict {
        allowed: egress.allows() && ingress.allows(),
        egress,
        ingress,
    }
}

/// Who an address belongs to, as far as the judged end is concerned.
enum Subject<'a> {
    NotAPod,
    Unlabelled,
    Pod { pod: &'a Pod, node: Option<&'a str> },
}

fn judge(world: &World, packet: &Packet, direction: Direction) -> Side {
    let (own, peer) = match direction {
        Direction::Egress => (packet.source, packet.destination),
        Direction::Ingress => (packet.destination, packet.source),
    };
    let subject = subject(world, own);
    if !matches!(subject, Subject::NotAPod) && same_pod(world, own, peer) {
        return Side::SamePod;
    }
    // "… OR if the traffic source is the pod's local node" (NetworkPolicySpec.ingress).
    let node = match &subject {
        Subject::NotAPod => return Side::NotAPod,
        Subject::Unlabelled => Some(world.this_node.as_str()),
        Subject::Pod { node, .. } => *node,
    };
    if direction == Direction::Ingress && node.is_some_and(|node| is_of_node(world, node, peer)) {
        return Side::FromOwnNode;
    }
    let Subject::Pod { pod, .. } = subject else {
        return Side::LabelsUnknown;
    };

    let isolating: Vec<&NetworkPolicy> = world
        .policies
        .values()
        .filter(|policy| selects(policy, pod) && has_type(policy, direction))
        .collect();
    if isolating.is_empty() {
        return Side::NotIsolated;
    }
    for policy in &isolating {
        for (position, rule) in rules(policy, direction).iter().enumerate() {
            if allows(world, policy, rule, direction, pod, peer, packet.payload) {
                return Side::Allowed {
                    policy: policy.name.clone(),
                    rule: position,
                };
            }
        }
    }
    Side::Denied {
        isolated_by: isolating.iter().map(|policy| policy.name.clone()).collect(),
    }
}

fn subject(world: &World, address: IpAddr) -> Subject<'_> {
    let here = world
        .endpoints
        .values()
        .find(|endpoint| endpoint.addresses.contains(&address));
    if let Some(endpoint) = here {
        let pod = world
            .pods
            .get(&endpoint.pod)
            .filter(|pod| endpoint.pod_uid.as_ref().is_none_or(|uid| *uid == pod.uid));
        return match pod {
            Some(pod) => Subject::Pod {
                pod,
                node: Some(&world.this_node),
            },
            None => Subject::Unlabelled,
        };
    }
    match owner(world, address) {
        Some(pod) => Subject::Pod {
            pod,
            node: pod.node.as_deref(),
        },
        None => Subject::NotAPod,
    }
}

fn same_pod(world: &World, one: IpAddr, other: IpAddr) -> bool {
    let endpoint = |address| {
        world
            .endpoints
            .values()
            .find(|endpoint| endpoint.addresses.contains(&address))
    };
    match (endpoint(one), endpoint(other)) {
        (Some(one), Some(other)) => one.interface == other.interface,
        (None, None) => match (owner(world, one), owner(world, other)) {
            (Some(one), Some(other)) => one.name == other.name,
            _ => false,
        },
        _ => false,
    }
}

fn is_of_node(world: &World, node: &str, address: IpAddr) -> bool {
    world
        .nodes
        .get(node)
        .is_some_and(|node| node.addresses.contains(&address))
}

/// The pod that an address stands for as a peer, if it is one whose labels are known.
fn owner(world: &World, address: IpAddr) -> Option<&Pod> {
    if world
        .nodes
        .values()
        .any(|node| node.addresses.contains(&address))
    {
        return None;
    }
    // What is wired here is certain; objects may lag behind it.
    for endpoint in world
        .endpoints
        .values()
        .filter(|e| e.addresses.contains(&address))
    {
        let known = world
            .pods
            .get(&endpoint.pod)
            .filter(|pod| endpoint.pod_uid.as_ref().is_none_or(|uid| *uid == pod.uid));
        match known {
            Some(pod) if pod.terminated => {}
            found => return found,
        }
    }
    // A terminated pod no longer owns its address, though its object still lists it; of two that remain
    // the newer one does, as an address is given again only after it was taken back.
    world
        .pods
        .values()
        .filter(|pod| pod.addresses.contains(&address) && !pod.terminated && !pod.host_network)
        .max_by_key(|pod| (pod.created, &pod.uid, &pod.name))
}

fn selects(policy: &NetworkPolicy, pod: &Pod) -> bool {
    let selector = &policy.pod_selector;
    // A selector that cannot be read might mean any pod of the namespace, so all of them are isolated.
    policy.name.namespace == pod.name.namespace
        && (!selector.is_valid() || selector.matches(&pod.labels))
}

fn has_type(policy: &NetworkPolicy, direction: Direction) -> bool {
    // "If this field is not specified, it will default based on the existence of ingress or egress
    // rules; … policies are assumed to affect ingress" (NetworkPolicySpec.policyTypes).
    if policy.policy_types.is_empty() {
        return match direction {
            Direction::Ingress => true,
            Direction::Egress => !policy.egress.is_empty(),
        };
    }
    policy.policy_types.contains(&match direction {
        Direction::Ingress => PolicyType::Ingress,
        Direction::Egress => PolicyType::Egress,
    })
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> &[PolicyRule] {
    if !policy.pod_selector.is_valid() {
        return &[];
    }
    match direction {
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    }
}

fn allows(
    world: &World,
    policy: &NetworkPolicy,
    rule: &PolicyRule,
    direction: Direction,
    subject: &Pod,
    peer: IpAddr,
    payload: Payload,
) -> bool {
    let peer_pod = owner(world, peer);
    // A port name is looked up in the pod that is connected to. Where `to` names addresses there is no
    // such pod, even if one happens to live there.
    let port_matches = |is_block: bool| {
        let target = match direction {
            Direction::Ingress => Some(subject),
            Direction::Egress if is_block => None,
            Direction::Egress => peer_pod,
        };
        rule.ports.is_empty()
            || rule
                .ports
                .iter()
                .any(|port| port_covers(port, target, payload))
    };
    if rule.peers.is_empty() {
        return port_matches(false);
    }
    rule.peers.iter().any(|entry| {
        peer_covers(world, policy, entry, peer, peer_pod) && port_matches(entry.ip_block.is_some())
    })
}

fn peer_covers(
    world: &World,
    policy: &NetworkPolicy,
    entry: &Peer,
    address: IpAddr,
    pod: Option<&Pod>,
) -> bool {
    match (
        &entry.namespace_selector,
        &entry.pod_selector,
        &entry.ip_block,
    ) {
        (None, None, Some(block)) => block_covers(block, address),
        (None, Some(pods), None) => pod.is_some_and(|pod| {
            pod.name.namespace == policy.name.namespace && pods.matches(&pod.labels)
        }),
        (Some(namespaces), pods, None) => pod.is_some_and(|pod| {
            let known: Option<&Labels> = world
                .namespaces
                .get(&pod.name.namespace)
                .map(|namespace| &namespace.labels);
            // The labels of a namespace that has not been seen cannot be judged, not even by NotIn; but
            // an empty selector asks for none.
            let in_namespace = known.map_or(namespaces.is_everything(), |labels| {
                namespaces.matches(labels)
            });
            in_namespace && pods.as_ref().is_none_or(|pods| pods.matches(&pod.labels))
        }),
        _ => false,
    }
}

fn block_covers(block: &IpBlock, address: IpAddr) -> bool {
    block.cidr.contains(address) && !block.except.iter().any(|except| except.contains(address))
}

fn port_covers(entry: &PolicyPort, target: Option<&Pod>, payload: Payload) -> bool {
    let (PortProtocol::Known(wanted), Payload::Port(protocol, port)) = (&entry.protocol, payload)
    else {
        return false;
    };
    if *wanted != protocol {
        return false;
    }
    match (&entry.port, entry.end_port) {
        (None, None) => true,
        (Some(PortRef::Number(number)), None) => port == *number,
        (Some(PortRef::Number(first)), Some(last)) => *first <= port && port <= last,
        (Some(PortRef::Name(name)), None) => target.is_some_and(|pod| {
            pod.ports
                .iter()
                .any(|own| own.name == *name && own.protocol == protocol && own.number == port)
        }),
        // "endPort … cannot be defined if the port field is not defined or if the port field is
        // defined as a named port" (NetworkPolicyPort): not understood, so nothing is matched.
        _ => false,
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let answer = if self.allowed { "allowed" } else { "denied" };
        write!(
            f,
            "{answer}; egress: {}; ingress: {}",
            self.egress, self.ingress
        )
    }
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAPod => f.write_str("not judged, no pod of the cluster's network"),
            Self::SamePod => f.write_str("not judged, the packet stays in the pod"),
            Self::FromOwnNode => f.write_str("allowed, a node always reaches its own pods"),
            Self::NotIsolated => f.write_str("allowed, no policy isolates the pod"),
            Self::Allowed { policy, rule } => write!(f, "allowed by {policy} rule {rule}"),
            Self::Denied { isolated_by } => {
                f.write_str("denied, isolated by ")?;
                for (position, policy) in isolated_by.iter().enumerate() {
                    let comma = if position == 0 { "" } else { ", " };
                    write!(f, "{comma}{policy}")?;
                }
                f.write_str(" and allowed by no rule")
            }
            Self::LabelsUnknown => {
                f.write_str("denied, the pod is isolated until its labels are known")
            }
        }
    }
}
