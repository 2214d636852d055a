//! The planner against a kernel that is modelled: it keeps the kernel's rules, refuses what the
//! kernel refuses, and forgets what the kernel forgets.

use std::net::{IpAddr, Ipv4Addr};

use caracal_bgp_speaker::FibNextHop;
use proptest::collection::{btree_set, vec};
use proptest::prelude::*;

use super::*;

/// Objects and routes with the kernel's own rules.
#[derive(Clone, Debug, Default)]
struct ModelKernel {
    state: Actual,
    writes: usize,
}

impl ModelKernel {
    /// Does as told, or says why the kernel would refuse or lose something.
    fn execute(&mut self, op: &Op) -> Result<(), String> {
        self.writes += 1;
        match op {
            Op::AddHop { id, .. } => {
                if self.state.is_used(*id) {
                    return Err(format!("EEXIST: {op:?}"));
                }
            }
            Op::PutGroup {
                id,
                members,
                exists,
            } => {
                if members.is_empty() || !members.iter().all(|id| self.state.hops.contains_key(id))
                {
                    return Err(format!("members that are no next hops: {op:?}"));
                }
                if *exists != self.state.groups.contains_key(id)
                    || (!exists && self.state.is_used(*id))
                {
                    return Err(format!("ENOENT or EEXIST: {op:?}"));
                }
            }
            Op::PutRoute { prefix, route } => {
                if let InstalledTarget::Object(id) = route.target
                    && !self.state.groups.contains_key(&id)
                {
                    return Err(format!("no such group: {op:?}"));
                }
                if let Some(Slot::Foreign(_)) = self.state.slot(prefix) {
                    return Err(format!("overwrites another's route: {op:?}"));
                }
            }
            Op::DeleteRoute { prefix } => {
                if !matches!(self.state.slot(prefix), Some(Slot::Ours(_))) {
                    return Err(format!("deletes what is not ours: {op:?}"));
                }
            }
            Op::DeleteObject { id } => {
                if self.state.references.contains_key(id) {
                    return Err(format!("takes routes along: {op:?}"));
                }
                if self
                    .state
                    .groups
                    .values()
                    .any(|members| members.contains(id))
                {
                    return Err(format!("takes a member from a group: {op:?}"));
                }
            }
        }
        self.state.apply(op);
        Ok(())
    }

    /// A link loses its carrier: next hops, members, emptied groups and their routes go.
    fn lose_link(&mut self, interface: u32) {
        self.state.hops.retain(|_, hop| hop.interface != interface);
        let hops: BTreeSet<u32> = self.state.hops.keys().copied().collect();
        for members in self.state.groups.values_mut() {
            members.retain(|id| hops.contains(id));
        }
        self.state.groups.retain(|_, members| !members.is_empty());
        let dangling: Vec<Prefix> = self
            .state
            .routes
            .iter()
            .filter(|(_, slot)| {
                object_of(Some(slot)).is_some_and(|id| !self.state.groups.contains_key(&id))
            })
            .map(|(prefix, _)| *prefix)
            .collect();
        for prefix in dangling {
            self.state.set_slot(prefix, None);
        }
    }
}

/// What may happen.
#[derive(Clone, Debug)]
enum Event {
    /// The speaker wants a route over these next hops; none withdraws.
    Want(u8, BTreeSet<u8>),
    /// A next hop becomes usable or not; the kernel notices the latter.
    Carrier(u8, bool),
    /// Someone deletes a route of ours.
    Delete(u8),
    /// Someone adds a route of theirs where we have none.
    Occupy(u8),
    /// The process starts anew: the kernel stays.
    Restart,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        6 => (0..12_u8, btree_set(0..4_u8, 0..4)).prop_map(|(prefix, set)| Event::Want(prefix, set)),
        2 => (0..4_u8, any::<bool>()).prop_map(|(hop, up)| Event::Carrier(hop, up)),
        1 => (0..12_u8).prop_map(Event::Delete),
        1 => (0..12_u8).prop_map(Event::Occupy),
        1 => Just(Event::Restart),
    ];
    vec(event, 1..40)
}

fn prefix(number: u8) -> Prefix {
    Prefix::host(IpAddr::V4(Ipv4Addr::new(10, 0, 0, number)))
}

fn next_hop(number: u8) -> FibNextHop {
    FibNextHop {
        address: IpAddr::V4(Ipv4Addr::new(192, 0, 2, number)),
        link_local: None,
        interface: None,
    }
}

