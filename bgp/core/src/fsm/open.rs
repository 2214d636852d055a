//! The OPEN that we send, and what the peer's OPEN makes of the session.

use std::time::Duration;

use crate::fsm::config::{AddPath, Config, Identity, LocalGracefulRestart, LocalLongLived};
use crate::fsm::terms::{Negotiated, PeerGracefulRestart, PeerLongLived};
use crate::types::{BgpRole, Family, FamilySet, PeerKind, RouterId};
use crate::wire::iana::{CapabilityCode, OpenError};
use crate::wire::{
    AfiSafi, Capability, GracefulRestart, LongLived, MAX_EXTENDED_LEN, MAX_MESSAGE_LEN,
    Notification, Open, printable,
};

/// RFC 4271 §4.2: shorter hold times than this are no hold times.
const MIN_HOLD_TIME: Duration = Duration::from_secs(3);
/// RFC 4271 §4.4: keepalives are not to be sent more often.
pub(super) const MIN_KEEPALIVE: Duration = Duration::from_secs(1);
/// RFC 9687 §6: the send hold time is this, or twice the hold time where that is longer.
const MIN_SEND_HOLD: Duration = Duration::from_secs(8 * 60);

/// The OPEN to send; `restarting` is the R bit.
pub(super) fn ours(config: &Config, restarting: bool) -> Open {
    let mut capabilities: Vec<Capability> = config
        .families
        .iter()
        .map(|family| Capability::Multiprotocol((*family).into()))
        .collect();
    capabilities.push(Capability::RouteRefresh);
    capabilities.push(Capability::EnhancedRouteRefresh);
    if offers_extended_next_hop(config) {
        const IPV6: u16 = 2;
        let ipv4 = Family::Ipv4Unicast.into();
        capabilities.push(Capability::ExtendedNextHop(vec![(ipv4, IPV6)]));
    }
    if config.link_local_next_hop {
        capabilities.push(Capability::LinkLocalNextHop);
    }
    if config.extended_messages {
        capabilities.push(Capability::ExtendedMessage);
    }
    if config.bfd_strict {
        capabilities.push(Capability::BfdStrict);
    }
    if let Some(role) = own_role(config) {
        capabilities.push(Capability::Role(role.code()));
    }
    capabilities.push(Capability::FourOctetAs(config.local_asn));
    capabilities.extend(add_path_offer(config));
    if let Some(restart) = &config.graceful_restart {
        let families = restart.families.iter();
        capabilities.push(Capability::GracefulRestart(GracefulRestart {
            restarting,
            notification: true,
            restart_time: restart.restart_time,
            families: families
                .map(|(family, forwarding)| ((*family).into(), *forwarding))
                .collect(),
        }));
        // RFC 9494 §4.1: never without the capability before.
        let long_lived = config.long_lived.as_ref();
        capabilities.extend(long_lived.map(|long_lived| long_lived_offer(restart, long_lived)));
    }
    if let Some((host, domain)) = config.identity.host.clone() {
        capabilities.push(Capability::Hostname { host, domain });
    }
    let software = config.identity.software.clone();
    capabilities.extend(software.map(Capability::SoftwareVersion));
    Open {
        asn: config.local_asn,
        hold_time: config.hold_time,
        router_id: config.router_id,
        capabilities,
    }
}

