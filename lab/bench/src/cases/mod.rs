//! The cases: what is asked of every daemon.
//!
//! Owns their list. Each is a function that plays one run and gives a [`Sample`]. Does not own rounds and
//! placements ([`crate::plan`]).

mod clients;
mod fan_out;
mod fib;
mod idle;
mod reflector;
mod slow;
mod tables;

use std::time::Duration;

use crate::daemons::Daemon;
use crate::measure::{Metric, Sample, Target};
use crate::stage::Run;

/// A case.
#[derive(Debug)]
pub struct Case {
    /// Name on the command line and in JSON.
    pub name: &'static str,
    /// Name for people.
    pub title: &'static str,
    /// What happens and what is timed.
    pub about: &'static str,
    /// What is measured, in the order of the table.
    pub metrics: &'static [Metric],
    /// What is to be reached.
    pub targets: &'static [Target],
    /// How long each phase may take: well beyond what the slowest daemon needs that comes to the end at all, and no
    /// more, because the others are waited for as long as this.
    pub limit: Duration,
    /// How long five rounds of all daemons take on two cores, about. Told to those who wait, until the case was
    /// measured on their machine.
    pub usual: Duration,
    /// Why a daemon has no part in it.
    pub lacks: fn(Daemon) -> Option<&'static str>,
    /// Plays one run.
    pub run: fn(Run<'_>) -> anyhow::Result<Sample>,
}

/// All cases, in the order in which they run.
pub const ALL: &[Case] = &[
    tables::ONE,
    tables::TEN,
    tables::BEST,
    fan_out::CASE,
    reflector::SMALL,
    reflector::LARGE,
    slow::CASE,
    idle::CASE,
    fib::LINK,
    fib::PEER,
];

impl Case {
    /// A metric of the case by its key.
    ///
    /// # Panics
    /// There is none, which a test excludes.
    pub fn metric(&self, key: &str) -> &'static Metric {
        let mut metrics = self.metrics.iter();
        metrics
            .find(|metric| metric.key == key)
            .unwrap_or_else(|| panic!("{} does not measure {key}", self.name))
    }
}

/// So many minutes.
const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn cases_have_names_of_their_own_and_targets_for_what_they_measure() {
        let names: HashSet<&str> = ALL.iter().map(|case| case.name).collect();
        assert_eq!(names.len(), ALL.len());
        for case in ALL {
            let keys: HashSet<&str> = case.metrics.iter().map(|metric| metric.key).collect();
            assert_eq!(keys.len(), case.metrics.len(), "{}", case.name);
            for target in case.targets {
                assert!(keys.contains(target.metric), "{}: {target:?}", case.name);
            }
        }
    }
}
