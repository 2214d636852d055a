//! The node's allocator: addresses for pods out of the blocks that the node holds.
//!
//! Owns: which address which attachment has, how long freed ones rest, when another block is wanted
//! and when one is given back. Does not own: the log's file, the kernel, BGP or the API server.
//!
//! Every step goes to the log before it takes effect: a batch of actions is carried out in order,
//! and nothing after an [`Action::Append`] may happen before that record is written. When the
//! process dies in between, the log explains whatever it left behind.

mod block;
mod replay;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use crate::reconcile::Verdict;
use crate::wal::Record;
use crate::{AddressPair, AttachmentKey, Block, BlockId, Moment, PoolName, Range};
pub use block::Usage;
use block::{HeldBlock, Slot, State};

/// How the allocator waits and what it keeps ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Settings {
    /// Another block is wanted when fewer addresses than this are ready, or a quarter of a block
    /// where that is less.
    pub low_watermark: u32,
    /// Pause between two looks at empty blocks.
    pub look_interval: Duration,
    /// How long the ADD of an attachment is refused whose DEL came first.
    pub tombstone: Duration,
    /// Pause before a refused demand for a block is made again.
    pub retry: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            low_watermark: 8,
            look_interval: Duration::from_secs(300),
            tombstone: Duration::from_secs(600),
            retry: Duration::from_secs(30),
        }
    }
}

/// A block object with our node's name on it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// UID of the object. The same name with another UID is a new grant.
    pub uid: String,
    /// Its addresses.
    pub block: Block,
    /// Term under which it was granted.
    pub epoch: u64,
    /// Whether this node has never taken it up.
    pub offered: bool,
    /// No new addresses: `spec.drain`, a Quarantined phase, or another UID of the node.
    pub drain: bool,
    /// Addresses of the pool that are never given out.
    pub reserved: Vec<Range>,
    /// How long a freed address rests.
    pub cooldown: Duration,
    /// A random number: the first address given out. After a reboot, which forgets what was in use,
    /// it keeps the same addresses from coming first again.
    pub start: u32,
}

/// What the allocator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A block of ours appeared or changed.
    Block(BlockId, Offer),
    /// A block of ours is gone.
    BlockGone(BlockId),
    /// Every block of ours has been told and what the node shows was judged: ADDs are answered.
    Open,
    /// CNI ADD.
    Add {
        /// The attachment.
        key: AttachmentKey,
        /// UID of its pod.
        pod_uid: String,
        /// Path of its network namespace.
        netns: String,
        /// Pools that fit the pod, the best first.
        pools: Vec<PoolName>,
    },
    /// CNI DEL, or the undoing of an ADD that failed later.
    Del(AttachmentKey),
    /// What the reconciliation says about an attachment; `netns` as found on its veth.
    Judged {
        /// The attachment.
        key: AttachmentKey,
        /// The verdict.
        verdict: Verdict,
    },
    /// The demand for a block of this pool was refused.
    RequestRefused(PoolName),
}

/// What the shell must do, in this order.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Action {
    /// Write the record. When that fails, carry out nothing that follows and answer the ADD or DEL
    /// with "try again later".
    Append(Record),
    /// Wire the attachment with these addresses and answer its ADD.
    Assigned {
        /// The attachment.
        key: AttachmentKey,
        /// Its addresses.
        addresses: AddressPair,
        /// The block that they are from.
        block: BlockId,
    },
    /// Refuse the ADD.
    Refused {
        /// The attachment.
        key: AttachmentKey,
        /// Why.
        why: Refusal,
    },
    /// The DEL is done as far as addresses go.
    Freed {
        /// The attachment.
        key: AttachmentKey,
        /// What it had; None where it was not known.
        addresses: Option<AddressPair>,
    },
    /// Announce the block and write phase Active with this epoch.
    Activate {
        /// The block.
        block: BlockId,
        /// Its epoch.
        epoch: u64,
    },
    /// Write phase Draining; the block stays announced.
    Drain(BlockId),
    /// Withdraw the block's routes, then write phase Released.
    Release(BlockId),
    /// The object of a block in use is gone. Keep announcing it, and raise a condition.
    Lost(BlockId),
    /// Stop announcing a block whose object is gone and that nobody uses.
    Forget(BlockId),
    /// Ask for another block of the pool.
    Request(PoolName),
}

