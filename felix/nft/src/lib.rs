//! nf_tables over netlink: typed objects, transactions, read-back, and the node's policy table.
//!
//! Owns everything between a policy plan and the kernel's ruleset, and the cutting of connections
//! that a new plan forbids. Does not own the meaning of policies, the pods' interfaces, or the tasks
//! that call it: every call blocks, for as long as the kernel works. It never runs the `nft` program,
//! but writes only what `nft list ruleset` can print.
//!
//! ```text
//!   Plan, PlanDelta ──> layout (Dataplane) ──> model (diff) ──> batch ──> connection ──> kernel
//!                            ▲                                               │
//!                            └──────────── dump (read-back), monitor ◄───────┘
//! ```
//!
//! - [`layout`]: the policy table. Most callers need nothing else.
//! - [`object`], [`set`], [`expr`]: tables, chains, counters; sets and maps; rules.
//! - [`batch`], [`connection`]: transactions, and the socket that commits them and reads back.
//! - [`model`]: a table as a value, and the difference of two.
//! - [`monitor`]: who else changes the table.
//! - [`conntrack`]: the connections, to cut those that are no longer allowed.

pub mod batch;
pub mod connection;
pub mod conntrack;
mod dump;
mod error;
pub mod expr;
pub mod layout;
pub mod model;
pub mod monitor;
pub mod object;
pub mod set;
mod wire;

pub use connection::Connection;
pub use error::{Error, Failure};
pub use layout::{Dataplane, Guard, Options, OtherDrops, Repair, Stats};
