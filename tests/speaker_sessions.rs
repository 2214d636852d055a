//! What ends sessions of `caracal speaker`, and what becomes of them then: a peer that tells too much, and paths that
//! BFD finds dead, across a router and on a link without addresses.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;
#[path = "interop/route.rs"]
#[allow(dead_code, reason = "the matrix takes the rest of it")]
mod route;
#[path = "interop/scripted.rs"]
#[allow(dead_code, reason = "the matrix takes the rest of it")]
mod scripted;

use std::path::Path;
use std::time::{Duration, Instant};

use caracal_lab::namespace::Namespace;
use caracal_lab::process::until;
use common::is_root;
use common::net::{Net, Started, caracal};
use route::Route;
use scripted::{Identity, Scripted};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(40);

/// The one session of a host.
fn peer(net: &Net, host: &str) -> Result<Value, String> {
    let answer = net.bgp(host, &["peers"])?;
    let peer = answer["peers"].get(0).cloned();
    peer.ok_or_else(|| answer.to_string())
}

fn logged(net: &Net, host: &str, words: &[&str]) -> bool {
    let log = net.log(host);
    log.lines()
        .any(|line| words.iter().all(|word| line.contains(word)))
}

fn limits(action: &str) -> String {
    format!(
        "\
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{asNumber: 65000, routerID: 10.0.0.1, nodeToNodeMeshEnabled: false, transit: true}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: talker}}
spec:
  peerIP: 10.0.0.2
  asNumber: 65001
  passive: true
  maxPrefixes: [{{family: ipv4-unicast, limit: 4, warningPercent: 75, {action}}}]
"
    )
}

fn told(count: usize) -> Vec<Route> {
    let route = |number| {
        Route::new(&format!("10.9.{number}.0/24"))
            .via("10.0.0.2")
            .path("65001")
    };
    (0..count).map(route).collect()
}

/// A speaker on `r` and a scripted peer on `p`.
fn talker(action: &str) -> (Net, Scripted) {
    let mut net = Net::new(&["r", "p"]);
    net.cable([("r", "e1", "10.0.0.1/24"), ("p", "e1", "10.0.0.2/24")]);
    net.start_speaker("r", &limits(action));
    let there = Namespace::at(Path::new(&format!("/run/netns/{}", net.namespace("p"))));
    let identity = Identity {
        asn: 65_001,
        address: "10.0.0.2".parse().unwrap(),
        remote: "10.0.0.1".parse().unwrap(),
        remote_asn: 65_000,
    };
    let talker = Scripted::start(&there, identity);
    (net, talker)
}

const NEARS: &str = "the peer nears its prefix limit";
const EXCEEDS: &str = "the peer exceeds its prefix limit";

fn received(net: &Net, count: usize) -> Result<Value, String> {
    let peer = peer(net, "r")?;
    let families = peer["routes"]["families"].as_array();
    let mut families = families.into_iter().flatten();
    let found = families.any(|it| it["family"] == "ipv4-unicast" && it["received"] == count);
    let up = peer["state"] == "Established";
    if found && up {
        Ok(peer)
    } else {
        Err(peer.to_string())
    }
}

