//! Resources as people write them, and what comes of them.

mod lint;
mod nodes;
mod policies;
mod secrets;
mod sessions;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use caracal_bgp_core::policy::{Amendment, RouteFacts, RouteSource};
use caracal_bgp_core::types::{Asn, Family, PeerKind, Prefix};
use caracal_bgp_core::wire::{Community, LargeCommunity, PathAttributes};
use caracal_bgp_speaker::config::{
    MaxPrefixAction, MaxPrefixes, NextHopMode, PeerAs, PeerConfig, PeerName, Policy, Verdict,
};
use caracal_crds::manifest::Manifests;
use caracal_crds::reasons;

use crate::{Inputs, PreferredSource, Resolved, files, resolve};

/// A cluster of two nodes in two racks with their ToRs, one pool, and a block in each phase.
const CLUSTER: &str = "
apiVersion: v1
kind: Node
metadata: {name: n1, uid: u1, labels: {rack: a}}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: InternalIP, address: 'fd00::1'}, {type: Hostname, address: n1}]}
---
apiVersion: v1
kind: Node
metadata: {name: n2, uid: u2, labels: {rack: b}}
status: {addresses: [{type: InternalIP, address: 10.0.0.2}, {type: InternalIP, address: 'fd00::2'}]}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec: {nodeToNodeMeshEnabled: false, holdTime: 9s}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: node.n1}
spec: {asNumber: 4200000001}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor-a1}
spec: {nodeSelector: rack == 'a', peerIP: 10.1.0.0, asNumber: 65001}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor-b1}
spec: {nodeSelector: rack == 'b', peerIP: 10.1.0.4, asNumber: 65002}
---
apiVersion: caracal.dev/v1alpha1
kind: IPPool
metadata: {name: pods}
spec: {subnets: [{ipv4: 10.244.0.0/16, ipv6: 'fd00:244::/112'}]}
";

fn block(index: u32, node: &str, uid: &str, phase: &str) -> String {
    format!(
        "
---
apiVersion: caracal.dev/v1alpha1
kind: IPBlock
metadata: {{name: pods-{index}}}
spec: {{pool: pods, index: {index}, ipv4: 10.244.{index}.0/26, ipv6: 'fd00:244::{index:x}00/122', nodeName: {node}, nodeUID: {uid}, epoch: 1}}
status: {{phase: {phase}}}
"
    )
}

fn parsed(text: &str) -> Manifests {
    let mut manifests = Manifests::default();
    manifests
        .read(Path::new("test.yaml"), text)
        .unwrap_or_else(|problems| panic!("{problems}"));
    manifests
}

fn resolved(text: &str, node: &str, loopbacks: &[&str], taken_up: &[&str]) -> Resolved {
    let manifests = parsed(text);
    let loopbacks: BTreeSet<IpAddr> = loopbacks.iter().map(|ip| ip.parse().unwrap()).collect();
    let taken_up: BTreeSet<String> = taken_up.iter().map(ToString::to_string).collect();
    resolve(&Inputs {
        loopbacks: &loopbacks,
        taken_up: &taken_up,
        ..Inputs::standalone(node, &manifests)
    })
}

fn prefix(text: &str) -> Prefix {
    text.parse().unwrap()
}

fn originated(resolved: &Resolved) -> Vec<String> {
    resolved
        .config
        .originate
        .keys()
        .map(ToString::to_string)
        .collect()
}

fn names(resolved: &Resolved) -> Vec<&str> {
    resolved
        .config
        .peers
        .keys()
        .map(|name| name.0.as_str())
        .collect()
}

fn reasons_of(resolved: &Resolved) -> Vec<(String, &str, &str)> {
    let finding = |finding: &crate::Finding| (finding.object.to_string(), finding.reason);
    resolved
        .findings
        .iter()
        .map(|each| {
            let (object, reason) = finding(each);
            (object, each.field.as_str(), reason)
        })
        .collect()
}

fn peer<'a>(resolved: &'a Resolved, name: &str) -> &'a PeerConfig {
    &resolved.config.peers[&PeerName::from(name)]
}

