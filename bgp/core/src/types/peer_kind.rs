//! Internal and external peers.

/// Whether a peer shares our AS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerKind {
    /// iBGP.
    Internal,
    /// eBGP.
    External,
}
