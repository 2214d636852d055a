use super::*;
use crate::Subnet;
use proptest::prelude::*;
use std::collections::VecDeque;

const T0: Moment = Moment(1_000_000);

fn layout(blocks_bits: u8, second_octet: u8) -> Layout {
    let base = std::net::Ipv4Addr::new(10, second_octet, 0, 0);
    let subnet = Subnet {
        ipv4: Some((base, 32 - 2 - blocks_bits)),
        ipv6: None,
        active: true,
    };
    Layout::new(vec![subnet], 2).unwrap()
}

fn pool(blocks_bits: u8, second_octet: u8, created: u64) -> Pool {
    Pool {
        layout: layout(blocks_bits, second_octet),
        reserved: Vec::new(),
        cooldown: Duration::from_secs(130),
        max_blocks_per_node: 4,
        grants: true,
        created: Moment(created),
    }
}

fn node(uid: &str) -> Node {
    Node {
        uid: uid.into(),
        pools: BTreeSet::from(["p".into()]),
    }
}

fn id(index: u32) -> BlockId {
    BlockId {
        pool: "p".into(),
        index,
    }
}

/// A controller with an API server that does at once whatever it is asked.
struct Cluster {
    controller: Controller,
    now: Moment,
    objects: BTreeMap<BlockId, HeldBlock>,
    answers: BTreeMap<NodeName, Answer>,
    reports: BTreeMap<PoolName, PoolReport>,
    writes: usize,
    queue: VecDeque<Event>,
}

impl Cluster {
    fn new(pools: &[(&str, Pool)], nodes: &[&str]) -> Self {
        let mut cluster = Cluster {
            controller: Controller::new(1, Settings::default()),
            now: T0,
            objects: BTreeMap::new(),
            answers: BTreeMap::new(),
            reports: BTreeMap::new(),
            writes: 0,
            queue: VecDeque::new(),
        };
        for (name, pool) in pools {
            cluster.tell(Event::Pool((*name).into(), Some(pool.clone())));
        }
        for name in nodes {
            cluster.tell(Event::Node(
                (*name).into(),
                Some(node(&format!("u-{name}"))),
            ));
        }
        cluster.tell(Event::Synced);
        cluster
    }

    fn tell(&mut self, event: Event) {
        self.queue.push_back(event);
        while let Some(event) = self.queue.pop_front() {
            let mut actions = Vec::new();
            self.controller.handle(self.now, event, &mut actions);
            self.carry_out(actions);
        }
    }

    fn pass(&mut self, duration: Duration) {
        self.now = self.now.after(duration);
        let mut actions = Vec::new();
        self.controller.handle_timeout(self.now, &mut actions);
        self.carry_out(actions);
        self.tell(Event::Synced);
    }

    fn carry_out(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Create(id, grant) => {
                    assert!(!self.objects.contains_key(&id), "{id} granted twice");
                    let block = HeldBlock {
                        version: Version::default(),
                        block: grant.block,
                        node: grant.node,
                        node_uid: grant.node_uid,
                        epoch: grant.epoch,
                        request_generation: grant.request_generation,
                        drain: false,
                        phase: Phase::Offered,
                        since: self.now,
                        created: self.now,
                    };
                    self.write(id, Some(block));
                }
                Action::Drain(id, _) => self.change(&id, |block| block.drain = true),
                Action::Quarantine(id, _) => self.set_phase(&id, Phase::Quarantined),
                Action::Delete(id, _) => self.write(id, None),
                Action::Answer {
                    node,
                    pool,
                    generation,
                    answer,
                } => {
                    if let Answer::Granted(_) = &answer {
                        let request = Request {
                            node_uid: format!("u-{node}").as_str().into(),
                            generation,
                            want: 1,
                            granted: Some(generation),
                        };
                        self.queue
                            .push_back(Event::Request(node.clone(), pool, Some(request)));
                    }
                    self.answers.insert(node, answer);
                }
                Action::Report(pool, report) => {
                    self.reports.insert(pool, report);
                }
                Action::Resign { .. } => {}
            }
        }
    }

    fn change(&mut self, id: &BlockId, change: impl FnOnce(&mut HeldBlock)) {
        let mut block = self.objects[id].clone();
        change(&mut block);
        self.write(id.clone(), Some(block));
    }

    /// As an agent does it.
    fn become_phase(&mut self, id: &BlockId, phase: Phase) {
        self.set_phase(id, phase);
        self.tell(Event::Synced);
    }

    fn set_phase(&mut self, id: &BlockId, phase: Phase) {
        let now = self.now;
        self.change(id, |block| {
            block.phase = phase;
            block.since = now;
        });
    }

    fn write(&mut self, id: BlockId, block: Option<HeldBlock>) {
        self.writes += 1;
        match &block {
            Some(block) => self.objects.insert(id.clone(), block.clone()),
            None => self.objects.remove(&id),
        };
        self.queue.push_back(Event::Block(id, block));
    }

    fn ask(&mut self, node: &str, generation: u64, want: u32) {
        let node_uid = format!("u-{node}").as_str().into();
        let request = Request {
            node_uid,
            generation,
            want,
            granted: None,
        };
        self.tell(Event::Request(node.into(), "p".into(), Some(request)));
    }

    fn held(&self, node: &str) -> Vec<u32> {
        let mine = self
            .objects
            .iter()
            .filter(|(_, block)| block.node.0 == node);
        mine.map(|(id, _)| id.index).collect()
    }
}

