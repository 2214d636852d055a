//! What can go wrong when the process is started, and when it is asked.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

/// What could not be done, to what.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another BFD daemon has the port.
    #[error("UDP port {address} is in use: does another BFD daemon run here?")]
    PortInUse {
        /// Port and family.
        address: SocketAddr,
    },
    /// The kernel does not let us.
    #[error("not permitted to listen on UDP port {address}")]
    Permission {
        /// Port and family.
        address: SocketAddr,
    },
    /// A receiving socket cannot be had.
    #[error("cannot listen on UDP port {address}")]
    Listen {
        /// Port and family.
        address: SocketAddr,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// Another process answers on the socket.
    #[error("another BFD process serves {path}")]
    Served {
        /// The socket.
        path: PathBuf,
    },
    /// The socket cannot be had.
    #[error("cannot serve clients on {path}")]
    Serve {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A kernel object cannot be had.
    #[error("cannot {doing}")]
    System {
        /// What for.
        doing: &'static str,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// A thread ended that must not; its log says why.
    #[error("the thread {0} ended unexpectedly")]
    ThreadEnded(&'static str),
    /// Nobody answers on the socket.
    #[error("cannot ask the BFD process at {path}")]
    Ask {
        /// The socket.
        path: PathBuf,
        /// What the kernel says.
        #[source]
        source: io::Error,
    },
    /// The answer makes no sense.
    #[error("cannot read the answer of the BFD process at {path}")]
    Answer {
        /// The socket.
        path: PathBuf,
        /// Where it goes wrong.
        #[source]
        source: serde_json::Error,
    },
    /// The process refuses.
    #[error("the BFD process refuses: {0}")]
    Refused(String),
}
