//! The plan: roles, loopbacks, link addresses, AS numbers and the BGP sessions of a topology.
//!
//! Everything is derived from the file's order, so that the same file always gives the same addresses.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use crate::{Clab, Error, LinkEnd};

/// Labels that the lab reads begin with this.
const LABEL_PREFIX: &str = "caracal.dev/";

/// Loopbacks of nodes, ToRs and spines: the third octet tells the role.
const LOOPBACK_V4: [u8; 2] = [10, 0];
const LOOPBACK_V6: [u16; 3] = [0xfd00, 0, 0];

/// Fabric links are /31s and /127s out of these, in the file's order.
const FABRIC_V4: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);
const FABRIC_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 1, 0, 0, 0, 0, 0, 0);

/// Links to hosts beyond the fabric (documentation prefixes, so that no pool can overlap them).
const OUTSIDE_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 0);
const OUTSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0);

/// RFC 6996 private 4-octet AS numbers: nodes, racks, spines.
const NODE_AS: u32 = 4_200_000_100;
const RACK_AS: u32 = 4_200_001_000;
const SPINE_AS: u32 = 4_200_002_000;

/// Octets on the wire where the file does not say.
const DEFAULT_MTU: u32 = 1500;

/// How the fabric speaks BGP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fabric {
    /// Plan A: eBGP everywhere, an AS per node, one per rack's ToRs, one for the spines.
    Ebgp,
    /// Plan B: nodes and ToRs of a rack share an AS and the ToRs reflect; eBGP to the spines.
    IbgpRack,
}

/// What a box is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Connects racks.
    Spine,
    /// Top of rack.
    Tor,
    /// A Kubernetes node.
    Node,
    /// A host beyond the fabric, without BGP.
    Outside,
}

/// Which implementation routes on a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Driver {
    /// FRR with zebra.
    Frr,
    /// BIRD 2.
    Bird,
    /// The speaker of this project.
    Caracal,
}

/// A topology with everything computed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The lab's name.
    pub name: String,
    /// How the fabric speaks BGP.
    pub fabric: Fabric,
    /// Boxes by name.
    pub nodes: BTreeMap<String, PlannedNode>,
    /// Cables in the file's order.
    pub links: Vec<PlannedLink>,
}

/// A box with its numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedNode {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Rack of a node or ToR.
    pub rack: Option<String>,
    /// The wanted router implementation; nodes always run the agent.
    pub driver: Driver,
    /// AS number; 0 for an outside host, which speaks no BGP.
    pub asn: u32,
    /// Loopback, also the BGP identifier. An outside host has none of its own: its link address.
    pub loopback_v4: Ipv4Addr,
    /// Loopback.
    pub loopback_v6: Ipv6Addr,
}

/// A cable with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedLink {
    /// Position in the file, from 0.
    pub index: usize,
    /// The end nearer to the spines has the lower address.
    pub upper: PlannedEnd,
    /// The end nearer to the nodes.
    pub lower: PlannedEnd,
    /// Octets.
    pub mtu: u32,
}

/// One end of a cable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEnd {
    /// Node name.
    pub node: String,
    /// Interface name in it.
    pub interface: String,
    /// Address in a /31.
    pub v4: Ipv4Addr,
    /// Address in a /127.
    pub v6: Ipv6Addr,
}

/// One BGP session of a box, seen from that box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session<'a> {
    /// The box's own end.
    pub local: &'a PlannedEnd,
    /// The peer's end.
    pub remote: &'a PlannedEnd,
    /// The peer.
    pub peer: &'a PlannedNode,
    /// What the two are to each other.
    pub kind: SessionKind,
}

/// What two ends of a session are to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionKind {
    /// Different AS.
    External,
    /// Same AS; the peer is our reflector.
    ToReflector,
    /// Same AS; the peer is our client.
    ToClient,
}

impl PlannedNode {
    /// Whether it forwards for others.
    fn forwards(&self) -> bool {
        matches!(self.role, Role::Tor | Role::Spine)
    }
}

impl Plan {
    /// Computes the plan of a topology. `file` only names it in errors.
    ///
    /// # Errors
    /// A node without a usable role, a node or ToR without a rack, an unknown driver, a link between boxes
    /// that have nothing to say to each other, more boxes or links than the address plan holds.
    pub fn new(file: &str, clab: &Clab, fabric: Fabric) -> Result<Self, Error> {
        let nodes = plan_nodes(file, clab, fabric)?;
        let links = plan_links(file, clab, &nodes)?;
        let mut plan = Self {
            name: clab.name.clone(),
            fabric,
            nodes,
            links,
        };
        plan.name_outside_hosts();
        Ok(plan)
    }

