//! An embedded API server with controllers on it.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use caracal_apiserver::{ApiServer, Options};
use caracal_crds::{IpBlock, IpBlockRequest, IpPool};
use caracal_ipam_controller::Config;
use caracal_ipam_controller::election::LeaseSettings;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, PostParams};
use kube::{Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tower::ServiceExt;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct Cluster {
    pub(crate) server: ApiServer,
    pub(crate) client: Client,
}

/// A running controller; dropping it kills it without a word.
pub(crate) struct Running {
    metrics: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends it as SIGTERM does.
    pub(crate) async fn shut_down(mut self) {
        drop(self.stop.take());
        (&mut self.task)
            .await
            .expect("the controller ends without a panic");
    }
}

impl Running {
    /// What it serves at this moment, by series.
    pub(crate) async fn metrics(&self) -> BTreeMap<String, f64> {
        // It has just been started.
        let stream = until("metrics are served", || async {
            TcpStream::connect(self.metrics).await.ok()
        });
        let mut stream = stream.await;
        let request = b"GET /metrics HTTP/1.0\r\n\r\n";
        stream.write_all(request).await.expect("send the request");
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer).await;
        read.expect("read the answer");
        let (head, text) = answer.split_once("\r\n\r\n").expect("HTTP");
        assert!(head.starts_with("HTTP/1.0 200"), "{head}");
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let samples = samples.map(|line| {
            let (series, value) = line.rsplit_once(' ').expect("a sample");
            (series.to_owned(), value.parse().expect("a number"))
        });
        samples.collect()
    }

    /// Waits until a series is as it should be.
    pub(crate) async fn until_metric(&self, series: &str, right: impl Fn(f64) -> bool) {
        until(series, || async {
            let value = self.metrics().await.get(series).copied();
            value.is_some_and(&right).then_some(())
        })
        .await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Cluster {
    pub(crate) async fn start() -> Self {
        let server = ApiServer::start(Options::default())
            .await
            .expect("start without a listener");
        let cluster = Cluster {
            client: client(&server, "test"),
            server,
        };
        for definition in caracal_crds::all() {
            cluster
                .create::<CustomResourceDefinition>(json!(definition))
                .await;
        }
        for definition in ["ippools", "ipblocks", "ipblockrequests"] {
            let api: Api<CustomResourceDefinition> = Api::all(cluster.client.clone());
            until(&format!("{definition} is established"), || async {
                let name = format!("{definition}.caracal.dev");
                let status = api.get(&name).await.ok()?.status?.conditions?;
                status
                    .iter()
                    .any(|c| c.type_ == "Established" && c.status == "True")
                    .then_some(())
            })
            .await;
        }
        cluster
    }

    /// A controller of this name with short times.
    pub(crate) fn controller(&self, name: &str) -> Running {
        let mut config = Config::new(client(&self.server, name), name);
        config.lease = LeaseSettings {
            duration: Duration::from_secs(1),
            renew_deadline: Duration::from_millis(700),
            retry: Duration::from_millis(50),
        };
        config.status_interval = Duration::from_millis(20);
        config.allocator.quarantine = Duration::from_secs(1);
        config.allocator.retry = Duration::from_millis(100);
        let metrics = address();
        config.metrics = Some(metrics);
        let (stop, stopped) = oneshot::channel();
        let shutdown = async move {
            let _dropped = stopped.await;
        };
        let task = tokio::spawn(caracal_ipam_controller::run(config, shutdown));
        Running {
            metrics,
            stop: Some(stop),
            task,
        }
    }

    pub(crate) async fn create<K>(&self, object: Value) -> K
    where
        K: kube::Resource<DynamicType = ()> + Serialize + DeserializeOwned + Clone + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let object = serde_json::from_value(object).expect("the test's object is well formed");
        api.create(&PostParams::default(), &object)
            .await
            .unwrap_or_else(|e| panic!("create: {e}"))
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        let labels = json!({"rack": name.get(..1)});
        self.create(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}))
            .await
    }

    pub(crate) async fn delete_node(&self, name: &str) {
        let api: Api<Node> = Api::all(self.client.clone());
        api.delete(name, &DeleteParams::default())
            .await
            .expect("the node exists");
    }

    pub(crate) async fn pool(&self, name: &str, ipv4: &str, ipv6: &str, extra: Value) -> IpPool {
        let mut spec = json!({"subnets": [{"ipv4": ipv4, "ipv6": ipv6}], "cooldownSeconds": 0});
        if let (Some(spec), Some(extra)) = (spec.as_object_mut(), extra.as_object()) {
            spec.extend(extra.clone());
        }
        self.create(json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "IPPool",
            "metadata": {"name": name}, "spec": spec}))
            .await
    }

    pub(crate) async fn ask(&self, node: &Node, pool: &str, want: u32) -> IpBlockRequest {
        let name = node.name_any();
        self.create(json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "IPBlockRequest",
            "metadata": {"name": format!("{name}.{pool}")},
            "spec": {"nodeName": name, "nodeUID": node.uid(), "pool": pool, "generation": 1, "want": want}}))
            .await
    }

    pub(crate) async fn blocks(&self) -> Vec<IpBlock> {
        let api: Api<IpBlock> = Api::all(self.client.clone());
        api.list(&Default::default())
            .await
            .expect("list blocks")
            .items
    }

    /// Waits until each of these nodes holds this many blocks, and returns all.
    pub(crate) async fn held(&self, wanted: &[(&str, usize)]) -> Vec<IpBlock> {
        until(&format!("blocks {wanted:?}"), || async {
            let blocks = self.blocks().await;
            let counts = |node: &str| blocks.iter().filter(|b| b.spec.node_name == node).count();
            let all = wanted.iter().all(|(node, count)| counts(node) == *count);
            all.then_some(blocks)
        })
        .await
    }

    /// Waits for a condition of a pool, and returns its reason and message.
    pub(crate) async fn pool_condition(
        &self,
        pool: &str,
        condition: &str,
        status: &str,
    ) -> (String, String) {
        let api: Api<IpPool> = Api::all(self.client.clone());
        until(&format!("{pool} {condition}={status}"), || async {
            let conditions = api.get(pool).await.ok()?.status?.conditions;
            let found = conditions
                .into_iter()
                .find(|c| c.type_ == condition && c.status == status)?;
            Some((found.reason, found.message))
        })
        .await
    }

    pub(crate) async fn request_condition(
        &self,
        name: &str,
        status: &str,
    ) -> (String, Vec<String>) {
        let api: Api<IpBlockRequest> = Api::all(self.client.clone());
        until(&format!("{name} Granted={status}"), || async {
            let found = api.get(name).await.ok()?.status?;
            let condition = found.conditions.iter().find(|c| c.status == status)?;
            Some((condition.reason.clone(), found.granted.clone()))
        })
        .await
    }

    pub(crate) async fn leader(&self, wanted: &str) -> i32 {
        let api: Api<Lease> = Api::namespaced(self.client.clone(), "kube-system");
        until(&format!("{wanted:?} leads"), || async {
            let spec = api.get("caracal-controller").await.ok()?.spec?;
            (spec.holder_identity.as_deref() == Some(wanted)).then_some(spec.lease_transitions?)
        })
        .await
    }

    /// Writes by `client`, but for those of the election.
    pub(crate) fn writes(&self, client: &str) -> u64 {
        self.server
            .requests()
            .count(|kind| kind.is_write() && kind.resource != "leases" && kind.user_agent == client)
    }

    /// Waits until `client` has renewed its lease that many times more.
    pub(crate) async fn renewals(&self, client: &str, more: u64) {
        let renewed = || {
            self.server.requests().count(|kind| {
                kind.is_write() && kind.resource == "leases" && kind.user_agent == client
            })
        };
        let wanted = renewed() + more;
        until(&format!("{client} renews {more} times"), || async {
            (renewed() >= wanted).then_some(())
        })
        .await;
    }
}

/// Polls until there is something, and panics with `what` when that takes too long.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(10)).await;
    }
}

/// A place to serve on that no other test has.
fn address() -> SocketAddr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let [_, _, high, low] = std::process::id().to_be_bytes();
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    (Ipv4Addr::new(127, high, low, number), 9180).into()
}

fn client(server: &ApiServer, user_agent: &str) -> Client {
    let value = http::HeaderValue::from_str(user_agent).expect("names are plain");
    let named = move |mut request: http::Request<kube::client::Body>| {
        request
            .headers_mut()
            .insert(http::header::USER_AGENT, value.clone());
        request
    };
    Client::new(server.service().map_request(named), "default")
}
