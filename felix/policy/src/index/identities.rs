//! Equivalence classes of peer addresses.
//!
//! Owns the interning of "which selectors in force select the owner, and where do the port names they
//! ask for lead" to identities, the numbers of identities, and which addresses have which identity.
//! Does not own what identities may do: that is the class table's.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::fingerprint::Fingerprint;
use super::selectors::{EVERY_POD, NamedPort, SelectorSlot, SelectorTable};
use crate::plan::IdentityId;

/// Place of an identity in the table. Stable while an address has it.
pub(super) type IdentitySlot = usize;

/// What makes two addresses the same to all classes of this node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct IdentityKey {
    /// Selectors that select the owner, in order, without [`EVERY_POD`]: empty for pods that only that
    /// one selects.
    pub(super) selectors: Vec<SelectorSlot>,
    /// Port names that those selectors' rules look up, and the numbers the owner has for them.
    pub(super) named: Vec<(NamedPort, u16)>,
}

/// One identity.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) key: IdentityKey,
    /// Its number, unless there are more identities than numbers.
    pub(super) number: Option<IdentityId>,
    /// The addresses that have it.
    pub(super) addresses: BTreeSet<IpAddr>,
    fingerprint: u64,
}

/// What an address is to policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    World,
    ThisNode,
    OtherNode,
    Pod(IdentityKey),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Held {
    ThisNode,
    OtherNode,
    Pod(IdentitySlot),
}

/// What `settle` changed.
#[derive(Clone, Debug, Default)]
pub(super) struct IdentityChanges {
    /// New element of each address, `None` for the world. Only addresses whose element changes, or may.
    pub(super) elements: BTreeMap<IpAddr, Option<IdentityId>>,
    /// Numbers whose row may be another now, with the selectors before and after.
    pub(super) rows: Vec<(IdentityId, Vec<SelectorSlot>)>,
    /// Selectors of identities without a number that came, went or have other addresses now.
    pub(super) unnumbered: BTreeSet<SelectorSlot>,
}

/// All identities of this node.
#[derive(Clone, Debug)]
pub(super) struct IdentityTable {
    capacity: usize,
    slots: Vec<Option<Identity>>,
    free: Vec<IdentitySlot>,
    by_key: BTreeMap<IdentityKey, IdentitySlot>,
    by_selector: BTreeMap<SelectorSlot, BTreeSet<IdentitySlot>>,
    by_number: BTreeMap<IdentityId, IdentitySlot>,
    /// Identities that wait for a number.
    waiting: BTreeSet<IdentitySlot>,
    /// Those of them that had to be settled without one, so that classes name their addresses.
    spilled: BTreeSet<IdentitySlot>,
    held: BTreeMap<IpAddr, Held>,
    /// Numbers that addresses had in the kernel before this process, for the first assignment.
    seeds: BTreeMap<IpAddr, IdentityId>,
}

impl IdentityKey {
    /// All selectors that select the owner.
    pub(super) fn all_selectors(&self) -> impl Iterator<Item = SelectorSlot> + '_ {
        [EVERY_POD]
            .into_iter()
            .chain(self.selectors.iter().copied())
    }
}