/// What becomes of a route that carries nothing, learnt from the peer.
fn taken(peer: &PeerConfig, to: &str) -> Verdict {
    let none = PathAttributes::default();
    let route = RouteFacts {
        source: RouteSource::Peer(PeerKind::External),
        ..RouteFacts::own(&none, PeerKind::External)
    };
    peer.import.evaluate(&prefix(to), &route).verdict
}

/// What becomes of an own route, and of one that another peer told, towards the peer.
fn told(peer: &PeerConfig, to: &str) -> (Verdict, Verdict) {
    let none = PathAttributes::default();
    let own = RouteFacts::own(&none, PeerKind::External);
    let learnt = RouteFacts {
        source: RouteSource::Peer(PeerKind::Internal),
        ..own
    };
    let verdict = |route| peer.export.evaluate(&prefix(to), &route).verdict;
    (verdict(own), verdict(learnt))
}

#[test]
fn a_nodes_configuration_lies_over_the_default_field_by_field() {
    let n1 = resolved(CLUSTER, "n1", &[], &[]).config;
    assert_eq!(n1.asn, Asn(4_200_000_001));
    assert_eq!(n1.router_id.to_string(), "10.0.0.1");
    let session = &n1.peers[&PeerName::from("tor-a1")];
    assert_eq!(session.hold_time, Duration::from_secs(9));
    assert_eq!(session.connect_retry, Duration::from_secs(1));
    let n2 = resolved(CLUSTER, "n2", &[], &[]).config;
    assert_eq!(n2.asn, Asn(64512));
    assert!(!n2.transit && n2.multipath_relax && n2.maximum_paths == 16);
}

#[test]
fn a_peer_belongs_to_the_nodes_that_its_selector_matches() {
    assert_eq!(names(&resolved(CLUSTER, "n1", &[], &[])), ["tor-a1"]);
    assert_eq!(names(&resolved(CLUSTER, "n2", &[], &[])), ["tor-b1"]);
    let stranger = resolved(CLUSTER, "n3", &[], &[]);
    assert_eq!(names(&stranger), [""; 0]);
    let expected = ("Node n3".to_owned(), "", reasons::NO_PEERS);
    assert_eq!(reasons_of(&stranger), [expected]);
}

#[test]
fn blocks_are_announced_from_the_moment_they_are_taken_up_until_released() {
    let text: String = [
        CLUSTER.to_owned(),
        block(0, "n1", "u1", "Active"),
        block(1, "n1", "u1", "Draining"),
        block(2, "n1", "u1", "Offered"),
        block(3, "n1", "u1", "Offered"),
        block(4, "n1", "u1", "Released"),
        block(5, "n1", "u0", "Active"),
        block(6, "n2", "u2", "Active"),
    ]
    .concat();
    let resolved = resolved(&text, "n1", &[], &["pods-3"]);
    let v4 = ["10.244.0.0/26", "10.244.1.0/26", "10.244.3.0/26"];
    let v6 = ["fd00:244::/122", "fd00:244::100/122", "fd00:244::300/122"];
    assert_eq!(originated(&resolved), [v4, v6].concat());
    // What is merely offered is ours to protect, though not yet to announce.
    assert!(resolved.config.protected.contains(&prefix("10.244.2.0/26")));
    assert!(resolved.own_blocks.contains(&prefix("10.244.2.0/26")));
    assert!(!resolved.config.protected.contains(&prefix("10.244.4.0/26")));
    let expected = (
        "IPBlock pods-5".to_owned(),
        "spec.nodeUID",
        reasons::NODE_NOT_FOUND,
    );
    assert_eq!(reasons_of(&resolved), [expected]);
}

#[test]
fn a_pool_kept_out_of_bgp_is_protected_but_not_announced() {
    let hidden = CLUSTER.replace("spec: {subnets", "spec: {disableBGPExport: true, subnets");
    let resolved = resolved(&(hidden + &block(0, "n1", "u1", "Active")), "n1", &[], &[]);
    assert_eq!(originated(&resolved), [""; 0]);
    assert!(resolved.config.protected.contains(&prefix("10.244.0.0/26")));
}

