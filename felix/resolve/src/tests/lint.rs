//! What manifests are told before anybody runs them.

use super::*;
use crate::lint::{AS_LOOP, Lint, NO_EFFECT, PARTIAL_MESH, SLOW_DETECTION, UNUSED, lint};

/// Line, object, reason and nodes of each finding.
fn seen(lints: &[Lint]) -> Vec<(u64, String, &str, String)> {
    let seen = lints.iter().map(|lint| {
        let line = lint.position.as_ref().map_or(0, |position| position.line);
        let finding = &lint.finding;
        let nodes = lint.nodes.join(" ");
        (line, finding.object.to_string(), finding.reason, nodes)
    });
    seen.collect()
}

#[test]
fn a_cluster_without_fault_has_nothing_to_be_told() {
    assert_eq!(seen(&lint(&parsed(CLUSTER), None)), []);
}

#[test]
fn findings_name_the_line_of_the_field_and_the_nodes_that_they_are_about() {
    let text = "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {name: default}
spec:
  asNumber: 65000
  nodeToNodeMeshEnabled: false
  transit: true
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec:
  node: n1
  peerIP: 10.0.1.1
  asNumber: 65001
  holdTime: 3s
  bfd:
    minimumReceiveInterval: 1s
  filters:
  - out
  - gone
---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: out}
spec:
  exportV4:
  - action: Accept
    operations: [{setLocalPref: {value: 50}}]
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: other}
spec: {node: n2, peerIP: 10.0.1.3, asNumber: 65001}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPFilter
metadata: {name: left-over}
spec: {}
";
    let manifests = parsed(text);
    let tor = || "BGPPeer tor".to_owned();
    let expected = [
        (12, tor(), AS_LOOP, String::new()),
        (17, tor(), SLOW_DETECTION, "n1".to_owned()),
        (20, tor(), NO_EFFECT, "n1".to_owned()),
        (21, tor(), reasons::MISSING_FILTER, "n1".to_owned()),
        (34, "BGPPeer other".to_owned(), AS_LOOP, String::new()),
        (36, "BGPFilter left-over".to_owned(), UNUSED, String::new()),
    ];
    let lints = lint(&manifests, None);
    assert_eq!(seen(&lints), expected, "{lints:#?}");
    let harmless: Vec<bool> = lints.iter().map(Lint::is_harmless).collect();
    assert_eq!(harmless, [true, false, true, false, true, true]);
    // For one node there is nobody to tell apart.
    let of_other = lint(&manifests, Some("n2"));
    assert_eq!(
        seen(&of_other),
        [(36, "BGPFilter left-over".to_owned(), UNUSED, String::new())]
    );
}

#[test]
fn nodes_of_one_as_that_cannot_hear_of_each_other_are_noticed() {
    let cluster = |sessions: bool, more: &str| {
        let nodes: String = (1..=3)
            .map(|node| {
                format!(
                    "---\napiVersion: v1\nkind: Node\nmetadata: {{name: n{node}, labels: {{n: '{node}'}}}}\nstatus: {{addresses: [{{type: InternalIP, address: 10.0.0.{node}}}]}}\n"
                )
            })
            .collect();
        parsed(&format!(
            "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{nodeToNodeMeshEnabled: {sessions}}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: pair}}
spec: {{nodeSelector: n == '1', peerSelector: n == '2'}}
{nodes}{more}"
        ))
    };
    let said = |manifests: &Manifests| {
        let lints = lint(manifests, None).into_iter();
        let mut lints = lints.filter(|lint| lint.finding.reason == PARTIAL_MESH);
        lints.next().map(|lint| lint.finding.message)
    };
    assert_eq!(
        said(&cluster(false, "")).as_deref(),
        Some(
            "AS 64512 has 3 nodes, no reflector, and no session from n1, n2, n3 to each of the others: iBGP passes nothing on"
        )
    );
    assert_eq!(said(&cluster(true, "")), None);
    // A router that all have sessions with may reflect.
    let tor = "---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: tor}
spec: {peerIP: 10.9.9.9, peerAS: Internal}";
    assert_eq!(said(&cluster(false, tor)), None);
}

#[test]
fn nodes_of_one_as_that_meet_in_other_ases_need_to_allow_it() {
    let racks = |asn_of_n2: u32, allowed: &str, internal: &str| {
        parsed(&format!(
            "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{nodeToNodeMeshEnabled: false, asNumber: 65010}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: node.n2}}
spec: {{asNumber: {asn_of_n2}}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: one}}
spec: {{node: n1, peerIP: 10.0.1.1, asNumber: 65001}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: two}}
spec: {{node: n2, peerIP: 10.0.2.1, asNumber: 65001{allowed}}}
{internal}"
        ))
    };
    let reflector = "---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {name: reflector}
spec: {peerIP: 10.9.9.9, peerAS: Internal}";
    let one = || "BGPPeer one".to_owned();
    let two = || "BGPPeer two".to_owned();
    for (manifests, expected) in [
        (racks(65010, "", ""), vec![one(), two()]),
        (
            racks(65010, ", numAllowedLocalASNumbers: 1", ""),
            vec![one()],
        ),
        (racks(65011, "", ""), vec![]),
        (racks(65010, "", reflector), vec![]),
    ] {
        let lints = lint(&manifests, None).into_iter();
        let loops = lints.filter(|lint| lint.finding.reason == AS_LOOP);
        let about: Vec<String> = loops.map(|lint| lint.finding.object.to_string()).collect();
        assert_eq!(about, expected);
    }
}

#[test]
fn every_file_is_read_however_many_do_not_hold() {
    let folder = tempfile::tempdir().unwrap();
    let peer = "apiVersion: caracal.dev/v1alpha1\nkind: BGPPeer\nmetadata: {name: a}\n";
    for (file, spec) in [
        ("1.yaml", "spec: {peerIP: x, asNumber: 1}"),
        ("2.yaml", "spec: {peerIP: 10.0.0.1, asNumber: 1}"),
        ("3.yaml", "spec: {peerIp: 10.0.0.2}"),
    ] {
        fs::write(folder.path().join(file), format!("{peer}{spec}\n")).unwrap();
    }
    let (manifests, problems) = files::read_all(&[folder.path().to_owned()]).unwrap();
    assert_eq!(manifests.bgp_peers.len(), 1);
    let mut files: Vec<_> = problems
        .iter()
        .map(|problem| problem.position.file.file_name().unwrap().to_owned())
        .collect();
    files.dedup();
    assert_eq!(files, ["1.yaml", "3.yaml"]);
}
