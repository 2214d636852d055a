//! Next hops.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::types::{Family, RouterId};

/// Where packets for a route go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHop {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// IPv6 next hops come alone or with a link-local companion (RFC 2545 §3).
    V6 {
        /// The global address; a link-local one when the peer sent nothing else.
        global: Ipv6Addr,
        /// The link-local address on the shared link.
        link_local: Option<Ipv6Addr>,
    },
}

impl NextHop {
    /// The address by which the next hop is known; the global one where there are two.
    pub fn addr(&self) -> IpAddr {
        match *self {
            Self::V4(address) => address.into(),
            Self::V6 { global, .. } => global.into(),
        }
    }

    /// What stands for ourselves where an own route, which leads nowhere else, is shown to somebody
    /// who wants a next hop: our identifier as an address, as readers refuse the unspecified one.
    pub fn ourselves(router_id: RouterId, family: Family) -> Self {
        let address = Ipv4Addr::from_bits(router_id.0);
        match family {
            Family::Ipv4Unicast => Self::V4(address),
            Family::Ipv6Unicast => Self::V6 {
                global: address.to_ipv6_mapped(),
                link_local: None,
            },
        }
    }
}

impl From<IpAddr> for NextHop {
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(global) => Self::V6 {
                global,
                link_local: None,
            },
        }
    }
}

impl fmt::Display for NextHop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.addr().fmt(f)
    }
}
