//! BFD as a process of its own: sessions that outlive those who asked for them.
//!
//! Owns sockets, timers and a thread for the machines of `caracal_bgp_core::bfd`, the wishes of
//! clients, and the socket by which they are told. Does not know BGP, Kubernetes, or what a session
//! is good for.
//!
//! Two threads. `bfd-engine` sends, receives and runs timers, at real-time priority where the kernel
//! allows it, and waits for nobody. `bfd-clients` talks to clients, keeps their wishes, and writes
//! the log.
//!
//! A client that goes away leaves its sessions running: that is what the C bit promises to peers
//! (RFC 5882 §4.3), and why it is set. They end when their owner says so, or has been away for the
//! hold time.

#[cfg(feature = "client")]
pub mod client;
mod config;
mod daemon;
mod describe;
mod engine;
mod error;
mod priority;
pub mod proto;
mod query;
mod registry;
mod server;
mod wake;

pub use config::{LONGEST_INTERVAL, SHORTEST_INTERVAL};
pub use daemon::{Daemon, Options, Stopper};
pub use error::Error;
pub use query::sessions;

/// The C bit of every session: nothing of this process dies with a control plane.
const CONTROL_PLANE_INDEPENDENT: bool = true;
