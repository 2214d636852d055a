//! The TCP Authentication Option (RFC 5925), as Linux has it from 6.7 on with `CONFIG_TCP_AO`.
//!
//! Owns keys, their layout for the kernel, and the steps of a rotation, which unlike that of MD5
//! needs no luck: both keys are valid on both sides, and each side tells the other which one it
//! wants to receive (RNextKeyID).

use std::io;
use std::os::fd::AsFd;

use caracal_bgp_core::types::Prefix;
use nix::errno::Errno;

use super::auth::{Kind, Rekeyed, Secret};
use super::md5::{SOCKADDR_STORAGE, put_address};
use super::sockopt::{self, PlainOption};
use crate::error::Error;

/// How a signature is computed (RFC 5926, and SHA-256 as others offer it).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AoAlgorithm {
    /// HMAC-SHA-1-96, which every implementation has.
    #[default]
    HmacSha1,
    /// AES-128-CMAC-96, which every implementation has.
    CmacAes128,
    /// HMAC-SHA-256-96.
    HmacSha256,
}

impl AoAlgorithm {
    /// What Linux calls it.
    fn name(self) -> &'static str {
        match self {
            Self::HmacSha1 => "hmac(sha1)",
            Self::CmacAes128 => "cmac(aes128)",
            Self::HmacSha256 => "hmac(sha256)",
        }
    }
}

/// What names a key on the wire (RFC 5925 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AoKeyId {
    /// What we send with the key; the peer's [`AoKeyId::receive`].
    pub send: u8,
    /// What the peer sends with the key.
    pub receive: u8,
}

/// A Master Key Tuple.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AoKey {
    /// Its numbers; neither may occur twice among the keys of a peer.
    pub id: AoKeyId,
    /// How it signs.
    pub algorithm: AoAlgorithm,
    /// Whether TCP options other than this one are left unsigned, for paths that rewrite them.
    pub exclude_options: bool,
    /// The shared secret.
    pub secret: Secret,
}

impl AoKey {
    /// A key that signs options too.
    pub fn new(send: u8, receive: u8, algorithm: AoAlgorithm, secret: Secret) -> Self {
        Self {
            id: AoKeyId { send, receive },
            algorithm,
            exclude_options: false,
            secret,
        }
    }
}

/// The keys of a peer: at least one, no two with a number in common. The first is preferred.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct AoKeys(Vec<AoKey>);

impl AoKeys {
    /// # Errors
    /// [`Error::AoKeys`] when there is no key, or two share a number.
    pub fn new(keys: Vec<AoKey>) -> Result<Self, Error> {
        let repeats = |get: fn(&AoKey) -> u8| {
            let mut numbers: Vec<u8> = keys.iter().map(get).collect();
            numbers.sort_unstable();
            numbers.windows(2).any(|pair| pair[0] == pair[1])
        };
        if keys.is_empty() || repeats(|key| key.id.send) || repeats(|key| key.id.receive) {
            let count = keys.len();
            return Err(Error::AoKeys { count });
        }
        Ok(Self(keys))
    }

    /// All of them.
    pub fn keys(&self) -> &[AoKey] {
        &self.0
    }

    /// Whether a living connection can move from `old` to these: a number must not change its
    /// meaning while segments that bear it are under way (RFC 5925 §6.1).
    pub(super) fn follows(&self, old: &Self) -> bool {
        let clashes = |new: &AoKey, old: &AoKey| {
            new != old && (new.id.send == old.id.send || new.id.receive == old.id.receive)
        };
        let clash = |new: &AoKey| old.0.iter().any(|old| clashes(new, old));
        !self.0.iter().any(clash)
    }

    /// These and those of `next`, which [`Self::follows`] these.
    pub(super) fn with(&self, next: &Self) -> Self {
        let others = self.0.iter().filter(|key| !next.0.contains(key));
        Self(next.0.iter().chain(others).cloned().collect())
    }

    /// The key that new connections begin with, and that old ones move to.
    pub fn preferred(&self) -> AoKeyId {
        self.0[0].id
    }
}

/// What a connection's signatures have come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AoStatus {
    /// SendID of the key that we sign with.
    pub current: u8,
    /// RecvID of the key that we ask the peer to sign with.
    pub next: u8,
    /// Segments whose signature was right.
    pub good: u64,
    /// Segments whose signature was wrong.
    pub bad: u64,
    /// Segments with a key that is not known.
    pub unknown_key: u64,
    /// Segments without a signature where one was due.
    pub unsigned: u64,
}

/// Whether this kernel has TCP-AO.
///
/// # Errors
/// When no socket can be had to ask with.
pub fn supported() -> io::Result<bool> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    match status(&socket) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(Errno::ENOPROTOOPT as i32) => Ok(false),
        Err(error) => Err(error),
    }
}

