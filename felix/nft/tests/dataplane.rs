//! The policy table as a whole: adoption, repair, ownership, and that equal plans write nothing.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use caracal_nft::{Connection, Dataplane, Error, Guard, Options};
use caracal_policy::plan::{
    AddressRange, Binding, Cell, ChainRule, Class, ClassId, Direction, EndpointPlan, IdentityId,
    InterfaceName, PeerMatch, Plan, PlanDelta, PolicyName, PortMatch, Protocol,
};
use common::{Netns, until};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

const PATIENCE: Duration = Duration::from_secs(5);

fn options(owner: bool) -> Options {
    Options {
        table: "caracal".to_owned(),
        owner,
        interface_prefix: "px".to_owned(),
    }
}

/// Lets an owner go, and waits until the kernel has noticed: a program that another test starts at this moment
/// holds the owner's socket, too, until it has begun to run.
fn end(owner: Dataplane) {
    drop(owner);
    until("nobody owns the table", PATIENCE, || {
        let tables = Connection::open().unwrap().tables().unwrap();
        match tables.iter().find_map(|table| table.owner) {
            None => Ok(()),
            owner => Err(owner),
        }
    });
}

fn policy(name: &str) -> Vec<PolicyName> {
    vec![PolicyName::new("shop", name)]
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn port(protocol: Protocol, first: u16, last: u16) -> PortMatch {
    PortMatch {
        protocol,
        first,
        last,
    }
}

/// One of everything that a plan can hold.
fn plan() -> Plan {
    let mut ingress = Class::denying(Direction::Ingress, policy("allow-some"));
    ingress.cells.insert(Cell {
        identity: IdentityId(3),
        protocol: Protocol::Tcp,
        port: 80,
    });
    ingress.any_port.insert(IdentityId(4));
    ingress.any_peer.insert((Protocol::Udp, 53));
    let whole4 = AddressRange {
        first: [0, 0, 0, 0].into(),
        last: [255; 4].into(),
    };
    let last4 = AddressRange {
        first: [255; 4].into(),
        last: [255; 4].into(),
    };
    let whole6 = AddressRange {
        first: [0; 16].into(),
        last: [255; 16].into(),
    };
    let mut egress = Class::denying(Direction::Egress, policy("ranges"));
    let ports = vec![
        port(Protocol::Tcp, 1, 5),
        port(Protocol::Tcp, 65535, 65535),
        port(Protocol::Udp, 0, 65535),
        port(Protocol::Sctp, 7, 7),
    ];
    egress.chain = vec![
        ChainRule {
            ports: vec![],
            peer: PeerMatch::Nets4(vec![last4]),
        },
        ChainRule {
            ports: vec![port(Protocol::Tcp, 100, 200)],
            peer: PeerMatch::Any,
        },
        ChainRule {
            ports: ports.clone(),
            peer: PeerMatch::Identities(BTreeSet::from([IdentityId(3), IdentityId(9)])),
        },
        ChainRule {
            ports: ports.clone(),
            peer: PeerMatch::Nets4(vec![whole4]),
        },
        ChainRule {
            ports,
            peer: PeerMatch::Nets6(vec![whole6]),
        },
    ];
    let mut open = Class::denying(Direction::Ingress, policy("all"));
    open.open = true;
    let endpoint = |addresses: &[&str], ingress, egress| EndpointPlan {
        addresses: addresses.iter().map(|a| ip(a)).collect(),
        ingress,
        egress,
    };
    let name = |name: &str| InterfaceName::new(name).unwrap();
    Plan {
        identities: BTreeMap::from([
            (ip("10.9.0.1"), IdentityId(3)),
            (ip("fd00::1"), IdentityId(3)),
            (ip("10.9.0.2"), IdentityId(4)),
            (ip("192.0.2.1"), IdentityId::THIS_NODE),
        ]),
        classes: BTreeMap::from([
            (ClassId(0x0a), ingress),
            (ClassId(0xbeef_0000), egress),
            (ClassId(2), open),
        ]),
        endpoints: BTreeMap::from([
            (
                name("px-a"),
                endpoint(
                    &["10.9.0.1", "fd00::1"],
                    Binding::Class(ClassId(0x0a)),
                    Binding::Class(ClassId(0xbeef_0000)),
                ),
            ),
            (
                name("px-b"),
                endpoint(&["10.9.0.2"], Binding::Class(ClassId(2)), Binding::Open),
            ),
            (
                name("px-c"),
                endpoint(&[], Binding::Isolated, Binding::Isolated),
            ),
        ]),
    }
}

#[test]
fn a_restart_with_an_equal_plan_writes_nothing() {
    for owner in [true, false] {
        let Some(netns) = Netns::new("restart") else {
            return;
        };
        netns.run(|| {
            let mut first = Dataplane::open(options(owner)).unwrap();
            assert!(first.inherited_identities().is_empty());
            let stats = first.sync(&plan()).unwrap();
            assert!(stats.writes > 0 && !stats.rebuilt, "{stats:?}");
            let generation = first.generation().unwrap();
            assert_eq!(first.sync(&plan()).unwrap().writes, 0);
            assert_eq!(first.repair().unwrap().writes, 0);
            assert_eq!(first.generation().unwrap(), generation);
            let exclusive = first.exclusive();
            assert!(!first.claim().unwrap());
            end(first);

            let mut second = Dataplane::open(options(owner)).unwrap();
            assert_eq!(*second.inherited_identities(), plan().identities);
            assert_eq!(second.sync(&plan()).unwrap().writes, 0);
            assert_eq!(second.generation().unwrap(), generation);
            let mut third = Dataplane::open(options(owner)).unwrap();
            assert_eq!(third.sync(&plan()).unwrap().writes, 0);
            // The next change takes the table over with it.
            let mut changed = plan();
            changed.identities.insert(ip("10.9.0.3"), IdentityId(4));
            let stats = second.sync(&changed).unwrap();
            assert_eq!(stats.elements, 1);
            assert_eq!(second.generation().unwrap(), generation + 1);
            let listing = netns.list_ruleset();
            assert!(listing.contains("10.9.0.3 : 0x00040000"), "{listing}");
            if exclusive {
                let owned = Connection::open().unwrap().tables().unwrap()[0].owner;
                assert!(owned.is_some());
                let other = Dataplane::open(options(owner)).err();
                assert!(matches!(other, Some(Error::Owned { .. })), "{other:?}");
                assert!(third.claim().is_err(), "it has an owner already");
                // Nor can a third one write to it once it has an owner.
                assert!(third.sync(&plan()).is_err());
            }
            drop(third);
            second.remove().unwrap();
            assert!(!netns.list_ruleset().contains("caracal"));
        });
    }
}

#[test]
fn an_owned_table_refuses_foreign_deletes_and_survives_its_owner() {
    let Some(netns) = Netns::new("owner") else {
        return;
    };
    netns.run(|| {
        let mut dataplane = Dataplane::open(options(true)).unwrap();
        dataplane.sync(&plan()).unwrap();
        if !dataplane.exclusive() {
            caracal_skip::skip!("the kernel cannot keep an owned table (Linux 6.9)");
            return;
        }
        let (deleted, words) = netns.nft("delete table inet caracal");
        assert!(
            !deleted && words.contains("Operation not permitted"),
            "{words}"
        );
        let (_, words) = netns.nft("flush ruleset");
        let generation = dataplane.generation().unwrap();
        assert_eq!(
            dataplane.sync(&plan()).unwrap().writes,
            0,
            "after flush ruleset: {words}"
        );
        assert_eq!(dataplane.generation().unwrap(), generation);
        end(dataplane);
        assert!(netns.list_ruleset().contains("table inet caracal"));
        // Without owner or persist, the same table needs no rebuild when it is shared from now on.
        let mut shared = Dataplane::open(options(false)).unwrap();
        assert_eq!(shared.sync(&plan()).unwrap().writes, 0);
        // A plain table, wanted owned: rebuilt in one transaction.
        shared.remove().unwrap();
        Dataplane::open(options(false))
            .unwrap()
            .sync(&plan())
            .unwrap();
        let mut owned = Dataplane::open(options(true)).unwrap();
        assert!(owned.sync(&plan()).unwrap().rebuilt);
        assert_eq!(owned.sync(&plan()).unwrap().writes, 0);
    });
}

#[test]
fn a_foreign_flush_of_a_shared_table_is_repaired_at_once() {
    let Some(netns) = Netns::new("flush") else {
        return;
    };
    netns.run(|| {
        let dataplane = Arc::new(Mutex::new(Dataplane::open(options(false)).unwrap()));
        let repairs = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&repairs);
        let guard = Guard::start(Arc::clone(&dataplane), move |repair| {
            heard.lock().unwrap().push((Instant::now(), repair));
        })
        .unwrap();
        dataplane.lock().unwrap().sync(&plan()).unwrap();
        let mut reader = Connection::open().unwrap();
        let intact = reader.read_table("caracal").unwrap();
        for (number, damage) in [
            "flush ruleset",
            "delete element inet caracal id4 { 10.9.0.1 }",
            "add rule inet caracal forward accept",
            "flush chain inet caracal from_pod",
            "add chain inet caracal extra",
        ]
        .into_iter()
        .enumerate()
        {
            let (done, words) = netns.nft(damage);
            assert!(done, "{damage}: {words}");
            let start = Instant::now();
            until(damage, PATIENCE, || {
                let repairs = repairs.lock().unwrap();
                match repairs.get(number) {
                    Some((_, repair)) if repair.outcome.is_ok() => Ok(()),
                    _ => Err(format!("{repairs:?}")),
                }
            });
            let took = repairs.lock().unwrap()[number]
                .0
                .saturating_duration_since(start);
            println!("repaired {damage:?} {took:?} after nft had ended");
            assert_eq!(reader.read_table("caracal").unwrap(), intact, "{damage}");
        }
        drop(guard);
    });
}

