//! The speaker's routes in real namespaces.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::snapshot::KernelRoute;
use caracal_bgp_speaker::{Drift, Fib, FibEvent};
use caracal_fib::{FibOptions, NamedNetns, PROTOCOL_BGP, PreferredSource, link};
use netlink_packet_core::Parseable;
use netlink_packet_route::route::{RouteAttribute, RouteMessage};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;

use common::subject::{Subject, forwarding, next_hop};
use common::{BOTH_V4, BOTH_V6, Fabric, ip, objects, prepare, routes, rtnl, shows, until};

#[test]
fn routes_of_both_families_are_installed_replaced_and_withdrawn() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    let index = link::expect(&mut rtnl(node), "up1").unwrap().index;
    let over_link_local = format!("fe80::2%{index}");
    let seq = subject.ask(&[
        ("10.1.0.0/26", BOTH_V4),
        ("10.2.0.0/26", &["10.0.1.2"]),
        ("10.3.0.0/26", &[&over_link_local]),
        ("fd00:1::/64", BOTH_V6),
        ("0.0.0.0/0", BOTH_V4),
        ("::/0", &[&over_link_local]),
    ]);
    subject.installed(seq);
    for expected in [
        "10.2.0.0/26 nhid",
        "fd00:1::/64 nhid",
        "default nhid",
        "via inet6 fe80::2 dev up1",
        "nexthop via 10.0.1.2 dev up1 weight 1",
        "nexthop via 10.0.2.2 dev up2 weight 1",
        "nexthop via fd00:0:0:2::2 dev up2 weight 1",
    ] {
        until(expected, || shows(node, expected));
    }
    let both = forwarding(&[("10.0.1.2", "up1"), ("10.0.2.2", "up2")]);
    assert_eq!(subject.look("10.1.0.0/26"), (both, true));
    let link_local = forwarding(&[("fe80::2", "up1")]);
    assert_eq!(subject.look("10.3.0.0/26"), (link_local, true));
    assert_eq!(subject.look("10.9.0.0/26"), (KernelRoute::Absent, true));
    assert_eq!(
        objects(node).lines().count(),
        9,
        "shared: {}",
        objects(node)
    );

    let seq = subject.ask(&[("10.1.0.0/26", &["10.0.2.2"]), ("fd00:1::/64", &[])]);
    subject.installed(seq - 1);
    subject.installed(seq);
    assert!(!routes(node).contains("fd00:1::"), "{}", routes(node));
    subject.synced();
    let names = [
        "10.1.0.0/26",
        "10.2.0.0/26",
        "10.3.0.0/26",
        "0.0.0.0/0",
        "::/0",
    ];
    let all: Vec<(&str, &[&str])> = names.iter().map(|name| (*name, &[][..])).collect();
    let seq = subject.ask(&all);
    subject.installed(seq);
    until("no route and no object is left", || {
        let left = routes(node) + &objects(node);
        if left.is_empty() { Ok(()) } else { Err(left) }
    });
    subject.fib.stop();
}

#[test]
fn a_route_without_next_hops_drops_its_packets_and_ipv4_goes_over_ipv6_next_hops() {
    let Some(fabric) = Fabric::new("drop") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    subject.synced();
    let seq = subject.ask_to_drop("203.0.113.7/32");
    subject.installed(seq);
    shows(node, "blackhole 203.0.113.7").unwrap();
    let dropping = KernelRoute::Dropping {
        protocol: PROTOCOL_BGP,
    };
    assert_eq!(subject.look("203.0.113.7/32"), (dropping, true));
    let seq = subject.ask(&[("203.0.113.7/32", BOTH_V4)]);
    subject.installed(seq);
    shows(node, "203.0.113.7 nhid").unwrap();
    let seq = subject.ask(&[("203.0.113.7/32", BOTH_V6)]);
    subject.installed(seq);
    until("IPv4 over IPv6 next hops", || {
        shows(node, "nexthop via inet6 fd00:0:0:1::2")
    });
}

