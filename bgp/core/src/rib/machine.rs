//! The RIB as a pure machine: events in, actions out, output pulled.
//!
//! Owns the order of things: import checks, when selection runs, who is woken. Does not own storage
//! ([`super::table`]), the decision ([`super::best`]), sessions and their restarts
//! ([`super::sessions`]) or output ([`super::pull`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use smallvec::SmallVec;

use crate::rib::configure::{new_peers, own_clusters, own_routes};
use crate::rib::event::{
    Action, Changed, Event, FibAnswer, Forward, Reachability, RibConfig, RibOptions,
};
use crate::rib::groups::Groups;
use crate::rib::hash::Seed;
use crate::rib::path::{Path, PeerId, PeerIndex, Source};
use crate::rib::path_ids::PathIds;
use crate::rib::paths::PathRef;
use crate::rib::peer::Peer;
use crate::rib::sessions::Deferral;
use crate::rib::stale::Stale;
use crate::rib::table::{DestId, Entry, Marks, Scope, Table};
use crate::types::{Family, Nlri, PathId, Prefix, RouterId};
use crate::wire::Update;

/// Time for each peer that is woken before all are woken again. A peer has to be woken, to pull and
/// to write for each round of changes: many peers get fewer and larger rounds.
const PAUSE_PER_PEER: Duration = Duration::from_micros(10);

/// Prefixes that are looked up ahead of their turn: so few that what is found stays close by until then.
const LOOKAHEAD: usize = 512;

/// Routes of one speaker: what peers told, what was selected, what peers are told.
#[derive(Debug)]
pub struct Rib {
    pub(super) config: RibConfig,
    pub(super) table: Table,
    pub(super) peers: BTreeMap<PeerIndex, Peer>,
    pub(super) groups: Groups,
    pub(super) path_ids: PathIds,
    pub(super) deferral: Option<Deferral>,
    /// Families of peers whose routes are stale, and when these go.
    pub(super) stale: BTreeMap<(PeerIndex, Family), Stale>,
    /// Families that peers tell again (RFC 7313), and when what was not told again goes at the latest.
    pub(super) refreshing: BTreeMap<(PeerIndex, Family), Instant>,
    /// Sessions that have not sent every End-of-RIB.
    pub(super) owing: BTreeSet<PeerIndex>,
    /// The end of the journal when peers were last woken.
    woken_until: u64,
    next_round: Option<Instant>,
    /// Peers that went idle since the journal was last trimmed.
    pub(super) untrimmed: usize,
    /// Every cluster that we are, ascending.
    pub(super) own_clusters: Vec<RouterId>,
    /// Whether somebody follows the table.
    pub(super) followed: bool,
}

impl Rib {
    /// A RIB with its own routes and no others.
    pub fn new(config: RibConfig, options: RibOptions, out: &mut Vec<Action>) -> Self {
        let waiting = config
            .peers
            .iter()
            .filter(|(_, policy)| policy.graceful_restart)
            .map(|(index, _)| *index)
            .collect();
        let seed = Seed::new(options.hash_seed);
        let mut rib = Self {
            peers: new_peers(&config),
            table: Table::new(seed, options.forwarding),
            groups: Groups::new(seed, options.log_limit),
            path_ids: PathIds::new(seed),
            deferral: options
                .defer_until
                .map(|until| Deferral::new(until, waiting)),
            stale: BTreeMap::new(),
            refreshing: BTreeMap::new(),
            owing: BTreeSet::new(),
            woken_until: 0,
            next_round: None,
            untrimmed: 0,
            own_clusters: own_clusters(&config),
            followed: false,
            config,
        };
        for (prefix, own) in own_routes(&rib.config) {
            rib.originate(prefix, own, out);
        }
        if rib.deferral.is_none() {
            out.push(Action::FibComplete);
        }
        rib.track(out);
        rib
    }

