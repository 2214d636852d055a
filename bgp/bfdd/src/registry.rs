//! Who wants which session, and what happened to it while they were away.
//!
//! Owns wishes and their end, the parameters that follow from them, and each session's latest
//! history. Does not own the sessions, which are the engine's: it is told what they should be by
//! [`Order`]s, and tells what became of them. Takes the time as an argument, so that ten minutes
//! pass quickly in tests.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use caracal_bgp_core::bfd::{Change, Diag, State, Why};

use crate::config::{Refusal, SessionConfig, Spec};
use crate::proto::{Adopted, Applied, Owner, Reason, Refused, SessionEvent, SessionKey, Standing};

/// Changes of state that are kept of each session. A flapping session changes a few times a second,
/// so this covers what an agent misses that restarts at once, and the end of what it misses if it
/// takes long.
const HISTORY: usize = 16;
/// Sessions of one process: each needs a source port out of 16,384 (RFC 5881 §4), a socket and
/// about a kilobyte.
pub(crate) const MAX_SESSIONS: usize = 4096;

/// What the engine must do, in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// Run the session with these parameters; it may run already, or be on its way out.
    Set(SessionKey, Spec),
    /// Tell the peer AdminDown, then forget the session.
    Remove(SessionKey),
}

/// A change of state and when it was.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Transition {
    /// Counts the session's changes, from one.
    pub(crate) number: u64,
    pub(crate) at: Instant,
    pub(crate) change: Change,
}

#[derive(Debug)]
pub(crate) struct Registry {
    /// How long a wish outlives the connection of its owner.
    hold: Duration,
    sessions: BTreeMap<SessionKey, Tracked>,
}

/// Now, on both clocks: monotonic times are told as times of day by it, so that they stay right
/// when somebody sets the clock.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at: Instant,
    /// Since 1970.
    pub(crate) unix: Duration,
}

impl Moment {
    pub(crate) fn now() -> Self {
        Self {
            at: Instant::now(),
            unix: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .unwrap_or_default(),
        }
    }

    fn age(&self, past: Instant) -> Duration {
        self.at.saturating_duration_since(past)
    }

    /// Milliseconds from 1970 to `past`.
    pub(crate) fn unix_ms(&self, past: Instant) -> u64 {
        let since = self.unix.saturating_sub(self.age(past));
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}

#[derive(Debug)]
struct Tracked {
    /// Empty while the session is on its way out.
    wants: BTreeMap<String, Want>,
    created: Instant,
    spec: Spec,
    history: VecDeque<Transition>,
}

#[derive(Debug)]
struct Want {
    spec: Spec,
    /// When its owner went away.
    away: Option<Away>,
}

#[derive(Clone, Copy, Debug)]
struct Away {
    since: Instant,
    /// The number of the last change before.
    seen: u64,
}

impl Registry {
    pub(crate) fn new(hold: Duration) -> Self {
        Self {
            hold,
            sessions: BTreeMap::new(),
        }
    }

