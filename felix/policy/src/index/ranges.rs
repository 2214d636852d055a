//! Sets of numbers as disjoint ranges: ports and addresses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::model::{Cidr, IpBlock};
use crate::plan::{AddressRange, PortMatch, Protocol};

/// A set of integers, kept as sorted, disjoint, non-adjacent inclusive ranges.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RangeSet(Vec<(u128, u128)>);

impl RangeSet {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u128, u128)> + '_ {
        self.0.iter().copied()
    }

    pub(super) fn insert(&mut self, mut first: u128, mut last: u128) {
        self.0.retain(|&(low, high)| {
            let touches = low <= last.saturating_add(1) && first <= high.saturating_add(1);
            if touches {
                first = first.min(low);
                last = last.max(high);
            }
            !touches
        });
        let position = self.0.partition_point(|&(low, _)| low < first);
        self.0.insert(position, (first, last));
    }

    pub(super) fn remove(&mut self, first: u128, last: u128) {
        let pieces = self.0.iter().flat_map(|&(low, high)| {
            let left = (low < first).then(|| (low, high.min(first.wrapping_sub(1))));
            let right = (high > last).then(|| (low.max(last.wrapping_add(1)), high));
            [left, right].into_iter().flatten()
        });
        self.0 = pieces.collect();
    }

    pub(super) fn union(&mut self, other: &Self) {
        for (first, last) in other.iter() {
            self.insert(first, last);
        }
    }
}

/// Ports of several protocols.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct PortRanges(BTreeMap<Protocol, RangeSet>);

impl PortRanges {
    pub(super) fn insert(&mut self, protocol: Protocol, first: u16, last: u16) {
        self.0
            .entry(protocol)
            .or_default()
            .insert(first.into(), last.into());
    }

    pub(super) fn union(&mut self, other: &Self) {
        for (protocol, ranges) in &other.0 {
            self.0.entry(*protocol).or_default().union(ranges);
        }
    }

    /// All ranges, sorted.
    pub(super) fn matches(&self) -> impl Iterator<Item = PortMatch> + '_ {
        self.0.iter().flat_map(|(protocol, ranges)| {
            ranges.iter().map(|(first, last)| PortMatch {
                protocol: *protocol,
                first: port(first),
                last: port(last),
            })
        })
    }
}

/// Addresses of one block of a policy, exceptions taken out, as a range set of its family.
pub(super) fn block_ranges(block: &IpBlock) -> RangeSet {
    let mut ranges = RangeSet::default();
    let (first, last) = bounds(&block.cidr);
    ranges.insert(first, last);
    for except in &block.except {
        // An exception of the other family excepts nothing; as bare numbers it might.
        if except.address().is_ipv4() == block.cidr.address().is_ipv4() {
            let (first, last) = bounds(except);
            ranges.remove(first, last);
        }
    }
    ranges
}

/// The number an address has in the range sets of its family.
pub(super) fn address_number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => address.to_bits().into(),
        IpAddr::V6(address) => address.to_bits(),
    }
}

pub(super) fn nets4(ranges: &RangeSet) -> Vec<AddressRange<Ipv4Addr>> {
    let address = |number: u128| {
        Ipv4Addr::from_bits(u32::try_from(number).expect("IPv4 ranges hold IPv4 addresses only"))
    };
    ranges
        .iter()
        .map(|(first, last)| AddressRange {
            first: address(first),
            last: address(last),
        })
        .collect()
}

pub(super) fn nets6(ranges: &RangeSet) -> Vec<AddressRange<Ipv6Addr>> {
    ranges
        .iter()
        .map(|(first, last)| AddressRange {
            first: Ipv6Addr::from_bits(first),
            last: Ipv6Addr::from_bits(last),
        })
        .collect()
}

fn bounds(cidr: &Cidr) -> (u128, u128) {
    let width = if cidr.address().is_ipv4() { 32 } else { 128 };
    let host_bits = width - u32::from(cidr.prefix_len());
    let first = address_number(cidr.address());
    let host_mask = u128::MAX.checked_shr(128 - host_bits).unwrap_or(0);
    (first, first | host_mask)
}

fn port(number: u128) -> u16 {
    u16::try_from(number).expect("port ranges are built from 16-bit ports")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ranges(block: &str, except: &[&str]) -> Vec<String> {
        let block = IpBlock::parse(block, except.iter().copied()).unwrap();
        let ranges = block_ranges(&block);
        if block.cidr.address().is_ipv4() {
            nets4(&ranges)
                .iter()
                .map(|net| format!("{}-{}", net.first, net.last))
                .collect()
        } else {
            nets6(&ranges)
                .iter()
                .map(|net| format!("{}-{}", net.first, net.last))
                .collect()
        }
    }

    #[test]
    fn exceptions_cut_blocks_into_disjoint_ranges() {
        assert_eq!(ranges("10.0.0.0/30", &[]), ["10.0.0.0-10.0.0.3"]);
        assert_eq!(
            ranges("10.0.0.0/30", &["10.0.0.1/32"]),
            ["10.0.0.0-10.0.0.0", "10.0.0.2-10.0.0.3"]
        );
        assert_eq!(
            ranges("10.0.0.0/30", &["10.0.0.0/31"]),
            ["10.0.0.2-10.0.0.3"]
        );
        assert_eq!(
            ranges("10.0.0.0/30", &["10.0.0.2/31"]),
            ["10.0.0.0-10.0.0.1"]
        );
        assert!(ranges("10.0.0.0/30", &["10.0.0.0/8"]).is_empty());
        assert_eq!(
            ranges("10.0.0.0/30", &["10.1.0.0/16", "::/0"]),
            ["10.0.0.0-10.0.0.3"]
        );
    }

    #[test]
    fn the_edges_of_both_families_hold() {
        assert_eq!(ranges("0.0.0.0/0", &[]), ["0.0.0.0-255.255.255.255"]);
        assert_eq!(
            ranges("0.0.0.0/0", &["0.0.0.0/1", "255.255.255.255/32"]),
            ["128.0.0.0-255.255.255.254"]
        );
        assert_eq!(
            ranges("::/0", &[]),
            ["::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
        assert_eq!(
            ranges("::/0", &["::/128", "8000::/1"]),
            ["::1-7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"]
        );
    }

    #[test]
    fn adjacent_and_overlapping_ranges_merge() {
        let mut set = RangeSet::default();
        for (first, last) in [
            (10, 20),
            (30, 40),
            (21, 29),
            (5, 12),
            (0, 0),
            (u128::MAX, u128::MAX),
        ] {
            set.insert(first, last);
        }
        assert_eq!(
            set.iter().collect::<Vec<_>>(),
            [(0, 0), (5, 40), (u128::MAX, u128::MAX)]
        );
    }
}