    /// Takes in one event.
    pub fn handle(&mut self, now: Instant, event: Event, out: &mut Vec<Action>) {
        match event {
            Event::Configure(config) => self.configure(config, out),
            Event::PeerUp {
                peer,
                negotiated,
                ends,
            } => self.peer_up(now, peer, negotiated, ends, out),
            Event::PeerDown { peer, retain } => self.peer_down(now, peer, &retain, out),
            Event::PathDown { index } => self.path_down(index, out),
            Event::Updates { peer, updates } => self.updates(peer, updates, out),
            Event::Refresh { peer, family } => self.refresh(peer, family, out),
            Event::Resend { index, family } => {
                let session = self
                    .peers
                    .get(&index)
                    .and_then(|peer| peer.session.as_ref());
                if let Some(id) = session.map(|session| session.id) {
                    self.refresh(id, family, out);
                }
            }
            Event::Relocated { index, ends } => self.relocated(index, ends, out),
            Event::RefreshBegun { peer, family } => self.refresh_begun(now, peer, family),
            Event::RefreshEnded { peer, family } => self.refresh_ended(peer, family, out),
            Event::Answered(answers) => self.answered(answers, out),
            Event::Reached(news) => self.reached(&news, out),
            Event::Follow { wanted } => self.followed = wanted,
        }
        self.end_deferral_if_due(now, out);
        self.wake(now, out);
        self.track(out);
    }

    /// When [`Rib::handle_timeout`] has to be called next.
    pub fn poll_timeout(&self) -> Option<Instant> {
        let stale = self.stale.values().map(Stale::wake).min();
        let refreshing = self.refreshing.values().min().copied();
        let deferral = self.deferral.as_ref().map(|deferral| *deferral.wake());
        let round = (self.woken_until != self.table.journal.end())
            .then_some(self.next_round)
            .flatten();
        let end_of_rib = || {
            let owing = self.owing.iter().filter_map(|index| self.peers.get(index));
            let sessions = owing.filter_map(|peer| peer.session.as_ref());
            sessions
                .filter(|session| session.egress.idle)
                .map(|session| session.egress.end_of_rib_at)
                .min()
        };
        let end_of_rib = self.deferral.is_none().then(end_of_rib).flatten();
        [stale, refreshing, deferral, round, end_of_rib]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant, out: &mut Vec<Action>) {
        self.expire(now, out);
        self.end_deferral_if_due(now, out);
        self.wake(now, out);
        self.track(out);
    }

    /// Whether selection still waits for peers after a restart.
    pub fn deferring(&self) -> bool {
        self.deferral.is_some()
    }

    fn updates(&mut self, id: PeerId, updates: Vec<Update>, out: &mut Vec<Action>) {
        let mut updates = updates.into_iter();
        while !updates.as_slice().is_empty() {
            let near = near(updates.as_slice());
            self.table
                .approach(near.iter().flat_map(Update::nlri).map(|nlri| &nlri.prefix));
            let count = near.len();
            for update in updates.by_ref().take(count) {
                self.update(id, update, out);
            }
        }
    }

    fn update(&mut self, id: PeerId, update: Update, out: &mut Vec<Action>) {
        let Some(session) = self
            .peers
            .get_mut(&id.index)
            .and_then(|peer| peer.session(id))
        else {
            return;
        };
        session.has_announced |= !update.reach.is_empty();
        let path_peer = Arc::clone(&session.path_peer);

        // RFC 4271 §4.3: withdrawals first; a prefix in both is announced.
        for Nlri { prefix, id: path } in update.withdrawn.iter().flat_map(|(_, nlri)| nlri) {
            if let Some(dest) = self.table.find(prefix) {
                self.withdraw(dest, Some(id.index), *path, out);
            }
        }
        if let Some(attributes) = update.attributes {
            let attributes = Arc::new(attributes);
            for reach in update.reach {
                let told = Path {
                    source: Source::Peer(Arc::clone(&path_peer)),
                    attributes: Arc::clone(&attributes),
                    next_hop: Some(reach.next_hop),
                    long_lived: false,
                    blackhole: false,
                };
                let Some(mut intake) = self.intake(told, reach.family) else {
                    return;
                };
                for Nlri {
                    prefix,
                    id: path_id,
                } in reach.nlri
                {
                    let (used, marks) = self.admit(&mut intake, &prefix);
                    let dest = self.table.find_or_add(prefix);
                    self.insert(dest, (intake.told, used), path_id, marks, out);
                }
                intake.end(&mut self.table.paths);
                self.check_limit(id, reach.family, out);
            }
        }
        if let Some(family) = update.end_of_rib {
            self.end_of_rib(id, family, out);
        }
    }

