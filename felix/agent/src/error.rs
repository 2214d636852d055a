//! The one error type of this crate.

use std::io;
use std::path::PathBuf;

/// Why an agent cannot start or go on, or cannot be asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The credentials for the API server cannot be used.
    #[error("cannot make a client of the API server from {source_name}")]
    Client {
        /// Where they were looked for.
        source_name: String,
        /// What is wrong with them.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file or socket of the agent cannot be made.
    #[error("cannot {doing} {path}")]
    File {
        /// What for, for instance "listen for the CNI plugin at".
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The first synchronisation of the policy ruleset failed: nothing may be announced without it.
    #[error("cannot put the node's policies into the kernel")]
    Policy(#[source] caracal_nft::Error),
    /// The dataplane cannot be opened.
    #[error("cannot open nf_tables")]
    Dataplane(#[source] caracal_nft::Error),
    /// Links or routes cannot be worked with.
    #[error("cannot {doing}")]
    Network {
        /// What was to be done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: caracal_fib::Error,
    },
    /// An agent could not be asked about its policies.
    #[error("cannot ask the agent at {socket}")]
    Ask {
        /// Its socket.
        socket: PathBuf,
        /// What went wrong on the way.
        #[source]
        source: io::Error,
    },
    /// An agent was asked about its policies and has no answer.
    #[error("the agent at {socket} does not answer: {why}")]
    Refused {
        /// Its socket.
        socket: PathBuf,
        /// Its own words.
        why: String,
    },
    /// The speaker cannot start or has ended.
    #[error("cannot {doing} the BGP speaker")]
    Speaker {
        /// "start" or "configure".
        doing: &'static str,
        /// Its own reason.
        #[source]
        source: caracal_bgp_speaker::Error,
    },
}
