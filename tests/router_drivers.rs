//! Routers of every implementation forward between each other over the lab's cables.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::time::Duration;

use caracal_lab::fabric::Fabric;
use caracal_lab::namespace::Namespace;
use caracal_lab::process::until;
use caracal_lab::routers::{Router, StartKind, detect};
use caracal_lab_topology::{Clab, Driver, Plan, Role};
use common::{Guard, is_root};

const TOPOLOGY: &str = "\
name: routers
topology:
  nodes:
    s1: {labels: {caracal.dev/role: spine, caracal.dev/driver: DRIVER_A}}
    a1: {labels: {caracal.dev/role: tor, caracal.dev/rack: a, caracal.dev/driver: DRIVER_B}}
    a2: {labels: {caracal.dev/role: tor, caracal.dev/rack: a, caracal.dev/driver: DRIVER_A}}
    b1: {labels: {caracal.dev/role: tor, caracal.dev/rack: b, caracal.dev/driver: DRIVER_B}}
    out: {labels: {caracal.dev/role: outside}}
  links:
    - endpoints: [\"s1:eth1\", \"a1:eth1\"]
    - endpoints: [\"s1:eth2\", \"a2:eth1\"]
    - endpoints: [\"s1:eth3\", \"b1:eth1\"]
    - endpoints: [\"s1:eth4\", \"out:eth1\"]
";

fn routers_reach_each_others_loopbacks(spine: Driver, tor: Driver, name: &str) {
    if !is_root() {
        caracal_skip::missing!("the lab needs root");
        return;
    }
    for driver in [spine, tor] {
        if detect(driver).is_none() {
            caracal_skip::missing!("{driver} is not installed");
            return;
        }
    }
    let text = TOPOLOGY
        .replace("DRIVER_A", &spine.to_string())
        .replace("DRIVER_B", &tor.to_string())
        .replace(
            "name: routers",
            &format!("name: {name}-{}", std::process::id()),
        );
    let clab = Clab::parse("test", &text).unwrap();
    let plan = Plan::new("test", &clab, caracal_lab_topology::Fabric::Ebgp).unwrap();
    let guard = Guard::take(&plan.name);
    let state = guard.state();
    Fabric::build(&plan, state).unwrap();
    let mut routers = Vec::new();
    for node in plan.nodes.values().filter(|n| n.role != Role::Outside) {
        let namespace = Namespace::at(&state.namespace(&node.name));
        let folder = state.folder(&node.name);
        let mut router = Router::new(
            &plan,
            node,
            node.driver,
            namespace,
            &folder,
            Path::new(env!("CARGO_BIN_EXE_caracal")),
        )
        .unwrap();
        router.start(StartKind::Fresh).unwrap();
        routers.push(router);
    }
    let b1 = &plan.nodes["b1"];
    for target in [b1.loopback_v4.to_string(), b1.loopback_v6.to_string()] {
        until(
            &format!("out reaches {target}"),
            Duration::from_secs(20),
            || ping(&Namespace::at(&state.namespace("out")), &target),
        )
        .unwrap();
    }
    for mut router in routers {
        assert!(router.casualties().is_empty(), "{:?}", router.casualties());
        router
            .stop(caracal_lab::routers::StopKind::Orderly)
            .unwrap();
    }
}

fn ping(from: &Namespace, target: &str) -> Result<(), String> {
    let output = from
        .run(|| {
            Ok(std::process::Command::new("ping")
                .args(["-c1", "-W1", target])
                .output()?)
        })
        .map_err(|e| e.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr))
}

#[test]
fn frr_spines_with_bird_tors() {
    routers_reach_each_others_loopbacks(Driver::Frr, Driver::Bird, "frr-bird");
}

#[test]
fn bird_spines_with_frr_tors() {
    routers_reach_each_others_loopbacks(Driver::Bird, Driver::Frr, "bird-frr");
}

#[test]
fn our_spines_with_frr_tors() {
    routers_reach_each_others_loopbacks(Driver::Caracal, Driver::Frr, "own-frr");
}

#[test]
fn our_spines_with_bird_tors() {
    routers_reach_each_others_loopbacks(Driver::Caracal, Driver::Bird, "own-bird");
}

#[test]
fn our_speaker_alone() {
    routers_reach_each_others_loopbacks(Driver::Caracal, Driver::Caracal, "own-own");
}
