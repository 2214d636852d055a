//! Serves an API on a port of the loopback and writes a kubeconfig for it:
//! `cargo run -p caracal-apiserver --example serve -- 127.0.0.1:6443 /tmp/kubeconfig`.

use caracal_apiserver::{ApiServer, Listen, Options};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments
        .next()
        .unwrap_or_else(|| "127.0.0.1:6443".into())
        .parse()?;
    let options = Options {
        listen: vec![Listen::Address(address)],
        ..Options::default()
    };
    let server = ApiServer::start(options).await?;
    match arguments.next() {
        Some(path) => std::fs::write(path, server.kubeconfig())?,
        None => println!("{}", server.kubeconfig()),
    }
    tokio::signal::ctrl_c().await?;
    server.shutdown().await;
    Ok(())
}
