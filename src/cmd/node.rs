//! `caracal node`: the agent of one node.

use std::path::PathBuf;
use std::process::ExitCode;

use caracal_agent::{Agent, ApiSource, Config, UnknownPods};
use clap::{Args, ValueEnum};

#[derive(Debug, Args)]
pub(crate) struct NodeArgs {
    /// Name of the Node object that this agent serves
    #[arg(long, env = "NODE_NAME")]
    node: String,
    /// Credentials; the pod's service account when absent
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Namespace of the Secrets that BGPPeers and BGPConfigurations name; that of the credentials when
    /// absent
    #[arg(long, env = "POD_NAMESPACE")]
    namespace: Option<String>,
    /// Folder for the snapshot, the address log and the local sockets, on a tmpfs
    #[arg(long, env = "CARACAL_RUN_DIR", default_value = "/run/caracal")]
    run_dir: PathBuf,
    /// Where the CNI plugin finds the agent; cni.sock in the run folder when absent
    #[arg(long)]
    cni_socket: Option<PathBuf>,
    #[command(flatten)]
    metrics: super::MetricsArgs,
    /// Leave the nftables table open to changes by others, and repair them
    #[arg(long)]
    no_table_owner: bool,
    /// What becomes of a pod whose object is not seen in time
    #[arg(long, value_enum, default_value = "isolate")]
    unknown_pods: Unknown,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Unknown {
    /// Wire it isolated until its object is seen
    Isolate,
    /// Fail ADD with "try again later"
    Refuse,
}

pub(crate) fn run(arguments: NodeArgs) -> anyhow::Result<ExitCode> {
    let api = match arguments.kubeconfig {
        Some(path) => ApiSource::Kubeconfig(path),
        None => ApiSource::InCluster,
    };
    let mut config = Config::new(arguments.node, api);
    config.namespace = arguments.namespace;
    config.run_dir = arguments.run_dir;
    config.cni_socket = arguments.cni_socket;
    config.metrics = arguments.metrics.address;
    config.own_table = !arguments.no_table_owner;
    config.unknown_pods = match arguments.unknown_pods {
        Unknown::Isolate => UnknownPods::Isolate,
        Unknown::Refuse => UnknownPods::Refuse,
    };
    super::daemon(async |shutdown| Ok(Agent::run_blocking(config, shutdown).await?))
}
