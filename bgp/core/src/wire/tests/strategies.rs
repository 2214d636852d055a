//! Values to try the codecs with.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::collection::{btree_set, vec};
use proptest::option;
use proptest::prelude::*;

use crate::types::{Asn, Family, NextHop, Nlri, PathId, Prefix, RouterId};
use crate::wire::*;

pub(crate) fn asn() -> impl Strategy<Value = Asn> {
    prop_oneof![1..=u32::from(u16::MAX), 1..=u32::MAX]
        // AS_TRANS itself is ambiguous between two-octet speakers.
        .prop_filter("AS_TRANS", |number| *number != Asn::TRANS.0)
        .prop_map(Asn)
}

pub(crate) fn prefix(family: Family) -> BoxedStrategy<Prefix> {
    match family {
        Family::Ipv4Unicast => (any::<u32>(), 0..=32_u8)
            .prop_map(|(bits, len)| Prefix::v4(Ipv4Addr::from_bits(bits), len).unwrap())
            .boxed(),
        Family::Ipv6Unicast => (any::<u128>(), 0..=128_u8)
            .prop_map(|(bits, len)| Prefix::v6(Ipv6Addr::from_bits(bits), len).unwrap())
            .boxed(),
    }
}

pub(crate) fn next_hop(family: Family) -> BoxedStrategy<NextHop> {
    let link_local = (0..1000_u128).prop_map(|low| Ipv6Addr::from_bits(0xfe80 << 112 | low));
    match family {
        Family::Ipv4Unicast => (0x0100_0000..0x7f00_0000_u32)
            .prop_map(|bits| NextHop::V4(Ipv4Addr::from_bits(bits)))
            .boxed(),
        Family::Ipv6Unicast => (0..1000_u128, option::of(link_local))
            .prop_map(|(low, link_local)| NextHop::V6 {
                global: Ipv6Addr::from_bits(0x2001_0db8 << 96 | low),
                link_local,
            })
            .boxed(),
    }
}

fn list<T: Ord + std::fmt::Debug>(
    item: impl Strategy<Value = T>,
) -> impl Strategy<Value = SortedSet<T>> {
    vec(item, 0..5).prop_map(SortedSet::from)
}

prop_compose! {
    fn unknown()(codes in btree_set(100..=250_u8, 0..3), value in vec(any::<u8>(), 0..300))
        -> Vec<RawAttribute>
    {
        let raw = |code| RawAttribute { flags: 0xe0, code, value: value.clone() };
        codes.into_iter().map(raw).collect()
    }
}

prop_compose! {
    pub(crate) fn attributes()(
        origin in prop_oneof![Just(Origin::Igp), Just(Origin::Egp), Just(Origin::Incomplete)],
        path in vec(asn(), 0..300),
        (med, local_pref) in (any::<Option<u32>>(), any::<Option<u32>>()),
        atomic_aggregate in any::<bool>(),
        aggregator in option::of((asn(), any::<u32>())),
        communities in list(any::<u32>().prop_map(Community)),
        ext_communities in list(any::<[u8; 8]>().prop_map(ExtendedCommunity)),
        large_communities in vec(any::<(u32, u32, u32)>(), 0..5),
        originator_id in option::of(any::<u32>().prop_map(RouterId)),
        cluster_list in vec(any::<u32>().prop_map(RouterId), 0..4),
        unknown in unknown(),
        otc in option::of((1..=u32::MAX).prop_map(Asn)),
    ) -> PathAttributes {
        let large = |(global, local1, local2)| LargeCommunity { global, local1, local2 };
        let mut attributes = PathAttributes {
            origin,
            as_path: AsPath::new(path),
            med,
            local_pref,
            atomic_aggregate,
            communities,
            large_communities: large_communities.into_iter().map(large).collect(),
            originator_id,
            cluster_list: cluster_list.into(),
            otc,
            ..PathAttributes::default()
        };
        attributes.set_aggregator(aggregator.map(|(asn, router)| Aggregator {
            asn,
            router: Ipv4Addr::from_bits(router),
        }));
        attributes.edit_ext_communities(|empty| *empty = ext_communities);
        attributes.set_unknown(unknown);
        attributes
    }
}

pub(crate) fn family() -> impl Strategy<Value = Family> {
    prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)]
}

/// An announcement of up to a few thousand paths; IPv4 prefixes may lead to IPv6 next hops.
pub(crate) fn announcement() -> impl Strategy<Value = (Family, NextHop, Vec<Nlri>)> {
    family().prop_flat_map(|family| {
        let nlri = || {
            let id = any::<u32>().prop_map(PathId);
            (prefix(family), id).prop_map(|(prefix, id)| Nlri { prefix, id })
        };
        let few_or_many = prop_oneof![vec(nlri(), 1..4), vec(nlri(), 1..2000)];
        let either = prop_oneof![next_hop(family), next_hop(Family::Ipv6Unicast)];
        (Just(family), either, few_or_many)
    })
}