    /// Boxes of one role, by name.
    pub fn with_role(&self, role: Role) -> impl Iterator<Item = &PlannedNode> {
        self.nodes.values().filter(move |n| n.role == role)
    }

    /// A box's own ends of its links with the far ends, in the file's order.
    pub fn ends<'a>(
        &'a self,
        node: &'a str,
    ) -> impl Iterator<Item = (&'a PlannedLink, &'a PlannedEnd, &'a PlannedEnd)> {
        self.links.iter().filter_map(move |link| {
            if link.upper.node == node {
                Some((link, &link.upper, &link.lower))
            } else if link.lower.node == node {
                Some((link, &link.lower, &link.upper))
            } else {
                None
            }
        })
    }

    /// Hops from one box to every box that can be reached: boxes forward for others unless they are cluster
    /// nodes or hosts beyond the fabric.
    pub fn distances(&self, from: &str) -> BTreeMap<&str, u8> {
        let Some(start) = self.nodes.get(from) else {
            return BTreeMap::new();
        };
        let mut distances = BTreeMap::from([(start.name.as_str(), 0)]);
        let mut queue = VecDeque::from([(start, 0)]);
        while let Some((at, distance)) = queue.pop_front() {
            if !at.forwards() && at.name != from {
                continue;
            }
            for (_, _, far) in self.ends(&at.name) {
                if let Entry::Vacant(entry) = distances.entry(far.node.as_str()) {
                    entry.insert(distance + 1);
                    queue.push_back((&self.nodes[&far.node], distance + 1));
                }
            }
        }
        distances
    }

    /// How many of a box's neighbours lie on a shortest way to another box: the next hops that its routes
    /// there shall have.
    pub fn equal_paths(&self, from: &str, to: &str) -> usize {
        let distances = self.distances(to);
        let Some(own) = distances.get(from) else {
            return 0;
        };
        self.ends(from)
            .filter(|(_, _, far)| {
                distances
                    .get(far.node.as_str())
                    .is_some_and(|distance| distance + 1 == *own)
            })
            .count()
    }

    /// The BGP sessions of a box: one per link to another box that speaks BGP.
    pub fn sessions<'a>(&'a self, node: &'a str) -> Vec<Session<'a>> {
        let own = &self.nodes[node];
        if own.role == Role::Outside {
            return Vec::new();
        }
        self.ends(node)
            .filter_map(|(_, local, remote)| {
                let peer = &self.nodes[&remote.node];
                let kind = match (own.role, peer.role) {
                    (_, Role::Outside) => return None,
                    _ if own.asn != peer.asn => SessionKind::External,
                    (Role::Node, _) => SessionKind::ToReflector,
                    _ => SessionKind::ToClient,
                };
                Some(Session {
                    local,
                    remote,
                    peer,
                    kind,
                })
            })
            .collect()
    }

    /// An outside host is known by the address of its link.
    fn name_outside_hosts(&mut self) {
        for link in &self.links {
            for end in [&link.upper, &link.lower] {
                let node = self
                    .nodes
                    .get_mut(&end.node)
                    .expect("links were checked against nodes");
                if node.role == Role::Outside {
                    node.loopback_v4 = end.v4;
                    node.loopback_v6 = end.v6;
                }
            }
        }
    }
}

fn plan_nodes(
    file: &str,
    clab: &Clab,
    fabric: Fabric,
) -> Result<BTreeMap<String, PlannedNode>, Error> {
    let racks: Vec<&String> = {
        let key = format!("{LABEL_PREFIX}rack");
        let mut racks: Vec<_> = clab
            .nodes
            .values()
            .filter_map(|n| n.labels.get(&key))
            .collect();
        racks.sort();
        racks.dedup();
        racks
    };
    let mut counts: BTreeMap<Role, u8> = BTreeMap::new();
    let mut nodes = BTreeMap::new();
    for (name, node) in &clab.nodes {
        let wrong = |message: String| Error {
            file: file.into(),
            line: node.line,
            message: format!("node {name}: {message}"),
            hint: None,
        };
        let label = |key: &str| node.labels.get(&format!("{LABEL_PREFIX}{key}"));
        let role: Role = label("role")
            .ok_or_else(|| {
                wrong(format!("label {LABEL_PREFIX}role is missing"))
                    .hint("roles: spine, tor, node, outside")
            })?
            .parse()
            .map_err(wrong)?;
        let rack = label("rack").cloned();
        let rack_index = match (role, &rack) {
            (Role::Node | Role::Tor, None) => {
                return Err(wrong(format!("label {LABEL_PREFIX}rack is missing")));
            }
            (Role::Node | Role::Tor, Some(rack)) => racks
                .binary_search(&rack)
                .expect("racks were collected from the same labels")
                as u32,
            _ => 0,
        };
        let driver = match label("driver") {
            Some(text) => text.parse().map_err(wrong)?,
            None => Driver::Caracal,
        };
        let count = counts.entry(role).or_default();
        *count = count
            .checked_add(1)
            .ok_or_else(|| wrong("the address plan holds 255 boxes of a role".into()))?;
        let number = *count;
        let third = match role {
            Role::Node => 1,
            Role::Tor => 2,
            Role::Spine => 3,
            Role::Outside => 4,
        };
        let asn = match (role, fabric) {
            (Role::Node, Fabric::Ebgp) => NODE_AS + u32::from(number),
            (Role::Node, Fabric::IbgpRack) | (Role::Tor, _) => RACK_AS + rack_index,
            (Role::Spine, _) => SPINE_AS,
            (Role::Outside, _) => 0,
        };
        let [p, q] = LOOPBACK_V4;
        let [r, s, t] = LOOPBACK_V6;
        nodes.insert(
            name.clone(),
            PlannedNode {
                name: name.clone(),
                role,
                rack,
                driver,
                asn,
                loopback_v4: Ipv4Addr::new(p, q, third, number),
                loopback_v6: Ipv6Addr::new(r, s, t, 0, 0, 0, third.into(), number.into()),
            },
        );
    }
    Ok(nodes)
}

