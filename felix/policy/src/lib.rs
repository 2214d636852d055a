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
//!                 └── plan(): the whole Plan, for the first synchronisation and for repair
//! ```
//!
//! - [`plan`]: the output, what the kernel must hold.

pub mod plan;
