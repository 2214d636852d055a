//! Pods' links in real namespaces.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use std::collections::BTreeSet;
use std::net::{IpAddr, UdpSocket};
use std::time::{Duration, Instant};

use caracal_fib::link::reaper::Reaper;
use caracal_fib::pod::{PodLinkSpec, PodLinks};
use caracal_fib::{NamedNetns, Netns, link, sysctl};

use common::{addr, inside, ip, netns, prepare, rtnl, until};

const NODE: [&str; 2] = ["10.200.0.1", "fd00:200::1"];

fn spec(number: u8) -> PodLinkSpec {
    PodLinkSpec {
        host_name: format!("veth{number}"),
        pod_name: "eth0".into(),
        alternative_name: format!("caracal-container{number}-eth0"),
        alias: format!("default/pod-{number}"),
        mtu: 1450,
        pod_mac: [0x02, 0, 0, 0, 0, number],
        addresses: vec![
            addr(&format!("10.244.0.{number}")),
            addr(&format!("fd00:244::{number}")),
        ],
        node_addresses: NODE.map(addr).to_vec(),
    }
}

fn node() -> Option<NamedNetns> {
    let node = netns("node")?;
    prepare(node.netns());
    let mut rtnl = rtnl(&node);
    let lo = link::expect(&mut rtnl, "lo").unwrap();
    for address in NODE.map(addr) {
        let len = if address.is_ipv4() { 32 } else { 128 };
        link::add_address(&mut rtnl, lo.index, address, len).unwrap();
    }
    Some(node)
}

fn links(node: &NamedNetns) -> PodLinks {
    PodLinks::open(Netns::open(node.path()).unwrap()).unwrap()
}

fn udp(netns: &NamedNetns, address: IpAddr) -> UdpSocket {
    let socket = netns.netns().run(|| UdpSocket::bind((address, 0)).unwrap());
    let socket = socket.unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    socket
}

#[test]
fn the_first_packet_of_both_families_passes_in_every_direction() {
    let (Some(node), Some(a), Some(b)) = (node(), netns("a"), netns("b")) else {
        return;
    };
    let mut links = links(&node);
    for (pod, number) in [(&a, 1), (&b, 2)] {
        let spec = spec(number);
        let made = links.create_down(pod.netns(), &spec).unwrap();
        links.bring_up(pod.netns(), &spec, made).unwrap();
        // One datagram each way, sent as soon as the link is up, and none is repeated.
        for (own, node_address) in spec.addresses.iter().zip(NODE.map(addr)) {
            let (inner, outer) = (udp(pod, *own), udp(&node, node_address));
            let mut buffer = [0; 16];
            inner
                .send_to(b"first", outer.local_addr().unwrap())
                .unwrap();
            let (length, from) = outer.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from.ip()), (&b"first"[..], *own));
            outer.send_to(b"back", from).unwrap();
            let (_, from) = inner.recv_from(&mut buffer).unwrap();
            assert_eq!(
                from.ip(),
                node_address,
                "the node speaks from its own address"
            );
        }
    }
    for target in spec(2).addresses {
        let (good, text) = inside(&a, &format!("ping -c1 -W1 {target}"));
        assert!(good, "{text}");
    }
    let (good, text) = inside(&node, "ping -c1 -W1 -s 1422 -M do 10.244.0.1");
    assert!(good, "a full packet fits: {text}");
}

#[test]
fn nothing_passes_before_the_link_is_brought_up() {
    let (Some(node), Some(pod)) = (node(), netns("pod")) else {
        return;
    };
    let spec = spec(1);
    let mut links = links(&node);
    let made = links.create_down(pod.netns(), &spec).unwrap();
    let socket = udp(&pod, spec.addresses[0]);
    let receiver = udp(&node, addr(NODE[0]));
    receiver
        .set_read_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    // The kernel may refuse or drop; neither may arrive.
    let _ = socket.send_to(b"early", receiver.local_addr().unwrap());
    assert!(receiver.recv_from(&mut [0; 16]).is_err());
    links.bring_up(pod.netns(), &spec, made).unwrap();
    socket
        .send_to(b"now", receiver.local_addr().unwrap())
        .unwrap();
    receiver
        .set_read_timeout(Some(Duration::from_secs(1)))
        .unwrap();
    receiver.recv_from(&mut [0; 16]).unwrap();
}

