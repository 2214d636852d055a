//! What a rule may change about a route.
//!
//! Owns the changes and what they leave valid: communities stay sorted sets. Does not own when
//! they are made.

use std::fmt;
use std::net::IpAddr;

use crate::policy::community::{AnyCommunity, CommunityPattern};
use crate::policy::condition::{Facets, List};
use crate::types::{Asn, NextHop};
use crate::wire::{Community, ExtendedCommunity, LargeCommunity, Origin, PathAttributes};

/// One change to a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Add a community.
    AddCommunity(AnyCommunity),
    /// Remove every community that looks like this.
    RemoveCommunity(CommunityPattern),
    /// Leave exactly these standard communities.
    SetCommunities(Vec<Community>),
    /// Leave exactly these extended communities.
    SetExtendedCommunities(Vec<ExtendedCommunity>),
    /// Leave exactly these large communities.
    SetLargeCommunities(Vec<LargeCommunity>),
    /// Put these numbers in front of the AS path, so that it then begins with them in this order.
    Prepend(Vec<Asn>),
    /// Set LOCAL_PREF. Has no effect towards external peers, who are told none.
    SetLocalPref(u32),
    /// Set MULTI_EXIT_DISC.
    SetMed(u32),
    /// Add to MULTI_EXIT_DISC, which counts as 0 where there is none; stops at either end.
    AddMed(i64),
    /// Remove MULTI_EXIT_DISC.
    RemoveMed,
    /// Set ORIGIN.
    SetOrigin(Origin),
    /// Name another next hop.
    SetNextHop(NextHopTarget),
    /// Drop the packets of the route here, and tell it nobody outside the AS (RFC 7999 §3.2).
    Blackhole,
}

/// Which next hop to name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHopTarget {
    /// This address.
    Address(IpAddr),
    /// Ourselves, as the peer reaches us. For export.
    Own,
    /// The peer itself. For import.
    Peer,
    /// The one that was told, whatever the session's next-hop mode says. For export.
    Unchanged,
}

/// What an operation may need to know about the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ApplyContext {
    /// Ourselves, in a family that the route may point to.
    pub own: Option<NextHop>,
    /// The peer.
    pub peer: Option<NextHop>,
}

/// What operations say about the next hop; the last one counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NextHopChange {
    /// Nothing: the session's rules decide.
    #[default]
    None,
    /// Leave it as it was told.
    Unchanged,
    /// Name this one.
    To(NextHop),
    /// Name one that there is not: the route cannot be used or told.
    Unavailable,
}

/// A route after its operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// What it carries now.
    pub attributes: PathAttributes,
    /// Where it points to now.
    pub next_hop: NextHopChange,
    /// Whether its packets are to be dropped.
    pub blackhole: bool,
}

impl Operation {
    pub(super) fn apply(&self, to: &mut Applied, context: &ApplyContext) {
        match self {
            Self::SetNextHop(target) => {
                let known = |next_hop: Option<NextHop>| {
                    next_hop.map_or(NextHopChange::Unavailable, NextHopChange::To)
                };
                to.next_hop = match *target {
                    NextHopTarget::Address(address) => NextHopChange::To(address.into()),
                    NextHopTarget::Own => known(context.own),
                    NextHopTarget::Peer => known(context.peer),
                    NextHopTarget::Unchanged => NextHopChange::Unchanged,
                };
            }
            Self::Blackhole => {
                to.blackhole = true;
                self.rewrite(&mut to.attributes);
            }
            _ => self.rewrite(&mut to.attributes),
        }
    }