    /// Puts a path, as told and as used, in place of what its source said under the same identifier
    /// before.
    pub(super) fn insert(
        &mut self,
        dest: DestId,
        (told, used): (PathRef, PathRef),
        id: PathId,
        marks: Marks,
        out: &mut Vec<Action>,
    ) {
        let source = self.table.paths.hold(told);
        self.table.paths.hold(used);
        let old = self.table.insert(dest, source, (told, used), id, marks);
        let family = self.table.dest(dest).prefix.family();
        if let Some(peer) = source.and_then(|peer| self.peers.get_mut(&peer)) {
            peer.dests.insert(dest);
            peer.count(family, marks);
            old.into_iter()
                .for_each(|old| peer.uncount(family, old.marks));
        }
        if self.followed
            && old.is_none_or(|old| (old.told, old.used, old.marks) != (told, used, marks))
        {
            self.tell_followers(dest, source, id, out);
        }
        if let Some(old) = old {
            self.table.release(old);
            let unconfirmed = |marks: Marks| marks.validity.is_unconfirmed();
            if (old.used, old.marks.rejected) == (used, marks.rejected)
                && unconfirmed(old.marks) == unconfirmed(marks)
            {
                return;
            }
        }
        self.reselect(dest, out);
    }

    /// Says that what a peer tells, or what is made of it, is otherwise than before.
    fn tell_followers(
        &self,
        dest: DestId,
        peer: Option<PeerIndex>,
        id: PathId,
        out: &mut Vec<Action>,
    ) {
        let prefix = self.table.dest(dest).prefix;
        let nlri = Nlri { prefix, id };
        // Own routes are told by nobody: followers see them where they are selected.
        out.extend(peer.map(|peer| Action::Changed(Changed::Entry { peer, nlri })));
    }

    /// Says once in a session that a peer tells more than it may, or nearly so. What counts is what takes
    /// memory: every path, of which a peer may tell any number to one prefix (RFC 7911). What is kept of an
    /// earlier session is our wish.
    pub(super) fn check_limit(&mut self, id: PeerId, family: Family, out: &mut Vec<Action>) {
        let Some(peer) = self.peers.get_mut(&id.index) else {
            return;
        };
        let Some(limits) = peer.policy.max_prefixes[family.index()] else {
            return;
        };
        let counts = peer.counts(family);
        let count = u32::try_from(counts.received - counts.stale).unwrap_or(u32::MAX);
        let Some(session) = peer.session(id) else {
            return;
        };
        let (exceeded, said) = if count > limits.limit {
            (true, &mut session.exceeded)
        } else {
            (false, &mut session.warned)
        };
        if (!exceeded && count < limits.warn_at) || said.contains(family) {
            return;
        }
        said.insert(family);
        out.push(Action::PrefixLimit {
            peer: id,
            family,
            count,
            limits,
            exceeded,
        });
    }

