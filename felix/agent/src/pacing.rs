//! When something that changed may be written.
//!
//! Owns the rule "at once after a quiet time, else no more often than the interval, and never
//! without a change". Does not own what is written.
//!
//! A change may be of lesser weight: counts that go up and down for as long as somebody far away is
//! busy. It is written after the interval too, but the more such writes follow each other, the longer
//! each of them waits.

use std::time::{Duration, Instant};

/// Spaces writes of one thing.
#[derive(Clone, Debug)]
pub(crate) struct Pacing {
    interval: Duration,
    last: Option<Instant>,
    pending: Pending,
    /// How often the interval has doubled for drifts.
    patience: u32,
}

/// What there is to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pending {
    Nothing,
    Drift,
    Change,
}

/// Drifts never wait for more than eight intervals.
const MOST_PATIENT: u32 = 3;

impl Pacing {
    /// Nothing to write yet; at least `interval` between writes.
    pub(crate) fn new(interval: Duration) -> Pacing {
        Pacing {
            interval,
            last: None,
            pending: Pending::Nothing,
            patience: 0,
        }
    }

    /// The same, with the interval counted from `now` on for the first write too.
    pub(crate) fn not_before(now: Instant, interval: Duration) -> Pacing {
        Pacing {
            last: Some(now),
            ..Pacing::new(interval)
        }
    }

    /// The thing differs from what was written.
    pub(crate) fn changed(&mut self) {
        self.pending = Pending::Change;
    }

    /// It differs in nothing but counts.
    pub(crate) fn drifted(&mut self) {
        self.pending = Pending::Drift;
    }

    /// The thing is again as it was written.
    pub(crate) fn settled(&mut self) {
        self.pending = Pending::Nothing;
    }

    /// When to write, if there is anything to write. May lie in the past.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        let wait = match self.pending {
            Pending::Nothing => return None,
            Pending::Drift => self.drift(),
            Pending::Change => self.interval,
        };
        Some(self.last.map_or(now, |last| last + wait))
    }

    /// Whether to write now; the caller does so.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let take = self.due(now).is_some_and(|due| due <= now);
        if take {
            let quiet = self.last.is_none_or(|last| now - last >= 2 * self.drift());
            self.patience = match self.pending {
                Pending::Drift if !quiet => (self.patience + 1).min(MOST_PATIENT),
                _ => 0,
            };
            self.last = Some(now);
            self.pending = Pending::Nothing;
        }
        take
    }

    fn drift(&self) -> Duration {
        self.interval * (1 << self.patience)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    /// Seconds of the writes within `until` seconds of a thing that `weigh` judges each second.
    fn writes(until: u64, weigh: impl Fn(u64, &mut Pacing)) -> Vec<u64> {
        let start = Instant::now();
        let mut pacing = Pacing::new(INTERVAL);
        let mut written = Vec::new();
        for second in 0..until {
            weigh(second, &mut pacing);
            if pacing.take(start + Duration::from_secs(second)) {
                written.push(second);
            }
        }
        written
    }

    #[test]
    fn the_first_change_is_written_at_once_and_the_next_waits() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pacing = Pacing::new(INTERVAL);
        assert_eq!(pacing.due(at(0)), None);
        assert!(!pacing.take(at(0)));
        pacing.changed();
        assert!(pacing.take(at(1)));
        pacing.changed();
        assert_eq!(pacing.due(at(2)), Some(at(6)));
        assert!(!pacing.take(at(2)));
        assert!(pacing.take(at(6)));
        assert_eq!(pacing.due(at(60)), None, "a steady state writes nothing");
    }

    #[test]
    fn a_change_that_is_taken_back_is_not_written() {
        let mut pacing = Pacing::new(INTERVAL);
        pacing.changed();
        pacing.settled();
        assert!(!pacing.take(Instant::now()));
    }

    #[test]
    fn counts_that_never_rest_are_written_less_and_less_often() {
        let never_rest = writes(140, |_, pacing| pacing.drifted());
        assert_eq!(never_rest, [0, 5, 15, 35, 75, 115]);
        let changes = writes(21, |_, pacing| pacing.changed());
        assert_eq!(changes, [0, 5, 10, 15, 20]);
    }

    #[test]
    fn a_change_does_not_wait_for_counts_and_makes_them_wait_less() {
        let session_at_40 = writes(70, |second, pacing| match second {
            40 => pacing.changed(),
            _ => pacing.drifted(),
        });
        assert_eq!(session_at_40, [0, 5, 15, 35, 40, 45, 55]);
    }

    #[test]
    fn counts_that_have_rested_are_written_at_once() {
        let rest_from_36_to_160 = writes(180, |second, pacing| match second {
            36..160 => pacing.settled(),
            _ => pacing.drifted(),
        });
        assert_eq!(rest_from_36_to_160, [0, 5, 15, 35, 160, 165, 175]);
    }
}
