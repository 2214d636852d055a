//! What a peer shows of itself: its configuration, its session and its counts put together.

use std::time::Duration;

use caracal_bgp_core::fsm::Negotiated;
use caracal_bgp_core::types::Asn;

use crate::config::{Activation, PeerAs, PeerConfig, PeerName, Policy};
use crate::snapshot::{PeerRoutesSnapshot, PeerSnapshot, SessionState, TermsSnapshot};
use crate::status::board::Board;

impl Board {
    /// What the peer `name` shows, who came by `range` if it did. `local` is the speaker's AS;
    /// `link_trouble` tells of the link to the peer.
    pub(crate) fn snapshot(
        &self,
        name: &PeerName,
        config: &PeerConfig,
        local: Asn,
        range: Option<String>,
        link_trouble: Option<String>,
        routes: Option<PeerRoutesSnapshot>,
    ) -> PeerSnapshot {
        let board = self.get(name);
        let counters = board.as_ref().map(|board| board.counters.snapshot());
        let status = board.map(|board| board.status()).unwrap_or_default();
        let negotiated = status.negotiated.as_ref();
        let without_policy = |policy: &Policy| {
            let families = config.families.iter().copied();
            let without = families.filter(|family| policy.is_not_configured(*family));
            without.collect()
        };
        PeerSnapshot {
            name: name.0.clone(),
            description: config.description.clone(),
            endpoint: config.remote.to_string(),
            range,
            remote: status.remote.or(config.remote.address()),
            local_address: status.local_address.or(config.local_address),
            interface: status.interface.map(|interface| interface.name),
            asn: negotiated.map_or_else(
                || configured_asn(config.peer_as, local),
                |terms| Some(terms.peer_asn),
            ),
            local_asn: config.local_asn.unwrap_or(local),
            internal: config
                .peer_as
                .is_internal(config.local_asn.unwrap_or(local)),
            router_id: negotiated.map(|terms| terms.peer_router_id.to_string()),
            authentication: config.authentication.name().to_owned(),
            admin_enabled: !matches!(config.activation, Activation::Down { .. }),
            draining: config.draining.clone(),
            state: status.state,
            since_ms: status.since_ms,
            why: status.why,
            why_ms: status.why_ms,
            attempts: status.attempts,
            last_sent_error: status.last_sent_error,
            last_received_error: status.last_received_error,
            established_count: status.established_count,
            terms: negotiated.map(terms),
            bfd: status.bfd,
            link_trouble: link_trouble.filter(|_| status.state != SessionState::Established),
            no_import_policy: without_policy(&config.import),
            no_export_policy: without_policy(&config.export),
            counters: counters.unwrap_or_default(),
            routes,
        }
    }
}

fn configured_asn(peer_as: PeerAs, local: Asn) -> Option<Asn> {
    match peer_as {
        PeerAs::Number(asn) => Some(asn),
        PeerAs::Internal => Some(local),
        PeerAs::External => None,
    }
}

fn terms(negotiated: &Negotiated) -> TermsSnapshot {
    let names = |families: caracal_bgp_core::types::FamilySet| {
        families.iter().map(|family| family.to_string()).collect()
    };
    let restart = negotiated.graceful_restart.as_ref();
    let identity = &negotiated.peer_identity;
    TermsSnapshot {
        hold_time_secs: negotiated.hold_time.as_secs(),
        keepalive_secs: negotiated.keepalive.as_secs(),
        route_refresh: negotiated.route_refresh,
        enhanced_route_refresh: negotiated.enhanced_route_refresh,
        four_octet_as: negotiated.four_octet_as,
        longest_message: negotiated.max_send_len,
        extended_next_hop: negotiated.extended_next_hop,
        link_local_next_hop: negotiated.link_local_next_hop,
        bfd_strict: negotiated.bfd_strict,
        add_path_send: names(negotiated.add_path.send),
        add_path_receive: names(negotiated.add_path.receive),
        graceful_restart: restart.is_some(),
        restart_time_secs: restart.map_or(0, |restart| restart.restart_time.as_secs()),
        keeps_over_notification: restart.is_some_and(|restart| restart.notification),
        long_lived_secs: negotiated.long_lived.as_ref().map(|families| {
            let times = families.iter().map(|family| family.stale_time);
            times.max().unwrap_or(Duration::ZERO).as_secs()
        }),
        role: negotiated.role.map(|role| role.to_string()),
        host: identity
            .host
            .as_ref()
            .map(|(host, domain)| match domain.as_str() {
                "" => host.clone(),
                domain => format!("{host}.{domain}"),
            }),
        software: identity.software.clone(),
    }
}
