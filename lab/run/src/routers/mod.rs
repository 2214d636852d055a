//! Routers: one box of the topology with an implementation on it.
//!
//! A driver renders configuration, says what to start and reads state; this module owns the life of the
//! processes, which is the same for all of them.

mod bird;
mod caracal;
mod frr;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use caracal_lab_topology::{Driver, Plan, PlannedNode, Role};
use nix::sys::signal::Signal;

use crate::namespace::Namespace;
use crate::process::{Process, until};

/// Graceful-restart time of every router in seconds: longer than any restart that the lab plays.
pub const RESTART_SECONDS: u32 = 45;

/// How long a daemon may take to open its socket.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// How long a daemon may take to leave in an orderly way.
const STOP_PATIENCE: Duration = Duration::from_secs(10);

/// A router with its processes.
pub struct Router {
    node: PlannedNode,
    driver: Driver,
    folder: PathBuf,
    binary: PathBuf,
    namespace: Namespace,
    processes: Vec<Process>,
}

/// A program to start, and the file that appears once it serves.
struct Launch {
    program: PathBuf,
    arguments: Vec<String>,
    ready: Option<PathBuf>,
}

/// How processes are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopKind {
    /// SIGKILL.
    Kill,
    /// As an operator would.
    Orderly,
}

/// Why processes are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartKind {
    /// The box is new or lost its forwarding state.
    Fresh,
    /// The kernel kept forwarding: graceful-restart recovery.
    Recovery,
}

/// The version of a driver, `None` when it is not installed.
pub fn detect(driver: Driver) -> Option<String> {
    match driver {
        Driver::Frr => frr::detect(),
        Driver::Bird => bird::detect(),
        Driver::Caracal => Some(env!("CARGO_PKG_VERSION").to_owned()),
    }
}

/// Removes what a daemon leaves outside its folder: FRR makes one for crash logs, named after the process.
pub(crate) fn remove_leftovers(pid: i32) {
    for program in ["zebra", "bgpd"] {
        let _ = std::fs::remove_dir_all(format!("/var/tmp/frr/{program}.{pid}"));
    }
}

