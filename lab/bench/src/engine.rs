//! All sessions of the generator on one thread, driven by readiness.
//!
//! Owns the loop, dialling and redialling, and what the cases wait for. Does not own the meaning of what
//! arrives ([`crate::ledger`]).

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{AsFd, AsRawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket,
};

use crate::interrupt;
use crate::ledger::Ledger;
use crate::session::{BGP_PORT, Peer, PeerSpec, Phase};

/// A session, by its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerId(pub usize);

/// The generator.
#[derive(Debug)]
pub struct Engine {
    epoll: Epoll,
    peers: Vec<Peer>,
    /// Which of readable and writable each session is registered for.
    interest: Vec<EpollFlags>,
    /// What the receivers hold.
    pub ledger: Ledger,
    scratch: Box<[u8]>,
    events: Vec<EpollEvent>,
    established: usize,
    /// When the last session came up, while all stand.
    complete_since: Option<Instant>,
    listener: Option<TcpListener>,
    waker: Option<Waker>,
    next_tick: Instant,
    /// Connections under way at once, at most.
    dials: usize,
    losses: Vec<String>,
    lost: usize,
    failed_dials: usize,
    last_dial_error: Option<String>,
    last_octets: Instant,
}

/// As much as the kernel is likely to have for one session.
const SCRATCH: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// How often timers are looked at.
const TICK: Duration = Duration::from_millis(50);
/// Wait before a session is dialled again, as routers with a short connect-retry do.
const REDIAL: Duration = Duration::from_secs(1);
/// Reasons kept of sessions that were lost; more of them say nothing new.
const KEPT_LOSSES: usize = 3;
const LISTENER: u64 = u64::MAX;
const WAKER: u64 = u64::MAX - 1;

/// Ends the wait of an engine that runs on another thread.
#[derive(Clone, Debug)]
pub struct Waker(Arc<EventFd>);

impl Waker {
    /// Lets [`Engine::turn`] return soon.
    pub fn wake(&self) {
        // A counter that cannot go up any more wakes as well.
        let _ = self.0.write(1);
    }
}

