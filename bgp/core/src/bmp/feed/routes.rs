//! From names of routes to UPDATEs for a station.

use std::ops::Bound;
use std::time::Duration;

use bytes::BytesMut;

use super::{ADVERTISED_BATCH, BATCH, Feed};
use crate::bmp::peer::{PeerHeader, Table};
use crate::bmp::route_monitoring;
use crate::rib::{Exported, Path, PeerIndex, Rib};
use crate::types::{Family, FamilySet, NextHop, Nlri, Prefix};
use crate::wire::{
    self, Announcement, EncodeContext, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN, PathAttributes,
};

/// Something to look up. The order is that in which routes pack well: what follows each other has
/// often the same attributes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Name {
    Entry(PeerIndex, Nlri),
    Selected(Prefix),
    Advertised(PeerIndex, Prefix),
}

impl Name {
    pub(super) fn peer(&self) -> Option<PeerIndex> {
        match *self {
            Self::Entry(peer, _) | Self::Advertised(peer, _) => Some(peer),
            Self::Selected(_) => None,
        }
    }
}

/// Tables in the order in which they are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    Pre,
    Post,
    Loc,
    Out,
}

/// One route to be written; `route` is `None` for a withdrawal.
struct Item<'a> {
    stage: Stage,
    /// `None` for the Loc-RIB.
    peer: Option<PeerIndex>,
    nlri: Nlri,
    route: Option<(&'a PathAttributes, NextHop)>,
}

impl Item<'_> {
    /// What routes have to have in common to share an UPDATE. Attributes are told apart by where
    /// they are: those of routes that were told together are in one place.
    fn run(&self) -> (Stage, Option<PeerIndex>, Family, Option<(usize, NextHop)>) {
        let place = |attributes: &PathAttributes| std::ptr::from_ref(attributes).addr();
        let route = self
            .route
            .map(|(attributes, next_hop)| (place(attributes), next_hop));
        (self.stage, self.peer, self.nlri.prefix.family(), route)
    }
}

impl Feed {
    /// Whose routes these are and how they are encoded; `None` where the station knows no session.
    pub(super) fn writing(
        &self,
        stage: Stage,
        peer: Option<PeerIndex>,
        time: Duration,
    ) -> Option<(PeerHeader, FamilySet)> {
        let Some(peer) = peer else {
            return Some((self.loc_rib_header(time), FamilySet::EMPTY));
        };
        let facts = self.told.get(&peer)?;
        let add_path = facts.negotiated.add_path;
        let (table, add_path) = match stage {
            Stage::Pre => (Table::AdjRibIn { post_policy: false }, add_path.receive),
            Stage::Post => (Table::AdjRibIn { post_policy: true }, add_path.receive),
            Stage::Out => (OUT, add_path.send),
            Stage::Loc => return None,
        };
        // AS numbers are written with four octets whatever the session does, and said to be.
        Some((facts.header(table, false, time), add_path))
    }

    fn take_names(&mut self) -> Vec<Name> {
        let from = self.last.map_or(Bound::Unbounded, Bound::Excluded);
        let names = |from| self.names.range((from, Bound::Unbounded)).copied();
        let mut taken: Vec<Name> = names(from).take(BATCH).collect();
        if taken.is_empty() {
            taken = names(Bound::Unbounded).take(BATCH).collect();
        }
        let is_advertised = |name: &Name| matches!(name, Name::Advertised(..));
        if let Some(first) = taken.iter().position(is_advertised) {
            taken.truncate(first + ADVERTISED_BATCH);
        }
        for name in &taken {
            self.names.remove(name);
        }
        self.last = taken.last().copied();
        taken
    }

