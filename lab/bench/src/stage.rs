//! One measurement: an arena, a daemon in it, and the generator that faces it.
//!
//! Owns starting and stopping around a case, and the way in which every phase of every case is timed. Does not
//! own what a case asks of the daemon ([`crate::cases`]).

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::time::{ClockId, clock_gettime};

use crate::daemons::{Daemon, PeerSetup, Setup};
use crate::engine::{Engine, PeerId, Waker};
use crate::interrupt;
use crate::ledger::{Ledger, Received};
use crate::measure::Sample;
use crate::net::arena::Arena;
use crate::options::{Options, Placement};
use crate::process::{Running, Usage};
use crate::session::PeerSpec;

/// What a run of a case is given.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    /// The command line.
    pub options: &'a Options,
    /// Who is measured.
    pub daemon: Daemon,
    /// Where.
    pub placement: Placement,
    /// How long each phase may take.
    pub limit: Duration,
}

impl Run<'_> {
    fn daemon_core(&self) -> Option<usize> {
        (self.placement == Placement::Pinned).then_some(self.options.daemon_core)
    }

    /// The generator's core, where it is pinned.
    pub fn generator_core(&self) -> Option<usize> {
        (self.placement == Placement::Pinned).then_some(self.options.generator_core)
    }
}

/// What a case needs around it.
#[derive(Clone, Debug)]
pub struct Scene {
    /// AS of each peer; internal peers have the daemon's.
    pub asns: Vec<u32>,
    /// How many of them sit on each link, in order.
    pub links: Vec<usize>,
    /// Whether there is a network behind the daemon from which traffic comes.
    pub prober: bool,
    /// Whether the daemon reflects between internal peers.
    pub reflector: bool,
    /// Whether it writes routes to the kernel.
    pub kernel: bool,
}

/// The daemon's AS.
pub const DAEMON_ASN: u32 = 65000;

/// A peer's two addresses and its AS.
#[derive(Clone, Copy, Debug)]
pub struct Seat {
    /// The generator's address.
    pub local: Ipv4Addr,
    /// The daemon's.
    pub daemon: Ipv4Addr,
    /// The generator's AS.
    pub asn: u32,
}

impl Seat {
    /// The session that sits here: dialled by the generator, its UPDATEs only counted.
    pub fn session(&self) -> PeerSpec {
        PeerSpec {
            local: self.local,
            remote: self.daemon,
            asn: self.asn,
            remote_asn: DAEMON_ASN,
            accepts: false,
            receive_buffer: None,
            view: None,
            initially: None,
        }
    }
}

/// A measurement under way.
#[derive(Debug)]
pub struct Stage<'a> {
    /// The run it belongs to.
    pub run: Run<'a>,
    /// Its namespaces.
    pub arena: &'a Arena,
    /// Where the peers sit, in the order of [`Scene::asns`].
    pub seats: &'a [Seat],
    subject: Subject,
}

#[derive(Debug)]
enum Subject {
    Daemon(Running),
    Direct(Option<Direct>),
}

/// The way to a generator that stands in a daemon's place.
#[derive(Clone, Debug)]
pub struct Direct {
    orders: Sender<Arc<Vec<u8>>>,
    waker: Waker,
}

impl Direct {
    /// Has it say `octets` to everyone.
    ///
    /// # Errors
    /// It has ended.
    pub fn send(&self, octets: Arc<Vec<u8>>) -> anyhow::Result<()> {
        self.orders
            .send(octets)
            .context("the generator in the daemon's place has ended")?;
        self.waker.wake();
        Ok(())
    }
}