#[test]
fn internal_addresses_on_the_loopback_are_announced_and_source_routes() {
    let resolved = resolved(CLUSTER, "n1", &["10.0.0.1", "fd00::1", "127.0.0.1"], &[]);
    assert_eq!(originated(&resolved), ["10.0.0.1/32", "fd00::1/128"]);
    let expected = PreferredSource {
        v4: Some("10.0.0.1".parse().unwrap()),
        v6: Some("fd00::1".parse().unwrap()),
    };
    assert_eq!(resolved.preferred_source, expected);
    assert_eq!(
        resolved.config.protected,
        [prefix("10.0.0.1/32"), prefix("fd00::1/128")]
    );
}

#[test]
fn an_internal_address_on_an_uplink_is_not_announced() {
    let resolved = resolved(CLUSTER, "n1", &["127.0.0.1"], &[]);
    assert_eq!(originated(&resolved), [""; 0]);
    assert_eq!(resolved.preferred_source, PreferredSource::default());
}

#[test]
fn the_mesh_has_one_dialler_per_pair_and_believes_pools_and_nodes_only() {
    let text = CLUSTER.replace(
        "nodeToNodeMeshEnabled: false",
        "nodeToNodeMeshEnabled: true",
    );
    let (n1, n2) = (
        resolved(&text, "n1", &[], &[]),
        resolved(&text, "n2", &[], &[]),
    );
    assert_eq!(names(&n1), ["mesh:n2", "tor-a1"]);
    let (at_n1, at_n2) = (peer(&n1, "mesh:n2"), peer(&n2, "mesh:n1"));
    assert!(!at_n1.passive && at_n2.passive);
    assert_eq!(at_n1.remote.to_string(), "10.0.0.2:179");
    assert_eq!(at_n1.next_hop_v6, Some("fd00::1".parse().unwrap()));
    assert_eq!(at_n1.local_address, Some("10.0.0.1".parse().unwrap()));
    let asns = (
        PeerAs::Number(Asn(64512)),
        PeerAs::Number(Asn(4_200_000_001)),
    );
    assert_eq!((at_n1.peer_as, at_n2.peer_as), asns);
    let verdict = |text| taken(at_n1, text);
    for accepted in [
        "10.244.3.0/26",
        "fd00:244::100/122",
        "10.0.0.2/32",
        "fd00::2/128",
    ] {
        assert_eq!(verdict(accepted), Verdict::Accept, "{accepted}");
    }
    for rejected in ["0.0.0.0/0", "10.0.0.0/24", "192.0.2.0/24"] {
        assert_eq!(verdict(rejected), Verdict::Reject, "{rejected}");
    }
}

#[test]
fn mesh_addresses_compare_as_numbers() {
    let text = CLUSTER
        .replace(
            "nodeToNodeMeshEnabled: false",
            "nodeToNodeMeshEnabled: true",
        )
        .replace("address: 10.0.0.1}", "address: 9.0.0.10}");
    // As text, 9.0.0.10 comes after 10.0.0.2.
    assert!(!peer(&resolved(&text, "n1", &[], &[]), "mesh:n2").passive);
    assert!(peer(&resolved(&text, "n2", &[], &[]), "mesh:n1").passive);
}

#[test]
fn a_peer_for_all_nodes_does_not_peer_with_itself() {
    let reflector = "
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: reflector}
spec: {peerIP: 10.0.0.2, asNumber: 64512}
";
    let text = CLUSTER.to_owned() + reflector;
    assert_eq!(
        names(&resolved(&text, "n1", &[], &[])),
        ["reflector", "tor-a1"]
    );
    assert_eq!(names(&resolved(&text, "n2", &[], &[])), ["tor-b1"]);
}