#[test]
fn a_restart_with_equal_state_writes_nothing_and_leftovers_go_only_at_the_end() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    let options = FibOptions {
        blackholes: ["10.244.0.0/26", "fd00:244::/122"].map(prefix).into(),
        ..FibOptions::default()
    };
    let wanted: &[(&str, &[&str])] = &[
        ("10.1.0.0/26", BOTH_V4),
        ("10.2.0.0/26", BOTH_V4),
        ("10.3.0.0/26", &["10.0.2.2"]),
        ("fd00:1::/64", BOTH_V6),
    ];
    let mut first = Subject::start(node, options.clone());
    first.ask(wanted);
    let seq = first.ask(&[("10.9.0.0/26", &["10.0.1.2"])]);
    first.installed(seq);
    first.synced();
    let before = routes(node) + &objects(node);
    first.fib.stop();
    assert_eq!(
        before,
        routes(node) + &objects(node),
        "a stop leaves everything"
    );

    let mut watch = Watch::start(node);
    let mut second = Subject::start(node, options.clone());
    let seq = second.ask(wanted);
    second.installed(seq);
    assert_eq!(watch.heard(), Vec::<String>::new(), "equal, so not written");
    assert!(
        routes(node).contains("10.9.0.0/26"),
        "the RIB may still ask for it"
    );
    second.synced();
    until("leftovers go", || match routes(node) {
        text if text.contains("10.9.0.0/26") => Err(text),
        _ => Ok(()),
    });
    let heard = watch.heard();
    assert!(
        heard.iter().all(|line| line.starts_with("del")) && heard.len() <= 3,
        "one route, its group and perhaps its next hop: {heard:?}"
    );
    second.fib.stop();

    let mut third = Subject::start(node, options);
    let seq = third.ask(wanted);
    third.installed(seq);
    third.synced();
    assert_eq!(
        watch.heard(),
        Vec::<String>::new(),
        "equal after the end as well"
    );
    third.fib.stop();
}

#[test]
fn an_earlier_life_is_known_by_any_route_that_it_left() {
    let Some(fabric) = Fabric::new("life") else {
        return;
    };
    let node = &fabric.node;
    let with_blocks = || FibOptions {
        blackholes: ["10.244.0.0/26", "fd00:244::/122"].map(prefix).into(),
        ..FibOptions::default()
    };
    // What others left is no sign of life, nor what this one is about to write.
    ip(node, "route add blackhole 10.244.9.0/26 metric 512");
    let mut first = Subject::start(node, with_blocks());
    assert_eq!(first.control.inherited(), 0, "no earlier life");
    first.synced();
    shows(node, "blackhole 10.244.0.0/26").unwrap();
    first.fib.stop();

    // It learnt nothing.
    let mut second = Subject::start(node, with_blocks());
    assert_eq!(second.control.inherited(), 2, "{}", routes(node));
    second.synced();
    second.control.set_blackholes(BTreeSet::new());
    let seq = second.ask(&[("10.1.0.0/26", BOTH_V4)]);
    second.installed(seq);
    until("the blackholes go", || match routes(node) {
        text if text.contains("blackhole") => Err(text),
        _ => Ok(()),
    });
    second.fib.stop();

    let third = Subject::start(node, FibOptions::default());
    assert_eq!(third.control.inherited(), 1, "{}", routes(node));
    third.fib.stop();
}

