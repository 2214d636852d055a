//! As many ways to one destination as `maximumPaths` allows.

#![allow(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use caracal_bgp_speaker::{Drift, Fib};
use caracal_fib::FibOptions;

use common::subject::Subject;
use common::{Fabric, ip, objects, until};

const DESTINATION: &str = "10.1.0.0/26";

/// The first so many neighbours on both uplinks, whether they are there or not.
fn neighbours(count: usize) -> Vec<String> {
    let neighbours = (0..count).map(|number| format!("10.0.{}.{}", 1 + number % 2, 2 + number / 2));
    neighbours.collect()
}

fn ask(subject: &mut Subject, ways: usize) {
    let neighbours = neighbours(ways);
    let neighbours: Vec<&str> = neighbours.iter().map(String::as_str).collect();
    let seq = subject.ask(&[(DESTINATION, &neighbours)]);
    subject.installed(seq);
}

#[test]
fn two_hundred_and_fifty_six_ways_are_written_seen_and_repaired_like_two() {
    let Some(fabric) = Fabric::new("ways") else {
        return;
    };
    let node = &fabric.node;
    let mut subject = Subject::start(node, FibOptions::default());
    subject.synced();
    // Of so many, `ip route` shows the group alone.
    let ways = || {
        let objects = objects(node);
        let groups = objects
            .lines()
            .filter_map(|line| line.split_once(" group "));
        let sizes = groups.map(|(_, members)| members.matches('/').count() + 1);
        sizes.max().unwrap_or(0)
    };
    for wanted in [256, 255, 256] {
        ask(&mut subject, wanted);
        assert_eq!(ways(), wanted);
        let (route, in_sync) = subject.look(DESTINATION);
        assert!(in_sync, "{route:?}");
    }
    let work = subject.fib.work();
    let repairs = || {
        Drift::ALL
            .map(|drift| work.repairs(drift))
            .iter()
            .sum::<u64>()
    };
    assert_eq!(repairs(), 0, "our own writes are nobody's fault");
    ip(node, &format!("route del {DESTINATION} metric 512"));
    until("the route is back", || match subject.look(DESTINATION) {
        (_, true) => Ok(()),
        (route, false) => Err(format!("{route:?}")),
    });
    assert_eq!(ways(), 256);
    assert_eq!(repairs(), 1);
}
