//! The sessions that a node has: those of BGPPeers, then those of the mesh.
//!
//! Owns who has which session and which policies it gets. Does not own what a session is, see
//! [`crate::session`].

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use caracal_bgp_core::types::{Asn, Family, PeerKind, Prefix, RouterId};
use caracal_bgp_speaker::config::{Endpoint, OriginCheck, PeerAs, PeerConfig, PeerName};
use caracal_crds::selector::Selector;
use caracal_crds::{BgpPeer, ReversePeering, SecretKeyRef, SourceAddress, reasons};
use k8s_openapi::api::core::v1::Node;

use crate::filters::Direction;
use crate::finding::{Findings, ObjectRef};
use crate::nodes::{Speaker, endpoints};
use crate::origin::prefix_of;
use crate::policies::{Fallback, Policies, Wanted};
use crate::resolve::Inputs;
use crate::secrets::named_by_peer;
use crate::session::{Found, Ground};

/// The labels of a node that has none, or of one that is known by name only.
static NO_LABELS: BTreeMap<String, String> = BTreeMap::new();

/// What precedes a node's name in the name of its session by `peerSelector`; no BGPPeer can be
/// called so, as names of objects have no slash.
const NODE_SEPARATOR: char = '/';

/// Sessions in the making.
pub(crate) struct Sessions<'a> {
    pub(crate) inputs: &'a Inputs<'a>,
    pub(crate) ground: &'a Ground<'a>,
    pub(crate) speakers: &'a BTreeMap<&'a str, Speaker<'a>>,
    pub(crate) policies: Policies,
    /// Whether an eBGP peer without a filter has a policy: a node's, or that of transit.
    pub(crate) has_default_policy: bool,
    /// Whether blocks are believed from their holders only.
    pub(crate) validates_origin: bool,
    pub(crate) made: BTreeMap<PeerName, PeerConfig>,
    /// Keys that they need.
    pub(crate) secrets: BTreeSet<SecretKeyRef>,
    taken: Taken,
    /// Names of nodes by InternalIP.
    by_address: BTreeMap<IpAddr, &'a str>,
}

/// What sessions have claimed already, each with the name of the first.
#[derive(Debug, Default)]
struct Taken {
    addresses: BTreeMap<SocketAddr, String>,
    hosts: BTreeMap<(IpAddr, Option<IpAddr>), String>,
    interfaces: BTreeMap<String, String>,
    ranges: BTreeMap<(Prefix, Option<IpAddr>), String>,
}

impl<'a> Sessions<'a> {
    pub(crate) fn new(
        inputs: &'a Inputs<'a>,
        ground: &'a Ground<'a>,
        speakers: &'a BTreeMap<&'a str, Speaker<'a>>,
        policies: Policies,
    ) -> Self {
        Self {
            inputs,
            ground,
            speakers,
            policies,
            has_default_policy: inputs.node().is_some() || ground.settings.transit,
            validates_origin: false,
            made: BTreeMap::new(),
            secrets: BTreeSet::new(),
            taken: Taken::default(),
            by_address: speakers
                .values()
                .flat_map(|node| node.addresses.iter().map(|address| (*address, node.name)))
                .collect(),
        }
    }

    /// Whether a session with this address is there.
    pub(crate) fn has_host(&self, address: &IpAddr) -> bool {
        self.taken
            .hosts
            .range((*address, None)..)
            .next()
            .is_some_and(|((host, _), _)| host == address)
    }

    fn asn(&self) -> Asn {
        self.ground.settings.identity.asn
    }

    fn own(&self) -> Option<&'a Speaker<'a>> {
        self.speakers.get(self.inputs.node_name)
    }

    /// Adds the sessions of the BGPPeers that select this node. Sessions with addresses come
    /// before those that selectors of peers give: what is explicit wins.
    pub(crate) fn configured(&mut self, findings: &mut Findings) {
        let inputs = self.inputs;
        let (selecting, plain): (Vec<_>, Vec<_>) = inputs
            .peers
            .iter()
            .partition(|(_, peer)| peer.spec.peer_selector.is_some());
        for (name, peer) in plain {
            let object = ObjectRef::new("BGPPeer", name);
            if self.selects(peer, &object, findings) {
                let mut found = Found {
                    object: &object,
                    findings,
                };
                self.add_plain(name, peer, &mut found);
            }
        }
        for (name, peer) in selecting {
            let object = ObjectRef::new("BGPPeer", name);
            let forward = self.selects(peer, &object, findings);
            let mut found = Found {
                object: &object,
                findings,
            };
            self.add_selected(name, peer, forward, &mut found);
        }
    }

