//! What NetworkPolicy means, case by case, as tables that people wrote.
//!
//! The cases are those of the Kubernetes network policy end-to-end suite, retold, and those that its
//! text leaves to read between the lines.

use caracal_policy::model::{
    Event, LabelSelector, NetworkPolicy, Operator, Peer, PolicyPort, PolicyType, PortRef,
};
use caracal_policy::plan::Protocol::{Sctp, Tcp, Udp};

use crate::grid::{self, Fixture, Probe, policies, step};
use crate::worlds::{block, egress, ingress, none_of, one_of, port, rule, select};

fn everything() -> LabelSelector {
    LabelSelector::everything()
}

fn run(fixtures: Vec<Fixture>) {
    fixtures.iter().for_each(Fixture::run);
}

#[test]
fn isolation_and_directions() {
    let both = |name: &str| NetworkPolicy {
        policy_types: vec![PolicyType::Ingress, PolicyType::Egress],
        ..ingress(name, everything(), &[])
    };
    let untyped = |ingress_rules: usize, egress_rules: usize| NetworkPolicy {
        policy_types: vec![],
        ingress: vec![rule(&[], &[]); ingress_rules],
        egress: vec![rule(&[], &[]); egress_rules],
        ..ingress("x/p", everything(), &[])
    };
    run(vec![
        policies("no policy", vec![], |_| true),
        policies(
            "deny ingress",
            vec![ingress("x/p", everything(), &[])],
            |p| !p.target_in("x"),
        ),
        policies(
            "deny ingress of one pod",
            vec![ingress("x/p", select("pod=a"), &[])],
            |p| p.to != "x/a",
        ),
        policies("deny egress", vec![egress("x/p", everything(), &[])], |p| {
            !p.source_in("x")
        }),
        policies("deny both", vec![both("x/p")], |p| {
            !p.target_in("x") && !p.source_in("x")
        }),
        policies(
            "the empty rule allows everything",
            vec![ingress("x/p", everything(), &[rule(&[], &[])])],
            |_| true,
        ),
        policies(
            "allow-all beside deny-all allows all",
            vec![
                ingress("x/deny", everything(), &[]),
                ingress("x/open", everything(), &[rule(&[], &[])]),
            ],
            |_| true,
        ),
        policies(
            "no types, no rules: ingress only",
            vec![untyped(0, 0)],
            |p| !p.target_in("x"),
        ),
        policies("no types, an egress rule: both", vec![untyped(0, 1)], |p| {
            !p.target_in("x")
        }),
        policies(
            "no types, an ingress rule: ingress only",
            vec![untyped(1, 0)],
            |_| true,
        ),
        policies(
            "rules of a direction that is not listed have no effect",
            vec![NetworkPolicy {
                policy_types: vec![PolicyType::Egress],
                ..untyped(1, 0)
            }],
            |p| !p.source_in("x"),
        ),
        policies(
            "a type of the future isolates nobody",
            vec![NetworkPolicy {
                policy_types: vec![PolicyType::Unknown("Sideways".to_owned())],
                ..untyped(0, 0)
            }],
            |_| true,
        ),
        policies(
            "both ends must agree",
            vec![
                egress(
                    "x/out",
                    everything(),
                    &[rule(&[Peer::namespaces(select("ns=y"))], &[])],
                ),
                ingress(
                    "y/in",
                    select("pod=a"),
                    &[rule(&[Peer::namespaces(select("ns=z"))], &[])],
                ),
            ],
            |p| {
                let out = !p.source_in("x") || p.target_in("y");
                let into = p.to != "y/a" || p.source_in("z");
                out && into
            },
        ),
    ]);
}

