//! `caracal bfd`: the BFD process, and what it says of its sessions.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use caracal_bfdd::proto::{SOCKET_NAME, SessionStatus, Snapshot};
use caracal_bfdd::{Daemon, Error, Options, Stopper};
use caracal_bgp_core::bfd::{Diag, State};
use caracal_crds::DurationString;
use clap::{Args, Subcommand, ValueEnum};
use nix::sys::signal::{SigSet, Signal};

use crate::table;

#[derive(Debug, Args)]
pub(crate) struct BfdArgs {
    #[command(subcommand)]
    command: Option<BfdCommand>,
    /// Folder of the socket
    #[arg(
        long,
        env = "CARACAL_RUN_DIR",
        default_value = "/run/caracal",
        global = true
    )]
    run_dir: PathBuf,
    /// How long sessions stay when their client has gone
    #[arg(long, default_value = "10m")]
    hold: DurationString,
    /// Do not ask the kernel for real-time priority
    #[arg(long)]
    no_realtime: bool,
}

#[derive(Debug, Subcommand)]
enum BfdCommand {
    /// Show the sessions of the local process
    Sessions {
        /// How to print
        #[arg(short, long, value_enum, default_value = "table")]
        output: Output,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

pub(crate) fn run(arguments: BfdArgs) -> anyhow::Result<ExitCode> {
    let socket = arguments.run_dir.join(SOCKET_NAME);
    match arguments.command {
        Some(BfdCommand::Sessions { output }) => show(&socket, output),
        None => serve(Options {
            socket,
            hold: arguments.hold.0,
            realtime: !arguments.no_realtime,
        }),
    }
}

/// Runs until SIGTERM or SIGINT. No runtime: nothing here waits for anything else.
fn serve(options: Options) -> anyhow::Result<ExitCode> {
    super::log();
    // Before there are other threads, so that none of them gets the signals.
    let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
    signals.thread_block().context("cannot hold signals back")?;
    let socket = options.socket.clone();
    let daemon = Daemon::start(options).map_err(with_hint)?;
    tracing::info!(socket = %socket.display(), "BFD runs");
    let stopper = daemon.stopper();
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || obey(signals, &stopper))
        .context("cannot start a thread")?;
    daemon.wait()?;
    Ok(ExitCode::SUCCESS)
}

/// The first signal ends the process in peace, the second at once.
fn obey(signals: SigSet, stopper: &Stopper) {
    let mut told = false;
    while let Ok(signal) = signals.wait() {
        if told {
            tracing::warn!(%signal, "ending without a farewell to peers");
            std::process::exit(1);
        }
        told = true;
        tracing::info!(%signal, "telling peers, then ending");
        stopper.stop();
    }
}

fn with_hint(error: Error) -> anyhow::Error {
    let hint = match &error {
        Error::PortInUse { .. } => {
            "one process of a host can have the port: stop the other one (BIRD, FRR's bfdd, or another caracal bfd)"
        }
        Error::Permission { .. } => "run it as root, or ask who guards this host",
        Error::Served { .. } => "give each process a --run-dir of its own",
        Error::Serve { .. } => "the folder given by --run-dir must exist and be writable",
        _ => return error.into(),
    };
    // The hint comes last, whatever the causes are.
    let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |e| e.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    anyhow::anyhow!("{}\nhint: {hint}", causes.join(": "))
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn show(socket: &std::path::Path, output: Output) -> anyhow::Result<ExitCode> {
    let snapshot = caracal_bfdd::sessions(socket).map_err(|error| match error {
        Error::Ask { path, source } => anyhow::anyhow!(
            "cannot ask the BFD process at {}: {source}\nhint: `caracal bfd` must be running, with the same --run-dir",
            path.display()
        ),
        other => other.into(),
    })?;
    let text = match output {
        Output::Json => serde_json::to_string_pretty(&snapshot).context("cannot print")? + "\n",
        Output::Table => sessions(&snapshot),
    };
    print!("{text}");
    Ok(ExitCode::SUCCESS)
}

fn sessions(snapshot: &Snapshot) -> String {
    let header = [
        "PEER", "LOCAL", "IFACE", "STATE", "DIAG", "TX", "RX", "MULT", "UPTIME", "WHY",
    ];
    let rows: Vec<Vec<String>> = snapshot.sessions.iter().map(row).collect();
    let up = snapshot.sessions.iter().filter(|s| is_up(s)).count();
    let mut text = format!(
        "{}{up} of {} sessions up\n",
        table::render(&header, &rows),
        snapshot.sessions.len()
    );
    let strays: Vec<String> = snapshot
        .unmatched
        .iter()
        .map(|(reason, count)| format!("{reason} {count}"))
        .collect();
    if !strays.is_empty() {
        text.push_str(&format!("packets of no session: {}\n", strays.join(", ")));
    }
    text
}

fn is_up(session: &SessionStatus) -> bool {
    session.standing.state == State::Up
}

fn row(session: &SessionStatus) -> Vec<String> {
    let none = || "-".to_owned();
    let interval = |micros: Option<u32>| {
        micros.map_or_else(none, |micros| {
            format!("{:?}", Duration::from_micros(micros.into()))
        })
    };
    let key = &session.key;
    let local = session.local_address.or(key.local);
    let way = match (&key.interface, key.multihop) {
        (Some(interface), _) => interface.clone(),
        (None, true) => "multihop".to_owned(),
        (None, false) => none(),
    };
    let diag = match session.standing.diag {
        Diag::None => none(),
        diag => diag.to_string(),
    };
    let mult = match session.remote_detect_mult {
        Some(theirs) => format!("{}/{theirs}", session.detect_mult),
        None => session.detect_mult.to_string(),
    };
    let uptime = if is_up(session) {
        table::age(session.standing.age_us / 1_000_000)
    } else {
        none()
    };
    vec![
        key.peer.to_string(),
        local.map_or_else(none, |local| local.to_string()),
        way,
        session.standing.state.to_string(),
        diag,
        interval(session.transmit_us),
        interval(session.receive_us),
        mult,
        uptime,
        session.why.clone(),
    ]
}
