//! The policy table against packets: a node with pods behind veths, all in namespaces of their own.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::Duration;

use caracal_nft::conntrack::Decision;
use caracal_nft::{Connection, Dataplane, Options};
use caracal_policy::plan::{
    AddressRange, Binding, Cell, ChainRule, Class, ClassId, Direction, IdentityId, PeerMatch, Plan,
    PolicyName, PortMatch, Protocol,
};
use common::pods::{NODE4, NODE6, Node, PORTS, Pod};
use common::until;

const PATIENCE: Duration = Duration::from_secs(5);
/// How long an answer may take before the packet counts as dropped. All is on one machine.
const ANSWER: Duration = Duration::from_secs(1);

fn reaches(protocol: Protocol, to: SocketAddr) -> bool {
    match protocol {
        Protocol::Tcp => TcpStream::connect_timeout(&to, ANSWER).is_ok(),
        Protocol::Udp => {
            let any: IpAddr = match to {
                SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            udp_from(SocketAddr::new(any, 0), to)
        }
        Protocol::Sctp => unreachable!("no probe speaks SCTP"),
    }
}

fn udp_from(from: SocketAddr, to: SocketAddr) -> bool {
    let socket = UdpSocket::bind(from).unwrap();
    socket.set_read_timeout(Some(ANSWER)).unwrap();
    let mut buffer = [0; 64];
    // A refusal by ICMP counts as no answer, too.
    socket.send_to(b"probe", to).is_ok() && socket.recv_from(&mut buffer).is_ok()
}

fn policy(name: &str) -> Vec<PolicyName> {
    vec![PolicyName::new("test", name)]
}

fn cell(identity: u16, protocol: Protocol, port: u16) -> Cell {
    Cell {
        identity: IdentityId(identity),
        protocol,
        port,
    }
}

const A: u16 = 3;
const B: u16 = 4;
const C: u16 = 5;
const IN_B: ClassId = ClassId(1);
const OUT_C: ClassId = ClassId(2);

/// a and b and c are endpoints, d has an interface only. b takes TCP and UDP from a on 80, from
/// everybody on 82, and from 10.9.0.128/25 and fd00::80/121 on anything. c may go to b on 82 and to a
/// on 80.
fn truth_plan(node: &Node) -> Plan {
    let both = [Protocol::Tcp, Protocol::Udp];
    let mut in_b = Class::denying(Direction::Ingress, policy("b-in"));
    in_b.cells = both.map(|protocol| cell(A, protocol, 80)).into();
    in_b.any_peer = both.map(|protocol| (protocol, 82)).into();
    in_b.chain = vec![
        ChainRule {
            ports: vec![],
            peer: PeerMatch::Nets4(vec![AddressRange {
                first: [10, 9, 0, 128].into(),
                last: [10, 9, 0, 255].into(),
            }]),
        },
        ChainRule {
            ports: vec![],
            peer: PeerMatch::Nets6(vec![AddressRange {
                first: "fd00::128".parse().unwrap(),
                last: "fd00::255".parse().unwrap(),
            }]),
        },
    ];
    let mut out_c = Class::denying(Direction::Egress, policy("c-out"));
    out_c.cells = both
        .into_iter()
        .flat_map(|protocol| [cell(B, protocol, 82), cell(A, protocol, 80)])
        .collect();
    let mut plan = Plan {
        classes: BTreeMap::from([(IN_B, in_b), (OUT_C, out_c)]),
        ..Plan::default()
    };
    for (name, identity, ingress, egress) in [
        ("a", A, Binding::Open, Binding::Open),
        ("b", B, Binding::Class(IN_B), Binding::Open),
        ("c", C, Binding::Open, Binding::Class(OUT_C)),
    ] {
        let pod = node.pod(name);
        plan.endpoints
            .insert(pod.interface(), pod.endpoint(ingress, egress));
        for address in pod.addresses {
            plan.identities.insert(address, IdentityId(identity));
        }
    }
    plan.identities
        .insert(NODE4.parse().unwrap(), IdentityId::THIS_NODE);
    plan.identities
        .insert(NODE6.parse().unwrap(), IdentityId::THIS_NODE);
    plan
}

fn dataplane(node: &Node, plan: &Plan) -> Dataplane {
    node.netns.run(|| {
        let mut dataplane = Dataplane::open(Options {
            table: "caracal".to_owned(),
            owner: true,
            interface_prefix: "px".to_owned(),
        })
        .unwrap();
        dataplane.sync(plan).unwrap();
        dataplane
    })
}

/// (from, to, protocol, family, port) of every pair that gets an answer; "host" is the node.
fn reachable(node: &Node) -> BTreeSet<(&str, &str, Protocol, usize, u16)> {
    let mut sources = vec![("host", &node.netns)];
    sources.extend(node.pods.iter().map(|pod| (pod.name, &pod.netns)));
    std::thread::scope(|scope| {
        let mut probes = Vec::new();
        for (from, netns) in sources {
            probes.push(scope.spawn(move || {
                netns.run(|| {
                    std::thread::scope(|scope| {
                        let mut cells = Vec::new();
                        for to in node.pods.iter().filter(|to| to.name != from) {
                            for protocol in [Protocol::Tcp, Protocol::Udp] {
                                for (family, address) in to.addresses.into_iter().enumerate() {
                                    for port in PORTS {
                                        let target = SocketAddr::new(address, port);
                                        let probe = scope.spawn(move || reaches(protocol, target));
                                        cells
                                            .push(((from, to.name, protocol, family, port), probe));
                                    }
                                }
                            }
                        }
                        cells
                            .into_iter()
                            .filter_map(|(cell, probe)| probe.join().unwrap().then_some(cell))
                            .collect::<Vec<_>>()
                    })
                })
            }));
        }
        probes
            .into_iter()
            .flat_map(|probe| probe.join().unwrap())
            .collect()
    })
}

#[test]
fn the_truth_table_holds_for_tcp_and_udp_and_both_families() {
    let pods = [("a", 1), ("b", 2), ("c", 3), ("d", 4), ("e", 200)];
    let Some(node) = Node::new(&pods) else { return };
    let mut plan = truth_plan(&node);
    let e = node.pod("e");
    plan.endpoints
        .insert(e.interface(), e.endpoint(Binding::Isolated, Binding::Open));
    let mut table = dataplane(&node, &plan);
    node.netns.list_ruleset();

    // By hand: which ports each may reach of each. d is behind an unknown interface, e is isolated.
    let expected = |from: &str, to: &str| -> &'static [u16] {
        match (from, to) {
            ("host", _) => &[80, 81, 82],
            ("d", _) | (_, "d" | "e") => &[],
            ("a", "b") => &[80, 82],
            ("e", "b") => &[80, 81, 82],
            ("c", "b") => &[82],
            ("c", "a") => &[80],
            ("c", _) => &[],
            _ => &[80, 81, 82],
        }
    };
    let mut wanted = BTreeSet::new();
    let names = ["host", "a", "b", "c", "d", "e"];
    for from in names {
        for to in &names[1..] {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for family in 0..2 {
                    for port in expected(from, to) {
                        if from != *to {
                            wanted.insert((from, *to, protocol, family, *port));
                        }
                    }
                }
            }
        }
    }
    let got = reachable(&node);
    let missing: Vec<_> = wanted.difference(&got).collect();
    let leaked: Vec<_> = got.difference(&wanted).collect();
    assert!(
        missing.is_empty() && leaked.is_empty(),
        "missing {missing:?}, leaked {leaked:?}"
    );
    println!("{} cells reached, as expected", got.len());

    let classes = table.drop_counters().unwrap();
    let other = table.other_drops().unwrap();
    println!("drops {classes:?} {other:?}");
    assert!(classes[&IN_B] > 0 && classes[&OUT_C] > 0, "{classes:?}");
    // d is in no anti-spoof set, so what it sends counts as spoofed; what is sent to it as unknown.
    assert!(
        other.unknown_interface > 0 && other.isolated > 0 && other.spoofed > 0,
        "{other:?}"
    );
    assert_eq!(other.midstream, 0, "{other:?}");
}

