//! Update groups: peers with equal export configuration share the work of being told.
//!
//! Owns the readers of a group: sets of peers that have been told exactly the same so far. A reader
//! goes through the journal at its own pace and cuts what changed into chunks of messages, encoded
//! once; its members take each chunk when they have written the one before. A new peer, or one that
//! fell far behind, is a reader of its own until it has caught up, and joins the others then. Does
//! not own when a peer takes more. What a peer knows at a moment is told in [`told`].

mod told;

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::rib::adj_out::{AdjOut, Told};
use crate::rib::egress::EgressConfig;
use crate::rib::exports::{Export, ExportRef, Exports};
use crate::rib::hash::Seed;
use crate::rib::installs::Fib;
use crate::rib::path::PeerIndex;
use crate::rib::path_ids::PathIds;
use crate::rib::table::{DestId, Entry, Table};
use crate::types::{Family, FamilySet, Nlri, PathId};
use crate::wire;

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
    /// Changes in the chunks that a reader keeps for its slowest member. Beyond it the member has to
    /// read on its own, so that it costs the others nothing and memory stays bounded.
    log_limit: usize,
}

/// Peers that have been told the same, up to their places in the log.
#[derive(Debug)]
struct Reader {
    /// What the peers believe once they have taken the whole log.
    told: AdjOut,
    position: Position,
    log: VecDeque<Chunk>,
    /// Number of the first chunk in `log`.
    log_start: u64,
    /// Changes in `log`.
    log_size: usize,
    members: BTreeMap<PeerIndex, Member>,
}

/// A peer of a reader.
#[derive(Clone, Copy, Debug)]
struct Member {
    address: IpAddr,
    /// Number of the next chunk to take.
    next: u64,
}

/// Where a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// In the table: the peer is new, fell behind, or must be told everything again.
    Sweep {
        /// The first destination not yet looked at.
        next: u32,
        /// Where the journal goes on once the sweep is done.
        then: u64,
        /// Families that are told even where the peer knows them already (RFC 2918).
        resend: FamilySet,
    },
    /// In the journal, at this position.
    Journal(u64),
}

/// A run of changes.
#[derive(Debug)]
struct Chunk {
    /// Where the reader stood before it.
    from: Position,
    deltas: Vec<Delta>,
    /// What all members are told, but those who are concerned; encoded when the first one takes it.
    octets: Option<Bytes>,
    /// Peers who told one of the routes, ascending.
    sources: Vec<PeerIndex>,
    /// Addresses that are the next hop of one of the routes, ascending.
    next_hops: Vec<IpAddr>,
    /// Members that have not taken it yet.
    left: usize,
}

