use super::*;
use crate::wal;
use proptest::prelude::*;

const T0: Moment = Moment(1_000);
const COOLDOWN: Duration = Duration::from_secs(130);

fn id(index: u32) -> BlockId {
    BlockId {
        pool: "p".into(),
        index,
    }
}

fn key(n: u32) -> AttachmentKey {
    AttachmentKey {
        container_id: format!("c{n}"),
        interface: "eth0".to_owned(),
    }
}

fn offer(index: u32, bits: u8) -> Offer {
    let ipv4 = std::net::Ipv4Addr::from_bits((10 << 24) + (index << bits));
    let ipv6 = std::net::Ipv6Addr::from_bits((0xfd_u128 << 120) + u128::from(index << bits));
    Offer {
        uid: format!("uid-{index}"),
        block: Block {
            ipv4: Some(ipv4),
            ipv6: Some(ipv6),
            bits,
        },
        epoch: 1,
        offered: true,
        drain: false,
        reserved: Vec::new(),
        cooldown: COOLDOWN,
        start: 0,
    }
}

fn add(n: u32) -> Event {
    Event::Add {
        key: key(n),
        pod_uid: format!("pod-{n}"),
        netns: format!("/run/netns/{n}"),
        pools: vec!["p".into()],
    }
}

struct Node {
    allocator: NodeAllocator,
    now: Moment,
    log: Vec<Record>,
}

impl Node {
    fn new(blocks: &[(u32, Offer)]) -> Self {
        let mut node = Node {
            allocator: NodeAllocator::new(Settings::default()),
            now: T0,
            log: Vec::new(),
        };
        for (index, offer) in blocks {
            node.tell(Event::Block(id(*index), offer.clone()));
        }
        node.tell(Event::Open);
        node
    }

    fn tell(&mut self, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        self.allocator.handle(self.now, event, &mut actions);
        self.written(actions)
    }

    fn pass(&mut self, duration: Duration) -> Vec<Action> {
        self.now = self.now.after(duration);
        let mut actions = Vec::new();
        self.allocator.handle_timeout(self.now, &mut actions);
        self.written(actions)
    }

    /// The actions but the log, which is kept.
    fn written(&mut self, actions: Vec<Action>) -> Vec<Action> {
        let (records, others) = actions
            .into_iter()
            .partition(|a| matches!(a, Action::Append(_)));
        self.log
            .extend(Vec::into_iter(records).filter_map(|action| match action {
                Action::Append(record) => Some(record),
                _ => None,
            }));
        others
    }

    fn assigned(&mut self, n: u32) -> AddressPair {
        match &self.tell(add(n))[..] {
            [Action::Assigned { addresses, .. }, ..] => *addresses,
            other => panic!("no address for {n}: {other:?}"),
        }
    }

    fn refused(&mut self, n: u32) -> Refusal {
        match &self.tell(add(n))[..] {
            [Action::Refused { why, .. }, ..] => *why,
            other => panic!("{n} was not refused: {other:?}"),
        }
    }
}

#[test]
fn a_block_is_taken_up_and_its_addresses_given_out_in_pairs() {
    let mut node = Node::new(&[]);
    let actions = node.tell(Event::Block(id(3), offer(3, 6)));
    assert_eq!(
        actions,
        [Action::Activate {
            block: id(3),
            epoch: 1
        }]
    );
    let addresses = node.assigned(1);
    assert_eq!(addresses, offer(3, 6).block.at(0));
}

#[test]
fn the_same_attachment_gets_the_same_answer_and_one_record() {
    let mut node = Node::new(&[(0, offer(0, 6))]);
    let first = node.assigned(1);
    assert_eq!(node.assigned(1), first);
    assert_eq!(node.log.len(), 1);
}

#[test]
fn the_record_is_written_before_the_answer() {
    let mut node = Node::new(&[(0, offer(0, 6))]);
    let mut actions = Vec::new();
    node.allocator.handle(T0, add(1), &mut actions);
    assert!(matches!(
        actions[..],
        [Action::Append(_), Action::Assigned { .. }]
    ));
    actions.clear();
    node.allocator.handle(T0, Event::Del(key(1)), &mut actions);
    assert!(matches!(
        actions[..],
        [Action::Append(_), Action::Freed { .. }]
    ));
}

