//! The Adj-RIBs-In and the Loc-RIB in one: all paths by prefix, and what was made of them.
//!
//! Owns storage. Does not own what happens when.
//!
//! A destination is one slot of [`Pages`], found by hash; its number stays as long as it has paths
//! or somebody was told about it. The slot is small on purpose: a full table has a million of them,
//! and each route passes through its slot a handful of times.

use std::hash::BuildHasher;
use std::hint::black_box;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::rib::best::{Candidate, Multipath, pick, sharing};
use crate::rib::entries::Entries;
use crate::rib::event::{Action, Forward};
use crate::rib::hash::Seed;
use crate::rib::installs::{Fib, FibCounts, FibState, Installs};
use crate::rib::journal::Journal;
use crate::rib::origin::OriginValidity;
use crate::rib::pages::Pages;
use crate::rib::path::{PeerIndex, Source};
use crate::rib::paths::{PathRef, Paths};
use crate::types::{Family, PathId, Prefix};

/// Of so many slots one may be empty before other prefixes are given those that are.
const EMPTY_SHARE: usize = 8;

/// About as many prefixes are approached at a time.
const NEARBY: usize = 1024;

/// Names a destination as long as it is in the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DestId(pub(super) u32);

impl DestId {
    pub(super) fn slot(self) -> usize {
        self.0 as usize
    }
}

/// One path to a destination.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// As the source told it.
    pub(super) told: PathRef,
    /// As the import policy left it; the same where that changed nothing.
    pub(super) used: PathRef,
    /// Which of the source's paths to the destination.
    pub(super) id: PathId,
    pub(super) marks: Marks,
}

/// What is noted about an entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Marks {
    /// Kept from before the peer's restart.
    pub(super) stale: bool,
    /// Not told again since the peer began a refresh.
    pub(super) refreshing: bool,
    /// Must not be used; the reason can be worked out again.
    pub(super) rejected: bool,
    pub(super) validity: OriginValidity,
}

/// One prefix.
#[derive(Debug)]
pub(super) struct Dest {
    pub(super) prefix: Prefix,
    standing: Standing,
    /// How many Adj-RIBs-Out have a word about it.
    holders: u16,
    pub(super) paths: Entries,
    /// What peers are told, policies permitting.
    pub(super) announced: Option<PathRef>,
    /// See [`Journal`].
    pub(super) journal: u32,
}

/// What a slot is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// Its destination is in the table.
    Live,
    /// Nothing is left of its destination, which still is in the index: to take it out costs as much as
    /// to put it in, and prefixes that go mostly come back.
    Empty,
    /// Any prefix can have it.
    Free,
}

/// Which selections may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// Every prefix.
    All,
    /// After a restart, only prefixes of our own (RFC 4724 §4.1): the FIB keeps what it has for
    /// the others.
    OwnRoutes,
}

/// Where packets go, ascending and without duplicates.
type Ways = SmallVec<[Forward; 4]>;

/// The table of one RIB.
#[derive(Debug)]
pub(super) struct Table {
    dests: Pages<Dest>,
    free: Vec<DestId>,
    /// Slots that are [`Standing::Empty`].
    empty: usize,
    /// All slots that are not free.
    index: HashTable<DestId>,
    seed: Seed,
    pub(super) paths: Paths,
    pub(super) journal: Journal,
    /// Routes are installed before peers are told about them; `None` where there is no FIB.
    installs: Option<Installs>,
    /// How often peers were to be told something else, by family.
    best_changes: [u64; Family::ALL.len()],
    /// How many prefixes have a path that peers may be told, by family.
    selected: [usize; Family::ALL.len()],
}

impl Table {
    /// An empty table. `forwarding`: there is a FIB that answers.
    pub(super) fn new(seed: Seed, forwarding: bool) -> Self {
        Self {
            dests: Pages::default(),
            free: Vec::new(),
            empty: 0,
            index: HashTable::new(),
            seed,
            paths: Paths::new(seed, forwarding),
            journal: Journal::default(),
            installs: forwarding.then(|| Installs::new(seed)),
            best_changes: Default::default(),
            selected: Default::default(),
        }
    }

