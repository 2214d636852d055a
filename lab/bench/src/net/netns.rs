//! Network namespaces without names.
//!
//! A namespace lives as long as its descriptor or a process in it, so that nothing is left behind however the
//! bench ends. Does not own links ([`super::arena`]).

use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, setns, unshare};
use nix::unistd::Pid;

/// A network namespace.
#[derive(Debug)]
pub struct Netns {
    file: File,
}

impl Netns {
    /// Makes a new one, with its loopback up.
    ///
    /// # Errors
    /// The kernel refuses (not root).
    pub fn create() -> anyhow::Result<Self> {
        let file = on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET).context("cannot make a network namespace")?;
            File::open("/proc/thread-self/ns/net").context("cannot open a network namespace")
        })?;
        let namespace = Self { file };
        namespace.ip("link set lo up\n")?;
        Ok(namespace)
    }

    /// A path by which `ip` finds it.
    pub fn path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.file.as_raw_fd())
    }

    /// Runs `work` inside, on a thread of its own and on `core` if one is given, and waits for it. Sockets and
    /// processes that it makes stay inside.
    ///
    /// # Errors
    /// The namespace or the core cannot be entered, or `work` fails.
    pub fn run<T: Send>(
        &self,
        core: Option<usize>,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        on_thread(|| {
            self.enter()?;
            pin(core)?;
            work()
        })
    }

    /// Moves the calling thread inside for good.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn enter(&self) -> anyhow::Result<()> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).context("cannot enter a network namespace")
    }

    /// Runs the lines of `batch` with `ip`.
    ///
    /// # Errors
    /// One of them is refused.
    pub fn ip(&self, batch: &str) -> anyhow::Result<()> {
        self.run(None, || {
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .context("cannot run ip (package iproute2)")?;
            let mut input = child.stdin.take().context("ip has no standard input")?;
            input
                .write_all(batch.as_bytes())
                .context("cannot write to ip")?;
            drop(input);
            let output = child.wait_with_output().context("cannot wait for ip")?;
            if !output.status.success() {
                bail!("ip: {}", String::from_utf8_lossy(&output.stderr).trim());
            }
            Ok(())
        })
    }

    /// Writes settings below /proc/sys/net, each a path and a value.
    ///
    /// # Errors
    /// One of them is not there or refused.
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> anyhow::Result<()> {
        self.run(None, || {
            for (name, value) in settings {
                std::fs::write(format!("/proc/sys/net/{name}"), value)
                    .with_context(|| format!("cannot set {name}"))?;
            }
            Ok(())
        })
    }
}

/// Keeps the calling thread, and what it starts, on `core`.
///
/// # Errors
/// There is no such core.
pub fn pin(core: Option<usize>) -> anyhow::Result<()> {
    let Some(core) = core else {
        return Ok(());
    };
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .with_context(|| format!("cannot run on core {core}"))
}

/// The cores that this process may use.
pub fn cores() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return vec![0];
    };
    (0..CpuSet::count())
        .filter(|core| set.is_set(*core).unwrap_or(false))
        .collect()
}

fn on_thread<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
