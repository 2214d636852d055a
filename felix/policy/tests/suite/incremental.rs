//! How small the changes are, and that numbers last.

use std::collections::BTreeMap;
use std::net::IpAddr;

use caracal_policy::index::{Finding, Limits, PolicyIndex};
use caracal_policy::model::{Event, LabelSelector, Peer, PolicyPort};
use caracal_policy::plan::Protocol::{Tcp, Udp};
use caracal_policy::plan::{Binding, ClassId, IdentityId, PeerMatch, Plan, PlanDelta};

use crate::grid;
use crate::worlds::{
    THIS_NODE, agree, block, egress, ingress, interface, ip, labels, packets, pod_name,
    policy_name, rule, select,
};

fn everything() -> LabelSelector {
    LabelSelector::everything()
}

fn grid_with(limits: Limits, events: Vec<Event>) -> PolicyIndex {
    let mut index = PolicyIndex::new(THIS_NODE, limits);
    grid::events()
        .into_iter()
        .chain(events)
        .for_each(|event| index.observe(event));
    index.commit();
    index
}

fn web_policy() -> Event {
    let rules = [rule(
        &[Peer::pods_in(everything(), select("role=web"))],
        &[PolicyPort::number(Tcp, 80)],
    )];
    Event::PolicyUpserted(ingress("x/web", everything(), &rules))
}

fn remote(name: &str, text: &str, address: &str) -> Event {
    let mut pod = grid::pod("y/a");
    pod.name = pod_name(name);
    pod.uid = name.to_owned();
    pod.labels = labels(text);
    pod.node = Some("n2".to_owned());
    pod.addresses = [ip(address)].into();
    Event::PodUpserted(pod)
}

fn class_of(plan: &Plan, name: &str) -> ClassId {
    match plan.endpoints[&interface(name)].ingress {
        Binding::Class(id) => id,
        other => panic!("{name} is bound to {other:?}"),
    }
}

#[test]
fn another_pod_of_a_known_kind_costs_one_element() {
    let mut index = grid_with(
        Limits::default(),
        vec![web_policy(), remote("y/w1", "role=web", "10.9.0.1")],
    );
    let known = index.plan().identities[&ip("10.9.0.1")];
    let delta = index.apply(remote("y/w2", "role=web,more=1", "10.9.0.2"));
    let expected = PlanDelta {
        identities: BTreeMap::from([(ip("10.9.0.2"), Some(known))]),
        ..PlanDelta::default()
    };
    assert_eq!(delta, expected);
}

#[test]
fn a_pod_that_no_selector_mentions_costs_nothing() {
    let mut index = grid_with(Limits::default(), vec![web_policy()]);
    let delta = index.apply(remote("y/other", "role=db", "10.9.0.1"));
    assert!(delta.is_empty(), "{delta:?}");
    let delta = index.apply(Event::PodDeleted(pod_name("y/other")));
    assert!(delta.is_empty(), "{delta:?}");
}

#[test]
fn the_first_pod_of_a_kind_costs_its_element_and_its_cells() {
    let mut index = grid_with(Limits::default(), vec![web_policy()]);
    let class = class_of(index.plan(), "calix-a");
    let delta = index.apply(remote("y/w1", "role=web", "10.9.0.1"));
    assert_eq!(delta.identities.len(), 1);
    assert_eq!(delta.changed_classes.keys().collect::<Vec<_>>(), [&class]);
    assert_eq!(delta.changed_classes[&class].added_cells.len(), 1);
    assert!(delta.added_classes.is_empty() && delta.endpoints.is_empty());
    let delta = index.apply(Event::PodDeleted(pod_name("y/w1")));
    assert_eq!(delta.changed_classes[&class].removed_cells.len(), 1);
}

