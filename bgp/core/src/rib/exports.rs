//! What the peers of a group are told about paths, each told thing once.
//!
//! Owns the encoded form, behind handles of four octets, and how a path becomes one. Does not own who
//! was told what ([`super::adj_out`]).

use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;

use hashbrown::HashTable;

use crate::policy::Decision;
use crate::rib::accounts::{Accounts, Outcome, VaryingRef};
use crate::rib::egress::{EgressConfig, Exported, changed, permitted};
use crate::rib::hash::Seed;
use crate::rib::pages::Pages;
use crate::rib::path::PeerIndex;
use crate::rib::paths::{PathKey, PathRef, Paths};
use crate::types::{Family, Prefix};
use crate::wire::Announcement;

/// Stands for something that peers of the group were told, as long as somebody holds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ExportRef(NonZeroU32);

impl ExportRef {
    /// Its place among all that the group is told; given to another once nobody holds it.
    pub(super) fn slot(self) -> usize {
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
    slots: Pages<Option<Slot>>,
    free: Vec<ExportRef>,
    index: HashTable<ExportRef>,
    seed: Seed,
    accounts: Accounts,
}

impl Exports {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            slots: Pages::default(),
            free: Vec::new(),
            index: HashTable::new(),
            seed,
            accounts: Accounts::default(),
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
        let family = prefix.family();
        let key = paths.key(path);
        let outcome = match self.accounts.get(key, family) {
            Outcome::Unknown => self.judge(key, family, paths, config),
            known => known,
        };
        let export = match outcome {
            Outcome::Unknown | Outcome::Withheld => None,
            Outcome::Told(export) => Some(export),
            Outcome::Varying(at) => self.decide(at, prefix, path, paths, config),
        };
        if let Some(export) = export {
            self.hold(export);
        }
        export
    }

    /// Forgets what became of paths, for another configuration: what is held stays.
    pub(super) fn forget_paths(&mut self) {
        for export in std::mem::take(&mut self.accounts).dissolve() {
            self.release(export);
        }
    }

    /// Forgets what became of paths that are gone, once it is worth the work.
    pub(super) fn tidy(&mut self, paths: &Paths) {
        if self.accounts.is_sweep_due(paths) {
            self.sweep(paths);
        }
    }

    /// Everything that the group is told, or was when somebody last looked.
    pub(super) fn iter(&self) -> impl Iterator<Item = (ExportRef, &Export)> {
        let held = |at: &ExportRef| Some((*at, &self.slots[at.slot()].as_ref()?.export));
        self.index.iter().filter_map(held)
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

    /// Forgets what became of paths that are gone.
    pub(super) fn sweep(&mut self, paths: &Paths) {
        let mut released = Vec::new();
        self.accounts.sweep(paths, &mut released);
        for export in released {
            self.release(export);
        }
    }

    /// What becomes of a path that was not asked for yet.
    fn judge(
        &mut self,
        key: PathKey,
        family: Family,
        paths: &Paths,
        config: &EgressConfig,
    ) -> Outcome {
        self.tidy(paths);
        let path = paths.get(key.0);
        let outcome = if permitted(family, path, config).is_err() {
            Outcome::Withheld
        } else {
            let narrowed = config.policy.narrow(family, &config.facts(path));
            match narrowed.settled() {
                Some(decision) => self
                    .make(key.0, family, decision, paths, config)
                    .map_or(Outcome::Withheld, Outcome::Told),
                None => Outcome::Varying(self.accounts.add_varying(narrowed)),
            }
        };
        let mut released = Vec::new();
        self.accounts.set(key, family, outcome, &mut released);
        for export in released {
            self.release(export);
        }
        outcome
    }

    /// What becomes of a path where it leads to `prefix`.
    fn decide(
        &mut self,
        at: VaryingRef,
        prefix: &Prefix,
        path: PathRef,
        paths: &Paths,
        config: &EgressConfig,
    ) -> Option<ExportRef> {
        let facts = config.facts(paths.get(path));
        let varying = self.accounts.varying(at);
        let decision = config.policy.decide(&varying.narrowed, prefix, &facts);
        if !decision.accepts() {
            return None;
        }
        let made = varying
            .made
            .iter()
            .find(|(operations, _)| *operations == decision.operations);
        if let Some((_, export)) = made {
            return *export;
        }
        let export = self.make(path, prefix.family(), &decision, paths, config);
        let made = &mut self.accounts.varying(at).made;
        made.push((decision.operations, export));
        export
    }

    /// Makes of a path what a decision says; `None` when that is nothing, or cannot be told.
    fn make(
        &mut self,
        path: PathRef,
        family: Family,
        decision: &Decision,
        paths: &Paths,
        config: &EgressConfig,
    ) -> Option<ExportRef> {
        if !decision.accepts() {
            return None;
        }
        let told = paths.get(path);
        let Exported {
            attributes,
            next_hop,
        } = changed(family, told, decision, config).ok()?;
        let announcement = Announcement::new(&attributes, &next_hop, family, config.encode).ok()?;
        Some(self.intern(Export {
            announcement,
            source: told.source.index(),
            next_hop: next_hop.addr(),
        }))
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
