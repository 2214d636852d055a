//! The command line.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};
use serde::{Deserialize, Serialize};

use crate::daemons::Daemon;

/// Measures BGP daemons beside each other on one generator.
///
/// Needs root: every measurement runs in network namespaces of its own, and leaves nothing behind.
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "caracal-bench", version)]
pub struct Options {
    /// Our binary
    #[arg(long, default_value = "target/release/caracal")]
    pub caracal: PathBuf,
    /// Cases to run, all when absent; `--list` names them
    #[arg(long, value_delimiter = ',')]
    pub cases: Vec<String>,
    /// Daemons to run, all when absent: caracal, bird, frr, gobgp, openbgpd, direct
    #[arg(long, value_delimiter = ',')]
    pub daemons: Vec<Daemon>,
    /// Placements to run, all when absent
    #[arg(long, value_delimiter = ',')]
    pub placements: Vec<Placement>,
    /// How often each case is run with each daemon
    #[arg(long, default_value_t = 5)]
    pub rounds: usize,
    /// One round, and shorter waits in the cases that last a fixed time
    #[arg(long)]
    pub quick: bool,
    /// Prefixes that share a set of attributes, on average
    #[arg(long, default_value_t = 6.0)]
    pub prefixes_per_path: f64,
    /// Factor on the numbers of prefixes and sessions, to try a case out
    #[arg(long, default_value_t = 1.0)]
    pub scale: f64,
    /// Core of the daemon, where it is pinned
    #[arg(long, default_value_t = 0)]
    pub daemon_core: usize,
    /// Core of the generator, where it is pinned
    #[arg(long, default_value_t = 1)]
    pub generator_core: usize,
    /// Writes all that this run measures as JSON, after each case
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Keeps what is measured beside this page (same name, `.json`), in the place of what was kept of the same
    /// cases, and writes the page and its plot from all that is kept; after each case
    #[arg(long, value_name = "PAGE")]
    pub docs: Option<PathBuf>,
    /// Measures nothing: writes the page and its plot again from what is kept beside it
    #[arg(
        long,
        value_name = "PAGE",
        conflicts_with_all = ["docs", "json", "cases", "daemons", "placements", "quick"]
    )]
    pub render: Option<PathBuf>,
    /// Names the cases and ends
    #[arg(long)]
    pub list: bool,
}

/// Where daemon and generator run.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, ValueEnum, Serialize, Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Placement {
    /// The daemon with all its threads on one core, the generator on another. This one counts.
    Pinned,
    /// As the scheduler likes.
    Unpinned,
}

impl Placement {
    /// All of them: every case is run in each.
    pub const ALL: [Self; 2] = [Self::Pinned, Self::Unpinned];

    /// The name on the command line and in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Unpinned => "unpinned",
        }
    }
}

impl Options {
    /// How often each case is run with each daemon.
    pub fn rounds(&self) -> usize {
        if self.quick { 1 } else { self.rounds }
    }

    /// `count` times the scale, at least `least`.
    pub fn scaled(&self, count: usize, least: usize) -> usize {
        ((count as f64 * self.scale).round() as usize).max(least)
    }
}
