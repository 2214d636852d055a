//! The thread that keeps sessions alive.
//!
//! Owns sessions, their sockets and timers. Waits for nobody: orders come by a channel that it
//! looks into, reports go by one that it does not wait for, and it writes no log, since whoever
//! reads that might be slow. What has arrived is always looked at before timers, so that a thread
//! that was kept from running blames no peer for it.

mod entry;
mod message;
mod receive;
mod transmit;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::mpsc::{Receiver as Orders, SyncSender, TrySendError};
use std::time::{Duration, Instant};

use caracal_bgp_core::bfd::{Action, Arrival, Config, Demux, Diag, Event, Path, Session};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use self::entry::Entry;
pub(crate) use self::entry::{Details, MachineDetails};
pub(crate) use self::message::{Command, Report};
pub(crate) use self::receive::Receiver;
use self::receive::{Batch, Received};
use self::transmit::Ports;
use crate::CONTROL_PLANE_INDEPENDENT;
use crate::config::Spec;
use crate::error::Error;
use crate::priority;
use crate::proto::SessionKey;
use crate::registry::Order;
use crate::wake::Wake;

/// The thread runs at most so often: what comes within this time is handled together, which is what
/// makes a thousand sessions cheap.
const SHORTEST_TICK: Duration = Duration::from_millis(1);
/// It runs less often when every session is slow, and at least so often.
const LONGEST_TICK: Duration = Duration::from_millis(5);
/// How many times in the shortest interval. Jitter takes up to a quarter of an interval, so one part
/// in fifty is lost in it.
const TICKS_PER_INTERVAL: u32 = 50;
/// Sockets opened in one turn: each takes some ten microseconds, and sessions that run must not
/// wait for a thousand that begin.
const OPENS_PER_TURN: usize = 16;
/// How long to wait before trying again what the kernel refused.
const OPEN_AGAIN: Duration = Duration::from_secs(1);
/// Batches read in one turn from one socket: as much as its buffer holds, so that after a time
/// without running all is looked at before a timer blames anybody. More is a flood, which must not
/// keep timers from running.
const BATCHES_PER_TURN: usize = 512;
/// After a long turn the thread rests for as long again, up to this, so that at real-time priority it
/// leaves half of a core to others, whatever is sent to it.
const LONGEST_REST: Duration = Duration::from_millis(20);
/// Changes of state that may wait for a reader that does not run. Beyond, only the latest of each
/// session is kept.
const OUTBOX: usize = 8192;
/// At the end of the process, how long peers are told; the usual three slow intervals fit.
const LONGEST_FAREWELL: Duration = Duration::from_secs(5);

/// Tells sockets from the wake-up.
const WAKE: u64 = u64::MAX;

pub(crate) struct Engine {
    epoll: Epoll,
    receivers: Vec<Receiver>,
    orders: Orders<Command>,
    woken: Wake,
    reports: SyncSender<Report>,
    reader: Wake,
    scheduling: String,
    chance: RandomState,
    draws: u64,

    entries: Vec<Option<Entry>>,
    by_key: BTreeMap<SessionKey, usize>,
    free: Vec<usize>,
    demux: Demux<usize>,
    ports: Ports,
    /// When to look at which session. An entry may be early or of a session that is gone.
    timers: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When to open whose socket.
    opens: BTreeSet<(Instant, usize)>,
    outbox: VecDeque<Report>,
    /// Whether changes were left out of the outbox.
    overflowed: bool,
    unmatched: BTreeMap<&'static str, u64>,
    stop_by: Option<Instant>,
    tick: Duration,
    /// Whether sessions have come, gone or changed since the tick was chosen.
    tick_stale: bool,

    actions: Vec<Action>,
    received: Vec<Received>,
}

impl Engine {
    /// An engine that has yet to run.
    pub(crate) fn new(
        receivers: Vec<Receiver>,
        orders: Orders<Command>,
        woken: Wake,
        reports: SyncSender<Report>,
        reader: Wake,
    ) -> Result<Self, Error> {
        let failed = |source: nix::Error| Error::System {
            doing: "watch sockets",
            source: source.into(),
        };
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(failed)?;
        for (number, receiver) in receivers.iter().enumerate() {
            let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
            epoll.add(receiver, event).map_err(failed)?;
        }
        let event = EpollEvent::new(EpollFlags::EPOLLIN, WAKE);
        epoll.add(&woken, event).map_err(failed)?;
        Ok(Self {
            epoll,
            receivers,
            orders,
            woken,
            reports,
            reader,
            scheduling: String::new(),
            chance: RandomState::new(),
            draws: 0,
            entries: Vec::new(),
            by_key: BTreeMap::new(),
            free: Vec::new(),
            demux: Demux::default(),
            ports: Ports::default(),
            timers: BinaryHeap::new(),
            opens: BTreeSet::new(),
            outbox: VecDeque::new(),
            overflowed: false,
            unmatched: BTreeMap::new(),
            stop_by: None,
            tick: LONGEST_TICK,
            tick_stale: false,
            actions: Vec::new(),
            received: Vec::new(),
        })
    }

