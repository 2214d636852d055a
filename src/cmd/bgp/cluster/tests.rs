//! How each screen of a cluster reads. What it shall look like stands in `snapshots/`.

use insta::assert_snapshot;
use serde_json::{Value, json};

use super::rejected::{Rejections, Wanted};
use super::*;

/// 2026-11-25 12:00:00 UTC.
const NOW: u64 = 1_795_608_000_000;

fn status(node: &str, status: Value) -> NodeNetworkStatus {
    serde_json::from_value(json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": "NodeNetworkStatus",
        "metadata": {"name": node}, "spec": {"nodeName": node}, "status": status,
    }))
    .unwrap()
}

fn sessions(sessions: &[Value]) -> Value {
    json!({ "sessions": sessions })
}

fn up(name: &str) -> Value {
    json!({
        "name": name, "peerIP": "10.0.1.1", "asNumber": 65001, "state": "Established",
        "since": "2026-11-25T09:00:00Z",
        "prefixes": {"received": 14, "accepted": 12, "advertised": 4},
    })
}

fn down(name: &str) -> Value {
    json!({
        "name": name, "state": "Active", "since": "2026-11-25T11:59:18Z",
        "reason": "ConnectTimeout", "message": "connection timed out",
        "prefixes": {"received": 0, "accepted": 0, "advertised": 0},
    })
}

fn with(mut session: Value, more: &Value) -> Value {
    let fields = more.as_object().unwrap().clone();
    session.as_object_mut().unwrap().extend(fields);
    session
}

fn policy(session: &str, count: u32, prefixes: &[&str]) -> Value {
    json!({
        "session": session, "reason": "policy", "rule": "no-lab: lab", "count": count,
        "prefixes": prefixes, "message": "the import policy rejects it: rule 'no-lab: lab'",
    })
}

fn node(name: &str, ready: &str) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready}]},
    }))
    .unwrap()
}

/// Of these nodes, which all exist and are ready.
fn cluster(statuses: &[(&str, Value)]) -> Cluster {
    let nodes: Vec<Node> = statuses
        .iter()
        .map(|(name, _)| node(name, "True"))
        .collect();
    let statuses = statuses.iter().map(|(name, it)| status(name, it.clone()));
    Cluster::new(statuses.collect(), &nodes, None).unwrap()
}

fn hints(text: &str) -> Vec<&str> {
    text.lines()
        .filter_map(|line| line.strip_prefix("hint: "))
        .collect()
}

#[test]
fn all_sessions_stand_in_lines_with_counts_and_reasons() {
    let moved = json!({
        "direction": "Received", "time": "2026-11-25T11:00:00Z",
        "message": "cease: administrative shutdown (\"moving house\")",
    });
    let refused = json!({
        "message": "the peer sent OPEN error: bad peer AS",
        "lastError": {
            "direction": "Received", "time": "2026-11-25T11:00:00Z",
            "message": "OPEN error: bad peer AS",
        },
    });
    let statuses = vec![
        status(
            "n2",
            sessions(&[
                up("tor1"),
                with(down("tor2"), &json!({ "lastError": moved })),
            ]),
        ),
        status(
            "n1",
            sessions(&[
                with(
                    up("tor1"),
                    &json!({"message": "draining: the node is cordoned", "prefixes": null}),
                ),
                up("tor2"),
            ]),
        ),
        status("n3", sessions(&[with(down("tor1"), &refused)])),
    ];
    let nodes = [
        ("n1", "True"),
        ("n2", "Unknown"),
        ("n3", "True"),
        ("n4", "False"),
    ];
    let nodes = nodes.map(|(name, ready)| node(name, ready));
    let all = Cluster::new(statuses.clone(), &nodes, None).unwrap();
    assert!(!all.is_whole());
    assert_snapshot!("peers", peers::all(&all, NOW));

    let one = Cluster::new(statuses.clone(), &nodes, Some("n1")).unwrap();
    assert_eq!((one.statuses.len(), one.is_whole()), (1, true));
    let none = Cluster::new(statuses, &nodes, Some("n9")).unwrap_err();
    assert_eq!(none.to_string(), "no node is called \"n9\"");
}

#[test]
fn one_peer_is_told_of_by_all_nodes_that_have_it() {
    let error = json!({"lastError": {
        "direction": "Sent", "time": "2026-11-25T11:57:30Z",
        "message": "cease: administrative reset (\"fibre\")",
    }});
    let first = json!({
        "sessions": [with(up("tor1"), &error), up("tor2")],
        "rejected": [
            policy("tor1", 45, &["20.1.0.0/24", "20.1.1.0/24", "20.1.2.0/24", "20.1.3.0/24"]),
            policy("tor2", 45, &["20.1.0.0/24"]),
        ],
    });
    let all = cluster(&[
        ("n1", first),
        ("n2", sessions(&[down("tor1")])),
        ("n3", sessions(&[])),
    ]);
    assert!(all.clone().of_peer("x").is_none());
    let one = all.of_peer("tor1").unwrap();
    assert_snapshot!("peer", peers::one(&one, NOW));
}

