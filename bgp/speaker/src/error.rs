//! The one error type of this crate.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What the speaker could not do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process listens on the address already.
    #[error("cannot listen for BGP on {address}: the port is in use")]
    PortInUse {
        /// Where the speaker was told to listen.
        address: SocketAddr,
    },
    /// The listening socket could not be made.
    #[error("cannot listen for BGP on {address}")]
    Listen {
        /// Where the speaker was told to listen.
        address: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The socket of the local API could not be made.
    #[error("cannot serve the local API on {}", path.display())]
    Api {
        /// The path of the Unix socket.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start the {name} thread")]
    Thread {
        /// What the thread is for.
        name: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The speaker has ended; nothing can be asked of it any more.
    #[error("the speaker has stopped")]
    Stopped,
}
