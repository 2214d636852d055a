//! Update groups: peers with equal export configuration share the work of being told.
//!
//! Owns the readers of a group: sets of peers that have been told exactly the same so far. A reader
//! goes through the journal at its own pace and cuts what changed into chunks of messages, encoded
//! once; its members take each chunk when they have written the one before. A new peer, or one that
//! fell far behind, is a reader of its own until it has caught up, and joins the others then. Does
//! not own when a peer takes more. What a peer knows at a moment is told in [`told`].

mod reader;
mod told;
mod visit;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;

use crate::rib::adj_out::{AdjOut, Told};
use crate::rib::egress::EgressConfig;
use crate::rib::exports::{Export, ExportRef, Exports};
use crate::rib::hash::Seed;
use crate::rib::path::PeerIndex;
use crate::rib::path_ids::PathIds;
use crate::rib::table::{DestId, Table};
use crate::types::{Family, FamilySet, Nlri, PathId};
use reader::{Chunk, Member, Position, Reader, excludes, revert};
use visit::Visit;

/// Names a reader of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct ReaderId(u32);

/// Peers with equal export configuration.
#[derive(Debug)]
pub(super) struct Group {
    config: Arc<EgressConfig>,
    exports: Exports,
    readers: BTreeMap<ReaderId, Reader>,
    next_reader: u32,
    /// The reader of each member.
    places: BTreeMap<PeerIndex, ReaderId>,
    seed: Seed,
    /// Changes in the chunks that a reader keeps for its slowest member, where they are more than a quarter
    /// of what was told. Beyond it the member has to read on its own, so that it costs the others nothing and
    /// memory stays bounded.
    log_limit: usize,
}

/// What the parts of the RIB are to a group that reads them.
pub(super) struct Sources<'a> {
    pub(super) table: &'a mut Table,
    pub(super) path_ids: &'a mut PathIds,
}

impl Group {
    pub(super) fn new(config: Arc<EgressConfig>, seed: Seed, log_limit: usize) -> Self {
        Self {
            config,
            exports: Exports::new(seed),
            readers: BTreeMap::new(),
            next_reader: 0,
            places: BTreeMap::new(),
            seed,
            log_limit,
        }
    }

    pub(super) fn config(&self) -> &Arc<EgressConfig> {
        &self.config
    }

    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    pub(super) fn members(&self) -> impl Iterator<Item = PeerIndex> {
        self.places.keys().copied()
    }

    /// Takes in a peer that has been told nothing yet.
    pub(super) fn join(&mut self, peer: PeerIndex, address: IpAddr, table: &Table) {
        let fresh = self
            .readers
            .iter()
            .find(|(_, reader)| reader.is_fresh())
            .map(|(id, _)| *id);
        let id = fresh.unwrap_or_else(|| {
            let told = AdjOut::new(self.seed);
            self.add(Reader::new(told, Position::sweep(table, FamilySet::EMPTY)))
        });
        self.enter(id, peer, address);
    }

    /// Takes in a peer that comes from another group of the same speaker, and knows what that told
    /// it: it is told the difference, and all of the families of which it still was to be told all.
    pub(super) fn join_from(
        &mut self,
        peer: PeerIndex,
        address: IpAddr,
        (believed, resend): (Vec<(DestId, Nlri, Export)>, FamilySet),
        table: &mut Table,
    ) {
        let mut told = AdjOut::new(self.seed);
        let mut several: BTreeMap<DestId, Told> = BTreeMap::new();
        for (dest, nlri, export) in believed {
            let export = self.exports.intern(export);
            if self.config.encode.add_path.contains(nlri.prefix.family()) {
                several.entry(dest).or_default().push((nlri.id, export));
            } else if let Some(before) = told.set_single(dest, Some(export), table) {
                self.exports.release(before);
            }
        }
        for (dest, mut paths) in several {
            paths.sort_unstable();
            told.set_several(dest, paths, table);
        }
        let id = self.add(Reader::new(told, Position::sweep(table, resend)));
        self.enter(id, peer, address);
    }

    /// Families that a member is being told again, and has not wholly been.
    pub(super) fn resending(&self, peer: PeerIndex) -> FamilySet {
        let Some((reader, member)) = self.place(peer) else {
            return FamilySet::EMPTY;
        };
        let chunks = reader.untaken(member).map(|chunk| chunk.from);
        let positions = chunks.chain([reader.position]);
        let families = positions.flat_map(|position| position.resend().iter().collect::<Vec<_>>());
        families.collect()
    }

