//! The low level against the kernel: what is written is read back, and `nft` can print it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use caracal_nft::batch::{Batch, Op};
use caracal_nft::expr::{
    CmpOp, CtKey, Expr, LogTarget, LookupResult, MetaKey, PayloadBase, RateUnit, Register, Reject,
    Rule, Verdict,
};
use caracal_nft::model::{ChainState, Model, SetState};
use caracal_nft::object::{BaseChain, Chain, Counter, Hook, Ownership, Policy, Table};
use caracal_nft::set::{Data, DataType, Element, Key, MapData, Set};
use caracal_nft::{Connection, Error};
use common::Netns;

const R0: Register = Register::FIRST;

fn add_table(name: &str) -> Op {
    Op::AddTable(Table {
        name: name.to_owned(),
        ownership: Ownership::Shared,
    })
}

fn set(name: &str, key: &[DataType]) -> Set {
    Set {
        name: name.to_owned(),
        key: key.to_vec(),
        data: None,
        interval: false,
    }
}

fn chain(name: &str) -> Chain {
    Chain {
        name: name.to_owned(),
        base: None,
    }
}

fn commit(connection: &mut Connection, table: &str, operations: Vec<Op>) -> Result<(), Error> {
    let mut batch = Batch::new(table);
    operations.into_iter().for_each(|op| batch.push(op));
    connection.commit(&batch)
}

