//! The agent's process: a test program again, started by the rig in the node's namespace.

use caracal_agent::{Agent, ApiSource, Config};
use tokio_util::sync::CancellationToken;

/// Not a test: the agent's process, started by the rig in the node's namespace.
#[test]
#[ignore = "started by other tests as a process"]
fn agent_process() {
    let Ok(run_dir) = std::env::var("AGENT_RUN_DIR") else {
        return;
    };
    let url = std::env::var("AGENT_API").expect("AGENT_API");
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_env_filter("info,caracal_agent=debug,caracal_fib=debug,caracal_nft=debug")
        .init();
    let mut config = Config::new(super::NODE_NAME, ApiSource::Url(url));
    config.run_dir = run_dir.into();
    config.metrics = Some(super::METRICS);
    let runtime = tokio::runtime::Runtime::new().expect("runtime");
    runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .expect("SIGTERM");
        tokio::spawn(async move {
            term.recv().await;
            stop.cancel();
        });
        Agent::run_blocking(config, shutdown)
            .await
            .expect("the agent ends well");
    });
}
