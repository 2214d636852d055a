//! Routes in the kernel: a table by two next hops, and then by one.

use std::collections::HashSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::tables::{SEED, metric};
use super::{Case, minutes};
use crate::daemons::Daemon;
use crate::engine::{Engine, PeerId};
use crate::ledger::Ledger;
use crate::measure::{Bound, Metric, Sample, Target, Unit};
use crate::net::monitor::{Messages, Monitor, dump, set_link};
use crate::net::probe::{FLOWS, Probe};
use crate::prefix::Prefix;
use crate::routes::{Feed, Group, Routes, Shape};
use crate::stage::{Run, Scene, Stage, perform};
use crate::wire::{Voice, announce, put_end_of_rib};

pub(super) const LINK: Case = Case {
    name: "fib-link",
    title: "100,000 routes into the kernel with ECMP; one of two links goes down",
    about: "Two external neighbours on two links announce the same 100,000 prefixes. The first time runs until the \
            kernel has all of them by both next hops, as its notifications say and a dump confirms. Then the far \
            end of one link goes down, so that the daemon's end loses its carrier, while 16 flows of 1,000 \
            packets/s come from a third namespace: the time until the last of them gets through again, what was \
            lost, and the notifications of the kernel until it is silent. The kernel leaves next hops without \
            carrier alone by itself (ignore_routes_with_linkdown), whatever the daemon does.",
    metrics: METRICS,
    targets: TARGETS,
    limit: Duration::from_secs(60),
    usual: minutes(8),
    lacks: kernel_lacks,
    run: |run| play(run, Failure::Link),
};

pub(super) const PEER: Case = Case {
    name: "fib-peer",
    title: "100,000 routes into the kernel with ECMP; one of two neighbours dies behind a link that stays up",
    about: "As before, but the link stays up: the neighbour's connection is closed, and from that instant what is \
            sent to it is lost. Only the daemon can help, by what it writes to the kernel.",
    metrics: METRICS,
    targets: TARGETS,
    limit: Duration::from_secs(60),
    usual: minutes(8),
    lacks: kernel_lacks,
    run: |run| play(run, Failure::Peer),
};

const TARGETS: &[Target] = &[
    at_most("restored", 100.0),
    at_most("next_hop_updates", 1.0),
    at_most("route_messages", 0.0),
];

const METRICS: &[Metric] = &[
    metric("install", "in the kernel", Unit::Seconds),
    metric("cpu", "CPU, installing", Unit::Seconds),
    metric("restored", "traffic restored", Unit::Milliseconds),
    metric("lost", "packets lost", Unit::Count),
    metric("next_hop_updates", "next-hop updates", Unit::Count),
    metric("next_hop_removals", "next-hop removals", Unit::Count),
    metric("route_messages", "route messages", Unit::Count),
    metric("settled", "kernel silent", Unit::Seconds),
    metric("memory", "peak memory", Unit::Mebibytes),
];

pub(super) const fn at_most(metric: &'static str, limit: f64) -> Target {
    Target {
        metric,
        bound: Bound::AtMost(limit),
    }
}

/// Why a daemon cannot put routes into the kernel by several next hops.
pub(super) fn kernel_lacks(daemon: Daemon) -> Option<&'static str> {
    match daemon {
        Daemon::Caracal | Daemon::Bird | Daemon::Frr => None,
        Daemon::Gobgp => Some("it needs another daemon to write to the kernel"),
        Daemon::Openbgpd => Some("it does not write to Linux's kernel by several next hops"),
        Daemon::Direct => Some("there is no daemon"),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    Link,
    Peer,
}

/// The link and the neighbour that fail.
const DYING: usize = 1;

