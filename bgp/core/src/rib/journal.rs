//! Which prefixes changed, in order, for readers that each go at their own pace.
//!
//! Owns positions and the bound on memory. Does not own what the change was: a reader looks that
//! up in the table when it gets there, so a prefix that changed often costs a slow reader once.

use std::collections::{HashMap, VecDeque};

use crate::types::Prefix;

/// Changes kept beyond twice the size of the table, so that small tables do not push readers out.
const SLACK: usize = 1024;

/// Prefixes in the order of their last changes.
#[derive(Debug, Default)]
pub(super) struct Journal {
    /// Position of the first entry.
    base: u64,
    entries: VecDeque<Prefix>,
    /// Position of the last change of each prefix still in the journal.
    latest: HashMap<Prefix, u64>,
}

impl Journal {
    /// Notes that `prefix` changed.
    pub(super) fn append(&mut self, prefix: Prefix) {
        self.latest.insert(prefix, self.end());
        self.entries.push_back(prefix);
    }

    /// The position behind the last change.
    pub(super) fn end(&self) -> u64 {
        self.base + self.entries.len() as u64
    }

    /// The first position that still can be read.
    pub(super) fn start(&self) -> u64 {
        self.base
    }

    /// The next prefix at or behind `position` whose entry is its latest, and the position behind
    /// it.
    pub(super) fn next(&self, mut position: u64) -> Option<(Prefix, u64)> {
        while position < self.end() {
            let offset = usize::try_from(position.checked_sub(self.base)?).ok()?;
            let prefix = *self.entries.get(offset)?;
            if self.latest.get(&prefix) == Some(&position) {
                return Some((prefix, position + 1));
            }
            position += 1;
        }
        None
    }

    /// Forgets everything before `position`, and whatever exceeds the bound for a table of
    /// `table_size` prefixes: a reader that stood there has to walk the table instead.
    pub(super) fn trim(&mut self, position: u64, table_size: usize) {
        let bound = 2 * table_size + SLACK;
        while self.base < position || self.entries.len() > bound {
            let Some(prefix) = self.entries.pop_front() else {
                self.base = self.base.max(position);
                return;
            };
            if self.latest.get(&prefix) == Some(&self.base) {
                self.latest.remove(&prefix);
            }
            self.base += 1;
        }
    }

    /// How many entries are kept.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(index: u8) -> Prefix {
        Prefix::v4([10, 0, index, 0].into(), 24).unwrap()
    }

    fn read_all(journal: &Journal, mut position: u64) -> Vec<Prefix> {
        let mut read = Vec::new();
        while let Some((prefix, next)) = journal.next(position) {
            read.push(prefix);
            position = next;
        }
        read
    }

    #[test]
    fn a_prefix_that_changed_often_is_read_once_at_its_last_change() {
        let mut journal = Journal::default();
        for index in [1, 2, 1, 3, 1] {
            journal.append(prefix(index));
        }
        assert_eq!(read_all(&journal, 0), [2, 3, 1].map(prefix));
        assert_eq!(read_all(&journal, 4), [1].map(prefix));
        assert_eq!(read_all(&journal, journal.end()), []);
    }

    #[test]
    fn memory_is_bounded_by_the_table_and_not_by_churn() {
        let mut journal = Journal::default();
        for round in 0..100_000_u32 {
            journal.append(prefix((round % 7) as u8));
            journal.trim(0, 7);
        }
        assert!(journal.len() <= 2 * 7 + SLACK, "{}", journal.len());
        assert_eq!(journal.end(), 100_000);
        journal.trim(journal.end(), 7);
        assert_eq!((journal.len(), journal.latest.len()), (0, 0));
    }
}
