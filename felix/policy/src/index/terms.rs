//! The rules of a class's policies, compiled as far as they go without knowing any pod.
//!
//! Owns the reading of peers, ports and policy types. Does not own identities: a selector stays a
//! selector here, and rows and chains are made of it by the class table.

use std::collections::{BTreeMap, BTreeSet};

use super::ranges::{PortRanges, RangeSet, block_ranges};
use super::selectors::{NamedPort, NamespaceScope, PeerSelector};
use crate::model::{
    NetworkPolicy, Peer, Pod, PolicyPort, PolicyRule, PolicyType, PortProtocol, PortRef,
};
use crate::plan::{Direction, PortMatch};

/// Where the port names of ingress rules lead in the pods of a class.
pub(super) type Resolution = BTreeSet<(NamedPort, u16)>;

/// What a class allows, rule borders dissolved: rules only ever add.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Terms {
    /// Some rule has neither peers nor ports.
    pub(super) open: bool,
    /// Ports open to every address.
    pub(super) any_peer: PortRanges,
    /// What selected pods may do.
    pub(super) selectors: BTreeMap<PeerSelector, SelectorTerm>,
    /// Address ranges by the ports they may use (empty: all), IPv4.
    pub(super) nets4: BTreeMap<Vec<PortMatch>, RangeSet>,
    /// The same for IPv6.
    pub(super) nets6: BTreeMap<Vec<PortMatch>, RangeSet>,
}

/// What the pods of one selector may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SelectorTerm {
    /// Every port of every protocol.
    pub(super) every_port: bool,
    /// These ports.
    pub(super) ports: PortRanges,
    /// Ports to be looked up by name in each peer (egress only).
    pub(super) named: BTreeSet<NamedPort>,
}

/// Whether `policy` applies to `pod` in `direction`, so that the pod is isolated by it.
pub(super) fn isolates(policy: &NetworkPolicy, direction: Direction, pod: &Pod) -> bool {
    policy.name.namespace == pod.name.namespace
        && has_type(policy, direction)
        // An unreadable subject selector may mean any pod, so every pod of the namespace is isolated.
        && (!policy.pod_selector.is_valid() || policy.pod_selector.matches(&pod.labels))
}

/// Port names that ingress rules of `policies` look up in the pods they isolate.
pub(super) fn resolve<'a>(
    policies: impl IntoIterator<Item = &'a NetworkPolicy>,
    pod: &Pod,
) -> Resolution {
    policies
        .into_iter()
        .flat_map(|policy| named_ports(policy, Direction::Ingress))
        .flat_map(|port| {
            let found: Vec<u16> = numbers(pod, &port).collect();
            found.into_iter().map(move |number| (port.clone(), number))
        })
        .collect()
}

/// Ports that the rules of `policy` in one direction name rather than number.
pub(super) fn named_ports(
    policy: &NetworkPolicy,
    direction: Direction,
) -> impl Iterator<Item = NamedPort> + '_ {
    let ports = rules(policy, direction).iter().flat_map(|rule| &rule.ports);
    ports.filter_map(|port| match read(port) {
        Ports::Named(port) => Some(port),
        Ports::Range(_) | Ports::Nothing => None,
    })
}

/// The port numbers that `port` stands for in `pod`: those of all container ports with that name and
/// protocol.
pub(super) fn numbers<'a>(pod: &'a Pod, port: &'a NamedPort) -> impl Iterator<Item = u16> + 'a {
    pod.ports
        .iter()
        .filter(|own| own.name == port.name && own.protocol == port.protocol)
        .map(|own| own.number)
}