impl IdentityTable {
    /// How many numbers there are for pods.
    pub(super) const NUMBERS: usize = (u16::MAX - IdentityId::FIRST_POD.0) as usize + 1;

    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.min(Self::NUMBERS),
            slots: Vec::new(),
            free: Vec::new(),
            by_key: BTreeMap::new(),
            by_selector: BTreeMap::new(),
            by_number: BTreeMap::new(),
            waiting: BTreeSet::new(),
            spilled: BTreeSet::new(),
            held: BTreeMap::new(),
            seeds: BTreeMap::new(),
        }
    }

    pub(super) fn seed(&mut self, seeds: BTreeMap<IpAddr, IdentityId>) {
        self.seeds = seeds;
    }

    pub(super) fn get(&self, number: IdentityId) -> Option<&Identity> {
        self.by_number
            .get(&number)
            .and_then(|slot| self.slots[*slot].as_ref())
    }

    /// The identities that have `selector`.
    pub(super) fn with_selector(&self, selector: SelectorSlot) -> impl Iterator<Item = &Identity> {
        let every = (selector == EVERY_POD).then(|| self.by_key.values());
        let some = self.by_selector.get(&selector).into_iter().flatten();
        every
            .into_iter()
            .flatten()
            .chain(some)
            .filter_map(|slot| self.slots[*slot].as_ref())
    }

    /// Whether `address` has an identity of pods.
    pub(super) fn is_pod(&self, address: IpAddr) -> bool {
        matches!(self.held.get(&address), Some(Held::Pod(_)))
    }

    /// How many identities have to do without a number.
    pub(super) fn unnumbered(&self) -> usize {
        self.spilled.len()
    }

    /// Gives each address of `standings` the standing it has now, forms new identities, dissolves those
    /// without addresses, and numbers what has no number.
    ///
    /// Numbers of dissolved identities fall free before new ones are given, so that a seed or a
    /// fingerprint finds its number free again if only the membership changed hands.
    pub(super) fn settle(
        &mut self,
        standings: BTreeMap<IpAddr, Standing>,
        selectors: &SelectorTable,
    ) -> IdentityChanges {
        let mut changes = IdentityChanges::default();
        let mut emptied = BTreeSet::new();
        for (address, standing) in standings {
            let old = self.held.get(&address).copied();
            let new = match standing {
                Standing::World => None,
                Standing::ThisNode => Some(Held::ThisNode),
                Standing::OtherNode => Some(Held::OtherNode),
                Standing::Pod(key) => Some(Held::Pod(self.intern(key, selectors))),
            };
            if old == new {
                continue;
            }
            if let Some(Held::Pod(slot)) = old {
                let identity = self.identity_mut(slot);
                identity.addresses.remove(&address);
                if identity.addresses.is_empty() {
                    emptied.insert(slot);
                }
            }
            if let Some(Held::Pod(slot)) = new {
                self.identity_mut(slot).addresses.insert(address);
            }
            for held in [old, new] {
                if let Some(Held::Pod(slot)) = held
                    && self.spilled.contains(&slot)
                {
                    changes
                        .unnumbered
                        .extend(self.identity_mut(slot).key.all_selectors());
                }
            }
            match new {
                Some(held) => self.held.insert(address, held),
                None => self.held.remove(&address),
            };
            changes.elements.insert(address, None);
        }
        for slot in emptied {
            self.dissolve(slot, &mut changes);
        }
        self.number(&mut changes);
        for (address, element) in &mut changes.elements {
            *element = match self.held.get(address) {
                None => None,
                Some(Held::ThisNode) => Some(IdentityId::THIS_NODE),
                Some(Held::OtherNode) => Some(IdentityId::OTHER_NODE),
                Some(Held::Pod(slot)) => self.slots[*slot].as_ref().and_then(|i| i.number),
            };
        }
        changes
    }

    fn intern(&mut self, key: IdentityKey, selectors: &SelectorTable) -> IdentitySlot {
        if let Some(slot) = self.by_key.get(&key) {
            return *slot;
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        for selector in &key.selectors {
            self.by_selector.entry(*selector).or_default().insert(slot);
        }
        self.by_key.insert(key.clone(), slot);
        self.slots[slot] = Some(Identity {
            fingerprint: fingerprint(&key, selectors),
            key,
            number: None,
            addresses: BTreeSet::new(),
        });
        self.waiting.insert(slot);
        slot
    }

    fn dissolve(&mut self, slot: IdentitySlot, changes: &mut IdentityChanges) {
        // It may have been emptied and found again within one settlement.
        if !self.identity_mut(slot).addresses.is_empty() {
            return;
        }
        let Some(identity) = self.slots[slot].take() else {
            return;
        };
        self.free.push(slot);
        self.waiting.remove(&slot);
        self.spilled.remove(&slot);
        self.by_key.remove(&identity.key);
        for selector in &identity.key.selectors {
            if let Some(slots) = self.by_selector.get_mut(selector) {
                slots.remove(&slot);
                if slots.is_empty() {
                    self.by_selector.remove(selector);
                }
            }
        }
        if let Some(number) = identity.number {
            self.by_number.remove(&number);
            changes
                .rows
                .push((number, identity.key.all_selectors().collect()));
        }
    }

    /// Numbers the identities that have none, as far as numbers go.
    fn number(&mut self, changes: &mut IdentityChanges) {
        // In order of content, not of arrival, so that a first load gives the same numbers in whatever
        // order its objects came.
        let mut waiting: Vec<(u64, IdentitySlot)> = self
            .waiting
            .iter()
            .filter_map(|slot| self.slots[*slot].as_ref().map(|i| (i.fingerprint, *slot)))
            .collect();
        waiting.sort_unstable();
        // All seeds before any fingerprint: a number taken by a fingerprint might be seeded to another.
        for (_, slot) in &waiting {
            if let Some(number) = self.seeded(*slot) {
                self.assign(*slot, number, changes);
            }
        }
        for (fingerprint, slot) in waiting {
            if !self.waiting.contains(&slot) {
                continue;
            }
            if let Some(number) = self.probe(fingerprint) {
                self.assign(slot, number, changes);
            } else if self.spilled.insert(slot) {
                changes
                    .unnumbered
                    .extend(self.identity_mut(slot).key.all_selectors());
            }
        }
    }

    fn seeded(&self, slot: IdentitySlot) -> Option<IdentityId> {
        if self.seeds.is_empty() || self.by_number.len() >= self.capacity {
            return None;
        }
        let identity = self.slots[slot].as_ref()?;
        identity
            .addresses
            .iter()
            .filter_map(|address| self.seeds.get(address))
            .copied()
            .find(|number| *number >= IdentityId::FIRST_POD && !self.by_number.contains_key(number))
    }

    fn probe(&self, fingerprint: u64) -> Option<IdentityId> {
        if self.by_number.len() >= self.capacity {
            return None;
        }
        let numbers = Self::NUMBERS as u64;
        (0..numbers)
            .map(|step| (fingerprint % numbers + step) % numbers)
            .map(|offset| {
                let offset = u16::try_from(offset).expect("there are fewer than 65,536 numbers");
                IdentityId(IdentityId::FIRST_POD.0 + offset)
            })
            .find(|number| !self.by_number.contains_key(number))
    }

    fn assign(&mut self, slot: IdentitySlot, number: IdentityId, changes: &mut IdentityChanges) {
        self.by_number.insert(number, slot);
        self.waiting.remove(&slot);
        let spilled = self.spilled.remove(&slot);
        let identity = self.identity_mut(slot);
        identity.number = Some(number);
        changes
            .rows
            .push((number, identity.key.all_selectors().collect()));
        if spilled {
            // The rules that named its addresses go.
            changes.unnumbered.extend(identity.key.all_selectors());
        }
        changes
            .elements
            .extend(identity.addresses.iter().map(|address| (*address, None)));
    }

    fn identity_mut(&mut self, slot: IdentitySlot) -> &mut Identity {
        self.slots[slot]
            .as_mut()
            .expect("an identity is freed only when no address has it")
    }
}

fn fingerprint(key: &IdentityKey, selectors: &SelectorTable) -> u64 {
    // Slots are given in order of arrival, so the contents are sorted, not the slots.
    let mut contents: Vec<u64> = key
        .selectors
        .iter()
        .map(|slot| selectors.fingerprint(*slot))
        .collect();
    contents.sort_unstable();
    let mut fingerprint = Fingerprint::new();
    for content in contents {
        fingerprint.number(content);
    }
    for (port, number) in &key.named {
        fingerprint
            .text(&port.name)
            .number(port.protocol.number().into())
            .number((*number).into());
    }
    fingerprint.finish()
}
