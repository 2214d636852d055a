//! The table for those who follow it: stations that watch, and dumps.
//!
//! Owns looking up what [`crate::rib::Action::Changed`] names, and the way through the whole table for
//! those who begin. Does not own what followers make of it, nor what they have been told.

use std::sync::Arc;

use crate::rib::event::Changed;
use crate::rib::listing::Cursor;
use crate::rib::machine::Rib;
use crate::rib::path::{Path, PathPeer, PeerIndex, Source};
use crate::rib::table::{Dest, DestId};
use crate::types::{Family, Nlri, PathId, Prefix};

/// One path of one peer to one prefix.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EntryView<'a> {
    /// As the peer told it.
    pub told: &'a Path,
    /// As the import policy left it; `None` where it must not be used.
    pub used: Option<&'a Path>,
}

/// One path to a prefix as its source told it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToldPath {
    /// Which of the source's.
    pub id: PathId,
    /// What it told.
    pub path: Path,
}

impl Rib {
    /// What a peer tells, and what is made of it.
    pub fn entry(&self, peer: PeerIndex, nlri: &Nlri) -> Option<EntryView<'_>> {
        let dest = self.table.find(&nlri.prefix)?;
        let at = self.table.position(dest, Some(peer), nlri.id)?;
        let entry = self.table.dest(dest).paths[at];
        let used = (!entry.marks.rejected).then(|| self.table.paths.get(entry.used));
        Some(EntryView {
            told: self.table.paths.get(entry.told),
            used,
        })
    }

    /// The path that is used and told.
    pub fn selected(&self, prefix: &Prefix) -> Option<&Path> {
        let dest = self.table.dest(self.table.find(prefix)?);
        dest.announced.map(|path| self.table.paths.get(path))
    }

    /// Every path to a prefix as it was told, own route first, then by peer; those that must not be
    /// used are among them.
    pub fn told_paths(&self, prefix: &Prefix) -> Vec<ToldPath> {
        let Some(id) = self.table.find(prefix) else {
            return Vec::new();
        };
        let entries = self.ordered(self.table.dest(id)).into_iter();
        entries
            .map(|entry| ToldPath {
                id: entry.id,
                path: self.table.paths.get(entry.told).clone(),
            })
            .collect()
    }

    /// Names everything in `slots` slots of the table, as if it had just changed; where to go on,
    /// unless that was all. `advertised` names what each of `peers` has been told. Paths from before a
    /// restart of their peer are left out: it has not told them in this session.
    pub fn sweep(
        &self,
        from: Cursor,
        slots: u32,
        peers: &[PeerIndex],
        mut found: impl FnMut(Changed),
        mut advertised: impl FnMut(PeerIndex, Prefix),
    ) -> Option<Cursor> {
        let groups = peers
            .iter()
            .filter_map(|peer| Some((*peer, self.group_of(*peer)?)));
        let groups: Vec<_> = groups.collect();
        let (stretch, next) = self.stretch(from, slots);
        for id in stretch.map(DestId) {
            let dest = self.table.dest(id);
            self.name(dest, &mut found);
            for (peer, group) in &groups {
                if group.may_know(*peer, id) {
                    advertised(*peer, dest.prefix);
                }
            }
        }
        next
    }

    fn name(&self, dest: &Dest, found: &mut impl FnMut(Changed)) {
        let prefix = dest.prefix;
        for entry in dest.paths.iter().filter(|entry| !entry.marks.stale) {
            let nlri = Nlri {
                prefix,
                id: entry.id,
            };
            if let Some(peer) = self.table.paths.peer(entry.told) {
                found(Changed::Entry { peer, nlri });
            }
        }
        if dest.announced.is_some() {
            found(Changed::Selected(prefix));
        }
    }

    /// Every peer of which there may be a path, by index: those with a session, and those whose routes
    /// outlive theirs.
    pub fn path_peers(&self) -> Vec<Arc<PathPeer>> {
        let peers = self.peers.iter().filter_map(|(index, peer)| {
            let up = peer.session.as_ref();
            up.map(|session| Arc::clone(&session.path_peer))
                .or_else(|| self.path_peer_of(*index, peer.dests.iter().next()?))
        });
        peers.collect()
    }

    fn path_peer_of(&self, index: PeerIndex, dest: DestId) -> Option<Arc<PathPeer>> {
        let entries = self.table.dest(dest).paths.iter();
        let mut sources = entries.map(|entry| &self.table.paths.get(entry.told).source);
        sources.find_map(|source| match source {
            Source::Peer(peer) if peer.index == index => Some(Arc::clone(peer)),
            Source::Peer(_) | Source::Local => None,
        })
    }

    /// How many paths of a family a peer tells, and how many of these must not be used.
    pub fn tally(&self, peer: PeerIndex, family: Family) -> (usize, usize) {
        let counts = self.peers.get(&peer).map(|peer| peer.counts(family));
        let counts = counts.unwrap_or_default();
        (counts.received, counts.rejected)
    }

    /// How many prefixes of each family have a path that is used and told.
    pub fn selected_counts(&self) -> [usize; Family::ALL.len()] {
        self.table.selected()
    }

    /// How many prefixes the table has had room for: it keeps the room when they go.
    pub fn slots(&self) -> usize {
        self.table.bound()
    }

    /// How many paths peers tell, all in all.
    pub fn entry_count(&self) -> usize {
        let counts = self
            .peers
            .values()
            .flat_map(|peer| Family::ALL.map(|family| peer.counts(family).received));
        counts.sum()
    }
}
