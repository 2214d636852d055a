//! From events to the smallest change of the plan.
//!
//! Owns the derived state of one node: who owns which address, which selectors are in force, which
//! identities and classes exist, what each endpoint is bound to, and the plan last handed out. Does
//! not own the reading of policies' text into verdicts (see [`crate::oracle`]) nor the kernel.
//!
//! ```text
//!   events ──> World (facts)            what an event touches:
//!                │
//!      endpoints ├── subject selectors ──> ClassTable ──┐ rules of new or changed classes
//!                │                             │        v
//!      addresses ├── AddressTable        Terms └──> SelectorTable ── selectors newly in force
//!                │        │ owner                       │ candidates by label
//!                │        v                             v
//!                └──> IdentityTable <── which selectors, which named ports
//!                         │ rows of identities that came or went
//!                         v
//!                      content ──> cells, any_port, any_peer, chain ──> PlanDelta
//! ```
//!
//! # Numbers
//!
//! An event that changes nothing must write nothing, also across a restart, so numbers come from
//! content: a class's from its direction, policies and resolved ports, an identity's from its selectors
//! and named ports. They are kept for life; that is why two contents that compete for a number can be
//! served in another order after a restart. Classes have 32 bits for it and hardly ever compete.
//! Identities have sixteen, so a process that finds a table in the kernel passes the identities it read
//! there to [`PolicyIndex::seed_ids`] before its first commit.

mod addresses;
mod classes;
mod commit;
mod content;
mod findings;
mod fingerprint;
mod identities;
mod ranges;
mod selectors;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::Serialize;

use self::addresses::{AddressTable, Claim, claimed_by, labelled_pod};
use self::classes::ClassTable;
use self::identities::IdentityTable;
use self::selectors::SelectorTable;
use self::terms::isolates;
use crate::interpreter::{self, Passage};
use crate::model::{Endpoint, Event, Namespace, NetworkPolicy, Node, Pod, PodName, World};
use crate::oracle::{self, Verdict};
use crate::packet::Packet;
use crate::plan::{Direction, IdentityId, InterfaceName, Plan, PlanDelta, PolicyName, PortMatch};

pub use findings::Finding;

/// Where content changes its form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Cells a class may have; with more it becomes a chain.
    pub cells_per_class: usize,
    /// Ports a range may have to be expanded into cells; longer ones become chain rules.
    pub expanded_ports: u32,
    /// Identities that get a number, 65,533 at most (65,536 less the three reserved ones). Classes name
    /// the addresses of those that get none.
    pub identities: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            cells_per_class: 4_096,
            expanded_ports: 64,
            identities: IdentityTable::NUMBERS,
        }
    }
}

impl Limits {
    fn expands(&self, range: &PortMatch) -> bool {
        u32::from(range.last - range.first) < self.expanded_ports
    }
}

/// The policy state of one node.
///
/// Feed it with [`observe`](Self::observe), any number of events, then [`commit`](Self::commit) for the
/// change they make together; or [`apply`](Self::apply) for one event. At start, observe everything that
/// is known before the first commit, so that no half-known state is ever written.
#[derive(Clone, Debug)]
pub struct PolicyIndex {
    limits: Limits,
    world: World,
    endpoints_by_pod: BTreeMap<PodName, BTreeSet<InterfaceName>>,
    addresses: AddressTable,
    selectors: SelectorTable,
    identities: IdentityTable,
    classes: ClassTable,
    plan: Plan,
    dirty: Dirty,
}

/// Why a packet passes or does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// What the policies mean, at both ends of the flow, with policy and rule.
    pub verdict: Verdict,
    /// What this node's plan does at the ends that are here, with the class whose drop counter rises.
    /// Differs from the verdict only while something observed has not been committed.
    pub passage: Passage,
}

/// What must be looked at again by the next commit.
#[derive(Clone, Debug, Default)]
struct Dirty {
    addresses: BTreeSet<IpAddr>,
    endpoints: BTreeSet<InterfaceName>,
    policies: BTreeSet<PolicyName>,
}