#[test]
fn a_second_attempt_takes_over_what_the_first_has_made() {
    let (Some(node), Some(pod)) = (node(), netns("pod")) else {
        return;
    };
    let spec = spec(1);
    let mut links = links(&node);
    let first = links.create_down(pod.netns(), &spec).unwrap();
    links.bring_up(pod.netns(), &spec, first).unwrap();
    let second = links.create_down(pod.netns(), &spec).unwrap();
    links.bring_up(pod.netns(), &spec, second).unwrap();
    assert_eq!(first, second);
    let found = links.find(&spec.alternative_name).unwrap().unwrap();
    assert_eq!(found.alias.as_deref(), Some("default/pod-1"));
    assert_eq!(links.list("caracal-").unwrap().len(), 1);
    assert_eq!(links.list("other-").unwrap().len(), 0);

    // An end that died between making and naming is recognised as well.
    ip(
        &node,
        "link property del dev veth1 altname caracal-container1-eth0",
    );
    let third = links.create_down(pod.netns(), &spec).unwrap();
    assert!(links.find(&spec.alternative_name).unwrap().is_some());
    // A pair that is not as it should be is made anew.
    ip(&pod, "link set eth0 mtu 1300");
    let fourth = links.create_down(pod.netns(), &spec).unwrap();
    assert_ne!(third.host_index, fourth.host_index);
    links.bring_up(pod.netns(), &spec, fourth).unwrap();
    assert!(inside(&node, "ping -c1 -W1 10.244.0.1").0);
}

#[test]
fn routes_and_neighbours_are_permanent_and_carry_our_mark() {
    let (Some(node), Some(pod)) = (node(), netns("pod")) else {
        return;
    };
    let spec = spec(1);
    let mut links = links(&node);
    let made = links.create_down(pod.netns(), &spec).unwrap();
    links.bring_up(pod.netns(), &spec, made).unwrap();
    let cases = [
        (
            &node,
            "route show proto 215",
            "10.244.0.1 dev veth1 scope link src 10.200.0.1",
        ),
        (
            &node,
            "-6 route show proto 215",
            "fd00:244::1 dev veth1 src fd00:200::1",
        ),
        (
            &node,
            "neigh show dev veth1",
            "10.244.0.1 lladdr 02:00:00:00:00:01 PERMANENT",
        ),
        (
            &node,
            "neigh show dev veth1",
            "fd00:244::1 lladdr 02:00:00:00:00:01 PERMANENT",
        ),
        (&pod, "route show", "default via 169.254.1.1 dev eth0"),
        (
            &pod,
            "route show",
            "169.254.1.1 dev eth0 proto 215 scope link",
        ),
        (&pod, "-6 route show", "default via fe80::1 dev eth0"),
        (
            &pod,
            "neigh show",
            "169.254.1.1 dev eth0 lladdr 02:ca:5a:ca:1c:01 PERMANENT",
        ),
        (
            &pod,
            "-6 addr show dev eth0 -tentative",
            "inet6 fd00:244::1/128",
        ),
        (&pod, "link show eth0", "mtu 1450"),
    ];
    for (netns, question, expected) in cases {
        let answer = ip(netns, question);
        assert!(answer.contains(expected), "{question}: {answer}");
    }
}

#[test]
fn a_check_names_each_difference_and_a_repeated_add_repairs_it() {
    let (Some(node), Some(pod)) = (node(), netns("pod")) else {
        return;
    };
    let spec = spec(1);
    let mut links = links(&node);
    assert!(links.check(pod.netns(), &spec).unwrap()[0].contains("no link"));
    let made = links.create_down(pod.netns(), &spec).unwrap();
    links.bring_up(pod.netns(), &spec, made).unwrap();
    let none: [&str; 0] = [];
    assert_eq!(links.check(pod.netns(), &spec).unwrap(), none);
    let cases = [
        (
            &node,
            "route del 10.244.0.1",
            "the node has no route to 10.244.0.1 over veth1",
        ),
        (
            &node,
            "-6 route del fd00:244::1",
            "the node has no route to fd00:244::1 over veth1",
        ),
        (&node, "link set veth1 down", "veth1 is down"),
        (
            &pod,
            "addr del 10.244.0.1/32 dev eth0",
            "eth0 has no address 10.244.0.1",
        ),
        (
            &pod,
            "link set eth0 mtu 1280",
            "eth0 has MTU 1280, not 1450",
        ),
    ];
    for (netns, harm, difference) in cases {
        ip(netns, harm);
        let found = links.check(pod.netns(), &spec).unwrap();
        assert!(
            found.iter().any(|text| text == difference),
            "{harm}: {found:?}"
        );
        let made = links.create_down(pod.netns(), &spec).unwrap();
        links.bring_up(pod.netns(), &spec, made).unwrap();
        assert_eq!(links.check(pod.netns(), &spec).unwrap(), none, "{harm}");
    }
}

