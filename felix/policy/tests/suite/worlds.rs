//! Worlds to test with.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use caracal_policy::interpreter::pass;
use caracal_policy::model::{
    Cidr, ContainerPort, IpBlock, LabelSelector, NetworkPolicy, Node, Operator, Peer, PodName,
    PolicyPort, PolicyRule, PolicyType, World,
};
use caracal_policy::oracle::{Side, verdict};
use caracal_policy::packet::{Packet, Payload};
use caracal_policy::plan::{
    Binding, Class, Direction, EndpointPlan, IdentityId, InterfaceName, PeerMatch, Plan,
    PolicyName, Protocol,
};

pub(crate) const THIS_NODE: &str = "n1";

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no address"))
}

pub(crate) fn labels(text: &str) -> BTreeMap<String, String> {
    text.split(',')
        .filter(|pair| !pair.is_empty())
        .map(|pair| pair.split_once('=').expect("labels are written key=value"))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// `matchLabels`, written "a=1,b=2"; empty for everything.
pub(crate) fn select(text: &str) -> LabelSelector {
    labels(text)
        .into_iter()
        .fold(LabelSelector::everything(), |selector, (key, value)| {
            selector.with_label(key, value)
        })
}

pub(crate) fn one_of(key: &str, values: &[&str]) -> LabelSelector {
    LabelSelector::everything().with(key, Operator::In(strings(values)))
}

pub(crate) fn none_of(key: &str, values: &[&str]) -> LabelSelector {
    LabelSelector::everything().with(key, Operator::NotIn(strings(values)))
}

fn strings(values: &[&str]) -> BTreeSet<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

pub(crate) fn block(cidr: &str, except: &[&str]) -> Peer {
    Peer::addresses(IpBlock {
        cidr: cidr_of(cidr),
        except: except.iter().map(|except| cidr_of(except)).collect(),
    })
}

fn cidr_of(text: &str) -> Cidr {
    text.parse()
        .unwrap_or_else(|_| panic!("{text:?} is no address block"))
}

pub(crate) fn rule(peers: &[Peer], ports: &[PolicyPort]) -> PolicyRule {
    PolicyRule {
        peers: peers.to_vec(),
        ports: ports.to_vec(),
    }
}

pub(crate) fn ingress(name: &str, selector: LabelSelector, rules: &[PolicyRule]) -> NetworkPolicy {
    NetworkPolicy {
        name: policy_name(name),
        pod_selector: selector,
        policy_types: vec![PolicyType::Ingress],
        ingress: rules.to_vec(),
        egress: Vec::new(),
    }
}

pub(crate) fn egress(name: &str, selector: LabelSelector, rules: &[PolicyRule]) -> NetworkPolicy {
    NetworkPolicy {
        name: policy_name(name),
        pod_selector: selector,
        policy_types: vec![PolicyType::Egress],
        ingress: Vec::new(),
        egress: rules.to_vec(),
    }
}

/// A policy's name, written "namespace/name".
pub(crate) fn policy_name(text: &str) -> PolicyName {
    let (namespace, name) = text
        .split_once('/')
        .expect("policies are named namespace/name");
    PolicyName::new(namespace, name)
}

/// A pod's name, written "namespace/name".
pub(crate) fn pod_name(text: &str) -> PodName {
    let (namespace, name) = text.split_once('/').expect("pods are named namespace/name");
    PodName::new(namespace, name)
}

pub(crate) fn interface(text: &str) -> InterfaceName {
    InterfaceName::new(text).expect("tests use valid names")
}

pub(crate) fn node(name: &str, addresses: &[&str]) -> Node {
    Node {
        name: name.to_owned(),
        addresses: addresses.iter().map(|a| ip(a)).collect(),
    }
}

pub(crate) fn port(name: &str, protocol: Protocol, number: u16) -> ContainerPort {
    ContainerPort {
        name: name.to_owned(),
        protocol,
        number,
    }
}

/// Fails if what the plan does to the packet at this node's endpoints is not what the oracle says.
pub(crate) fn agree(world: &World, plan: &Plan, packet: &Packet) -> Result<(), String> {
    let oracle = verdict(world, packet);
    let passage = pass(plan, packet);
    let sides = [
        ("egress", &oracle.egress, passage.egress),
        ("ingress", &oracle.ingress, passage.ingress),
    ];
    for (name, side, decision) in sides {
        // The plan says nothing about ends that are elsewhere, and those that are not judged here must
        // be such by the oracle too.
        let elsewhere = !plan.endpoints.values().any(|endpoint| {
            endpoint.addresses.contains(match name {
                "egress" => &packet.source,
                _ => &packet.destination,
            })
        });
        let agrees = match decision {
            Some(decision) => {
                decision.passes() == side.allows()
                    && !matches!(side, Side::NotAPod | Side::SamePod | Side::FromOwnNode)
            }
            None => elsewhere || matches!(side, Side::SamePod | Side::FromOwnNode),
        };
        if !agrees {
            return Err(format!(
                "{packet}, {name}: oracle {side}, plan {decision:?}"
            ));
        }
    }
    Ok(())
}

/// A plan with its numbers replaced by what they stand for: two plans are the same up to numbering if
/// and only if their normal forms are equal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NormalPlan {
    identities: BTreeSet<Extent>,
    classes: BTreeSet<String>,
    endpoints: BTreeMap<String, String>,
}