#[test]
fn freed_addresses_rest_and_come_back_longest_free_first() {
    let mut node = Node::new(&[(0, offer(0, 2))]);
    let addresses: Vec<_> = (0..4).map(|n| node.assigned(n)).collect();
    node.tell(Event::Del(key(2)));
    node.pass(Duration::from_secs(10));
    node.tell(Event::Del(key(1)));
    assert_eq!(node.refused(5), Refusal::NoAddress);
    node.pass(Duration::from_secs(120));
    assert_eq!(node.assigned(5), addresses[2]);
    assert_eq!(node.refused(6), Refusal::NoAddress);
    node.pass(Duration::from_secs(10));
    assert_eq!(node.assigned(6), addresses[1]);
}

#[test]
fn a_random_start_is_kept_and_reserved_addresses_are_left_out() {
    let reserved = Range {
        first: "10.0.0.3".parse().unwrap(),
        last: "10.0.0.3".parse().unwrap(),
    };
    let mut node = Node::new(&[(
        0,
        Offer {
            start: 6,
            reserved: vec![reserved],
            ..offer(0, 2)
        },
    )]);
    let positions: Vec<_> = (0..3)
        .map(|n| node.assigned(n).ipv4.unwrap().octets()[3])
        .collect();
    assert_eq!(positions, [2, 0, 1]);
    assert_eq!(node.refused(9), Refusal::NoAddress);
}

#[test]
fn the_fullest_block_is_used_first() {
    let mut node = Node::new(&[(0, offer(0, 4)), (1, offer(1, 4))]);
    node.assigned(0);
    node.tell(Event::Del(key(0)));
    for n in 1..10 {
        node.assigned(n);
    }
    let used: Vec<u32> = node
        .allocator
        .usage(node.now)
        .values()
        .map(|usage| usage.used)
        .collect();
    assert_eq!(used, [9, 0]);
}

#[test]
fn another_block_is_asked_for_once_when_little_is_left() {
    let mut node = Node::new(&[(0, offer(0, 4))]);
    let mut requests = Vec::new();
    for n in 0..16 {
        let actions = node.tell(add(n));
        requests.extend(actions.contains(&Action::Request("p".into())).then_some(n));
    }
    assert_eq!(requests, [12], "a quarter of 16");
    assert_eq!(node.refused(16), Refusal::NoAddress);
    assert_eq!(node.tell(Event::RequestRefused("p".into())), []);
    assert!(
        node.pass(Duration::from_secs(30))
            .contains(&Action::Request("p".into()))
    );
    node.tell(Event::Block(id(1), offer(1, 4)));
    node.assigned(16);
}

#[test]
fn nothing_is_given_out_before_the_node_was_looked_at() {
    let mut allocator = NodeAllocator::new(Settings::default());
    let mut actions = Vec::new();
    allocator.handle(T0, Event::Block(id(0), offer(0, 6)), &mut actions);
    actions.clear();
    allocator.handle(T0, add(1), &mut actions);
    assert_eq!(
        actions,
        [Action::Refused {
            key: key(1),
            why: Refusal::Starting
        }]
    );
}

#[test]
fn an_add_after_its_del_is_refused_for_a_while() {
    let mut node = Node::new(&[(0, offer(0, 6))]);
    assert_eq!(
        node.tell(Event::Del(key(1))),
        [Action::Freed {
            key: key(1),
            addresses: None
        }]
    );
    assert_eq!(node.refused(1), Refusal::Deleted);
    node.pass(Duration::from_secs(600));
    node.assigned(1);
}

