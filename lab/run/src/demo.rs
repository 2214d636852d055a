//! The demonstration: a topology comes up, is measured with and without policies and under faults, and goes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use caracal_lab_topology::{
    Expectation, Party, PartyKind, Plan, PlannedNode, Role, Sidecar, Want, sidecar,
};
use serde_json::Value;

use crate::drops::Drops;
use crate::fabric::{EndCounters, is_management};
use crate::faults::Fault;
use crate::interrupt::Interrupt;
use crate::lab::Lab;
use crate::probe::capture::{Capture, StrayCounter, Watched};
use crate::probe::flow::{Flow, FlowLoss, Flows};
use crate::probe::matrix::{self, Endpoint, Mismatch};
use crate::process::until;
use crate::report::{FaultResult, LossSummary, MatrixResult, Report, UplinkShare, WireResult};

/// Every box must have every route within this, counted from the last process's start.
const CONVERGENCE: Duration = Duration::from_secs(10);

/// How long policies may take to be in force everywhere.
const POLICY_PATIENCE: Duration = Duration::from_secs(10);

/// Longest wait for a box to be back in service.
const RETURN_PATIENCE: Duration = Duration::from_secs(30);

/// Flows run this long before and after an event, so that a gap has two ends.
const BEFORE: Duration = Duration::from_millis(500);
const AFTER: Duration = Duration::from_secs(3);

/// How long an agent stays dead here.
const AGENT_DEAD: Duration = Duration::from_secs(5);

/// Flows between each two pods and family, so that both uplinks carry some.
const FLOWS_PER_PAIR: usize = 2;

/// Flows of the uplink measurement.
const SPREAD_FLOWS: u16 = 1000;

/// Share in percent that each of two uplinks must carry of them.
const SPREAD_RANGE: std::ops::RangeInclusive<u32> = 30..=70;

/// Least share in percent of cells that policies must refuse, or the matrix says little.
const LEAST_REFUSED: usize = 30;

/// Runs the demonstration on a lab that has just been started and fills in the report.
///
/// What is not as expected goes into the report and the run goes on.
///
/// # Errors
/// Something that the rest depends on failed, or the run was interrupted.
pub fn run(
    lab: &mut Lab,
    sidecar: &Sidecar,
    interrupt: &Interrupt,
    report: &mut Report,
) -> anyhow::Result<()> {
    let converged = lab.wait_converged(CONVERGENCE)?;
    report.converged_ms = converged.as_millis() as u64;
    step(&format!("converged in {:.1} s", converged.as_secs_f64()));

    let plan = lab.plan().clone();
    for pod in &sidecar.cluster.pods {
        interrupt.check()?;
        lab.cluster_mut()?.run_pod(&plan, pod)?;
    }
    lab.cluster()?.wait_for_echo(Duration::from_secs(5))?;
    step(&format!("{} pods run", sidecar.cluster.pods.len()));

    let strays = StrayCounter::start(lab.fabric().management(), is_management)?;
    measure_uplinks(lab, report)?;
    judge_policies(lab, sidecar, interrupt, report)?;
    let strays = strays.finish()?;
    if strays > 0 {
        report.failures.push(format!(
            "{strays} packets strayed to the management network"
        ));
    }
    if let Some(wire) = &mut report.wire {
        wire.on_management = strays;
    }
    for fault in &sidecar.faults {
        interrupt.check()?;
        inject(lab, fault, interrupt, report)?;
    }
    Ok(())
}