// frr#22362: what the kernel had lost behind the back of the speaker did not come back.
#[test]
fn foreign_deletes_and_replacements_are_repaired_and_foreign_routes_left_alone() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    ip(node, "route add 10.7.0.0/26 via 10.0.1.2 metric 512");
    ip(
        node,
        "route add 10.1.0.0/26 via 10.0.1.2 metric 900 proto static",
    );
    ip(node, "nexthop add id 5 via 10.0.1.2 dev up1");
    let mut subject = Subject::start(node, FibOptions::default());
    subject.ask(&[("fd00:1::/64", BOTH_V6), ("10.2.0.0/26", &["10.0.1.2"])]);
    let seq = subject.ask(&[("10.1.0.0/26", BOTH_V4)]);
    subject.installed(seq);
    subject.synced();
    let seq = subject.ask(&[("10.7.0.0/26", BOTH_V4)]);
    assert!(subject.failed(seq).contains("not ours to replace"));
    let (lies_there, in_sync) = subject.look("10.7.0.0/26");
    let foreign =
        matches!(lies_there, KernelRoute::Foreign { protocol } if protocol != PROTOCOL_BGP);
    assert!(foreign && !in_sync, "{lies_there:?}");

    let good = routes(node) + &objects(node);
    let group = good
        .split_whitespace()
        .skip_while(|word| *word != "nhid")
        .nth(1)
        .unwrap()
        .to_owned();
    let work = subject.fib.work();
    let repairs = || Drift::ALL.map(|drift| work.repairs(drift));
    assert_eq!(repairs(), [0; 4], "our own writes are nobody's fault");
    // How many missing, replaced, stray, next hops and groups.
    let harms: [(String, [u64; 4]); 6] = [
        ("route del 10.1.0.0/26 metric 512".to_owned(), [1, 0, 0, 0]),
        (
            "-6 route del fd00:1::/64 metric 512".to_owned(),
            [1, 0, 0, 0],
        ),
        (
            "route replace 10.2.0.0/26 via 10.0.2.2 metric 512".to_owned(),
            [0, 1, 0, 0],
        ),
        (
            "route add 10.9.0.0/26 via 10.0.1.2 metric 512 proto 214".to_owned(),
            [0, 0, 1, 0],
        ),
        (format!("nexthop del id {group}"), [1, 0, 0, 1]),
        ("nexthop flush proto 214".to_owned(), [3, 0, 0, 7]),
    ];
    for (harm, expected) in harms {
        let before = repairs();
        ip(node, &harm);
        let start = Instant::now();
        until(&harm, || {
            let now = routes(node);
            let whole = ["10.1.0.0/26", "10.2.0.0/26", "fd00:1::/64"];
            let all = whole.iter().all(|prefix| now.contains(prefix));
            let stray = now.contains("10.9.0.0/26");
            if all && !stray && now.contains("via 10.0.1.2 dev up1 weight 1") {
                Ok(())
            } else {
                Err(now)
            }
        });
        println!("{harm}: repaired after {:?}", start.elapsed());
        assert!(start.elapsed() < Duration::from_secs(1), "{harm}");
        until("the repair counted", || {
            let now = repairs();
            let more: Vec<u64> = now.iter().zip(before).map(|(now, was)| now - was).collect();
            // A flush is many deletions, between which some are put right and deleted again.
            let enough = harm.contains("flush")
                && more
                    .iter()
                    .zip(expected)
                    .all(|(seen, least)| *seen >= least);
            if more == expected || enough {
                Ok(())
            } else {
                Err(format!("{harm}: {more:?}"))
            }
        });
    }
    let writes = work.writes();
    let counts: Vec<u64> = writes.iter().map(|written| written.took.count()).collect();
    assert!(counts[0] >= 6, "{writes:?}");
    assert_eq!(counts[1..], [0, 0], "nothing was refused: {writes:?}");
    let others = ip(node, "route show") + &ip(node, "nexthop show");
    for foreign in [
        "10.7.0.0/26 via 10.0.1.2 dev up1 metric 512",
        "10.1.0.0/26 via 10.0.1.2 dev up1 proto static metric 900",
        "id 5 via 10.0.1.2 dev up1",
    ] {
        assert!(others.contains(foreign), "{foreign}: {others}");
    }
    ip(node, "route del 10.7.0.0/26 metric 512");
    subject.installed(seq);
    subject.fib.stop();
}

