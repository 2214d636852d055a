//! Routes: what peers told, what was picked, what is told on.

mod egress;

pub use egress::NextHopMode;
