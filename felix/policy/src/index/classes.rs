//! Distinct policy lists of this node's endpoints.
//!
//! Owns the interning of (direction, ordered policies, resolved port names) to classes, their numbers
//! and reference counts, and their compiled rules with the references on selectors that these hold.
//! Does not own the content that the kernel sees; that is made of this by `content`.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::fingerprint::Fingerprint;
use super::selectors::{SelectorSlot, SelectorTable};
use super::terms::{Resolution, SelectorTerm, Terms};
use crate::model::World;
use crate::plan::{ClassId, Direction, PolicyName};

/// What makes two endpoints share a class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ClassKey {
    pub(super) direction: Direction,
    /// Policies that isolate the endpoint, in order of name.
    pub(super) policies: Vec<PolicyName>,
    /// Where port names of ingress rules lead in the endpoint's pod.
    pub(super) resolution: Resolution,
}

/// A class in use.
#[derive(Clone, Debug)]
pub(super) struct ClassState {
    pub(super) key: ClassKey,
    /// The compiled rules, except those about selected pods.
    pub(super) terms: Terms,
    /// The compiled rules about selected pods.
    pub(super) selectors: BTreeMap<SelectorSlot, SelectorTerm>,
    /// Its content has more cells than fit, so it is a chain.
    pub(super) chained: bool,
    references: usize,
}

/// All classes of this node.
#[derive(Clone, Debug, Default)]
pub(super) struct ClassTable {
    by_id: BTreeMap<ClassId, ClassState>,
    by_key: BTreeMap<ClassKey, ClassId>,
    by_policy: BTreeMap<PolicyName, BTreeSet<ClassId>>,
    by_selector: BTreeMap<SelectorSlot, BTreeSet<ClassId>>,
    /// Classes created or compiled anew since the last `take_stale`.
    stale: BTreeSet<ClassId>,
    /// Classes whose last reference was given back.
    idle: BTreeSet<ClassId>,
}

impl ClassTable {
    /// Takes a reference on the class of `key`.
    pub(super) fn acquire(
        &mut self,
        key: ClassKey,
        world: &World,
        selectors: &mut SelectorTable,
    ) -> ClassId {
        let id = match self.by_key.get(&key) {
            Some(id) => *id,
            None => self.create(key, world, selectors),
        };
        let state = self.state_mut(id);
        state.references += 1;
        self.idle.remove(&id);
        id
    }

    /// Gives back a reference. The class stays until `sweep`.
    pub(super) fn release(&mut self, id: ClassId) {
        let state = self.state_mut(id);
        state.references -= 1;
        if state.references == 0 {
            self.idle.insert(id);
        }
    }

    /// Compiles the classes that have `policy` in their list anew.
    pub(super) fn recompile(
        &mut self,
        policy: &PolicyName,
        world: &World,
        selectors: &mut SelectorTable,
    ) {
        for id in self.by_policy.get(policy).cloned().unwrap_or_default() {
            // New ones were compiled from the policy as it is now, idle ones are about to go.
            if !self.stale.contains(&id) && !self.idle.contains(&id) {
                self.compile(id, world, selectors);
            }
        }
    }

    /// Frees classes without references and returns their numbers.
    pub(super) fn sweep(&mut self, selectors: &mut SelectorTable) -> BTreeSet<ClassId> {
        let idle = mem::take(&mut self.idle);
        for id in &idle {
            let Some(state) = self.by_id.remove(id) else {
                continue;
            };
            self.by_key.remove(&state.key);
            self.stale.remove(id);
            for policy in &state.key.policies {
                forget(&mut self.by_policy, policy, *id);
            }
            self.drop_selectors(*id, state.selectors, selectors);
        }
        idle
    }

    /// The classes whose content must be made anew, once.
    pub(super) fn take_stale(&mut self) -> BTreeSet<ClassId> {
        mem::take(&mut self.stale)
    }