/// Builds the scene, starts the daemon in it, and runs `play` on the generator's side.
///
/// # Errors
/// Something cannot be built or started, or `play` fails.
pub fn perform<T: Send>(
    run: Run<'_>,
    scene: &Scene,
    play: impl FnOnce(&mut Stage<'_>) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    let arena = Arena::build(&scene.links, scene.prober)?;
    let addresses = arena
        .links
        .iter()
        .flat_map(|link| link.peers.iter().map(|peer| (*peer, link.daemon)));
    let seats: Vec<Seat> = addresses
        .zip(&scene.asns)
        .map(|((local, daemon), asn)| Seat {
            local,
            daemon,
            asn: *asn,
        })
        .collect();
    assert_eq!(seats.len(), scene.asns.len(), "every peer has a seat");
    let folder = tempfile::Builder::new()
        .prefix("caracal-bench-")
        .tempdir()
        .context("cannot make a folder")?;
    let subject = match run.daemon {
        Daemon::Direct => Subject::Direct(None),
        _ => Subject::Daemon(start(run, scene, &arena, &seats, folder.path())?),
    };
    let mut stage = Stage {
        run,
        arena: &arena,
        seats: &seats,
        subject,
    };
    arena.generator.run(run.generator_core(), || {
        play(&mut stage).with_context(|| match &stage.subject {
            Subject::Daemon(running) => format!("output of the daemon: {}", running.log_tail()),
            Subject::Direct(_) => "the generator alone".to_owned(),
        })
    })
}

fn start(
    run: Run<'_>,
    scene: &Scene,
    arena: &Arena,
    seats: &[Seat],
    folder: &Path,
) -> anyhow::Result<Running> {
    let peer = |seat: &Seat| PeerSetup {
        address: seat.local,
        local: seat.daemon,
        asn: seat.asn,
    };
    let setup = Setup {
        asn: DAEMON_ASN,
        router_id: arena.links[0].daemon,
        addresses: arena.links.iter().map(|link| link.daemon).collect(),
        peers: seats.iter().map(peer).collect(),
        reflector: scene.reflector,
        kernel: scene.kernel,
    };
    let caracal = std::path::absolute(&run.options.caracal)?;
    let launches = run.daemon.prepare(&setup, &caracal, folder)?;
    let mut running = Running::start(&launches, &arena.daemon, run.daemon_core(), folder)?;
    running.wait_for_listener()?;
    Ok(running)
}

/// How a phase went.
#[derive(Clone, Copy, Debug)]
pub struct Phase {
    /// From its first octet to the end; `None` when that was not reached.
    pub seconds: Option<f64>,
    /// Processor time of the daemon until nothing came any more.
    pub cpu: Duration,
    /// Processor time of the generator's thread until the end.
    pub generator: Duration,
    /// What the receivers were sent, added up.
    pub received: Received,
}

impl Stage<'_> {
    /// The daemon's processes; `None` where there is none.
    pub fn running(&self) -> Option<&Running> {
        match &self.subject {
            Subject::Daemon(running) => Some(running),
            Subject::Direct(_) => None,
        }
    }

    /// Fails when the daemon has ended.
    ///
    /// # Errors
    /// With the end of its output.
    pub fn alive(&mut self) -> anyhow::Result<()> {
        match &mut self.subject {
            Subject::Daemon(running) => running.alive(),
            Subject::Direct(_) => Ok(()),
        }
    }

    /// What the daemon has used so far.
    pub fn usage(&self) -> Usage {
        self.running().map(Running::usage).unwrap_or_default()
    }

    /// Puts a generator in the daemon's place, which says `initially` to everyone whose session stands, and then
    /// what [`Stage::direct`] is given.
    ///
    /// # Errors
    /// It cannot listen.
    pub fn direct_listen(&mut self, initially: Option<Arc<Vec<u8>>>) -> anyhow::Result<()> {
        let mut stand_in = Engine::new(Ledger::blind())?;
        let address = self.arena.links[0].daemon;
        for seat in self.seats {
            stand_in.add(PeerSpec {
                local: seat.daemon,
                remote: seat.local,
                asn: DAEMON_ASN,
                remote_asn: seat.asn,
                accepts: true,
                receive_buffer: None,
                view: None,
                initially: initially.clone(),
            });
        }
        let waker = stand_in.waker()?;
        let (orders, inbox) = channel();
        let (listening, heard) = channel();
        let core = self.run.daemon_core();
        let peers = self.seats.len();
        let file = std::fs::File::open(self.arena.daemon.path())
            .context("cannot open the daemon's namespace")?;
        std::thread::Builder::new()
            .name("direct".into())
            .spawn(move || -> anyhow::Result<()> {
                nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET)?;
                crate::net::netns::pin(core)?;
                stand_in.listen(address)?;
                // The receiver is gone only when the case is.
                let _ = listening.send(());
                stand_in_for_a_daemon(&mut stand_in, &inbox, peers)
            })
            .context("cannot start a thread")?;
        heard
            .recv_timeout(Duration::from_secs(5))
            .context("the generator in the daemon's place does not listen")?;
        self.subject = Subject::Direct(Some(Direct { orders, waker }));
        Ok(())
    }

    /// The generator in the daemon's place, where there is one: what it is given, it says to everyone.
    pub fn direct(&self) -> Option<Direct> {
        match &self.subject {
            Subject::Direct(direct) => direct.clone(),
            Subject::Daemon(_) => None,
        }
    }

    /// Brings every session up, a few at a time, and waits until the daemon has nothing more to say. `None` when
    /// they are not up in time; `sample` then says so for `keys`.
    ///
    /// # Errors
    /// The daemon has ended, or the user interrupts.
    pub fn establish(
        &mut self,
        engine: &mut Engine,
        sample: &mut Sample,
        keys: &[&'static str],
    ) -> anyhow::Result<Option<()>> {
        // As many as the shortest queue of connections among the daemons holds; how fast sessions come up is
        // measured elsewhere.
        const AT_ONCE: usize = 8;
        engine.dial_all(AT_ONCE);
        let limit = ESTABLISH_LIMIT;
        let up = engine.run(Instant::now() + limit, Engine::all_established)?;
        self.alive()?;
        if !up {
            for key in keys {
                sample.not_in(key, limit.as_secs_f64());
            }
            sample.note(format!("sessions not up in {limit:?}: {}", engine.state()));
            return Ok(None);
        }
        // Groups of peers form, and what is sent first (End-of-RIB) is sent.
        engine.run_until_quiet(QUIET, Instant::now() + limit)?;
        Ok(Some(()))
    }

    /// Times a phase: from `act` until every receiver holds exactly its table, and then on until nothing comes
    /// any more. The time goes into `sample` as `key`.
    ///
    /// # Errors
    /// The daemon has ended or said something impossible, or the user interrupts.
    pub fn phase(
        &mut self,
        engine: &mut Engine,
        sample: &mut Sample,
        key: &'static str,
        act: impl FnOnce(&mut Engine) -> anyhow::Result<()>,
    ) -> anyhow::Result<Phase> {
        let limit = self.run.limit;
        let before = self.usage();
        let told = engine.ledger.received();
        let own = thread_time()?;
        let begin = Instant::now();
        act(engine)?;
        let end = engine.run_until_exact(begin + limit)?;
        let own = thread_time()?.saturating_sub(own);
        if let Some(fault) = engine.ledger.fault() {
            bail!("{fault}");
        }
        if end.is_none() {
            sample.note(format!("{key}: {}", engine.state()));
        }
        // Without an end there is nothing to wait for: the daemon is busy, and its usage is what it is.
        if end.is_some() {
            engine.run_until_quiet(REST, Instant::now() + limit)?;
        }
        self.alive()?;
        let seconds = end.map(|end| end.duration_since(begin).as_secs_f64());
        match seconds {
            Some(seconds) => sample.number(key, seconds),
            None => sample.not_in(key, limit.as_secs_f64()),
        }
        if let (lost @ 1.., reasons) = engine.losses() {
            sample.note(format!("{lost} sessions lost: {}", reasons.join(", ")));
        }
        Ok(Phase {
            seconds,
            cpu: self.usage().cpu.saturating_sub(before.cpu),
            generator: own,
            received: difference(engine.ledger.received(), told),
        })
    }

    /// Records the daemon's highest memory so far.
    pub fn record_memory(&self, sample: &mut Sample, key: &'static str) {
        if self.running().is_some() {
            sample.number(key, self.usage().peak_memory as f64 / MEBI);
        }
    }

    /// Records processor time.
    pub fn record_cpu(&self, sample: &mut Sample, key: &'static str, cpu: Duration) {
        if self.running().is_some() {
            sample.number(key, cpu.as_secs_f64());
        }
    }

    /// Records what an arrival of so many prefixes at so many receivers took: processor time, and, when it came
    /// to its end, how it was said.
    pub fn record_arrival(
        &self,
        sample: &mut Sample,
        phase: &Phase,
        prefixes: usize,
        receivers: usize,
    ) {
        self.record_cpu(sample, "cpu", phase.cpu);
        if phase.seconds.is_none() {
            return;
        }
        let receivers = receivers as f64;
        let told = prefixes as f64 * receivers;
        let received = &phase.received;
        sample.number("generator", phase.generator.as_secs_f64());
        sample.number("updates_per_prefix", received.updates as f64 / told);
        sample.number("announcements_per_prefix", received.announced as f64 / told);
        sample.number("messages", received.updates as f64 / receivers);
        sample.number("volume", received.octets as f64 / receivers / MEBI);
    }
}

