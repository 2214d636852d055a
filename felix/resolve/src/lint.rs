//! What is wrong with manifests before anybody runs them.
//!
//! Owns resolving them for every node that they name, and checks that need all of them, or that no
//! speaker would ever report because it does as it is told. Does not own reading files.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use caracal_bgp_core::types::Asn;
use caracal_bgp_speaker::config::{Endpoint, PeerConfig, SpeakerConfig};
use caracal_crds::manifest::{Manifests, Position};
use caracal_crds::{BgpFilterRule, reasons};

use crate::finding::{Finding, ObjectRef};
use crate::resolve::{Inputs, internal_ips, resolve};

/// A filter that no BGPPeer names.
pub const UNUSED: &str = "Unused";
/// Something that is asked for and changes nothing.
pub const NO_EFFECT: &str = "NoEffect";
/// BFD takes as long as the hold timer.
pub const SLOW_DETECTION: &str = "SlowDetection";
/// Nodes of one AS with no way for routes between them.
pub const PARTIAL_MESH: &str = "PartialMesh";
/// What nodes of one AS tell each other through other ASes looks like a loop.
pub const AS_LOOP: &str = "AsLoop";

/// One thing that is wrong, or surely not meant.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lint {
    /// The field, or the object where the field is not there; nothing for what no file has.
    pub position: Option<Position>,
    /// What is wrong.
    pub finding: Finding,
    /// The nodes that it is about; empty for all.
    pub nodes: Vec<String>,
}

/// Everything about the manifests, by file and line. Only for `node` where one is given.
pub fn lint(manifests: &Manifests, node: Option<&str>) -> Vec<Lint> {
    let nodes = match node {
        Some(node) => BTreeSet::from([node.to_owned()]),
        None => nodes_of(manifests),
    };
    let mut found: BTreeMap<Finding, BTreeSet<String>> = BTreeMap::new();
    let mut configs = BTreeMap::new();
    for node in &nodes {
        let resolved = resolve(&Inputs::standalone(node, manifests));
        let of_node = resolved.findings.into_iter();
        for finding in of_node.chain(of_speaker(&resolved.config, manifests)) {
            found.entry(finding).or_default().insert(node.clone());
        }
        configs.insert(node.clone(), resolved.config);
    }
    for finding in unused_filters(manifests)
        .into_iter()
        .chain(partial_mesh(&configs, manifests))
        .chain(as_loops(&configs, manifests))
    {
        found.insert(finding, nodes.clone());
    }
    let mut lints: Vec<Lint> = found
        .into_iter()
        .map(|(finding, about)| Lint {
            position: position(manifests, &finding),
            nodes: match about == nodes {
                true => Vec::new(),
                false => about.into_iter().collect(),
            },
            finding,
        })
        .collect();
    lints.sort();
    lints
}

/// All nodes that the manifests name; a speaker without a name where they name none.
fn nodes_of(manifests: &Manifests) -> BTreeSet<String> {
    let objects = manifests.nodes.keys().cloned();
    let configured = manifests.bgp_configurations.keys();
    let configured = configured.filter_map(|name| Some(name.strip_prefix("node.")?.to_owned()));
    let peering = manifests.bgp_peers.values();
    let peering = peering.filter_map(|peer| peer.spec.node.clone());
    let mut nodes: BTreeSet<String> = objects.collect();
    if nodes.is_empty() {
        // With Node objects, other names lead nowhere, which the findings say.
        nodes.extend(configured.chain(peering));
    }
    if nodes.is_empty() {
        nodes.insert("speaker".to_owned());
    }
    nodes
}

fn position(manifests: &Manifests, finding: &Finding) -> Option<Position> {
    let object = &finding.object;
    manifests.field_position(object.kind, &object.name, &finding.field)
}

/// What one speaker would do without a word.
fn of_speaker(config: &SpeakerConfig, manifests: &Manifests) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, peer) in &config.peers {
        let Some(resource) = manifests.bgp_peers.get(&name.0) else {
            continue;
        };
        let mut say = |field: &str, reason: &'static str, message: String| {
            findings.push(Finding {
                object: ObjectRef::new("BGPPeer", name.0.as_str()),
                field: field.to_owned(),
                reason,
                message,
            });
        };
        if let Some((detection, hold)) = slow_detection(peer) {
            let message = format!(
                "BFD needs {detection:?} to see a failure, which the hold time of {hold:?} sees as soon"
            );
            say("spec.bfd", SLOW_DETECTION, message);
        }
        if peer.peer_as.is_internal(config.asn) {
            continue;
        }
        for (at, filter) in resource.spec.filters.iter().enumerate() {
            let rules = manifests.bgp_filters.get(filter);
            let rules = rules.map(|filter| [&filter.spec.export_v4, &filter.spec.export_v6]);
            let mut rules = rules.into_iter().flatten().flatten();
            if rules.any(sets_local_pref) {
                let message = format!(
                    "filter {filter} sets the local preference of what is told, which no eBGP peer hears (RFC 4271 §5.1.5)"
                );
                say(&format!("spec.filters[{at}]"), NO_EFFECT, message);
            }
        }
    }
    findings
}