    /// Whether the peer is this node's.
    fn selects(&self, peer: &BgpPeer, object: &ObjectRef, findings: &mut Findings) -> bool {
        let inputs = self.inputs;
        if let Some(node) = &peer.spec.node {
            let known = inputs.nodes.is_empty() || inputs.nodes.contains_key(node);
            if node != inputs.node_name && !known {
                let message = format!("there is no Node {node}");
                findings.add(object, "spec.node", reasons::REFERENCE_NOT_FOUND, message);
            }
            return node == inputs.node_name;
        }
        let Some(text) = &peer.spec.node_selector else {
            return true;
        };
        let Some(selector) = parsed(text, "spec.nodeSelector", object, findings) else {
            return false;
        };
        if !inputs.nodes.is_empty() && !inputs.nodes.values().any(|node| matches(&selector, node)) {
            let message = "no Node has labels that this selector asks for";
            findings.add(
                object,
                "spec.nodeSelector",
                reasons::MATCHES_NOTHING,
                message,
            );
        }
        match inputs.node() {
            Some(node) => matches(&selector, node),
            None => selector.matches(&NO_LABELS),
        }
    }

    /// Adds a session whose peer is named by address, interface or range.
    fn add_plain(&mut self, name: &str, peer: &BgpPeer, found: &mut Found<'_>) {
        let spec = &peer.spec;
        let port = self.ground.settings.identity.listen_port;
        let remote = if let Some(address) = spec.peer_ip {
            let remote = SocketAddr::new(address.ip, address.port.unwrap_or(port));
            // A peer for all nodes may itself be one of them, such as a reflector.
            let own = self.ground.addresses.contains(&remote.ip())
                || self.inputs.loopbacks.contains(&remote.ip());
            if own || !self.claim_address(name, remote, spec.local_address, found) {
                return;
            }
            Endpoint::Address(remote)
        } else if let Some(interface) = &spec.interface {
            let interfaces = &mut self.taken.interfaces;
            if let Some(first) = interfaces.get(interface) {
                let message = format!(
                    "BGPPeer {first} already has interface {interface}: this one is not used"
                );
                found.add("spec.interface", reasons::CONFLICTING_PEER, message);
                return;
            }
            interfaces.insert(interface.clone(), name.to_owned());
            Endpoint::Interface {
                name: interface.clone(),
                port,
            }
        } else if let Some(range) = &spec.listen_range {
            let prefixes = range.iter().filter_map(|cidr| prefix_of(*cidr));
            let prefixes: Vec<Prefix> = prefixes
                .filter(|prefix| self.claim_range(name, *prefix, spec.local_address, found))
                .collect();
            if prefixes.is_empty() {
                return;
            }
            Endpoint::Range {
                prefixes,
                limit: spec.listen_limit.unwrap_or(DEFAULT_LISTEN_LIMIT) as usize,
            }
        } else {
            let message = "names no peer: it is not used";
            found.add("spec", reasons::INVALID_SPEC, message);
            return;
        };
        let peer_as = match (spec.as_number, spec.peer_as) {
            (Some(number), _) => PeerAs::Number(Asn(number)),
            (None, Some(caracal_crds::PeerAs::Internal)) => PeerAs::Internal,
            (None, Some(caracal_crds::PeerAs::External)) => PeerAs::External,
            (None, None) => {
                let message = "names no AS: it is not used";
                found.add("spec.asNumber", reasons::INVALID_SPEC, message);
                return;
            }
        };
        let internal = peer_as.is_internal(self.asn());
        let node = remote
            .address()
            .and_then(|remote| self.node_at(remote.ip()));
        let cluster = node.filter(|_| internal).and_then(|node| node.reflects_for);
        let mut session = self.ground.session(spec, remote, peer_as, cluster, found);
        session.validate_origin = self.origin_check(internal, node);
        if node.is_some() && spec.extended_next_hop.is_none() {
            session.extended_next_hop = needs_extended_next_hop(self.ground.addresses);
        }
        self.give_policies(peer, &mut session, node.is_some(), found);
        self.secrets.extend(named_by_peer(spec).cloned());
        self.made.insert(PeerName(name.to_owned()), session);
    }