#[test]
fn carrier_loss_is_told_and_its_return_restores_everything() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    let single = subject.ask(&[("10.2.0.0/26", &["10.0.1.2"])]);
    let seq = subject.ask(&[("10.1.0.0/26", BOTH_V4), ("fd00:1::/64", BOTH_V6)]);
    subject.installed(seq);
    subject.synced();
    for up in [false, true, false, true] {
        let start = Instant::now();
        fabric.set_carrier(1, up);
        subject.event("link change", |event| match event {
            FibEvent::LinkDown { name, .. } if name == "up1" && !up => Some(()),
            FibEvent::LinkUp { name, .. } if name == "up1" && up => Some(()),
            _ => None,
        });
        println!("carrier {up}: told after {:?}", start.elapsed());
        if up {
            subject.installed(single);
        } else {
            assert!(subject.failed(single).contains("no carrier"));
        }
        until("members follow the carrier", || {
            let text = routes(node);
            let member = "via 10.0.1.2 dev up1 weight 1";
            let other = text.contains("via fd00:0:0:2::2 dev up2");
            let alone = text.contains("10.2.0.0/26") == up;
            if text.contains(member) == up && alone && other {
                Ok(())
            } else {
                Err(text)
            }
        });
        println!("carrier {up}: in the kernel after {:?}", start.elapsed());
    }
    let work = subject.fib.work();
    // The whole link goes, and with it its addresses.
    ip(node, "link del up1");
    subject.event("link gone", |event| match event {
        FibEvent::LinkDown { name, .. } if name == "up1" => Some(()),
        _ => None,
    });
    until("the other member carries on", || {
        shows(node, "10.1.0.0/26 nhid").and(match routes(node) {
            text if text.contains("up1") => Err(text),
            _ => Ok(()),
        })
    });
    let repairs = Drift::ALL.map(|drift| work.repairs(drift));
    assert_eq!(repairs, [0; 4], "the kernel drops these itself");
    subject.fib.stop();
}

#[test]
fn an_unresolvable_next_hop_fails_with_a_reason_until_an_address_resolves_it() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    let seq = subject.ask(&[("10.1.0.0/26", &["192.0.2.2"])]);
    assert!(
        subject
            .failed(seq)
            .contains("192.0.2.2 is on no connected subnet")
    );
    let mixed = subject.ask(&[("fd00:1::/64", &["10.0.1.2"])]);
    assert!(subject.failed(mixed).contains("IPv4 next hop 10.0.1.2"));
    ip(node, "addr add 192.0.2.1/24 dev up2");
    let first = subject.installed(seq);
    assert!(!first, "how long it took says nothing of us");
    shows(node, "via 192.0.2.2 dev up2").unwrap();
    ip(node, "addr del 192.0.2.1/24 dev up2");
    assert!(
        subject
            .failed(seq)
            .contains("192.0.2.2 is on no connected subnet")
    );
    assert!(!routes(node).contains("10.1.0.0/26"));
    subject.fib.stop();
}

#[test]
fn batches_are_timed_by_what_the_kernel_made_of_them() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let mut subject = Subject::start(&fabric.node, FibOptions::default());
    let work = subject.fib.work();
    let counts = || -> Vec<u64> {
        let writes = work.writes().into_iter();
        writes.map(|written| written.took.count()).collect()
    };
    assert_eq!(
        counts(),
        [0, 0, 0],
        "a start with nothing to do writes nothing"
    );
    let seq = subject.ask(&[("10.1.0.0/26", BOTH_V4)]);
    assert!(subject.installed(seq), "its first answer");
    assert_eq!(counts(), [1, 0, 0]);
    // The broadcast address of the link is no gateway.
    let seq = subject.ask(&[("10.2.0.0/26", &["10.0.1.255"])]);
    let why = subject.failed(seq);
    assert!(why.contains("kernel refuses next hop 10.0.1.255"), "{why}");
    let seen = counts();
    assert!(seen[0] >= 1 && seen[1] >= 1 && seen[2] == 0, "{seen:?}");
    subject.fib.stop();
}

