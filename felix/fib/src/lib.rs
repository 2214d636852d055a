//! Kernel routes, next-hop objects and links over netlink.
//!
//! Owns what this node writes into the kernel to forward packets: the routes that the speaker
//! learns ([`KernelFib`]), the links and host routes of pods ([`link`], [`pod`]), and the settings
//! that both rely on ([`sysctl`]). Does not own any decision about what is reachable, nor packet
//! filters.
//!
//! Everything written is marked as ours, routes by [`PROTOCOL_BGP`] and [`PROTOCOL_POD`], links by
//! an alternative name; what is not marked is never changed.

mod error;
pub mod kernel;
pub mod link;
pub mod netns;
pub mod pod;
mod rtnl;
pub mod sysctl;

pub use error::{Error, Refusal, Result};
pub use kernel::{FibControl, FibOptions, KernelFib, PreferredSource};
pub use netns::{NamedNetns, Netns};
pub use rtnl::Rtnl;

/// The route protocol of routes and next-hop objects that the speaker's routes need.
///
/// Not within 186 to 198: those are FRR's, whose zebra deletes such routes as its own leftovers
/// when it starts on the same host.
pub const PROTOCOL_BGP: u8 = 214;

/// The route protocol of the routes to this node's own pods.
///
/// Apart from [`PROTOCOL_BGP`], so that each owner can list, compare and clean its own alone.
pub const PROTOCOL_POD: u8 = 215;

/// The metric of routes with [`PROTOCOL_BGP`].
///
/// It gives our routes a place of their own: a route that someone else adds for the same prefix
/// lies beside ours. Larger than that of connected routes (0, and 256 for IPv6), which a peer must
/// not override, and smaller than that of router advertisements (1024).
pub const METRIC_BGP: u32 = 512;
