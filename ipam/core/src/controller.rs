//! The controller's allocator: which node gets which block, and when a block is free again.
//!
//! Owns: grants, their order, quarantine and rest of blocks, overlap of pools. Does not own: the
//! objects themselves, leader election, or whether a node really stopped using a block; that the
//! node says, or its disappearance and a timer.
//!
//! One [`Controller`] serves one term of leadership. Its state follows from the objects alone, so
//! the next leader continues where this one stopped. What makes a grant safe is its creation: the
//! name of the object is the claim, and of two creators one is told that it exists.

mod choose;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::{Block, BlockId, Layout, Moment, NodeName, NodeUid, PoolName, Range};
use choose::Claims;
pub use report::PoolReport;

/// How the controller waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Settings {
    /// How long blocks of a node that went away stay untouched: it may be partitioned and alive.
    pub quarantine: Duration,
    /// Pause after a creation that failed without a claim by another.
    pub retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            quarantine: Duration::from_secs(600),
            retry: Duration::from_secs(1),
        }
    }
}

/// A pool as the allocator needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pool {
    /// Its division into blocks.
    pub layout: Layout,
    /// Addresses never given out.
    pub reserved: Vec<Range>,
    /// How long a released block rests.
    pub cooldown: Duration,
    /// How many blocks one node may hold.
    pub max_blocks_per_node: u32,
    /// Whether new blocks may be granted at all.
    pub grants: bool,
    /// Creation of the object: of two pools that overlap the older one keeps the addresses.
    pub created: Moment,
}

/// A node as the allocator needs it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Node {
    /// UID of the object.
    pub uid: NodeUid,
    /// Pools whose selectors match the node.
    pub pools: BTreeSet<PoolName>,
}

/// Where a block is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// Granted, not taken up.
    Offered,
    /// Announced and in use.
    Active,
    /// Announced, no new addresses.
    Draining,
    /// Neither announced nor in use.
    Released,
    /// Its node is gone.
    Quarantined,
}

/// One state of one object, never reused.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.resourceVersion`.
    pub resource_version: String,
}

/// A block object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HeldBlock {
    /// UID and resource version: what a later write to the object is conditional on.
    pub version: Version,
    /// Its addresses, as the object says.
    pub block: Block,
    /// Who holds it.
    pub node: NodeName,
    /// UID of the holder.
    pub node_uid: NodeUid,
    /// Term under which it was granted.
    pub epoch: u64,
    /// Request that it answers, 0 for none.
    pub request_generation: u64,
    /// Whether it is to take no new pods.
    pub drain: bool,
    /// Where it is in its life.
    pub phase: Phase,
    /// When it came there.
    pub since: Moment,
    /// When it was created.
    pub created: Moment,
}

/// A node's demand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// UID of the node that asks.
    pub node_uid: NodeUid,
    /// Counts the node's demands.
    pub generation: u64,
    /// How many blocks this generation asks for.
    pub want: u32,
    /// Latest generation whose demand was met, from the object's status.
    pub granted: Option<u64>,
}

/// What the controller sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pool appeared, changed, or is gone.
    Pool(PoolName, Option<Pool>),
    /// A node appeared, changed, or is gone.
    Node(NodeName, Option<Node>),
    /// A block appeared, changed, or is gone; also the answer to a creation.
    Block(BlockId, Option<HeldBlock>),
    /// A request appeared, changed, or is gone.
    Request(NodeName, PoolName, Option<Request>),
    /// Every list has been told once. Nothing is done before.
    Synced,
    /// A creation certainly did not happen, and no other object has the name.
    CreateFailed(BlockId),
    /// A write to a block did not happen, for instance because it had changed.
    ActionFailed(BlockId),
}

