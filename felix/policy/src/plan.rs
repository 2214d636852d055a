//! What the kernel of one node must hold so that NetworkPolicy is enforced there.
//!
//! Owns the vocabulary between the compiler and the renderer: identities, classes, cells, endpoint
//! bindings, the whole [`Plan`] and the smallest change between two of them, [`PlanDelta`]. Does not
//! own how a plan is computed, nor how it is written into nftables.
//!
//! How a packet is judged, for the first packet of a flow (replies follow conntrack):
//!
//! 1. The endpoint is found by its interface: the interface a packet came from for egress, the one
//!    it leaves by for ingress. An interface that no endpoint has is dropped.
//! 2. [`Binding::Open`] lets it pass, [`Binding::Isolated`] drops it, [`Binding::Class`] asks the class.
//! 3. The *peer* address (destination for egress, source for ingress) gives an identity through
//!    [`Plan::identities`]; an address that is not there is [`IdentityId::WORLD`].
//! 4. The class allows the packet if any of its parts does, see [`Class`]. Otherwise it is dropped
//!    and counted against the class, whose [`Class::policies`] name who isolates the pod.
//!
//! A packet between two pods of the node passes egress of the one and then ingress of the other, so
//! "allowed" always means "allowed in this direction". Packets that the node itself sends to its pods
//! are not judged: the node may always reach its own pods. What a pod sends to its own address never
//! leaves it; what it sends to itself by way of a Service does, and is judged like any other packet.

mod delta;
mod names;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub use delta::{ClassDelta, PlanDelta};
pub use names::{
    ClassId, Direction, IdentityId, InterfaceName, InterfaceNameError, PolicyName, Protocol,
};

/// The whole desired state of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Identity of each peer address. Addresses whose identity is [`IdentityId::WORLD`] are left out:
    /// that is what a lookup that misses means.
    pub identities: BTreeMap<IpAddr, IdentityId>,
    /// Every class that at least one endpoint is bound to, and no other.
    pub classes: BTreeMap<ClassId, Class>,
    /// Every local endpoint by its host-side interface.
    pub endpoints: BTreeMap<InterfaceName, EndpointPlan>,
}

/// A distinct ordered list of policies in one direction, shared by all endpoints it applies to.
///
/// The parts are alternatives: a packet is allowed if `open`, or `cells` has its (identity, protocol,
/// port), or `any_port` has its identity (then every protocol passes, ICMP included), or `any_peer`
/// has its (protocol, port), or a rule of `chain` matches. Parts never contradict one another, so the
/// order of lookups is the renderer's choice; cheapest first is cells, `any_port`, `any_peer`, chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Class {
    /// Whether the class judges packets to the pod or from it.
    pub direction: Direction,
    /// The policies that isolate the pods of this class, in order of name: what a drop is attributed to.
    pub policies: Vec<PolicyName>,
    /// Exact allowances. Never holds a cell that `any_port`, `any_peer` or `open` makes redundant.
    pub cells: BTreeSet<Cell>,
    /// Identities allowed on every port of every protocol.
    pub any_port: BTreeSet<IdentityId>,
    /// Ports allowed from or to every address.
    pub any_peer: BTreeSet<(Protocol, u16)>,
    /// Everything is allowed. All other parts are then empty. The class is kept all the same (rather
    /// than [`Binding::Open`]) because the pod *is* selected by policies and `explain` says by which.
    pub open: bool,
    /// What does not flatten to cells: address ranges, long port ranges, classes beyond the cell cap.
    /// No two rules have the same kind of peer and the same ports, so a rule keeps its place in a diff
    /// while the members of its peer set change. Sorted.
    pub chain: Vec<ChainRule>,
}

impl Class {
    /// A class that allows nothing yet.
    #[must_use]
    pub fn denying(direction: Direction, policies: Vec<PolicyName>) -> Self {
        Self {
            direction,
            policies,
            cells: BTreeSet::new(),
            any_port: BTreeSet::new(),
            any_peer: BTreeSet::new(),
            open: false,
            chain: Vec::new(),
        }
    }
}

/// One exact allowance of a class. Ordered by identity first, so the cells of an identity are adjacent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cell {
    /// Who the peer is.
    pub identity: IdentityId,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Destination port, of the pod for ingress, of the peer for egress.
    pub port: u16,
}

/// One allowance that is matched in turn rather than looked up.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChainRule {
    /// Destination ports. Empty means every protocol and every port, ICMP included. Otherwise disjoint,
    /// not adjacent, sorted; a packet must match one of them.
    pub ports: Vec<PortMatch>,
    /// Which peers.
    pub peer: PeerMatch,
}

/// The peers of a [`ChainRule`]. Address ranges are of one family each; a packet of the other family
/// does not match.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerMatch {
    /// Every peer of both families.
    Any,
    /// Peers whose identity is in the set. Never empty.
    Identities(BTreeSet<IdentityId>),
    /// IPv4 peers inside one of the ranges: disjoint, not adjacent, sorted, never empty.
    Nets4(Vec<AddressRange<Ipv4Addr>>),
    /// IPv6 peers inside one of the ranges: disjoint, not adjacent, sorted, never empty.
    Nets6(Vec<AddressRange<Ipv6Addr>>),
}

/// Addresses from `first` to `last`, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AddressRange<A> {
    /// Lowest address.
    pub first: A,
    /// Highest address, not below `first`.
    pub last: A,
}

/// Destination ports `first` to `last` of one protocol, both included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortMatch {
    /// Transport protocol.
    pub protocol: Protocol,
    /// Lowest port.
    pub first: u16,
    /// Highest port, not below `first`. 0 to 65535 means the whole protocol.
    pub last: u16,
}

/// What one local endpoint needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointPlan {
    /// The addresses the pod owns; packets from it with another source are dropped.
    pub addresses: BTreeSet<IpAddr>,
    /// How packets to the pod are judged.
    pub ingress: Binding,
    /// How packets from the pod are judged.
    pub egress: Binding,
}

/// How packets of one endpoint and direction are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Binding {
    /// No policy selects the pod in this direction: everything passes.
    Open,
    /// The class decides.
    Class(ClassId),
    /// The pod's labels are not known: nothing passes, except from its own node.
    Isolated,
}
