//! Which prefixes changed, in order, for readers that each go at their own pace.
//!
//! Owns positions and the bound on memory. Does not own what the change was: a reader looks that
//! up in the table when it gets there, so a prefix that changed often costs a slow reader once.

use std::collections::VecDeque;

use crate::rib::table::DestId;

/// Changes kept beyond twice the size of the table, so that small tables do not push readers out.
const SLACK: usize = 1024;

/// Destinations in the order of their last changes.
///
/// A destination keeps the low half of its latest position itself ([`Journal::append`]): an entry
/// counts only where that still names it. The journal is shorter than the 2^32 positions after
/// which halves repeat.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Position of the first entry.
    base: u64,
    entries: VecDeque<DestId>,
}

impl Journal {
    /// Notes that `dest` changed; the answer is what its slot has to keep as its latest position.
    pub(super) fn append(&mut self, dest: DestId) -> u32 {
        let position = low_half(self.end());
        self.entries.push_back(dest);
        position
    }

    /// The position behind the last change.
    pub(super) fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The first position that still can be read.
    pub(super) fn start(&self) -> u64 {
        self.base
    }

    /// The next destination at or behind `position` whose entry is its latest, and the position
    /// behind it. `latest` gives what the slot of a destination keeps.
    pub(super) fn next(
        &self,
        mut position: u64,
        latest: impl Fn(DestId) -> u32,
    ) -> Option<(DestId, u64)> {
        while position < self.end() {
            let offset = usize::try_from(position.checked_sub(self.base)?).ok()?;
            let dest = *self.entries.get(offset)?;
            if latest(dest) == low_half(position) {
                return Some((dest, position + 1));
            }
            position += 1;
        }
        None
    }

    /// Forgets everything before `position`, and whatever exceeds the bound for a table of
    /// `table_size` prefixes: a reader that stood there has to sweep the table instead.
    pub(super) fn trim(&mut self, position: u64, table_size: usize) {
        let bound = 2 * table_size + SLACK;
        let excess = self.entries.len().saturating_sub(bound) as u64;
        let until = position.max(self.base + excess).min(self.end());
        let gone = usize::try_from(until - self.base).unwrap_or(usize::MAX);
        self.entries.drain(..gone);
        self.base = until;
        if self.entries.len() < self.entries.capacity() / 8 {
            self.entries.shrink_to(SLACK.max(2 * self.entries.len()));
        }
    }

    /// How many entries are kept.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

fn low_half(position: u64) -> u32 {
    (position & u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A journal and what the slots of seven destinations keep.
    #[derive(Default)]
    struct Kept {
        journal: Journal,
        latest: [Option<u32>; 7],
    }

    impl Kept {
        fn append(&mut self, dest: u32) {
            let position = self.journal.append(DestId(dest));
            self.latest[dest as usize] = Some(position);
        }

        fn read_from(&self, mut position: u64) -> Vec<u32> {
            let latest = |dest: DestId| self.latest[dest.0 as usize].unwrap();
            let mut read = Vec::new();
            while let Some((dest, next)) = self.journal.next(position, latest) {
                read.push(dest.0);
                position = next;
            }
            read
        }
    }

    #[test]
    fn a_prefix_that_changed_often_is_read_once_at_its_last_change() {
        let mut kept = Kept::default();
        for dest in [1, 2, 1, 3, 1] {
            kept.append(dest);
        }
        assert_eq!(kept.read_from(0), [2, 3, 1]);
        assert_eq!(kept.read_from(4), [1]);
        assert_eq!(kept.read_from(kept.journal.end()), [0; 0]);
    }

    #[test]
    fn memory_is_bounded_by_the_table_and_not_by_churn() {
        let mut kept = Kept::default();
        for round in 0..100_000_u32 {
            kept.append(round % 7);
            kept.journal.trim(0, 7);
        }
        assert!(kept.journal.len() <= 2 * 7 + SLACK);
        assert_eq!(kept.journal.end(), 100_000);
        kept.journal.trim(kept.journal.end(), 7);
        assert_eq!(kept.journal.len(), 0);
        assert_eq!(kept.journal.end(), 100_000);
        assert!(kept.journal.entries.capacity() <= 2 * SLACK);
    }

    #[test]
    fn entries_older_than_the_start_cannot_be_read() {
        let mut kept = Kept::default();
        for dest in [1, 2, 3] {
            kept.append(dest);
        }
        kept.journal.trim(2, 7);
        assert_eq!(kept.journal.start(), 2);
        assert_eq!(kept.read_from(0), [0; 0], "the reader is behind the start");
        assert_eq!(kept.read_from(2), [3]);
    }
}
