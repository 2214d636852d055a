//! The node agent: watches, endpoints, CNI server, policy and status.
//!
//! Owns the process on each node: it keeps a view of the objects, wires pods, feeds the policy
//! compiler and its dataplane, tells the speaker what to say, and reports. Does not own what it
//! brings together: BGP, the routes' and rules' way into the kernel, the meaning of policies, the
//! choice of addresses are crates of their own.
//!
//! ```text
//!  API server ─▶ watch ─▶┐                       ┌─▶ policy ─▶ nf_tables
//!                        ├─▶ core (one loop) ────┼─▶ endpoint ─▶ pods' links
//!  caracal-cni ─▶ cni_server ┤     │             ├─▶ routing ─▶ speaker ─▶ kernel routes
//!  questions ─▶ policy_server ┘    │             │
//!                                  │             └─▶ publish ─▶ API server
//!                   snapshot, address log (tmpfs)
//! ```

mod account;
mod addresses;
mod agent;
mod client;
mod cni_server;
pub mod config;
mod core;
mod endpoint;
mod error;
mod metrics;
mod node;
mod pacing;
mod policy;
pub mod policy_api;
mod policy_server;
mod prune;
mod publish;
mod routing;
mod secrets;
mod snapshot;
mod status;
mod watch;
mod world;

pub use agent::Agent;
pub use config::{ApiSource, Config, UnknownPods};
pub use error::Error;
