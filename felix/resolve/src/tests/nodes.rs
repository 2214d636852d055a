//! Sessions between nodes: the mesh, route reflectors, selectors of peers, and who holds what.

use super::*;
use caracal_bgp_core::rib::{BlockOwners, OriginValidity, Originator};
use caracal_bgp_core::types::RouterId;
use caracal_bgp_speaker::config::{Change, OriginCheck};

/// Four nodes, of which the last two may reflect. `n4` has no IPv6.
fn cluster(reflectors: bool) -> String {
    let mut text = String::from(
        "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 64512}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {subnets: [{ipv4: 10.244.0.0/16, ipv6: 'fd00:244::/112'}]}
",
    );
    for n in 1..=4 {
        let v6 = if n < 4 {
            format!(", {{type: InternalIP, address: 'fd00::{n}'}}")
        } else {
            String::new()
        };
        let label = match (reflectors, n) {
            (true, 3) => ", labels: {role: rr, caracal.dev/route-reflector-cluster-id: 10.9.9.9}",
            (true, 4) => {
                ", labels: {role: rr}, annotations: {caracal.dev/route-reflector-cluster-id: 10.9.9.9}"
            }
            _ => "",
        };
        text += &format!(
            "---
apiVersion: v1
kind: Node
metadata: {{name: n{n}, uid: u{n}{label}}}
status: {{addresses: [{{type: InternalIP, address: 10.0.0.{n}}}{v6}]}}
"
        );
    }
    text
}

fn bgp_peer(name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"
    )
}

#[test]
fn reflectors_stay_out_of_the_mesh() {
    let text = cluster(true);
    assert_eq!(names(&resolved(&text, "n1", &[], &[])), ["mesh:n2"]);
    assert_eq!(names(&resolved(&text, "n3", &[], &[])), [""; 0]);
    let everyone = resolved(&cluster(false), "n1", &[], &[]);
    assert_eq!(names(&everyone), ["mesh:n2", "mesh:n3", "mesh:n4"]);
}

#[test]
fn a_selector_of_peers_gives_both_sides_their_session() {
    let text = cluster(true)
        + &bgp_peer(
            "rr",
            "nodeSelector: '!has(role)', peerSelector: role == 'rr'",
        );
    let client = resolved(&text, "n1", &[], &[]);
    assert_eq!(client.findings, []);
    assert_eq!(names(&client), ["mesh:n2", "rr/n3", "rr/n4"]);
    let session = peer(&client, "rr/n3");
    assert_eq!(session.remote.to_string(), "10.0.0.3:179");
    assert_eq!(session.local_address, Some("10.0.0.1".parse().unwrap()));
    assert_eq!(session.peer_as, PeerAs::Number(Asn(64512)));
    assert!(!session.route_reflector_client && !session.passive);
    assert_eq!(session.families, Family::ALL);
    assert_eq!(session.next_hop_v6, Some("fd00::1".parse().unwrap()));
    // Only sessions of a BGPPeer have a limit of prefixes by default.
    assert!(!session.max_prefixes.is_empty());
    assert!(peer(&client, "mesh:n2").max_prefixes.is_empty());
    // IPv6 where both have it.
    assert_eq!(peer(&client, "rr/n4").families, [Family::Ipv4Unicast]);
    assert!(!client.config.transit);

    let reflector = resolved(&text, "n3", &[], &[]);
    assert_eq!(reflector.findings, []);
    assert_eq!(names(&reflector), ["rr/n1", "rr/n2"]);
    let back = peer(&reflector, "rr/n1");
    assert!(back.route_reflector_client && back.passive);
    assert_eq!(reflector.config.cluster_id, Some(RouterId(0x0a09_0909)));
    assert!(reflector.config.transit, "who reflects passes on");
    // From nodes and reflectors: pools and nodes, nothing else.
    for session in [session, back] {
        assert_eq!(taken(session, "10.244.1.0/26"), Verdict::Accept);
        assert_eq!(taken(session, "10.0.0.2/32"), Verdict::Accept);
        assert_eq!(taken(session, "0.0.0.0/0"), Verdict::Reject);
        assert_eq!(told(session, "10.244.1.0/26").1, Verdict::Accept);
    }
}

