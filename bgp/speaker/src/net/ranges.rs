//! Listen ranges: which of them an unknown peer belongs to, and whether there is room in it.
//!
//! Owns the lookup and the count of peers that each range has admitted. Does not own sessions: who
//! is admitted stays so until it is released. No clock and no socket.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;

use caracal_bgp_core::types::Prefix;

use super::listen::Source;

/// What is configured for a range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range<N> {
    /// What the range is called.
    pub name: N,
    /// The addresses that may connect.
    pub prefix: Prefix,
    /// How many peers it may have at once.
    pub limit: usize,
}

/// What becomes of a connection from an address that is no configured peer's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission<'a, N> {
    /// A new peer of this range, counted from now on.
    New(&'a N),
    /// A peer that the range has admitted before.
    Known(&'a N),
    /// The range has as many peers as it may have.
    Full(&'a N),
    /// No range holds the address.
    Stranger,
}

/// All listen ranges; the longest prefix that holds an address counts.
#[derive(Clone, Debug)]
pub struct Ranges<N> {
    ranges: Vec<Slot<N>>,
    /// Position in `ranges` by prefix.
    by_prefix: HashMap<Prefix, usize>,
    /// Lengths that occur, by family and longest first: few, however many ranges there are.
    lengths: [Vec<u8>; 2],
    /// Who was admitted, and by which range.
    admitted: BTreeMap<Source, usize>,
}

#[derive(Clone, Debug)]
struct Slot<N> {
    range: Range<N>,
    used: usize,
}

impl<N> Default for Ranges<N> {
    fn default() -> Self {
        Self {
            ranges: Vec::new(),
            by_prefix: HashMap::new(),
            lengths: [Vec::new(), Vec::new()],
            admitted: BTreeMap::new(),
        }
    }
}

impl<N: Clone + Eq> Ranges<N> {
    /// Ranges that nobody has connected to yet; see [`Ranges::configure`].
    pub fn new(ranges: impl IntoIterator<Item = Range<N>>) -> Self {
        let mut new = Self::default();
        new.configure(ranges);
        new
    }

    /// Goes to other ranges. Of two with the same prefix, the first counts.
    ///
    /// Returns who has lost its place: peers that no range holds any more, that a range of another
    /// name holds now, or for whom there is no room under a lower limit (then those with the
    /// highest addresses). They are no longer counted; the caller ends their sessions.
    pub fn configure(&mut self, ranges: impl IntoIterator<Item = Range<N>>) -> Vec<Source> {
        let former = std::mem::take(self);
        let mut lengths: [BTreeSet<u8>; 2] = Default::default();
        for range in ranges {
            let position = self.ranges.len();
            if self.by_prefix.contains_key(&range.prefix) {
                continue;
            }
            self.by_prefix.insert(range.prefix, position);
            lengths[usize::from(range.prefix.addr().is_ipv6())].insert(range.prefix.len());
            self.ranges.push(Slot { range, used: 0 });
        }
        self.lengths = lengths.map(|lengths| lengths.into_iter().rev().collect());
        let mut displaced = Vec::new();
        for (source, position) in former.admitted {
            let name = &former.ranges[position].range.name;
            let stays = self
                .position(source.address)
                .filter(|now| self.ranges[*now].range.name == *name);
            match stays {
                Some(now) if self.ranges[now].used < self.ranges[now].range.limit => {
                    self.ranges[now].used += 1;
                    self.admitted.insert(source, now);
                }
                _ => displaced.push(source),
            }
        }
        displaced
    }

    /// The range that `address` belongs to.
    pub fn lookup(&self, address: IpAddr) -> Option<&Range<N>> {
        self.position(address)
            .map(|position| &self.ranges[position].range)
    }

    /// Admits `source`, if there is room for it. A second connection of a peer needs none.
    pub fn admit(&mut self, source: Source) -> Admission<'_, N> {
        if let Some(position) = self.admitted.get(&source) {
            return Admission::Known(&self.ranges[*position].range.name);
        }
        let Some(position) = self.position(source.address) else {
            return Admission::Stranger;
        };
        let slot = &mut self.ranges[position];
        if slot.used >= slot.range.limit {
            return Admission::Full(&slot.range.name);
        }
        slot.used += 1;
        self.admitted.insert(source, position);
        Admission::New(&slot.range.name)
    }

    /// Gives the place of `source` free; whether it had one.
    pub fn release(&mut self, source: Source) -> bool {
        let position = self.admitted.remove(&source);
        if let Some(position) = position {
            self.ranges[position].used -= 1;
        }
        position.is_some()
    }

    /// Each range, and how many peers it has.
    pub fn usage(&self) -> impl Iterator<Item = (&Range<N>, usize)> {
        self.ranges.iter().map(|slot| (&slot.range, slot.used))
    }

    fn position(&self, address: IpAddr) -> Option<usize> {
        self.lengths[usize::from(address.is_ipv6())]
            .iter()
            .filter_map(|length| Prefix::new(address, *length).ok())
            .find_map(|prefix| self.by_prefix.get(&prefix).copied())
    }
}

#[cfg(test)]
mod tests;
