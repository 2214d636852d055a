//! The memory of what became of paths on their way to a group of peers: each is judged once.
//!
//! Owns the outcome for each path, in place where it is the same for every prefix, which is what
//! most policies say. Does not own what is told ([`super::exports`]) nor how it is worked out.

use smallvec::SmallVec;

use crate::policy::{Narrowed, Operations};
use crate::rib::exports::ExportRef;
use crate::rib::paths::{PathKey, Paths};
use crate::types::Family;

/// Outcomes by path, for each family: one path leads to prefixes of both, and looks different to
/// peers in each.
#[derive(Debug, Default)]
pub(super) struct Accounts {
    /// By slot of the path.
    outcomes: [Vec<Account>; Family::ALL.len()],
    varying: Vec<Varying>,
    free: Vec<VaryingRef>,
    /// Accounts that are open.
    open: usize,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// Of the path's slot: the account of another life is over.
    life: u32,
    outcome: Outcome,
}

/// What became of a path.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was not asked for yet.
    #[default]
    Unknown,
    /// Nobody is told, whatever the prefix.
    Withheld,
    /// Everybody is told this, whatever the prefix; held.
    Told(ExportRef),
    /// It depends on the prefix.
    Varying(VaryingRef),
}

/// Stands for a [`Varying`] as long as its account is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct VaryingRef(u32);

/// What becomes of a path by prefix.
#[derive(Debug)]
pub(super) struct Varying {
    /// What is left of the policy.
    pub(super) narrowed: Narrowed,
    /// What was made of the path, by the operations that did it; held. `None` when it cannot be told
    /// so.
    pub(super) made: SmallVec<[(Operations, Option<ExportRef>); 1]>,
}

/// Open accounts may exceed twice the living paths by this before the dead ones are swept.
const SWEEP_SLACK: usize = 1024;

impl Accounts {
    /// What became of the path.
    pub(super) fn get(&self, (path, life): PathKey, family: Family) -> Outcome {
        match self.outcomes[family.index()].get(path.slot()) {
            Some(account) if account.life == life => account.outcome,
            _ => Outcome::Unknown,
        }
    }

    pub(super) fn varying(&mut self, at: VaryingRef) -> &mut Varying {
        &mut self.varying[at.0 as usize]
    }

    /// Makes room for an outcome that depends on the prefix.
    pub(super) fn add_varying(&mut self, narrowed: Narrowed) -> VaryingRef {
        let varying = Varying {
            narrowed,
            made: SmallVec::new(),
        };
        if let Some(at) = self.free.pop() {
            self.varying[at.0 as usize] = varying;
            return at;
        }
        self.varying.push(varying);
        let number = u32::try_from(self.varying.len() - 1);
        VaryingRef(number.expect("memory ends before four billion accounts do"))
    }

    /// Notes what became of a path. Exports of a path that had the slot before go to `released`.
    pub(super) fn set(
        &mut self,
        (path, life): PathKey,
        family: Family,
        outcome: Outcome,
        released: &mut Vec<ExportRef>,
    ) {
        let accounts = &mut self.outcomes[family.index()];
        if path.slot() >= accounts.len() {
            accounts.resize(path.slot() + 1, Account::default());
        }
        let account = Account { life, outcome };
        let before = std::mem::replace(&mut accounts[path.slot()], account);
        self.open += usize::from(outcome != Outcome::Unknown);
        self.close(before.outcome, released);
    }

    /// Whether so many accounts are of dead paths that it is time to sweep: doubling in between
    /// keeps the cost constant per path.
    pub(super) fn is_sweep_due(&self, paths: &Paths) -> bool {
        self.open > 2 * Family::ALL.len() * paths.len() + SWEEP_SLACK
    }

    /// Closes the accounts of dead paths; their exports go to `released`.
    pub(super) fn sweep(&mut self, paths: &Paths, released: &mut Vec<ExportRef>) {
        for family in 0..self.outcomes.len() {
            for slot in 0..self.outcomes[family].len() {
                let Account { life, outcome } = self.outcomes[family][slot];
                if outcome != Outcome::Unknown && !paths.slot_lives(slot, life) {
                    self.outcomes[family][slot] = Account::default();
                    self.close(outcome, released);
                }
            }
            let used = self.outcomes[family]
                .iter()
                .rposition(|account| account.outcome != Outcome::Unknown);
            self.outcomes[family].truncate(used.map_or(0, |last| last + 1));
            self.outcomes[family].shrink_to_fit();
        }
    }

    /// Every export that is held here.
    pub(super) fn dissolve(mut self) -> Vec<ExportRef> {
        let mut released = Vec::new();
        for account in std::mem::take(&mut self.outcomes).into_iter().flatten() {
            self.close(account.outcome, &mut released);
        }
        released
    }

    fn close(&mut self, outcome: Outcome, released: &mut Vec<ExportRef>) {
        self.open -= usize::from(outcome != Outcome::Unknown);
        match outcome {
            Outcome::Unknown | Outcome::Withheld => {}
            Outcome::Told(export) => released.push(export),
            Outcome::Varying(at) => {
                let made = std::mem::take(&mut self.varying(at).made);
                released.extend(made.into_iter().filter_map(|(_, export)| export));
                self.free.push(at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_takes_little() {
        assert_eq!(size_of::<Account>(), 12);
    }
}
