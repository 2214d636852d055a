//! The sessions that BGPPeers give a node.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use caracal_bgp_core::types::{Asn, Family};
use caracal_bgp_speaker::config::{NextHopMode, PeerConfig, PeerName};
use caracal_crds::selector::Selector;
use caracal_crds::{BgpPeer, reasons};
use k8s_openapi::api::core::v1::Node;

use crate::finding::{Findings, ObjectRef};
use crate::resolve::Inputs;
use crate::settings::Settings;

/// Sessions of the BGPPeers that select this node, named after them.
pub(crate) fn configured(
    inputs: &Inputs<'_>,
    settings: &Settings,
    addresses: &[IpAddr],
    findings: &mut Findings,
) -> BTreeMap<PeerName, PeerConfig> {
    let mut sessions: BTreeMap<PeerName, PeerConfig> = BTreeMap::new();
    let mut first_with: BTreeMap<SocketAddr, &str> = BTreeMap::new();
    for (name, peer) in inputs.peers {
        let object = ObjectRef::new("BGPPeer", name);
        if !selects(inputs, peer, &object, findings) {
            continue;
        }
        let remote = remote(peer, settings);
        let own = addresses.contains(&remote.ip()) || inputs.loopbacks.contains(&remote.ip());
        if own {
            // A peer for all nodes that is itself one of them, such as a reflector.
            continue;
        }
        if let Some(first) = first_with.get(&remote) {
            let message = format!("BGPPeer {first} already names {remote}: this one is not used");
            findings.add(&object, "spec.peerIP", reasons::DUPLICATE_PEER, message);
            continue;
        }
        first_with.insert(remote, name);
        let session = session(peer, remote, settings, &object, findings);
        sessions.insert(PeerName(name.clone()), session);
    }
    sessions
}

/// Whether the peer is this node's.
fn selects(
    inputs: &Inputs<'_>,
    peer: &BgpPeer,
    object: &ObjectRef,
    findings: &mut Findings,
) -> bool {
    if let Some(node) = &peer.spec.node {
        if node != inputs.node_name && !inputs.nodes.is_empty() && !inputs.nodes.contains_key(node)
        {
            let message = format!("there is no Node {node}");
            findings.add(object, "spec.node", reasons::REFERENCE_NOT_FOUND, message);
        }
        return node == inputs.node_name;
    }
    let Some(text) = &peer.spec.node_selector else {
        return true;
    };
    let selector: Selector = match text.parse() {
        Ok(selector) => selector,
        Err(error) => {
            let message = format!("{error}: the peer is not used");
            findings.add(
                object,
                "spec.nodeSelector",
                reasons::INVALID_SELECTOR,
                message,
            );
            return false;
        }
    };
    let selected =
        |node: &Node| selector.matches(node.metadata.labels.as_ref().unwrap_or(&NO_LABELS));
    if !inputs.nodes.is_empty() && !inputs.nodes.values().any(selected) {
        let message = "no Node has labels that this selector asks for";
        findings.add(
            object,
            "spec.nodeSelector",
            reasons::MATCHES_NOTHING,
            message,
        );
    }
    match inputs.node() {
        Some(node) => selected(node),
        None => selector.matches(&NO_LABELS),
    }
}

/// The labels of a node that has none, or of one that is known by name only.
static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

fn remote(peer: &BgpPeer, settings: &Settings) -> SocketAddr {
    let address = peer.spec.peer_ip;
    SocketAddr::new(address.ip, address.port.unwrap_or(settings.listen_port))
}

fn session(
    peer: &BgpPeer,
    remote: SocketAddr,
    settings: &Settings,
    object: &ObjectRef,
    findings: &mut Findings,
) -> PeerConfig {
    let spec = &peer.spec;
    let asn = Asn(spec.as_number);
    let client = spec.route_reflector_client && asn == settings.asn;
    if spec.route_reflector_client && !client {
        let message = format!(
            "the peer's AS {asn} is not ours, {}: only internal peers can be clients (RFC 4456)",
            settings.asn
        );
        findings.add(
            object,
            "spec.routeReflectorClient",
            reasons::INVALID_SPEC,
            message,
        );
    }
    let mut families: Vec<Family> = spec.families.iter().map(family).collect();
    families.sort_unstable();
    families.dedup();
    let duration = |own: Option<caracal_crds::DurationString>, shared| own.map_or(shared, |d| d.0);
    PeerConfig {
        local_address: spec.local_address,
        families,
        hold_time: duration(spec.hold_time, settings.hold_time),
        connect_retry: duration(spec.connect_retry_time, settings.connect_retry),
        passive: spec.passive,
        next_hop_mode: match spec.next_hop_mode {
            caracal_crds::NextHopMode::Auto => NextHopMode::Auto,
            caracal_crds::NextHopMode::Own => NextHopMode::Self_,
            caracal_crds::NextHopMode::Keep => NextHopMode::Keep,
        },
        route_reflector_client: client,
        graceful_restart: settings.graceful_restart.enabled,
        ..PeerConfig::new(remote, asn)
    }
}

fn family(family: &caracal_crds::Family) -> Family {
    match family {
        caracal_crds::Family::Ipv4Unicast => Family::Ipv4Unicast,
        caracal_crds::Family::Ipv6Unicast => Family::Ipv6Unicast,
    }
}
