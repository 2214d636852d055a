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
  originatedPrefixes: [{cidr: 10.0.0.1/32}]
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
        default.originated_prefixes[0].cidr.to_string(),
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
    assert_eq!(spec.peer_ip.unwrap().port, Some(1790));
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
        (
            peer("  holdTime: 9s\n"),
            "r.yaml:4: BGPPeer p: spec: give exactly one of peerIP, interface, listenRange, peerSelector",
        ),
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

/// A peer without an AS number of its own.
fn bare_peer(spec: &str) -> String {
    format!("apiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {{name: p}}\nspec:\n{spec}")
}

fn configuration(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: BGPConfiguration\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    )
}

fn filter(list: &str, rule: &str) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: f}}\nspec:\n  {list}:\n  - {rule}\n"
    )
}

#[test]
fn every_kind_of_peer_is_read() {
    for text in [
        peer("  peerIP: 10.0.1.1\n  password: {secretKeyRef: {name: s, key: k}}\n"),
        peer(
            "  peerIP: 10.0.1.1\n  tcpAO: {keys: [{sendID: 1, receiveID: 2, secretKeyRef: {name: s, key: k}}]}\n",
        ),
        peer(
            "  peerIP: 10.0.1.1\n  bfd: {minimumTransmitInterval: 100ms, multiHop: true, minimumTTL: 250, strict: true}\n",
        ),
        peer(
            "  peerIP: 10.0.1.1\n  addPath: [{family: ipv4-unicast, send: Best, sendCount: 2, receive: true}, {family: ipv6-unicast, send: All}]\n",
        ),
        peer(
            "  peerIP: 10.0.1.1\n  maxPrefixes: [{family: ipv4-unicast, limit: 4294967295, warningPercent: 80, restartAfter: 5m}]\n",
        ),
        peer(
            "  peerIP: 10.0.1.1\n  maxPrefixes: [{family: ipv4-unicast, action: None}, {family: ipv6-unicast, limit: 1, action: Warn}]\n",
        ),
        peer(
            "  peerIP: 10.0.1.1\n  role: Provider\n  roleStrict: true\n  removePrivateAS: Replace\n",
        ),
        peer("  peerIP: 10.0.1.1\n  adminDown: {}\n  drain: true\n  filters: [a, b]\n"),
        peer(
            "  peerIP: 10.0.1.1\n  maxRestartTime: 60s\n  gracefulRestart: {longLivedStaleTime: 24h}\n",
        ),
        peer(
            "  listenRange: [10.0.0.0/8, 'fd00::/16']\n  listenLimit: 500\n  localAddress: 10.0.0.1\n",
        ),
        bare_peer("  interface: eth1\n  peerAS: External\n"),
        bare_peer("  peerSelector: has(rr)\n  reversePeering: Manual\n"),
        configuration(
            "default",
            "{routerID: hash, bindMode: NodeIP, nodeMeshPassword: {secretKeyRef: {name: s, key: k}}}",
        ),
        configuration(
            "node.a",
            "{listenAddresses: [10.0.0.1, 'fd00::1'], gracefulShutdown: {drain: true, onCordon: false}}",
        ),
        configuration(
            "default",
            "{bmp: [{address: 10.0.0.9, port: 11019, routes: [PrePolicy, LocRib]}, {address: 10.0.0.9, port: 11020, statisticsInterval: 30s}]}",
        ),
        configuration(
            "default",
            "{mrt: {directory: /var/lib/mrt, updates: true, tableInterval: 2h}, originValidation: Disabled}",
        ),
        configuration(
            "default",
            "{serviceClusterIPs: [{cidr: 10.96.0.0/12}], serviceLoadBalancerAggregation: Disabled}",
        ),
    ] {
        if let Err(problems) = read(&text) {
            panic!("{text}\n{problems}");
        }
    }
    let manifests = read(&bare_peer("  interface: eth1\n  peerAS: External\n")).unwrap();
    let spec = &manifests.bgp_peers["p"].spec;
    assert_eq!(spec.peer_as, Some(crate::PeerAs::External));
    let bmp = configuration("default", "{bmp: [{address: 10.0.0.9, port: 11020}]}");
    let bmp = &read(&bmp).unwrap().bgp_configurations["default"].spec.bmp;
    assert_eq!(bmp[0].routes, [crate::BmpRoutes::PrePolicy]);
}

