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
mod content;
mod findings;
mod fingerprint;
mod identities;
mod ranges;
mod selectors;
mod terms;

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;

use self::addresses::{AddressTable, Claim, Owner, claimed_by, labelled_pod};
use self::classes::{ClassKey, ClassTable};
use self::identities::{IdentityChanges, IdentityKey, IdentityTable, Standing};
use self::selectors::{SelectorChange, SelectorTable};
use self::terms::{Resolution, isolates, numbers, resolve};
use crate::model::{Endpoint, Event, Namespace, NetworkPolicy, Node, Pod, PodName, World};
use crate::oracle::{self, Verdict};
use crate::packet::Packet;
use crate::plan::{
    Binding, Cell, ClassDelta, ClassId, Direction, EndpointPlan, IdentityId, InterfaceName, Plan,
    PlanDelta, PolicyName, PortMatch, Protocol,
};

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
            selectors: SelectorTable::default(),
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

    /// Computes the change of the plan that everything observed since the last commit makes together.
    pub fn commit(&mut self) -> PlanDelta {
        let mut delta = PlanDelta::default();
        let dirty = mem::take(&mut self.dirty);
        for interface in dirty.endpoints {
            self.bind(interface, &mut delta);
        }
        for policy in &dirty.policies {
            self.classes
                .recompile(policy, &self.world, &mut self.selectors);
        }
        for id in self.classes.sweep(&mut self.selectors) {
            if self.plan.classes.remove(&id).is_some() {
                delta.removed_classes.insert(id);
            }
        }
        let changed_selectors = self.selectors.settle();
        let mut addresses = dirty.addresses;
        self.add_concerned(&changed_selectors, &mut addresses);
        let standings = self.standings(addresses);
        let changes = self.identities.settle(standings, &self.selectors);
        self.selectors.sweep(&changed_selectors);
        self.update_classes(&changes, &mut delta);
        for (address, element) in changes.elements {
            let old = match element {
                Some(number) => self.plan.identities.insert(address, number),
                None => self.plan.identities.remove(&address),
            };
            if old != element {
                delta.identities.insert(address, element);
            }
        }
        self.identities.seed(BTreeMap::new());
        delta
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

    /// Judges a packet by the objects as last observed, and says which policies and rule decide. Says
    /// what policy means, not what the kernel holds; the two agree once the last delta is written.
    #[must_use]
    pub fn explain(&self, packet: &Packet) -> Verdict {
        oracle::verdict(&self.world, packet)
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

    /// Binds an endpoint to the classes its pod's labels ask for.
    fn bind(&mut self, interface: InterfaceName, delta: &mut PlanDelta) {
        let new = self.world.endpoints.get(&interface).map(|endpoint| {
            let pod = labelled_pod(&self.world, endpoint);
            let mut binding = |direction| match pod {
                None => Binding::Isolated,
                Some(pod) => match class_key(&self.world, pod, direction) {
                    None => Binding::Open,
                    Some(key) => {
                        Binding::Class(self.classes.acquire(key, &self.world, &mut self.selectors))
                    }
                },
            };
            EndpointPlan {
                addresses: endpoint.addresses.clone(),
                ingress: binding(Direction::Ingress),
                egress: binding(Direction::Egress),
            }
        });
        // References of the old binding go after those of the new one are taken, so that a class in both
        // stays.
        let old = match &new {
            Some(new) => self.plan.endpoints.insert(interface.clone(), new.clone()),
            None => self.plan.endpoints.remove(&interface),
        };
        for binding in old.iter().flat_map(|old| [old.ingress, old.egress]) {
            if let Binding::Class(id) = binding {
                self.classes.release(id);
            }
        }
        if old != new {
            delta.endpoints.insert(interface, new);
        }
    }

    /// Adds the addresses whose identity the changed selectors may change.
    fn add_concerned(&self, changes: &[SelectorChange], addresses: &mut BTreeSet<IpAddr>) {
        let mut activated = Vec::new();
        for change in changes {
            match change {
                SelectorChange::Activated(slot) => activated.push(self.selectors.selector(*slot)),
                SelectorChange::Altered(slot) => {
                    let holders = self.identities.with_selector(*slot);
                    addresses.extend(holders.flat_map(|identity| &identity.addresses));
                }
            }
        }
        if activated.is_empty() {
            return;
        }
        let mut of_namespace: (Option<&str>, Vec<&selectors::PeerSelector>) = (None, Vec::new());
        for pod in self.world.pods.values() {
            let name = pod.name.namespace.as_str();
            if of_namespace.0 != Some(name) {
                let namespace = self.world.namespaces.get(name);
                let meant = |selector: &&selectors::PeerSelector| {
                    selector.matches_namespace(name, namespace)
                };
                of_namespace = (
                    Some(name),
                    activated.iter().copied().filter(meant).collect(),
                );
            }
            if of_namespace
                .1
                .iter()
                .any(|selector| selector.pods.matches(&pod.labels))
            {
                addresses.extend(self.addresses_of(pod));
            }
        }
    }

    /// What each of `addresses` is now.
    fn standings(&self, addresses: BTreeSet<IpAddr>) -> BTreeMap<IpAddr, Standing> {
        // A pod with addresses of both families is looked up once.
        let mut of_pods: BTreeMap<&PodName, Standing> = BTreeMap::new();
        let standing = |address: IpAddr| match self.addresses.owner(&self.world, address) {
            Owner::Nobody => Standing::World,
            Owner::ThisNode => Standing::ThisNode,
            Owner::OtherNode => Standing::OtherNode,
            Owner::Pod(pod) => of_pods
                .entry(&pod.name)
                .or_insert_with(|| self.pod_standing(pod))
                .clone(),
        };
        let mut standing = standing;
        addresses
            .into_iter()
            .map(|address| (address, standing(address)))
            .collect()
    }

    fn pod_standing(&self, pod: &Pod) -> Standing {
        let namespace = self.world.namespaces.get(&pod.name.namespace);
        let selectors = self.selectors.matching(pod, namespace);
        if selectors.is_empty() {
            return Standing::World;
        }
        let wanted = selectors
            .iter()
            .flat_map(|slot| self.selectors.named_ports(*slot));
        let named: BTreeSet<_> = wanted
            .flat_map(|port| numbers(pod, port).map(move |number| (port.clone(), number)))
            .collect();
        Standing::Pod(IdentityKey {
            selectors,
            named: named.into_iter().collect(),
        })
    }

    fn update_classes(&mut self, changes: &IdentityChanges, delta: &mut PlanDelta) {
        let mut whole = self.classes.take_stale();
        for slot in &changes.unnumbered {
            whole.extend(self.classes.using(*slot));
        }
        let mut rows: BTreeMap<ClassId, BTreeSet<IdentityId>> = BTreeMap::new();
        for (number, selectors) in &changes.rows {
            for id in selectors.iter().flat_map(|slot| self.classes.using(*slot)) {
                rows.entry(id).or_default().insert(*number);
            }
        }
        for id in rows.keys().copied().collect::<Vec<_>>() {
            if whole.contains(&id) || self.classes.state(id).chained {
                rows.remove(&id);
                whole.insert(id);
            }
        }
        for (id, numbers) in rows {
            if self.update_rows(id, &numbers, delta) {
                // Too many cells now: the class changes its form.
                whole.insert(id);
            }
        }
        for id in whole {
            self.rebuild(id, delta);
        }
    }

    /// Brings the rows of `numbers` up to date. Returns true, having done nothing, if the class would
    /// outgrow the cell form.
    fn update_rows(
        &mut self,
        id: ClassId,
        numbers: &BTreeSet<IdentityId>,
        delta: &mut PlanDelta,
    ) -> bool {
        let state = self.classes.state(id);
        let Some(class) = self.plan.classes.get_mut(&id) else {
            return true;
        };
        let mut change = ClassDelta::default();
        for number in numbers {
            let row = self
                .identities
                .get(*number)
                .map(|identity| content::row(state, identity, &class.any_peer, &self.limits))
                .unwrap_or_default();
            match (class.any_port.contains(number), row.any_port) {
                (false, true) => drop(change.added_any_port.insert(*number)),
                (true, false) => drop(change.removed_any_port.insert(*number)),
                _ => {}
            }
            let old: BTreeSet<Cell> = class.cells.range(cells_of(*number)).copied().collect();
            let new: BTreeSet<Cell> = content::cells(*number, &row).collect();
            change.added_cells.extend(new.difference(&old));
            change.removed_cells.extend(old.difference(&new));
        }
        let cells = class.cells.len() + change.added_cells.len() - change.removed_cells.len();
        if cells > self.limits.cells_per_class {
            return true;
        }
        if content::chain_names_identities(state, &self.limits) {
            let chain = content::chain(state, &self.identities, &self.limits, false);
            change.chain = (chain != class.chain).then_some(chain);
        }
        if !change.is_empty() {
            change.apply_to(class);
            delta.changed_classes.insert(id, change);
        }
        false
    }

    /// Makes the whole content of a class anew.
    fn rebuild(&mut self, id: ClassId, delta: &mut PlanDelta) {
        let (class, chained) =
            content::build(self.classes.state(id), &self.identities, &self.limits);
        self.classes.set_chained(id, chained);
        match self.plan.classes.insert(id, class.clone()) {
            None => drop(delta.added_classes.insert(id, class)),
            Some(old) => {
                let change = ClassDelta::between(&old, &class);
                if !change.is_empty() {
                    delta.changed_classes.insert(id, change);
                }
            }
        }
    }

    /// All addresses that `pod` may own: those of its object and those given to it here.
    fn addresses_of<'a>(&'a self, pod: &'a Pod) -> impl Iterator<Item = IpAddr> + 'a {
        let interfaces = self.endpoints_by_pod.get(&pod.name).into_iter().flatten();
        let here = interfaces.filter_map(|interface| self.world.endpoints.get(interface));
        claimed_by(pod).chain(here.flat_map(|endpoint| endpoint.addresses.iter().copied()))
    }
}

/// The class that `pod` belongs to in `direction`, if any policy isolates it.
fn class_key(world: &World, pod: &Pod, direction: Direction) -> Option<ClassKey> {
    let isolating: Vec<&NetworkPolicy> = policies_of(world, &pod.name.namespace)
        .filter(|policy| isolates(policy, direction, pod))
        .collect();
    if isolating.is_empty() {
        return None;
    }
    let policies = isolating.iter().map(|policy| policy.name.clone()).collect();
    let resolution = match direction {
        Direction::Ingress => resolve(isolating, pod),
        Direction::Egress => Resolution::new(),
    };
    Some(ClassKey {
        direction,
        policies,
        resolution,
    })
}

fn policies_of<'a>(
    world: &'a World,
    namespace: &'a str,
) -> impl Iterator<Item = &'a NetworkPolicy> {
    world
        .policies
        .range(PolicyName::new(namespace, "")..)
        .map(|(_, policy)| policy)
        .take_while(move |policy| policy.name.namespace == namespace)
}

fn pods_of<'a>(world: &'a World, namespace: &'a str) -> impl Iterator<Item = &'a Pod> {
    world
        .pods
        .range(PodName::new(namespace, "")..)
        .map(|(_, pod)| pod)
        .take_while(move |pod| pod.name.namespace == namespace)
}

fn cells_of(identity: IdentityId) -> std::ops::RangeInclusive<Cell> {
    Cell {
        identity,
        protocol: Protocol::Tcp,
        port: 0,
    }..=Cell {
        identity,
        protocol: Protocol::Sctp,
        port: u16::MAX,
    }
}
