//! `caracal speaker` on hosts of its own: what the machine beneath has or lacks decides what it does.

mod common;

use std::time::Duration;

use caracal_bgp_speaker::net::{ao, md5};
use caracal_lab::process::until;
use common::is_root;
use common::net::Net;

const PATIENCE: Duration = Duration::from_secs(30);

/// Two nodes with IPv6 alone, whose pods have both.
const IPV6_NODES: &str = "\
apiVersion: v1
kind: Node
metadata: {name: n1, uid: u1}
status: {addresses: [{type: InternalIP, address: 'fd00:1::1'}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, uid: u2}
status: {addresses: [{type: InternalIP, address: 'fd00:1::2'}]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {asNumber: 65000}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {subnets: [{ipv4: 10.244.0.0/16, ipv6: 'fd00:244::/112'}]}
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {name: pods-1}
spec: {pool: pods, index: 1, ipv4: 10.244.1.0/26, ipv6: 'fd00:244::100/122', nodeName: n1, nodeUID: u1, epoch: 1}
status: {phase: Active}
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {name: pods-2}
spec: {pool: pods, index: 2, ipv4: 10.244.2.0/26, ipv6: 'fd00:244::200/122', nodeName: n2, nodeUID: u2, epoch: 1}
status: {phase: Active}
";

#[test]
fn pods_of_nodes_without_ipv4_are_reached_by_ipv4_over_ipv6() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["n1", "n2"]);
    net.cable([("n1", "e0", "fd00:1::1/64"), ("n2", "e0", "fd00:1::2/64")]);
    for host in ["n1", "n2"] {
        net.start_speaker(host, IPV6_NODES);
    }
    for (host, block, wanted) in [
        ("n1", "10.244.2.0/26", "via inet6 fd00:1::2 dev e0"),
        ("n1", "fd00:244::200/122", "via fd00:1::2 dev e0"),
        ("n2", "10.244.1.0/26", "via inet6 fd00:1::1 dev e0"),
        ("n2", "fd00:244::100/122", "via fd00:1::1 dev e0"),
    ] {
        let family = if block.contains(':') { "-6" } else { "-4" };
        let look = || {
            let shown = net.output(host, "ip", &[family, "route", "show", block]);
            let there = shown.contains(wanted);
            there
                .then_some(())
                .ok_or_else(|| format!("{shown}\n{}", net.log(host)))
        };
        until(&format!("{block} on {host}"), PATIENCE, look).unwrap();
    }
}

#[test]
fn a_range_is_announced_and_what_no_longer_route_takes_is_dropped_where_asked_for() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let mut net = Net::new(&["r1"]);
    let manifests = "\
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 65001
  routerID: 192.0.2.1
  nodeToNodeMeshEnabled: false
  originatedPrefixes: [{cidr: 10.1.0.0/16, blackhole: true}, {cidr: 10.2.0.0/16}]
";
    net.start_speaker("r1", manifests);
    let told = || net.bgp("r1", &["routes"]).map(|routes| routes.to_string());
    let routes = until("the speaker answers", PATIENCE, told).unwrap();
    assert!(
        routes.contains("10.1.0.0/16") && routes.contains("10.2.0.0/16"),
        "{routes}"
    );
    let shown = until("the blackhole", PATIENCE, || {
        let shown = net.output("r1", "ip", &["route", "show"]);
        if shown.contains("blackhole") {
            Ok(shown)
        } else {
            Err(shown)
        }
    });
    let shown = shown.unwrap();
    assert!(shown.starts_with("blackhole 10.1.0.0/16 "), "{shown}");
    assert_eq!(shown.lines().count(), 1, "{shown}");
}

/// A session by key, one way or another.
fn with_key(authentication: &str) -> String {
    format!(
        "\
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{asNumber: 65001, routerID: 192.0.2.1, nodeToNodeMeshEnabled: false, transit: true}}
---
apiVersion: v1
kind: Secret
metadata: {{name: keys}}
stringData: {{one: orchid}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: peer}}
spec:
  peerIP: 192.0.2.2
  asNumber: 65002
  {authentication}
"
    )
}

#[test]
fn a_session_is_held_where_the_kernel_has_not_what_its_key_needs() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let key = "secretKeyRef: {name: keys, key: one}";
    let rows = [
        ("TCP-MD5", md5::supported(), format!("password: {{{key}}}")),
        (
            "TCP-AO",
            ao::supported(),
            format!("tcpAO: {{keys: [{{sendID: 1, receiveID: 1, {key}}}]}}"),
        ),
    ];
    for (what, supported, authentication) in rows {
        let supported = supported.expect("the kernel answers");
        let mut net = Net::new(&["r1"]);
        net.start_speaker("r1", &with_key(&authentication));
        let peer = until(what, PATIENCE, || {
            let answer = net.bgp("r1", &["peers"])?;
            let peer = answer["peers"].get(0).ok_or("no peer")?;
            Ok::<_, String>(peer.to_string())
        })
        .unwrap();
        let held = format!("the kernel of this node has no {what} (NotSupportedByKernel)");
        assert_eq!(peer.contains(&held), !supported, "{what}: {peer}");
        let log = net.log("r1");
        let found = log.contains("NotSupportedByKernel");
        assert_eq!(found, !supported, "{what}: {log}");
    }
}