    /// Makes the changes that later conditions can see.
    pub(super) fn rewrite(&self, attributes: &mut PathAttributes) {
        match self {
            Self::AddCommunity(AnyCommunity::Standard(community)) => {
                attributes.communities.insert(*community);
            }
            Self::AddCommunity(AnyCommunity::Extended(community)) => {
                attributes.edit_ext_communities(|communities| {
                    communities.insert(*community);
                });
            }
            Self::AddCommunity(AnyCommunity::Large(community)) => {
                attributes.large_communities.insert(*community);
            }
            Self::RemoveCommunity(pattern) => {
                let PathAttributes {
                    communities,
                    large_communities,
                    ..
                } = attributes;
                communities.retain(|community| !pattern.matches_standard(*community));
                large_communities.retain(|community| !pattern.matches_large(*community));
                attributes.edit_ext_communities(|communities| {
                    communities.retain(|community| !pattern.matches_extended(*community));
                });
            }
            Self::SetCommunities(list) => attributes.communities = list.iter().copied().collect(),
            Self::SetExtendedCommunities(list) => {
                attributes.edit_ext_communities(|communities| {
                    *communities = list.iter().copied().collect();
                });
            }
            Self::SetLargeCommunities(list) => {
                attributes.large_communities = list.iter().copied().collect();
            }
            Self::Prepend(asns) => {
                let path = [asns, attributes.as_path.asns()].concat();
                attributes.as_path = crate::wire::AsPath::new(path);
            }
            Self::SetLocalPref(value) => attributes.local_pref = Some(*value),
            Self::SetMed(value) => attributes.med = Some(*value),
            Self::AddMed(change) => {
                let sum = i64::from(attributes.med.unwrap_or(0)).saturating_add(*change);
                let sum = sum.clamp(0, u32::MAX.into());
                attributes.med = u32::try_from(sum).ok();
            }
            Self::RemoveMed => attributes.med = None,
            Self::SetOrigin(origin) => attributes.origin = *origin,
            Self::Blackhole => {
                attributes.communities.insert(Community::NO_EXPORT);
            }
            // Conditions ask for the next hop as it was told.
            Self::SetNextHop(_) => {}
        }
    }

    /// What it changes of what conditions read.
    pub(super) fn writes(&self) -> Facets {
        match self {
            Self::AddCommunity(_)
            | Self::RemoveCommunity(_)
            | Self::SetCommunities(_)
            | Self::SetExtendedCommunities(_)
            | Self::SetLargeCommunities(_)
            | Self::Blackhole => Facets::COMMUNITIES,
            Self::Prepend(_) => Facets::AS_PATH,
            Self::SetLocalPref(_) => Facets::LOCAL_PREF,
            Self::SetMed(_) | Self::AddMed(_) | Self::RemoveMed => Facets::MED,
            Self::SetOrigin(_) => Facets::ORIGIN,
            Self::SetNextHop(_) => Facets::NONE,
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddCommunity(community) => write!(f, "add community {community}"),
            Self::RemoveCommunity(pattern) => write!(f, "remove communities {pattern}"),
            Self::SetCommunities(list) => write!(f, "set communities to [{}]", List(list)),
            Self::SetExtendedCommunities(list) => {
                let list: Vec<_> = list.iter().copied().map(AnyCommunity::Extended).collect();
                write!(f, "set extended communities to [{}]", List(&list))
            }
            Self::SetLargeCommunities(list) => {
                write!(f, "set large communities to [{}]", List(list))
            }
            Self::Prepend(asns) => {
                write!(f, "prepend {}", crate::wire::AsPath::new(asns.as_slice()))
            }
            Self::SetLocalPref(value) => write!(f, "set local preference {value}"),
            Self::SetMed(value) => write!(f, "set MED {value}"),
            Self::AddMed(change) => write!(f, "change MED by {change:+}"),
            Self::RemoveMed => f.write_str("remove MED"),
            Self::SetOrigin(origin) => write!(f, "set origin {origin}"),
            Self::SetNextHop(NextHopTarget::Address(address)) => {
                write!(f, "set next hop {address}")
            }
            Self::SetNextHop(NextHopTarget::Own) => f.write_str("set next hop to ourselves"),
            Self::SetNextHop(NextHopTarget::Peer) => f.write_str("set next hop to the peer"),
            Self::SetNextHop(NextHopTarget::Unchanged) => f.write_str("keep the next hop"),
            Self::Blackhole => f.write_str("drop its packets"),
        }
    }
}
