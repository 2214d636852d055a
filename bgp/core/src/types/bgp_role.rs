//! What two neighbouring ASes are to each other (RFC 9234).

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// The role of one side of an external session (RFC 9234 §4).
///
/// Values that IANA has not assigned never become a `BgpRole`: they match no other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BgpRole {
    /// Sells transit to the other side.
    Provider,
    /// A route server; the other side is its client.
    RouteServer,
    /// A client of the route server on the other side.
    RouteServerClient,
    /// Buys transit from the other side.
    Customer,
    /// Exchanges its own and its customers' routes with the other side.
    Peer,
}

impl BgpRole {
    const ALL: [(Self, u8, &str); 5] = [
        (Self::Provider, 0, "provider"),
        (Self::RouteServer, 1, "rs-server"),
        (Self::RouteServerClient, 2, "rs-client"),
        (Self::Customer, 3, "customer"),
        (Self::Peer, 4, "peer"),
    ];

    /// The role of this value of the BGP Role capability, when it is assigned.
    pub fn from_code(code: u8) -> Option<Self> {
        let mut roles = Self::ALL.iter();
        roles.find_map(|(role, of, _)| (*of == code).then_some(*role))
    }

    /// The value of the BGP Role capability.
    pub fn code(self) -> u8 {
        self.entry().1
    }

    /// What the other side must be (RFC 9234 §4.2, table 2).
    pub fn counterpart(self) -> Self {
        match self {
            Self::Provider => Self::Customer,
            Self::Customer => Self::Provider,
            Self::RouteServer => Self::RouteServerClient,
            Self::RouteServerClient => Self::RouteServer,
            Self::Peer => Self::Peer,
        }
    }

    fn entry(self) -> &'static (Self, u8, &'static str) {
        let mut roles = Self::ALL.iter();
        roles
            .find(|(role, ..)| *role == self)
            .expect("every role is listed")
    }
}

impl fmt::Display for BgpRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry().2)
    }
}

impl FromStr for BgpRole {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let mut roles = Self::ALL.iter();
        roles
            .find_map(|(role, _, name)| (*name == text).then_some(*role))
            .ok_or_else(|| Error::ParseBgpRole { text: text.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_pair_up_and_read_back() {
        for (role, code, text) in BgpRole::ALL {
            assert_eq!(role.counterpart().counterpart(), role);
            assert_eq!(BgpRole::from_code(code), Some(role));
            assert_eq!(role.code(), code);
            assert_eq!(text.parse::<BgpRole>().unwrap(), role);
        }
        assert_eq!(BgpRole::from_code(5), None);
        assert!("boss".parse::<BgpRole>().is_err());
    }
}
