//! The CNI plugin and its protocol with the node agent.
//!
//! Owns the words of the Container Network Interface (versions, configuration, results, error
//! codes), the framed request and reply that cross the agent's Unix socket, and the plugin's whole
//! behaviour as one function of (environment, standard input).
//!
//! Does not own any network: the plugin never opens a netlink socket and never enters a namespace.
//! The agent does the work; the plugin is a pipe that waits, so an upgrade of the agent never needs
//! an upgrade of the file in `/opt/cni/bin`.

pub mod client;
pub mod config;
pub mod error;
pub mod plugin;
pub mod protocol;
pub mod result;
pub mod tombstone;
pub mod version;

pub use error::{CniError, ErrorCode};
pub use protocol::{Attachment, AttachmentKey, Call, PodReference, Reply, Request};
pub use result::AddResult;
pub use version::SpecVersion;
