//! Namespaces and probes that the kernel tests share.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a module of several test binaries, each of which uses its own part"
)]

pub mod subject;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use caracal_fib::link::{self, Link};
use caracal_fib::{NamedNetns, Netns, Rtnl, sysctl};

/// How long anything may take on a busy machine.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// A new namespace with a name of its own; `None`, said aloud, where none can be made.
pub fn netns(tag: &str) -> Option<NamedNetns> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let name = format!("fib-{}-{count}-{tag}", std::process::id());
    match NamedNetns::create(&name) {
        Ok(netns) => {
            link::set_loopback_up(&mut Rtnl::open_in(netns.netns()).unwrap()).unwrap();
            Some(netns)
        }
        Err(error) => {
            caracal_skip::missing!("cannot make network namespaces: {error}: {:?}", error);
            None
        }
    }
}

/// Waits for a condition; its error is the last value seen.
pub fn until<T>(what: &str, mut check: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        match check() {
            Ok(value) => return value,
            Err(last) if start.elapsed() > DEADLINE => panic!("{what}: last seen: {last}"),
            Err(_) => thread::sleep(Duration::from_millis(2)),
        }
    }
}

/// Runs `ip -n <netns> <arguments>` and returns what it prints.
pub fn ip(netns: &NamedNetns, arguments: &str) -> String {
    let output = Command::new("ip")
        .args(["-n", netns.name()])
        .args(arguments.split_whitespace())
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "ip {arguments}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program inside; whether it succeeded, and what it printed.
pub fn inside(netns: &NamedNetns, command: &str) -> (bool, String) {
    let output = Command::new("ip")
        .args(["netns", "exec", netns.name()])
        .args(command.split_whitespace())
        .output()
        .unwrap();
    let mut text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.push_str(&String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text)
}

/// The speaker's routes in the kernel.
pub fn routes(node: &NamedNetns) -> String {
    let mut text = ip(node, "route show proto 214");
    text.push_str(&ip(node, "-6 route show proto 214"));
    text
}

/// Its next-hop objects.
pub fn objects(node: &NamedNetns) -> String {
    ip(node, "nexthop show proto 214")
}

/// Whether the routes have these words in a row; the routes where not.
pub fn shows(node: &NamedNetns, expected: &str) -> Result<(), String> {
    // `ip` breaks the lines of multipath routes.
    let text = routes(node).replace("\n\tnexthop", " nexthop");
    let words: String = text.split(' ').filter(|word| !word.is_empty()).collect();
    let wanted: String = expected.split(' ').collect();
    if words.contains(&wanted) {
        Ok(())
    } else {
        Err(text)
    }
}

pub fn rtnl(netns: &NamedNetns) -> Rtnl {
    Rtnl::open_in(netns.netns()).unwrap()
}

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Both routers of a [`Fabric`], as next hops.
pub const BOTH_V4: &[&str] = &["10.0.1.2", "10.0.2.2"];
/// The same.
pub const BOTH_V6: &[&str] = &["fd00:0:0:1::2", "fd00:0:0:2::2"];

/// A node with two uplinks, `up1` and `up2`, to a router each; all addresses end in .1 on the
/// node and in .2 on the router: 10.0.<uplink>.x/24 and fd00:0:0:<uplink>::x/64.
pub struct Fabric {
    pub node: NamedNetns,
    pub routers: [NamedNetns; 2],
}

impl Fabric {
    pub fn new(tag: &str) -> Option<Self> {
        let fabric = Self {
            node: netns(tag)?,
            routers: [netns("r1")?, netns("r2")?],
        };
        // A veth whose number equals its peer's counts as a real device, whose carrier the kernel
        // reports at most once a second.
        let mut node = rtnl(&fabric.node);
        for _ in 0..3 {
            link::create_veth(&mut node, "spare", "spare2", None, None).unwrap();
            let spare = link::expect(&mut node, "spare").unwrap();
            link::delete(&mut node, spare.index).unwrap();
        }
        for (number, router) in (1..).zip(&fabric.routers) {
            let name = format!("up{number}");
            let far = Some(router.netns());
            link::create_veth(&mut node, &name, "down", far, None).unwrap();
            let near = link::expect(&mut node, &name).unwrap();
            dress(&mut node, &near, number, 1);
            let mut router = rtnl(router);
            let far = link::expect(&mut router, "down").unwrap();
            dress(&mut router, &far, number, 2);
        }
        for number in [1, 2] {
            let name = format!("up{number}");
            until("uplink ready", || {
                let link = link::expect(&mut node, &name).unwrap();
                if link.operational && link.is_usable() {
                    Ok(())
                } else {
                    Err(format!("{link:?}"))
                }
            });
        }
        Some(fabric)
    }

    /// Takes the carrier from an uplink, from the router's side.
    pub fn set_carrier(&self, uplink: usize, up: bool) {
        let mut router = rtnl(&self.routers[uplink - 1]);
        let far = link::expect(&mut router, "down").unwrap();
        link::set_up(&mut router, far.index, up).unwrap();
    }
}

fn dress(rtnl: &mut Rtnl, link: &Link, uplink: u8, host: u8) {
    let v4 = Ipv4Addr::new(10, 0, uplink, host);
    let v6 = Ipv6Addr::new(0xfd00, 0, 0, u16::from(uplink), 0, 0, 0, u16::from(host));
    link::add_address(rtnl, link.index, v4.into(), 24).unwrap();
    link::add_address(rtnl, link.index, v6.into(), 64).unwrap();
    link::set_up(rtnl, link.index, true).unwrap();
}

/// Sets what a node needs.
pub fn prepare(netns: &Netns) {
    let report = netns
        .run(|| sysctl::repair(&sysctl::node_settings("veth").unwrap()))
        .unwrap();
    assert!(report.failed.is_empty(), "{:?}", report.failed);
}