#[test]
fn a_drop_is_counted_against_its_class_and_a_pass_is_not() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let mut table = dataplane(&node, &truth_plan(&node));
    let b = node.pod("b").addresses[0];
    node.pod("a").netns.run(|| {
        assert!(reaches(Protocol::Udp, SocketAddr::new(b, 80)));
        assert_eq!(table.drop_counters().unwrap()[&IN_B], 0);
        assert!(!reaches(Protocol::Udp, SocketAddr::new(b, 81)));
        assert_eq!(table.drop_counters().unwrap()[&IN_B], 1);
    });
}

#[test]
fn a_pod_cannot_use_an_address_that_is_not_its_own() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let mut table = dataplane(&node, &truth_plan(&node));
    let a = node.pod("a");
    a.netns.ip("addr add 10.9.0.3/32 dev eth0");
    a.netns.ip("addr add fd00::3/128 dev eth0 nodad");
    for (family, stolen) in ["10.9.0.3", "fd00::3"].into_iter().enumerate() {
        let before = table.other_drops().unwrap().spoofed;
        let stolen = SocketAddr::new(stolen.parse().unwrap(), 0);
        let b = SocketAddr::new(node.pod("b").addresses[family], 82);
        let host: IpAddr = [NODE4, NODE6][family].parse().unwrap();
        a.netns.run(|| {
            assert!(!udp_from(stolen, b), "{stolen} to another pod");
            assert!(
                !udp_from(stolen, SocketAddr::new(host, 9)),
                "{stolen} to the node"
            );
        });
        assert_eq!(table.other_drops().unwrap().spoofed, before + 2, "{stolen}");
    }
}

