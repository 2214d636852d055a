//! `caracal controller`: grants blocks to nodes and takes them back.
//!
//! Owns: leader election, the watches, the writes, and the translation between objects and
//! [`caracal_ipam_core::controller`], which decides. Does not own: any decision about addresses, or
//! what a node does with its blocks.
//!
//! ```text
//! Lease ──► election ──► a term with its epoch
//! Nodes, IPPools, IPBlocks, IPBlockRequests ──► watch ──► term ──► core::Controller ──► actions
//!                                                          ▲                              │
//!                                                          └──── answers ◄── writes ◄─────┘
//! ```
//!
//! Only the leader watches and writes. A new leader starts from the objects alone.

mod convert;
pub mod election;
mod metrics;
mod status;
mod term;
mod watch;
mod writes;

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use caracal_ipam_core::controller::Settings;
use kube::Client;
use tokio::task::JoinSet;
use tracing::info;

pub use convert::Error;
use election::{Election, LeaseSettings};
use metrics::Counts;

/// What the controller needs.
#[derive(Clone)]
pub struct Config {
    /// Client for everything.
    pub client: Client,
    /// Name of this process among the candidates; no two may be the same at one time.
    pub identity: String,
    /// Namespace of the Lease.
    pub namespace: String,
    /// Name of the Lease.
    pub lease_name: String,
    /// Times of the election.
    pub lease: LeaseSettings,
    /// Times of the allocator.
    pub allocator: Settings,
    /// Least pause between two writes of one pool's status: a storm of grants is told once.
    pub status_interval: Duration,
    /// Where metrics are served over HTTP; nowhere where absent.
    pub metrics: Option<SocketAddr>,
}

impl Config {
    /// The defaults of a production cluster.
    pub fn new(client: Client, identity: impl Into<String>) -> Self {
        Config {
            client,
            identity: identity.into(),
            namespace: "kube-system".to_owned(),
            lease_name: "caracal-controller".to_owned(),
            lease: LeaseSettings::default(),
            allocator: Settings::default(),
            status_interval: Duration::from_secs(1),
            metrics: None,
        }
    }
}

/// Stands for election and serves each term won, until `shutdown` completes; then gives the lease
/// back. Whatever the API server does meanwhile is logged and tried again.
pub async fn run(config: Config, shutdown: impl Future<Output = ()>) {
    let counts = Counts::default();
    let mut tasks = JoinSet::new();
    if let Some(address) = config.metrics {
        metrics::serve(address, counts.clone(), &mut tasks);
    }
    let mut election = Election::new(&config);
    tokio::pin!(shutdown);
    loop {
        let epoch = tokio::select! {
            epoch = election.win() => epoch,
            () = &mut shutdown => return,
        };
        info!(epoch, identity = %config.identity, "leading");
        let ended = tokio::select! {
            ended = term::serve(&config, epoch, &counts) => Some(ended),
            () = election.keep() => None,
            () = &mut shutdown => {
                election.resign().await;
                return;
            }
        };
        counts.end_term();
        if let Some(term::Deposed { epoch: seen }) = ended {
            // Either the lease was deleted and counts anew, or another leader has taken over and
            // the next attempt to renew would have told.
            election.exceed(seen);
            election.resign().await;
        }
        info!(epoch, identity = %config.identity, "no longer leading");
    }
}
