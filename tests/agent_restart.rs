//! Killing a node's agent loses no packet: kernel routes and rules stay, and BGP comes back by graceful
//! restart before any peer forgets.
//!
//! Two agents die at once, one under FRR and BIRD, one under our speaker and FRR. Probes run between every
//! two nodes from before the deaths until after the restart timer would have run out, with 100 new TCP
//! connections a second beside them. The kernel of a node must not notice anything.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use caracal_lab::cluster::Binaries;
use caracal_lab::demo;
use caracal_lab::lab::{DriverChoice, Lab};
use caracal_lab::namespace::Namespace;
use caracal_lab::probe::connect::Connections;
use caracal_lab::probe::flow::Flows;
use caracal_lab::process::until;
use caracal_lab::report::LossSummary;
use caracal_lab::routers::{RESTART_SECONDS, detect};
use caracal_lab_topology::{Driver, Fabric, Plan, Sidecar};
use common::{Guard, is_root};

/// Two labs at once would measure each other.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// The nodes whose agents die.
const VICTIMS: [&str; 2] = ["n1", "n3"];

const BEFORE: Duration = Duration::from_secs(5);
const DEAD: Duration = Duration::from_secs(30);
const PAST_TIMER: Duration = Duration::from_secs(10);

/// What happens while the agents are dead.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Nothing,
    ApiServerGone,
    LinkCut,
}

struct Losses {
    flows: LossSummary,
    connections_failed: u64,
    first_failure: Option<String>,
}

struct Setup {
    lab: Lab,
    sidecar: Sidecar,
    _guard: Guard,
    runtime: tokio::runtime::Runtime,
}

fn set_up(name: &str, fabric: Fabric, graceful_restart: bool) -> Option<Setup> {
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
    let topology = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab/topologies/two-rack.clab.yml");
    let (mut plan, sidecar): (Plan, Sidecar) = caracal_lab::cli::load(&topology, fabric).unwrap();
    plan.name = format!("{name}-{}", std::process::id());
    let caracal = PathBuf::from(env!("CARGO_BIN_EXE_caracal"));
    let binaries = Binaries {
        plugin: caracal.with_file_name("caracal-cni"),
        caracal,
    };
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let guard = Guard::take(&plan.name);
    let choice = DriverChoice::default();
    let mut lab = Lab::up(
        &plan,
        &sidecar,
        &choice,
        &binaries,
        guard.state(),
        runtime.handle(),
    )
    .unwrap();
    if !graceful_restart {
        let patch = serde_json::json!({"spec": {"gracefulRestart": {"enabled": false}}});
        let configuration = serde_json::json!({
            "apiVersion": "caracal.dev/v1alpha1",
            "kind": "BGPConfiguration",
            "metadata": {"name": "default"},
        });
        lab.cluster()
            .unwrap()
            .api()
            .merge(&configuration, &patch)
            .unwrap();
    }
    lab.wait_converged(Duration::from_secs(20)).unwrap();
    for pod in &sidecar.cluster.pods {
        lab.cluster_mut().unwrap().run_pod(&plan, pod).unwrap();
    }
    lab.cluster()
        .unwrap()
        .wait_for_echo(Duration::from_secs(5))
        .unwrap();
    Some(Setup {
        lab,
        sidecar,
        _guard: guard,
        runtime,
    })
}