#[test]
fn peers_by_label() {
    let to_a = |peers: &[Peer]| vec![ingress("x/p", select("pod=a"), &[rule(peers, &[])])];
    let expect = |from: fn(&Probe) -> bool| move |p: Probe| p.to != "x/a" || from(&p);
    run(vec![
        policies(
            "pods of the same namespace",
            to_a(&[Peer::pods(select("pod=b"))]),
            expect(|p| p.from == "x/b"),
        ),
        policies(
            "all pods of the same namespace",
            to_a(&[Peer::pods(everything())]),
            expect(|p| p.source_in("x")),
        ),
        policies(
            "a namespace",
            to_a(&[Peer::namespaces(select("ns=y"))]),
            expect(|p| p.source_in("y")),
        ),
        policies(
            "all namespaces",
            to_a(&[Peer::namespaces(everything())]),
            expect(|p| p.source_is_pod()),
        ),
        policies(
            "namespace and pod in one peer: both must hold",
            to_a(&[Peer::pods_in(select("ns=y"), select("pod=b"))]),
            expect(|p| p.from == "y/b"),
        ),
        policies(
            "namespace and pod in two peers: either may hold",
            to_a(&[
                Peer::namespaces(select("ns=y")),
                Peer::pods(select("pod=b")),
            ]),
            expect(|p| p.source_in("y") || p.from == "x/b"),
        ),
        policies(
            "a pod label in every namespace",
            to_a(&[Peer::pods_in(everything(), select("pod=b"))]),
            expect(|p| p.source_named("b")),
        ),
        policies(
            "In",
            to_a(&[Peer::pods(one_of("pod", &["b", "c"]))]),
            expect(|p| p.from == "x/b" || p.from == "x/c"),
        ),
        policies(
            "NotIn on namespaces",
            to_a(&[Peer::namespaces(none_of("ns", &["x"]))]),
            expect(|p| p.source_in("y") || p.source_in("z")),
        ),
        policies(
            "expressions on both",
            to_a(&[Peer::pods_in(
                none_of("ns", &["x"]),
                one_of("pod", &["b", "c"]),
            )]),
            expect(|p| !p.source_in("x") && (p.source_named("b") || p.source_named("c"))),
        ),
        policies(
            "Exists",
            to_a(&[Peer::namespaces(everything().with("ns", Operator::Exists))]),
            expect(|p| p.source_is_pod()),
        ),
        policies(
            "DoesNotExist and NotIn match what lacks the label",
            to_a(&[
                Peer::pods(everything().with("other", Operator::DoesNotExist)),
                Peer::pods_in(select("ns=y"), none_of("other", &["1"])),
            ]),
            expect(|p| p.source_in("x") || p.source_in("y")),
        ),
        policies(
            "the name label of namespaces",
            to_a(&[Peer::namespaces(select("kubernetes.io/metadata.name=z"))]),
            expect(|p| p.source_in("z")),
        ),
        policies(
            "egress by namespace and pod",
            vec![egress(
                "x/p",
                select("pod=a"),
                &[rule(&[Peer::pods_in(select("ns=y"), select("pod=a"))], &[])],
            )],
            |p| p.from != "x/a" || p.to == "y/a",
        ),
        policies(
            "a label nobody has",
            to_a(&[Peer::pods(select("pod=q"))]),
            expect(|_| false),
        ),
    ]);
}

#[test]
fn ports_and_protocols() {
    let on = |ports: &[PolicyPort]| vec![ingress("x/p", everything(), &[rule(&[], ports)])];
    let expect = |port: fn(&Probe) -> bool| move |p: Probe| !p.target_in("x") || port(&p);
    let number = PolicyPort::number;
    run(vec![
        policies(
            "one port",
            on(&[number(Tcp, 81)]),
            expect(|p| p.on(Tcp, 81)),
        ),
        policies(
            "two ports of two protocols",
            on(&[number(Tcp, 80), number(Udp, 81)]),
            expect(|p| p.on(Tcp, 80) || p.on(Udp, 81)),
        ),
        policies(
            "a whole protocol",
            on(&[PolicyPort::all(Udp)]),
            expect(|p| p.is(Udp)),
        ),
        policies(
            "SCTP does not let TCP or UDP in",
            on(&[number(Sctp, 80)]),
            expect(|p| p.on(Sctp, 80)),
        ),
        policies(
            "all of SCTP",
            on(&[PolicyPort::all(Sctp)]),
            expect(|p| p.is(Sctp)),
        ),
        policies(
            "a range up to the port",
            on(&[PolicyPort::range(Tcp, 1, 80)]),
            expect(|p| p.on(Tcp, 80)),
        ),
        policies(
            "a range from the port",
            on(&[PolicyPort::range(Tcp, 81, 65535)]),
            expect(|p| p.on(Tcp, 81)),
        ),
        policies(
            "a range of one",
            on(&[PolicyPort::range(Tcp, 80, 80)]),
            expect(|p| p.on(Tcp, 80)),
        ),
        policies(
            "a range upside down",
            on(&[PolicyPort::range(Tcp, 81, 80)]),
            expect(|_| false),
        ),
        policies(
            "no ports let everything in, ICMP too",
            on(&[]),
            expect(|_| true),
        ),
        policies(
            "peers and ports must both hold",
            vec![ingress(
                "x/p",
                everything(),
                &[
                    rule(&[Peer::namespaces(select("ns=y"))], &[number(Tcp, 80)]),
                    rule(&[Peer::namespaces(select("ns=z"))], &[number(Tcp, 81)]),
                ],
            )],
            expect(|p| (p.source_in("y") && p.on(Tcp, 80)) || (p.source_in("z") && p.on(Tcp, 81))),
        ),
        policies(
            "policies add up",
            vec![
                ingress("x/p80", select("pod=a"), &[rule(&[], &[number(Tcp, 80)])]),
                ingress("x/p81", everything(), &[rule(&[], &[number(Tcp, 81)])]),
            ],
            expect(|p| p.on(Tcp, 81) || (p.on(Tcp, 80) && p.to == "x/a")),
        ),
        policies(
            "egress by port",
            vec![egress(
                "x/p",
                everything(),
                &[rule(&[], &[number(Udp, 80)])],
            )],
            |p| !p.source_in("x") || p.on(Udp, 80),
        ),
    ]);
}