#[test]
fn a_delta_writes_only_itself_and_ends_where_a_sync_would() {
    let Some(netns) = Netns::new("delta") else {
        return;
    };
    netns.run(|| {
        let mut dataplane = Dataplane::open(options(true)).unwrap();
        dataplane.sync(&plan()).unwrap();
        let px_a = InterfaceName::new("px-a").unwrap();

        let delta = PlanDelta {
            identities: BTreeMap::from([(ip("10.9.0.7"), Some(IdentityId(3)))]),
            ..PlanDelta::default()
        };
        let stats = dataplane.apply(&delta).unwrap();
        assert_eq!((stats.writes, stats.elements), (1, 1));
        assert_eq!(dataplane.apply(&delta).unwrap().writes, 0);
        assert_eq!(dataplane.apply(&PlanDelta::default()).unwrap().writes, 0);

        // Another class for an endpoint: built, pointed at, old one removed.
        let mut new = dataplane.plan().clone();
        new.classes.remove(&ClassId(0x0a));
        new.classes.insert(
            ClassId(0x0b),
            Class::denying(Direction::Ingress, policy("deny")),
        );
        new.endpoints.get_mut(&px_a).unwrap().ingress = Binding::Class(ClassId(0x0b));
        let generation = dataplane.generation().unwrap();
        dataplane.apply(&dataplane.plan().delta_to(&new)).unwrap();
        assert_eq!(dataplane.generation().unwrap(), generation + 1);
        assert_eq!(dataplane.sync(&new).unwrap().writes, 0);
        assert!(!netns.list_ruleset().contains("in_0000000a"));

        // What cannot be is refused before the kernel sees it.
        let mut wrong = new.clone();
        wrong.endpoints.get_mut(&px_a).unwrap().ingress = Binding::Class(ClassId(0x77));
        let error = dataplane.apply(&new.delta_to(&wrong)).unwrap_err();
        assert!(matches!(error, Error::Plan { .. }), "{error}");
        let mut wrong = new.clone();
        let stray = wrong.endpoints[&px_a].clone();
        wrong
            .endpoints
            .insert(InterfaceName::new("eth0").unwrap(), stray);
        let error = dataplane.sync(&wrong).unwrap_err();
        assert!(matches!(error, Error::Plan { .. }), "{error}");
        assert_eq!(dataplane.plan(), &new);
        assert_eq!(dataplane.sync(&new).unwrap().writes, 0);
    });
}