/// Kills the agents, does what happens meanwhile, starts them again, and counts what was lost.
fn kill_and_return(setup: &mut Setup, meanwhile: Meanwhile) -> Losses {
    let flows = Flows::start(demo::flows(&setup.lab).unwrap()).unwrap();
    let connections = connections(&setup.lab, &setup.sidecar);
    std::thread::sleep(BEFORE);
    let killed = Instant::now();
    for node in VICTIMS {
        setup.lab.cluster_mut().unwrap().kill_agent(node).unwrap();
    }
    let link = setup.lab.plan().links[0].clone();
    match meanwhile {
        Meanwhile::Nothing => {}
        Meanwhile::ApiServerGone => setup.lab.fabric().set_management_reachable(false).unwrap(),
        Meanwhile::LinkCut => {
            std::thread::sleep(DEAD / 2);
            setup.lab.fabric().set_carrier(&link, false).unwrap();
        }
    }
    std::thread::sleep(DEAD.saturating_sub(killed.elapsed()));
    for node in VICTIMS {
        setup.lab.cluster_mut().unwrap().start_agent(node).unwrap();
    }
    let end = Duration::from_secs(u64::from(RESTART_SECONDS)) + PAST_TIMER;
    std::thread::sleep(end.saturating_sub(killed.elapsed()));
    let flows = LossSummary::new(&flows.finish().unwrap(), None);
    let count = connections.finish().unwrap();
    println!(
        "{} flows lost {} of {} datagrams, {} of {} connections failed",
        flows.flows, flows.lost, flows.sent, count.failed, count.begun
    );
    Losses {
        flows,
        connections_failed: count.failed,
        first_failure: count.first_failure,
    }
}

/// From a pod of a node whose agent stays alive to the pods of all others.
fn connections(lab: &Lab, sidecar: &Sidecar) -> Connections {
    let pods = lab.cluster().unwrap().pods();
    let from = pods
        .values()
        .find(|pod| !VICTIMS.contains(&pod.spec.node.as_str()))
        .unwrap();
    let port = sidecar
        .expect
        .probes
        .iter()
        .find(|probe| probe.protocol == caracal_lab_topology::Protocol::Tcp)
        .unwrap()
        .port;
    let targets = pods
        .values()
        .filter(|pod| pod.spec.node != from.spec.node)
        .flat_map(|pod| pod.addresses)
        .map(|address| SocketAddr::new(address, port))
        .collect();
    Connections::start(&from.namespace, targets, 100).unwrap()
}

/// Everything of a node's kernel that an agent could touch, as text that must not change.
fn kernel_state(namespace: &Namespace) -> String {
    let commands: &[&[&str]] = &[
        &["ip", "-N", "-details", "route", "show", "table", "main"],
        &[
            "ip", "-N", "-details", "-6", "route", "show", "table", "main",
        ],
        &["ip", "-N", "-details", "nexthop", "show"],
        &["ip", "-N", "neigh", "show", "nud", "permanent"],
        &["ip", "-N", "-6", "neigh", "show", "nud", "permanent"],
        &["ip", "-N", "-details", "link", "show"],
        &["ip", "-N", "address", "show"],
        &[
            "sysctl",
            "net.ipv4.conf",
            "net.ipv6.conf",
            "net.ipv4.ip_forward",
        ],
        &["nft", "--stateless", "list", "ruleset"],
    ];
    let mut text = String::new();
    for command in commands {
        let output = namespace
            .run(|| Ok(Command::new(command[0]).args(&command[1..]).output()?))
            .unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        text.push_str(&format!("$ {}\n", command.join(" ")));
        // Who owns the table is a fact about a process, not a rule: it ends with the process, and the next
        // one adopts the table with its first write.
        let output = String::from_utf8_lossy(&output.stdout);
        let rules = output
            .lines()
            .filter(|line| !line.trim_start().starts_with("flags"));
        for line in rules {
            text.push_str(line.split(" # progname").next().unwrap_or(line));
            text.push('\n');
        }
    }
    text
}

/// Lines that only one of two texts has.
fn changed_lines(before: &str, after: &str) -> Vec<String> {
    let lines = |text: &str| {
        text.lines()
            .map(str::to_owned)
            .collect::<BTreeSet<String>>()
    };
    let (before, after) = (lines(before), lines(after));
    let gone = before.difference(&after).map(|line| format!("- {line}"));
    gone.chain(after.difference(&before).map(|line| format!("+ {line}")))
        .collect()
}

/// Watches a node's kernel for changes of routes, next hops, links, addresses and rules.
struct Monitor {
    children: Vec<Child>,
    files: Vec<PathBuf>,
}