#[test]
fn each_node_gets_a_first_block_unasked() {
    let cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a", "b"]);
    assert_eq!((cluster.held("a"), cluster.held("b")), (vec![0], vec![2]));
    let report = &cluster.reports[&PoolName::from("p")];
    assert_eq!((report.total, report.used, report.exhausted), (8, 2, false));
}

#[test]
fn nothing_is_granted_before_everything_was_listed() {
    let mut controller = Controller::new(1, Settings::default());
    let mut actions = Vec::new();
    controller.handle(
        T0,
        Event::Pool("p".into(), Some(pool(3, 64, 1))),
        &mut actions,
    );
    controller.handle(T0, Event::Node("a".into(), Some(node("u"))), &mut actions);
    assert_eq!(actions, []);
}

#[test]
fn the_second_block_of_a_node_is_the_other_half_of_its_first() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a", "b"]);
    cluster.ask("a", 1, 1);
    assert_eq!(cluster.held("a"), [0, 1]);
    assert_eq!(cluster.answers[&"a".into()], Answer::Granted(vec![id(1)]));
}

#[test]
fn a_demand_read_again_is_not_granted_again() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a"]);
    cluster.ask("a", 1, 2);
    let writes = cluster.writes;
    cluster.ask("a", 1, 2);
    cluster.tell(Event::Synced);
    assert_eq!(cluster.writes, writes);
    assert_eq!(cluster.held("a").len(), 3);
    cluster.ask("a", 2, 1);
    assert_eq!(cluster.held("a").len(), 4);
}

#[test]
fn the_next_leader_finishes_what_the_last_one_began_and_no_more() {
    let mut first = Cluster::new(&[("p", pool(3, 64, 1))], &["a"]);
    first.ask("a", 1, 1);
    let mut controller = Controller::new(2, Settings::default());
    let mut actions = Vec::new();
    controller.handle(
        T0,
        Event::Pool("p".into(), Some(pool(3, 64, 1))),
        &mut actions,
    );
    controller.handle(T0, Event::Node("a".into(), Some(node("u-a"))), &mut actions);
    for (id, block) in &first.objects {
        controller.handle(
            T0,
            Event::Block(id.clone(), Some(block.clone())),
            &mut actions,
        );
    }
    let request = Request {
        node_uid: "u-a".into(),
        generation: 1,
        want: 2,
        granted: None,
    };
    controller.handle(
        T0,
        Event::Request("a".into(), "p".into(), Some(request)),
        &mut actions,
    );
    controller.handle(T0, Event::Synced, &mut actions);
    let creates: Vec<_> = actions
        .iter()
        .filter_map(|action| match action {
            Action::Create(id, grant) => Some((id.index, grant.epoch)),
            _ => None,
        })
        .collect();
    assert_eq!(creates, [(2, 2)]);
}

