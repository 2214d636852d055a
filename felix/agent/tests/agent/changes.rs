//! Changed objects under living sessions: the peer sees what they mean, and no session goes for it that
//! need not.

use std::time::Duration;

use crate::common::router::{REMOTE, Router, SECOND};
use crate::common::{NODE_NAME, Rig, can_run, until};
use serde_json::{Value, json};

const PATIENCE: Duration = Duration::from_secs(20);

/// The node's block, and its address.
const BLOCK: &str = "10.64.0.0/26";
const LOOPBACK: &str = "10.250.0.1/32";

/// A node with two routers.
struct Bench {
    rig: Rig,
    tor: Router,
    other: Router,
}

impl Bench {
    fn new() -> Bench {
        let mut rig = Rig::new();
        let tor = Router::start(&rig, |_| {});
        let other = Router::second(&rig);
        for (name, address, asn) in [("tor", "192.0.2.1", 65001), ("other", SECOND, 65003)] {
            rig.api.create(&json!({
                "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": name},
                "spec": {"peerIP": address, "asNumber": asn},
            }));
        }
        rig.start_agent();
        rig.ready();
        let bench = Bench { rig, tor, other };
        for router in [&bench.tor, &bench.other] {
            for prefix in [BLOCK, LOOPBACK] {
                bench.until(prefix, || router.knows(prefix));
            }
        }
        bench.until("the node learns a route", || {
            bench.has_route().then_some(()).ok_or("no route")
        });
        bench.came_up(1, 1);
        bench
    }

    fn until<E: std::fmt::Debug>(&self, what: &str, mut look: impl FnMut() -> Result<(), E>) {
        until(what, PATIENCE, || {
            look().map_err(|seen| (seen, self.rig.log()))
        });
    }

    fn patch(&self, kind: &str, name: &str, spec: &Value) {
        let spec = json!({"spec": spec});
        let group = "caracal.dev/v1alpha1";
        self.rig.api.patch(group, kind, "", name, &spec);
    }

    fn has_route(&self) -> bool {
        !self
            .rig
            .on_node(&["ip", "route", "show", REMOTE])
            .is_empty()
    }

    /// How often each session has come up.
    fn came_up(&self, tor: u64, other: u64) {
        assert_eq!(
            (self.tor.sessions(), self.other.sessions()),
            (tor, other),
            "{}",
            self.rig.log()
        );
    }
}

#[test]
fn filters_descriptions_and_communities_change_under_a_living_session() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let gone = |router: &Router, prefix: &str| match router.knows(prefix) {
        Ok(()) => Err("it knows it"),
        Err(_) => Ok(()),
    };
    // A filter that is new, on one of the peers.
    bench.rig.api.create(&json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPFilter", "metadata": {"name": "edge"},
        "spec": {"exportV4": [{"cidr": LOOPBACK, "matchOperator": "Equal", "action": "Reject"}]},
    }));
    let changed = json!({"filters": ["edge"], "description": "to the rack"});
    bench.patch("BGPPeer", "tor", &changed);
    bench.until("the address is withdrawn", || gone(&bench.tor, LOOPBACK));
    bench
        .other
        .knows(LOOPBACK)
        .expect("the other peer has no filter");

    // The filter says something else, in both directions.
    let rules = json!({
        "exportV4": [{
            "cidr": BLOCK, "matchOperator": "Equal", "action": "Accept",
            "operations": [{"addCommunity": {"value": "65000:9"}}],
        }],
        "importV4": [{"cidr": REMOTE, "matchOperator": "Equal", "action": "Reject"}],
    });
    bench.patch("BGPFilter", "edge", &rules);
    bench.until("the address is told again", || bench.tor.knows(LOOPBACK));
    bench.until("the block has its community", || {
        bench.tor.has_communities(BLOCK, &["65000:9"])
    });
    bench.until("the route is refused", || {
        (!bench.has_route()).then_some(()).ok_or("a route")
    });
    bench.patch("BGPFilter", "edge", &json!({"importV4": null}));
    bench.until("the route is taken again", || {
        bench.has_route().then_some(()).ok_or("no route")
    });

    // Communities of the configuration are on what both peers hear.
    let named = |value: &str| {
        json!({
            "communities": [{"name": "pods", "value": value}],
            "prefixAdvertisements": [{"cidr": "10.64.0.0/16", "communities": ["pods"]}],
        })
    };
    for value in ["65000:7", "65000:8"] {
        bench.patch("BGPConfiguration", "default", &named(value));
        bench.until(value, || {
            bench.tor.has_communities(BLOCK, &[value, "65000:9"])
        });
        bench.until(value, || bench.other.has_communities(BLOCK, &[value]));
    }
    bench
        .other
        .has_communities(LOOPBACK, &[])
        .expect("the address lies outside");

    // A range with a blackhole behind it: told and dropped, then neither.
    let range = "10.64.0.0/20";
    let dropped = || {
        let route = bench.rig.on_node(&["ip", "route", "show", range]);
        route.contains("blackhole")
    };
    let originated = json!([{"cidr": range, "blackhole": true}]);
    for (originated, there) in [(originated, true), (json!([]), false)] {
        let change = json!({"originatedPrefixes": originated});
        bench.patch("BGPConfiguration", "default", &change);
        bench.until(&change.to_string(), || {
            let found = (bench.tor.knows(range).is_ok(), dropped());
            (found == (there, there)).then_some(()).ok_or(found)
        });
    }
    bench.came_up(1, 1);
    bench.rig.stop_agent();
}

