//! What is installed.

use std::path::Path;
use std::process::Command;

use super::{Daemon, FRR_FOLDER};

pub(super) fn of(daemon: Daemon, caracal: &Path) -> Result<String, String> {
    match daemon {
        Daemon::Caracal => {
            // A name without a folder is a file here, as it is for whoever gave it, and not a program on the PATH.
            let caracal = std::path::absolute(caracal).unwrap_or_else(|_| caracal.to_owned());
            said(&caracal, "--version", "build it with `make build`")
        }
        Daemon::Bird => said(Path::new("bird"), "--version", "package bird2"),
        Daemon::Frr => said(
            &Path::new(FRR_FOLDER).join("bgpd"),
            "--version",
            "package frr",
        ),
        Daemon::Gobgp => said(Path::new("gobgpd"), "--version", "package gobgpd"),
        Daemon::Openbgpd => said(Path::new("/usr/sbin/bgpd"), "-V", "package openbgpd"),
        Daemon::Direct => Ok(env!("CARGO_PKG_VERSION").to_owned()),
    }
}

/// The word with a number in it that a program says first, or why there is none.
fn said(program: &Path, argument: &str, hint: &str) -> Result<String, String> {
    let output = Command::new(program)
        .arg(argument)
        .output()
        .map_err(|error| format!("{} does not run: {error}; {hint}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned()
        + &String::from_utf8_lossy(&output.stderr);
    let mut words = text.split_whitespace();
    words
        .find(|word| word.starts_with(|first: char| first.is_ascii_digit()) && word.contains('.'))
        .map(str::to_owned)
        .ok_or_else(|| format!("{} names no version: {}", program.display(), text.trim()))
}
