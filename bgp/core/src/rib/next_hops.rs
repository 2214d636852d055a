//! Whether the next hops of paths lead anywhere (RFC 4271 §9.1.2.1), as the FIB says.
//!
//! Owns which next hops the FIB is asked about, and its answers. Does not own what an answer means for a
//! prefix, which is the decision's ([`super::best`]).

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use crate::rib::event::{Forward, Reachability};
use crate::rib::hash::Seed;
use crate::types::Prefix;

/// The next hops that paths name.
#[derive(Debug, Default)]
pub(super) struct NextHops {
    /// Whether there is a FIB to ask.
    asks: bool,
    known: HashMap<Forward, Known, Seed>,
    /// How many of them do not lead somewhere by themselves.
    doubtful: usize,
    /// Whom the FIB is still to be asked about, or not any more.
    untold: Vec<(Forward, bool)>,
}

#[derive(Debug)]
struct Known {
    /// How many paths name it.
    holders: u32,
    reach: Reachability,
}

impl NextHops {
    pub(super) fn new(seed: Seed, asks: bool) -> Self {
        Self {
            asks,
            known: HashMap::with_hasher(seed),
            ..Self::default()
        }
    }

    /// One path more names it.
    pub(super) fn hold(&mut self, forward: Forward) {
        if !self.asks {
            return;
        }
        match self.known.entry(forward) {
            Entry::Occupied(mut known) => known.get_mut().holders += 1,
            Entry::Vacant(place) => {
                // Until the FIB says otherwise, which it does before it installs anything.
                place.insert(Known {
                    holders: 1,
                    reach: Reachability::Direct,
                });
                self.untold.push((forward, true));
            }
        }
    }

    /// One path less names it.
    pub(super) fn release(&mut self, forward: Forward) {
        let Entry::Occupied(mut known) = self.known.entry(forward) else {
            return;
        };
        known.get_mut().holders -= 1;
        if known.get().holders == 0 {
            self.doubtful -= usize::from(known.remove().reach != Reachability::Direct);
            self.untold.push((forward, false));
        }
    }

    /// Takes in what the FIB says; whether that is new.
    pub(super) fn set(&mut self, forward: &Forward, reach: Reachability) -> bool {
        let Some(known) = self.known.get_mut(forward) else {
            return false;
        };
        let before = std::mem::replace(&mut known.reach, reach);
        self.doubtful += usize::from(reach != Reachability::Direct);
        self.doubtful -= usize::from(before != Reachability::Direct);
        before != reach
    }

    /// Whether there is one that does not lead somewhere by itself.
    pub(super) fn any_doubtful(&self) -> bool {
        self.doubtful > 0
    }

    /// Whether packets to `prefix` get anywhere this way. What is reached over the route to `prefix`
    /// itself is not reached once it is the way of that route.
    pub(super) fn leads(&self, forward: &Forward, prefix: &Prefix) -> bool {
        match self.known.get(forward).map(|known| known.reach) {
            None | Some(Reachability::Direct) => true,
            Some(Reachability::Over(route)) => route != *prefix,
            Some(Reachability::Unreachable) => false,
        }
    }

    /// What the FIB is to be told of, in order.
    pub(super) fn take_untold(&mut self) -> Vec<(Forward, bool)> {
        std::mem::take(&mut self.untold)
    }
}