fn identities() -> impl Strategy<Value = IdentityId> {
    (1_u16..6).prop_map(IdentityId)
}

fn protocols() -> impl Strategy<Value = Protocol> {
    proptest::sample::select(&Protocol::ALL[..])
}

fn classes(direction: Direction, name: &'static str) -> impl Strategy<Value = Class> {
    let cell = (identities(), protocols(), 1_u16..5).prop_map(|(identity, protocol, port)| Cell {
        identity,
        protocol,
        port,
    });
    let ports = proptest::collection::btree_set(1_u16..6, 0..3).prop_map(|firsts| {
        firsts
            .into_iter()
            .map(|n| port(Protocol::Tcp, n * 100, n * 100 + 10))
            .collect::<Vec<_>>()
    });
    let nets = proptest::collection::btree_set(0_u8..8, 1..4).prop_map(|thirds| {
        thirds
            .into_iter()
            .map(|n| AddressRange {
                first: [10, 0, n, 0].into(),
                last: [10, 0, n, 99].into(),
            })
            .collect::<Vec<_>>()
    });
    let members = proptest::collection::btree_set(identities(), 1..4);
    let peer = prop_oneof![
        Just(PeerMatch::Any),
        members.prop_map(PeerMatch::Identities),
        nets.prop_map(PeerMatch::Nets4),
    ];
    // Unique by kind of peer and ports, as the plan promises.
    let rule = (ports, peer).prop_map(|(ports, peer)| ChainRule { ports, peer });
    let chain = proptest::collection::vec(rule, 0..4).prop_map(|rules| {
        let key = |rule: &ChainRule| (rule.ports.clone(), std::mem::discriminant(&rule.peer));
        let mut kept: Vec<ChainRule> = Vec::new();
        for rule in rules {
            if kept.iter().all(|other| key(other) != key(&rule)) {
                kept.push(rule);
            }
        }
        kept.sort();
        kept
    });
    (
        proptest::collection::btree_set(cell, 0..6),
        proptest::collection::btree_set(identities(), 0..3),
        proptest::collection::btree_set((protocols(), 1_u16..4), 0..3),
        proptest::bool::weighted(0.1),
        chain,
    )
        .prop_map(move |(cells, any_port, any_peer, open, chain)| {
            let mut class = Class::denying(direction, policy(name));
            if open {
                class.open = true;
            } else {
                (class.cells, class.any_port) = (cells, any_port);
                (class.any_peer, class.chain) = (any_peer, chain);
            }
            class
        })
}

