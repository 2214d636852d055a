//! A lab is gone when its owner is, and its name is free again, whatever was killed.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use caracal_lab::custody::Custody;
use caracal_lab::namespace::Namespace;
use caracal_lab::process::until;
use caracal_lab::state::StateDir;
use common::is_root;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const CARACAL: &str = env!("CARGO_BIN_EXE_caracal");
const PATIENCE: Duration = Duration::from_secs(10);

/// Not a test: this binary as a lab's owner, when told to by the environment. Says when the lab is there.
#[test]
#[ignore = "a part of other tests"]
fn process_that_owns_a_lab() {
    let Some(name) = std::env::var_os("CARACAL_TEST_LAB") else {
        return;
    };
    let custody = Custody::take(&name.to_string_lossy(), Path::new(CARACAL)).unwrap();
    let file = custody.state().namespace("box");
    let namespace = Namespace::create(&file).unwrap();
    let mut inhabitant = namespace
        .run(|| Ok(Command::new("sleep").arg("600").spawn()?))
        .unwrap();
    let told = custody.state().root().join("told");
    std::fs::write(told, inhabitant.id().to_string()).unwrap();
    inhabitant.wait().unwrap();
}

struct Owner {
    child: Child,
    inhabitant: Pid,
    janitor: Pid,
}

impl Owner {
    fn start(lab: &str) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "process_that_owns_a_lab", "--ignored"])
            .env("CARACAL_TEST_LAB", lab)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let told = StateDir::of(lab).root().join("told");
        let inhabitant = until("the lab is there", PATIENCE, || {
            let text = std::fs::read_to_string(&told).map_err(|error| error.to_string())?;
            text.parse().map(Pid::from_raw).map_err(|_| text)
        });
        Self {
            child,
            inhabitant: inhabitant.unwrap(),
            janitor: janitor_of(lab),
        }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// The process that watches over a lab, by its command line.
fn janitor_of(lab: &str) -> Pid {
    let watches = |pid: &i32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.ends_with(&format!("\0lab\0janitor\0{lab}\0"))
    };
    let names = std::fs::read_dir("/proc").unwrap();
    let mut pids = names.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    Pid::from_raw(pids.find(watches).unwrap())
}

fn name(case: &str) -> Option<String> {
    if !is_root() {
        caracal_skip::missing!("the lab needs root");
        return None;
    }
    Some(format!("{case}-{}", std::process::id()))
}

fn is_running(pid: Pid) -> bool {
    // A process that nobody has waited for is no longer running.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let checked = || condition().then_some(()).ok_or_else(|| "not so".to_owned());
    until(what, PATIENCE, checked).unwrap();
}

#[test]
fn a_killed_owner_leaves_nothing_behind() {
    let Some(lab) = name("killed") else { return };
    let mut owner = Owner::start(&lab);
    owner.kill();
    wait_until("the janitor has done its work", || {
        !StateDir::of(&lab).root().exists() && !is_running(owner.inhabitant)
    });
}

#[test]
fn a_lab_whose_owner_and_janitor_were_killed_gives_way_to_the_next_of_its_name() {
    let Some(lab) = name("orphan") else { return };
    let mut owner = Owner::start(&lab);
    kill(owner.janitor, Signal::SIGKILL).unwrap();
    owner.kill();
    assert!(StateDir::of(&lab).namespace("box").exists());
    assert!(is_running(owner.inhabitant));

    let next = Custody::take(&lab, Path::new(CARACAL)).unwrap();
    assert!(!next.state().namespace("box").exists());
    assert!(!is_running(owner.inhabitant));
    next.tear_down().unwrap();
    assert!(!StateDir::of(&lab).root().exists());
}

#[test]
fn a_lab_that_is_up_keeps_its_name() {
    let Some(lab) = name("kept") else { return };
    let mut owner = Owner::start(&lab);
    let error = Custody::take(&lab, Path::new(CARACAL)).unwrap_err();
    assert!(error.to_string().contains("is up"), "{error:#}");
    assert!(is_running(owner.inhabitant));
    owner.kill();
}

#[test]
fn a_late_janitor_leaves_the_next_lab_of_the_name_alone() {
    let Some(lab) = name("late") else { return };
    let mut owner = Owner::start(&lab);
    kill(owner.janitor, Signal::SIGSTOP).unwrap();
    owner.kill();
    let next = Custody::take(&lab, Path::new(CARACAL)).unwrap();
    kill(owner.janitor, Signal::SIGCONT).unwrap();
    wait_until("the janitor has ended", || !is_running(owner.janitor));
    assert!(next.state().root().exists());
}
