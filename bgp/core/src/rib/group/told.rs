//! What the peers of a group have been told, for those who ask.
//!
//! Owns the reading of Adj-RIBs-Out. Does not own them, and changes nothing: what a peer knows is what
//! its reader has told less what the peer has not taken yet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytes::BytesMut;
use smallvec::SmallVec;

use super::Group;
use super::reader::{Member, Position, Reader, excludes};
use crate::rib::adj_out::Told;
use crate::rib::egress::{EgressConfig, Exported};
use crate::rib::exports::{Export, ExportRef};
use crate::rib::path::PeerIndex;
use crate::rib::table::{DestId, Table};
use crate::types::{Family, FamilySet, Nlri, PathId};
use crate::wire::{self, DecodeContext, UpdateOutcome};

impl Group {
    /// How many routes each member has been told, by family. Looks at what is told, however often.
    pub(in crate::rib) fn advertised(&self) -> BTreeMap<(PeerIndex, Family), usize> {
        let mut advertised = BTreeMap::new();
        for reader in self.readers.values() {
            let by_address: BTreeMap<IpAddr, PeerIndex> = reader
                .members
                .iter()
                .map(|(peer, member)| (member.address, *peer))
                .collect();
            let mut totals = [0_usize; Family::ALL.len()];
            let mut spared: BTreeMap<(PeerIndex, Family), usize> = BTreeMap::new();
            for (at, export) in self.exports.iter() {
                let times = reader.told.times(at);
                if times == 0 {
                    continue;
                }
                let family = export.announcement.family();
                totals[family.index()] += times;
                let named = by_address.get(&export.next_hop).copied();
                let named = named.filter(|peer| Some(*peer) != export.source);
                for peer in export.source.into_iter().chain(named) {
                    *spared.entry((peer, family)).or_default() += times;
                }
            }
            for peer in reader.members.keys() {
                for family in Family::ALL {
                    let total = totals[family.index()];
                    if total > 0 {
                        let of = (*peer, family);
                        let spared = spared.get(&of).copied().unwrap_or(0);
                        advertised.insert(of, total - spared);
                    }
                }
            }
        }
        advertised
    }

    /// How many changes each member has not been told yet: those that its reader has not looked at, and
    /// those that it has not taken. Policies may make less of the former.
    pub(in crate::rib) fn untold(&self, table: &Table) -> Vec<(PeerIndex, usize)> {
        let mut untold = Vec::new();
        for reader in self.readers.values() {
            let since = |position: u64| {
                let changes = table.journal.end().saturating_sub(position);
                usize::try_from(changes).unwrap_or(usize::MAX)
            };
            let ahead = match reader.position {
                Position::Sweep { next, then, .. } => {
                    table.bound().saturating_sub(next as usize) + since(then)
                }
                Position::Journal(position) => since(position),
            };
            untold.extend(reader.members.iter().map(|(peer, member)| {
                let waiting = reader.untaken(member).map(|chunk| chunk.deltas.len());
                (*peer, ahead + waiting.sum::<usize>())
            }));
        }
        untold
    }

    /// Whether a member may know something about a destination.
    pub(in crate::rib) fn may_know(&self, peer: PeerIndex, dest: DestId) -> bool {
        self.place(peer).is_some_and(|(reader, _)| {
            reader.told.single(dest).is_some() || !reader.told.several(dest).is_empty()
        })
    }

    /// Whether a member knows anything about a destination.
    pub(in crate::rib) fn knows(&self, peer: PeerIndex, dest: DestId) -> bool {
        self.place(peer).is_some_and(|(reader, member)| {
            let mut believed = believed(reader, member, dest).into_iter();
            believed.any(|(_, export)| !excludes(self.exports.get(export), peer, member.address))
        })
    }

    /// Destinations of which a member knows something that its reader has forgotten: it has not
    /// taken the last changes.
    pub(in crate::rib) fn lags_at(&self, peer: PeerIndex) -> Vec<DestId> {
        let Some((reader, member)) = self.place(peer) else {
            return Vec::new();
        };
        let deltas = reader.untaken(member).flat_map(|chunk| &chunk.deltas);
        let mut dests: Vec<DestId> = deltas
            .filter(|delta| delta.old.is_some())
            .map(|delta| delta.dest)
            .collect();
        dests.sort_unstable();
        dests.dedup();
        dests
    }

    /// What a member knows about a destination, in the words in which it was told.
    pub(in crate::rib) fn known(
        &self,
        peer: PeerIndex,
        dest: DestId,
        table: &Table,
    ) -> Vec<(PathId, Exported)> {
        let Some((reader, member)) = self.place(peer) else {
            return Vec::new();
        };
        let prefix = table.dest(dest).prefix;
        believed(reader, member, dest)
            .into_iter()
            .map(|(id, export)| (id, self.exports.get(export)))
            .filter(|(_, export)| !excludes(export, peer, member.address))
            .filter_map(|(id, export)| Some((id, read(export, Nlri { prefix, id }, &self.config)?)))
            .collect()
    }
}

fn believed(reader: &Reader, member: &Member, dest: DestId) -> Told {
    let mut believed: Told = match reader.told.single(dest) {
        Some(export) => SmallVec::from_iter([(PathId::default(), export)]),
        None => reader.told.several(dest).into(),
    };
    let untaken = reader.untaken(member);
    for delta in untaken.flat_map(|chunk| chunk.deltas.iter().rev()) {
        if delta.dest != dest {
            continue;
        }
        let id = delta.nlri.id;
        believed.retain(|(known, _): &mut (PathId, ExportRef)| *known != id);
        believed.extend(delta.old.map(|old| (id, old)));
    }
    believed.sort_unstable();
    believed
}

/// Reads an export as the peer does.
fn read(export: &Export, nlri: Nlri, config: &EgressConfig) -> Option<Exported> {
    let mut octets = BytesMut::new();
    export
        .announcement
        .write(&[nlri], config.encode, &mut octets);
    // What we have written is read: anything else would be a fault of ours, which shows as nothing.
    let frame = wire::frame(&mut octets, config.encode.max_len).ok()??;
    let context = DecodeContext {
        peer: config.peer,
        four_octet_as: config.encode.four_octet_as,
        families: FamilySet::ALL,
        add_path: config.encode.add_path,
        extended_next_hop: true,
        first_as: None,
    };
    let update = match wire::decode_update(&frame.body, &context) {
        UpdateOutcome::Valid(update) | UpdateOutcome::ValidWithDiscards { update, .. } => update,
        UpdateOutcome::TreatAsWithdraw { .. } | UpdateOutcome::Reset(_) => return None,
    };
    Some(Exported {
        attributes: update.attributes?,
        next_hop: update.reach.first()?.next_hop,
    })
}