/// What changes for a peer.
///
/// Both exports are held, and so is a destination that is withdrawn: a member that leaves its reader
/// may have to take the change back.
#[derive(Clone, Copy, Debug)]
struct Delta {
    dest: DestId,
    nlri: Nlri,
    old: Option<ExportRef>,
    new: Option<ExportRef>,
    /// Told although the peer may know it.
    again: bool,
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
        let octets = reader.take(peer, &self.exports, &self.config);
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
            if reader.log_size <= self.log_limit || reader.members.len() < 2 {
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

impl Position {
    /// Through the table from its beginning, then on with what changes from now on.
    fn sweep(table: &Table, resend: FamilySet) -> Self {
        Self::Sweep {
            next: 0,
            then: table.journal.end(),
            resend,
        }
    }

    /// Families that are told again from here on.
    fn resend(self) -> FamilySet {
        match self {
            Self::Sweep { resend, .. } => resend,
            Self::Journal(_) => FamilySet::EMPTY,
        }
    }
}

impl Reader {
    fn new(told: AdjOut, position: Position) -> Self {
        Self {
            told,
            position,
            log: VecDeque::new(),
            log_start: 0,
            log_size: 0,
            members: BTreeMap::new(),
        }
    }

    /// Whether its members are as those who have been told nothing, and asked for nothing.
    fn is_fresh(&self) -> bool {
        self.log.is_empty() && self.told.is_empty() && self.position.resend().is_empty()
    }

    fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// The next destination to look at, and whether it is told even if nothing has changed.
    fn advance(&mut self, table: &Table) -> Option<(DestId, bool)> {
        loop {
            match self.position {
                Position::Sweep { next, then, resend } => {
                    if next as usize >= table.bound() {
                        self.position = Position::Journal(then);
                        continue;
                    }
                    let dest = DestId(next);
                    self.position = Position::Sweep {
                        next: next + 1,
                        then,
                        resend,
                    };
                    return Some((dest, resend.contains(table.dest(dest).prefix.family())));
                }
                Position::Journal(position) if position < table.journal.start() => {
                    // Fell behind so far that the journal is gone: compare with the table.
                    self.position = Position::sweep(table, FamilySet::EMPTY);
                }
                Position::Journal(position) => {
                    let latest = |dest| table.dest(dest).journal;
                    let Some((dest, next)) = table.journal.next(position, latest) else {
                        self.position = Position::Journal(table.journal.end());
                        return None;
                    };
                    self.position = Position::Journal(next);
                    return Some((dest, false));
                }
            }
        }
    }

    /// The next chunk for a member.
    fn take(&mut self, peer: PeerIndex, exports: &Exports, config: &EgressConfig) -> Option<Bytes> {
        let member = self.members.get_mut(&peer)?;
        let at = usize::try_from(member.next.checked_sub(self.log_start)?).ok()?;
        let chunk = self.log.get_mut(at)?;
        member.next += 1;
        chunk.left -= 1;
        if chunk.concerns(peer, member.address) {
            let address = member.address;
            let spared = |export: ExportRef| excludes(exports.get(export), peer, address);
            return Some(encode(&chunk.deltas, exports, config, spared));
        }
        let octets = chunk
            .octets
            .get_or_insert_with(|| encode(&chunk.deltas, exports, config, |_| false));
        Some(octets.clone())
    }

    /// Chunks that a member has not taken, the latest first.
    fn untaken(&self, member: &Member) -> impl Iterator<Item = &Chunk> {
        let taken = usize::try_from(member.next - self.log_start).unwrap_or(usize::MAX);
        self.log.iter().skip(taken).rev()
    }

    /// A member that has left takes nothing any more.
    fn pass_over(&mut self, member: &Member) {
        let taken = usize::try_from(member.next - self.log_start).unwrap_or(usize::MAX);
        for chunk in self.log.iter_mut().skip(taken) {
            chunk.left -= 1;
        }
    }

    /// Forgets chunks that everybody has taken.
    fn trim(&mut self, exports: &mut Exports, table: &mut Table) {
        while self.log.front().is_some_and(|chunk| chunk.left == 0) {
            if let Some(chunk) = self.log.pop_front() {
                self.log_start += 1;
                self.log_size -= chunk.deltas.len();
                chunk.dissolve(exports, table);
            }
        }
    }
}

impl Chunk {
    fn new(from: Position, deltas: Vec<Delta>, left: usize, exports: &Exports) -> Self {
        let mut sources = Vec::new();
        let mut next_hops = Vec::new();
        let mut last = None;
        for export in deltas
            .iter()
            .flat_map(|delta| [delta.old, delta.new])
            .flatten()
        {
            if last.replace(export) == Some(export) {
                continue;
            }
            let export = exports.get(export);
            sources.extend(export.source);
            next_hops.push(export.next_hop);
        }
        sources.sort_unstable();
        sources.dedup();
        next_hops.sort_unstable();
        next_hops.dedup();
        Self {
            from,
            deltas,
            octets: None,
            sources,
            next_hops,
            left,
        }
    }

    /// Whether some route in it is not for this peer.
    fn concerns(&self, peer: PeerIndex, address: IpAddr) -> bool {
        self.sources.binary_search(&peer).is_ok() || self.next_hops.binary_search(&address).is_ok()
    }

    /// Gives back every hold.
    fn dissolve(self, exports: &mut Exports, table: &mut Table) {
        for delta in self.deltas {
            for export in [delta.old, delta.new].into_iter().flatten() {
                exports.release(export);
            }
            if delta.new.is_none() {
                table.unhold(delta.dest);
            }
        }
    }
}

/// Whether an export is for all peers of its group but this one: it told us the route, or would be
/// its next hop (RFC 4271 §5.1.3).
fn excludes(export: &Export, peer: PeerIndex, address: IpAddr) -> bool {
    export.source == Some(peer) || export.next_hop == address
}

/// Compares what a destination is told with what it should be told.
struct Visit<'a, 'b> {
    told: &'a mut AdjOut,
    exports: &'a mut Exports,
    config: &'a EgressConfig,
    sources: &'a mut Sources<'b>,
    deltas: &'a mut Vec<Delta>,
}

impl Visit<'_, '_> {
    fn dest(&mut self, dest: DestId, resend: bool) {
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

/// Takes a change back, in an Adj-RIB-Out that has seen it.
fn revert(
    told: &mut AdjOut,
    delta: &Delta,
    exports: &mut Exports,
    config: &EgressConfig,
    table: &mut Table,
) {
    if let Some(old) = delta.old {
        exports.hold(old);
    }
    if !config.encode.add_path.contains(delta.nlri.prefix.family()) {
        if let Some(new) = told.set_single(delta.dest, delta.old, table) {
            exports.release(new);
        }
        return;
    }
    let mut paths: Told = told.several(delta.dest).into();
    let id = delta.nlri.id;
    if let Some(at) = paths.iter().position(|(told, _)| *told == id) {
        exports.release(paths.remove(at).1);
    }
    paths.extend(delta.old.map(|old| (id, old)));
    paths.sort_unstable();
    told.set_several(delta.dest, paths, table);
}

/// Withdrawals first, then announcements, those that share an export packed together. What `spared`
/// names is neither announced to the peer nor known to it.
fn encode(
    deltas: &[Delta],
    exports: &Exports,
    config: &EgressConfig,
    spared: impl Fn(ExportRef) -> bool,
) -> Bytes {
    let mut withdrawn: BTreeMap<Family, Vec<Nlri>> = BTreeMap::new();
    let mut runs: Vec<(ExportRef, Vec<Nlri>)> = Vec::new();
    let mut run_of: std::collections::HashMap<ExportRef, usize> = std::collections::HashMap::new();
    let mut last: Option<(ExportRef, usize)> = None;
    for delta in deltas {
        let told = |export: Option<ExportRef>| export.filter(|export| !spared(*export));
        match (told(delta.old), told(delta.new)) {
            (None, None) => {}
            (Some(_), None) => {
                let family = delta.nlri.prefix.family();
                withdrawn.entry(family).or_default().push(delta.nlri);
            }
            (old, Some(new)) => {
                let same = |old| exports.get(old).announcement == exports.get(new).announcement;
                if !delta.again && old.is_some_and(same) {
                    // Another source, the same words: the peer knows already.
                    continue;
                }
                let at = match last {
                    Some((export, at)) if export == new => at,
                    _ => *run_of.entry(new).or_insert_with(|| {
                        runs.push((new, Vec::new()));
                        runs.len() - 1
                    }),
                };
                last = Some((new, at));
                runs[at].1.push(delta.nlri);
            }
        }
    }
    let mut octets = BytesMut::new();
    for (family, nlri) in &withdrawn {
        wire::withdraw(*family, nlri, config.encode, &mut octets);
    }
    for (export, nlri) in &runs {
        exports
            .get(*export)
            .announcement
            .write(nlri, config.encode, &mut octets);
    }
    octets.freeze()
}