#[test]
fn packets_to_the_node_are_judged_by_the_pods_egress_class() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let mut plan = truth_plan(&node);
    let _table = dataplane(&node, &plan);
    let servers: Vec<_> = node.netns.run(|| {
        [NODE4, NODE6]
            .map(|address| TcpListener::bind((address.parse::<IpAddr>().unwrap(), 10250)).unwrap())
            .into()
    });
    let from = |pod: &str, family: usize| {
        let server: &TcpListener = &servers[family];
        let target = server.local_addr().unwrap();
        node.pod(pod).netns.run(|| reaches(Protocol::Tcp, target))
    };
    for family in 0..2 {
        assert!(from("a", family), "open egress, family {family}");
        assert!(
            !from("c", family),
            "a class without the node, family {family}"
        );
    }
    drop(_table);
    let class = plan.classes.get_mut(&OUT_C).unwrap();
    class
        .cells
        .insert(cell(IdentityId::THIS_NODE.0, Protocol::Tcp, 10250));
    let _table = dataplane(&node, &plan);
    for family in 0..2 {
        assert!(
            from("c", family),
            "a class with the node's identity, family {family}"
        );
    }
}

#[test]
fn icmp_follows_rules_without_ports_and_errors_always_come_back() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3), ("e", 200)]) else {
        return;
    };
    let mut plan = truth_plan(&node);
    let e = node.pod("e");
    plan.endpoints
        .insert(e.interface(), e.endpoint(Binding::Open, Binding::Open));
    let _table = dataplane(&node, &plan);
    let ping = |from: &str, to: &str, family: usize| {
        let target = node.pod(to).addresses[family].to_string();
        node.pod(from).netns.run(|| {
            std::process::Command::new("ping")
                .args(["-c1", "-W1", &target])
                .output()
                .map(|output| output.status.success())
        })
    };
    if let Err(error) = ping("a", "c", 0) {
        caracal_skip::missing!("ping is not installed: {error}");
        return;
    }
    for family in 0..2 {
        assert!(
            ping("e", "b", family).unwrap(),
            "ipBlock without ports, family {family}"
        );
        assert!(
            !ping("a", "b", family).unwrap(),
            "cells only, family {family}"
        );
        // A closed port behind an allowed flow: the answer is an ICMP error, which is RELATED.
        let closed = SocketAddr::new(node.pod("e").addresses[family], 9);
        let refused = node.pod("a").netns.run(|| {
            let any = if family == 0 { "0.0.0.0:0" } else { "[::]:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.connect(closed).unwrap();
            socket.set_read_timeout(Some(ANSWER)).unwrap();
            socket.send(b"x").unwrap();
            socket.recv(&mut [0; 8]).unwrap_err().kind()
        });
        assert_eq!(
            refused,
            std::io::ErrorKind::ConnectionRefused,
            "family {family}"
        );
    }
}

#[test]
fn marks_of_kube_proxy_survive_the_judgement() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let _table = dataplane(&node, &truth_plan(&node));
    let b = node.pod("b").addresses;
    for mark in ["0x0", "0x4000", "0x8000", "0xc000"] {
        let (made, words) = node.netns.nft(&format!(
            "table inet other {{ \
               chain pre {{ type filter hook prerouting priority -150; \
                 iifname \"px-a\" ct state new meta mark set {mark}; }}; \
               chain post {{ type filter hook postrouting priority 100; \
                 oifname \"px-b\" ct state new meta mark {mark} counter comment \"same\"; \
                 oifname \"px-b\" ct state new meta mark != {mark} counter comment \"other\"; }}; }}"
        ));
        assert!(made, "{words}");
        node.pod("a").netns.run(|| {
            for address in b {
                // 80 is a cell (by identity), 82 is for everybody.
                for port in [80, 82] {
                    assert!(
                        reaches(Protocol::Udp, SocketAddr::new(address, port)),
                        "mark {mark}"
                    );
                }
            }
        });
        let (_, counters) = node.netns.nft("list table inet other");
        let packets = |what: &str| {
            let rule = counters
                .lines()
                .find(|line| line.contains(&format!("\"{what}\"")));
            let words: Vec<_> = rule.unwrap().split_whitespace().collect();
            let at = words.iter().position(|word| *word == "packets").unwrap();
            words[at + 1].parse::<u64>().unwrap()
        };
        assert_eq!(
            (packets("same"), packets("other")),
            (4, 0),
            "mark {mark}: {counters}"
        );
        assert!(node.netns.nft("delete table inet other").0);
    }
}

