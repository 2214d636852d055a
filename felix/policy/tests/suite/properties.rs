//! The compiler against the oracle, and against itself, over random histories.

use std::net::IpAddr;
use std::time::Duration;

use caracal_policy::index::{Limits, PolicyIndex};
use caracal_policy::model::{
    ContainerPort, Endpoint, Event, LabelSelector, Namespace, NetworkPolicy, Node, Operator, Peer,
    Pod, PodName, PolicyPort, PolicyRule, PolicyType, PortProtocol, PortRef, World,
};
use caracal_policy::packet::Payload;
use caracal_policy::plan::{Plan, PlanDelta, PolicyName, Protocol};
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select, subsequence};

use crate::worlds::{THIS_NODE, agree, block, check_invariants, interface, ip, normal, packets};

const PODS: [(&str, &str); 6] = [
    ("x", "a"),
    ("x", "b"),
    ("y", "a"),
    ("y", "b"),
    ("z", "a"),
    ("z", "b"),
];

/// The addresses that pod number `position` gets when it is wired here.
fn home(position: usize) -> [IpAddr; 2] {
    [
        ip(&format!("10.0.0.{}", position + 1)),
        ip(&format!("fd00::{}", position + 1)),
    ]
}

/// Every address that a packet of the tests has: pods', nodes', and some at the edges of blocks.
fn addresses() -> Vec<IpAddr> {
    let others = [
        "172.16.0.1",
        "172.16.0.2",
        "10.0.0.8",
        "10.0.0.255",
        "10.0.1.0",
        "203.0.113.9",
    ];
    let others6 = [
        "fd01::1",
        "fd01::2",
        "fd00::8",
        "fd00::ffff",
        "fd00::1:0",
        "2001:db8::9",
    ];
    let pods = (0..PODS.len()).flat_map(home);
    pods.chain(others.into_iter().chain(others6).map(ip))
        .collect()
}

const PAYLOADS: [Payload; 12] = [
    Payload::Port(Protocol::Tcp, 0),
    Payload::Port(Protocol::Tcp, 79),
    Payload::Port(Protocol::Tcp, 80),
    Payload::Port(Protocol::Tcp, 81),
    Payload::Port(Protocol::Tcp, 143),
    Payload::Port(Protocol::Tcp, 144),
    Payload::Port(Protocol::Tcp, 65535),
    Payload::Port(Protocol::Udp, 53),
    Payload::Port(Protocol::Udp, 80),
    Payload::Port(Protocol::Sctp, 80),
    Payload::Other(1),
    Payload::Other(58),
];

fn label_set() -> impl Strategy<Value = Vec<(&'static str, &'static str)>> {
    (
        proptest::option::of(select(&["web", "db"][..])),
        proptest::option::of(select(&["1", "2", "3"][..])),
    )
        .prop_map(|(app, tier)| {
            let app = app.map(|value| ("app", value));
            let tier = tier.map(|value| ("tier", value));
            app.into_iter().chain(tier).collect()
        })
}

fn operator() -> impl Strategy<Value = Operator> {
    let values = || {
        btree_set(
            select(&["web", "db", "1", "2"][..]).prop_map(str::to_owned),
            0..3,
        )
    };
    prop_oneof![
        6 => values().prop_map(Operator::In),
        3 => values().prop_map(Operator::NotIn),
        2 => Just(Operator::Exists),
        2 => Just(Operator::DoesNotExist),
        1 => Just(Operator::Unknown("Near".to_owned())),
    ]
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    vec((select(&["app", "tier"][..]), operator()), 0..3).prop_map(|requirements| {
        requirements
            .into_iter()
            .fold(LabelSelector::everything(), |selector, (key, op)| {
                selector.with(key, op)
            })
    })
}

