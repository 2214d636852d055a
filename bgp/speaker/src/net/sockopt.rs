//! Socket options that no crate offers, as octets.
//!
//! Owns the two system calls. Does not own what the octets mean: whoever builds a structure does
//! so octet by octet, so that no layout of a Rust type is at stake.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use libc::{c_int, socklen_t};

/// An option whose value is plain data: no pointer in it, nothing that the kernel keeps or maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlainOption {
    /// Adds, replaces or removes a key of RFC 2385; `struct tcp_md5sig`.
    Md5Key,
    /// Adds a key of RFC 5925; `struct tcp_ao_add`.
    AoAddKey,
    /// Removes one; `struct tcp_ao_del`.
    AoDeleteKey,
    /// Which key is in use; `struct tcp_ao_info_opt`.
    AoInfo,
    /// The least TTL with which a segment is taken; an `int`.
    MinTtl,
    /// The least hop limit with which a segment is taken; an `int`.
    MinHopCount,
    /// Which types a raw ICMPv6 socket hears; `struct icmp6_filter`.
    Icmp6Filter,
}

impl PlainOption {
    fn level_and_name(self) -> (c_int, c_int) {
        // linux/tcp.h; linux/icmpv6.h has the last.
        const TCP_MD5SIG_EXT: c_int = 32;
        const TCP_AO_ADD_KEY: c_int = 38;
        const TCP_AO_DEL_KEY: c_int = 39;
        const TCP_AO_INFO: c_int = 40;
        const ICMPV6_FILTER: c_int = 1;
        match self {
            Self::Md5Key => (libc::IPPROTO_TCP, TCP_MD5SIG_EXT),
            Self::AoAddKey => (libc::IPPROTO_TCP, TCP_AO_ADD_KEY),
            Self::AoDeleteKey => (libc::IPPROTO_TCP, TCP_AO_DEL_KEY),
            Self::AoInfo => (libc::IPPROTO_TCP, TCP_AO_INFO),
            Self::MinTtl => (libc::IPPROTO_IP, libc::IP_MINTTL),
            Self::MinHopCount => (libc::IPPROTO_IPV6, libc::IPV6_MINHOPCOUNT),
            Self::Icmp6Filter => (libc::IPPROTO_ICMPV6, ICMPV6_FILTER),
        }
    }
}

/// Sets `option` of `socket` to `value`.
pub(super) fn set(socket: impl AsFd, option: PlainOption, value: &[u8]) -> io::Result<()> {
    let (level, name) = option.level_and_name();
    let length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let descriptor = socket.as_fd().as_raw_fd();
    #[expect(unsafe_code, reason = "neither nix nor socket2 sets these options")]
    // SAFETY: pointer and length are those of a slice that lives through the call, of which the
    // kernel reads at most `length` octets; the borrowed descriptor is open; by `PlainOption` the
    // kernel follows no pointer within the value.
    let result =
        unsafe { libc::setsockopt(descriptor, level, name, value.as_ptr().cast(), length) };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Reads `option` of `socket` into `value`; how many octets there are.
pub(super) fn get(socket: impl AsFd, option: PlainOption, value: &mut [u8]) -> io::Result<usize> {
    let (level, name) = option.level_and_name();
    let mut length = socklen_t::try_from(value.len()).map_err(io::Error::other)?;
    let descriptor = socket.as_fd().as_raw_fd();
    let target = value.as_mut_ptr().cast();
    #[expect(unsafe_code, reason = "neither nix nor socket2 reads these options")]
    // SAFETY: as above; the kernel writes at most `length` octets, which the slice has, and any
    // octets are a valid `[u8]`. `length` lives on our stack.
    let result = unsafe { libc::getsockopt(descriptor, level, name, target, &raw mut length) };
    if result == 0 {
        Ok(value.len().min(length as usize))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Sets an option that is an `int`.
pub(super) fn set_int(socket: impl AsFd, option: PlainOption, value: c_int) -> io::Result<()> {
    set(socket, option, &value.to_ne_bytes())
}
