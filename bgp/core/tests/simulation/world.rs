//! Time, and the wires between speakers.
//!
//! Owns the order of everything that happens: one queue of jobs, each at its time. Wires are TCP as
//! its users see it: octets come in order, in pieces of any size, after any time, or stop coming; as
//! much is under way as the window allows. Does not own what a speaker does (`speaker`).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use caracal_bgp_core::fsm::ConnId;

use crate::fabric::{Fabric, Side, across};
use crate::plan::Plan;
use crate::random::Random;
use crate::speaker::Speaker;
use crate::steps::Undo;

/// How long last words may wait for a peer that does not read.
const LINGER: Duration = Duration::from_secs(1);
/// When a SYN that came to nothing is sent again.
const SYN_AGAIN: Duration = Duration::from_secs(1);

pub(crate) type WireId = u64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Job {
    /// The timer of a session's machine, in one life of its speaker.
    Machine(Side, u64),
    /// A speaker's RIB has something to do.
    Rib(usize, u64),
    /// A kernel answers.
    Kernel(usize, u64),
    /// A dial has come to the other side.
    Dialled(Side, u64, u64),
    /// A connection is there for the side that was dialled.
    Accepted(Side, u64, WireId),
    /// Octets have come to an end of a wire.
    Arrived(WireId, usize),
    Start(usize),
    Step(usize),
    Undo(usize),
}

/// What has happened in all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Totals {
    pub(crate) jobs: u64,
    pub(crate) sessions: u64,
    pub(crate) updates: u64,
    pub(crate) restarts: u64,
    pub(crate) routes: u64,
    pub(crate) time: Duration,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.jobs += other.jobs;
        self.sessions += other.sessions;
        self.updates += other.updates;
        self.restarts += other.restarts;
        self.routes += other.routes;
        self.time += other.time;
    }
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) began: Instant,
    pub(crate) random: Random,
    pub(crate) fabric: Fabric,
    pub(crate) plan: Plan,
    queue: BinaryHeap<Reverse<(Instant, u64, Job)>>,
    numbers: u64,
    pub(crate) speakers: Vec<Speaker>,
    pub(crate) wires: BTreeMap<WireId, Wire>,
    /// Until when nothing passes, by link.
    pub(crate) holes: Vec<Instant>,
    pub(crate) undos: Vec<Undo>,
    /// When routes were last under way.
    pub(crate) stirred: Instant,
    pub(crate) totals: Totals,
}

/// Who has an end of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The kernel, until the speaker accepts.
    Pending,
    /// A connection of a session.
    Live(ConnId),
    /// Nobody reads any more.
    Closed,
    /// The host is off: nothing is read, and nothing answers.
    Off,
}

pub(crate) struct Wire {
    pub(crate) link: usize,
    pub(crate) ends: [WireEnd; 2],
}

pub(crate) struct WireEnd {
    pub(crate) owner: Owner,
    /// What is under way to it, and when it is there; `None` is the end.
    inbound: VecDeque<(Instant, Option<Bytes>)>,
    /// Octets under way or unread.
    unread: usize,
    pub(crate) buffer: BytesMut,
    pub(crate) control: VecDeque<Bytes>,
    /// Routes that wait behind what is being written.
    pub(crate) routes: Option<Bytes>,
    pub(crate) writing: Bytes,
    /// Something has left since the machine was last told.
    pub(crate) wrote: bool,
    last: Instant,
}

impl WireEnd {
    fn new(owner: Owner, now: Instant) -> Self {
        Self {
            owner,
            inbound: VecDeque::new(),
            unread: 0,
            buffer: BytesMut::new(),
            control: VecDeque::new(),
            routes: None,
            writing: Bytes::new(),
            wrote: false,
            last: now,
        }
    }
}

impl World {
    pub(crate) fn new(plan: Plan) -> Self {
        let now = Instant::now();
        let fabric = plan.design.fabric.clone();
        let mut world = Self {
            now,
            began: now,
            random: Random::new(!plan.seed),
            speakers: fabric.routers.iter().map(|_| Speaker::new(now)).collect(),
            holes: vec![now; fabric.links.len()],
            fabric,
            queue: BinaryHeap::new(),
            numbers: 0,
            wires: BTreeMap::new(),
            undos: Vec::new(),
            stirred: now,
            totals: Totals::default(),
            plan,
        };
        for router in 0..world.fabric.routers.len() {
            world.enqueue(now + world.plan.starts[router], Job::Start(router));
        }
        for number in 0..world.plan.steps.len() {
            world.enqueue(now + world.plan.steps[number].0, Job::Step(number));
        }
        world
    }