#[test]
fn blackholes_and_the_preferred_source_follow_the_agent() {
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    let seq = subject.ask(&[("10.1.0.0/26", BOTH_V4), ("fd00:1::/64", BOTH_V6)]);
    subject.installed(seq);
    subject.synced();
    subject.control.set_preferred_source(PreferredSource {
        v4: Some("10.200.0.1".parse().unwrap()),
        v6: Some("fd00:200::1".parse().unwrap()),
    });
    subject
        .control
        .set_blackholes(["10.244.0.0/26", "fd00:244::/122"].map(prefix).into());
    until("blackholes", || {
        shows(node, "blackhole 10.244.0.0/26").and(shows(node, "blackhole fd00:244::/122"))
    });
    assert!(
        !routes(node).contains("src"),
        "no such address yet: {}",
        routes(node)
    );
    ip(node, "addr add 10.200.0.1/32 dev lo");
    ip(node, "addr add fd00:200::1/128 dev lo nodad");
    let used = |address: &str| {
        let text = ip(node, &format!("route get {address}"));
        if text.contains("src 10.200.0.1") || text.contains("src fd00:200::1") {
            Ok(())
        } else {
            Err(text)
        }
    };
    until("source of IPv4", || used("10.1.0.1"));
    until("source of IPv6", || used("fd00:1::1"));
    ip(node, "addr del 10.200.0.1/32 dev lo");
    until("routes outlive their source", || {
        shows(node, "10.1.0.0/26 nhid")
    });
    subject.control.set_blackholes(BTreeSet::new());
    until("no blackholes", || match routes(node) {
        text if text.contains("blackhole") => Err(text),
        _ => Ok(()),
    });
    subject.fib.stop();
}

#[test]
fn ten_thousand_routes_are_written_in_batches_and_a_neighbour_moves_without_them() {
    const ROUTES: u32 = 10_000;
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    let names: Vec<String> = (0..ROUTES)
        .map(|number| format!("{}/26", std::net::Ipv4Addr::from(0x0b00_0000 + number * 64)))
        .collect();
    let all: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), BOTH_V4)).collect();
    let time = |what: &str, subject: &mut Subject, list: &[(&str, &[&str])]| {
        let start = Instant::now();
        let seq = subject.ask(list);
        subject.installed(seq);
        println!("{what} of {} routes: {:?}", list.len(), start.elapsed());
    };
    time("install", &mut subject, &all);
    let start = Instant::now();
    subject.synced();
    println!("comparison of {ROUTES} routes: {:?}", start.elapsed());
    let mut watch = Watch::start(node);
    fabric.set_carrier(2, false);
    until("the member is gone", || match objects(node) {
        text if text.contains("up2") => Err(text),
        _ => Ok(()),
    });
    fabric.set_carrier(2, true);
    until("the member is back", || match objects(node) {
        text if text.contains("up2") => Ok(()),
        text => Err(text),
    });
    let heard = watch.heard();
    let gone = heard
        .iter()
        .filter(|line| line.starts_with("del route"))
        .count();
    assert_eq!(gone, 0, "routes stay when a neighbour goes and comes");
    let single: Vec<(&str, &[&str])> = names
        .iter()
        .map(|name| (name.as_str(), &["10.0.1.2"][..]))
        .collect();
    time("replacement", &mut subject, &single);
    let none: Vec<(&str, &[&str])> = names.iter().map(|name| (name.as_str(), &[][..])).collect();
    time("removal", &mut subject, &none);
    assert_eq!(routes(node), "");
    subject.fib.stop();
}

