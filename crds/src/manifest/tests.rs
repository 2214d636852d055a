use super::*;
use crate::{DurationString, Family, NextHopMode};
use std::time::Duration;

const SPEAKER: &str = "\
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 65000
  listenPort: 179
  nodeToNodeMeshEnabled: false
  transit: true              # pass on what was learnt
  clusterID: 10.0.0.1        # as reflector
  maximumPaths: 16
  multipathRelax: true
  prefixAdvertisements: [{cidr: 10.0.0.1/32}]
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: node.spine-1}
spec: {routerID: 10.0.0.1}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: leaf-1}
spec:
  nodeSelector: all()        # which speakers use it; absent means all
  peerIP: 10.0.1.1           # or 10.0.1.1:1790
  localAddress: 10.0.1.0
  asNumber: 65001
  families: [ipv4-unicast, ipv6-unicast]
  nextHopMode: Self          # Auto | Self | Keep
  passive: true              # wait for the peer to connect
  holdTime: 240s
  routeReflectorClient: false
";

fn read(text: &str) -> Result<Manifests, Problems> {
    let mut manifests = Manifests::default();
    manifests.read(Path::new("r.yaml"), text)?;
    Ok(manifests)
}

/// The problems, one per line.
fn problems(text: &str) -> String {
    read(text).expect_err("the manifest is wrong").to_string()
}

fn peer(spec: &str) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: p}}\nspec:\n  asNumber: 65001\n{spec}"
    )
}

fn pool(spec: &str) -> String {
    format!("apiVersion: caracal.dev/v1alpha1\nkind: IPPool\nmetadata: {{name: p}}\nspec:\n{spec}")
}

#[test]
fn a_speakers_configuration_is_read_whole() {
    let manifests = read(SPEAKER).unwrap_or_else(|e| panic!("{e}"));
    let default = &manifests.bgp_configurations["default"].spec;
    assert_eq!(default.as_number, Some(65000));
    assert_eq!(
        default.prefix_advertisements[0].cidr.to_string(),
        "10.0.0.1/32"
    );
    let leaf = &manifests.bgp_peers["leaf-1"].spec;
    assert_eq!(leaf.families, Family::all());
    assert_eq!(leaf.next_hop_mode, NextHopMode::Own);
    assert_eq!(
        leaf.hold_time,
        Some(DurationString(Duration::from_secs(240)))
    );
    assert_eq!(
        manifests.position("BGPPeer", "leaf-1").unwrap().to_string(),
        "r.yaml:19"
    );
}

#[test]
fn defaults_fill_what_a_peer_leaves_out() {
    let manifests = read(&peer("  peerIP: '[fd00::1]:1790'\n")).unwrap_or_else(|e| panic!("{e}"));
    let spec = &manifests.bgp_peers["p"].spec;
    assert_eq!(spec.families, Family::all());
    assert_eq!(spec.next_hop_mode, NextHopMode::Auto);
    assert_eq!(spec.peer_ip.port, Some(1790));
}

#[test]
fn nodes_and_secrets_are_read() {
    let manifests = read(
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {rack: a}}\nstatus:\n  addresses: [{type: InternalIP, address: 10.0.0.1}]\n---\napiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: x}\n",
    )
    .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(manifests.nodes["n1"].metadata.name.as_deref(), Some("n1"));
    assert!(manifests.secrets.contains_key("default/s"));
}

