//! When something that changed may be written.
//!
//! Owns the rule "at once after a quiet time, else no more often than the interval, and never
//! without a change". Does not own what is written.

use std::time::{Duration, Instant};

/// Spaces writes of one thing.
#[derive(Clone, Debug)]
pub(crate) struct Pacing {
    interval: Duration,
    last: Option<Instant>,
    pending: bool,
}

impl Pacing {
    /// Nothing to write yet; at least `interval` between writes.
    pub(crate) fn new(interval: Duration) -> Pacing {
        Pacing {
            interval,
            last: None,
            pending: false,
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
        self.pending = true;
    }

    /// The thing is again as it was written.
    pub(crate) fn settled(&mut self) {
        self.pending = false;
    }

    /// When to write, if there is anything to write. May lie in the past.
    pub(crate) fn due(&self, now: Instant) -> Option<Instant> {
        self.pending
            .then(|| self.last.map_or(now, |last| last + self.interval))
    }

    /// Whether to write now; the caller does so.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let take = self.due(now).is_some_and(|due| due <= now);
        if take {
            self.last = Some(now);
            self.pending = false;
        }
        take
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_change_is_written_at_once_and_the_next_waits() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pacing = Pacing::new(Duration::from_secs(5));
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
        let mut pacing = Pacing::new(Duration::from_secs(5));
        pacing.changed();
        pacing.settled();
        assert!(!pacing.take(Instant::now()));
    }
}
