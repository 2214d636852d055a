//! From configuration to the terms of the machines, and from the RIB's to snapshots.
//!
//! Owns the translation and its defaults. Does not own either side.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::fsm::{
    AddPath, Config, Identity, LocalGracefulRestart, LocalLongLived, LocalRole, PrefixLimit,
};
use caracal_bgp_core::rib::{
    BlockOwner, BlockOwners, FamilyView, MaxPrefixes, Multipath, PeerIndex, PeerPolicy, RibConfig,
};
use caracal_bgp_core::types::{Family, FamilySet, NextHop, Prefix};
use caracal_bgp_core::wire::PathAttributes;

use crate::config::{
    self, Activation, AddPathSend, Endpoint, MaxPrefixAction, Origination, PeerConfig,
    SpeakerConfig,
};
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

/// The session machine's configuration for `peer`. `restarting`: we come from a restart during which
/// the kernel kept our routes, and have not yet selected anew.
pub(crate) fn machine_config(
    speaker: &SpeakerConfig,
    peer: &PeerConfig,
    index: PeerIndex,
    restarting: bool,
) -> Config {
    let families: FamilySet = peer.families.iter().copied().collect();
    let restart = &speaker.graceful_restart;
    let restarts = peer.graceful_restart;
    let long_lived_time = peer
        .long_lived_stale_time
        .unwrap_or(restart.long_lived_stale_time);
    Config {
        families: families.iter().collect(),
        hold_time: peer.hold_time,
        keepalive: peer.keepalive_time,
        send_hold_time: Some(peer.send_hold_time),
        connect_retry: peer.connect_retry,
        passive: peer.passive,
        prefix_limits: Family::ALL.map(|family| prefix_limit(peer.max_prefixes.get(&family)?)),
        graceful_restart: restarts.then(|| LocalGracefulRestart {
            restart_time: peer.restart_time.unwrap_or(restart.restart_time),
            restarting,
            // RFC 4724 §3: the F bit claims that forwarding survived *this* restart.
            families: families.iter().map(|f| (f, restarting)).collect(),
        }),
        long_lived: (restarts && long_lived_time > Duration::ZERO).then(|| LocalLongLived {
            stale_times: families.iter().map(|f| (f, long_lived_time)).collect(),
            longest: Some(long_lived_time),
        }),
        add_path: add_path(peer),
        extended_next_hop: peer.extended_next_hop,
        link_local_next_hop: matches!(peer.remote, Endpoint::Interface { .. }),
        extended_messages: peer.extended_messages,
        bfd_strict: peer.waits_for_bfd(),
        role: peer.role.map(|role| LocalRole {
            role,
            strict: peer.role_strict,
        }),
        identity: Identity::default(),
        // Spreads the timers of our peers, and those of speakers that start together.
        jitter_seed: u64::from(speaker.router_id.0) << 32 | u64::from(index.0),
        ..Config::new(
            peer.local_asn.unwrap_or(speaker.asn),
            speaker.router_id,
            peer.peer_as,
        )
    }
}

/// What of a limit concerns the session: nothing where it only warns.
fn prefix_limit(max: &config::MaxPrefixes) -> Option<PrefixLimit> {
    match max.action {
        MaxPrefixAction::Warn => None,
        MaxPrefixAction::Terminate { restart_after } => Some(PrefixLimit {
            limit: max.limit,
            restart_after,
        }),
    }
}

fn add_path(peer: &PeerConfig) -> AddPath {
    let families = |wanted: fn(&config::AddPath) -> bool| {
        let found = peer.add_path.iter().filter(|(_, mode)| wanted(mode));
        found.map(|(family, _)| *family).collect()
    };
    AddPath {
        send: families(|mode| mode.send != AddPathSend::None),
        receive: families(|mode| mode.receive),
    }
}

/// The part of the configuration that concerns routes.
pub(crate) fn rib_config(
    config: &SpeakerConfig,
    peers: &BTreeMap<PeerIndex, Arc<PeerConfig>>,
) -> RibConfig {
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
        blocks: Arc::new(blocks(config)),
        originate: config
            .originate
            .iter()
            .map(|(prefix, origination)| (*prefix, attributes(origination)))
            .collect(),
        statics: peers.values().filter_map(|peer| gateway(peer)).collect(),
        peers: peers
            .iter()
            .map(|(index, peer)| (*index, peer_policy(config, peer)))
            .collect(),
    }
}

/// The host route to a peer that must be reached through a gateway.
fn gateway(peer: &PeerConfig) -> Option<(Prefix, NextHop)> {
    let remote = peer.remote.address()?.ip();
    Some((Prefix::host(remote), peer.reachable_by?.into()))
}

fn peer_policy(config: &SpeakerConfig, peer: &PeerConfig) -> PeerPolicy {
    PeerPolicy {
        local_asn: peer.local_asn,
        import: Arc::clone(&peer.import),
        export: Arc::clone(&peer.export),
        allowed_own_as: peer.allowed_local_as,
        as_override: peer.as_override,
        private_as: peer.private_as,
        cluster_id: peer.cluster_id,
        told_paths: Family::ALL.map(|family| match peer.add_path.get(&family)?.send {
            AddPathSend::Best(count) => Some(count.max(1)),
            AddPathSend::None | AddPathSend::All => None,
        }),
        validate_origin: peer.validate_origin,
        max_prefixes: Family::ALL.map(|family| peer.max_prefixes.get(&family).map(max_prefixes)),
        next_hop_mode: peer.next_hop_mode,
        next_hop_v4: peer.next_hop_v4,
        next_hop_v6: peer.next_hop_v6,
        client: peer.route_reflector_client && peer.peer_as.is_internal(config.asn),
        // One that is kept down sends no End-of-RIB.
        graceful_restart: peer.graceful_restart && peer.activation == Activation::Run,
    }
}

fn max_prefixes(max: &config::MaxPrefixes) -> MaxPrefixes {
    let share = u64::from(max.limit) * u64::from(max.warning_percent.min(100)) / 100;
    MaxPrefixes {
        limit: max.limit,
        warn_at: u32::try_from(share).unwrap_or(max.limit).max(1),
        terminates: matches!(max.action, MaxPrefixAction::Terminate { .. }),
    }
}

fn blocks(config: &SpeakerConfig) -> BlockOwners {
    let owner = |owner: &config::BlockOwner| BlockOwner {
        node: owner.node.clone(),
        addresses: owner.addresses.clone(),
        routers: owner.router_ids.clone(),
        stale: owner.stale,
    };
    let blocks = config.blocks.iter();
    blocks
        .map(|(prefix, held_by)| (*prefix, owner(held_by)))
        .collect()
}

fn attributes(origination: &Origination) -> PathAttributes {
    PathAttributes {
        communities: origination.communities.clone().into(),
        large_communities: origination.large_communities.clone().into(),
        med: origination.med,
        local_pref: origination.local_pref,
        ..PathAttributes::default()
    }
}
