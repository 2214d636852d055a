//! `caracal lab …`: the verbs of the lab.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use caracal_lab_topology::{Clab, Driver, Fabric, Plan, Probe, Sidecar};
use clap::{Args, Subcommand};

use crate::cluster::Binaries;
use crate::custody::{self, Custody};
use crate::demo;
use crate::interrupt::Interrupt;
use crate::lab::{DriverChoice, Lab};
use crate::namespace::Namespace;
use crate::report::Report;
use crate::state::StateDir;

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum LabCommand {
    /// Bring a topology up, measure it, and take it down
    Demo(DemoArgs),
    /// List labs that are there
    Ps,
    /// Take a lab down, whatever is left of it
    Down {
        /// Name of the lab; the only one there is, when absent
        #[arg(long)]
        name: Option<String>,
    },
    /// Run a command inside a box
    Exec {
        /// Name of the lab; the only one there is, when absent
        #[arg(long)]
        name: Option<String>,
        /// The box
        node: String,
        /// The command and its arguments
        #[arg(trailing_var_arg = true, required = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Answer TCP and UDP with the own address and the one seen
    #[command(hide = true)]
    Echo {
        /// Ports as tcp/8080 or udp/53
        ports: Vec<Probe>,
    },
    /// Take a lab down when its owner is gone
    #[command(hide = true)]
    Janitor {
        /// Name of the lab
        name: String,
    },
}

/// What `demo` takes.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Topology file; its sidecar lies beside it as NAME.lab.yml
    #[arg(long, default_value = "lab/topologies/two-rack.clab.yml")]
    pub topology: PathBuf,
    /// Name of the lab, so that several of one topology can be up; the topology's when absent
    #[arg(long, value_parser = lab_name)]
    pub name: Option<String>,
    /// a: eBGP, one AS per node; b: iBGP in the rack
    #[arg(long, default_value = "a")]
    pub plan: Fabric,
    /// Fail when one of these is not installed
    #[arg(long, value_delimiter = ',')]
    pub require: Vec<Driver>,
    /// Treat these as not installed
    #[arg(long, value_delimiter = ',')]
    pub without: Vec<Driver>,
    /// Write the report as JSON to this file
    #[arg(long)]
    pub json: Option<PathBuf>,
    /// Leave the lab up until Ctrl-C
    #[arg(long)]
    pub keep: bool,
    /// Leave out the faults
    #[arg(long)]
    pub no_faults: bool,
}

