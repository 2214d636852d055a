//! One module per verb: arguments, wiring, output.

pub(crate) mod apiserver;
pub(crate) mod bfd;
pub(crate) mod bgp;
pub(crate) mod controller;
pub(crate) mod crds;
pub(crate) mod node;
pub(crate) mod speaker;

use std::io::IsTerminal;
use std::net::{AddrParseError, Ipv4Addr, SocketAddr};
use std::num::NonZero;

use anyhow::Context;
use tokio_util::sync::CancellationToken;

/// Exit code of a command that could not ask whom it had to.
pub(crate) const UNREACHABLE: u8 = 3;

/// Whoever was to be asked is not there or does not answer; what was being done.
#[derive(Debug)]
pub(crate) struct Unreachable(pub(crate) String);

impl std::fmt::Display for Unreachable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// Writes a daemon's log to standard error: as text, with colours on a terminal, or as one JSON object
/// per line where `CARACAL_LOG_FORMAT` is `json`.
pub(crate) fn log() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match std::env::var("CARACAL_LOG_FORMAT").as_deref() {
        Ok("json") => log.json().init(),
        _ => log.init(),
    }
}

/// Starts a runtime for a daemon, with its log on standard error.
pub(crate) fn daemon<F>(
    work: impl FnOnce(CancellationToken) -> F,
) -> anyhow::Result<std::process::ExitCode>
where
    F: Future<Output = anyhow::Result<()>>,
{
    log();
    // What takes long has threads of its own. A worker more than there are cores only takes turns with the others.
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.min(2))
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    runtime.block_on(async {
        let token = CancellationToken::new();
        let terminated = terminated()?;
        let trigger = token.clone();
        tokio::spawn(async move {
            terminated.await;
            trigger.cancel();
        });
        work(token).await
    })?;
    // A blocking call that hangs (a kernel that does not answer) must not hold up the end.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    Ok(std::process::ExitCode::SUCCESS)
}

/// Where a process serves metrics.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct MetricsArgs {
    /// Address and port to serve metrics on, at /metrics; served nowhere when absent
    #[arg(
        id = "metrics",
        long = "metrics",
        env = "CARACAL_METRICS",
        value_name = "ADDRESS:PORT",
        value_parser = listen_address
    )]
    pub(crate) address: Option<SocketAddr>,
}

/// Where to listen, as an address and a port. Brackets are taken around an IPv4 address, too: whoever writes
/// `[$(NODE_IP)]:9179` into a manifest need not know of which family the cluster is.
fn listen_address(text: &str) -> Result<SocketAddr, AddrParseError> {
    let bracketed = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("]:"));
    if let Some((address, port)) = bracketed
        && address.parse::<Ipv4Addr>().is_ok()
    {
        return format!("{address}:{port}").parse();
    }
    text.parse()
}

/// Completes when the process is asked to end.
fn terminated() -> anyhow::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).context("cannot watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot watch for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(test)]
mod tests {
    use super::listen_address;

    #[test]
    fn an_address_of_either_family_may_stand_in_brackets() {
        for (text, expected) in [
            ("10.0.0.1:9179", Some("10.0.0.1:9179")),
            ("[10.0.0.1]:9179", Some("10.0.0.1:9179")),
            ("[fd00::1]:9179", Some("[fd00::1]:9179")),
            ("[::]:9179", Some("[::]:9179")),
            ("fd00::1:9179", None),
            ("[10.0.0.1]", None),
            ("[10.0.0.1]:", None),
            ("[10.0.0.256]:9179", None),
            ("[]:9179", None),
            ("localhost:9179", None),
        ] {
            let expected = expected.map(|text| text.parse().unwrap());
            assert_eq!(listen_address(text).ok(), expected, "{text}");
        }
    }
}