impl Terms {
    /// Compiles the rules of `policies` in one direction.
    pub(super) fn compile<'a>(
        direction: Direction,
        policies: impl IntoIterator<Item = &'a NetworkPolicy>,
        resolution: &Resolution,
    ) -> Self {
        let mut terms = Self::default();
        for policy in policies {
            for rule in rules(policy, direction) {
                terms.add_rule(policy, rule, direction, resolution);
            }
        }
        terms
    }

    fn add_rule(
        &mut self,
        policy: &NetworkPolicy,
        rule: &PolicyRule,
        direction: Direction,
        resolution: &Resolution,
    ) {
        let every_port = rule.ports.is_empty();
        let mut ports = PortRanges::default();
        let mut named = BTreeSet::new();
        for port in &rule.ports {
            match read(port) {
                Ports::Range(range) => ports.insert(range.protocol, range.first, range.last),
                // The named port is the judged pod's own, so it is the same for every peer.
                Ports::Named(port) if direction == Direction::Ingress => {
                    for (_, number) in resolution.iter().filter(|(name, _)| *name == port) {
                        ports.insert(port.protocol, *number, *number);
                    }
                }
                Ports::Named(port) => drop(named.insert(port)),
                Ports::Nothing => {}
            }
        }
        if rule.peers.is_empty() {
            self.open |= every_port;
            self.any_peer.union(&ports);
            if !named.is_empty() {
                // A name means something in pods only, so "any peer" comes down to every pod.
                self.add_selector(
                    PeerSelector::every_pod(),
                    false,
                    &PortRanges::default(),
                    &named,
                );
            }
            return;
        }
        for peer in &rule.peers {
            match peer {
                Peer {
                    pod_selector: None,
                    namespace_selector: None,
                    ip_block: Some(block),
                } => {
                    let matches: Vec<PortMatch> = ports.matches().collect();
                    // No port left means that none of the rule's ports exists here, which must not
                    // turn into the empty list that means all of them.
                    if every_port || !matches.is_empty() {
                        let nets = if block.cidr.address().is_ipv4() {
                            &mut self.nets4
                        } else {
                            &mut self.nets6
                        };
                        nets.entry(matches).or_default().union(&block_ranges(block));
                    }
                }
                Peer {
                    pod_selector,
                    namespace_selector,
                    ip_block: None,
                } => {
                    if let Some(selector) =
                        selector(policy, pod_selector.as_ref(), namespace_selector.as_ref())
                    {
                        self.add_selector(selector, every_port, &ports, &named);
                    }
                }
                // A block beside a selector is invalid; half of it must not count.
                Peer {
                    ip_block: Some(_), ..
                } => {}
            }
        }
    }

    fn add_selector(
        &mut self,
        selector: PeerSelector,
        every_port: bool,
        ports: &PortRanges,
        named: &BTreeSet<NamedPort>,
    ) {
        if !every_port && ports.matches().next().is_none() && named.is_empty() {
            return;
        }
        let term = self.selectors.entry(selector).or_default();
        term.every_port |= every_port;
        term.ports.union(ports);
        term.named.extend(named.iter().cloned());
    }
}

fn selector(
    policy: &NetworkPolicy,
    pods: Option<&crate::model::LabelSelector>,
    namespaces: Option<&crate::model::LabelSelector>,
) -> Option<PeerSelector> {
    let scope = match (pods, namespaces) {
        // Nothing set: the peer is of a kind that is not known here.
        (None, None) => return None,
        (Some(_), None) => NamespaceScope::Named(policy.name.namespace.clone()),
        (_, Some(namespaces)) => NamespaceScope::Matching(namespaces.clone()),
    };
    let selector = PeerSelector {
        namespaces: scope,
        pods: pods.cloned().unwrap_or_default(),
    };
    let readable = selector.pods.is_valid() && namespaces.is_none_or(|n| n.is_valid());
    readable.then_some(selector)
}

fn has_type(policy: &NetworkPolicy, direction: Direction) -> bool {
    match (direction, policy.policy_types.as_slice()) {
        (Direction::Ingress, []) => true,
        (Direction::Egress, []) => !policy.egress.is_empty(),
        (Direction::Ingress, types) => types.contains(&PolicyType::Ingress),
        (Direction::Egress, types) => types.contains(&PolicyType::Egress),
    }
}

fn rules(policy: &NetworkPolicy, direction: Direction) -> &[PolicyRule] {
    match direction {
        // Rules are for the pods that the policy names; if those cannot be read, they are for nobody.
        _ if !policy.pod_selector.is_valid() => &[],
        Direction::Ingress => &policy.ingress,
        Direction::Egress => &policy.egress,
    }
}

/// An entry of `ports`, understood.
enum Ports {
    Range(PortMatch),
    Named(NamedPort),
    Nothing,
}

fn read(port: &PolicyPort) -> Ports {
    let PortProtocol::Known(protocol) = port.protocol else {
        return Ports::Nothing;
    };
    let range = |first, last| {
        Ports::Range(PortMatch {
            protocol,
            first,
            last,
        })
    };
    match (&port.port, port.end_port) {
        (None, None) => range(0, u16::MAX),
        (Some(PortRef::Number(number)), None) => range(*number, *number),
        (Some(PortRef::Number(first)), Some(last)) if *first <= last => range(*first, last),
        (Some(PortRef::Name(name)), None) => Ports::Named(NamedPort {
            name: name.clone(),
            protocol,
        }),
        _ => Ports::Nothing,
    }
}
