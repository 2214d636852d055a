//! The lab as kubelet and container runtime: a namespace per pod, the real CNI plugin, an echo server.

use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use caracal_lab_topology::{Probe, sidecar};
use serde_json::{Value, json};

use crate::namespace::Namespace;
use crate::process::Process;

/// Network configuration as it would lie in `/etc/cni/net.d`.
#[derive(Debug, Clone)]
pub struct ConfigList(Value);

impl ConfigList {
    /// The list that this product installs, pointing at an agent's socket.
    pub fn new(socket: &Path) -> Self {
        Self(json!({
            "cniVersion": "1.1.0",
            "name": "k8s-pod-network",
            "plugins": [{"type": "caracal-cni", "socket": socket}],
        }))
    }

    /// What a runtime hands to the plugin: its own entry with the list's name and version.
    fn for_plugin(&self) -> Value {
        let mut plugin = self.0["plugins"][0].clone();
        plugin["cniVersion"] = self.0["cniVersion"].clone();
        plugin["name"] = self.0["name"].clone();
        plugin
    }
}

/// A pod that runs.
pub struct RunningPod {
    /// As the sidecar has it.
    pub spec: sidecar::Pod,
    /// Its network.
    pub namespace: Namespace,
    /// IPv4 and IPv6.
    pub addresses: [IpAddr; 2],
    container: String,
    echo: Process,
}

/// Runs and removes pods on one node.
#[derive(Debug, Clone)]
pub struct Kubelet {
    /// `caracal-cni`.
    pub plugin: PathBuf,
    /// `caracal`, for the echo server.
    pub binary: PathBuf,
    /// The node's namespace: a runtime runs plugins there.
    pub node: Namespace,
    /// Network configuration.
    pub config: ConfigList,
    /// For logs.
    pub folder: PathBuf,
}

impl Kubelet {
    /// Makes the pod's namespace, has the plugin wire it, and starts the echo server.
    ///
    /// # Errors
    /// The plugin refuses (its own message), or gives no address of a family.
    pub fn run(
        &self,
        spec: &sidecar::Pod,
        uid: &str,
        namespace: &Path,
        ports: &[Probe],
    ) -> anyhow::Result<RunningPod> {
        let namespace = Namespace::create(namespace)?;
        let container = format!("{}-{}-{uid}", spec.namespace, spec.name);
        let text = self.call("ADD", spec, uid, &container, &namespace)?;
        let result: Value = serde_json::from_str(&text)
            .with_context(|| format!("the plugin's result is not JSON: {text}"))?;
        let addresses = addresses(&result)
            .with_context(|| format!("pod {}/{}: {result}", spec.namespace, spec.name))?;
        let name = format!("echo of {}/{}", spec.namespace, spec.name);
        let mut command = Command::new(&self.binary);
        command
            .args(["lab", "echo"])
            .args(ports.iter().map(Probe::to_string));
        let log = self.folder.join(format!("{container}.log"));
        let echo = Process::start(&name, &namespace, command, &log)?;
        Ok(RunningPod {
            spec: spec.clone(),
            namespace,
            addresses,
            container,
            echo,
        })
    }

    /// Ends a pod: its processes, then the plugin's DEL, then the namespace.
    ///
    /// # Errors
    /// The plugin refuses.
    pub fn remove(&self, mut pod: RunningPod, uid: &str) -> anyhow::Result<()> {
        pod.echo.signal(nix::sys::signal::Signal::SIGKILL);
        pod.echo.wait(std::time::Duration::from_secs(2))?;
        self.call("DEL", &pod.spec, uid, &pod.container, &pod.namespace)?;
        pod.namespace.delete()
    }

    fn call(
        &self,
        verb: &str,
        spec: &sidecar::Pod,
        uid: &str,
        container: &str,
        namespace: &Namespace,
    ) -> anyhow::Result<String> {
        let arguments = format!(
            "IgnoreUnknown=1;K8S_POD_NAMESPACE={};K8S_POD_NAME={};K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID={uid}",
            spec.namespace, spec.name
        );
        let mut command = Command::new(&self.plugin);
        command
            .env_clear()
            .env("CNI_COMMAND", verb)
            .env("CNI_CONTAINERID", container)
            .env("CNI_NETNS", namespace.path())
            .env("CNI_IFNAME", "eth0")
            .env("CNI_PATH", self.plugin.parent().unwrap_or(Path::new("/")))
            .env("CNI_ARGS", arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = self.node.run(|| {
            command
                .spawn()
                .with_context(|| format!("cannot start {}", self.plugin.display()))
        })?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin
                .write_all(self.config.for_plugin().to_string().as_bytes())
                .context("cannot hand the plugin its configuration")?;
        }
        let output = child
            .wait_with_output()
            .context("cannot wait for the plugin")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            bail!(
                "CNI {verb} of pod {}/{}: {} {}",
                spec.namespace,
                spec.name,
                text.trim(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(text)
    }
}

impl RunningPod {
    /// `namespace/name`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.spec.namespace, self.spec.name)
    }
}

/// One address of each family out of a CNI result.
fn addresses(result: &Value) -> anyhow::Result<[IpAddr; 2]> {
    let all: Vec<IpAddr> = result["ips"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default()
        .iter()
        .filter_map(|ip| ip["address"].as_str()?.split('/').next()?.parse().ok())
        .collect();
    let v4 = all
        .iter()
        .find(|ip| ip.is_ipv4())
        .context("no IPv4 address")?;
    let v6 = all
        .iter()
        .find(|ip| ip.is_ipv6())
        .context("no IPv6 address")?;
    Ok([*v4, *v6])
}
