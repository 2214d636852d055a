//! Tests of the codec as a whole: by table, by vector, by property.

mod open;
mod outcomes;
mod round_trip;
pub(crate) mod strategies;
mod vectors;
