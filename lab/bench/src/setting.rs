//! What numbers were measured with: whatever a reader has to know to judge them or to repeat them.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::clock;
use crate::daemons::Daemon;
use crate::machine::Machine;
use crate::options::Options;
use crate::source::Source;

/// Versions of the daemons, or why one could not take part.
pub type Versions = BTreeMap<Daemon, Result<String, String>>;

/// What a case was measured with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Setting {
    /// The day on which it began, as YYYY-MM-DD in UTC.
    pub day: String,
    /// The machine.
    pub machine: Machine,
    /// What our binary was made from.
    pub source: Source,
    /// The daemons.
    pub versions: Versions,
    /// How often each daemon was to run.
    pub rounds: usize,
    /// Prefixes that share a set of attributes, on average.
    pub prefixes_per_path: f64,
    /// The daemon's core, where it is pinned.
    pub daemon_core: usize,
    /// The generator's core, where it is pinned.
    pub generator_core: usize,
}

impl Setting {
    /// As it is here and now.
    pub fn here(options: &Options, versions: Versions) -> Self {
        let own: Vec<PathBuf> = options.docs.iter().flat_map(|page| written(page)).collect();
        Self {
            day: clock::today(),
            machine: Machine::here(),
            source: Source::of(&options.caracal, &own),
            versions,
            rounds: options.rounds(),
            prefixes_per_path: options.prefixes_per_path,
            daemon_core: options.daemon_core,
            generator_core: options.generator_core,
        }
    }
}

/// What is written with a page: itself, what it is made from, and its plot.
pub fn written(page: &std::path::Path) -> [PathBuf; 3] {
    [
        page.to_owned(),
        page.with_extension("json"),
        page.with_extension("svg"),
    ]
}
