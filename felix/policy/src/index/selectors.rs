//! Peer selectors in use on this node, interned, and the question "which of them select this pod".
//!
//! Owns the numbering and the reference counts of selectors, and an index by label and namespace, so
//! that a pod is held only against selectors that could match it. Does not own which pods match: that
//! is the identity table's.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;

use super::fingerprint::Fingerprint;
use crate::model::{LabelSelector, Labels, Namespace, Operator, Pod};
use crate::plan::Protocol;

/// Place of a selector in the table. Stable while anything refers to the selector.
pub(super) type SelectorSlot = usize;

/// The place of [`PeerSelector::every_pod`], whether it is in force or not.
///
/// It tells no pod from another, so identities do not name it: all of them have it. Otherwise the first
/// policy that lets every pod in would form every identity of the cluster anew.
pub(super) const EVERY_POD: SelectorSlot = 0;

/// Which pods a peer entry of a policy means.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PeerSelector {
    pub(super) namespaces: NamespaceScope,
    pub(super) pods: LabelSelector,
}

/// In which namespaces.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum NamespaceScope {
    /// In this one: a peer without namespace selector means the policy's own.
    Named(String),
    /// In those with matching labels.
    Matching(LabelSelector),
}

/// A port as rules name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NamedPort {
    pub(super) name: String,
    pub(super) protocol: Protocol,
}

impl PeerSelector {
    /// Every pod of the cluster.
    pub(super) fn every_pod() -> Self {
        Self {
            namespaces: NamespaceScope::Matching(LabelSelector::everything()),
            pods: LabelSelector::everything(),
        }
    }

    pub(super) fn matches(&self, pod: &Pod, namespace: Option<&Namespace>) -> bool {
        self.matches_namespace(&pod.name.namespace, namespace) && self.pods.matches(&pod.labels)
    }

    /// Whether pods of the namespace `name`, whose object is `namespace` if it has been seen, are meant.
    pub(super) fn matches_namespace(&self, name: &str, namespace: Option<&Namespace>) -> bool {
        match &self.namespaces {
            NamespaceScope::Named(own) => own == name,
            // Without the object its labels are unknown, and NotIn must not take that for "missing".
            NamespaceScope::Matching(selector) => match namespace {
                Some(namespace) => selector.matches(&namespace.labels),
                None => selector.is_everything(),
            },
        }
    }

    fn fingerprint(&self) -> u64 {
        let mut fingerprint = Fingerprint::new();
        match &self.namespaces {
            NamespaceScope::Named(name) => fingerprint.number(0).text(name),
            NamespaceScope::Matching(selector) => {
                add_selector(fingerprint.number(1), selector);
                &mut fingerprint
            }
        };
        add_selector(&mut fingerprint, &self.pods);
        fingerprint.finish()
    }
}

fn add_selector(fingerprint: &mut Fingerprint, selector: &LabelSelector) {
    fingerprint.number(selector.requirements.len() as u64);
    for requirement in &selector.requirements {
        fingerprint.text(&requirement.key);
        let values = match &requirement.operator {
            Operator::In(values) => (0, Some(values)),
            Operator::NotIn(values) => (1, Some(values)),
            Operator::Exists => (2, None),
            Operator::DoesNotExist => (3, None),
            Operator::Unknown(_) => (4, None),
        };
        fingerprint.number(values.0);
        if let Some(values) = values.1 {
            fingerprint.number(values.len() as u64);
            for value in values {
                fingerprint.text(value);
            }
        }
    }
}

/// All selectors that rules of a class in use refer to.
#[derive(Clone, Debug)]
pub(super) struct SelectorTable {
    slots: Vec<Option<Entry>>,
    free: Vec<SelectorSlot>,
    by_content: BTreeMap<PeerSelector, SelectorSlot>,
    anchors: Anchors,
    /// Selectors touched since the last `settle`, with what was in force before.
    touched: BTreeMap<SelectorSlot, Before>,
}

#[derive(Clone, Debug)]
struct Entry {
    selector: PeerSelector,
    fingerprint: u64,
    /// How many classes refer to it.
    references: usize,
    /// Port names that egress rules look up in its pods, with how many classes do.
    named: BTreeMap<NamedPort, usize>,
}

#[derive(Clone, Debug)]
struct Before {
    active: bool,
    named: BTreeSet<NamedPort>,
}

/// A selector whose meaning for addresses changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SelectorChange {
    /// It is new: pods must be searched for it.
    Activated(SelectorSlot),
    /// It is no longer in use, or other port names matter: the addresses that have it are concerned.
    Altered(SelectorSlot),
}

