//! The policy compiler from outside: against the oracle, against tables, and against itself.

mod properties;
mod worlds;
