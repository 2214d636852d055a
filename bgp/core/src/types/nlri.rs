//! What UPDATEs announce and withdraw.

use std::fmt;

use crate::types::Prefix;

/// Tells the paths to one prefix apart on a session that carries several (RFC 7911 §3). Its value
/// means nothing beyond the session; zero is a value like any other.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PathId(pub u32);

impl fmt::Display for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for PathId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// What an UPDATE announces or withdraws: one path to a prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nlri {
    /// Where it leads.
    pub prefix: Prefix,
    /// Which of several; zero on a session with one path per prefix.
    pub id: PathId,
}

impl From<Prefix> for Nlri {
    fn from(prefix: Prefix) -> Self {
        Self {
            prefix,
            id: PathId::default(),
        }
    }
}

impl fmt::Display for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.id {
            PathId(0) => fmt::Display::fmt(&self.prefix, f),
            id => write!(f, "{}{id:?}", self.prefix),
        }
    }
}

impl fmt::Debug for Nlri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
