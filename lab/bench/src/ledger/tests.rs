//! The ledger against a table kept the slow way.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::digest::Sender;
use crate::prefix::Prefix;
use crate::routes::{Group, Shape};
use crate::wire::{Voice, announce, put_withdrawal};

const PREFIXES: usize = 12;
const PATHS: usize = 6;
const SENDERS: [Ipv4Addr; 2] = [Ipv4Addr::new(10, 20, 1, 1), Ipv4Addr::new(10, 20, 1, 2)];

/// Paths 1 to 6, of two senders in turn, as a reflector tells them.
fn ledger() -> Ledger {
    let (mut routes, _) = Routes::draw(PREFIXES, 1.0, 3);
    for number in 0..PATHS {
        routes.draw_path(Shape {
            sender: (number % 2) as u32,
            external: None,
            length: None,
        });
    }
    let senders = SENDERS.map(|address| Sender {
        next_hop: address,
        router_id: address.to_bits(),
    });
    let daemon = Ipv4Addr::new(10, 20, 0, 1);
    let catalogue = Catalogue::new(&routes, Terms::Reflector, daemon, senders.to_vec());
    Ledger::new(Arc::new(routes), catalogue)
}

/// What the daemon says of one prefix: a path, or that there is none.
fn said(ledger: &Ledger, prefix: usize, path: PathId) -> Vec<u8> {
    let mut octets = match path {
        PathId::NONE => {
            let mut octets = Vec::new();
            put_withdrawal(&[ledger.routes.prefixes[prefix]], &mut octets);
            octets
        }
        path => {
            let feed = vec![Group {
                path,
                prefixes: vec![prefix as u32],
            }];
            let voice = Voice::Reflector {
                cluster: 1,
                senders: &SENDERS,
            };
            announce(&ledger.routes, &feed, voice)
        }
    };
    octets.split_off(crate::wire::HEADER)
}

#[derive(Clone, Debug)]
enum Step {
    Say {
        view: usize,
        prefix: usize,
        path: u32,
    },
    Expect {
        prefix: usize,
        path: u32,
    },
    ExpectAll {
        path: u32,
    },
    Count {
        view: usize,
        counts: bool,
    },
    Clear {
        view: usize,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let path = 0..=PATHS as u32;
    prop_oneof![
        8 => (0..2_usize, 0..PREFIXES, path.clone())
            .prop_map(|(view, prefix, path)| Step::Say { view, prefix, path }),
        4 => (0..PREFIXES, path.clone()).prop_map(|(prefix, path)| Step::Expect { prefix, path }),
        1 => path.prop_map(|path| Step::ExpectAll { path }),
        1 => (0..2_usize, any::<bool>()).prop_map(|(view, counts)| Step::Count { view, counts }),
        1 => (0..2_usize).prop_map(|view| Step::Clear { view }),
    ]
}

/// Two receivers, the second of which is sender 1 as well.
struct Oracle {
    expected: Vec<u32>,
    held: [BTreeMap<usize, u32>; 2],
    counts: [bool; 2],
}

impl Oracle {
    /// A receiver keeps what it is told, except what it sends itself.
    fn keeps(view: usize, path: u32) -> Option<u32> {
        let own = view == 1 && path != 0 && (path - 1) % 2 == 1;
        (path != 0 && !own).then_some(path)
    }

    fn exact(&self, view: usize) -> bool {
        (0..PREFIXES).all(|prefix| {
            self.held[view].get(&prefix).copied() == Self::keeps(view, self.expected[prefix])
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_ledger_is_exact_when_a_plain_table_is(steps in prop::collection::vec(step(), 0..60)) {
        let mut ledger = ledger();
        let table = ledger.add_table();
        let views = [ledger.add_view(table, None), ledger.add_view(table, Some(1))];
        let mut oracle = Oracle {
            expected: vec![0; PREFIXES],
            held: Default::default(),
            counts: [true; 2],
        };
        for step in steps {
            match step {
                Step::Say { view, prefix, path } => {
                    let body = said(&ledger, prefix, PathId(path));
                    ledger.update(views[view], &body).unwrap();
                    match Oracle::keeps(view, path) {
                        Some(path) => oracle.held[view].insert(prefix, path),
                        None => oracle.held[view].remove(&prefix),
                    };
                }
                Step::Expect { prefix, path } => {
                    ledger.expect_change(table, &[(prefix as u32, PathId(path))]);
                    oracle.expected[prefix] = path;
                }
                Step::ExpectAll { path } => {
                    ledger.expect(table, vec![PathId(path); PREFIXES]);
                    oracle.expected = vec![path; PREFIXES];
                }
                Step::Count { view, counts } => {
                    ledger.count(views[view], counts);
                    oracle.counts[view] = counts;
                }
                Step::Clear { view } => {
                    ledger.clear(views[view]);
                    oracle.held[view].clear();
                }
            }
            let mut all = true;
            for (place, view) in views.into_iter().enumerate() {
                prop_assert_eq!(ledger.view_exact(view), oracle.exact(place));
                all &= oracle.exact(place) || !oracle.counts[place];
            }
            prop_assert_eq!(ledger.exact(), all);
            prop_assert_eq!(ledger.exact_since().is_some(), all);
        }
        prop_assert_eq!(ledger.fault(), None);
    }
}

#[test]
fn a_prefix_that_nobody_sent_is_a_fault() {
    let mut ledger = ledger();
    let table = ledger.add_table();
    let view = ledger.add_view(table, None);
    let mut octets = Vec::new();
    put_withdrawal(&[Prefix::new(0x0a00_0000, 8)], &mut octets);
    let error = ledger.update(view, &octets[crate::wire::HEADER..]);
    assert!(error.is_err());
    assert!(ledger.fault().unwrap().contains("10.0.0.0/8"));
}

#[test]
fn foreign_attributes_are_never_right_and_the_state_says_so() {
    let mut ledger = ledger();
    let table = ledger.add_table();
    let view = ledger.add_view(table, None);
    ledger.expect_change(table, &[(0, PathId(1)), (1, PathId(1))]);
    // The next hop of another sender.
    let feed = vec![Group {
        path: PathId(1),
        prefixes: vec![0],
    }];
    let voice = Voice::Reflector {
        cluster: 1,
        senders: &[SENDERS[1], SENDERS[0]],
    };
    let octets = announce(&ledger.routes, &feed, voice);
    ledger.update(view, &octets[crate::wire::HEADER..]).unwrap();
    assert!(!ledger.exact());
    let state = ledger.state();
    assert!(state.contains("0 of 1 receivers exact"), "{state}");
    assert!(state.contains("lacks 1 prefixes"), "{state}");
    assert!(
        state.contains("1 with attributes that nobody sent"),
        "{state}"
    );
}

#[test]
fn what_is_received_is_counted() {
    let mut ledger = ledger();
    let table = ledger.add_table();
    let view = ledger.add_view(table, None);
    let announced = said(&ledger, 0, PathId(1));
    let withdrawn = said(&ledger, 0, PathId::NONE);
    ledger.update(view, &announced).unwrap();
    ledger.update(view, &announced).unwrap();
    ledger.update(view, &withdrawn).unwrap();
    let octets = 2 * announced.len() + withdrawn.len() + 3 * crate::wire::HEADER;
    assert_eq!(
        ledger.received(),
        Received {
            updates: 3,
            announced: 2,
            withdrawn: 1,
            octets: octets as u64,
        }
    );
}
