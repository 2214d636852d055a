//! What the peers of a group are told about paths, each told thing once.
//!
//! Owns the encoded form, behind handles of four octets, and the memory of which path became which.
//! Does not own who was told what ([`super::adj_out`]).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;

use hashbrown::HashTable;

use crate::rib::egress::{EgressConfig, Withheld, export};
use crate::rib::hash::Seed;
use crate::rib::path::PeerIndex;
use crate::rib::paths::{PathKey, PathRef, Paths};
use crate::types::{Family, Prefix};
use crate::wire::Announcement;

/// Stands for something that peers of the group were told, as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ExportRef(NonZeroU32);

impl ExportRef {
    fn slot(self) -> usize {
        self.0.get() as usize - 1
    }
}

/// One thing that peers are told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Export {
    pub(super) announcement: Announcement,
    /// Who told us: the one peer who is not told.
    pub(super) source: Option<PeerIndex>,
    /// Where it leads: the peer with that address is not told either.
    pub(super) next_hop: IpAddr,
}

#[derive(Debug)]
struct Slot {
    export: Export,
    hash: u64,
    holders: u32,
}

/// What is told to a group.
#[derive(Debug)]
pub(super) struct Exports {
    slots: Vec<Option<Slot>>,
    free: Vec<ExportRef>,
    index: HashTable<ExportRef>,
    seed: Seed,
    /// What became of paths; holds what it names.
    known: HashMap<KnownKey, Option<ExportRef>, Seed>,
    /// The last lookup: neighbours in the journal mostly share their path.
    last: Option<(KnownKey, Option<ExportRef>)>,
    /// Entries of `known` that were of living paths when it was last swept.
    living: usize,
}

/// One path leads to prefixes of both families, and looks different to peers in each.
type KnownKey = (PathKey, Family);

/// `known` may exceed twice its living entries by this before it is swept.
const SWEEP_SLACK: usize = 1024;

impl Exports {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashTable::new(),
            seed,
            known: HashMap::with_hasher(seed),
            last: None,
            living: 0,
        }
    }

    /// What the group is told about `prefix` when `path` leads there; held once more.
    pub(super) fn of(
        &mut self,
        prefix: &Prefix,
        path: PathRef,
        paths: &Paths,
        config: &EgressConfig,
    ) -> Option<ExportRef> {
        if config.admits(prefix).is_err() {
            return None;
        }
        let key = (paths.key(path), prefix.family());
        let found = match self.last {
            Some((last, export)) if last == key => export,
            _ => match self.known.get(&key) {
                Some(export) => *export,
                None => self.learn(prefix, key, paths, config),
            },
        };
        self.last = Some((key, found));
        if let Some(export) = found {
            self.hold(export);
        }
        found
    }

    /// Forgets what became of paths, for another configuration: what is held stays.
    pub(super) fn forget_paths(&mut self) {
        self.last = None;
        for export in std::mem::take(&mut self.known).into_values().flatten() {
            self.release(export);
        }
        self.known = HashMap::with_hasher(self.seed);
    }

    pub(super) fn get(&self, at: ExportRef) -> &Export {
        &self.slot(at).export
    }

    /// The one copy of `export`, held once more.
    pub(super) fn intern(&mut self, export: Export) -> ExportRef {
        let hash = self.seed.hash_one(&export);
        let slots = &self.slots;
        let equal = |at: &ExportRef| {
            slots[at.slot()]
                .as_ref()
                .is_some_and(|slot| slot.hash == hash && slot.export == export)
        };
        if let Some(found) = self.index.find(hash, equal).copied() {
            self.hold(found);
            return found;
        }
        let slot = Some(Slot {
            export,
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
                let number = u32::try_from(self.slots.len())
                    .ok()
                    .and_then(NonZeroU32::new);
                ExportRef(number.expect("memory ends before four billion exports do"))
            }
        };
        let slots = &self.slots;
        let rehash = |at: &ExportRef| slots[at.slot()].as_ref().map_or(0, |slot| slot.hash);
        self.index.insert_unique(hash, at, rehash);
        at
    }

    pub(super) fn hold(&mut self, at: ExportRef) {
        self.slot_mut(at).holders += 1;
    }

    /// Gives a hold back; the last one ends the export.
    pub(super) fn release(&mut self, at: ExportRef) {
        let slot = self.slot_mut(at);
        slot.holders -= 1;
        if slot.holders > 0 {
            return;
        }
        let hash = slot.hash;
        if let Ok(entry) = self.index.find_entry(hash, |found| *found == at) {
            entry.remove();
        }
        self.slots[at.slot()] = None;
        self.free.push(at);
    }

    /// How many are held.
    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Drops what became of paths that are gone.
    pub(super) fn sweep(&mut self, paths: &Paths) {
        self.last = None;
        let mut gone = Vec::new();
        self.known.retain(|key, export| {
            let lives = paths.lives(key.0);
            if !lives {
                gone.extend(*export);
            }
            lives
        });
        self.known.shrink_to(2 * self.known.len());
        for export in gone {
            self.release(export);
        }
        self.living = self.known.len();
    }

    fn learn(
        &mut self,
        prefix: &Prefix,
        key: KnownKey,
        paths: &Paths,
        config: &EgressConfig,
    ) -> Option<ExportRef> {
        // Doubling before each sweep keeps its cost constant per path.
        if self.known.len() >= 2 * self.living + SWEEP_SLACK {
            self.sweep(paths);
        }
        let ((path, _), family) = key;
        let told = paths.get(path);
        let export = export(prefix, told, config).and_then(|exported| {
            let announcement = Announcement::new(
                &exported.attributes,
                &exported.next_hop,
                family,
                config.encode,
            )
            .map_err(|_| Withheld::TooLong)?;
            Ok(Export {
                announcement,
                source: told.source.index(),
                next_hop: exported.next_hop.addr(),
            })
        });
        let export = export.ok().map(|export| self.intern(export));
        self.known.insert(key, export);
        export
    }

    fn slot(&self, at: ExportRef) -> &Slot {
        self.slots[at.slot()]
            .as_ref()
            .expect("a handle outlives no hold on it")
    }

    fn slot_mut(&mut self, at: ExportRef) -> &mut Slot {
        self.slots[at.slot()]
            .as_mut()
            .expect("a handle outlives no hold on it")
    }
}