fn hop(number: u8) -> Hop {
    Hop {
        gateway: next_hop(number).address,
        interface: u32::from(number) + 1,
    }
}

fn route(next_hops: &BTreeSet<u8>) -> Option<Route> {
    let key: Vec<FibNextHop> = next_hops.iter().copied().map(next_hop).collect();
    (!key.is_empty()).then(|| Route {
        target: Target::Group(key.into()),
        source: None,
    })
}

struct World {
    wanted: BTreeMap<u8, BTreeSet<u8>>,
    usable: BTreeSet<u8>,
    kernel: ModelKernel,
    desired: Desired,
    actual: Actual,
    planner: Planner,
}

impl World {
    fn new() -> Self {
        let mut desired = Desired::default();
        desired.complete();
        Self {
            wanted: BTreeMap::new(),
            usable: (0..4).collect(),
            kernel: ModelKernel::default(),
            desired,
            actual: Actual::default(),
            planner: Planner::default(),
        }
    }

    fn resolve(&mut self) {
        for key in self.desired.keys() {
            let members = (0..4)
                .filter(|number| self.usable.contains(number) && key.contains(&next_hop(*number)))
                .map(hop)
                .collect();
            self.desired.set_members(&key, members);
        }
    }

    fn run(&mut self, ops: &[Op]) -> Result<(), TestCaseError> {
        for op in ops {
            self.kernel.execute(op).map_err(TestCaseError::fail)?;
            self.actual.apply(op);
        }
        Ok(())
    }

    fn settle(&mut self, scope: Scope<'_>) -> Result<(), TestCaseError> {
        self.resolve();
        let ops = self.planner.plan(&self.desired, &self.actual, scope);
        self.run(&ops)?;
        let ops = self.planner.plan_cleanup(&self.desired, &self.actual);
        self.run(&ops)?;
        prop_assert_eq!(&self.actual, &self.kernel.state);
        Ok(())
    }

    fn handle(&mut self, event: Event) -> Result<(), TestCaseError> {
        match event {
            Event::Want(number, next_hops) => {
                self.desired.set(prefix(number), route(&next_hops));
                self.wanted.insert(number, next_hops);
                self.settle(Scope::Only(&BTreeSet::from([prefix(number)])))
            }
            Event::Carrier(number, up) => {
                if up {
                    self.usable.insert(number);
                } else {
                    self.usable.remove(&number);
                    self.kernel.lose_link(u32::from(number) + 1);
                    self.actual = self.kernel.state.clone();
                }
                self.settle(Scope::All)
            }
            Event::Delete(number) => {
                if let Some(Slot::Ours(_)) = self.kernel.state.slot(&prefix(number)) {
                    self.kernel.state.set_slot(prefix(number), None);
                    self.actual = self.kernel.state.clone();
                }
                self.settle(Scope::Only(&BTreeSet::from([prefix(number)])))
            }
            Event::Occupy(number) => {
                if self.kernel.state.slot(&prefix(number)).is_none() {
                    let slot = Some(Slot::Foreign(4));
                    self.kernel.state.set_slot(prefix(number), slot);
                    self.actual = self.kernel.state.clone();
                }
                Ok(())
            }
            Event::Restart => {
                self.planner = Planner::default();
                self.actual = self.kernel.state.clone();
                self.desired = Desired::default();
                for (number, next_hops) in &self.wanted {
                    self.desired.set(prefix(*number), route(next_hops));
                }
                self.resolve();
                let before = self.kernel.writes;
                self.desired.complete();
                self.settle(Scope::All)?;
                prop_assert_eq!(
                    before,
                    self.kernel.writes,
                    "equal state, so nothing to write"
                );
                Ok(())
            }
        }
    }

