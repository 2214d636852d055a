//! `caracal bgp`: sessions and routes of the local speaker, or the sessions of a whole cluster.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use caracal_bgp_speaker::api::{Request, Response};
use caracal_bgp_speaker::snapshot::{
    Explanation, FibSnapshot, PathSnapshot, PeerSnapshot, RouteSnapshot, SessionState,
    SpeakerSnapshot,
};
use caracal_crds::NodeNetworkStatus;
use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::controller::client;
use crate::table;

#[derive(Debug, Subcommand)]
pub(crate) enum BgpCommand {
    /// Sessions: of the local speaker, or of all nodes where there is none
    Peers {
        #[command(flatten)]
        common: Common,
        /// Credentials for the cluster's view
        #[arg(long, env = "KUBECONFIG")]
        kubeconfig: Option<PathBuf>,
    },
    /// Routes of the local speaker
    Routes {
        #[command(flatten)]
        common: Common,
        /// Only this prefix and what lies inside it
        prefix: Option<String>,
    },
    /// Why packets to an address or prefix go where they go
    Explain {
        #[command(flatten)]
        common: Common,
        /// An address or prefix
        prefix: String,
    },
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
}

pub(crate) fn run(command: BgpCommand) -> anyhow::Result<ExitCode> {
    match command {
        BgpCommand::Peers { common, kubeconfig } => {
            if common.socket().exists() {
                let speaker: SpeakerSnapshot = ask(&common.socket(), &Request::Peers)?;
                show(&common, &speaker, local_peers)
            } else if let Some(path) = kubeconfig {
                let statuses = cluster_statuses(&path)?;
                show(&common, &statuses, |statuses| cluster_peers(statuses))
            } else {
                bail!(
                    "there is no speaker at {} and no cluster to ask\nhint: set --run-dir or --kubeconfig",
                    common.socket().display()
                )
            }
        }
        BgpCommand::Routes { common, prefix } => {
            let routes: Vec<RouteSnapshot> = ask(&common.socket(), &Request::Routes { prefix })?;
            show(&common, &routes, |routes| self::routes(routes))
        }
        BgpCommand::Explain { common, prefix } => {
            let explanation: Explanation = ask(&common.socket(), &Request::Explain { prefix })?;
            show(&common, &explanation, explain)
        }
    }
}

/// One question to the local speaker.
fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> anyhow::Result<T> {
    /// A speaker answers in milliseconds unless its table is huge.
    const PATIENCE: Duration = Duration::from_secs(10);
    let asking = || format!("cannot ask the speaker at {}", socket.display());
    let mut stream = UnixStream::connect(socket).with_context(asking)?;
    stream
        .set_read_timeout(Some(PATIENCE))
        .with_context(asking)?;
    let mut line = serde_json::to_string(request).with_context(asking)?;
    line.push('\n');
    stream.write_all(line.as_bytes()).with_context(asking)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .with_context(asking)?;
    match serde_json::from_str(&answer).with_context(asking)? {
        Response::Ok(value) => Ok(value),
        Response::Error(why) => bail!("{why}"),
    }
}

