//! The second half of the index: from what was marked to the change of the plan.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use super::addresses::{Owner, labelled_pod};
use super::classes::ClassKey;
use super::identities::{IdentityChanges, IdentityKey, Standing};
use super::selectors::{EVERY_POD, PeerSelector, SelectorChange, SelectorSlot};
use super::terms::{Resolution, isolates, numbers, resolve};
use super::{PolicyIndex, content};
use crate::model::{NetworkPolicy, Pod, PodName, World};
use crate::plan::{
    Binding, Cell, ClassDelta, ClassId, Direction, EndpointPlan, IdentityId, InterfaceName,
    PlanDelta, PolicyName, Protocol,
};

impl PolicyIndex {
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
                // Who is selected by another one has an identity already, and keeps it.
                SelectorChange::Activated(EVERY_POD) if self.names_no_port(EVERY_POD) => {
                    let pods = self
                        .world
                        .pods
                        .values()
                        .flat_map(|pod| self.addresses_of(pod));
                    addresses.extend(pods.filter(|address| !self.identities.is_pod(*address)));
                }
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
        let mut of_namespace: (Option<&str>, Vec<&PeerSelector>) = (None, Vec::new());
        for pod in self.world.pods.values() {
            let name = pod.name.namespace.as_str();
            if of_namespace.0 != Some(name) {
                let namespace = self.world.namespaces.get(name);
                let meant = |selector: &&PeerSelector| selector.matches_namespace(name, namespace);
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

    fn names_no_port(&self, slot: SelectorSlot) -> bool {
        self.selectors.named_ports(slot).next().is_none()
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
        let mut selectors = self.selectors.matching(pod, namespace);
        if selectors.is_empty() {
            return Standing::World;
        }
        let wanted = selectors
            .iter()
            .flat_map(|slot| self.selectors.named_ports(*slot));
        let named: BTreeSet<_> = wanted
            .flat_map(|port| numbers(pod, port).map(move |number| (port.clone(), number)))
            .collect();
        selectors.retain(|slot| *slot != EVERY_POD);
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

fn cells_of(identity: IdentityId) -> RangeInclusive<Cell> {
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