    /// What the kernel does with a packet must be what was asked for.
    fn judge(&self) -> Result<(), TestCaseError> {
        for number in 0..12 {
            let slot = self.kernel.state.slot(&prefix(number));
            if let Some(Slot::Foreign(_)) = slot {
                continue;
            }
            let asked = self.wanted.get(&number).cloned().unwrap_or_default();
            let expected: BTreeSet<Hop> =
                asked.intersection(&self.usable).copied().map(hop).collect();
            let found = object_of(slot)
                .and_then(|id| self.kernel.state.members_of(id))
                .unwrap_or_default();
            prop_assert_eq!(expected, found, "prefix {}", number);
        }
        let groups: BTreeSet<&u32> = self.kernel.state.groups.keys().collect();
        let routed: BTreeSet<&u32> = self.kernel.state.references.keys().collect();
        prop_assert!(routed.is_subset(&groups));
        let members: BTreeSet<u32> = self
            .kernel
            .state
            .groups
            .values()
            .flatten()
            .copied()
            .collect();
        let hops: BTreeSet<u32> = self.kernel.state.hops.keys().copied().collect();
        prop_assert_eq!(members, hops, "no next hop without use, none missing");
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn any_history_ends_in_what_was_asked_for_without_breaking_a_rule_of_the_kernel(
        events in events()
    ) {
        let mut world = World::new();
        for event in events {
            world.handle(event)?;
        }
        world.settle(Scope::All)?;
        world.judge()?;
        let before = world.kernel.writes;
        world.settle(Scope::All)?;
        prop_assert_eq!(before, world.kernel.writes, "a second look writes nothing");
    }
}

#[test]
fn the_loss_of_a_neighbour_costs_one_write_whatever_the_number_of_routes() {
    let mut world = World::new();
    for number in 0..12 {
        world
            .handle(Event::Want(number, BTreeSet::from([0, 1])))
            .unwrap();
    }
    let before = world.kernel.writes;
    // The neighbour goes, the link stays: the kernel does nothing by itself.
    world.usable.remove(&1);
    world.settle(Scope::All).unwrap();
    let ops = world.kernel.writes - before;
    assert_eq!(ops, 2, "the group loses a member, and the next hop goes");
}

#[test]
fn routes_that_move_together_cost_one_write_and_take_no_others_with_them() {
    let mut world = World::new();
    world.desired.complete();
    let want = |world: &mut World, numbers: std::ops::Range<u8>, next_hops: &[u8]| {
        let next_hops: BTreeSet<u8> = next_hops.iter().copied().collect();
        for number in numbers {
            world.desired.set(prefix(number), route(&next_hops));
            world.wanted.insert(number, next_hops.clone());
        }
        world.resolve();
    };
    want(&mut world, 0..12, &[0, 1]);
    world.settle(Scope::All).unwrap();
    // The RIB gives up one of two next hops everywhere at once.
    let before = world.kernel.writes;
    want(&mut world, 0..12, &[0]);
    world.settle(Scope::All).unwrap();
    assert_eq!(
        world.kernel.writes - before,
        2,
        "the group, and the next hop goes"
    );
    world.judge().unwrap();
    // Most go one way, and a few another: these are written one by one.
    let before = world.kernel.writes;
    want(&mut world, 0..9, &[1]);
    want(&mut world, 9..12, &[1, 2]);
    world.settle(Scope::All).unwrap();
    world.judge().unwrap();
    let [hops, groups, routes, removed] = [2, 2, 3, 1];
    assert_eq!(
        world.kernel.writes - before,
        hops + groups + routes + removed
    );
    // Some stay: nobody moves the group from under them.
    want(&mut world, 0..8, &[0]);
    world.settle(Scope::All).unwrap();
    world.judge().unwrap();
}

#[test]
fn nothing_is_removed_before_everything_desired_is_known() {
    let mut world = World::new();
    for number in 0..3 {
        world
            .handle(Event::Want(number, BTreeSet::from([number])))
            .unwrap();
    }
    world.planner = Planner::default();
    world.desired = Desired::default();
    world.desired.set(prefix(0), route(&BTreeSet::from([0])));
    world.desired.set(prefix(1), None);
    world.resolve();
    let ops = world
        .planner
        .plan(&world.desired, &world.actual, Scope::All);
    let withdrawn = Op::DeleteRoute { prefix: prefix(1) };
    assert_eq!(
        ops,
        [withdrawn],
        "named, so known; the third may still come"
    );
    assert_eq!(
        world.planner.plan_cleanup(&world.desired, &world.actual),
        []
    );
    world.desired.complete();
    let ops = world
        .planner
        .plan(&world.desired, &world.actual, Scope::All);
    assert!(ops.contains(&Op::DeleteRoute { prefix: prefix(2) }));
}

#[test]
fn numbers_of_other_programs_are_never_used() {
    let mut world = World::new();
    world.kernel.state.taken = (FIRST_ID..FIRST_ID + 3).collect();
    world.actual = world.kernel.state.clone();
    world
        .handle(Event::Want(1, BTreeSet::from([0, 1])))
        .unwrap();
    assert!(world.kernel.state.hops.keys().all(|id| *id >= FIRST_ID + 3));
    assert_eq!(world.kernel.state.taken.len(), 3);
}