    /// How the originator of a block is told from others: it is visible on sessions with nodes. A
    /// router may bring in what nodes told it from another AS.
    fn origin_check(&self, internal: bool, node: Option<&Speaker<'_>>) -> OriginCheck {
        match node {
            Some(node) if self.validates_origin && internal => match node.reflects_for {
                None => OriginCheck::Direct,
                Some(_) => OriginCheck::Relayed,
            },
            _ => OriginCheck::Off,
        }
    }

    fn node_at(&self, address: IpAddr) -> Option<&'a Speaker<'a>> {
        self.speakers.get(self.by_address.get(&address)?)
    }

    fn claim_address(
        &mut self,
        name: &str,
        remote: SocketAddr,
        local: Option<IpAddr>,
        found: &mut Found<'_>,
    ) -> bool {
        if let Some(first) = self.taken.addresses.get(&remote) {
            let message = format!("BGPPeer {first} already names {remote}: this one is not used");
            found.add("spec.peerIP", reasons::DUPLICATE_PEER, message);
            return false;
        }
        if let Some(first) = self.taken.hosts.get(&(remote.ip(), local)) {
            // The port of one who connects says nothing.
            let message = format!(
                "BGPPeer {first} names the same address with another port: connections from {} \
                 are that one's",
                remote.ip()
            );
            found.add("spec.peerIP", reasons::CONFLICTING_PEER, message);
        } else {
            let host = (remote.ip(), local);
            self.taken.hosts.insert(host, name.to_owned());
        }
        self.taken.addresses.insert(remote, name.to_owned());
        true
    }

    fn claim_range(
        &mut self,
        name: &str,
        prefix: Prefix,
        local: Option<IpAddr>,
        found: &mut Found<'_>,
    ) -> bool {
        if let Some(first) = self.taken.ranges.get(&(prefix, local)) {
            let message = format!("BGPPeer {first} already has range {prefix}");
            found.add("spec.listenRange", reasons::CONFLICTING_PEER, message);
            return false;
        }
        let range = (prefix, local);
        self.taken.ranges.insert(range, name.to_owned());
        true
    }

    /// Adds the sessions of a BGPPeer whose peers are nodes: with those that its selector of peers
    /// matches if it is ours (`forward`), and back to those whose it is, if we are matched.
    fn add_selected(&mut self, name: &str, peer: &BgpPeer, forward: bool, found: &mut Found<'_>) {
        let text = peer.spec.peer_selector.as_deref().unwrap_or_default();
        let field = "spec.peerSelector";
        let Some(selector) = parsed(text, field, found.object, found.findings) else {
            return;
        };
        let speakers = self.speakers;
        let selected: Vec<&Speaker<'_>> = speakers
            .values()
            .filter(|speaker| matches(&selector, speaker.node))
            .collect();
        if selected.is_empty() {
            let message = "no Node has labels that this selector asks for";
            found.add(field, reasons::MATCHES_NOTHING, message);
            return;
        }
        let Some(own) = self.own() else {
            if forward {
                let message = "there is no Node object of this speaker, and so no address to peer \
                               with nodes from";
                found.add(field, reasons::REFERENCE_NOT_FOUND, message);
            }
            return;
        };
        if forward {
            for other in &selected {
                self.add_node(name, peer, own, other, true, found);
            }
        }
        let answers = peer.spec.reverse_peering.unwrap_or_default() == ReversePeering::Auto;
        if answers && selected.iter().any(|speaker| speaker.name == own.name) {
            for other in speakers.values().filter(owners(peer)) {
                self.add_node(name, peer, own, other, false, found);
            }
        }
    }

