//! How many packets policy has dropped, from counters that come and go.
//!
//! Owns the sums since the agent's start. Does not own the counters: those are the kernel's, begin with
//! zero when a class or the table is made anew, and end with it.

use std::collections::BTreeMap;

use caracal_policy::plan::{ClassId, Direction};

/// Why packets were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reason {
    /// No policy that isolates the pod for packets to it allows them.
    IngressPolicy,
    /// The same for packets from it.
    EgressPolicy,
    /// The pod's labels are not known.
    Isolated,
    /// From an address that the pod does not own.
    Spoofed,
    /// By an interface of a pod that is not known.
    UnknownInterface,
    /// In no state that connection tracking accepts.
    Invalid,
    /// TCP of unknown connections.
    Midstream,
}

impl Reason {
    /// Every reason.
    pub(crate) const ALL: [Reason; 7] = [
        Reason::IngressPolicy,
        Reason::EgressPolicy,
        Reason::Isolated,
        Reason::Spoofed,
        Reason::UnknownInterface,
        Reason::Invalid,
        Reason::Midstream,
    ];

    /// Of what a class drops.
    pub(crate) fn of_class(direction: Direction) -> Reason {
        match direction {
            Direction::Ingress => Reason::IngressPolicy,
            Direction::Egress => Reason::EgressPolicy,
        }
    }

    /// The word for labels.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Reason::IngressPolicy => "ingress-policy",
            Reason::EgressPolicy => "egress-policy",
            Reason::Isolated => "isolated",
            Reason::Spoofed => "spoofed",
            Reason::UnknownInterface => "unknown-interface",
            Reason::Invalid => "invalid",
            Reason::Midstream => "midstream",
        }
    }
}

/// One of the kernel's counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Counter {
    /// Of a class, which drops for one reason.
    Class(ClassId),
    /// Of what no class drops.
    Other(Reason),
}

/// The sums.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    /// Counters as last seen.
    seen: BTreeMap<Counter, u64>,
    sums: BTreeMap<Reason, u64>,
}

impl Drops {
    /// Begins with counters as an earlier agent left them: what they hold is not ours to tell.
    pub(crate) fn since(counters: impl IntoIterator<Item = (Counter, u64)>) -> Drops {
        Drops {
            seen: counters.into_iter().collect(),
            sums: BTreeMap::new(),
        }
    }

    /// Adds what the counters have grown by. Those that are missing are gone, and what they had is kept.
    pub(crate) fn observe(&mut self, counters: impl IntoIterator<Item = (Counter, Reason, u64)>) {
        let before = std::mem::take(&mut self.seen);
        for (counter, reason, count) in counters {
            let seen = before.get(&counter).copied().unwrap_or(0);
            // Less than before: the counter was made anew.
            let grown = count.checked_sub(seen).unwrap_or(count);
            *self.sums.entry(reason).or_default() += grown;
            self.seen.insert(counter, count);
        }
    }

    /// What was dropped for each reason.
    pub(crate) fn sums(&self) -> BTreeMap<Reason, u64> {
        let sum = |reason| self.sums.get(&reason).copied().unwrap_or(0);
        let sums = Reason::ALL.map(|reason| (reason, sum(reason)));
        sums.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: Counter = Counter::Class(ClassId(1));
    const DATABASE: Counter = Counter::Class(ClassId(2));

    /// The sum of what policies dropped on the way in.
    fn ingress(drops: &Drops) -> u64 {
        drops.sums()[&Reason::IngressPolicy]
    }

    fn observe(drops: &mut Drops, counters: &[(Counter, u64)]) -> u64 {
        let counters = counters.iter().copied();
        drops.observe(counters.map(|(counter, count)| (counter, Reason::IngressPolicy, count)));
        ingress(drops)
    }

    #[test]
    fn sums_never_shrink_whatever_counters_come_go_or_begin_anew() {
        let mut drops = Drops::default();
        for (counters, sum) in [
            (&[(WEB, 3)][..], 3),
            (&[(WEB, 5), (DATABASE, 7)], 12),
            (&[(WEB, 5), (DATABASE, 7)], 12),
            // The class goes with what it had, and comes back empty.
            (&[(WEB, 6)], 13),
            (&[(WEB, 6), (DATABASE, 2)], 15),
            // The table was made anew, and counts from zero.
            (&[(WEB, 1), (DATABASE, 0)], 16),
            (&[], 16),
        ] {
            assert_eq!(observe(&mut drops, counters), sum, "{counters:?}");
        }
    }

    #[test]
    fn what_an_earlier_agent_saw_dropped_is_not_counted_again() {
        let mut drops = Drops::since([(WEB, 100)]);
        assert_eq!(ingress(&drops), 0);
        assert_eq!(observe(&mut drops, &[(WEB, 101), (DATABASE, 1)]), 2);
    }
}
