//! How long things took, by count.
//!
//! Owns the bounds, which are the same everywhere so that two histograms can be laid over each other.
//! Does not own what is measured.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Upper bounds of all buckets but the last, in microseconds: from one write to the kernel up to a
/// full table that waits for it.
pub const BOUNDS_US: [u64; 16] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 10_000_000, 60_000_000,
];

/// Durations, counted by those who measure and read by those who ask; neither waits for the other.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By bound; the last one counts what is longer than all of them.
    counts: [AtomicU64; BOUNDS_US.len() + 1],
    sum_us: AtomicU64,
}

impl Histogram {
    /// Counts one that took this long.
    pub fn observe(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.partition_point(|bound| *bound < us);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum_us.fetch_add(us, Ordering::Relaxed);
    }

    /// As it stands.
    pub fn snapshot(&self) -> HistogramSnapshot {
        let bounds = BOUNDS_US.iter().copied().map(Some).chain([None]);
        let buckets = bounds.zip(&self.counts).map(|(up_to_us, count)| Bucket {
            up_to_us,
            count: count.load(Ordering::Relaxed),
        });
        HistogramSnapshot {
            buckets: buckets.collect(),
            sum_us: self.sum_us.load(Ordering::Relaxed),
        }
    }
}

/// A histogram of durations at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistogramSnapshot {
    /// Ascending. Each counts what is longer than the bound before it.
    pub buckets: Vec<Bucket>,
    /// All durations together, in microseconds.
    pub sum_us: u64,
}

/// Durations between two bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The longest, in microseconds; absent where there is no bound.
    pub up_to_us: Option<u64>,
    /// How many.
    pub count: u64,
}

impl HistogramSnapshot {
    /// How many there are.
    pub fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_first_bucket_that_holds_it() {
        let histogram = Histogram::default();
        for us in [0, 100, 101, 60_000_000, 60_000_001] {
            histogram.observe(Duration::from_micros(us));
        }
        let snapshot = histogram.snapshot();
        let at = |up_to_us| {
            let found = snapshot.buckets.iter().find(|it| it.up_to_us == up_to_us);
            found.unwrap().count
        };
        assert_eq!(at(Some(100)), 2);
        assert_eq!(at(Some(250)), 1);
        assert_eq!(at(Some(60_000_000)), 1);
        assert_eq!(at(None), 1);
        assert_eq!(snapshot.count(), 5);
        assert_eq!(snapshot.sum_us, 120_000_202);
        assert!(BOUNDS_US.is_sorted());
    }
}