/// Matrices before, with and after the policies, with captures running.
fn judge_policies(
    lab: &mut Lab,
    sidecar: &Sidecar,
    interrupt: &Interrupt,
    report: &mut Report,
) -> anyhow::Result<()> {
    let expectation = sidecar.expectation();
    let open = Expectation {
        probes: expectation.probes.clone(),
        reached: vec![caracal_lab_topology::expect::Rule::everything()],
    };
    let capture = Capture::start(lab.fabric().wire(), lab.plan(), watched(lab)?)?;

    send_full_size(lab)?;
    judge(lab, "without policies", &open, Duration::ZERO, report)?;
    for policy in &sidecar.cluster.policies {
        lab.cluster()?.api().create(policy)?;
    }
    interrupt.check()?;
    judge(lab, "with policies", &expectation, POLICY_PATIENCE, report)?;
    if let Some(key) = &sidecar.cluster.recreate {
        let plan = lab.plan().clone();
        let spec = lab.cluster_mut()?.remove_pod(key)?;
        lab.cluster_mut()?.run_pod(&plan, &spec)?;
        lab.cluster()?.wait_for_echo(Duration::from_secs(5))?;
        interrupt.check()?;
        judge(
            lab,
            &format!("after re-creating {key}"),
            &expectation,
            POLICY_PATIENCE,
            report,
        )?;
    }
    for policy in &sidecar.cluster.policies {
        lab.cluster()?.api().delete(policy)?;
    }
    interrupt.check()?;
    judge(
        lab,
        "after deleting the policies",
        &open,
        POLICY_PATIENCE,
        report,
    )?;

    let observed = capture.finish()?;
    for (violation, count) in &observed.violations {
        report
            .failures
            .push(format!("on the wire: {violation} ({count} packets)"));
    }
    let mtu = lab
        .plan()
        .links
        .iter()
        .map(|link| link.mtu)
        .min()
        .unwrap_or_default();
    for (largest, family) in observed.largest_whole.iter().zip(["IPv4", "IPv6"]) {
        if u32::from(*largest) != mtu {
            report.failures.push(format!(
                "the largest unfragmented {family} packet on the wire has {largest} octets, the fabric's MTU is {mtu}"
            ));
        }
    }
    report.wire = Some(WireResult {
        largest_whole: observed.largest_whole,
        packets: observed.packets,
        links: observed.links.len(),
        pairs: observed.pairs.len(),
        violations: observed.violations.values().sum(),
        on_management: 0,
    });
    Ok(())
}

/// Sends a datagram that fills the fabric's MTU between two pods of different nodes, in both families. Linux
/// sets Don't Fragment on it by default; the captures tell whether it came through whole.
fn send_full_size(lab: &Lab) -> anyhow::Result<()> {
    let mut pods = lab.cluster()?.pods().values();
    let Some(from) = pods.next() else {
        return Ok(());
    };
    let Some(to) = pods.find(|pod| pod.spec.node != from.spec.node) else {
        return Ok(());
    };
    let mtu = lab
        .plan()
        .links
        .iter()
        .map(|link| link.mtu)
        .min()
        .unwrap_or_default() as usize;
    for (family, headers) in [(0, 20 + 8), (1, 40 + 8)] {
        let (source, target) = (from.addresses[family], to.addresses[family]);
        from.namespace.run(|| {
            let socket = std::net::UdpSocket::bind(SocketAddr::new(source, 0))
                .with_context(|| format!("cannot bind {source}"))?;
            socket
                .send_to(&vec![0; mtu - headers], SocketAddr::new(target, 9))
                .with_context(|| format!("cannot send {mtu} octets to {target}"))?;
            Ok(())
        })?;
    }
    Ok(())
}

/// Asks the whole matrix, again and again while it is not as expected and `patience` lasts: policies spread
/// over nodes within that time, and the last answer counts.
fn judge(
    lab: &Lab,
    phase: &str,
    expectation: &Expectation,
    patience: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let (parties, endpoints) = parties(lab)?;
    let cells = expectation.matrix(&parties);
    let refused = cells
        .iter()
        .filter(|(_, want)| *want == Want::Refused)
        .count();
    let started = Instant::now();
    let mut mismatches: Vec<Mismatch>;
    loop {
        let before = Drops::read(lab.plan(), lab.state())?;
        mismatches = matrix::run(&cells, &endpoints)?;
        if mismatches.is_empty() || started.elapsed() > patience {
            let after = Drops::read(lab.plan(), lab.state())?;
            for complaint in after.unexplained(&before, &cells) {
                report.failures.push(format!("{phase}: {complaint}"));
            }
            break;
        }
    }
    if refused > 0 && refused * 100 < cells.len() * LEAST_REFUSED {
        report.failures.push(format!(
            "{phase}: only {refused} of {} cells are refused",
            cells.len()
        ));
    }
    for mismatch in mismatches.iter().take(10) {
        report.failures.push(format!(
            "{phase}: {} should be {:?} and is {:?}",
            mismatch.cell, mismatch.want, mismatch.got
        ));
    }
    let result = MatrixResult {
        phase: phase.to_owned(),
        cells: cells.len(),
        as_expected: cells.len() - mismatches.len(),
        refused,
        took_ms: started.elapsed().as_millis() as u64,
    };
    step(&format!(
        "matrix {phase}: {}/{}",
        result.as_expected, result.cells
    ));
    report.matrices.push(result);
    Ok(())
}

