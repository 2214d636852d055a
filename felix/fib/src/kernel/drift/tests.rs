//! What counts as somebody else's doing, and when.

use std::net::IpAddr;

use caracal_bgp_speaker::FibNextHop;

use super::*;
use crate::kernel::plan::{GroupKey, Installed, InstalledTarget, Op, Route, Scope, Target};

/// A kernel that does what it is asked, and what a test does to it.
#[derive(Default)]
struct World {
    desired: Desired,
    planner: Planner,
    actual: Actual,
    disturbances: Disturbances,
    work: FibWork,
}

fn address(last: u8) -> IpAddr {
    [10, 0, 0, last].into()
}

fn hop(last: u8) -> Hop {
    Hop {
        gateway: address(last),
        interface: 7,
    }
}

fn key(last: u8) -> GroupKey {
    [FibNextHop {
        address: address(last),
        link_local: None,
        interface: None,
    }]
    .into()
}

fn prefix(number: u8) -> Prefix {
    Prefix::new([20, 0, number, 0].into(), 24).unwrap()
}

impl World {
    /// One route per number, all over one next hop, in the kernel and complete.
    fn with_routes(numbers: &[u8]) -> Self {
        let mut world = Self::default();
        for number in numbers {
            world.want(*number, Some(1));
        }
        world.desired.set_members(&key(1), [hop(1)].into());
        world.desired.complete();
        world.turn();
        world
    }

    fn want(&mut self, number: u8, next_hop: Option<u8>) {
        let route = next_hop.map(|last| Route {
            target: Target::Group(key(last)),
            source: None,
        });
        self.desired.set(prefix(number), route);
    }

    fn turn(&mut self) {
        self.turn_that_writes(|_| true);
    }

    /// Judges, writes what `takes` says the kernel takes, and settles.
    fn turn_that_writes(&mut self, takes: impl Fn(&Op) -> bool) {
        self.disturbances
            .judge(&self.desired, &self.planner, &self.actual);
        let ops = self.planner.plan(&self.desired, &self.actual, Scope::All);
        for op in ops.iter().filter(|op| takes(op)) {
            self.actual.apply(op);
        }
        self.disturbances
            .settle(&self.desired, &self.planner, &self.actual, &self.work);
    }

    /// Somebody changes a route, and the kernel tells.
    fn disturb(&mut self, number: u8, slot: Option<Slot>) {
        let before = self.actual.slot(&prefix(number)).copied();
        self.actual.set_slot(prefix(number), slot);
        self.disturbances.route(prefix(number), before);
    }

    /// The kernel is listed, and this is found.
    fn list(&mut self, change: impl FnOnce(&mut Actual)) {
        let mut now = self.actual.clone();
        change(&mut now);
        let before = std::mem::replace(&mut self.actual, now);
        self.disturbances.listed(before);
    }

    fn repairs(&self) -> [u64; 4] {
        Drift::ALL.map(|drift| self.work.repairs(drift))
    }
}

fn elsewhere() -> Option<Slot> {
    Some(Slot::Ours(Installed {
        target: InstalledTarget::Other,
        source: None,
    }))
}

#[test]
fn each_kind_is_counted_when_it_has_been_put_right() {
    let mut world = World::with_routes(&[1, 2, 3, 4]);
    assert_eq!(world.repairs(), [0; 4], "our own writes are nobody's fault");
    world.disturb(1, None);
    world.disturb(2, elsewhere());
    world.disturb(3, Some(Slot::Stolen(9)));
    world.disturb(9, elsewhere());
    assert_eq!(world.repairs(), [0; 4], "not yet");
    world.turn();
    assert_eq!(world.repairs(), [1, 2, 1, 0]);
    world.turn();
    assert_eq!(world.repairs(), [1, 2, 1, 0], "once");
}

#[test]
fn what_a_listing_finds_counts_and_so_do_objects() {
    let mut world = World::with_routes(&[1, 2]);
    world.list(|kernel| {
        kernel.hops.clear();
        kernel.groups.clear();
        kernel.set_slot(prefix(1), None);
        kernel.set_slot(prefix(2), None);
    });
    world.turn();
    assert_eq!(world.repairs(), [2, 0, 0, 2], "a next hop and its group");
}

#[test]
fn what_is_wanted_otherwise_by_now_is_no_drift() {
    let mut world = World::with_routes(&[1, 2]);
    world.disturb(1, None);
    world.want(1, None);
    // The way is gone, and the routes with it.
    world.list(|kernel| {
        kernel.hops.clear();
        kernel.groups.clear();
        kernel.set_slot(prefix(2), None);
    });
    world.desired.set_members(&key(1), BTreeSet::new());
    world.turn();
    world.desired.set_members(&key(1), [hop(1)].into());
    world.turn();
    assert_eq!(world.repairs(), [0; 4]);
    assert!(world.actual.slot(&prefix(2)).is_some());
}

#[test]
fn what_the_kernel_drops_while_a_link_changes_is_no_drift() {
    let mut world = World::with_routes(&[1]);
    world.disturbances.unsettled = true;
    world.list(|kernel| kernel.set_slot(prefix(1), None));
    world.turn();
    assert_eq!(world.repairs(), [0; 4]);
    world.disturbances.unsettled = false;
    world.list(|kernel| kernel.set_slot(prefix(1), None));
    world.turn();
    assert_eq!(world.repairs(), [1, 0, 0, 0]);
}

#[test]
fn a_repair_that_the_kernel_refuses_counts_when_it_succeeds_and_not_before() {
    let mut world = World::with_routes(&[1]);
    world.disturb(1, None);
    world.turn_that_writes(|_| false);
    assert_eq!(world.repairs(), [0; 4]);
    world.turn();
    assert_eq!(world.repairs(), [1, 0, 0, 0]);
    // One that is not wanted any more is forgotten.
    world.disturb(1, None);
    world.turn_that_writes(|_| false);
    world.want(1, None);
    world.turn();
    world.want(1, Some(1));
    world.desired.set_members(&key(1), [hop(1)].into());
    world.turn();
    assert_eq!(world.repairs(), [1, 0, 0, 0]);
}

#[test]
fn what_an_earlier_life_left_is_no_stray() {
    let mut world = World::default();
    world.actual.set_slot(prefix(1), elsewhere());
    world.list(|_| {});
    world.desired.complete();
    world.turn();
    assert_eq!(world.actual.slot(&prefix(1)), None, "it goes");
    assert_eq!(world.repairs(), [0; 4]);
}