#[test]
fn a_draining_block_is_given_back_with_its_last_address() {
    let mut node = Node::new(&[(0, offer(0, 6))]);
    node.assigned(1);
    let drain = Offer {
        drain: true,
        offered: false,
        ..offer(0, 6)
    };
    assert_eq!(
        node.tell(Event::Block(id(0), drain)),
        [Action::Drain(id(0))]
    );
    assert_eq!(node.refused(2), Refusal::NoBlock);
    assert!(
        node.tell(Event::Del(key(1)))
            .contains(&Action::Release(id(0)))
    );
    assert_eq!(node.tell(Event::BlockGone(id(0))), []);
}

#[test]
fn an_empty_block_is_given_back_after_two_looks_if_enough_is_left() {
    let look = Settings::default().look_interval;
    let mut node = Node::new(&[(0, offer(0, 6)), (1, offer(1, 6))]);
    node.assigned(1);
    assert_eq!(node.pass(look), []);
    assert_eq!(node.pass(look), [Action::Release(id(1))]);
    assert_eq!(node.pass(look), [], "the last one stays");
    // An old sight of the first grant does not revive it; a new grant does.
    assert_eq!(node.tell(Event::Block(id(1), offer(1, 6))), []);
    let again = Offer {
        uid: "another".to_owned(),
        ..offer(1, 6)
    };
    assert_eq!(
        node.tell(Event::Block(id(1), again)),
        [Action::Activate {
            block: id(1),
            epoch: 1
        }]
    );
}

#[test]
fn a_grant_of_a_deposed_leader_is_given_back() {
    let mut node = Node::new(&[(
        0,
        Offer {
            epoch: 2,
            ..offer(0, 6)
        },
    )]);
    assert_eq!(
        node.tell(Event::Block(id(1), offer(1, 6))),
        [Action::Release(id(1))]
    );
    let active = Offer {
        offered: false,
        ..offer(2, 6)
    };
    let actions = node.tell(Event::Block(id(2), active));
    assert_eq!(
        actions,
        [Action::Activate {
            block: id(2),
            epoch: 1
        }],
        "taken up before"
    );
}

#[test]
fn a_block_whose_object_vanished_stays_announced_while_in_use() {
    let mut node = Node::new(&[(0, offer(0, 6))]);
    node.assigned(1);
    assert_eq!(node.tell(Event::BlockGone(id(0))), [Action::Lost(id(0))]);
    assert_eq!(node.refused(2), Refusal::NoBlock);
    assert!(
        node.tell(Event::Del(key(1)))
            .contains(&Action::Forget(id(0)))
    );
}

#[test]
fn unexplained_addresses_are_never_given_out_whether_or_not_their_block_is_known() {
    for block_first in [true, false] {
        let mut allocator = NodeAllocator::new(Settings::default());
        let taken = offer(0, 2).block.at(1);
        let quarantine = Event::Judged {
            key: key(9),
            verdict: Verdict::Quarantine {
                addresses: taken,
                remove_veth: false,
            },
        };
        let block = Event::Block(id(0), offer(0, 2));
        let events = if block_first {
            [block, quarantine]
        } else {
            [quarantine, block]
        };
        let mut actions = Vec::new();
        for event in events.into_iter().chain([Event::Open]) {
            allocator.handle(T0, event, &mut actions);
        }
        let mut node = Node {
            allocator,
            now: T0,
            log: Vec::new(),
        };
        let given: Vec<_> = (0..3).map(|n| node.assigned(n)).collect();
        assert!(!given.contains(&taken));
        assert_eq!(node.refused(3), Refusal::NoAddress);
    }
}

#[test]
fn an_attachment_without_a_record_is_adopted_from_its_veth() {
    let mut node = Node::new(&[(0, offer(0, 2))]);
    let addresses = offer(0, 2).block.at(2);
    node.tell(Event::Judged {
        key: key(7),
        verdict: Verdict::Adopt(addresses),
    });
    assert_eq!(node.assigned(7), addresses);
    assert_eq!(node.log.len(), 1, "the adoption is in the log");
    node.tell(Event::Judged {
        key: key(8),
        verdict: Verdict::Adopt(addresses),
    });
    assert!(
        node.allocator.attachment(&key(8)).is_none(),
        "one address, one attachment"
    );
}

