//! The codec's hot loops: runs of prefixes and sets of attributes, both ways.
//!
//! `ns/prefix` is the time of a case divided by its prefixes; criterion prints prefixes per second.

use std::hint::black_box;
use std::net::{Ipv4Addr, Ipv6Addr};

use bytes::BytesMut;
use caracal_bgp_core::types::{Asn, Family, NextHop, Nlri, PathId, PeerKind, Prefix};
use caracal_bgp_core::wire::{
    Announcement, AsPath, Community, DecodeContext, EncodeContext, HEADER_LEN, Origin,
    PathAttributes, UpdateOutcome, decode_update, withdraw,
};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

const V4: Family = Family::Ipv4Unicast;
const V6: Family = Family::Ipv6Unicast;

/// With the next hop: the six attributes of a usual route inside an AS.
fn attributes() -> PathAttributes {
    PathAttributes {
        origin: Origin::Igp,
        as_path: AsPath::new([64_512, 3_356, 174, 13_335].map(Asn)),
        med: Some(10),
        local_pref: Some(100),
        communities: [0xfc00_0001, 0xfc00_0064, 0xfc00_03e8]
            .map(Community)
            .into(),
        ..PathAttributes::default()
    }
}

fn next_hop(family: Family) -> NextHop {
    match family {
        V4 => NextHop::V4(Ipv4Addr::new(192, 0, 2, 1)),
        V6 => NextHop::V6 {
            global: Ipv6Addr::from_bits(0x2001_0db8 << 96 | 1),
            link_local: None,
        },
    }
}

/// `count` prefixes as they are in tables: /24, or /48.
fn run(family: Family, count: u32) -> Vec<Nlri> {
    let prefix = |index: u32| match family {
        V4 => Prefix::v4(Ipv4Addr::from_bits(0x0a00_0000 + index * 256), 24),
        V6 => Prefix::v6(
            Ipv6Addr::from_bits(0x2001_0db8 << 96 | u128::from(index) << 80),
            48,
        ),
    };
    (0..count)
        .map(|index| Nlri {
            prefix: prefix(index).expect("the lengths fit"),
            id: PathId(index),
        })
        .collect()
}

fn context(add_path: bool) -> (EncodeContext, DecodeContext) {
    let families = |on: bool| Family::ALL.into_iter().filter(move |_| on).collect();
    let encode = EncodeContext {
        add_path: families(add_path),
        max_len: 65535,
        ..EncodeContext::default()
    };
    let decode = DecodeContext {
        add_path: families(add_path),
        ..DecodeContext::new(PeerKind::Internal)
    };
    (encode, decode)
}

/// The body of one UPDATE that announces `nlri`.
fn body(family: Family, nlri: &[Nlri], encode: EncodeContext) -> Vec<u8> {
    let mut octets = BytesMut::new();
    Announcement::new(&attributes(), &next_hop(family), family, encode)
        .expect("the attributes are short")
        .write(nlri, encode, &mut octets);
    octets[HEADER_LEN..].to_vec()
}

fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group("decode");
    for (name, family, count, add_path) in [
        ("attributes and one prefix", V4, 1, false),
        ("v4", V4, 500, false),
        ("v4", V4, 1000, false),
        ("v4 add-path", V4, 500, true),
        ("v6", V6, 500, false),
    ] {
        let (encode, context) = context(add_path);
        let body = body(family, &run(family, count), encode);
        assert!(matches!(
            decode_update(&body, &context),
            UpdateOutcome::Valid(_)
        ));
        group.throughput(Throughput::Elements(count.into()));
        group.bench_with_input(BenchmarkId::new(name, count), &body, |b, body| {
            b.iter(|| decode_update(black_box(body), &context));
        });
    }
    let (encode, context) = context(false);
    let mut octets = BytesMut::new();
    withdraw(V4, &run(V4, 1000), encode, &mut octets);
    let body = octets.split_off(HEADER_LEN);
    group.throughput(Throughput::Elements(1000));
    group.bench_function("v4 withdrawal/1000", |b| {
        b.iter(|| decode_update(black_box(&body), &context));
    });
    group.finish();
}

fn encode(c: &mut Criterion) {
    let mut group = c.benchmark_group("encode");
    let attributes = attributes();
    let (plain, _) = context(false);
    group.bench_function("attributes", |b| {
        b.iter(|| Announcement::new(black_box(&attributes), &next_hop(V4), V4, plain));
    });
    for (name, family, count, add_path) in [
        ("v4", V4, 1, false),
        ("v4", V4, 500, false),
        ("v4", V4, 1000, false),
        ("v4 add-path", V4, 500, true),
        ("v6", V6, 500, false),
    ] {
        let (encode, _) = context(add_path);
        let nlri = run(family, count);
        let announcement = Announcement::new(&attributes, &next_hop(family), family, encode)
            .expect("the attributes are short");
        let mut out = BytesMut::with_capacity(1 << 17);
        group.throughput(Throughput::Elements(count.into()));
        group.bench_with_input(BenchmarkId::new(name, count), &nlri, |b, nlri| {
            b.iter(|| {
                out.clear();
                announcement.write(black_box(nlri), encode, &mut out);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, decode, encode);
criterion_main!(benches);