impl SelectorTable {
    pub(super) fn new() -> Self {
        let mut table = Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_content: BTreeMap::new(),
            anchors: Anchors::default(),
            touched: BTreeMap::new(),
        };
        let slot = table.intern(PeerSelector::every_pod());
        debug_assert_eq!(slot, EVERY_POD, "slots are given from 0");
        table
    }

    /// Takes a reference on `selector` and on the port names looked up through it.
    pub(super) fn acquire(
        &mut self,
        selector: PeerSelector,
        named: &BTreeSet<NamedPort>,
    ) -> SelectorSlot {
        let slot = self.intern(selector);
        let entry = self.touch(slot);
        entry.references += 1;
        for port in named {
            *entry.named.entry(port.clone()).or_default() += 1;
        }
        slot
    }

    /// Gives back what `acquire` took.
    pub(super) fn release(&mut self, slot: SelectorSlot, named: &BTreeSet<NamedPort>) {
        let entry = self.touch(slot);
        entry.references -= 1;
        for port in named {
            if let Some(count) = entry.named.get_mut(port) {
                *count -= 1;
                if *count == 0 {
                    entry.named.remove(port);
                }
            }
        }
    }

    /// Puts the references taken and given back since the last call into force for `matching`, and says
    /// what that changed. A selector that was given back and taken again has not changed.
    pub(super) fn settle(&mut self) -> Vec<SelectorChange> {
        let mut changes = Vec::new();
        for (slot, before) in mem::take(&mut self.touched) {
            let entry = self.slots[slot]
                .as_ref()
                .expect("touched selectors are freed only by sweep");
            match (before.active, entry.references > 0) {
                (false, true) => {
                    self.anchors.insert(&entry.selector, slot);
                    changes.push(SelectorChange::Activated(slot));
                }
                (true, false) => {
                    self.anchors.remove(&entry.selector, slot);
                    changes.push(SelectorChange::Altered(slot));
                }
                (true, true) if !entry.named.keys().eq(before.named.iter()) => {
                    changes.push(SelectorChange::Altered(slot));
                }
                (false, false) => self.free_if_unused(slot),
                (true, true) => {}
            }
        }
        changes
    }

    /// Frees the slots of selectors that nothing refers to any more. To be called once no identity
    /// names them either.
    pub(super) fn sweep(&mut self, changes: &[SelectorChange]) {
        for change in changes {
            let (SelectorChange::Activated(slot) | SelectorChange::Altered(slot)) = *change;
            self.free_if_unused(slot);
        }
    }

    /// The selectors in force that select `pod`, in order of slot.
    pub(super) fn matching(&self, pod: &Pod, namespace: Option<&Namespace>) -> Vec<SelectorSlot> {
        let mut matching: Vec<SelectorSlot> = Vec::new();
        self.anchors.candidates(pod, namespace, |slot| {
            if self.selector(slot).matches(pod, namespace) {
                matching.push(slot);
            }
        });
        matching.sort_unstable();
        matching.dedup();
        matching
    }

    /// The selectors in force whose answer for a namespace depends on its labels and is not the same
    /// for `old` as for `new`.
    pub(super) fn flipped_by<'a>(
        &'a self,
        name: &'a str,
        old: Option<&'a Namespace>,
        new: Option<&'a Namespace>,
    ) -> impl Iterator<Item = &'a PeerSelector> {
        self.slots
            .iter()
            .flatten()
            .filter(|entry| entry.references > 0)
            .map(|e| &e.selector)
            .filter(move |selector| {
                selector.matches_namespace(name, old) != selector.matches_namespace(name, new)
            })
    }

    pub(super) fn selector(&self, slot: SelectorSlot) -> &PeerSelector {
        &self.entry(slot).selector
    }

    pub(super) fn fingerprint(&self, slot: SelectorSlot) -> u64 {
        self.entry(slot).fingerprint
    }

    /// Port names looked up in pods of the selector.
    pub(super) fn named_ports(&self, slot: SelectorSlot) -> impl Iterator<Item = &NamedPort> {
        self.entry(slot).named.keys()
    }

    fn intern(&mut self, selector: PeerSelector) -> SelectorSlot {
        if let Some(slot) = self.by_content.get(&selector) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.by_content.insert(selector.clone(), slot);
        self.slots[slot] = Some(Entry {
            fingerprint: selector.fingerprint(),
            selector,
            references: 0,
            named: BTreeMap::new(),
        });
        slot
    }

    fn entry(&self, slot: SelectorSlot) -> &Entry {
        self.slots[slot]
            .as_ref()
            .expect("a slot is held only while it is referenced")
    }

    fn touch(&mut self, slot: SelectorSlot) -> &mut Entry {
        let entry = self.slots[slot]
            .as_mut()
            .expect("a slot is held only while it is referenced");
        self.touched.entry(slot).or_insert_with(|| Before {
            active: entry.references > 0,
            named: entry.named.keys().cloned().collect(),
        });
        entry
    }

    fn free_if_unused(&mut self, slot: SelectorSlot) {
        let Some(entry) = &self.slots[slot] else {
            return;
        };
        if entry.references == 0 && slot != EVERY_POD {
            self.by_content.remove(&entry.selector);
            self.slots[slot] = None;
            self.free.push(slot);
        }
    }
}