/// How long BFD takes at our end of the configuration, where that is no less than the hold time.
fn slow_detection(peer: &PeerConfig) -> Option<(std::time::Duration, std::time::Duration)> {
    let bfd = peer.bfd.as_ref()?;
    let detection = bfd.receive.saturating_mul(bfd.detect_multiplier.into());
    let hold = peer.hold_time;
    (!hold.is_zero() && detection >= hold).then_some((detection, hold))
}

fn sets_local_pref(rule: &BgpFilterRule) -> bool {
    let mut operations = rule.operations.iter();
    operations
        .any(|operation| operation.set_local_pref.is_some() || operation.set_priority.is_some())
}

fn unused_filters(manifests: &Manifests) -> Vec<Finding> {
    let used: BTreeSet<&String> = manifests
        .bgp_peers
        .values()
        .flat_map(|peer| &peer.spec.filters)
        .collect();
    let unused = manifests.bgp_filters.keys();
    unused
        .filter(|name| !used.contains(name))
        .map(|name| Finding {
            object: ObjectRef::new("BGPFilter", name.as_str()),
            field: String::new(),
            reason: UNUSED,
            message: "no BGPPeer names it".to_owned(),
        })
        .collect()
}

/// iBGP passes nothing on, so nodes of one AS need sessions with each other, or with a reflector. Who is no
/// node may be one.
fn partial_mesh(configs: &BTreeMap<String, SpeakerConfig>, manifests: &Manifests) -> Vec<Finding> {
    let nodes = manifests.nodes.values().flat_map(internal_ips);
    let nodes: BTreeSet<IpAddr> = nodes.collect();
    let is_node = |peer: &PeerConfig| matches!(&peer.remote, Endpoint::Address(address) if nodes.contains(&address.ip()));
    let mut findings = Vec::new();
    for (asn, speakers) in sharing_an_as(configs) {
        let internal = |config: &SpeakerConfig| {
            let peers = config.peers.values();
            peers
                .filter(|peer| peer.peer_as.is_internal(config.asn))
                .count()
        };
        let reflects = speakers.iter().any(|(_, config)| {
            let mut peers = config.peers.values();
            peers.any(|peer| {
                let outside = peer.peer_as.is_internal(config.asn) && !is_node(peer);
                peer.route_reflector_client || outside
            })
        });
        let sessions: usize = speakers.iter().map(|(_, config)| internal(config)).sum();
        let incomplete: Vec<&str> = speakers
            .iter()
            .filter(|(_, config)| internal(config) + 1 < speakers.len())
            .map(|(node, _)| node.as_str())
            .collect();
        // None at all is a fabric where nodes meet by eBGP.
        if sessions > 0 && !reflects && !incomplete.is_empty() {
            findings.push(Finding {
                object: ObjectRef::new("BGPConfiguration", "default"),
                field: "spec.nodeToNodeMeshEnabled".to_owned(),
                reason: PARTIAL_MESH,
                message: format!(
                    "AS {asn} has {} nodes, no reflector, and no session from {} to each of the others: iBGP passes nothing on",
                    speakers.len(),
                    incomplete.join(", ")
                ),
            });
        }
    }
    findings
}

/// Nodes of one AS that meet by eBGP alone: their AS is in the path of what they hear of each other, unless a
/// router on the way puts its own in that place, which no manifest of ours says.
fn as_loops(configs: &BTreeMap<String, SpeakerConfig>, manifests: &Manifests) -> Vec<Finding> {
    let mut findings = BTreeMap::new();
    for (asn, speakers) in sharing_an_as(configs) {
        let peers = || speakers.iter().flat_map(|(_, config)| &config.peers);
        if peers().any(|(_, peer)| peer.peer_as.is_internal(asn)) {
            continue;
        }
        let refusing = peers().filter(|(_, peer)| peer.allowed_local_as == 0);
        for (name, _) in refusing.filter(|(name, _)| manifests.bgp_peers.contains_key(&name.0)) {
            let message = format!(
                "{} nodes of AS {asn} have no sessions within it: unless routers on the way override that AS, what they hear of each other is refused as a loop; 1 allows it",
                speakers.len()
            );
            let object = ObjectRef::new("BGPPeer", name.0.as_str());
            findings.insert(name.clone(), (object, message));
        }
    }
    let findings = findings.into_values();
    findings
        .map(|(object, message)| Finding {
            object,
            field: "spec.numAllowedLocalASNumbers".to_owned(),
            reason: AS_LOOP,
            message,
        })
        .collect()
}

/// The nodes of each AS that has several.
fn sharing_an_as(
    configs: &BTreeMap<String, SpeakerConfig>,
) -> impl Iterator<Item = (Asn, Vec<(&String, &SpeakerConfig)>)> {
    let mut by_as: BTreeMap<Asn, Vec<(&String, &SpeakerConfig)>> = BTreeMap::new();
    for (node, config) in configs {
        by_as.entry(config.asn).or_default().push((node, config));
    }
    by_as.into_iter().filter(|(_, all)| all.len() > 1)
}

impl Lint {
    /// Whether it only costs clarity: nothing goes another way than the manifests say.
    pub fn is_harmless(&self) -> bool {
        [UNUSED, NO_EFFECT, AS_LOOP, reasons::NOT_IMPLEMENTED].contains(&self.finding.reason)
    }
}
