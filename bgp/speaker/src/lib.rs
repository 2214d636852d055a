//! The BGP speaker: sockets, timers and tasks around the pure machines.
//!
//! Owns everything that touches the world for BGP: the listener, one task per peer, the thread of
//! the RIB, the thread that writes to the FIB, the local API, those that tell stations and write
//! files. Does not own decisions, which are [`caracal_bgp_core`]'s, nor the kernel, which hides behind
//! [`fib::Fib`], nor Kubernetes: [`config::SpeakerConfig`] is all that comes in.

pub mod api;
mod arrivals;
pub mod config;
mod connection;
pub mod error;
mod explain;
mod export;
pub mod fib;
mod fib_thread;
pub mod handle;
pub mod metrics;
pub mod net;
mod repeats;
mod rib_thread;
mod session;
pub mod snapshot;
mod speaker;
pub mod status;
mod translate;

pub use config::{PeerConfig, PeerName, SpeakerConfig};
pub use error::Error;
pub use fib::{
    Drift, Fib, FibChange, FibEvent, FibNextHop, FibRoute, FibWindow, FibWork, Forwarding,
    WriteOutcome,
};
pub use handle::{How, SpeakerHandle, SpeakerOptions, SpeakerSnapshot};
pub use speaker::Speaker;
