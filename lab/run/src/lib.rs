//! The lab runtime: topologies of real routers and real nodes in network namespaces.
//!
//! Owns namespaces, cables, processes, probes, faults and reports of a lab. Does not own: what a topology
//! file means (`caracal-lab-topology`), the API server (`caracal-apiserver`), or anything that runs on a
//! real machine: a lab's nodes are the product itself, started as they would be anywhere.

pub mod cli;
pub mod cluster;
pub mod custody;
pub mod demo;
pub mod drops;
pub mod echo;
pub mod fabric;
pub mod faults;
pub mod interrupt;
pub mod lab;
pub mod namespace;
pub mod next_hop_objects;
pub mod probe;
pub mod process;
pub mod report;
pub mod routers;
pub mod routes;
pub mod state;