#[test]
fn every_part_of_a_filter_is_read() {
    let rules = "  - name: everything
    cidr: 10.0.0.0/8
    matchOperator: In
    prefixLength: {min: 24, max: 26}
    prefixes: [{cidr: 10.0.0.0/8}, {cidr: 10.1.0.0/16, matchOperator: Equal}]
    source: RemotePeers
    interface: eth*
    peerType: eBGP
    communities: {values: ['65000:*'], anyOf: [no-export, '65000:1:*', 'rt:65000:1'], allOf: ['0x0002fde800000001']}
    asPathPrefix: [65000, 65001]
    asPathRegex: _65001_
    asPathLength: {max: 5}
    origin: IGP
    med: {min: 0, max: 4294967295}
    localPref: {min: 100}
    nextHopCIDRs: [10.0.0.0/8]
    action: Continue
    operations:
    - addCommunity: {value: '65000:1'}
    - removeCommunity: {value: '*:*'}
    - setCommunities: {standard: [], large: ['65000:1:2'], extended: ['soo:10.0.0.1:5']}
    - prependASPath: {prefix: [65000, 65000]}
    - setLocalPref: {value: 200}
    - setMED: {value: 50}
    - addMED: {value: -10}
    - removeMED: {}
    - setOrigin: {value: Incomplete}
    - setNextHop: {mode: Unchanged}
  - {priority: 512, action: Accept, operations: [{blackhole: {}}, {setPriority: {value: 1024}}, {setNextHop: {address: 10.0.0.1}}]}
";
    let text = format!(
        "apiVersion: caracal.dev/v1alpha1\nkind: BGPFilter\nmetadata: {{name: f}}\nspec:\n  exportV4:\n{rules}"
    );
    let manifests = read(&text).unwrap_or_else(|problems| panic!("{problems}"));
    let rules = &manifests.bgp_filters["f"].spec.export_v4;
    assert_eq!(rules[0].operations.len(), 10);
    assert_eq!(rules[0].operations[6].add_med.as_ref().unwrap().value, -10);
}