fn plan_links(
    file: &str,
    clab: &Clab,
    nodes: &BTreeMap<String, PlannedNode>,
) -> Result<Vec<PlannedLink>, Error> {
    let (mut fabric, mut outside) = (0u16, 0u16);
    let mut links = Vec::new();
    for (index, link) in clab.links.iter().enumerate() {
        let role = |end: &LinkEnd| nodes[&end.node].role;
        let [a, b] = &link.ends;
        let (upper, lower) = if role(a) <= role(b) { (a, b) } else { (b, a) };
        let wrong = |message: String| Error {
            file: file.into(),
            line: link.line,
            message,
            hint: None,
        };
        if role(upper) == role(lower) {
            return Err(wrong(format!(
                "{} and {} have the same role and nothing to say to each other",
                upper.node, lower.node
            )));
        }
        let (v4, v6, counter, limit) = match role(lower) {
            Role::Outside => (OUTSIDE_V4, OUTSIDE_V6, &mut outside, 127),
            _ => (FABRIC_V4, FABRIC_V6, &mut fabric, 32_767),
        };
        let number = *counter;
        if number > limit {
            return Err(wrong(format!("the address plan holds {} links", limit + 1)));
        }
        *counter += 1;
        let end = |end: &LinkEnd, offset: u32| PlannedEnd {
            node: end.node.clone(),
            interface: end.interface.clone(),
            v4: Ipv4Addr::from(u32::from(v4) + u32::from(number) * 2 + offset),
            v6: Ipv6Addr::from(u128::from(v6) + u128::from(number) * 2 + u128::from(offset)),
        };
        links.push(PlannedLink {
            index,
            upper: end(upper, 0),
            lower: end(lower, 1),
            mtu: link.mtu.unwrap_or(DEFAULT_MTU),
        });
    }
    Ok(links)
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "spine" => Ok(Self::Spine),
            "tor" => Ok(Self::Tor),
            "node" => Ok(Self::Node),
            "outside" => Ok(Self::Outside),
            other => Err(format!(
                "role {other:?} is none of spine, tor, node, outside"
            )),
        }
    }
}

impl FromStr for Driver {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "frr" => Ok(Self::Frr),
            "bird" => Ok(Self::Bird),
            "caracal" => Ok(Self::Caracal),
            other => Err(format!("driver {other:?} is none of frr, bird, caracal")),
        }
    }
}

impl FromStr for Fabric {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "a" | "A" | "ebgp" => Ok(Self::Ebgp),
            "b" | "B" | "ibgp" => Ok(Self::IbgpRack),
            other => Err(format!(
                "plan {other:?} is neither a (eBGP) nor b (iBGP in the rack)"
            )),
        }
    }
}

impl fmt::Display for Fabric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ebgp => "A (eBGP, one AS per node)",
            Self::IbgpRack => "B (iBGP in the rack, ToRs reflect)",
        })
    }
}

impl fmt::Display for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Frr => "frr",
            Self::Bird => "bird",
            Self::Caracal => "caracal",
        })
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Spine => "spine",
            Self::Tor => "tor",
            Self::Node => "node",
            Self::Outside => "outside",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
