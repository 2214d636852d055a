//! What a session's segments are signed with.
//!
//! Owns secrets and the choice between no signature, MD5 (RFC 2385) and TCP-AO (RFC 5925), and how
//! a choice reaches one connection. Does not own listeners ([`super::Listeners`]), nor how secrets
//! come to this machine.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use caracal_bgp_core::types::Prefix;
use nix::errno::Errno;
use tokio::net::TcpStream;

use super::ao::{self, AoKeys};
use super::md5;
use crate::error::Error;

/// The longest key that Linux takes, of either kind (TCP_MD5SIG_MAXKEYLEN, TCP_AO_MAXKEYLEN).
pub const MAX_SECRET: usize = 80;

/// A shared secret of 1 to 80 octets. It never shows in logs.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Takes `octets` as they are, with no change to line ends or case.
    ///
    /// # Errors
    /// [`Error::SecretLength`] when there are none, or more than the kernel takes.
    pub fn new(octets: impl AsRef<[u8]>) -> Result<Self, Error> {
        let octets = octets.as_ref();
        if (1..=MAX_SECRET).contains(&octets.len()) {
            Ok(Self(octets.into()))
        } else {
            let octets = octets.len();
            Err(Error::SecretLength { octets })
        }
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

/// How segments to and from a peer are signed.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Auth {
    /// Not at all.
    #[default]
    None,
    /// By MD5 over segment and secret (RFC 2385).
    Md5(Secret),
    /// By TCP-AO (RFC 5925); only where [`ao::supported`].
    Ao(AoKeys),
}

impl Auth {
    /// Whether a living connection can go from `self` to `next` ([`KeyHandle::rekey`]); otherwise
    /// the session must be made anew. TCP-AO needs the first sequence numbers, so a connection
    /// neither gains nor loses it (RFC 5925 §1).
    pub fn changes_live(&self, next: &Self) -> bool {
        match (self, next) {
            (Self::Ao(old), Self::Ao(new)) => new.follows(old),
            (Self::Ao(_), _) | (_, Self::Ao(_)) => false,
            (Self::None | Self::Md5(_), _) => true,
        }
    }

    /// What a connection may hold that is on its way from `self` to `next`, where
    /// [`Self::changes_live`] lets it go: of TCP-AO both, as old keys stay while the peer uses them.
    #[must_use]
    pub fn with(&self, next: &Self) -> Self {
        match (self, next) {
            (Self::Ao(old), Self::Ao(new)) => Self::Ao(old.with(new)),
            _ => self.clone(),
        }
    }

    /// What it is, for people.
    pub fn name(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Md5(_) => "md5",
            Self::Ao(_) => "tcp-ao",
        }
    }
}

/// Readies a socket that will dial `remote`.
pub(super) fn before_dial(socket: impl AsFd, remote: SocketAddr, auth: &Auth) -> Result<(), Error> {
    let peer = Prefix::host(remote.ip());
    match auth {
        Auth::None => Ok(()),
        Auth::Md5(secret) => md5::set(socket, peer, secret),
        Auth::Ao(keys) => {
            for key in keys.keys() {
                ao::add(&socket, peer, key, key.id == keys.preferred())?;
            }
            Ok(())
        }
    }
}

/// Holds a connection to `auth`: one that was accepted before the listener had its key is signed
/// from here on, or refused.
pub(super) fn enforce(stream: &TcpStream, auth: &Auth) -> Result<(), Error> {
    let remote = stream.peer_addr().map_err(not_connected)?.ip();
    match auth {
        Auth::None => Ok(()),
        // Where the peer signs, this changes nothing. Where it does not, not one of its segments
        // gets through any more, and the session ends before it began.
        Auth::Md5(secret) => md5::set(stream, Prefix::host(remote), secret),
        Auth::Ao(_) => match ao::status(stream) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Error::Unsigned { remote }),
            Err(source) => Err(Kind::Ao.refused("read", Prefix::host(remote), source)),
        },
    }
}

fn not_connected(source: io::Error) -> Error {
    Error::Transport {
        doing: "look at the connection",
        source,
    }
}

/// The keys of a living connection, to be changed while others read and write it.
///
/// It is a second descriptor of the same socket: drop it when the connection is closed, or the
/// kernel keeps the socket.
///
/// # Rotation
/// Linux signs each segment when it leaves, also when it leaves again, and checks each with the key
/// of the moment. When one side has changed its key and the other has not, what either sends is
/// dropped without an answer ([`super::md5::refused`]) and sent again, at intervals that double from
/// 200 ms. When the other side has followed, the next repetition of either gets through, and nothing
/// was lost. So the silence lasts as long as the two changes are apart, and up to as long again
/// until the next repetition: a session survives when they are apart by less than half its hold
/// time.
#[derive(Debug)]
pub struct KeyHandle {
    socket: OwnedFd,
    remote: IpAddr,
}

impl KeyHandle {
    /// Where the connection leads.
    pub fn remote(&self) -> IpAddr {
        self.remote
    }

    /// A handle to the keys of `stream`.
    ///
    /// # Errors
    /// [`Error::Transport`] when the connection is gone, or there is no descriptor left.
    pub fn of(stream: &TcpStream) -> Result<Self, Error> {
        let remote = stream.peer_addr().map_err(not_connected)?.ip();
        let socket = stream.as_fd().try_clone_to_owned().map_err(not_connected)?;
        Ok(Self { socket, remote })
    }