/// The addresses of an identity, or its name where it is a reserved one.
type Extent = (Option<u16>, BTreeSet<IpAddr>);

pub(crate) fn normal(plan: &Plan) -> NormalPlan {
    let mut extents: BTreeMap<IdentityId, BTreeSet<IpAddr>> = BTreeMap::new();
    for (address, identity) in &plan.identities {
        extents.entry(*identity).or_default().insert(*address);
    }
    let extent = |identity: &IdentityId| -> Extent {
        let reserved = (*identity < IdentityId::FIRST_POD).then_some(identity.0);
        let addresses = extents.get(identity).cloned().unwrap_or_default();
        assert!(
            !addresses.is_empty(),
            "identity {identity} is used by a class but by no address"
        );
        (reserved, addresses)
    };
    let class = |class: &Class| {
        let cells: BTreeSet<_> = class
            .cells
            .iter()
            .map(|c| (extent(&c.identity), c.protocol, c.port))
            .collect();
        let any_port: BTreeSet<_> = class.any_port.iter().map(extent).collect();
        let chain: BTreeSet<_> = class
            .chain
            .iter()
            .map(|rule| {
                let peer = match &rule.peer {
                    PeerMatch::Identities(identities) => {
                        format!(
                            "{:?}",
                            identities.iter().map(extent).collect::<BTreeSet<_>>()
                        )
                    }
                    other => format!("{other:?}"),
                };
                (rule.ports.clone(), peer)
            })
            .collect();
        assert_eq!(
            chain.len(),
            class.chain.len(),
            "chain rules are unique by peer and ports"
        );
        format!(
            "{} {:?} open={} cells={cells:?} any_port={any_port:?} any_peer={:?} chain={chain:?}",
            class.direction, class.policies, class.open, class.any_peer
        )
    };
    let binding = |binding: Binding| match binding {
        Binding::Class(id) => class(plan.classes.get(&id).expect("bound classes exist")),
        other => format!("{other:?}"),
    };
    let endpoint = |endpoint: &EndpointPlan| {
        format!(
            "{:?} in: {} out: {}",
            endpoint.addresses,
            binding(endpoint.ingress),
            binding(endpoint.egress)
        )
    };
    NormalPlan {
        identities: extents.keys().map(extent).collect(),
        classes: plan.classes.values().map(class).collect(),
        endpoints: plan
            .endpoints
            .iter()
            .map(|(i, e)| (i.to_string(), endpoint(e)))
            .collect(),
    }
}

/// Checks what every plan must fulfil, whatever it is for.
pub(crate) fn check_invariants(plan: &Plan) {
    let mut used = BTreeSet::new();
    for (interface, endpoint) in &plan.endpoints {
        let bindings = [
            (Direction::Ingress, endpoint.ingress),
            (Direction::Egress, endpoint.egress),
        ];
        for (direction, binding) in bindings {
            if let Binding::Class(id) = binding {
                let class = plan.classes.get(&id);
                let class =
                    class.unwrap_or_else(|| panic!("{interface} is bound to no class {id}"));
                assert_eq!(class.direction, direction, "{interface}");
                used.insert(id);
            }
        }
    }
    let classes: BTreeSet<_> = plan.classes.keys().copied().collect();
    assert_eq!(used, classes, "classes are there if and only if used");
    assert!(
        !plan.identities.values().any(|id| *id == IdentityId::WORLD),
        "the world is left out"
    );
    for (id, class) in &plan.classes {
        for cell in &class.cells {
            let redundant = class.any_port.contains(&cell.identity)
                || class.any_peer.contains(&(cell.protocol, cell.port))
                || class.open;
            assert!(!redundant, "class {id}: {cell:?} says nothing");
        }
        for rule in &class.chain {
            assert!(
                rule.ports.windows(2).all(|pair| {
                    pair[0].protocol < pair[1].protocol
                        || u32::from(pair[0].last) + 1 < u32::from(pair[1].first)
                }),
                "class {id}: {rule:?}"
            );
            if let PeerMatch::Identities(identities) = &rule.peer {
                assert!(!identities.is_empty(), "class {id}: {rule:?}");
            }
        }
        assert!(class.chain.is_sorted(), "class {id}");
    }
}

/// Packets between all of `addresses` with each of `payloads`, within families.
pub(crate) fn packets<'a>(
    addresses: &'a [IpAddr],
    payloads: &'a [Payload],
) -> impl Iterator<Item = Packet> + 'a {
    addresses.iter().flat_map(move |source| {
        addresses
            .iter()
            .filter(move |destination| destination.is_ipv4() == source.is_ipv4())
            .flat_map(move |destination| {
                payloads.iter().map(move |payload| Packet {
                    source: *source,
                    destination: *destination,
                    payload: *payload,
                })
            })
    })
}