#[test]
fn a_neighbour_that_dies_behind_a_living_link_costs_one_write_whatever_the_number_of_routes() {
    const ROUTES: u32 = 5_000;
    let Some(fabric) = Fabric::new("node") else {
        return;
    };
    let node = &fabric.node;
    // Else the kernel tells of each route when the group under it changes.
    prepare(node.netns());
    let mut subject = Subject::start(node, FibOptions::default());
    let names: Vec<String> = (0..ROUTES)
        .map(|number| format!("{}/26", std::net::Ipv4Addr::from(0x0b00_0000 + number * 64)))
        .collect();
    let over = |next_hops: &'static [&'static str]| -> Vec<(&str, &[&str])> {
        names.iter().map(|name| (&**name, next_hops)).collect()
    };
    let seq = subject.ask(&over(BOTH_V4));
    subject.installed(seq);
    subject.synced();
    let mut watch = Watch::start(node);
    let group = || ip(node, "nexthop show proto 214 groups");
    let members = |wanted: usize| {
        until("other members", || match group() {
            text if text.matches('/').count() + 1 == wanted => Ok(()),
            text => Err(text),
        });
    };
    members(2);
    // The speaker's first word, and then what it makes of its routes.
    subject.fib.lose(vec![next_hop("10.0.2.2")]);
    members(1);
    let seq = subject.ask(&over(&["10.0.1.2"]));
    subject.installed(seq);
    let seq = subject.ask(&over(BOTH_V4));
    subject.installed(seq);
    members(2);
    // Without the first word, it is no other.
    let seq = subject.ask(&over(&["10.0.1.2"]));
    subject.installed(seq);
    members(1);
    let heard = watch.heard();
    let of_routes = heard.iter().filter(|line| line.contains("route")).count();
    assert_eq!(of_routes, 0, "{:?}", &heard[..heard.len().min(10)]);
    subject.fib.stop();
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

/// Hears every change of routes and next hops in a namespace, over a socket of its own. The kernel
/// queues a notification before it acknowledges the change, so nothing has to be waited for.
struct Watch {
    socket: netlink_sys::Socket,
}

impl Watch {
    fn start(netns: &NamedNetns) -> Self {
        const ROUTES_V4: u32 = 7;
        const ROUTES_V6: u32 = 11;
        const NEXT_HOPS: u32 = 32;
        let open = || {
            let mut socket = netlink_sys::Socket::new(netlink_sys::protocols::NETLINK_ROUTE)?;
            socket.bind_auto()?;
            // A changed group is told of once per route that leads to it, unless
            // net.ipv4.nexthop_compat_mode is 0.
            setsockopt(&socket, RcvBufForce, &(64 * 1024 * 1024))?;
            for group in [ROUTES_V4, ROUTES_V6, NEXT_HOPS] {
                socket.add_membership(group)?;
            }
            socket.set_non_blocking(true)?;
            Ok::<_, std::io::Error>(socket)
        };
        let socket = netns.netns().run(open).unwrap().unwrap();
        Self { socket }
    }

    /// What was heard since the last call, without the kernel's own doings.
    fn heard(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let datagram = match self.socket.recv_from_full() {
                Ok((datagram, _)) => datagram,
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return lines,
                Err(error) => panic!("the watch lost something: {error}"),
            };
            lines.extend(describe(&datagram));
        }
    }
}

/// The first message of a notification, in words; `None` for what the kernel does by itself.
fn describe(datagram: &[u8]) -> Option<String> {
    const KERNEL: u8 = 2;
    let kind = u16::from_ne_bytes([datagram[4], datagram[5]]);
    let verb = if kind.is_multiple_of(4) { "new" } else { "del" };
    let body = &datagram[16..];
    if kind >= 104 {
        return Some(format!("{verb} next hop"));
    }
    let route = RouteMessage::parse(body).unwrap();
    let destination = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Destination(address) => Some(format!("{address:?}")),
            _ => None,
        });
    let foreign = u8::from(route.header.protocol) == KERNEL;
    (!foreign).then(|| format!("{verb} route {}", destination.unwrap_or_default()))
}