    /// The owner wants `configs` and nothing else.
    pub(crate) fn apply(
        &mut self,
        now: Moment,
        owner: &str,
        configs: &[SessionConfig],
        orders: &mut Vec<Order>,
    ) -> Applied {
        let mut applied = Applied::default();
        let mut named = BTreeSet::new();
        for config in configs {
            if named.insert(&config.key) {
                self.add_to(now, owner, config, orders, &mut applied);
            } else {
                refuse(config, Refusal::Twice, &mut applied);
            }
        }
        let unnamed: Vec<SessionKey> = self
            .sessions
            .iter()
            .filter(|(key, tracked)| tracked.wants.contains_key(owner) && !named.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in unnamed {
            self.remove(owner, &key, orders);
        }
        applied
    }

    /// The owner wants `config`, too.
    pub(crate) fn add(
        &mut self,
        now: Moment,
        owner: &str,
        config: &SessionConfig,
        orders: &mut Vec<Order>,
    ) -> Applied {
        let mut applied = Applied::default();
        self.add_to(now, owner, config, orders, &mut applied);
        applied
    }

    fn add_to(
        &mut self,
        now: Moment,
        owner: &str,
        config: &SessionConfig,
        orders: &mut Vec<Order>,
        applied: &mut Applied,
    ) {
        match self.want(now, owner, config, orders) {
            Ok(adopted) => applied.sessions.push(adopted),
            Err(refusal) => {
                // What ran before under this name with other parameters runs on: a mistake in new
                // ones is no wish to have none.
                let before = self.sessions.get_mut(&config.key);
                if let Some(want) = before.and_then(|tracked| tracked.wants.get_mut(owner)) {
                    want.away = None;
                }
                refuse(config, refusal, applied);
            }
        }
    }

    fn want(
        &mut self,
        now: Moment,
        owner: &str,
        config: &SessionConfig,
        orders: &mut Vec<Order>,
    ) -> Result<Adopted, Refusal> {
        let key = &config.key;
        let spec = config.check()?;
        let count = self.sessions.len();
        let existing = self.sessions.get_mut(key);
        let existed = existing
            .as_ref()
            .is_some_and(|tracked| !tracked.wants.is_empty());
        let tracked = match existing {
            Some(tracked) => tracked,
            None if count >= MAX_SESSIONS => return Err(Refusal::TooMany(count)),
            None => self
                .sessions
                .entry(key.clone())
                .or_insert_with(|| Tracked::new(spec.clone(), now.at)),
        };
        let joined = tracked.joined(owner, Some(&spec))?;
        let want = Want { spec, away: None };
        let before = tracked.wants.insert(owner.to_owned(), want);
        let seen = before.map(|want| want.away.map_or(u64::MAX, |away| away.seen));
        tracked.take_up(key, existed, joined, orders);
        let (missed, missed_more) = match seen {
            Some(seen) => tracked.missed(key, seen, now),
            None => (Vec::new(), 0),
        };
        Ok(Adopted {
            key: key.clone(),
            existed,
            standing: tracked.standing(now),
            missed,
            missed_more,
        })
    }

    /// The owner no longer wants the session.
    pub(crate) fn remove(&mut self, owner: &str, key: &SessionKey, orders: &mut Vec<Order>) {
        let Some(tracked) = self.sessions.get_mut(key) else {
            return;
        };
        if tracked.wants.remove(owner).is_none() {
            return;
        }
        if tracked.wants.is_empty() {
            orders.push(Order::Remove(key.clone()));
        } else if let Ok(joined) = tracked.joined(owner, None) {
            tracked.take_up(key, true, joined, orders);
        }
    }

    /// The owner's connection has ended.
    pub(crate) fn owner_left(&mut self, now: Moment, owner: &str) {
        for tracked in self.sessions.values_mut() {
            let seen = tracked.transitions();
            if let Some(want) = tracked.wants.get_mut(owner) {
                want.away.get_or_insert(Away {
                    since: now.at,
                    seen,
                });
            }
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let wants = self.sessions.values().flat_map(|t| t.wants.values());
        let away = wants.filter_map(|want| want.away);
        away.map(|away| away.since + self.hold).min()
    }

    /// Forgets wishes of owners that have been away for too long; says which.
    pub(crate) fn handle_timeout(
        &mut self,
        now: Moment,
        orders: &mut Vec<Order>,
    ) -> Vec<(SessionKey, String)> {
        let hold = self.hold;
        let over = |want: &Want| want.away.is_some_and(|away| away.since + hold <= now.at);
        let forgotten: Vec<(SessionKey, String)> = self
            .sessions
            .iter()
            .flat_map(|(key, tracked)| {
                let over = tracked.wants.iter().filter(|(_, want)| over(want));
                over.map(|(owner, _)| (key.clone(), owner.clone()))
            })
            .collect();
        for (key, owner) in &forgotten {
            self.remove(owner, key, orders);
        }
        forgotten
    }

    /// A session has changed its state. The event to tell; `None` when the session is unknown.
    pub(crate) fn changed(
        &mut self,
        now: Moment,
        key: &SessionKey,
        transition: Transition,
    ) -> Option<SessionEvent> {
        let tracked = self.sessions.get_mut(key)?;
        if tracked.history.len() == HISTORY {
            tracked.history.pop_front();
        }
        tracked.history.push_back(transition);
        Some(event(key, &transition, now))
    }

    /// The engine has forgotten the session. If somebody wants it again by now, the engine was told
    /// so after it wrote this, and begins anew.
    pub(crate) fn gone(&mut self, now: Moment, key: &SessionKey) {
        let Some(tracked) = self.sessions.get_mut(key) else {
            return;
        };
        if tracked.wants.is_empty() {
            self.sessions.remove(key);
            return;
        }
        tracked.history.clear();
        tracked.created = now.at;
        for want in tracked.wants.values_mut() {
            if let Some(away) = &mut want.away {
                away.seen = 0;
            }
        }
    }

    /// How every session stands, with the latest failure of each as missed: it may have healed by now, and is
    /// nothing that a client may not hear of.
    pub(crate) fn standings(&self, now: Moment) -> Vec<Adopted> {
        let adopted = |(key, tracked): (&SessionKey, &Tracked)| {
            let mut latest = tracked.history.iter().rev();
            let failure = latest.find(|transition| transition.change.is_failure());
            Adopted {
                key: key.clone(),
                existed: true,
                standing: tracked.standing(now),
                missed: failure
                    .map(|failure| event(key, failure, now))
                    .into_iter()
                    .collect(),
                missed_more: 0,
            }
        };
        self.sessions.iter().map(adopted).collect()
    }

    /// What is known of one session: owners, standing, history.
    pub(crate) fn describe(
        &self,
        now: Moment,
        key: &SessionKey,
    ) -> Option<(Vec<Owner>, Standing, Vec<SessionEvent>)> {
        let tracked = self.sessions.get(key)?;
        let owner = |(name, want): (&String, &Want)| Owner {
            name: name.clone(),
            forgotten_in_s: want.away.map(|away| {
                let left = (away.since + self.hold).saturating_duration_since(now.at);
                left.as_secs()
            }),
        };
        let owners = tracked.wants.iter().map(owner).collect();
        let history = tracked.history.iter();
        let history = history.map(|t| event(key, t, now)).collect();
        Some((owners, tracked.standing(now), history))
    }
}

impl Tracked {
    fn new(spec: Spec, created: Instant) -> Self {
        Self {
            wants: BTreeMap::new(),
            created,
            spec,
            history: VecDeque::new(),
        }
    }

    /// The parameters if `owner` wanted `spec`, or nothing.
    fn joined(&self, owner: &str, spec: Option<&Spec>) -> Result<Spec, Refusal> {
        let others = self.wants.iter().filter(|(name, _)| *name != owner);
        let mut specs = others.map(|(_, want)| &want.spec).chain(spec);
        let Some(first) = specs.next() else {
            return Ok(self.spec.clone());
        };
        specs.try_fold(first.clone(), |joined, spec| joined.join(spec))
    }

    fn take_up(&mut self, key: &SessionKey, runs: bool, spec: Spec, orders: &mut Vec<Order>) {
        if !runs || self.spec != spec {
            self.spec = spec;
            orders.push(Order::Set(key.clone(), self.spec.clone()));
        }
    }

    fn transitions(&self) -> u64 {
        self.history.back().map_or(0, |last| last.number)
    }

    fn missed(&self, key: &SessionKey, seen: u64, now: Moment) -> (Vec<SessionEvent>, u64) {
        let missed = self.history.iter().filter(|t| t.number > seen);
        let missed: Vec<_> = missed.map(|t| event(key, t, now)).collect();
        let all = self.transitions().saturating_sub(seen);
        let kept = missed.len() as u64;
        (missed, all.saturating_sub(kept))
    }

    fn standing(&self, now: Moment) -> Standing {
        match self.history.back() {
            Some(last) => standing(last, now),
            None => Standing {
                state: State::Down,
                diag: Diag::None,
                reason: Reason::NeverUp,
                remote_state: State::Down,
                remote_diag: Diag::None,
                local_c: crate::CONTROL_PLANE_INDEPENDENT,
                remote_c: false,
                since_unix_ms: now.unix_ms(self.created),
                age_us: micros(now.age(self.created)),
                transitions: 0,
            },
        }
    }
}

fn refuse(config: &SessionConfig, refusal: Refusal, applied: &mut Applied) {
    applied.refused.push(Refused {
        key: config.key.clone(),
        why: refusal.to_string(),
    });
}

fn event(key: &SessionKey, transition: &Transition, now: Moment) -> SessionEvent {
    SessionEvent {
        key: key.clone(),
        from: transition.change.from,
        failure: transition.change.is_failure(),
        silence_us: transition.change.silence.map(micros),
        standing: standing(transition, now),
    }
}

fn standing(transition: &Transition, now: Moment) -> Standing {
    let Transition { number, at, change } = transition;
    Standing {
        state: change.to,
        diag: change.diag,
        reason: change.why.into(),
        remote_state: change.remote.state,
        remote_diag: change.remote.diag,
        local_c: crate::CONTROL_PLANE_INDEPENDENT,
        remote_c: change.remote.control_plane_independent,
        since_unix_ms: now.unix_ms(*at),
        age_us: micros(now.age(*at)),
        transitions: *number,
    }
}

impl From<Why> for Reason {
    fn from(why: Why) -> Self {
        match why {
            Why::NeverUp => Self::NeverUp,
            Why::Heard => Self::Heard,
            Why::DetectionTimeExpired => Self::DetectionTimeExpired,
            Why::NeighborSignaledDown(_) => Self::NeighborSignaledDown,
            Why::NeighborAdminDown(_) => Self::NeighborAdminDown,
            Why::AdminDown(_) => Self::AdminDown,
        }
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
