//! What the peers of a group are told about paths, each told thing once.
//!
//! Owns the encoded form, behind handles of four octets, and the memory of which path became which.
//! Does not own who was told what ([`super::adj_out`]).

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::num::NonZeroU32;

use hashbrown::HashTable;
use smallvec::SmallVec;

use crate::policy::{Decision, Narrowed, Operations};
use crate::rib::egress::{EgressConfig, Exported, Withheld, changed, permitted};
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
    /// What became of paths, by their places in `accounts`.
    known: HashMap<KnownKey, usize, Seed>,
    accounts: Vec<Account>,
    /// The last lookup: neighbours in the journal mostly share their path.
    last: Option<(KnownKey, usize)>,
    /// Entries of `known` that were of living paths when it was last swept.
    living: usize,
}

/// What became of one path.
#[derive(Debug)]
struct Account {
    /// What is left of the policy; `None` when the path may not be told whatever the prefix.
    narrowed: Option<Narrowed>,
    /// What was made of the path, by the operations that did it; held. `None` when it cannot be told
    /// so.
    exports: SmallVec<[(Operations, Option<ExportRef>); 1]>,
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
            accounts: Vec::new(),
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
        let key = (paths.key(path), prefix.family());
        let at = match self.last {
            Some((last, at)) if last == key => at,
            _ => match self.known.get(&key) {
                Some(at) => *at,
                None => self.learn(key, paths, config),
            },
        };
        self.last = Some((key, at));
        let account = &self.accounts[at];
        let narrowed = account.narrowed.as_ref()?;
        let undecided;
        let decision = match narrowed.settled() {
            Some(decision) => decision,
            None => {
                let facts = config.facts(paths.get(path));
                undecided = config.policy.decide(narrowed, prefix, &facts);
                &undecided
            }
        };
        if !decision.accepts() {
            return None;
        }
        let made = account
            .exports
            .iter()
            .find(|(operations, _)| *operations == decision.operations);
        let export = match made {
            Some((_, export)) => *export,
            None => {
                let decision = decision.clone();
                self.make(at, path, prefix.family(), &decision, paths, config)
            }
        };
        if let Some(export) = export {
            self.hold(export);
        }
        export
    }

    /// Forgets what became of paths, for another configuration: what is held stays.
    pub(super) fn forget_paths(&mut self) {
        self.last = None;
        self.known = HashMap::with_hasher(self.seed);
        for account in std::mem::take(&mut self.accounts) {
            self.close(account);
        }
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
        let mut accounts: Vec<Option<Account>> = std::mem::take(&mut self.accounts)
            .into_iter()
            .map(Some)
            .collect();
        let kept = &mut self.accounts;
        self.known.retain(|key, at| {
            let account = paths.lives(key.0).then(|| accounts[*at].take()).flatten();
            account.is_some_and(|account| {
                *at = kept.len();
                kept.push(account);
                true
            })
        });
        self.known.shrink_to(2 * self.known.len());
        for account in accounts.into_iter().flatten() {
            self.close(account);
        }
        self.living = self.known.len();
    }

    fn close(&mut self, account: Account) {
        for export in account.exports.into_iter().filter_map(|(_, export)| export) {
            self.release(export);
        }
    }

    /// Opens the account of a path.
    fn learn(&mut self, key: KnownKey, paths: &Paths, config: &EgressConfig) -> usize {
        // Doubling before each sweep keeps its cost constant per path.
        if self.known.len() >= 2 * self.living + SWEEP_SLACK {
            self.sweep(paths);
        }
        let ((path, _), family) = key;
        let path = paths.get(path);
        let permitted = permitted(family, path, config).is_ok();
        let narrowed = permitted.then(|| config.policy.narrow(family, &config.facts(path)));
        self.accounts.push(Account {
            narrowed,
            exports: SmallVec::new(),
        });
        let at = self.accounts.len() - 1;
        self.known.insert(key, at);
        at
    }

    /// Makes of a path what a decision says.
    fn make(
        &mut self,
        at: usize,
        path: PathRef,
        family: Family,
        decision: &Decision,
        paths: &Paths,
        config: &EgressConfig,
    ) -> Option<ExportRef> {
        let told = paths.get(path);
        let export = changed(family, told, decision, config).and_then(|exported| {
            let Exported {
                attributes,
                next_hop,
            } = exported;
            let announcement = Announcement::new(&attributes, &next_hop, family, config.encode)
                .map_err(|_| Withheld::TooLong)?;
            Ok(Export {
                announcement,
                source: told.source.index(),
                next_hop: next_hop.addr(),
            })
        });
        let export = export.ok().map(|export| self.intern(export));
        let operations = decision.operations.clone();
        self.accounts[at].exports.push((operations, export));
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
