//! A daemon's processes: started in a namespace, measured, stopped.
//!
//! Owns what /proc says of them. Does not own what they are told ([`crate::daemons`]).

use std::collections::HashMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, SysconfVar, sysconf};

use crate::interrupt;
use crate::net::netns::Netns;

/// A program to start, and how one knows that it is ready for the next.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// A file or socket that appears once the next program may be started.
    pub ready: Option<PathBuf>,
}

/// What processes have used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Processor time in user and kernel mode, of all processes and threads.
    pub cpu: Duration,
    /// The highest resident memory that each process had, added up, in octets.
    pub peak_memory: u64,
}

/// A daemon that runs. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    children: Vec<Child>,
    log: PathBuf,
}

impl Running {
    /// Starts `launches` in turn inside `namespace`, on `core` if one is given. Their output goes to a file in
    /// `folder`.
    ///
    /// # Errors
    /// One of them cannot be started, ends, or does not become ready.
    pub fn start(
        launches: &[Launch],
        namespace: &Netns,
        core: Option<usize>,
        folder: &Path,
    ) -> anyhow::Result<Self> {
        let log = folder.join("output.log");
        let output =
            File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut running = Self {
            children: Vec::new(),
            log,
        };
        // The others' logs are off; whoever looks for a fault may want ours.
        let level = std::env::var("RUST_LOG").unwrap_or_else(|_| "error".into());
        for launch in launches {
            let child = namespace.run(core, || {
                use std::os::unix::process::CommandExt;
                Command::new(&launch.program)
                    .args(&launch.arguments)
                    .current_dir(folder)
                    .env("RUST_LOG", &level)
                    .stdin(Stdio::null())
                    .stdout(output.try_clone()?)
                    .stderr(output.try_clone()?)
                    // An interrupt from the terminal is the bench's to handle.
                    .process_group(0)
                    .spawn()
                    .with_context(|| format!("cannot start {}", launch.program.display()))
            })?;
            running.children.push(child);
            if let Some(file) = &launch.ready {
                running.wait(&format!("{} to appear", file.display()), || file.exists())?;
            }
        }
        Ok(running)
    }

    /// Waits until it listens for BGP.
    ///
    /// # Errors
    /// It ends, or does not listen in time.
    pub fn wait_for_listener(&mut self) -> anyhow::Result<()> {
        let Some(child) = self.children.last() else {
            bail!("nothing was started");
        };
        let tables = ["tcp", "tcp6"].map(|table| format!("/proc/{}/net/{table}", child.id()));
        self.wait("the daemon to listen", || {
            tables.iter().any(|table| listens(table))
        })
    }

    fn wait(&mut self, what: &str, mut done: impl FnMut() -> bool) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_PATIENCE;
        while !done() {
            interrupt::check()?;
            for child in &mut self.children {
                if let Some(status) = child.try_wait()? {
                    bail!("a process ended ({status}): {}", self.log_tail());
                }
            }
            if Instant::now() > deadline {
                bail!("waited {START_PATIENCE:?} for {what}: {}", self.log_tail());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// Fails if one of its processes has ended.
    ///
    /// # Errors
    /// With the end of its output.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        for child in &mut self.children {
            if let Some(status) = child.try_wait()? {
                bail!("the daemon ended ({status}): {}", self.log_tail());
            }
        }
        Ok(())
    }

