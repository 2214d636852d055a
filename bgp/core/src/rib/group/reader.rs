//! Members that have been told the same, and the log of what each of them is still to take.
//!
//! Owns the log: chunks of changes, encoded once for all who take them. Does not own what is put into it,
//! nor who reads with whom, which is [`super::Group`]'s.

use std::collections::{BTreeMap, VecDeque};
use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use smallvec::SmallVec;

use crate::rib::adj_out::{AdjOut, Told};
use crate::rib::egress::EgressConfig;
use crate::rib::exports::{Export, ExportRef, Exports};
use crate::rib::path::PeerIndex;
use crate::rib::table::{DestId, Table};
use crate::types::{Family, FamilySet, Nlri};
use crate::wire;

/// Peers that have been told the same, up to their places in the log.
#[derive(Debug)]
pub(super) struct Reader {
    /// What the peers believe once they have taken the whole log.
    pub(super) told: AdjOut,
    pub(super) position: Position,
    pub(super) log: VecDeque<Chunk>,
    /// Number of the first chunk in `log`.
    pub(super) log_start: u64,
    /// Changes in `log`.
    pub(super) log_size: usize,
    pub(super) members: BTreeMap<PeerIndex, Member>,
}

/// A peer of a reader.
#[derive(Clone, Copy, Debug)]
pub(super) struct Member {
    pub(super) address: IpAddr,
    /// Number of the next chunk to take.
    pub(super) next: u64,
}

/// Where a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Position {
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
pub(super) struct Chunk {
    /// Where the reader stood before it.
    pub(super) from: Position,
    pub(super) deltas: Vec<Delta>,
    /// What all members are told, but those who are concerned; encoded when the first one takes it.
    pub(super) octets: Option<Bytes>,
    /// Peers who told one of the routes, ascending.
    pub(super) sources: Vec<PeerIndex>,
    /// Addresses that are the next hop of one of the routes, ascending.
    pub(super) next_hops: Vec<IpAddr>,
    /// Members that have not taken it yet.
    pub(super) left: usize,
}

/// What changes for a peer.
///
/// Both exports are held, and so is a destination that is withdrawn: a member that leaves its reader
/// may have to take the change back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Delta {
    pub(super) dest: DestId,
    pub(super) nlri: Nlri,
    pub(super) old: Option<ExportRef>,
    pub(super) new: Option<ExportRef>,
    /// Told although the peer may know it.
    pub(super) again: bool,
}

impl Position {
    /// Through the table from its beginning, then on with what changes from now on.
    pub(super) fn sweep(table: &Table, resend: FamilySet) -> Self {
        Self::Sweep {
            next: 0,
            then: table.journal.end(),
            resend,
        }
    }

    /// Families that are told again from here on.
    pub(super) fn resend(self) -> FamilySet {
        match self {
            Self::Sweep { resend, .. } => resend,
            Self::Journal(_) => FamilySet::EMPTY,
        }
    }
}

impl Reader {
    pub(super) fn new(told: AdjOut, position: Position) -> Self {
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
    pub(super) fn is_fresh(&self) -> bool {
        self.log.is_empty() && self.told.is_empty() && self.position.resend().is_empty()
    }

    pub(super) fn log_end(&self) -> u64 {
        self.log_start + self.log.len() as u64
    }

    /// The next destination to look at, and whether it is told even if nothing has changed.
    pub(super) fn advance(&mut self, table: &Table) -> Option<(DestId, bool)> {
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

    /// The next chunks for a member: at least one, and no more than hold `budget` changes. The first who
    /// looks at what has changed cuts small ones, and who comes later must not need a turn for each.
    pub(super) fn take(
        &mut self,
        peer: PeerIndex,
        exports: &Exports,
        config: &EgressConfig,
        budget: usize,
    ) -> Option<Bytes> {
        let member = self.members.get_mut(&peer)?;
        let at = usize::try_from(member.next.checked_sub(self.log_start)?).ok()?;
        let mut left = None;
        let mut pieces: SmallVec<[Bytes; 1]> = SmallVec::new();
        for chunk in self.log.iter_mut().skip(at) {
            let changes = chunk.deltas.len();
            if left.is_some_and(|left| changes > left) {
                break;
            }
            left = Some(left.unwrap_or(budget).saturating_sub(changes));
            member.next += 1;
            chunk.left -= 1;
            let octets = chunk.octets_for(peer, member.address, exports, config);
            pieces.extend(Some(octets).filter(|octets| !octets.is_empty()));
        }
        left?;
        Some(match &pieces[..] {
            [one] => one.clone(),
            several => several.concat().into(),
        })
    }

    /// Chunks that a member has not taken, the latest first.
    pub(super) fn untaken(&self, member: &Member) -> impl Iterator<Item = &Chunk> {
        let taken = usize::try_from(member.next - self.log_start).unwrap_or(usize::MAX);
        self.log.iter().skip(taken).rev()
    }

    /// A member that has left takes nothing any more.
    pub(super) fn pass_over(&mut self, member: &Member) {
        let taken = usize::try_from(member.next - self.log_start).unwrap_or(usize::MAX);
        for chunk in self.log.iter_mut().skip(taken) {
            chunk.left -= 1;
        }
    }

    /// Forgets chunks that everybody has taken.
    pub(super) fn trim(&mut self, exports: &mut Exports, table: &mut Table) {
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
    pub(super) fn new(from: Position, deltas: Vec<Delta>, left: usize, exports: &Exports) -> Self {
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

    /// What a member is told, encoded anew only for one whom some route is not for.
    fn octets_for(
        &mut self,
        peer: PeerIndex,
        address: IpAddr,
        exports: &Exports,
        config: &EgressConfig,
    ) -> Bytes {
        if self.concerns(peer, address) {
            let spared = |export: ExportRef| excludes(exports.get(export), peer, address);
            return encode(&self.deltas, exports, config, spared);
        }
        let encoded = self
            .octets
            .get_or_insert_with(|| encode(&self.deltas, exports, config, |_| false));
        encoded.clone()
    }

    /// Whether some route in it is not for this peer.
    pub(super) fn concerns(&self, peer: PeerIndex, address: IpAddr) -> bool {
        self.sources.binary_search(&peer).is_ok() || self.next_hops.binary_search(&address).is_ok()
    }

    /// Gives back every hold.
    pub(super) fn dissolve(self, exports: &mut Exports, table: &mut Table) {
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
pub(super) fn excludes(export: &Export, peer: PeerIndex, address: IpAddr) -> bool {
    export.source == Some(peer) || export.next_hop == address
}

/// Takes a change back, in an Adj-RIB-Out that has seen it.
pub(super) fn revert(
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
pub(super) fn encode(
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
