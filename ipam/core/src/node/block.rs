//! One block in the node's hand: which positions are taken, which are free and since when.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::Offer;
use crate::{AttachmentKey, Block, Moment};

/// The figures of a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Positions of attachments.
    pub used: u32,
    /// Positions that can be given out at once.
    pub ready: u32,
    /// Freed positions that still rest.
    pub resting: u32,
    /// Positions that the pool reserves.
    pub reserved: u32,
    /// Positions in use by something that no record explains.
    pub quarantined: u32,
    /// Whether new addresses are given out of it.
    pub active: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum State {
    Active,
    /// No new addresses; given back when empty.
    Draining,
    /// Its object is gone while addresses are in use.
    Lost,
    /// Given back; its object is still there.
    Released,
}

/// Why a position is not free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Slot {
    Used(AttachmentKey),
    Reserved,
    Quarantined,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HeldBlock {
    pub(super) uid: String,
    pub(super) addresses: Block,
    pub(super) state: State,
    pub(super) cooldown: Duration,
    /// How many looks in a row found it empty.
    pub(super) empty_looks: u8,
    taken: BTreeMap<u32, Slot>,
    used: u32,
    quarantined: u32,
    /// Free positions, the longest free first, each with the end of its rest.
    free: VecDeque<(u32, Moment)>,
}

impl HeldBlock {
    pub(super) fn new(offer: &Offer) -> Self {
        let size = offer.block.size();
        let mut block = HeldBlock {
            uid: offer.uid.clone(),
            addresses: offer.block,
            state: State::Active,
            cooldown: offer.cooldown,
            empty_looks: 0,
            taken: BTreeMap::new(),
            used: 0,
            quarantined: 0,
            free: VecDeque::with_capacity(size as usize),
        };
        for step in 0..size {
            let position = (offer.start % size + step) % size;
            if offer.block.is_reserved(position, &offer.reserved) {
                block.taken.insert(position, Slot::Reserved);
            } else {
                block.free.push_back((position, Moment(0)));
            }
        }
        block
    }

    pub(super) fn used(&self) -> u32 {
        self.used
    }

    /// No attachment and nothing unexplained.
    pub(super) fn is_empty(&self) -> bool {
        self.used == 0 && self.quarantined == 0
    }

    pub(super) fn is_free(&self, position: u32) -> bool {
        !self.taken.contains_key(&position)
    }

    /// Takes a position out of turn: what the log or a veth says. Of a reserved one too, which was
    /// in use before it was reserved.
    pub(super) fn take(&mut self, position: u32, slot: Slot) {
        self.free.retain(|(free, _)| *free != position);
        self.count(&slot, 1);
        if let Some(before) = self.taken.insert(position, slot) {
            self.count(&before, -1);
        }
    }

    pub(super) fn has_ready(&self, now: Moment) -> bool {
        self.state == State::Active && self.free.front().is_some_and(|(_, until)| *until <= now)
    }

    /// The position that has been free the longest, for `key`.
    pub(super) fn take_ready(&mut self, now: Moment, key: &AttachmentKey) -> Option<u32> {
        if !self.has_ready(now) {
            return None;
        }
        let (position, _) = self.free.pop_front()?;
        self.taken.insert(position, Slot::Used(key.clone()));
        self.used += 1;
        self.empty_looks = 0;
        Some(position)
    }

    /// Frees a position; it can be given out again after `until`, behind all others.
    pub(super) fn rest(&mut self, position: u32, until: Moment) {
        match self.taken.get(&position) {
            Some(Slot::Reserved | Slot::Quarantined) => return,
            Some(Slot::Used(_)) => {
                self.taken.remove(&position);
                self.used -= 1;
            }
            None => self.free.retain(|(free, _)| *free != position),
        }
        // Rests end in this order even where the pool's cooldown was changed in between.
        let at = self.free.partition_point(|(_, other)| *other <= until);
        self.free.insert(at, (position, until));
    }

    /// Positions that can be given out at once.
    pub(super) fn ready(&self, now: Moment) -> u32 {
        if self.state != State::Active {
            return 0;
        }
        self.free.partition_point(|(_, until)| *until <= now) as u32
    }

    /// Positions at rest at `now`, with the end of the rest.
    pub(super) fn resting(&self, now: Moment) -> impl Iterator<Item = (u32, Moment)> + '_ {
        self.free
            .iter()
            .copied()
            .filter(move |(_, until)| *until > now)
    }

    pub(super) fn usage(&self, now: Moment) -> Usage {
        let reserved = self
            .taken
            .values()
            .filter(|slot| **slot == Slot::Reserved)
            .count();
        Usage {
            used: self.used,
            ready: self.ready(now),
            resting: self.resting(now).count() as u32,
            reserved: reserved as u32,
            quarantined: self.quarantined,
            active: self.state == State::Active,
        }
    }

    fn count(&mut self, slot: &Slot, by: i32) {
        match slot {
            Slot::Used(_) => self.used = self.used.saturating_add_signed(by),
            Slot::Quarantined => self.quarantined = self.quarantined.saturating_add_signed(by),
            Slot::Reserved => {}
        }
    }
}
