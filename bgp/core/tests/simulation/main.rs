//! Many speakers in virtual time: real sessions and real RIBs, octet for octet, under everything that
//! a network does to them. When nothing happens any more, every router must have been told exactly
//! what the oracle says, and when nothing is left to tell, nothing may be left in memory.
//!
//! A seed is a case: a fabric, its faults and their times are drawn from it alone. Seeds that once failed
//! are in `FAILED_ONCE`. `SIMULATION_SEED=n` runs one and prints its plan; the ignored test runs new
//! ones for `SOAK_SECONDS`, from `SOAK_SEED` on (`make soak`).

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod design;
mod fabric;
mod oracle;
mod plan;
mod random;
mod rib_thread;
mod speaker;
mod steps;
mod world;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use caracal_bgp_core::rib::Footprint;

use plan::{Plan, plan};
use world::{Totals, World};

/// Cases of a usual run.
const CASES: u64 = 40;
/// Cases that have found mistakes.
const FAILED_ONCE: [u64; 1] = [1_001_187];
/// Virtual time without routes under way after which there are none.
const REST: Duration = Duration::from_secs(5);
/// Virtual time in which every fabric comes to rest once nothing more happens.
const PATIENCE: Duration = Duration::from_secs(1200);

/// Runs one case to its end.
fn run(plan: Plan) -> Result<Totals, String> {
    let end = plan.end;
    let mut world = World::new(plan);
    world.run_until(world.began + end);
    come_to_rest(&mut world)?;
    let expected = oracle::expected(&world.fabric);
    compare(&world, &expected)?;
    world.totals.routes = expected.len() as u64;

    // Everything is taken back.
    for router in 0..world.fabric.routers.len() {
        world.fabric.routers[router].own.clear();
        world.configure_rib(router);
    }
    world.run_until(world.now + REST);
    come_to_rest(&mut world)?;
    compare(&world, &BTreeMap::new())?;
    for (router, speaker) in world.speakers.iter_mut().enumerate() {
        let rib = speaker.rib.as_mut().unwrap();
        let held = rib.footprint();
        let groups = held.groups;
        let baseline = Footprint {
            groups,
            ..Footprint::default()
        };
        if held != baseline || !rib.is_empty() || groups > speaker.sessions.len() {
            let left = rib.len();
            return Err(format!(
                "router {router} keeps {left} prefixes and {held:?}"
            ));
        }
    }
    world.totals.time = world.now - world.began;
    Ok(world.totals)
}

fn come_to_rest(world: &mut World) -> Result<(), String> {
    let end = world.now + PATIENCE;
    while world.now < end {
        world.run_until(world.now + Duration::from_secs(1));
        let stirred = world.stirred.max(world.hindered());
        if world.now > stirred + REST && world.is_quiet() {
            return Ok(());
        }
    }
    let states = world.speakers.iter_mut().enumerate().map(|(number, it)| {
        let sessions = it.sessions.iter();
        let sessions = sessions.map(|(side, it)| format!("{side:?} {:?}", it.machine.state()));
        let sessions: Vec<String> = sessions.collect();
        let held = it.rib.as_mut().map(|rib| rib.footprint());
        let (inputs, ready) = (it.inputs.len(), it.ready.len());
        let routes = it.rib.as_ref().map(|rib| rib.routes(None));
        let routes = routes.unwrap_or_default().into_iter().map(|route| {
            let paths = route.paths.iter().map(|it| {
                let path = &it.path;
                let from = path.source.index();
                (from, &path.attributes.as_path, path.next_hop, &it.rejected)
            });
            let paths: Vec<_> = paths.collect();
            format!("  {} {:?} {paths:?}\n", route.prefix, route.fib)
        });
        let routes: String = routes.collect();
        format!("router {number}: {sessions:?}, {inputs} inputs, {ready} ready, {held:?}\n{routes}")
    });
    let states: Vec<String> = states.collect();
    let still = world.now - world.stirred;
    Err(format!(
        "does not come to rest, {still:?} without routes under way:\n{}",
        states.join("")
    ))
}

fn compare(world: &World, expected: &oracle::AdjRibsIn) -> Result<(), String> {
    let speakers = world.speakers.iter().enumerate();
    let ribs = speakers.map(|(router, speaker)| (router, speaker.rib.as_ref().unwrap()));
    let held = oracle::held(&world.fabric, ribs);
    let mut wrong = Vec::new();
    for at in expected.keys().chain(held.keys()) {
        if expected.get(at) != held.get(at) {
            let (side, prefix) = at;
            wrong.push(format!(
                "{prefix} at {side:?} (router {}): expected {:?}\n  held {:?}",
                world.fabric.end(*side).router,
                expected.get(at),
                held.get(at)
            ));
        }
    }
    wrong.dedup();
    match wrong.is_empty() {
        true => Ok(()),
        false => Err(wrong.join("\n")),
    }
}

/// Runs the case of a seed; a failure tells all that is needed to see it again.
fn case(seed: u64) -> Totals {
    let plan = plan(seed);
    let shown = plan.to_string();
    match run(plan) {
        Ok(totals) => totals,
        Err(problem) => panic!("{shown}\nSIMULATION_SEED={seed}\n{problem}"),
    }
}

#[test]
fn at_rest_every_router_has_been_told_what_the_oracle_says() {
    if let Ok(seed) = std::env::var("SIMULATION_SEED") {
        let seed = seed.parse().unwrap();
        println!("{}", plan(seed));
        println!("{:?}", case(seed));
        return;
    }
    let mut totals = Totals::default();
    for seed in FAILED_ONCE.into_iter().chain(0..CASES) {
        totals += case(seed);
    }
    // Fabrics in which nothing is told prove nothing.
    assert!(totals.routes > 10 * CASES, "{totals:?}");
    assert!(totals.restarts > CASES / 2, "{totals:?}");
}

#[test]
fn the_same_seed_is_the_same_case() {
    assert_eq!(case(3), case(3));
}

#[test]
fn the_oracle_is_not_content_with_another_table() {
    let mut world = World::new(plan(1));
    world.run_until(world.began + world.plan.end);
    come_to_rest(&mut world).unwrap();
    let mut expected = oracle::expected(&world.fabric);
    compare(&world, &expected).unwrap();
    let (_, (attributes, ..)) = expected.iter_mut().next().unwrap();
    attributes.med = Some(4711);
    compare(&world, &expected).unwrap_err();
}

#[test]
#[ignore = "runs for as long as SOAK_SECONDS says: make soak"]
fn soak() {
    let number = |name: &str, usual: u64| {
        let text = std::env::var(name).ok();
        text.map_or(usual, |text| text.parse().unwrap())
    };
    let time = Duration::from_secs(number("SOAK_SECONDS", 60));
    let first = number("SOAK_SEED", 1_000_000);
    let (began, mut seed, mut totals) = (Instant::now(), first, Totals::default());
    while began.elapsed() < time {
        totals += case(seed);
        seed += 1;
    }
    println!(
        "simulation: {} cases, seeds {first} to {}: {} of virtual time, {} sessions came up, {} \
         speakers ended and came back, {} UPDATEs were read, {} routes compared at rest; nothing \
         differed, nothing was left",
        seed - first,
        seed - 1,
        hours(totals.time),
        totals.sessions,
        totals.restarts,
        totals.updates,
        totals.routes,
    );
}

fn hours(time: Duration) -> String {
    format!("{:.1} hours", time.as_secs_f64() / 3600.0)
}