    /// Goes from `old` to `new` without ending the connection; see [`Auth::changes_live`].
    ///
    /// `old` is all that the connection may hold: with TCP-AO the new keys are added, the peer is
    /// asked to use the preferred one, and old ones are removed as soon as the peer does. Until then
    /// [`Rekeyed::Waiting`] asks to be called again, with the same values, and `old` of another
    /// change is both ([`Auth::with`]).
    ///
    /// # Errors
    /// [`Error::NeedsNewSession`] where that cannot be, and the kernel's refusals.
    pub fn rekey(&self, old: &Auth, new: &Auth) -> Result<Rekeyed, Error> {
        let peer = Prefix::host(self.remote);
        match (old, new) {
            (Auth::None, Auth::None) => Ok(Rekeyed::Done),
            (Auth::None | Auth::Md5(_), Auth::Md5(secret)) => {
                md5::set(self, peer, secret).map(|()| Rekeyed::Done)
            }
            (Auth::Md5(_), Auth::None) => md5::remove(self, peer).map(|()| Rekeyed::Done),
            (Auth::Ao(old), Auth::Ao(new)) if new.follows(old) => ao::rekey(self, peer, old, new),
            (Auth::Ao(_), _) | (_, Auth::Ao(_)) => Err(Error::NeedsNewSession {
                from: old.name(),
                to: new.name(),
            }),
        }
    }
}

impl AsFd for KeyHandle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// How far a change of keys has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rekeyed {
    /// The new keys are in force and the old ones gone.
    Done,
    /// The peer still uses an old key; ask again later.
    Waiting,
}

/// Which mechanism a refusal is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Md5,
    Ao,
}

impl Kind {
    /// What the kernel's refusal of a key for `remote` means.
    pub(super) fn refused(self, doing: &'static str, remote: Prefix, source: io::Error) -> Error {
        match (self, source.raw_os_error().map(Errno::from_raw)) {
            // Built without it, the kernel does not know the option.
            (Self::Md5, Some(Errno::ENOPROTOOPT)) => Error::NoMd5,
            (Self::Ao, Some(Errno::ENOPROTOOPT)) => Error::NoAo,
            // Keys are charged to the socket's option memory, some hundred octets each.
            (_, Some(Errno::ENOMEM)) => Error::KeyRoom {
                remote,
                limit: option_memory(),
            },
            (Self::Ao, Some(Errno::EEXIST)) => Error::KeyIds { remote },
            (_, Some(Errno::EKEYREJECTED)) => Error::KeyMixed { remote },
            _ => Error::Key {
                doing,
                remote,
                source,
            },
        }
    }
}

/// `net.core.optmem_max`, as text for people.
pub(super) fn option_memory() -> String {
    match std::fs::read_to_string("/proc/sys/net/core/optmem_max") {
        Ok(limit) => limit.trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_have_1_to_80_octets() {
        for (octets, fits) in [(0, false), (1, true), (80, true), (81, false)] {
            let secret = Secret::new(vec![b'x'; octets]);
            assert_eq!(secret.is_ok(), fits, "{octets} octets");
        }
        let error = Secret::new("").unwrap_err().to_string();
        assert_eq!(error, "a key of a TCP session has 1 to 80 octets, not 0");
    }

    #[test]
    fn secrets_do_not_show() {
        let auth = Auth::Md5(Secret::new("hunter2").unwrap());
        assert!(!format!("{auth:?}").contains("hunter2"));
    }

    #[test]
    fn a_living_connection_neither_gains_nor_loses_tcp_ao() {
        let secret = || Secret::new("x").unwrap();
        let md5 = Auth::Md5(secret());
        let key = ao::AoKey::new(1, 1, ao::AoAlgorithm::HmacSha1, secret());
        let ao = Auth::Ao(AoKeys::new(vec![key]).unwrap());
        for (from, to, live) in [
            (&Auth::None, &md5, true),
            (&md5, &Auth::None, true),
            (&ao, &ao, true),
            (&ao, &md5, false),
            (&Auth::None, &ao, false),
        ] {
            assert_eq!(from.changes_live(to), live, "{from:?} to {to:?}");
        }
    }

    #[test]
    fn the_kernels_refusals_are_told_with_what_helps() {
        let remote = "10.0.0.0/8".parse().unwrap();
        let cases = [
            (Kind::Md5, Errno::ENOMEM, "net.core.optmem_max"),
            (Kind::Md5, Errno::ENOPROTOOPT, "CONFIG_TCP_MD5SIG"),
            (Kind::Ao, Errno::ENOPROTOOPT, "CONFIG_TCP_AO"),
            (Kind::Ao, Errno::EEXIST, "key IDs"),
            (Kind::Ao, Errno::EKEYREJECTED, "both MD5 and TCP-AO"),
            (Kind::Md5, Errno::EINVAL, "10.0.0.0/8"),
        ];
        for (kind, errno, expected) in cases {
            let error = kind.refused("set", remote, errno.into()).to_string();
            assert!(error.contains(expected), "{errno}: {error}");
        }
    }
}
