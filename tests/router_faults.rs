//! What a fault of a router costs the flows that cross it, for each implementation.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::time::Duration;

use caracal_lab::cluster::Binaries;
use caracal_lab::faults::Fault;
use caracal_lab::lab::{DriverChoice, Lab};
use caracal_lab::probe::flow::{Flow, Flows};
use caracal_lab::process::until;
use caracal_lab::report::LossSummary;
use caracal_lab::routers::detect;
use caracal_lab_topology::sidecar::FaultKind;
use caracal_lab_topology::{Clab, Driver, Fabric, Plan, Role, Sidecar};
use common::{Guard, is_root};

/// Two hosts beyond the fabric, each behind a ToR, and two spines between them.
const TOPOLOGY: &str = "\
name: NAME
topology:
  nodes:
    s1: {labels: {caracal.dev/role: spine, caracal.dev/driver: SPINE}}
    s2: {labels: {caracal.dev/role: spine, caracal.dev/driver: SPINE}}
    a1: {labels: {caracal.dev/role: tor, caracal.dev/rack: a, caracal.dev/driver: frr}}
    b1: {labels: {caracal.dev/role: tor, caracal.dev/rack: b, caracal.dev/driver: bird}}
    o1: {labels: {caracal.dev/role: outside}}
    o2: {labels: {caracal.dev/role: outside}}
  links:
    - endpoints: [\"s1:eth1\", \"a1:eth1\"]
    - endpoints: [\"s1:eth2\", \"b1:eth1\"]
    - endpoints: [\"s2:eth1\", \"a1:eth2\"]
    - endpoints: [\"s2:eth2\", \"b1:eth2\"]
    - endpoints: [\"a1:eth3\", \"o1:eth1\"]
    - endpoints: [\"b1:eth3\", \"o2:eth1\"]
";

fn lab(spine: Driver, name: &str, runtime: &tokio::runtime::Runtime) -> Option<(Lab, Guard)> {
    if !is_root() {
        caracal_skip::missing!("the lab needs root");
        return None;
    }
    for driver in [Driver::Frr, Driver::Bird] {
        if detect(driver).is_none() {
            caracal_skip::missing!("{driver} is not installed");
            return None;
        }
    }
    let text = TOPOLOGY
        .replace("SPINE", &spine.to_string())
        .replace("NAME", &format!("{name}-{}", std::process::id()));
    let clab = Clab::parse("test", &text).unwrap();
    let plan = Plan::new("test", &clab, Fabric::Ebgp).unwrap();
    let guard = Guard::take(&plan.name);
    let caracal = PathBuf::from(env!("CARGO_BIN_EXE_caracal"));
    let binaries = Binaries {
        plugin: caracal.with_file_name("caracal-cni"),
        caracal,
    };
    let choice = DriverChoice::default();
    let sidecar = Sidecar::default();
    let mut lab = Lab::up(
        &plan,
        &sidecar,
        &choice,
        &binaries,
        guard.state(),
        runtime.handle(),
    )
    .unwrap();
    lab.wait_converged(Duration::from_secs(20)).unwrap();
    Some((lab, guard))
}

fn flows(lab: &Lab) -> Vec<Flow> {
    let hosts: Vec<_> = lab.plan().with_role(Role::Outside).collect();
    let mut flows = Vec::new();
    for (from, to) in [(hosts[0], hosts[1]), (hosts[1], hosts[0])] {
        for number in 0..8 {
            for v6 in [false, true] {
                let address = |node: &caracal_lab_topology::PlannedNode| -> std::net::IpAddr {
                    if v6 {
                        node.loopback_v6.into()
                    } else {
                        node.loopback_v4.into()
                    }
                };
                flows.push(Flow {
                    name: format!("{} -> {} v6={v6} #{number}", from.name, to.name),
                    from: lab.namespace(&from.name),
                    to: lab.namespace(&to.name),
                    source: address(from),
                    target: address(to),
                });
            }
        }
    }
    flows
}

/// Loss when the fault begins and when the router is back.
fn loss(lab: &mut Lab, kind: FaultKind) -> (LossSummary, LossSummary) {
    let fault = Fault {
        kind,
        node: "s1".into(),
    };
    let running = Flows::start(flows(lab)).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    fault.apply(lab).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let applied = LossSummary::new(&running.finish().unwrap(), None);
    let running = Flows::start(flows(lab)).unwrap();
    fault.undo(lab).unwrap();
    until("back in service", Duration::from_secs(30), || {
        lab.missing().map_or(Ok(()), Err)
    })
    .unwrap();
    std::thread::sleep(Duration::from_secs(2));
    let returned = LossSummary::new(&running.finish().unwrap(), None);
    println!(
        "{fault}: lost {} ms, on return {} ms",
        applied.max, returned.max
    );
    (applied, returned)
}

/// Loss is allowed on the return of BIRD alone: it prunes and rewrites kernel routes while it recovers.
fn budgets_hold(spine: Driver, name: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some((mut lab, _guard)) = lab(spine, name, &runtime) else {
        return;
    };
    // BIRD prunes and rewrites kernel routes while it recovers, and tells peers before the kernel has them.
    let may_lose_on_return = spine == Driver::Bird;
    let (applied, returned) = loss(&mut lab, FaultKind::PowerLoss);
    assert!(applied.max <= 200, "{applied:?}");
    assert!(may_lose_on_return || returned.max == 0, "{returned:?}");
    let (applied, returned) = loss(&mut lab, FaultKind::DaemonKill);
    assert_eq!(applied.max, 0, "{applied:?}");
    assert!(may_lose_on_return || returned.max == 0, "{returned:?}");
    let (applied, returned) = loss(&mut lab, FaultKind::PlannedShutdown);
    assert_eq!(applied.max, 0, "{applied:?}");
    assert!(may_lose_on_return || returned.max == 0, "{returned:?}");
}

#[test]
fn frr() {
    budgets_hold(Driver::Frr, "faults-frr");
}

#[test]
fn caracal() {
    budgets_hold(Driver::Caracal, "faults-caracal");
}

#[test]
fn bird() {
    budgets_hold(Driver::Bird, "faults-bird");
}
