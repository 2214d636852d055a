//! Drop counters of the agents: that a refused probe was refused by a policy, and by which.

use std::collections::BTreeMap;

use anyhow::Context;
use caracal_agent::policy_api::{self, ClassDrops, Direction};
use caracal_lab_topology::{Cell, Plan, Role, Want};

use crate::state::StateDir;

/// The counters of every node at one moment.
pub struct Drops(BTreeMap<Key, ClassDrops>);

/// A class of one node.
type Key = (String, String);

impl Drops {
    /// Reads every agent's counters.
    ///
    /// # Errors
    /// An agent does not answer.
    pub fn read(plan: &Plan, state: &StateDir) -> anyhow::Result<Self> {
        let mut drops = BTreeMap::new();
        for node in plan.with_role(Role::Node) {
            let socket = state.folder(&node.name).join(policy_api::SOCKET);
            let classes = policy_api::classes(&socket)
                .with_context(|| format!("cannot read the drop counters of {}", node.name))?;
            for class in classes {
                drops.insert((node.name.clone(), class.class.clone()), class);
            }
        }
        Ok(Self(drops))
    }

    /// Cells that had to be refused and that no class can have dropped, judged by how far its counter rose
    /// since `before`: a class must have risen by at least the cells that only it can refuse, and all classes
    /// together by at least all cells.
    pub fn unexplained(&self, before: &Self, cells: &[(Cell, Want)]) -> Vec<String> {
        let mut due: BTreeMap<&Key, u64> = BTreeMap::new();
        let mut refused = 0;
        let mut complaints = Vec::new();
        for (cell, _) in cells.iter().filter(|(_, want)| *want == Want::Refused) {
            refused += 1;
            let classes: Vec<&Key> = self
                .0
                .iter()
                .filter(|(_, c)| judges(c, cell))
                .map(|(k, _)| k)
                .collect();
            match classes.as_slice() {
                [] => complaints.push(format!("{cell} is refused and no class judges it")),
                [only] => *due.entry(only).or_default() += 1,
                _ => {}
            }
        }
        let risen = |key: &Key| {
            let count = |drops: &Self| drops.0.get(key).map_or(0, |class| class.dropped_packets);
            count(self).saturating_sub(count(before))
        };
        for (key, cells) in due {
            let risen = risen(key);
            if risen < cells {
                complaints.push(format!(
                    "class {} on {} refused {cells} cells and its drop counter rose by {risen}",
                    key.1, key.0
                ));
            }
        }
        let risen: u64 = self.0.keys().map(risen).sum();
        if risen < refused {
            complaints.push(format!(
                "{refused} cells are refused and all drop counters rose by {risen}"
            ));
        }
        complaints
    }
}

/// Whether a class sees the packets of a cell: those to its pods, or from them.
fn judges(class: &ClassDrops, cell: &Cell) -> bool {
    let end = match class.direction {
        Direction::Ingress => &cell.to,
        Direction::Egress => &cell.from,
    };
    class.endpoints.contains(end)
}