/// Pods, nodes and outside hosts with their namespaces and addresses.
fn parties(lab: &Lab) -> anyhow::Result<(Vec<Party>, BTreeMap<String, Endpoint>)> {
    let mut parties = Vec::new();
    let mut endpoints = BTreeMap::new();
    for (key, pod) in lab.cluster()?.pods() {
        parties.push(Party {
            kind: PartyKind::Pod,
            name: key.clone(),
            namespace: Some(pod.spec.namespace.clone()),
            node: Some(pod.spec.node.clone()),
            labels: pod.spec.labels.clone(),
        });
        let endpoint = Endpoint {
            namespace: pod.namespace.clone(),
            addresses: pod.addresses,
        };
        endpoints.insert(key.clone(), endpoint);
    }
    for (kind, role) in [
        (PartyKind::Node, Role::Node),
        (PartyKind::Outside, Role::Outside),
    ] {
        for node in lab.plan().with_role(role) {
            parties.push(Party {
                kind,
                name: node.name.clone(),
                namespace: None,
                node: (kind == PartyKind::Node).then(|| node.name.clone()),
                labels: BTreeMap::new(),
            });
            let endpoint = Endpoint {
                namespace: lab.namespace(&node.name),
                addresses: own_addresses(node),
            };
            endpoints.insert(node.name.clone(), endpoint);
        }
    }
    Ok((parties, endpoints))
}

fn own_addresses(node: &PlannedNode) -> [IpAddr; 2] {
    [node.loopback_v4.into(), node.loopback_v6.into()]
}

/// Addresses whose packets the captures judge, with the hops between them and the cables.
fn watched(lab: &Lab) -> anyhow::Result<Watched> {
    let mut watched = Watched::new();
    for pod in lab.cluster()?.pods().values() {
        for address in pod.addresses {
            watched.insert(address, (pod.spec.node.clone(), 1));
        }
    }
    for role in [Role::Node, Role::Outside] {
        for node in lab.plan().with_role(role) {
            for address in own_addresses(node) {
                watched.insert(address, (node.name.clone(), 0));
            }
        }
    }
    Ok(watched)
}

/// Sends one datagram of each of many flows from a pod of each dual-homed node to a pod of another rack, and
/// counts on the cables which uplink took them.
fn measure_uplinks(lab: &Lab, report: &mut Report) -> anyhow::Result<()> {
    let plan = lab.plan();
    for node in plan.with_role(Role::Node) {
        let uplinks: Vec<_> = plan.ends(&node.name).collect();
        let from = lab
            .cluster()?
            .pods()
            .values()
            .find(|pod| pod.spec.node == node.name);
        let to = lab
            .cluster()?
            .pods()
            .values()
            .find(|pod| pod.spec.node != node.name);
        let (2.., Some(from), Some(to)) = (uplinks.len(), from, to) else {
            continue;
        };
        for (number, family) in ["ipv4", "ipv6"].into_iter().enumerate() {
            let count = || -> anyhow::Result<Vec<EndCounters>> {
                uplinks
                    .iter()
                    .map(|(link, _, _)| lab.fabric().sent_into(link, &node.name))
                    .collect()
            };
            let before = count()?;
            from.namespace
                .run(|| spray(from.addresses[number], to.addresses[number]))?;
            let after = count()?;
            let sent: Vec<u64> = before
                .iter()
                .zip(&after)
                .map(|(b, a)| a.packets - b.packets)
                .collect();
            let total: u64 = sent.iter().sum::<u64>().max(1);
            for ((_, _, far), sent) in uplinks.iter().zip(sent) {
                let percent = (sent * 100 / total) as u32;
                if !SPREAD_RANGE.contains(&percent) {
                    report.failures.push(format!(
                        "{} sends {percent} % of {SPREAD_FLOWS} {family} flows over {}, expected {} to {}",
                        node.name,
                        far.node,
                        SPREAD_RANGE.start(),
                        SPREAD_RANGE.end()
                    ));
                }
                report.uplinks.push(UplinkShare {
                    node: node.name.clone(),
                    family: family.to_owned(),
                    uplink: far.node.clone(),
                    percent,
                });
            }
        }
    }
    Ok(())
}

