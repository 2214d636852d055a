//! What a kernel that holds a [`Plan`] does with a packet.
//!
//! Owns the reference reading of the plan: tests hold the compiler against the oracle with it, and
//! renderers can hold the kernel against it. Knows nothing of policies beyond what the plan says.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

use crate::packet::{Packet, Payload};
use crate::plan::{
    Binding, Cell, Class, ClassId, Direction, EndpointPlan, IdentityId, InterfaceName, PeerMatch,
    Plan, PortMatch,
};

/// What happened at the two hooks of this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Passage {
    /// The source's egress; `None` if the source is no endpoint of this node.
    pub egress: Option<Decision>,
    /// The destination's ingress; `None` if the destination is no endpoint of this node, or the packet
    /// comes from the node itself or never leaves its pod.
    pub ingress: Option<Decision>,
}

/// One decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Decision {
    /// The endpoint is not isolated.
    Open,
    /// The endpoint's labels are not known.
    Isolated,
    /// The class let it pass.
    Passed(ClassId),
    /// The class dropped it; its drop counter rises.
    Dropped(ClassId),
}

impl Decision {
    /// Whether the packet goes on.
    #[must_use]
    pub fn passes(self) -> bool {
        matches!(self, Self::Open | Self::Passed(_))
    }
}

impl Passage {
    /// Whether the packet leaves this node or arrives at a pod of it.
    #[must_use]
    pub fn passes(&self) -> bool {
        self.egress.is_none_or(Decision::passes) && self.ingress.is_none_or(Decision::passes)
    }
}

impl fmt::Display for Passage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hook = |decision: Option<Decision>| match decision {
            Some(decision) => decision.to_string(),
            None => "not judged on this node".to_owned(),
        };
        write!(
            f,
            "egress: {}; ingress: {}",
            hook(self.egress),
            hook(self.ingress)
        )
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open => f.write_str("passed, not isolated"),
            Self::Isolated => f.write_str("dropped, labels unknown"),
            Self::Passed(class) => write!(f, "passed by class {class}"),
            Self::Dropped(class) => write!(f, "dropped by class {class}"),
        }
    }
}

/// Sends `packet` through a kernel that holds `plan`.
#[must_use]
pub fn pass(plan: &Plan, packet: &Packet) -> Passage {
    let source = endpoint(plan, packet.source);
    let destination = endpoint(plan, packet.destination);
    if let (Some((from, _)), Some((to, _))) = (source, destination)
        && from == to
    {
        return Passage {
            egress: None,
            ingress: None,
        };
    }
    let egress = source.map(|(_, endpoint)| {
        decide(
            plan,
            endpoint.egress,
            Direction::Egress,
            packet.destination,
            packet.payload,
        )
    });
    // What the node sends leaves by the output hook, where no class is asked.
    let from_this_node = identity(plan, packet.source) == IdentityId::THIS_NODE;
    let ingress = destination
        .filter(|_| !from_this_node)
        .map(|(_, endpoint)| {
            decide(
                plan,
                endpoint.ingress,
                Direction::Ingress,
                packet.source,
                packet.payload,
            )
        });
    Passage { egress, ingress }
}

/// Whether `class` allows a packet whose peer is `peer`, with the identity that the plan gives it.
#[must_use]
pub fn class_allows(class: &Class, peer: IpAddr, identity: IdentityId, payload: Payload) -> bool {
    if class.open || class.any_port.contains(&identity) {
        return true;
    }
    if let Payload::Port(protocol, port) = payload
        && (class.cells.contains(&Cell {
            identity,
            protocol,
            port,
        }) || class.any_peer.contains(&(protocol, port)))
    {
        return true;
    }
    class.chain.iter().any(|rule| {
        let peer_matches = match (&rule.peer, peer) {
            (PeerMatch::Any, _) => true,
            (PeerMatch::Identities(identities), _) => identities.contains(&identity),
            (PeerMatch::Nets4(nets), IpAddr::V4(peer)) => {
                nets.iter().any(|net| net.first <= peer && peer <= net.last)
            }
            (PeerMatch::Nets6(nets), IpAddr::V6(peer)) => {
                nets.iter().any(|net| net.first <= peer && peer <= net.last)
            }
            _ => false,
        };
        peer_matches && (rule.ports.is_empty() || rule.ports.iter().any(|p| covers(p, payload)))
    })
}

fn covers(ports: &PortMatch, payload: Payload) -> bool {
    let Payload::Port(protocol, port) = payload else {
        return false;
    };
    ports.protocol == protocol && ports.first <= port && port <= ports.last
}

fn endpoint(plan: &Plan, address: IpAddr) -> Option<(&InterfaceName, &EndpointPlan)> {
    plan.endpoints
        .iter()
        .find(|(_, endpoint)| endpoint.addresses.contains(&address))
}

fn identity(plan: &Plan, address: IpAddr) -> IdentityId {
    plan.identities
        .get(&address)
        .copied()
        .unwrap_or(IdentityId::WORLD)
}

fn decide(
    plan: &Plan,
    binding: Binding,
    direction: Direction,
    peer: IpAddr,
    payload: Payload,
) -> Decision {
    match binding {
        Binding::Open => Decision::Open,
        Binding::Isolated => Decision::Isolated,
        Binding::Class(id) => match plan.classes.get(&id) {
            Some(class)
                if class.direction == direction
                    && class_allows(class, peer, identity(plan, peer), payload) =>
            {
                Decision::Passed(id)
            }
            // A binding to a class that is not there is a broken plan; a kernel would refuse it.
            _ => Decision::Dropped(id),
        },
    }
}
