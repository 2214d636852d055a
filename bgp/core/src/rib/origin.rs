//! Which node a block of addresses belongs to: what the address management knows, put beside what
//! peers claim.
//!
//! Owns the lookup. Does not own which sessions are checked.

use std::collections::{BTreeSet, HashMap};

use crate::types::{Family, Prefix, RouterId};

/// Who may originate a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOwner {
    /// The node, for people.
    pub node: String,
    /// Its identifiers: a route to the block has to come from one of them.
    pub routers: Vec<RouterId>,
    /// What is known may be out of date, as while a block changes hands: nobody is refused.
    pub stale: bool,
}

/// The blocks of a cluster and their owners.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockOwners {
    owners: HashMap<Prefix, BlockOwner>,
    /// Lengths that occur, so that a lookup tries no others.
    lengths: [BTreeSet<u8>; Family::ALL.len()],
}

impl FromIterator<(Prefix, BlockOwner)> for BlockOwners {
    fn from_iter<I: IntoIterator<Item = (Prefix, BlockOwner)>>(blocks: I) -> Self {
        let mut owners = Self::default();
        for (block, owner) in blocks {
            owners.lengths[block.family().index()].insert(block.len());
            owners.owners.insert(block, owner);
        }
        owners
    }
}

/// How a route's originator agrees with the blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OriginValidity {
    /// The session is not checked.
    #[default]
    Unchecked,
    /// It comes from the owner.
    Valid,
    /// It lies in no known block.
    Unknown,
    /// It lies in a block of which the knowledge is out of date.
    Stale,
    /// It lies in a block of another node.
    Foreign,
}

impl BlockOwners {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// How a route to `prefix` that comes from `originator` agrees with the blocks.
    pub fn validate(&self, prefix: &Prefix, originator: RouterId) -> OriginValidity {
        match self.covering(prefix) {
            None => OriginValidity::Unknown,
            Some((_, owner)) if owner.routers.contains(&originator) => OriginValidity::Valid,
            Some((_, owner)) if owner.stale => OriginValidity::Stale,
            Some(_) => OriginValidity::Foreign,
        }
    }

    /// The longest block that holds `prefix`.
    pub fn covering(&self, prefix: &Prefix) -> Option<(Prefix, &BlockOwner)> {
        let lengths = &self.lengths[prefix.family().index()];
        lengths.range(..=prefix.len()).rev().find_map(|len| {
            let block = Prefix::new(prefix.addr(), *len).ok()?;
            self.owners.get(&block).map(|owner| (block, owner))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_and_everything_inside_belongs_to_its_owner_alone() {
        let owner = |node: &str, router, stale| BlockOwner {
            node: node.into(),
            routers: vec![RouterId(router)],
            stale,
        };
        let blocks: BlockOwners = [
            ("10.244.0.0/26", owner("n1", 1, false)),
            ("10.244.0.64/26", owner("n2", 2, true)),
            ("fd00::/122", owner("n1", 1, false)),
        ]
        .into_iter()
        .map(|(block, owner)| (block.parse().unwrap(), owner))
        .collect();
        let cases = [
            ("10.244.0.0/26", 1, OriginValidity::Valid),
            ("10.244.0.0/26", 2, OriginValidity::Foreign),
            ("10.244.0.32/32", 2, OriginValidity::Foreign),
            ("10.244.0.32/32", 1, OriginValidity::Valid),
            ("fd00::1/128", 2, OriginValidity::Foreign),
            ("10.244.0.64/26", 1, OriginValidity::Stale),
            ("10.244.0.64/26", 2, OriginValidity::Valid),
            ("10.244.0.128/26", 1, OriginValidity::Unknown),
            ("10.244.0.0/25", 2, OriginValidity::Unknown),
            ("192.0.2.0/24", 1, OriginValidity::Unknown),
        ];
        for (prefix, router, expected) in cases {
            let found = blocks.validate(&prefix.parse().unwrap(), RouterId(router));
            assert_eq!(found, expected, "{prefix} from {router}");
        }
    }
}
