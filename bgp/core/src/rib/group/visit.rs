//! The comparison of what a destination is told with what it should be told.

use smallvec::SmallVec;

use super::Sources;
use super::reader::Delta;
use crate::rib::adj_out::{AdjOut, Told};
use crate::rib::egress::EgressConfig;
use crate::rib::exports::{ExportRef, Exports};
use crate::rib::installs::Fib;
use crate::rib::table::{DestId, Entry};
use crate::types::Nlri;

/// Compares what a destination is told with what it should be told.
pub(super) struct Visit<'a, 'b> {
    pub(super) told: &'a mut AdjOut,
    pub(super) exports: &'a mut Exports,
    pub(super) config: &'a EgressConfig,
    pub(super) sources: &'a mut Sources<'b>,
    pub(super) deltas: &'a mut Vec<Delta>,
}

impl Visit<'_, '_> {
    pub(super) fn dest(&mut self, dest: DestId, resend: bool) {
        let family = self.sources.table.dest(dest).prefix.family();
        if self.config.encode.add_path.contains(family) {
            self.several(dest, resend);
        } else {
            self.single(dest, resend);
        }
    }

    fn single(&mut self, id: DestId, resend: bool) {
        let table = &self.sources.table;
        let dest = table.dest(id);
        let prefix = dest.prefix;
        let new = dest
            .announced
            .and_then(|path| self.exports.of(&prefix, path, &table.paths, self.config));
        if new == self.told.single(id) && !(resend && new.is_some()) {
            new.into_iter().for_each(|new| self.exports.release(new));
            return;
        }
        let old = self.told.single(id);
        self.push(id, prefix.into(), old, new, resend);
        if let Some(old) = self.told.set_single(id, new, self.sources.table) {
            self.exports.release(old);
        }
    }

    fn several(&mut self, id: DestId, resend: bool) {
        let prefix = self.sources.table.dest(id).prefix;
        let new = self.exportable(id);
        let old: Told = self.told.several(id).into();
        let told = |told: &Told, id| {
            told.iter()
                .find(|(told, _)| *told == id)
                .map(|(_, export)| *export)
        };
        for (path_id, export) in &new {
            let before = told(&old, *path_id);
            if before != Some(*export) || resend {
                let nlri = Nlri {
                    prefix,
                    id: *path_id,
                };
                self.push(id, nlri, before, Some(*export), resend);
            }
        }
        for (path_id, export) in &old {
            if told(&new, *path_id).is_none() {
                let nlri = Nlri {
                    prefix,
                    id: *path_id,
                };
                self.push(id, nlri, Some(*export), None, false);
            }
        }
        for (_, export) in self.told.set_several(id, new, self.sources.table) {
            self.exports.release(export);
        }
    }

    fn push(
        &mut self,
        dest: DestId,
        nlri: Nlri,
        old: Option<ExportRef>,
        new: Option<ExportRef>,
        again: bool,
    ) {
        for export in [old, new].into_iter().flatten() {
            self.exports.hold(export);
        }
        if new.is_none() {
            self.sources.table.hold(dest);
        }
        self.deltas.push(Delta {
            dest,
            nlri,
            old,
            new,
            again,
        });
    }

    /// Everything that may be told about a destination, each held once.
    fn exportable(&mut self, id: DestId) -> Told {
        let table = &self.sources.table;
        let dest = table.dest(id);
        let fib = table.fib(id);
        let waiting = matches!(fib, Fib::Pending | Fib::Failed);
        let mut told = Told::new();
        let limit = self.config.told_paths[dest.prefix.family().index()];
        let entries: SmallVec<[&Entry; 4]> = match limit {
            Some(limit) if !waiting => table.best(id, limit.into()),
            _ => dest
                .paths
                .iter()
                .filter(|entry| !entry.marks.rejected)
                .collect(),
        };
        for entry in entries {
            let peer = table.paths.peer(entry.told);
            let path_id = self.sources.path_ids.of(peer, entry.id, table);
            let export = if waiting {
                // What the kernel lacks is not told; what was told goes on while the path is there.
                let before = self
                    .told
                    .several(id)
                    .iter()
                    .find(|(told, _)| *told == path_id);
                before.filter(|_| fib == Fib::Pending).map(|(_, export)| {
                    self.exports.hold(*export);
                    *export
                })
            } else {
                self.exports
                    .of(&dest.prefix, entry.used, &table.paths, self.config)
            };
            told.extend(export.map(|export| (path_id, export)));
        }
        told.sort_unstable();
        told
    }
}
