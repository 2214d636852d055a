//! The lab runtime: topologies of real routers and real nodes in network namespaces.
//!
//! Owns namespaces, cables, processes, probes, faults and reports of a lab. Does not own: what a topology
//! file means (`caracal-lab-topology`), the API server (`caracal-apiserver`), or anything that runs on a
//! real machine: a lab's nodes are the product itself, started as they would be anywhere.

pub mod fabric;
pub mod namespace;
pub mod process;
pub mod routers;
pub mod state;
