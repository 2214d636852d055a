//! All update groups of a RIB, by what decides that peers belong together.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use crate::rib::egress::EgressConfig;
use crate::rib::group::Group;
use crate::rib::hash::Seed;
use crate::rib::path::PeerIndex;
use crate::rib::table::Table;

/// Names a group as long as it has members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GroupId(u32);

/// The groups.
#[derive(Debug)]
pub(super) struct Groups {
    groups: BTreeMap<GroupId, Group>,
    by_config: HashMap<Arc<EgressConfig>, GroupId>,
    next: u32,
    /// Groups that are told several paths per prefix.
    every_path: usize,
    seed: Seed,
    log_limit: usize,
}

impl Groups {
    /// No groups. `log_limit`: see [`crate::rib::RibOptions::log_limit`].
    pub(super) fn new(seed: Seed, log_limit: usize) -> Self {
        Self {
            groups: BTreeMap::new(),
            by_config: HashMap::new(),
            next: 0,
            every_path: 0,
            seed,
            log_limit,
        }
    }

    pub(super) fn get(&self, id: GroupId) -> Option<&Group> {
        self.groups.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: GroupId) -> Option<&mut Group> {
        self.groups.get_mut(&id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Group> {
        self.groups.values_mut()
    }

    /// Whether some group is told several paths per prefix (RFC 7911).
    pub(super) fn any_wants_every_path(&self) -> bool {
        self.every_path > 0
    }

    pub(super) fn len(&self) -> usize {
        self.groups.len()
    }

    /// Brings a new session into the group of its configuration.
    pub(super) fn join(
        &mut self,
        config: EgressConfig,
        peer: PeerIndex,
        address: IpAddr,
        table: &Table,
    ) -> GroupId {
        let id = self.of(config);
        if let Some(group) = self.groups.get_mut(&id) {
            group.join(peer, address, table);
        }
        id
    }

    /// Lets a session go.
    pub(super) fn leave(&mut self, id: GroupId, peer: PeerIndex, table: &mut Table) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        group.leave(peer, table);
        if group.is_empty()
            && let Some(group) = self.groups.remove(&id)
        {
            self.by_config.remove(group.config());
            self.every_path -= usize::from(wants_every_path(group.config()));
        }
    }

    /// Brings sessions into the groups of their present configurations. Where a whole group changes
    /// to the same new configuration, it stays together.
    ///
    /// Gives the sessions that are in another group now.
    pub(super) fn rearrange(
        &mut self,
        wanted: &BTreeMap<PeerIndex, (GroupId, EgressConfig, IpAddr)>,
        table: &mut Table,
    ) -> Vec<(PeerIndex, GroupId)> {
        let ids: Vec<GroupId> = self.groups.keys().copied().collect();
        for id in ids {
            self.change_as_one(id, wanted, table);
        }
        let mut moved = Vec::new();
        for (peer, (from, config, address)) in wanted {
            let Some(old) = self.groups.get(from) else {
                continue;
            };
            if **old.config() == *config {
                continue;
            }
            let known = (old.believed(*peer, table), old.resending(*peer));
            let to = self.of(config.clone());
            if let Some(group) = self.groups.get_mut(&to) {
                group.join_from(*peer, *address, known, table);
            }
            self.leave(*from, *peer, table);
            moved.push((*peer, to));
        }
        moved
    }

    fn change_as_one(
        &mut self,
        id: GroupId,
        wanted: &BTreeMap<PeerIndex, (GroupId, EgressConfig, IpAddr)>,
        table: &Table,
    ) {
        let Some(group) = self.groups.get_mut(&id) else {
            return;
        };
        let mut configs = group
            .members()
            .filter_map(|peer| wanted.get(&peer))
            .map(|(_, config, _)| config);
        let Some(first) = configs.next() else { return };
        let apart = configs.any(|config| config != first);
        drop(configs);
        let same = **group.config() == *first;
        if same || apart || self.by_config.contains_key(first) {
            return;
        }
        self.by_config.remove(group.config());
        let config = Arc::new(first.clone());
        group.reconfigure(Arc::clone(&config), table);
        self.by_config.insert(config, id);
    }

    fn of(&mut self, config: EgressConfig) -> GroupId {
        if let Some(id) = self.by_config.get(&config) {
            return *id;
        }
        let id = GroupId(self.next);
        self.next += 1;
        self.every_path += usize::from(wants_every_path(&config));
        let config = Arc::new(config);
        let group = Group::new(Arc::clone(&config), self.seed, self.log_limit);
        self.groups.insert(id, group);
        self.by_config.insert(config, id);
        id
    }
}

fn wants_every_path(config: &EgressConfig) -> bool {
    !config.encode.add_path.is_empty()
}
