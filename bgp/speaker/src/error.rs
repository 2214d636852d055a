//! The one error type of this crate.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use caracal_bgp_core::types::Prefix;

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
    /// A key that no kernel takes.
    #[error("a key of a TCP session has 1 to 80 octets, not {octets}")]
    SecretLength {
        /// What was given.
        octets: usize,
    },
    /// Keys of TCP-AO that cannot be told apart.
    #[error("the {count} TCP-AO keys of a peer are none, or two have a number in common")]
    AoKeys {
        /// How many were given.
        count: usize,
    },
    /// Two peers at one address with different secrets.
    #[error("peers at {remote} have different passwords: connections are told apart by address")]
    KeyConflict {
        /// Where both are.
        remote: Prefix,
    },
    /// The kernel was built without RFC 2385.
    #[error("this kernel has no TCP MD5 signatures (CONFIG_TCP_MD5SIG)")]
    NoMd5,
    /// The kernel was built without RFC 5925.
    #[error("this kernel has no TCP-AO (Linux 6.7 or newer with CONFIG_TCP_AO)")]
    NoAo,
    /// The socket has as many keys as it may have.
    #[error(
        "no room for the key of {remote} on the socket: raise net.core.optmem_max (now {limit}), \
         or give peers of one range one password"
    )]
    KeyRoom {
        /// Whose key it is; others may have found no room either.
        remote: Prefix,
        /// `net.core.optmem_max`.
        limit: String,
    },
    /// Another key for overlapping addresses has the same number.
    #[error("the key IDs of {remote} are taken by another TCP-AO key for the same addresses")]
    KeyIds {
        /// Whose key it is.
        remote: Prefix,
    },
    /// One address, two mechanisms.
    #[error("{remote} cannot have both MD5 and TCP-AO keys, nor lie in a range with the other")]
    KeyMixed {
        /// Whose key it is.
        remote: Prefix,
    },
    /// The kernel refused a key for another reason.
    #[error("cannot {doing} the key of {remote}")]
    Key {
        /// What was to be done.
        doing: &'static str,
        /// Whose key it is.
        remote: Prefix,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel takes no filter that long.
    #[error(
        "the filter that would check the first segments of {peers} has {instructions} instructions, \
         and the kernel takes 4096: give peers with ttlSecurity addresses side by side"
    )]
    FilterLength {
        /// Whose segments they are.
        peers: String,
        /// How long the filter would be.
        instructions: usize,
    },
    /// The socket has no option memory left for its filter.
    #[error(
        "no room on the socket for the filter that checks the first segments of {peers}: raise \
         net.core.optmem_max (now {limit})"
    )]
    FilterRoom {
        /// Whose segments they are.
        peers: String,
        /// `net.core.optmem_max`.
        limit: String,
    },
    /// The kernel refused a filter for another reason.
    #[error("cannot attach the filter that checks the first segments of {peers}")]
    Filter {
        /// Whose segments they are.
        peers: String,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A change of authentication that a living connection cannot follow.
    #[error("a session cannot go from authentication {from} to {to} without a new connection")]
    NeedsNewSession {
        /// What it has.
        from: &'static str,
        /// What it was to have.
        to: &'static str,
    },
    /// A peer that should sign has made a connection that is not signed.
    #[error("the connection of {remote} is not signed with TCP-AO")]
    Unsigned {
        /// Who made it.
        remote: IpAddr,
    },
    /// A socket could not be readied or looked at.
    #[error("cannot {doing}")]
    Transport {
        /// What was to be done.
        doing: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The kernel does not tell about interfaces.
    #[error("cannot list or watch the interfaces of this machine")]
    Interfaces {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The limit of open files could not be raised.
    #[error("cannot raise the limit of open files")]
    FileLimit {
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A dump names peers by numbers of sixteen bits.
    #[error("a dump holds the routes of at most 65535 peers, and there are {count} and more")]
    TooManyPeers {
        /// How many were counted before the end was reached.
        count: usize,
    },
    /// The speaker has ended; nothing can be asked of it any more.
    #[error("the speaker has stopped")]
    Stopped,
}

impl Error {
    /// Whether it is about GTSM that does not hold from the first segment of a connection: it does
    /// from when the connection is adopted.
    pub fn is_late_security(&self) -> bool {
        matches!(
            self,
            Self::FilterLength { .. } | Self::FilterRoom { .. } | Self::Filter { .. }
        )
    }
}