#[test]
fn refusals_have_reasons() {
    let mut small = pool(1, 64, 1);
    small.max_blocks_per_node = 2;
    let mut cluster = Cluster::new(&[("p", small)], &["a", "b"]);
    cluster.ask("a", 1, 1);
    assert_eq!(
        cluster.answers[&"a".into()],
        Answer::Refused(Refusal::NoFreeBlocks)
    );
    assert!(cluster.reports[&PoolName::from("p")].exhausted);
    cluster.ask("c", 1, 1);
    assert_eq!(
        cluster.answers[&"c".into()],
        Answer::Refused(Refusal::NodeNotFound)
    );
    cluster.tell(Event::Node(
        "c".into(),
        Some(Node {
            uid: "u-c".into(),
            pools: BTreeSet::new(),
        }),
    ));
    cluster.ask("c", 1, 1);
    assert_eq!(
        cluster.answers[&"c".into()],
        Answer::Refused(Refusal::PoolNotForNode)
    );
    let mut cluster = Cluster::new(
        &[(
            "p",
            Pool {
                max_blocks_per_node: 1,
                ..pool(3, 64, 1)
            },
        )],
        &["a"],
    );
    cluster.ask("a", 1, 1);
    assert_eq!(
        cluster.answers[&"a".into()],
        Answer::Refused(Refusal::NodeLimitReached)
    );
}

#[test]
fn who_waits_for_a_block_gets_the_next_one_that_comes_free() {
    let mut cluster = Cluster::new(&[("p", pool(1, 64, 1))], &["a", "b"]);
    cluster.ask("a", 1, 1);
    cluster.tell(Event::Node("b".into(), None));
    assert_eq!(cluster.objects[&id(1)].phase, Phase::Quarantined);
    cluster.pass(Duration::from_secs(599));
    assert_eq!(cluster.held("a"), [0]);
    cluster.pass(Duration::from_secs(1));
    assert_eq!(cluster.held("a"), [0, 1]);
    assert_eq!(cluster.answers[&"a".into()], Answer::Granted(vec![id(1)]));
}

#[test]
fn a_released_block_rests_for_the_cooldown() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a"]);
    cluster.ask("a", 1, 1);
    cluster.become_phase(&id(1), Phase::Released);
    cluster.pass(Duration::from_secs(129));
    assert!(cluster.objects.contains_key(&id(1)));
    cluster.pass(Duration::from_secs(1));
    assert!(!cluster.objects.contains_key(&id(1)));
}

#[test]
fn a_node_made_again_gets_new_blocks_and_drains_the_old_ones() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a"]);
    cluster.become_phase(&id(0), Phase::Active);
    cluster.tell(Event::Node("a".into(), Some(node("u-new"))));
    assert!(cluster.objects[&id(0)].drain);
    assert_eq!(cluster.objects[&id(2)].node_uid, "u-new".into());
    cluster.pass(Duration::from_secs(100_000));
    assert!(
        cluster.objects.contains_key(&id(0)),
        "only its agent can tell that it is empty"
    );
}

#[test]
fn quarantine_waits_for_an_agent_that_is_back() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a"]);
    cluster.tell(Event::Node("a".into(), None));
    cluster.tell(Event::Node("a".into(), Some(node("u-new"))));
    cluster.pass(Duration::from_secs(100_000));
    assert_eq!(cluster.objects[&id(0)].phase, Phase::Quarantined);
    cluster.become_phase(&id(0), Phase::Released);
    cluster.pass(Duration::from_secs(130));
    assert!(!cluster.objects.contains_key(&id(0)));
}

#[test]
fn of_two_overlapping_pools_the_older_grants() {
    let mut cluster = Cluster::new(&[("q", pool(3, 64, 1)), ("p", pool(3, 64, 2))], &["a"]);
    assert_eq!(cluster.held("a"), [] as [u32; 0]);
    assert_eq!(
        cluster.reports[&PoolName::from("p")].overlaps,
        [PoolName::from("q")]
    );
    assert!(cluster.reports[&PoolName::from("q")].overlaps.is_empty());
    cluster.tell(Event::Pool("q".into(), None));
    assert_eq!(cluster.held("a"), [0]);
    assert!(cluster.reports[&PoolName::from("p")].overlaps.is_empty());
}

