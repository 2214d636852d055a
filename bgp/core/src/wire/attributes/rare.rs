//! Attributes that few routes have, out of the way of the many.

use crate::wire::attributes::{Aggregator, ExtendedCommunity, RawAttribute, SortedSet};

/// Attributes that few routes have: usually none, and then nothing but a word.
// A box is never empty, so that derived comparisons are right.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RareAttributes(Option<Box<Content>>);

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Content {
    pub(super) aggregator: Option<Aggregator>,
    pub(super) ext_communities: SortedSet<ExtendedCommunity>,
    /// By type code.
    pub(super) unknown: Box<[RawAttribute]>,
}

impl RareAttributes {
    pub(super) fn get(&self) -> Option<&Content> {
        self.0.as_deref()
    }

    pub(super) fn edit(&mut self, edit: impl FnOnce(&mut Content)) {
        let mut content = self.0.take().unwrap_or_default();
        edit(&mut content);
        self.0 = (*content != Content::default()).then_some(content);
    }

    pub(super) fn heap_octets(&self) -> usize {
        self.get().map_or(0, |content| {
            let values = content.unknown.iter().map(|raw| raw.value.capacity());
            size_of_val(content)
                + size_of_val(&content.ext_communities[..])
                + size_of_val(&content.unknown[..])
                + values.sum::<usize>()
        })
    }
}
