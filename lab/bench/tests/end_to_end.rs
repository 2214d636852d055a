//! The generator against itself and against our speaker, small enough to run with every change.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use caracal_bench::cases::ALL;
use caracal_bench::daemons::Daemon;
use caracal_bench::digest::{Catalogue, Sender, Terms};
use caracal_bench::engine::Engine;
use caracal_bench::ledger::Ledger;
use caracal_bench::measure::{Sample, Value};
use caracal_bench::net::netns::Netns;
use caracal_bench::options::{Options, Placement};
use caracal_bench::routes::{Routes, Shape};
use caracal_bench::stage::{DAEMON_ASN, Run, Scene, perform};
use caracal_bench::wire::{Voice, announce};
use clap::Parser;

/// Whether namespaces can be had here; says so when not.
fn root() -> bool {
    match Netns::create() {
        Ok(_) => true,
        Err(error) => {
            caracal_skip::missing!("{error:#}");
            false
        }
    }
}

/// Our binary of the same build, which `target/<profile>/deps` lies beside, or of another profile.
fn caracal() -> Option<PathBuf> {
    let own = std::env::current_exe().unwrap();
    let same = own.ancestors().nth(2)?;
    let others = ["debug", "quick", "release"].map(|profile| same.with_file_name(profile));
    let mut binaries = [same.to_owned()]
        .into_iter()
        .chain(others)
        .map(|folder| folder.join("caracal"));
    binaries.find(|binary| binary.exists())
}

fn play(case: &str, daemon: Daemon, caracal: &Path, scale: f64) -> Sample {
    let mut options = Options::parse_from(["caracal-bench", "--quick"]);
    options.scale = scale;
    options.caracal = caracal.to_owned();
    let case = ALL.iter().find(|known| known.name == case).unwrap();
    let run = Run {
        options: &options,
        daemon,
        placement: Placement::Unpinned,
        limit: Duration::from_secs(60),
    };
    (case.run)(run).unwrap()
}

fn number(sample: &Sample, key: &str) -> f64 {
    match sample.values.get(key) {
        Some(Value::Number(number)) => *number,
        other => panic!("{key} is {other:?} in {sample:#?}"),
    }
}

#[test]
fn ten_thousand_prefixes_go_from_generator_to_generator_and_away_again() {
    if !root() {
        return;
    }
    let sample = play(
        "table",
        Daemon::Direct,
        Path::new("caracal"),
        10_000.0 / 800_000.0,
    );
    assert!(number(&sample, "announce") > 0.0);
    assert!(number(&sample, "withdraw") > 0.0);
    assert_eq!(number(&sample, "announcements_per_prefix"), 1.0);
    assert!((0.1..0.3).contains(&number(&sample, "updates_per_prefix")));
    assert!(sample.notes.is_empty(), "{sample:#?}");
}

#[test]
fn a_receiver_that_lacks_one_prefix_is_not_at_the_end() {
    if !root() {
        return;
    }
    let options = Options::parse_from(["caracal-bench"]);
    let run = Run {
        options: &options,
        daemon: Daemon::Direct,
        placement: Placement::Unpinned,
        limit: Duration::from_secs(1),
    };
    let scene = Scene {
        asns: vec![65101],
        links: vec![1],
        prober: false,
        reflector: false,
        kernel: false,
    };
    let (mut routes, groups) = Routes::draw(1_000, 6.0, 1);
    let shape = Shape {
        sender: 0,
        external: Some(65001),
        length: None,
    };
    let feed = routes.feed(&groups, shape);
    let sample = perform(run, &scene, |stage| {
        let daemon = stage.arena.links[0].daemon;
        let sender = Sender {
            next_hop: stage.seats[0].local,
            router_id: 1,
        };
        let terms = Terms::External { asn: DAEMON_ASN };
        let catalogue = Catalogue::new(&routes, terms, daemon, vec![sender]);
        let routes = Arc::new(routes);
        let mut ledger = Ledger::new(routes.clone(), catalogue);
        let table = ledger.add_table();
        let view = ledger.add_view(table, None);
        let mut engine = Engine::new(ledger)?;
        let mut session = stage.seats[0].session();
        session.view = Some(view);
        engine.add(session);
        stage.direct_listen(None)?;
        let mut sample = Sample::default();
        stage.establish(&mut engine, &mut sample, &[])?.unwrap();
        let mut short = feed.clone();
        short[0].prefixes.pop();
        let voice = Voice::External {
            asn: DAEMON_ASN,
            next_hop: daemon,
        };
        let octets = Arc::new(announce(&routes, &short, voice));
        engine.ledger.expect(table, routes.table([&feed]));
        let direct = stage.direct().unwrap();
        stage.phase(&mut engine, &mut sample, "announce", |_| {
            direct.send(octets)
        })?;
        Ok(sample)
    })
    .unwrap();
    assert_eq!(sample.values["announce"], Value::NotIn(1.0));
    assert!(sample.notes[0].contains("lacks 1 prefixes"), "{sample:#?}");
}

#[test]
fn our_speaker_passes_a_small_table_on_and_reflects_among_clients() {
    if !root() {
        return;
    }
    let Some(caracal) = caracal() else {
        return caracal_skip::missing!("there is no caracal binary in the target folder");
    };
    let sample = play("table", Daemon::Caracal, &caracal, 1_000.0 / 800_000.0);
    assert!(number(&sample, "announce") > 0.0);
    assert!(number(&sample, "withdraw") > 0.0);
    assert!(number(&sample, "memory") > 1.0);
    assert_eq!(number(&sample, "announcements_per_prefix"), 1.0);
    let sample = play("reflector-500", Daemon::Caracal, &caracal, 0.02);
    assert!(number(&sample, "routes") >= number(&sample, "sessions"));
    assert!(number(&sample, "change_p99") >= number(&sample, "change_p50"));
    assert!(sample.notes.is_empty(), "{sample:#?}");
}
