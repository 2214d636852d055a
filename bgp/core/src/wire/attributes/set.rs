//! Lists whose order means nothing.

use std::fmt;
use std::ops::Deref;

/// Values in ascending order without duplicates, so that what means the same compares equal.
///
/// Takes two words, and nothing more when empty. Meant to be read often and changed rarely: every
/// change allocates.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SortedSet<T>(Box<[T]>);

impl<T: Ord> SortedSet<T> {
    /// Whether `value` belongs to the set.
    pub fn contains(&self, value: &T) -> bool {
        self.0.binary_search(value).is_ok()
    }

    /// Adds `value`; whether it was not there before.
    pub fn insert(&mut self, value: T) -> bool {
        let Err(at) = self.0.binary_search(&value) else {
            return false;
        };
        self.change(|values| values.insert(at, value));
        true
    }

    /// Takes `value` out; whether it was there.
    pub fn remove(&mut self, value: &T) -> bool {
        let Ok(at) = self.0.binary_search(value) else {
            return false;
        };
        self.change(|values| {
            values.remove(at);
        });
        true
    }

    /// Keeps what `wanted` holds for.
    pub fn retain(&mut self, wanted: impl FnMut(&T) -> bool) {
        // What nothing is taken from, as usual, is left where it is.
        let mut wanted = wanted;
        if !self.0.iter().all(&mut wanted) {
            self.change(|values| values.retain(wanted));
        }
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        self.0 = Box::default();
    }

    fn change(&mut self, change: impl FnOnce(&mut Vec<T>)) {
        let mut values = std::mem::take(&mut self.0).into_vec();
        change(&mut values);
        self.0 = values.into_boxed_slice();
    }
}

impl<T> Default for SortedSet<T> {
    fn default() -> Self {
        Self(Box::default())
    }
}

impl<T> Deref for SortedSet<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Ord> From<Vec<T>> for SortedSet<T> {
    fn from(mut values: Vec<T>) -> Self {
        // Most senders sort already, and looking costs less than sorting.
        if !values.is_sorted_by(|one, next| one < next) {
            values.sort_unstable();
            values.dedup();
        }
        Self(values.into_boxed_slice())
    }
}

impl<T: Ord, const N: usize> From<[T; N]> for SortedSet<T> {
    fn from(values: [T; N]) -> Self {
        Vec::from(values).into()
    }
}

impl<T: Ord> FromIterator<T> for SortedSet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        values.into_iter().collect::<Vec<T>>().into()
    }
}

impl<T: Ord> Extend<T> for SortedSet<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, values: I) {
        let mut all = std::mem::take(&mut self.0).into_vec();
        all.extend(values);
        *self = all.into();
    }
}

impl<'a, T> IntoIterator for &'a SortedSet<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: PartialEq, const N: usize> PartialEq<[T; N]> for SortedSet<T> {
    fn eq(&self, other: &[T; N]) -> bool {
        *self.0 == other[..]
    }
}

impl<T: PartialEq> PartialEq<Vec<T>> for SortedSet<T> {
    fn eq(&self, other: &Vec<T>) -> bool {
        *self.0 == other[..]
    }
}

impl<T: fmt::Debug> fmt::Debug for SortedSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn a_sorted_set_is_a_set(
            first in vec(0..20_u8, 0..10),
            changes in vec((0..4_u8, 0..20_u8), 0..20),
        ) {
            let mut set: SortedSet<u8> = first.clone().into();
            let mut model: BTreeSet<u8> = first.into_iter().collect();
            for (change, value) in changes {
                match change {
                    0 => prop_assert_eq!(set.insert(value), model.insert(value)),
                    1 => prop_assert_eq!(set.remove(&value), model.remove(&value)),
                    2 => {
                        set.retain(|kept| kept % 7 != value % 7);
                        model.retain(|kept| kept % 7 != value % 7);
                    }
                    _ => {
                        set.extend([value, value / 2]);
                        model.extend([value, value / 2]);
                    }
                }
                prop_assert_eq!(set.contains(&value), model.contains(&value));
                prop_assert_eq!(&set[..], &model.iter().copied().collect::<Vec<u8>>()[..]);
            }
        }
    }
}
