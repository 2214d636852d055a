//! A full table through the RIB: in from one peer, out to another, and away again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use caracal_bgp_core::fsm::Negotiated;
use caracal_bgp_core::policy::Policy;
use caracal_bgp_core::rib::{
    Ends, Event, Multipath, NextHopMode, OriginCheck, PeerId, PeerIndex, PeerPolicy, PrivateAs,
    Rib, RibConfig, RibOptions,
};
use caracal_bgp_core::types::{Asn, Family, NextHop, Nlri, Prefix, RouterId};
use caracal_bgp_core::wire::{AsPath, PathAttributes, Reach, Update};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};

const PREFIXES: u32 = 200_000;
/// Prefixes that share their attributes.
const RUN: u32 = 6;

fn id(index: u32) -> PeerId {
    PeerId {
        index: PeerIndex(index),
        generation: 1,
    }
}

fn rib() -> Rib {
    let policy = PeerPolicy {
        local_asn: None,
        import: Arc::new(Policy::accept_all()),
        export: Arc::new(Policy::accept_all()),
        allowed_own_as: 0,
        as_override: false,
        private_as: PrivateAs::Keep,
        cluster_id: None,
        told_paths: [None; 2],
        validate_origin: OriginCheck::Off,
        max_prefixes: [None; 2],
        next_hop_mode: NextHopMode::Auto,
        next_hop_v4: None,
        next_hop_v6: None,
        client: false,
        graceful_restart: false,
    };
    let config = RibConfig {
        asn: Asn(65_000),
        router_id: RouterId(1),
        cluster_id: RouterId(1),
        transit: true,
        multipath: Multipath {
            maximum: 1,
            relax: false,
        },
        stale_time: Duration::ZERO,
        protected: Vec::new(),
        blocks: Arc::default(),
        originate: BTreeMap::new(),
        statics: BTreeMap::new(),
        peers: (0..2)
            .map(|index| (PeerIndex(index), policy.clone()))
            .collect(),
    };
    let mut out = Vec::new();
    let mut rib = Rib::new(config, RibOptions::default(), &mut out);
    for peer in 0..2 {
        let event = Event::PeerUp {
            peer: id(peer),
            negotiated: Negotiated {
                families: vec![Family::Ipv4Unicast],
                ..Negotiated::plain(Asn(65_000), Asn(65_001 + peer), RouterId(2 + peer))
            },
            ends: Ends {
                peer: Ipv4Addr::new(192, 0, 2, peer as u8).into(),
                local_v4: Some(Ipv4Addr::new(198, 51, 100, 1)),
                local_v6: None,
                interface: None,
                interface_name: None,
                subnets: Vec::new(),
            },
        };
        rib.handle(Instant::now(), event, &mut out);
    }
    rib
}

fn run(number: u32) -> Vec<Nlri> {
    let prefix = |index: u32| Prefix::v4(Ipv4Addr::from_bits((index + 1) << 8), 24).expect("/24");
    (number * RUN..(number + 1) * RUN)
        .map(|index| prefix(index).into())
        .collect()
}

fn announcements() -> Vec<Update> {
    (0..PREFIXES / RUN)
        .map(|number| Update {
            reach: vec![Reach {
                family: Family::Ipv4Unicast,
                next_hop: NextHop::V4(Ipv4Addr::new(192, 0, 2, 0)),
                nlri: run(number),
            }],
            attributes: Some(PathAttributes {
                as_path: AsPath::new(vec![Asn(65_001), Asn(number + 1), Asn(3356), Asn(1299)]),
                ..PathAttributes::default()
            }),
            ..Update::default()
        })
        .collect()
}

fn withdrawals() -> Vec<Update> {
    (0..PREFIXES / RUN)
        .map(|number| Update {
            withdrawn: vec![(Family::Ipv4Unicast, run(number))],
            ..Update::default()
        })
        .collect()
}

/// Hands in `updates` and pulls what comes of them, in turns as a speaker does.
fn through(rib: &mut Rib, updates: Vec<Update>) -> usize {
    let now = Instant::now();
    let mut out = Vec::new();
    let mut octets = 0;
    for (number, update) in updates.into_iter().enumerate() {
        let peer = id(0);
        rib.handle(
            now,
            Event::Updates {
                peer,
                updates: vec![update],
            },
            &mut out,
        );
        out.clear();
        if number % 64 == 63 {
            octets += pull(rib, now);
        }
    }
    octets + pull(rib, now)
}

fn pull(rib: &mut Rib, now: Instant) -> usize {
    let mut octets = 0;
    for peer in [0, 1] {
        while let Some(messages) = rib.pull(now, id(peer), 16_384) {
            octets += messages.len();
        }
    }
    octets
}

fn full_table(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("full table");
    group.sample_size(10);
    group.throughput(criterion::Throughput::Elements(PREFIXES.into()));
    group.bench_function("announce", |bencher| {
        bencher.iter_batched(
            || (rib(), announcements()),
            |(mut rib, updates)| {
                through(&mut rib, updates);
                rib
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("withdraw", |bencher| {
        bencher.iter_batched(
            || {
                let mut rib = rib();
                through(&mut rib, announcements());
                (rib, withdrawals())
            },
            |(mut rib, updates)| {
                through(&mut rib, updates);
                rib
            },
            BatchSize::PerIteration,
        );
    });
    group.finish();
}

criterion_group!(benches, full_table);
criterion_main!(benches);
