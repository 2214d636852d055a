//! What one agent is told at its start. Everything else comes from resources.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one agent process.
#[derive(Clone, Debug)]
pub struct Config {
    /// `metadata.name` of the Node that this agent serves.
    pub node_name: String,
    /// How the API server is reached.
    pub api: ApiSource,
    /// Where the Secrets are that sessions need; the namespace of the credentials where absent.
    pub namespace: Option<String>,
    /// Directory for the snapshot, the address log and the local sockets; on a tmpfs, so that a
    /// reboot, which loses the pods, loses their records too.
    pub run_dir: PathBuf,
    /// Where the CNI plugin finds the agent; `cni.sock` under [`Config::run_dir`] where absent.
    pub cni_socket: Option<PathBuf>,
    /// Where metrics are served over HTTP; nowhere where absent.
    pub metrics: Option<SocketAddr>,
    /// Own the nftables table for the life of the process, so that nobody else can change it.
    pub own_table: bool,
    /// What the names of host-side pod links begin with. Whatever else begins so is dropped.
    pub interface_prefix: String,
    /// MTU of pod links, in bytes; the smallest of the node's fabric links where absent.
    pub pod_mtu: Option<u32>,
    /// What becomes of a pod whose object has not been seen after [`Config::labels_patience`].
    pub unknown_pods: UnknownPods,
    /// How long ADD waits for the pod's object.
    pub labels_patience: Duration,
}

impl Config {
    /// The defaults for a node.
    pub fn new(node_name: impl Into<String>, api: ApiSource) -> Config {
        Config {
            node_name: node_name.into(),
            api,
            namespace: None,
            run_dir: PathBuf::from("/run/caracal"),
            cni_socket: None,
            metrics: None,
            own_table: true,
            interface_prefix: "cara".into(),
            pod_mtu: None,
            unknown_pods: UnknownPods::Isolate,
            labels_patience: Duration::from_secs(5),
        }
    }

    /// Path of the snapshot.
    pub fn snapshot_path(&self) -> PathBuf {
        self.run_dir.join("snapshot")
    }

    /// Path of the socket that [`policy_api`](crate::policy_api) asks.
    pub fn policy_socket(&self) -> PathBuf {
        self.run_dir.join(crate::policy_api::SOCKET)
    }

    /// Path of the CNI socket.
    pub fn cni_socket(&self) -> PathBuf {
        self.cni_socket
            .clone()
            .unwrap_or_else(|| self.run_dir.join("cni.sock"))
    }
}

/// Where the credentials for the API server come from.
#[derive(Clone, Debug)]
pub enum ApiSource {
    /// A kubeconfig file, its current context.
    Kubeconfig(PathBuf),
    /// The service account of the pod that the agent runs in.
    InCluster,
    /// A server without authentication, by URL.
    Url(String),
}

/// The choice for a pod whose labels stay unknown. It is never left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnknownPods {
    /// Wire it, with every packet dropped but those of its own node, until its object is seen.
    Isolate,
    /// Fail ADD with "try again later".
    Refuse,
}
