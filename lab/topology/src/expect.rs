//! The expected matrix: hand-written label rules with default "refused", spread over every cell.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::Error as _;

/// Transport protocol of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// A connection that must be accepted and answer.
    Tcp,
    /// A datagram that must be answered.
    Udp,
}

/// Address family of a probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// What to try: protocol and port, written `tcp/8080`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port.
    pub port: u16,
}

/// Where probes start and end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartyKind {
    /// A pod.
    Pod,
    /// A cluster node, probing from its own InternalIP.
    Node,
    /// A host beyond the fabric.
    Outside,
}

/// One source or destination.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Party {
    /// What it is.
    pub kind: PartyKind,
    /// `namespace/name` of a pod, name of a node or host.
    pub name: String,
    /// Kubernetes namespace of a pod.
    pub namespace: Option<String>,
    /// The node it sits on; its own name for a node.
    pub node: Option<String>,
    /// Labels of a pod.
    pub labels: BTreeMap<String, String>,
}

/// One question: does `from` get an answer from `to` on this port?
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cell {
    /// Source party's name.
    pub from: String,
    /// Destination party's name.
    pub to: String,
    /// Protocol and port.
    pub probe: Probe,
    /// Address family.
    pub family: Family,
}

/// The answer a cell must give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// An answer.
    Reached,
    /// Silence.
    Refused,
}

/// Who matches one side of a rule. Every given field must match; an empty selector matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Selector {
    /// Kind of party.
    pub kind: Option<PartyKind>,
    /// Kubernetes namespace.
    pub namespace: Option<String>,
    /// Labels, all of which must be present.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

/// One line of the hand-written matrix: these reach those, on these ports.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Rule {
    /// Sources.
    #[serde(default)]
    pub from: Selector,
    /// Destinations.
    #[serde(default)]
    pub to: Selector,
    /// Only where source and destination sit on the same node.
    #[serde(default)]
    pub same_node: bool,
    /// Ports; absent means every probed one.
    #[serde(default)]
    pub ports: Vec<Probe>,
    /// Families; absent means both.
    pub family: Option<Family>,
}

/// The probes and the rules that say which of them are answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expectation {
    /// Ports tried in every pair.
    pub probes: Vec<Probe>,
    /// What is reached.
    pub reached: Vec<Rule>,
}

impl Expectation {
    /// Every cell from every party to every pod but itself, with what it must give.
    pub fn matrix(&self, parties: &[Party]) -> Vec<(Cell, Want)> {
        let mut cells = Vec::new();
        for from in parties {
            for to in parties
                .iter()
                .filter(|p| p.kind == PartyKind::Pod && p.name != from.name)
            {
                for &probe in &self.probes {
                    for family in [Family::V4, Family::V6] {
                        let want = self.want(from, to, probe, family);
                        let cell = Cell {
                            from: from.name.clone(),
                            to: to.name.clone(),
                            probe,
                            family,
                        };
                        cells.push((cell, want));
                    }
                }
            }
        }
        cells
    }

    fn want(&self, from: &Party, to: &Party, probe: Probe, family: Family) -> Want {
        let reached = self.reached.iter().any(|rule| {
            rule.from.matches(from)
                && rule.to.matches(to)
                && (!rule.same_node || from.node == to.node)
                && (rule.ports.is_empty() || rule.ports.contains(&probe))
                && rule.family.is_none_or(|f| f == family)
        });
        if reached {
            Want::Reached
        } else {
            Want::Refused
        }
    }
}

impl Rule {
    /// The rule that lets everybody reach everybody.
    pub fn everything() -> Self {
        Self {
            from: Selector::default(),
            to: Selector::default(),
            same_node: false,
            ports: Vec::new(),
            family: None,
        }
    }
}

impl Selector {
    fn matches(&self, party: &Party) -> bool {
        self.kind.is_none_or(|kind| kind == party.kind)
            && self
                .namespace
                .as_ref()
                .is_none_or(|ns| Some(ns) == party.namespace.as_ref())
            && self
                .labels
                .iter()
                .all(|(k, v)| party.labels.get(k) == Some(v))
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        write!(f, "{protocol}/{}", self.port)
    }
}

impl FromStr for Probe {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("{text:?} must read tcp/PORT or udp/PORT");
        let (protocol, port) = text.split_once('/').ok_or_else(wrong)?;
        let protocol = match protocol {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return Err(wrong()),
        };
        Ok(Self {
            protocol,
            port: port.parse().map_err(|_| wrong())?,
        })
    }
}

impl<'de> Deserialize<'de> for Probe {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl<'de> Deserialize<'de> for Family {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "ipv4" => Ok(Self::V4),
            "ipv6" => Ok(Self::V6),
            other => Err(D::Error::custom(format!("{other:?} must be ipv4 or ipv6"))),
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        })
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} -> {} {} {}",
            self.from, self.to, self.probe, self.family
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, node: &str, app: &str) -> Party {
        Party {
            kind: PartyKind::Pod,
            name: format!("ns/{name}"),
            namespace: Some("ns".into()),
            node: Some(node.into()),
            labels: [("app".to_owned(), app.to_owned())].into(),
        }
    }

    fn node(name: &str) -> Party {
        Party {
            kind: PartyKind::Node,
            name: name.into(),
            namespace: None,
            node: Some(name.into()),
            labels: BTreeMap::new(),
        }
    }

    #[test]
    fn what_no_rule_mentions_is_refused() {
        let expectation = Expectation {
            probes: vec!["tcp/80".parse().unwrap()],
            reached: vec![],
        };
        let matrix = expectation.matrix(&[pod("a", "n1", "x"), pod("b", "n2", "x")]);
        assert_eq!(matrix.len(), 4, "two directions, two families, one port");
        assert!(matrix.iter().all(|(_, want)| *want == Want::Refused));
    }

    #[test]
    fn a_rule_reaches_only_its_ports_family_and_node() {
        let rule = Rule {
            from: Selector {
                kind: Some(PartyKind::Node),
                ..Selector::default()
            },
            to: Selector {
                labels: [("app".into(), "x".into())].into(),
                ..Selector::default()
            },
            same_node: true,
            ports: vec!["udp/53".parse().unwrap()],
            family: Some(Family::V6),
        };
        let probes = vec!["udp/53".parse().unwrap(), "tcp/53".parse().unwrap()];
        let expectation = Expectation {
            probes,
            reached: vec![rule],
        };
        let parties = [
            pod("a", "n1", "x"),
            pod("b", "n1", "y"),
            node("n1"),
            node("n2"),
        ];
        let reached: Vec<String> = expectation
            .matrix(&parties)
            .into_iter()
            .filter(|(_, want)| *want == Want::Reached)
            .map(|(cell, _)| cell.to_string())
            .collect();
        assert_eq!(reached, ["n1 -> ns/a udp/53 ipv6"]);
    }

    #[test]
    fn a_probe_that_is_not_protocol_slash_port_is_refused() {
        for text in ["80", "tcp/", "tcp/70000", "icmp/1", ""] {
            assert!(text.parse::<Probe>().is_err(), "{text:?}");
        }
    }
}
