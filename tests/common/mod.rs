//! What tests with a lab share.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

pub(crate) mod manifests;
pub(crate) mod net;
pub(crate) mod server;

use std::path::Path;
use std::process::Command;

use caracal_lab::custody::Custody;
use caracal_lab::state::StateDir;

/// Takes the lab down whatever happens to the test, also when it is killed; its logs survive a failure.
pub(crate) struct Guard(Custody);

impl Guard {
    pub(crate) fn take(lab: &str) -> Self {
        let caracal = Path::new(env!("CARGO_BIN_EXE_caracal"));
        Self(Custody::take(lab, caracal).unwrap())
    }

    pub(crate) fn state(&self) -> &StateDir {
        self.0.state()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let target = std::env::temp_dir().join(format!("caracal-test-{}", std::process::id()));
            let logs = self.state().root().join("box");
            let _ = Command::new("cp").arg("-r").arg(logs).arg(&target).status();
            eprintln!("logs of this run: {}", target.display());
        }
        if let Err(error) = self.state().tear_down() {
            eprintln!("teardown: {error:#}");
        }
    }
}

/// Whether the test may make network namespaces.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .unwrap()
        .lines()
        .any(|line| line.starts_with("Uid:\t0\t"))
}
