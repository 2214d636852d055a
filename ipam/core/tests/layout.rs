//! Arithmetic of pools.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr};

use caracal_ipam_core::{Error, Layout, Range, Subnet};
use proptest::prelude::*;

fn subnet(n: u32, host_bits: u8) -> Subnet {
    Subnet {
        ipv4: Some((Ipv4Addr::from_bits((10 << 24) + (n << 16)), 32 - host_bits)),
        ipv6: Some((
            Ipv6Addr::from_bits((0xfd00_u128 << 112) + (u128::from(n) << 32)),
            128 - host_bits,
        )),
        active: true,
    }
}

fn layouts() -> impl Strategy<Value = (Vec<Subnet>, u8)> {
    (2_u8..=8, prop::collection::vec(0_u8..=6, 1..6)).prop_map(|(bits, sizes)| {
        let subnets = sizes
            .iter()
            .zip(0..)
            .map(|(extra, n)| subnet(n, bits + extra))
            .collect();
        (subnets, bits)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn index_and_addresses_are_a_bijection((subnets, bits) in layouts()) {
        let layout = Layout::new(subnets, bits).unwrap();
        let mut seen = BTreeSet::new();
        for index in 0..layout.blocks() {
            let block = layout.block(index).unwrap();
            for position in 0..block.size() {
                let pair = block.at(position);
                for address in pair.iter() {
                    prop_assert_eq!(layout.index_of(address), Some(index));
                    prop_assert_eq!(block.position_of(address), Some(position));
                    prop_assert!(seen.insert(address), "{} twice", address);
                }
            }
        }
        prop_assert_eq!(layout.block(layout.blocks()), None);
    }

    #[test]
    fn appending_a_subnet_changes_no_earlier_block((subnets, bits) in layouts()) {
        let before = Layout::new(subnets.clone(), bits).unwrap();
        let mut longer = subnets;
        longer.push(subnet(200, bits + 3));
        let after = Layout::new(longer, bits).unwrap();
        prop_assert!(after.extends(&before));
        for index in 0..before.blocks() {
            prop_assert_eq!(before.block(index), after.block(index));
        }
    }

    #[test]
    fn buddies_are_mutual_and_adjacent((subnets, bits) in layouts()) {
        let layout = Layout::new(subnets, bits).unwrap();
        for index in 0..layout.blocks() {
            if let Some(buddy) = layout.buddy(index) {
                prop_assert_eq!(layout.buddy(buddy), Some(index));
                let (a, b) = (layout.block(index).unwrap(), layout.block(buddy).unwrap());
                let distance = a.ipv4.unwrap().to_bits().abs_diff(b.ipv4.unwrap().to_bits());
                prop_assert_eq!(distance, 1 << bits);
            }
        }
    }
}

#[test]
fn what_does_not_divide_is_refused() {
    let v4 = |text: &str, len| Subnet {
        ipv4: Some((text.parse().unwrap(), len)),
        ipv6: None,
        active: true,
    };
    let both = Subnet {
        ipv6: Some(("fd00::".parse().unwrap(), 122)),
        ..v4("10.0.0.0", 24)
    };
    for (subnets, bits, expected) in [
        (vec![], 6, Error::NoSubnet),
        (
            vec![Subnet {
                ipv4: None,
                ipv6: None,
                active: true,
            }],
            6,
            Error::NoFamily { subnet: 0 },
        ),
        (
            vec![v4("10.0.0.0", 27)],
            6,
            Error::SubnetSize {
                subnet: 0,
                host_bits: 5,
                block_bits: 6,
            },
        ),
        (vec![v4("10.0.0.1", 24)], 6, Error::HostBits { subnet: 0 }),
        (vec![both], 6, Error::MismatchedFamilies { subnet: 0 }),
        (
            vec![v4("10.0.0.0", 24), subnet(1, 8)],
            6,
            Error::MismatchedFamilies { subnet: 1 },
        ),
    ] {
        assert_eq!(Layout::new(subnets, bits), Err(expected));
    }
}

#[test]
fn reserved_addresses_of_one_family_take_the_pair() {
    let layout = Layout::new(vec![subnet(0, 8)], 6).unwrap();
    let block = layout.block(0).unwrap();
    let range = |a: &str, b: &str| Range {
        first: a.parse().unwrap(),
        last: b.parse().unwrap(),
    };
    let reserved = [range("10.0.0.0", "10.0.0.3"), range("fd00::2", "fd00::5")];
    assert_eq!(block.reserved_positions(&reserved), 6);
    assert!(block.is_reserved(5, &reserved) && !block.is_reserved(6, &reserved));
}
