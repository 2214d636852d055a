//! The sidecar `NAME.lab.yml`: the cluster to build on a topology, what has to be reachable, and the faults
//! with their budgets.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_saphyr::Spanned;

use crate::Error;
use crate::expect::{Expectation, Probe, Rule};

/// A sidecar as written. An empty one describes a topology of routers alone.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Sidecar {
    /// What the embedded API server is given.
    #[serde(default)]
    pub cluster: Cluster,
    /// Who reaches whom once the policies are in force.
    #[serde(default)]
    pub expect: RawExpectation,
    /// Faults to inject, in order.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// Kubernetes objects of a run.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Cluster {
    /// Address pools.
    pub pools: Vec<Pool>,
    /// Namespaces with their labels.
    pub namespaces: Vec<Namespace>,
    /// Pods in the order in which they are created.
    pub pods: Vec<Pod>,
    /// NetworkPolicy objects as they would be given to kubectl.
    #[serde(default)]
    pub policies: Vec<serde_json::Value>,
    /// Namespaced name of the pod that is deleted and re-created while the policies are in force.
    pub recreate: Option<String>,
}

/// One pool of pod addresses.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pool {
    /// Object name.
    pub name: String,
    /// IPv4 subnet, for example `10.244.0.0/16`.
    pub ipv4: String,
    /// IPv6 subnet with as many host bits.
    pub ipv6: String,
    /// Host bits of a block.
    #[serde(default = "default_block_bits")]
    pub block_bits: u8,
}

fn default_block_bits() -> u8 {
    6
}

/// One Kubernetes namespace.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Namespace {
    /// Object name.
    pub name: String,
    /// Labels beside `kubernetes.io/metadata.name`.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One pod. It listens on every probed port, so that a refused probe was refused by policy.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Pod {
    /// Object name.
    pub name: String,
    /// Namespace it lives in.
    pub namespace: String,
    /// Node it is scheduled to.
    pub node: String,
    /// Labels that policies and expectations select by.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Named container ports.
    #[serde(default)]
    pub ports: Vec<ContainerPort>,
}

/// A named port of a pod.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ContainerPort {
    /// Port name as policies use it.
    pub name: String,
    /// Protocol and number.
    pub port: Probe,
}

/// Expectations as written; [`Sidecar::expectation`] gives them meaning.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct RawExpectation {
    /// Ports to try from every source to every pod.
    pub probes: Vec<Probe>,
    /// What is reached; everything else is refused.
    pub reached: Vec<Rule>,
}

/// A fault and what it may cost.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// The node it happens to.
    pub node: String,
    /// What the worst flow may lose, in probes, one a millisecond; absent means reported only.
    pub max_loss_ms: Option<u64>,
    /// The same for the return to service.
    pub max_return_loss_ms: Option<u64>,
}

/// The faults that the lab can inject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FaultKind {
    /// All processes killed, kernel routes flushed, carrier lost on every link, in one instant.
    PowerLoss,
    /// Routing processes killed; the kernel forwards on.
    DaemonKill,
    /// The operator takes the router out of service in an orderly way.
    PlannedShutdown,
    /// The node agent killed and started again.
    AgentKill,
}

impl std::fmt::Display for FaultKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::PowerLoss => "power-loss",
            Self::DaemonKill => "daemon-kill",
            Self::PlannedShutdown => "planned-shutdown",
            Self::AgentKill => "agent-kill",
        })
    }
}

impl Sidecar {
    /// Reads a sidecar's text. `file` only names it in errors.
    ///
    /// # Errors
    /// Text that is not YAML, an unknown key, a pod in a namespace that the file does not list.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let sidecar: Spanned<Self> =
            serde_saphyr::from_str(text).map_err(|e| Error::yaml(file, &e))?;
        let sidecar = sidecar.value;
        let namespaces: Vec<&str> = sidecar
            .cluster
            .namespaces
            .iter()
            .map(|n| n.name.as_str())
            .collect();
        for pod in &sidecar.cluster.pods {
            if !namespaces.contains(&pod.namespace.as_str()) {
                return Err(Error::in_file(
                    file,
                    format!(
                        "pod {} is in namespace {}, which is not listed",
                        pod.name, pod.namespace
                    ),
                )
                .hint(format!(
                    "namespaces of this file: {}",
                    namespaces.join(", ")
                )));
            }
        }
        if let Some(name) = &sidecar.cluster.recreate
            && !sidecar
                .cluster
                .pods
                .iter()
                .any(|p| format!("{}/{}", p.namespace, p.name) == *name)
        {
            return Err(Error::in_file(
                file,
                format!("recreate names pod {name}, which is not listed"),
            ));
        }
        Ok(sidecar)
    }

    /// The expected matrix's rules and probes.
    pub fn expectation(&self) -> Expectation {
        Expectation {
            probes: self.expect.probes.clone(),
            reached: self.expect.reached.clone(),
        }
    }
}
