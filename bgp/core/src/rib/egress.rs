//! What one peer is told about a route.
//!
//! Owns the transformation from a selected path to what goes on the wire, as a function of the
//! path and of one [`EgressConfig`]. Because that struct is compared whole, two peers share their
//! output exactly when no setting differs, and no setting can be forgotten. Does not own who is
//! told when.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use crate::policy::{ApplyContext, Decision, ExportPolicy, NextHopChange, RouteFacts, RouteSource};
use crate::rib::intake::kind;
use crate::rib::path::{DEFAULT_LOCAL_PREF, Path, PathPeer, Source};
use crate::role::{self, Leak};
use crate::types::{Asn, BgpRole, Family, FamilySet, NextHop, PeerKind, Prefix, RouterId};
use crate::wire::{AsPath, Community, EncodeContext, ExtendedCommunity, PathAttributes};

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

/// What becomes of AS numbers for private use (RFC 6996) in paths that an external peer is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PrivateAs {
    /// They stay.
    #[default]
    Keep,
    /// They go.
    Remove,
    /// Ours stands in their place, so that the path keeps its length.
    Replace,
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
    /// Our role in the session (RFC 9234).
    pub role: Option<BgpRole>,
    /// The peer's AS, which ours stands for in what it is told.
    pub replaced_asn: Option<Asn>,
    /// What becomes of AS numbers for private use.
    pub private_as: PrivateAs,
    /// How many of the best paths to a prefix are told, by family, where the session carries several;
    /// `None` for all of them.
    pub told_paths: [Option<u8>; Family::ALL.len()],
    /// Whether the peer knows what to do with routes kept beyond their time (RFC 9494).
    pub long_lived: bool,
    /// Whether IPv4 prefixes may lead to IPv6 next hops (RFC 8950).
    pub extended_next_hop: bool,
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
    /// Which routes may pass, and how they are changed.
    pub policy: Arc<ExportPolicy>,
    /// How messages to the peer are written.
    pub encode: EncodeContext,
}

impl EgressConfig {
    /// Whether the peer is in our AS.
    pub fn internal(&self) -> bool {
        self.peer == PeerKind::Internal
    }

    /// A path as the rules see it.
    pub(super) fn facts<'a>(&self, path: &'a Path) -> RouteFacts<'a> {
        let source = path.source.peer();
        RouteFacts {
            attributes: &path.attributes,
            next_hop: path.next_hop.as_ref(),
            source: source.map_or(RouteSource::Own, |peer| RouteSource::Peer(kind(peer))),
            interface: source.and_then(|peer| peer.interface_name.as_deref()),
            peer: self.peer,
        }
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
    /// By our roles it must not go there (RFC 9234 §5).
    Leak(Leak),
    /// It is kept beyond its time, and the peer would take it for any other (RFC 9494 §4.6).
    LongLived,
    /// We have no address of the family that the peer could use.
    NoNextHop,
    /// The export policy names a next hop that the session cannot carry for the family: IPv6 for IPv4
    /// routes where that is not agreed on (RFC 8950 §4), or IPv4 for IPv6 routes.
    UnreadableNextHop,
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
            Self::Leak(leak) => leak.fmt(f),
            Self::LongLived => f.write_str(
                "it is kept beyond its time, and the peer has not said that it knows such routes",
            ),
            Self::NoNextHop => {
                f.write_str("the session's interface has no address of the family to name")
            }
            Self::UnreadableNextHop => f.write_str(
                "the export policy names a next hop that the session cannot carry for its family",
            ),
            Self::TooLong => f.write_str("its attributes are too long for a message"),
        }
    }
}

/// What the peer behind `egress` is told about `path` to `prefix`.
///
/// # Errors
/// The reason for which it is told nothing.
pub fn export(prefix: &Prefix, path: &Path, egress: &EgressConfig) -> Result<Exported, Withheld> {
    permitted(prefix.family(), path, egress)?;
    let decision = egress.policy.evaluate(prefix, &egress.facts(path));
    if !decision.accepts() {
        let rule = decision.rule.and_then(|rule| egress.policy.name_of(rule));
        return Err(Withheld::Policy {
            rule: rule.map(str::to_owned),
        });
    }
    changed(prefix.family(), path, &decision, egress)
}

/// What the peer is told about a path that `decision` lets pass.
///
/// # Errors
/// [`Withheld::NoNextHop`], [`Withheld::UnreadableNextHop`] or [`Withheld::Leak`].
pub(super) fn changed(
    family: Family,
    path: &Path,
    decision: &Decision,
    egress: &EgressConfig,
) -> Result<Exported, Withheld> {
    let mut attributes = PathAttributes::clone(&path.attributes);
    if !egress.internal() && path.source != Source::Local {
        // RFC 4271 §5.1.4: what a neighbouring AS said is not for other neighbouring ASes.
        attributes.med = None;
    }
    let context = ApplyContext {
        own: ourselves(family, egress),
        peer: None,
    };
    let applied = egress.policy.apply(decision, attributes, &context);
    let next_hop = match applied.next_hop {
        NextHopChange::None => next_hop(family, path, egress.next_hop_mode, egress),
        NextHopChange::Unchanged => next_hop(family, path, NextHopMode::Keep, egress),
        NextHopChange::To(next_hop) => Some(next_hop),
        NextHopChange::Unavailable => None,
    };
    let next_hop = next_hop.ok_or(Withheld::NoNextHop)?;
    if !readable(family, &next_hop, egress) {
        return Err(Withheld::UnreadableNextHop);
    }
    let mut attributes = applied.attributes;
    if egress.internal() {
        into_internal(&mut attributes, path, egress);
    } else {
        into_external(&mut attributes, egress);
    }
    // RFC 9494 §4.2, §4.3: put on what we keep, and never taken off, whatever a rule removes.
    if path.is_last_resort() {
        attributes.communities.insert(Community::LLGR_STALE);
    }
    attributes.otc =
        role::egress(egress.role, egress.local_asn, attributes.otc).map_err(Withheld::Leak)?;
    Ok(Exported {
        attributes,
        next_hop,
    })
}

