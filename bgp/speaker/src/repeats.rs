//! Lines of the log that others can cause as often as they like.
//!
//! Owns their pace: the first is written at once, then one for all of a while. Does not own the words,
//! nor the counters, which have each. No clock.

use std::time::{Duration, Instant};

/// How long after a line the next of its kind comes at the earliest.
const PAUSE: Duration = Duration::from_secs(30);

/// A line to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line<T> {
    /// How often it happened since the last line, this time included.
    pub(crate) times: u64,
    /// What the last time was about.
    pub(crate) what: T,
}

/// Lines of one kind about one subject.
#[derive(Clone, Debug)]
pub(crate) struct Repeats<T> {
    /// Nothing is written before.
    next: Option<Instant>,
    withheld: Option<Line<T>>,
}

impl<T> Default for Repeats<T> {
    fn default() -> Self {
        Self {
            next: None,
            withheld: None,
        }
    }
}

impl<T> Repeats<T> {
    /// It has happened; what is to be written now, if anything.
    pub(crate) fn happened(&mut self, now: Instant, what: T) -> Option<Line<T>> {
        let before = self.rest().map_or(0, |withheld| withheld.times);
        self.withheld = Some(Line {
            times: before + 1,
            what,
        });
        self.handle_timeout(now)
    }

    /// When [`Self::handle_timeout`] has something to write; `None` while nothing is withheld.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.withheld.as_ref().and(self.next)
    }

    /// What is to be written now, if anything.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Option<Line<T>> {
        if self.next.is_some_and(|next| now < next) {
            return None;
        }
        let line = self.withheld.take()?;
        self.next = Some(now + PAUSE);
        Some(line)
    }

    /// What has not been written, for whoever writes nothing more.
    pub(crate) fn rest(&mut self) -> Option<Line<T>> {
        self.withheld.take()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_is_told_at_once_and_then_how_many_there_were() {
        let start = Instant::now();
        let at = |secs| start + Duration::from_secs(secs);
        let line = |times, what| Some(Line { times, what });
        let mut repeats = Repeats::default();
        assert_eq!(repeats.happened(at(0), 'a'), line(1, 'a'));
        assert_eq!(repeats.poll_timeout(), None, "nothing is withheld");
        assert_eq!(repeats.happened(at(1), 'b'), None);
        assert_eq!(repeats.happened(at(29), 'c'), None);
        assert_eq!(repeats.poll_timeout(), Some(at(30)));
        assert_eq!(repeats.handle_timeout(at(29)), None);
        assert_eq!(repeats.handle_timeout(at(30)), line(2, 'c'));
        assert_eq!(repeats.handle_timeout(at(61)), None);
        // After a while of nothing it is news again.
        assert_eq!(repeats.happened(at(62), 'd'), line(1, 'd'));
        assert_eq!(repeats.happened(at(63), 'e'), None);
        // Nobody need have looked at the time.
        assert_eq!(repeats.happened(at(99), 'f'), line(2, 'f'));
        assert_eq!(repeats.happened(at(100), 'g'), None);
        assert_eq!(repeats.rest(), line(1, 'g'));
        assert_eq!(repeats.rest(), None);
    }

    proptest! {
        #[test]
        fn each_is_counted_once_and_lines_keep_their_distance(
            steps in prop::collection::vec((0_u64..20, any::<bool>()), 1..200)
        ) {
            let mut now = Instant::now();
            let (mut repeats, mut happened, mut told) = (Repeats::default(), 0, 0);
            let mut last: Option<Instant> = None;
            for (pause, happens) in steps {
                now += Duration::from_secs(pause);
                let line = if happens {
                    happened += 1;
                    repeats.happened(now, happened)
                } else {
                    repeats.handle_timeout(now)
                };
                let Some(line) = line else { continue };
                prop_assert!(last.is_none_or(|last| now - last >= PAUSE));
                last = Some(now);
                told += line.times;
                prop_assert_eq!(line.what, happened, "the last time is what is told");
            }
            told += repeats.rest().map_or(0, |rest| rest.times);
            prop_assert_eq!(told, happened);
        }
    }
}
