//! Nothing happens: what does a daemon do meanwhile?

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;

use super::fib::{at_most, kernel_lacks, twins, wait_for_kernel};
use super::tables::metric;
use super::{Case, minutes};
use crate::engine::{Engine, PeerId};
use crate::ledger::Ledger;
use crate::measure::{Metric, Sample, Unit};
use crate::net::monitor::Monitor;
use crate::stage::{Run, Scene, perform};
use crate::wire::{Voice, announce, put_end_of_rib};

pub(super) const CASE: Case = Case {
    name: "idle",
    title: "idle with 5,000 kernel routes and 100 peers",
    about: "Two of a hundred external peers, on two links, announce the same 5,000 prefixes; the daemon has them in \
            the kernel by both next hops, and told the other 98. Then nothing happens for 60 s but keepalives \
            (hold time 180 s), and the processor time of the daemon is taken. A quick run takes 10 s.",
    metrics: METRICS,
    targets: &[at_most("cpu", 0.2)],
    limit: Duration::from_secs(60),
    usual: minutes(38),
    lacks: kernel_lacks,
    run,
};

const METRICS: &[Metric] = &[
    metric("cpu", "share of a core", Unit::PercentOfCore),
    metric("memory", "peak memory", Unit::Mebibytes),
];

fn run(run: Run<'_>) -> anyhow::Result<Sample> {
    let peers = run.options.scaled(100, 4);
    let half = peers / 2;
    let prefixes = run.options.scaled(5_000, 10);
    let seconds = if run.options.quick { 10 } else { 60 };
    let (routes, feeds) = twins(prefixes, run.options.prefixes_per_path);
    // The two senders are the first peers of the two links.
    let asn = |place: usize| match place {
        0 => 65001,
        place if place == half => 65002,
        place => 65100 + place as u32,
    };
    let scene = Scene {
        asns: (0..peers).map(asn).collect(),
        links: vec![half, peers - half],
        prober: false,
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
        if stage
            .establish(&mut engine, &mut sample, &["cpu"])?
            .is_none()
        {
            return Ok(sample);
        }
        for (place, feed) in [0, half].into_iter().zip(&feeds) {
            let voice = Voice::Sender(stage.seats[place].local);
            let mut octets = announce(&routes, feed, voice);
            put_end_of_rib(&mut octets);
            engine.send(PeerId(place), Arc::new(octets))?;
        }
        let limit = Instant::now() + run.limit;
        if !wait_for_kernel(&mut engine, &monitor, prefixes, limit)? {
            sample.not_in("cpu", run.limit.as_secs_f64());
            let ready = monitor.table().with_ways(2);
            sample.note(format!(
                "the kernel has {ready} of {prefixes} routes by two next hops"
            ));
            stage.alive()?;
            return Ok(sample);
        }
        // What has to be told is told, and timers that belong to the beginning have run out.
        engine.run_until_quiet(Duration::from_secs(3), limit)?;
        drop(monitor);
        let Some(running) = stage.running() else {
            bail!("there is no daemon");
        };
        let before = running.usage().cpu;
        let begin = Instant::now();
        engine.run(begin + Duration::from_secs(seconds), |_| false)?;
        let used = running.usage().cpu.saturating_sub(before);
        let share = used.as_secs_f64() / begin.elapsed().as_secs_f64();
        stage.alive()?;
        sample.number("cpu", share * 100.0);
        if let (lost @ 1.., reasons) = engine.losses() {
            sample.note(format!("{lost} sessions lost: {}", reasons.join(", ")));
        }
        stage.record_memory(&mut sample, "memory");
        Ok(sample)
    })
}