/// One datagram from each of many source ports; the target's discard port is nobody's, and answers of the
/// target do not pass the uplinks in this direction.
fn spray(source: IpAddr, target: IpAddr) -> anyhow::Result<()> {
    const FIRST_PORT: u16 = 20_000;
    for port in FIRST_PORT..FIRST_PORT + SPREAD_FLOWS {
        let socket = std::net::UdpSocket::bind(SocketAddr::new(source, port))
            .with_context(|| format!("cannot bind {source}:{port}"))?;
        // The answer "port unreachable" to an earlier datagram may surface here.
        let _ = socket.send_to(b".", SocketAddr::new(target, 9));
    }
    Ok(())
}

fn inject(
    lab: &mut Lab,
    wanted: &sidecar::Fault,
    interrupt: &Interrupt,
    report: &mut Report,
) -> anyhow::Result<()> {
    let fault = Fault {
        kind: wanted.kind,
        node: wanted.node.clone(),
    };
    let agent = wanted.kind == sidecar::FaultKind::AgentKill;

    let flows = Flows::start(flows(lab)?)?;
    interrupt.pass(BEFORE)?;
    fault.apply(lab)?;
    interrupt.pass(if agent { AGENT_DEAD } else { AFTER })?;
    let applied = LossSummary::new(&flows.finish()?, wanted.max_loss_ms);

    let flows = Flows::start(self::flows(lab)?)?;
    interrupt.pass(BEFORE)?;
    fault.undo(lab)?;
    let back = until(
        &format!("{} back in service", wanted.node),
        RETURN_PATIENCE,
        || lab.missing().map_or(Ok(()), Err),
    );
    interrupt.pass(AFTER)?;
    let returned_flows: Vec<FlowLoss> = flows.finish()?;
    let returned = LossSummary::new(&returned_flows, wanted.max_return_loss_ms);
    back?;

    let driver = lab
        .placements()
        .iter()
        .find(|placement| placement.node == wanted.node)
        .map_or_else(String::new, |placement| placement.driver.clone());
    let within_budget = applied.within_budget() && returned.within_budget();
    for (when, loss) in [("began", &applied), ("ended", &returned)] {
        if !loss.within_budget() {
            report.failures.push(format!(
                "{fault} ({driver}): when it {when}, {} lost {} ms at {} ms",
                loss.worst.as_deref().unwrap_or("a flow"),
                loss.max,
                loss.worst_at_ms.unwrap_or_default(),
            ));
        }
    }
    step(&format!(
        "{fault} ({driver}): lost {} ms, on return {} ms",
        applied.max, returned.max
    ));
    report.faults.push(FaultResult {
        fault: fault.to_string(),
        driver,
        applied,
        returned,
        within_budget,
    });
    Ok(())
}

/// Flows between one pod of every node, both ways and in both families.
///
/// # Errors
/// The topology has no cluster.
pub fn flows(lab: &Lab) -> anyhow::Result<Vec<Flow>> {
    let mut by_node = BTreeMap::new();
    for pod in lab.cluster()?.pods().values() {
        by_node.entry(pod.spec.node.as_str()).or_insert(pod);
    }
    let mut flows = Vec::new();
    for from in by_node.values() {
        for to in by_node.values().filter(|to| to.key() != from.key()) {
            for (family, label) in [(0, "ipv4"), (1, "ipv6")] {
                for number in 0..FLOWS_PER_PAIR {
                    flows.push(Flow {
                        name: format!("{} -> {} {label} #{number}", from.key(), to.key()),
                        from: from.namespace.clone(),
                        to: to.namespace.clone(),
                        source: from.addresses[family],
                        target: to.addresses[family],
                    });
                }
            }
        }
    }
    Ok(flows)
}

/// Progress for whoever watches; the report comes at the end.
#[expect(
    clippy::print_stderr,
    reason = "progress of a command that runs for minutes"
)]
fn step(what: &str) {
    eprintln!("  {what}");
}

/// A report with everything that is known before the lab is up.
pub fn new_report(plan: &Plan) -> Report {
    Report {
        lab: plan.name.clone(),
        plan: plan.fabric.to_string(),
        ..Report::default()
    }
}

/// The report as JSON.
///
/// # Errors
/// It cannot be written, which a report of plain values never shows.
pub fn to_json(report: &Report) -> anyhow::Result<Value> {
    serde_json::to_value(report).context("cannot write the report as JSON")
}