#[test]
fn nodes_without_ipv4_tell_ipv4_with_ipv6_next_hops() {
    let without_ipv4 = |text: String| {
        (1..=4).fold(text, |text, n| {
            let address = format!("address: 10.0.0.{n}}}");
            text.replace(&address, &format!("address: 'fd00:1::{n}'}}"))
        })
    };
    let reflector = |more: &str| {
        let spec = format!("nodeSelector: '!has(role)', peerSelector: role == 'rr'{more}");
        cluster(true) + &bgp_peer("rr", &spec)
    };
    let by_address = |address: &str| {
        let spec = format!("node: n1, peerIP: '{address}', asNumber: 64512");
        cluster(false) + &bgp_peer("one", &spec)
    };
    let both = Family::ALL.as_slice();
    let rows = [
        ("mesh:n2", without_ipv4(cluster(false)), true, both),
        ("rr/n3", without_ipv4(reflector("")), true, both),
        ("one", without_ipv4(by_address("fd00:1::2")), true, both),
        (
            "rr/n3",
            without_ipv4(reflector(", extendedNextHop: false")),
            false,
            &[Family::Ipv6Unicast],
        ),
        // IPv4 is there, and goes by IPv4.
        ("mesh:n2", cluster(false), false, both),
        ("rr/n3", reflector(""), false, both),
        ("one", by_address("fd00::2"), false, both),
        // A router is no node.
        ("one", without_ipv4(by_address("fd00:9::1")), false, both),
    ];
    for (name, text, extended, families) in rows {
        let resolved = resolved(&text, "n1", &[], &[]);
        let session = peer(&resolved, name);
        assert_eq!(session.extended_next_hop, extended, "{name} of {text}");
        assert_eq!(session.families, families, "{name} of {text}");
        if extended {
            assert!(session.next_hop_v4.is_none(), "{name} of {text}");
        }
    }
}

#[test]
fn reflectors_of_one_cluster_are_no_clients_of_each_other() {
    let text = cluster(true) + &bgp_peer("all", "peerSelector: role == 'rr'");
    let reflector = resolved(&text, "n3", &[], &[]);
    assert_eq!(names(&reflector), ["all/n1", "all/n2", "all/n4"]);
    assert!(!peer(&reflector, "all/n4").route_reflector_client);
    assert!(peer(&reflector, "all/n2").route_reflector_client);
    let other = text.replace(
        "annotations: {caracal.dev/route-reflector-cluster-id: 10.9.9.9}",
        "annotations: {caracal.dev/route-reflector-cluster-id: 10.9.9.8}",
    );
    assert!(peer(&resolved(&other, "n3", &[], &[]), "all/n4").route_reflector_client);
}

#[test]
fn a_reflector_takes_internal_peers_by_address_as_clients_too() {
    let text = cluster(true)
        + &bgp_peer("router", "node: n3, peerIP: 10.1.0.1, asNumber: 64512")
        + &bgp_peer("tor", "node: n3, peerIP: 10.1.0.2, asNumber: 65001");
    let reflector = resolved(&text, "n3", &[], &[]);
    assert!(peer(&reflector, "router").route_reflector_client);
    let tor = peer(&reflector, "tor");
    assert!(!tor.route_reflector_client);
    // It reflects, and is not told to give transit.
    assert_eq!(
        told(tor, "10.244.0.0/26"),
        (Verdict::Accept, Verdict::Reject)
    );
    let router = peer(&reflector, "router");
    assert_eq!(told(router, "10.244.0.0/26").1, Verdict::Accept);
    // Nodes may stand behind it, in other ASes.
    assert_eq!(router.validate_origin, OriginCheck::Off);
}

#[test]
fn reverse_peering_can_be_left_to_people() {
    let text = cluster(true)
        + &bgp_peer(
            "rr",
            "nodeSelector: '!has(role)', peerSelector: role == 'rr', reversePeering: Manual",
        );
    assert_eq!(names(&resolved(&text, "n3", &[], &[])), [""; 0]);
    // Nobody knows whether the other side dials.
    assert!(!peer(&resolved(&text, "n2", &[], &[]), "rr/n3").passive);
}