fn peer() -> impl Strategy<Value = Peer> {
    let blocks = [
        block("10.0.0.0/24", &[]),
        block("10.0.0.0/24", &["10.0.0.0/29"]),
        block("10.0.0.0/29", &["10.0.0.2/32", "10.0.0.4/31"]),
        block("0.0.0.0/0", &["10.0.0.0/24", "172.16.0.2/32"]),
        block("fd00::/112", &["fd00::2/127"]),
        block("::/0", &["fd00::/16"]),
        block("172.16.0.2/32", &[]),
    ];
    let invalid = Peer {
        pod_selector: Some(LabelSelector::everything()),
        ..blocks[0].clone()
    };
    prop_oneof![
        6 => selector().prop_map(Peer::pods),
        4 => selector().prop_map(Peer::namespaces),
        4 => (selector(), selector()).prop_map(|(ns, pods)| Peer::pods_in(ns, pods)),
        6 => select(blocks.to_vec()),
        1 => select(vec![Peer::nobody(), invalid]),
    ]
}

fn policy_port() -> impl Strategy<Value = PolicyPort> {
    let protocol = prop_oneof![
        4 => Just(Protocol::Tcp),
        2 => Just(Protocol::Udp),
        1 => Just(Protocol::Sctp),
    ];
    let known = protocol.prop_flat_map(|protocol| {
        select(vec![
            PolicyPort::all(protocol),
            PolicyPort::number(protocol, 80),
            PolicyPort::number(protocol, 53),
            PolicyPort::range(protocol, 80, 81),
            PolicyPort::range(protocol, 80, 143),
            PolicyPort::range(protocol, 80, 144),
            PolicyPort::range(protocol, 1, 65535),
            PolicyPort::named(protocol, "http"),
            PolicyPort::named(protocol, "dns"),
        ])
    });
    let odd = vec![
        PolicyPort::range(Protocol::Tcp, 81, 80),
        PolicyPort {
            end_port: Some(90),
            ..PolicyPort::named(Protocol::Tcp, "http")
        },
        PolicyPort {
            end_port: Some(90),
            ..PolicyPort::all(Protocol::Tcp)
        },
        PolicyPort {
            protocol: PortProtocol::Unknown("QUIC".to_owned()),
            port: None,
            end_port: None,
        },
        PolicyPort {
            port: Some(PortRef::Invalid(70_000)),
            ..PolicyPort::all(Protocol::Tcp)
        },
    ];
    prop_oneof![10 => known, 1 => select(odd)]
}

fn policy_rule() -> impl Strategy<Value = PolicyRule> {
    (vec(peer(), 0..3), vec(policy_port(), 0..3))
        .prop_map(|(peers, ports)| PolicyRule { peers, ports })
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let types = vec![
        vec![],
        vec![PolicyType::Ingress],
        vec![PolicyType::Egress],
        vec![PolicyType::Ingress, PolicyType::Egress],
        vec![PolicyType::Unknown("Sideways".to_owned())],
    ];
    (
        select(&["x", "y", "z"][..]),
        select(&["p", "q"][..]),
        selector(),
        select(types),
        vec(policy_rule(), 0..3),
        vec(policy_rule(), 0..3),
    )
        .prop_map(
            |(namespace, name, pod_selector, policy_types, ingress, egress)| NetworkPolicy {
                name: PolicyName::new(namespace, name),
                pod_selector,
                policy_types,
                ingress,
                egress,
            },
        )
}

fn pod() -> impl Strategy<Value = Pod> {
    let ports = subsequence(
        vec![
            crate::worlds::port("http", Protocol::Tcp, 80),
            crate::worlds::port("http", Protocol::Tcp, 81),
            crate::worlds::port("http", Protocol::Udp, 80),
            crate::worlds::port("dns", Protocol::Udp, 53),
            crate::worlds::port("dns", Protocol::Tcp, 144),
        ],
        0..=3,
    );
    (
        0..PODS.len(),
        select(&["u1", "u2"][..]),
        0..3_u64,
        label_set(),
        select(&[Some(THIS_NODE), Some("n2"), None][..]),
        // Mostly its own addresses, sometimes another pod's.
        prop_oneof![4 => Just(None), 1 => (0..PODS.len()).prop_map(Some)],
        prop_oneof![8 => Just((false, false)), 1 => Just((true, false)), 1 => Just((false, true))],
        ports,
    )
        .prop_map(
            |(position, uid, created, labels, node, other, (host, ended), ports)| {
                let mut pod = Pod::new(name_of(position), uid);
                pod.created = Duration::from_secs(created);
                pod.labels = owned(labels);
                pod.node = node.map(str::to_owned);
                pod.addresses = home(other.unwrap_or(position)).into();
                pod.host_network = host;
                pod.terminated = ended;
                pod.ports = ports.into_iter().collect::<Vec<ContainerPort>>();
                pod
            },
        )
}