    /// Takes away what `peer` said under an identifier.
    pub(super) fn withdraw(
        &mut self,
        dest: DestId,
        peer: Option<PeerIndex>,
        id: PathId,
        out: &mut Vec<Action>,
    ) {
        let Some(at) = self.table.position(dest, peer, id) else {
            return;
        };
        let old = self.table.remove_at(dest, at);
        let others = self.table.position_of_peer(dest, peer).is_some();
        let family = self.table.dest(dest).prefix.family();
        if let Some(peer) = peer.and_then(|peer| self.peers.get_mut(&peer)) {
            peer.uncount(family, old.marks);
            if !others {
                peer.dests.remove(dest);
            }
        }
        if self.followed {
            self.tell_followers(dest, peer, id, out);
        }
        self.table.release(old);
        self.reselect(dest, out);
    }

    fn refresh(&mut self, id: PeerId, family: Family, out: &mut Vec<Action>) {
        let Some(session) = self
            .peers
            .get_mut(&id.index)
            .and_then(|peer| peer.session(id))
        else {
            return;
        };
        // RFC 2918 §4: others are not asked for in earnest.
        if !session.negotiated.families.contains(&family) {
            return;
        }
        let enclosed = session.negotiated.enhanced_route_refresh;
        let egress = &mut session.egress;
        if enclosed && egress.end_of_rib_owed.contains(family) {
            // RFC 7313 §4: no refresh begins before the first table has ended.
            egress.refresh_owed.insert(family);
            return;
        }
        if let Some(group) = self.groups.get_mut(egress.group) {
            group.resend(id.index, family, &mut self.table);
            if enclosed {
                egress.begin_owed.insert(family);
            }
            session.rouse(out);
        }
    }

    fn answered(&mut self, answers: Vec<FibAnswer>, out: &mut Vec<Action>) {
        for FibAnswer {
            prefix,
            seq,
            failed,
        } in answers
        {
            let Some(dest) = self.table.find(&prefix) else {
                continue;
            };
            let multipath = self.config.multipath;
            let told_otherwise = self.table.answer(dest, seq, failed, multipath, out);
            self.note_selection(dest, told_otherwise, out);
        }
    }

    /// Has the FIB asked about next hops that are new, and no longer about those that are gone.
    pub(super) fn track(&mut self, out: &mut Vec<Action>) {
        let untold = self.table.paths.next_hops.take_untold().into_iter();
        out.extend(untold.map(|(forward, wanted)| Action::Track { forward, wanted }));
    }

    /// Next hops lead elsewhere now: selects anew for every prefix that has a path by one of them.
    fn reached(&mut self, news: &[(Forward, Reachability)], out: &mut Vec<Action>) {
        let mut moved = BTreeSet::new();
        for (forward, reach) in news {
            if self.table.paths.next_hops.set(forward, *reach) {
                moved.insert(*forward);
            }
        }
        if moved.is_empty() {
            return;
        }
        for dest in self.table.sorted() {
            let paths = &self.table.paths;
            let mut ways = self.table.dest(dest).paths.iter();
            let goes_there = |entry: &Entry| {
                let way = paths.way(entry.used);
                way.is_some_and(|way| moved.contains(&way))
            };
            if ways.any(goes_there) {
                self.reselect(dest, out);
            }
        }
    }

    /// Whether we are one of these clusters.
    pub(super) fn is_own_cluster(&self, clusters: &[RouterId]) -> bool {
        let own = |cluster| self.own_clusters.binary_search(cluster).is_ok();
        clusters.iter().any(own)
    }