#[test]
fn ports_by_name() {
    let named = PolicyPort::named;
    let into = |peers: &[Peer], ports: &[PolicyPort]| {
        vec![ingress("x/p", everything(), &[rule(peers, ports)])]
    };
    let out = |peers: &[Peer], ports: &[PolicyPort]| {
        vec![egress("x/p", everything(), &[rule(peers, ports)])]
    };
    // y/a serves "web" on 81, y/b and everyone else on no port, x/a on 80, x/b on 81.
    let web = |pod: &str, number| {
        let mut pod = grid::pod(pod);
        pod.ports.push(port("web", Tcp, number));
        Event::PodUpserted(pod)
    };
    let fan_out = |policy: NetworkPolicy, expect: fn(Probe) -> bool| Fixture {
        name: "one name, several numbers",
        steps: vec![step(
            vec![
                web("x/a", 80),
                web("x/b", 81),
                web("y/a", 81),
                Event::PolicyUpserted(policy),
            ],
            expect,
        )],
    };
    run(vec![
        policies("ingress", into(&[], &[named(Tcp, "serve-81-tcp")]), {
            |p| !p.target_in("x") || p.on(Tcp, 81)
        }),
        policies(
            "ingress from blocks",
            into(
                &[block("203.0.113.0/24", &[])],
                &[named(Tcp, "serve-81-tcp")],
            ),
            |p| !p.target_in("x") || (p.from == "outside" && !p.v6 && p.on(Tcp, 81)),
        ),
        policies(
            "the protocol must be the port's",
            into(&[], &[named(Udp, "serve-81-tcp")]),
            |p| !p.target_in("x"),
        ),
        policies(
            "a name nobody has matches nothing",
            into(&[], &[named(Tcp, "nope")]),
            |p| !p.target_in("x"),
        ),
        policies(
            "egress to pods",
            out(
                &[Peer::namespaces(select("ns=y"))],
                &[named(Tcp, "serve-80-tcp")],
            ),
            |p| !p.source_in("x") || (p.target_in("y") && p.on(Tcp, 80)),
        ),
        policies(
            "egress to anybody means any pod",
            out(&[], &[named(Tcp, "serve-80-tcp")]),
            |p| !p.source_in("x") || (p.target_is_pod() && p.on(Tcp, 80)),
        ),
        policies(
            "a name says nothing about addresses",
            out(&[block("10.0.0.0/24", &[])], &[named(Tcp, "serve-80-tcp")]),
            |p| !p.source_in("x"),
        ),
        fan_out(into(&[], &[named(Tcp, "web")]).remove(0), |p| {
            !p.target_in("x")
                || (p.to == "x/a" && p.on(Tcp, 80))
                || (p.to == "x/b" && p.on(Tcp, 81))
        }),
        fan_out(
            egress("z/p", everything(), &[rule(&[], &[named(Tcp, "web")])]),
            |p| {
                !p.source_in("z")
                    || (p.to == "x/a" && p.on(Tcp, 80))
                    || ((p.to == "x/b" || p.to == "y/a") && p.on(Tcp, 81))
            },
        ),
    ]);
}