impl Monitor {
    fn start(namespace: &Namespace, folder: &Path, node: &str) -> Self {
        let mut monitor = Self {
            children: Vec::new(),
            files: Vec::new(),
        };
        let commands: &[&[&str]] = &[
            &[
                "ip", "-N", "monitor", "route", "nexthop", "link", "address", "rule",
            ],
            &["nft", "monitor"],
        ];
        for command in commands {
            let file = folder.join(format!("{node}.{}.monitor", command[0]));
            let output = std::fs::File::create(&file).unwrap();
            let child = namespace
                .run(|| {
                    Ok(Command::new(command[0])
                        .args(&command[1..])
                        .stdin(Stdio::null())
                        .stdout(output)
                        .spawn()?)
                })
                .unwrap();
            monitor.children.push(child);
            monitor.files.push(file);
        }
        monitor
    }

    /// What was seen.
    fn finish(mut self) -> String {
        for child in &mut self.children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        self.files
            .iter()
            .map(|file| std::fs::read_to_string(file).unwrap())
            .collect()
    }
}

fn nothing_is_lost_and_the_kernel_notices_nothing(
    name: &str,
    fabric: Fabric,
    meanwhile: Meanwhile,
) {
    let _alone = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(mut setup) = set_up(name, fabric, true) else {
        return;
    };
    let namespaces = VICTIMS.map(|node| setup.lab.namespace(node));
    let before = namespaces.each_ref().map(kernel_state);
    let folder = setup.lab.state().root().to_owned();
    let monitors: Vec<Monitor> = namespaces
        .iter()
        .zip(VICTIMS)
        .map(|(namespace, node)| Monitor::start(namespace, &folder, node))
        .collect();

    let losses = kill_and_return(&mut setup, meanwhile);
    setup.lab.fabric().set_management_reachable(true).unwrap();

    let seen: Vec<String> = monitors.into_iter().map(Monitor::finish).collect();
    assert_eq!(losses.flows.lost, 0, "{:?}", losses.flows);
    assert_eq!(losses.connections_failed, 0, "{:?}", losses.first_failure);
    for ((node, before), (namespace, seen)) in
        VICTIMS.iter().zip(before).zip(namespaces.iter().zip(seen))
    {
        let changed = changed_lines(&before, &kernel_state(namespace));
        assert!(
            changed.is_empty(),
            "the kernel of {node} has changed:\n{}",
            changed.join("\n")
        );
        assert_eq!(seen, "", "the kernel of {node} was written to");
    }
    until("convergence", Duration::from_secs(10), || {
        setup.lab.missing().map_or(Ok(()), Err)
    })
    .unwrap();
    drop(setup.runtime);
}

#[test]
fn in_plan_a_nothing_is_lost() {
    nothing_is_lost_and_the_kernel_notices_nothing("restart-a", Fabric::Ebgp, Meanwhile::Nothing);
}

#[test]
fn in_plan_b_nothing_is_lost() {
    nothing_is_lost_and_the_kernel_notices_nothing(
        "restart-b",
        Fabric::IbgpRack,
        Meanwhile::Nothing,
    );
}

#[test]
fn without_the_api_server_nothing_is_lost_either() {
    nothing_is_lost_and_the_kernel_notices_nothing(
        "restart-api",
        Fabric::Ebgp,
        Meanwhile::ApiServerGone,
    );
}

#[test]
fn a_link_that_is_cut_while_the_agent_is_dead_costs_200_ms_at_most() {
    let _alone = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(mut setup) = set_up("restart-cut", Fabric::Ebgp, true) else {
        return;
    };
    let losses = kill_and_return(&mut setup, Meanwhile::LinkCut);
    assert!(losses.flows.max <= 200, "{:?}", losses.flows);
}

#[test]
fn without_graceful_restart_the_same_death_is_noticed() {
    let _alone = ONE_AT_A_TIME
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let Some(mut setup) = set_up("restart-off", Fabric::Ebgp, false) else {
        return;
    };
    let losses = kill_and_return(&mut setup, Meanwhile::Nothing);
    assert!(losses.flows.lost > 0, "this test would not see a loss");
}
