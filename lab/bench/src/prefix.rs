//! IPv4 prefixes as the generator holds them, and the numbers by which it knows them.
//!
//! Owns the shape that makes millions of look-ups a second cheap. Does not own which prefixes there are
//! ([`crate::routes`]).

use std::fmt;
use std::net::Ipv4Addr;

/// An IPv4 prefix in one word: the address above, the length in the low octet. Host bits are zero.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Prefix(u64);

impl Prefix {
    /// The prefix of `len` bits, at most 32, that holds `address`; host bits are cleared.
    pub fn new(address: u32, len: u8) -> Self {
        debug_assert!(len <= 32, "a prefix of {len} bits");
        Self(u64::from(address & mask(len)) << 8 | u64::from(len))
    }

    /// The lowest address.
    pub fn address(self) -> u32 {
        (self.0 >> 8) as u32
    }

    /// Significant bits.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a length in bits, not a count of items"
    )]
    pub fn len(self) -> u8 {
        self.0 as u8
    }

    /// An address inside: the second one where there are two.
    pub fn host(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address() | u32::from(self.len() < 32))
    }

    /// Whether `other` is this prefix or lies inside.
    pub fn covers(self, other: Self) -> bool {
        self.len() <= other.len() && other.address() & mask(self.len()) == self.address()
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from_bits(self.address()), self.len())
    }
}

impl fmt::Debug for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn mask(len: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(len)).unwrap_or(0)
}

/// From prefix to number: open addressing, one word for each slot, so that the table of a case stays in cache.
#[derive(Debug)]
pub struct PrefixIndex {
    /// Prefix above, number below.
    slots: Vec<u64>,
    shift: u32,
}

/// Numbers take the low bits of a slot: there are fewer than 67 million prefixes.
const NUMBER_BITS: u32 = 26;
/// No prefix is 63 bits long.
const EMPTY: u64 = u64::MAX;

impl PrefixIndex {
    /// Numbers `prefixes` by their place. They are distinct.
    ///
    /// # Panics
    /// There are too many.
    pub fn new(prefixes: &[Prefix]) -> Self {
        assert!(prefixes.len() < 1 << NUMBER_BITS, "too many prefixes");
        // Less than half full, so that a look-up seldom needs a second slot.
        let capacity = (prefixes.len() * 2 + 2).next_power_of_two();
        let mut index = Self {
            slots: vec![EMPTY; capacity],
            shift: 64 - capacity.trailing_zeros(),
        };
        for (number, prefix) in prefixes.iter().enumerate() {
            let mut place = index.start(key(*prefix));
            while index.slots[place] != EMPTY {
                place = (place + 1) & (capacity - 1);
            }
            index.slots[place] = key(*prefix) << NUMBER_BITS | number as u64;
        }
        index
    }

    /// The number of `prefix`, if it has one.
    #[inline]
    pub fn get(&self, prefix: Prefix) -> Option<u32> {
        let key = key(prefix);
        let mut place = self.start(key);
        loop {
            let slot = self.slots[place];
            if slot >> NUMBER_BITS == key {
                return Some((slot & ((1 << NUMBER_BITS) - 1)) as u32);
            }
            if slot == EMPTY {
                return None;
            }
            place = (place + 1) & (self.slots.len() - 1);
        }
    }

    #[inline]
    fn start(&self, key: u64) -> usize {
        (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> self.shift) as usize
    }
}

/// The prefix in 38 bits: 32 of address, 6 of length.
#[inline]
fn key(prefix: Prefix) -> u64 {
    u64::from(prefix.address()) << 6 | u64::from(prefix.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn host_bits_are_cleared_and_hosts_lie_inside() {
        const CASES: &[(u32, u8, &str, &str)] = &[
            (0x0a01_0203, 8, "10.0.0.0/8", "10.0.0.1"),
            (0x0a01_0203, 0, "0.0.0.0/0", "0.0.0.1"),
            (0x0a01_0203, 32, "10.1.2.3/32", "10.1.2.3"),
            (0x0a01_0203, 31, "10.1.2.2/31", "10.1.2.3"),
        ];
        for (address, len, text, host) in CASES {
            let prefix = Prefix::new(*address, *len);
            assert_eq!(prefix.to_string(), *text);
            assert_eq!(prefix.host().to_string(), *host);
            assert!(prefix.covers(prefix));
        }
        assert!(Prefix::new(0x0a00_0000, 8).covers(Prefix::new(0x0a01_0000, 16)));
        assert!(!Prefix::new(0x0a01_0000, 16).covers(Prefix::new(0x0a00_0000, 8)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn every_prefix_has_its_number_and_no_other_has_one(
            known in prop::collection::hash_set((any::<u32>(), 0_u8..=32), 0..300),
            asked in prop::collection::vec((any::<u32>(), 0_u8..=32), 0..100),
        ) {
            let mut prefixes: Vec<Prefix> = known.iter().map(|(a, l)| Prefix::new(*a, *l)).collect();
            prefixes.sort_unstable();
            prefixes.dedup();
            let index = PrefixIndex::new(&prefixes);
            let oracle: HashMap<Prefix, u32> = prefixes.iter().copied().zip(0..).collect();
            let asked = asked.iter().map(|(a, l)| Prefix::new(*a, *l));
            for prefix in prefixes.iter().copied().chain(asked) {
                prop_assert_eq!(index.get(prefix), oracle.get(&prefix).copied());
            }
        }
    }
}
