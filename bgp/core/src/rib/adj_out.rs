//! Adj-RIB-Out: what peers believe.
//!
//! Owns one export per destination, or several by path identifier where the session carries
//! several (RFC 7911). Does not own which peers these are.

use std::collections::HashMap;

use smallvec::SmallVec;

use crate::rib::exports::{ExportRef, Exports};
use crate::rib::hash::Seed;
use crate::rib::table::{DestId, Table};
use crate::types::PathId;

/// What was told about one destination of several paths, by identifier, ascending.
pub(super) type Told = SmallVec<[(PathId, ExportRef); 2]>;

/// What the peers of one reader believe. Each export in it is held once, and so is each destination.
#[derive(Debug)]
pub(super) struct AdjOut {
    /// By number of the destination.
    single: Vec<Option<ExportRef>>,
    several: HashMap<DestId, Told, Seed>,
    len: usize,
    /// How often each export is in it, by place: who asks for counts must not cost a walk through all.
    by_export: Vec<u32>,
}

impl AdjOut {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            single: Vec::new(),
            several: HashMap::with_hasher(seed),
            len: 0,
            by_export: Vec::new(),
        }
    }

    /// Whether nothing was told at all.
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many destinations something was told about.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// What was told about a destination of a family with one path each.
    pub(super) fn single(&self, dest: DestId) -> Option<ExportRef> {
        self.single.get(dest.slot()).copied().flatten()
    }

    /// What was told about a destination of a family with several paths each.
    pub(super) fn several(&self, dest: DestId) -> &[(PathId, ExportRef)] {
        self.several.get(&dest).map_or(&[], |told| &told[..])
    }

    /// How often an export is in it.
    pub(super) fn times(&self, export: ExportRef) -> usize {
        let times = self.by_export.get(export.slot()).copied();
        times.unwrap_or(0) as usize
    }

    /// Notes what is told from now on, and gives back what was told before, each with its hold.
    pub(super) fn set_single(
        &mut self,
        dest: DestId,
        told: Option<ExportRef>,
        table: &mut Table,
    ) -> Option<ExportRef> {
        if dest.slot() >= self.single.len() {
            self.single.resize(table.bound(), None);
        }
        let before = std::mem::replace(&mut self.single[dest.slot()], told);
        self.count(dest, before.is_some(), told.is_some(), table);
        self.tally(before, told);
        before
    }

    /// The same for a family with several paths each.
    pub(super) fn set_several(&mut self, dest: DestId, told: Told, table: &mut Table) -> Told {
        let some = !told.is_empty();
        self.tally(None, told.iter().map(|(_, export)| *export));
        let before = if some {
            self.several.insert(dest, told)
        } else {
            self.several.remove(&dest)
        };
        let before = before.unwrap_or_default();
        self.tally(before.iter().map(|(_, export)| *export), None);
        self.count(dest, !before.is_empty(), some, table);
        before
    }

    /// Counts exports that come in place of others.
    fn tally(
        &mut self,
        gone: impl IntoIterator<Item = ExportRef>,
        come: impl IntoIterator<Item = ExportRef>,
    ) {
        for export in come {
            let at = export.slot();
            if at >= self.by_export.len() {
                self.by_export.resize(at + 1, 0);
            }
            self.by_export[at] += 1;
        }
        for export in gone {
            self.by_export[export.slot()] -= 1;
        }
    }

    fn count(&mut self, dest: DestId, before: bool, after: bool, table: &mut Table) {
        match (before, after) {
            (false, true) => {
                self.len += 1;
                table.hold(dest);
            }
            (true, false) => {
                self.len -= 1;
                table.unhold(dest);
            }
            _ => {}
        }
    }

    /// Everything that was told.
    pub(super) fn iter(&self) -> impl Iterator<Item = (DestId, PathId, ExportRef)> {
        let single = self.single.iter().enumerate().filter_map(|(slot, told)| {
            let dest = DestId(u32::try_from(slot).ok()?);
            Some((dest, PathId::default(), (*told)?))
        });
        let several = self
            .several
            .iter()
            .flat_map(|(dest, told)| told.iter().map(|(id, export)| (*dest, *id, *export)));
        single.chain(several)
    }

    /// A copy with holds of its own.
    pub(super) fn duplicate(&self, exports: &mut Exports, table: &mut Table) -> Self {
        for (_, _, export) in self.iter() {
            exports.hold(export);
        }
        for dest in self.dests() {
            table.hold(dest);
        }
        Self {
            single: self.single.clone(),
            several: self.several.clone(),
            len: self.len,
            by_export: self.by_export.clone(),
        }
    }

    /// Gives back every hold.
    pub(super) fn dissolve(self, exports: &mut Exports, table: &mut Table) {
        for (_, _, export) in self.iter() {
            exports.release(export);
        }
        for dest in self.dests().collect::<Vec<_>>() {
            table.unhold(dest);
        }
    }

    fn dests(&self) -> impl Iterator<Item = DestId> {
        let single = self
            .single
            .iter()
            .enumerate()
            .filter_map(|(slot, told)| told.and_then(|_| u32::try_from(slot).ok().map(DestId)));
        single.chain(self.several.keys().copied())
    }
}
