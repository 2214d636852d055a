//! From configuration to the RIB's terms, and from the RIB's to snapshots.
//!
//! Owns the translation and its defaults. Does not own either side.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_bgp_core::rib::{FamilyView, Multipath, PeerIndex, PeerPolicy, RibConfig};
use caracal_bgp_core::wire::PathAttributes;

use crate::config::{Origination, PeerName, SpeakerConfig};
use crate::snapshot::FamilySnapshot;

/// Counts per family, as a snapshot shows them.
pub(crate) fn families(views: Vec<FamilyView>) -> Vec<FamilySnapshot> {
    views
        .into_iter()
        .map(|view| FamilySnapshot {
            family: view.family,
            received: view.received,
            accepted: view.accepted,
            stale: view.stale,
            advertised: view.advertised,
            end_of_rib_received: view.end_of_rib_received,
            end_of_rib_sent: view.end_of_rib_sent,
        })
        .collect()
}

/// The part of the configuration that concerns routes.
pub(crate) fn rib_config(
    config: &SpeakerConfig,
    indices: &BTreeMap<PeerName, PeerIndex>,
) -> RibConfig {
    let peers = indices
        .iter()
        .filter_map(|(name, index)| {
            let peer = config.peers.get(name)?;
            let policy = PeerPolicy {
                import: Arc::clone(&peer.import),
                export: Arc::clone(&peer.export),
                next_hop_mode: peer.next_hop_mode,
                next_hop_v4: peer.next_hop_v4,
                next_hop_v6: peer.next_hop_v6,
                client: peer.route_reflector_client && peer.peer_as.is_internal(config.asn),
                graceful_restart: config.graceful_restart.enabled && peer.graceful_restart,
            };
            Some((*index, policy))
        })
        .collect();
    RibConfig {
        asn: config.asn,
        router_id: config.router_id,
        cluster_id: config.cluster_id.unwrap_or(config.router_id),
        transit: config.transit,
        multipath: Multipath {
            maximum: config.maximum_paths.max(1),
            relax: config.multipath_relax,
        },
        stale_time: config.graceful_restart.stale_time,
        protected: config.protected.clone(),
        originate: config
            .originate
            .iter()
            .map(|(prefix, origination)| (*prefix, attributes(origination)))
            .collect(),
        peers,
    }
}

fn attributes(origination: &Origination) -> PathAttributes {
    let mut communities = origination.communities.clone();
    communities.sort_unstable();
    communities.dedup();
    let mut large_communities = origination.large_communities.clone();
    large_communities.sort_unstable();
    large_communities.dedup();
    PathAttributes {
        communities,
        large_communities,
        med: origination.med,
        local_pref: origination.local_pref,
        ..PathAttributes::default()
    }
}