    pub(super) fn tell_routes(&mut self, rib: &Rib, time: Duration, out: &mut BytesMut) {
        let names = self.take_names();
        // What peers were told is read back from what they were told: it has no place of its own.
        let advertised: Vec<(PeerIndex, Nlri, Exported)> = names
            .iter()
            .filter_map(|name| match name {
                Name::Advertised(peer, prefix) => Some((*peer, *prefix)),
                Name::Entry(..) | Name::Selected(_) => None,
            })
            .flat_map(|(peer, prefix)| {
                let known = rib.advertised(peer, &prefix).into_iter();
                known.map(move |(id, exported)| (peer, Nlri { prefix, id }, exported))
            })
            .collect();
        let mut items = self.items(rib, &names);
        let mut last: Option<&Exported> = None;
        for (peer, nlri, exported) in &advertised {
            // One for all that are alike, as runs go by where attributes are.
            let shared = last.filter(|last| *last == exported).unwrap_or(exported);
            last = Some(shared);
            items.push(Item {
                stage: Stage::Out,
                peer: Some(*peer),
                nlri: *nlri,
                route: Some((&shared.attributes, shared.next_hop)),
            });
        }
        items.sort_by_key(Item::run);
        for run in items.chunk_by(|a, b| a.run() == b.run()) {
            let Some((header, add_path)) = self.writing(run[0].stage, run[0].peer, time) else {
                continue;
            };
            let family = run[0].nlri.prefix.family();
            let nlri: Vec<Nlri> = run.iter().map(|item| item.nlri).collect();
            let mut updates = BytesMut::new();
            write(run[0].route, family, &nlri, add_path, &mut updates);
            route_monitoring(&header, &updates, out);
        }
    }

    /// What a path carries and where it leads.
    pub(super) fn route<'a>(
        &self,
        path: &'a Path,
        family: Family,
    ) -> (&'a PathAttributes, NextHop) {
        let ourselves = || NextHop::ourselves(self.router_id, family);
        (&path.attributes, path.next_hop.unwrap_or_else(ourselves))
    }

    fn items<'a>(&self, rib: &'a Rib, names: &[Name]) -> Vec<Item<'a>> {
        let mut items = Vec::with_capacity(names.len());
        for name in names {
            match *name {
                Name::Entry(peer, nlri) => {
                    if !self.told.contains_key(&peer) {
                        continue;
                    }
                    let entry = rib.entry(peer, &nlri);
                    let paths = [
                        (Stage::Pre, entry.map(|entry| entry.told)),
                        (Stage::Post, entry.and_then(|entry| entry.used)),
                    ];
                    let wanted = [self.wanted.pre_policy, self.wanted.post_policy];
                    for ((stage, path), _) in paths.into_iter().zip(wanted).filter(|(_, it)| *it) {
                        items.push(Item {
                            stage,
                            peer: Some(peer),
                            nlri,
                            route: path.map(|path| self.route(path, nlri.prefix.family())),
                        });
                    }
                }
                Name::Selected(prefix) => items.push(Item {
                    stage: Stage::Loc,
                    peer: None,
                    nlri: prefix.into(),
                    route: rib
                        .selected(&prefix)
                        .map(|path| self.route(path, prefix.family())),
                }),
                Name::Advertised(..) => {}
            }
        }
        items
    }
}

pub(super) const OUT: Table = Table::AdjRibOut { post_policy: true };

/// Appends UPDATEs about `nlri`, all of one family and with one set of attributes.
fn write(
    route: Option<(&PathAttributes, NextHop)>,
    family: Family,
    nlri: &[Nlri],
    add_path: FamilySet,
    out: &mut BytesMut,
) {
    let context = |max_len| EncodeContext {
        four_octet_as: true,
        add_path,
        max_len,
    };
    // What came in an extended message, or grew by AS numbers of four octets, goes into one
    // (RFC 8654): a station has no terms of its own.
    for context in [MAX_MESSAGE_LEN, MAX_EXTENDED_LEN].map(context) {
        let Some((attributes, next_hop)) = route else {
            break;
        };
        if let Ok(announcement) = Announcement::new(attributes, &next_hop, family, context) {
            return announcement.write(nlri, context, out);
        }
    }
    // Gone, or longer than any message may be: then the station must not go on with what it has.
    wire::withdraw(family, nlri, context(MAX_MESSAGE_LEN), out);
}
