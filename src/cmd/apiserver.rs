//! `caracal apiserver`: a Kubernetes API for a laptop, without a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use caracal_apiserver::{ApiServer, Listen, Options};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct ApiserverArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Write a kubeconfig to this file
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

pub(crate) fn run(arguments: ApiserverArgs) -> anyhow::Result<ExitCode> {
    super::daemon(async |shutdown| {
        let listen = vec![Listen::Address(arguments.listen)];
        let server = ApiServer::start(Options {
            listen,
            ..Options::default()
        })
        .await?;
        if let Some(path) = &arguments.kubeconfig {
            std::fs::write(path, server.kubeconfig())
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        tracing::info!(url = %server.url(), "serving the Kubernetes API");
        shutdown.cancelled().await;
        server.shutdown().await;
        Ok(())
    })
}
