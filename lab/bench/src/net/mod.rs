//! The network that a measurement runs on: namespaces, links, and what the kernel and the packets tell of them.

pub mod arena;
pub mod monitor;
pub mod netns;
pub mod probe;