    /// Prefixes in the table.
    pub(super) fn len(&self) -> usize {
        self.index.len() - self.empty
    }

    /// Numbers of destinations are below this.
    pub(super) fn bound(&self) -> usize {
        self.dests.len()
    }

    pub(super) fn find(&self, prefix: &Prefix) -> Option<DestId> {
        let hash = self.seed.hash_one(prefix);
        let found = self
            .index
            .find(hash, |id| self.dests[id.slot()].prefix == *prefix)?;
        (self.dests[found.slot()].standing == Standing::Live).then_some(*found)
    }

    /// Looks up prefixes whose turn comes soon. These lookups do not depend on each other, so that memory
    /// is waited for once for several of them; in their turn they find all that they need close by.
    pub(super) fn approach<'a>(&self, prefixes: impl Iterator<Item = &'a Prefix>) {
        // Whatever the index has under a like hash: the one that is meant, nearly always.
        let likely = prefixes.filter_map(|prefix| {
            let hash = self.seed.hash_one(prefix);
            self.index.find(hash, |_| true).copied()
        });
        let likely: SmallVec<[DestId; NEARBY]> = likely.collect();
        for id in likely {
            black_box(self.dests[id.slot()].standing);
        }
    }

    /// The destination of `prefix`, an empty one if it is new.
    pub(super) fn find_or_add(&mut self, prefix: Prefix) -> DestId {
        let hash = self.seed.hash_one(prefix);
        let dests = &self.dests;
        let found = self
            .index
            .find(hash, |id| dests[id.slot()].prefix == prefix);
        if let Some(id) = found.copied() {
            let standing = &mut self.dests[id.slot()].standing;
            self.empty -= usize::from(*standing == Standing::Empty);
            *standing = Standing::Live;
            return id;
        }
        if self.free.is_empty() && self.empty > self.dests.len() / EMPTY_SHARE {
            self.free_the_empty();
        }
        if self.index.len() == self.index.capacity() {
            self.rebuild_index();
        }
        let dest = Dest {
            prefix,
            standing: Standing::Live,
            holders: 0,
            paths: Entries::default(),
            announced: None,
            journal: 0,
        };
        let id = match self.free.pop() {
            Some(id) => {
                self.dests[id.slot()] = dest;
                id
            }
            None => {
                let number = u32::try_from(self.dests.len());
                self.dests.push(dest);
                DestId(number.expect("memory ends before four billion prefixes do"))
            }
        };
        let (dests, seed) = (&self.dests, self.seed);
        self.index
            .insert_unique(hash, id, |id| seed.hash_one(dests[id.slot()].prefix));
        id
    }

    /// Takes out of the index what is empty, for other prefixes to have the slots.
    fn free_the_empty(&mut self) {
        for number in (0..self.dests.len()).rev() {
            let dest = &mut self.dests[number];
            if dest.standing != Standing::Empty {
                continue;
            }
            let hash = self.seed.hash_one(dest.prefix);
            if let Ok(entry) = self.index.find_entry(hash, |id| id.slot() == number) {
                dest.standing = Standing::Free;
                self.free.push(entry.remove().0);
                self.empty -= 1;
            }
        }
    }

    /// Makes the index anew, with room for at least half as many prefixes more as there are slots: however
    /// prefixes come and go, each pays for two slots at most. The slots are read in their order, where the
    /// index, left to itself, would read them in its own: each from another corner of memory.
    fn rebuild_index(&mut self) {
        let hash = |dest: &Dest| self.seed.hash_one(dest.prefix);
        let room = self.dests.len().max(2 * self.index.len());
        let mut index = HashTable::with_capacity(room);
        for (dest, number) in self.dests.iter().zip(0..) {
            if dest.standing != Standing::Free {
                let rehash = |id: &DestId| hash(&self.dests[id.slot()]);
                index.insert_unique(hash(dest), DestId(number), rehash);
            }
        }
        self.index = index;
    }

    pub(super) fn dest(&self, id: DestId) -> &Dest {
        &self.dests[id.slot()]
    }

    /// Every destination, in no order that means anything.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DestId, &Dest)> {
        let slots = self.dests.iter().zip(0..);
        slots
            .filter(|(dest, _)| dest.standing == Standing::Live)
            .map(|(dest, number)| (DestId(number), dest))
    }

    /// The destinations of the table in the order of their prefixes.
    pub(super) fn sorted(&self) -> Vec<DestId> {
        let mut ids: Vec<DestId> = self.iter().map(|(id, _)| id).collect();
        ids.sort_unstable_by_key(|id| self.dests[id.slot()].prefix);
        ids
    }

    /// The place in the list of the path that `peer` tells under `id`.
    pub(super) fn position(
        &self,
        dest: DestId,
        peer: Option<PeerIndex>,
        id: PathId,
    ) -> Option<usize> {
        self.dests[dest.slot()]
            .paths
            .iter()
            .position(|entry| entry.id == id && self.paths.peer(entry.told) == peer)
    }

    /// The place in the list of any path that `peer` tells.
    pub(super) fn position_of_peer(&self, dest: DestId, peer: Option<PeerIndex>) -> Option<usize> {
        self.dests[dest.slot()]
            .paths
            .iter()
            .position(|entry| self.paths.peer(entry.told) == peer)
    }

    /// Puts a path, as told and as used, in place of what its source said under the same identifier
    /// before, and gives that back. Two holds of the caller's become the table's.
    pub(super) fn insert(
        &mut self,
        dest: DestId,
        source: Option<PeerIndex>,
        (told, used): (PathRef, PathRef),
        id: PathId,
        marks: Marks,
    ) -> Option<Entry> {
        // Made where it is stored: a copy on the way would wait for every write before it.
        let entry = Entry {
            told,
            used,
            id,
            marks,
        };
        let found = self.position(dest, source, id);
        let paths = &mut self.dests[dest.slot()].paths;
        if let Some(at) = found {
            return Some(std::mem::replace(&mut paths[at], entry));
        }
        paths.push(entry);
        None
    }

    /// Takes away the path at a place in the list.
    pub(super) fn remove_at(&mut self, dest: DestId, at: usize) -> Entry {
        self.dests[dest.slot()].paths.remove(at)
    }

    /// Puts `entry` in the place of another of the same source, which it gives back. The holds that
    /// `entry` counts on become the table's.
    pub(super) fn replace_at(&mut self, dest: DestId, at: usize, entry: Entry) -> Entry {
        std::mem::replace(&mut self.dests[dest.slot()].paths[at], entry)
    }

    pub(super) fn entry_mut(&mut self, dest: DestId, at: usize) -> &mut Entry {
        &mut self.dests[dest.slot()].paths[at]
    }

    /// Gives back the holds of an entry that has left the table.
    pub(super) fn release(&mut self, entry: Entry) {
        self.paths.release(entry.told);
        self.paths.release(entry.used);
    }

    /// Selects anew for a destination; whether what peers are told has changed.
    pub(super) fn reselect(
        &mut self,
        id: DestId,
        multipath: Multipath,
        scope: Scope,
        out: &mut Vec<Action>,
    ) -> bool {
        let (best, ways) = self.decide(id, multipath);
        let own = best.is_some_and(|path| self.paths.get(path).source == Source::Local);
        if scope == Scope::OwnRoutes && !own {
            // The prefix may just have lost our own route: that withdrawal does not wait.
            return self.announce(id, None);
        }
        if let Some(installs) = &mut self.installs {
            installs.ask(id, self.dests[id.slot()].prefix, ways.as_deref(), out);
        }
        let told = match (self.fib(id), best) {
            // Traffic for a route that the kernel lacks would be lost here: peers keep what they
            // were told before until the FIB answers. A withdrawal never waits.
            (Fib::Pending, Some(_)) => return false,
            (Fib::Failed, Some(_)) => None,
            (_, best) => best,
        };
        self.announce(id, told)
    }

    /// The best path to a destination, and where its packets go: nowhere where there is no way.
    fn decide(&self, id: DestId, multipath: Multipath) -> (Option<PathRef>, Option<Ways>) {
        // One path and no FIB, as most routes of a reflector: there is nothing to compare.
        if let [only] = &*self.dests[id.slot()].paths
            && self.installs.is_none()
        {
            return ((!only.marks.rejected).then_some(only.used), None);
        }
        let usable = self.usable(id);
        let candidates: SmallVec<[Candidate<'_>; 4]> = usable
            .iter()
            .map(|entry| candidate(&self.paths, &self.dests[id.slot()].prefix, entry))
            .collect();
        let Some(best) = pick(&candidates) else {
            return (None, None);
        };
        let path = self.paths.get(usable[best].used);
        // Own routes are delivered here, unless they say otherwise; the FIB is not asked for them.
        let delivered = path.source == Source::Local && path.next_hop.is_none();
        if self.installs.is_none() || delivered {
            return (Some(usable[best].used), None);
        }
        let mut ways = SmallVec::new();
        if !path.blackhole {
            for index in sharing(&candidates, best, multipath) {
                ways.extend(self.paths.way(usable[index].used));
            }
            ways.sort_unstable();
            ways.dedup();
        }
        (Some(usable[best].used), Some(ways))
    }

    /// The FIB's answer; whether what peers are told has changed. Answers to changes that were
    /// replaced since are ignored.
    pub(super) fn answer(
        &mut self,
        id: DestId,
        seq: u64,
        failed: Option<String>,
        multipath: Multipath,
        out: &mut Vec<Action>,
    ) -> bool {
        let family = self.dests[id.slot()].prefix.family();
        let installs = self.installs.as_mut();
        installs.is_some_and(|installs| installs.answer(id, family, seq, failed))
            && self.reselect(id, multipath, Scope::All, out)
    }

    /// Where a route stands on its way to the FIB, without the words.
    pub(super) fn fib(&self, id: DestId) -> Fib {
        let installs = self.installs.as_ref();
        installs.map_or(Fib::None, |installs| installs.state(id))
    }

    /// Where a route stands on its way to the FIB.
    pub(super) fn fib_state(&self, id: DestId) -> FibState {
        let installs = self.installs.as_ref();
        installs.map_or(FibState::None, |installs| installs.describe(id))
    }

    /// How many routes the FIB has not yet answered for.
    pub(super) fn pending(&self) -> usize {
        self.installs.as_ref().map_or(0, Installs::pending)
    }

    /// Distinct sets of next hops that the FIB was asked for.
    pub(super) fn ways(&self) -> usize {
        self.installs.as_ref().map_or(0, Installs::ways)
    }

    /// How many routes stand where on their way to the FIB, by family.
    pub(super) fn fib_counts(&self) -> [FibCounts; Family::ALL.len()] {
        let installs = self.installs.as_ref();
        installs.map(Installs::counts).unwrap_or_default()
    }

    /// How often what peers are told has changed since the start, by family.
    pub(super) fn best_changes(&self) -> [u64; Family::ALL.len()] {
        self.best_changes
    }

    /// How many prefixes have a path that peers may be told, by family.
    pub(super) fn selected(&self) -> [usize; Family::ALL.len()] {
        self.selected
    }

    /// The best `limit` paths to a destination, most preferred first.
    pub(super) fn best(&self, id: DestId, limit: usize) -> SmallVec<[&Entry; 4]> {
        let mut left: SmallVec<[&Entry; 4]> = self.usable(id);
        let mut best = SmallVec::new();
        while best.len() < limit {
            let candidates: SmallVec<[Candidate<'_>; 4]> = left
                .iter()
                .map(|entry| candidate(&self.paths, &self.dests[id.slot()].prefix, entry))
                .collect();
            match pick(&candidates) {
                Some(at) => best.push(left.remove(at)),
                None => break,
            }
        }
        best
    }

    fn usable(&self, id: DestId) -> SmallVec<[&Entry; 4]> {
        let paths = self.dests[id.slot()].paths.iter();
        paths.filter(|entry| !entry.marks.rejected).collect()
    }

    /// Sets what peers are told; whether that is something else than before.
    fn announce(&mut self, id: DestId, told: Option<PathRef>) -> bool {
        let dest = &mut self.dests[id.slot()];
        if dest.announced == told {
            return false;
        }
        let family = dest.prefix.family().index();
        self.best_changes[family] += 1;
        self.selected[family] += usize::from(told.is_some());
        self.selected[family] -= usize::from(dest.announced.is_some());
        if let Some(told) = told {
            self.paths.hold(told);
        }
        if let Some(before) = std::mem::replace(&mut dest.announced, told) {
            self.paths.release(before);
        }
        true
    }

    /// Notes in the journal that a destination has changed.
    pub(super) fn note(&mut self, id: DestId) {
        self.dests[id.slot()].journal = self.journal.append(id);
    }

    /// One Adj-RIB-Out more has a word about a destination.
    pub(super) fn hold(&mut self, id: DestId) {
        let holders = &mut self.dests[id.slot()].holders;
        *holders = holders.saturating_add(1);
    }

    /// One Adj-RIB-Out less has a word about a destination.
    pub(super) fn unhold(&mut self, id: DestId) {
        self.dests[id.slot()].holders -= 1;
        self.drop_if_empty(id);
    }

    /// Forgets a destination of which nothing is left.
    pub(super) fn drop_if_empty(&mut self, id: DestId) {
        let dest = &mut self.dests[id.slot()];
        let empty = dest.standing == Standing::Live
            && dest.paths.is_empty()
            && dest.holders == 0
            && dest.announced.is_none()
            && !self
                .installs
                .as_ref()
                .is_some_and(|installs| installs.wants(id));
        if empty {
            dest.standing = Standing::Empty;
            self.empty += 1;
        }
    }
}

/// An entry as the decision about `prefix` sees it.
pub(super) fn candidate<'a>(paths: &'a Paths, prefix: &Prefix, entry: &Entry) -> Candidate<'a> {
    Candidate {
        rank: paths.rank(entry.used),
        id: entry.id,
        unconfirmed: entry.marks.validity.is_unconfirmed(),
        unreachable: !paths.leads_somewhere(entry.used, prefix),
        path: paths.get(entry.used),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(number: u32) -> Prefix {
        Prefix::v4(std::net::Ipv4Addr::from_bits(number << 8), 24).unwrap()
    }

    #[test]
    fn prefixes_are_found_while_others_come_and_go_and_the_index_is_seldom_made_anew() {
        const MANY: u32 = 10_000;
        let mut table = Table::new(Seed::new(7), false);
        for it in 0..MANY {
            table.find_or_add(number(it));
        }
        for it in 5..MANY {
            let dest = table.find(&number(it)).unwrap();
            table.drop_if_empty(dest);
        }
        table.rebuild_index();
        assert!(table.index.capacity() - table.len() >= MANY as usize / 2);
        for it in MANY..3 * MANY {
            let dest = table.find_or_add(number(it));
            assert_eq!(table.find(&number(it)), Some(dest));
            assert!((0..5).all(|kept| table.find(&number(kept)).is_some()));
            table.drop_if_empty(dest);
        }
        assert_eq!((table.len(), table.bound()), (5, MANY as usize));
    }

    #[test]
    fn a_prefix_that_comes_back_has_its_slot_again_and_is_not_there_meanwhile() {
        let mut table = Table::new(Seed::new(7), false);
        let (one, other) = (table.find_or_add(number(1)), table.find_or_add(number(2)));
        table.drop_if_empty(one);
        table.drop_if_empty(one);
        assert_eq!((table.len(), table.find(&number(1))), (1, None));
        assert_eq!(table.sorted(), [other]);
        assert_eq!(table.find_or_add(number(1)), one);
        assert_eq!((table.len(), table.find(&number(1))), (2, Some(one)));
    }

    #[test]
    fn a_destination_takes_little() {
        assert_eq!(size_of::<Entry>(), 16);
        assert_eq!(size_of::<Entries>(), 16);
        assert_eq!(size_of::<Dest>(), 48);
    }
}