#[test]
fn hints_tell_which_nodes_are_or_soon_may_be_isolated() {
    let mesh = |peers: &[&str]| peers.iter().map(|it| up(it)).collect::<Vec<_>>();
    let nearly = "n1 is one failure away from isolation";
    let isolated = "n1 is isolated: no session leads out of it";
    for (what, given, expected) in [
        ("two ways out", vec![up("tor1"), up("tor2")], None),
        ("one of two", vec![up("tor1"), down("tor2")], Some(nearly)),
        ("the only one", vec![up("tor1")], None),
        (
            "none of two",
            vec![down("tor1"), down("tor2")],
            Some(isolated),
        ),
        (
            "one of two, and nodes that are reached by it",
            [mesh(&["mesh:n2", "rr/n2"]), vec![up("tor1"), down("tor2")]].concat(),
            Some(nearly),
        ),
        (
            "a router that a range has let in is no node",
            vec![up("tors/10.0.0.1"), up("tors/10.0.0.2"), down("mesh:n2")],
            None,
        ),
        ("a mesh alone", mesh(&["mesh:n2", "mesh:n3"]), None),
        (
            "half a mesh",
            [mesh(&["mesh:n2"]), vec![down("mesh:n3")]].concat(),
            Some(nearly),
        ),
        (
            "nothing at all",
            vec![],
            Some("n1 has no sessions: no BGPPeer names it"),
        ),
    ] {
        let others = sessions(&[up("tor1"), up("tor2")]);
        let all = cluster(&[("n1", sessions(&given)), ("n2", others)]);
        let text = peers::all(&all, NOW);
        assert_eq!(hints(&text), Vec::from_iter(expected), "{what}");
    }
    let cut = json!({"sessions": [up("tor1")], "sessionsLeftOut": 7});
    assert_eq!(
        hints(&peers::all(&cluster(&[("n1", cut)]), NOW)),
        ["n1 has more sessions than its NodeNetworkStatus holds"]
    );
}

#[test]
fn hints_name_a_few_nodes_and_count_the_rest() {
    let names: Vec<String> = (1..=20).map(|number| format!("n{number}")).collect();
    for (count, expected) in [
        (1, "n1"),
        (2, "n1 and n2"),
        (3, "n1, n2 and n3"),
        (8, "n1, n2, n3, n4, n5, n6, n7 and n8"),
        (20, "n1, n2, n3, n4, n5, n6, n7 and 13 more"),
    ] {
        assert_eq!(named(&names[..count]), expected);
    }
}

/// Of which the first rejects more than it names.
fn rejecting() -> Cluster {
    let first = json!({"rejected": [
        policy("tor1", 45, &["20.1.0.0/24", "20.1.1.0/24", "20.1.7.0/24", "20.1.8.0/24"]),
        {
            "session": "tor2", "reason": "protected", "count": 2,
            "prefixes": ["10.64.0.0/26", "20.1.0.0/16"],
            "message": "it lies in 10.64.0.0/26, which is ours alone",
        },
    ]});
    let second = json!({"rejected": [policy("tor1", 1, &["20.1.7.0/24"])]});
    cluster(&[("n1", first), ("n2", second), ("n3", json!({}))])
}

#[test]
fn rejected_routes_are_summed_up_by_reason() {
    assert_snapshot!("rejected", Rejections::of(&rejecting()).summary());
    let nothing = cluster(&[("n1", json!({}))]);
    assert_eq!(
        Rejections::of(&nothing).summary(),
        "0 routes rejected on 0 of 1 node\n"
    );
}

#[test]
fn rejected_routes_that_nodes_name_are_told_with_what_they_do_not_name() {
    let cluster = rejecting();
    let named = |wanted| {
        let rejections = Rejections::of(&cluster).naming(wanted);
        rejections.named(wanted, "to ask a node itself: COMMAND")
    };
    let host = Wanted::Covering("20.1.7.7".parse().unwrap());
    assert_snapshot!("named", named(host));
    for (wanted, nodes, routes) in [
        (Wanted::Covering("20.1.0.0/16".parse().unwrap()), 1, 1),
        (Wanted::Covering("9.9.9.9".parse().unwrap()), 0, 0),
        (Wanted::Inside("20.1.0.0/20".parse().unwrap()), 2, 5),
        (Wanted::Inside("0.0.0.0/0".parse().unwrap()), 2, 7),
        (Wanted::Inside("::/0".parse().unwrap()), 0, 0),
    ] {
        let text = named(wanted);
        let name = if nodes == 1 { "names" } else { "name" };
        let count = format!("{nodes} of 3 nodes {name} a rejected route ");
        assert!(text.contains(&count), "{wanted:?}: {text}");
        let rows = text.lines().filter(|line| line.starts_with('n')).count();
        assert_eq!(rows, routes, "{wanted:?}: {text}");
    }
    let json = serde_json::to_value(Rejections::of(&cluster).naming(host)).unwrap();
    assert_eq!(json["rejected"].as_array().unwrap().len(), 3);
    assert_eq!(json["rejected"][2]["node"], "n2");
    assert_eq!(json["rejected"][2]["reason"], "policy");
    assert_eq!(
        (&json["unnamed"], &json["silent"]),
        (&json!(["n1"]), &json!([]))
    );
}