impl Router {
    /// Prepares a router; nothing is started. `binary` is this project's own executable.
    ///
    /// # Errors
    /// The configuration cannot be written.
    pub fn new(
        plan: &Plan,
        node: &PlannedNode,
        driver: Driver,
        namespace: Namespace,
        folder: &Path,
        binary: &Path,
    ) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let router = Self {
            node: node.clone(),
            driver,
            folder: folder.to_owned(),
            binary: binary.to_owned(),
            namespace,
            processes: Vec::new(),
        };
        router.configure(plan)?;
        if driver == Driver::Frr {
            let user = nix::unistd::User::from_name(frr::USER)?
                .with_context(|| format!("there is no user {}", frr::USER))?;
            std::os::unix::fs::chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
                .with_context(|| format!("cannot give {} to {}", folder.display(), frr::USER))?;
        }
        router.prepare_host()?;
        Ok(router)
    }

    /// Its node name.
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Which implementation runs.
    pub fn driver(&self) -> Driver {
        self.driver
    }

    /// Its namespace.
    pub fn namespace(&self) -> &Namespace {
        &self.namespace
    }

    /// Starts the daemons in order, each once the one before serves.
    ///
    /// # Errors
    /// A daemon cannot be started or ends at once; the end of its log is in the message.
    pub fn start(&mut self, kind: StartKind) -> anyhow::Result<()> {
        let launches = match self.driver {
            Driver::Frr => frr::launches(&self.folder),
            Driver::Bird => bird::launches(&self.folder, kind),
            Driver::Caracal => caracal::launches(&self.folder, &self.node, &self.binary),
        };
        for launch in launches {
            if let Some(ready) = &launch.ready {
                let _ = std::fs::remove_file(ready);
            }
            let program = launch
                .program
                .file_name()
                .unwrap_or_default()
                .to_string_lossy();
            let name = format!("{program} on {}", self.node.name);
            let mut command = Command::new(&launch.program);
            command.args(&launch.arguments);
            let log = self.folder.join(format!("{program}.out"));
            let mut process = Process::start(&name, &self.namespace, command, &log)?;
            if let Some(ready) = &launch.ready {
                let ended = until(&format!("{name} serving"), START_PATIENCE, || match process
                    .exited()
                {
                    Ok(Some(status)) => Ok(Some(status)),
                    _ if ready.exists() => Ok(None),
                    _ => Err(format!("{} is missing", ready.display())),
                })?;
                if let Some(status) = ended {
                    bail!("{name} ended at once: {status}\n{}", process.log_tail(20));
                }
            }
            self.processes.push(process);
        }
        Ok(())
    }

    /// Ends the daemons. The kernel's routes stay in either case.
    ///
    /// # Errors
    /// A daemon does not leave.
    pub fn stop(&mut self, kind: StopKind) -> anyhow::Result<()> {
        let signal = match (self.driver, kind) {
            (Driver::Frr, _) => frr::stop_signal(kind),
            (_, StopKind::Kill) => Signal::SIGKILL,
            (_, StopKind::Orderly) => Signal::SIGTERM,
        };
        // The speaker goes before what owns the kernel's routes.
        for process in self.processes.iter_mut().rev() {
            process.signal(signal);
        }
        for mut process in self.processes.drain(..) {
            process.wait(STOP_PATIENCE)?;
            remove_leftovers(process.id() as i32);
        }
        Ok(())
    }

    /// Withdraws everything that was announced, while all that was learnt stays installed.
    ///
    /// # Errors
    /// The daemon refuses.
    pub fn drain(&mut self, plan: &Plan) -> anyhow::Result<()> {
        match self.driver {
            Driver::Frr => frr::drain(&self.folder, plan, &self.node),
            Driver::Bird => bird::drain(&self.folder, plan, &self.node),
            // Asked to end, the speaker takes leave of its peers and leaves its routes in the kernel.
            Driver::Caracal => self.stop(StopKind::Orderly),
        }
    }

    /// Writes the configuration as it is in service, also after [`Self::drain`].
    ///
    /// # Errors
    /// A file cannot be written.
    pub fn configure(&self, plan: &Plan) -> anyhow::Result<()> {
        let files = match self.driver {
            Driver::Frr => frr::render(plan, &self.node),
            Driver::Bird => bird::render(plan, &self.node, &self.folder),
            Driver::Caracal => caracal::render(plan, &self.node),
        };
        for (name, text) in files {
            let path = self.folder.join(name);
            std::fs::write(&path, text)
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }

    /// Number of established sessions.
    ///
    /// # Errors
    /// The daemon does not answer.
    pub fn established(&self) -> anyhow::Result<usize> {
        match self.driver {
            Driver::Frr => frr::established(&self.folder),
            Driver::Bird => bird::established(&self.folder),
            Driver::Caracal => caracal::established(&self.folder),
        }
    }

    /// Processes that have ended although nobody stopped them.
    pub fn casualties(&mut self) -> Vec<String> {
        self.processes
            .iter_mut()
            .filter_map(|process| match process.exited() {
                Ok(Some(status)) => Some(format!("{}: {status}", process.name())),
                _ => None,
            })
            .collect()
    }

    /// What a network operating system does before its routing daemons start.
    fn prepare_host(&self) -> anyhow::Result<()> {
        self.namespace.run(|| {
            for (key, value) in ROUTER_SYSCTLS {
                let path = format!("/proc/sys/{}", key.replace('.', "/"));
                std::fs::write(&path, value).with_context(|| format!("cannot set {key}"))?;
            }
            for entry in std::fs::read_dir("/proc/sys/net/ipv4/conf")? {
                let name = entry?.file_name();
                for (family, key, value) in [
                    ("ipv4", "rp_filter", "0"),
                    ("ipv4", "ignore_routes_with_linkdown", "1"),
                    ("ipv6", "ignore_routes_with_linkdown", "1"),
                ] {
                    let path = Path::new("/proc/sys/net")
                        .join(family)
                        .join("conf")
                        .join(&name);
                    std::fs::write(path.join(key), value).with_context(|| {
                        format!("cannot set {family} {key} of {}", name.to_string_lossy())
                    })?;
                }
            }
            Ok(())
        })
    }
}

/// Settings of a router's kernel.
const ROUTER_SYSCTLS: &[(&str, &str)] = &[
    ("net.ipv4.ip_forward", "1"),
    ("net.ipv6.conf.all.forwarding", "1"),
    // Layer-4 hash, or all flows between two hosts share one path.
    ("net.ipv4.fib_multipath_hash_policy", "1"),
    ("net.ipv6.fib_multipath_hash_policy", "1"),
    ("net.ipv6.conf.all.keep_addr_on_down", "1"),
];

/// Prefixes that a router announces of its own: its loopbacks, and the links to hosts beyond the fabric.
fn own_prefixes(plan: &Plan, node: &PlannedNode) -> [(&'static str, Vec<String>); 2] {
    let mut v4 = vec![format!("{}/32", node.loopback_v4)];
    let mut v6 = vec![format!("{}/128", node.loopback_v6)];
    for (link, _, far) in plan.ends(&node.name) {
        if plan.nodes[&far.node].role == Role::Outside {
            v4.push(format!("{}/31", link.upper.v4));
            v6.push(format!("{}/127", link.upper.v6));
        }
    }
    [("ipv4", v4), ("ipv6", v6)]
}