/// Whether the rules of the protocol let a path pass to the peer.
///
/// # Errors
/// The reason for which they do not.
pub(super) fn permitted(
    family: Family,
    path: &Path,
    egress: &EgressConfig,
) -> Result<(), Withheld> {
    if !egress.families.contains(family) {
        return Err(Withheld::Family);
    }
    if let Source::Peer(source) = &path.source {
        if !egress.transit {
            return Err(Withheld::NoTransit);
        }
        // RFC 4456 §6: clients are told everything, others only what clients told.
        if source.internal && egress.internal() && !source.client && !egress.client {
            return Err(Withheld::NotReflected);
        }
    }
    if path.is_last_resort() && !egress.long_lived {
        return Err(Withheld::LongLived);
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

/// Ourselves, as the peer reaches us for routes of `family`.
fn ourselves(family: Family, egress: &EgressConfig) -> Option<NextHop> {
    let own_v4 = egress.self_v4.map(NextHop::V4);
    let own_v6 = egress
        .self_v6
        .map(|(global, link_local)| NextHop::V6 { global, link_local });
    match family {
        Family::Ipv4Unicast => own_v4.or(own_v6.filter(|_| egress.extended_next_hop)),
        Family::Ipv6Unicast => own_v6,
    }
}

/// Whether the peer understands this next hop of a route of `family`: it would end the session over
/// a form that is not agreed on.
fn readable(family: Family, next_hop: &NextHop, egress: &EgressConfig) -> bool {
    match (family, next_hop) {
        (Family::Ipv4Unicast, NextHop::V4(_)) | (Family::Ipv6Unicast, NextHop::V6 { .. }) => true,
        (Family::Ipv4Unicast, NextHop::V6 { .. }) => egress.extended_next_hop,
        (Family::Ipv6Unicast, NextHop::V4(_)) => false,
    }
}

/// The next hop that `mode` names: ourselves wherever the learnt one may not stand.
fn next_hop(
    family: Family,
    path: &Path,
    mode: NextHopMode,
    egress: &EgressConfig,
) -> Option<NextHop> {
    let ourselves = ourselves(family, egress);
    let Some(learnt) = path.next_hop else {
        return ourselves;
    };
    let keep = match mode {
        _ if !readable(family, &learnt, egress) => false,
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
    let NextHop::V6 { global, .. } = learnt else {
        return if keep { Some(learnt) } else { ourselves };
    };
    // RFC 2545 §3: a link-local address means something on its own link only.
    if !keep || global.is_unicast_link_local() {
        return ourselves;
    }
    Some(NextHop::V6 {
        global,
        link_local: None,
    })
}

fn into_external(attributes: &mut PathAttributes, egress: &EgressConfig) {
    attributes.as_path = told_as_path(&attributes.as_path, egress);
    // RFC 4271 §5.1.5: LOCAL_PREF stays inside the AS; RFC 4456 §8: so do the marks of reflectors.
    attributes.local_pref = None;
    attributes.originator_id = None;
    attributes.cluster_list = Box::default();
    let transitive = |community: &ExtendedCommunity| community.is_transitive();
    if !attributes.ext_communities().iter().all(transitive) {
        attributes.edit_ext_communities(|communities| communities.retain(transitive));
    }
}

fn into_internal(attributes: &mut PathAttributes, path: &Path, egress: &EgressConfig) {
    // RFC 4271 §5.1.5: LOCAL_PREF is mandatory between internal peers.
    attributes.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
    if let Some(source) = path.source.peer().filter(|peer| peer.internal) {
        reflect(attributes, source, egress.cluster_id);
    }
}

/// The path with our AS in front, and without what the peer is not to see.
fn told_as_path(learnt: &AsPath, egress: &EgressConfig) -> AsPath {
    if egress.replaced_asn.is_none() && egress.private_as == PrivateAs::Keep {
        return learnt.prepended(egress.local_asn, 1);
    }
    let private = |asn: &Asn| asn.is_private() && *asn != egress.local_asn;
    let shown: Vec<Asn> = learnt
        .asns()
        .iter()
        .map(|asn| match egress.replaced_asn {
            Some(replaced) if *asn == replaced => egress.local_asn,
            _ => *asn,
        })
        .filter_map(|asn| match egress.private_as {
            PrivateAs::Remove if private(&asn) => None,
            PrivateAs::Replace if private(&asn) => Some(egress.local_asn),
            _ => Some(asn),
        })
        .collect();
    AsPath::new(shown).prepended(egress.local_asn, 1)
}

/// RFC 4456 §8: the first reflector notes who brought the route; each puts itself in front.
fn reflect(attributes: &mut PathAttributes, source: &PathPeer, cluster_id: RouterId) {
    attributes.originator_id.get_or_insert(source.router_id);
    let before = attributes.cluster_list.iter().copied();
    attributes.cluster_list = std::iter::once(cluster_id).chain(before).collect();
}

#[cfg(test)]
mod tests;