    /// Runs until told to stop, on a thread of its own. Without `realtime` the kernel schedules the
    /// thread as any other.
    pub(crate) fn run(mut self, realtime: bool) {
        self.scheduling = if realtime {
            priority::raise()
        } else {
            "as any other".to_owned()
        };
        let mut batch = Batch::new();
        let mut ready = vec![EpollEvent::empty(); self.receivers.len() + 1];
        loop {
            let timeout = self.timeout(Instant::now());
            // An error is as good as the time being over: timers run all the same.
            let _ = self.epoll.wait(&mut ready, timeout);
            let now = Instant::now();
            // Asked again: between the answer and the look at the clock the thread may have been kept
            // from running, and a signal ends the wait without an answer.
            let count = self.ready(&mut ready);
            for event in &ready[..count] {
                match usize::try_from(event.data()) {
                    Ok(number) if number < self.receivers.len() => self.receive(number, &mut batch),
                    _ => self.woken.clear(),
                }
            }
            self.obey();
            // As of before all that has arrived was looked at: whoever seems silent is.
            self.expire(now);
            self.open();
            self.report();
            if self.is_over() {
                return;
            }
            let tick = self.tick(now);
            let spent = now.elapsed();
            std::thread::sleep(tick.saturating_sub(spent).max(spent.min(LONGEST_REST)));
        }
    }

    /// What there is to read at this moment.
    fn ready(&self, ready: &mut [EpollEvent]) -> usize {
        loop {
            match self.epoll.wait(ready, EpollTimeout::ZERO) {
                Ok(count) => return count,
                Err(nix::errno::Errno::EINTR) => {}
                // Nothing else can be wrong with descriptors that are ours.
                Err(_) => return 0,
            }
        }
    }

    /// How long to let things gather.
    fn tick(&mut self, now: Instant) -> Duration {
        // Sessions that begin come a few at a time.
        if self.opens.first().is_some_and(|(due, _)| *due <= now) {
            return SHORTEST_TICK;
        }
        if std::mem::take(&mut self.tick_stale) {
            let timings = self.entries.iter().flatten().map(|entry| entry.spec.timing);
            let shortest = timings
                .map(|t| t.desired_min_tx.min(t.required_min_rx))
                .min();
            self.tick = shortest.map_or(LONGEST_TICK, |interval| {
                let part = interval.as_duration() / TICKS_PER_INTERVAL;
                part.clamp(SHORTEST_TICK, LONGEST_TICK)
            });
        }
        self.tick
    }

    /// How long nothing is due, in whole milliseconds, rounded up.
    fn timeout(&self, now: Instant) -> EpollTimeout {
        let timer = self.timers.peek().map(|Reverse((due, _))| *due);
        let open = self.opens.first().map(|(due, _)| *due);
        let retry = (!self.outbox.is_empty()).then(|| now + SHORTEST_TICK);
        let due = [timer, open, retry, self.stop_by]
            .into_iter()
            .flatten()
            .min();
        let Some(due) = due else {
            return EpollTimeout::NONE;
        };
        let wait = due.saturating_duration_since(now);
        let millis = wait.as_micros().div_ceil(1000);
        EpollTimeout::try_from(millis).unwrap_or(EpollTimeout::MAX)
    }

    fn receive(&mut self, number: usize, batch: &mut Batch) {
        let mut incomplete = 0;
        for _ in 0..BATCHES_PER_TURN {
            let mut received = std::mem::take(&mut self.received);
            let receiver = &self.receivers[number];
            let more = batch.read(receiver, &mut received, &mut incomplete);
            let now = Instant::now();
            for packet in received.drain(..) {
                self.take_in(now, packet);
            }
            self.received = received;
            match more {
                Ok(true) => {}
                Ok(false) => break,
                Err(_) => {
                    self.count_unmatched("receive_error", 1);
                    break;
                }
            }
        }
        if incomplete > 0 {
            self.count_unmatched("no_arrival_information", incomplete);
        }
    }

