//! What can go wrong between this crate and the kernel.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// An operation that the kernel refused or that could not be asked of it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A network namespace could not be opened, entered, made or removed.
    #[error("cannot {doing} network namespace {}", path.display())]
    Namespace {
        /// The verb: open, enter, create, delete.
        doing: &'static str,
        /// The file that stands for the namespace.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A netlink socket failed as a socket.
    #[error("cannot {doing} on a netlink socket")]
    Socket {
        /// The verb with its object.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The kernel refused a request.
    #[error("cannot {doing}")]
    Refused {
        /// What was asked, with the names of the objects.
        doing: String,
        /// The kernel's answer.
        #[source]
        source: Refusal,
    },
    /// A dump was disturbed by changes each time it was tried.
    #[error("cannot read a consistent list of {what}: it changed during each of {attempts} dumps")]
    Unsteady {
        /// The kind of object.
        what: &'static str,
        /// How often it was tried.
        attempts: u32,
    },
    /// The kernel sent octets that are no netlink message.
    #[error("cannot decode {what} from the kernel: {why}")]
    Decode {
        /// The kind of message.
        what: &'static str,
        /// The parser's complaint.
        why: String,
    },
    /// A link that should exist does not.
    #[error("no link is called {name}")]
    NoLink {
        /// Name or alternative name.
        name: String,
    },
    /// A link whose both ends are up does not become ready to send.
    #[error("link {name} has no carrier after {waited:?}")]
    NoCarrier {
        /// The link's name.
        name: String,
        /// How long it was given.
        waited: Duration,
    },
    /// The kernel shows an address but does not take packets to it.
    #[error("address {address} of link {name} is not in use after {waited:?}")]
    AddressNotReady {
        /// The address.
        address: IpAddr,
        /// The link's name.
        name: String,
        /// How long it was given.
        waited: Duration,
    },
    /// A name exceeds what the kernel holds.
    #[error("{what} {name:?} is empty or longer than {limit} octets")]
    Name {
        /// Link name, alternative name or alias.
        what: &'static str,
        /// The name.
        name: String,
        /// The longest that fits, in octets.
        limit: usize,
    },
    /// A kernel setting could not be read or written.
    #[error("cannot {doing} sysctl {key}")]
    Sysctl {
        /// read or write.
        doing: &'static str,
        /// The key with slashes, below `/proc/sys`.
        key: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A kernel setting holds something that is not a number.
    #[error("sysctl {key} holds {text:?}, which is no number")]
    SysctlValue {
        /// The key with slashes, below `/proc/sys`.
        key: String,
        /// What it holds.
        text: String,
    },
    /// A worker thread could not be started.
    #[error("cannot start the {name} thread")]
    Thread {
        /// The thread's name.
        name: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// Whether the kernel answered with `errno`, one of `libc`'s positive numbers.
    pub fn is_refusal(&self, errno: i32) -> bool {
        matches!(self, Self::Refused { source, .. } if source.errno == errno)
    }
}

/// A negative netlink acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The positive error number.
    pub errno: i32,
    /// The kernel's own sentence, where it sent one (extended acknowledgement).
    pub message: Option<String>,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errno = nix::errno::Errno::from_raw(self.errno);
        match &self.message {
            Some(message) => write!(f, "{message} ({errno:?})"),
            None => write!(f, "{} ({errno:?})", errno.desc()),
        }
    }
}

impl std::error::Error for Refusal {}

/// The crate's result.
pub type Result<T, E = Error> = std::result::Result<T, E>;
