//! One copy of each set of next hops, however many prefixes go that way.

use std::hash::BuildHasher;
use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::HashTable;

use crate::rib::event::Forward;
use crate::rib::hash::Seed;

/// Stands for a set of next hops as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct WaysRef(NonZeroU32);

impl WaysRef {
    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

#[derive(Debug)]
struct Slot {
    ways: Arc<[Forward]>,
    holders: u32,
}

/// All sets in use.
#[derive(Debug)]
pub(super) struct WaysTable {
    slots: Vec<Slot>,
    free: Vec<WaysRef>,
    index: HashTable<WaysRef>,
    seed: Seed,
}

impl WaysTable {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            seed,
        }
    }

    /// The one copy of `ways`, held once more.
    pub(super) fn intern(&mut self, ways: &[Forward]) -> WaysRef {
        let hash = self.seed.hash_one(ways);
        let slots = &self.slots;
        let equal = |at: &WaysRef| *slots[at.slot()].ways == *ways;
        if let Some(found) = self.index.find(hash, equal).copied() {
            self.slots[found.slot()].holders += 1;
            return found;
        }
        let slot = Slot {
            ways: ways.into(),
            holders: 1,
        };
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at.slot()] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                let number = u32::try_from(self.slots.len())
                    .ok()
                    .and_then(NonZeroU32::new);
                WaysRef(number.expect("memory ends before four billion sets do"))
            }
        };
        let (slots, seed) = (&self.slots, self.seed);
        let rehash = |at: &WaysRef| seed.hash_one(&*slots[at.slot()].ways);
        self.index.insert_unique(hash, at, rehash);
        at
    }

    pub(super) fn get(&self, at: WaysRef) -> &Arc<[Forward]> {
        &self.slots[at.slot()].ways
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Gives a hold back; the last one ends the set.
    pub(super) fn release(&mut self, at: WaysRef) {
        let slot = &mut self.slots[at.slot()];
        slot.holders -= 1;
        if slot.holders == 0 {
            let hash = self.seed.hash_one(&*slot.ways);
            if let Ok(entry) = self.index.find_entry(hash, |found| *found == at) {
                entry.remove();
            }
            self.slots[at.slot()].ways = Arc::new([]);
            self.free.push(at);
        }
    }
}
