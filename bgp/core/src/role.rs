//! Route leaks, prevented and detected by roles (RFC 9234 §5).
//!
//! Owns the two procedures on Only to Customer (OTC), as functions of the session's role and the
//! route's attribute. Does not own roles' agreement, which is the session's ([`crate::fsm`]), nor
//! the route. The procedures are for unicast, which is all that this speaker carries, and are not
//! for policy to change.

use std::fmt;

use crate::types::{Asn, BgpRole};

/// Why a route must not be used, or not be told (RFC 9234 §5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leak {
    /// It comes from a customer or a client of our route server, though somebody marked it as one
    /// for customers only.
    FromBelow {
        /// The AS that did.
        otc: Asn,
    },
    /// It comes from a lateral peer, though an AS other than that peer marked it as one for
    /// customers only.
    FromPeer {
        /// The AS that did.
        otc: Asn,
    },
    /// It is for customers only, and the receiver would be a provider, a lateral peer or a route
    /// server.
    ToOthers {
        /// The AS that marked it.
        otc: Asn,
    },
}

impl fmt::Display for Leak {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FromBelow { otc } => {
                write!(
                    f,
                    "route leak: a customer sent what AS {otc} gave to customers only"
                )
            }
            Self::FromPeer { otc } => {
                write!(
                    f,
                    "route leak: a peer sent what AS {otc} gave to customers only"
                )
            }
            Self::ToOthers { otc } => {
                write!(
                    f,
                    "AS {otc} gave the route to customers only, and the receiver is none"
                )
            }
        }
    }
}

/// The OTC attribute that a route has once it is received over a session on which our role is
/// `role`, from `peer`, having come with `otc`.
///
/// # Errors
/// [`Leak::FromBelow`] or [`Leak::FromPeer`]: the route is ineligible.
pub fn ingress(role: Option<BgpRole>, peer: Asn, otc: Option<Asn>) -> Result<Option<Asn>, Leak> {
    match (role, otc) {
        // Rule 1.
        (Some(BgpRole::Provider | BgpRole::RouteServer), Some(otc)) => Err(Leak::FromBelow { otc }),
        // Rule 2.
        (Some(BgpRole::Peer), Some(otc)) if otc != peer => Err(Leak::FromPeer { otc }),
        // Rule 3.
        (Some(BgpRole::Customer | BgpRole::Peer | BgpRole::RouteServerClient), None) => {
            Ok(Some(peer))
        }
        // Once set, it stays as it is.
        _ => Ok(otc),
    }
}

/// The OTC attribute with which a route that has `otc` is told over a session on which our role is
/// `role` and our AS is `local`.
///
/// # Errors
/// [`Leak::ToOthers`]: the route must not be told there.
pub fn egress(role: Option<BgpRole>, local: Asn, otc: Option<Asn>) -> Result<Option<Asn>, Leak> {
    match (role, otc) {
        // Rule 1.
        (Some(BgpRole::Provider | BgpRole::Peer | BgpRole::RouteServer), None) => Ok(Some(local)),
        // Rule 2.
        (Some(BgpRole::Customer | BgpRole::Peer | BgpRole::RouteServerClient), Some(otc)) => {
            Err(Leak::ToOthers { otc })
        }
        _ => Ok(otc),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Asn = Asn(65000);
    const PEER: Asn = Asn(65001);
    const OTHER: Asn = Asn(65002);

    /// Our role, the attribute before, and what comes of it on the way in and on the way out.
    type Row = (
        Option<BgpRole>,
        Option<Asn>,
        Result<Option<Asn>, Leak>,
        Result<Option<Asn>, Leak>,
    );

    #[rustfmt::skip]
    fn table() -> Vec<Row> {
        use BgpRole::{Customer, Peer, Provider, RouteServer, RouteServerClient};
        let below = |otc| Err(Leak::FromBelow { otc });
        let lateral = |otc| Err(Leak::FromPeer { otc });
        let others = |otc| Err(Leak::ToOthers { otc });
        vec![
            (None, None, Ok(None), Ok(None)),
            (None, Some(OTHER), Ok(Some(OTHER)), Ok(Some(OTHER))),
            (Some(Provider), None, Ok(None), Ok(Some(LOCAL))),
            (Some(Provider), Some(PEER), below(PEER), Ok(Some(PEER))),
            (Some(Provider), Some(OTHER), below(OTHER), Ok(Some(OTHER))),
            (Some(Customer), None, Ok(Some(PEER)), Ok(None)),
            (Some(Customer), Some(PEER), Ok(Some(PEER)), others(PEER)),
            (Some(Customer), Some(OTHER), Ok(Some(OTHER)), others(OTHER)),
            (Some(RouteServer), None, Ok(None), Ok(Some(LOCAL))),
            (Some(RouteServer), Some(PEER), below(PEER), Ok(Some(PEER))),
            (Some(RouteServer), Some(OTHER), below(OTHER), Ok(Some(OTHER))),
            (Some(RouteServerClient), None, Ok(Some(PEER)), Ok(None)),
            (Some(RouteServerClient), Some(PEER), Ok(Some(PEER)), others(PEER)),
            (Some(RouteServerClient), Some(OTHER), Ok(Some(OTHER)), others(OTHER)),
            (Some(Peer), None, Ok(Some(PEER)), Ok(Some(LOCAL))),
            (Some(Peer), Some(PEER), Ok(Some(PEER)), others(PEER)),
            (Some(Peer), Some(OTHER), lateral(OTHER), others(OTHER)),
        ]
    }

    #[test]
    fn routes_for_customers_only_go_down_and_nowhere_else() {
        for (role, otc, received, told) in table() {
            assert_eq!(
                ingress(role, PEER, otc),
                received,
                "{role:?} receives {otc:?}"
            );
            assert_eq!(egress(role, LOCAL, otc), told, "{role:?} tells {otc:?}");
        }
    }

    #[test]
    fn what_comes_from_above_or_beside_goes_to_customers_only() {
        let roles = [
            BgpRole::Provider,
            BgpRole::RouteServer,
            BgpRole::RouteServerClient,
            BgpRole::Customer,
            BgpRole::Peer,
        ];
        for from in roles {
            for to in roles {
                let marked = ingress(Some(from), PEER, None).unwrap();
                let told = egress(Some(to), LOCAL, marked).is_ok();
                let from_below = matches!(from, BgpRole::Provider | BgpRole::RouteServer);
                let to_below = matches!(to, BgpRole::Provider | BgpRole::RouteServer);
                assert_eq!(told, from_below || to_below, "{from} to {to}");
            }
        }
    }
}
