//! A node's agent and a router: routes both ways, and a kill that moves no route.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::common::router::{REMOTE, Router};
use crate::common::{Rig, can_run, inside, until};
use caracal_crds::BlockPhase;
use serde_json::{Value, json};

/// A node that is ready, and the router that it peers with.
fn node_and_router() -> (Rig, Router) {
    let mut rig = Rig::new();
    let router = Router::start(&rig, |_| {});
    rig.api.create(&tor());
    rig.start_agent();
    rig.ready();
    (rig, router)
}

fn tor() -> Value {
    json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"},
        "spec": {"peerIP": "192.0.2.1", "asNumber": 65001},
    })
}

/// Kills the agent and starts it again; over when the router has another session with it.
fn die_and_come_back(rig: &mut Rig, router: &Router) {
    let sessions = router.sessions();
    rig.kill_agent();
    rig.start_agent();
    rig.ready();
    until(
        "the session is back",
        Duration::from_secs(15),
        || match router.sessions() {
            now if now > sessions => Ok(()),
            now => Err((now, rig.log())),
        },
    );
}

#[test]
fn routes_go_both_ways_and_a_killed_agent_moves_none() {
    if !can_run() {
        return;
    }
    let (mut rig, router) = node_and_router();
    let patience = Duration::from_secs(15);
    for prefix in ["10.64.0.0/26", "10.250.0.1/32"] {
        until(&format!("the router learns {prefix}"), patience, || {
            router.knows(prefix)
        });
    }
    let route = || rig.on_node(&["ip", "route", "show", REMOTE]);
    until("the node learns its route", patience, || {
        let route = route();
        if route.contains("src 10.250.0.1") {
            Ok(())
        } else {
            Err((route, rig.log()))
        }
    });
    let before = rig.kernel_state();

    let monitor = Command::new("ip")
        .args(["-n", rig.node.name(), "monitor", "route", "nexthop"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the monitor starts");
    die_and_come_back(&mut rig, &router);
    router
        .knows("10.64.0.0/26")
        .expect("the router keeps the node's routes");
    rig.settled();
    let mut monitor = monitor;
    monitor.kill().expect("kill");
    let seen = monitor.wait_with_output().expect("the monitor ends");
    assert_eq!(
        String::from_utf8_lossy(&seen.stdout),
        "",
        "routes moved\n{}",
        rig.log()
    );
    let after = rig.kernel_state();
    assert_eq!(before["routes"], after["routes"]);
    assert_eq!(before["nexthops"], after["nexthops"]);
    let status = rig
        .api
        .node_status()
        .and_then(|object| object.status)
        .expect("status");
    assert_eq!(status.sessions_established.as_deref(), Some("1/1"));
    rig.stop_agent();
}

#[test]
fn the_router_keeps_the_routes_of_a_killed_agent_that_learnt_none_from_it() {
    if !can_run() {
        return;
    }
    let mut rig = Rig::new();
    let router = Router::silent(&rig);
    rig.api.create(&tor());
    rig.start_agent();
    rig.ready();
    let patience = Duration::from_secs(15);
    let block = "10.64.0.0/26";
    let has_route = || {
        let route = inside(&rig.management, &["ip", "route", "show", block]);
        if route.is_empty() {
            Err(rig.log())
        } else {
            Ok(())
        }
    };
    until("the router has a route to the block", patience, has_route);

    let mut monitor = Command::new("ip")
        .args(["-n", rig.management.name(), "monitor", "route"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("the monitor starts");
    die_and_come_back(&mut rig, &router);
    rig.settled();
    monitor.kill().expect("kill");
    let seen = monitor.wait_with_output().expect("the monitor ends");
    let seen = String::from_utf8_lossy(&seen.stdout);
    assert!(!seen.contains(block), "{seen}\n{}", rig.log());
    rig.stop_agent();
}

#[test]
fn a_block_is_withdrawn_before_it_is_released_and_the_next_grant_of_its_name_stands() {
    if !can_run() {
        return;
    }
    let (mut rig, router) = node_and_router();
    let patience = Duration::from_secs(15);
    let phase = |wanted| {
        until(
            &format!("the block is {wanted:?}"),
            patience,
            || match rig.api.block(0).phase() {
                phase if phase == wanted => Ok(()),
                other => Err((other, rig.log())),
            },
        );
    };
    let block = "10.64.0.0/26";
    until("the router learns the block", patience, || {
        router.knows(block)
    });
    phase(BlockPhase::Active);

    // Released cannot be written, yet the block is announced no more.
    rig.api.refuse_block_writes();
    rig.api.drain_block(0);
    until("the router loses the block", patience, || {
        match router.knows(block) {
            Ok(()) => Err(rig.log()),
            Err(_) => Ok(()),
        }
    });
    assert_eq!(rig.api.block(0).phase(), BlockPhase::Active);
    rig.api
        .delete("caracal.dev/v1alpha1", "IPBlock", "", "default-0");
    rig.api.grant_block(0);
    rig.api.heal();
    phase(BlockPhase::Active);
    until("the router learns the block again", patience, || {
        router.knows(block)
    });

    rig.api.drain_block(0);
    phase(BlockPhase::Released);
    rig.stop_agent();
}

/// What the node says of its session's routes: how many the peer tells, how many of them may be used,
/// which may not.
fn reported(rig: &Rig) -> Option<(u32, u32, Vec<String>)> {
    let status = rig.api.node_status()?.status?;
    let prefixes = status.sessions.first()?.prefixes?;
    let rejected = status.rejected.iter().flat_map(|it| &it.prefixes);
    let rejected = rejected.map(ToString::to_string).collect();
    Some((prefixes.received, prefixes.accepted, rejected))
}

#[test]
fn routes_that_never_rest_are_few_writes_and_the_last_ones_are_reported() {
    /// Two writes fit: at once and after the interval of five to six seconds. The next counts wait for
    /// twice as long.
    const RESTLESS: Duration = Duration::from_secs(14);
    if !can_run() {
        return;
    }
    let (mut rig, router) = node_and_router();
    let patience = Duration::from_secs(60);
    let is_reported = |received, accepted, rejected: &[&str]| {
        until("the routes are reported", patience, || {
            match reported(&rig) {
                Some((told, used, not_used))
                    if (told, used) == (received, accepted) && not_used == rejected =>
                {
                    Ok(())
                }
                other => Err((other, rig.log())),
            }
        });
    };
    is_reported(1, 1, &[]);
    rig.reported();
    let before = rig.api.writes();
    let began = Instant::now();
    let prefixes: Vec<String> = (0..8).map(|third| format!("10.99.{third}.0/24")).collect();
    let prefixes: Vec<&str> = prefixes.iter().map(String::as_str).collect();
    for turn in 0.. {
        if began.elapsed() > RESTLESS {
            break;
        }
        let announced = &prefixes[..=turn % prefixes.len()];
        router.apply(announced, |_| {});
        until("the node follows", patience, || {
            let routes = rig.on_node(&["ip", "route", "show", "root", "10.99.0.0/16"]);
            let same = routes.lines().count() == announced.len();
            if same { Ok(()) } else { Err(routes) }
        });
    }
    let writes = rig.api.writes() - before;
    assert!((1..=2).contains(&writes), "{writes} writes\n{}", rig.log());

    // 10.250.0.1 is the node's: a route to it is not taken from elsewhere.
    router.apply(&["10.99.0.0/24", "10.99.1.0/24", "10.250.0.1/32"], |_| {});
    is_reported(3, 2, &["10.250.0.1/32"]);
    rig.stop_agent();
}