    fn add_node(
        &mut self,
        name: &str,
        peer: &BgpPeer,
        own: &Speaker<'_>,
        other: &Speaker<'a>,
        forward: bool,
        found: &mut Found<'_>,
    ) {
        if other.name == own.name || other.addresses.iter().any(|ip| self.has_host(ip)) {
            return;
        }
        let Some((local, remote, shared)) = endpoints(&own.addresses, &other.addresses) else {
            let message = format!(
                "Node {} has no address of a family that we have",
                other.name
            );
            found.add("spec.peerSelector", reasons::REFERENCE_NOT_FOUND, message);
            return;
        };
        let remote = SocketAddr::new(remote, other.identity.listen_port);
        let peer_as = PeerAs::Number(other.identity.asn);
        let cluster = other.reflects_for;
        let mut session = self.ground.session(
            &peer.spec,
            Endpoint::Address(remote),
            peer_as,
            cluster,
            found,
        );
        let by_kernel = peer.spec.source_address == Some(SourceAddress::None);
        session.local_address = Some(local).filter(|_| !by_kernel);
        if peer.spec.extended_next_hop.is_none() {
            session.extended_next_hop = needs_extended_next_hop(&own.addresses);
        }
        // IPv4 where both have IPv4, IPv6 where both have IPv6, as in Calico, on one session.
        session.families.retain(|family| {
            shared.contains(family) || *family == Family::Ipv4Unicast && session.extended_next_hop
        });
        name_own_addresses(&mut session, &own.addresses);
        let answers = peer.spec.reverse_peering.unwrap_or_default() == ReversePeering::Auto;
        session.passive = match (answers, peer.spec.passive) {
            // Those that use the peer wait, so those that answer dial.
            (true, true) => forward,
            // One dialler per pair, the lower address, compared as a number: both sides come to
            // the same answer, and nothing collides.
            (true, false) => local > remote.ip(),
            (false, passive) => passive,
        };
        let internal = peer_as.is_internal(self.asn());
        session.validate_origin = self.origin_check(internal, Some(other));
        self.give_policies(peer, &mut session, true, found);
        self.secrets.extend(named_by_peer(&peer.spec).cloned());
        let first = format!("{name}{NODE_SEPARATOR}{}", other.name);
        self.claim_node(&other.addresses, &first);
        self.made.insert(PeerName(first), session);
    }

    /// Keeps a node's addresses from being peered with twice.
    pub(crate) fn claim_node(&mut self, addresses: &[IpAddr], name: &str) {
        for address in addresses {
            let host = (*address, None);
            self.taken.hosts.insert(host, name.to_owned());
        }
    }

    /// Gives a session of a BGPPeer its policies. `node`: its peer is a node of the cluster.
    fn give_policies(
        &mut self,
        peer: &BgpPeer,
        session: &mut PeerConfig,
        node: bool,
        found: &mut Found<'_>,
    ) {
        for (index, name) in peer.spec.filters.iter().enumerate() {
            if !self.policies.has_filter(name) {
                let field = format!("spec.filters[{index}]");
                let message = format!("there is no BGPFilter {name}: nothing passes beyond it");
                found.add(&field, reasons::MISSING_FILTER, message);
            }
        }
        let internal = session.peer_as.is_internal(self.asn());
        // RFC 8212 is about external sessions; a peer may ask for the same within an AS.
        let require_filters = peer
            .spec
            .require_filters
            .unwrap_or(self.ground.settings.require_filters && !internal);
        let settings = self.ground.settings;
        // The speaker as a whole has no other way itself, so it takes what it is told as ever.
        let drain = [peer.spec.drain, session.draining.is_some()];
        let mut absent = BTreeMap::new();
        for (direction, drain) in Direction::BOTH.into_iter().zip(drain) {
            let fallback = match direction {
                Direction::Import if node => Fallback::PoolsAndNodes,
                _ if !internal && !node && !self.has_default_policy => Fallback::Absent,
                Direction::Export if !internal && !settings.transit => Fallback::OwnRoutes,
                Direction::Import | Direction::Export => Fallback::Accept,
            };
            let made = self.policies.make(Wanted {
                direction,
                kind: kind(internal),
                families: session.families.iter().copied().collect(),
                filters: peer.spec.filters.clone(),
                fallback,
                require_filters,
                drain,
            });
            match direction {
                Direction::Import => session.import = Arc::clone(&made.policy),
                Direction::Export => session.export = Arc::clone(&made.policy),
            }
            if !made.absent.is_empty() {
                absent.insert(direction, made.absent);
            }
        }
        if !absent.is_empty() {
            let message = no_policy(&absent, require_filters);
            found.add("spec.filters", reasons::NO_POLICY, message);
        }
    }

