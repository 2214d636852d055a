//! TCP MD5 signatures (RFC 2385), as Linux does them.
//!
//! Owns `struct tcp_md5sig` and the option that takes it. A key is for a prefix of remote addresses;
//! of several that match, the longest prefix counts. Which interface a segment came by does not: the
//! kernel's `TCP_MD5SIG_FLAG_IFINDEX` names a VRF and is refused for any other device, so link-local
//! peers on different interfaces are told apart by their addresses only.

use std::io;
use std::net::IpAddr;
use std::os::fd::AsFd;

use caracal_bgp_core::types::Prefix;
use nix::errno::Errno;

use super::auth::{Kind, MAX_SECRET, Secret};
use super::sockopt::{self, PlainOption};
use crate::error::Error;

/// `struct __kernel_sockaddr_storage`.
pub(super) const SOCKADDR_STORAGE: usize = 128;
/// TCP_MD5SIG_FLAG_PREFIX: the prefix length counts.
const FLAG_PREFIX: u8 = 1;

/// Offsets in `struct tcp_md5sig` of linux/tcp.h.
mod offset {
    pub(super) const FLAGS: usize = 128;
    pub(super) const PREFIX_LEN: usize = 129;
    pub(super) const KEY_LEN: usize = 130;
    pub(super) const KEY: usize = 136;
    pub(super) const END: usize = 216;
}

/// The structure of linux/tcp.h, for its layout alone.
mod layout {
    use std::mem::offset_of;

    use super::{MAX_SECRET, SOCKADDR_STORAGE, offset};

    #[repr(C)]
    struct TcpMd5Sig {
        addr: libc::sockaddr_storage,
        flags: u8,
        prefixlen: u8,
        keylen: u16,
        ifindex: i32,
        key: [u8; MAX_SECRET],
    }

    const _: () = {
        assert!(size_of::<TcpMd5Sig>() == 216 && offset::END == 216);
        assert!(offset_of!(TcpMd5Sig, flags) == offset::FLAGS);
        assert!(offset_of!(TcpMd5Sig, prefixlen) == offset::PREFIX_LEN);
        assert!(offset_of!(TcpMd5Sig, keylen) == offset::KEY_LEN);
        assert!(offset_of!(TcpMd5Sig, key) == offset::KEY);
        assert!(size_of::<libc::sockaddr_storage>() == SOCKADDR_STORAGE);
    };
}

/// Sets the key for `remote`; one that is there already for exactly this prefix is replaced.
pub(super) fn set(socket: impl AsFd, remote: Prefix, secret: &Secret) -> Result<(), Error> {
    let value = encode(remote, secret.expose());
    sockopt::set(socket, PlainOption::Md5Key, &value)
        .map_err(|source| Kind::Md5.refused("set", remote, source))
}

/// Removes the key for `remote`. That there is none is no failure.
pub(super) fn remove(socket: impl AsFd, remote: Prefix) -> Result<(), Error> {
    // A key of no length is the request to remove one.
    match sockopt::set(socket, PlainOption::Md5Key, &encode(remote, &[])) {
        Err(source) if source.raw_os_error() != Some(Errno::ENOENT as i32) => {
            Err(Kind::Md5.refused("remove", remote, source))
        }
        _ => Ok(()),
    }
}

/// Whether this kernel signs with MD5.
///
/// # Errors
/// When no socket can be had to ask with.
pub fn supported() -> io::Result<bool> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    let nobody = encode(Prefix::host(IpAddr::from([192, 0, 2, 1])), &[]);
    // To remove a key that is not there fails one way or the other.
    let refusal = sockopt::set(&socket, PlainOption::Md5Key, &nobody).err();
    let errno = refusal.and_then(|error| error.raw_os_error());
    Ok(errno != Some(Errno::ENOPROTOOPT as i32))
}

/// Segments that the kernel has refused for their signature, since the network namespace began: why a
/// session does not come up when nothing else says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// Not signed, although there is a key: the peer has none.
    pub unsigned: u64,
    /// Signed, although there is no key: we have none.
    pub unexpected: u64,
    /// Signed with another key.
    pub wrong: u64,
}