name: x
topology:
  nodes:
    s1: {labels: {caracal.dev/role: spine, caracal.dev/driver: frr}}
    a1: {labels: {caracal.dev/role: tor, caracal.dev/rack: a, caracal.dev/driver: bird}}
    a2: {labels: {caracal.dev/role: tor, caracal.dev/rack: a}}
    b1: {labels: {caracal.dev/role: tor, caracal.dev/rack: b}}
    n1: {labels: {caracal.dev/role: node, caracal.dev/rack: a}}
    n2: {labels: {caracal.dev/role: node, caracal.dev/rack: b}}
    out: {labels: {caracal.dev/role: outside}}
  links:
    - endpoints: [\"n1:eth1\", \"a1:eth1\"]
    - endpoints: [\"a2:eth1\", \"n1:eth2\"]
    - endpoints: [\"s1:eth1\", \"a1:eth2\"]
    - endpoints: [\"s1:eth9\", \"out:eth1\"]
";

    fn plan(fabric: Fabric) -> Plan {
        Plan::new("x", &Clab::parse("x", TEXT).unwrap(), fabric).unwrap()
    }

    #[test]
    fn the_upper_end_has_the_lower_address_whichever_way_the_file_names_them() {
        let plan = plan(Fabric::Ebgp);
        assert_eq!(plan.links[0].upper.node, "a1");
        assert_eq!(plan.links[0].upper.v4.to_string(), "10.1.0.0");
        assert_eq!(plan.links[0].lower.v6.to_string(), "fd00:1::1");
        assert_eq!(plan.links[1].upper.v4.to_string(), "10.1.0.2");
    }

    #[test]
    fn in_plan_a_each_node_has_an_as_and_a_racks_tors_share_one() {
        let plan = plan(Fabric::Ebgp);
        let asn = |n: &str| plan.nodes[n].asn;
        assert_ne!(asn("n1"), asn("n2"));
        assert_eq!(asn("a1"), asn("a2"));
        assert_ne!(asn("a1"), asn("b1"));
        assert!(
            plan.sessions("n1")
                .iter()
                .all(|s| s.kind == SessionKind::External)
        );
    }

    #[test]
    fn in_plan_b_nodes_are_reflector_clients_of_both_tors() {
        let plan = plan(Fabric::IbgpRack);
        assert_eq!(plan.nodes["n1"].asn, plan.nodes["a1"].asn);
        assert!(
            plan.sessions("n1")
                .iter()
                .all(|s| s.kind == SessionKind::ToReflector)
        );
        let kinds: Vec<_> = plan.sessions("a1").iter().map(|s| s.kind).collect();
        assert_eq!(kinds, [SessionKind::ToClient, SessionKind::External]);
    }

    #[test]
    fn an_outside_host_has_addresses_of_its_own_range_and_no_session() {
        let plan = plan(Fabric::Ebgp);
        assert_eq!(plan.nodes["out"].loopback_v4.to_string(), "192.0.2.1");
        assert_eq!(plan.nodes["out"].loopback_v6.to_string(), "2001:db8::1");
        assert!(plan.sessions("out").is_empty());
        assert_eq!(plan.sessions("s1").len(), 1);
    }

    #[test]
    fn shortest_ways_lead_through_routers_alone() {
        let plan = plan(Fabric::Ebgp);
        assert_eq!(plan.distances("n1")["out"], 3, "n1, a1, s1, out");
        assert_eq!(plan.equal_paths("n1", "a1"), 1);
        assert_eq!(
            plan.equal_paths("n1", "out"),
            1,
            "a2 has no way to the spine but through n1"
        );
        assert_eq!(
            plan.equal_paths("a1", "a2"),
            0,
            "a2 hangs on n1, which does not forward"
        );
        assert!(!plan.distances("s1").contains_key("b1"), "b1 has no cable");
    }

    #[test]
    fn no_address_is_given_twice() {
        let plan = plan(Fabric::Ebgp);
        let mut seen = std::collections::BTreeSet::new();
        for link in &plan.links {
            assert!(seen.insert(link.upper.v4) && seen.insert(link.lower.v4));
        }
        for node in plan.nodes.values().filter(|n| n.role != Role::Outside) {
            assert!(seen.insert(node.loopback_v4));
        }
    }

    #[test]
    fn a_role_or_rack_that_is_missing_or_unknown_is_an_error_at_the_node() {
        for (labels, message) in [
            ("", "caracal.dev/role is missing"),
            (
                "caracal.dev/role: core",
                "none of spine, tor, node, outside",
            ),
            ("caracal.dev/role: tor", "caracal.dev/rack is missing"),
            (
                "caracal.dev/role: spine, caracal.dev/driver: ios",
                "none of frr, bird, caracal",
            ),
        ] {
            let text = format!("name: x\ntopology:\n  nodes:\n    z: {{labels: {{{labels}}}}}\n");
            let clab = Clab::parse("x", &text).unwrap();
            let error = Plan::new("x", &clab, Fabric::Ebgp).expect_err(labels);
            assert_eq!(error.line, 4);
            assert!(error.to_string().contains(message), "{error}");
        }
    }
}