/// The same prefixes from two neighbours, alike in all that counts.
pub(super) fn twins(prefixes: usize, per_path: f64) -> (Routes, [Feed; 2]) {
    let (mut routes, groups) = Routes::draw(prefixes, per_path, SEED);
    let first = routes.feed(
        &groups,
        Shape {
            sender: 0,
            external: Some(65001),
            length: None,
        },
    );
    let second = first
        .iter()
        .map(|group| {
            let mut path = routes.paths[group.path.0 as usize].clone();
            path.sender = 1;
            path.as_path[0] = 65002;
            Group {
                path: routes.add_path(path),
                prefixes: group.prefixes.clone(),
            }
        })
        .collect();
    (routes, [first, second])
}

/// Waits until the kernel has so many routes by two next hops.
pub(super) fn wait_for_kernel(
    engine: &mut Engine,
    monitor: &Monitor,
    routes: usize,
    deadline: Instant,
) -> anyhow::Result<bool> {
    engine.run(deadline, |_| monitor.table().with_ways(2) == routes)
}

fn play(run: Run<'_>, failure: Failure) -> anyhow::Result<Sample> {
    let prefixes = run.options.scaled(100_000, 100);
    let (routes, feeds) = twins(prefixes, run.options.prefixes_per_path);
    let scene = Scene {
        asns: vec![65001, 65002],
        links: vec![1, 1],
        prober: true,
        reflector: false,
        kernel: true,
    };
    perform(run, &scene, |stage| {
        let mut engine = Engine::new(Ledger::blind())?;
        for seat in stage.seats {
            engine.add(seat.session());
        }
        let monitor = Monitor::start(&stage.arena.daemon, run.generator_core())?;
        let mut sample = Sample::default();
        let keys = &["install", "restored"];
        if stage.establish(&mut engine, &mut sample, keys)?.is_none() {
            return Ok(sample);
        }
        if !install(stage, &mut engine, &monitor, &routes, &feeds, &mut sample)? {
            return Ok(sample);
        }
        fail(stage, &mut engine, &monitor, &routes, failure, &mut sample)?;
        stage.record_memory(&mut sample, "memory");
        Ok(sample)
    })
}

/// Both announce; whether the kernel got it all.
fn install(
    stage: &mut Stage<'_>,
    engine: &mut Engine,
    monitor: &Monitor,
    routes: &Routes,
    feeds: &[Feed],
    sample: &mut Sample,
) -> anyhow::Result<bool> {
    let count = routes.prefixes.len();
    let said: Vec<Arc<Vec<u8>>> = feeds
        .iter()
        .zip(stage.seats)
        .map(|(feed, seat)| {
            let mut octets = announce(routes, feed, Voice::Sender(seat.local));
            put_end_of_rib(&mut octets);
            Arc::new(octets)
        })
        .collect();
    let before = stage.usage().cpu;
    let limit = stage.run.limit;
    let begin = Instant::now();
    for (place, octets) in said.into_iter().enumerate() {
        engine.send(PeerId(place), octets)?;
    }
    let reached = wait_for_kernel(engine, monitor, count, begin + limit)?;
    let seconds = begin.elapsed().as_secs_f64();
    stage.alive()?;
    if monitor.table().overrun {
        bail!("the kernel's notifications overran the bench");
    }
    if !reached {
        for key in ["install", "restored"] {
            sample.not_in(key, limit.as_secs_f64());
        }
        let ready = monitor.table().with_ways(2);
        sample.note(format!(
            "the kernel has {ready} of {count} routes by two next hops"
        ));
        return Ok(false);
    }
    engine.run_until_quiet(Duration::from_millis(500), Instant::now() + limit)?;
    sample.number("install", seconds);
    stage.record_cpu(sample, "cpu", stage.usage().cpu.saturating_sub(before));
    let wanted: HashSet<Prefix> = routes.prefixes.iter().copied().collect();
    let held = dump(&stage.arena.daemon)?.prefixes_with_ways(2);
    ensure!(
        held == wanted,
        "a dump of the kernel differs from its notifications: {} of {count} prefixes, {} others",
        held.intersection(&wanted).count(),
        held.difference(&wanted).count()
    );
    Ok(true)
}

