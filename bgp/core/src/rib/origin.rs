//! Which node a block of addresses belongs to: what the address management knows, put beside what
//! peers claim.
//!
//! Owns the lookup. Does not own which sessions are checked.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

use crate::types::{Family, Prefix, RouterId};

/// Who may originate a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlockOwner {
    /// The node, for people.
    pub node: String,
    /// Its addresses: a route to the block has to come from one of them, where it comes straight from
    /// the node.
    pub addresses: Vec<IpAddr>,
    /// Its identifiers: a route to the block has to come from one of them where others relay it.
    pub routers: Vec<RouterId>,
    /// What is known may be out of date, as while a block changes hands, or not known yet, where no
    /// holder is named at all: nobody is refused.
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

/// Whether a peer's routes must come from the node that holds their block, and how that is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OriginCheck {
    /// They need not.
    #[default]
    Off,
    /// The peer brings its own routes alone: its address tells. What it says of its identifier, or of
    /// who originated a route, proves nothing.
    Direct,
    /// The peer relays routes of others: ORIGINATOR_ID tells, else the peer's identifier.
    Relayed,
}

/// Where a route comes from, as far as that can be known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Originator {
    /// From the peer itself.
    Peer {
        /// Where its session ends.
        address: IpAddr,
        /// What it calls itself.
        router: RouterId,
    },
    /// From the router of this name.
    Router(RouterId),
}

impl Originator {
    /// What it calls itself.
    pub fn router(self) -> RouterId {
        match self {
            Self::Peer { router, .. } | Self::Router(router) => router,
        }
    }
}

impl BlockOwner {
    fn is(&self, originator: Originator) -> bool {
        match originator {
            Originator::Peer { address, .. } if !self.addresses.is_empty() => {
                self.addresses.contains(&address)
            }
            Originator::Peer { router, .. } | Originator::Router(router) => {
                self.routers.contains(&router)
            }
        }
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

impl OriginValidity {
    /// Whether the path lies in a block, and nobody can say if it comes from the holder. It is used
    /// where the holder itself says nothing.
    pub fn is_unconfirmed(self) -> bool {
        self == Self::Stale
    }
}

impl BlockOwners {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }

    /// How a route to `prefix` that comes from `originator` agrees with the blocks.
    pub fn validate(&self, prefix: &Prefix, originator: Originator) -> OriginValidity {
        match self.covering(prefix) {
            None => OriginValidity::Unknown,
            Some((_, owner)) if owner.is(originator) => OriginValidity::Valid,
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
        let address = |router| IpAddr::from([192, 0, 2, router as u8]);
        let owner = |node: &str, router, stale| BlockOwner {
            node: node.into(),
            addresses: vec![address(router)],
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
            let prefix: Prefix = prefix.parse().unwrap();
            let liar = Originator::Peer {
                address: address(router),
                router: RouterId(3 - router),
            };
            for originator in [Originator::Router(RouterId(router)), liar] {
                let found = blocks.validate(&prefix, originator);
                assert_eq!(found, expected, "{prefix} from {originator:?}");
            }
        }
    }
}
