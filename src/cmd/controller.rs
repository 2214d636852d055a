//! `caracal controller`: grants address blocks.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use caracal_ipam_controller::Config;
use clap::Args;
use kube::config::{KubeConfigOptions, Kubeconfig};

#[derive(Debug, Args)]
pub(crate) struct ControllerArgs {
    /// Credentials; the pod's service account when absent
    #[arg(long, env = "KUBECONFIG")]
    kubeconfig: Option<PathBuf>,
    /// Name of this process among the candidates; the host's name and process id when absent
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Namespace of the Lease
    #[arg(long, env = "POD_NAMESPACE", default_value = "kube-system")]
    namespace: String,
    #[command(flatten)]
    metrics: super::MetricsArgs,
}

pub(crate) fn run(arguments: ControllerArgs) -> anyhow::Result<ExitCode> {
    super::daemon(async |shutdown| {
        let client = client(arguments.kubeconfig.as_deref()).await?;
        let mut config = Config::new(client, arguments.identity.unwrap_or_else(identity));
        config.namespace = arguments.namespace;
        config.metrics = arguments.metrics.address;
        caracal_ipam_controller::run(config, shutdown.cancelled()).await;
        Ok(())
    })
}

/// A client from a file, or from the service account of the pod.
pub(crate) async fn client(kubeconfig: Option<&std::path::Path>) -> anyhow::Result<kube::Client> {
    let config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("cannot read {}", path.display()))?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("cannot use {}", path.display()))?
        }
        None => kube::Config::infer()
            .await
            .context("cannot find credentials for a cluster")?,
    };
    kube::Client::try_from(config).context("cannot make a client")
}

fn identity() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    format!("{}-{}", host.trim(), std::process::id())
}
