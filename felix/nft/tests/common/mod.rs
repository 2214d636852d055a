//! Network namespaces for tests: uniquely named, removed also on panic, usable in parallel.

#![allow(dead_code, reason = "each test binary uses a part of it")]

pub(crate) mod pods;

use std::fs::File;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A network namespace that lives as long as this value.
pub(crate) struct Netns {
    pub(crate) name: String,
}

impl Netns {
    /// `None`, with a word on the output, where namespaces cannot be made.
    pub(crate) fn new(role: &str) -> Option<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("nft-{}-{number}-{role}", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).output();
        match made {
            Ok(output) if output.status.success() => {}
            other => {
                caracal_skip::missing!(
                    "cannot make a network namespace (root and iproute2 are needed): {other:?}"
                );
                return None;
            }
        }
        let netns = Self { name };
        netns.ip("link set lo up");
        Some(netns)
    }

    /// Runs `work` on a thread inside the namespace. Threads that it starts are inside too.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let file = File::open(format!("/run/netns/{}", self.name)).expect("the namespace exists");
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                setns(file, CloneFlags::CLONE_NEWNET).expect("root may enter a namespace");
                work()
            });
            thread
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs `ip` in the namespace; panics with its words if it fails.
    pub(crate) fn ip(&self, arguments: &str) {
        let mut command = Command::new("ip");
        command
            .args(["-n", &self.name])
            .args(arguments.split_whitespace());
        let output = command.output().expect("ip runs");
        assert!(output.status.success(), "ip {arguments}: {output:?}");
    }

    /// Sets a sysctl of the namespace.
    pub(crate) fn sysctl(&self, key: &str, value: &str) {
        self.run(|| std::fs::write(format!("/proc/sys/{key}"), value).expect("the sysctl exists"));
    }

    /// Runs `nft`: whether it succeeded, and all it said.
    pub(crate) fn nft(&self, script: &str) -> (bool, String) {
        let output = Command::new("ip")
            .args(["netns", "exec", &self.name, "nft", script])
            .output()
            .expect("nft runs");
        let text = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        )
    }

    /// The ruleset as `nft` prints it; panics if it cannot.
    pub(crate) fn list_ruleset(&self) -> String {
        let (listed, text) = self.nft("list ruleset");
        assert!(listed, "nft cannot list the ruleset: {text}");
        text
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        let _ = Command::new("ip")
            .args(["netns", "del", &self.name])
            .output();
    }
}

/// Waits until `probe` gives a value; panics with what it last gave otherwise.
pub(crate) fn until<T, E: std::fmt::Debug>(
    what: &str,
    deadline: Duration,
    mut probe: impl FnMut() -> Result<T, E>,
) -> T {
    let end = Instant::now() + deadline;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if Instant::now() > end => {
                panic!("{what}: still {last:?} after {deadline:?}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(2)),
        }
    }
}
