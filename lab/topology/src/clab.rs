//! The containerlab subset: nodes with labels, links in the brief and the extended `veth` form.
//!
//! containerlab parses strictly, so nothing is added to its format: what the lab needs beyond it travels in
//! node labels under `caracal.dev/`. Keys that containerlab knows and the lab has no use for are accepted
//! and listed in [`Clab::ignored`]; any other key is an error.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};

use crate::Error;

/// A topology as written, with inheritance (defaults, kind, group, node) resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clab {
    /// The lab's name; becomes part of namespace names and of the state folder.
    pub name: String,
    /// Nodes by name.
    pub nodes: BTreeMap<String, Node>,
    /// Links in the file's order, which is also the order of their addresses.
    pub links: Vec<Link>,
    /// Keys that containerlab would act on and the lab does not, for one summary warning.
    pub ignored: BTreeSet<String>,
}

/// One box.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Node {
    /// containerlab's kind; the lab runs every kind as a network namespace.
    pub kind: String,
    /// Container image, kept for export; the lab only reads a hint for a driver from labels.
    pub image: Option<String>,
    /// Merged labels; the nearest definition wins.
    pub labels: BTreeMap<String, String>,
    /// Line of the node's name in the file.
    pub line: u64,
}

/// A cable between two interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its two ends in the file's order.
    pub ends: [LinkEnd; 2],
    /// Octets; `None` means 1,500.
    pub mtu: Option<u32>,
    /// Line of the link in the file.
    pub line: u64,
}

/// One end of a cable.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkEnd {
    /// Node name.
    pub node: String,
    /// Interface name inside the node.
    pub interface: String,
}

/// Longest interface name the kernel takes (`IFNAMSIZ` less the terminator).
const INTERFACE_NAME_MAX: usize = 15;

impl Clab {
    /// Reads a topology file's text. `file` only names it in errors.
    ///
    /// # Errors
    /// Text that is not YAML, a key that containerlab does not know, a link to a node that does not exist,
    /// an interface used twice, a kind of link that the lab cannot build.
    pub fn parse(file: &str, text: &str) -> Result<Self, Error> {
        let raw: RawFile = serde_saphyr::from_str(text).map_err(|e| Error::yaml(file, &e))?;
        let mut ignored = raw.ignored();
        let nodes = resolve_nodes(file, &raw.topology, &mut ignored)?;
        let links = resolve_links(file, &raw.topology, &nodes)?;
        Ok(Self {
            name: raw.name,
            nodes,
            links,
            ignored,
        })
    }
}

fn resolve_nodes(
    file: &str,
    topology: &RawTopology,
    ignored: &mut BTreeSet<String>,
) -> Result<BTreeMap<String, Node>, Error> {
    let mut nodes = BTreeMap::new();
    for (name, raw) in &topology.nodes {
        let own = raw.value.clone().unwrap_or_default();
        let location = raw.referenced;
        let group = match &own.group {
            Some(group) => Some(topology.groups.get(group).ok_or_else(|| {
                Error::at(
                    file,
                    location,
                    format!("node {name}: group {group} does not exist"),
                )
                .hint(known("groups", topology.groups.keys()))
            })?),
            None => None,
        };
        let group = group.cloned().flatten();
        let defaults = topology.defaults.clone().unwrap_or_default();
        let kind = own
            .kind
            .clone()
            .or_else(|| group.as_ref().and_then(|g| g.kind.clone()))
            .or_else(|| defaults.kind.clone())
            .unwrap_or_else(|| "linux".into());
        let of_kind = topology
            .kinds
            .get(&kind)
            .cloned()
            .flatten()
            .unwrap_or_default();

        let mut node = Node {
            kind,
            line: location.line(),
            ..Node::default()
        };
        // containerlab's order: the nearest definition wins, so the farthest is laid down first.
        for layer in [&defaults, &of_kind, &group.unwrap_or_default(), &own] {
            node.labels.extend(layer.labels.clone());
            node.image = layer.image.clone().or(node.image);
            ignored.extend(layer.ignored());
        }
        nodes.insert(name.clone(), node);
    }
    Ok(nodes)
}