impl PolicyIndex {
    /// An index that knows nothing yet, for the node `this_node`.
    pub fn new(this_node: impl Into<String>, limits: Limits) -> Self {
        Self {
            limits,
            world: World::new(this_node),
            endpoints_by_pod: BTreeMap::new(),
            addresses: AddressTable::default(),
            selectors: SelectorTable::new(),
            identities: IdentityTable::new(limits.identities),
            classes: ClassTable::default(),
            plan: Plan::default(),
            dirty: Dirty::default(),
        }
    }

    /// Tells which identity each address had before this process, as read back from the kernel. An
    /// identity that is formed by the first commit takes the number its addresses had, if it is free; so
    /// if nothing changed meanwhile, the plan equals what the kernel holds. Never wrong, whatever is
    /// passed: numbers are only labels.
    pub fn seed_ids(&mut self, previous: BTreeMap<IpAddr, IdentityId>) {
        self.identities.seed(previous);
    }

    /// Records `event` without computing anything yet.
    pub fn observe(&mut self, event: Event) {
        match event {
            Event::PodUpserted(pod) => {
                let name = pod.name.clone();
                self.pod_changed(&name, Some(pod));
            }
            Event::PodDeleted(name) => self.pod_changed(&name, None),
            Event::NamespaceUpserted(namespace) => {
                let name = namespace.name.clone();
                self.namespace_changed(&name, Some(namespace));
            }
            Event::NamespaceDeleted(name) => self.namespace_changed(&name, None),
            Event::PolicyUpserted(policy) => {
                let name = policy.name.clone();
                self.policy_changed(name, Some(policy));
            }
            Event::PolicyDeleted(name) => self.policy_changed(name, None),
            Event::NodeUpserted(node) => {
                let name = node.name.clone();
                self.node_changed(&name, Some(node));
            }
            Event::NodeDeleted(name) => self.node_changed(&name, None),
            Event::EndpointUpserted(endpoint) => {
                let interface = endpoint.interface.clone();
                self.endpoint_changed(interface, Some(endpoint));
            }
            Event::EndpointDeleted(interface) => self.endpoint_changed(interface, None),
        }
    }

    /// Observes `event` and commits.
    pub fn apply(&mut self, event: Event) -> PlanDelta {
        self.observe(event);
        self.commit()
    }

    /// The whole plan as of the last commit.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// All objects as last observed.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Judges a packet and says who decides: by the text of the policies as last observed, and by the
    /// plan as last committed.
    #[must_use]
    pub fn explain(&self, packet: &Packet) -> Explanation {
        Explanation {
            verdict: oracle::verdict(&self.world, packet),
            passage: interpreter::pass(&self.plan, packet),
        }
    }

    fn pod_changed(&mut self, name: &PodName, new: Option<Pod>) {
        let old = self.world.pods.get(name);
        if old == new.as_ref() {
            return;
        }
        for address in old.into_iter().flat_map(claimed_by) {
            self.addresses.withdraw(address, &Claim::Pod(name.clone()));
            self.dirty.addresses.insert(address);
        }
        for address in new.iter().flat_map(claimed_by) {
            self.addresses.claim(address, Claim::Pod(name.clone()));
            self.dirty.addresses.insert(address);
        }
        for interface in self.endpoints_by_pod.get(name).into_iter().flatten() {
            self.dirty.endpoints.insert(interface.clone());
            if let Some(endpoint) = self.world.endpoints.get(interface) {
                self.dirty.addresses.extend(&endpoint.addresses);
            }
        }
        self.world.apply(match new {
            Some(pod) => Event::PodUpserted(pod),
            None => Event::PodDeleted(name.clone()),
        });
    }