#[test]
fn a_peer_that_tells_too_much_is_warned_about_and_then_left_alone_for_a_while() {
    const PAUSE: Duration = Duration::from_secs(2);
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let (net, talker) = talker("action: Terminate, restartAfter: 2s");
    talker.tell(&told(2));
    until("a modest peer", PATIENCE, || received(&net, 2)).unwrap();
    assert!(!logged(&net, "r", &[NEARS]), "{}", net.log("r"));

    // Three quarters of four.
    talker.tell(&told(3));
    until("nearly all", PATIENCE, || received(&net, 3)).unwrap();
    let warned = || {
        let warned = logged(
            &net,
            "r",
            &["WARN", NEARS, "count=3", "limit=4", "peer=talker"],
        );
        warned.then_some(()).ok_or_else(|| net.log("r"))
    };
    until("the warning", PATIENCE, warned).unwrap();
    talker.tell(&told(4));
    until("all that it may", PATIENCE, || received(&net, 4)).unwrap();
    assert!(!logged(&net, "r", &[EXCEEDS]), "{}", net.log("r"));

    talker.tell(&told(5));
    // RFC 4486 §4: Cease, Maximum Number of Prefixes Reached.
    let ended = || {
        let peer = peer(&net, "r")?;
        let said = peer["last_sent_error"]["text"].as_str().unwrap_or_default();
        let ended = said.to_lowercase().contains("maximum number of prefixes");
        ended
            .then_some(peer.clone())
            .ok_or_else(|| peer.to_string())
    };
    let down = until("the end of the session", PATIENCE, ended).unwrap();
    let since = Instant::now();
    assert_ne!(down["state"], "Established");
    assert_eq!(down["why"]["reason"], "prefix-limit-exceeded", "{down}");
    assert!(logged(
        &net,
        "r",
        &["WARN", EXCEEDS, "count=5", "limit=4", "peer=talker"]
    ));
    let heard = || {
        let trouble = talker.trouble();
        let heard = trouble
            .to_lowercase()
            .contains("maximum number of prefixes");
        heard.then_some(()).ok_or(trouble)
    };
    until("what the peer read", PATIENCE, heard).unwrap();
    // All that it told is gone, from the kernel, too.
    let routes = net.output("r", "ip", &["route", "show", "10.9.0.0/16"]);
    assert_eq!(routes, "", "{}", net.log("r"));

    // It goes on dialling, and is let in when its time is over.
    talker.tell(&told(1));
    let back = until("the peer back", PATIENCE, || received(&net, 1)).unwrap();
    // The end was seen after it happened, by at most a look or two.
    let away = since.elapsed();
    assert!(away + Duration::from_millis(700) >= PAUSE, "{away:?}");
    assert_eq!(back["established_count"], 2, "{back}");
}

#[test]
fn a_peer_that_tells_too_much_may_stay_where_only_a_warning_is_wanted() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let (net, talker) = talker("action: Warn");
    talker.tell(&told(6));
    let seen = until("all of it", PATIENCE, || received(&net, 6)).unwrap();
    assert_eq!(seen["established_count"], 1);
    let warned = || {
        let warned = logged(&net, "r", &["WARN", EXCEEDS, "limit=4", "peer=talker"]);
        warned.then_some(()).ok_or_else(|| net.log("r"))
    };
    until("the warning", PATIENCE, warned).unwrap();
}

/// Manifests of a speaker with one peer.
fn watched(asn: u32, router_id: &str, peer: &str) -> String {
    let prefix = format!("10.{}.0.0/16", asn - 64_000);
    let peer = format!(
        "\
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: other}}
spec:
  holdTime: 90s
  bfd: {{minimumTransmitInterval: 100ms, minimumReceiveInterval: 100ms, detectMultiplier: 8}}
  {peer}
"
    );
    common::net::transit_speaker(asn, router_id, &peer, &[prefix])
}

fn start_bfd(net: &mut Net, host: &str) -> Started {
    let mut command = net.command(host, caracal());
    command.args(["bfd", "--run-dir"]).arg(net.folder(host));
    net.start(host, command)
}

/// The BFD sessions of a host, as its process shows them.
fn bfd_sessions(net: &Net, host: &str) -> String {
    let folder = net.folder(host);
    let folder = folder.to_str().unwrap();
    net.output(
        host,
        caracal().to_str().unwrap(),
        &["bfd", "sessions", "--run-dir", folder],
    )
}

/// Waits until both sides have a session that BFD watches.
fn up(net: &Net, hosts: [&str; 2]) {
    for host in hosts {
        let up = || {
            let peer = peer(net, host)?;
            let up = peer["state"] == "Established" && peer["bfd"]["state"] == "Up";
            up.then_some(())
                .ok_or_else(|| format!("{host}: {peer:#}\n{}", net.log(host)))
        };
        until("sessions with BFD", PATIENCE, up).unwrap();
    }
}

/// Waits until `host` has ended its session because of BFD: long before the hold time is over.
fn down_by_bfd(net: &Net, host: &str) {
    let since = Instant::now();
    let down = || {
        let peer = peer(net, host)?;
        let down = peer["state"] != "Established" && peer["why"]["reason"] == "bfd-down";
        down.then_some(())
            .ok_or_else(|| format!("{peer:#}\n{}", net.log(host)))
    };
    until("the session down", PATIENCE, down).unwrap();
    assert!(
        since.elapsed() < Duration::from_secs(45),
        "{:?}",
        since.elapsed()
    );
}

