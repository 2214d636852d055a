//! One copy of each value, however many routes carry it.
//!
//! Owns the sharing of path attributes, as they came and as they go out. Does not own the routes: a
//! value lives as long as one of them holds it.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// Values that nobody holds may make up at most this many before they are swept, so that small
/// tables do not sweep on every change.
const SWEEP_SLACK: usize = 64;

/// Interns values.
#[derive(Debug)]
pub(super) struct Interner<T> {
    values: HashSet<Arc<T>>,
    live_at_last_sweep: usize,
}

impl<T: Eq + Hash> Interner<T> {
    /// Holds nothing.
    pub(super) fn new() -> Self {
        Self {
            values: HashSet::new(),
            live_at_last_sweep: 0,
        }
    }

    /// The one copy of `value`.
    pub(super) fn intern(&mut self, value: T) -> Arc<T> {
        if let Some(shared) = self.values.get(&value) {
            return Arc::clone(shared);
        }
        // Doubling before each sweep keeps its cost constant per insertion.
        if self.values.len() >= 2 * self.live_at_last_sweep + SWEEP_SLACK {
            self.sweep();
        }
        let shared = Arc::new(value);
        self.values.insert(Arc::clone(&shared));
        shared
    }

    /// Forgets the values that nobody holds.
    pub(super) fn sweep(&mut self) {
        self.values.retain(|value| Arc::strong_count(value) > 1);
        self.values.shrink_to(2 * self.values.len());
        self.live_at_last_sweep = self.values.len();
    }

    /// How many values are kept, held or not.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }
}
