//! A route reflector that starts, and all its clients with it; then single changes.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::clients::{self, Clients};
use super::tables::{ANNOUNCEMENTS, SEED, UPDATES, metric};
use super::{Case, minutes};
use crate::daemons::Daemon;
use crate::engine::{Engine, PeerId};
use crate::measure::{Bound, Metric, Sample, Target, Unit};
use crate::process::Running;
use crate::routes::{Feed, Group, PathId, Routes, Shape};
use crate::stage::{Run, Stage, perform};
use crate::wire::{Voice, announce, put_end_of_rib};

pub(super) const SMALL: Case = Case {
    name: "reflector-500",
    title: "500 reflector clients × 4 prefixes, cold start, then single changes",
    about: ABOUT,
    metrics: METRICS,
    targets: &[
        at_most("sessions", 1.5),
        at_most("routes", 1.5),
        at_most("change_p99", 50.0),
    ],
    limit: Duration::from_secs(60),
    usual: minutes(13),
    lacks: |_| None,
    run: |run| play(run, 500),
};

pub(super) const LARGE: Case = Case {
    name: "reflector-2500",
    title: "2,500 reflector clients × 4 prefixes, cold start, then single changes",
    about: ABOUT,
    metrics: METRICS,
    targets: &[
        at_most("sessions", 10.0),
        at_most("routes", 10.0),
        at_most("change_p99", 50.0),
    ],
    limit: Duration::from_secs(120),
    usual: minutes(38),
    lacks: |_| None,
    run: |run| play(run, 2_500),
};

const ABOUT: &str = "The daemon has just begun to listen when all clients dial at once; one whose connection fails \
                     dials again after a second. Each announces four prefixes as soon as its session stands. Times \
                     run from the first dial until all sessions stand, and until every client holds exactly the \
                     routes of all others. Then one client changes one prefix 100 times, each time when all others \
                     have the change before; the times are those until the last of them has it.";

const METRICS: &[Metric] = &[
    metric("sessions", "all sessions", Unit::Seconds),
    metric("routes", "all routes", Unit::Seconds),
    metric("cpu", "CPU", Unit::Seconds),
    metric("memory", "peak memory", Unit::Mebibytes),
    UPDATES,
    ANNOUNCEMENTS,
    metric("change_p50", "change, p50", Unit::Milliseconds),
    metric("change_p99", "change, p99", Unit::Milliseconds),
];

const PREFIXES_EACH: usize = 4;
const CHANGES: usize = 100;
/// A single change that takes longer will not come.
const CHANGE_LIMIT: Duration = Duration::from_secs(10);

const fn at_most(metric: &'static str, limit: f64) -> Target {
    Target {
        metric,
        bound: Bound::AtMost(limit),
    }
}

fn play(run: Run<'_>, clients: usize) -> anyhow::Result<Sample> {
    let clients = run.options.scaled(clients, 3);
    let (mut routes, _) = Routes::draw(clients * PREFIXES_EACH, 1.0, SEED);
    let mut own = |sender: usize| {
        let first = (sender * PREFIXES_EACH) as u32;
        let group = (first..first + PREFIXES_EACH as u32).collect();
        routes.feed(&[group], internal(sender))
    };
    let feeds: Vec<Feed> = (0..clients).map(&mut own).collect();
    let changes: Vec<PathId> = (0..CHANGES)
        .map(|_| routes.draw_path(internal(0)))
        .collect();
    perform(run, &clients::scene(clients), |stage| {
        let seats = stage.seats;
        let said: Vec<Arc<Vec<u8>>> = feeds
            .iter()
            .zip(seats)
            .map(|(feed, seat)| {
                let mut octets = announce(&routes, feed, Voice::Sender(seat.local));
                put_end_of_rib(&mut octets);
                Arc::new(octets)
            })
            .collect();
        let mut clients = Clients::new(stage, routes, 0, true, |place, session| {
            // Where the generator stands in for the daemon, it says it all itself.
            session.initially = (run.daemon != Daemon::Direct).then(|| said[place].clone());
        })?;
        if run.daemon == Daemon::Direct {
            stage.direct_listen(Some(reflected(stage, &clients, &feeds)))?;
        }
        let expected = clients.routes.table(&feeds);
        clients.engine.ledger.expect(clients.table, expected);
        let mut sample = Sample::default();
        if !start(stage, &mut clients.engine, &mut sample)? {
            return Ok(sample);
        }
        change(stage, &mut clients, &changes, &mut sample)?;
        stage.record_memory(&mut sample, "memory");
        Ok(sample)
    })
}