/// The state of a connection; `None` when it is not signed.
///
/// # Errors
/// The kernel's, `ENOPROTOOPT` where it has no TCP-AO.
pub fn status(socket: impl AsFd) -> io::Result<Option<AoStatus>> {
    let mut value = [0; info::END];
    match sockopt::get(socket, PlainOption::AoInfo, &mut value) {
        Ok(_) => {}
        // No key has been added, or accepted with the connection.
        Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => return Ok(None),
        Err(error) => return Err(error),
    }
    let count = |at: usize| {
        let octets = value[at..].first_chunk().copied().unwrap_or_default();
        u64::from_ne_bytes(octets)
    };
    Ok(Some(AoStatus {
        current: value[info::CURRENT],
        next: value[info::NEXT],
        good: count(info::GOOD),
        bad: count(info::BAD),
        unknown_key: count(info::KEY_NOT_FOUND),
        unsigned: count(info::REQUIRED),
    }))
}

/// Adds a key for `remote`. `first`: a socket that is to dial begins with this one.
pub(super) fn add(
    socket: impl AsFd,
    remote: Prefix,
    key: &AoKey,
    first: bool,
) -> Result<(), Error> {
    sockopt::set(
        socket,
        PlainOption::AoAddKey,
        &encode_add(remote, key, first),
    )
    .map_err(|source| Kind::Ao.refused("add", remote, source))
}

/// Removes a key from a listening socket. That it is not there is no failure.
pub(super) fn remove(socket: impl AsFd, remote: Prefix, id: AoKeyId) -> Result<(), Error> {
    // On a listener no key is in use, so the kernel need not wait until nobody looks at it, which
    // takes milliseconds for each.
    match delete(socket, remote, id, DELETE_ASYNC) {
        Err(source) if source.raw_os_error() != Some(Errno::ENOENT as i32) => {
            Err(Kind::Ao.refused("remove", remote, source))
        }
        _ => Ok(()),
    }
}

