//! One receiver of three hundred stops reading while the table changes all the time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::clients::{self, Clients};
use super::tables::{SEED, UPDATES, metric};
use super::{Case, minutes};
use crate::daemons::Daemon;
use crate::engine::PeerId;
use crate::measure::{Bound, Metric, Sample, Target, Unit};
use crate::routes::{Feed, Group, PathId, Routes, Shape};
use crate::stage::{MEBI, Run, Stage, perform};
use crate::wire::{Voice, announce, put_end_of_rib};

pub(super) const CASE: Case = Case {
    name: "slow-peer",
    title: "1 of 300 receivers stops reading for 60 s under churn",
    about: "A reflector has told 20,000 prefixes of one client to 300 others. Then the client replaces the \
            attributes of a tenth of them, again and again: the next tenth goes out when the receivers have the \
            last one exactly. First nobody stops (20 s), then one receiver stops reading (60 s) and the rounds go \
            on with the other 299. The slow-down compares the mean time of a round with and without the stop; \
            memory is the peak before the stop and during it, and what is bounded does not grow in \
            the second half of it. At the end the receiver reads on, and the time \
            until it holds exactly the table is taken. A quick run stops for 16 s.",
    metrics: METRICS,
    targets: &[
        Target {
            metric: "slowdown",
            bound: Bound::AtMost(1.1),
        },
        Target {
            metric: "growth",
            bound: Bound::AtMost(1.05),
        },
    ],
    limit: Duration::from_secs(60),
    usual: minutes(63),
    lacks: |daemon| (daemon == Daemon::Direct).then_some("what a daemon keeps is measured"),
    run,
};

const METRICS: &[Metric] = &[
    metric("round", "round", Unit::Milliseconds),
    metric("round_stopped", "round, one stopped", Unit::Milliseconds),
    metric("slowdown", "slow-down", Unit::Ratio),
    metric("cpu", "CPU of a round, one stopped", Unit::Milliseconds),
    UPDATES,
    metric("memory_before", "peak memory before", Unit::Mebibytes),
    metric("memory", "peak memory, one stopped", Unit::Mebibytes),
    metric("growth", "growth in the second half", Unit::Ratio),
    metric("catch_up", "catching up", Unit::Seconds),
];

const KEYS: &[&str] = &["round", "round_stopped", "slowdown", "growth", "catch_up"];

/// Parts in which the table is replaced.
const SLICES: usize = 10;
/// Sets of attributes that each group goes through in turn. A receiver that is behind by anything but a
/// multiple of this holds something else.
const VERSIONS: usize = 4;
/// Octets of receive buffer of the one that stops: what the kernel holds for it must not hide what the daemon
/// has to keep.
const STOPPED_BUFFER: usize = 64 * 1024;

/// What is said in a round, and what receivers hold after it.
struct Replacement {
    octets: Arc<Vec<u8>>,
    changes: Vec<(u32, PathId)>,
}

fn run(run: Run<'_>) -> anyhow::Result<Sample> {
    let receivers = run.options.scaled(300, 3);
    let prefixes = run.options.scaled(20_000, 200);
    let (base, stop) = if run.options.quick { (5, 16) } else { (20, 60) };
    let (mut routes, groups) = Routes::draw(prefixes, run.options.prefixes_per_path, SEED);
    let shape = Shape {
        sender: 0,
        external: None,
        length: None,
    };
    let first = routes.feed(&groups, shape);
    let share = groups.len().div_ceil(SLICES);
    // Version by version, slice by slice.
    let later: Vec<Feed> = (0..VERSIONS)
        .flat_map(|_| groups.chunks(share))
        .map(|slice| routes.feed(slice, shape))
        .collect();
    perform(run, &clients::scene(1 + receivers), |stage| {
        let mut clients = Clients::new(stage, routes, 1, false, |place, session| {
            session.receive_buffer = (place == 1).then_some(STOPPED_BUFFER);
        })?;
        let voice = Voice::Sender(stage.seats[0].local);
        let replacements: Vec<Replacement> = later
            .iter()
            .map(|feed| Replacement {
                octets: Arc::new(announce(&clients.routes, feed, voice)),
                changes: changes(feed),
            })
            .collect();
        let mut sample = Sample::default();
        let ready = stage.establish(&mut clients.engine, &mut sample, KEYS)?;
        if ready.is_none() || !fill(stage, &mut clients, &first, voice, &mut sample)? {
            return Ok(sample);
        }
        let mut next = 0;
        let mut rounds =
            |stage: &mut Stage<'_>, clients: &mut Clients, seconds, key, sample: &mut Sample| {
                churn(
                    stage,
                    clients,
                    &replacements,
                    &mut next,
                    seconds,
                    key,
                    sample,
                )
            };
        let Some(before) = rounds(stage, &mut clients, base, "round", &mut sample)? else {
            return Ok(sample);
        };
        let peak_before = stage.usage().peak_memory as f64;
        sample.number("memory_before", peak_before / MEBI);
        if let Some(running) = stage.running() {
            running.reset_peak_memory();
        }
        let stopped = (PeerId(1), clients.views[0]);
        clients.engine.read_from(stopped.0, false);
        clients.engine.ledger.count(stopped.1, false);
        let mut halves = [(Pace::default(), 0.0); 2];
        for half in &mut halves {
            let key = "round_stopped";
            let Some(pace) = rounds(stage, &mut clients, stop / 2, key, &mut sample)? else {
                return Ok(sample);
            };
            *half = (pace, stage.usage().peak_memory as f64);
        }
        let [(first, early), (second, late)] = halves;
        let during = (first.round + second.round) / 2.0;
        sample.number("round_stopped", during);
        sample.number("slowdown", during / before.round);
        sample.number("cpu", (first.cpu + second.cpu) / 2.0);
        let updates = (first.updates + second.updates) / 2.0;
        sample.number("updates_per_prefix", updates / (receivers - 1) as f64);
        sample.number("memory", late / MEBI);
        sample.number("growth", late / early);
        clients.engine.ledger.count(stopped.1, true);
        stage.phase(&mut clients.engine, &mut sample, "catch_up", |engine| {
            engine.read_from(stopped.0, true);
            Ok(())
        })?;
        Ok(sample)
    })
}