    pub(crate) fn enqueue(&mut self, at: Instant, job: Job) {
        self.numbers += 1;
        self.queue
            .push(Reverse((at.max(self.now), self.numbers, job)));
    }

    /// A name that nothing else has.
    pub(crate) fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    /// Lets time pass.
    pub(crate) fn run_until(&mut self, end: Instant) {
        while let Some(Reverse((at, _, job))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            self.totals.jobs += 1;
            self.run(job);
        }
        self.now = end;
    }

    fn run(&mut self, job: Job) {
        if let Some(frozen) = self.frozen(job) {
            return self.enqueue(frozen, job);
        }
        match job {
            Job::Machine(side, life) => self.timer(side, life),
            Job::Rib(router, life) => self.work(router, life),
            Job::Kernel(router, life) => self.answers(router, life),
            Job::Dialled(side, life, token) => self.dialled(side, life, token),
            Job::Accepted(side, life, wire) => self.accepted(side, life, wire),
            Job::Arrived(wire, end) => self.read(wire, end),
            Job::Start(router) => self.start(router, false),
            Job::Step(number) => self.step(number),
            Job::Undo(number) => self.undo(number),
        }
    }

    /// Until when the process that a job is for does not run, if it does not.
    fn frozen(&self, job: Job) -> Option<Instant> {
        let router = match job {
            Job::Machine(side, _) | Job::Dialled(side, ..) | Job::Accepted(side, ..) => {
                self.fabric.end(side).router
            }
            Job::Rib(router, _) | Job::Kernel(router, _) => router,
            Job::Arrived(wire, end) => self.fabric.end((self.wires.get(&wire)?.link, end)).router,
            Job::Start(_) | Job::Step(_) | Job::Undo(_) => return None,
        };
        let frozen = self.speakers[router].frozen;
        (frozen > self.now).then_some(frozen)
    }

    pub(crate) fn latency(&mut self, link: usize) -> Duration {
        self.random.micros(self.fabric.links[link].latency)
    }

    /// A dial is at the other side: connected, refused, or nothing at all.
    fn dialled(&mut self, side: Side, life: u64, token: u64) {
        let current = self
            .session(side, life)
            .is_some_and(|session| session.dial == Some(token));
        if !current {
            return;
        }
        let other = across(side);
        let host = &self.speakers[self.fabric.end(other).router];
        let hole = self.holes[side.0];
        if hole > self.now || host.off {
            let again = hole.max(self.now) + SYN_AGAIN;
            return self.enqueue(again, Job::Dialled(side, life, token));
        }
        let Some(other_life) = host.rib.is_some().then_some(host.life) else {
            return self.refused(side, life);
        };
        let wire = self.number();
        let ends = [Owner::Pending, Owner::Pending].map(|owner| WireEnd::new(owner, self.now));
        let link = side.0;
        self.wires.insert(wire, Wire { link, ends });
        let latency = self.latency(link);
        self.enqueue(self.now + latency, Job::Accepted(other, other_life, wire));
        self.connected(side, life, wire, true);
    }

    fn accepted(&mut self, side: Side, life: u64, wire: WireId) {
        let pending = self
            .wires
            .get(&wire)
            .is_some_and(|wire| wire.ends[side.1].owner == Owner::Pending);
        if pending {
            self.connected(side, life, wire, false);
            self.read(wire, side.1);
        }
    }

    /// Brings on its way what the window has room for.
    pub(crate) fn write(&mut self, id: WireId, end: usize) {
        loop {
            let Some(wire) = self.wires.get_mut(&id) else {
                return;
            };
            let link = &self.fabric.links[wire.link];
            let room = link.window.saturating_sub(wire.ends[1 - end].unread);
            let from = &mut wire.ends[end];
            let Owner::Live(conn) = from.owner else {
                return;
            };
            if room == 0 {
                return;
            }
            if from.writing.is_empty() {
                if let Some(octets) = from.control.pop_front() {
                    from.writing = octets;
                } else if let Some(octets) = from.routes.take() {
                    from.writing = octets;
                    let side = (wire.link, end);
                    self.writer_is_free(side, conn);
                    continue;
                } else {
                    return;
                }
            }
            let count = room.min(link.segment).min(from.writing.len());
            let piece = from.writing.split_to(count);
            from.wrote = true;
            self.ship(id, 1 - end, Some(piece), Duration::ZERO);
        }
    }

    /// Sends a piece, or the end, to an end of a wire.
    fn ship(&mut self, id: WireId, to: usize, piece: Option<Bytes>, wait: Duration) {
        let Some(link) = self.wires.get(&id).map(|wire| wire.link) else {
            return;
        };
        let latency = self.latency(link);
        let now = self.now;
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let end = &mut wire.ends[to];
        let at = (now + wait + latency).max(end.last);
        end.last = at;
        end.unread += piece.as_ref().map_or(0, Bytes::len);
        end.inbound.push_back((at, piece));
        self.enqueue(at, Job::Arrived(id, to));
    }

