//! Pace: jitter and the waits between dials.

use std::time::Duration;

/// The first wait after a failed dial.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A small deterministic source of jitter: the same seed gives the same timers in every replay.
#[derive(Clone, Debug)]
pub(super) struct Jitter(u64);

impl Jitter {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// RFC 4271 §10: between three quarters of `duration` and the whole of it.
    pub(super) fn apply(&mut self, duration: Duration) -> Duration {
        let part = u32::try_from(self.next() >> 40).expect("24 bits fit in 32");
        let share = 0.75 + 0.25 * f64::from(part) / f64::from(1 << 24);
        duration.mul_f64(share)
    }

    /// One step of SplitMix64, which needs no state but a counter.
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// Waits that grow by half each time: a peer that is briefly away is found within a second, one
/// that refuses us is not stormed.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(super) fn new(longest: Duration) -> Self {
        let longest = longest.max(FIRST_WAIT);
        Self {
            next: FIRST_WAIT,
            longest,
        }
    }

    pub(super) fn set_longest(&mut self, longest: Duration) {
        self.longest = longest.max(FIRST_WAIT);
        self.next = self.next.min(self.longest);
    }

    pub(super) fn reset(&mut self) {
        self.next = FIRST_WAIT;
    }

    /// The wait before the next dial.
    pub(super) fn wait(&mut self, jitter: &mut Jitter) -> Duration {
        let wait = jitter.apply(self.next);
        self.next = (self.next + self.next / 2).min(self.longest);
        wait
    }
}
