//! Keys of sessions, and sessions without theirs.

use super::*;
use crate::KernelFeatures;
use caracal_bgp_speaker::config::{Activation, AoAlgorithm, Auth};

const SECRET: &str = "---
apiVersion: v1
kind: Secret
metadata: {name: keys, namespace: caracal-system}
stringData: {tor: from-text, empty: '', long: LONG}
data: {tor: ZnJvbS1kYXRh, raw: ZnJvbS1kYXRh}
";

fn text(peer_fields: &str) -> String {
    format!(
        "apiVersion: caracal.dev/v1alpha1
kind: BGPConfiguration
metadata: {{name: default}}
spec: {{asNumber: 65000, transit: true, nodeToNodeMeshEnabled: false}}
---
apiVersion: caracal.dev/v1alpha1
kind: BGPPeer
metadata: {{name: p}}
spec: {{peerIP: 10.0.1.1, asNumber: 65001, {peer_fields}}}
{}",
        SECRET.replace("LONG", &"x".repeat(81))
    )
}

fn password(name: &str, key: &str) -> String {
    format!("password: {{secretKeyRef: {{name: {name}, key: {key}}}}}")
}

fn key(session: &PeerConfig) -> &[u8] {
    match &session.authentication {
        Auth::Md5(secret) => secret.expose(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_password_comes_from_a_secret() {
    for (name, expected) in [("tor", "from-text"), ("raw", "from-data")] {
        let resolved = resolved(&text(&password("keys", name)), "r1", &[], &[]);
        assert_eq!(resolved.findings, []);
        assert_eq!(key(peer(&resolved, "p")), expected.as_bytes());
    }
}

#[test]
fn a_session_without_its_key_is_held_and_says_why() {
    let rows = [
        (password("gone", "tor"), "spec.password", reasons::MISSING_SECRET),
        (password("keys", "gone"), "spec.password", reasons::MISSING_SECRET_KEY),
        (password("keys", "empty"), "spec.password", reasons::INVALID_SECRET),
        (password("keys", "long"), "spec.password", reasons::INVALID_SECRET),
        (
            "tcpAO: {keys: [{sendID: 1, receiveID: 1, secretKeyRef: {name: keys, key: tor}}, {sendID: 2, receiveID: 2, secretKeyRef: {name: keys, key: gone}}]}".to_owned(),
            "spec.tcpAO",
            reasons::MISSING_SECRET_KEY,
        ),
        (
            "bfd: {password: {secretKeyRef: {name: keys, key: long}}}".to_owned(),
            "spec.bfd.password",
            reasons::INVALID_SECRET,
        ),
    ];
    for (fields, field, reason) in rows {
        let resolved = resolved(&text(&fields), "r1", &[], &[]);
        let expected = ("BGPPeer p".to_owned(), field, reason);
        assert_eq!(reasons_of(&resolved), [expected]);
        let session = peer(&resolved, "p");
        assert_eq!(session.authentication, Auth::None);
        let Activation::Held { why, .. } = &session.activation else {
            panic!("{:?}", session.activation);
        };
        assert!(why.ends_with(&format!("({reason})")), "{why}");
        let told = format!("{} {:?}", resolved.findings[0], resolved.config);
        assert!(!told.contains("from-") && !told.contains("xxx"), "{told}");
    }
}

#[test]
fn what_an_operator_keeps_down_stays_so_without_its_key() {
    let fields = format!("adminDown: {{message: off}}, {}", password("gone", "tor"));
    let resolved = resolved(&text(&fields), "r1", &[], &[]);
    let expected = Activation::Down {
        message: "off".into(),
    };
    assert_eq!(peer(&resolved, "p").activation, expected);
    assert_eq!(resolved.findings.len(), 1);
}

#[test]
fn the_keys_of_tcp_ao_keep_their_order() {
    let fields = "tcpAO: {keys: [{sendID: 7, receiveID: 8, algorithm: AES-128-CMAC-96, secretKeyRef: {name: keys, key: tor}}, {sendID: 1, receiveID: 1, secretKeyRef: {name: keys, key: raw}}], includeTCPOptions: false}";
    let resolved = resolved(&text(fields), "r1", &[], &[]);
    assert_eq!(resolved.findings, []);
    let Auth::Ao(chain) = &peer(&resolved, "p").authentication else {
        panic!("{:?}", peer(&resolved, "p"));
    };
    let ids: Vec<_> = chain
        .keys()
        .iter()
        .inspect(|key| assert!(key.exclude_options))
        .map(|key| (key.id.send, key.id.receive, key.algorithm))
        .collect();
    let expected = [
        (7, 8, AoAlgorithm::CmacAes128),
        (1, 1, AoAlgorithm::HmacSha1),
    ];
    assert_eq!(ids, expected);
}

#[test]
fn a_kernel_without_the_option_holds_the_session() {
    let ao = "tcpAO: {keys: [{sendID: 1, receiveID: 1, secretKeyRef: {name: keys, key: tor}}]}";
    let lacking = KernelFeatures {
        tcp_md5: false,
        tcp_ao: false,
    };
    for fields in [password("keys", "tor"), ao.to_owned()] {
        let manifests = parsed(&text(&fields));
        let resolved = resolve(&Inputs {
            kernel: lacking,
            ..Inputs::standalone("r1", &manifests)
        });
        assert_eq!(
            resolved.findings[0].reason,
            reasons::NOT_SUPPORTED_BY_KERNEL
        );
        let session = peer(&resolved, "p");
        assert!(matches!(session.activation, Activation::Held { .. }));
    }
}

#[test]
fn an_agent_looks_in_its_own_namespace_only() {
    let manifests = parsed(&text(&password("keys", "tor")));
    let reason_in = |namespace| {
        let inputs = Inputs::standalone("r1", &manifests);
        let secrets = crate::Secrets {
            namespace: Some(namespace),
            ..inputs.secrets
        };
        let resolved = resolve(&Inputs { secrets, ..inputs });
        resolved.findings.first().map(|found| found.reason)
    };
    assert_eq!(reason_in("caracal-system"), None);
    assert_eq!(reason_in("other"), Some(reasons::MISSING_SECRET));
}

#[test]
fn a_name_in_two_namespaces_is_ambiguous_in_files() {
    let second = SECRET.replace("namespace: caracal-system", "namespace: other");
    let both = text(&password("keys", "tor")) + &second;
    let resolved = resolved(&both, "r1", &[], &[]);
    assert_eq!(resolved.findings[0].reason, reasons::MISSING_SECRET);
}

#[test]
fn inputs_never_show_a_secret() {
    let manifests = parsed(&text(&password("keys", "tor")));
    let inputs = Inputs::standalone("r1", &manifests);
    let shown = format!("{inputs:?}");
    assert!(
        shown.contains("caracal-system/keys") && !shown.contains("from-"),
        "{shown}"
    );
}

#[test]
fn the_mesh_has_one_password_and_is_held_without_it() {
    let mesh = |name: &str| {
        let text = CLUSTER.replace(
            "nodeToNodeMeshEnabled: false",
            &format!("nodeMeshPassword: {{secretKeyRef: {{name: keys, key: {name}}}}}, nodeMeshBfd: {{}}, nodeMeshMaxRestartTime: 9s"),
        );
        let text = text + &SECRET.replace("LONG", "x");
        resolved(&text, "n1", &[], &[])
    };
    let with = mesh("tor");
    assert_eq!(with.findings, []);
    let session = peer(&with, "mesh:n2");
    assert_eq!(key(session), b"from-text");
    assert_eq!(session.bfd.as_ref().unwrap().multi_hop, Some(1));
    assert_eq!(session.restart_time, Some(Duration::from_secs(9)));
    // The ToR has no password of its own.
    assert_eq!(peer(&with, "tor-a1").authentication, Auth::None);

    let without = mesh("gone");
    let expected = (
        "BGPConfiguration default".to_owned(),
        "spec.nodeMeshPassword",
        reasons::MISSING_SECRET_KEY,
    );
    assert_eq!(reasons_of(&without), [expected]);
    let session = peer(&without, "mesh:n2");
    assert!(matches!(session.activation, Activation::Held { .. }));
}

/// `name/key` of what is needed.
fn named(resolved: &Resolved) -> Vec<String> {
    let named = resolved.secrets.iter();
    named
        .map(|key| format!("{}/{}", key.name, key.key))
        .collect()
}

#[test]
fn what_sessions_of_this_node_need_is_named_whether_or_not_it_is_there() {
    let rows = [
        (password("keys", "tor"), "keys/tor"),
        (password("gone", "tor"), "gone/tor"),
        // Every key of a chain, also behind one that is missing.
        (
            "tcpAO: {keys: [{sendID: 1, receiveID: 1, secretKeyRef: {name: gone, key: a}}, {sendID: 2, receiveID: 2, secretKeyRef: {name: keys, key: tor}}]}".to_owned(),
            "gone/a keys/tor",
        ),
        ("bfd: {password: {secretKeyRef: {name: keys, key: tor}}}".to_owned(), "keys/tor"),
        // Nothing that is not done needs a key.
        ("bfd: {enabled: false, password: {secretKeyRef: {name: keys, key: tor}}}".to_owned(), ""),
        (format!("node: r2, {}", password("keys", "tor")), ""),
        (String::new(), ""),
    ];
    for (fields, expected) in rows {
        let resolved = resolved(&text(&fields), "r1", &[], &[]);
        assert_eq!(named(&resolved).join(" "), expected, "{fields}");
    }
    let mesh = CLUSTER.replace(
        "nodeToNodeMeshEnabled: false",
        "nodeMeshPassword: {secretKeyRef: {name: mesh, key: a}}, nodeMeshBfd: {password: {secretKeyRef: {name: mesh, key: b}}}",
    );
    let mesh = resolved(&mesh, "n1", &[], &[]);
    assert_eq!(named(&mesh), ["mesh/a", "mesh/b"]);
}

#[test]
fn a_secret_that_cannot_be_read_is_not_said_to_be_missing() {
    let manifests = parsed(&text(&password("gone", "tor")));
    let unread = BTreeMap::from([("gone".to_owned(), "may not be looked at".to_owned())]);
    let inputs = Inputs::standalone("r1", &manifests);
    let secrets = crate::Secrets {
        namespace: Some("caracal-system"),
        unread: &unread,
        ..inputs.secrets
    };
    let resolved = resolve(&Inputs { secrets, ..inputs });
    assert_eq!(
        resolved.findings[0].to_string(),
        "BGPPeer p: spec.password: Secret gone in namespace caracal-system cannot be read: may not be \
         looked at: the session is held (MissingSecret)"
    );
}
