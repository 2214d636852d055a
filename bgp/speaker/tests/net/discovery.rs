//! Router discovery on real links.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use caracal_bgp_core::ra::{ALL_NODES, Advertisement, Envelope, Message};
use caracal_bgp_speaker::net::{Discovery, Interfaces, LinkReport, LinkState};
use socket2::{Domain, Protocol, Socket, Type};

use crate::support::*;

pub(crate) fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// Discovery on `interfaces` of `host`; goes on in the background.
pub(crate) fn discover<const N: usize>(host: &Host, interfaces: [&str; N]) -> Discovery {
    host.run(async || {
        let discovery = Discovery::start(
            Interfaces::start().unwrap(),
            u64::from(host.name.len() as u32),
        );
        discovery.set(names(interfaces));
        discovery
    })
}

fn state(discovery: &Discovery, interface: &str) -> Option<LinkState> {
    let reports = discovery.reports();
    let found = reports
        .into_iter()
        .find(|report| report.interface == interface);
    found.map(|report| report.state)
}

pub(crate) fn found(discovery: &Discovery, interface: &str) -> Option<Ipv6Addr> {
    match state(discovery, interface) {
        Some(LinkState::Neighbor { address, .. }) => Some(address),
        _ => None,
    }
}

/// Waits for a report on `interface` of which `check` approves; reports before it are passed over.
async fn reported(
    discovery: &mut Discovery,
    interface: &str,
    what: &str,
    check: impl Fn(&LinkReport) -> bool,
) -> LinkReport {
    let deadline = tokio::time::Instant::now() + DEADLINE;
    let mut last = Vec::new();
    loop {
        let next = tokio::time::timeout_at(deadline, discovery.next()).await;
        let Ok(reports) = next else {
            panic!("{what}: last reported {last:#?}");
        };
        let found = reports
            .iter()
            .find(|r| r.interface == interface && check(r));
        if let Some(found) = found {
            return found.clone();
        }
        last = reports;
    }
}

fn v6(address: IpAddr) -> Ipv6Addr {
    match address {
        IpAddr::V6(address) => address,
        IpAddr::V4(_) => panic!("{address} is not link-local"),
    }
}

/// Sends an advertisement from a raw socket of its own.
fn advertise(host: &Host, interface: &str, hop_limit: u32) {
    host.inside(|| {
        let index = nix::net::if_::if_nametoindex(interface).unwrap();
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.set_multicast_hops_v6(hop_limit).unwrap();
        let octets = Message::Advertisement(Advertisement::default()).encode();
        let target = std::net::SocketAddrV6::new(ALL_NODES, 0, 0, index);
        socket.send_to(&octets, &target.into()).unwrap();
    });
}

#[test]
fn two_hosts_on_a_cable_find_each_other_in_seconds() {
    let Some([a, b]) = hosts("pair") else {
        return;
    };
    link((&a, "e1"), (&b, "e9"));
    let (ours, theirs) = (v6(link_local(&a, "e1")), v6(link_local(&b, "e9")));
    let mut first = discover(&a, ["e1"]);
    let start = Instant::now();
    let mut second = discover(&b, ["e9"]);
    let is = |address: Ipv6Addr| move |report: &LinkReport| matches!(report.state, LinkState::Neighbor { address: found, .. } if found == address);
    let report = a.run(async || reported(&mut first, "e1", "the other", is(theirs)).await);
    let index = a.inside(|| nix::net::if_::if_nametoindex("e1").unwrap());
    assert_eq!(report.ifindex, Some(index));
    assert_eq!(report.trouble, None);
    b.run(async || reported(&mut second, "e9", "the first", is(ours)).await);
    let took = start.elapsed();
    println!("found each other in {took:?}");
    // 1.5 s by the machine's timers, and what a busy machine adds.
    assert!(took < Duration::from_secs(4), "{took:?}");
}