    /// Puts an entry in the place of another of the same source and identifier.
    pub(super) fn put(&mut self, dest: DestId, at: usize, entry: Entry, out: &mut Vec<Action>) {
        self.table.paths.hold(entry.told);
        self.table.paths.hold(entry.used);
        let before = self.table.replace_at(dest, at, entry);
        let family = self.table.dest(dest).prefix.family();
        if let Some(peer) = self.table.paths.peer(entry.told)
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.uncount(family, before.marks);
            peer.count(family, entry.marks);
        }
        if self.followed && before != entry {
            let peer = self.table.paths.peer(entry.told);
            self.tell_followers(dest, peer, entry.id, out);
        }
        self.table.release(before);
    }

    /// Changes what is noted about an entry.
    pub(super) fn mark(&mut self, dest: DestId, at: usize, marks: Marks) {
        let entry = self.table.entry_mut(dest, at);
        let before = std::mem::replace(&mut entry.marks, marks);
        let told = entry.told;
        let family = self.table.dest(dest).prefix.family();
        if let Some(peer) = self.table.paths.peer(told)
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            peer.uncount(family, before);
            peer.count(family, marks);
        }
    }

    /// Takes away the paths of a peer that `goes` names.
    pub(super) fn forget_paths(
        &mut self,
        index: PeerIndex,
        goes: impl Fn(&Prefix, &Entry) -> bool,
        out: &mut Vec<Action>,
    ) {
        let Some(peer) = self.peers.get(&index) else {
            return;
        };
        let dests: Vec<DestId> = peer.dests.iter().collect();
        for dest in dests {
            let found = self.table.dest(dest);
            let theirs = |entry: &&Entry| self.table.paths.peer(entry.told) == Some(index);
            let gone: SmallVec<[PathId; 4]> = found
                .paths
                .iter()
                .filter(theirs)
                .filter(|entry| goes(&found.prefix, entry))
                .map(|entry| entry.id)
                .collect();
            for id in gone {
                self.withdraw(dest, Some(index), id, out);
            }
        }
    }

    pub(super) fn reselect(&mut self, dest: DestId, out: &mut Vec<Action>) {
        let scope = match self.deferral {
            Some(_) => Scope::OwnRoutes,
            None => Scope::All,
        };
        let multipath = self.config.multipath;
        let told_otherwise = self.table.reselect(dest, multipath, scope, out);
        self.note_selection(dest, told_otherwise, out);
        self.table.drop_if_empty(dest);
    }

    /// Notes what selection has left for peers and followers to look at.
    fn note_selection(&mut self, dest: DestId, told_otherwise: bool, out: &mut Vec<Action>) {
        if self.followed && told_otherwise {
            let prefix = self.table.dest(dest).prefix;
            out.push(Action::Changed(Changed::Selected(prefix)));
        }
        // Who is told every path has to look whichever of them has changed.
        if told_otherwise || self.groups.any_wants_every_path() {
            self.table.note(dest);
        }
    }

    pub(super) fn reselect_all(&mut self, out: &mut Vec<Action>) {
        for dest in self.table.sorted() {
            self.reselect(dest, out);
        }
    }

    /// Tells the shell about peers that wait and for whom there is something again.
    fn wake(&mut self, now: Instant, out: &mut Vec<Action>) {
        let end = self.table.journal.end();
        let due = self.next_round.is_none_or(|next| next <= now);
        if self.woken_until != end && due {
            self.woken_until = end;
            let mut woken = 0;
            for session in self
                .peers
                .values_mut()
                .filter_map(|peer| peer.session.as_mut())
            {
                woken += u32::from(session.rouse(out));
            }
            self.next_round = Some(now + PAUSE_PER_PEER * woken);
        }
        if self.owing.is_empty() || self.deferral.is_some() {
            return;
        }
        let settled = self.table.pending() == 0;
        for index in &self.owing {
            let session = self
                .peers
                .get_mut(index)
                .and_then(|peer| peer.session.as_mut());
            if let Some(session) = session
                && (settled || session.egress.end_of_rib_at <= now)
            {
                session.rouse(out);
            }
        }
    }
}

/// The first of `updates`, as many as have [`LOOKAHEAD`] prefixes, and one at least.
fn near(updates: &[Update]) -> &[Update] {
    let mut prefixes = 0;
    let within_reach = updates.iter().take_while(|update| {
        let room = prefixes < LOOKAHEAD;
        prefixes += update.nlri().count();
        room
    });
    &updates[..within_reach.count()]
}
