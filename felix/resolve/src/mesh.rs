//! The node-to-node mesh: one session with every other node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use caracal_bgp_core::types::{Family, Prefix};
use caracal_bgp_speaker::config::{ImportPolicy, PeerConfig, PeerName, Policy, PrefixMatch};
use ipnetwork::IpNetwork;

use crate::origin::prefix_of;
use crate::resolve::{Inputs, internal_ips};
use crate::settings::Settings;

/// What precedes a node's name in the name of its mesh session; no BGPPeer can be called so, as
/// names of objects have no colon.
const MESH_PREFIX: &str = "mesh:";

/// Adds a session with every other node, unless a BGPPeer names its address already.
pub(crate) fn add(
    inputs: &Inputs<'_>,
    settings: &Settings,
    own: &[IpAddr],
    sessions: &mut BTreeMap<PeerName, PeerConfig>,
) {
    let import = import_policy(inputs);
    for (name, node) in inputs.nodes {
        if name == inputs.node_name {
            continue;
        }
        let theirs = internal_ips(node);
        let Some((local, remote)) = endpoints(own, &theirs) else {
            continue;
        };
        let configured = sessions
            .values()
            .any(|session| theirs.contains(&session.remote.ip()));
        if configured {
            continue;
        }
        let their_settings = Settings::of(name, inputs.configurations);
        if !their_settings.mesh {
            continue;
        }
        let remote = SocketAddr::new(remote, their_settings.listen_port);
        let session = PeerConfig {
            local_address: Some(local),
            hold_time: settings.hold_time,
            connect_retry: settings.connect_retry,
            // One dialler per pair, the lower address, compared as a number: both sides come to
            // the same answer, and nothing collides.
            passive: local > remote.ip(),
            import: import.clone(),
            graceful_restart: settings.graceful_restart.enabled,
            ..PeerConfig::new(remote, their_settings.asn)
        };
        sessions.insert(PeerName(format!("{MESH_PREFIX}{name}")), session);
    }
}

/// Addresses of one family for both ends, IPv4 where both have it.
fn endpoints(own: &[IpAddr], theirs: &[IpAddr]) -> Option<(IpAddr, IpAddr)> {
    Family::ALL.into_iter().find_map(|family| {
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let local = own.iter().find(of_family)?;
        let remote = theirs.iter().find(of_family)?;
        Some((*local, *remote))
    })
}

/// Nodes speak for pods and for themselves: nothing outside the pools and the nodes' addresses is
/// believed from one.
fn import_policy(inputs: &Inputs<'_>) -> ImportPolicy {
    let subnets = inputs.pools.values().flat_map(|pool| &pool.spec.subnets);
    let pools = subnets.flat_map(|subnet| {
        let (v4, v6) = (
            subnet.ipv4.map(IpNetwork::V4),
            subnet.ipv6.map(IpNetwork::V6),
        );
        [v4, v6].into_iter().flatten().filter_map(prefix_of)
    });
    let nodes = inputs.nodes.values().flat_map(internal_ips);
    let mut accepted: Vec<PrefixMatch> = pools.map(PrefixMatch::orlonger).collect();
    accepted.extend(nodes.map(|address| PrefixMatch::exact(Prefix::host(address))));
    Policy::only("pools and nodes", accepted)
}
