//! The identifiers under which paths are told on (RFC 7911 §3): ours to choose, and the same for a
//! path as long as its source tells it.

use std::collections::{HashMap, HashSet};

use crate::rib::hash::Seed;
use crate::rib::path::PeerIndex;
use crate::rib::table::Table;
use crate::types::PathId;

/// Identifiers may exceed twice those in use by this before they are swept.
const SWEEP_SLACK: usize = 1024;

/// Who tells a path, a peer or we ourselves, and what that one calls it.
type Origin = (Option<PeerIndex>, PathId);

/// Identifiers by origin.
///
/// One that is given to another origin does no harm to a peer that still knows it under the old
/// meaning: it is told the difference like any other.
#[derive(Debug)]
pub(super) struct PathIds {
    ids: HashMap<Origin, PathId, Seed>,
    free: Vec<PathId>,
    /// How many were in use when they were last swept.
    living: usize,
}

impl PathIds {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            ids: HashMap::with_hasher(seed),
            free: Vec::new(),
            living: 0,
        }
    }

    /// The identifier of the path that `peer` tells under `id`. Never zero, which some speakers
    /// take for none.
    pub(super) fn of(&mut self, peer: Option<PeerIndex>, id: PathId, table: &Table) -> PathId {
        if let Some(found) = self.ids.get(&(peer, id)) {
            return *found;
        }
        // Doubling before each sweep keeps its cost constant per identifier.
        if self.ids.len() >= 2 * self.living + SWEEP_SLACK {
            self.sweep(table);
        }
        let fresh = || PathId(u32::try_from(self.ids.len() + 1).unwrap_or(u32::MAX));
        let given = self.free.pop().unwrap_or_else(fresh);
        self.ids.insert((peer, id), given);
        given
    }

    fn sweep(&mut self, table: &Table) {
        let entries = table.iter().flat_map(|(_, dest)| dest.paths.iter());
        let living: HashSet<Origin> = entries
            .map(|entry| (table.paths.peer(entry.told), entry.id))
            .collect();
        let free = &mut self.free;
        self.ids.retain(|origin, id| {
            let lives = living.contains(origin);
            if !lives {
                free.push(*id);
            }
            lives
        });
        self.living = self.ids.len();
    }
}
