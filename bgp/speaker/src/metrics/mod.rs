//! What the speaker counts, for Prometheus.
//!
//! Owns the names, which never change once released, and how they are read from a snapshot: numbers
//! are gathered when somebody asks, and nothing is kept for them. Does not own the counts, nor the
//! page that they stand on.
//!
//! Labels are peers, ranges, families and words from closed lists, never prefixes: there are as many
//! series as the configuration asks for.

mod table;
#[cfg(test)]
mod tests;

use caracal_metrics::Page;

use crate::snapshot::SpeakerSnapshot;

/// Puts a speaker's metrics on a page.
pub fn add(page: &mut Page, speaker: SpeakerSnapshot) {
    page.add(table::METRICS, speaker);
}