#[test]
fn what_cannot_be_followed_is_found_with_object_field_and_reason() {
    let wrong = "
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: a-second-tor}
spec: {peerIP: '10.1.0.0:179', asNumber: 65001}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: client}
spec: {node: n1, peerIP: 10.1.0.9, asNumber: 65001, routeReflectorClient: true}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: nobodys}
spec: {node: n9, peerIP: 10.1.0.10, asNumber: 65001}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: nowhere}
spec: {nodeSelector: rack == 'z', peerIP: 10.1.0.11, asNumber: 65001}
";
    let resolved = resolved(&(CLUSTER.to_owned() + wrong), "n1", &[], &[]);
    let object = |name: &str| format!("BGPPeer {name}");
    let expected = [
        (
            object("client"),
            "spec.routeReflectorClient",
            reasons::INVALID_SPEC,
        ),
        (object("nobodys"), "spec.node", reasons::REFERENCE_NOT_FOUND),
        (
            object("nowhere"),
            "spec.nodeSelector",
            reasons::MATCHES_NOTHING,
        ),
        (object("tor-a1"), "spec.peerIP", reasons::DUPLICATE_PEER),
    ];
    assert_eq!(reasons_of(&resolved), expected);
    assert_eq!(names(&resolved), ["a-second-tor", "client"]);
    assert!(!peer(&resolved, "client").route_reflector_client);
    assert_eq!(
        resolved.findings[3].to_string(),
        "BGPPeer tor-a1: spec.peerIP: BGPPeer a-second-tor already names 10.1.0.0:179: this one \
         is not used (DuplicatePeer)"
    );
}

#[test]
fn a_selector_that_does_not_parse_uses_no_peer() {
    let mut manifests = parsed(CLUSTER);
    // No manifest and no API server lets such a selector in; an older one might have.
    let tor = manifests.bgp_peers.get_mut("tor-a1").unwrap();
    tor.spec.node_selector = Some("rack = = 'a'".into());
    let resolved = resolve(&Inputs::standalone("n1", &manifests));
    assert_eq!(resolved.findings[0].reason, reasons::INVALID_SELECTOR);
    assert_eq!(names(&resolved), [""; 0]);
}

#[test]
fn communities_are_named_or_written_out() {
    let text = "
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec:
  communities: [{name: pods, value: '65000:1'}, {name: wide, value: '65000:1:2'}]
  originatedPrefixes:
  - {cidr: 10.244.0.0/16, communities: [wide, pods, '65000:7', nobody]}
";
    let resolved = resolved(text, "r1", &[], &[]);
    let origination = &resolved.config.originate[&prefix("10.244.0.0/16")];
    let expected = [Community(65000 << 16 | 1), Community(65000 << 16 | 7)];
    assert_eq!(origination.communities, expected);
    let wide: LargeCommunity = "65000:1:2".parse().unwrap();
    assert_eq!(origination.large_communities, [wide]);
    let found = resolved
        .findings
        .iter()
        .find(|f| f.reason == reasons::REFERENCE_NOT_FOUND);
    assert_eq!(
        found.unwrap().field,
        "spec.originatedPrefixes[0].communities"
    );
    assert_eq!(resolved.dropped, [], "the kernel is left alone");
}

#[test]
fn a_prefix_advertisement_marks_own_routes_inside_it_and_announces_nothing() {
    let text = CLUSTER.to_owned()
        + &block(1, "n1", "u1", "Active")
        + &block(2, "n2", "u2", "Active")
        + "
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: node.n1}
spec:
  communities: [{name: pods, value: '65000:1'}, {name: wide, value: '65000:1:2'}]
  originatedPrefixes:
  - {cidr: 10.244.128.0/17, blackhole: true}
  - {cidr: 192.0.2.0/24, communities: [wide]}
  prefixAdvertisements:
  - {cidr: 10.244.0.0/16, communities: [pods]}
  - {cidr: 10.244.1.0/26, communities: ['65000:9', pods]}
  - {cidr: 10.0.0.1/32, communities: [wide, nobody]}
  - {cidr: 10.244.64.0/18}
