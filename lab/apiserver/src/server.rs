//! Starting, reaching and ending a server.
//!
//! Owns the listeners and connections; what is said on them is [`crate::service`]'s.

use std::net::SocketAddr;
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::api::Api;
use crate::audit::Requests;
use crate::faults::Faults;
use crate::service::{ApiService, Shared};
use crate::store::DEFAULT_HISTORY;

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be listened on.
    #[error("listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Cause.
        #[source]
        source: std::io::Error,
    },
    /// A listener made by the caller cannot be used.
    #[error("take over a listener")]
    TakeOver {
        /// Cause.
        #[source]
        source: std::io::Error,
    },
}

/// Where a server listens.
#[derive(Debug)]
pub enum Listen {
    /// At an address in the network namespace of the caller. Port 0 means any free one.
    Address(SocketAddr),
    /// On a listener that the caller made, perhaps in another network namespace.
    Listener(std::net::TcpListener),
}

/// How a server is started.
#[derive(Debug)]
pub struct Options {
    /// Where it listens; nowhere is fine for use in process.
    pub listen: Vec<Listen>,
    /// Events kept per resource for watches and paged lists.
    pub history: usize,
    /// Seed of UIDs and generated names; `None` for a random one.
    pub seed: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: Vec::new(),
            history: DEFAULT_HISTORY,
            seed: None,
        }
    }
}

impl Options {
    /// One listener on a free port of the loopback.
    #[must_use]
    pub fn loopback() -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            listen: vec![Listen::Address(address)],
            ..Self::default()
        }
    }
}

/// A running server. Dropping it ends it.
#[derive(Debug)]
pub struct ApiServer {
    service: ApiService,
    addresses: Vec<SocketAddr>,
    tasks: TaskTracker,
}

impl ApiServer {
    /// Starts a server; it answers by the time this returns.
    ///
    /// # Errors
    /// [`Error`] if one of the listeners cannot be used; none is left open then.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let mut listeners = Vec::new();
        for listen in options.listen {
            listeners.push(match listen {
                Listen::Address(address) => TcpListener::bind(address)
                    .await
                    .map_err(|source| Error::Listen { address, source })?,
                Listen::Listener(listener) => listener
                    .set_nonblocking(true)
                    .and_then(|()| TcpListener::from_std(listener))
                    .map_err(|source| Error::TakeOver { source })?,
            });
        }
        let addresses = listeners
            .iter()
            .map(TcpListener::local_addr)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| Error::TakeOver { source })?;
        let seed = options
            .seed
            .unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
        let api = Api::new(Timestamp::now(), options.history, seed);
        let service = ApiService {
            shared: Arc::new(Shared::new(api)),
        };
        let tasks = TaskTracker::new();
        for listener in listeners {
            tasks.spawn(accept(listener, service.clone(), tasks.clone()));
        }
        Ok(Self {
            service,
            addresses,
            tasks,
        })
    }

    /// Addresses it listens at, in the order of the options.
    #[must_use]
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// URL of the first listener; `http://in-process.invalid` if there is none, which the
    /// in-process service answers to.
    #[must_use]
    pub fn url(&self) -> String {
        match self.addresses.first() {
            Some(address) => format!("http://{address}"),
            None => "http://in-process.invalid".into(),
        }
    }

    /// A kubeconfig for kubectl and other clients, over [`ApiServer::url`].
    #[must_use]
    pub fn kubeconfig(&self) -> String {
        kubeconfig(&self.url())
    }

    /// The server as a service for use in process, e.g. by `kube::Client::new`.
    #[must_use]
    pub fn service(&self) -> ApiService {
        self.service.clone()
    }

    /// The record of requests.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.service.shared.requests.clone()
    }

    /// The faults it shows.
    #[must_use]
    pub fn faults(&self) -> Faults {
        self.service.shared.faults.clone()
    }

    /// Revision of the newest write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.service.shared.lock().revision()
    }

    /// Forgets all history: watches that are resumed, and running ones, get 410.
    pub fn compact(&self) {
        let mut api = self.service.shared.lock();
        api.compact();
        let revision = api.revision();
        drop(api);
        self.service.shared.announce(revision);
    }

    /// Ends it: no new connections, watches end, open connections are closed.
    pub async fn shutdown(self) {
        self.service.shared.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.service.shared.stop.cancel();
    }
}

/// A kubeconfig for a server at a URL.
#[must_use]
pub fn kubeconfig(url: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Config\nclusters:\n- name: caracal\n  cluster:\n    server: {url}\n\
         users:\n- name: caracal\n  user: {{}}\ncontexts:\n- name: caracal\n  context:\n    \
         cluster: caracal\n    user: caracal\n    namespace: default\ncurrent-context: caracal\n"
    )
}

async fn accept(listener: TcpListener, service: ApiService, tasks: TaskTracker) {
    let stop = service.shared.stop.clone();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of descriptors, most likely: wait for connections to close.
                    tracing::warn!(%error, "accept a connection");
                    tokio::time::sleep(std::time::Duration::from_millis(50)).await;
                    continue;
                }
            },
            () = stop.cancelled() => return,
        };
        tasks.spawn(serve(stream, service.clone()));
    }
}

async fn serve(stream: TcpStream, service: ApiService) {
    // Events are small and must not wait for acknowledgements of earlier ones.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    let stop = service.shared.stop.clone();
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection =
        builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    tokio::pin!(connection);
    tokio::select! {
        ended = connection.as_mut() => {
            if let Err(error) = ended {
                tracing::debug!(%error, "serve a connection");
            }
            return;
        }
        () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    // Watches end at once on the same signal, so what is left are short requests.
    let rest = tokio::time::timeout(std::time::Duration::from_secs(1), connection).await;
    if rest.is_err() {
        tracing::debug!("a connection was still busy at the end");
    }
}