#[test]
fn secrets_are_read_and_never_shown() {
    let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: s, namespace: n}\ndata: {k: c2VjcmV0}\nstringData: {l: hunter2}\n";
    let manifests = read(text).unwrap_or_else(|problems| panic!("{problems}"));
    let secret = &manifests.secrets["n/s"];
    assert_eq!(secret.data.as_ref().unwrap()["k"].0, b"secret");
    assert_eq!(secret.string_data.as_ref().unwrap()["l"], "hunter2");
    let shown = format!("{manifests:?}");
    assert!(
        shown.contains("n/s") && !shown.contains("hunter2"),
        "{shown}"
    );
    for wrong in [
        "stringData: {password: 4711}",
        "stringData: [hunter2]",
        "data: {password: hunter2}",
        "type: [hunter2]",
    ] {
        let found = problems(&format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: s}}\n{wrong}\n"
        ));
        assert!(
            !found.contains("hunter2") && !found.contains("4711"),
            "{found}"
        );
    }
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
        (peer("  peerIP: 10.0.1.1\n  interface: eth0\n"), "exactly one of peerIP"),
        (peer("  peerIP: 10.0.1.1\n  peerAS: Internal\n"), "asNumber or peerAS"),
        (bare_peer("  peerIP: 10.0.1.1\n"), "asNumber or peerAS"),
        (peer("  peerSelector: all()\n"), "the selected node's"),
        (peer("  peerIP: 10.0.1.1\n  reversePeering: Auto\n"), "reversePeering needs peerSelector"),
        (peer("  peerIP: 10.0.1.1\n  listenLimit: 5\n"), "listenLimit needs listenRange"),
        (peer("  interface: eth0\n  localAddress: 10.0.0.1\n"), "localAddress needs"),
        (peer("  interface: eth/0\n"), "name of an interface"),
        (peer("  listenRange: [10.0.0.1/8]\n"), "zero host bits"),
        (peer("  listenRange: []\n"), "at least 1"),
        (peer("  peerIP: 10.0.1.1\n  localAddress: 10.0.1.0\n  sourceAddress: UseNodeIP\n"), "exclude each other"),
        (
            peer("  peerIP: 10.0.1.1\n  password: {secretKeyRef: {name: s, key: k}}\n  tcpAO: {keys: [{sendID: 1, receiveID: 1, secretKeyRef: {name: s, key: k}}]}\n"),
            "password and tcpAO",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  tcpAO: {keys: [{sendID: 1, receiveID: 1, secretKeyRef: {name: s, key: k}}, {sendID: 1, receiveID: 2, secretKeyRef: {name: s, key: k}}]}\n"),
            "each sendID at most once",
        ),
        (peer("  peerIP: 10.0.1.1\n  ttlSecurity: 1\n  ebgpMultiHop: 2\n"), "ttlSecurity and ebgpMultiHop"),
        (peer("  peerIP: 10.0.1.1\n  ttlSecurity: 255\n"), "at most 254"),
        (
            peer("  peerIP: 10.0.1.1\n  maxRestartTime: 9s\n  gracefulRestart: {restartTime: 9s}\n"),
            "are one setting",
        ),
        (peer("  peerIP: 10.0.1.1\n  holdTime: 9s\n  keepaliveTime: 9s\n"), "keepaliveTime is shorter"),
        (peer("  peerIP: 10.0.1.1\n  holdTime: 9s\n  sendHoldTime: 9s\n"), "longer than holdTime"),
        (peer("  peerIP: 10.0.1.1\n  roleStrict: true\n"), "roleStrict needs role"),
        (bare_peer("  peerIP: 10.0.1.1\n  peerAS: Internal\n  role: Peer\n"), "peers of other ASes"),
        (
            peer("  peerIP: 10.0.1.1\n  addPath: [{family: ipv4-unicast, send: Best}]\n"),
            "send Best and sendCount",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  addPath: [{family: ipv4-unicast}, {family: ipv4-unicast}]\n"),
            "each family at most once",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  maxPrefixes: [{family: ipv4-unicast, limit: 0}]\n"),
            "at least 1",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  maxPrefixes: [{family: ipv4-unicast}]\n"),
            "either a limit or action None",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  maxPrefixes: [{family: ipv4-unicast, limit: 5, action: None}]\n"),
            "either a limit or action None",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  maxPrefixes: [{family: ipv4-unicast, action: None, warningPercent: 50}]\n"),
            "warningPercent needs a limit",
        ),
        (
            peer("  peerIP: 10.0.1.1\n  maxPrefixes: [{family: ipv4-unicast, limit: 5, action: Warn, restartAfter: 1m}]\n"),
            "restartAfter needs action Terminate",
        ),
        (peer("  peerIP: 10.0.1.1\n  bfd: {minimumTTL: 5}\n"), "minimumTTL needs multiHop"),
        (peer("  peerIP: 10.0.1.1\n  bfd: {minimumReceiveInterval: 5ms}\n"), "from 10ms to 60s"),
        (peer("  peerIP: 10.0.1.1\n  gracefulRestart: {longLivedStaleTime: 16777216s}\n"), "at most 16777215s"),
        (configuration("default", "{routerID: 0.0.0.0}"), "or hash"),
        (configuration("default", "{routerID: router}"), "or hash"),
        (
            configuration("node.a", "{nodeMeshPassword: {secretKeyRef: {name: s, key: k}}}"),
            "of the whole mesh",
        ),
        (
            configuration("default", "{nodeToNodeMeshEnabled: false, nodeMeshPassword: {secretKeyRef: {name: s, key: k}}}"),
            "nodeMeshPassword needs the mesh",
        ),
        (configuration("default", "{bindMode: NodeIP, listenAddresses: [10.0.0.1]}"), "exclude each other"),
        (configuration("default", "{mrt: {directory: /x}}"), "updates: true or tableInterval"),
        (configuration("default", "{mrt: {directory: x, updates: true}}"), "path from the root"),
        (
            configuration("default", "{bmp: [{address: 10.0.0.9, port: 1}, {address: 10.0.0.9, port: 1}]}"),
            "each station at most once",
        ),
        (filter("exportV4", "{cidr: 'fd00::/8', matchOperator: In, action: Accept}"), "IPv4 prefixes"),
        (filter("importV6", "{prefixes: [{cidr: 10.0.0.0/8}], action: Accept}"), "IPv6 prefixes"),
        (filter("exportV4", "{cidr: 10.0.0.0/8, action: Accept}"), "come together"),
        (filter("exportV4", "{action: Reject, operations: [{removeMED: {}}]}"), "Accept or Continue"),
        (filter("exportV4", "{action: Accept, operations: [{}]}"), "exactly one of addCommunity"),
        (filter("exportV4", "{action: Accept, operations: [{removeMED: {}, blackhole: {}}]}"), "exactly one of addCommunity"),
        (filter("exportV4", "{action: Accept, operations: [{setNextHop: {}}]}"), "address or mode"),
        (filter("exportV4", "{action: Accept, operations: [{setNextHop: {mode: PeerAddress}}]}"), "is for import"),
        (filter("importV4", "{action: Accept, operations: [{setNextHop: {mode: Self}}]}"), "are for export"),
        (filter("importV6", "{action: Accept, operations: [{setNextHop: {address: 10.0.0.1}}]}"), "IPv6 next hops"),
        (filter("exportV4", "{action: Accept, communities: {values: ['65536:1']}}"), "a part may be *"),
        (filter("exportV4", "{action: Accept, communities: {}}"), "values, anyOf or allOf"),
        (filter("exportV4", "{action: Accept, operations: [{addCommunity: {value: '65000:*'}}]}"), "must be a community"),
        (filter("exportV4", "{action: Accept, med: {}}"), "min, max or both"),
        (filter("exportV4", "{action: Accept, localPref: {min: 2, max: 1}}"), "min is at most max"),
        (filter("exportV4", "{action: Accept, priority: 1, localPref: {min: 2}}"), "two notations"),
    ] {
        let found = problems(&text);
        assert!(found.contains(part), "expected {part:?} in {found}");
    }
}
