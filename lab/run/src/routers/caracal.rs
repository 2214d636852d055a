//! Our own speaker, configured by manifests of the same resources as a cluster.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use caracal_lab_topology::{Plan, PlannedNode, SessionKind};
use serde_json::json;

use super::{Launch, RESTART_SECONDS, own_prefixes};

/// What to start.
pub(super) fn launches(folder: &Path, node: &PlannedNode, binary: &Path) -> Vec<Launch> {
    vec![Launch {
        program: binary.to_owned(),
        arguments: vec![
            "speaker".to_owned(),
            "-f".to_owned(),
            folder.join("manifests.yml").display().to_string(),
            "--node".to_owned(),
            node.name.clone(),
            "--run-dir".to_owned(),
            folder.display().to_string(),
        ],
        ready: Some(socket(folder)),
    }]
}

/// Configuration files by name.
pub(super) fn render(plan: &Plan, node: &PlannedNode) -> Vec<(PathBuf, String)> {
    let sessions = plan.sessions(&node.name);
    let reflects = sessions.iter().any(|s| s.kind == SessionKind::ToClient);
    let advertised: Vec<_> = own_prefixes(plan, node)
        .into_iter()
        .flat_map(|(_, prefixes)| prefixes)
        .map(|cidr| json!({"cidr": cidr}))
        .collect();
    let mut spec = json!({
        "asNumber": node.asn,
        "routerID": node.loopback_v4,
        "nodeToNodeMeshEnabled": false,
        "transit": true,
        "maximumPaths": 16,
        "multipathRelax": true,
        "gracefulRestart": {"restartTime": format!("{RESTART_SECONDS}s")},
        "originatedPrefixes": advertised,
    });
    if reflects {
        spec["clusterID"] = json!(node.loopback_v4);
    }
    let mut documents = vec![json!({
        "apiVersion": "caracal.dev/v1alpha1",
        "kind": "BGPConfiguration",
        "metadata": {"name": "default"},
        "spec": spec,
    })];
    for session in &sessions {
        let mut spec = json!({
            "peerIP": session.remote.v4,
            "localAddress": session.local.v4,
            "asNumber": session.peer.asn,
            "families": ["ipv4-unicast", "ipv6-unicast"],
        });
        if session.kind == SessionKind::ToClient {
            spec["routeReflectorClient"] = json!(true);
            spec["nextHopMode"] = json!("Self");
        }
        documents.push(json!({
            "apiVersion": "caracal.dev/v1alpha1",
            "kind": "BGPPeer",
            "metadata": {"name": format!("{}-{}", session.peer.name, session.local.interface)},
            "spec": spec,
        }));
    }
    // JSON is YAML: the documents need no second writer.
    let text = documents.iter().map(|d| format!("---\n{d:#}\n")).collect();
    vec![("manifests.yml".into(), text)]
}

/// Number of established sessions.
pub(super) fn established(folder: &Path) -> anyhow::Result<usize> {
    let answer = ask(&socket(folder), &json!({"verb": "peers"}))?;
    let peers = answer["ok"]["peers"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    Ok(peers
        .iter()
        .filter(|peer| peer["state"] == "Established")
        .count())
}

/// One question to a speaker's local API.
///
/// # Errors
/// The socket does not answer within two seconds, or not with JSON.
pub(crate) fn ask(
    socket: &Path,
    question: &serde_json::Value,
) -> anyhow::Result<serde_json::Value> {
    let attempt = || -> anyhow::Result<serde_json::Value> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(2)))?;
        writeln!(stream, "{question}")?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    };
    attempt().with_context(|| format!("no answer from {}", socket.display()))
}

fn socket(folder: &Path) -> PathBuf {
    folder.join("bgp.sock")
}
