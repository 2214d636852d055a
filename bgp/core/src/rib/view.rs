//! The RIB as people ask about it.
//!
//! Owns read-only views. Does not own text for people beyond the reasons that paths and exports
//! carry themselves.

use std::collections::BTreeSet;

use crate::rib::best::Selection;
use crate::rib::egress::{Exported, Withheld};
use crate::rib::machine::Rib;
use crate::rib::path::{Path, PeerIndex};
use crate::rib::pull::tell;
use crate::rib::table::{Entry, FibState};
use crate::types::{Family, Prefix};

/// One prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct RouteView {
    /// Which.
    pub prefix: Prefix,
    /// Every path, own route first, then by peer.
    pub paths: Vec<Path>,
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
    /// Prefixes that the peer was told.
    pub advertised: usize,
    /// Whether its End-of-RIB has come in this session.
    pub end_of_rib_received: bool,
    /// Whether ours has gone out in this session.
    pub end_of_rib_sent: bool,
}

impl Rib {
    /// Everything about the prefixes inside `within`, or about all.
    pub fn routes(&self, within: Option<Prefix>) -> Vec<RouteView> {
        self.table
            .entries
            .iter()
            .filter(|(prefix, _)| within.is_none_or(|within| within.contains(prefix)))
            .map(|(prefix, entry)| view(*prefix, entry))
            .collect()
    }

    /// The longest prefix of the table that covers `prefix`.
    pub fn covering(&self, prefix: &Prefix) -> Option<RouteView> {
        (0..=prefix.len())
            .rev()
            .filter_map(|len| Prefix::new(prefix.addr(), len).ok())
            .find_map(|covering| {
                let entry = self.table.entries.get(&covering)?;
                Some(view(covering, entry))
            })
    }

    /// What each peer with a session is told about `prefix`, or why it is told nothing.
    pub fn told(&self, prefix: &Prefix) -> Vec<(PeerIndex, Result<Exported, Withheld>)> {
        let announced = self
            .table
            .entries
            .get(prefix)
            .and_then(|entry| entry.announced.as_ref());
        let Some(path) = announced else {
            return Vec::new();
        };
        self.peers
            .iter()
            .filter_map(|(index, peer)| {
                let session = peer.session.as_ref()?;
                Some((*index, tell(prefix, path, session)))
            })
            .collect()
    }

    /// Counts per family: of the session when there is one, else of what is retained.
    pub fn peer(&self, index: PeerIndex) -> Vec<FamilyView> {
        let Some(peer) = self.peers.get(&index) else {
            return Vec::new();
        };
        let session = peer.session.as_ref();
        let families: BTreeSet<Family> = session
            .map(|session| session.negotiated.families.iter().copied().collect())
            .unwrap_or_else(|| peer.stale.keys().copied().collect());
        families
            .into_iter()
            .map(|family| {
                let paths = || {
                    peer.prefixes
                        .iter()
                        .filter(move |prefix| prefix.family() == family)
                        .filter_map(|prefix| self.table.entries.get(prefix))
                        .flat_map(|entry| &entry.paths)
                        .filter(|path| path.source.index() == Some(index))
                };
                FamilyView {
                    family,
                    received: paths().count(),
                    accepted: paths().filter(|path| path.rejected.is_none()).count(),
                    stale: paths().filter(|path| path.stale).count(),
                    advertised: session.map_or(0, |session| {
                        let told = session.egress.advertised.keys();
                        told.filter(|prefix| prefix.family() == family).count()
                    }),
                    end_of_rib_received: session
                        .is_some_and(|session| session.end_of_rib_received.contains(&family)),
                    end_of_rib_sent: session
                        .is_some_and(|session| !session.egress.end_of_rib_owed.contains(&family)),
                }
            })
            .collect()
    }

    /// Prefixes in the table, rejected ones included.
    pub fn len(&self) -> usize {
        self.table.entries.len()
    }

    /// Whether the table is empty.
    pub fn is_empty(&self) -> bool {
        self.table.entries.is_empty()
    }

    /// Routes that the FIB has not yet answered for.
    pub fn fib_pending(&self) -> usize {
        self.table.pending()
    }
}

fn view(prefix: Prefix, entry: &Entry) -> RouteView {
    RouteView {
        prefix,
        paths: entry.paths.clone(),
        selection: entry.selection.clone(),
        fib: entry.fib.clone(),
        announced: entry.announced.clone(),
    }
}
