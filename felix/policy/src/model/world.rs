//! All objects that a node knows, and what can happen to them.

use std::collections::BTreeMap;

use super::{Endpoint, Namespace, NetworkPolicy, Node, Pod, PodName};
use crate::plan::{InterfaceName, PolicyName};

/// Everything that decides a verdict: objects as last seen. Holds no derived state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct World {
    /// Name of this node.
    pub this_node: String,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Namespaces by name.
    pub namespaces: BTreeMap<String, Namespace>,
    /// Pods of the whole cluster.
    pub pods: BTreeMap<PodName, Pod>,
    /// Policies of the whole cluster.
    pub policies: BTreeMap<PolicyName, NetworkPolicy>,
    /// Endpoints of this node.
    pub endpoints: BTreeMap<InterfaceName, Endpoint>,
}

/// An object appeared, changed or went. Any order of any events is valid: objects may refer to others
/// that are not there yet or no more, and a deletion may be repeated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pod appeared or changed.
    PodUpserted(Pod),
    /// A pod's object is gone.
    PodDeleted(PodName),
    /// A namespace appeared or changed.
    NamespaceUpserted(Namespace),
    /// A namespace is gone.
    NamespaceDeleted(String),
    /// A policy appeared or changed.
    PolicyUpserted(NetworkPolicy),
    /// A policy is gone.
    PolicyDeleted(PolicyName),
    /// A node appeared or changed.
    NodeUpserted(Node),
    /// A node is gone.
    NodeDeleted(String),
    /// A pod is being wired on this node, or its endpoint changed.
    EndpointUpserted(Endpoint),
    /// A pod's interface is gone from this node.
    EndpointDeleted(InterfaceName),
}

impl World {
    /// An empty world seen from `this_node`.
    pub fn new(this_node: impl Into<String>) -> Self {
        Self {
            this_node: this_node.into(),
            nodes: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            pods: BTreeMap::new(),
            policies: BTreeMap::new(),
            endpoints: BTreeMap::new(),
        }
    }

    /// Records `event`.
    pub fn apply(&mut self, event: Event) {
        match event {
            Event::PodUpserted(pod) => drop(self.pods.insert(pod.name.clone(), pod)),
            Event::PodDeleted(name) => drop(self.pods.remove(&name)),
            Event::NamespaceUpserted(namespace) => {
                drop(self.namespaces.insert(namespace.name.clone(), namespace));
            }
            Event::NamespaceDeleted(name) => drop(self.namespaces.remove(&name)),
            Event::PolicyUpserted(policy) => {
                drop(self.policies.insert(policy.name.clone(), policy));
            }
            Event::PolicyDeleted(name) => drop(self.policies.remove(&name)),
            Event::NodeUpserted(node) => drop(self.nodes.insert(node.name.clone(), node)),
            Event::NodeDeleted(name) => drop(self.nodes.remove(&name)),
            Event::EndpointUpserted(endpoint) => {
                drop(self.endpoints.insert(endpoint.interface.clone(), endpoint));
            }
            Event::EndpointDeleted(interface) => drop(self.endpoints.remove(&interface)),
        }
    }

    /// The events that build this world from nothing, in no significant order.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        let nodes = self.nodes.values().cloned().map(Event::NodeUpserted);
        let namespaces = self
            .namespaces
            .values()
            .cloned()
            .map(Event::NamespaceUpserted);
        let policies = self.policies.values().cloned().map(Event::PolicyUpserted);
        let pods = self.pods.values().cloned().map(Event::PodUpserted);
        let endpoints = self
            .endpoints
            .values()
            .cloned()
            .map(Event::EndpointUpserted);
        nodes
            .chain(namespaces)
            .chain(policies)
            .chain(pods)
            .chain(endpoints)
            .collect()
    }
}