    /// What a member believes.
    pub(super) fn believed(&self, peer: PeerIndex, table: &Table) -> Vec<(DestId, Nlri, Export)> {
        let Some((reader, member)) = self.place(peer) else {
            return Vec::new();
        };
        let mut believed: BTreeMap<(DestId, PathId), ExportRef> = reader
            .told
            .iter()
            .map(|(dest, id, export)| ((dest, id), export))
            .collect();
        for delta in reader
            .untaken(member)
            .flat_map(|chunk| chunk.deltas.iter().rev())
        {
            let key = (delta.dest, delta.nlri.id);
            match delta.old {
                Some(old) => believed.insert(key, old),
                None => believed.remove(&key),
            };
        }
        believed
            .into_iter()
            .map(|((dest, id), export)| {
                let prefix = table.dest(dest).prefix;
                (dest, Nlri { prefix, id }, self.exports.get(export).clone())
            })
            .filter(|(_, _, export)| !excludes(export, peer, member.address))
            .collect()
    }

    /// Lets a peer go.
    pub(super) fn leave(&mut self, peer: PeerIndex, table: &mut Table) {
        if let Some(id) = self.places.remove(&peer) {
            self.take_out(id, peer, table);
        }
    }

    /// Takes over another configuration, for all its members: what they believe is compared anew.
    pub(super) fn reconfigure(&mut self, config: Arc<EgressConfig>, table: &Table) {
        self.config = config;
        self.exports.forget_paths();
        for reader in self.readers.values_mut() {
            // Who was being told everything again still is: what it is not told before the end of the
            // refresh, it forgets (RFC 7313 §4.2).
            let again = |position: Position| Position::sweep(table, position.resend());
            reader.position = again(reader.position);
            // A member that has to leave from there has not seen the new configuration either.
            for chunk in &mut reader.log {
                chunk.from = again(chunk.from);
            }
        }
    }

    /// Has a member told everything of a family again, from a reader of its own.
    pub(super) fn resend(&mut self, peer: PeerIndex, family: Family, table: &mut Table) {
        let Some(id) = self.split(peer, table) else {
            return;
        };
        if let Some(reader) = self.readers.get_mut(&id) {
            let mut families = reader.position.resend();
            families.insert(family);
            reader.position = Position::sweep(table, families);
        }
    }

    /// The next messages for a member, about as many as `budget` changes take; `None` when it has
    /// been told everything. There may be no octets in them, where no change is for this peer.
    pub(super) fn next(
        &mut self,
        peer: PeerIndex,
        sources: &mut Sources<'_>,
        budget: usize,
    ) -> Option<Bytes> {
        let id = *self.places.get(&peer)?;
        let (reader, member) = self.place(peer)?;
        if member.next == reader.log_end() && !self.read(id, sources, budget) {
            return None;
        }
        let reader = self.readers.get_mut(&id)?;
        let octets = reader.take(peer, &self.exports, &self.config, budget);
        reader.trim(&mut self.exports, sources.table);
        self.drop_laggards(id, sources.table);
        octets
    }

    /// Joins the reader of a member that has been told everything with another one of which the
    /// same is true.
    pub(super) fn merge(&mut self, peer: PeerIndex, sources: &mut Sources<'_>, budget: usize) {
        let end = Position::Journal(sources.table.journal.end());
        let Some(id) = self.places.get(&peer).copied() else {
            return;
        };
        let told_all = |reader: &Reader| reader.log.is_empty() && reader.position == end;
        if self.readers.len() == 1 || !self.readers.get(&id).is_some_and(told_all) {
            return;
        }
        let others = self.readers.iter().filter(|(other, _)| **other != id);
        let largest =
            others.max_by_key(|(_, reader)| (reader.position == end, reader.members.len()));
        let Some(other) = largest.map(|(other, _)| *other) else {
            return;
        };
        // The others would have to read on to there anyway.
        while self.readers[&other].log_size < self.log_limit / 2
            && self.read(other, sources, budget)
        {}
        let target = &self.readers[&other];
        if target.position != end {
            return;
        }
        let next = target.log_end();
        let Some(reader) = self.readers.remove(&id) else {
            return;
        };
        reader.told.dissolve(&mut self.exports, sources.table);
        for (peer, member) in reader.members {
            self.enter(other, peer, member.address);
        }
        debug_assert_eq!(self.readers[&other].log_end(), next);
    }