    fn namespace_changed(&mut self, name: &str, new: Option<Namespace>) {
        let old = self.world.namespaces.get(name);
        if old == new.as_ref() {
            return;
        }
        let flipped: Vec<_> = self.selectors.flipped_by(name, old, new.as_ref()).collect();
        if !flipped.is_empty() {
            let meant = |pod: &&Pod| flipped.iter().any(|s| s.pods.matches(&pod.labels));
            let pods = pods_of(&self.world, name).filter(meant);
            let concerned: Vec<IpAddr> = pods.flat_map(|pod| self.addresses_of(pod)).collect();
            self.dirty.addresses.extend(concerned);
        }
        self.world.apply(match new {
            Some(namespace) => Event::NamespaceUpserted(namespace),
            None => Event::NamespaceDeleted(name.to_owned()),
        });
    }

    fn policy_changed(&mut self, name: PolicyName, new: Option<NetworkPolicy>) {
        let old = self.world.policies.get(&name);
        if old == new.as_ref() {
            return;
        }
        for (interface, endpoint) in &self.world.endpoints {
            if endpoint.pod.namespace != name.namespace {
                continue;
            }
            let Some(pod) = labelled_pod(&self.world, endpoint) else {
                continue;
            };
            let concerned = |policy: &NetworkPolicy| {
                isolates(policy, Direction::Ingress, pod)
                    || isolates(policy, Direction::Egress, pod)
            };
            if old.is_some_and(concerned) || new.as_ref().is_some_and(concerned) {
                self.dirty.endpoints.insert(interface.clone());
            }
        }
        self.dirty.policies.insert(name.clone());
        self.world.apply(match new {
            Some(policy) => Event::PolicyUpserted(policy),
            None => Event::PolicyDeleted(name),
        });
    }

    fn node_changed(&mut self, name: &str, new: Option<Node>) {
        let old = self.world.nodes.get(name);
        if old == new.as_ref() {
            return;
        }
        for address in old.into_iter().flat_map(|node| &node.addresses) {
            self.addresses
                .withdraw(*address, &Claim::Node(name.to_owned()));
            self.dirty.addresses.insert(*address);
        }
        for address in new.iter().flat_map(|node| &node.addresses) {
            self.addresses.claim(*address, Claim::Node(name.to_owned()));
            self.dirty.addresses.insert(*address);
        }
        self.world.apply(match new {
            Some(node) => Event::NodeUpserted(node),
            None => Event::NodeDeleted(name.to_owned()),
        });
    }

    fn endpoint_changed(&mut self, interface: InterfaceName, new: Option<Endpoint>) {
        let old = self.world.endpoints.get(&interface);
        if old == new.as_ref() {
            return;
        }
        let claim = Claim::Endpoint(interface.clone());
        if let Some(endpoint) = old {
            for address in &endpoint.addresses {
                self.addresses.withdraw(*address, &claim);
                self.dirty.addresses.insert(*address);
            }
            if let Some(interfaces) = self.endpoints_by_pod.get_mut(&endpoint.pod) {
                interfaces.remove(&interface);
                if interfaces.is_empty() {
                    self.endpoints_by_pod.remove(&endpoint.pod);
                }
            }
        }
        if let Some(endpoint) = &new {
            for address in &endpoint.addresses {
                self.addresses.claim(*address, claim.clone());
                self.dirty.addresses.insert(*address);
            }
            let interfaces = self
                .endpoints_by_pod
                .entry(endpoint.pod.clone())
                .or_default();
            interfaces.insert(interface.clone());
        }
        self.dirty.endpoints.insert(interface.clone());
        self.world.apply(match new {
            Some(endpoint) => Event::EndpointUpserted(endpoint),
            None => Event::EndpointDeleted(interface),
        });
    }

    /// All addresses that `pod` may own: those of its object and those given to it here.
    fn addresses_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
        let interfaces = self.endpoints_by_pod.get(&pod.name).into_iter().flatten();
        let here = interfaces.filter_map(|interface| self.world.endpoints.get(interface));
        claimed_by(pod).chain(here.flat_map(|endpoint| endpoint.addresses.iter().copied()))
    }
}

fn pods_of<'a>(world: &'a World, namespace: &'a str) -> impl Iterator<Item = &'a Pod> {
    world
        .pods
        .range(PodName::new(namespace, "")..)
        .map(|(_, pod)| pod)
        .take_while(move |pod| pod.name.namespace == namespace)
}