    /// What all its processes have used so far, those that they started included.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for pid in self.pids() {
            // The threads that live, to the nanosecond; or all that ever lived, to the tick, where some have
            // ended.
            usage.cpu += cpu(pid).unwrap_or_default().max(threads_cpu(pid));
            usage.peak_memory += peak_memory(pid).unwrap_or_default();
        }
        usage
    }

    /// How often a connection came while the queue of a listener in its namespace was full; `None` when the kernel
    /// does not say.
    pub fn listen_overflows(&self) -> Option<u64> {
        let file = format!("/proc/{}/net/netstat", self.children.last()?.id());
        let text = fs::read_to_string(file).ok()?;
        // A line of names, then a line of numbers.
        let mut lines = text.lines().filter(|line| line.starts_with("TcpExt:"));
        let place = lines
            .next()?
            .split_whitespace()
            .position(|name| name == "ListenOverflows")?;
        lines.next()?.split_whitespace().nth(place)?.parse().ok()
    }

    /// Forgets the highest memory so far, so that the next one is that of what comes.
    pub fn reset_peak_memory(&self) {
        for pid in self.pids() {
            // Where the kernel cannot, the peak stays that of the whole life, which is no smaller.
            let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
        }
    }

    /// The end of what it wrote.
    pub fn log_tail(&self) -> String {
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let tail = &lines[lines.len().saturating_sub(5)..];
        if tail.is_empty() {
            "it wrote nothing".into()
        } else {
            tail.join("; ")
        }
    }

    /// Process ids: what was started, and the descendants of it.
    pub fn pids(&self) -> Vec<u32> {
        let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(pid) = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            if let Some(parent) = stat(pid).and_then(|fields| fields.get(1)?.parse().ok()) {
                children.entry(parent).or_default().push(pid);
            }
        }
        let mut found: Vec<u32> = self.children.iter().map(Child::id).collect();
        let mut next = 0;
        while let Some(pid) = found.get(next) {
            found.extend(children.remove(pid).unwrap_or_default());
            next += 1;
        }
        found
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // All of them at once: what a dead parent leaves could not be found any more.
        for pid in self.pids() {
            let _ = kill(Pid::from_raw(pid as i32), Signal::SIGKILL);
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
    }
}

/// Whether a table of TCP sockets has one that listens on the port of BGP.
fn listens(table: &str) -> bool {
    let text = fs::read_to_string(table).unwrap_or_default();
    text.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        let local = fields.next().is_some_and(|local| local.ends_with(":00B3"));
        local && fields.nth(1) == Some("0A")
    })
}

/// The fields of /proc/PID/stat after the name.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold blanks and parentheses; it ends at the last one.
    let (_, fields) = text.rsplit_once(')')?;
    Some(fields.split_whitespace().map(str::to_owned).collect())
}

fn cpu(pid: u32) -> Option<Duration> {
    let fields = stat(pid)?;
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let per_second = sysconf(SysconfVar::CLK_TCK).ok()??;
    Some(Duration::from_secs_f64(ticks as f64 / per_second as f64))
}

fn threads_cpu(pid: u32) -> Duration {
    let mut nanos = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))
        .into_iter()
        .flatten()
    {
        let file = thread.map(|thread| thread.path().join("schedstat"));
        let text = file.and_then(fs::read_to_string).unwrap_or_default();
        let first = text.split_whitespace().next();
        nanos += first.and_then(|n| n.parse::<u64>().ok()).unwrap_or(0);
    }
    Duration::from_nanos(nanos)
}

fn peak_memory(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("VmHWM:"))?;
    let kibibytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(10);
/// Thousands of peers take some daemons a while to read.
const START_PATIENCE: Duration = Duration::from_secs(60);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_measured_with_its_descendants_and_gone_when_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let namespace = match Netns::create() {
            Ok(namespace) => namespace,
            Err(error) => return caracal_skip::missing!("{error:#}"),
        };
        let launch = Launch {
            program: "/bin/sh".into(),
            arguments: vec![
                "-c".into(),
                "sh -c 'touch up; while :; do :; done' & wait".into(),
            ],
            ready: Some(folder.path().join("up")),
        };
        let running = Running::start(&[launch], &namespace, None, folder.path()).unwrap();
        let pids = running.pids();
        assert_eq!(pids.len(), 2, "{pids:?}");
        let deadline = Instant::now() + Duration::from_secs(30);
        while running.usage().cpu < Duration::from_millis(50) {
            assert!(Instant::now() < deadline, "{:?}", running.usage());
        }
        assert!(running.usage().peak_memory > 100_000);
        drop(running);
        let deadline = Instant::now() + Duration::from_secs(10);
        while pids
            .iter()
            .any(|pid| stat(*pid).is_some_and(|s| s[0] != "Z"))
        {
            assert!(Instant::now() < deadline, "{pids:?} are still there");
        }
    }
}
