//! A vector that grows without moving what it holds.
//!
//! A table of a million prefixes would otherwise be copied whenever it doubles, and all wait meanwhile.

use std::ops::{Index, IndexMut};

/// Elements of a page.
const PAGE: usize = 32 * 1024;

/// Elements by number, in pages that stay where they are.
#[derive(Debug)]
pub(super) struct Pages<T> {
    /// All full but the last one.
    pages: Vec<Vec<T>>,
}

impl<T> Pages<T> {
    pub(super) fn len(&self) -> usize {
        let full = self.pages.len().saturating_sub(1) * PAGE;
        full + self.pages.last().map_or(0, Vec::len)
    }

    pub(super) fn push(&mut self, element: T) {
        match self.pages.last_mut() {
            Some(page) if page.len() < PAGE => page.push(element),
            Some(_) => {
                let mut page = Vec::with_capacity(PAGE);
                page.push(element);
                self.pages.push(page);
            }
            // Most tables are small, and so is their only page.
            None => self.pages.push(vec![element]),
        }
    }

    /// The elements in the order of their numbers.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten()
    }
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { pages: Vec::new() }
    }
}

impl<T> Index<usize> for Pages<T> {
    type Output = T;

    fn index(&self, number: usize) -> &T {
        &self.pages[number / PAGE][number % PAGE]
    }
}

impl<T> IndexMut<usize> for Pages<T> {
    fn index_mut(&mut self, number: usize) -> &mut T {
        &mut self.pages[number / PAGE][number % PAGE]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_keep_their_numbers_and_places_over_the_ends_of_pages() {
        let mut pages = Pages::default();
        let mut places = Vec::new();
        for number in 0..3 * PAGE + 1 {
            assert_eq!(pages.len(), number);
            pages.push(number);
            if number % PAGE == PAGE - 1 {
                places.push(&raw const pages[number]);
            }
        }
        pages[PAGE] += 1;
        assert!(
            (0..pages.len()).all(|number| pages[number] == number + usize::from(number == PAGE))
        );
        assert!(
            pages
                .iter()
                .zip(0..)
                .filter(|(element, number)| *element != number)
                .count()
                == 1
        );
        let now = (1..=3).map(|page| &raw const pages[page * PAGE - 1]);
        assert!(now.eq(places));
    }
}
