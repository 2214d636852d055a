//! What a RIB holds, counted.
//!
//! Owns the counts. Does not own what is counted, nor how many octets each takes.

use crate::rib::machine::Rib;

/// How many values a RIB holds beside its prefixes ([`Rib::len`]): for those who count memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Distinct paths: what peers told, and what rules made of it.
    pub paths: usize,
    /// Distinct forms in which they are told on.
    pub exports: usize,
    /// Distinct sets of next hops that the FIB was asked for.
    pub ways: usize,
    /// Changes of prefixes that some peer has not yet read.
    pub journal: usize,
    /// Sets of peers that are told the same.
    pub groups: usize,
    /// Families of peers whose routes are stale.
    pub stale: usize,
    /// Families that peers are telling again.
    pub refreshing: usize,
    /// Sessions that still wait for an End-of-RIB of ours.
    pub owing: usize,
}

impl Rib {
    /// Counts, after letting go of what is only remembered to save work.
    pub fn footprint(&mut self) -> Footprint {
        self.trim_journal();
        let table = &self.table;
        let exports = self.groups.iter_mut().map(|group| group.footprint(table));
        Footprint {
            exports: exports.sum(),
            paths: self.table.paths.len(),
            ways: self.table.ways(),
            journal: self.table.journal.len(),
            groups: self.groups.len(),
            stale: self.stale.len(),
            refreshing: self.refreshing.len(),
            owing: self.owing.len(),
        }
    }
}
