//! Chance that can be repeated: the same seed gives the same world.

use std::time::Duration;

/// SplitMix64: good enough to choose between events, and its state is one number.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 where that is 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        let wide = u128::from(self.next()) * bound as u128;
        usize::try_from(wide >> 64).unwrap()
    }

    /// A number of `least..=most`.
    pub(crate) fn between(&mut self, least: usize, most: usize) -> usize {
        least + self.below(most - least + 1)
    }

    /// True `percent` times of a hundred.
    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())].clone()
    }

    /// Each of `of` with a chance of `percent`.
    pub(crate) fn some<T: Clone, C: FromIterator<T>>(&mut self, of: &[T], percent: usize) -> C {
        of.iter()
            .filter(|_| self.chance(percent))
            .cloned()
            .collect()
    }

    /// A time of `range`, in microseconds.
    pub(crate) fn micros(&mut self, range: (u64, u64)) -> Duration {
        let spread = usize::try_from(range.1 - range.0).unwrap();
        Duration::from_micros(range.0 + self.below(spread + 1) as u64)
    }

    /// A time of `least..=most` milliseconds.
    pub(crate) fn millis(&mut self, least: u64, most: u64) -> Duration {
        self.micros((least * 1000, most * 1000))
    }
}