    /// The classes with a rule about pods of `selector`.
    pub(super) fn using(&self, selector: SelectorSlot) -> impl Iterator<Item = ClassId> + '_ {
        self.by_selector
            .get(&selector)
            .into_iter()
            .flatten()
            .copied()
    }

    pub(super) fn state(&self, id: ClassId) -> &ClassState {
        self.by_id
            .get(&id)
            .expect("class numbers are handed out only for classes in the table")
    }

    pub(super) fn set_chained(&mut self, id: ClassId, chained: bool) {
        self.state_mut(id).chained = chained;
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (ClassId, &ClassState)> {
        self.by_id.iter().map(|(id, state)| (*id, state))
    }

    fn create(&mut self, key: ClassKey, world: &World, selectors: &mut SelectorTable) -> ClassId {
        // Of 60 classes two compete for a number once in two million cases; then the later one takes the
        // next number, and after a restart they may change places, which costs a rewrite of both.
        let mut id = number(&key);
        while self.by_id.contains_key(&id) {
            id = ClassId(id.0.wrapping_add(1));
        }
        for policy in &key.policies {
            self.by_policy.entry(policy.clone()).or_default().insert(id);
        }
        self.by_key.insert(key.clone(), id);
        let state = ClassState {
            key,
            terms: Terms::default(),
            selectors: BTreeMap::new(),
            chained: false,
            references: 0,
        };
        self.by_id.insert(id, state);
        self.compile(id, world, selectors);
        id
    }

    fn compile(&mut self, id: ClassId, world: &World, selectors: &mut SelectorTable) {
        let key = &self.state(id).key;
        let policies = key
            .policies
            .iter()
            .filter_map(|name| world.policies.get(name));
        let mut terms = Terms::compile(key.direction, policies, &key.resolution);
        // Where everything is allowed, nothing else needs to be known.
        if terms.open {
            terms = Terms {
                open: true,
                ..Terms::default()
            };
        }
        let acquired: BTreeMap<SelectorSlot, SelectorTerm> = mem::take(&mut terms.selectors)
            .into_iter()
            .map(|(selector, term)| (selectors.acquire(selector, &term.named), term))
            .collect();
        let state = self.state_mut(id);
        state.terms = terms;
        // The new references were taken before the old ones go, so that a selector in both is not
        // dropped and searched for again.
        let released = mem::take(&mut state.selectors);
        self.drop_selectors(id, released, selectors);
        for slot in acquired.keys() {
            self.by_selector.entry(*slot).or_default().insert(id);
        }
        self.state_mut(id).selectors = acquired;
        self.stale.insert(id);
    }

    fn drop_selectors(
        &mut self,
        id: ClassId,
        released: BTreeMap<SelectorSlot, SelectorTerm>,
        selectors: &mut SelectorTable,
    ) {
        for (slot, term) in released {
            selectors.release(slot, &term.named);
            forget(&mut self.by_selector, &slot, id);
        }
    }

    fn state_mut(&mut self, id: ClassId) -> &mut ClassState {
        self.by_id
            .get_mut(&id)
            .expect("class numbers are handed out only for classes in the table")
    }
}

fn forget<K: Ord>(index: &mut BTreeMap<K, BTreeSet<ClassId>>, key: &K, id: ClassId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}

fn number(key: &ClassKey) -> ClassId {
    let mut fingerprint = Fingerprint::new();
    fingerprint.number(match key.direction {
        Direction::Ingress => 0,
        Direction::Egress => 1,
    });
    fingerprint.number(key.policies.len() as u64);
    for policy in &key.policies {
        fingerprint.text(&policy.namespace).text(&policy.name);
    }
    for (port, number) in &key.resolution {
        fingerprint
            .text(&port.name)
            .number(port.protocol.number().into())
            .number((*number).into());
    }
    let hash = fingerprint.finish();
    let folded = (hash ^ (hash >> 32)) & u64::from(u32::MAX);
    ClassId(u32::try_from(folded).expect("masked to 32 bits"))
}