fn event() -> impl Strategy<Value = Event> {
    let namespace = || select(&["x", "y", "z"][..]);
    let endpoint = (
        0..PODS.len(),
        proptest::option::of(select(&["u1", "u2"][..])),
    )
        .prop_map(|(position, uid)| Endpoint {
            interface: interface(&format!("cali{position}")),
            pod: name_of(position),
            pod_uid: uid.map(str::to_owned),
            addresses: home(position).into(),
        });
    let nodes = vec![
        Node {
            name: THIS_NODE.into(),
            addresses: [ip("172.16.0.1"), ip("fd01::1")].into(),
        },
        Node {
            name: "n2".into(),
            addresses: [ip("172.16.0.2"), ip("fd01::2")].into(),
        },
        // A node that says it has a pod's address.
        Node {
            name: "n2".into(),
            addresses: [ip("172.16.0.2"), ip("10.0.0.3")].into(),
        },
    ];
    prop_oneof![
        10 => pod().prop_map(Event::PodUpserted),
        2 => (0..PODS.len()).prop_map(|position| Event::PodDeleted(name_of(position))),
        6 => (namespace(), label_set()).prop_map(|(name, labels)| {
            Event::NamespaceUpserted(Namespace::new(name, owned(labels)))
        }),
        1 => namespace().prop_map(|name| Event::NamespaceDeleted(name.to_owned())),
        10 => policy().prop_map(Event::PolicyUpserted),
        2 => (namespace(), select(&["p", "q"][..])).prop_map(|(namespace, name)| {
            Event::PolicyDeleted(PolicyName::new(namespace, name))
        }),
        8 => endpoint.prop_map(Event::EndpointUpserted),
        1 => (0..PODS.len()).prop_map(|position| {
            Event::EndpointDeleted(interface(&format!("cali{position}")))
        }),
        2 => select(nodes).prop_map(Event::NodeUpserted),
        1 => Just(Event::NodeDeleted("n2".to_owned())),
    ]
}

/// A world in which all pods are wired and known, so that policies have something to act on, followed
/// by anything.
fn history() -> impl Strategy<Value = Vec<Event>> {
    (
        vec(label_set(), PODS.len()),
        vec(policy(), 1..4),
        vec(event(), 0..30),
    )
        .prop_map(|(labels, policies, later)| {
            let mut events = Vec::new();
            for namespace in ["x", "y", "z"] {
                events.push(Event::NamespaceUpserted(Namespace::new(
                    namespace,
                    owned(vec![]),
                )));
            }
            for (position, labels) in labels.into_iter().enumerate() {
                let mut pod = Pod::new(name_of(position), "u1");
                pod.labels = owned(labels);
                pod.addresses = home(position).into();
                pod.ports = vec![crate::worlds::port(
                    "http",
                    Protocol::Tcp,
                    80 + position as u16 % 2,
                )];
                events.push(Event::PodUpserted(pod));
                events.push(Event::EndpointUpserted(Endpoint {
                    interface: interface(&format!("cali{position}")),
                    pod: name_of(position),
                    pod_uid: None,
                    addresses: home(position).into(),
                }));
            }
            events.extend(policies.into_iter().map(Event::PolicyUpserted));
            events.extend(later);
            events
        })
}