#[test]
fn bfd_watches_a_path_across_a_router_that_leads_by_a_gateway() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["near", "router", "far"]);
    net.cable([
        ("near", "e1", "10.0.1.1/24"),
        ("router", "e1", "10.0.1.254/24"),
    ]);
    net.cable([
        ("router", "e2", "10.0.2.254/24"),
        ("far", "e1", "10.0.2.1/24"),
    ]);
    net.output("router", "sysctl", &["-q", "net.ipv4.ip_forward=1"]);
    // Near knows the way by its configuration alone.
    net.ip("far", "route add default via 10.0.2.254");
    for host in ["near", "far"] {
        start_bfd(&mut net, host);
    }
    let near = "peerIP: 10.0.2.1\n  asNumber: 64002\n  ebgpMultiHop: 2\n  reachableBy: 10.0.1.254";
    let far = "peerIP: 10.0.1.1\n  asNumber: 64001\n  ebgpMultiHop: 2";
    net.start_speaker("near", &watched(64_001, "10.0.1.1", near));
    net.start_speaker("far", &watched(64_002, "10.0.2.1", far));
    up(&net, ["near", "far"]);
    for (host, other) in [("near", "10.0.2.1"), ("far", "10.0.1.1")] {
        let sessions = bfd_sessions(&net, host);
        let line = sessions.lines().find(|line| line.starts_with(other));
        let line = line.unwrap_or_else(|| panic!("{sessions}"));
        assert!(line.contains("multihop") && line.contains(" Up "), "{line}");
    }
    let way = net.output("near", "ip", &["route", "show", "10.0.2.1"]);
    assert!(way.contains("proto 214"), "{way}");
    let way = net.output("near", "ip", &["route", "get", "10.0.2.1"]);
    assert!(way.contains("via 10.0.1.254 dev e1"), "{way}");

    // The links at both ends stay up.
    net.output("router", "sysctl", &["-q", "net.ipv4.ip_forward=0"]);
    for host in ["near", "far"] {
        down_by_bfd(&net, host);
    }
    net.output("router", "sysctl", &["-q", "net.ipv4.ip_forward=1"]);
    up(&net, ["near", "far"]);
}

#[test]
fn bfd_watches_a_link_whose_ends_have_found_each_other() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["left", "right"]);
    let right = net.namespace("right");
    net.ip(
        "left",
        &format!("link add e1 type veth peer name e1 netns {right}"),
    );
    let mut processes = Vec::new();
    for (host, asn, other) in [("left", 64_001, 64_002), ("right", 64_002, 64_001)] {
        net.ip(host, "link set e1 up");
        processes.push(start_bfd(&mut net, host));
        let peer = format!("interface: e1\n  asNumber: {other}");
        let router_id = format!("192.0.2.{}", asn - 64_000);
        net.start_speaker(host, &watched(asn, &router_id, &peer));
    }
    up(&net, ["left", "right"]);
    for host in ["left", "right"] {
        let sessions = bfd_sessions(&net, host);
        let line = sessions.lines().find(|line| line.starts_with("fe80:"));
        let line = line.unwrap_or_else(|| panic!("{sessions}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((words[2], words[3]), ("e1", "Up"), "{line}");
    }
    // Only BFD falls silent: the link is up, and the speaker there would go on.
    net.signal(processes[1], "-STOP");
    down_by_bfd(&net, "left");
    net.signal(processes[1], "-CONT");
    up(&net, ["left", "right"]);
}

#[test]
fn strict_peers_agree_on_waiting_for_bfd_which_comes_last() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["left", "right"]);
    net.cable([
        ("left", "e1", "10.0.0.0/31"),
        ("right", "e1", "10.0.0.1/31"),
    ]);
    start_bfd(&mut net, "left");
    for (host, asn, other) in [("left", 64_001, 1), ("right", 64_002, 0)] {
        let peer = format!("peerIP: 10.0.0.{other}\n  peerAS: External");
        let router_id = format!("192.0.2.{}", asn - 64_000);
        let manifests = watched(asn, &router_id, &peer);
        let manifests =
            manifests.replace("detectMultiplier: 8", "detectMultiplier: 8, strict: true");
        net.start_speaker(host, &manifests);
    }
    for host in ["left", "right"] {
        let waits = || {
            let peer = peer(&net, host)?;
            let waits = peer["state"] == "OpenSent" && peer["why"]["reason"] == "awaits-path";
            waits.then_some(peer).ok_or_else(|| net.log(host))
        };
        let peer = until("the session waits", PATIENCE, waits).unwrap();
        assert_eq!(peer["established_count"], 0, "{peer:#}");
    }
    start_bfd(&mut net, "right");
    up(&net, ["left", "right"]);
    for host in ["left", "right"] {
        let peer = peer(&net, host).unwrap();
        assert_eq!(peer["terms"]["bfd_strict"], true, "{peer:#}");
    }
}