/// Every kind of expression, set and element in one table, with what `nft` must print of each rule.
fn everything() -> (Model, Vec<&'static str>) {
    let cmp = |op, value: &[u8]| Expr::Cmp {
        from: R0,
        op,
        value: value.to_vec(),
    };
    let meta = |key| Expr::Meta { key, to: R0 };
    let load = |base, offset, len| Expr::Payload {
        base,
        offset,
        len,
        to: R0,
    };
    let lookup = |set: &str, result| Expr::Lookup {
        set: set.to_owned(),
        from: R0,
        result,
    };
    let member = LookupResult::Membership { inverted: false };
    let set_mark = Expr::SetMeta {
        key: MetaKey::Mark,
        from: R0,
    };
    let ipv4 = || vec![meta(MetaKey::NfProto), cmp(CmpOp::Eq, &[2])];
    let tcp = || vec![meta(MetaKey::L4Proto), cmp(CmpOp::Eq, &[6])];
    let mask = |mask: u32| Expr::Bitwise {
        from: R0,
        to: R0,
        mask: mask.to_ne_bytes().to_vec(),
        xor: vec![0; 4],
    };
    let with = |mut first: Vec<Expr>, rest: Vec<Expr>| {
        first.extend(rest);
        first
    };
    let rules: Vec<(Vec<Expr>, &'static str)> = vec![
        (
            vec![
                Expr::Ct {
                    key: CtKey::State,
                    to: R0,
                },
                mask(6),
                cmp(CmpOp::Neq, &[0; 4]),
                Expr::Verdict(Verdict::Accept),
            ],
            "ct state established,related accept",
        ),
        (
            vec![
                Expr::Ct {
                    key: CtKey::Mark,
                    to: R0,
                },
                cmp(CmpOp::Eq, &7_u32.to_ne_bytes()),
                Expr::Verdict(Verdict::Return),
            ],
            "ct mark 0x00000007 return",
        ),
        (
            vec![
                Expr::Immediate {
                    to: R0,
                    value: 9_u32.to_ne_bytes().to_vec(),
                },
                Expr::SetCt {
                    key: CtKey::Mark,
                    from: R0,
                },
            ],
            "ct mark set 0x00000009",
        ),
        (
            vec![
                meta(MetaKey::IifName),
                cmp(CmpOp::Eq, b"cali"),
                Expr::Verdict(Verdict::Jump("other".to_owned())),
            ],
            "iifname \"cali*\" jump other",
        ),
        (
            vec![
                meta(MetaKey::OifName),
                lookup("dispatch", LookupResult::Verdict),
            ],
            "oifname vmap @dispatch",
        ),
        (
            with(
                ipv4(),
                vec![
                    load(PayloadBase::Network, 12, 4),
                    lookup("marks", LookupResult::Value(R0)),
                    set_mark.clone(),
                ],
            ),
            "meta mark set ip saddr map @marks",
        ),
        (
            vec![
                meta(MetaKey::Mark),
                mask(0xc000),
                lookup("keep", LookupResult::Verdict),
            ],
            "meta mark & 0x0000c000 vmap @keep",
        ),
        (
            vec![
                Expr::Immediate {
                    to: R0,
                    value: 0x4000_u32.to_ne_bytes().to_vec(),
                },
                set_mark,
            ],
            "meta mark set 0x00004000",
        ),
        (
            vec![
                meta(MetaKey::L4Proto),
                lookup("protocols", member),
                meta(MetaKey::Mark),
                Expr::Meta {
                    key: MetaKey::L4Proto,
                    to: R0.plus(1),
                },
                Expr::Payload {
                    base: PayloadBase::Transport,
                    offset: 2,
                    len: 2,
                    to: R0.plus(2),
                },
                lookup("cells", member),
                Expr::Verdict(Verdict::Return),
            ],
            "meta mark . meta l4proto . th dport @cells return",
        ),
        (
            with(
                ipv4(),
                vec![
                    meta(MetaKey::IifName),
                    Expr::Payload {
                        base: PayloadBase::Network,
                        offset: 12,
                        len: 4,
                        to: R0.plus(4),
                    },
                    lookup("sources", LookupResult::Membership { inverted: true }),
                    Expr::CounterRef {
                        name: "drops".to_owned(),
                    },
                    Expr::Verdict(Verdict::Drop),
                ],
            ),
            "iifname . ip saddr != @sources counter name \"drops\" drop",
        ),
        (
            with(
                tcp(),
                vec![
                    load(PayloadBase::Transport, 2, 2),
                    cmp(CmpOp::Gte, &100_u16.to_be_bytes()),
                    cmp(CmpOp::Lte, &200_u16.to_be_bytes()),
                    Expr::Verdict(Verdict::Goto("other".to_owned())),
                ],
            ),
            "tcp dport 100-200 goto other",
        ),
        (
            with(
                tcp(),
                vec![
                    load(PayloadBase::Transport, 2, 2),
                    Expr::Range {
                        from: R0,
                        inverted: true,
                        first: 5_u16.to_be_bytes().to_vec(),
                        last: 9_u16.to_be_bytes().to_vec(),
                    },
                    Expr::Counter {
                        packets: 0,
                        bytes: 0,
                    },
                ],
            ),
            "dport != 5-9 counter packets 0 bytes 0",
        ),
        (
            with(
                tcp(),
                vec![
                    load(PayloadBase::Transport, 13, 1),
                    Expr::Bitwise {
                        from: R0,
                        to: R0,
                        mask: vec![0x17],
                        xor: vec![0],
                    },
                    cmp(CmpOp::Neq, &[2]),
                    Expr::Reject(Reject::TcpReset),
                ],
            ),
            "reject with tcp reset",
        ),
        (
            vec![Expr::Reject(Reject::AdminProhibited)],
            "reject with icmpx admin-prohibited",
        ),
        (
            vec![
                Expr::Limit {
                    rate: 50,
                    unit: RateUnit::Second,
                    burst: 5,
                    over: false,
                },
                Expr::Log {
                    prefix: "dropped ".to_owned(),
                    target: LogTarget::Kernel { level: 4 },
                },
            ],
            "limit rate 50/second log prefix \"dropped \"",
        ),
        (
            vec![
                Expr::Limit {
                    rate: 3,
                    unit: RateUnit::Minute,
                    burst: 7,
                    over: true,
                },
                Expr::Log {
                    prefix: "group".to_owned(),
                    target: LogTarget::Group(5),
                },
            ],
            "limit rate over 3/minute burst 7 packets log prefix \"group\" group 5",
        ),
        (
            with(
                vec![
                    meta(MetaKey::NfProto),
                    cmp(CmpOp::Eq, &[10]),
                    meta(MetaKey::L4Proto),
                    cmp(CmpOp::Eq, &[58]),
                ],
                vec![
                    load(PayloadBase::Transport, 0, 1),
                    lookup("discovery", member),
                    Expr::Verdict(Verdict::Continue),
                ],
            ),
            "icmpv6 type @discovery continue",
        ),
    ];
    let expected = rules.iter().map(|(_, text)| *text).collect();

    let mut model = Model::default();
    let mut add = |set: Set, elements: Vec<(Key, Option<Data>)>| {
        let state = SetState {
            set: set.clone(),
            elements: elements.into_iter().collect(),
        };
        model.sets.insert(set.name, state);
    };
    let value = |bytes: &[u8]| Key::Value(bytes.to_vec());
    let mut name = [0; 16];
    name[..5].copy_from_slice(b"cali0");
    let source = [name.as_slice(), &[10, 0, 0, 1]].concat();
    add(
        set("protocols", &[DataType::InetProto]),
        vec![(value(&[6]), None), (value(&[17]), None)],
    );
    add(
        set("discovery", &[DataType::Icmpv6Type]),
        vec![(value(&[135]), None)],
    );
    add(
        set("states", &[DataType::CtState]),
        vec![(value(&2_u32.to_ne_bytes()), None)],
    );
    add(
        set("sources", &[DataType::IfName, DataType::Ipv4Addr]),
        vec![(Key::Value(source), None)],
    );
    let cells = set(
        "cells",
        &[DataType::Mark, DataType::InetProto, DataType::InetService],
    );
    let cell = [&0x30000_u32.to_ne_bytes()[..], &[6, 0, 0, 0, 0, 80, 0, 0]].concat();
    add(cells, vec![(Key::Value(cell), None)]);
    let mut marks = set("marks", &[DataType::Ipv4Addr]);
    marks.data = Some(MapData::Value(DataType::Mark));
    let mark = |mark: u32| Some(Data::Value(mark.to_ne_bytes().to_vec()));
    add(
        marks,
        vec![
            (Key::CatchAll, mark(0)),
            (value(&[10, 0, 0, 1]), mark(0x30000)),
        ],
    );
    let goto = || Some(Data::Verdict(Verdict::Goto("other".to_owned())));
    let mut keep = set("keep", &[DataType::Mark]);
    keep.data = Some(MapData::Verdict);
    let keep_elements = vec![
        (value(&[0; 4]), goto()),
        (
            value(&0x4000_u32.to_ne_bytes()),
            Some(Data::Verdict(Verdict::Drop)),
        ),
    ];
    add(keep, keep_elements);
    let mut dispatch = set("dispatch", &[DataType::IfName]);
    dispatch.data = Some(MapData::Verdict);
    add(
        dispatch,
        vec![(value(&name), Some(Data::Verdict(Verdict::Return)))],
    );

    model.chains.insert(
        "hooked".to_owned(),
        ChainState {
            chain: Chain {
                name: "hooked".to_owned(),
                base: Some(BaseChain {
                    hook: Hook::Forward,
                    priority: -5,
                    policy: Policy::Drop,
                }),
            },
            rules: rules
                .into_iter()
                .enumerate()
                .map(|(index, (expressions, _))| Rule {
                    expressions,
                    comment: Some(format!("rule {index}")),
                })
                .collect(),
        },
    );
    let other = ChainState {
        chain: chain("other"),
        rules: Vec::new(),
    };
    model.chains.insert("other".to_owned(), other);
    let counter = Counter {
        name: "drops".to_owned(),
        comment: Some("what was refused".to_owned()),
    };
    model.counters.insert("drops".to_owned(), counter);
    (model, expected)
}