/// Why an ADD is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Refusal {
    /// [`Event::Open`] has not come.
    #[error("the agent is still comparing its records with what runs on the node")]
    Starting,
    /// Its DEL came first.
    #[error("the attachment was deleted before it was added")]
    Deleted,
    /// No pool fits the pod.
    #[error("no pool selects the pod on this node")]
    NoPool,
    /// The node holds no usable block of the pools.
    #[error("the node holds no block of the pod's pools yet; one has been asked for")]
    NoBlock,
    /// All blocks are full, or what is free in them still rests.
    #[error(
        "every address of the node's blocks is in use or resting; another block has been asked for"
    )]
    NoAddress,
}

/// The allocator.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeAllocator {
    settings: Settings,
    open: bool,
    /// Highest epoch seen on a grant.
    epoch: u64,
    blocks: BTreeMap<BlockId, HeldBlock>,
    attachments: BTreeMap<AttachmentKey, Attachment>,
    tombstones: BTreeMap<AttachmentKey, Moment>,
    /// Resting positions of blocks that have not been told yet, from the log.
    resting: BTreeMap<(BlockId, u32), Moment>,
    /// Addresses that nothing explains; never given out.
    quarantined: BTreeSet<IpAddr>,
    /// Pools asked for, and when to ask again where the demand was refused.
    requested: BTreeMap<PoolName, Option<Moment>>,
    next_look: Option<Moment>,
}

/// What an attachment has.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attachment {
    /// UID of its pod.
    pub pod_uid: String,
    /// Path of its network namespace; empty where it was adopted from a veth.
    pub netns: String,
    /// Where its addresses are from.
    pub block: BlockId,
    /// Position in the block.
    pub position: u32,
    /// The addresses there.
    pub addresses: AddressPair,
}

impl NodeAllocator {
    /// An allocator of a node on which nothing runs yet. See [`NodeAllocator::replay`] for others.
    pub fn new(settings: Settings) -> Self {
        NodeAllocator {
            settings,
            open: false,
            epoch: 0,
            blocks: BTreeMap::new(),
            attachments: BTreeMap::new(),
            tombstones: BTreeMap::new(),
            resting: BTreeMap::new(),
            quarantined: BTreeSet::new(),
            requested: BTreeMap::new(),
            next_look: None,
        }
    }

    /// Takes in what was told and appends what is to be done.
    pub fn handle(&mut self, now: Moment, event: Event, actions: &mut Vec<Action>) {
        match event {
            Event::Block(id, offer) => self.block(now, id, offer, actions),
            Event::BlockGone(id) => self.block_gone(&id, actions),
            Event::Open => {
                self.open = true;
                self.next_look
                    .get_or_insert(now.after(self.settings.look_interval));
                let drained: Vec<BlockId> = self.blocks.keys().cloned().collect();
                for id in drained {
                    self.release_if_drained(&id, actions);
                }
                self.ask_for_all(now, actions);
            }
            Event::Add {
                key,
                pod_uid,
                netns,
                pools,
            } => {
                self.add(now, key, pod_uid, netns, &pools, actions);
            }
            Event::Del(key) => self.del(now, key, true, actions),
            Event::Judged { key, verdict } => self.judged(now, key, verdict, actions),
            Event::RequestRefused(pool) => {
                self.requested
                    .insert(pool, Some(now.after(self.settings.retry)));
            }
        }
    }