fn changes(feed: &Feed) -> Vec<(u32, PathId)> {
    feed.iter()
        .flat_map(|group| group.prefixes.iter().map(|number| (*number, group.path)))
        .collect()
}

/// The table as it is at first; whether it came everywhere.
fn fill(
    stage: &mut Stage<'_>,
    clients: &mut Clients,
    feed: &[Group],
    voice: Voice<'_>,
    sample: &mut Sample,
) -> anyhow::Result<bool> {
    let feed = feed.to_vec();
    let mut octets = announce(&clients.routes, &feed, voice);
    put_end_of_rib(&mut octets);
    let expected = clients.routes.table([&feed]);
    clients.engine.ledger.expect(clients.table, expected);
    let mut scratch = Sample::default();
    let phase = stage.phase(&mut clients.engine, &mut scratch, "first table", |engine| {
        engine.send(PeerId(0), Arc::new(octets))
    })?;
    if phase.seconds.is_none() {
        scratch.notes.into_iter().for_each(|note| sample.note(note));
        for key in KEYS {
            sample.not_in(key, stage.run.limit.as_secs_f64());
        }
    }
    Ok(phase.seconds.is_some())
}

/// Means over some rounds.
#[derive(Clone, Copy, Debug, Default)]
struct Pace {
    /// Time of a round, in milliseconds.
    round: f64,
    /// The daemon's processor time in a round, in milliseconds.
    cpu: f64,
    /// UPDATEs to all receivers, for each prefix that changed.
    updates: f64,
}

/// Rounds for so many seconds, or `None` when one did not end.
fn churn(
    stage: &mut Stage<'_>,
    clients: &mut Clients,
    replacements: &[Replacement],
    next: &mut usize,
    seconds: u64,
    key: &'static str,
    sample: &mut Sample,
) -> anyhow::Result<Option<Pace>> {
    let limit = stage.run.limit;
    let (cpu, told) = (stage.usage().cpu, clients.engine.ledger.received());
    let mut changed = 0;
    let until = Instant::now() + Duration::from_secs(seconds);
    let (mut total, mut rounds) = (Duration::ZERO, 0_u32);
    while Instant::now() < until {
        let Replacement { octets, changes } = &replacements[*next % replacements.len()];
        *next += 1;
        let engine = &mut clients.engine;
        engine.ledger.expect_change(clients.table, changes);
        let begin = Instant::now();
        engine.send(PeerId(0), octets.clone())?;
        let reached = engine.run(begin + limit, |engine| engine.ledger.exact())?;
        if let Some(fault) = engine.ledger.fault() {
            bail!("{fault}");
        }
        match engine.ledger.exact_since() {
            Some(at) if reached => total += at.duration_since(begin),
            _ => {
                sample.note(format!("{key}: {}", engine.state()));
                for key in KEYS {
                    if !sample.values.contains_key(*key) {
                        sample.not_in(key, limit.as_secs_f64());
                    }
                }
                stage.alive()?;
                return Ok(None);
            }
        }
        rounds += 1;
        changed += changes.len();
    }
    stage.alive()?;
    let mean = |time: Duration| time.as_secs_f64() * 1000.0 / f64::from(rounds);
    let updates = clients.engine.ledger.received().updates - told.updates;
    let pace = Pace {
        round: mean(total),
        cpu: mean(stage.usage().cpu.saturating_sub(cpu)),
        updates: updates as f64 / changed as f64,
    };
    sample.number(key, pace.round);
    if let (lost @ 1.., reasons) = clients.engine.losses() {
        sample.note(format!("{lost} sessions lost: {}", reasons.join(", ")));
    }
    Ok(Some(pace))
}