#[test]
fn those_who_wait_are_dialled_by_those_who_answer() {
    let text = cluster(true)
        + &bgp_peer(
            "rr",
            "nodeSelector: '!has(role)', peerSelector: role == 'rr', passive: true",
        );
    assert!(peer(&resolved(&text, "n1", &[], &[]), "rr/n3").passive);
    assert!(!peer(&resolved(&text, "n3", &[], &[]), "rr/n1").passive);
}

#[test]
fn what_is_explicit_comes_before_what_is_selected_and_that_before_the_mesh() {
    let text = cluster(false)
        + &bgp_peer("a-selected", "peerSelector: all()")
        + &bgp_peer("explicit", "peerIP: 10.0.0.2, asNumber: 64512");
    let n1 = resolved(&text, "n1", &[], &[]);
    assert_eq!(names(&n1), ["a-selected/n3", "a-selected/n4", "explicit"]);
    assert_eq!(n1.findings, []);
}

#[test]
fn an_address_of_a_node_is_believed_like_a_node() {
    let text = cluster(false) + &bgp_peer("explicit", "peerIP: 10.0.0.2, asNumber: 64512");
    let session = resolved(&text, "n1", &[], &[]);
    let session = peer(&session, "explicit");
    assert_eq!(session.validate_origin, OriginCheck::Direct);
    assert_eq!(taken(session, "0.0.0.0/0"), Verdict::Reject);
}

#[test]
fn a_selector_of_peers_that_gives_nothing_is_found() {
    let rows = [
        (
            "n1",
            "peerSelector: role == 'none'",
            reasons::MATCHES_NOTHING,
        ),
        ("r9", "peerSelector: all()", reasons::REFERENCE_NOT_FOUND),
    ];
    for (node, spec, reason) in rows {
        let text = cluster(false).replace(
            "spec: {asNumber: 64512}",
            "spec: {nodeToNodeMeshEnabled: false}",
        ) + &bgp_peer("p", spec);
        let found = resolved(&text, node, &[], &[]);
        let reasons: Vec<_> = found.findings.iter().map(|found| found.reason).collect();
        assert!(reasons.contains(&reason), "{:?}", found.findings);
    }
}

#[test]
fn a_cluster_identifier_that_is_none_is_found() {
    let text = cluster(true).replace(
        "role: rr, caracal.dev/route-reflector-cluster-id: 10.9.9.9",
        "role: rr, caracal.dev/route-reflector-cluster-id: 'yes'",
    );
    let n1 = resolved(&text, "n1", &[], &[]);
    let expected = (
        "Node n3".to_owned(),
        "metadata.labels",
        reasons::INVALID_SPEC,
    );
    assert_eq!(reasons_of(&n1), [expected]);
    assert_eq!(names(&n1), ["mesh:n2", "mesh:n3"]);
}