fn resolve_links(
    file: &str,
    topology: &RawTopology,
    nodes: &BTreeMap<String, Node>,
) -> Result<Vec<Link>, Error> {
    let mut links = Vec::new();
    let mut taken = BTreeSet::new();
    for raw in &topology.links {
        let location = raw.referenced;
        let kind = raw.value.r#type.as_deref().unwrap_or("veth");
        if kind != "veth" {
            return Err(Error::at(
                file,
                location,
                format!("a link of type {kind} is not supported"),
            )
            .hint("the lab builds veth links; write `endpoints: [\"a:eth1\", \"b:eth1\"]`"));
        }
        let ends = raw.value.ends(file, location)?;
        for end in &ends {
            if !nodes.contains_key(&end.node) {
                return Err(Error::at(
                    file,
                    location,
                    format!("link to node {}, which does not exist", end.node),
                )
                .hint(known("nodes", nodes.keys())));
            }
            if end.interface.is_empty() || end.interface.len() > INTERFACE_NAME_MAX {
                let message = format!(
                    "interface name {:?} of node {} must have 1 to {INTERFACE_NAME_MAX} characters",
                    end.interface, end.node
                );
                return Err(Error::at(file, location, message));
            }
            if !taken.insert(end.clone()) {
                let message = format!(
                    "interface {}:{} is used by two links",
                    end.node, end.interface
                );
                return Err(Error::at(file, location, message));
            }
        }
        links.push(Link {
            ends,
            mtu: raw.value.mtu,
            line: location.line(),
        });
    }
    Ok(links)
}

fn known<'a>(what: &str, names: impl Iterator<Item = &'a String>) -> String {
    let names: Vec<&str> = names.map(String::as_str).collect();
    format!("{what} of this file: {}", names.join(", "))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    name: String,
    #[serde(default)]
    prefix: Option<IgnoredAny>,
    #[serde(default)]
    mgmt: Option<IgnoredAny>,
    #[serde(default)]
    settings: Option<IgnoredAny>,
    #[serde(default)]
    debug: Option<IgnoredAny>,
    topology: RawTopology,
}