#[test]
fn what_we_advertise_on_the_wire_is_from_our_link_and_makes_us_nobodys_default_router() {
    let Some([a, b]) = hosts("wire") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    let ours = v6(link_local(&a, "e1"));
    // A host that believes advertisements, with forwarding off.
    b.sysctl("net/ipv6/conf/e1/accept_ra", "1");
    let socket = b.inside(|| {
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6)).unwrap();
        socket.bind_device(Some(b"e1")).unwrap();
        socket.set_recv_hoplimit_v6(true).unwrap();
        socket.set_read_timeout(Some(DEADLINE)).unwrap();
        socket
    });
    let _discovery = discover(&a, ["e1"]);
    let (hops, message) = loop {
        let mut octets = [0; 2048];
        let mut parts = [std::io::IoSliceMut::new(&mut octets)];
        let mut control = nix::cmsg_space!(libc::c_int);
        let received = nix::sys::socket::recvmsg::<nix::sys::socket::SockaddrIn6>(
            std::os::fd::AsRawFd::as_raw_fd(&socket),
            &mut parts,
            Some(&mut control),
            nix::sys::socket::MsgFlags::empty(),
        )
        .unwrap();
        let source = received.address.unwrap().ip();
        let hops = received.cmsgs().unwrap().find_map(|control| match control {
            nix::sys::socket::ControlMessageOwned::Ipv6HopLimit(hops) => Some(hops),
            _ => None,
        });
        let length = received.bytes;
        let envelope = Envelope {
            source,
            hop_limit: 255,
        };
        if let Ok(Message::Advertisement(heard)) = Message::decode(&octets[..length], envelope) {
            assert_eq!(source, ours);
            break (hops, heard);
        }
    };
    assert_eq!(hops, Some(255));
    assert_eq!(message.router_lifetime, Duration::ZERO);
    assert!(message.source_link.is_some());
    let routes = std::process::Command::new("ip")
        .args(["-n", &b.name, "-6", "route", "show", "default"])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&routes.stdout),
        "",
        "b has a default route"
    );
}

#[test]
fn an_interface_may_come_late_go_lose_its_carrier_and_change_its_name() {
    let Some([a, b]) = hosts("life") else {
        return;
    };
    let mut ours = discover(&a, ["e1"]);
    let _theirs = discover(&b, ["e1"]);
    let neighbor = |report: &LinkReport| matches!(report.state, LinkState::Neighbor { .. });
    a.run(async || {
        let absent = |report: &LinkReport| report.state == LinkState::Absent;
        reported(&mut ours, "e1", "absence", absent).await;
        link((&a, "e1"), (&b, "e1"));
        let first = reported(&mut ours, "e1", "a neighbour", neighbor).await;

        b.ip(&["link", "set", "e1", "down"]);
        let down = reported(&mut ours, "e1", "loss of carrier", |report| {
            matches!(report.state, LinkState::Down(_))
        })
        .await;
        assert!(down.state.to_string().contains("carrier"), "{}", down.state);
        b.ip(&["link", "set", "e1", "up"]);
        reported(&mut ours, "e1", "the neighbour again", neighbor).await;

        // Another interface takes over the name while the first one has a new name.
        a.ip(&["link", "set", "e1", "down"]);
        a.ip(&["link", "set", "e1", "name", "old"]);
        reported(&mut ours, "e1", "absence", absent).await;
        a.ip(&["link", "del", "old"]);
        link((&a, "e1"), (&b, "e1"));
        let second = reported(&mut ours, "e1", "the neighbour on the new link", neighbor).await;
        assert_ne!(first.ifindex, second.ifindex);

        a.sysctl("net/ipv6/conf/e1/disable_ipv6", "1");
        let without = reported(&mut ours, "e1", "loss of the address", |report| {
            matches!(report.state, LinkState::Down(_))
        })
        .await;
        assert!(
            without.state.to_string().contains("IPv6"),
            "{}",
            without.state
        );
        a.sysctl("net/ipv6/conf/e1/disable_ipv6", "0");
        reported(&mut ours, "e1", "the neighbour again", neighbor).await;

        // And what is not wanted any more is not known any more.
        ours.set(BTreeSet::new());
        let reports = async || ours.reports().len();
        until("no reports", reports, |count| *count == 0).await;
    });
}