fn plans() -> impl Strategy<Value = Plan> {
    let address = (0_u8..6, any::<bool>()).prop_map(|(n, v6)| {
        if v6 {
            ip(&format!("fd00::{n}"))
        } else {
            ip(&format!("10.9.0.{n}"))
        }
    });
    let classes = (
        proptest::option::of(classes(Direction::Ingress, "one")),
        proptest::option::of(classes(Direction::Egress, "two")),
        proptest::option::of(classes(Direction::Ingress, "three")),
    );
    let endpoint = (
        proptest::collection::btree_set(address.clone(), 0..3),
        0_u8..4,
        0_u8..3,
    );
    (
        proptest::collection::btree_map(address, identities(), 0..6),
        classes,
        proptest::collection::btree_map(0_u8..4, endpoint, 0..4),
    )
        .prop_map(|(identities, (one, two, three), endpoints)| {
            let classes: BTreeMap<_, _> = [(1, one), (2, two), (3, three)]
                .into_iter()
                .filter_map(|(id, class)| Some((ClassId(id), class?)))
                .collect();
            let bind = |id: u32, otherwise| match classes.contains_key(&ClassId(id)) {
                true => Binding::Class(ClassId(id)),
                false => otherwise,
            };
            let endpoints = endpoints
                .into_iter()
                .map(|(n, (addresses, ingress, egress))| {
                    let endpoint = EndpointPlan {
                        addresses,
                        ingress: match ingress {
                            0 => Binding::Open,
                            1 => Binding::Isolated,
                            2 => bind(1, Binding::Open),
                            _ => bind(3, Binding::Isolated),
                        },
                        egress: match egress {
                            0 => Binding::Open,
                            1 => Binding::Isolated,
                            _ => bind(2, Binding::Open),
                        },
                    };
                    (InterfaceName::new(format!("px{n}")).unwrap(), endpoint)
                })
                .collect();
            Plan {
                identities,
                classes,
                endpoints,
            }
        })
}