/// Processor time of the calling thread.
fn thread_time() -> anyhow::Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("cannot read a clock")?;
    Ok(Duration::from(time))
}

fn stand_in_for_a_daemon(
    engine: &mut Engine,
    inbox: &Receiver<Arc<Vec<u8>>>,
    peers: usize,
) -> anyhow::Result<()> {
    loop {
        interrupt::check()?;
        engine.turn(Instant::now() + Duration::from_millis(50))?;
        match inbox.try_recv() {
            Ok(octets) => {
                for peer in 0..peers {
                    engine.send(PeerId(peer), octets.clone())?;
                }
            }
            Err(TryRecvError::Empty) => {}
            Err(TryRecvError::Disconnected) => return Ok(()),
        }
    }
}

fn difference(after: Received, before: Received) -> Received {
    Received {
        updates: after.updates - before.updates,
        announced: after.announced - before.announced,
        withdrawn: after.withdrawn - before.withdrawn,
        octets: after.octets - before.octets,
    }
}

/// Octets in a mebibyte.
pub const MEBI: f64 = 1024.0 * 1024.0;
/// How long sessions may take to come up where that is not what is measured.
const ESTABLISH_LIMIT: Duration = Duration::from_secs(120);
/// Longer than any daemon waits before it forms a group of peers.
const QUIET: Duration = Duration::from_millis(1500);
/// Silence that ends a phase.
const REST: Duration = Duration::from_millis(500);
/// The peers of a case by their places.
pub fn peers(range: std::ops::Range<usize>) -> impl Iterator<Item = PeerId> {
    range.map(PeerId)
}
