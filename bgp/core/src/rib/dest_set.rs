//! A set of destinations, one bit each.

use crate::rib::table::DestId;

/// Destinations of which something holds.
#[derive(Clone, Debug, Default)]
pub(super) struct DestSet {
    words: Vec<u64>,
    len: usize,
}

impl DestSet {
    /// Adds a destination; whether it is new.
    pub(super) fn insert(&mut self, dest: DestId) -> bool {
        let (word, bit) = place(dest);
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        let new = self.words[word] & bit == 0;
        self.words[word] |= bit;
        self.len += usize::from(new);
        new
    }

    /// Takes a destination out; whether it was there.
    pub(super) fn remove(&mut self, dest: DestId) -> bool {
        let (word, bit) = place(dest);
        let had = self.words.get(word).is_some_and(|word| word & bit != 0);
        if had {
            self.words[word] &= !bit;
            self.len -= 1;
        }
        if self.len == 0 {
            self.words = Vec::new();
        }
        had
    }

    /// Whether a destination is among them.
    pub(super) fn has(&self, dest: DestId) -> bool {
        let (word, bit) = place(dest);
        self.words.get(word).is_some_and(|word| word & bit != 0)
    }

    /// All of them, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = DestId> {
        self.words.iter().enumerate().flat_map(|(at, word)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < u64::BITS).then(|| DestId(at as u32 * u64::BITS + bit))
            })
        })
    }
}

fn place(dest: DestId) -> (usize, u64) {
    (dest.slot() / 64, 1 << (dest.slot() % 64))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_bitmap_is_a_set(steps in prop::collection::vec((any::<bool>(), 0..300_u32), 0..200)) {
            let mut set = DestSet::default();
            let mut model = BTreeSet::new();
            for (insert, number) in steps {
                let dest = DestId(number);
                if insert {
                    prop_assert_eq!(set.insert(dest), model.insert(dest));
                } else {
                    prop_assert_eq!(set.remove(dest), model.remove(&dest));
                }
                prop_assert_eq!(set.len, model.len());
                prop_assert_eq!(set.has(dest), model.contains(&dest));
            }
            prop_assert!(set.iter().eq(model.iter().copied()));
        }
    }
}