#[test]
fn a_port_change_keeps_class_and_endpoints() {
    let mut index = grid_with(
        Limits::default(),
        vec![web_policy(), remote("y/w1", "role=web", "10.9.0.1")],
    );
    let peers = [Peer::pods_in(everything(), select("role=web"))];
    let rules = [rule(&peers, &[PolicyPort::number(Tcp, 443)])];
    let delta = index.apply(Event::PolicyUpserted(ingress(
        "x/web",
        everything(),
        &rules,
    )));
    assert!(
        delta.identities.is_empty() && delta.endpoints.is_empty(),
        "{delta:?}"
    );
    assert!(
        delta.added_classes.is_empty() && delta.removed_classes.is_empty(),
        "{delta:?}"
    );
    let change = delta
        .changed_classes
        .values()
        .next()
        .expect("the class changes");
    assert_eq!(
        (change.added_cells.len(), change.removed_cells.len()),
        (1, 1)
    );
}

#[test]
fn pods_with_the_same_policies_share_a_class() {
    let mut index = grid_with(Limits::default(), vec![web_policy()]);
    assert_eq!(index.plan().classes.len(), 1);
    let class = class_of(index.plan(), "calix-a");
    assert_eq!(class_of(index.plan(), "calix-b"), class);
    let delta = index.apply(Event::PolicyUpserted(ingress("x/a", select("pod=a"), &[])));
    assert_eq!(
        delta.endpoints.keys().collect::<Vec<_>>(),
        [&interface("calix-a")]
    );
    assert_eq!(delta.added_classes.len(), 1);
    assert_ne!(class_of(index.plan(), "calix-a"), class);
    let delta = index.apply(Event::PolicyDeleted(policy_name("x/a")));
    assert_eq!(delta.removed_classes.len(), 1);
    assert_eq!(class_of(index.plan(), "calix-a"), class);
}

#[test]
fn the_first_rule_for_every_pod_keeps_the_identities_there_are() {
    let mut index = grid_with(
        Limits::default(),
        vec![
            web_policy(),
            remote("y/w1", "role=web", "10.9.0.1"),
            remote("y/d1", "", "10.9.0.2"),
        ],
    );
    let rules = [rule(
        &[Peer::namespaces(everything())],
        &[PolicyPort::number(Tcp, 80)],
    )];
    let delta = index.apply(Event::PolicyUpserted(ingress(
        "z/all",
        everything(),
        &rules,
    )));
    assert!(
        !delta.identities.contains_key(&ip("10.9.0.1")),
        "it has an identity already"
    );
    assert!(
        delta.identities.contains_key(&ip("10.9.0.2")),
        "it was of the world"
    );
    assert!(
        delta.changed_classes.is_empty(),
        "other classes do not care: {delta:?}"
    );
    let delta = index.apply(Event::PolicyDeleted(policy_name("z/all")));
    assert_eq!(delta.identities[&ip("10.9.0.2")], None);
    assert!(!delta.identities.contains_key(&ip("10.9.0.1")));
}

#[test]
fn an_event_of_another_namespace_touches_no_endpoint() {
    let mut index = grid_with(Limits::default(), vec![web_policy()]);
    let delta = index.apply(Event::PolicyUpserted(ingress(
        "elsewhere/p",
        everything(),
        &[],
    )));
    assert!(delta.is_empty(), "{delta:?}");
    let delta = index.apply(Event::NamespaceUpserted(grid::namespace(
        "y",
        "ns=y,new=label",
    )));
    assert!(delta.is_empty(), "{delta:?}");
}

#[test]
fn a_commit_that_ends_where_it_began_changes_nothing() {
    let mut index = grid_with(Limits::default(), vec![web_policy()]);
    index.observe(Event::PolicyDeleted(policy_name("x/web")));
    index.observe(Event::PodDeleted(pod_name("x/a")));
    index.observe(Event::EndpointDeleted(interface("calix-b")));
    index.observe(web_policy());
    index.observe(Event::PodUpserted(grid::pod("x/a")));
    index.observe(Event::EndpointUpserted(grid::endpoint("x/b")));
    let delta = index.commit();
    assert!(delta.is_empty(), "{delta:?}");
}

