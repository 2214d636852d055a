//! The smallest change between two plans.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::{
    Cell, ChainRule, Class, ClassId, EndpointPlan, IdentityId, InterfaceName, Plan, Protocol,
};

/// What must change in the kernel, to be written as one transaction: a packet sees either none of it
/// or all of it, so the order of its parts has no meaning.
///
/// A number (identity or class) that is free before the change may be taken within it, and one that
/// falls free may be taken again by another content; applied as a whole that is sound. A class number
/// that is both removed and added is a class that is replaced by another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanDelta {
    /// New identity of an address, or `None` where the element goes.
    pub identities: BTreeMap<IpAddr, Option<IdentityId>>,
    /// Classes that were not there.
    pub added_classes: BTreeMap<ClassId, Class>,
    /// Classes that stay and change inside.
    pub changed_classes: BTreeMap<ClassId, ClassDelta>,
    /// Classes that go. No endpoint of the new state is bound to them.
    pub removed_classes: BTreeSet<ClassId>,
    /// New state of an endpoint, or `None` where it goes.
    pub endpoints: BTreeMap<InterfaceName, Option<EndpointPlan>>,
}

/// What changes inside a class. Direction and policies never do: with others it is another class.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClassDelta {
    /// Cells that appear.
    pub added_cells: BTreeSet<Cell>,
    /// Cells that go.
    pub removed_cells: BTreeSet<Cell>,
    /// Identities newly allowed on every port.
    pub added_any_port: BTreeSet<IdentityId>,
    /// Identities no longer allowed on every port.
    pub removed_any_port: BTreeSet<IdentityId>,
    /// Ports newly allowed for every peer.
    pub added_any_peer: BTreeSet<(Protocol, u16)>,
    /// Ports no longer allowed for every peer.
    pub removed_any_peer: BTreeSet<(Protocol, u16)>,
    /// New value of [`Class::open`] if it changes.
    pub open: Option<bool>,
    /// The whole new chain if anything in it changes. Rules are unique by kind of peer and ports, so a
    /// renderer that knows the old chain can turn this into changes of set members.
    pub chain: Option<Vec<ChainRule>>,
}

impl PlanDelta {
    /// True if there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.identities.is_empty()
            && self.added_classes.is_empty()
            && self.changed_classes.is_empty()
            && self.removed_classes.is_empty()
            && self.endpoints.is_empty()
    }
}

impl ClassDelta {
    /// True if the class does not change.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The change that turns `old` into `new`, which have the same direction and policies.
    #[must_use]
    pub fn between(old: &Class, new: &Class) -> Self {
        Self {
            added_cells: new.cells.difference(&old.cells).copied().collect(),
            removed_cells: old.cells.difference(&new.cells).copied().collect(),
            added_any_port: new.any_port.difference(&old.any_port).copied().collect(),
            removed_any_port: old.any_port.difference(&new.any_port).copied().collect(),
            added_any_peer: new.any_peer.difference(&old.any_peer).copied().collect(),
            removed_any_peer: old.any_peer.difference(&new.any_peer).copied().collect(),
            open: (old.open != new.open).then_some(new.open),
            chain: (old.chain != new.chain).then(|| new.chain.clone()),
        }
    }

    /// Carries the change out on `class`.
    pub fn apply_to(&self, class: &mut Class) {
        replace(&mut class.cells, &self.removed_cells, &self.added_cells);
        replace(
            &mut class.any_port,
            &self.removed_any_port,
            &self.added_any_port,
        );
        replace(
            &mut class.any_peer,
            &self.removed_any_peer,
            &self.added_any_peer,
        );
        if let Some(open) = self.open {
            class.open = open;
        }
        if let Some(chain) = &self.chain {
            class.chain.clone_from(chain);
        }
    }
}

impl Plan {
    /// The smallest change that turns `self` into `new`. Works on any two plans, also on one that was
    /// read back from the kernel.
    #[must_use]
    pub fn delta_to(&self, new: &Self) -> PlanDelta {
        let mut delta = PlanDelta {
            identities: changes(&self.identities, &new.identities),
            endpoints: changes(&self.endpoints, &new.endpoints),
            ..PlanDelta::default()
        };
        for (id, old) in &self.classes {
            match new.classes.get(id) {
                None => {
                    delta.removed_classes.insert(*id);
                }
                Some(class)
                    if class.direction != old.direction || class.policies != old.policies =>
                {
                    // Same number, other class: it cannot be changed in place, as its direction and its
                    // attribution are fixed, so it is replaced.
                    delta.removed_classes.insert(*id);
                    delta.added_classes.insert(*id, class.clone());
                }
                Some(class) => {
                    let change = ClassDelta::between(old, class);
                    if !change.is_empty() {
                        delta.changed_classes.insert(*id, change);
                    }
                }
            }
        }
        for (id, class) in &new.classes {
            if !self.classes.contains_key(id) {
                delta.added_classes.insert(*id, class.clone());
            }
        }
        delta
    }

    /// Carries `delta` out. Removal of a class comes before addition, so one delta can replace a class.
    pub fn apply(&mut self, delta: &PlanDelta) {
        settle(&mut self.identities, &delta.identities);
        settle(&mut self.endpoints, &delta.endpoints);
        for id in &delta.removed_classes {
            self.classes.remove(id);
        }
        for (id, class) in &delta.added_classes {
            self.classes.insert(*id, class.clone());
        }
        for (id, change) in &delta.changed_classes {
            if let Some(class) = self.classes.get_mut(id) {
                change.apply_to(class);
            }
        }
    }
}

fn replace<T: Copy + Ord>(set: &mut BTreeSet<T>, removed: &BTreeSet<T>, added: &BTreeSet<T>) {
    for item in removed {
        set.remove(item);
    }
    set.extend(added);
}

fn changes<K: Clone + Ord, V: Clone + PartialEq>(
    old: &BTreeMap<K, V>,
    new: &BTreeMap<K, V>,
) -> BTreeMap<K, Option<V>> {
    let gone = old
        .keys()
        .filter(|key| !new.contains_key(*key))
        .map(|key| (key.clone(), None));
    let set = new
        .iter()
        .filter(|(key, value)| old.get(*key) != Some(*value))
        .map(|(key, value)| (key.clone(), Some(value.clone())));
    gone.chain(set).collect()
}

fn settle<K: Clone + Ord, V: Clone>(map: &mut BTreeMap<K, V>, changes: &BTreeMap<K, Option<V>>) {
    for (key, change) in changes {
        match change {
            Some(value) => map.insert(key.clone(), value.clone()),
            None => map.remove(key),
        };
    }
}
