//! How far packets of a session may travel: TTL, hop limit and GTSM (RFC 5082).
//!
//! Owns the numbers and the options that carry them. Does not own which peer gets which.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::num::NonZeroU8;
use std::os::fd::AsFd;

use libc::c_int;
use socket2::SockRef;

use super::sockopt::{self, PlainOption};

/// The TTL from which a peer with GTSM counts down (RFC 5082 §3), and that of all segments which
/// a listener sends: it cannot know whose SYN it answers, and a dialling peer with GTSM drops the
/// answer if it comes with less.
pub(super) const FULL: u8 = 255;

/// How many hops a session may span.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Hops {
    /// The system's default TTL is sent, and any is taken: internal peers.
    #[default]
    System,
    /// This TTL is sent, and any is taken: 1 for an external peer on a connected subnet, n for one
    /// that is n hops away (ebgp-multihop).
    Limit(NonZeroU8),
    /// GTSM: 255 is sent, and segments with a TTL that more than this many hops explain are
    /// dropped by the kernel. 1 is a peer on the link. Both ends must do so.
    Security(NonZeroU8),
}

impl Hops {
    /// GTSM for a peer that is `hops` away, at least one.
    pub fn security(hops: u8) -> Self {
        Self::Security(NonZeroU8::new(hops).unwrap_or(NonZeroU8::MIN))
    }

    /// The TTL to send; `None` is the system's.
    pub fn sent(self) -> Option<u8> {
        match self {
            Self::System => None,
            Self::Limit(hops) => Some(hops.get()),
            Self::Security(_) => Some(FULL),
        }
    }

    /// The least TTL that is taken; zero is any. A segment that was sent with 255 has 255 on
    /// arrival when the peer is one hop away, as no router has forwarded it.
    pub fn floor(self) -> u8 {
        match self {
            Self::System | Self::Limit(_) => 0,
            Self::Security(hops) => FULL - (hops.get() - 1),
        }
    }

    /// Puts both onto a socket of the family of `remote`, whatever was set before.
    pub(super) fn apply(self, socket: impl AsFd, remote: IpAddr) -> io::Result<()> {
        /// Undoes an earlier choice: the kernel takes the route's or the system's default.
        const DEFAULT: c_int = -1;
        let sent = self.sent().map_or(DEFAULT, c_int::from);
        let floor = c_int::from(self.floor());
        match remote {
            IpAddr::V4(_) => {
                set_ttl(&SockRef::from(&socket), sent)?;
                sockopt::set_int(&socket, PlainOption::MinTtl, floor)
            }
            IpAddr::V6(_) => {
                set_hop_limit(&SockRef::from(&socket), sent)?;
                sockopt::set_int(&socket, PlainOption::MinHopCount, floor)
            }
        }
    }
}

// socket2 passes the number on as the `int` that it is.
fn set_ttl(socket: &SockRef<'_>, ttl: c_int) -> io::Result<()> {
    socket.set_ttl_v4(ttl.cast_unsigned())
}

fn set_hop_limit(socket: &SockRef<'_>, hops: c_int) -> io::Result<()> {
    socket.set_unicast_hops_v6(hops.cast_unsigned())
}

impl fmt::Display for Hops {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("any distance"),
            Self::Limit(hops) => write!(f, "TTL {hops}"),
            Self::Security(hops) => write!(f, "GTSM within {hops} hops"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_is_255_for_a_peer_on_the_link_and_one_less_for_each_router_between() {
        const CASES: &[(u8, u8)] = &[(1, 255), (2, 254), (64, 192), (254, 2), (255, 1)];
        for (hops, floor) in CASES {
            let security = Hops::Security(NonZeroU8::new(*hops).unwrap());
            assert_eq!(security.floor(), *floor, "{hops} hops");
            assert_eq!(security.sent(), Some(255));
        }
    }

    #[test]
    fn without_security_any_ttl_is_taken() {
        let multihop = Hops::Limit(NonZeroU8::new(4).unwrap());
        assert_eq!((multihop.sent(), multihop.floor()), (Some(4), 0));
        assert_eq!((Hops::System.sent(), Hops::System.floor()), (None, 0));
    }
}
