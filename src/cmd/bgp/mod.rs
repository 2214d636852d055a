//! `caracal bgp`: sessions and routes of the local speaker, or what the nodes of a cluster report of theirs.
//!
//! Owns arguments and who is asked. Screens are functions of what was answered, one module each.

mod client;
mod cluster;
mod dump;
mod elsewhere;
mod explain;
mod history;
mod lint;
mod peers;
mod routes;
#[cfg(test)]
mod tests;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, anyhow};
use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::api::{ClearHow, Request, RoutesView};
use caracal_bgp_speaker::snapshot::{Explanation, PeerDetail, SpeakerSnapshot};
use caracal_bgp_speaker::status::HistorySnapshot;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::Unreachable;
use client::Client;
use cluster::Cluster;
use cluster::rejected::{Rejections, Wanted};

/// Some of those who were to be asked did not answer.
const PARTIAL: u8 = 4;

#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// Sessions: of the local speaker, or of all nodes
    Peers {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        nodes: Nodes,
        /// Everything about one peer
        peer: Option<String>,
    },
    /// Routes of the local speaker, or those that nodes report to reject
    Routes {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        view: View,
        #[command(flatten)]
        nodes: Nodes,
        /// Only this prefix and what lies inside it
        prefix: Option<String>,
        /// Stop after so many prefixes
        #[arg(long, conflicts_with_all = ["all_nodes", "node"])]
        limit: Option<usize>,
    },
    /// Why packets to an address or prefix go where they go, and who is told
    Explain {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        nodes: Nodes,
        /// An address or prefix
        prefix: String,
    },
    /// What happened last with a peer
    History {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        elsewhere: Elsewhere,
        /// Its name
        peer: String,
        /// Only what happened to the session
        #[arg(long, conflicts_with = "messages")]
        events: bool,
        /// Only what was said
        #[arg(long)]
        messages: bool,
    },
    /// Have routes told again, both ways unless told otherwise, or start a session anew
    Clear {
        #[command(flatten)]
        common: Common,
        #[command(flatten)]
        elsewhere: Elsewhere,
        /// Its name
        #[arg(required_unless_present = "all")]
        peer: Option<String>,
        /// Every peer
        #[arg(long, conflicts_with = "peer")]
        all: bool,
        /// Only: have the peer tell its routes again
        #[arg(long = "in", conflicts_with_all = ["out", "hard"])]
        inbound: bool,
        /// Only: tell the peer all routes again
        #[arg(long, conflicts_with = "hard")]
        out: bool,
        /// End the session and start a new one
        #[arg(long)]
        hard: bool,
        /// With --hard: what the peer reads
        #[arg(long, requires = "hard", default_value = "")]
        message: String,
    },
    /// Write the local speaker's routes, or what its peers say from now on, as an MRT file
    Dump(dump::DumpArgs),
    /// Check manifests as the nodes would understand them
    Lint(lint::LintArgs),
}

#[derive(Debug, Args)]
pub(crate) struct Common {
    /// Folder of the local speaker's socket
    #[arg(long, env = "CARACAL_RUN_DIR", default_value = "/run/caracal")]
    run_dir: PathBuf,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Nodes whose report is shown instead of what the local speaker answers.
#[derive(Debug, Args)]
pub(crate) struct Nodes {
    /// What all nodes report in their NodeNetworkStatus
    #[arg(short = 'A', long)]
    all_nodes: bool,
    /// Of all nodes, only this one
    #[arg(long)]
    node: Option<String>,
    /// Credentials for the cluster; looked for where they usually are when absent
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
}

impl Nodes {
    fn read(&self) -> anyhow::Result<Cluster> {
        cluster::read(self.kubeconfig.as_deref(), self.node.as_deref())
    }

    /// Says how to ask a node whose report is not what is asked for.
    fn refuse(&self, why: &str) -> anyhow::Error {
        elsewhere::refuse(why, self.node.as_deref(), &words())
    }
}

/// Nodes that report nothing of what is asked for.
#[derive(Debug, Args)]
pub(crate) struct Elsewhere {
    /// Say how to ask the speakers of all nodes
    #[arg(short = 'A', long)]
    all_nodes: bool,
    /// Say how to ask the speaker of this node
    #[arg(long)]
    node: Option<String>,
}

impl Elsewhere {
    /// # Errors
    /// Where another than the local speaker is to be asked; `why` nobody else can answer.
    fn refuse(&self, why: &str) -> anyhow::Result<()> {
        match self.all_nodes || self.node.is_some() {
            true => Err(elsewhere::refuse(why, self.node.as_deref(), &words())),
            false => Ok(()),
        }
    }
}

/// Which routes; the table without any of these.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(crate) struct View {
    /// What this peer has told, as it told it
    #[arg(long, value_name = "PEER")]
    received: Option<String>,
    /// What this peer has been told
    #[arg(long, value_name = "PEER")]
    advertised: Option<String>,
    /// What this peer is not told although others may be, and why
    #[arg(long, value_name = "PEER")]
    withheld: Option<String>,
    /// What must not be used, and why; of one peer, or of all
    #[arg(long, value_name = "PEER", num_args = 0..=1, require_equals = true)]
    rejected: Option<Option<String>>,
}

