//! The Kubernetes side of a lab: the embedded API server, one agent per node, the controller, and the lab
//! itself in the places of scheduler and kubelet.

pub mod api;
pub mod kubelet;
pub mod objects;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Context;
use caracal_apiserver::{ApiServer, Listen, kubeconfig};
use caracal_lab_topology::{Plan, Role, Sidecar, sidecar};

use self::api::ApiHandle;
use self::kubelet::{ConfigList, Kubelet, RunningPod};
use crate::fabric::{Fabric, MANAGEMENT_V4};
use crate::namespace::Namespace;
use crate::process::{Process, until};
use crate::state::StateDir;

/// Where the API server listens on the management network.
const API_PORT: u16 = 6443;

/// A cluster on a fabric.
pub struct Cluster {
    server: ApiServer,
    api: ApiHandle,
    binaries: Binaries,
    sidecar: Sidecar,
    state: StateDir,
    controller: Process,
    agents: BTreeMap<String, Process>,
    pods: BTreeMap<String, RunningPod>,
}

/// The product's executables.
#[derive(Debug, Clone)]
pub struct Binaries {
    /// `caracal`.
    pub caracal: PathBuf,
    /// `caracal-cni`.
    pub plugin: PathBuf,
}

impl Cluster {
    /// Starts the API server, gives it the lab's objects, and starts the controller and every agent.
    ///
    /// # Errors
    /// A port is taken, an object is refused, a process does not start.
    pub fn start(
        plan: &Plan,
        sidecar: &Sidecar,
        fabric: &Fabric,
        state: &StateDir,
        binaries: &Binaries,
        runtime: &tokio::runtime::Handle,
    ) -> anyhow::Result<Self> {
        let local = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0))
            .context("cannot listen on loopback")?;
        let url = format!("http://{}", local.local_addr()?);
        let address = SocketAddr::new(MANAGEMENT_V4.into(), API_PORT);
        let management = fabric.management().run(|| {
            TcpListener::bind(address).with_context(|| format!("cannot listen on {address}"))
        })?;
        let server = runtime
            .block_on(ApiServer::start(caracal_apiserver::Options {
                listen: vec![Listen::Listener(local), Listen::Listener(management)],
                ..Default::default()
            }))
            .context("cannot start the API server")?;
        write_secret(&state.kubeconfig(), &server.kubeconfig())?;
        let inside = state.root().join("kubeconfig.nodes");
        write_secret(&inside, &kubeconfig(&format!("http://{address}")))?;

        let api = ApiHandle::new(&url, runtime.clone())?;
        for definition in caracal_crds::all() {
            let definition = serde_json::to_value(definition).context("cannot write a CRD")?;
            api.create(&definition)?;
        }
        for object in objects::nodes(plan)
            .iter()
            .chain(&objects::configuration(plan, sidecar))
            .chain(&objects::namespaces(sidecar))
        {
            api.create(object)?;
        }

        let controller = start_controller(fabric, state, binaries, &inside)?;
        let mut cluster = Self {
            server,
            api,
            binaries: binaries.clone(),
            sidecar: sidecar.clone(),
            state: state.clone(),
            controller,
            agents: BTreeMap::new(),
            pods: BTreeMap::new(),
        };
        for node in plan.with_role(Role::Node) {
            cluster.start_agent(&node.name)?;
        }
        Ok(cluster)
    }

    /// The API server, for faults and request counts.
    pub fn server(&self) -> &ApiServer {
        &self.server
    }

    /// The lab's client.
    pub fn api(&self) -> &ApiHandle {
        &self.api
    }

    /// Running pods by `namespace/name`.
    pub fn pods(&self) -> &BTreeMap<String, RunningPod> {
        &self.pods
    }

    /// Starts a node's agent, for the first time or after its death.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start_agent(&mut self, node: &str) -> anyhow::Result<()> {
        let folder = self.state.folder(node);
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("cannot create {}", folder.display()))?;
        let mut command = Command::new(&self.binaries.caracal);
        command
            .arg("node")
            .args(["--node", node])
            .arg("--kubeconfig")
            .arg(self.state.root().join("kubeconfig.nodes"))
            .arg("--run-dir")
            .arg(&folder);
        let namespace = Namespace::at(&self.state.namespace(node));
        let name = format!("agent on {node}");
        let process = Process::start(&name, &namespace, command, &folder.join("agent.log"))?;
        self.agents.insert(node.to_owned(), process);
        Ok(())
    }

    /// Kills a node's agent without warning.
    ///
    /// # Errors
    /// There is no agent, or it does not die.
    pub fn kill_agent(&mut self, node: &str) -> anyhow::Result<()> {
        let mut process = self
            .agents
            .remove(node)
            .with_context(|| format!("no agent runs on {node}"))?;
        process.signal(nix::sys::signal::Signal::SIGKILL);
        process.wait(Duration::from_secs(2))?;
        Ok(())
    }

    /// Creates a pod's object, wires it through the plugin of its node and reports it ready.
    ///
    /// # Errors
    /// The API server or the plugin refuses.
    pub fn run_pod(&mut self, plan: &Plan, spec: &sidecar::Pod) -> anyhow::Result<()> {
        let object = objects::pod(spec);
        self.api.create(&object)?;
        let uid = self.uid_of(spec)?;
        let file = self
            .state
            .namespace(&format!("pod-{}-{}", spec.namespace, spec.name));
        let pod = self
            .kubelet(&spec.node)
            .run(spec, &uid, &file, &self.sidecar.expect.probes)?;
        let host = plan.nodes[&spec.node].loopback_v4;
        let status = objects::pod_status(&pod.addresses, IpAddr::V4(host));
        self.api.patch_status(&object, &status)?;
        self.pods.insert(pod.key(), pod);
        Ok(())
    }

    /// DEL, then the object.
    ///
    /// # Errors
    /// The pod does not run, or the plugin or API server refuses.
    pub fn remove_pod(&mut self, key: &str) -> anyhow::Result<sidecar::Pod> {
        let pod = self
            .pods
            .remove(key)
            .with_context(|| format!("pod {key} does not run"))?;
        let spec = pod.spec.clone();
        let uid = self.uid_of(&spec)?;
        self.kubelet(&spec.node).remove(pod, &uid)?;
        self.api.delete(&objects::pod(&spec))?;
        Ok(spec)
    }

    /// Waits until every pod's echo server listens.
    ///
    /// # Errors
    /// One does not.
    pub fn wait_for_echo(&self, within: Duration) -> anyhow::Result<()> {
        let Some(probe) = self
            .sidecar
            .expect
            .probes
            .iter()
            .rev()
            .find(|p| p.protocol == caracal_lab_topology::Protocol::Tcp)
        else {
            return Ok(());
        };
        for pod in self.pods.values() {
            let target = SocketAddr::new(pod.addresses[0], probe.port);
            until(&format!("echo server of {}", pod.key()), within, || {
                pod.namespace
                    .run(|| {
                        Ok(std::net::TcpStream::connect_timeout(
                            &target,
                            Duration::from_secs(1),
                        )?)
                    })
                    .map(drop)
                    .map_err(|error| format!("{error:#}"))
            })?;
        }
        Ok(())
    }

    /// Processes that have ended although nobody stopped them, with the end of their logs.
    pub fn casualties(&mut self) -> Vec<String> {
        std::iter::once(&mut self.controller)
            .chain(self.agents.values_mut())
            .filter_map(|process| match process.exited() {
                Ok(Some(status)) => Some(format!(
                    "{}: {status}\n{}",
                    process.name(),
                    process.log_tail(15)
                )),
                _ => None,
            })
            .collect()
    }

    fn kubelet(&self, node: &str) -> Kubelet {
        let folder = self.state.folder(node);
        Kubelet {
            plugin: self.binaries.plugin.clone(),
            binary: self.binaries.caracal.clone(),
            node: Namespace::at(&self.state.namespace(node)),
            config: ConfigList::new(&folder.join("cni.sock")),
            folder,
        }
    }

    fn uid_of(&self, spec: &sidecar::Pod) -> anyhow::Result<String> {
        let pods = self.api.list("v1", "Pod")?;
        pods.iter()
            .find(|pod| {
                pod.metadata.name.as_deref() == Some(&spec.name)
                    && pod.metadata.namespace.as_deref() == Some(&spec.namespace)
            })
            .and_then(|pod| pod.metadata.uid.clone())
            .with_context(|| format!("pod {}/{} has no uid", spec.namespace, spec.name))
    }
}

fn start_controller(
    fabric: &Fabric,
    state: &StateDir,
    binaries: &Binaries,
    kubeconfig: &Path,
) -> anyhow::Result<Process> {
    let folder = state.folder("controller");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot create {}", folder.display()))?;
    let mut command = Command::new(&binaries.caracal);
    command
        .arg("controller")
        .arg("--kubeconfig")
        .arg(kubeconfig);
    Process::start(
        "controller",
        fabric.management(),
        command,
        &folder.join("controller.log"),
    )
}

fn write_secret(path: &Path, text: &str) -> anyhow::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut file = std::fs::File::options()
        .create(true)
        .truncate(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    file.write_all(text.as_bytes())
        .with_context(|| format!("cannot write {}", path.display()))
}
