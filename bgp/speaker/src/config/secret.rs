//! Keys of sessions.
//!
//! Owns that they are never shown. Does not own where they come from.

use std::fmt;
use std::sync::Arc;

/// Octets that only sockets may see: `Debug` shows none of them.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// The secret in these octets.
    pub fn new(octets: impl Into<Arc<[u8]>>) -> Self {
        Self(octets.into())
    }

    /// The octets, for the kernel or for computing with.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How the packets of a session prove that they are the peer's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// TCP-MD5 (RFC 2385), with a key of 1 to 80 octets.
    Md5(Secret),
    /// TCP-AO (RFC 5925).
    Ao(AoKeychain),
}

/// Master keys of TCP-AO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AoKeychain {
    /// The first is the one to send with and to ask the peer for; the others are accepted. Never
    /// empty, and no identifier occurs twice in one direction.
    pub keys: Vec<AoKey>,
    /// Whether other TCP options are authenticated too.
    pub include_options: bool,
}

/// One master key of TCP-AO.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AoKey {
    /// KeyID in what we send.
    pub send_id: u8,
    /// KeyID in what the peer sends.
    pub receive_id: u8,
    /// How packets are signed.
    pub algorithm: AoAlgorithm,
    /// 1 to 80 octets.
    pub key: Secret,
}

/// Algorithms of TCP-AO (RFC 5926).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96.
    HmacSha1,
    /// AES-128-CMAC-96.
    Aes128Cmac,
}

impl AoKeychain {
    /// Whether a connection under these keys can go over to `other` without a break: they have a
    /// key in common, so each side accepts what the other still or already sends.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.include_options == other.include_options
            && self.keys.iter().any(|key| other.keys.contains(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_shown() {
        let secret = Secret::new(&b"hunter2"[..]);
        let shown = format!("{:?}", Authentication::Md5(secret.clone()));
        assert!(
            !shown.contains("hunter2") && !shown.contains("104"),
            "{shown}"
        );
        assert_eq!(secret.expose(), b"hunter2");
    }
}
