//! Intervals in microseconds, and the jitter that is taken off them.

use std::fmt;
use std::time::Duration;

use super::Invalid;

/// A time between packets: microseconds in 32 bits, as on the wire.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval(u32);

impl Interval {
    /// "None, please" in Required Min RX Interval; reserved in Desired Min TX Interval.
    pub const ZERO: Self = Self(0);
    /// RFC 5880 §6.8.3: the shortest interval to propose while a session is not up, so that what
    /// fails does not also flood.
    pub const SLOW: Self = Self(1_000_000);

    /// From the wire, in microseconds.
    pub const fn from_micros(micros: u32) -> Self {
        Self(micros)
    }

    /// In microseconds.
    pub const fn as_micros(self) -> u32 {
        self.0
    }

    /// As a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_micros(self.0 as u64)
    }

    /// Whether it is [`Self::ZERO`].
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

impl TryFrom<Duration> for Interval {
    type Error = Invalid;

    /// Whole microseconds; what lies below is cut off.
    fn try_from(duration: Duration) -> Result<Self, Invalid> {
        match u32::try_from(duration.as_micros()) {
            Ok(micros @ 1..) => Ok(Self(micros)),
            _ => Err(Invalid::Interval(duration)),
        }
    }
}

impl fmt::Debug for Interval {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.as_duration(), f)
    }
}

/// A small deterministic source of chance (SplitMix64): the same seed gives the same session in
/// every replay.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// RFC 5880 §6.8.7: the wait before the next packet is 75 to 100 % of the interval, and with a
    /// detect multiplier of one at most 90 %, else the peer's detection time would run out between
    /// two packets.
    pub(super) fn jitter(&mut self, interval: Interval, detect_mult: u8) -> Duration {
        let width = if detect_mult == 1 { 15 } else { 25 };
        let shortest = u64::from(interval.0) * 75 / 100;
        let spread = (u64::from(interval.0) * width / 100).max(1);
        // Never nothing, however short the interval: a timer must not be due again at once.
        Duration::from_micros((shortest + self.next() % spread).max(1))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn jitter_takes_off_up_to_a_quarter_and_at_least_a_tenth_where_one_loss_is_fatal(
            micros in 4_u32..,
            seed: u64,
            mult in 1_u8..,
        ) {
            let interval = Interval::from_micros(micros);
            let mut chance = Chance::new(seed);
            for _ in 0..16 {
                let wait = chance.jitter(interval, mult).as_micros() as u64;
                prop_assert!(wait >= u64::from(micros) * 75 / 100);
                prop_assert!(wait < u64::from(micros));
                prop_assert!(mult != 1 || wait <= u64::from(micros) * 90 / 100);
            }
        }
    }

    #[test]
    fn jitter_differs_from_packet_to_packet_and_covers_its_range() {
        let interval = Interval::from_micros(100_000);
        let mut chance = Chance::new(7);
        let waits: Vec<_> = (0..1000).map(|_| chance.jitter(interval, 3)).collect();
        assert!(waits.iter().min().unwrap() < &Duration::from_micros(75_500));
        assert!(waits.iter().max().unwrap() > &Duration::from_micros(99_500));
    }

    #[test]
    fn an_interval_is_one_microsecond_to_4294_seconds() {
        assert!(Interval::try_from(Duration::ZERO).is_err());
        assert!(Interval::try_from(Duration::from_nanos(999)).is_err());
        assert!(Interval::try_from(Duration::from_secs(4295)).is_err());
        let interval = Interval::try_from(Duration::from_millis(300)).unwrap();
        assert_eq!(interval.as_micros(), 300_000);
    }
}
