//! RFC 8212 between two running speakers: an external peer for which nothing was configured exchanges
//! nothing and says why; what counts as configured exchanges all.

mod common;

use std::time::Duration;

use caracal_lab::process::until;
use common::is_root;
use common::net::{Net, caracal};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

/// What the other end announces; it takes and tells everything.
const THEIRS: &str = "10.2.0.0/16";
/// What the speaker under test announces.
const OURS: &str = "10.1.0.0/16";

const OTHER: &str = "\
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 65002
  routerID: 192.0.2.2
  nodeToNodeMeshEnabled: false
  transit: true
  originatedPrefixes: [{cidr: 10.2.0.0/16}]
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: left}
spec: {peerIP: 10.0.0.0, asNumber: 65001}
";

const ACCEPT_ALL: &str = "\
---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: all}
spec:
  importV4: [{action: Accept}]
  exportV4: [{action: Accept}]
";

const NODE: &str = "\
---
apiVersion: v1
kind: Node
metadata: {name: left}
status: {addresses: [{type: InternalIP, address: 10.0.0.0}]}
";

/// A speaker of AS 65001 with `more` in its configuration and `peer` in its peer.
fn left(more: &str, peer: &str, objects: &str) -> String {
    format!(
        "\
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec:
  asNumber: 65001
  routerID: 192.0.2.1
  nodeToNodeMeshEnabled: false
  originatedPrefixes: [{{cidr: {OURS}}}]
  {more}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: right}}
spec: {{peerIP: 10.0.0.1, asNumber: 65002, families: [ipv4-unicast], {peer}}}
{objects}"
    )
}

/// Whether a route is in a host's table, and why it is not used where it is not.
fn route(net: &Net, host: &str, prefix: &str) -> Result<Option<String>, String> {
    let routes = net.bgp(host, &["routes", prefix])?;
    let Some(path) = routes.get(0).and_then(|route| route["paths"].get(0)) else {
        return Err(format!("{prefix} is not known on {host}"));
    };
    Ok(path["rejected"].as_str().map(str::to_owned))
}

/// Whether both sides have said all that they have to say.
fn told_all(net: &Net, host: &str) -> Result<Value, String> {
    let answer = net.bgp(host, &["peers"])?;
    let family = answer["peers"][0]["routes"]["families"]
        .as_array()
        .and_then(|families| families.iter().find(|it| it["family"] == "ipv4-unicast"))
        .ok_or_else(|| answer.to_string())?;
    let all = family["end_of_rib_received"] == true && family["end_of_rib_sent"] == true;
    all.then(|| family.clone()).ok_or(answer.to_string())
}

/// The screen of a host's sessions.
fn peers(net: &Net, host: &str) -> String {
    let run_dir = net.folder(host).display().to_string();
    let program = caracal().display().to_string();
    net.output(host, &program, &["bgp", "peers", "--run-dir", &run_dir])
}

struct Case {
    name: &'static str,
    more: &'static str,
    peer: &'static str,
    objects: String,
    exchanges: bool,
    /// `NoPolicy` is among the findings, and `caracal bgp peers` says so.
    says_so: bool,
}

fn cases() -> Vec<Case> {
    let case = |name, more, peer, objects: &str, exchanges, says_so| Case {
        name,
        more,
        peer,
        objects: objects.to_owned(),
        exchanges,
        says_so,
    };
    let required = "requireFilters: true";
    let filters = "filters: [all]";
    let both = "requireFilters: true, filters: [all]";
    vec![
        case("nothing is configured", "", "", "", false, true),
        case("a filter", "", filters, ACCEPT_ALL, true, false),
        case("transit", "transit: true", "", "", true, false),
        // Only its own routes leave a node, and this is one.
        case("a node", "", "", NODE, true, false),
        case(
            "transit, filters required",
            "transit: true",
            required,
            "",
            false,
            true,
        ),
        case("a node, filters required", "", required, NODE, false, true),
        case(
            "filters required and there",
            "",
            both,
            ACCEPT_ALL,
            true,
            false,
        ),
    ]
}

#[test]
fn an_external_peer_without_a_policy_exchanges_nothing_and_says_so() {
    if !is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    for case in cases() {
        let name = case.name;
        let mut net = Net::new(&["left", "right"]);
        net.cable([
            ("left", "e0", "10.0.0.0/31"),
            ("right", "e0", "10.0.0.1/31"),
        ]);
        net.start_speaker("left", &left(case.more, case.peer, &case.objects));
        net.start_speaker("right", OTHER);
        for host in ["left", "right"] {
            until(name, PATIENCE, || net.sessions_up(host, 1)).unwrap();
            until(name, PATIENCE, || told_all(&net, host)).unwrap();
        }
        let family = told_all(&net, "left").unwrap();
        let (heard, told) = (route(&net, "left", THEIRS), route(&net, "right", OURS));
        let kernel = |host, prefix| {
            let route = net.output(host, "ip", &["route", "show", prefix]);
            if route.is_empty() { Err(name) } else { Ok(()) }
        };
        if case.exchanges {
            // A route from a BGP peer is told to others once the kernel has it; this one is its end.
            until(name, PATIENCE, || {
                match (route(&net, "left", THEIRS), route(&net, "right", OURS)) {
                    (Ok(None), Ok(None)) => Ok(()),
                    other => Err(format!("{other:?}")),
                }
            })
            .unwrap();
            for (host, prefix) in [("left", THEIRS), ("right", OURS)] {
                until(name, PATIENCE, || {
                    kernel(host, prefix).map_err(str::to_owned)
                })
                .unwrap();
            }
        } else {
            // It came, is kept with its reason, and is used for nothing.
            let why = heard.unwrap().expect(name);
            let expected = if case.peer.is_empty() {
                "no policy is configured (RFC 8212)"
            } else {
                "no policy"
            };
            assert!(why.contains(expected), "{name}: {why}");
            assert!(told.is_err(), "{name}: {told:?}");
            assert_eq!(family["advertised"], 0, "{name}: {family}");
            assert_eq!(family["accepted"], 0, "{name}: {family}");
            assert!(kernel("left", THEIRS).is_err(), "{name}");
            assert!(kernel("right", OURS).is_err(), "{name}");
        }
        let screen = peers(&net, "left");
        let expected = "no policy for ipv4-unicast: nothing is taken or told (RFC 8212)";
        assert_eq!(screen.contains(expected), case.says_so, "{name}: {screen}");
        let log = net.log("left");
        assert_eq!(log.contains("NoPolicy"), case.says_so, "{name}: {log}");
    }
}
