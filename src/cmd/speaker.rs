//! `caracal speaker`: the BGP speaker alone, configured by files of the same resources as a cluster.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use caracal_bgp_speaker::handle::BfdOptions;
use caracal_bgp_speaker::{Forwarding, How, Speaker, SpeakerHandle, SpeakerOptions};
use caracal_fib::netns::Netns;
use caracal_fib::{FibOptions, KernelFib};
use caracal_metrics::Page;
use caracal_resolve::{Inputs, KernelFeatures, Resolved, files, resolve};
use clap::Args;

#[derive(Debug, Args)]
pub(crate) struct SpeakerArgs {
    /// Manifest files, or folders of them
    #[arg(short = 'f', long = "filename", required = true)]
    files: Vec<PathBuf>,
    /// Name of this speaker: its Node object in the files, else the name alone
    #[arg(long)]
    node: String,
    /// Write no routes to the kernel
    #[arg(long)]
    no_fib: bool,
    /// Folder for the local socket; without it there is none
    #[arg(long, env = "CARACAL_RUN_DIR")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    metrics: super::MetricsArgs,
    /// Socket of the BFD process, for peers with `bfd`
    #[arg(
        long,
        env = "CARACAL_BFD_SOCKET",
        default_value = "/run/caracal/bfd.sock"
    )]
    bfd_socket: PathBuf,
}

/// What peers read in the Cease that ends a session (RFC 9003).
const FAREWELL: &str = "the speaker was stopped";

pub(crate) fn run(arguments: SpeakerArgs) -> anyhow::Result<ExitCode> {
    super::daemon(async |shutdown| {
        // A socket for every session, two while connections collide.
        if let Err(error) = caracal_bgp_speaker::net::raise_file_limit() {
            tracing::warn!(%error, "as many sessions as the system gives files");
        }
        let manifests = files::read(&arguments.files)?;
        let resolved = resolve(&Inputs {
            kernel: KernelFeatures::probe(),
            ..Inputs::standalone(&arguments.node, &manifests)
        });
        for finding in &resolved.findings {
            tracing::warn!(
                object = %finding.object,
                field = finding.field,
                finding = finding.reason,
                reason = finding.message,
                "not as the resources ask"
            );
        }
        let Resolved {
            mut config,
            dropped,
            ..
        } = resolved;
        let options = SpeakerOptions {
            api_socket: arguments
                .run_dir
                .as_ref()
                .map(|folder| folder.join("bgp.sock")),
            bfd: Some(BfdOptions {
                socket: arguments.bfd_socket.clone(),
                owner: format!("speaker:{}", arguments.node),
            }),
        };
        let speaker = if arguments.no_fib {
            Speaker::start(config, None, options).await?
        } else {
            let netns = Netns::current()?;
            let fib_options = FibOptions {
                blackholes: dropped.into_iter().collect(),
                ..FibOptions::default()
            };
            let (fib, control, events) = KernelFib::start(&netns, fib_options)
                .context("cannot take over the kernel's routes")?;
            // Routes that an earlier life left in the kernel still forward: peers are told so, and
            // nothing is removed before they have told us everything again (RFC 4724 §4.1).
            config.restarting = control.inherited() > 0;
            let fib = Box::new(fib);
            Speaker::start(config, Some(Forwarding { fib, events }), options).await?
        };
        match arguments.metrics.address {
            Some(address) => tokio::select! {
                () = shutdown.cancelled() => {}
                () = serve_metrics(address, speaker.clone()) => {}
            },
            None => shutdown.cancelled().await,
        }
        // The kernel's routes stay, so that what is under way still finds its path while the peers
        // turn to others.
        speaker
            .shutdown(How::Cease {
                message: FAREWELL.into(),
            })
            .await;
        Ok(())
    })
}

/// Serves the speaker's metrics for as long as it is polled.
async fn serve_metrics(address: SocketAddr, speaker: SpeakerHandle) {
    let page = move || {
        let speaker = speaker.clone();
        async move {
            let snapshot = speaker
                .snapshot()
                .await
                .map_err(|error| error.to_string())?;
            let mut page = Page::default();
            caracal_bgp_speaker::metrics::add(&mut page, snapshot);
            Ok(page)
        }
    };
    caracal_metrics::serve(address, page).await;
}
