//! An API server on a host, and the objects that others would write.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use caracal_apiserver::{ApiServer, Listen, Options, Requests, kubeconfig};
use caracal_lab::cluster::api::ApiHandle;
use caracal_lab::namespace::Namespace;
use caracal_lab::process::until;
use serde_json::{Value, json};

use super::net::Net;

const PATIENCE: Duration = Duration::from_secs(30);

/// The server, which knows our kinds, and a client of it in this process.
pub(crate) struct Server {
    server: ApiServer,
    pub(crate) api: ApiHandle,
    /// Where it is reached from outside of the net.
    url: String,
}

impl Server {
    /// A server at `address` of a host.
    pub(crate) fn start(
        net: &Net,
        host: &str,
        address: &str,
        runtime: &tokio::runtime::Handle,
    ) -> Self {
        let local = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", local.local_addr().unwrap());
        let namespace = Namespace::at(&Path::new("/run/netns").join(net.namespace(host)));
        let inside = namespace.run(|| Ok(TcpListener::bind(address)?)).unwrap();
        let options = Options {
            listen: vec![Listen::Listener(local), Listen::Listener(inside)],
            ..Options::default()
        };
        let server = runtime.block_on(ApiServer::start(options)).unwrap();
        let api = ApiHandle::new(&url, runtime.clone()).unwrap();
        for definition in caracal_crds::all() {
            api.create(&serde_json::to_value(definition).unwrap())
                .unwrap();
        }
        Self { server, api, url }
    }

    /// Gives a host credentials, in `kubeconfig` of its folder, to reach the server at `address`.
    pub(crate) fn let_in(&self, net: &Net, host: &str, address: &str) {
        let file = net.folder(host).join("kubeconfig");
        std::fs::write(file, kubeconfig(&format!("http://{address}"))).unwrap();
    }

    /// Writes credentials for this process to a file.
    pub(crate) fn let_us_in(&self, file: &Path) {
        std::fs::write(file, kubeconfig(&self.url)).unwrap();
    }

    /// Creates an object, with its status where it has one.
    pub(crate) fn create(&self, object: &Value) {
        // A new kind takes a moment to be served.
        let created = || {
            self.api
                .create(object)
                .map_err(|error| format!("{error:#}"))
        };
        until("the object created", PATIENCE, created).unwrap();
    }

    /// What was asked of it.
    pub(crate) fn requests(&self) -> Requests {
        self.server.requests()
    }
}

/// An object of one of our kinds.
pub(crate) fn ours(kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "caracal.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    })
}