/// What the shell must do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Create the object. Answer with [`Event::Block`] when it exists (whoever made it), or with
    /// [`Event::CreateFailed`] only when it certainly does not.
    Create(BlockId, Grant),
    /// Set `spec.drain`, on this version of the object only: by the time of the write the name
    /// may stand for another grant. Answer with [`Event::Block`] or [`Event::ActionFailed`].
    Drain(BlockId, Version),
    /// Set the phase to Quarantined, now. Condition and answers as for `Drain`.
    Quarantine(BlockId, Version),
    /// Delete the object. Condition and answers as for `Drain`.
    Delete(BlockId, Version),
    /// Write the answer into the request's status, if it is not there yet.
    Answer {
        /// The node that asked.
        node: NodeName,
        /// The pool that it asked for.
        pool: PoolName,
        /// The demand answered.
        generation: u64,
        /// The answer.
        answer: Answer,
    },
    /// Write the pool's figures into its status, if they are not there yet.
    Report(PoolName, PoolReport),
    /// A later leader has been at work: stop acting and give up the lease.
    Resign {
        /// The epoch seen.
        epoch: u64,
    },
}

/// A block for a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Grant {
    /// The addresses.
    pub block: Block,
    /// For whom.
    pub node: NodeName,
    /// UID of the node.
    pub node_uid: NodeUid,
    /// Our term.
    pub epoch: u64,
    /// The demand that it answers, 0 for a node's first block.
    pub request_generation: u64,
}

/// How a demand was answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Answer {
    /// With these blocks.
    Granted(Vec<BlockId>),
    /// Not, or not in full yet.
    Refused(Refusal),
}

/// Why a demand is not met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refusal {
    /// No such pool.
    PoolNotFound,
    /// The pool grants nothing: disabled, unusable, or overlapping an older one.
    PoolNotReady,
    /// The pool does not select the node.
    PoolNotForNode,
    /// No such node, or another UID.
    NodeNotFound,
    /// The node holds as many blocks as it may.
    NodeLimitReached,
    /// Every block is held or rests.
    NoFreeBlocks,
    /// The creation has not been confirmed; the answer follows.
    Pending,
}

/// The allocator of one term.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Controller {
    settings: Settings,
    epoch: u64,
    synced: bool,
    deposed: bool,
    pools: BTreeMap<PoolName, PoolState>,
    nodes: BTreeMap<NodeName, Node>,
    blocks: BTreeMap<BlockId, HeldBlock>,
    by_node: BTreeMap<NodeName, BTreeSet<BlockId>>,
    claims: Claims,
    requests: BTreeMap<(NodeName, PoolName), Request>,
    /// Actions whose outcome has not been told.
    creating: BTreeMap<BlockId, Grant>,
    acting: BTreeSet<BlockId>,
    /// Nodes to look at again when a block of the pool comes free.
    waiting: BTreeMap<PoolName, BTreeSet<NodeName>>,
    deadlines: BTreeSet<(Moment, BlockId)>,
    retries: BTreeSet<(Moment, NodeName)>,
    changed_pools: BTreeSet<PoolName>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct PoolState {
    pool: Pool,
    /// Where the search for the next block begins; None until the first search.
    cursor: Option<u32>,
    /// Older pools with addresses in common.
    overlaps: Vec<PoolName>,
    reported: Option<PoolReport>,
}

impl Controller {
    /// A leader's allocator. `epoch` is higher than that of every earlier leader.
    pub fn new(epoch: u64, settings: Settings) -> Self {
        Controller {
            settings,
            epoch,
            synced: false,
            deposed: false,
            pools: BTreeMap::new(),
            nodes: BTreeMap::new(),
            blocks: BTreeMap::new(),
            by_node: BTreeMap::new(),
            claims: Claims::default(),
            requests: BTreeMap::new(),
            creating: BTreeMap::new(),
            acting: BTreeSet::new(),
            waiting: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            retries: BTreeSet::new(),
            changed_pools: BTreeSet::new(),
        }
    }