#[test]
fn objects_of_a_pool_that_was_cut_otherwise_keep_their_addresses() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &[]);
    let left = HeldBlock {
        version: Version::default(),
        block: Block {
            ipv4: Some("10.64.0.0".parse().unwrap()),
            ipv6: None,
            bits: 4,
        },
        node: "gone".into(),
        node_uid: "u".into(),
        epoch: 1,
        request_generation: 0,
        drain: false,
        phase: Phase::Quarantined,
        since: T0,
        created: T0,
    };
    cluster.write(
        BlockId {
            pool: "old".into(),
            index: 0,
        },
        Some(left),
    );
    cluster.tell(Event::Node("a".into(), Some(node("u"))));
    assert_eq!(cluster.held("a"), [4], "10.64.0.0/28 is taken");
}

#[test]
fn a_grant_of_a_later_leader_ends_the_term() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a"]);
    let mut block = cluster.objects[&id(0)].clone();
    block.epoch = 7;
    let mut actions = Vec::new();
    cluster
        .controller
        .handle(T0, Event::Block(id(4), Some(block)), &mut actions);
    assert!(actions.contains(&Action::Resign { epoch: 7 }));
    actions.clear();
    cluster
        .controller
        .handle(T0, Event::Node("z".into(), Some(node("u-z"))), &mut actions);
    assert_eq!(actions, []);
}

#[test]
fn a_steady_cluster_is_left_alone() {
    let mut cluster = Cluster::new(&[("p", pool(3, 64, 1))], &["a", "b"]);
    let writes = cluster.writes;
    for block in cluster.objects.clone() {
        cluster.tell(Event::Block(block.0, Some(block.1)));
    }
    cluster.tell(Event::Node("a".into(), Some(node("u-a"))));
    cluster.tell(Event::Pool("p".into(), Some(pool(3, 64, 1))));
    cluster.pass(Duration::from_secs(10_000));
    assert_eq!(cluster.writes, writes);
    assert_eq!(cluster.controller.poll_timeout(), None);
}

#[test]
fn a_failed_creation_is_tried_again_after_a_pause() {
    let mut controller = Controller::new(1, Settings::default());
    let mut actions = Vec::new();
    controller.handle(
        T0,
        Event::Pool("p".into(), Some(pool(3, 64, 1))),
        &mut actions,
    );
    controller.handle(T0, Event::Node("a".into(), Some(node("u"))), &mut actions);
    controller.handle(T0, Event::Synced, &mut actions);
    assert!(matches!(actions[0], Action::Create(..)));
    actions.clear();
    controller.handle(T0, Event::CreateFailed(id(0)), &mut actions);
    controller.handle(T0, Event::Node("a".into(), Some(node("u"))), &mut actions);
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::Create(..)))
    );
    let due = controller.poll_timeout().unwrap();
    controller.handle_timeout(due, &mut actions);
    assert!(
        actions
            .iter()
            .any(|action| matches!(action, Action::Create(..)))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens, no two objects share an address and no node holds more than it may.
    #[test]
    fn grants_are_disjoint_and_bounded(steps in prop::collection::vec((0_u8..6, 0_u8..4, 0_u32..16), 1..80)) {
        let mut cluster = Cluster::new(&[("p", pool(4, 64, 1))], &["n0", "n1"]);
        for (step, n, index) in steps {
            let name = format!("n{n}");
            match step {
                0 => cluster.tell(Event::Node(name.as_str().into(), Some(node(&format!("u-{name}"))))),
                1 => cluster.tell(Event::Node(name.as_str().into(), None)),
                2 => cluster.ask(&name, u64::from(index), 1 + u32::from(n)),
                3 if cluster.objects.get(&id(index)).is_some_and(|b| b.phase == Phase::Offered) => cluster.become_phase(&id(index), Phase::Active),
                4 if cluster.objects.contains_key(&id(index)) => cluster.become_phase(&id(index), Phase::Released),
                _ => cluster.pass(Duration::from_secs(200)),
            }
            let blocks: Vec<&HeldBlock> = cluster.objects.values().collect();
            for (position, a) in blocks.iter().enumerate() {
                prop_assert!(blocks[position + 1..].iter().all(|b| !a.block.overlaps(&b.block)));
            }
            for holder in ["n0", "n1", "n2", "n3"] {
                let held = cluster.objects.values().filter(|b| {
                    b.node.0 == holder && !matches!(b.phase, Phase::Released | Phase::Quarantined)
                });
                prop_assert!(held.count() <= 4);
            }
        }
    }
}