    /// The earliest position in the journal from which a reader will read.
    pub(super) fn slowest(&self) -> Option<u64> {
        let positions = self.readers.values().map(|reader| match reader.position {
            Position::Sweep { then, .. } => then,
            Position::Journal(position) => position,
        });
        positions.min()
    }

    /// How many exports are held, those that only the memory of paths holds aside.
    pub(super) fn footprint(&mut self, table: &Table) -> usize {
        self.exports.sweep(&table.paths);
        self.exports.len()
    }

    fn add(&mut self, reader: Reader) -> ReaderId {
        let id = ReaderId(self.next_reader);
        self.next_reader += 1;
        self.readers.insert(id, reader);
        id
    }

    fn enter(&mut self, id: ReaderId, peer: PeerIndex, address: IpAddr) {
        if let Some(reader) = self.readers.get_mut(&id) {
            let next = reader.log_end();
            reader.members.insert(peer, Member { address, next });
            self.places.insert(peer, id);
        }
    }

    fn place(&self, peer: PeerIndex) -> Option<(&Reader, &Member)> {
        let reader = self.readers.get(self.places.get(&peer)?)?;
        Some((reader, reader.members.get(&peer)?))
    }

    /// Reads on until `budget` changes are found or nothing is left, and puts them into the log;
    /// whether there were any.
    fn read(&mut self, id: ReaderId, sources: &mut Sources<'_>, budget: usize) -> bool {
        let Some(reader) = self.readers.get_mut(&id) else {
            return false;
        };
        let from = reader.position;
        let mut deltas = Vec::new();
        while deltas.len() < budget {
            let Some((dest, resend)) = reader.advance(sources.table) else {
                break;
            };
            let mut visit = Visit {
                told: &mut reader.told,
                exports: &mut self.exports,
                config: &self.config,
                sources,
                deltas: &mut deltas,
            };
            visit.dest(dest, resend);
        }
        if deltas.is_empty() {
            self.exports.tidy(&sources.table.paths);
            return false;
        }
        let left = reader.members.len();
        reader.log_size += deltas.len();
        let chunk = Chunk::new(from, deltas, left, &self.exports);
        reader.log.push_back(chunk);
        true
    }

    /// Gives the members that hold up the log readers of their own.
    fn drop_laggards(&mut self, id: ReaderId, table: &mut Table) {
        while let Some(reader) = self.readers.get(&id) {
            // A reader of its own costs a copy of all that was told: that is not made for a small part of it.
            let limit = self.log_limit.max(reader.told.len() / 4);
            if reader.log_size <= limit || reader.members.len() < 2 {
                return;
            }
            let laggards: Vec<PeerIndex> = reader
                .members
                .iter()
                .filter(|(_, member)| member.next == reader.log_start)
                .map(|(peer, _)| *peer)
                .collect();
            for peer in laggards {
                self.split(peer, table);
            }
        }
    }

    /// Gives a member a reader of its own, which begins where the member is.
    fn split(&mut self, peer: PeerIndex, table: &mut Table) -> Option<ReaderId> {
        let id = *self.places.get(&peer)?;
        let reader = self.readers.get(&id)?;
        let member = reader.members.get(&peer)?;
        if reader.members.len() == 1 && reader.log.is_empty() {
            return Some(id);
        }
        let address = member.address;
        let mut told = reader.told.duplicate(&mut self.exports, table);
        let mut position = reader.position;
        for chunk in reader.untaken(member) {
            for delta in chunk.deltas.iter().rev() {
                revert(&mut told, delta, &mut self.exports, &self.config, table);
            }
            position = chunk.from;
        }
        self.take_out(id, peer, table);
        let id = self.add(Reader::new(told, position));
        self.enter(id, peer, address);
        Some(id)
    }

    /// Takes a member out of its reader, which ends with its last one.
    fn take_out(&mut self, id: ReaderId, peer: PeerIndex, table: &mut Table) {
        let Some(reader) = self.readers.get_mut(&id) else {
            return;
        };
        if let Some(member) = reader.members.remove(&peer) {
            reader.pass_over(&member);
            reader.trim(&mut self.exports, table);
        }
        if reader.members.is_empty()
            && let Some(reader) = self.readers.remove(&id)
        {
            for chunk in reader.log {
                chunk.dissolve(&mut self.exports, table);
            }
            reader.told.dissolve(&mut self.exports, table);
        }
    }
}
