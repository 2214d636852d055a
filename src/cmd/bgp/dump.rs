//! `caracal bgp dump`: an MRT file of the local speaker's routes, or of what its peers say.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use caracal_bgp_speaker::handle::Dump;
use clap::Args;

use super::client::Client;
use super::piped;

/// A busy speaker may take this long over one part of its table.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(crate) struct DumpArgs {
    /// Folder of the local speaker's socket
    #[arg(long, env = "CARACAL_RUN_DIR", default_value = "/run/caracal")]
    run_dir: PathBuf,
    /// The table: every route of every peer (the default)
    #[arg(long, conflicts_with = "updates")]
    rib: bool,
    /// Messages of peers and changes of sessions, until interrupted
    #[arg(long)]
    updates: bool,
    /// With --updates: stop after so many seconds
    #[arg(long, requires = "updates", value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    seconds: Option<u64>,
    /// Where to; `-` for standard output
    file: PathBuf,
}

pub(super) fn run(arguments: &DumpArgs) -> anyhow::Result<ExitCode> {
    let client = Client::connect(arguments.run_dir.join("bgp.sock"))?;
    let to_output = arguments.file.as_os_str() == "-";
    match (arguments.updates, to_output) {
        (true, true) => piped(updates(client, arguments.seconds, std::io::stdout().lock())),
        (true, false) => {
            let file = create(&arguments.file)?;
            updates(client, arguments.seconds, file)?;
            Ok(ExitCode::SUCCESS)
        }
        (false, true) => piped(table(client, std::io::stdout().lock())),
        (false, false) => {
            table_file(client, &arguments.file)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A file has its name once it is whole.
fn table_file(client: Client, path: &Path) -> anyhow::Result<()> {
    let mut part = path.to_owned().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let file = create(&part)?;
    let written = table(client, &file).and_then(|()| {
        let synced = file.sync_all();
        let renamed = synced.and_then(|()| std::fs::rename(&part, path));
        renamed.with_context(|| format!("cannot write {}", path.display()))
    });
    if written.is_err() {
        // The reason why is what matters; the part says by its name what it is.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn create(path: &Path) -> anyhow::Result<File> {
    File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn table(mut client: Client, mut out: impl Write) -> anyhow::Result<()> {
    client.dump(Dump::Table, PATIENCE, |octets| {
        out.write_all(octets).context("cannot write the dump")
    })?;
    out.flush().context("cannot write the dump")
}

fn updates(mut client: Client, seconds: Option<u64>, mut out: impl Write) -> anyhow::Result<()> {
    let end = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let mut missing = 0;
    let done = client.dump_until(Dump::Updates, end, |octets, lost| {
        missing += lost;
        // Part by part, so that what there is is in the file when we are interrupted.
        out.write_all(octets).context("cannot write the dump")?;
        out.flush().context("cannot write the dump")
    });
    done?;
    if missing > 0 {
        bail!("{missing} messages are missing: they came faster than they were written");
    }
    Ok(())
}