/// What the reflector tells everyone of `feeds`.
fn reflected<'a>(
    stage: &Stage<'_>,
    clients: &Clients,
    feeds: impl IntoIterator<Item = &'a Feed>,
) -> Arc<Vec<u8>> {
    let senders: Vec<Ipv4Addr> = stage.seats.iter().map(|seat| seat.local).collect();
    let voice = Voice::Reflector {
        cluster: 1,
        senders: &senders,
    };
    let told = feeds
        .into_iter()
        .flat_map(|feed| announce(&clients.routes, feed, voice));
    Arc::new(told.collect())
}

fn internal(sender: usize) -> Shape {
    Shape {
        sender: sender as u32,
        external: None,
        length: None,
    }
}

/// All dial; whether all routes came everywhere.
fn start(stage: &mut Stage<'_>, engine: &mut Engine, sample: &mut Sample) -> anyhow::Result<bool> {
    let limit = stage.run.limit;
    let clients = stage.seats.len();
    let mut sessions = None;
    let phase = stage.phase(engine, sample, "routes", |engine| {
        let begin = Instant::now();
        engine.dial_all(usize::MAX);
        engine.run(begin + limit, Engine::all_established)?;
        let complete = engine.complete_since();
        sessions = complete.map(|at| at.duration_since(begin).as_secs_f64());
        Ok(())
    })?;
    match sessions {
        Some(seconds) => sample.number("sessions", seconds),
        None => sample.not_in("sessions", limit.as_secs_f64()),
    }
    if let Some(overflows @ 1..) = stage.running().and_then(Running::listen_overflows) {
        sample.note(format!(
            "the queue of its listener overflowed {overflows} times, and clients waited for the kernel to try again"
        ));
    }
    stage.record_cpu(sample, "cpu", phase.cpu);
    stage.record_memory(sample, "memory");
    if phase.seconds.is_none() {
        sample.not_in("change_p50", limit.as_secs_f64());
        sample.not_in("change_p99", limit.as_secs_f64());
        return Ok(false);
    }
    let told = (clients * (clients - 1) * PREFIXES_EACH) as f64;
    let received = phase.received;
    sample.number("updates_per_prefix", received.updates as f64 / told);
    sample.number("announcements_per_prefix", received.announced as f64 / told);
    Ok(true)
}

fn change(
    stage: &mut Stage<'_>,
    clients: &mut Clients,
    changes: &[PathId],
    sample: &mut Sample,
) -> anyhow::Result<()> {
    let voice = Voice::Sender(stage.seats[0].local);
    let direct = stage.direct();
    let mut times = Vec::with_capacity(changes.len());
    for path in changes {
        let feed = vec![Group {
            path: *path,
            prefixes: vec![0],
        }];
        let octets = match &direct {
            Some(_) => reflected(stage, clients, [&feed]),
            None => Arc::new(announce(&clients.routes, &feed, voice)),
        };
        let engine = &mut clients.engine;
        engine.ledger.expect_change(clients.table, &[(0, *path)]);
        let begin = Instant::now();
        match &direct {
            Some(direct) => direct.send(octets)?,
            None => engine.send(PeerId(0), octets)?,
        }
        let reached = engine.run(begin + CHANGE_LIMIT, |engine| engine.ledger.exact())?;
        if let Some(fault) = engine.ledger.fault() {
            bail!("{fault}");
        }
        match engine.ledger.exact_since() {
            Some(at) if reached => times.push(at.duration_since(begin).as_secs_f64() * 1000.0),
            _ => {
                sample.note(format!("change {}: {}", times.len() + 1, engine.state()));
                sample.not_in("change_p50", CHANGE_LIMIT.as_secs_f64());
                sample.not_in("change_p99", CHANGE_LIMIT.as_secs_f64());
                return stage.alive();
            }
        }
    }
    times.sort_by(f64::total_cmp);
    sample.number("change_p50", quantile(&times, 0.50));
    sample.number("change_p99", quantile(&times, 0.99));
    stage.alive()
}

/// The smallest of `sorted` that so large a share does not exceed.
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let rank = (sorted.len() as f64 * share).ceil() as usize;
    sorted[rank.clamp(1, sorted.len()) - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_seen() {
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.50), 50.0);
        assert_eq!(quantile(&hundred, 0.99), 99.0);
        assert_eq!(quantile(&[7.0], 0.99), 7.0);
        assert_eq!(quantile(&[1.0, 2.0, 3.0], 0.50), 2.0);
    }
}
