//! Addresses: pools cut into blocks, blocks granted to nodes, addresses given to pods.
//!
//! Owns: the arithmetic of pools, the controller's and the node's allocators, the format of the
//! node's write-ahead log and the judgement of what a restarted agent finds. Does not own: clocks,
//! files, randomness, the kernel or the API server. Time and random numbers come in as arguments,
//! and what is to be done goes out as actions.
//!
//! ```text
//! pools, nodes, blocks, requests ──► Controller ──► create, drain, quarantine, delete a block
//! blocks, pods' ADD and DEL      ──► NodeAllocator ──► WAL record, then the answer; ask for, give back a block
//! WAL × veths × namespaces       ──► reconcile ──► keep, adopt, suspect, free, quarantine
//! ```

pub mod controller;
mod error;
mod layout;
mod moment;
mod names;
pub mod node;
pub mod reconcile;
pub mod wal;

pub use error::Error;
pub use layout::{AddressPair, Block, Layout, Range, Subnet};
pub use moment::Moment;
pub use names::{AttachmentKey, BlockId, NodeName, NodeUid, PoolName};