#[test]
fn numbers_come_from_content_not_from_history() {
    let events = || {
        vec![
            web_policy(),
            remote("y/w1", "role=web", "10.9.0.1"),
            remote("y/w2", "role=web", "10.9.0.2"),
            Event::PolicyUpserted(egress(
                "y/dns",
                everything(),
                &[rule(&[], &[PolicyPort::number(Udp, 53)])],
            )),
        ]
    };
    let once = grid_with(Limits::default(), events());
    // Another history: each event by itself, in another order, with a detour that used numbers up.
    let mut index = PolicyIndex::new(THIS_NODE, Limits::default());
    let detour = ingress(
        "x/detour",
        everything(),
        &[rule(&[Peer::pods(select("pod=a"))], &[])],
    );
    index.apply(Event::PolicyUpserted(detour));
    for event in grid::events().into_iter().chain(events()).rev() {
        index.apply(event);
    }
    index.apply(Event::PolicyDeleted(policy_name("x/detour")));
    assert_eq!(once.plan().delta_to(index.plan()), PlanDelta::default());
}

#[test]
fn seeded_numbers_win_over_computed_ones() {
    let events = || vec![web_policy(), remote("y/w1", "role=web", "10.9.0.1")];
    let mut index = PolicyIndex::new(THIS_NODE, Limits::default());
    index.seed_ids(BTreeMap::from([(ip("10.9.0.1"), IdentityId(7))]));
    grid::events()
        .into_iter()
        .chain(events())
        .for_each(|event| index.observe(event));
    index.commit();
    assert_eq!(index.plan().identities[&ip("10.9.0.1")], IdentityId(7));
}

#[test]
fn a_nonsensical_seed_does_no_harm() {
    let mut index = PolicyIndex::new(THIS_NODE, Limits::default());
    index.seed_ids(BTreeMap::from([
        (ip("10.9.0.1"), IdentityId::WORLD),
        (ip("10.9.0.2"), IdentityId::THIS_NODE),
    ]));
    let pods = [
        remote("y/w1", "role=web", "10.9.0.1"),
        remote("y/w2", "role=web", "10.9.0.2"),
    ];
    grid::events()
        .into_iter()
        .chain([web_policy()])
        .chain(pods)
        .for_each(|e| index.observe(e));
    index.commit();
    assert!(index.plan().identities[&ip("10.9.0.1")] >= IdentityId::FIRST_POD);
}

#[test]
fn long_ranges_and_blocks_go_to_the_chain() {
    let rules = [
        rule(
            &[Peer::pods(select("pod=b"))],
            &[PolicyPort::range(Tcp, 1000, 1063)],
        ),
        rule(
            &[Peer::pods(select("pod=c"))],
            &[PolicyPort::range(Tcp, 1000, 1064)],
        ),
        rule(&[block("10.0.0.0/30", &["10.0.0.1/32"])], &[]),
    ];
    let index = grid_with(
        Limits::default(),
        vec![Event::PolicyUpserted(ingress(
            "x/p",
            select("pod=a"),
            &rules,
        ))],
    );
    let class = &index.plan().classes[&class_of(index.plan(), "calix-a")];
    assert_eq!(class.cells.len(), 64, "64 ports are expanded");
    assert_eq!(
        class.chain.len(),
        2,
        "65 ports are not, and blocks never: {:?}",
        class.chain
    );
    assert!(
        class
            .chain
            .iter()
            .any(|rule| matches!(&rule.peer, PeerMatch::Nets4(n) if n.len() == 2))
    );
}

#[test]
fn a_class_with_too_many_cells_becomes_a_chain_and_comes_back() {
    let limits = Limits {
        cells_per_class: 3,
        ..Limits::default()
    };
    let ports = |count: u16| {
        (1..=count)
            .map(|n| PolicyPort::number(Tcp, n * 2))
            .collect::<Vec<_>>()
    };
    let policy = |count| {
        let rules = [rule(&[Peer::pods(select("pod=b"))], &ports(count))];
        Event::PolicyUpserted(ingress("x/p", select("pod=a"), &rules))
    };
    let mut index = grid_with(limits, vec![policy(3)]);
    let id = class_of(index.plan(), "calix-a");
    assert_eq!(
        (
            index.plan().classes[&id].cells.len(),
            index.findings().len()
        ),
        (3, 0)
    );
    index.apply(policy(4));
    let class = &index.plan().classes[&id];
    assert!(class.cells.is_empty());
    assert_eq!(class.chain.len(), 1);
    assert_eq!(index.findings()[0].reason(), "ClassTooLarge");
    index.apply(policy(2));
    assert_eq!(
        (
            index.plan().classes[&id].cells.len(),
            index.findings().len()
        ),
        (2, 0)
    );
}

