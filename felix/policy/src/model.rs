//! The objects that policy is about, as plain data.
//!
//! Owns the shapes (pods, namespaces, policies, nodes, local endpoints), label selection, and
//! [`World`], the set of all objects a node knows. Policies keep the shape they have in the Kubernetes
//! API, options and defaults included: what a missing field *means* is decided by the compiler and,
//! separately, by the oracle. Does not own the conversion from API types, nor any index.

mod net;
mod policy;
mod selector;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use net::{Cidr, CidrError};
pub use policy::{
    IpBlock, NetworkPolicy, Peer, PolicyPort, PolicyRule, PolicyType, PortProtocol, PortRef,
};
pub use selector::{LabelSelector, Operator, Requirement};
pub use world::{Event, World};

use crate::plan::{InterfaceName, Protocol};

/// Labels of an object: key to value.
pub type Labels = BTreeMap<String, String>;

/// Namespace and name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodName {
    /// Namespace.
    pub namespace: String,
    /// Name within the namespace.
    pub name: String,
}

impl PodName {
    /// Names the pod `name` of `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A pod anywhere in the cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pod {
    /// Namespace and name.
    pub name: PodName,
    /// `metadata.uid`: tells a pod from its successor of the same name. For the mirror of a static pod, the
    /// UID that the runtime knows it by: the annotation `kubernetes.io/config.mirror`.
    pub uid: String,
    /// `metadata.creationTimestamp` as time since the Unix epoch. Decides who owns an address that two
    /// objects list.
    pub created: Duration,
    /// `metadata.labels`.
    pub labels: Labels,
    /// `spec.nodeName`, if scheduled.
    pub node: Option<String>,
    /// `status.podIPs`, both families.
    pub addresses: BTreeSet<IpAddr>,
    /// `spec.hostNetwork`: the pod's addresses are its node's, and policy treats it as the node.
    pub host_network: bool,
    /// `status.phase` is Succeeded or Failed: its addresses may already belong to another pod. A pod
    /// with a deletion timestamp is not terminated, it still holds its addresses.
    pub terminated: bool,
    /// Named ports of all containers, init and sidecar containers included.
    pub ports: Vec<ContainerPort>,
}

impl Pod {
    /// A running pod without labels, addresses or ports.
    #[must_use]
    pub fn new(name: PodName, uid: impl Into<String>) -> Self {
        Self {
            name,
            uid: uid.into(),
            created: Duration::ZERO,
            labels: Labels::new(),
            node: None,
            addresses: BTreeSet::new(),
            host_network: false,
            terminated: false,
            ports: Vec::new(),
        }
    }
}

/// A named port of a container. Ports without a name mean nothing to policy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContainerPort {
    /// Name that policies refer to.
    pub name: String,
    /// Protocol; a policy's port refers to this port only if its protocol is the same.
    pub protocol: Protocol,
    /// Port number inside the pod.
    pub number: u16,
}

/// A namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Namespace {
    /// Name.
    pub name: String,
    /// Labels, with [`Namespace::NAME_LABEL`] among them.
    pub labels: Labels,
}

impl Namespace {
    /// The label that every namespace has, with its name as value.
    pub const NAME_LABEL: &'static str = "kubernetes.io/metadata.name";

    /// A namespace with `labels` and the name label, which the API server sets on every namespace and
    /// does not let anyone change; so it is set here too for sources that are not an API server.
    pub fn new(name: impl Into<String>, mut labels: Labels) -> Self {
        let name = name.into();
        labels.insert(Self::NAME_LABEL.to_owned(), name.clone());
        Self { name, labels }
    }
}

/// A node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Name.
    pub name: String,
    /// All its addresses: `status.addresses` that are IP addresses, loopbacks included.
    pub addresses: BTreeSet<IpAddr>,
}

/// A pod's interface on this node. Exists from the moment the pod is wired, whether or not its
/// object has been seen yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Host side of the pod's link.
    pub interface: InterfaceName,
    /// Whose it is.
    pub pod: PodName,
    /// UID of the pod it was made for, if the runtime said. If the pod object known by that name has
    /// another UID, the labels of this endpoint count as unknown.
    pub pod_uid: Option<String>,
    /// Addresses given to the pod. They count as the pod's even while its object does not list them.
    pub addresses: BTreeSet<IpAddr>,
}
