//! Interval sets against the kernel: their edges, and every change between them.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;

use caracal_nft::batch::{Batch, Op};
use caracal_nft::model::{Change, Model, SetState};
use caracal_nft::object::{Ownership, Table};
use caracal_nft::set::{DataType, Key, Set};
use caracal_nft::{Connection, Error};
use common::Netns;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

fn add_table(name: &str) -> Op {
    Op::AddTable(Table {
        name: name.to_owned(),
        ownership: Ownership::Shared,
    })
}

fn commit(connection: &mut Connection, table: &str, operations: Vec<Op>) -> Result<(), Error> {
    let mut batch = Batch::new(table);
    operations.into_iter().for_each(|op| batch.push(op));
    connection.commit(&batch)
}

/// Disjoint ranges that do not touch, out of 256 values spread over the whole width.
fn ranges(width: usize) -> impl Strategy<Value = Vec<Key>> {
    proptest::collection::btree_set(any::<u8>(), 0..24).prop_map(move |cuts| {
        let cuts: Vec<u8> = cuts.into_iter().collect();
        let bound = |byte: u8, fill: u8| {
            let mut value = vec![fill; width];
            value[0] = byte;
            value
        };
        cuts.chunks_exact(2)
            .map(|pair| Key::Range {
                first: bound(pair[0], 0),
                last: bound(pair[1].saturating_sub(1).max(pair[0]), u8::MAX),
            })
            .collect()
    })
}

#[test]
fn interval_sets_take_any_disjoint_ranges_and_any_change_between_them() {
    let Some(netns) = Netns::new("iv") else {
        return;
    };
    netns.run(|| {
        let mut connection = Connection::open().unwrap();
        let kinds = [
            DataType::Ipv4Addr,
            DataType::Ipv6Addr,
            DataType::InetService,
        ];
        let mut start = vec![add_table("t")];
        let mut actual = Model::default();
        for kind in kinds {
            let s = Set {
                name: format!("{kind:?}"),
                key: vec![kind],
                data: None,
                interval: true,
            };
            start.push(Op::AddSet(s.clone()));
            let state = SetState {
                set: s.clone(),
                elements: BTreeMap::new(),
            };
            actual.sets.insert(s.name, state);
        }
        commit(&mut connection, "t", start).unwrap();
        let connection = std::cell::RefCell::new((connection, actual));
        let check = |wanted: [Vec<Key>; 3]| {
            let (connection, actual) = &mut *connection.borrow_mut();
            let mut desired = actual.clone();
            for (kind, keys) in kinds.iter().zip(wanted) {
                let state = desired.sets.get_mut(&format!("{kind:?}")).unwrap();
                state.elements = keys.into_iter().map(|key| (key, None)).collect();
            }
            let patch = actual.patch_to(desired.clone());
            actual.check(&patch).unwrap();
            let Change::Operations(operations) = actual.change(&patch) else {
                panic!("no type changes");
            };
            commit(connection, "t", operations).unwrap();
            let read = connection.read_table("t").unwrap().unwrap().1;
            assert_eq!(read, desired);
            *actual = desired;
        };
        let range = |first: &[u8], last: &[u8]| Key::Range {
            first: first.to_vec(),
            last: last.to_vec(),
        };
        check([
            vec![range(&[0; 4], &[255; 4])],
            vec![range(&[0; 16], &[255; 16])],
            vec![range(&[0; 2], &[255; 2])],
        ]);
        let listing = netns.list_ruleset();
        assert!(
            listing.contains("0.0.0.0/0") || listing.contains("0.0.0.0-255.255.255.255"),
            "{listing}"
        );
        check([
            vec![range(&[0; 4], &[0; 4]), range(&[255; 4], &[255; 4])],
            vec![range(&[0; 16], &[0; 16]), range(&[255; 16], &[255; 16])],
            vec![range(&[0; 2], &[0; 2]), range(&[255; 2], &[255; 2])],
        ]);
        let listing = netns.list_ruleset();
        assert!(
            listing.contains("255.255.255.255") && listing.contains("65535"),
            "{listing}"
        );
        // Ranges that touch.
        check([
            vec![
                range(&[10, 0, 0, 0], &[10, 0, 0, 9]),
                range(&[10, 0, 0, 10], &[10, 0, 0, 20]),
            ],
            vec![],
            vec![range(&[0, 1], &[0, 2]), range(&[0, 3], &[0, 3])],
        ]);
        let mut runner = TestRunner::new(Config {
            cases: 64,
            failure_persistence: None,
            ..Config::default()
        });
        runner
            .run(&(ranges(4), ranges(16), ranges(2)), |(v4, v6, ports)| {
                check([v4, v6, ports]);
                Ok(())
            })
            .unwrap();
    });
}