/// The terms that follow from the peer's OPEN.
///
/// # Errors
/// The NOTIFICATION of RFC 4271 §6.2, in the order in which that section checks.
pub(super) fn negotiate(config: &Config, open: &Open) -> Result<Negotiated, Notification> {
    if !config.peer_asn.admits(open.asn, config.local_asn) {
        return Err(Notification::new(OpenError::BadPeerAs, []));
    }
    // RFC 6286 §2.2: not zero, and unique within an AS only.
    let clash = config.peer_kind() == PeerKind::Internal && open.router_id == config.router_id;
    if open.router_id == RouterId(0) || clash {
        return Err(Notification::new(OpenError::BadIdentifier, []));
    }
    if open.hold_time > Duration::ZERO && open.hold_time < MIN_HOLD_TIME {
        return Err(Notification::new(OpenError::UnacceptableHoldTime, []));
    }
    let theirs = open.families();
    let families: Vec<Family> = Family::ALL
        .into_iter()
        .filter(|family| config.families.contains(family) && theirs.contains(&(*family).into()))
        .collect();
    if families.is_empty() {
        // RFC 5492 §3: the data lists the capabilities whose lack ends the session.
        let lacking = config.families.iter().flat_map(multiprotocol_octets);
        let lacking: Vec<u8> = lacking.collect();
        return Err(Notification::new(OpenError::UnsupportedCapability, lacking));
    }
    let role = role(config, open)?;
    // RFC 4271 §4.2: the smaller of the two; zero, of either side, means no keepalives.
    let hold_time = config.hold_time.min(open.hold_time);
    let enhanced = open.lists(&Capability::EnhancedRouteRefresh);
    let ipv4 = families.contains(&Family::Ipv4Unicast);
    let extended_next_hop = ipv4 && offers_extended_next_hop(config);
    let extended_messages = config.extended_messages && open.lists(&Capability::ExtendedMessage);
    Ok(Negotiated {
        local_asn: config.local_asn,
        peer_asn: open.asn,
        peer_router_id: open.router_id,
        hold_time,
        keepalive: keepalive(config, hold_time),
        send_hold_time: send_hold_time(config, hold_time),
        four_octet_as: open.four_octet_as(),
        route_refresh: enhanced || open.lists(&Capability::RouteRefresh),
        enhanced_route_refresh: enhanced,
        graceful_restart: graceful_restart(config, open, &families),
        long_lived: long_lived(config, open, &families),
        add_path: add_path(config, open, &families),
        extended_next_hop: extended_next_hop && open.extended_next_hop(),
        accept_extended_next_hop: extended_next_hop,
        link_local_next_hop: config.link_local_next_hop
            && open.lists(&Capability::LinkLocalNextHop),
        max_send_len: if extended_messages {
            MAX_EXTENDED_LEN
        } else {
            MAX_MESSAGE_LEN
        },
        bfd_strict: config.bfd_strict && open.lists(&Capability::BfdStrict),
        role,
        peer_identity: identity(open),
        families,
    })
}

/// Families of `open` that the session will not carry, for people to see.
pub(super) fn ignored_families(negotiated: &Negotiated, open: &Open) -> Vec<AfiSafi> {
    let carried = |family: &AfiSafi| {
        family
            .family()
            .is_some_and(|family| negotiated.families.contains(&family))
    };
    open.families()
        .into_iter()
        .filter(|family| !carried(family))
        .collect()
}

fn offers_extended_next_hop(config: &Config) -> bool {
    config.extended_next_hop && config.families.contains(&Family::Ipv4Unicast)
}

/// RFC 9234 §4: roles are for external sessions.
fn own_role(config: &Config) -> Option<BgpRole> {
    let external = config.peer_kind() == PeerKind::External;
    let role = config.role.filter(|_| external)?;
    Some(role.role)
}

/// Our role, once it is sure that the peer's does not contradict it (RFC 9234 §4.2).
fn role(config: &Config, open: &Open) -> Result<Option<BgpRole>, Notification> {
    let mismatch = || Notification::new(OpenError::RoleMismatch, []);
    if config.peer_kind() == PeerKind::Internal {
        return Ok(None);
    }
    let mut theirs: Vec<u8> = open.roles().collect();
    theirs.dedup();
    let own = own_role(config);
    match (own, theirs.as_slice()) {
        // Several that are alike count as one; several that differ are refused by all.
        (_, [_, _, ..]) => Err(mismatch()),
        (None, _) => Ok(None),
        (Some(own), [theirs]) if *theirs != own.counterpart().code() => Err(mismatch()),
        (Some(_), []) if config.role.is_some_and(|role| role.strict) => Err(mismatch()),
        (Some(own), _) => Ok(Some(own)),
    }
}

/// Sets what needs no word of the peer's anew.
pub(super) fn repace(config: &Config, negotiated: &mut Negotiated) {
    negotiated.keepalive = keepalive(config, negotiated.hold_time);
    negotiated.send_hold_time = send_hold_time(config, negotiated.hold_time);
}

fn keepalive(config: &Config, hold_time: Duration) -> Duration {
    if hold_time.is_zero() {
        return Duration::ZERO;
    }
    // RFC 4271 §10: a third of the hold time.
    let longest = hold_time / 3;
    let wanted = config.keepalive.unwrap_or(longest);
    wanted.clamp(MIN_KEEPALIVE, longest.max(MIN_KEEPALIVE))
}

