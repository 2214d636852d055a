//! The five messages as values.
//!
//! Owns their shape. Does not own their octets, nor the judgement whether an OPEN is acceptable,
//! which depends on configuration and is [`crate::fsm`]'s.

use std::time::Duration;

use crate::types::{Asn, Family, NextHop, Nlri, RouterId};
use crate::wire::capability::{Capability, GracefulRestart, LongLived};
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
        self.last(|capability| match capability {
            Capability::GracefulRestart(restart) => Some(restart),
            _ => None,
        })
    }

    /// The families of the long-lived graceful restart capability, when there is one that counts:
    /// without the graceful restart capability it is to be ignored (RFC 9494 §4.5).
    pub fn long_lived_restart(&self) -> Option<&[LongLived]> {
        self.graceful_restart()?;
        self.last(|capability| match capability {
            Capability::LongLivedRestart(families) => Some(families.as_slice()),
            _ => None,
        })
    }

    /// Whether the sender speaks four-octet AS numbers.
    pub fn four_octet_as(&self) -> bool {
        let mut capabilities = self.capabilities.iter();
        capabilities.any(|capability| matches!(capability, Capability::FourOctetAs(_)))
    }

    /// Values of the BGP Role capabilities (RFC 9234 §4.1); more than one only by mistake.
    pub fn roles(&self) -> impl Iterator<Item = u8> {
        self.capabilities
            .iter()
            .filter_map(|capability| match capability {
                Capability::Role(role) => Some(*role),
                _ => None,
            })
    }

    /// Whether the sender takes several paths per prefix of `family`, and whether it sends them
    /// (RFC 7911 §4).
    pub fn add_path(&self, family: Family) -> (bool, bool) {
        // RFC 7911 §4: a capability with any other value is not understood, and so ignored whole.
        let understood =
            |families: &[(AfiSafi, u8)]| families.iter().all(|(_, mode)| (1..=3).contains(mode));
        let mode = self.last(|capability| match capability {
            Capability::AddPath(families) if understood(families) => families
                .iter()
                .rev()
                .find_map(|(of, mode)| (*of == family.into()).then_some(*mode)),
            _ => None,
        });
        let mode = mode.unwrap_or_default();
        (mode & 1 != 0, mode & 2 != 0)
    }

    /// Whether the sender takes IPv6 next hops for IPv4 unicast prefixes (RFC 8950 §4).
    pub fn extended_next_hop(&self) -> bool {
        const IPV6: u16 = 2;
        let wanted = (AfiSafi::from(Family::Ipv4Unicast), IPV6);
        let mut capabilities = self.capabilities.iter();
        capabilities.any(|capability| match capability {
            Capability::ExtendedNextHop(families) => families.contains(&wanted),
            _ => false,
        })
    }

    /// Whether the sender listed `capability`, exactly so.
    pub fn lists(&self, capability: &Capability) -> bool {
        self.capabilities.contains(capability)
    }

    fn last<'a, T: 'a>(&'a self, pick: impl Fn(&'a Capability) -> Option<T>) -> Option<T> {
        self.capabilities.iter().rev().find_map(pick)
    }
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

impl Update {
    /// Everything that it names, withdrawn and announced.
    pub fn nlri(&self) -> impl Iterator<Item = &Nlri> {
        let withdrawn = self.withdrawn.iter().flat_map(|(_, nlri)| nlri);
        withdrawn.chain(self.reach.iter().flat_map(|reach| &reach.nlri))
    }
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
