//! A small cluster with a truth table: who reaches whom, on which port.
//!
//! Three namespaces x, y, z (label ns=x …) of three pods a, b, c (label pod=a …), all wired on this
//! node, dual-stack, with ports 80 and 81 of every protocol, named serve-80-tcp and so on; beside them
//! an outside host, this node and another one.

use std::net::IpAddr;

use caracal_policy::index::{Limits, PolicyIndex};
use caracal_policy::interpreter::pass;
use caracal_policy::model::{Endpoint, Event, Namespace, NetworkPolicy, Pod};
use caracal_policy::oracle::verdict;
use caracal_policy::packet::{Packet, Payload};
use caracal_policy::plan::{Plan, Protocol};

use crate::worlds::{
    THIS_NODE, agree, check_invariants, interface, ip, labels, node, pod_name, port,
};

const PODS: [&str; 9] = [
    "x/a", "x/b", "x/c", "y/a", "y/b", "y/c", "z/a", "z/b", "z/c",
];
const OTHERS: [&str; 3] = ["outside", "this-node", "other-node"];
const SERVED: [(Protocol, u16); 6] = [
    (Protocol::Tcp, 80),
    (Protocol::Tcp, 81),
    (Protocol::Udp, 80),
    (Protocol::Udp, 81),
    (Protocol::Sctp, 80),
    (Protocol::Sctp, 81),
];

/// One cell of the truth table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Probe {
    /// "namespace/pod", "outside", "this-node" or "other-node".
    pub(crate) from: &'static str,
    /// The same.
    pub(crate) to: &'static str,
    pub(crate) v6: bool,
    /// TCP, UDP, SCTP on 80 or 81, or ICMP.
    pub(crate) payload: Payload,
}

impl Probe {
    pub(crate) fn source_in(&self, namespace: &str) -> bool {
        self.from
            .split_once('/')
            .is_some_and(|(own, _)| own == namespace)
    }

    pub(crate) fn target_in(&self, namespace: &str) -> bool {
        self.to
            .split_once('/')
            .is_some_and(|(own, _)| own == namespace)
    }

    /// From a pod of this name in any namespace.
    pub(crate) fn source_named(&self, name: &str) -> bool {
        self.from
            .split_once('/')
            .is_some_and(|(_, own)| own == name)
    }

    pub(crate) fn source_is_pod(&self) -> bool {
        self.from.contains('/')
    }

    pub(crate) fn target_is_pod(&self) -> bool {
        self.to.contains('/')
    }

    pub(crate) fn source_is_this_node(&self) -> bool {
        self.from == "this-node"
    }

    pub(crate) fn is(&self, protocol: Protocol) -> bool {
        matches!(self.payload, Payload::Port(own, _) if own == protocol)
    }

    pub(crate) fn on(&self, protocol: Protocol, port: u16) -> bool {
        self.payload == Payload::Port(protocol, port)
    }
}

/// A history with an expectation after each step. What no policy forbids is to be expected as allowed;
/// this node is expected to reach its pods always, without the expectation saying so.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) steps: Vec<Step>,
}

pub(crate) struct Step {
    pub(crate) events: Vec<Event>,
    pub(crate) expect: Box<dyn Fn(Probe) -> bool>,
}

/// A fixture of one step: these policies, that table.
pub(crate) fn policies(
    name: &'static str,
    policies: Vec<NetworkPolicy>,
    expect: impl Fn(Probe) -> bool + 'static,
) -> Fixture {
    let events = policies.into_iter().map(Event::PolicyUpserted).collect();
    Fixture {
        name,
        steps: vec![Step {
            events,
            expect: Box::new(expect),
        }],
    }
}

pub(crate) fn step(events: Vec<Event>, expect: impl Fn(Probe) -> bool + 'static) -> Step {
    Step {
        events,
        expect: Box::new(expect),
    }
}

impl Fixture {
    /// Checks oracle and plan against the table after each step, with the plan grown by increments, made
    /// at once, and made from the events in reverse.
    pub(crate) fn run(&self) {
        let mut index = PolicyIndex::new(THIS_NODE, Limits::default());
        let mut kernel = Plan::default();
        let mut history = events();
        for event in history.clone() {
            kernel.apply(&index.apply(event));
        }
        for (position, step) in self.steps.iter().enumerate() {
            let at = format!("{}, step {position}", self.name);
            for event in step.events.clone() {
                kernel.apply(&index.apply(event.clone()));
                history.push(event);
            }
            assert_eq!(kernel, *index.plan(), "{at}");
            check_table(&at, &index, &kernel, &step.expect);
            let facts = index.world().events();
            for (order, facts) in [
                ("squashed", facts.clone()),
                ("reversed", facts.into_iter().rev().collect()),
            ] {
                let mut other = PolicyIndex::new(THIS_NODE, Limits::default());
                facts.into_iter().for_each(|fact| other.observe(fact));
                other.commit();
                check_table(
                    &format!("{at}, {order}"),
                    &other,
                    other.plan(),
                    &step.expect,
                );
            }
        }
    }
}