fn send_hold_time(config: &Config, hold_time: Duration) -> Duration {
    // RFC 9687 §4: without keepalives there may rightly be nothing to send for hours.
    if hold_time.is_zero() {
        return Duration::ZERO;
    }
    match config.send_hold_time {
        None => MIN_SEND_HOLD.max(hold_time * 2),
        Some(Duration::ZERO) => Duration::ZERO,
        // RFC 9687 §6: it must be greater than the hold time.
        Some(wanted) => wanted.max(hold_time + Duration::from_secs(1)),
    }
}

fn graceful_restart(
    config: &Config,
    open: &Open,
    negotiated: &[Family],
) -> Option<PeerGracefulRestart> {
    config.graceful_restart.as_ref()?;
    let theirs = open.graceful_restart()?;
    let families = theirs.families.iter().filter_map(|(family, forwarding)| {
        let family = family.family()?;
        negotiated
            .contains(&family)
            .then_some((family, *forwarding))
    });
    Some(PeerGracefulRestart {
        restarting: theirs.restarting,
        // Our own N bit is always set, so theirs decides (RFC 8538 §2).
        notification: theirs.notification,
        restart_time: theirs.restart_time,
        families: families.collect(),
    })
}

fn long_lived_offer(restart: &LocalGracefulRestart, long_lived: &LocalLongLived) -> Capability {
    let offer = long_lived.stale_times.iter().map(|(family, stale_time)| {
        let survived = restart.families.contains(&(*family, true));
        LongLived {
            family: (*family).into(),
            forwarding: survived,
            stale_time: *stale_time,
        }
    });
    Capability::LongLivedRestart(offer.collect())
}

/// RFC 9494 §4.2: only where both sides take part, in graceful restart too.
fn long_lived(config: &Config, open: &Open, negotiated: &[Family]) -> Option<Vec<PeerLongLived>> {
    config.graceful_restart.as_ref()?;
    let own = config.long_lived.as_ref()?;
    let theirs = open.long_lived_restart()?.iter();
    let families = theirs.filter_map(|listed| {
        let family = listed.family.family()?;
        negotiated.contains(&family).then_some(PeerLongLived {
            family,
            forwarding: listed.forwarding,
            stale_time: listed.stale_time.min(own.longest.unwrap_or(Duration::MAX)),
        })
    });
    Some(families.collect())
}

/// RFC 7911 §4: everything in one capability; nothing to say is no capability.
fn add_path_offer(config: &Config) -> Option<Capability> {
    let AddPath { send, receive } = config.add_path;
    let modes: Vec<(AfiSafi, u8)> = config
        .families
        .iter()
        .map(|family| {
            let receive = u8::from(receive.contains(*family));
            let send = u8::from(send.contains(*family)) << 1;
            ((*family).into(), receive | send)
        })
        .filter(|(_, mode)| *mode != 0)
        .collect();
    (!modes.is_empty()).then_some(Capability::AddPath(modes))
}

/// RFC 7911 §5: a direction carries identifiers where the one side sends and the other receives.
fn add_path(config: &Config, open: &Open, negotiated: &[Family]) -> AddPath {
    let agreed = |own: FamilySet, peer: fn((bool, bool)) -> bool| {
        let families = negotiated.iter().copied();
        families
            .filter(|family| own.contains(*family) && peer(open.add_path(*family)))
            .collect()
    };
    AddPath {
        send: agreed(config.add_path.send, |(receives, _)| receives),
        receive: agreed(config.add_path.receive, |(_, sends)| sends),
    }
}

fn identity(open: &Open) -> Identity {
    let mut identity = Identity::default();
    let shown = |text: &str| printable(text.as_bytes());
    for capability in &open.capabilities {
        match capability {
            Capability::Hostname { host, domain } => {
                identity.host = Some((shown(host), shown(domain)));
            }
            Capability::SoftwareVersion(software) => identity.software = Some(shown(software)),
            _ => {}
        }
    }
    identity
}

fn multiprotocol_octets(family: &Family) -> [u8; 6] {
    let AfiSafi { afi, safi } = (*family).into();
    let [high, low] = afi.to_be_bytes();
    [CapabilityCode::Multiprotocol.into(), 4, high, low, 0, safi]
}
