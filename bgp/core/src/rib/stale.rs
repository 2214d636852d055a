//! Routes that a peer has not told again: of an earlier session (RFC 4724, RFC 9494), or since it
//! began a refresh (RFC 7313).
//!
//! Owns how long they stay, and when they become a last resort. Does not own which families of a
//! session are retained at all, which is the FSM's.

use std::time::{Duration, Instant};

use crate::fsm::{Negotiated, Retention};
use crate::rib::event::Action;
use crate::rib::machine::Rib;
use crate::rib::path::{Path, PeerId, PeerIndex};
use crate::rib::table::{DestId, Entry, Marks};
use crate::types::{Family, FamilySet};
use crate::wire::Community;

/// How long the stale routes of one family of a peer stay without a word from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stale {
    /// When those that are not yet a last resort go, or become it.
    until: Instant,
    /// How long they stay beyond that as a last resort; zero for not at all.
    long_lived_time: Duration,
    /// When those that are a last resort already go. RFC 9494 §4.2: neither the peer's return nor
    /// its next restart moves this, until a session has told all.
    last_resort_until: Option<Instant>,
}

impl Stale {
    /// When something is to be done.
    pub(super) fn wake(&self) -> Instant {
        let last_resort = self.last_resort_until.unwrap_or(self.until);
        self.until.min(last_resort)
    }
}

impl Rib {
    /// The times that run for each family of a peer.
    pub(super) fn stale_times(&self, index: PeerIndex) -> [Option<Stale>; Family::ALL.len()] {
        Family::ALL.map(|family| self.stale.get(&(index, family)).copied())
    }

    /// Keeps of the routes of a session that has ended what `retain` says. `before` is what was
    /// still kept of an earlier one.
    pub(super) fn retain(
        &mut self,
        now: Instant,
        index: PeerIndex,
        retain: &[Retention],
        before: [Option<Stale>; Family::ALL.len()],
        out: &mut Vec<Action>,
    ) {
        let kept: FamilySet = retain.iter().map(|retention| retention.family).collect();
        // RFC 4724 §4.2: what was already stale when the peer restarts again goes now, except
        // (RFC 9494 §4.2) where routes are kept long.
        let twice: FamilySet = retain
            .iter()
            .filter(|retention| !retention.long_lived_time.is_zero())
            .map(|retention| retention.family)
            .collect();
        self.forget_paths(
            index,
            |prefix, entry| {
                let family = prefix.family();
                !kept.contains(family) || (entry.marks.stale && !twice.contains(family))
            },
            out,
        );
        // What lacked in a refresh that did not end was as good as the rest.
        self.mark_all(index, kept, |marks| Marks {
            stale: true,
            refreshing: false,
            ..marks
        });
        for retention in retain {
            let before = before[retention.family.index()];
            let stale = Stale {
                until: now + retention.restart_time,
                long_lived_time: retention.long_lived_time,
                last_resort_until: before.and_then(|before| before.last_resort_until),
            };
            self.stale.insert((index, retention.family), stale);
            if retention.restart_time.is_zero() {
                self.stale_expired(now, index, retention.family, out);
            }
        }
    }

    /// RFC 4724 §4.2: routes retained from before stay until End-of-RIB only for families whose
    /// forwarding the peer says it kept.
    pub(super) fn keep_stale_of_returning(
        &mut self,
        now: Instant,
        index: PeerIndex,
        negotiated: &Negotiated,
        out: &mut Vec<Action>,
    ) {
        let restart = negotiated.graceful_restart.as_ref();
        for family in Family::ALL {
            let Some(stale) = self.stale.get_mut(&(index, family)) else {
                continue;
            };
            // RFC 9494 §4.2: in the second phase the F bit of the long-lived capability counts as
            // well.
            let long_lived = negotiated.long_lived.iter().flatten();
            let forwarding = restart
                .is_some_and(|restart| restart.families.contains(&(family, true)))
                || long_lived
                    .clone()
                    .any(|kept| kept.family == family && kept.forwarding);
            if forwarding && negotiated.families.contains(&family) {
                stale.until = now + self.config.stale_time;
                stale.long_lived_time = Duration::ZERO;
            } else {
                self.sweep_stale(index, family, out);
            }
        }
    }

