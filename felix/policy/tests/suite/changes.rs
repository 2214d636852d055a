//! Tables that change: policies, labels, owners of addresses, and pods that come before their objects.

use std::time::Duration;

use caracal_policy::index::{Limits, PolicyIndex};
use caracal_policy::interpreter::Decision;
use caracal_policy::model::{Event, LabelSelector, Peer, PolicyPort};
use caracal_policy::oracle::Side;
use caracal_policy::packet::{Packet, Payload};
use caracal_policy::plan::Binding;
use caracal_policy::plan::Protocol::Tcp;

use crate::grid::{self, Fixture, Probe, step};
use crate::worlds::{
    THIS_NODE, egress, ingress, interface, ip, labels, none_of, pod_name, policy_name, rule, select,
};

fn everything() -> LabelSelector {
    LabelSelector::everything()
}

fn run(fixtures: Vec<Fixture>) {
    fixtures.iter().for_each(Fixture::run);
}

#[test]
fn changes_of_policies_and_labels() {
    let upsert = |policy| vec![Event::PolicyUpserted(policy)];
    let from_b = || {
        ingress(
            "x/p",
            select("pod=a"),
            &[rule(&[Peer::pods(select("pod=b"))], &[])],
        )
    };
    let from_ns2 = || {
        ingress(
            "x/p",
            everything(),
            &[rule(&[Peer::namespaces(select("ns2=v"))], &[])],
        )
    };
    let relabelled = |name: &str, text: &str| {
        let mut pod = grid::pod(name);
        pod.labels = labels(text);
        vec![Event::PodUpserted(pod)]
    };
    let namespace =
        |name: &str, text: &str| vec![Event::NamespaceUpserted(grid::namespace(name, text))];
    run(vec![
        Fixture {
            name: "a policy is changed and deleted",
            steps: vec![
                step(
                    upsert(ingress("x/p", everything(), &[rule(&[], &[])])),
                    |_| true,
                ),
                step(upsert(ingress("x/p", everything(), &[])), |p| {
                    !p.target_in("x")
                }),
                step(upsert(from_b()), |p| p.to != "x/a" || p.from == "x/b"),
                step(upsert(egress("x/p", everything(), &[])), |p| {
                    !p.source_in("x")
                }),
                step(vec![Event::PolicyDeleted(policy_name("x/p"))], |_| true),
            ],
        },
        Fixture {
            name: "a peer's labels change",
            steps: vec![
                step(upsert(from_b()), |p| p.to != "x/a" || p.from == "x/b"),
                step(relabelled("x/c", "pod=b,also=1"), |p| {
                    p.to != "x/a" || p.from == "x/b" || p.from == "x/c"
                }),
                step(relabelled("x/b", ""), |p| p.to != "x/a" || p.from == "x/c"),
            ],
        },
        Fixture {
            name: "a subject's labels change",
            steps: vec![
                step(upsert(ingress("x/p", select("target=yes"), &[])), |_| true),
                step(relabelled("x/a", "target=yes"), |p| p.to != "x/a"),
                step(relabelled("x/a", "target=no"), |_| true),
            ],
        },
        Fixture {
            name: "a namespace's labels change",
            steps: vec![
                step(upsert(from_ns2()), |p| !p.target_in("x")),
                step(namespace("y", "ns=y,ns2=v"), |p| {
                    !p.target_in("x") || p.source_in("y")
                }),
                step(namespace("y", "ns=y"), |p| !p.target_in("x")),
            ],
        },
        Fixture {
            name: "a namespace that has not been seen is selected by no label",
            steps: vec![
                step(
                    upsert(ingress(
                        "x/p",
                        everything(),
                        &[rule(&[Peer::namespaces(none_of("ns", &["z"]))], &[])],
                    )),
                    |p| !p.target_in("x") || p.source_in("x") || p.source_in("y"),
                ),
                step(vec![Event::NamespaceDeleted("y".to_owned())], |p| {
                    !p.target_in("x") || p.source_in("x")
                }),
            ],
        },
    ]);
}

#[test]
fn port_names_begin_and_cease_to_matter() {
    let b_to_a = ingress(
        "x/p",
        select("pod=a"),
        &[rule(&[Peer::pods(select("pod=b"))], &[])],
    );
    let by_name = |name: &str| {
        let ports = [PolicyPort::named(Tcp, name)];
        Event::PolicyUpserted(egress("z/p", everything(), &[rule(&[], &ports)]))
    };
    let any_pod = egress(
        "z/p",
        everything(),
        &[rule(&[Peer::namespaces(everything())], &[])],
    );
    let first = |p: &Probe| p.to != "x/a" || p.from == "x/b";
    run(vec![Fixture {
        name: "names looked up in pods that have an identity, and in those that had none",
        steps: vec![
            step(vec![Event::PolicyUpserted(b_to_a)], move |p| first(&p)),
            step(vec![by_name("serve-80-tcp")], move |p| {
                first(&p) && (!p.source_in("z") || (p.target_is_pod() && p.on(Tcp, 80)))
            }),
            step(vec![by_name("serve-81-tcp")], move |p| {
                first(&p) && (!p.source_in("z") || (p.target_is_pod() && p.on(Tcp, 81)))
            }),
            step(vec![Event::PolicyUpserted(any_pod)], move |p| {
                first(&p) && (!p.source_in("z") || p.target_is_pod())
            }),
            step(vec![Event::PolicyDeleted(policy_name("z/p"))], move |p| {
                first(&p)
            }),
        ],
    }]);
}