#[test]
fn every_object_and_expression_reads_back_as_written_and_nft_prints_it() {
    let Some(netns) = Netns::new("rt") else {
        return;
    };
    let (model, expected) = everything();
    let read = netns.run(|| {
        let mut connection = Connection::open().unwrap();
        let mut operations = vec![add_table("t")];
        operations.extend(model.build());
        commit(&mut connection, "t", operations).unwrap();
        connection.read_table("t").unwrap().unwrap().1
    });
    for (name, state) in &model.chains {
        for (index, rule) in state.rules.iter().enumerate() {
            assert_eq!(
                read.chains[name].rules.get(index),
                Some(rule),
                "rule {index} of {name}"
            );
        }
    }
    assert_eq!(read, model);
    let listing = netns.list_ruleset();
    for text in expected {
        assert!(listing.contains(text), "{text:?} is not in {listing}");
    }
    for (index, rule) in listing
        .lines()
        .filter(|line| line.contains("comment \"rule"))
        .enumerate()
    {
        assert!(
            rule.contains(&format!("comment \"rule {index}\"")),
            "{rule}"
        );
    }
    for text in [
        "type filter hook forward priority filter - 5; policy drop;",
        "* : 0x00000000",
        "10.0.0.1 : 0x00030000",
        "0x00030000 . tcp . 80",
        "\"cali0\" . 10.0.0.1",
        "0x00004000 : drop",
        "nd-neighbor-solicit",
    ] {
        assert!(listing.contains(text), "{text:?} is not in {listing}");
    }
}