#[derive(Clone, Debug)]
enum Step {
    Add(u32),
    Del(u32),
    Pass(u64),
    Drain(u32),
    Grant(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0_u32..12).prop_map(Step::Add),
        3 => (0_u32..12).prop_map(Step::Del),
        2 => (1_u64..200).prop_map(Step::Pass),
        1 => (0_u32..3).prop_map(Step::Drain),
        1 => (0_u32..3).prop_map(Step::Grant),
    ];
    prop::collection::vec(step, 0..60)
}

fn run(node: &mut Node, step: &Step) {
    match step {
        Step::Add(n) => node.tell(add(*n)),
        Step::Del(n) => node.tell(Event::Del(key(*n))),
        Step::Pass(seconds) => node.pass(Duration::from_secs(*seconds)),
        Step::Drain(index) => node.tell(Event::Block(
            id(*index),
            Offer {
                drain: true,
                offered: false,
                ..offer(*index, 2)
            },
        )),
        Step::Grant(index) => node.tell(Event::Block(id(*index), offer(*index, 2))),
    };
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn no_address_is_given_to_two_attachments_and_none_before_its_rest(steps in steps()) {
        let mut node = Node::new(&[(0, offer(0, 2)), (1, offer(1, 2))]);
        let mut freed: BTreeMap<AddressPair, Moment> = BTreeMap::new();
        for step in &steps {
            let before: BTreeMap<_, _> =
                node.allocator.attachments().map(|(k, a)| (k.clone(), a.addresses)).collect();
            run(&mut node, step);
            let after: BTreeMap<_, _> =
                node.allocator.attachments().map(|(k, a)| (k.clone(), a.addresses)).collect();
            let distinct: BTreeSet<_> = after.values().collect();
            prop_assert_eq!(distinct.len(), after.len());
            for (key, addresses) in &after {
                if !before.contains_key(key)
                    && let Some(at) = freed.get(addresses)
                {
                    prop_assert!(node.now.since(*at) >= COOLDOWN, "{:?} after {:?}", addresses, step);
                }
            }
            for (key, addresses) in &before {
                if !after.contains_key(key) {
                    freed.insert(*addresses, node.now);
                }
            }
        }
    }

    /// A crash after any record: the log, torn at any byte, gives the attachments that those
    /// records describe, and what the log shrinks to gives the same again.
    #[test]
    fn replay_after_a_crash_equals_what_was_logged(steps in steps(), cut in any::<prop::sample::Index>()) {
        let mut node = Node::new(&[(0, offer(0, 2)), (1, offer(1, 2))]);
        let mut after_record: Vec<BTreeMap<AttachmentKey, Attachment>> = vec![BTreeMap::new()];
        for step in &steps {
            run(&mut node, step);
            let state: BTreeMap<_, _> =
                node.allocator.attachments().map(|(k, a)| (k.clone(), a.clone())).collect();
            while after_record.len() <= node.log.len() {
                after_record.push(state.clone());
            }
        }
        let text = wal::header() + &node.log.iter().map(wal::encode).collect::<String>();
        let log = wal::decode(&text.as_bytes()[..cut.index(text.len() + 1)]).unwrap();
        let replayed = NodeAllocator::replay(Settings::default(), &log.records);
        let attachments: BTreeMap<_, _> =
            replayed.attachments().map(|(k, a)| (k.clone(), a.clone())).collect();
        prop_assert_eq!(&attachments, &after_record[log.records.len()]);

        let mut whole = NodeAllocator::replay(Settings::default(), &node.log);
        let shrunk = NodeAllocator::replay(Settings::default(), &node.allocator.records(node.now));
        let (mut a, mut b) = (whole.clone(), shrunk);
        for allocator in [&mut a, &mut b] {
            for index in 0..3 {
                allocator.handle(node.now, Event::Block(id(index), offer(index, 2)), &mut Vec::new());
            }
        }
        prop_assert_eq!(a.attachments().collect::<Vec<_>>(), b.attachments().collect::<Vec<_>>());
        prop_assert_eq!(a.usage(node.now), b.usage(node.now));
        whole.handle_timeout(node.now, &mut Vec::new());
    }
}