    fn take_in(&mut self, now: Instant, received: Received) {
        let Received { arrival, packet } = received;
        let selected =
            packet.and_then(|packet| Ok((self.demux.select(&arrival, &packet)?, packet)));
        match selected {
            Ok((index, packet)) => {
                if let Some(entry) = self.entries[index].as_mut() {
                    entry.heard(&mut self.outbox);
                    entry.begin_receive();
                }
                self.step(index, now, |session, actions| {
                    session.handle(now, Event::Received(packet), actions);
                });
            }
            Err(reason) => {
                self.count_unmatched(reason.name(), 1);
                // Whose packet it would have been sees that there was one.
                let index = self.session_with(&arrival);
                if let Some(entry) = index.and_then(|index| self.entries[index].as_mut()) {
                    entry.heard(&mut self.outbox);
                    entry.note_discard(reason);
                }
            }
        }
    }

    /// A session with the sender of a packet on that port, where there is one.
    fn session_with(&self, arrival: &Arrival) -> Option<usize> {
        let first = SessionKey {
            peer: arrival.peer,
            local: None,
            interface: None,
            multihop: false,
        };
        let with_peer = self.by_key.range(first..);
        with_peer
            .take_while(|(key, _)| key.peer == arrival.peer)
            .find(|(key, _)| key.multihop == arrival.multihop)
            .map(|(_, index)| *index)
    }

    fn count_unmatched(&mut self, reason: &'static str, count: u64) {
        *self.unmatched.entry(reason).or_default() += count;
    }

    fn obey(&mut self) {
        while let Ok(command) = self.orders.try_recv() {
            let now = Instant::now();
            match command {
                Command::Orders(orders) => {
                    for order in orders {
                        match order {
                            Order::Set(key, spec) => self.set(now, key, spec),
                            Order::Remove(key) => self.remove(now, &key),
                        }
                    }
                }
                Command::Describe { token } => self.describe(token),
                Command::Stop => self.stop(now),
            }
        }
    }

    fn set(&mut self, now: Instant, key: SessionKey, spec: Spec) {
        if self.stop_by.is_some() {
            return;
        }
        self.tick_stale = true;
        let Some(&index) = self.by_key.get(&key) else {
            let index = self.free.pop().unwrap_or_else(|| {
                self.entries.push(None);
                self.entries.len() - 1
            });
            self.by_key.insert(key.clone(), index);
            self.entries[index] = Some(Entry::new(key, spec));
            self.opens.insert((now, index));
            return;
        };
        let Some(entry) = self.entries[index].as_mut() else {
            return;
        };
        let path_changed = entry.spec.hops != spec.hops;
        entry.spec = spec.clone();
        if path_changed {
            self.make_known(index);
        }
        self.step(index, now, |session, actions| {
            for event in [
                Event::Passive(spec.passive),
                Event::Auth(spec.auth),
                Event::Timing(spec.timing),
                Event::Enable,
            ] {
                session.handle(now, event, actions);
            }
        });
    }

    fn remove(&mut self, now: Instant, key: &SessionKey) {
        let Some(&index) = self.by_key.get(key) else {
            return;
        };
        let ran = self.entries[index]
            .as_ref()
            .is_some_and(|entry| entry.session.is_some());
        if !ran {
            self.forget(index);
            return;
        }
        let diag = Diag::AdministrativelyDown;
        self.step(index, now, |session, actions| {
            session.handle(now, Event::Disable { diag }, actions);
        });
    }

    fn stop(&mut self, now: Instant) {
        if self.stop_by.is_some() {
            return;
        }
        self.stop_by = Some(now + LONGEST_FAREWELL);
        let keys: Vec<SessionKey> = self.by_key.keys().cloned().collect();
        for key in keys {
            self.remove(now, &key);
        }
    }

    fn is_over(&self) -> bool {
        self.stop_by
            .is_some_and(|by| self.by_key.is_empty() || by <= Instant::now())
    }

    fn describe(&mut self, token: u64) {
        let sessions = self.entries.iter().flatten().map(Entry::details).collect();
        self.outbox.push_back(Report::Details {
            token,
            sessions,
            unmatched: self.unmatched.clone(),
            scheduling: self.scheduling.clone(),
        });
    }

    fn expire(&mut self, now: Instant) {
        while let Some(Reverse((due, index))) = self.timers.peek().copied() {
            if due > now {
                return;
            }
            self.timers.pop();
            // The session armed this timer, or it is a leftover.
            let armed = self.entries[index]
                .as_mut()
                .is_some_and(|entry| entry.disarm(due));
            if armed {
                self.step(index, now, |session, actions| {
                    session.handle_timeout(now, actions);
                });
            }
        }
    }

    fn open(&mut self) {
        let now = Instant::now();
        for _ in 0..OPENS_PER_TURN {
            let Some((due, index)) = self.opens.first().copied().filter(|(due, _)| *due <= now)
            else {
                return;
            };
            self.opens.remove(&(due, index));
            self.open_one(now, index);
        }
    }