    /// When [`NodeAllocator::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Moment> {
        let retry = self.requested.values().flatten().min().copied();
        let tombstone = self.tombstones.values().min().copied();
        [self.next_look, retry, tombstone]
            .into_iter()
            .flatten()
            .min()
    }

    /// Looks at empty blocks, asks again, forgets old tombstones.
    pub fn handle_timeout(&mut self, now: Moment, actions: &mut Vec<Action>) {
        self.tombstones.retain(|_, until| *until > now);
        self.requested
            .retain(|_, again| again.is_none_or(|at| at > now));
        if self.next_look.is_some_and(|at| at <= now) {
            self.next_look = Some(now.after(self.settings.look_interval));
            self.look(now, actions);
        }
        self.ask_for_all(now, actions);
    }

    /// What this attachment has.
    pub fn attachment(&self, key: &AttachmentKey) -> Option<&Attachment> {
        self.attachments.get(key)
    }

    /// Every attachment, for the reconciliation and for inspection.
    pub fn attachments(&self) -> impl Iterator<Item = (&AttachmentKey, &Attachment)> {
        self.attachments.iter()
    }

    /// The figures of each block at `now`.
    pub fn usage(&self, now: Moment) -> BTreeMap<BlockId, Usage> {
        self.blocks
            .iter()
            .map(|(id, block)| (id.clone(), block.usage(now)))
            .collect()
    }

    fn block(&mut self, now: Moment, id: BlockId, offer: Offer, actions: &mut Vec<Action>) {
        // A grant that a deposed leader made after its successor's first one. Blocks in use are
        // older than that and stay.
        let stale = offer.offered && offer.epoch < self.epoch;
        self.epoch = self.epoch.max(offer.epoch);
        // A block given back and granted to us again, where its absence was not seen in between.
        // Without the UID an old sight of the first grant would revive what is being released.
        if self
            .blocks
            .get(&id)
            .is_some_and(|b| b.state == State::Released && b.uid != offer.uid)
        {
            self.blocks.remove(&id);
        }
        if let Some(held) = self.blocks.get_mut(&id) {
            held.cooldown = offer.cooldown;
            if held.uid != offer.uid && held.state != State::Draining {
                held.uid.clone_from(&offer.uid);
                actions.push(Action::Activate {
                    block: id.clone(),
                    epoch: offer.epoch,
                });
            }
            if held.state == State::Lost {
                held.state = State::Active; // the object is back
            }
            if offer.drain && held.state == State::Active {
                held.state = State::Draining;
                actions.push(Action::Drain(id.clone()));
            }
            self.release_if_drained(&id, actions);
            return;
        }
        let mut held = HeldBlock::new(&offer);
        for (key, attachment) in &self.attachments {
            if attachment.block == id {
                held.take(attachment.position, Slot::Used(key.clone()));
            }
        }
        for position in 0..offer.block.size() {
            let at = offer.block.at(position);
            if held.is_free(position) && at.iter().any(|a| self.quarantined.contains(&a)) {
                held.take(position, Slot::Quarantined);
            }
            if let Some(until) = self.resting.remove(&(id.clone(), position)) {
                held.rest(position, until);
            }
        }
        let used = !held.is_empty();
        if stale && !used {
            held.state = State::Released;
            actions.push(Action::Release(id.clone()));
        } else if offer.drain {
            held.state = State::Draining;
            if used {
                actions.push(Action::Drain(id.clone()));
            }
        } else {
            actions.push(Action::Activate {
                block: id.clone(),
                epoch: offer.epoch,
            });
        }
        if held.state == State::Active {
            self.requested.remove(&id.pool);
        }
        self.blocks.insert(id.clone(), held);
        self.release_if_drained(&id, actions);
        self.ask(now, &id.pool, actions);
    }

    fn block_gone(&mut self, id: &BlockId, actions: &mut Vec<Action>) {
        let Some(block) = self.blocks.get_mut(id) else {
            return;
        };
        if block.is_empty() {
            let released = block.state == State::Released;
            self.blocks.remove(id);
            if !released {
                actions.push(Action::Forget(id.clone()));
            }
        } else {
            block.state = State::Lost;
            actions.push(Action::Lost(id.clone()));
        }
    }

    fn add(
        &mut self,
        now: Moment,
        key: AttachmentKey,
        pod_uid: String,
        netns: String,
        pools: &[PoolName],
        actions: &mut Vec<Action>,
    ) {
        if let Some(attachment) = self.attachments.get(&key) {
            let (addresses, block) = (attachment.addresses, attachment.block.clone());
            actions.push(Action::Assigned {
                key,
                addresses,
                block,
            });
            return;
        }
        if let Err(why) = self.may_add(now, &key, pools) {
            actions.push(Action::Refused { key, why });
            return;
        }
        let Some((block, position, addresses)) = self.take(now, &key, pools) else {
            let holds = self
                .blocks
                .iter()
                .any(|(id, block)| pools.contains(&id.pool) && block.state == State::Active);
            let why = if holds {
                Refusal::NoAddress
            } else {
                Refusal::NoBlock
            };
            actions.push(Action::Refused { key, why });
            for pool in pools {
                self.demand(pool, actions);
            }
            return;
        };
        let attachment = Attachment {
            pod_uid,
            netns,
            block: block.clone(),
            position,
            addresses,
        };
        actions.push(Action::Append(attachment.record(key.clone())));
        self.attachments.insert(key.clone(), attachment);
        let pool = block.pool.clone();
        actions.push(Action::Assigned {
            key,
            addresses,
            block,
        });
        self.ask(now, &pool, actions);
    }

    fn may_add(&self, now: Moment, key: &AttachmentKey, pools: &[PoolName]) -> Result<(), Refusal> {
        if !self.open {
            return Err(Refusal::Starting);
        }
        if self.tombstones.get(key).is_some_and(|until| *until > now) {
            return Err(Refusal::Deleted);
        }
        if pools.is_empty() {
            Err(Refusal::NoPool)
        } else {
            Ok(())
        }
    }

    /// An address from the fullest active block of the first pool that has one: the others empty
    /// and can be given back.
    fn take(
        &mut self,
        now: Moment,
        key: &AttachmentKey,
        pools: &[PoolName],
    ) -> Option<(BlockId, u32, AddressPair)> {
        for pool in pools {
            let fullest = self
                .blocks
                .iter()
                .filter(|(id, block)| id.pool == *pool && block.has_ready(now))
                .max_by_key(|(id, block)| (block.used(), std::cmp::Reverse(id.index)))
                .map(|(id, _)| id.clone());
            if let Some(id) = fullest
                && let Some(block) = self.blocks.get_mut(&id)
                && let Some(position) = block.take_ready(now, key)
            {
                let addresses = block.addresses.at(position);
                return Some((id, position, addresses));
            }
        }
        None
    }

    fn del(&mut self, now: Moment, key: AttachmentKey, told: bool, actions: &mut Vec<Action>) {
        let Some(attachment) = self.attachments.remove(&key) else {
            if told {
                let until = now.after(self.settings.tombstone);
                self.tombstones.insert(key.clone(), until);
                actions.push(Action::Append(Record::Tombstone {
                    key: key.clone(),
                    until,
                }));
            }
            actions.push(Action::Freed {
                key,
                addresses: None,
            });
            return;
        };
        let Attachment {
            block: id,
            position,
            addresses,
            ..
        } = attachment;
        let cooldown = self
            .blocks
            .get(&id)
            .map_or(Duration::ZERO, |block| block.cooldown);
        let until = now.after(cooldown);
        actions.push(Action::Append(Record::Free {
            key: key.clone(),
            block: id.clone(),
            position,
            until,
        }));
        actions.push(Action::Freed {
            key,
            addresses: Some(addresses),
        });
        match self.blocks.get_mut(&id) {
            Some(block) => {
                block.rest(position, until);
                if block.state == State::Lost && block.is_empty() {
                    self.blocks.remove(&id);
                    actions.push(Action::Forget(id));
                } else {
                    self.release_if_drained(&id, actions);
                }
            }
            None => {
                self.resting.insert((id, position), until);
            }
        }
    }

    fn judged(
        &mut self,
        now: Moment,
        key: AttachmentKey,
        verdict: Verdict,
        actions: &mut Vec<Action>,
    ) {
        match verdict {
            Verdict::Keep | Verdict::Suspect => {}
            Verdict::Free { .. } => self.del(now, key, false, actions),
            Verdict::Quarantine { addresses, .. } => self.quarantine(addresses),
            Verdict::Adopt(addresses) => {
                let place = addresses.iter().find_map(|address| {
                    self.blocks.iter().find_map(|(id, block)| {
                        let position = block.addresses.position_of(address)?;
                        Some((id.clone(), position, block.addresses.at(position)))
                    })
                });
                match place {
                    Some((id, position, at))
                        if at == addresses
                            && self.blocks.get(&id).is_some_and(|b| b.is_free(position)) =>
                    {
                        if let Some(block) = self.blocks.get_mut(&id) {
                            block.take(position, Slot::Used(key.clone()));
                        }
                        let attachment = Attachment {
                            pod_uid: String::new(),
                            netns: String::new(),
                            block: id,
                            position,
                            addresses,
                        };
                        actions.push(Action::Append(attachment.record(key.clone())));
                        self.attachments.insert(key, attachment);
                    }
                    // Of no block of ours, or of one where another attachment has it.
                    _ => self.quarantine(addresses),
                }
            }
        }
    }

    fn quarantine(&mut self, addresses: AddressPair) {
        self.quarantined.extend(addresses.iter());
        for block in self.blocks.values_mut() {
            let whole = block.addresses;
            for position in addresses
                .iter()
                .filter_map(|address| whole.position_of(address))
            {
                if block.is_free(position) {
                    block.take(position, Slot::Quarantined);
                }
            }
        }
    }

    /// A draining block is given back with its last address. Resting ones need not be waited for:
    /// the block as a whole rests before another node gets it.
    fn release_if_drained(&mut self, id: &BlockId, actions: &mut Vec<Action>) {
        if !self.open {
            return; // until everything has been seen, a block only seems empty
        }
        if let Some(block) = self.blocks.get_mut(id)
            && block.state == State::Draining
            && block.is_empty()
        {
            block.state = State::Released;
            actions.push(Action::Release(id.clone()));
        }
    }

    /// Gives back blocks that were empty at two looks, while enough stays ready elsewhere.
    fn look(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if !self.open {
            return;
        }
        for id in self.blocks.keys().cloned().collect::<Vec<_>>() {
            let elsewhere: u32 = self
                .blocks
                .iter()
                .filter(|(other, _)| other.pool == id.pool && **other != id)
                .map(|(_, block)| block.ready(now))
                .sum();
            let low = self.low(&id.pool);
            let Some(block) = self.blocks.get_mut(&id) else {
                continue;
            };
            if block.state != State::Active {
                continue;
            }
            block.empty_looks = if block.is_empty() {
                block.empty_looks.saturating_add(1)
            } else {
                0
            };
            // Twice the low mark, so that giving back never leads to asking again.
            if block.empty_looks >= 2 && elsewhere >= 2 * low {
                block.state = State::Released;
                actions.push(Action::Release(id));
            }
        }
    }

    fn low(&self, pool: &PoolName) -> u32 {
        let smallest = self
            .blocks
            .iter()
            .filter(|(id, _)| id.pool == *pool)
            .map(|(_, b)| b.addresses.size());
        let quarter = smallest.min().unwrap_or(4) / 4;
        self.settings.low_watermark.min(quarter).max(1)
    }

    fn ask_for_all(&mut self, now: Moment, actions: &mut Vec<Action>) {
        let pools: BTreeSet<PoolName> = self.blocks.keys().map(|id| id.pool.clone()).collect();
        for pool in pools {
            self.ask(now, &pool, actions);
        }
    }

    /// Asks for another block of the pool when too little of it is ready.
    fn ask(&mut self, now: Moment, pool: &PoolName, actions: &mut Vec<Action>) {
        if !self.open {
            return;
        }
        let active = || {
            self.blocks
                .iter()
                .filter(|(id, b)| id.pool == *pool && b.state == State::Active)
        };
        // A node without an active block is granted one unasked.
        if active().next().is_none() {
            return;
        }
        let ready: u32 = active().map(|(_, block)| block.ready(now)).sum();
        if ready < self.low(pool) {
            self.demand(pool, actions);
        }
    }

    fn demand(&mut self, pool: &PoolName, actions: &mut Vec<Action>) {
        if !self.requested.contains_key(pool) {
            self.requested.insert(pool.clone(), None);
            actions.push(Action::Request(pool.clone()));
        }
    }
}

impl Attachment {
    fn record(&self, key: AttachmentKey) -> Record {
        Record::Assign {
            key,
            pod_uid: self.pod_uid.clone(),
            block: self.block.clone(),
            position: self.position,
            addresses: self.addresses,
            netns: self.netns.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