impl Engine {
    /// A generator without sessions.
    ///
    /// # Errors
    /// The kernel has no more descriptors.
    pub fn new(ledger: Ledger) -> anyhow::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("cannot make an epoll")?,
            peers: Vec::new(),
            interest: Vec::new(),
            ledger,
            scratch: vec![0; SCRATCH].into_boxed_slice(),
            events: vec![EpollEvent::empty(); EVENTS],
            established: 0,
            complete_since: None,
            listener: None,
            waker: None,
            next_tick: Instant::now(),
            dials: usize::MAX,
            losses: Vec::new(),
            lost: 0,
            failed_dials: 0,
            last_dial_error: None,
            last_octets: Instant::now(),
        })
    }

    /// Adds a session, which is not dialled yet.
    pub fn add(&mut self, spec: PeerSpec) -> PeerId {
        self.peers.push(Peer::new(spec));
        self.interest.push(EpollFlags::empty());
        PeerId(self.peers.len() - 1)
    }

    /// Dials every session that is not up, at most `at_once` at a time.
    pub fn dial_all(&mut self, at_once: usize) {
        self.dials = at_once.max(1);
        let now = Instant::now();
        for peer in &mut self.peers {
            if peer.phase == Phase::Idle && !peer.spec.accepts {
                peer.dial_at = Some(now);
            }
        }
        self.dial_due(now);
    }

    /// Waits for connections at `address` in the place of a daemon.
    ///
    /// # Errors
    /// The address is taken.
    pub fn listen(&mut self, address: Ipv4Addr) -> anyhow::Result<()> {
        let descriptor = socket(
            AddressFamily::Inet,
            SockType::Stream,
            SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
            None,
        )?;
        let local = SockaddrIn::from(SocketAddrV4::new(address, BGP_PORT));
        bind(descriptor.as_raw_fd(), &local)
            .with_context(|| format!("cannot listen at {address}"))?;
        // As many as may dial at once.
        listen(&descriptor, Backlog::new(4096)?)?;
        let listener = TcpListener::from(descriptor);
        self.epoll
            .add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, LISTENER))?;
        self.listener = Some(listener);
        Ok(())
    }

    /// What ends a wait of this engine from another thread.
    ///
    /// # Errors
    /// The kernel has no more descriptors.
    pub fn waker(&mut self) -> anyhow::Result<Waker> {
        if let Some(waker) = &self.waker {
            return Ok(waker.clone());
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = EventFd::from_value_and_flags(0, flags).context("cannot make an eventfd")?;
        self.epoll
            .add(&event, EpollEvent::new(EpollFlags::EPOLLIN, WAKER))?;
        let waker = Waker(Arc::new(event));
        self.waker = Some(waker.clone());
        Ok(waker)
    }

    /// Sends `octets` on a session.
    ///
    /// # Errors
    /// The session is not established.
    pub fn send(&mut self, peer: PeerId, octets: Arc<Vec<u8>>) -> anyhow::Result<()> {
        let session = &mut self.peers[peer.0];
        if session.phase != Phase::Established {
            bail!("the session of {} is not established", session.spec.local);
        }
        if let Err(error) = session.send(octets) {
            self.end(peer.0, format!("cannot write: {error}"));
        }
        self.register(peer.0);
        Ok(())
    }

    /// Closes a session for good and without a word, as a router that loses power.
    pub fn close(&mut self, peer: PeerId) {
        self.complete_since = None;
        let session = &mut self.peers[peer.0];
        self.established -= usize::from(session.phase == Phase::Established);
        session.close();
        session.dial_at = None;
        self.interest[peer.0] = EpollFlags::empty();
        if let Some(view) = session.spec.view {
            self.ledger.clear(view);
        }
    }

    /// Whether a session is read from.
    pub fn read_from(&mut self, peer: PeerId, reads: bool) {
        self.peers[peer.0].reads = reads;
        self.peers[peer.0].last_heard = Instant::now();
        self.register(peer.0);
    }

    /// Sessions that stand.
    pub fn established(&self) -> usize {
        self.established
    }

    /// Whether every session stands.
    pub fn all_established(&self) -> bool {
        self.established == self.peers.len()
    }

    /// Since when every session stands.
    pub fn complete_since(&self) -> Option<Instant> {
        self.complete_since
    }

    /// How many sessions were lost after they stood, and the first reasons.
    pub fn losses(&self) -> (usize, &[String]) {
        (self.lost, &self.losses)
    }

    /// The state of things in words, for when time is up.
    pub fn state(&self) -> String {
        let mut text = format!(
            "{} of {} sessions established, {}",
            self.established,
            self.peers.len(),
            self.ledger.state()
        );
        for phase in [
            Phase::Idle,
            Phase::Connecting,
            Phase::OpenSent,
            Phase::OpenConfirm,
        ] {
            let count = self.peers.iter().filter(|p| p.phase == phase).count();
            if count > 0 {
                text += &format!("; {count} in {phase:?}");
            }
        }
        if self.failed_dials > 0 {
            text += &format!("; {} attempts to open a session failed", self.failed_dials);
        }
        if let (false, Some(error)) = (self.all_established(), &self.last_dial_error) {
            text += &format!(", the last one because {error}");
        }
        if let Some(first) = self.losses.first() {
            text += &format!("; {} sessions lost, the first because {first}", self.lost);
        }
        text
    }

    /// Octets read on all sessions.
    pub fn octets(&self) -> u64 {
        self.peers.iter().map(|peer| peer.octets).sum()
    }

    /// Runs until `done`, and tells whether that was before `deadline`. A receiver that was told something
    /// impossible ends it at once.
    ///
    /// # Errors
    /// The user interrupts, or the kernel fails.
    pub fn run(
        &mut self,
        deadline: Instant,
        mut done: impl FnMut(&Self) -> bool,
    ) -> anyhow::Result<bool> {
        loop {
            if done(self) {
                return Ok(true);
            }
            if Instant::now() >= deadline || self.ledger.fault().is_some() {
                return Ok(false);
            }
            self.turn(deadline)?;
        }
    }

    /// Runs until every receiver holds exactly its table and has held it for a while, which a table that is
    /// right by chance on its way would not. Gives back the instant at which it became so.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_until_exact(&mut self, deadline: Instant) -> anyhow::Result<Option<Instant>> {
        let reached = self.run(deadline, |engine| engine.ledger.exact())?;
        if !reached {
            return Ok(None);
        }
        loop {
            let Some(since) = self.ledger.exact_since() else {
                return Ok(None);
            };
            let until = since + SETTLED;
            self.run(until, |engine| engine.ledger.exact_since() != Some(since))?;
            if self.ledger.exact_since() == Some(since) {
                return Ok(Some(since));
            }
            if !self.run(deadline, |engine| engine.ledger.exact())? {
                return Ok(None);
            }
        }
    }

    /// Runs until nothing has arrived for `quiet`, at most until `deadline`.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_until_quiet(&mut self, quiet: Duration, deadline: Instant) -> anyhow::Result<()> {
        let begin = Instant::now();
        loop {
            let until = self.last_octets.max(begin) + quiet;
            if Instant::now() >= until || Instant::now() >= deadline {
                return Ok(());
            }
            self.turn(until.min(deadline))?;
        }
    }

    /// Waits for events, at most until `limit`, and acts on them.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn turn(&mut self, limit: Instant) -> anyhow::Result<()> {
        interrupt::check()?;
        let now = Instant::now();
        let wait = limit.min(self.next_tick).saturating_duration_since(now);
        // Rounded up: a wait of zero would spin until the millisecond is over.
        let millis = u16::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u16::MAX);
        let mut events = std::mem::take(&mut self.events);
        let count = match self.epoll.wait(&mut events, EpollTimeout::from(millis)) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => return Err(error).context("cannot wait for events"),
        };
        for event in &events[..count] {
            match event.data() {
                LISTENER => self.accept()?,
                WAKER => {
                    if let Some(waker) = &self.waker {
                        // Nothing to read means that it was read before.
                        let _ = waker.0.read();
                    }
                }
                place => self.ready(place as usize, event.events()),
            }
        }
        self.events = events;
        let now = Instant::now();
        if now >= self.next_tick {
            self.next_tick = now + TICK;
            self.tick(now);
        }
        Ok(())
    }

    fn ready(&mut self, place: usize, flags: EpollFlags) {
        let session = &mut self.peers[place];
        if session.stream().is_none() {
            return;
        }
        if session.phase == Phase::Connecting {
            if flags.intersects(EpollFlags::EPOLLOUT | EpollFlags::EPOLLERR | EpollFlags::EPOLLHUP)
                && let Err(error) = session.connected()
            {
                return self.end(place, format!("cannot connect: {error}"));
            }
            return self.register(place);
        }
        if flags.contains(EpollFlags::EPOLLOUT)
            && let Err(error) = session.flush()
        {
            return self.end(place, format!("cannot write: {error}"));
        }
        let readable = EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR;
        if session.reads && flags.intersects(readable) {
            let before = session.octets;
            match session.read(&mut self.scratch, &mut self.ledger) {
                Ok(Some(at)) => {
                    self.established += 1;
                    if self.all_established() {
                        self.complete_since = Some(at);
                    }
                }
                Ok(None) => {}
                Err(reason) => return self.end(place, reason),
            }
            if self.peers[place].octets > before {
                self.last_octets = Instant::now();
            }
        } else if !session.reads && flags.intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR) {
            return self.end(place, "the daemon closed the connection".into());
        }
        self.register(place);
    }

    fn tick(&mut self, now: Instant) {
        for place in 0..self.peers.len() {
            match self.peers[place].tick(now) {
                Ok(()) => self.register(place),
                Err(reason) => {
                    let hung = self.peers[place].phase == Phase::Connecting;
                    self.end(place, reason);
                    if hung {
                        // It has waited already.
                        self.peers[place].dial_at = Some(now);
                    }
                }
            }
        }
        self.dial_due(now);
    }

    fn dial_due(&mut self, now: Instant) {
        let under_way = |peer: &Peer| {
            matches!(
                peer.phase,
                Phase::Connecting | Phase::OpenSent | Phase::OpenConfirm
            )
        };
        let mut free = self
            .dials
            .saturating_sub(self.peers.iter().filter(|peer| under_way(peer)).count());
        for place in 0..self.peers.len() {
            if free == 0 {
                return;
            }
            if self.peers[place].dial_at.is_some_and(|at| at <= now) {
                free -= 1;
                match self.peers[place].dial() {
                    Ok(()) => self.register(place),
                    Err(error) => self.end(place, format!("cannot connect: {error}")),
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let Some(listener) = &self.listener else {
            return Ok(());
        };
        let mut taken = Vec::new();
        loop {
            match listener.accept() {
                Ok((stream, SocketAddr::V4(from))) => {
                    let mut peers = self.peers.iter_mut().enumerate();
                    let of =
                        peers.find(|(_, peer)| peer.spec.accepts && peer.spec.remote == *from.ip());
                    // Somebody who is no peer is closed by the drop of the stream.
                    if let Some((place, peer)) = of {
                        peer.take(stream)?;
                        taken.push(place);
                    }
                }
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        for place in taken {
            self.interest[place] = EpollFlags::empty();
            self.register(place);
        }
        Ok(())
    }

    /// A session is over, or could not be opened.
    fn end(&mut self, place: usize, reason: String) {
        let session = &mut self.peers[place];
        let stood = session.phase == Phase::Established;
        session.close();
        self.interest[place] = EpollFlags::empty();
        if !session.spec.accepts {
            session.dial_at = Some(Instant::now() + REDIAL);
        }
        if stood {
            self.established -= 1;
            self.complete_since = None;
            self.lost += 1;
            if self.losses.len() < KEPT_LOSSES {
                self.losses
                    .push(format!("{}: {reason}", session.spec.local));
            }
            if let Some(view) = session.spec.view {
                self.ledger.clear(view);
            }
        } else {
            self.failed_dials += 1;
            self.last_dial_error = Some(reason);
            // Room for another.
            self.next_tick = self.next_tick.min(Instant::now());
        }
    }

    /// Brings the registration in line with what the session waits for.
    fn register(&mut self, place: usize) {
        let session = &self.peers[place];
        let Some(stream) = session.stream() else {
            return;
        };
        let mut wanted = EpollFlags::empty();
        wanted.set(EpollFlags::EPOLLIN, session.reads);
        wanted.set(EpollFlags::EPOLLOUT, session.wants_to_write());
        let known = self.interest[place];
        if known == wanted && !known.is_empty() {
            return;
        }
        let mut event = EpollEvent::new(wanted, place as u64);
        let result = if known.is_empty() {
            self.epoll.add(stream.as_fd(), event).or_else(|error| {
                // It was registered with nothing to wait for.
                match error {
                    nix::errno::Errno::EEXIST => self.epoll.modify(stream.as_fd(), &mut event),
                    error => Err(error),
                }
            })
        } else {
            self.epoll.modify(stream.as_fd(), &mut event)
        };
        match result {
            Ok(()) => self.interest[place] = wanted,
            Err(error) => self.end(place, format!("cannot wait for it: {error}")),
        }
    }
}

/// How long a table must stay exact to count as the end.
const SETTLED: Duration = Duration::from_millis(200);
