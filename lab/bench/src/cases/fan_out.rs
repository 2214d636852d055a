//! A route reflector that tells one client's table to three hundred others.

use std::sync::Arc;
use std::time::Duration;

use super::clients::{self, Clients};
use super::tables::{
    ANNOUNCE, ANNOUNCEMENTS, CPU, GENERATOR, MEMORY, MESSAGES, SEED, UPDATES, VOLUME, ratio,
};
use super::{Case, minutes};
use crate::daemons::Daemon;
use crate::engine::PeerId;
use crate::measure::{Metric, Sample};
use crate::routes::{Routes, Shape};
use crate::stage::{Run, perform};
use crate::wire::{Voice, announce, put_end_of_rib};

pub(super) const CASE: Case = Case {
    name: "fan-out",
    title: "1 sender × 20,000 prefixes → 300 receivers (reflector)",
    about: "All peers are internal and clients of the daemon as a route reflector. The time runs from the sender's \
            first octet until all 300 receivers hold exactly the table.",
    metrics: METRICS,
    targets: &[
        ratio("announce", Daemon::Frr, 0.4),
        ratio("cpu", Daemon::Frr, 0.6),
    ],
    limit: Duration::from_secs(60),
    usual: minutes(12),
    lacks: |_| None,
    run,
};

const METRICS: &[Metric] = &[
    ANNOUNCE,
    CPU,
    MEMORY,
    UPDATES,
    ANNOUNCEMENTS,
    MESSAGES,
    VOLUME,
    GENERATOR,
];

fn run(run: Run<'_>) -> anyhow::Result<Sample> {
    let receivers = run.options.scaled(300, 2);
    let prefixes = run.options.scaled(20_000, 100);
    let (mut routes, groups) = Routes::draw(prefixes, run.options.prefixes_per_path, SEED);
    let feed = routes.feed(
        &groups,
        Shape {
            sender: 0,
            external: None,
            length: None,
        },
    );
    let direct = run.daemon == Daemon::Direct;
    // Where the generator stands in for the daemon, it is the sender as well.
    let senders = usize::from(!direct);
    perform(run, &clients::scene(senders + receivers), |stage| {
        let mut clients = Clients::new(stage, routes, senders, false, |_, _| {})?;
        if direct {
            stage.direct_listen(None)?;
        }
        let mut sample = Sample::default();
        let engine = &mut clients.engine;
        if stage
            .establish(engine, &mut sample, &["announce"])?
            .is_none()
        {
            return Ok(sample);
        }
        let own = stage.seats[0].local;
        let voice = if direct {
            Voice::Reflector {
                cluster: 1,
                senders: &[own],
            }
        } else {
            Voice::Sender(own)
        };
        let mut octets = announce(&clients.routes, &feed, voice);
        put_end_of_rib(&mut octets);
        let octets = Arc::new(octets);
        let expected = clients.routes.table([&feed]);
        engine.ledger.expect(clients.table, expected);
        let direct = stage.direct();
        let phase = stage.phase(engine, &mut sample, "announce", |engine| match &direct {
            Some(direct) => direct.send(octets),
            None => engine.send(PeerId(0), octets),
        })?;
        stage.record_arrival(&mut sample, &phase, prefixes, receivers);
        stage.record_memory(&mut sample, "memory");
        Ok(sample)
    })
}
