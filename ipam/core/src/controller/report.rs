//! What a pool's status says.

use super::{Action, Controller, Phase};
use crate::{BlockId, PoolName};

/// The figures of a pool.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PoolReport {
    /// Blocks that the subnets hold.
    pub total: u32,
    /// Blocks offered to or held by nodes.
    pub used: u32,
    /// Of those, blocks that take no new pods.
    pub draining: u32,
    /// Blocks of nodes that went away, and released ones that still rest.
    pub quarantined: u32,
    /// Address positions in all blocks.
    pub addresses: u64,
    /// Positions that reserved ranges take.
    pub reserved: u64,
    /// Older pools with addresses in common; while there is one, nothing is granted.
    pub overlaps: Vec<PoolName>,
    /// No block is left to grant.
    pub exhausted: bool,
}

impl Controller {
    /// Reports each pool that changed, once.
    pub(super) fn report(&mut self, actions: &mut Vec<Action>) {
        if !self.acts() {
            return;
        }
        for name in std::mem::take(&mut self.changed_pools) {
            let Some(report) = self.figures(&name) else {
                continue;
            };
            let Some(state) = self.pools.get_mut(&name) else {
                continue;
            };
            if state.reported.as_ref() != Some(&report) {
                state.reported = Some(report.clone());
                actions.push(Action::Report(name, report));
            }
        }
    }

    fn figures(&self, name: &PoolName) -> Option<PoolReport> {
        let state = self.pools.get(name)?;
        let layout = &state.pool.layout;
        let mut report = PoolReport {
            total: layout.blocks(),
            addresses: u64::from(layout.blocks()) * u64::from(layout.addresses_per_block()),
            reserved: self.reserved_positions(name),
            overlaps: state.overlaps.clone(),
            ..PoolReport::default()
        };
        let lowest = BlockId {
            pool: name.clone(),
            index: 0,
        };
        let mut objects = 0;
        for (_, block) in self
            .blocks
            .range(lowest..)
            .take_while(|(id, _)| id.pool == *name)
        {
            objects += 1;
            match block.phase {
                Phase::Released | Phase::Quarantined => report.quarantined += 1,
                Phase::Draining => {
                    report.used += 1;
                    report.draining += 1;
                }
                Phase::Offered | Phase::Active => {
                    report.used += 1;
                    report.draining += u32::from(block.drain);
                }
            }
        }
        // Searching is needed only near the end; reserved blocks and claims of other pools make
        // the plain count an upper bound.
        let nearly = objects + NEARLY_EXHAUSTED >= report.total;
        report.exhausted =
            nearly && !(0..report.total).any(|index| self.free(name, index).is_some());
        Some(report)
    }

    fn reserved_positions(&self, name: &PoolName) -> u64 {
        let Some(state) = self.pools.get(name) else {
            return 0;
        };
        let layout = &state.pool.layout;
        let mut indexes = std::collections::BTreeSet::new();
        for range in &state.pool.reserved {
            let (Some(first), Some(last)) =
                (layout.index_of(range.first), layout.index_of(range.last))
            else {
                continue;
            };
            indexes.extend(first..=last);
        }
        indexes
            .into_iter()
            .filter_map(|index| layout.block(index))
            .map(|block| u64::from(block.reserved_positions(&state.pool.reserved)))
            .sum()
    }
}

/// From how few blocks left on exhaustion is looked for by search.
const NEARLY_EXHAUSTED: u32 = 1024;