#[test]
fn messages_name_file_line_object_and_field() {
    for (text, expected) in [
        (
            peer("  peerIP: 10.0.1.1\n  nexthopMode: Self\n"),
            "r.yaml:7: BGPPeer p: spec.nexthopMode: unknown field; did you mean nextHopMode?",
        ),
        (peer("  localAddress: 10.0.1.1\n"), "r.yaml:5: BGPPeer p: spec.peerIP: required"),
        (
            peer("  peerIP: 10.0.1.1\n  passive: 1\n"),
            "r.yaml:7: BGPPeer p: spec.passive: expected a boolean, found the integer 1",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  families:\n  - ipv4-unicast\n  - ipv6\n"),
            "r.yaml:9: BGPPeer p: spec.families[1]: expected one of ipv4-unicast, ipv6-unicast, found \"ipv6\"",
        ),
        (
            peer("  peerIP: 10.0.1\n"),
            "r.yaml:6: BGPPeer p: spec.peerIP: must be an IP address, with a port as 10.0.1.1:1790 or [fd00::1]:1790",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  holdTime: 2s\n"),
            "r.yaml:7: BGPPeer p: spec.holdTime: must be 0s, or from 3s to 65535s",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  holdTime: 240\n"),
            "r.yaml:7: BGPPeer p: spec.holdTime: expected a string, found the integer 240",
        ),
        (
            pool("  subnets: [{ipv4: 10.64.0.1/19}]\n"),
            "r.yaml:5: IPPool p: spec.subnets[0].ipv4: must be an IPv4 prefix with zero host bits, such as 10.64.0.0/19",
        ),
        (
            pool("  subnets:\n  - {ipv4: 10.64.0.0/19, ipv6: 'fd00:64::/116'}\n"),
            "r.yaml:6: IPPool p: spec.subnets[0]: ipv4 and ipv6 have equally many host bits, such as /19 and /115",
        ),
        (
            pool("  subnets: [{ipv4: 10.64.0.0/19}]\n  blockBits: 1\n"),
            "r.yaml:6: IPPool p: spec.blockBits: expected at least 2, found 1",
        ),
        (
            "apiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {nam: x}\nspec: {peerIP: 10.0.0.1, asNumber: 1}\n".to_owned(),
            "r.yaml:3: BGPPeer: metadata.nam: unknown field; expected one of ",
        ),
        (
            "apiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {}\nspec: {peerIP: 10.0.0.1, asNumber: 1}\n".to_owned(),
            "r.yaml:3: BGPPeer: metadata.name: required",
        ),
        (
            "apiVersion: caracal.dev/v1\nkind: BGPPeer\n".to_owned(),
            "r.yaml:2: unknown apiVersion \"caracal.dev/v1\" with kind \"BGPPeer\"; expected caracal.dev/v1alpha1 with one of IPPool",
        ),
        ("- a\n".to_owned(), "r.yaml:1: expected an object with apiVersion and kind, found a list"),
        (
            "apiVersion: v1\nkind: Node\nmetadata: {name: n}\nspec: {podCidr: x}\n".to_owned(),
            "r.yaml:4: Node n: spec.podCidr: unknown field; did you mean podCIDR?",
        ),
    ] {
        let found = problems(&text);
        assert!(found.starts_with(expected), "\nexpected {expected}\nfound    {found}");
    }
}

#[test]
fn all_problems_are_told_at_once_and_nothing_is_taken() {
    let text = format!(
        "{}---\n{}",
        peer("  peerIP: 10.0.1.1\n  a: 1\n  b: 2\n"),
        SPEAKER
    );
    let mut manifests = Manifests::default();
    let error = manifests.read(Path::new("r.yaml"), &text).unwrap_err();
    assert_eq!(error.as_slice().len(), 2, "{error}");
    assert_eq!(manifests, Manifests::default());
}

#[test]
fn the_same_object_twice_is_an_error_that_names_both_places() {
    let text = peer("  peerIP: 10.0.1.1\n");
    let mut manifests = Manifests::default();
    manifests.read(Path::new("a.yaml"), &text).unwrap();
    let error = manifests.read(Path::new("b.yaml"), &text).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b.yaml:1: BGPPeer p: defined before at a.yaml:1"
    );
}

#[test]
fn syntax_errors_have_a_line() {
    let found = problems("apiVersion: v1\nkind: [Node\n");
    assert!(found.starts_with("r.yaml:"), "{found}");
    let duplicate = problems("apiVersion: v1\nkind: Node\nkind: Node\n");
    assert!(duplicate.starts_with("r.yaml:3: "), "{duplicate}");
}

#[test]
fn rules_over_one_object_hold() {
    for (text, part) in [
        (pool("  subnets: [{ipv4: 10.64.0.0/27}]\n"), "at least one block"),
        (pool("  subnets: [{ipv6: 'fd00::/64'}]\n"), "at most 2^20 blocks"),
        (pool("  subnets: [{ipv4: 10.64.0.0/24}, {ipv6: 'fd00::/120'}]\n"), "the same families"),
        (pool("  subnets: [{ipv4: 169.254.1.0/24}]\n"), "no link-local"),
        (pool("  subnets: [{ipv4: 10.64.0.0/24}]\n  uses: [LoadBalancer, Pod]\n"), "LoadBalancer has no other use"),
        (pool("  subnets: [{}]\n"), "an ipv4 or an ipv6 prefix"),
        (pool("  subnets: [{ipv4: 10.64.0.0/24}]\n  reserved: [10.64.0.1-fd00::1]\n"), "first-last"),
        (peer("  peerIP: 10.0.1.1\n  node: a\n  nodeSelector: all()\n"), "exclude each other"),
        (peer("  peerIP: 10.0.1.1\n  localAddress: fd00::1\n"), "one family"),
        (
            "apiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {name: x}\nspec: {}\n".to_owned(),
            "named default or node.<name>",
        ),
    ] {
        let found = problems(&text);
        assert!(found.contains(part), "expected {part:?} in {found}");
    }
}