#[test]
fn blocks_have_owners_where_origins_are_judged() {
    let text: String = [
        cluster(false),
        block(0, "n1", "u1", "Active"),
        block(1, "n2", "u2", "Offered"),
        block(2, "n2", "u0", "Active"),
        block(3, "n9", "u9", "Active"),
        block(4, "n2", "u2", "Quarantined"),
        block(5, "n2", "u2", "Released"),
    ]
    .concat();
    let resolved_cluster = resolved(&text, "n1", &[], &[]);
    let mesh = peer(&resolved_cluster, "mesh:n2");
    assert_eq!(mesh.validate_origin, OriginCheck::Direct);
    let owners: Vec<_> = resolved_cluster
        .config
        .blocks
        .iter()
        .filter(|(prefix, _)| prefix.family() == Family::Ipv4Unicast)
        .map(|(prefix, owner)| {
            let ids = owner.router_ids.iter().map(ToString::to_string);
            (
                prefix.to_string(),
                owner.node.as_str(),
                ids.collect::<Vec<_>>().join(" "),
                owner.stale,
            )
        })
        .collect();
    let row = |prefix: &str, node, id: &str, stale| (prefix.to_owned(), node, id.to_owned(), stale);
    let expected = [
        // Addresses of nodes are theirs alone.
        row("10.0.0.1/32", "n1", "10.0.0.1", false),
        row("10.0.0.2/32", "n2", "10.0.0.2", false),
        row("10.0.0.3/32", "n3", "10.0.0.3", false),
        row("10.0.0.4/32", "n4", "10.0.0.4", false),
        // What is in no block.
        row("10.244.0.0/16", "", "", true),
        row("10.244.0.0/26", "n1", "10.0.0.1", false),
        row("10.244.1.0/26", "n2", "10.0.0.2", false),
        row("10.244.2.0/26", "n2", "10.0.0.2", true),
        row("10.244.3.0/26", "n9", "", true),
        row("10.244.4.0/26", "n2", "10.0.0.2", true),
    ];
    assert_eq!(owners, expected);
    let n2_has: [IpAddr; 2] = ["10.0.0.2".parse().unwrap(), "fd00::2".parse().unwrap()];
    for held in ["10.244.1.0/26", "10.0.0.2/32", "fd00::2/128"] {
        let mut blocks = resolved_cluster.config.blocks.iter();
        let (_, owner) = blocks.find(|(block, _)| *block == prefix(held)).unwrap();
        assert_eq!(owner.addresses, n2_has, "{held}");
    }

    let off = text.replace(
        "spec: {asNumber: 64512}",
        "spec: {originValidation: Disabled}",
    );
    let off = resolved(&off, "n1", &[], &[]);
    assert_eq!(off.config.blocks, []);
    assert_eq!(peer(&off, "mesh:n2").validate_origin, OriginCheck::Off);
}

#[test]
fn an_address_that_two_nodes_have_comes_from_either_and_from_nobody_else() {
    // n3 was n2 before it was renamed; both have one more address.
    let text = cluster(false).replace(
        "address: 10.0.0.3}",
        "address: 10.0.0.3}, {type: InternalIP, address: 10.0.0.2}",
    );
    let n1 = resolved(&text, "n1", &[], &[]);
    let blocks: BlockOwners = n1
        .config
        .blocks
        .iter()
        .map(|(prefix, owner)| {
            let owner = caracal_bgp_core::rib::BlockOwner {
                node: owner.node.clone(),
                addresses: owner.addresses.clone(),
                routers: owner.router_ids.clone(),
                stale: owner.stale,
            };
            (*prefix, owner)
        })
        .collect();
    let rows = [
        ("10.0.0.2/32", "10.0.0.2", OriginValidity::Valid),
        ("10.0.0.2/32", "10.0.0.3", OriginValidity::Valid),
        ("10.0.0.2/32", "10.0.0.4", OriginValidity::Foreign),
        ("10.0.0.3/32", "10.0.0.3", OriginValidity::Valid),
        ("10.0.0.3/32", "10.0.0.4", OriginValidity::Foreign),
        ("fd00::3/128", "10.0.0.4", OriginValidity::Foreign),
        // A pool's, and held by nobody; in no pool.
        ("10.244.9.0/26", "10.0.0.4", OriginValidity::Stale),
        ("10.244.0.0/16", "10.0.0.4", OriginValidity::Stale),
        ("192.0.2.0/24", "10.0.0.4", OriginValidity::Unknown),
    ];
    for (told, from, expected) in rows {
        let address: IpAddr = from.parse().unwrap();
        let router = RouterId::from(from.parse::<std::net::Ipv4Addr>().unwrap());
        for originator in [
            Originator::Peer { address, router },
            Originator::Router(router),
        ] {
            let found = blocks.validate(&prefix(told), originator);
            assert_eq!(found, expected, "{told} from {originator:?}");
        }
    }
    let (_, owner) = blocks.covering(&prefix("10.0.0.2/32")).unwrap();
    assert_eq!(owner.node, "n2 or n3");
}

#[test]
fn origins_are_judged_among_nodes_and_not_from_routers() {
    let text = cluster(false) + &bgp_peer("tor", "peerIP: 10.1.0.1, asNumber: 65001");
    let n1 = resolved(&text, "n1", &[], &[]);
    assert_eq!(peer(&n1, "tor").validate_origin, OriginCheck::Off);
    assert_eq!(peer(&n1, "mesh:n2").validate_origin, OriginCheck::Direct);
}