fn check_table(at: &str, index: &PolicyIndex, plan: &Plan, expect: &dyn Fn(Probe) -> bool) {
    check_invariants(plan);
    for probe in probes() {
        let packet = packet(&probe);
        let expected = expect(probe) || (probe.source_is_this_node() && probe.target_is_pod());
        let oracle = verdict(index.world(), &packet);
        assert_eq!(
            oracle.allowed, expected,
            "{at}: oracle on {probe:?}: {oracle}"
        );
        let passage = pass(plan, &packet);
        assert_eq!(
            passage.passes(),
            expected,
            "{at}: plan on {probe:?}: {passage:?}, {oracle}"
        );
        agree(index.world(), plan, &packet).unwrap_or_else(|why| panic!("{at}: {why}"));
    }
}

fn probes() -> Vec<Probe> {
    let mut probes = Vec::new();
    for from in PODS.into_iter().chain(OTHERS) {
        for to in PODS.into_iter().chain(OTHERS) {
            let some_pod = PODS.contains(&from) || PODS.contains(&to);
            if from == to || !some_pod {
                continue;
            }
            for v6 in [false, true] {
                let icmp = Payload::Other(if v6 { 58 } else { 1 });
                let served = SERVED.map(|(protocol, port)| Payload::Port(protocol, port));
                for payload in served.into_iter().chain([icmp]) {
                    probes.push(Probe {
                        from,
                        to,
                        v6,
                        payload,
                    });
                }
            }
        }
    }
    probes
}

/// The packet that `probe` sends.
pub(crate) fn packet(probe: &Probe) -> Packet {
    let family = usize::from(probe.v6);
    Packet {
        source: addresses(probe.from)[family],
        destination: addresses(probe.to)[family],
        payload: probe.payload,
    }
}

/// x/a is 10.0.0.1 and fd00::1, z/c is 10.0.0.9 and fd00::9.
pub(crate) fn addresses(name: &str) -> [IpAddr; 2] {
    match name {
        "outside" => [ip("203.0.113.9"), ip("2001:db8::9")],
        "this-node" => [ip("172.16.0.1"), ip("fd01::1")],
        "other-node" => [ip("172.16.0.2"), ip("fd01::2")],
        pod => {
            let position = PODS
                .iter()
                .position(|own| *own == pod)
                .expect("a pod of the grid")
                + 1;
            [
                ip(&format!("10.0.0.{position}")),
                ip(&format!("fd00::{position}")),
            ]
        }
    }
}

/// Everything but policies.
pub(crate) fn events() -> Vec<Event> {
    let mut events = vec![
        Event::NodeUpserted(node(THIS_NODE, &["172.16.0.1", "fd01::1"])),
        Event::NodeUpserted(node("n2", &["172.16.0.2", "fd01::2"])),
    ];
    for name in ["x", "y", "z"] {
        events.push(Event::NamespaceUpserted(namespace(
            name,
            &format!("ns={name}"),
        )));
    }
    for name in PODS {
        events.push(Event::PodUpserted(pod(name)));
        events.push(Event::EndpointUpserted(endpoint(name)));
    }
    events
}

pub(crate) fn namespace(name: &str, text: &str) -> Namespace {
    Namespace::new(name, labels(text))
}

pub(crate) fn pod(name: &str) -> Pod {
    let mut pod = Pod::new(pod_name(name), name);
    pod.labels = labels(&format!("pod={}", pod.name.name));
    pod.node = Some(THIS_NODE.to_owned());
    pod.addresses = addresses(name).into();
    pod.ports = SERVED
        .map(|(protocol, number)| {
            let name = format!("serve-{number}-{}", protocol.to_string().to_lowercase());
            port(&name, protocol, number)
        })
        .to_vec();
    pod
}

pub(crate) fn endpoint(name: &str) -> Endpoint {
    Endpoint {
        interface: interface(&format!("cali{}", name.replace('/', "-"))),
        pod: pod_name(name),
        pod_uid: Some(name.to_owned()),
        addresses: addresses(name).into(),
    }
}