    /// Gives a mesh session its policies.
    pub(crate) fn give_mesh_policies(&mut self, session: &mut PeerConfig) {
        let internal = session.peer_as.is_internal(self.asn());
        let mut make = |direction, fallback, drain| {
            let made = self.policies.make(Wanted {
                direction,
                kind: kind(internal),
                families: session.families.iter().copied().collect(),
                filters: Vec::new(),
                fallback,
                require_filters: false,
                drain,
            });
            made.policy
        };
        let settings = self.ground.settings;
        let told = if internal || settings.transit {
            Fallback::Accept
        } else {
            Fallback::OwnRoutes
        };
        let import = make(Direction::Import, Fallback::PoolsAndNodes, false);
        let export = make(Direction::Export, told, session.draining.is_some());
        (session.import, session.export) = (import, export);
    }

    /// Whether any session reflects.
    pub(crate) fn reflects(&self) -> bool {
        self.made
            .values()
            .any(|session| session.route_reflector_client)
    }

    /// The cluster of this node by its label.
    pub(crate) fn cluster(&self) -> Option<RouterId> {
        self.ground.reflects_for
    }
}

/// FRR's default, which holds for those who come from there.
const DEFAULT_LISTEN_LIMIT: u32 = 100;

fn kind(internal: bool) -> PeerKind {
    if internal {
        PeerKind::Internal
    } else {
        PeerKind::External
    }
}

fn matches(selector: &Selector, node: &Node) -> bool {
    selector.matches(node.metadata.labels.as_ref().unwrap_or(&NO_LABELS))
}

/// Whose the BGPPeer is; whether its selector parses has been found before.
fn owners<'s, 'a: 's>(peer: &'s BgpPeer) -> impl Fn(&&'s Speaker<'a>) -> bool {
    let selector = match (&peer.spec.node, &peer.spec.node_selector) {
        (None, Some(text)) => text.parse::<Selector>().ok(),
        (None, None) => Some(Selector::all()),
        (Some(_), _) => None,
    };
    move |other| {
        peer.spec.node.as_deref() == Some(other.name)
            || selector
                .as_ref()
                .is_some_and(|selector| matches(selector, other.node))
    }
}

fn parsed(
    text: &str,
    field: &str,
    object: &ObjectRef,
    findings: &mut Findings,
) -> Option<Selector> {
    let error = match text.parse() {
        Ok(selector) => return Some(selector),
        Err(error) => error,
    };
    let message = format!("{error}: the peer is not used");
    findings.add(object, field, reasons::INVALID_SELECTOR, message);
    None
}

/// Whether a node with the addresses `own` takes IPv6 next hops for IPv4 from other nodes and names its
/// own (RFC 8950): without IPv4 beneath, its pods have IPv4 all the same. One that has it would name that.
pub(crate) fn needs_extended_next_hop(own: &[IpAddr]) -> bool {
    !own.is_empty() && own.iter().all(IpAddr::is_ipv6)
}

/// Names the node's addresses as next hops, whichever family the session runs over.
pub(crate) fn name_own_addresses(session: &mut PeerConfig, own: &[IpAddr]) {
    session.next_hop_v4 = own.iter().find_map(|address| match address {
        IpAddr::V4(address) => Some(*address),
        IpAddr::V6(_) => None,
    });
    session.next_hop_v6 = own.iter().find_map(|address| match address {
        IpAddr::V6(address) => Some(*address),
        IpAddr::V4(_) => None,
    });
}

fn no_policy(absent: &BTreeMap<Direction, Vec<Family>>, required: bool) -> String {
    let list = |families: &[Family]| {
        let names: Vec<String> = families.iter().map(ToString::to_string).collect();
        names.join(" and ")
    };
    let parts: Vec<String> = absent
        .iter()
        .map(|(direction, families)| match direction {
            Direction::Import => format!("nothing is taken in {}", list(families)),
            Direction::Export => format!("nothing is told in {}", list(families)),
        })
        .collect();
    let why = if required {
        "filters are required and none has a rule for it"
    } else {
        "no filter has a rule for it, and neither transit nor a Node object gives a default policy"
    };
    format!("{}: {why} (RFC 8212)", parts.join(", "))
}