    /// Takes in what was seen and appends what is to be done.
    pub fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Pool(name, pool) => self.pool(now, name, pool, actions),
            Event::Node(name, node) => self.node(now, name, node, actions),
            Event::Block(id, block) => self.block(now, id, block, actions),
            Event::Request(node, pool, request) => {
                let key = (node.clone(), pool);
                match request {
                    Some(request) => self.requests.insert(key, request),
                    None => self.requests.remove(&key),
                };
                self.serve(now, &node, actions);
            }
            Event::Synced => {
                self.synced = true;
                self.serve_all(now, actions);
            }
            Event::CreateFailed(id) => {
                if let Some(grant) = self.creating.remove(&id) {
                    self.claims.remove(&id, &grant.block);
                    self.retries
                        .insert((now.after(self.settings.retry), grant.node));
                }
            }
            Event::ActionFailed(id) => {
                self.acting.remove(&id);
                self.deadlines.insert((now.after(self.settings.retry), id));
            }
        }
        self.report(actions);
    }

    /// When [`Controller::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let block = self.deadlines.first().map(|(at, _)| *at);
        let retry = self.retries.first().map(|(at, _)| *at);
        [block, retry].into_iter().flatten().min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Moment, actions: &mut Vec<Action>) {
        while let Some((at, _)) = self.deadlines.first()
            && *at <= now
            && let Some((_, id)) = self.deadlines.pop_first()
        {
            self.tend(now, &id, actions);
        }
        while let Some((at, _)) = self.retries.first()
            && *at <= now
            && let Some((_, node)) = self.retries.pop_first()
        {
            self.serve(now, &node, actions);
        }
        self.report(actions);
    }

    fn acts(&self) -> bool {
        self.synced && !self.deposed
    }

    fn pool(&mut self, now: Moment, name: PoolName, pool: Option<Pool>, actions: &mut Vec<Action>) {
        match pool {
            Some(pool) => {
                let before = self.pools.remove(&name);
                let state = PoolState {
                    pool,
                    cursor: before.as_ref().and_then(|state| state.cursor),
                    overlaps: Vec::new(),
                    reported: before.and_then(|state| state.reported),
                };
                self.pools.insert(name, state);
            }
            None => {
                self.pools.remove(&name);
            }
        }
        self.find_overlaps();
        // A change of one pool can free or take addresses of another.
        self.changed_pools.extend(self.pools.keys().cloned());
        self.serve_all(now, actions);
    }

    /// Overlap is a matter of all pools: an older pool that goes away frees a younger one.
    fn find_overlaps(&mut self) {
        let mut by_age: Vec<(Moment, PoolName)> = self
            .pools
            .iter()
            .map(|(name, state)| (state.pool.created, name.clone()))
            .collect();
        by_age.sort();
        for (position, (_, name)) in by_age.iter().enumerate() {
            let layout = &self.pools[name].pool.layout;
            let overlaps = by_age[..position]
                .iter()
                .filter(|(_, older)| self.pools[older].pool.layout.overlaps(layout))
                .map(|(_, older)| older.clone())
                .collect();
            if let Some(state) = self.pools.get_mut(name) {
                state.overlaps = overlaps;
            }
        }
    }

    fn node(&mut self, now: Moment, name: NodeName, node: Option<Node>, actions: &mut Vec<Action>) {
        match node {
            Some(node) => self.nodes.insert(name.clone(), node),
            None => self.nodes.remove(&name),
        };
        for id in self.by_node.get(&name).cloned().unwrap_or_default() {
            self.tend(now, &id, actions);
        }
        self.serve(now, &name, actions);
    }

    fn block(
        &mut self,
        now: Moment,
        id: BlockId,
        block: Option<HeldBlock>,
        actions: &mut Vec<Action>,
    ) {
        self.changed_pools.insert(id.pool.clone());
        self.acting.remove(&id);
        let before = self.blocks.remove(&id);
        if let Some(before) = &before {
            self.claims.remove(&id, &before.block);
            if let Some(ids) = self.by_node.get_mut(&before.node) {
                ids.remove(&id);
            }
        }
        let Some(block) = block else {
            // A creation under way claims the block still: its absence was seen before it.
            if let Some(grant) = self.creating.get(&id) {
                self.claims.insert(&id, &grant.block);
            }
            for node in self.waiting.remove(&id.pool).unwrap_or_default() {
                self.serve(now, &node, actions);
            }
            if let Some(before) = before {
                self.serve(now, &before.node, actions);
            }
            return;
        };
        if let Some(grant) = self.creating.remove(&id) {
            self.claims.remove(&id, &grant.block);
            if grant.node != block.node {
                self.retries.insert((now, grant.node));
            }
        }
        if block.epoch > self.epoch && !self.deposed {
            self.deposed = true;
            actions.push(Action::Resign { epoch: block.epoch });
        }
        let node = block.node.clone();
        self.claims.insert(&id, &block.block);
        self.by_node
            .entry(node.clone())
            .or_default()
            .insert(id.clone());
        self.blocks.insert(id.clone(), block);
        self.tend(now, &id, actions);
        self.serve(now, &node, actions);
    }

    /// Brings one block forward in its life.
    fn tend(&mut self, now: Moment, id: &BlockId, actions: &mut Vec<Action>) {
        let Some(block) = self.blocks.get(id).cloned() else {
            return;
        };
        if !self.acts() || self.acting.contains(id) {
            return;
        }
        let holder = self.nodes.get(&block.node);
        let action = match block.phase {
            Phase::Released => {
                let cooldown = self
                    .pools
                    .get(&id.pool)
                    .map_or(Duration::ZERO, |s| s.pool.cooldown);
                self.rested(now, id, &block, block.since.after(cooldown))
            }
            // An agent under the node's name may still run the old node's pods. Only it can tell
            // that it does not, by releasing the block.
            Phase::Quarantined if holder.is_some() => None,
            Phase::Quarantined => {
                self.rested(now, id, &block, block.since.after(self.settings.quarantine))
            }
            Phase::Offered | Phase::Active | Phase::Draining => match holder {
                None => Some(Action::Quarantine(id.clone(), block.version.clone())),
                Some(node) if node.uid != block.node_uid && !block.drain => {
                    Some(Action::Drain(id.clone(), block.version.clone()))
                }
                Some(_) => None,
            },
        };
        if let Some(action) = action {
            self.acting.insert(id.clone());
            actions.push(action);
        }
    }

    /// The deletion of a block at `due`, or a timer for it.
    fn rested(
        &mut self,
        now: Moment,
        id: &BlockId,
        block: &HeldBlock,
        due: Moment,
    ) -> Option<Action> {
        if due <= now {
            return Some(Action::Delete(id.clone(), block.version.clone()));
        }
        self.deadlines.insert((due, id.clone()));
        None
    }

    fn serve_all(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if !self.acts() {
            return;
        }
        for id in self.blocks.keys().cloned().collect::<Vec<_>>() {
            self.tend(now, &id, actions);
        }
        let asking = self.requests.keys().map(|(node, _)| node.clone());
        let nodes: BTreeSet<NodeName> = self.nodes.keys().cloned().chain(asking).collect();
        for node in nodes {
            self.serve(now, &node, actions);
        }
        self.changed_pools.extend(self.pools.keys().cloned());
    }

    /// Gives a node its first block of each pool, and what it asks for.
    fn serve(&mut self, now: Moment, name: &NodeName, actions: &mut Vec<Action>) {
        if !self.acts() {
            return;
        }
        if let Some(node) = self.nodes.get(name).cloned() {
            for pool in &node.pools {
                if self.usable(name, &node.uid, pool) == 0 {
                    // The first block answers no request, so a refusal has nobody to be told to;
                    // the pool's own conditions tell it.
                    let _refusal = self.grant(now, name, &node, pool, 0, actions).err();
                }
            }
        }
        let asked: Vec<(PoolName, Request)> = self
            .requests
            .range((name.clone(), PoolName(String::new()))..)
            .take_while(|((node, _), _)| node == name)
            .map(|((_, pool), request)| (pool.clone(), request.clone()))
            .collect();
        for (pool, request) in asked {
            if request
                .granted
                .is_some_and(|granted| granted >= request.generation)
            {
                continue;
            }
            let answer = self.answer(now, name, &pool, &request, actions);
            if answer != Answer::Refused(Refusal::Pending) {
                let generation = request.generation;
                actions.push(Action::Answer {
                    node: name.clone(),
                    pool,
                    generation,
                    answer,
                });
            }
        }
    }

    fn answer(
        &mut self,
        now: Moment,
        name: &NodeName,
        pool: &PoolName,
        request: &Request,
        actions: &mut Vec<Action>,
    ) -> Answer {
        let Some(node) = self
            .nodes
            .get(name)
            .filter(|n| n.uid == request.node_uid)
            .cloned()
        else {
            return Answer::Refused(Refusal::NodeNotFound);
        };
        if !self.pools.contains_key(pool) {
            return Answer::Refused(Refusal::PoolNotFound);
        }
        if !node.pools.contains(pool) {
            return Answer::Refused(Refusal::PoolNotForNode);
        }
        // Counting what exists for this generation makes the grant idempotent: a leader that died
        // after half of the creations left the other half to us.
        let (granted, mut pending) = self.granted_for(name, &node.uid, pool, request.generation);
        while (granted.len() + pending) < request.want as usize {
            match self.grant(now, name, &node, pool, request.generation, actions) {
                Ok(()) => pending += 1,
                Err(refusal) => return Answer::Refused(refusal),
            }
        }
        if pending > 0 {
            Answer::Refused(Refusal::Pending)
        } else {
            Answer::Granted(granted)
        }
    }

    fn granted_for(
        &self,
        name: &NodeName,
        uid: &NodeUid,
        pool: &PoolName,
        generation: u64,
    ) -> (Vec<BlockId>, usize) {
        let granted = self
            .held_by(name, uid, pool)
            .filter(|(_, block)| block.request_generation == generation)
            .map(|(id, _)| id.clone())
            .collect();
        let pending = self
            .creating_for(uid, pool)
            .filter(|(_, grant)| grant.request_generation == generation)
            .count();
        (granted, pending)
    }

    fn grant(
        &mut self,
        now: Moment,
        name: &NodeName,
        node: &Node,
        pool: &PoolName,
        request_generation: u64,
        actions: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        let state = self.pools.get(pool).ok_or(Refusal::PoolNotFound)?;
        if !state.pool.grants || !state.overlaps.is_empty() {
            return Err(Refusal::PoolNotReady);
        }
        if self
            .retries
            .iter()
            .any(|(at, waiting)| waiting == name && *at > now)
        {
            return Err(Refusal::Pending);
        }
        let holds = self
            .held_by(name, &node.uid, pool)
            .filter(|(_, block)| !matches!(block.phase, Phase::Released | Phase::Quarantined))
            .count()
            + self.creating_for(&node.uid, pool).count();
        if holds >= state.pool.max_blocks_per_node as usize {
            return Err(Refusal::NodeLimitReached);
        }
        let Some((index, block)) = self.choose(name, node, pool) else {
            self.waiting
                .entry(pool.clone())
                .or_default()
                .insert(name.clone());
            return Err(Refusal::NoFreeBlocks);
        };
        if let Some(state) = self.pools.get_mut(pool) {
            state.cursor = Some(index + 1);
        }
        let id = BlockId {
            pool: pool.clone(),
            index,
        };
        let grant = Grant {
            block,
            node: name.clone(),
            node_uid: node.uid.clone(),
            epoch: self.epoch,
            request_generation,
        };
        self.claims.insert(&id, &block);
        self.creating.insert(id.clone(), grant.clone());
        actions.push(Action::Create(id, grant));
        Ok(())
    }

    /// Blocks of the pool that take new pods on this node, granted or about to be.
    fn usable(&self, name: &NodeName, uid: &NodeUid, pool: &PoolName) -> usize {
        let held = self.held_by(name, uid, pool).filter(|(_, block)| {
            !block.drain && matches!(block.phase, Phase::Offered | Phase::Active)
        });
        held.count() + self.creating_for(uid, pool).count()
    }

    fn held_by<'a>(
        &'a self,
        name: &NodeName,
        uid: &'a NodeUid,
        pool: &'a PoolName,
    ) -> impl Iterator<Item = (&'a BlockId, &'a HeldBlock)> {
        let ids = self.by_node.get(name).into_iter().flatten();
        ids.filter(move |id| id.pool == *pool)
            .filter_map(|id| self.blocks.get_key_value(id))
            .filter(move |(_, block)| block.node_uid == *uid)
    }

    fn creating_for<'a>(
        &'a self,
        uid: &'a NodeUid,
        pool: &'a PoolName,
    ) -> impl Iterator<Item = (&'a BlockId, &'a Grant)> {
        self.creating
            .iter()
            .filter(move |(id, grant)| id.pool == *pool && grant.node_uid == *uid)
    }
}

#[cfg(test)]
mod tests;