";
    // The cluster has a configuration of that name, of which there can be one.
    let text = text.replacen("metadata: {name: node.n1}", "metadata: {name: node.n7}", 1);
    let resolved = resolved(&text, "n1", &["10.0.0.1"], &[]);
    let carried: Vec<String> = resolved
        .config
        .originate
        .iter()
        .map(|(prefix, origination)| {
            let communities = origination.communities.iter().map(ToString::to_string);
            let large = origination
                .large_communities
                .iter()
                .map(ToString::to_string);
            let all: Vec<String> = communities.chain(large).collect();
            format!("{prefix} {}", all.join(" ")).trim_end().to_owned()
        })
        .collect();
    let expected = [
        "10.0.0.1/32 65000:1:2",
        "10.244.1.0/26 65000:1 65000:9",
        "10.244.128.0/17 65000:1",
        "192.0.2.0/24 65000:1:2",
        "fd00:244::100/122",
    ];
    assert_eq!(carried, expected);
    assert_eq!(resolved.dropped, [prefix("10.244.128.0/17")]);
    let found: Vec<(&str, &str)> = resolved
        .findings
        .iter()
        .map(|found| (found.field.as_str(), found.reason))
        .filter(|(field, _)| field.contains("prefix"))
        .collect();
    let expected = [
        (
            "spec.prefixAdvertisements[2].communities",
            reasons::REFERENCE_NOT_FOUND,
        ),
        (
            "spec.prefixAdvertisements[3].communities",
            reasons::INVALID_SPEC,
        ),
    ];
    assert_eq!(found, expected);
}

#[test]
fn a_node_without_ipv4_gets_a_stable_identifier_of_its_own() {
    let bare = |name| resolved("", name, &[], &[]).config.router_id;
    assert_eq!(bare("r1"), bare("r1"));
    assert_ne!(bare("r1"), bare("r2"));
}

/// The manifest that documents the standalone speaker.
const STANDALONE: &str = "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 65000
  routerID: 10.0.0.1
  listenPort: 179
  nodeToNodeMeshEnabled: false
  transit: true
  clusterID: 10.0.0.1
  maximumPaths: 16
  multipathRelax: true
  originatedPrefixes: [{cidr: 10.0.0.1/32}]
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: leaf-1}
spec:
  nodeSelector: all()
  peerIP: 10.0.1.1:1790
  localAddress: 10.0.1.0
  asNumber: 65001
  families: [ipv4-unicast, ipv6-unicast]
  nextHopMode: Self
  passive: true
  holdTime: 240s
  routeReflectorClient: false
";

#[test]
fn a_standalone_speaker_runs_from_files_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("router.yaml"), STANDALONE).unwrap();
    fs::write(directory.path().join("notes.txt"), "not a manifest").unwrap();
    let manifests =
        files::read(&[directory.path().to_owned()]).unwrap_or_else(|error| panic!("{error}"));
    let resolved = resolve(&Inputs::standalone("spine-1", &manifests));
    assert_eq!(resolved.findings, []);
    let config = &resolved.config;
    assert_eq!(config.asn, Asn(65000));
    assert_eq!(config.router_id.to_string(), "10.0.0.1");
    assert_eq!(config.cluster_id, Some(config.router_id));
    assert!(config.transit && config.multipath_relax);
    assert_eq!(originated(&resolved), ["10.0.0.1/32"]);
    let many = MaxPrefixes {
        limit: 2_000_000,
        warning_percent: 75,
        action: MaxPrefixAction::Warn,
    };
    let expected = PeerConfig {
        local_address: Some("10.0.1.0".parse().unwrap()),
        max_prefixes: Family::ALL.map(|family| (family, many)).into(),
        families: Family::ALL.to_vec(),
        hold_time: Duration::from_secs(240),
        next_hop_mode: NextHopMode::Self_,
        passive: true,
        import: Arc::new(Policy::accept_all().amended(Amendment::honour_graceful_shutdown())),
        ..PeerConfig::new("10.0.1.1:1790".parse().unwrap(), Asn(65001))
    };
    assert_eq!(*peer(&resolved, "leaf-1"), expected);
}

#[test]
fn an_unknown_field_is_an_error_with_file_and_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("router.yaml");
    fs::write(&file, STANDALONE.replace("  transit:", "  transitt:")).unwrap();
    let error = files::read(&[file]).unwrap_err().to_string();
    assert!(error.contains("router.yaml:9: "), "{error}");
    assert!(error.contains("transitt"), "{error}");
}

#[test]
fn files_that_are_not_there_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.yaml");
    let error = files::read(&[missing]).unwrap_err();
    assert!(error.to_string().contains("missing.yaml"), "{error}");
    let empty = files::read(&[directory.path().to_owned()]).unwrap_err();
    assert!(matches!(empty, files::Error::EmptyDirectory { .. }));
}
