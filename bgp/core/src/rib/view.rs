//! The RIB as people ask about it.
//!
//! Owns read-only views. Does not own text for people beyond the reasons that paths and exports
//! carry themselves.

use std::collections::{BTreeMap, BTreeSet};

use crate::rib::best::{Selection, best_path};
use crate::rib::egress::{EgressConfig, Exported, Withheld, export};
use crate::rib::event::Forward;
use crate::rib::installs::FibState;
use crate::rib::machine::Rib;
use crate::rib::path::{Path, PeerIndex, TablePath};
use crate::rib::peer::Session;
use crate::rib::table::{DestId, candidate};
use crate::types::{Family, Prefix};

/// One prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    /// Which.
    pub prefix: Prefix,
    /// Every path, own route first, then by peer.
    pub paths: Vec<TablePath>,
    /// The selection among them, by index.
    pub selection: Option<Selection>,
    /// Where it stands on its way to the FIB.
    pub fib: FibState,
    /// What peers are told, policies permitting.
    pub announced: Option<Path>,
}

/// One family of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyView {
    /// Which.
    pub family: Family,
    /// Paths that the peer told.
    pub received: usize,
    /// Those of them that are not rejected.
    pub accepted: usize,
    /// Those of them that are stale.
    pub stale: usize,
    /// Paths that the peer was told.
    pub advertised: usize,
    /// Whether its End-of-RIB has come in this session.
    pub end_of_rib_received: bool,
    /// Whether ours has gone out in this session.
    pub end_of_rib_sent: bool,
}

impl Rib {
    /// Everything about the prefixes inside `within`, or about all, in their order.
    pub fn routes(&self, within: Option<Prefix>) -> Vec<RouteView> {
        let inside = |prefix: &Prefix| within.is_none_or(|within| within.contains(prefix));
        let mut found: Vec<(Prefix, DestId)> = self
            .table
            .iter()
            .filter(|(_, dest)| inside(&dest.prefix))
            .map(|(id, dest)| (dest.prefix, id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| self.view(id)).collect()
    }

    /// The longest prefix of the table that covers `prefix`.
    pub fn covering(&self, prefix: &Prefix) -> Option<RouteView> {
        let found = (0..=prefix.len())
            .rev()
            .filter_map(|len| Prefix::new(prefix.addr(), len).ok())
            .find_map(|covering| self.table.find(&covering));
        found.map(|id| self.view(id))
    }

    /// What each peer with a session is told about `prefix`, or why it is told nothing.
    pub fn told(&self, prefix: &Prefix) -> Vec<(PeerIndex, Result<Exported, Withheld>)> {
        let announced = self
            .table
            .find(prefix)
            .and_then(|id| self.table.dest(id).announced);
        let Some(path) = announced else {
            return Vec::new();
        };
        let path = self.table.paths.get(path);
        self.peers
            .iter()
            .filter_map(|(index, peer)| {
                let session = peer.session.as_ref()?;
                let config = self.groups.get(session.egress.group)?.config();
                Some((*index, tell(prefix, path, session, config)))
            })
            .collect()
    }

    /// Counts per family of every peer: of the session when there is one, else of what is retained.
    pub fn peers(&self) -> BTreeMap<PeerIndex, Vec<FamilyView>> {
        let mut advertised = BTreeMap::new();
        for group in self.groups.iter() {
            advertised.extend(group.advertised());
        }
        self.peers
            .iter()
            .map(|(index, peer)| {
                let session = peer.session.as_ref();
                let shown = Family::ALL.into_iter().filter(|family| match session {
                    Some(session) => session.negotiated.families.contains(family),
                    None => self.stale.contains_key(&(*index, *family)),
                });
                let views = shown.map(|family| {
                    let counts = peer.counts(family);
                    FamilyView {
                        family,
                        received: counts.received,
                        accepted: counts.received - counts.rejected,
                        stale: counts.stale,
                        advertised: advertised.get(&(*index, family)).copied().unwrap_or(0),
                        end_of_rib_received: session
                            .is_some_and(|session| session.end_of_rib_received.contains(family)),
                        end_of_rib_sent: session.is_some_and(|session| {
                            !session.egress.end_of_rib_owed.contains(family)
                        }),
                    }
                });
                (*index, views.collect())
            })
            .collect()
    }

    /// How many changes each peer with a session has not been told yet, before policy: one that falls
    /// behind shows by it. The whole table counts for one that is told everything anew.
    pub fn untold(&self) -> BTreeMap<PeerIndex, usize> {
        let groups = self.groups.iter();
        groups.flat_map(|group| group.untold(&self.table)).collect()
    }

    /// Prefixes in the table, rejected ones included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Where packets go that peer `index` alone leads them: dead ends when the path to it is dead. Much
    /// faster to say than which routes follow.
    pub fn ways_of(&self, index: PeerIndex) -> Vec<Forward> {
        let mut own = BTreeSet::new();
        let mut others = BTreeSet::new();
        for path in self.table.paths.iter() {
            let Some(next_hop) = path.next_hop else {
                continue;
            };
            match path.source.peer().filter(|peer| peer.index == index) {
                Some(peer) => {
                    let interface = peer.interface;
                    own.insert(Forward {
                        next_hop,
                        interface,
                    });
                }
                // Another peer's path, or an own route to a gateway.
                None => {
                    others.insert(next_hop.addr());
                }
            }
        }
        own.retain(|way| !others.contains(&way.next_hop.addr()));
        own.into_iter().collect()
    }

    /// Routes that the FIB has not yet answered for.
    pub fn fib_pending(&self) -> usize {
        self.table.pending()
    }

    pub(super) fn view(&self, id: DestId) -> RouteView {
        let dest = self.table.dest(id);
        let paths = &self.table.paths;
        let entries = self.ordered(dest);
        let candidates: Vec<_> = entries
            .iter()
            .map(|entry| (!entry.marks.rejected).then(|| candidate(paths, &dest.prefix, entry)))
            .collect();
        // Until our restart is over, nothing but our own routes is selected.
        let selection = best_path(&candidates, self.config.multipath)
            .filter(|_| self.deferral.is_none() || dest.announced.is_some());
        let shown = entries.iter().map(|entry| TablePath {
            path: paths.get(entry.used).clone(),
            id: entry.id,
            stale: entry.marks.stale,
            validity: entry.marks.validity,
            rejected: entry
                .marks
                .rejected
                .then(|| self.judge(paths.get(entry.told), &dest.prefix))
                .flatten(),
        });
        RouteView {
            prefix: dest.prefix,
            paths: shown.collect(),
            selection,
            fib: self.table.fib_state(id),
            announced: dest.announced.map(|path| paths.get(path).clone()),
        }
    }
}

/// What `session` is told about `path`, with the two checks that depend on the peer itself and not
/// on its group.
pub(super) fn tell(
    prefix: &Prefix,
    path: &Path,
    session: &Session,
    config: &EgressConfig,
) -> Result<Exported, Withheld> {
    if path.source.index() == Some(session.id.index) {
        return Err(Withheld::SplitHorizon);
    }
    let exported = export(prefix, path, config)?;
    if exported.next_hop.addr() == session.ends.peer {
        return Err(Withheld::PeerIsNextHop);
    }
    Ok(exported)
}
