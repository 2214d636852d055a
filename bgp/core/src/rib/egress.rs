//! What one peer is told about a route.
//!
//! Owns the transformation from a selected path to what goes on the wire, as a function of the
//! path and of one [`EgressConfig`]. Because that struct is compared whole, two peers share their
//! output exactly when no setting differs, and no setting can be forgotten. Does not own who is
//! told when.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::policy::{ExportPolicy, RouteFacts};
use crate::rib::path::{DEFAULT_LOCAL_PREF, Path, PathPeer, Source};
use crate::types::{Asn, Family, FamilySet, NextHop, PeerKind, Prefix, RouterId};
use crate::wire::{Community, EncodeContext, PathAttributes};

/// Which next hop a peer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NextHopMode {
    /// What the protocol asks for: ourselves to external peers, except a third party on the subnet
    /// that we share (RFC 4271 §5.1.3); unchanged to internal ones.
    #[default]
    Auto,
    /// Always ourselves, on reflected routes too.
    Self_,
    /// Never changed on learnt routes.
    Keep,
}

/// Everything that decides what a peer is told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressConfig {
    /// Our AS.
    pub local_asn: Asn,
    /// The cluster that we reflect for.
    pub cluster_id: RouterId,
    /// Whether the peer is in our AS.
    pub peer: PeerKind,
    /// Whether we reflect for the peer.
    pub client: bool,
    /// Whether learnt routes are told at all.
    pub transit: bool,
    /// Families of the session.
    pub families: FamilySet,
    /// Which next hop is named.
    pub next_hop_mode: NextHopMode,
    /// Ourselves, as the peer reaches us by IPv4.
    pub self_v4: Option<Ipv4Addr>,
    /// Ourselves, as the peer reaches us by IPv6: the global address and the link-local one.
    pub self_v6: Option<(Ipv6Addr, Option<Ipv6Addr>)>,
    /// Subnets that we share with the peer.
    pub subnets: Vec<Prefix>,
    /// Which routes may pass.
    pub policy: Arc<ExportPolicy>,
    /// How messages to the peer are written.
    pub encode: EncodeContext,
}

impl EgressConfig {
    /// Whether the peer is in our AS.
    pub fn internal(&self) -> bool {
        self.peer == PeerKind::Internal
    }

    /// Whether routes to `prefix` may be told, whatever their path.
    ///
    /// # Errors
    /// The reason for which they may not.
    pub fn admits(&self, prefix: &Prefix) -> Result<(), Withheld> {
        if !self.families.contains(prefix.family()) {
            return Err(Withheld::Family);
        }
        let none = PathAttributes::default();
        let decision = self
            .policy
            .evaluate(prefix, &RouteFacts::own(&none, self.peer));
        if decision.accepts() {
            return Ok(());
        }
        let rule = decision.rule.and_then(|rule| self.policy.name_of(rule));
        Err(Withheld::Policy {
            rule: rule.map(str::to_owned),
        })
    }
}

/// A route as one peer is told it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Exported {
    /// What it carries.
    pub attributes: PathAttributes,
    /// Where it points.
    pub next_hop: NextHop,
}

/// Why a peer is not told about a route.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Withheld {
    /// The session does not carry the family.
    Family,
    /// The peer told us.
    SplitHorizon,
    /// The next hop to name would be the peer itself (RFC 4271 §5.1.3).
    PeerIsNextHop,
    /// Learnt routes are not passed on by this speaker.
    NoTransit,
    /// Learnt from an internal peer, for an internal peer, and neither is a client (RFC 4456 §6).
    NotReflected,
    /// The well-known community forbids it (RFC 1997).
    Community(Community),
    /// The export policy says no, by a rule or because none accepted it.
    Policy {
        /// The rule; `None` when no rule matched.
        rule: Option<String>,
    },
    /// We have no address of the family that the peer could use.
    NoNextHop,
    /// Its attributes leave no room for a prefix in a message.
    TooLong,
}

impl fmt::Display for Withheld {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Family => f.write_str("the session does not carry the family"),
            Self::SplitHorizon => f.write_str("the peer told us"),
            Self::PeerIsNextHop => f.write_str("the peer is its next hop"),
            Self::NoTransit => f.write_str("this speaker announces only its own routes"),
            Self::NotReflected => f.write_str("neither side is a client of this reflector"),
            Self::Community(community) => write!(f, "community {community} forbids it"),
            Self::Policy { rule: Some(rule) } => {
                write!(f, "the export policy rejects it: rule '{rule}'")
            }
            Self::Policy { rule: None } => {
                f.write_str("the export policy rejects it: no rule accepts it")
            }
            Self::NoNextHop => {
                f.write_str("the session's interface has no address of the family to name")
            }
            Self::TooLong => f.write_str("its attributes are too long for a message"),
        }
    }
}