/// Runs a verb.
///
/// # Errors
/// One line that says what was done to what, with a hint where there is one.
pub fn run(command: LabCommand) -> anyhow::Result<ExitCode> {
    match command {
        LabCommand::Demo(arguments) => run_demo(&arguments),
        LabCommand::Ps => {
            list();
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Down { name } => {
            StateDir::of(&the_lab(name)?).tear_down()?;
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Exec {
            name,
            node,
            command,
        } => exec(&the_lab(name)?, &node, &command),
        LabCommand::Echo { ports } => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(crate::echo::serve(&ports))?;
            Ok(ExitCode::SUCCESS)
        }
        LabCommand::Janitor { name } => {
            custody::watch(&name)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn run_demo(arguments: &DemoArgs) -> anyhow::Result<ExitCode> {
    require_root()?;
    let (mut plan, mut sidecar) = load(&arguments.topology, arguments.plan)?;
    if let Some(name) = &arguments.name {
        plan.name.clone_from(name);
    }
    if arguments.no_faults {
        sidecar.faults.clear();
    }
    let binaries = binaries()?;
    let choice = DriverChoice {
        require: arguments.require.clone(),
        without: arguments.without.clone(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let interrupt = Interrupt::watch(runtime.handle())?;

    let custody = Custody::take(&plan.name, &binaries.caracal)?;
    let state = custody.state();
    let mut report = demo::new_report(&plan);
    match Lab::up(&plan, &sidecar, &choice, &binaries, state, runtime.handle()) {
        Ok(mut lab) => {
            report.placements = lab.placements().to_vec();
            if let Err(error) = demo::run(&mut lab, &sidecar, &interrupt, &mut report) {
                report.failures.push(format!("{error:#}"));
            }
            report.failures.extend(lab.casualties());
            if arguments.keep {
                stay(state, &interrupt);
            }
        }
        Err(error) => report.failures.push(format!("{error:#}")),
    }
    if !report.passed() {
        keep_logs(state);
    }
    custody.tear_down()?;
    print(&report);
    if let Some(path) = &arguments.json {
        let text = demo::to_json(&report)?;
        std::fs::write(path, format!("{text:#}\n"))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(if report.passed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Reads a topology with its sidecar and plans it.
///
/// # Errors
/// A file cannot be read or does not mean anything; the message has file and line.
pub fn load(topology: &Path, fabric: Fabric) -> anyhow::Result<(Plan, Sidecar)> {
    let name = topology.display().to_string();
    let Some(stem) = name.strip_suffix(".clab.yml") else {
        bail!("{name}: a topology file is called NAME.clab.yml");
    };
    let sidecar_name = format!("{stem}.lab.yml");
    let text = std::fs::read_to_string(topology).with_context(|| format!("cannot read {name}"))?;
    let clab = Clab::parse(&name, &text)?;
    let plan = Plan::new(&name, &clab, fabric)?;
    let text = std::fs::read_to_string(&sidecar_name)
        .with_context(|| format!("cannot read {sidecar_name}, the sidecar of {name}"))?;
    let sidecar = Sidecar::parse(&sidecar_name, &text)?;
    for (what, node) in sidecar
        .cluster
        .pods
        .iter()
        .map(|pod| (format!("pod {}", pod.name), &pod.node))
        .chain(
            sidecar
                .faults
                .iter()
                .map(|fault| (format!("fault {}", fault.kind), &fault.node)),
        )
    {
        if !plan.nodes.contains_key(node) {
            bail!(
                "{sidecar_name}: {what} names node {node}, which does not exist\nhint: nodes of {name}: {}",
                plan.nodes.keys().cloned().collect::<Vec<_>>().join(", ")
            );
        }
    }
    Ok((plan, sidecar))
}

fn require_root() -> anyhow::Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the lab makes network namespaces and must run as root\nhint: sudo make demo");
    }
    Ok(())
}

/// A lab's name is that of a folder, and a part of the paths of sockets.
fn lab_name(name: &str) -> Result<String, String> {
    let fits = (1..=32).contains(&name.len());
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
    if fits && plain {
        return Ok(name.to_owned());
    }
    Err("expected 1 to 32 letters, digits, - or _".to_owned())
}

/// The product's executables lie beside each other.
fn binaries() -> anyhow::Result<Binaries> {
    let caracal = std::env::current_exe().context("cannot find the own executable")?;
    let folder = caracal.parent().unwrap_or(Path::new("/"));
    let plugin = folder.join("caracal-cni");
    if !plugin.exists() {
        bail!(
            "there is no {}\nhint: build the whole workspace: make build",
            plugin.display()
        );
    }
    Ok(Binaries { caracal, plugin })
}

fn the_lab(name: Option<String>) -> anyhow::Result<String> {
    if let Some(name) = name {
        return Ok(name);
    }
    match StateDir::all().as_slice() {
        [] => bail!("no lab is up\nhint: make demo ARGS=--keep"),
        [one] => Ok(one.clone()),
        several => bail!(
            "several labs are up: {}\nhint: choose with --name",
            several.join(", ")
        ),
    }
}

fn exec(lab: &str, node: &str, command: &[String]) -> anyhow::Result<ExitCode> {
    let state = StateDir::of(lab);
    let file = state.namespace(node);
    if !file.exists() {
        let boxes: Vec<String> = state
            .namespaces()
            .iter()
            .filter_map(|n| Some(n.path().file_name()?.to_string_lossy().into_owned()))
            .collect();
        bail!(
            "lab {lab} has no box {node}\nhint: boxes: {}",
            boxes.join(", ")
        );
    }
    let status = Namespace::at(&file).run(|| {
        Command::new(&command[0])
            .args(&command[1..])
            .env("CARACAL_RUN_DIR", state.folder(node))
            .env("KUBECONFIG", state.kubeconfig())
            .status()
            .with_context(|| format!("cannot run {}", command[0]))
    })?;
    Ok(ExitCode::from(
        status
            .code()
            .and_then(|code| u8::try_from(code).ok())
            .unwrap_or(1),
    ))
}

/// Copies the logs of a failed run to where they outlive the lab.
#[expect(clippy::print_stderr, reason = "tells a person where to look")]
fn keep_logs(state: &StateDir) {
    let target = std::env::temp_dir().join(format!("caracal-lab-{}", std::process::id()));
    let copied = Command::new("cp")
        .arg("-r")
        .arg(state.root().join("box"))
        .arg(&target)
        .status();
    if copied.is_ok_and(|status| status.success()) {
        eprintln!("logs and configurations of this run: {}", target.display());
    }
}

#[expect(clippy::print_stderr, reason = "tells a person what to do next")]
fn stay(state: &StateDir, interrupt: &Interrupt) {
    eprintln!(
        "\nthe lab stays up until Ctrl-C\n  export KUBECONFIG={}\n  caracal lab exec n1 -- ip route",
        state.kubeconfig().display()
    );
    while interrupt.check().is_ok() {
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn print(report: &Report) {
    print!("{report}");
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn list() {
    for name in StateDir::all() {
        println!("{name}");
    }
}
