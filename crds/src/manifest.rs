//! Resources from YAML files, for processes that run without an API server.
//!
//! Owns: reading multi-document YAML into typed objects, held to the same schemas and CEL rules
//! that an API server would apply, and telling what is wrong with file, line and field. Does not
//! own: opening files, or what the objects together mean.
//!
//! Stricter than an API server in one point: an unknown field is an error, since in a file it is a
//! misspelt one.

mod check;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use k8s_openapi::api::core::v1::{Node, Secret};
use serde::de::DeserializeOwned;

use crate::{
    BgpConfiguration, BgpFilter, BgpPeer, GROUP, IpBlock, IpBlockRequest, IpPool,
    NodeNetworkStatus, VERSION,
};
use check::Checker;
use tree::{Located, Value};

/// The objects of one or more files, each kind by name. `Debug` shows no values of Secrets.
#[derive(Clone, Default, PartialEq)]
pub struct Manifests {
    /// IPPools.
    pub ip_pools: BTreeMap<String, IpPool>,
    /// IPBlocks.
    pub ip_blocks: BTreeMap<String, IpBlock>,
    /// IPBlockRequests.
    pub ip_block_requests: BTreeMap<String, IpBlockRequest>,
    /// BGPConfigurations.
    pub bgp_configurations: BTreeMap<String, BgpConfiguration>,
    /// BGPPeers.
    pub bgp_peers: BTreeMap<String, BgpPeer>,
    /// BGPFilters.
    pub bgp_filters: BTreeMap<String, BgpFilter>,
    /// NodeNetworkStatuses.
    pub node_network_statuses: BTreeMap<String, NodeNetworkStatus>,
    /// Nodes of core/v1.
    pub nodes: BTreeMap<String, Node>,
    /// Secrets of core/v1, by `namespace/name`; the namespace is `default` where absent.
    pub secrets: BTreeMap<String, Secret>,
    /// Where each object stands, by `kind/name` as in its map.
    sources: BTreeMap<String, Source>,
}

/// Where an object and its fields stand.
#[derive(Clone, Debug, PartialEq)]
struct Source {
    position: Position,
    /// Lines of its fields, by path such as `spec.filters[1]`.
    fields: BTreeMap<String, u64>,
}

impl fmt::Debug for Manifests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            ip_pools,
            ip_blocks,
            ip_block_requests,
            bgp_configurations,
            bgp_peers,
            bgp_filters,
            node_network_statuses,
            nodes,
            secrets,
            sources,
        } = self;
        f.debug_struct("Manifests")
            .field("ip_pools", ip_pools)
            .field("ip_blocks", ip_blocks)
            .field("ip_block_requests", ip_block_requests)
            .field("bgp_configurations", bgp_configurations)
            .field("bgp_peers", bgp_peers)
            .field("bgp_filters", bgp_filters)
            .field("node_network_statuses", node_network_statuses)
            .field("nodes", nodes)
            .field("secrets", &secrets.keys())
            .field("sources", sources)
            .finish()
    }
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The file as it was named to the reader.
    pub file: PathBuf,
    /// Line, from 1.
    pub line: u64,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// One thing that is wrong in a manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}: {}{}{message}", object_prefix(.object), path_prefix(.path))]
