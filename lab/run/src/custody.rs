//! Who answers for a lab: it is taken down when its owner lets go of it, when the owner is killed, and, where
//! nobody was left to do it, when its name is wanted again.

use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, bail};

use crate::state::StateDir;

/// Holds a lab of some name. The lab is taken down when this is dropped; a second process, the janitor,
/// does it should this one be killed.
#[derive(Debug)]
pub struct Custody {
    state: StateDir,
    /// A lock on the lab's folder, which the kernel opens when this process ends, however it ends.
    claim: Option<File>,
    janitor: Child,
}

impl Custody {
    /// Makes the folder of a new lab. What a lab of this name has left whose owner is gone goes first.
    /// `caracal` is this project's executable.
    ///
    /// # Errors
    /// A lab of this name is up, the folder cannot be made, or the janitor cannot be started.
    pub fn take(name: &str, caracal: &Path) -> anyhow::Result<Self> {
        let state = StateDir::of(name);
        let claim = claim(&state)?;
        let janitor = Command::new(caracal)
            .args(["lab", "janitor", name])
            .stdin(Stdio::piped())
            // Ctrl-C on the terminal must not reach it.
            .process_group(0)
            .spawn()
            .context("cannot start the janitor")?;
        Ok(Self {
            state,
            claim: Some(claim),
            janitor,
        })
    }

    /// The lab's folder.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Takes the lab down.
    ///
    /// # Errors
    /// See [`StateDir::tear_down`].
    pub fn tear_down(self) -> anyhow::Result<()> {
        self.state.tear_down()
    }
}

impl Drop for Custody {
    fn drop(&mut self) {
        // Without its owner's claim and with its standard input closed, the janitor takes down what is left.
        drop(self.claim.take());
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}

/// The janitor's part: waits for the end of whoever holds the other end of standard input, then takes the
/// lab down, unless that is done, or somebody else has the name by now.
///
/// # Errors
/// Standard input cannot be read, or see [`StateDir::tear_down`].
pub fn watch(name: &str) -> anyhow::Result<()> {
    let state = StateDir::of(name);
    let folder = open(&state)?;
    io::copy(&mut io::stdin(), &mut io::sink()).context("cannot wait for the lab's owner")?;
    let Some(folder) = folder else {
        return Ok(());
    };
    folder.lock().with_context(|| cannot_lock(&state))?;
    if is_at(&folder, &state) {
        state.tear_down()?;
    }
    Ok(())
}

/// Makes the folder and locks it.
fn claim(state: &StateDir) -> anyhow::Result<File> {
    if let Some(old) = open(state)? {
        match old.try_lock() {
            Ok(()) if is_at(&old, state) => remove_orphan(state)?,
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let name = state.name();
                bail!(
                    "lab {name} is up, in {}\nhint: choose another with --name, or take it down with `caracal lab down --name {name}`",
                    state.root().display()
                );
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| cannot_lock(state));
            }
        }
    }
    state.create()?;
    let new = open(state)?.with_context(|| format!("{} is gone", state.root().display()))?;
    new.try_lock().with_context(|| cannot_lock(state))?;
    Ok(new)
}

#[expect(clippy::print_stderr, reason = "tells a person what is removed")]
fn remove_orphan(state: &StateDir) -> anyhow::Result<()> {
    eprintln!(
        "removing what is left of lab {}, whose owner is gone",
        state.name()
    );
    state.tear_down()
}

fn open(state: &StateDir) -> anyhow::Result<Option<File>> {
    match File::open(state.root()) {
        Ok(folder) => Ok(Some(folder)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", state.root().display())),
    }
}

/// Whether an open folder is the one that has the name now.
fn is_at(folder: &File, state: &StateDir) -> bool {
    let inode = |metadata: io::Result<std::fs::Metadata>| metadata.map(|m| (m.dev(), m.ino())).ok();
    let held = inode(folder.metadata());
    held.is_some() && held == inode(std::fs::metadata(state.root()))
}

fn cannot_lock(state: &StateDir) -> String {
    format!("cannot lock {}", state.root().display())
}