    fn open_one(&mut self, now: Instant, index: usize) {
        let Some(entry) = self.entries[index].as_mut() else {
            return;
        };
        if !entry.open(&mut self.ports, &mut self.outbox) {
            self.opens.insert((now + OPEN_AGAIN, index));
            return;
        }
        if entry.session.is_none() {
            let spec = entry.spec.clone();
            let session = self.begin(now, spec);
            if let Some(entry) = self.entries[index].as_mut() {
                entry.session = Some(session);
            }
        }
        self.make_known(index);
        // Arms the timer; what was due while there was no way is sent now.
        self.step(index, now, |session, actions| {
            session.handle_timeout(now, actions);
        });
    }

    fn begin(&mut self, now: Instant, spec: Spec) -> Session {
        let config = Config {
            discriminator: self.discriminator(),
            timing: spec.timing,
            passive: spec.passive,
            auth: spec.auth,
            control_plane_independent: CONTROL_PLANE_INDEPENDENT,
            seed: self.random(),
        };
        Session::new(config, now)
    }

    fn random(&mut self) -> u64 {
        self.draws += 1;
        self.chance.hash_one(self.draws)
    }

    /// RFC 5880 §6.8.1: unique, not zero, and at random, so that nobody guesses it.
    fn discriminator(&mut self) -> NonZeroU32 {
        loop {
            let drawn = NonZeroU32::new(self.random() as u32);
            if let Some(discriminator) = drawn.filter(|drawn| !self.demux.contains(*drawn)) {
                return discriminator;
            }
        }
    }

    /// Lets packets of the session find it.
    fn make_known(&mut self, index: usize) {
        let Some(entry) = self.entries[index].as_ref() else {
            return;
        };
        if let Some(session) = &entry.session {
            let path = Path {
                local: entry.key.local,
                peer: entry.key.peer,
                interface: entry.interface(),
                hops: entry.spec.hops,
            };
            self.demux.insert(session.discriminator(), path, index);
        }
    }

    /// Lets a session do something, and does what it says.
    fn step(
        &mut self,
        index: usize,
        now: Instant,
        work: impl FnOnce(&mut Session, &mut Vec<Action>),
    ) {
        let Some(entry) = self.entries[index].as_mut() else {
            return;
        };
        let Some(mut session) = entry.session.take() else {
            return;
        };
        let mut actions = std::mem::take(&mut self.actions);
        work(&mut session, &mut actions);
        let mut finished = false;
        for action in actions.drain(..) {
            match action {
                Action::Send(packet) => {
                    if entry.send(&packet, &mut self.outbox) {
                        self.opens.insert((now + OPEN_AGAIN, index));
                    }
                }
                Action::Changed(change) => {
                    let room = self.outbox.len() < OUTBOX;
                    self.overflowed |= !room;
                    let report = entry.changed(now, change, room);
                    self.outbox.extend(report);
                }
                Action::Discarded(reason) => entry.discarded(reason),
                Action::Finished => finished = true,
            }
        }
        self.actions = actions;
        let due = session.poll_timeout();
        entry.session = Some(session);
        if let Some(due) = due.filter(|due| entry.arm(*due)) {
            self.timers.push(Reverse((due, index)));
        }
        if finished {
            self.forget(index);
        }
    }

    fn forget(&mut self, index: usize) {
        let Some(entry) = self.entries[index].take() else {
            return;
        };
        self.tick_stale = true;
        if let Some(session) = &entry.session {
            self.demux.remove(session.discriminator());
        }
        if let Some(port) = entry.port {
            self.ports.give_back(port);
        }
        self.opens.retain(|(_, other)| *other != index);
        self.by_key.remove(&entry.key);
        self.free.push(index);
        self.outbox.push_back(Report::Gone { key: entry.key });
    }

    /// Hands reports over as far as there is room.
    fn report(&mut self) {
        if self.outbox.is_empty() {
            return;
        }
        while let Some(report) = self.outbox.pop_front() {
            match self.reports.try_send(report) {
                Ok(()) => {}
                Err(TrySendError::Full(report)) => {
                    self.outbox.push_front(report);
                    break;
                }
                // Without a reader there are no clients, and nobody could ever end the sessions.
                Err(TrySendError::Disconnected(_)) => {
                    self.outbox.clear();
                    self.stop(Instant::now());
                    return;
                }
            }
        }
        self.reader.wake();
        if self.outbox.is_empty() && std::mem::take(&mut self.overflowed) {
            let entries = self.entries.iter_mut().flatten();
            self.outbox.extend(entries.filter_map(Entry::catch_up));
        }
    }
}