/// One neighbour goes, and traffic has to find its way by the other.
fn fail(
    stage: &mut Stage<'_>,
    engine: &mut Engine,
    monitor: &Monitor,
    routes: &Routes,
    failure: Failure,
    sample: &mut Sample,
) -> anyhow::Result<()> {
    let limit = stage.run.limit;
    let step = (routes.prefixes.len() / FLOWS).max(1);
    let hosts: HashSet<Ipv4Addr> = routes
        .prefixes
        .iter()
        .step_by(step)
        .map(|prefix| prefix.host())
        .collect();
    let hosts: Vec<Ipv4Addr> = hosts.into_iter().take(FLOWS).collect();
    let probe = Probe::start(stage.arena, &hosts, stage.run.generator_core())?;
    let mut since = Instant::now();
    let mut split = (0, 0);
    let flowing = engine.run(since + limit, |_| {
        let Ok(log) = probe.log() else {
            return true;
        };
        split = (log.flows_on(0, since), log.flows_on(DYING, since));
        split.0 + split.1 == FLOWS
    })?;
    // A failure of the probes ends the wait as well, and shows here.
    drop(probe.log()?);
    ensure!(
        flowing && split.0 > 0 && split.1 > 0,
        "the flows do not use both links: {} on the first, {} on the second",
        split.0,
        split.1
    );
    // Some traffic, so that the failure comes into a steady state.
    since = Instant::now();
    engine.run(since + STEADY, |_| false)?;
    let before = monitor.table().messages;
    let begin = Instant::now();
    let dead = match failure {
        Failure::Link => {
            set_link(
                &stage.arena.generator,
                &stage.arena.links[DYING].generator_end,
                false,
            )?;
            None
        }
        Failure::Peer => {
            engine.close(PeerId(DYING));
            Some(DYING)
        }
    };
    let settled = settle(engine, monitor, &probe, begin, dead, limit)?;
    stage.alive()?;
    let damage = probe.log()?.damage(begin, dead);
    if !settled {
        sample.not_in("restored", limit.as_secs_f64());
        sample.note(format!(
            "{} of {FLOWS} flows get through after {limit:?}",
            probe.log()?.flowing(Instant::now() - STEADY, dead)
        ));
        return Ok(());
    }
    sample.number("restored", damage.restored.as_secs_f64() * 1000.0);
    sample.number("lost", damage.lost as f64);
    let table = monitor.table();
    let messages = Messages {
        routes: table.messages.routes - before.routes,
        next_hop_updates: table.messages.next_hop_updates - before.next_hop_updates,
        next_hop_removals: table.messages.next_hop_removals - before.next_hop_removals,
    };
    sample.number("next_hop_updates", messages.next_hop_updates as f64);
    sample.number("next_hop_removals", messages.next_hop_removals as f64);
    sample.number("route_messages", messages.routes as f64);
    let last = table.last.filter(|last| *last > begin).unwrap_or(begin);
    sample.number("settled", last.duration_since(begin).as_secs_f64());
    Ok(())
}

/// Waits until all flows get through and the kernel has said nothing for a while; whether that came.
fn settle(
    engine: &mut Engine,
    monitor: &Monitor,
    probe: &Probe,
    begin: Instant,
    dead: Option<usize>,
    limit: Duration,
) -> anyhow::Result<bool> {
    engine.run(begin + limit, |_| {
        let now = Instant::now();
        let silent_since = monitor.table().last.unwrap_or(begin).max(begin);
        let flowing = probe
            .log()
            .is_ok_and(|log| log.flowing(now - STEADY, dead) == FLOWS);
        flowing && now.duration_since(silent_since) > SILENCE
    })
}

/// A stretch of traffic without change.
const STEADY: Duration = Duration::from_millis(200);
/// No daemon pauses for so long while it has routes to write.
const SILENCE: Duration = Duration::from_secs(2);