impl RawFile {
    fn ignored(&self) -> BTreeSet<String> {
        [
            ("prefix", self.prefix.is_some()),
            ("mgmt", self.mgmt.is_some()),
            ("settings", self.settings.is_some()),
            ("debug", self.debug.is_some()),
        ]
        .into_iter()
        .filter(|(_, present)| *present)
        .map(|(key, _)| key.to_owned())
        .collect()
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTopology {
    nodes: BTreeMap<String, Spanned<Option<RawNode>>>,
    #[serde(default)]
    kinds: BTreeMap<String, Option<RawNode>>,
    #[serde(default)]
    groups: BTreeMap<String, Option<RawNode>>,
    #[serde(default)]
    defaults: Option<RawNode>,
    #[serde(default)]
    links: Vec<Spanned<RawLink>>,
}

/// Declares the node keys of containerlab's schema: those that the lab reads, and those that it only
/// recognises so that a file written for containerlab loads.
macro_rules! raw_node {
    ($($field:ident = $key:literal),* $(,)?) => {
        #[derive(Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields)]
        struct RawNode {
            kind: Option<String>,
            group: Option<String>,
            image: Option<String>,
            #[serde(default)]
            labels: BTreeMap<String, String>,
            $(#[serde(rename = $key, default)] $field: Option<Recognised>,)*
        }

        impl RawNode {
            fn ignored(&self) -> BTreeSet<String> {
                let mut keys = BTreeSet::new();
                $(if self.$field.is_some() { keys.insert($key.to_owned()); })*
                keys
            }
        }
    };
}

raw_node! {
    aliases = "aliases", auto_remove = "auto-remove", binds = "binds", cap_add = "cap-add",
    certificate = "certificate", cgroup_parent = "cgroup-parent", cgroupns_mode = "cgroupns-mode",
    cmd = "cmd", components = "components", config = "config", cpu = "cpu", cpu_set = "cpu-set",
    credentials = "credentials", devices = "devices", dns = "dns",
    enforce_startup_config = "enforce-startup-config", entrypoint = "entrypoint", env = "env",
    env_files = "env-files", exec = "exec", extras = "extras", healthcheck = "healthcheck",
    hostname = "hostname", image_pull_policy = "image-pull-policy", license = "license",
    link_apply_mode = "link-apply-mode", memory = "memory", mgmt_ipv4 = "mgmt-ipv4",
    mgmt_ipv6 = "mgmt-ipv6", network_mode = "network-mode", pid_mode = "pid-mode", ports = "ports",
    privileged = "privileged", restart_policy = "restart-policy", runtime = "runtime",
    security_opts = "security-opts", shm_size = "shm-size", stages = "stages",
    startup_config = "startup-config", startup_delay = "startup-delay",
    suppress_startup_config = "suppress-startup-config", sysctls = "sysctls", tmpfs = "tmpfs",
    r#type = "type", user = "user", volumes = "volumes",
}

/// A value that is there and of no use to the lab.
#[derive(Clone)]
struct Recognised;

impl<'de> Deserialize<'de> for Recognised {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLink {
    r#type: Option<String>,
    endpoints: Vec<RawEnd>,
    mtu: Option<u32>,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "read by containerlab only; the lab plans its own addresses"
    )]
    ipv4: Option<Recognised>,
    #[serde(default)]
    #[expect(
        dead_code,
        reason = "read by containerlab only; the lab plans its own addresses"
    )]
    ipv6: Option<Recognised>,
    #[serde(default)]
    #[expect(dead_code, reason = "free-form data that other tools read")]
    vars: Option<Recognised>,
    #[serde(default)]
    #[expect(dead_code, reason = "free-form data that other tools read")]
    labels: Option<Recognised>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawEnd {
    Brief(String),
    Extended { node: String, interface: String },
}

impl RawLink {
    fn ends(&self, file: &str, location: Location) -> Result<[LinkEnd; 2], Error> {
        let [a, b] = self.endpoints.as_slice() else {
            let message = format!(
                "a link has two endpoints, this one has {}",
                self.endpoints.len()
            );
            return Err(Error::at(file, location, message));
        };
        Ok([a.end(file, location)?, b.end(file, location)?])
    }
}

impl RawEnd {
    fn end(&self, file: &str, location: Location) -> Result<LinkEnd, Error> {
        match self {
            Self::Extended { node, interface } => Ok(LinkEnd {
                node: node.clone(),
                interface: interface.clone(),
            }),
            Self::Brief(text) => match text.split_once(':') {
                Some((node, interface)) => Ok(LinkEnd {
                    node: node.into(),
                    interface: interface.into(),
                }),
                None => Err(Error::at(
                    file,
                    location,
                    format!("endpoint {text:?} must read \"node:interface\""),
                )),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "x.clab.yml";

    #[test]
    fn labels_come_from_defaults_kind_group_and_node_and_the_nearest_wins() {
        let text = "\
name: x
topology:
  defaults: {kind: linux, labels: {a: defaults, b: defaults, c: defaults, d: defaults}}
  kinds: {linux: {labels: {b: kind, c: kind, d: kind}}}
  groups: {g: {labels: {c: group, d: group}, image: frr}}
  nodes:
    n: {group: g, labels: {d: node}}
";
        let clab = Clab::parse(FILE, text).unwrap();
        let labels: Vec<&str> = clab.nodes["n"]
            .labels
            .values()
            .map(String::as_str)
            .collect();
        assert_eq!(labels, ["defaults", "kind", "group", "node"]);
        assert_eq!(clab.nodes["n"].image.as_deref(), Some("frr"));
    }

    #[test]
    fn both_link_forms_are_read() {
        let text = "\
name: x
topology:
  nodes: {a: {}, b: {}}
  links:
    - endpoints: [\"a:eth1\", \"b:eth1\"]
    - type: veth
      mtu: 9000
      endpoints: [{node: a, interface: eth2}, {node: b, interface: eth2}]
";
        let clab = Clab::parse(FILE, text).unwrap();
        assert_eq!(clab.links.len(), 2);
        assert_eq!(clab.links[1].mtu, Some(9000));
        assert_eq!(clab.links[1].ends[0].interface, "eth2");
    }

    #[test]
    fn keys_that_only_containerlab_acts_on_are_listed() {
        let text = "name: x\ntopology:\n  nodes: {a: {cpu: 2, binds: [x:y]}}\n";
        let clab = Clab::parse(FILE, text).unwrap();
        assert_eq!(clab.ignored, ["binds".to_owned(), "cpu".to_owned()].into());
    }

    /// Text, line and message of each defect.
    const DEFECTS: &[(&str, u64, &str)] = &[
        (
            "name: x\ntopology:\n  nodes: {a: {}}\n  linkz: []\n",
            4,
            "linkz",
        ),
        (
            "name: x\ntopology:\n  nodes:\n    a: {colour: red}\n",
            4,
            "colour",
        ),
        (
            "name: x\ntopology:\n  nodes: {a: {}}\n  links:\n    - endpoints: [\"a:e1\", \"z:e1\"]\n",
            5,
            "node z, which does not exist",
        ),
        (
            "name: x\ntopology:\n  nodes: {a: {}, b: {}}\n  links:\n    - endpoints: [\"a:e1\", \"b:e1\"]\n    - endpoints: [\"a:e1\", \"b:e2\"]\n",
            6,
            "a:e1 is used by two links",
        ),
        (
            "name: x\ntopology:\n  nodes: {a: {}}\n  links:\n    - {type: vxlan, endpoints: []}\n",
            5,
            "vxlan is not supported",
        ),
        (
            "name: x\ntopology:\n  nodes: {a: {}}\n  links:\n    - endpoints: [\"a\", \"a:e1\"]\n",
            5,
            "must read \"node:interface\"",
        ),
        (
            "name: x\ntopology:\n  nodes:\n    a: {group: g}\n",
            4,
            "group g does not exist",
        ),
    ];

    #[test]
    fn each_defect_is_reported_with_file_line_and_what_was_expected() {
        for (text, line, message) in DEFECTS {
            let error = Clab::parse(FILE, text).expect_err(text);
            assert_eq!(error.line, *line, "{error}");
            assert!(error.to_string().contains(message), "{error}");
            assert!(error.to_string().starts_with(FILE), "{error}");
        }
    }
}