/// What the peer behind `egress` is told about `path` to `prefix`.
///
/// # Errors
/// The reason for which it is told nothing.
pub fn export(prefix: &Prefix, path: &Path, egress: &EgressConfig) -> Result<Exported, Withheld> {
    if !egress.families.contains(prefix.family()) {
        return Err(Withheld::Family);
    }
    permitted(path, egress)?;
    egress.admits(prefix)?;
    let next_hop = next_hop(prefix.family(), path, egress).ok_or(Withheld::NoNextHop)?;
    let attributes = if egress.internal() {
        internal_attributes(path, egress)
    } else {
        external_attributes(path, egress)
    };
    Ok(Exported {
        attributes,
        next_hop,
    })
}

fn permitted(path: &Path, egress: &EgressConfig) -> Result<(), Withheld> {
    if let Source::Peer(source) = &path.source {
        if !egress.transit {
            return Err(Withheld::NoTransit);
        }
        // RFC 4456 §6: clients are told everything, others only what clients told.
        if source.internal && egress.internal() && !source.client && !egress.client {
            return Err(Withheld::NotReflected);
        }
    }
    // RFC 1997: NO_ADVERTISE stops at us; the other two at the border, as we know no
    // confederation members.
    let forbidding = path.attributes.communities.iter().find(|community| {
        **community == Community::NO_ADVERTISE
            || !egress.internal()
                && [Community::NO_EXPORT, Community::NO_EXPORT_SUBCONFED].contains(community)
    });
    match forbidding {
        // Our own communities are addressed to the peers: NO_EXPORT on an own route asks *them*
        // to keep it, whereas NO_ADVERTISE on it would be a mistake that hides the route.
        Some(community)
            if path.source != Source::Local || *community == Community::NO_ADVERTISE =>
        {
            Err(Withheld::Community(*community))
        }
        _ => Ok(()),
    }
}

fn next_hop(family: Family, path: &Path, egress: &EgressConfig) -> Option<NextHop> {
    let ourselves = match family {
        Family::Ipv4Unicast => egress.self_v4.map(NextHop::V4),
        Family::Ipv6Unicast => egress
            .self_v6
            .map(|(global, link_local)| NextHop::V6 { global, link_local }),
    };
    let Some(learnt) = path.next_hop else {
        return ourselves;
    };
    let keep = match egress.next_hop_mode {
        NextHopMode::Self_ => false,
        NextHopMode::Keep => true,
        NextHopMode::Auto if egress.internal() => true,
        // RFC 4271 §5.1.3 (2): a router on the subnet that we share with the external peer may be
        // named, as the peer reaches it without us.
        NextHopMode::Auto => egress
            .subnets
            .iter()
            .any(|subnet| subnet.contains_addr(learnt.addr())),
    };
    if !keep {
        return ourselves;
    }
    let NextHop::V6 { global, .. } = learnt else {
        return Some(learnt);
    };
    // RFC 2545 §3: a link-local address means something on its own link only.
    Some(NextHop::V6 {
        global,
        link_local: None,
    })
}

fn external_attributes(path: &Path, egress: &EgressConfig) -> PathAttributes {
    let mut attributes = PathAttributes::clone(&path.attributes);
    attributes.as_path = attributes.as_path.prepended(egress.local_asn, 1);
    // RFC 4271 §5.1.5: LOCAL_PREF stays inside the AS; RFC 4456 §8: so do the marks of reflectors.
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list.clear();
    if path.source != Source::Local {
        // RFC 4271 §5.1.4: what a neighbouring AS said is not for other neighbouring ASes.
        attributes.med = None;
    }
    attributes
        .ext_communities
        .retain(|community| community.is_transitive());
    attributes
}

fn internal_attributes(path: &Path, egress: &EgressConfig) -> PathAttributes {
    let mut attributes = PathAttributes::clone(&path.attributes);
    // RFC 4271 §5.1.5: LOCAL_PREF is mandatory between internal peers.
    attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
    if let Some(source) = path.source.peer().filter(|peer| peer.internal) {
        reflect(&mut attributes, source, egress.cluster_id);
    }
    attributes
}

/// RFC 4456 §8: the first reflector notes who brought the route; each puts itself in front.
fn reflect(attributes: &mut PathAttributes, source: &PathPeer, cluster_id: RouterId) {
    attributes.originator_id.get_or_insert(source.router_id);
    attributes.cluster_list.insert(0, cluster_id);
}

#[cfg(test)]
mod tests;
