//! The client of the API server.

use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::config::ApiSource;
use crate::error::Error;

/// Makes the client. Does not connect: the server may be away.
///
/// # Errors
/// Where the credentials cannot be read.
pub(crate) async fn connect(source: &ApiSource, node_name: &str) -> Result<Client, Error> {
    let failed = |source_name: String| {
        move |error: Box<dyn std::error::Error + Send + Sync>| Error::Client {
            source_name,
            source: error,
        }
    };
    let mut config = match source {
        ApiSource::Kubeconfig(path) => {
            let fail = failed(path.display().to_string());
            let kubeconfig = match Kubeconfig::read_from(path) {
                Ok(kubeconfig) => kubeconfig,
                Err(error) => return Err(fail(error.into())),
            };
            let options = KubeConfigOptions::default();
            kube::Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .map_err(|error| fail(error.into()))?
        }
        ApiSource::InCluster => kube::Config::incluster()
            .map_err(|error| failed("the service account".into())(error.into()))?,
        ApiSource::Url(url) => {
            let uri = url
                .parse::<http::Uri>()
                .map_err(|error| failed(url.clone())(error.into()))?;
            kube::Config::new(uri)
        }
    };
    // The default policy repeats every request, writes included, for minutes inside the client,
    // where no deadline of ours reaches; watches and the publisher repeat by their own rules.
    config.default_retry = false;
    // The server's audit log should name the node.
    let agent = format!("caracal-node/{} ({node_name})", env!("CARGO_PKG_VERSION"));
    if let Ok(agent) = http::HeaderValue::from_str(&agent) {
        config.headers.push((http::header::USER_AGENT, agent));
    }
    Client::try_from(config)
        .map_err(|error| failed("the API server's address".into())(error.into()))
}