#[test]
fn identities_beyond_the_numbers_are_matched_by_address() {
    let limits = Limits {
        identities: 1,
        ..Limits::default()
    };
    let peer = |label: &str, port| {
        rule(
            &[Peer::pods_in(everything(), select(label))],
            &[PolicyPort::number(Tcp, port)],
        )
    };
    let policy = ingress(
        "x/p",
        everything(),
        &[peer("role=web", 80), peer("role=db", 81)],
    );
    let mut index = grid_with(
        limits,
        vec![
            Event::PolicyUpserted(policy),
            remote("y/w", "role=web", "10.9.0.1"),
            remote("y/d", "role=db", "10.9.0.2"),
        ],
    );
    assert_eq!(
        index.findings(),
        [Finding::IdentitiesExhausted { without_number: 1 }]
    );
    assert_agrees(&index);
    // The freed number goes to the one that waited.
    let numbered = if index.plan().identities.contains_key(&ip("10.9.0.1")) {
        "y/w"
    } else {
        "y/d"
    };
    index.apply(Event::PodDeleted(pod_name(numbered)));
    assert_eq!(index.findings(), []);
    assert_agrees(&index);
    let class = &index.plan().classes[&class_of(index.plan(), "calix-a")];
    assert_eq!(
        class.chain,
        [],
        "what is matched by identity is not matched by address too"
    );
}

fn assert_agrees(index: &PolicyIndex) {
    let addresses: Vec<IpAddr> = ["10.9.0.1", "10.9.0.2", "10.0.0.1", "10.0.0.4"]
        .into_iter()
        .map(ip)
        .collect();
    let payloads = [80, 81, 82].map(|port| caracal_policy::packet::Payload::Port(Tcp, port));
    for packet in packets(&addresses, &payloads) {
        agree(index.world(), index.plan(), &packet).unwrap_or_else(|why| panic!("{why}"));
    }
}

#[test]
fn unreadable_parts_are_told() {
    let rules = [rule(&[Peer::nobody()], &[PolicyPort::range(Tcp, 2, 1)])];
    let index = grid_with(
        Limits::default(),
        vec![Event::PolicyUpserted(ingress("x/p", everything(), &rules))],
    );
    let reasons: Vec<_> = index.findings().iter().map(Finding::reason).collect();
    assert_eq!(reasons, ["UnreadablePeer", "UnreadablePort"]);
}

#[test]
fn port_names_that_lead_nowhere_are_told() {
    let named = |name: &str| vec![rule(&[], &[PolicyPort::named(Tcp, name)])];
    let index = grid_with(
        Limits::default(),
        vec![
            Event::PolicyUpserted(ingress("x/ok", everything(), &named("serve-80-tcp"))),
            Event::PolicyUpserted(ingress("x/typo", everything(), &named("serve-80-tpc"))),
            Event::PolicyUpserted(egress("y/ok", everything(), &named("serve-80-tcp"))),
            Event::PolicyUpserted(egress("y/typo", everything(), &named("serve-80-udp"))),
            Event::PolicyUpserted(ingress("elsewhere/typo", everything(), &named("nope"))),
        ],
    );
    let told: Vec<_> = index.findings().iter().map(Finding::to_string).collect();
    assert_eq!(
        told,
        [
            "ingress rules of x/typo name a TCP port \"serve-80-tpc\" that pods concerned lack",
            "egress rules of y/typo name a TCP port \"serve-80-udp\" that pods concerned lack",
        ]
    );
}