#[test]
fn an_answer_under_way_does_not_bring_a_cut_flow_back() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let plan = truth_plan(&node);
    let mut table = dataplane(&node, &plan);
    for family in 0..2 {
        table.sync(&plan).unwrap();
        let (a, b) = (node.pod("a"), node.pod("b"));
        let bind = |pod: &Pod, port| {
            let socket = pod
                .netns
                .run(|| UdpSocket::bind((pod.addresses[family], port)).unwrap());
            socket.set_read_timeout(Some(ANSWER)).unwrap();
            socket
        };
        let (client, server) = (bind(a, 0), bind(b, 8083));
        client.connect(server.local_addr().unwrap()).unwrap();
        let mut open = plan.clone();
        for pod in [a, b] {
            open.endpoints
                .insert(pod.interface(), pod.endpoint(Binding::Open, Binding::Open));
        }
        table.apply(&plan.delta_to(&open)).unwrap();
        client.send(&[1]).unwrap();
        let (_, from) = server.recv_from(&mut [0]).unwrap();
        server.send_to(&[2], from).unwrap();
        client.recv(&mut [0]).unwrap();
        client.send(&[3]).unwrap();
        server.recv_from(&mut [0]).unwrap();

        // The server may still speak to the client; only the other way is closed.
        let mut closed = open.clone();
        closed
            .endpoints
            .insert(b.interface(), plan.endpoints[&b.interface()].clone());
        table.apply(&open.delta_to(&closed)).unwrap();
        let cut = std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(5));
                server.send_to(&[4], from).unwrap();
            });
            node.netns.run(|| {
                let affected = BTreeSet::from([b.addresses[family]]);
                let mut connection = Connection::open().unwrap();
                connection.cut_flows(&affected, |flow| match flow.destination_port() {
                    Some(8083) => Decision::Cut,
                    _ => Decision::Keep,
                })
            })
        });
        let cut = cut.unwrap();
        assert_eq!(cut.cut.len(), 1, "{cut:?}");
        println!("family {family}: {} connections came back", cut.reopened);
        client.recv(&mut [0]).expect("the answer arrives");
        client.send(&[5]).unwrap();
        let heard = server.recv_from(&mut [0]);
        assert!(heard.is_err(), "the flow lives on: {heard:?}");
    }
}

#[test]
fn an_established_flow_survives_a_new_class_and_dies_when_it_is_cut() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let plan = truth_plan(&node);
    let mut table = dataplane(&node, &plan);
    for family in 0..2 {
        table.sync(&plan).unwrap();
        let (a, b) = (node.pod("a"), node.pod("b"));
        let server = b
            .netns
            .run(|| TcpListener::bind((b.addresses[family], 8082)).unwrap());
        let target = server.local_addr().unwrap();
        let mut open = plan.clone();
        open.endpoints
            .insert(b.interface(), b.endpoint(Binding::Open, Binding::Open));
        open.classes.remove(&IN_B);
        table.apply(&plan.delta_to(&open)).unwrap();
        let mut client = a
            .netns
            .run(|| TcpStream::connect_timeout(&target, ANSWER).unwrap());
        let (mut served, _) = server.accept().unwrap();
        for stream in [&client, &served] {
            stream.set_read_timeout(Some(ANSWER)).unwrap();
        }
        let mut exchange = || -> std::io::Result<()> {
            let mut byte = [0];
            client.write_all(&[1])?;
            served.read_exact(&mut byte)?;
            served.write_all(&[2])?;
            client.read_exact(&mut byte)
        };
        exchange().unwrap();

        table.apply(&open.delta_to(&plan)).unwrap();
        exchange().expect("an established flow does not notice a new class");
        a.netns
            .run(|| assert!(!reaches(Protocol::Tcp, target), "a new flow does"));

        let result = node.netns.run(|| {
            let mut connection = Connection::open().unwrap();
            let affected = BTreeSet::from([b.addresses[family]]);
            connection.cut_flows(&affected, |flow| {
                assert!(affected.contains(&flow.destination()), "{flow:?}");
                match flow.destination_port() {
                    Some(8082) => Decision::Cut,
                    _ => Decision::Keep,
                }
            })
        });
        let cut = result.unwrap();
        assert!(
            cut.cut
                .iter()
                .any(|flow| flow.source() == a.addresses[family]),
            "{cut:?}"
        );
        assert_eq!(cut.vanished, 0, "{cut:?}");
        // The side that may still speak does not bring it back; it is told by a reset.
        let before = table.other_drops().unwrap().midstream;
        let ended = until("the connection ends", PATIENCE, || {
            served
                .write_all(&[3])
                .and_then(|()| served.read_exact(&mut [0]))
                .map_or_else(
                    |error| match error.kind() {
                        std::io::ErrorKind::WouldBlock => Err(error),
                        kind => Ok(kind),
                    },
                    |()| panic!("the connection lives on"),
                )
        });
        println!("family {family}: the server's end broke with {ended:?}");
        assert!(table.other_drops().unwrap().midstream > before);
    }
}