impl View {
    fn question(self) -> (RoutesView, Option<String>) {
        match self {
            Self {
                received: Some(peer),
                ..
            } => (RoutesView::Received, Some(peer)),
            Self {
                advertised: Some(peer),
                ..
            } => (RoutesView::Advertised, Some(peer)),
            Self {
                withheld: Some(peer),
                ..
            } => (RoutesView::Withheld, Some(peer)),
            Self {
                rejected: Some(peer),
                ..
            } => (RoutesView::Rejected, peer),
            _ => (RoutesView::Table, None),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    Table,
    /// For programs
    Json,
}

impl Common {
    fn socket(&self) -> PathBuf {
        self.run_dir.join("bgp.sock")
    }

    fn client(&self) -> anyhow::Result<Client> {
        Client::connect(self.socket())
    }
}

pub(crate) fn run(command: BgpCommand) -> anyhow::Result<ExitCode> {
    match command {
        BgpCommand::Peers {
            common,
            nodes,
            peer,
        } => sessions(&common, &nodes, peer),
        BgpCommand::Routes {
            common,
            view,
            nodes,
            prefix,
            limit,
        } => {
            if nodes.all_nodes || nodes.node.is_some() {
                return rejected(&common, &nodes, view, prefix);
            }
            let (view, peer) = view.question();
            let request = Request::Routes { view, peer, prefix };
            let mut client = common.client()?;
            let out = std::io::stdout().lock();
            piped(match common.output {
                Output::Table => routes::table(&mut client, &request, view, limit, out),
                Output::Json => routes::json(&mut client, &request, limit, out),
            })
        }
        BgpCommand::Explain {
            common,
            nodes,
            prefix,
        } => {
            if nodes.all_nodes || nodes.node.is_some() {
                let wanted = Wanted::Covering(prefix.parse()?);
                let cluster = nodes.read()?;
                return name_rejected(&common, &nodes, &cluster, wanted);
            }
            let explanation: Explanation = common.client()?.ask(&Request::Explain { prefix })?;
            show(&common, &explanation, |explanation| {
                explain::screen(explanation, now_ms())
            })
        }
        BgpCommand::History {
            common,
            elsewhere,
            peer,
            events,
            messages,
        } => {
            elsewhere.refuse(
                "nodes do not report what has happened with a peer: ask the node's own speaker",
            )?;
            let mut history: HistorySnapshot = common.client()?.ask(&Request::History { peer })?;
            if events {
                history.messages.clear();
            }
            if messages {
                history.events.clear();
            }
            show(&common, &history, history::screen)
        }
        BgpCommand::Clear {
            common,
            elsewhere,
            peer,
            inbound,
            out,
            hard,
            message,
            ..
        } => {
            elsewhere.refuse("sessions are cleared by nobody but the node's own speaker")?;
            let hows: &[ClearHow] = match (inbound, out, hard) {
                (true, _, _) => &[ClearHow::In],
                (_, true, _) => &[ClearHow::Out],
                (_, _, true) => &[ClearHow::Hard],
                _ => &[ClearHow::In, ClearHow::Out],
            };
            let mut client = common.client()?;
            let mut cleared = 0;
            for how in hows {
                let (peer, message) = (peer.clone(), message.clone());
                cleared = client.ask(&Request::Clear {
                    peer,
                    how: *how,
                    message,
                })?;
            }
            show(&common, &cleared, |cleared: &usize| match cleared {
                1 => "1 peer cleared\n".to_owned(),
                count => format!("{count} peers cleared\n"),
            })
        }
        BgpCommand::Dump(arguments) => dump::run(&arguments),
        BgpCommand::Lint(arguments) => lint::run(&arguments),
    }
}

/// Sessions of the local speaker or, where that is asked for or there is none, of a cluster.
fn sessions(common: &Common, nodes: &Nodes, peer: Option<String>) -> anyhow::Result<ExitCode> {
    let cluster = nodes.all_nodes || nodes.node.is_some();
    match peer {
        Some(peer) if cluster => {
            let cluster = nodes.read()?.of_peer(&peer);
            let cluster = cluster.ok_or_else(|| anyhow!("no peer is called {peer:?}"))?;
            report(common, &cluster, &cluster, |cluster| {
                cluster::peers::one(cluster, now_ms())
            })
        }
        Some(peer) => {
            let detail: PeerDetail = common.client()?.ask(&Request::Peer { peer })?;
            show(common, &detail, |detail| peers::one(detail, now_ms()))
        }
        None if !cluster && common.socket().exists() => {
            let speaker: SpeakerSnapshot = common.client()?.ask(&Request::Peers)?;
            show(common, &speaker, |speaker| peers::all(speaker, now_ms()))
        }
        None if !cluster && nodes.kubeconfig.is_none() => {
            let nowhere = anyhow!("no cluster to ask\nhint: set --run-dir or --kubeconfig");
            let nobody = format!("there is no speaker at {}", common.socket().display());
            Err(nowhere).context(Unreachable(nobody))
        }
        None => {
            let cluster = nodes.read()?;
            report(common, &cluster, &cluster, |cluster| {
                cluster::peers::all(cluster, now_ms())
            })
        }
    }
}

/// What nodes report of their routes, which is those that they reject.
fn rejected(
    common: &Common,
    nodes: &Nodes,
    view: View,
    prefix: Option<String>,
) -> anyhow::Result<ExitCode> {
    let (RoutesView::Rejected, peer) = view.question() else {
        let why = "nodes report no routes but those that they reject (--rejected): ask the node's own \
                   speaker";
        return Err(nodes.refuse(why));
    };
    let prefix: Option<Prefix> = prefix.as_deref().map(str::parse).transpose()?;
    let mut cluster = nodes.read()?;
    if let Some(peer) = peer {
        let of_peer = cluster.of_peer(&peer);
        cluster = of_peer.ok_or_else(|| anyhow!("no peer is called {peer:?}"))?;
    }
    match prefix {
        Some(prefix) => name_rejected(common, nodes, &cluster, Wanted::Inside(prefix)),
        None => report(
            common,
            &cluster,
            &Rejections::of(&cluster),
            Rejections::summary,
        ),
    }
}

fn name_rejected(
    common: &Common,
    nodes: &Nodes,
    cluster: &Cluster,
    wanted: Wanted,
) -> anyhow::Result<ExitCode> {
    let rejections = Rejections::of(cluster).naming(wanted);
    let command = elsewhere::command(nodes.node.as_deref(), &words());
    let more = format!("to ask a node itself: {command}");
    report(common, cluster, &rejections, |it| it.named(wanted, &more))
}

/// Shows what a cluster reports, and by the exit code whether all of it has.
fn report<T: Serialize>(
    common: &Common,
    cluster: &Cluster,
    value: &T,
    text: impl Fn(&T) -> String,
) -> anyhow::Result<ExitCode> {
    let shown = show(common, value, text)?;
    Ok(match cluster.is_whole() {
        true => shown,
        false => ExitCode::from(PARTIAL),
    })
}

/// What was asked of `caracal bgp`, for who is to ask it elsewhere.
fn words() -> Vec<String> {
    let words = std::env::args_os().skip(2);
    words
        .map(|word| word.to_string_lossy().into_owned())
        .collect()
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_millis();
    u64::try_from(now).unwrap_or(u64::MAX)
}

fn show<T: Serialize + ?Sized>(
    common: &Common,
    value: &T,
    text: impl Fn(&T) -> String,
) -> anyhow::Result<ExitCode> {
    let text = match common.output {
        Output::Table => text(value),
        Output::Json => json(value)?,
    };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    piped(written.context("cannot write"))
}

fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<String> {
    let text = serde_json::to_string_pretty(value).context("cannot write JSON")?;
    Ok(text + "\n")
}

/// A reader that has seen enough and closes the pipe is no failure.
fn piped(done: anyhow::Result<()>) -> anyhow::Result<ExitCode> {
    let closed = |error: &anyhow::Error| {
        let mut causes = error.chain().filter_map(|cause| cause.downcast_ref());
        causes.any(|cause: &std::io::Error| cause.kind() == std::io::ErrorKind::BrokenPipe)
    };
    match done {
        Err(error) if !closed(&error) => Err(error),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// The moment `at_ms`, in the time zone that all nodes share.
fn moment(at_ms: u64) -> String {
    let timestamp = i64::try_from(at_ms)
        .ok()
        .and_then(|at_ms| jiff::Timestamp::from_millisecond(at_ms).ok());
    match timestamp {
        Some(timestamp) => format!("{timestamp:.3}"),
        None => "-".to_owned(),
    }
}

/// How long ago `at_ms` was.
fn ago(at_ms: u64, now_ms: u64) -> String {
    crate::table::age(now_ms.saturating_sub(at_ms) / 1000)
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn counted(count: usize, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        count => format!("{count} {one}s"),
    }
}
