//! How the node's addresses are used, by pool.

use std::collections::BTreeMap;

use super::Addresses;
use super::convert::moment;

/// Addresses of one pool on this node, as positions: where a block has both families, a position is an
/// address of each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct PoolAddresses {
    /// Of attachments.
    pub(crate) used: u64,
    /// Could be given out now.
    pub(crate) free: u64,
    /// Never given out.
    pub(crate) reserved: u64,
    /// Freed, and at rest.
    pub(crate) cooling: u64,
    /// In use by something that no record explains.
    pub(crate) leaked: u64,
}

impl Addresses {
    /// The addresses of the node's blocks, by pool.
    pub(crate) fn counts(&self) -> BTreeMap<String, PoolAddresses> {
        let mut pools: BTreeMap<String, PoolAddresses> = BTreeMap::new();
        for (block, usage) in self.allocator.usage(moment()) {
            let pool = pools.entry(block.pool.0).or_default();
            pool.used += u64::from(usage.used);
            pool.free += u64::from(usage.ready);
            pool.reserved += u64::from(usage.reserved);
            pool.cooling += u64::from(usage.resting);
            pool.leaked += u64::from(usage.quarantined);
        }
        pools
    }
}
