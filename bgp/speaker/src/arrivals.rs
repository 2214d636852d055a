//! How long it takes from an UPDATE to the kernel.
//!
//! Owns when the UPDATE came that is behind each request to the FIB, for as long as that may be asked.
//! Does not own requests: it knows them by their numbers, which grow, and keeps a number per *run* of
//! them. What it holds is bounded, and nothing is kept per route.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use caracal_bgp_core::types::Family;

use crate::snapshot::UpdateToFibSnapshot;
use crate::status::Histogram;

/// Runs that are kept; more than there can be within [`GRAIN`] and [`PRECISION`] of each other unless
/// routes keep changing for other reasons in between.
const RUNS: usize = 2048;
/// UPDATEs that come within this time of each other count as one.
const GRAIN: Duration = Duration::from_millis(1);
/// Where there are too many runs, those become one that differ by less than this part of their age: no
/// time that is told is wrong by more.
const PRECISION: u32 = 16;

/// Requests that one thing caused: from behind the run before up to `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    /// Number of the last one.
    pub(crate) last: u64,
    /// When the UPDATE came; `None` where something else was the cause.
    pub(crate) arrived: Option<Instant>,
}

/// From UPDATEs to acknowledgements, by family. The RIB's thread says what it asks for, whoever
/// hears the FIB's answers says what has come.
#[derive(Debug, Default)]
pub(crate) struct UpdateToFib {
    arrivals: Mutex<Arrivals>,
    took: [Histogram; Family::ALL.len()],
}

impl UpdateToFib {
    /// The FIB is about to be asked. Runs in the order of their numbers.
    pub(crate) fn asked(&self, now: Instant, runs: impl IntoIterator<Item = Run>) {
        let mut arrivals = self.arrivals();
        runs.into_iter().for_each(|run| arrivals.push(now, run));
    }

    /// The FIB has these requests, for the first time.
    pub(crate) fn acknowledged(&self, now: Instant, requests: &[(Family, u64)]) {
        let arrivals = self.arrivals();
        for (family, request) in requests {
            if let Some(arrived) = arrivals.of(*request) {
                let took = now.saturating_duration_since(arrived);
                self.took[family.index()].observe(took);
            }
        }
    }

    pub(crate) fn snapshot(&self) -> Vec<UpdateToFibSnapshot> {
        let families = Family::ALL.into_iter();
        families
            .map(|family| UpdateToFibSnapshot {
                family,
                took: self.took[family.index()].snapshot(),
            })
            .collect()
    }

    fn arrivals(&self) -> MutexGuard<'_, Arrivals> {
        // Every change is whole but for a run or two, which cost a measurement.
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Arrivals {
    runs: VecDeque<Kept>,
    /// Nothing is known any more of requests up to this one.
    forgotten: u64,
}

/// Runs that count as one.
#[derive(Clone, Copy, Debug)]
struct Kept {
    last: u64,
    /// The earliest and the latest of them: all count as the earliest.
    arrived: Option<(Instant, Instant)>,
}

impl Arrivals {
    fn push(&mut self, now: Instant, run: Run) {
        let next = Kept {
            last: run.last,
            arrived: run.arrived.map(|arrived| (arrived, arrived)),
        };
        if let Some(back) = self.runs.back_mut()
            && back.takes(&next, |_| GRAIN)
        {
            return;
        }
        if self.runs.len() >= RUNS {
            self.thin(now);
        }
        self.runs.push_back(next);
    }

    /// When the UPDATE came that caused a request, if one did.
    fn of(&self, request: u64) -> Option<Instant> {
        let at = self.runs.partition_point(|run| run.last < request);
        let run = self.runs.get(at).filter(|_| request > self.forgotten)?;
        run.arrived.map(|(earliest, _)| earliest)
    }

    /// Makes room for as many runs again.
    fn thin(&mut self, now: Instant) {
        let share = |arrived| now.saturating_duration_since(arrived) / PRECISION;
        let mut kept: VecDeque<Kept> = VecDeque::with_capacity(RUNS);
        for run in self.runs.drain(..) {
            let back = kept.back_mut();
            if !back.is_some_and(|back| back.takes(&run, share)) {
                kept.push_back(run);
            }
        }
        while kept.len() > RUNS / 2 {
            // The oldest, which has most likely been answered for.
            if let Some(run) = kept.pop_front() {
                self.forgotten = run.last;
            }
        }
        self.runs = kept;
    }
}

impl Kept {
    /// Takes in the run behind it if that came late by no more than `within` says of our arrival.
    fn takes(&mut self, next: &Self, within: impl Fn(Instant) -> Duration) -> bool {
        let alike = match (&mut self.arrived, next.arrived) {
            (None, None) => true,
            (Some((earliest, latest)), Some((first, last)))
                if first >= *earliest && last <= *earliest + within(*earliest) =>
            {
                *latest = (*latest).max(last);
                true
            }
            _ => false,
        };
        if alike {
            self.last = next.last;
        }
        alike
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn milliseconds(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn an_answer_counts_from_the_update_that_caused_it_and_others_do_not_count() {
        let start = Instant::now();
        let seen = UpdateToFib::default();
        let run = |last, after: Option<u64>| Run {
            last,
            arrived: after.map(|after| start + milliseconds(after)),
        };
        seen.asked(start, [run(3, None), run(5, Some(10)), run(6, None)]);
        seen.asked(start, [run(9, Some(40))]);
        let answered = [1, 3, 4, 5, 6, 9, 10].map(|request| (Family::Ipv4Unicast, request));
        seen.acknowledged(start + milliseconds(100), &answered);
        let [v4, v6] = seen.snapshot().try_into().unwrap();
        assert_eq!(v4.took.count(), 3, "of 4, 5 and 9");
        assert_eq!(v4.took.sum_us, 2 * 90_000 + 60_000);
        assert_eq!(v6.took.count(), 0);
    }

    #[test]
    fn a_flood_that_nobody_answers_takes_bounded_memory() {
        let start = Instant::now();
        let mut arrivals = Arrivals::default();
        for request in 1..=200_000 {
            // An UPDATE every two milliseconds for seven minutes, and other causes in between.
            let now = start + milliseconds(2 * request);
            let arrived = (request % 50 != 0).then_some(now);
            let last = request;
            arrivals.push(now, Run { last, arrived });
            assert!(arrivals.runs.len() <= RUNS);
        }
    }

    proptest! {
        /// However many UPDATEs there are, a time that is told is wrong by a sixteenth and a grain.
        #[test]
        fn times_are_told_with_the_precision_promised(
            gaps in proptest::collection::vec((0_u64..5_000, 1_u64..4), 1..6_000),
            late in 0_u64..100_000,
        ) {
            let start = Instant::now();
            let mut arrivals = Arrivals::default();
            let mut true_arrivals = Vec::new();
            let (mut now, mut last) = (start, 0);
            for (gap, requests) in gaps {
                now += milliseconds(gap);
                last += requests;
                true_arrivals.resize(usize::try_from(last).unwrap(), now);
                arrivals.push(now, Run { last, arrived: Some(now) });
            }
            let end = now + milliseconds(late);
            for (request, arrived) in (1..).zip(true_arrivals) {
                let told = arrivals.of(request);
                prop_assert!(told.is_some(), "{request} forgotten");
                let (took, told) = (end - arrived, end - told.unwrap());
                prop_assert!(told >= took, "{told:?} < {took:?}");
                prop_assert!(told <= took + told / PRECISION + GRAIN, "{told:?} > {took:?}");
            }
        }
    }
}
