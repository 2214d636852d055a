//! A table as a value, and the shortest transaction from one value to another.
//!
//! Owns the diff and the order of operations. Does not own what the table is for, nor the socket.

use std::collections::{BTreeMap, BTreeSet};

use crate::batch::Op;
use crate::expr::{Expr, Rule};
use crate::object::{Chain, Counter};
use crate::set::{Data, Element, Elements, Key, Set};

/// Everything in a table that this crate writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Model {
    /// Sets and maps by name.
    pub sets: BTreeMap<String, SetState>,
    /// Chains by name.
    pub chains: BTreeMap<String, ChainState>,
    /// Named counters by name.
    pub counters: BTreeMap<String, Counter>,
}

/// A set and its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetState {
    /// Its type.
    pub set: Set,
    /// Its elements.
    pub elements: Elements,
}

/// A chain and its rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainState {
    /// The chain.
    pub chain: Chain,
    /// Its rules in order.
    pub rules: Vec<Rule>,
}

/// New values of parts of a model; `None` removes. What it does not mention stays.
#[derive(Clone, Debug, Default)]
pub struct Patch {
    /// Whole sets.
    pub sets: BTreeMap<String, Option<SetState>>,
    /// Single elements of sets that exist: new data, or `None` to remove the element.
    pub elements: BTreeMap<String, BTreeMap<Key, Option<Option<Data>>>>,
    /// Whole chains.
    pub chains: BTreeMap<String, Option<ChainState>>,
    /// Counters.
    pub counters: BTreeMap<String, Option<Counter>>,
}

/// How to get from a model to its patched self.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// By these operations, none if nothing differs.
    Operations(Vec<Op>),
    /// Only by making the table anew: a set or a base chain of the same name has another type.
    Rebuild,
}

impl Model {
    /// The patch that turns `self` into `desired`.
    #[must_use]
    pub fn patch_to(&self, desired: Self) -> Patch {
        fn whole<T>(
            old: &BTreeMap<String, T>,
            new: BTreeMap<String, T>,
        ) -> BTreeMap<String, Option<T>> {
            let gone = old.keys().filter(|name| !new.contains_key(*name));
            let mut patch: BTreeMap<_, _> = gone.map(|name| (name.clone(), None)).collect();
            patch.extend(new.into_iter().map(|(name, value)| (name, Some(value))));
            patch
        }
        Patch {
            sets: whole(&self.sets, desired.sets),
            elements: BTreeMap::new(),
            chains: whole(&self.chains, desired.chains),
            counters: whole(&self.counters, desired.counters),
        }
    }

    /// Carries a patch out.
    pub fn apply(&mut self, patch: Patch) {
        settle(&mut self.sets, patch.sets);
        settle(&mut self.chains, patch.chains);
        settle(&mut self.counters, patch.counters);
        for (name, changes) in patch.elements {
            if let Some(state) = self.sets.get_mut(&name) {
                for (key, change) in changes {
                    match change {
                        Some(data) => state.elements.insert(key, data),
                        None => state.elements.remove(&key),
                    };
                }
            }
        }
    }

