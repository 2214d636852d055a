//! The embedded API server of a rig, and the objects that others would write.

use std::collections::BTreeSet;
use std::time::Duration;

use caracal_apiserver::{ApiServer, Fault, Listen, Options, Target};
use caracal_crds::{IpBlock, NodeNetworkStatus};
use caracal_fib::netns::NamedNetns;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api as Typed, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use super::{LOOPBACKS, SERVER, until};

/// Name of the node under test.
pub const NODE: &str = "n1";

/// How the agent calls itself to the server.
const AGENT: &str = "caracal-node/";

/// The server, and a client of it in this process.
pub struct Api {
    runtime: Runtime,
    server: ApiServer,
    client: Client,
    url: String,
}

impl Api {
    /// A server in `namespace` with the CRDs, the namespace `default`, the node, a pool and the
    /// node's first block.
    pub fn start(namespace: &NamedNetns) -> Api {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("runtime");
        let listener = namespace
            .netns()
            .run(|| std::net::TcpListener::bind((SERVER, 8080)))
            .expect("namespace")
            .expect("listener");
        let options = Options {
            listen: vec![Listen::Listener(listener)],
            ..Options::default()
        };
        let server = runtime.block_on(ApiServer::start(options)).expect("server");
        let client = {
            let _context = runtime.enter();
            Client::new(server.service(), "default")
        };
        let url = format!("http://{SERVER}:8080");
        let api = Api {
            runtime,
            server,
            client,
            url,
        };
        for definition in caracal_crds::all() {
            api.create(&serde_json::to_value(definition).expect("JSON"));
        }
        api.wait_for_kinds();
        api.create_missing(
            &json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}}),
        );
        let addresses: Vec<Value> = LOOPBACKS
            .iter()
            .map(|address| json!({"type": "InternalIP", "address": address}))
            .collect();
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE},
            "status": {"addresses": addresses},
        });
        api.create(&node);
        api.patch_status(
            "v1",
            "Node",
            NODE,
            &json!({"status": {"addresses": addresses}}),
        );
        api.create(&json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "IPPool", "metadata": {"name": "default"},
            "spec": {"subnets": [{"ipv4": "10.64.0.0/20", "ipv6": "fd00:64::/116"}]},
        }));
        api.create(&json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "BGPConfiguration",
            "metadata": {"name": "default"},
            "spec": {"asNumber": 65000, "nodeToNodeMeshEnabled": false},
        }));
        api.grant_block(0);
        api
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// A block as the controller would create it.
    pub fn grant_block(&self, index: u32) {
        let uid = self.get("v1", "Node", "", NODE).uid().expect("UID");
        let third = index * 64;
        self.create(&json!({
            "apiVersion": "caracal.dev/v1alpha1", "kind": "IPBlock",
            "metadata": {"name": format!("default-{index}")},
            "spec": {
                "pool": "default", "index": index, "nodeName": NODE, "nodeUID": uid, "epoch": 1,
                "ipv4": format!("10.64.{}.{}/26", third / 256, third % 256),
                "ipv6": format!("fd00:64::{third:x}/122"),
            },
        }));
    }

    /// A pod on the node, not wired yet.
    pub fn pod(&self, name: &str, labels: &Value) {
        self.create(&json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "labels": labels},
            "spec": {"nodeName": NODE, "containers": [{"name": "c", "image": "i"}]},
        }));
    }

    /// What the kubelet writes after ADD.
    pub fn pod_has(&self, name: &str, addresses: &[String]) {
        let ips: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let api: Typed<Pod> = Typed::namespaced(self.client.clone(), "default");
        let patch = Patch::Merge(json!({
            "status": {"phase": "Running", "podIP": addresses[0], "podIPs": ips}
        }));
        self.wait(api.patch_status(name, &PatchParams::default(), &patch))
            .expect("patch");
    }

    pub fn block(&self, index: u32) -> IpBlock {
        let api: Typed<IpBlock> = Typed::all(self.client.clone());
        self.wait(api.get(&format!("default-{index}")))
            .expect("block")
    }

    pub fn node_status(&self) -> Option<NodeNetworkStatus> {
        let api: Typed<NodeNetworkStatus> = Typed::all(self.client.clone());
        self.wait(api.get_opt(NODE)).expect("status")
    }

    /// Writes of the agent so far.
    pub fn writes(&self) -> u64 {
        self.server.requests().writes_by(AGENT)
    }

    /// No request of the agent gets through.
    pub fn partition(&self) {
        self.server
            .faults()
            .inject(Target::client(AGENT), Fault::Partition);
    }

    /// The agent's writes to blocks are refused.
    pub fn refuse_block_writes(&self) {
        let target = Target {
            resource: Some("ipblocks".into()),
            ..Target::client(AGENT).verb("patch")
        };
        self.server
            .faults()
            .inject(target, Fault::TooManyRequests(0));
    }

    /// The agent may look at no Secret.
    pub fn refuse_secrets(&self) {
        let target = Target {
            resource: Some("secrets".into()),
            ..Target::client(AGENT)
        };
        self.server.faults().inject(target, Fault::Forbidden);
    }

    /// What the agent asked of Secrets so far, `verb namespace/name`.
    pub fn secret_requests(&self) -> BTreeSet<String> {
        let requests = self.server.requests().recent();
        requests
            .into_iter()
            .filter(|it| it.kind.resource == "secrets" && it.kind.user_agent.contains(AGENT))
            .map(|it| format!("{} {}/{}", it.kind.verb, it.namespace, it.name))
            .collect()
    }

    /// Tells the node to give a block back.
    pub fn drain_block(&self, index: u32) {
        let name = format!("default-{index}");
        let drain = json!({"spec": {"drain": true}});
        self.patch("caracal.dev/v1alpha1", "IPBlock", "", &name, &drain);
    }

    /// They do again.
    pub fn heal(&self) {
        self.server.faults().clear();
    }

    pub fn create(&self, object: &Value) {
        let (api, parsed) = self.dynamic(object);
        let created = self.wait(api.create(&PostParams::default(), &parsed));
        created.unwrap_or_else(|error| panic!("create {object}: {error}"));
    }

    /// Merges `patch` into an object.
    pub fn patch(&self, api_version: &str, kind: &str, namespace: &str, name: &str, patch: &Value) {
        let api = self.typed(api_version, kind, namespace);
        let patched = self.wait(api.patch(name, &PatchParams::default(), &Patch::Merge(patch)));
        patched.unwrap_or_else(|error| panic!("patch {name}: {error}"));
    }

    pub fn delete(&self, api_version: &str, kind: &str, namespace: &str, name: &str) {
        let api = self.typed(api_version, kind, namespace);
        self.wait(api.delete(name, &DeleteParams::default()))
            .expect("delete");
    }

    fn create_missing(&self, object: &Value) {
        let (api, parsed) = self.dynamic(object);
        // Servers make some namespaces themselves.
        let _ = self.wait(api.create(&PostParams::default(), &parsed));
    }

    fn get(&self, api_version: &str, kind: &str, namespace: &str, name: &str) -> DynamicObject {
        self.wait(self.typed(api_version, kind, namespace).get(name))
            .expect("get")
    }

    fn patch_status(&self, api_version: &str, kind: &str, name: &str, patch: &Value) {
        let api = self.typed(api_version, kind, "");
        let patched =
            self.wait(api.patch_status(name, &PatchParams::default(), &Patch::Merge(patch)));
        patched.expect("patch");
    }

    fn dynamic(&self, object: &Value) -> (Typed<DynamicObject>, DynamicObject) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = text(&object["metadata"]["namespace"]);
        let api = self.typed(
            &text(&object["apiVersion"]),
            &text(&object["kind"]),
            &namespace,
        );
        (api, serde_json::from_value(object.clone()).expect("object"))
    }

    fn typed(&self, api_version: &str, kind: &str, namespace: &str) -> Typed<DynamicObject> {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let plural = match kind {
            "NetworkPolicy" => "networkpolicies".to_owned(),
            "NodeNetworkStatus" => "nodenetworkstatuses".to_owned(),
            other => format!("{}s", other.to_lowercase()),
        };
        let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
        match namespace {
            "" => Typed::all_with(self.client.clone(), &resource),
            namespace => Typed::namespaced_with(self.client.clone(), namespace, &resource),
        }
    }

    fn wait_for_kinds(&self) {
        let api: Typed<NodeNetworkStatus> = Typed::all(self.client.clone());
        until("the new kinds are served", Duration::from_secs(5), || {
            self.wait(api.list(&kube::api::ListParams::default()))
                .map(drop)
        });
    }

    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }
}