#[test]
fn address_blocks() {
    let out = |peers: &[Peer]| vec![egress("x/p", everything(), &[rule(peers, &[])])];
    let v4 = |name: &str, p: &Probe| p.to == name && !p.v6;
    run(vec![
        policies(
            "a pod's address",
            out(&[block("10.0.0.5/32", &[])]),
            move |p| !p.source_in("x") || v4("y/b", &p),
        ),
        policies(
            "a block but for an exception",
            out(&[block("10.0.0.4/31", &["10.0.0.4/32"])]),
            move |p| !p.source_in("x") || v4("y/b", &p),
        ),
        policies(
            "what one entry excepts another may allow",
            out(&[
                block("10.0.0.4/31", &["10.0.0.5/32"]),
                block("10.0.0.5/32", &[]),
            ]),
            move |p| !p.source_in("x") || v4("y/a", &p) || v4("y/b", &p),
        ),
        policies(
            "what one policy excepts another may allow",
            vec![
                egress(
                    "x/p",
                    everything(),
                    &[rule(&[block("10.0.0.4/31", &["10.0.0.5/32"])], &[])],
                ),
                egress(
                    "x/q",
                    everything(),
                    &[rule(&[block("10.0.0.5/32", &[])], &[])],
                ),
            ],
            move |p| !p.source_in("x") || v4("y/a", &p) || v4("y/b", &p),
        ),
        policies(
            "a block of one family allows none of the other",
            out(&[block("0.0.0.0/0", &[])]),
            |p| !p.source_in("x") || !p.v6,
        ),
        policies(
            "the other family",
            out(&[block("::/0", &["fd00::/16"])]),
            |p| !p.source_in("x") || (p.v6 && !p.target_is_pod()),
        ),
        policies(
            "blocks with ports",
            vec![ingress(
                "x/p",
                everything(),
                &[rule(
                    &[block("203.0.113.0/24", &[])],
                    &[PolicyPort::number(Tcp, 80)],
                )],
            )],
            |p| !p.target_in("x") || (p.from == "outside" && !p.v6 && p.on(Tcp, 80)),
        ),
        policies(
            "a node, by address only",
            vec![ingress(
                "x/p",
                everything(),
                &[rule(&[block("172.16.0.0/24", &[])], &[])],
            )],
            |p| !p.target_in("x") || (p.from == "other-node" && !p.v6),
        ),
        policies(
            "own node is not exempt from egress",
            vec![egress("x/p", everything(), &[])],
            |p| !p.source_in("x"),
        ),
    ]);
}

#[test]
fn what_cannot_be_understood_fails_closed() {
    let mixed = Peer {
        pod_selector: Some(everything()),
        ..block("0.0.0.0/0", &[])
    };
    let unknown = || everything().with("pod", Operator::Unknown("Near".to_owned()));
    let into = |peers: &[Peer], ports: &[PolicyPort]| {
        vec![ingress("x/p", everything(), &[rule(peers, ports)])]
    };
    run(vec![
        policies(
            "a peer with nothing set",
            into(&[Peer::nobody()], &[]),
            |p| !p.target_in("x"),
        ),
        policies("a peer with too much set", into(&[mixed], &[]), |p| {
            !p.target_in("x")
        }),
        policies(
            "an unknown operator in a peer",
            into(&[Peer::pods(unknown())], &[]),
            |p| !p.target_in("x"),
        ),
        policies(
            "an unknown protocol",
            into(&[], &[PolicyPort::from_api(Some("QUIC"), None, None)]),
            |p| !p.target_in("x"),
        ),
        policies(
            "an end port out of range",
            into(
                &[],
                &[PolicyPort::from_api(
                    None,
                    Some(PortRef::Number(80)),
                    Some(70_000),
                )],
            ),
            |p| !p.target_in("x"),
        ),
        policies(
            "an unreadable subject isolates the namespace",
            vec![ingress("x/p", unknown(), &[rule(&[], &[])])],
            |p| !p.target_in("x"),
        ),
    ]);
}
