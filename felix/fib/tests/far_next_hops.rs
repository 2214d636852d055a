//! Next hops that are on no link of the node: a node in another rack, a reflector's client.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use caracal_bgp_speaker::fib::Reachability;
use caracal_bgp_speaker::{Fib, FibEvent, FibNextHop};
use caracal_fib::FibOptions;

use common::subject::{Subject, next_hop};
use common::{BOTH_V4, BOTH_V6, Fabric, ip, objects, routes, shows, until};

#[test]
fn the_speaker_is_told_where_next_hops_lead() {
    let Some(fabric) = Fabric::new("track") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    subject.synced();
    let far = next_hop("10.250.0.7");
    let told = |subject: &mut Subject, wanted: FibNextHop| {
        subject.event("reached", |event| match event {
            FibEvent::Reached {
                next_hop,
                reachability,
            } if *next_hop == wanted => Some(*reachability),
            _ => None,
        })
    };
    let near = next_hop("10.0.1.2");
    subject.fib.track(vec![(far, true), (near, true)]);
    assert_eq!(told(&mut subject, far), Reachability::Unreachable);
    // A route of ours, of another program, and none.
    subject.ask(&[("10.250.0.0/24", BOTH_V4)]);
    let ours = "10.250.0.0/24".parse().unwrap();
    assert_eq!(told(&mut subject, far), Reachability::Over(ours));
    ip(node, "route add 10.250.0.7/32 via 10.0.1.2");
    assert_eq!(told(&mut subject, far), Reachability::Direct);
    fabric.set_carrier(1, false);
    assert_eq!(told(&mut subject, near), Reachability::Unreachable);
    fabric.set_carrier(1, true);
    assert_eq!(told(&mut subject, near), Reachability::Direct);
    subject.fib.stop();
}

#[test]
fn a_node_behind_the_fabric_is_reached_over_the_routes_to_it_and_follows_them() {
    let Some(fabric) = Fabric::new("far") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    subject.synced();
    let far = subject.ask(&[
        ("10.64.3.0/26", &["10.250.0.7"]),
        ("fd00:64::/64", &["fd00:250::7"]),
    ]);
    for seq in [far - 1, far] {
        let why = subject.failed(seq);
        assert!(why.contains("no route leads there"), "{why}");
    }
    // The fabric tells of the node itself.
    subject.ask(&[("10.250.0.7/32", BOTH_V4), ("fd00:250::7/128", BOTH_V6)]);
    subject.installed(far - 1);
    subject.installed(far);
    let over_both = |to: &str, routers: &[&str]| {
        let [first, second] = routers else {
            unreachable!("two routers")
        };
        let both = [(first, "up1"), (second, "up2")];
        let both = both.map(|(router, link)| format!("nexthop via {router} dev {link} weight 1"));
        until(to, || {
            let text = routes(node).replace("\n\tnexthop", " nexthop");
            let line = text.lines().find(|line| line.starts_with(to));
            let found = line.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            match found {
                Some(line) if both.iter().all(|one| line.contains(one)) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
    };
    over_both("10.64.3.0/26", BOTH_V4);
    over_both("fd00:64::/64", BOTH_V6);

    // One router is gone, and then comes back.
    fabric.set_carrier(1, false);
    until("the way that is left", || {
        shows(node, "via 10.0.2.2 dev up2").and_then(|()| match routes(node) {
            text if text.contains("dev up1") => Err(text),
            _ => Ok(()),
        })
    });
    assert!(routes(node).contains("10.64.3.0/26"), "{}", routes(node));
    fabric.set_carrier(1, true);
    over_both("10.64.3.0/26", BOTH_V4);

    // The fabric takes its word back.
    subject.ask(&[("10.250.0.7/32", &[])]);
    let why = subject.failed(far - 1);
    assert!(why.contains("no route leads there"), "{why}");
    assert!(!routes(node).contains("10.64.3.0/26"), "{}", routes(node));
    subject.fib.stop();
}

#[test]
fn routes_of_others_carry_next_hops_as_long_as_they_are_there() {
    let Some(fabric) = Fabric::new("others") else {
        return;
    };
    let node = &fabric.node;
    ip(node, "route add default via 10.0.1.2");
    let mut subject = Subject::start(node, FibOptions::default());
    subject.synced();
    let seq = subject.ask(&[("10.64.3.0/26", &["192.0.2.9"])]);
    subject.installed(seq);
    shows(node, "10.64.3.0/26 nhid").unwrap();
    until("over the default route", || {
        shows(node, "via 10.0.1.2 dev up1")
    });

    ip(
        node,
        "route add 192.0.2.0/24 proto static nexthop via 10.0.1.2 nexthop via 10.0.2.2",
    );
    until("over the longer one", || {
        shows(node, "nexthop via 10.0.2.2 dev up2")
    });
    ip(node, "route replace 192.0.2.0/24 proto static via 10.0.2.2");
    until("over what took its place", || match routes(node) {
        text if text.contains("dev up1") => Err(text),
        _ => shows(node, "via 10.0.2.2 dev up2"),
    });
    ip(node, "route del 192.0.2.0/24");
    until("over the default route again", || match routes(node) {
        text if text.contains("dev up2") => Err(text),
        _ => shows(node, "via 10.0.1.2 dev up1"),
    });
    ip(node, "route add unreachable 192.0.2.9/32");
    let why = subject.failed(seq);
    assert!(
        why.contains("dropped by the route to 192.0.2.9/32"),
        "{why}"
    );
    assert!(!routes(node).contains("10.64.3.0/26"), "{}", routes(node));
    ip(node, "route del unreachable 192.0.2.9/32");
    subject.installed(seq);
    ip(node, "route del default");
    let why = subject.failed(seq);
    assert!(why.contains("no route leads there"), "{why}");
    until("nothing of ours is left", || {
        let left = routes(node) + &objects(node);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    subject.fib.stop();
}

#[test]
fn a_restart_finds_routes_over_far_next_hops_as_it_would_make_them() {
    let Some(fabric) = Fabric::new("again") else {
        return;
    };
    let node = &fabric.node;
    let wanted: &[(&str, &[&str])] = &[
        ("10.250.0.7/32", BOTH_V4),
        ("10.64.3.0/26", &["10.250.0.7"]),
        ("10.64.4.0/26", &["10.250.0.7"]),
    ];
    let mut first = Subject::start(node, FibOptions::default());
    let seq = first.ask(wanted);
    first.installed(seq);
    first.synced();
    let before = routes(node) + &objects(node);
    first.fib.stop();
    let mut second = Subject::start(node, FibOptions::default());
    let seq = second.ask(wanted);
    second.installed(seq);
    second.synced();
    assert_eq!(before, routes(node) + &objects(node));
    second.fib.stop();
}
