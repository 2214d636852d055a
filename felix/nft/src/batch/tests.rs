//! What is refused before the kernel sees it, and how errors find their operation.

use super::{Batch, Op};
use crate::error::Error;
use crate::expr::{Expr, LogTarget, Register, Rule, Verdict};
use crate::object::{Chain, Counter};
use crate::set::{Data, DataType, Element, Key, Set};

fn element(key: Key) -> Op {
    Op::AddElements {
        set: "s".to_owned(),
        elements: vec![Element { key, data: None }],
    }
}

fn rule(expression: Expr) -> Op {
    Op::AddRule {
        chain: "c".to_owned(),
        rule: Rule {
            expressions: vec![expression],
            comment: None,
        },
    }
}

#[test]
fn operations_that_the_kernel_would_refuse_or_misread_are_not_sent() {
    let set = |key: Vec<DataType>, interval| {
        Op::AddSet(Set {
            name: "s".to_owned(),
            key,
            data: None,
            interval,
        })
    };
    let cases = [
        Op::DeleteChain(String::new()),
        Op::DeleteSet("x".repeat(256)),
        Op::AddChain(Chain {
            name: "a\0b".to_owned(),
            base: None,
        }),
        Op::AddCounter(Counter {
            name: "c".to_owned(),
            comment: Some("x".repeat(128)),
        }),
        set(vec![DataType::Unknown(3)], false),
        set(vec![], false),
        set(vec![DataType::IfName; 5], false),
        set(vec![DataType::Ipv4Addr, DataType::InetService], true),
        // Would flush the set.
        Op::DeleteElements {
            set: "s".to_owned(),
            elements: vec![],
        },
        element(Key::Value(vec![0; 65])),
        element(Key::Range {
            first: vec![],
            last: vec![0; 70_000],
        }),
        Op::AddElements {
            set: "s".to_owned(),
            elements: vec![Element {
                key: Key::CatchAll,
                data: Some(Data::Verdict(Verdict::Goto("x".repeat(70_000)))),
            }],
        },
        rule(Expr::Unknown {
            name: "fib".to_owned(),
        }),
        rule(Expr::Verdict(Verdict::Unknown(-2))),
        rule(Expr::Bitwise {
            from: Register::FIRST,
            to: Register::FIRST,
            mask: vec![0; 4],
            xor: vec![0; 2],
        }),
        rule(Expr::Immediate {
            to: Register::FIRST,
            value: vec![0; 70_000],
        }),
        rule(Expr::Log {
            prefix: "x".repeat(128),
            target: LogTarget::Group(1),
        }),
    ];
    for operation in cases {
        let mut batch = Batch::new("t");
        batch.push(operation.clone());
        let refused = batch.encode(1);
        assert!(
            matches!(refused, Err(Error::Invalid { .. })),
            "{operation:?} was not refused"
        );
    }
}

#[test]
fn a_sequence_number_leads_back_to_its_operation_across_split_messages() {
    let mut batch = Batch::new("t");
    batch.push(Op::FlushChain("c".to_owned()));
    let elements = (0..5_000_u32)
        .map(|n| Element {
            key: Key::Value(n.to_be_bytes().to_vec()),
            data: None,
        })
        .collect();
    batch.push(Op::AddElements {
        set: "s".to_owned(),
        elements,
    });
    batch.push(Op::DeleteSet("old".to_owned()));
    let encoded = batch.encode(10).unwrap();
    let name = |sequence| batch.describe(&encoded, sequence, None);
    assert_eq!(name(10), "commit");
    assert_eq!(name(11), "flush chain c");
    for sequence in 12..encoded.last {
        assert_eq!(name(sequence), "add 5000 elements to set s");
    }
    assert!(encoded.last > 13, "5,000 elements do not fit one message");
    assert_eq!(name(encoded.last), "delete set old");
    assert_eq!(name(encoded.last + 1), "commit");
}