#[test]
fn several_routers_on_a_link_are_an_error() {
    let Some([a, b, c, switch]) = hosts("many") else {
        return;
    };
    join(&[&a, &b, &c], &switch);
    let mut ours = discover(&a, ["e1"]);
    let _second = discover(&b, ["e1"]);
    let expected = v6(link_local(&b, "e1"));
    a.run(async || {
        let one = |report: &LinkReport| matches!(report.state, LinkState::Neighbor { address, .. } if address == expected);
        reported(&mut ours, "e1", "one", one).await;
    });
    let _third = discover(&c, ["e1"]);
    let mut both = vec![expected, v6(link_local(&c, "e1"))];
    both.sort_unstable();
    a.run(async || {
        let report = reported(&mut ours, "e1", "two", |report| {
            report.state == LinkState::Several(both.clone())
        })
        .await;
        let text = report.state.to_string();
        assert!(text.contains("several routers"), "{text}");
    });
}

#[test]
fn an_advertisement_that_was_forwarded_is_not_believed() {
    let Some([a, b]) = hosts("far") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    link_local(&b, "e1");
    let ours = discover(&a, ["e1"]);
    a.run(async || {
        let silent = async || state(&ours, "e1");
        until("silence", silent, |state| *state == Some(LinkState::Silent)).await;
        for hops in [254, 64, 1] {
            advertise(&b, "e1", hops);
        }
        tokio::time::sleep(NEVER).await;
        assert_eq!(state(&ours, "e1"), Some(LinkState::Silent));
        // The same from the link, to show that it was the hop limit.
        advertise(&b, "e1", 255);
        let heard = async || found(&ours, "e1");
        until("the neighbour", heard, Option::is_some).await;
    });
}

#[test]
fn a_flood_on_one_link_leaves_the_others_alone() {
    let Some([a, b]) = hosts("flood") else {
        return;
    };
    link((&a, "e1"), (&b, "e1"));
    link((&a, "e2"), (&b, "e2"));
    let ours = discover(&a, ["e1", "e2"]);
    link_local(&b, "e1");
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                advertise(&b, "e1", 64);
            }
        });
        let theirs = discover(&b, ["e2"]);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            a.run(async || {
                let both = async || (found(&ours, "e2"), found(&theirs, "e2"));
                until("both on the quiet link", both, |(a, b)| {
                    a.is_some() && b.is_some()
                })
                .await;
            });
        }));
        stop.store(true, std::sync::atomic::Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn hundreds_of_links_are_tended_at_once() {
    const LINKS: usize = 300;
    let Some([a, b]) = hosts("bulk") else {
        return;
    };
    for host in [&a, &b] {
        host.sysctl("net/ipv6/conf/default/accept_dad", "0");
    }
    let commands: String = (0..LINKS)
        .map(|number| {
            let peer = &b.name;
            format!("link add x{number} type veth peer name x{number} netns {peer}\n")
        })
        .collect();
    a.ip_batch(&commands);
    let up: String = (0..LINKS)
        .map(|number| format!("link set x{number} up\n"))
        .collect();
    a.ip_batch(&up);
    b.ip_batch(&up);
    let wanted: BTreeSet<String> = (0..LINKS).map(|number| format!("x{number}")).collect();
    let ends = [&a, &b].map(|host| {
        let discovery = discover(host, []);
        discovery.set(wanted.clone());
        discovery
    });
    let start = Instant::now();
    a.run(async || {
        let missing = async || {
            let count = |discovery: &Discovery| {
                let reports = discovery.reports();
                let with =
                    |report: &&LinkReport| matches!(report.state, LinkState::Neighbor { .. });
                LINKS - reports.iter().filter(with).count()
            };
            ends.each_ref().map(count)
        };
        until("a neighbour on each link", missing, |missing| {
            *missing == [0, 0]
        })
        .await;
    });
    println!("{LINKS} links in {:?}", start.elapsed());
    let troubled: Vec<LinkReport> = ends
        .iter()
        .flat_map(Discovery::reports)
        .filter(|report| report.trouble.is_some())
        .collect();
    assert!(troubled.is_empty(), "{troubled:#?}");
}