/// Two nodes in a mesh, the second cordoned or not, a reflector with them as clients, and a router that the second has.
fn with_cordon(cordoned: bool, shared: &str, own: &str) -> String {
    let spec = format!("{{asNumber: 64512, gracefulShutdown: {shared}}}");
    let text = cluster(true).replace("{asNumber: 64512}", &spec);
    let [n2, n3] = ["metadata: {name: n2, ", "metadata: {name: n3, "];
    let spec = format!("spec: {{unschedulable: {cordoned}}}");
    text.replace(n2, &format!("{spec}\n{n2}"))
        .replace(n3, &format!("{spec}\n{n3}"))
        + &bgp_peer(
            "rr",
            "nodeSelector: '!has(role)', peerSelector: role == 'rr'",
        )
        + &bgp_peer("tor", "node: n2, peerIP: 10.1.0.1, asNumber: 65001")
        + &bgp_peer(
            "own",
            "node: n2, peerIP: 10.1.0.2, asNumber: 65001, drain: true",
        )
        + &format!(
            "---\napiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: node.n2}}\nspec: {{gracefulShutdown: {own}}}\n"
        )
}

#[test]
fn a_cordoned_node_drains_unless_the_configuration_says_otherwise() {
    const CORDON: Option<&str> = Some("the node is cordoned");
    const DRAIN: Option<&str> = Some("gracefulShutdown.drain");
    let rows = [
        (false, "{}", "{}", None),
        (true, "{}", "{}", CORDON),
        (false, "{onCordon: true}", "{}", None),
        (true, "{onCordon: false}", "{}", None),
        (true, "{}", "{onCordon: false}", None),
        (true, "{onCordon: false}", "{onCordon: true}", CORDON),
        // What is asked for outlasts the cordon.
        (true, "{drain: true}", "{}", DRAIN),
        (true, "{drain: true, onCordon: false}", "{}", DRAIN),
        (true, "{drain: true}", "{drain: false}", CORDON),
        (false, "{}", "{drain: true}", DRAIN),
    ];
    for (cordoned, shared, own, expected) in rows {
        let what = format!("cordoned {cordoned}, {shared}, {own}");
        let text = with_cordon(cordoned, shared, own);
        let node = resolved(&text, "n2", &[], &[]);
        assert_eq!(names(&node), ["mesh:n1", "own", "rr/n3", "rr/n4", "tor"]);
        for name in ["mesh:n1", "rr/n3", "tor"] {
            let draining = peer(&node, name).draining.as_deref();
            assert_eq!(draining, expected, "{name} with {what}");
        }
        let draining = peer(&node, "own").draining.as_deref();
        assert_eq!(draining, Some("drain of its BGPPeer"), "{what}");
        // Cordons of others are none of ours.
        let other = resolved(&text, "n1", &[], &[]);
        let shared_drain = DRAIN.filter(|_| shared.contains("drain: true"));
        assert_eq!(peer(&other, "mesh:n2").draining.as_deref(), shared_drain);
    }
}

#[test]
fn a_cordon_does_what_drain_does_without_a_new_session() {
    let config = |node, cordoned, shutdown| {
        let text = with_cordon(cordoned, shutdown, "{}");
        let mut config = resolved(&text, node, &[], &[]).config;
        for session in config.peers.values_mut() {
            session.draining = None;
        }
        config
    };
    // One with a mesh session, reflectors and routers, and a reflector.
    for node in ["n2", "n3"] {
        let plain = config(node, false, "{}");
        let cordoned = config(node, true, "{}");
        assert_eq!(cordoned, config(node, false, "{drain: true}"), "{node}");
        assert_eq!(plain, config(node, true, "{onCordon: false}"), "{node}");
        for (name, before) in &plain.peers {
            let change = before.change(&cordoned.peers[name]);
            let expected = match name.0.as_str() {
                // It drains anyway.
                "own" => Change::NONE,
                _ => Change::REEXPORT,
            };
            assert_eq!(change, expected, "{node} {}", name.0);
        }
    }
}
