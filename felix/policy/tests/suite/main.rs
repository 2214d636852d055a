//! The policy compiler from outside: against the oracle, against tables, and against itself.

mod changes;
mod fixtures;
mod grid;
mod incremental;
mod properties;
mod worlds;