#[test]
fn buried_links_pass_nothing_and_go_in_one_batch() {
    let Some(node) = node() else { return };
    let mut links = links(&node);
    let mut pods = Vec::new();
    for number in 1..=20 {
        let Some(pod) = netns("pod") else { return };
        let spec = spec(number);
        let made = links.create_down(pod.netns(), &spec).unwrap();
        links.bring_up(pod.netns(), &spec, made).unwrap();
        pods.push(pod);
    }
    let reaper = Reaper::start(node.netns()).unwrap();
    let start = Instant::now();
    for number in 1..=19 {
        assert!(links.bury(&spec(number).alternative_name).unwrap());
        assert!(
            !links.bury(&spec(number).alternative_name).unwrap(),
            "it is dead already"
        );
    }
    println!("19 links buried in {:?}", start.elapsed());
    reaper.wake();
    assert_eq!(links.list("caracal-").unwrap().len(), 1);
    assert!(!inside(&node, "ping -c1 -W1 10.244.0.1").0);
    until("the reaper removes them", || {
        let shown = ip(&node, "-o link show type veth");
        let left: BTreeSet<&str> = shown.lines().collect();
        if left.len() == 1 { Ok(()) } else { Err(shown) }
    });
    println!("19 links gone after {:?}", start.elapsed());
    assert!(inside(&node, "ping -c1 -W1 10.244.0.20").0);
    // The same container comes back.
    let again = spec(1);
    let made = links.create_down(pods[0].netns(), &again).unwrap();
    links.bring_up(pods[0].netns(), &again, made).unwrap();
    assert!(inside(&node, "ping -c1 -W1 10.244.0.1").0);
}

#[test]
fn making_a_link_takes_milliseconds() {
    let Some(node) = node() else { return };
    let mut links = links(&node);
    let mut times = Vec::new();
    for number in 1..=20 {
        let Some(pod) = netns("pod") else { return };
        let spec = spec(number);
        let start = Instant::now();
        let made = links.create_down(pod.netns(), &spec).unwrap();
        links.bring_up(pod.netns(), &spec, made).unwrap();
        times.push(start.elapsed());
    }
    times.sort();
    println!(
        "link for a pod: median {:?}, worst {:?}",
        times[10], times[19]
    );
}

#[test]
fn settings_are_repaired_once_and_then_left_alone() {
    let Some(node) = netns("node") else { return };
    let hostile = [
        ("net/ipv4/ip_forward", 0),
        ("net/ipv4/conf/all/rp_filter", 1),
        ("net/ipv4/fib_multipath_hash_policy", 0),
        ("net/ipv6/conf/all/forwarding", 0),
    ];
    ip(&node, "link add up1 type veth peer name far1");
    let (first, second, drift) = node
        .netns()
        .run(|| {
            for (key, value) in hostile {
                sysctl::write(key, value).unwrap();
            }
            sysctl::write("net/ipv6/conf/up1/accept_ra", 1).unwrap();
            sysctl::write("net/ipv6/conf/far1/accept_ra", 0).unwrap();
            let settings = sysctl::node_settings("veth").unwrap();
            let first = sysctl::repair(&settings);
            let second = sysctl::repair(&settings);
            sysctl::write("net/ipv4/ip_forward", 0).unwrap();
            (first, second, sysctl::repair(&settings))
        })
        .unwrap();
    assert!(first.failed.is_empty(), "{:?}", first.failed);
    assert!(first.missing.is_empty(), "{:?}", first.missing);
    let changed: Vec<&str> = first
        .changed
        .iter()
        .map(|change| change.key.as_str())
        .collect();
    for (key, _) in hostile {
        assert!(changed.contains(&key), "{key} not in {changed:?}");
    }
    assert!(changed.contains(&"net/ipv6/conf/up1/accept_ra"));
    assert!(
        !changed.contains(&"net/ipv6/conf/far1/accept_ra"),
        "off stays off"
    );
    assert!(second.changed.is_empty(), "{:?}", second.changed);
    assert_eq!(drift.changed[0].to_string(), "net/ipv4/ip_forward: 0 -> 1");
}

#[test]
fn a_namespace_ends_with_its_handle_and_a_thread_never_leaks_one() {
    let Some(one) = netns("one") else { return };
    let before = Netns::current().unwrap().inode().unwrap();
    let within = one
        .netns()
        .run(|| Netns::current().unwrap().inode().unwrap())
        .unwrap();
    assert_eq!(within, one.netns().inode().unwrap());
    assert_ne!(within, before);
    assert_eq!(before, Netns::current().unwrap().inode().unwrap());
    let path = one.path().to_owned();
    assert!(
        NamedNetns::create(one.name()).is_err(),
        "a name is taken once"
    );
    drop(one);
    assert!(!path.exists());
    assert!(
        Netns::open(&path)
            .unwrap_err()
            .to_string()
            .contains("cannot open")
    );
}
