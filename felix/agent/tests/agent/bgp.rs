//! A node's agent and a router: routes both ways, and a kill that moves no route.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::common::router::{REMOTE, Router};
use crate::common::{Rig, can_run, until};
use caracal_crds::BlockPhase;
use serde_json::json;

/// A node that is ready, and the router that it peers with.
fn node_and_router() -> (Rig, Router) {
    let mut rig = Rig::new();
    let router = Router::start(&rig, |_| {});
    rig.api.create(&json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPPeer", "metadata": {"name": "tor"},
        "spec": {"peerIP": "192.0.2.1", "asNumber": 65001},
    }));
    rig.start_agent();
    rig.ready();
    (rig, router)
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
    let sessions = router.sessions();
    rig.kill_agent();
    rig.start_agent();
    rig.ready();
    until("the session is back", patience, || {
        match router.sessions() {
            now if now > sessions => Ok(()),
            now => Err((now, rig.log())),
        }
    });
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