    /// Does what is due at `now`.
    pub(super) fn expire(&mut self, now: Instant, out: &mut Vec<Action>) {
        let due = |wake: Instant| wake <= now;
        let stale = self.stale.iter().filter(|(_, stale)| due(stale.wake()));
        for (index, family) in stale.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.stale_expired(now, index, family, out);
        }
        let refreshing = self.refreshing.iter().filter(|(_, until)| due(**until));
        for (index, family) in refreshing.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.sweep_refreshing(index, family, out);
        }
    }

    fn stale_expired(
        &mut self,
        now: Instant,
        index: PeerIndex,
        family: Family,
        out: &mut Vec<Action>,
    ) {
        let Some(stale) = self.stale.get(&(index, family)).copied() else {
            return;
        };
        if stale.last_resort_until.is_some_and(|until| until <= now) {
            self.forget_last_resort(index, family, out);
            if let Some(stale) = self.stale.get_mut(&(index, family)) {
                stale.last_resort_until = None;
            }
        }
        if stale.until > now {
            return;
        }
        if stale.long_lived_time.is_zero() {
            return self.sweep_stale(index, family, out);
        }
        let running = stale.last_resort_until.filter(|until| *until > now);
        let until = running.unwrap_or(now + stale.long_lived_time);
        let stale = Stale {
            until,
            long_lived_time: Duration::ZERO,
            last_resort_until: Some(until),
        };
        self.stale.insert((index, family), stale);
        self.make_last_resort(index, family, out);
    }

    /// Takes away what is a last resort, and leaves what is stale from a later session.
    fn forget_last_resort(&mut self, index: PeerIndex, family: Family, out: &mut Vec<Action>) {
        for (dest, entry) in self.stale_paths(index, family) {
            if self.table.paths.get(entry.told).long_lived {
                self.withdraw(dest, Some(index), entry.id, out);
            }
        }
    }

    /// The first time of stale routes is over: they become the last resort.
    fn make_last_resort(&mut self, index: PeerIndex, family: Family, out: &mut Vec<Action>) {
        // RFC 9494 §4.2: what must not be kept goes, whether the peer says so or a rule of ours.
        let goes = |path: &Path| path.attributes.communities.contains(&Community::NO_LLGR);
        for (dest, entry) in self.stale_paths(index, family) {
            let id = entry.id;
            let told = self.table.paths.get(entry.told).clone();
            if goes(&told) || goes(self.table.paths.get(entry.used)) {
                self.withdraw(dest, Some(index), id, out);
                continue;
            }
            let told = Path {
                long_lived: true,
                ..told
            };
            let (Some(at), Some(mut intake)) = (
                self.table.position(dest, Some(index), id),
                self.intake(told, family),
            ) else {
                continue;
            };
            let prefix = self.table.dest(dest).prefix;
            let (used, marks) = self.admit(&mut intake, &prefix);
            let entry = Entry {
                told: intake.told,
                used,
                id,
                marks: Marks {
                    stale: true,
                    ..marks
                },
            };
            self.put(dest, at, entry, out);
            intake.end(&mut self.table.paths);
            self.reselect(dest, out);
        }
    }

    /// The stale paths of a peer. One leaves the table by itself alone, so each is there until its turn.
    fn stale_paths(&self, index: PeerIndex, family: Family) -> Vec<(DestId, Entry)> {
        let dests = self.peers.get(&index).map(|peer| peer.dests.iter());
        let dests = dests.into_iter().flatten();
        let of_family = dests.filter(|dest| self.table.dest(*dest).prefix.family() == family);
        let entries = of_family.flat_map(|dest| {
            let entries = self.table.dest(dest).paths.iter();
            entries.map(move |entry| (dest, *entry))
        });
        entries
            .filter(|(_, entry)| entry.marks.stale)
            .filter(|(_, entry)| self.table.paths.peer(entry.told) == Some(index))
            .collect()
    }

    pub(super) fn sweep_stale(&mut self, index: PeerIndex, family: Family, out: &mut Vec<Action>) {
        if self.stale.remove(&(index, family)).is_some() {
            self.forget_paths(
                index,
                |prefix, entry| entry.marks.stale && prefix.family() == family,
                out,
            );
        }
    }

    /// RFC 7313 §4.2: what the peer does not tell again before it ends its refresh is gone.
    pub(super) fn refresh_begun(&mut self, now: Instant, id: PeerId, family: Family) {
        let peer = self.peers.get_mut(&id.index);
        let Some(session) = peer.and_then(|peer| peer.session(id)) else {
            return;
        };
        // RFC 7313 §4: a peer that restarts gracefully is not heard on this before its End-of-RIB.
        let early = session.negotiated.graceful_restart.is_some()
            && !session.end_of_rib_received.contains(family);
        if early {
            return;
        }
        self.mark_all(id.index, [family].into_iter().collect(), |marks| Marks {
            refreshing: !marks.stale,
            ..marks
        });
        let until = now + self.config.stale_time;
        self.refreshing.insert((id.index, family), until);
    }

    pub(super) fn refresh_ended(&mut self, id: PeerId, family: Family, out: &mut Vec<Action>) {
        let peer = self.peers.get_mut(&id.index);
        if peer.is_some_and(|peer| peer.session(id).is_some()) {
            self.sweep_refreshing(id.index, family, out);
        }
    }

    fn sweep_refreshing(&mut self, index: PeerIndex, family: Family, out: &mut Vec<Action>) {
        // An end without a beginning says nothing.
        if self.refreshing.remove(&(index, family)).is_some() {
            self.forget_paths(
                index,
                |prefix, entry| entry.marks.refreshing && prefix.family() == family,
                out,
            );
        }
    }

    /// Changes what is noted about every path of a peer in these families.
    fn mark_all(&mut self, index: PeerIndex, families: FamilySet, change: impl Fn(Marks) -> Marks) {
        let Some(peer) = self.peers.get(&index) else {
            return;
        };
        for dest in peer.dests.iter().collect::<Vec<_>>() {
            if !families.contains(self.table.dest(dest).prefix.family()) {
                continue;
            }
            for at in 0..self.table.dest(dest).paths.len() {
                let Entry { told, marks, .. } = self.table.dest(dest).paths[at];
                if self.table.paths.peer(told) == Some(index) {
                    self.mark(dest, at, change(marks));
                }
            }
        }
    }
}