fn limits() -> impl Strategy<Value = Limits> {
    let tight = |cells_per_class, expanded_ports, identities| Limits {
        cells_per_class,
        expanded_ports,
        identities,
    };
    select(vec![
        Limits::default(),
        Limits::default(),
        tight(3, 64, 65_533),
        tight(4_096, 1, 65_533),
        tight(4_096, 64, 2),
        tight(2, 2, 1),
        tight(0, 0, 0),
    ])
}

fn name_of(position: usize) -> PodName {
    let (namespace, name) = PODS[position];
    PodName::new(namespace, name)
}

fn owned(labels: Vec<(&str, &str)>) -> std::collections::BTreeMap<String, String> {
    labels
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn world_of(events: &[Event]) -> World {
    let mut world = World::new(THIS_NODE);
    events.iter().cloned().for_each(|event| world.apply(event));
    world
}

fn fresh(world: &World, limits: Limits) -> PolicyIndex {
    let mut index = PolicyIndex::new(THIS_NODE, limits);
    world
        .events()
        .into_iter()
        .for_each(|event| index.observe(event));
    index.commit();
    index
}

fn agree_everywhere(world: &World, plan: &Plan) -> Result<(), TestCaseError> {
    for packet in packets(&addresses(), &PAYLOADS) {
        agree(world, plan, &packet).map_err(TestCaseError::fail)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_plan_does_what_the_oracle_says(events in history(), limits in limits()) {
        let world = world_of(&events);
        let index = fresh(&world, limits);
        check_invariants(index.plan());
        agree_everywhere(&world, index.plan())?;
    }

    #[test]
    fn deltas_add_up_to_the_plan_made_from_nothing(events in history(), limits in limits()) {
        let mut index = PolicyIndex::new(THIS_NODE, limits);
        let mut kernel = Plan::default();
        for event in &events {
            let before = kernel.clone();
            let delta = index.apply(event.clone());
            kernel.apply(&delta);
            prop_assert_eq!(&kernel, index.plan());
            // Nothing in a delta that is already so, and nothing forgotten.
            prop_assert_eq!(before.delta_to(&kernel), delta);
            check_invariants(&kernel);
        }
        let world = world_of(&events);
        prop_assert_eq!(index.world(), &world);
        if limits.identities == Limits::default().identities {
            prop_assert_eq!(normal(&kernel), normal(fresh(&world, limits).plan()));
        }
        agree_everywhere(&world, &kernel)?;
    }

    #[test]
    fn the_order_and_grouping_of_events_do_not_matter(
        events in history(),
        order in vec(any::<Index>(), 64),
        commits in vec(any::<bool>(), 64),
    ) {
        let world = world_of(&events);
        let mut shuffled = world.events();
        for (position, other) in order.iter().enumerate().take(shuffled.len()) {
            let other = other.index(shuffled.len());
            shuffled.swap(position, other);
        }
        let reversed: Vec<Event> = world.events().into_iter().rev().collect();
        let whole = fresh(&world, Limits::default());
        for sequence in [shuffled, reversed] {
            let mut index = PolicyIndex::new(THIS_NODE, Limits::default());
            for (event, commit) in sequence.into_iter().zip(commits.iter().cycle()) {
                // Repeated events change nothing.
                index.observe(event.clone());
                index.observe(event);
                if *commit {
                    index.commit();
                }
            }
            index.commit();
            prop_assert_eq!(normal(index.plan()), normal(whole.plan()));
            prop_assert_eq!(index.commit(), PlanDelta::default());
        }
    }

    #[test]
    fn a_restart_with_seeds_changes_nothing(events in history()) {
        let mut before = PolicyIndex::new(THIS_NODE, Limits::default());
        events.iter().for_each(|event| drop(before.apply(event.clone())));
        let mut after = PolicyIndex::new(THIS_NODE, Limits::default());
        after.seed_ids(before.plan().identities.clone());
        before.world().events().into_iter().rev().for_each(|event| after.observe(event));
        after.commit();
        prop_assert_eq!(before.plan().delta_to(after.plan()), PlanDelta::default());
    }
}