fn cluster_statuses(kubeconfig: &Path) -> anyhow::Result<Vec<NodeNetworkStatus>> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let api: kube::Api<NodeNetworkStatus> = kube::Api::all(client(Some(kubeconfig)).await?);
        let list = api
            .list(&kube::api::ListParams::default())
            .await
            .context("cannot list NodeNetworkStatus")?;
        Ok(list.items)
    })
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn show<T: Serialize + ?Sized>(
    common: &Common,
    value: &T,
    text: impl Fn(&T) -> String,
) -> anyhow::Result<ExitCode> {
    match common.output {
        Output::Table => print!("{}", text(value)),
        Output::Json => {
            let json = serde_json::to_string_pretty(value).context("cannot write JSON")?;
            println!("{json}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn local_peers(speaker: &SpeakerSnapshot) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_millis() as u64;
    let rows: Vec<Vec<String>> = speaker
        .peers
        .iter()
        .map(|peer| local_peer(peer, now))
        .collect();
    let header = [
        "PEER", "ADDRESS", "AS", "STATE", "SINCE", "RCVD", "ACPT", "ADV", "WHY",
    ];
    let up = speaker
        .peers
        .iter()
        .filter(|p| p.state == SessionState::Established)
        .count();
    format!(
        "{}{up} of {} sessions established\n",
        table::render(&header, &rows),
        speaker.peers.len()
    )
}

fn local_peer(peer: &PeerSnapshot, now_ms: u64) -> Vec<String> {
    let sum = |count: fn(&caracal_bgp_speaker::snapshot::FamilySnapshot) -> usize| {
        peer.families.iter().map(count).sum::<usize>().to_string()
    };
    vec![
        peer.name.clone(),
        known(peer.remote.map(|remote| remote.ip())),
        known(peer.asn.map(|asn| asn.0)),
        peer.state.to_string(),
        table::age(now_ms.saturating_sub(peer.since_ms) / 1000),
        sum(|family| family.received),
        sum(|family| family.accepted),
        sum(|family| family.advertised),
        if peer.state == SessionState::Established {
            String::new()
        } else {
            peer.why.clone()
        },
    ]
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn cluster_peers(statuses: &[NodeNetworkStatus]) -> String {
    let mut rows = Vec::new();
    let (mut up, mut nodes) = (0, 0);
    for status in statuses {
        let node = status.metadata.name.clone().unwrap_or_default();
        let Some(reported) = &status.status else {
            continue;
        };
        nodes += 1;
        for session in &reported.sessions {
            let established = session.state == caracal_crds::SessionState::Established;
            up += usize::from(established);
            rows.push(vec![
                node.clone(),
                session.name.clone(),
                known(session.peer_ip),
                known(session.as_number),
                format!("{:?}", session.state),
                if established {
                    String::new()
                } else {
                    session.message.clone().unwrap_or_default()
                },
            ]);
        }
    }
    format!(
        "{}{up} of {} sessions established on {nodes} nodes\n",
        table::render(&["NODE", "PEER", "ADDRESS", "AS", "STATE", "WHY"], &rows),
        rows.len()
    )
}

fn routes(routes: &[RouteSnapshot]) -> String {
    let mut rows = Vec::new();
    for route in routes {
        for (number, path) in route.paths.iter().enumerate() {
            let prefix = if number == 0 {
                route.prefix.to_string()
            } else {
                String::new()
            };
            rows.push(vec![
                mark(path).to_owned(),
                prefix,
                path.next_hop
                    .map_or_else(|| "-".to_owned(), |hop| hop.to_string()),
                path.from.clone(),
                path.as_path.clone(),
                if number == 0 {
                    fib(&route.fib)
                } else {
                    String::new()
                },
                path.rejected
                    .clone()
                    .or(path.lost_at.clone())
                    .unwrap_or_default(),
            ]);
        }
    }
    table::render(
        &["", "PREFIX", "NEXT-HOP", "FROM", "AS-PATH", "KERNEL", "WHY"],
        &rows,
    )
}

/// `*` best, `=` shares the load, `x` rejected.
fn mark(path: &PathSnapshot) -> &'static str {
    match (path.rejected.is_some(), path.best, path.multipath) {
        (true, _, _) => "x",
        (_, true, _) => "*",
        (_, _, true) => "=",
        _ => " ",
    }
}

fn fib(state: &FibSnapshot) -> String {
    match state {
        FibSnapshot::None => "-".to_owned(),
        FibSnapshot::Pending => "pending".to_owned(),
        FibSnapshot::Installed => "installed".to_owned(),
        FibSnapshot::Failed(why) => format!("failed: {why}"),
    }
}

fn explain(explanation: &Explanation) -> String {
    let mut text = String::new();
    if let Some(route) = &explanation.route {
        text.push_str(&routes(std::slice::from_ref(route)));
        text.push('\n');
    }
    for sentence in &explanation.sentences {
        text.push_str(sentence);
        text.push('\n');
    }
    text
}
