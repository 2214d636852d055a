//! The paths of one destination.
//!
//! Owns their storage: one path, which is what most destinations have, stands in place.

use std::ops::{Deref, DerefMut};

use crate::rib::table::Entry;

/// Paths in the order in which they came.
#[derive(Debug, Default)]
pub(super) enum Entries {
    #[default]
    None,
    One(Entry),
    #[expect(
        clippy::box_collection,
        reason = "a pointer of one word keeps the whole as small as one entry"
    )]
    Several(Box<Vec<Entry>>),
}

impl Entries {
    pub(super) fn push(&mut self, entry: Entry) {
        match self {
            Self::None => *self = Self::One(entry),
            Self::One(first) => *self = Self::Several(Box::new(vec![*first, entry])),
            Self::Several(entries) => {
                if entries.len() == entries.capacity() {
                    // Doubling would waste half of what most destinations of a mesh need.
                    entries.reserve_exact(entries.len() / 2 + 1);
                }
                entries.push(entry);
            }
        }
    }

    /// Takes away the entry at a place that there is.
    pub(super) fn remove(&mut self, at: usize) -> Entry {
        if let Self::Several(entries) = self {
            let removed = entries.remove(at);
            if let [last] = entries[..] {
                *self = Self::One(last);
            }
            return removed;
        }
        let removed = self[at];
        *self = Self::None;
        removed
    }
}

impl Deref for Entries {
    type Target = [Entry];

    fn deref(&self) -> &[Entry] {
        match self {
            Self::None => &[],
            Self::One(entry) => std::slice::from_ref(entry),
            Self::Several(entries) => entries,
        }
    }
}

impl DerefMut for Entries {
    fn deref_mut(&mut self) -> &mut [Entry] {
        match self {
            Self::None => &mut [],
            Self::One(entry) => std::slice::from_mut(entry),
            Self::Several(entries) => entries,
        }
    }
}