/// Moves a living connection, which holds no other keys than those of `old`, to those of `new`.
pub(super) fn rekey(
    socket: impl AsFd,
    remote: Prefix,
    old: &AoKeys,
    new: &AoKeys,
) -> Result<Rekeyed, Error> {
    let refused = |doing| move |source| Kind::Ao.refused(doing, remote, source);
    // Also those that it may hold: one that was made meanwhile, or refused a key, need not.
    for key in new.keys() {
        match add(&socket, remote, key, false) {
            // It is this very key: no other with its numbers is held (`AoKeys::follows`).
            Ok(()) | Err(Error::KeyIds { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    // What we want to receive; the peer's wish decides what we send (RFC 5925 §7.5.2.e).
    sockopt::set(&socket, PlainOption::AoInfo, &encode_next(new.preferred()))
        .map_err(refused("prefer"))?;
    let gone = |key: &&AoKey| !new.keys().iter().any(|other| other.id == key.id);
    let mut progress = Rekeyed::Done;
    for key in old.keys().iter().filter(gone) {
        match delete(&socket, remote, key.id, 0) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(Errno::ENOENT as i32) => {}
            // RFC 5925 §3.1: a key in use is not destroyed.
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) => {
                progress = Rekeyed::Waiting;
            }
            Err(error) => return Err(refused("remove")(error)),
        }
    }
    Ok(progress)
}

fn delete(socket: impl AsFd, remote: Prefix, id: AoKeyId, flags: u32) -> io::Result<()> {
    let value = encode_delete(remote, id, flags);
    sockopt::set(socket, PlainOption::AoDeleteKey, &value)
}

/// Offsets in `struct tcp_ao_add` of linux/tcp.h.
mod add {
    pub(super) const ALGORITHM: usize = 128;
    pub(super) const ALGORITHM_LEN: usize = 64;
    pub(super) const FLAGS: usize = 196;
    pub(super) const PREFIX_LEN: usize = 202;
    pub(super) const SEND_ID: usize = 203;
    pub(super) const RECEIVE_ID: usize = 204;
    pub(super) const KEY_FLAGS: usize = 206;
    pub(super) const KEY_LEN: usize = 207;
    pub(super) const KEY: usize = 208;
    pub(super) const END: usize = 288;
}

/// Offsets in `struct tcp_ao_del`.
mod del {
    pub(super) const FLAGS: usize = 132;
    pub(super) const PREFIX_LEN: usize = 138;
    pub(super) const SEND_ID: usize = 139;
    pub(super) const RECEIVE_ID: usize = 140;
    pub(super) const END: usize = 144;
}

/// Offsets in `struct tcp_ao_info_opt`.
mod info {
    pub(super) const FLAGS: usize = 0;
    pub(super) const CURRENT: usize = 6;
    pub(super) const NEXT: usize = 7;
    pub(super) const GOOD: usize = 8;
    pub(super) const BAD: usize = 16;
    pub(super) const KEY_NOT_FOUND: usize = 24;
    pub(super) const REQUIRED: usize = 32;
    pub(super) const END: usize = 48;
}

/// Bits of the first flag word of all three structures, which C lays out from the lowest bit on
/// little-endian machines and from the highest on others.
const SET_CURRENT: u32 = flag(0);
const SET_NEXT: u32 = flag(1);
const DELETE_ASYNC: u32 = flag(2);
/// TCP_AO_KEYF_EXCLUDE_OPT.
const EXCLUDE_OPTIONS: u8 = 2;

const fn flag(bit: u32) -> u32 {
    if cfg!(target_endian = "little") {
        1 << bit
    } else {
        1 << (31 - bit)
    }
}

fn encode_add(remote: Prefix, key: &AoKey, first: bool) -> [u8; add::END] {
    let mut out = [0; add::END];
    put_address(remote.addr(), &mut out);
    let name = key.algorithm.name().as_bytes();
    out[add::ALGORITHM..][..name.len()].copy_from_slice(name);
    if first {
        let flags = SET_CURRENT | SET_NEXT;
        out[add::FLAGS..][..4].copy_from_slice(&flags.to_ne_bytes());
    }
    out[add::PREFIX_LEN] = remote.len();
    out[add::SEND_ID] = key.id.send;
    out[add::RECEIVE_ID] = key.id.receive;
    // The length of the signature stays zero: the kernel's 12 octets are those of RFC 5926 §3.2.
    if key.exclude_options {
        out[add::KEY_FLAGS] = EXCLUDE_OPTIONS;
    }
    let secret = key.secret.expose();
    out[add::KEY_LEN] = u8::try_from(secret.len()).expect("secrets have at most 80 octets");
    out[add::KEY..][..secret.len()].copy_from_slice(secret);
    out
}

fn encode_delete(remote: Prefix, id: AoKeyId, flags: u32) -> [u8; del::END] {
    let mut out = [0; del::END];
    put_address(remote.addr(), &mut out);
    out[del::FLAGS..][..4].copy_from_slice(&flags.to_ne_bytes());
    out[del::PREFIX_LEN] = remote.len();
    out[del::SEND_ID] = id.send;
    out[del::RECEIVE_ID] = id.receive;
    out
}

fn encode_next(id: AoKeyId) -> [u8; info::END] {
    let mut out = [0; info::END];
    out[info::FLAGS..][..4].copy_from_slice(&SET_NEXT.to_ne_bytes());
    out[info::NEXT] = id.receive;
    out
}

/// The structures of linux/tcp.h, for their layout alone.
mod layout {
    use std::mem::offset_of;

    use super::{SOCKADDR_STORAGE, add, del, info};

    #[repr(C, align(8))]
    struct TcpAoAdd {
        addr: [u8; SOCKADDR_STORAGE],
        alg_name: [u8; add::ALGORITHM_LEN],
        ifindex: i32,
        flags: u32,
        reserved2: u16,
        prefix: u8,
        sndid: u8,
        rcvid: u8,
        maclen: u8,
        keyflags: u8,
        keylen: u8,
        key: [u8; 80],
    }

    #[repr(C, align(8))]
    struct TcpAoDel {
        addr: [u8; SOCKADDR_STORAGE],
        ifindex: i32,
        flags: u32,
        reserved2: u16,
        prefix: u8,
        sndid: u8,
        rcvid: u8,
        current_key: u8,
        rnext: u8,
        keyflags: u8,
    }

    #[repr(C, align(8))]
    struct TcpAoInfoOpt {
        flags: u32,
        reserved2: u16,
        current_key: u8,
        rnext: u8,
        pkt_good: u64,
        pkt_bad: u64,
        pkt_key_not_found: u64,
        pkt_ao_required: u64,
        pkt_dropped_icmp: u64,
    }

    const _: () = {
        assert!(size_of::<TcpAoAdd>() == 288 && add::END == 288);
        assert!(offset_of!(TcpAoAdd, alg_name) == add::ALGORITHM);
        assert!(offset_of!(TcpAoAdd, flags) == add::FLAGS);
        assert!(offset_of!(TcpAoAdd, prefix) == add::PREFIX_LEN);
        assert!(offset_of!(TcpAoAdd, sndid) == add::SEND_ID);
        assert!(offset_of!(TcpAoAdd, rcvid) == add::RECEIVE_ID);
        assert!(offset_of!(TcpAoAdd, keyflags) == add::KEY_FLAGS);
        assert!(offset_of!(TcpAoAdd, keylen) == add::KEY_LEN);
        assert!(offset_of!(TcpAoAdd, key) == add::KEY);

        assert!(size_of::<TcpAoDel>() == 144 && del::END == 144);
        assert!(offset_of!(TcpAoDel, flags) == del::FLAGS);
        assert!(offset_of!(TcpAoDel, prefix) == del::PREFIX_LEN);
        assert!(offset_of!(TcpAoDel, sndid) == del::SEND_ID);
        assert!(offset_of!(TcpAoDel, rcvid) == del::RECEIVE_ID);

        assert!(size_of::<TcpAoInfoOpt>() == 48 && info::END == 48);
        assert!(offset_of!(TcpAoInfoOpt, current_key) == info::CURRENT);
        assert!(offset_of!(TcpAoInfoOpt, rnext) == info::NEXT);
        assert!(offset_of!(TcpAoInfoOpt, pkt_good) == info::GOOD);
        assert!(offset_of!(TcpAoInfoOpt, pkt_bad) == info::BAD);
        assert!(offset_of!(TcpAoInfoOpt, pkt_key_not_found) == info::KEY_NOT_FOUND);
        assert!(offset_of!(TcpAoInfoOpt, pkt_ao_required) == info::REQUIRED);
    };
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn key(send: u8, receive: u8) -> AoKey {
        let secret = Secret::new("secret").unwrap();
        AoKey::new(send, receive, AoAlgorithm::CmacAes128, secret)
    }

    #[test]
    fn a_key_is_written_where_the_kernel_reads_it() {
        let added = encode_add("10.1.0.0/16".parse().unwrap(), &key(3, 4), true);
        assert_eq!(added[..8], [2, 0, 0, 0, 10, 1, 0, 0]);
        assert_eq!(added[128..141], *b"cmac(aes128)\0");
        // ifindex, flags, padding.
        assert_eq!(added[192..202], [0, 0, 0, 0, 3, 0, 0, 0, 0, 0]);
        assert_eq!(added[202..208], [16, 3, 4, 0, 0, 6]);
        assert_eq!(added[208..215], *b"secret\0");
        let listening = encode_add("fe80::1".parse().unwrap(), &key(3, 4), false);
        assert_eq!(listening[196..200], [0; 4]);
        assert_eq!(listening[202], 128);
        let removed = encode_delete("10.1.0.0/16".parse().unwrap(), key(3, 4).id, DELETE_ASYNC);
        assert_eq!(
            removed[128..],
            [0, 0, 0, 0, 4, 0, 0, 0, 0, 0, 16, 3, 4, 0, 0, 0]
        );
        assert_eq!(encode_next(key(3, 4).id)[..8], [2, 0, 0, 0, 0, 0, 0, 4]);
    }

    #[test]
    fn keys_are_told_apart_by_both_numbers() {
        assert!(AoKeys::new(vec![]).is_err());
        assert!(AoKeys::new(vec![key(1, 1), key(1, 2)]).is_err());
        assert!(AoKeys::new(vec![key(1, 1), key(2, 1)]).is_err());
        let keys = AoKeys::new(vec![key(2, 1), key(1, 2)]).unwrap();
        assert_eq!(
            keys.preferred(),
            AoKeyId {
                send: 2,
                receive: 1
            }
        );
    }

    #[test]
    fn a_number_that_changes_its_meaning_needs_a_new_session() {
        let keys = |list: &[(u8, u8)]| {
            AoKeys::new(
                list.iter()
                    .map(|(send, receive)| key(*send, *receive))
                    .collect(),
            )
            .unwrap()
        };
        let old = keys(&[(1, 1), (2, 2)]);
        assert!(keys(&[(3, 3), (1, 1)]).follows(&old));
        assert!(!keys(&[(1, 3)]).follows(&old));
        assert!(!keys(&[(3, 2)]).follows(&old));
        let mut other = key(1, 1);
        other.secret = Secret::new("other").unwrap();
        assert!(!AoKeys::new(vec![other]).unwrap().follows(&old));
    }

    #[test]
    fn a_kernel_without_it_is_named() {
        if supported().unwrap() {
            caracal_skip::skip!("this kernel has TCP-AO");
            return;
        }
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let peer = Prefix::host(IpAddr::from([10, 0, 0, 1]));
        let error = add(&socket, peer, &key(1, 1), true).unwrap_err();
        assert!(matches!(error, Error::NoAo), "{error}");
    }
}
