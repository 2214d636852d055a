//! The RIB in pieces, for those who ask for much of it.
//!
//! Owns listings that go through the table a stretch at a time, so that a question about a million
//! routes holds nothing up for longer than a stretch takes. Does not own sorting, which the asker
//! does with what it has collected, nor words.
//!
//! Between two stretches the table changes: a listing is a set of prefixes that were there at one
//! moment or another, and what is said of each is what holds when it is asked for.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::policy::Explained;
use crate::rib::best::Step;
use crate::rib::egress::{Exported, Withheld};
use crate::rib::group::Group;
use crate::rib::installs::FibCounts;
use crate::rib::machine::Rib;
use crate::rib::path::{Path, PeerIndex, TablePath};
use crate::rib::table::{Dest, DestId, Entry};
use crate::rib::view::{RouteView, tell};
use crate::types::{Family, PathId, Prefix};

/// What a listing is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listed {
    /// Everything that has a path.
    Table,
    /// What has a path that must not be used.
    Rejected,
    /// What a peer has told.
    ReceivedFrom(PeerIndex),
    /// What a peer has told and must not be used.
    RejectedFrom(PeerIndex),
    /// What a peer has been told.
    AdvertisedTo(PeerIndex),
    /// What peers may be told, policies permitting: among it is what a peer is not.
    Announced,
}

/// Where a listing goes on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor(pub(super) u32);

/// How much of a listing goes through the table at once: a few milliseconds.
pub const STRETCH: u32 = 16 * 1024;

/// A path as its peer told it, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedPath {
    /// As it was told.
    pub told: Path,
    /// As it is used, with what is noted about it.
    pub entry: TablePath,
    /// Whether it won.
    pub best: bool,
    /// Whether it won or shares the load.
    pub multipath: bool,
    /// The step of the selection at which it lost, if it did.
    pub lost_at: Option<Step>,
}

/// How many routes of one peer are rejected for one reason, and some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// How many.
    pub count: usize,
    /// The first of their prefixes in their order, at most [`Rejected::EXAMPLES`] and never none.
    pub examples: Vec<Prefix>,
    /// Why the first one is, for people.
    pub why: String,
}

impl Rejected {
    /// So many prefixes are named at most.
    pub const EXAMPLES: usize = 8;

    /// Takes in those of another stretch, rejected for the same reason.
    pub fn join(&mut self, other: Self) {
        self.count += other.count;
        if other.examples.first() < self.examples.first() {
            self.why = other.why;
        }
        self.examples.extend(other.examples);
        self.examples.sort_unstable();
        // Stretches are of different moments, and a peer may tell several paths.
        self.examples.dedup();
        self.examples.truncate(Self::EXAMPLES);
    }

    /// Takes in one more; `why` it is rejected matters if it is the first in the order.
    fn note(&mut self, prefix: Prefix, why: impl FnOnce() -> String) {
        self.count += 1;
        let Err(place) = self.examples.binary_search(&prefix) else {
            return;
        };
        if place == 0 {
            self.why = why();
        }
        if place < Self::EXAMPLES {
            self.examples.truncate(Self::EXAMPLES - 1);
            self.examples.insert(place, prefix);
        }
    }
}

/// What is rejected, by peer and reason. There are as many reasons as kinds of them and rules of
/// policies, however many routes.
pub type Rejections = BTreeMap<(PeerIndex, Reason), Rejected>;

/// Why a route is rejected, without what is different for each route.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reason {
    /// The kind, as [`crate::rib::Rejection::word`] has it.
    pub word: &'static str,
    /// The rule of the import policy, where one said no.
    pub rule: Option<String>,
}

/// Sizes of the RIB, known without counting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RibCounts {
    /// Prefixes in the table, rejected ones included.
    pub prefixes: usize,
    /// Routes on their way to the FIB, by family.
    pub fib: [FibCounts; Family::ALL.len()],
    /// How often what peers are told has changed since the start, by family.
    pub best_changes: [u64; Family::ALL.len()],
}

impl Rib {
    /// Prefixes of a listing inside `within`, from one stretch of the table; where to go on, unless
    /// that was all. In no order.
    pub fn listed(
        &self,
        listed: Listed,
        within: Option<&Prefix>,
        from: Cursor,
    ) -> (Vec<Prefix>, Option<Cursor>) {
        let (stretch, next) = self.stretch(from, STRETCH);
        let mut ids: Vec<DestId> = stretch
            .map(DestId)
            .filter(|id| self.is_listed(listed, *id))
            .collect();
        if let (Listed::AdvertisedTo(peer), Cursor(0)) = (listed, from) {
            ids.extend(self.forgotten_but_known(peer));
        }
        let prefixes = ids.into_iter().map(|id| self.table.dest(id).prefix);
        let inside = |prefix: &Prefix| within.is_none_or(|within| within.contains(prefix));
        (prefixes.filter(inside).collect(), next)
    }

    /// Everything about one prefix of the table.
    pub fn route(&self, prefix: &Prefix) -> Option<RouteView> {
        self.table.find(prefix).map(|id| self.view(id))
    }

    /// What `peer` has told about a prefix.
    pub fn received(&self, peer: PeerIndex, prefix: &Prefix) -> Vec<ReceivedPath> {
        let Some(id) = self.table.find(prefix) else {
            return Vec::new();
        };
        let view = self.view(id);
        let selection = view.selection.as_ref();
        let entries = self.ordered(self.table.dest(id));
        let paths = view.paths.into_iter().zip(entries).enumerate();
        paths
            .filter(|(_, (shown, _))| shown.path.source.index() == Some(peer))
            .map(|(at, (shown, entry))| ReceivedPath {
                told: self.table.paths.get(entry.told).clone(),
                entry: shown,
                best: selection.is_some_and(|selection| selection.best == at),
                multipath: selection.is_some_and(|selection| selection.multipath.contains(&at)),
                lost_at: selection.and_then(|selection| selection.lost_at[at]),
            })
            .collect()
    }