#[test]
fn a_refused_transaction_changes_nothing_and_names_the_operation() {
    let Some(netns) = Netns::new("tx") else {
        return;
    };
    netns.run(|| {
        let mut connection = Connection::open().unwrap();
        let addresses = |range: std::ops::Range<u8>| {
            range
                .map(|n| Element {
                    key: Key::Value(vec![10, 0, 0, n]),
                    data: None,
                })
                .collect::<Vec<_>>()
        };
        let elements = |range| Op::AddElements {
            set: "s".to_owned(),
            elements: addresses(range),
        };
        let start = vec![
            add_table("t"),
            Op::AddSet(set("s", &[DataType::Ipv4Addr])),
            elements(50..51),
        ];
        commit(&mut connection, "t", start).unwrap();
        let before = connection.read_table("t").unwrap();
        let generation = connection.generation().unwrap();

        let refused =
            |connection: &mut Connection, operations| match commit(connection, "t", operations) {
                Err(Error::Transaction { failures, .. }) => failures,
                other => panic!("not refused by the kernel: {other:?}"),
            };
        let failures = refused(
            &mut connection,
            vec![
                Op::AddChain(chain("c")),
                elements(0..100),
                Op::AddChain(chain("d")),
            ],
        );
        assert_eq!(failures.len(), 1, "{failures:?}");
        assert_eq!(failures[0].operation, "add element 0a000032 of set s");
        assert_eq!(failures[0].error.raw_os_error(), Some(libc::EEXIST));

        let failures = refused(
            &mut connection,
            vec![
                Op::DeleteChain("nowhere".to_owned()),
                Op::DeleteSet("nothing".to_owned()),
            ],
        );
        let operations: Vec<_> = failures.iter().map(|f| f.operation.as_str()).collect();
        assert_eq!(operations, ["delete chain nowhere", "delete set nothing"]);

        let unknown = Rule {
            expressions: vec![Expr::Unknown {
                name: "x".to_owned(),
            }],
            comment: None,
        };
        let invalid = Op::AddRule {
            chain: "c".to_owned(),
            rule: unknown,
        };
        let error = commit(&mut connection, "t", vec![invalid]).unwrap_err();
        assert!(matches!(error, Error::Invalid { .. }), "{error}");

        assert_eq!(connection.read_table("t").unwrap(), before);
        assert_eq!(connection.generation().unwrap(), generation);
        // The socket is in step: the next transaction gets its own answer.
        commit(&mut connection, "t", vec![elements(51..100)]).unwrap();
    });
}

#[test]
fn a_batch_larger_than_the_default_send_buffer_commits_whole() {
    let Some(netns) = Netns::new("big") else {
        return;
    };
    netns.run(|| {
        let mut connection = Connection::open().unwrap();
        let elements: Vec<_> = (0..50_000_u32)
            .map(|n| Element {
                key: Key::Value((0x0a00_0000 + n).to_be_bytes().to_vec()),
                data: None,
            })
            .collect();
        let s = set("s", &[DataType::Ipv4Addr]);
        let add = Op::AddElements {
            set: "s".to_owned(),
            elements: elements.clone(),
        };
        commit(
            &mut connection,
            "t",
            vec![add_table("t"), Op::AddSet(s.clone()), add],
        )
        .unwrap();
        assert_eq!(connection.elements("t", &s).unwrap().len(), elements.len());

        // A mistake in the last of many messages is still found.
        let again = Op::AddElements {
            set: "s".to_owned(),
            elements: (50_000..60_001_u32)
                .map(|n| Element {
                    key: Key::Value((0x0a00_0000 + n % 60_000).to_be_bytes().to_vec()),
                    data: None,
                })
                .collect(),
        };
        let error = commit(&mut connection, "t", vec![again])
            .unwrap_err()
            .to_string();
        assert!(error.contains("add element 0a000000 of set s"), "{error}");
    });
}

#[test]
fn the_monitor_tells_foreign_changes_of_the_table_from_our_own_and_from_other_tables() {
    use caracal_nft::monitor::{Foreign, Monitor};
    use std::time::Duration;
    let Some(netns) = Netns::new("mon") else {
        return;
    };
    netns.run(|| {
        let mut connection = Connection::open().unwrap();
        let mut monitor = Monitor::open("t", connection.port()).unwrap();
        let s = Op::AddSet(set("s", &[DataType::Ipv4Addr]));
        commit(&mut connection, "t", vec![add_table("t"), s]).unwrap();
        assert!(netns.nft("add table inet other").0);
        assert_eq!(monitor.wait(Duration::from_millis(50)).unwrap(), None);
        assert!(netns.nft("add element inet t s { 10.0.0.1 }").0);
        let changed = |deleted| {
            Some(Foreign::Changed {
                deleted,
                process: Some("nft".to_owned()),
            })
        };
        assert_eq!(
            monitor.wait(Duration::from_secs(2)).unwrap(),
            changed(false)
        );
        assert!(netns.nft("flush ruleset").0);
        assert_eq!(monitor.wait(Duration::from_secs(2)).unwrap(), changed(true));
    });
}