#[test]
fn any_chain_of_deltas_leaves_the_kernel_as_a_sync_of_the_last_plan_would() {
    let Some(netns) = Netns::new("prop") else {
        return;
    };
    netns.run(|| {
        let dataplane = std::cell::RefCell::new(Dataplane::open(options(true)).unwrap());
        dataplane.borrow_mut().sync(&Plan::default()).unwrap();
        let mut runner = TestRunner::new(Config {
            cases: 128,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&plans(), |next| {
                let mut dataplane = dataplane.borrow_mut();
                let delta = dataplane.plan().delta_to(&next);
                let generation = dataplane.generation().unwrap();
                let stats = dataplane.apply(&delta).unwrap();
                let expected = generation + u32::from(stats.writes > 0);
                prop_assert_eq!(dataplane.generation().unwrap(), expected, "one transaction");
                prop_assert_eq!(dataplane.sync(&next).unwrap().writes, 0);
                Ok(())
            })
            .unwrap();
        netns.list_ruleset();
    });
}

/// Not a benchmark: absolute times on shared machines mean little. Printed for the record.
#[test]
fn times_of_single_changes_are_printed() {
    let Some(netns) = Netns::new("time") else {
        return;
    };
    netns.run(|| {
        let mut dataplane = Dataplane::open(options(true)).unwrap();
        let mut start = plan();
        for n in 0..10_000_u32 {
            let address = IpAddr::from((0x0b00_0000 + n).to_be_bytes());
            start
                .identities
                .insert(address, IdentityId((n % 1000) as u16 + 3));
        }
        let began = Instant::now();
        dataplane.sync(&start).unwrap();
        println!("cold sync, 10,000 identities: {:?}", began.elapsed());
        let began = Instant::now();
        assert_eq!(dataplane.sync(&start).unwrap().writes, 0);
        println!("sync with nothing to write: {:?}", began.elapsed());

        let median = |mut times: Vec<Duration>| {
            times.sort();
            times[times.len() / 2]
        };
        let times = (0..200_u32).map(|n| {
            let address = IpAddr::from((0x0c00_0000 + n).to_be_bytes());
            let delta = PlanDelta {
                identities: BTreeMap::from([(address, Some(IdentityId(5)))]),
                ..PlanDelta::default()
            };
            let began = Instant::now();
            dataplane.apply(&delta).unwrap();
            began.elapsed()
        });
        println!(
            "one identity element added, median: {:?}",
            median(times.collect())
        );

        let px_a = InterfaceName::new("px-a").unwrap();
        let class = dataplane.plan().classes[&ClassId(0x0a)].clone();
        let times = (0..200_u32).map(|n| {
            let mut next = dataplane.plan().clone();
            let Binding::Class(old) = next.endpoints[&px_a].ingress else {
                unreachable!()
            };
            let id = ClassId(0x1000 + n);
            next.classes.remove(&old);
            next.classes.insert(id, class.clone());
            next.endpoints.get_mut(&px_a).unwrap().ingress = Binding::Class(id);
            let delta = dataplane.plan().delta_to(&next);
            let began = Instant::now();
            dataplane.apply(&delta).unwrap();
            began.elapsed()
        });
        println!("class swapped, median: {:?}", median(times.collect()));
    });
}

#[test]
fn a_table_left_behind_can_be_claimed_without_any_other_change() {
    let Some(netns) = Netns::new("claim") else {
        return;
    };
    netns.run(|| {
        let mut first = Dataplane::open(options(true)).unwrap();
        first.sync(&plan()).unwrap();
        end(first);
        let mut reader = Connection::open().unwrap();
        let before = reader.read_table("caracal").unwrap().unwrap();
        let mut dataplane = Dataplane::open(options(true)).unwrap();
        assert_eq!(dataplane.sync(&plan()).unwrap().writes, 0);
        if !dataplane.exclusive() {
            caracal_skip::skip!("the kernel cannot keep an owned table (Linux 6.9)");
            return;
        }
        assert!(dataplane.claim().unwrap());
        let after = reader.read_table("caracal").unwrap().unwrap();
        assert!(before.0.owner.is_none() && after.0.owner.is_some());
        assert_eq!(before.1, after.1);
        assert!(!netns.nft("delete table inet caracal").0);
    });
}

#[test]
fn a_delta_that_meets_a_foreign_change_is_still_carried_out() {
    let Some(netns) = Netns::new("meet") else {
        return;
    };
    netns.run(|| {
        let mut dataplane = Dataplane::open(options(false)).unwrap();
        dataplane.sync(&plan()).unwrap();
        for damage in [
            "flush ruleset",
            "delete element inet caracal id4 { 10.9.0.1 }",
        ] {
            let (done, words) = netns.nft(damage);
            assert!(done, "{damage}: {words}");
            let mut next = dataplane.plan().clone();
            next.identities.remove(&ip("10.9.0.1"));
            next.identities.insert(ip("10.9.0.8"), IdentityId(4));
            dataplane.apply(&dataplane.plan().delta_to(&next)).unwrap();
            assert_eq!(dataplane.plan(), &next);
            assert_eq!(dataplane.sync(&next).unwrap().writes, 0, "{damage}");
            dataplane.sync(&plan()).unwrap();
        }
    });
}
