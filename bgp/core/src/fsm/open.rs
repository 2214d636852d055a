//! The OPEN that we send, and what the peer's OPEN makes of the session.

use std::time::Duration;

use crate::fsm::config::Config;
use crate::fsm::terms::{Negotiated, PeerGracefulRestart};
use crate::types::{Asn, Family, PeerKind, RouterId};
use crate::wire::iana::{OpenError, capability};
use crate::wire::{AfiSafi, Capability, GracefulRestart, Notification, Open};

/// RFC 4271 §4.2: shorter hold times than this are no hold times.
const MIN_HOLD_TIME: Duration = Duration::from_secs(3);

/// The OPEN to send; `restarting` is the R bit.
pub(super) fn ours(config: &Config, restarting: bool) -> Open {
    let mut capabilities: Vec<Capability> = config
        .families
        .iter()
        .map(|family| Capability::Multiprotocol((*family).into()))
        .collect();
    capabilities.push(Capability::RouteRefresh);
    capabilities.push(Capability::FourOctetAs(config.local_asn));
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
    }
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
    // RFC 7607 §2: AS 0 is refused, also where the configuration is as wrong as the peer.
    if open.asn != config.peer_asn || open.asn == Asn::ZERO {
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
    // RFC 4271 §4.2: the smaller of the two; zero, of either side, means no keepalives.
    let hold_time = config.hold_time.min(open.hold_time);
    Ok(Negotiated {
        peer_asn: open.asn,
        peer_router_id: open.router_id,
        hold_time,
        // RFC 4271 §10: a third of the hold time.
        keepalive: hold_time / 3,
        graceful_restart: graceful_restart(config, open, &families),
        families,
        four_octet_as: open.four_octet_as(),
        route_refresh: open.capabilities.contains(&Capability::RouteRefresh),
        enhanced_route_refresh: false,
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

fn multiprotocol_octets(family: &Family) -> [u8; 6] {
    let AfiSafi { afi, safi } = (*family).into();
    let [high, low] = afi.to_be_bytes();
    [capability::MULTIPROTOCOL, 4, high, low, 0, safi]
}
