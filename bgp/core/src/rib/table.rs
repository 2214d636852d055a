//! All paths to all prefixes, what was selected, and where it stands on its way to the FIB.
//!
//! Owns the Adj-RIBs-In and the Loc-RIB in one structure: an entry per prefix holds every peer's
//! path, so that a peer's Adj-RIB-In is the set of prefixes where it has one. Does not own which
//! peers there are nor when selection may run.

use std::collections::{BTreeMap, BTreeSet};

use crate::rib::best::{Multipath, Selection, best_path};
use crate::rib::event::{Action, Forward};
use crate::rib::path::{Path, PeerIndex, Source};
use crate::types::Prefix;

/// Everything known about one prefix.
#[derive(Clone, Debug, Default)]
pub(super) struct Entry {
    /// At most one path per source, own route first, then by peer.
    pub(super) paths: Vec<Path>,
    pub(super) selection: Option<Selection>,
    /// What the FIB was last asked for.
    pub(super) forward: Option<Vec<Forward>>,
    pub(super) fib: FibState,
    /// Number of the last change that the FIB was asked for.
    seq: u64,
    /// What peers are told, policies permitting: behind the selection while the FIB works.
    pub(super) announced: Option<Path>,
}

/// Where a route stands on its way to the FIB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum FibState {
    /// There is nothing to install.
    #[default]
    None,
    /// Asked for, not yet answered.
    Pending,
    /// Acknowledged.
    Installed,
    /// Refused, with the reason.
    Failed(String),
}

/// The table of one RIB.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) entries: BTreeMap<Prefix, Entry>,
    /// Prefixes whose route the FIB has not yet answered for.
    pending: BTreeSet<Prefix>,
    last_seq: u64,
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

impl Table {
    /// Puts `path` in place of what its source said of `prefix` before.
    pub(super) fn insert(&mut self, prefix: Prefix, path: Path) {
        let paths = &mut self.entries.entry(prefix).or_default().paths;
        match paths.binary_search_by_key(&path.source.index(), |path| path.source.index()) {
            Ok(at) => paths[at] = path,
            Err(at) => paths.insert(at, path),
        }
    }

    /// Takes away what `source` said of `prefix`; whether it had said anything.
    pub(super) fn remove(&mut self, prefix: &Prefix, source: Option<PeerIndex>) -> bool {
        let Some(entry) = self.entries.get_mut(prefix) else {
            return false;
        };
        let before = entry.paths.len();
        entry.paths.retain(|path| path.source.index() != source);
        entry.paths.len() < before
    }

    /// The path that `source` told for `prefix`.
    pub(super) fn path_mut(&mut self, prefix: &Prefix, source: PeerIndex) -> Option<&mut Path> {
        self.entries
            .get_mut(prefix)?
            .paths
            .iter_mut()
            .find(|path| path.source.index() == Some(source))
    }

    /// Selects anew for `prefix`; whether what peers are told has changed.
    pub(super) fn reselect(
        &mut self,
        prefix: Prefix,
        multipath: Multipath,
        scope: Scope,
        out: &mut Vec<Action>,
    ) -> bool {
        let Some(entry) = self.entries.get_mut(&prefix) else {
            return false;
        };
        let selection = best_path(&entry.paths, multipath);
        let own = selection
            .as_ref()
            .is_some_and(|selection| entry.paths[selection.best].source == Source::Local);
        if scope == Scope::OwnRoutes && !own {
            // The prefix may just have lost our own route: that withdrawal does not wait.
            entry.selection = None;
            let changed = self.announce(prefix, None);
            self.drop_if_empty(prefix);
            return changed;
        }
        let forward = selection
            .as_ref()
            .and_then(|selection| forward(&entry.paths, selection));
        let best = selection
            .as_ref()
            .map(|selection| entry.paths[selection.best].clone());
        entry.selection = selection;

        if forward != entry.forward {
            self.last_seq += 1;
            entry.seq = self.last_seq;
            entry.forward.clone_from(&forward);
            if forward.is_some() {
                entry.fib = FibState::Pending;
                self.pending.insert(prefix);
            } else {
                entry.fib = FibState::None;
                self.pending.remove(&prefix);
            }
            out.push(Action::Fib {
                prefix,
                forward,
                seq: self.last_seq,
            });
        }
        let told = match (&entry.fib, best) {
            // Traffic for a route that the kernel lacks would be lost here: peers keep what they
            // were told before until the FIB answers. A withdrawal never waits.
            (FibState::Pending, Some(_)) => entry.announced.clone(),
            (FibState::Failed(_), Some(_)) => None,
            (_, best) => best,
        };
        let changed = self.announce(prefix, told);
        self.drop_if_empty(prefix);
        changed
    }

    /// The FIB's answer; whether what peers are told has changed. Answers to changes that were
    /// replaced since are ignored.
    pub(super) fn answer(&mut self, prefix: Prefix, seq: u64, failed: Option<String>) -> bool {
        let Some(entry) = self.entries.get_mut(&prefix) else {
            return false;
        };
        if entry.seq != seq || entry.forward.is_none() {
            return false;
        }
        self.pending.remove(&prefix);
        let told = match failed {
            Some(why) => {
                entry.fib = FibState::Failed(why);
                None
            }
            None => {
                entry.fib = FibState::Installed;
                entry
                    .selection
                    .as_ref()
                    .map(|selection| entry.paths[selection.best].clone())
            }
        };
        self.announce(prefix, told)
    }

    /// How many routes the FIB has not yet answered for.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    fn announce(&mut self, prefix: Prefix, told: Option<Path>) -> bool {
        let Some(entry) = self.entries.get_mut(&prefix) else {
            return false;
        };
        if entry.announced == told {
            return false;
        }
        entry.announced = told;
        true
    }

    fn drop_if_empty(&mut self, prefix: Prefix) {
        let empty = self.entries.get(&prefix).is_some_and(|entry| {
            entry.paths.is_empty() && entry.forward.is_none() && entry.announced.is_none()
        });
        if empty {
            self.entries.remove(&prefix);
        }
    }
}

/// Where packets go; `None` for own routes, which the FIB is not asked for.
fn forward(paths: &[Path], selection: &Selection) -> Option<Vec<Forward>> {
    let mut ways: Vec<Forward> = selection
        .multipath
        .iter()
        .filter_map(|index| {
            let path = &paths[*index];
            Some(Forward {
                next_hop: path.next_hop?,
                interface: path.source.peer().and_then(|peer| peer.interface),
            })
        })
        .collect();
    ways.sort_unstable();
    ways.dedup();
    (!ways.is_empty()).then_some(ways)
}
