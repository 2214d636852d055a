//! Which block is granted next.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Controller, Node, Phase};
use crate::{Block, BlockId, NodeName, PoolName, Range};

/// The addresses of every block that exists or is being created, of whatever pool.
///
/// The index alone would not do: a pool deleted and made again with other blocks leaves objects
/// behind whose addresses lie across the new ones.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Claims {
    /// By first address; several where blocks overlap.
    ranges: BTreeMap<(IpAddr, BlockId), IpAddr>,
    /// Bits of the largest block ever claimed: how far back an overlap can begin.
    largest_bits: u8,
}

impl Claims {
    pub(super) fn insert(&mut self, id: &BlockId, block: &Block) {
        self.largest_bits = self.largest_bits.max(block.bits);
        for range in block.ranges() {
            self.ranges.insert((range.first, id.clone()), range.last);
        }
    }

    pub(super) fn remove(&mut self, id: &BlockId, block: &Block) {
        for range in block.ranges() {
            self.ranges.remove(&(range.first, id.clone()));
        }
    }

    fn overlap(&self, block: &Block) -> bool {
        block.ranges().any(|range| self.overlap_range(&range))
    }

    fn overlap_range(&self, range: &Range) -> bool {
        let reach = 1_u128 << self.largest_bits;
        let from = match range.first {
            IpAddr::V4(first) => IpAddr::V4(Ipv4Addr::from_bits(
                first.to_bits().saturating_sub(reach as u32),
            )),
            IpAddr::V6(first) => {
                IpAddr::V6(Ipv6Addr::from_bits(first.to_bits().saturating_sub(reach)))
            }
        };
        let lowest = BlockId {
            pool: PoolName(String::new()),
            index: 0,
        };
        self.ranges
            .range((from, lowest)..)
            .take_while(|((first, _), _)| *first <= range.last)
            .any(|((first, _), last)| {
                Range {
                    first: *first,
                    last: *last,
                }
                .overlaps(range)
            })
    }
}

impl Controller {
    /// The next block of `pool` for the node.
    ///
    /// First the other half of a block that the node holds, so that the two can be announced as
    /// one. Then onward from the last grant rather than from the lowest index, so that a block
    /// given back rests longest; there a block whose other half is free comes before one whose
    /// other half another node has.
    pub(super) fn choose(
        &mut self,
        name: &NodeName,
        node: &Node,
        pool: &PoolName,
    ) -> Option<(u32, Block)> {
        let cursor = self.cursor(pool);
        let layout = &self.pools.get(pool)?.pool.layout;
        let own: Vec<u32> = self
            .held_by(name, &node.uid, pool)
            .filter(|(_, block)| !matches!(block.phase, Phase::Released | Phase::Quarantined))
            .map(|(id, _)| id.index)
            .collect();
        let buddy = own
            .into_iter()
            .filter_map(|index| layout.buddy(index))
            .find_map(|index| self.free(pool, index));
        if buddy.is_some() {
            return buddy;
        }
        let total = layout.blocks();
        let mut fallback = None;
        for index in (cursor..total).chain(0..cursor.min(total)) {
            let Some(free) = self.free(pool, index) else {
                continue;
            };
            match layout.buddy(index) {
                Some(buddy) if self.free(pool, buddy).is_none() => {
                    fallback.get_or_insert(free);
                }
                _ => return Some(free),
            }
        }
        fallback
    }

    /// The block of this index, if it can be granted.
    pub(super) fn free(&self, pool: &PoolName, index: u32) -> Option<(u32, Block)> {
        let state = self.pools.get(pool)?;
        let id = BlockId {
            pool: pool.clone(),
            index,
        };
        if !state.pool.layout.is_active(index)
            || self.blocks.contains_key(&id)
            || self.creating.contains_key(&id)
        {
            return None;
        }
        let block = state.pool.layout.block(index)?;
        let reserved = block.reserved_positions(&state.pool.reserved);
        (reserved < block.size() && !self.claims.overlap(&block)).then_some((index, block))
    }

    /// Where to begin: after the last grant of this term, else after the youngest block.
    fn cursor(&mut self, pool: &PoolName) -> u32 {
        let youngest = || {
            let lowest = BlockId {
                pool: pool.clone(),
                index: 0,
            };
            self.blocks
                .range(lowest..)
                .take_while(|(id, _)| id.pool == *pool)
                .max_by_key(|(id, block)| (block.created, id.index))
                .map_or(0, |(id, _)| id.index + 1)
        };
        let cursor = match self.pools.get(pool).and_then(|state| state.cursor) {
            Some(cursor) => cursor,
            None => youngest(),
        };
        if let Some(state) = self.pools.get_mut(pool) {
            state.cursor = Some(cursor);
        }
        cursor
    }
}
