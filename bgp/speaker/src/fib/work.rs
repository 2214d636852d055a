//! What a FIB has done, counted while it does it.
//!
//! Owns the counts that a FIB adds to and the speaker shows. Does not own the kernel, nor the times at
//! which they are read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::snapshot::{RepairSnapshot, WriteSnapshot};
use crate::status::Histogram;

/// Counts of one FIB since its start.
#[derive(Debug, Default)]
pub struct FibWork {
    writes: [Histogram; WriteOutcome::ALL.len()],
    repairs: [AtomicU64; Drift::ALL.len()],
}

/// What became of a batch of writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutcome {
    /// The kernel acknowledged all of it.
    Acknowledged,
    /// It refused some of it.
    Refused,
    /// Nothing is known: the way to the kernel broke.
    Failed,
}

/// What somebody else did to a route, so that it had to be put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drift {
    /// It was gone.
    Missing,
    /// It led elsewhere, or another one stood in its place.
    Replaced,
    /// It carried our mark, and was not ours.
    Stray,
    /// A next hop or a group of next hops was gone, or was another one.
    NextHop,
}

impl WriteOutcome {
    const ALL: [Self; 3] = [Self::Acknowledged, Self::Refused, Self::Failed];

    /// The word for labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Acknowledged => "acknowledged",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

impl Drift {
    /// Every kind.
    pub const ALL: [Self; 4] = [Self::Missing, Self::Replaced, Self::Stray, Self::NextHop];

    /// The word for labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Replaced => "replaced",
            Self::Stray => "stray",
            Self::NextHop => "next-hop",
        }
    }
}

impl FibWork {
    /// A batch has been written in this time.
    pub fn wrote(&self, outcome: WriteOutcome, took: Duration) {
        self.writes[outcome as usize].observe(took);
    }

    /// Something has been put right.
    pub fn repaired(&self, drift: Drift) {
        self.repairs[drift as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How much of a kind has been put right.
    pub fn repairs(&self, drift: Drift) -> u64 {
        self.repairs[drift as usize].load(Ordering::Relaxed)
    }

    /// How long batches took, by what became of them.
    pub fn writes(&self) -> Vec<WriteSnapshot> {
        let all = WriteOutcome::ALL.into_iter();
        all.map(|outcome| WriteSnapshot {
            outcome: outcome.word().to_owned(),
            took: self.writes[outcome as usize].snapshot(),
        })
        .collect()
    }

    pub(crate) fn all_repairs(&self) -> Vec<RepairSnapshot> {
        let all = Drift::ALL.into_iter();
        all.map(|drift| RepairSnapshot {
            kind: drift.word().to_owned(),
            count: self.repairs(drift),
        })
        .collect()
    }
}