#[test]
fn owners_of_addresses() {
    let from_b = || {
        let rules = [rule(&[Peer::pods_in(everything(), select("pod=b"))], &[])];
        Event::PolicyUpserted(ingress("x/p", everything(), &rules))
    };
    let isolated = |p: &Probe| !p.target_in("x");
    // An object on another node that lists outside's addresses.
    let remote = |name: &str, label: &str, created: u64| {
        let mut pod = grid::pod("y/b");
        pod.name = pod_name(name);
        pod.uid = name.to_owned();
        pod.labels = labels(&format!("pod={label}"));
        pod.node = Some("n2".to_owned());
        pod.addresses = grid::addresses("outside").into();
        pod.created = Duration::from_secs(created);
        pod
    };
    let mut ended = remote("z/old", "b", 1);
    ended.terminated = true;
    let mut host = remote("z/host", "b", 3);
    host.host_network = true;
    let mut on_node = host.clone();
    on_node.host_network = false;
    on_node.addresses = grid::addresses("other-node").into();
    let mut thief = remote("z/thief", "b", 9);
    thief.addresses = grid::addresses("y/a").into();
    run(vec![
        Fixture {
            name: "an address is given again",
            steps: vec![
                step(vec![from_b()], move |p| isolated(&p) || p.source_named("b")),
                step(
                    vec![Event::PodUpserted(remote("z/old", "b", 1))],
                    move |p| isolated(&p) || p.source_named("b") || p.from == "outside",
                ),
                step(
                    vec![Event::PodUpserted(remote("z/new", "c", 2))],
                    move |p| isolated(&p) || p.source_named("b"),
                ),
                step(vec![Event::PodDeleted(pod_name("z/new"))], move |p| {
                    isolated(&p) || p.source_named("b") || p.from == "outside"
                }),
                step(vec![Event::PodUpserted(ended)], move |p| {
                    isolated(&p) || p.source_named("b")
                }),
            ],
        },
        Fixture {
            name: "pods on the host network are not peers, nor is a node ever a pod",
            steps: vec![step(
                vec![
                    from_b(),
                    Event::PodUpserted(host),
                    Event::PodUpserted(on_node),
                ],
                move |p| isolated(&p) || p.source_named("b"),
            )],
        },
        Fixture {
            name: "what is wired here is certain, whatever objects say",
            steps: vec![step(vec![from_b(), Event::PodUpserted(thief)], move |p| {
                isolated(&p) || p.source_named("b")
            })],
        },
    ]);
}

#[test]
fn a_pod_is_isolated_until_its_labels_are_known() {
    let deleted = || Event::PodDeleted(pod_name("x/a"));
    let mut successor = grid::pod("x/a");
    successor.uid = "another".to_owned();
    let mut adopted = grid::endpoint("x/a");
    adopted.pod_uid = Some("another".to_owned());
    let touches = |p: &Probe| p.from == "x/a" || p.to == "x/a";
    run(vec![Fixture {
        name: "wired before seen",
        steps: vec![
            step(vec![deleted()], move |p| !touches(&p)),
            step(vec![Event::PodUpserted(grid::pod("x/a"))], |_| true),
            // Another pod of the same name: its labels say nothing about the one that is wired.
            step(vec![Event::PodUpserted(successor)], move |p| !touches(&p)),
            step(vec![Event::EndpointUpserted(adopted)], |_| true),
        ],
    }]);
}

#[test]
fn a_pod_is_a_peer_before_its_object_lists_its_addresses() {
    let mut young = grid::pod("y/b");
    young.addresses.clear();
    let rules = [rule(&[Peer::namespaces(select("ns=y"))], &[])];
    run(vec![Fixture {
        name: "addresses known from the wiring",
        steps: vec![step(
            vec![
                Event::PodUpserted(young),
                Event::PolicyUpserted(ingress("x/p", everything(), &rules)),
            ],
            |p| !p.target_in("x") || p.source_in("y"),
        )],
    }]);
}

#[test]
fn the_oracle_names_policy_and_rule() {
    let mut index = PolicyIndex::new(THIS_NODE, Limits::default());
    grid::events()
        .into_iter()
        .for_each(|event| index.observe(event));
    let ports = [PolicyPort::number(Tcp, 80)];
    let rules = [rule(&[Peer::pods(select("pod=c"))], &[]), rule(&[], &ports)];
    for policy in [
        ingress("x/deny", everything(), &[]),
        ingress("x/web", select("pod=a"), &rules),
    ] {
        index.observe(Event::PolicyUpserted(policy));
    }
    index.commit();
    let explain = |port| {
        index.explain(&Packet {
            source: ip("10.0.0.4"),
            destination: ip("10.0.0.1"),
            payload: Payload::Port(Tcp, port),
        })
    };
    let allowed = explain(80);
    assert_eq!(
        allowed.verdict.ingress,
        Side::Allowed {
            policy: policy_name("x/web"),
            rule: 1
        }
    );
    assert_eq!(allowed.verdict.egress, Side::NotIsolated);
    let denied = explain(81);
    let isolated_by = vec![policy_name("x/deny"), policy_name("x/web")];
    assert_eq!(
        denied.verdict.ingress,
        Side::Denied {
            isolated_by: isolated_by.clone()
        }
    );
    assert_eq!(
        denied.verdict.to_string(),
        "denied; egress: allowed, no policy isolates the pod; \
         ingress: denied, isolated by x/deny, x/web and allowed by no rule"
    );
    // The drop counter of the class that refuses it is attributed to the same policies.
    let binding = index.plan().endpoints[&interface("calix-a")].ingress;
    let Binding::Class(class) = binding else {
        panic!("{binding:?}")
    };
    assert_eq!(index.plan().classes[&class].policies, isolated_by);
    assert_eq!(denied.passage.ingress, Some(Decision::Dropped(class)));
}