/// The counters of the calling thread's network namespace.
///
/// # Errors
/// When /proc does not tell.
pub fn refused() -> io::Result<Refused> {
    let text = std::fs::read_to_string("/proc/thread-self/net/netstat")?;
    Ok(Refused {
        unsigned: counter(&text, "TCPMD5NotFound"),
        unexpected: counter(&text, "TCPMD5Unexpected"),
        wrong: counter(&text, "TCPMD5Failure"),
    })
}

/// Names and values stand in pairs of lines. A kernel that does not count has not refused.
fn counter(text: &str, name: &str) -> u64 {
    let mut lines = text.lines();
    while let (Some(names), Some(values)) = (lines.next(), lines.next()) {
        let mut pairs = names.split_whitespace().zip(values.split_whitespace());
        if let Some((_, value)) = pairs.find(|(key, _)| *key == name) {
            return value.parse().unwrap_or_default();
        }
    }
    0
}

/// `secret` is at most [`MAX_SECRET`] octets.
fn encode(remote: Prefix, secret: &[u8]) -> [u8; offset::END] {
    let mut out = [0; offset::END];
    put_address(remote.addr(), &mut out);
    out[offset::FLAGS] = FLAG_PREFIX;
    out[offset::PREFIX_LEN] = remote.len();
    let secret = &secret[..secret.len().min(MAX_SECRET)];
    let length = u16::try_from(secret.len()).expect("at most 80");
    out[offset::KEY_LEN..][..2].copy_from_slice(&length.to_ne_bytes());
    out[offset::KEY..][..secret.len()].copy_from_slice(secret);
    out
}

/// Writes `address` as a `struct sockaddr_in` or `sockaddr_in6` without port.
pub(super) fn put_address(address: IpAddr, out: &mut [u8]) {
    let mut family = |family: libc::c_int| {
        let family = libc::sa_family_t::try_from(family).expect("families are small numbers");
        out[..2].copy_from_slice(&family.to_ne_bytes());
    };
    match address {
        IpAddr::V4(v4) => {
            family(libc::AF_INET);
            out[4..8].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            family(libc::AF_INET6);
            out[8..24].copy_from_slice(&v6.octets());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_written_where_the_kernel_reads_it() {
        let v4 = encode("10.1.0.0/16".parse().unwrap(), b"secret");
        assert_eq!(v4[..8], [2, 0, 0, 0, 10, 1, 0, 0]);
        assert_eq!(v4[128..136], [1, 16, 6, 0, 0, 0, 0, 0]);
        assert_eq!(v4[136..143], *b"secret\0");
        let v6 = encode("fe80::/10".parse().unwrap(), &[7; 80]);
        assert_eq!(v6[..12], [10, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0x80, 0, 0]);
        assert_eq!(v6[128..136], [1, 10, 80, 0, 0, 0, 0, 0]);
        assert_eq!(v6[215], 7);
    }

    #[test]
    fn counters_are_found_by_name_in_any_pair_of_lines() {
        let text = "TcpExt: A TCPMD5NotFound\nTcpExt: 1 7\nIpExt: B C\nIpExt: 2 3\n";
        assert_eq!(counter(text, "TCPMD5NotFound"), 7);
        assert_eq!(counter(text, "C"), 3);
        assert_eq!(counter(text, "TCPMD5Failure"), 0);
        assert_eq!(counter("", "A"), 0);
    }

    #[test]
    fn this_kernel_is_asked() {
        if !supported().unwrap() {
            caracal_skip::skip!("no TCP MD5 signatures in this kernel");
            return;
        }
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let peer = "10.0.0.0/8".parse().unwrap();
        set(&socket, peer, &Secret::new("one").unwrap()).unwrap();
        set(&socket, peer, &Secret::new("two").unwrap()).unwrap();
        remove(&socket, peer).unwrap();
        remove(&socket, peer).unwrap();
        let other_family = "fe80::/10".parse().unwrap();
        let error = set(&socket, other_family, &Secret::new("x").unwrap()).unwrap_err();
        assert!(error.to_string().contains("fe80::/10"), "{error}");
    }
}