#[test]
fn port_ranges_and_ranges_with_ports_match_to_their_edges() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let mut plan = truth_plan(&node);
    let range = |protocol, first, last| PortMatch {
        protocol,
        first,
        last,
    };
    let mut class = Class::denying(Direction::Ingress, policy("ranges"));
    class.chain = vec![
        // One range of TCP, two of UDP.
        ChainRule {
            ports: vec![
                range(Protocol::Tcp, 81, 82),
                range(Protocol::Udp, 80, 80),
                range(Protocol::Udp, 82, 90),
            ],
            peer: PeerMatch::Identities(BTreeSet::from([IdentityId(A)])),
        },
        ChainRule {
            ports: vec![range(Protocol::Udp, 0, 65535)],
            peer: PeerMatch::Nets6(vec![AddressRange {
                first: "fd00::3".parse().unwrap(),
                last: "fd00::3".parse().unwrap(),
            }]),
        },
    ];
    plan.classes.insert(IN_B, class);
    plan.endpoints.insert(
        node.pod("c").interface(),
        node.pod("c").endpoint(Binding::Open, Binding::Open),
    );
    plan.classes.remove(&OUT_C);
    let _table = dataplane(&node, &plan);
    let got: BTreeSet<_> = reachable(&node)
        .into_iter()
        .filter(|(from, to, ..)| *from != "host" && *to == "b")
        .map(|(from, _, protocol, family, port)| (from, protocol, family, port))
        .collect();
    let mut wanted = BTreeSet::new();
    for family in 0..2 {
        wanted.extend([81, 82].map(|port| ("a", Protocol::Tcp, family, port)));
        wanted.extend([80, 82].map(|port| ("a", Protocol::Udp, family, port)));
    }
    wanted.extend(PORTS.map(|port| ("c", Protocol::Udp, 1, port)));
    assert_eq!(got, wanted);
}

#[test]
fn connections_that_others_exempt_from_tracking_are_judged_packet_by_packet() {
    let Some(node) = Node::new(&[("a", 1), ("b", 2), ("c", 3)]) else {
        return;
    };
    let _table = dataplane(&node, &truth_plan(&node));
    let server = node
        .netns
        .run(|| TcpListener::bind((NODE4.parse::<IpAddr>().unwrap(), 53)).unwrap());
    let (made, words) = node.netns.nft(
        "table inet other { \
           chain pre { type filter hook prerouting priority raw; tcp dport 53 notrack; }; \
           chain out { type filter hook output priority raw; tcp sport 53 notrack; }; }",
    );
    assert!(made, "{words}");
    let target = server.local_addr().unwrap();
    let mut client = node
        .pod("a")
        .netns
        .run(|| TcpStream::connect_timeout(&target, ANSWER).unwrap());
    let (mut served, _) = server.accept().unwrap();
    client.set_read_timeout(Some(ANSWER)).unwrap();
    served.set_read_timeout(Some(ANSWER)).unwrap();
    let mut byte = [0];
    client.write_all(&[1]).unwrap();
    served.read_exact(&mut byte).unwrap();
    served.write_all(&[2]).unwrap();
    client.read_exact(&mut byte).unwrap();
    node.pod("c")
        .netns
        .run(|| assert!(!reaches(Protocol::Tcp, target)));
}
