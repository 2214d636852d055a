//! Topology files and what follows from them: nodes, links, addresses, AS numbers, sessions and the
//! reachability that a run has to show.
//!
//! Owns: the subset of containerlab's file format that the lab understands ([`clab`]), the sidecar beside
//! it ([`sidecar`]), the address and AS plan ([`plan`]) and the expected matrix ([`expect`]).
//! Does not own: namespaces, processes, files. Text comes in, plain data goes out, and the same text always
//! gives the same plan.

pub mod clab;
mod error;
pub mod expect;
pub mod plan;
pub mod sidecar;

pub use clab::{Clab, Link, LinkEnd, Node};
pub use error::Error;
pub use expect::{Cell, Expectation, Family, Party, PartyKind, Probe, Protocol, Want};
pub use plan::{
    Driver, Fabric, Plan, PlannedEnd, PlannedLink, PlannedNode, Role, Session, SessionKind,
};
pub use sidecar::Sidecar;
