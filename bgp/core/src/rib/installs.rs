//! Where routes stand on their way to the FIB.
//!
//! Owns what the FIB was last asked for about each destination, and what it answered. Does not own
//! what it should be asked for. A speaker that does not forward has none of this.

use std::collections::HashMap;
use std::sync::Arc;

use crate::rib::event::{Action, Forward};
use crate::rib::hash::Seed;
use crate::rib::table::DestId;
use crate::rib::ways::{WaysRef, WaysTable};
use crate::types::{Family, Prefix};

/// Where a route stands on its way to the FIB, without the words.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Fib {
    #[default]
    None,
    Pending,
    Installed,
    Failed,
}

/// Where a route stands on its way to the FIB.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FibState {
    /// Own routes and unusable ones have nothing to install; a speaker that does not forward has
    /// none at all.
    None,
    /// Handed over, not yet acknowledged.
    Pending,
    /// The FIB has it.
    Installed,
    /// The FIB refused it, for the reason.
    Failed(String),
}

/// How many routes stand where on their way to the FIB.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FibCounts {
    /// Handed over, not yet acknowledged.
    pub pending: usize,
    /// In the FIB.
    pub installed: usize,
    /// Refused.
    pub failed: usize,
}

impl FibCounts {
    fn of(&mut self, state: Fib) -> Option<&mut usize> {
        match state {
            Fib::None => None,
            Fib::Pending => Some(&mut self.pending),
            Fib::Installed => Some(&mut self.installed),
            Fib::Failed => Some(&mut self.failed),
        }
    }
}

/// What is noted about one destination.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    /// What the FIB was last asked for.
    ways: Option<WaysRef>,
    /// The number of that request, its low half.
    seq: u32,
    state: Fib,
}

/// All routes of the FIB.
#[derive(Debug)]
pub(super) struct Installs {
    /// By number of the destination.
    notes: Vec<Note>,
    ways: WaysTable,
    /// By family.
    counts: [FibCounts; Family::ALL.len()],
    failures: HashMap<DestId, String>,
    last_seq: u64,
}

impl Installs {
    pub(super) fn new(seed: Seed) -> Self {
        Self {
            notes: Vec::new(),
            ways: WaysTable::new(seed),
            counts: Default::default(),
            failures: HashMap::new(),
            last_seq: 0,
        }
    }

    /// Asks the FIB for a destination's ways, if they are others than before.
    pub(super) fn ask(
        &mut self,
        id: DestId,
        prefix: Prefix,
        ways: Option<&[Forward]>,
        out: &mut Vec<Action>,
    ) {
        let before = self.note(id).ways;
        if before.map(|held| &**self.ways.get(held)) == ways {
            return;
        }
        self.last_seq += 1;
        let held = ways.map(|ways| self.ways.intern(ways));
        let note = Note {
            ways: held,
            seq: low_half(self.last_seq),
            state: self.state(id),
        };
        if id.slot() >= self.notes.len() {
            self.notes.resize(id.slot() + 1, Note::default());
        }
        self.notes[id.slot()] = note;
        let state = if held.is_some() {
            Fib::Pending
        } else {
            Fib::None
        };
        self.enter(id, prefix.family(), state);
        if let Some(before) = before {
            self.ways.release(before);
        }
        out.push(Action::Fib {
            prefix,
            forward: held.map(|held| Arc::clone(self.ways.get(held))),
            seq: self.last_seq,
        });
    }

    /// Takes the FIB's answer about a route of `family`; whether it counts. Answers to requests that
    /// were replaced since do not.
    pub(super) fn answer(
        &mut self,
        id: DestId,
        family: Family,
        seq: u64,
        failed: Option<String>,
    ) -> bool {
        let note = self.note(id);
        if note.seq != low_half(seq) || note.ways.is_none() {
            return false;
        }
        let state = if failed.is_some() {
            Fib::Failed
        } else {
            Fib::Installed
        };
        self.enter(id, family, state);
        if let Some(why) = failed {
            self.failures.insert(id, why);
        }
        true
    }

    pub(super) fn state(&self, id: DestId) -> Fib {
        self.note(id).state
    }

    /// Whether the FIB is asked for a route.
    pub(super) fn wants(&self, id: DestId) -> bool {
        self.note(id).ways.is_some()
    }

    /// The state with its words.
    pub(super) fn describe(&self, id: DestId) -> FibState {
        match self.state(id) {
            Fib::None => FibState::None,
            Fib::Pending => FibState::Pending,
            Fib::Installed => FibState::Installed,
            Fib::Failed => FibState::Failed(self.failures.get(&id).cloned().unwrap_or_default()),
        }
    }

    /// How many routes the FIB has not yet answered for.
    pub(super) fn pending(&self) -> usize {
        self.counts.iter().map(|counts| counts.pending).sum()
    }

    /// Distinct sets of next hops that are asked for.
    pub(super) fn ways(&self) -> usize {
        self.ways.len()
    }

    /// How many routes stand where, by family.
    pub(super) fn counts(&self) -> [FibCounts; Family::ALL.len()] {
        self.counts
    }

    /// Notes that a destination of `family` has come to another state.
    fn enter(&mut self, id: DestId, family: Family, state: Fib) {
        let before = std::mem::replace(&mut self.notes[id.slot()].state, state);
        if before == Fib::Failed {
            self.failures.remove(&id);
        }
        let counts = &mut self.counts[family.index()];
        if let Some(count) = counts.of(before) {
            *count -= 1;
        }
        if let Some(count) = counts.of(state) {
            *count += 1;
        }
    }

    fn note(&self, id: DestId) -> Note {
        self.notes.get(id.slot()).copied().unwrap_or_default()
    }
}

fn low_half(number: u64) -> u32 {
    (number & u64::from(u32::MAX)) as u32
}
