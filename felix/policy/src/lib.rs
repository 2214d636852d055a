//! NetworkPolicy compiled to identities, classes and cells.
//!
//! This crate owns the meaning of `networking.k8s.io` NetworkPolicy on one node: which pods are
//! isolated, who may speak to them, and the tables that say so to the kernel. It does not own how
//! those tables are written (that is the renderer's job), how objects are watched, or the wiring of
//! pods. It is pure: events in, plain data out, no clocks, no sockets, no threads.
//!
//! ```text
//!   Event ──> PolicyIndex ──> PlanDelta ──> (renderer: one nftables transaction)
//!                 │
//!                 ├── plan(): the whole Plan, for the first synchronisation and for repair
//!                 └── explain(packet): which policy and rule decide
//! ```
//!
//! - [`model`]: the input, objects and events.
//! - [`index`]: the compiler, incremental.
//! - [`plan`]: the output, what the kernel must hold.
//! - [`oracle`]: the meaning of policy, written apart from the compiler; explains and judges it.
//! - [`interpreter`]: what a kernel with a given plan does to a packet.

pub mod index;
pub mod interpreter;
pub mod model;
pub mod oracle;
pub mod packet;
pub mod plan;