    /// What `peer` has been told about a prefix and not had withdrawn, as it reads it.
    pub fn advertised(&self, peer: PeerIndex, prefix: &Prefix) -> Vec<(PathId, Exported)> {
        let known = || {
            let id = self.table.find(prefix)?;
            Some(self.group_of(peer)?.known(peer, id, &self.table))
        };
        known().unwrap_or_default()
    }

    /// Why `peer` is not told of a route that others may be told; `None` when there is no such route,
    /// or no session, or it is told.
    pub fn withheld(&self, peer: PeerIndex, prefix: &Prefix) -> Option<Withheld> {
        let id = self.table.find(prefix)?;
        let path = self.table.paths.get(self.table.dest(id).announced?);
        let session = self.peers.get(&peer)?.session.as_ref()?;
        let group = self.groups.get(session.egress.group)?;
        if group.knows(peer, id) {
            return None;
        }
        tell(prefix, path, session, group.config()).err()
    }

    /// What the import policy made of each path to a prefix, in the order of [`RouteView::paths`];
    /// `None` for own routes.
    pub fn explain_import(&self, prefix: &Prefix) -> Vec<Option<Explained>> {
        let Some(id) = self.table.find(prefix) else {
            return Vec::new();
        };
        let entries = self.ordered(self.table.dest(id)).into_iter();
        entries
            .map(|entry| self.explain_intake(self.table.paths.get(entry.told), prefix))
            .collect()
    }

    /// What is rejected in one stretch of the table, and where to go on: of one peer, or of all of them
    /// at the price of one walk. Every rejected route is judged again.
    pub fn rejections(&self, of: Option<PeerIndex>, from: Cursor) -> (Rejections, Option<Cursor>) {
        let (stretch, next) = self.stretch(from, STRETCH);
        let mut rejections = Rejections::new();
        let theirs = of.map(|peer| self.peers.get(&peer).map(|peer| &peer.dests));
        let asked = |id: &DestId| match theirs {
            Some(theirs) => theirs.is_some_and(|theirs| theirs.has(*id)),
            None => true,
        };
        let asked = stretch.map(DestId).filter(asked);
        for dest in asked.map(|id| self.table.dest(id)) {
            for entry in dest.paths.iter().filter(|entry| entry.marks.rejected) {
                let Some(peer) = self.table.paths.peer(entry.told) else {
                    continue;
                };
                if of.is_some_and(|of| of != peer) {
                    continue;
                }
                let told = self.table.paths.get(entry.told);
                let Some(rejection) = self.judge(told, &dest.prefix) else {
                    continue;
                };
                let reason = Reason {
                    word: rejection.word(),
                    rule: rejection.rule().map(str::to_owned),
                };
                let found = rejections.entry((peer, reason)).or_insert(Rejected {
                    count: 0,
                    examples: Vec::new(),
                    why: String::new(),
                });
                found.note(dest.prefix, || rejection.to_string());
            }
        }
        (rejections, next)
    }

    /// Sizes, for those who look often.
    pub fn counts(&self) -> RibCounts {
        RibCounts {
            prefixes: self.table.len(),
            fib: self.table.fib_counts(),
            best_changes: self.table.best_changes(),
        }
    }

    /// At most `slots` slots of the table from `from` on. Some stand empty: they have no path and announce nothing.
    pub(super) fn stretch(&self, from: Cursor, slots: u32) -> (Range<u32>, Option<Cursor>) {
        let bound = u32::try_from(self.table.bound()).unwrap_or(u32::MAX);
        let end = from.0.saturating_add(slots).min(bound);
        (from.0.min(end)..end, (end < bound).then_some(Cursor(end)))
    }

    fn is_listed(&self, listed: Listed, id: DestId) -> bool {
        let dest = self.table.dest(id);
        let told_by = |peer: &PeerIndex| self.peers.get(peer).is_some_and(|it| it.dests.has(id));
        let mut rejected = dest.paths.iter().filter(|entry| entry.marks.rejected);
        match listed {
            Listed::Table => !dest.paths.is_empty(),
            Listed::Rejected => rejected.next().is_some(),
            Listed::ReceivedFrom(peer) => told_by(&peer),
            Listed::RejectedFrom(peer) => {
                told_by(&peer)
                    && rejected.any(|entry| self.table.paths.peer(entry.told) == Some(peer))
            }
            Listed::AdvertisedTo(peer) => self
                .group_of(peer)
                .is_some_and(|group| group.may_know(peer, id)),
            Listed::Announced => dest.announced.is_some(),
        }
    }

    fn forgotten_but_known(&self, peer: PeerIndex) -> Vec<DestId> {
        let group = self.group_of(peer);
        let lags = group.map(|group| group.lags_at(peer)).unwrap_or_default();
        let twice = |id: &DestId| !self.is_listed(Listed::AdvertisedTo(peer), *id);
        lags.into_iter().filter(twice).collect()
    }

    /// The group that a peer with a session is told with.
    pub(super) fn group_of(&self, peer: PeerIndex) -> Option<&Group> {
        let session = self.peers.get(&peer)?.session.as_ref()?;
        self.groups.get(session.egress.group)
    }

    /// The entries of a destination as people see them: own route first, then by peer.
    pub(super) fn ordered(&self, dest: &Dest) -> Vec<Entry> {
        let mut entries = dest.paths.to_vec();
        entries.sort_by_key(|entry| (self.table.paths.peer(entry.told), entry.id));
        entries
    }
}