    /// The operations that carry `patch` out in the kernel, in an order that it accepts: what is
    /// referred to exists before and goes after what refers to it.
    #[must_use]
    pub fn change(&self, patch: &Patch) -> Change {
        let mut order = Order::default();
        for (name, counter) in &patch.counters {
            match (self.counters.get(name), counter) {
                (None, Some(new)) => order.create.push(Op::AddCounter(new.clone())),
                (Some(_), None) => order.delete_counters.push(Op::DeleteCounter(name.clone())),
                // A counter's comment cannot be changed, and replacing it would lose its count.
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        for (name, chain) in &patch.chains {
            if order
                .chain(name, self.chains.get(name), chain.as_ref())
                .is_none()
            {
                return Change::Rebuild;
            }
        }
        for (name, set) in &patch.sets {
            if order.set(name, self.sets.get(name), set.as_ref()).is_none() {
                return Change::Rebuild;
            }
        }
        for (name, changes) in &patch.elements {
            let Some(old) = self.sets.get(name) else {
                continue;
            };
            let mut elements = ElementDiff::default();
            for (key, new) in changes {
                elements.compare(key, old.elements.get(key), new.as_ref());
            }
            order.elements(name, elements);
        }
        Change::Operations(order.operations())
    }

    /// The operations that build the whole model in an empty table.
    #[must_use]
    pub fn build(&self) -> Vec<Op> {
        let empty = Self::default();
        match empty.change(&empty.patch_to(self.clone())) {
            Change::Operations(operations) => operations,
            Change::Rebuild => unreachable!("nothing in an empty table has another type"),
        }
    }

    /// Checks that the parts of `patch` that are new refer only to what is there afterwards, and that
    /// elements fit their sets: on some kernels a refused transaction leaves slow validation on.
    ///
    /// # Errors
    ///
    /// The first contradiction, as a sentence.
    pub fn check(&self, patch: &Patch) -> Result<(), String> {
        let has_chain = |name: &str| match patch.chains.get(name) {
            Some(change) => change.is_some(),
            None => self.chains.contains_key(name),
        };
        let set = |name: &str| match patch.sets.get(name) {
            Some(change) => change.as_ref(),
            None => self.sets.get(name),
        };
        let has_counter = |name: &str| match patch.counters.get(name) {
            Some(change) => change.is_some(),
            None => self.counters.contains_key(name),
        };
        let target = |chain: Option<&str>, from: &str| match chain {
            Some(chain) if !has_chain(chain) => {
                Err(format!("{from} leads to chain {chain}, which is not there"))
            }
            _ => Ok(()),
        };
        for (name, state) in &patch.chains {
            for expression in state
                .iter()
                .flat_map(|s| &s.rules)
                .flat_map(|r| &r.expressions)
            {
                match expression {
                    Expr::Verdict(verdict) => target(verdict.chain(), name)?,
                    Expr::Lookup { set: used, .. } if set(used).is_none() => {
                        return Err(format!(
                            "chain {name} looks up set {used}, which is not there"
                        ));
                    }
                    Expr::CounterRef { name: used } if !has_counter(used) => {
                        return Err(format!(
                            "chain {name} uses counter {used}, which is not there"
                        ));
                    }
                    _ => {}
                }
            }
        }
        let element = |state: &SetState, key: &Key, data: Option<&Data>| {
            let name = &state.set.name;
            state
                .set
                .check(key, data)
                .map_err(|why| format!("set {name}: {why}"))?;
            match data {
                Some(Data::Verdict(verdict)) => target(verdict.chain(), name),
                _ => Ok(()),
            }
        };
        for state in patch.sets.values().flatten() {
            for (key, data) in &state.elements {
                element(state, key, data.as_ref())?;
            }
            disjoint(state)?;
        }
        for (name, changes) in &patch.elements {
            let state = set(name).ok_or_else(|| format!("set {name} is not there"))?;
            for (key, change) in changes {
                if let Some(data) = change {
                    element(state, key, data.as_ref())?;
                }
            }
        }
        Ok(())
    }
}

/// The kernel refuses overlapping ranges; joining them is `nft`'s feature, not the kernel's.
fn disjoint(state: &SetState) -> Result<(), String> {
    let mut previous: Option<&[u8]> = None;
    for key in state.elements.keys() {
        if let Key::Range { first, last } = key {
            if previous.is_some_and(|previous| previous >= first.as_slice()) {
                return Err(format!(
                    "set {}: range {key:?} overlaps another",
                    state.set.name
                ));
            }
            previous = Some(last);
        }
    }
    Ok(())
}

fn settle<T>(map: &mut BTreeMap<String, T>, changes: BTreeMap<String, Option<T>>) {
    for (name, change) in changes {
        match change {
            Some(value) => map.insert(name, value),
            None => map.remove(&name),
        };
    }
}

/// Operations by stage.
#[derive(Default)]
struct Order {
    create: Vec<Op>,
    delete_elements: Vec<Op>,
    add_elements: Vec<Op>,
    rules: Vec<Op>,
    flush_doomed: Vec<Op>,
    delete_chains: Vec<Op>,
    delete_sets: Vec<Op>,
    delete_counters: Vec<Op>,
}

impl Order {
    fn operations(self) -> Vec<Op> {
        // Elements go before others come, as a key may do both. Rules are written when every set and
        // chain exists and every element is in. Chains go when neither rules nor elements lead to
        // them, sets when no rule looks them up.
        [
            self.create,
            self.delete_elements,
            self.add_elements,
            self.rules,
            self.flush_doomed,
            self.delete_chains,
            self.delete_sets,
            self.delete_counters,
        ]
        .concat()
    }

    /// `None` if the chain cannot be changed in place.
    fn chain(
        &mut self,
        name: &str,
        old: Option<&ChainState>,
        new: Option<&ChainState>,
    ) -> Option<()> {
        let append = |rules: &[Rule]| {
            let add = |rule: &Rule| Op::AddRule {
                chain: name.to_owned(),
                rule: rule.clone(),
            };
            rules.iter().map(add).collect::<Vec<_>>()
        };
        match (old, new) {
            (None, Some(new)) => {
                self.create.push(Op::AddChain(new.chain.clone()));
                self.rules.extend(append(&new.rules));
            }
            (Some(old), Some(new)) if old.chain != new.chain => return None,
            (Some(old), Some(new)) if old.rules != new.rules => {
                if !old.rules.is_empty() {
                    self.rules.push(Op::FlushChain(name.to_owned()));
                }
                self.rules.extend(append(&new.rules));
            }
            (Some(old), None) => {
                // Doomed chains may lead to each other, so all are emptied before any goes.
                if !old.rules.is_empty() {
                    self.flush_doomed.push(Op::FlushChain(name.to_owned()));
                }
                self.delete_chains.push(Op::DeleteChain(name.to_owned()));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
        Some(())
    }

    /// `None` if the set cannot be changed in place.
    fn set(&mut self, name: &str, old: Option<&SetState>, new: Option<&SetState>) -> Option<()> {
        let mut elements = ElementDiff::default();
        match (old, new) {
            (None, Some(new)) => {
                self.create.push(Op::AddSet(new.set.clone()));
                for (key, data) in &new.elements {
                    elements.compare(key, None, Some(data));
                }
            }
            (Some(old), Some(new)) if old.set != new.set => return None,
            (Some(old), Some(new)) => {
                let keys: BTreeSet<_> = old.elements.keys().chain(new.elements.keys()).collect();
                for key in keys {
                    elements.compare(key, old.elements.get(key), new.elements.get(key));
                }
            }
            (Some(old), None) => {
                // A map's verdicts hold on to chains until the map is gone, which is after the chains.
                for (key, data) in &old.elements {
                    if matches!(data, Some(Data::Verdict(verdict)) if verdict.chain().is_some()) {
                        elements.compare(key, Some(data), None);
                    }
                }
                self.delete_sets.push(Op::DeleteSet(name.to_owned()));
            }
            (None, None) => {}
        }
        self.elements(name, elements);
        Some(())
    }

    fn elements(&mut self, set: &str, diff: ElementDiff) {
        let set = || set.to_owned();
        if !diff.removed.is_empty() {
            self.delete_elements.push(Op::DeleteElements {
                set: set(),
                elements: diff.removed,
            });
        }
        if !diff.added.is_empty() {
            self.add_elements.push(Op::AddElements {
                set: set(),
                elements: diff.added,
            });
        }
    }
}

#[derive(Default)]
struct ElementDiff {
    removed: Vec<Element>,
    added: Vec<Element>,
}

impl ElementDiff {
    fn compare(&mut self, key: &Key, old: Option<&Option<Data>>, new: Option<&Option<Data>>) {
        if old == new {
            return;
        }
        let element = |data: &Option<Data>| Element {
            key: key.clone(),
            data: data.clone(),
        };
        self.removed.extend(old.map(element));
        self.added.extend(new.map(element));
    }
}