pub struct Problem {
    /// Where.
    pub position: Position,
    /// Kind and name of the object, as far as known, such as `BGPPeer leaf-1`.
    pub object: String,
    /// Field such as `spec.peerIP`; empty for the document as a whole.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

/// Everything that is wrong in the manifests read, in the order of the lines; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// Each problem, in the order of the lines.
    pub fn as_slice(&self) -> &[Problem] {
        &self.0
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

impl Manifests {
    /// Adds the documents of `text`; `file` appears in messages only.
    ///
    /// # Errors
    /// With all problems of the text. Nothing of it has been added then.
    pub fn read(&mut self, file: &Path, text: &str) -> Result<(), Problems> {
        let mut next = self.clone();
        let mut reader = Reader {
            file,
            problems: Vec::new(),
        };
        match tree::documents(text) {
            Ok(documents) => {
                for document in &documents {
                    reader.document(document, Checker::shared(), &mut next);
                }
            }
            Err(error) => reader.report(error.line, String::new(), String::new(), error.message),
        }
        if reader.problems.is_empty() {
            *self = next;
            Ok(())
        } else {
            reader.problems.sort_by(|a, b| a.position.cmp(&b.position));
            Err(Problems(reader.problems))
        }
    }

    /// Where the object of this kind and name stands.
    pub fn position(&self, kind: &str, name: &str) -> Option<&Position> {
        let source = self.sources.get(&source_key(kind, name))?;
        Some(&source.position)
    }

    /// Where a field of that object stands, such as `spec.filters[1]`; where it is not there, the
    /// nearest one that it would be in.
    pub fn field_position(&self, kind: &str, name: &str, path: &str) -> Option<Position> {
        let source = self.sources.get(&source_key(kind, name))?;
        let mut path = path;
        let line = loop {
            match source.fields.get(path) {
                Some(line) => break *line,
                None => match path.rfind(['.', '[']) {
                    Some(parent) => path = &path[..parent],
                    None => break source.position.line,
                },
            }
        };
        let file = source.position.file.clone();
        Some(Position { file, line })
    }
}

struct Reader<'a> {
    file: &'a Path,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn document(&mut self, document: &Located, checker: &Checker, into: &mut Manifests) {
        let Value::Map(_) = &document.value else {
            let message = format!(
                "expected an object with apiVersion and kind, found {}",
                document.value.kind()
            );
            self.report(document.line, String::new(), String::new(), message);
            return;
        };
        let api_version = document
            .get("apiVersion")
            .and_then(Located::as_str)
            .unwrap_or_default();
        let kind = document
            .get("kind")
            .and_then(Located::as_str)
            .unwrap_or_default();
        let ours = format!("{GROUP}/{VERSION}");
        let secret = kind == "Secret";
        match (api_version, kind) {
            ("v1", "Node") => {
                self.object(document, kind, checker, &mut into.nodes, &mut into.sources)
            }
            ("v1", "Secret") => self.object(
                document,
                kind,
                checker,
                &mut into.secrets,
                &mut into.sources,
            ),
            (version, "IPPool") if version == ours => self.object(
                document,
                kind,
                checker,
                &mut into.ip_pools,
                &mut into.sources,
            ),
            (version, "IPBlock") if version == ours => self.object(
                document,
                kind,
                checker,
                &mut into.ip_blocks,
                &mut into.sources,
            ),
            (version, "IPBlockRequest") if version == ours => self.object(
                document,
                kind,
                checker,
                &mut into.ip_block_requests,
                &mut into.sources,
            ),
            (version, "BGPConfiguration") if version == ours => self.object(
                document,
                kind,
                checker,
                &mut into.bgp_configurations,
                &mut into.sources,
            ),
            (version, "BGPPeer") if version == ours => self.object(
                document,
                kind,
                checker,
                &mut into.bgp_peers,
                &mut into.sources,
            ),
            (version, "BGPFilter") if version == ours => self.object(
                document,
                kind,
                checker,
                &mut into.bgp_filters,
                &mut into.sources,
            ),
            (version, "NodeNetworkStatus") if version == ours => self.object(
                document,
                kind,
                checker,
                &mut into.node_network_statuses,
                &mut into.sources,
            ),
            _ => {
                let at = document
                    .get("kind")
                    .or(document.get("apiVersion"))
                    .unwrap_or(document);
                let expected = if secret { "v1" } else { &ours };
                let message = format!(
                    "unknown apiVersion {api_version:?} with kind {kind:?}; expected {expected} with one of {}, or v1 with Node or Secret",
                    check::KINDS.join(", ")
                );
                self.report(at.line, String::new(), String::new(), message);
            }
        }
    }

    fn object<T: DeserializeOwned>(
        &mut self,
        document: &Located,
        kind: &str,
        checker: &Checker,
        objects: &mut BTreeMap<String, T>,
        sources: &mut BTreeMap<String, Source>,
    ) {
        let metadata = document.get("metadata");
        let name = metadata
            .and_then(|m| m.get("name"))
            .and_then(Located::as_str)
            .unwrap_or_default();
        let object = if name.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind} {name}")
        };
        let before = self.problems.len();
        for finding in checker.check(kind, document) {
            self.report(finding.line, object.clone(), finding.path, finding.message);
        }
        if name.is_empty() && before == self.problems.len() {
            let line = metadata.unwrap_or(document).line;
            self.report(
                line,
                object.clone(),
                "metadata.name".to_owned(),
                "required".to_owned(),
            );
        }
        if before != self.problems.len() {
            return;
        }
        let name = match (
            kind,
            metadata
                .and_then(|m| m.get("namespace"))
                .and_then(Located::as_str),
        ) {
            ("Secret", namespace) => format!("{}/{name}", namespace.unwrap_or("default")),
            _ => name.to_owned(),
        };
        match serde_json::from_value(document.to_json()) {
            Ok(typed) => {
                let position = Position {
                    file: self.file.to_owned(),
                    line: document.line,
                };
                let source = Source {
                    position,
                    fields: document.lines(),
                };
                if let Some(first) = sources.insert(source_key(kind, &name), source) {
                    let first = first.position;
                    self.report(
                        document.line,
                        object,
                        String::new(),
                        format!("defined before at {first}"),
                    );
                }
                objects.insert(name, typed);
            }
            Err(error) => {
                // The error of a Secret may quote what stands in it.
                let message = match kind {
                    "Secret" => "data is not base64; plain text belongs into stringData".to_owned(),
                    _ => error.to_string(),
                };
                self.report(document.line, object, String::new(), message);
            }
        }
    }

    fn report(&mut self, line: u64, object: String, path: String, message: String) {
        let position = Position {
            file: self.file.to_owned(),
            line,
        };
        self.problems.push(Problem {
            position,
            object,
            path,
            message,
        });
    }
}

fn source_key(kind: &str, name: &str) -> String {
    format!("{kind}/{name}")
}

fn object_prefix(object: &str) -> String {
    if object.is_empty() {
        String::new()
    } else {
        format!("{object}: ")
    }
}

fn path_prefix(path: &str) -> String {
    if path.is_empty() {
        String::new()
    } else {
        format!("{path}: ")
    }
}

#[cfg(test)]
mod tests;
