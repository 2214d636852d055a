//! The five messages as values.
//!
//! Owns their shape. Does not own their octets, nor the judgement whether an OPEN is acceptable,
//! which depends on configuration and is [`crate::fsm`]'s.

use std::time::Duration;

use crate::types::{Asn, Family, NextHop, Nlri, RouterId};
use crate::wire::{AfiSafi, Notification, PathAttributes, RefreshKind};

/// A whole BGP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// First message on a connection.
    Open(Open),
    /// Routes announced and withdrawn.
    Update(Update),
    /// Last message on a connection.
    Notification(Notification),
    /// Proof of life.
    Keepalive,
    /// Asks for routes anew, or brackets them.
    RouteRefresh(RouteRefresh),
}

/// OPEN (RFC 4271 §4.2), version 4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The sender's AS: what the four-octet capability says, else the two-octet field.
    pub asn: Asn,
    /// Proposed hold time in whole seconds; zero asks for no keepalives.
    pub hold_time: Duration,
    /// The sender's identifier.
    pub router_id: RouterId,
    /// Capabilities in the order given.
    pub capabilities: Vec<Capability>,
}

impl Open {
    /// Families of the multiprotocol capabilities; IPv4 unicast alone when there is none, as
    /// before RFC 4760.
    pub fn families(&self) -> Vec<AfiSafi> {
        let listed: Vec<AfiSafi> = self
            .capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::Multiprotocol(family) => Some(*family),
                _ => None,
            })
            .collect();
        if listed.is_empty() {
            return vec![Family::Ipv4Unicast.into()];
        }
        listed
    }

    /// The graceful restart capability, when there is one.
    ///
    /// Of several, the last counts (RFC 4724 §3).
    pub fn graceful_restart(&self) -> Option<&GracefulRestart> {
        self.capabilities
            .iter()
            .rev()
            .find_map(|capability| match capability {
                Capability::GracefulRestart(restart) => Some(restart),
                _ => None,
            })
    }

    /// Whether the sender speaks four-octet AS numbers.
    pub fn four_octet_as(&self) -> bool {
        self.capabilities
            .iter()
            .any(|capability| matches!(capability, Capability::FourOctetAs(_)))
    }
}

/// A capability (RFC 5492).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Capability {
    /// Routes of this family may be exchanged (RFC 4760).
    Multiprotocol(AfiSafi),
    /// ROUTE-REFRESH is understood (RFC 2918).
    RouteRefresh,
    /// Refreshes are bracketed (RFC 7313).
    EnhancedRouteRefresh,
    /// AS numbers take four octets, and this is the sender's (RFC 6793).
    FourOctetAs(Asn),
    /// The sender may keep forwarding while it restarts (RFC 4724).
    GracefulRestart(GracefulRestart),
    /// Messages of up to 65,535 octets are understood (RFC 8654).
    ExtendedMessage,
    /// Families whose next hop may be of the other family, with the AFI of the next hop (RFC 8950).
    ExtendedNextHop(Vec<(AfiSafi, u16)>),
    /// Several paths per prefix: 1 receive, 2 send, 3 both (RFC 7911).
    AddPath(Vec<(AfiSafi, u8)>),
    /// Anything else, kept as it came.
    Unknown {
        /// Capability code.
        code: u8,
        /// Capability value.
        value: Vec<u8>,
    },
}

/// The graceful restart capability (RFC 4724 §3, RFC 8538 §2).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GracefulRestart {
    /// R bit: the sender has restarted and wants the End-of-RIB of others before its own.
    pub restarting: bool,
    /// N bit: NOTIFICATIONs other than Hard Reset do not end retention.
    pub notification: bool,
    /// How long a restart may take, in whole seconds up to 4095.
    pub restart_time: Duration,
    /// Families kept, each with its F bit: forwarding state survived the last restart.
    pub families: Vec<(AfiSafi, bool)>,
}

/// UPDATE (RFC 4271 §4.3, RFC 4760).
///
/// Withdrawals apply before announcements: a prefix in both is announced (RFC 4271 §4.3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// Runs of announced prefixes, each with its next hop; all share `attributes`.
    pub reach: Vec<Reach>,
    /// Paths withdrawn, by family.
    pub withdrawn: Vec<(Family, Vec<Nlri>)>,
    /// Present exactly when `reach` is not empty.
    pub attributes: Option<PathAttributes>,
    /// The peer has sent all routes of this family (RFC 4724 §2).
    pub end_of_rib: Option<Family>,
}

/// Prefixes of one family announced with one next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    /// Family of every prefix in `nlri`.
    pub family: Family,
    /// Where packets for them go.
    pub next_hop: NextHop,
    /// The paths, as many as came.
    pub nlri: Vec<Nlri>,
}

/// ROUTE-REFRESH (RFC 2918 §3, RFC 7313 §3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteRefresh {
    /// The family it is about, routed here or not.
    pub family: AfiSafi,
    /// A request, or one of the two brackets.
    pub kind: RefreshKind,
}
