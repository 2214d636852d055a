//! An agent as a process of its own on a node of its own: what it wires, announces, refuses and counts.

mod bgp;
mod changes;
mod common;
mod drops;
mod metrics;
mod node;
mod secrets;
