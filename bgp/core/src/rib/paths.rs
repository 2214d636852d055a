//! One copy of each path, however many prefixes it leads to.
//!
//! Owns their storage, behind handles of four octets, and counts who holds them. Does not own which
//! prefix a path leads to.

use std::hash::{BuildHasher, Hash};
use std::num::NonZeroU32;

use hashbrown::HashTable;

use crate::rib::best::Rank;
use crate::rib::event::Forward;
use crate::rib::hash::Seed;
use crate::rib::next_hops::NextHops;
use crate::rib::pages::Pages;
use crate::rib::path::{Path, PeerIndex};
use crate::types::Prefix;

/// Stands for a path as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct PathRef(NonZeroU32);

impl PathRef {
    fn at(slot: usize) -> Self {
        let number = u32::try_from(slot + 1).ok().and_then(NonZeroU32::new);
        Self(number.expect("memory ends before four billion paths do"))
    }

    /// Its place in a list of all paths, which another path may take later.
    pub(super) fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// A path, and what is worked out from it once.
#[derive(Debug)]
struct Slot {
    path: Path,
    rank: Rank,
    hash: u64,
    /// How many hold it.
    holders: u32,
}

/// All paths of a RIB.
#[derive(Debug, Default)]
pub(super) struct Paths {
    slots: Pages<Option<Slot>>,
    free: Vec<PathRef>,
    index: HashTable<PathRef>,
    /// How often each slot was given to another path: tells a handle's new meaning from its old.
    lives: Vec<u32>,
    pub(super) next_hops: NextHops,
    seed: Seed,
}

/// A handle together with the life of its slot: never means another path.
pub(super) type PathKey = (PathRef, u32);

impl Paths {
    /// None yet. `forwarding`: there is a FIB that knows where next hops lead.
    pub(super) fn new(seed: Seed, forwarding: bool) -> Self {
        Self {
            next_hops: NextHops::new(seed, forwarding),
            seed,
            ..Self::default()
        }
    }

    /// The one copy of `path`, held once more.
    pub(super) fn intern(&mut self, path: Path) -> PathRef {
        let hash = self.hash(&path);
        let slots = &self.slots;
        let equal = |at: &PathRef| {
            slots[at.slot()]
                .as_ref()
                .is_some_and(|slot| slot.hash == hash && slot.path == path)
        };
        if let Some(found) = self.index.find(hash, equal).copied() {
            self.hold(found);
            return found;
        }
        if let Some(forward) = way_of(&path) {
            self.next_hops.hold(forward);
        }
        let slot = Some(Slot {
            rank: Rank::of(&path),
            path,
            hash,
            holders: 1,
        });
        let at = match self.free.pop() {
            Some(at) => {
                self.slots[at.slot()] = slot;
                at
            }
            None => {
                self.slots.push(slot);
                self.lives.push(0);
                PathRef::at(self.slots.len() - 1)
            }
        };
        let slots = &self.slots;
        let rehash = |at: &PathRef| slots[at.slot()].as_ref().map_or(0, |slot| slot.hash);
        self.index.insert_unique(hash, at, rehash);
        at
    }

    /// Holds a path once more, and says who told it.
    pub(super) fn hold(&mut self, at: PathRef) -> Option<PeerIndex> {
        let slot = self.slot_mut(at);
        slot.holders += 1;
        slot.path.source.index()
    }

    /// Gives a hold back; the last one ends the path.
    pub(super) fn release(&mut self, at: PathRef) {
        let slot = self.slot_mut(at);
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        let hash = slot.hash;
        let way = way_of(&slot.path);
        if let Ok(entry) = self.index.find_entry(hash, |found| *found == at) {
            entry.remove();
        }
        self.slots[at.slot()] = None;
        self.lives[at.slot()] = self.lives[at.slot()].wrapping_add(1);
        self.free.push(at);
        if let Some(forward) = way {
            self.next_hops.release(forward);
        }
    }

    /// Where its packets go; `None` for own routes, which the FIB is not asked for.
    pub(super) fn way(&self, at: PathRef) -> Option<Forward> {
        way_of(self.get(at))
    }

    /// Whether its packets to `prefix` get anywhere.
    pub(super) fn leads_somewhere(&self, at: PathRef, prefix: &Prefix) -> bool {
        // Asked for every candidate of every decision, and hardly ever is there a reason to look.
        if !self.next_hops.any_doubtful() {
            return true;
        }
        let way = self.way(at);
        way.is_none_or(|way| self.next_hops.leads(&way, prefix))
    }

    pub(super) fn get(&self, at: PathRef) -> &Path {
        &self.slot(at).path
    }

    pub(super) fn rank(&self, at: PathRef) -> &Rank {
        &self.slot(at).rank
    }

    /// Who told it; `None` for us.
    pub(super) fn peer(&self, at: PathRef) -> Option<PeerIndex> {
        self.slot(at).path.source.index()
    }

    /// A name for the path that stays unique when its handle has been given to another one.
    pub(super) fn key(&self, at: PathRef) -> PathKey {
        (at, self.lives[at.slot()])
    }

    /// Whether the path that had a slot in a life of it is still held.
    pub(super) fn slot_lives(&self, slot: usize, life: u32) -> bool {
        self.slots[slot].is_some() && self.lives[slot] == life
    }

    /// Every path that is held.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Path> {
        self.slots.iter().flatten().map(|slot| &slot.path)
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    fn hash(&self, path: &Path) -> u64 {
        // The session stands for its facts: comparing them is for the few that hash alike.
        let peer = path.source.index();
        self.seed
            .hash_one((peer, path.next_hop, HashOf(&*path.attributes)))
    }

    fn slot(&self, at: PathRef) -> &Slot {
        self.slots[at.slot()]
            .as_ref()
            .expect("a handle outlives no hold on it")
    }

    fn slot_mut(&mut self, at: PathRef) -> &mut Slot {
        self.slots[at.slot()]
            .as_mut()
            .expect("a handle outlives no hold on it")
    }
}

fn way_of(path: &Path) -> Option<Forward> {
    Some(Forward {
        next_hop: path.next_hop?,
        interface: path.source.peer().and_then(|peer| peer.interface),
    })
}

/// Hashes what it refers to.
struct HashOf<'a, T>(&'a T);

impl<T: Hash> Hash for HashOf<'_, T> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}