/// Selectors by something that a pod must have for them to match. Each selector is in one place.
#[derive(Clone, Debug, Default)]
struct Anchors {
    /// Those of one namespace, by pod label within it: a policy that speaks of its own namespace costs
    /// nothing elsewhere.
    by_namespace: BTreeMap<String, LabelAnchors>,
    /// Those of several namespaces, by pod label.
    by_pod_label: LabelAnchors,
    /// Those of several namespaces that demand no pod label, by namespace label.
    by_namespace_label: LabelAnchors,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct LabelAnchors {
    by_key: BTreeMap<String, KeyAnchors>,
    /// Those that demand no label.
    rest: BTreeSet<SelectorSlot>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct KeyAnchors {
    by_value: BTreeMap<String, BTreeSet<SelectorSlot>>,
    any_value: BTreeSet<SelectorSlot>,
}

impl Anchors {
    fn insert(&mut self, selector: &PeerSelector, slot: SelectorSlot) {
        let (anchors, labels) = self.place(selector);
        anchors.insert(labels, slot);
    }

    fn remove(&mut self, selector: &PeerSelector, slot: SelectorSlot) {
        let (anchors, labels) = self.place(selector);
        anchors.remove(labels, slot);
        if let NamespaceScope::Named(name) = &selector.namespaces
            && self
                .by_namespace
                .get(name)
                .is_some_and(|a| *a == LabelAnchors::default())
        {
            self.by_namespace.remove(name);
        }
    }

    fn place<'a>(&mut self, selector: &'a PeerSelector) -> (&mut LabelAnchors, &'a LabelSelector) {
        match &selector.namespaces {
            NamespaceScope::Named(name) => (
                self.by_namespace.entry(name.clone()).or_default(),
                &selector.pods,
            ),
            NamespaceScope::Matching(namespaces) => {
                if demand(&selector.pods).is_none() {
                    (&mut self.by_namespace_label, namespaces)
                } else {
                    (&mut self.by_pod_label, &selector.pods)
                }
            }
        }
    }

    fn candidates(
        &self,
        pod: &Pod,
        namespace: Option<&Namespace>,
        mut found: impl FnMut(SelectorSlot),
    ) {
        if let Some(anchors) = self.by_namespace.get(&pod.name.namespace) {
            anchors.candidates(&pod.labels, &mut found);
        }
        self.by_pod_label.candidates(&pod.labels, &mut found);
        let no_labels = Labels::new();
        let labels = namespace.map_or(&no_labels, |namespace| &namespace.labels);
        self.by_namespace_label.candidates(labels, &mut found);
    }
}

/// A label that an object must have for a selector to match.
enum Demand<'a> {
    OneOf(&'a str, &'a BTreeSet<String>),
    Key(&'a str),
}

/// The most telling label that `selector` demands, if it demands any.
fn demand(selector: &LabelSelector) -> Option<Demand<'_>> {
    let values = selector
        .requirements
        .iter()
        .filter_map(|r| match &r.operator {
            Operator::In(values) => Some((r.key.as_str(), values)),
            _ => None,
        });
    let exists = selector
        .requirements
        .iter()
        .find(|r| r.operator == Operator::Exists)
        .map(|r| Demand::Key(&r.key));
    values
        .min_by_key(|(_, values)| values.len())
        .map(|(k, v)| Demand::OneOf(k, v))
        .or(exists)
}

impl LabelAnchors {
    fn insert(&mut self, selector: &LabelSelector, slot: SelectorSlot) {
        match demand(selector) {
            None => drop(self.rest.insert(slot)),
            Some(Demand::Key(key)) => {
                self.by_key
                    .entry(key.to_owned())
                    .or_default()
                    .any_value
                    .insert(slot);
            }
            Some(Demand::OneOf(key, values)) => {
                let anchors = self.by_key.entry(key.to_owned()).or_default();
                for value in values {
                    anchors
                        .by_value
                        .entry(value.clone())
                        .or_default()
                        .insert(slot);
                }
            }
        }
    }

    fn remove(&mut self, selector: &LabelSelector, slot: SelectorSlot) {
        let (key, values) = match demand(selector) {
            None => {
                self.rest.remove(&slot);
                return;
            }
            Some(Demand::Key(key)) => (key, None),
            Some(Demand::OneOf(key, values)) => (key, Some(values)),
        };
        let Some(anchors) = self.by_key.get_mut(key) else {
            return;
        };
        anchors.any_value.remove(&slot);
        for value in values.into_iter().flatten() {
            if let Some(slots) = anchors.by_value.get_mut(value) {
                slots.remove(&slot);
                if slots.is_empty() {
                    anchors.by_value.remove(value);
                }
            }
        }
        if *anchors == KeyAnchors::default() {
            self.by_key.remove(key);
        }
    }

    fn candidates(&self, labels: &Labels, found: &mut impl FnMut(SelectorSlot)) {
        self.rest.iter().copied().for_each(&mut *found);
        for (key, value) in labels {
            let Some(anchors) = self.by_key.get(key) else {
                continue;
            };
            anchors.any_value.iter().copied().for_each(&mut *found);
            anchors
                .by_value
                .get(value)
                .into_iter()
                .flatten()
                .copied()
                .for_each(&mut *found);
        }
    }
}