#[test]
fn a_cordoned_node_asks_its_peers_to_use_other_ways_and_keeps_its_routes() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    let cordon = |wanted: &Value| {
        let spec = json!({"spec": {"unschedulable": wanted}});
        bench.rig.api.patch("v1", "Node", "", NODE_NAME, &spec);
    };
    let on_cordon = |wanted: &Value| {
        let spec = json!({"gracefulShutdown": {"onCordon": wanted}});
        bench.patch("BGPConfiguration", "default", &spec);
    };
    // What both routers hear, and what an operator reads of both sessions.
    let heard = |what: &str, communities: &[&str]| {
        for router in [&bench.tor, &bench.other] {
            for prefix in [BLOCK, LOOPBACK] {
                bench.until(what, || router.has_communities(prefix, communities));
            }
        }
        assert!(bench.has_route(), "what the node learns is not touched");
        bench.came_up(1, 1);
    };
    let remarks = |wanted: Option<&str>| {
        bench.until("both sessions have their remark", || {
            let status = bench.rig.api.node_status().and_then(|it| it.status);
            let sessions = status.map(|status| status.sessions).unwrap_or_default();
            let found: Vec<_> = sessions.into_iter().map(|it| it.message).collect();
            let wanted = wanted.map(str::to_owned);
            let same = found.len() == 2 && found.iter().all(|it| *it == wanted);
            same.then_some(()).ok_or(found)
        });
    };
    let asks = ["graceful-shutdown"];
    heard("nothing is asked", &[]);
    cordon(&json!(true));
    heard("cordoned", &asks);
    remarks(Some("draining: the node is cordoned"));
    on_cordon(&json!(false));
    heard("a cordon is let pass", &[]);
    remarks(None);
    on_cordon(&json!(null));
    heard("a cordon counts again", &asks);
    // As `kubectl uncordon` leaves it.
    cordon(&json!(null));
    heard("uncordoned", &[]);
    bench.rig.stop_agent();
}

#[test]
fn a_change_that_needs_a_new_session_resets_those_that_it_concerns() {
    if !can_run() {
        return;
    }
    let mut bench = Bench::new();
    // The AS of one peer, which is another one: the session ends, and comes back with the right one.
    bench.patch("BGPPeer", "tor", &json!({"asNumber": 65009}));
    bench.until("the session ends", || match bench.tor.knows(BLOCK) {
        Ok(()) => Err("it knows the block"),
        Err(_) => Ok(()),
    });
    bench.patch("BGPPeer", "tor", &json!({"asNumber": 65001}));
    bench.until("the session is back", || bench.tor.knows(BLOCK));
    bench.came_up(2, 1);

    // What a peer says of its own hides what the configuration says.
    let offered = |wanted: [bool; 2]| {
        let found = [&bench.tor, &bench.other].map(Router::is_offered_restart);
        let wanted = wanted.map(Some);
        (found == wanted).then_some(()).ok_or(found)
    };
    offered([true, true]).expect("both are offered it");
    let restart = |enabled: bool| json!({"gracefulRestart": {"enabled": enabled}});
    bench.patch("BGPPeer", "tor", &restart(true));
    bench.patch("BGPConfiguration", "default", &restart(false));
    bench.until("only one is offered it", || offered([true, false]));
    bench.came_up(2, 2);
    bench.rig.stop_agent();
}