    /// Reads what has come to an end of a wire, as far as its owner does.
    pub(crate) fn read(&mut self, id: WireId, at: usize) {
        loop {
            let Some(wire) = self.wires.get_mut(&id) else {
                return;
            };
            let (side, hole) = ((wire.link, at), self.holes[wire.link]);
            let end = &mut wire.ends[at];
            if hole > self.now {
                return self.enqueue(hole, Job::Arrived(id, at));
            }
            let conn = match end.owner {
                Owner::Pending | Owner::Off => return,
                Owner::Closed => None,
                Owner::Live(conn) => Some(conn),
            };
            if let Some(conn) = conn {
                if let Some(deaf) = self.deaf(side) {
                    return self.enqueue(deaf, Job::Arrived(id, at));
                }
                if self.is_full(side) {
                    // The RIB has it read on.
                    return;
                }
                if self.framed(side, conn, id) {
                    continue;
                }
            }
            let now = self.now;
            let Some(wire) = self.wires.get_mut(&id) else {
                return;
            };
            let end = &mut wire.ends[at];
            if end.inbound.front().is_none_or(|(at, _)| *at > now) {
                return;
            }
            match end.inbound.pop_front() {
                Some((_, Some(piece))) => {
                    end.unread = end.unread.saturating_sub(piece.len());
                    if conn.is_some() {
                        end.buffer.extend_from_slice(&piece);
                    }
                    self.write(id, 1 - at);
                }
                Some((_, None)) => {
                    end.owner = Owner::Closed;
                    self.drop_if_closed(id);
                    if let Some(conn) = conn {
                        self.ended(side, conn);
                    }
                }
                None => return,
            }
        }
    }

    /// Whether something has come that is not yet read.
    pub(crate) fn has_unread(&self, id: WireId, at: usize) -> bool {
        let end = self.wires.get(&id).map(|wire| &wire.ends[at]);
        end.is_some_and(|end| {
            let arrived = end.inbound.front().is_some_and(|(at, _)| *at <= self.now);
            arrived || !end.buffer.is_empty()
        })
    }

    /// Closes an end: what was queued goes out if there is room for it, and then the end.
    pub(crate) fn close(&mut self, id: WireId, at: usize) {
        let Some(wire) = self.wires.get_mut(&id) else {
            return;
        };
        let room = self.fabric.links[wire.link]
            .window
            .saturating_sub(wire.ends[1 - at].unread);
        let end = &mut wire.ends[at];
        end.owner = Owner::Closed;
        end.routes = None;
        let mut last = vec![std::mem::take(&mut end.writing)];
        last.extend(end.control.drain(..));
        last.retain(|octets| !octets.is_empty());
        let fits = last.iter().map(Bytes::len).sum::<usize>() <= room;
        if fits {
            for octets in last {
                self.ship(id, 1 - at, Some(octets), Duration::ZERO);
            }
        }
        let wait = if fits { Duration::ZERO } else { LINGER };
        self.ship(id, 1 - at, None, wait);
        self.drop_if_closed(id);
    }

    /// TCP ends at once, at both ends.
    pub(crate) fn cut(&mut self, id: WireId) {
        for at in 0..2 {
            self.ship(id, at, None, Duration::ZERO);
        }
    }

    /// A host loses power: nothing is said.
    pub(crate) fn switch_off(&mut self, id: WireId, at: usize) {
        if let Some(wire) = self.wires.get_mut(&id) {
            wire.ends[at].owner = Owner::Off;
        }
        self.drop_if_closed(id);
    }

    /// It has power again, and knows nothing of its connections.
    pub(crate) fn switched_on(&mut self, router: usize) {
        let ids: Vec<WireId> = self.wires.keys().copied().collect();
        for id in ids {
            for at in 0..2 {
                let Some(wire) = self.wires.get_mut(&id) else {
                    break;
                };
                let ours = self.fabric.end((wire.link, at)).router == router;
                if ours && wire.ends[at].owner == Owner::Off {
                    wire.ends[at].owner = Owner::Closed;
                    self.ship(id, 1 - at, None, Duration::ZERO);
                    self.drop_if_closed(id);
                }
            }
        }
    }

    fn drop_if_closed(&mut self, id: WireId) {
        let over = |end: &WireEnd| matches!(end.owner, Owner::Closed | Owner::Off);
        if self
            .wires
            .get(&id)
            .is_some_and(|wire| wire.ends.iter().all(over))
        {
            self.wires.remove(&id);
        }
    }
}
