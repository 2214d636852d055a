//! Processes that the lab starts inside its namespaces.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::namespace::Namespace;

/// A process of the lab. Dropping it leaves the process alone; the teardown finds it by its namespace.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `command` inside `namespace`, its output appended to `log`.
    ///
    /// The child is put in a process group of its own: an interrupt from the terminal reaches the lab
    /// alone, which then takes everything down in order.
    ///
    /// # Errors
    /// The log cannot be opened or the program cannot be started.
    pub fn start(
        name: &str,
        namespace: &Namespace,
        mut command: Command,
        log: &Path,
    ) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt;
        let output = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot open {}", log.display()))?;
        let program = command.get_program().to_string_lossy().into_owned();
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("cannot share a log file")?)
            .stderr(output)
            .process_group(0);
        let child = namespace.run(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {program}"))
        })?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
        })
    }

    /// What it is called in reports.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, once it has ended.
    ///
    /// # Errors
    /// The kernel does not know the child.
    pub fn exited(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// Sends a signal. A process that has ended already is no error.
    pub fn signal(&mut self, signal: Signal) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.child.id() as i32), signal);
        }
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// The process is still there at the deadline.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!(
                    "{} (pid {}) is still running after {within:?}",
                    self.name,
                    self.child.id()
                );
            }
            std::thread::sleep(POLL);
        }
    }

    /// The end of its log, for error messages.
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// Kills every process in the given namespaces, by the namespace's inode: whatever lives there was started
/// by the lab or by something that the lab started. Returns whom it killed.
pub fn kill_all_in(namespaces: &[Namespace]) -> BTreeSet<i32> {
    let inodes: Vec<u64> = namespaces.iter().filter_map(|n| n.inode().ok()).collect();
    let deadline = Instant::now() + KILL_PATIENCE;
    let mut killed = BTreeSet::new();
    loop {
        let pids = pids_in(&inodes);
        if pids.is_empty() || Instant::now() > deadline {
            return killed;
        }
        for pid in pids {
            let _ = kill(pid, Signal::SIGKILL);
            killed.insert(pid.as_raw());
        }
        std::thread::sleep(POLL);
    }
}

/// Waits until `condition` gives a value, and says what it saw last when it does not.
///
/// # Errors
/// The deadline has passed; the message carries the last answer.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut condition: impl FnMut() -> Result<T, String>,
) -> anyhow::Result<T> {
    let deadline = Instant::now() + within;
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(seen) if Instant::now() > deadline => {
                bail!("{what}: not within {within:?}, last seen: {seen}")
            }
            Err(_) => std::thread::sleep(POLL),
        }
    }
}

/// How often a condition is looked at: well below what a person or a budget could notice.
const POLL: Duration = Duration::from_millis(10);

/// A process that survives SIGKILL for longer sits in the kernel; the teardown goes on without it.
const KILL_PATIENCE: Duration = Duration::from_secs(5);

fn pids_in(inodes: &[u64]) -> Vec<Pid> {
    use std::os::unix::fs::MetadataExt;
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|&pid| pid != std::process::id() as i32)
        .filter(|pid| {
            std::fs::metadata(format!("/proc/{pid}/ns/net"))
                .is_ok_and(|metadata| inodes.contains(&metadata.ino()))
        })
        .map(Pid::from_raw)
        .collect()
}
