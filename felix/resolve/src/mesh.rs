//! The node-to-node mesh: one session with every other node, but for route reflectors.

use std::net::SocketAddr;

use caracal_bgp_core::policy::PrefixMatch;
use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::config::{Activation, Auth, Endpoint, OriginCheck, PeerAs, PeerName};

use crate::finding::{Findings, ObjectRef};
use crate::nodes::endpoints;
use crate::origin::subnets_of;
use crate::peers::{Sessions, name_own_addresses, needs_extended_next_hop};
use crate::resolve::{Inputs, internal_ips};
use crate::secrets::{Missing, named_by_mesh};
use crate::session::Found;
use crate::settings::DEFAULT;

/// What precedes a node's name in the name of its mesh session; no BGPPeer can be called so, as
/// names of objects have no colon.
const MESH_PREFIX: &str = "mesh:";

/// Adds a session with every other node, unless a BGPPeer names its address already.
pub(crate) fn add(sessions: &mut Sessions<'_>, findings: &mut Findings) {
    // As in Calico, reflectors have their sessions by BGPPeers alone.
    if sessions.cluster().is_some() {
        return;
    }
    let ground = sessions.ground;
    let settings = ground.settings;
    let object = ObjectRef::new("BGPConfiguration", DEFAULT);
    let mut found = Found {
        object: &object,
        findings,
    };
    let (password, bfd) = (settings.mesh_password.as_ref(), settings.mesh_bfd.as_ref());
    let named = named_by_mesh(password, bfd).cloned();
    sessions.secrets.extend(named);
    let mut activation = Activation::Run;
    let mut hold = |field, missing: Missing| found.hold(&mut activation, field, missing);
    let authentication = password.map_or(Auth::None, |source| {
        ground
            .md5(&source.secret_key_ref)
            .unwrap_or_else(|missing| {
                hold("spec.nodeMeshPassword", missing);
                Auth::None
            })
    });
    let bfd = bfd.and_then(|bfd| {
        let config = ground.bfd_config(bfd, true);
        config
            .map_err(|missing| hold("spec.nodeMeshBfd.password", missing))
            .ok()
            .flatten()
    });
    let speakers = sessions.speakers;
    for (name, other) in speakers {
        if *name == sessions.inputs.node_name
            || other.reflects_for.is_some()
            || !other.identity.mesh
        {
            continue;
        }
        let Some((local, remote, _)) = endpoints(ground.addresses, &other.addresses) else {
            continue;
        };
        if other.addresses.iter().any(|ip| sessions.has_host(ip)) {
            continue;
        }
        let remote = SocketAddr::new(remote, other.identity.listen_port);
        let peer_as = PeerAs::Number(other.identity.asn);
        let mut session = ground.plain(Endpoint::Address(remote), peer_as);
        session.local_address = Some(local);
        session.extended_next_hop = needs_extended_next_hop(ground.addresses);
        // One dialler per pair, the lower address, compared as a number: both sides come to the
        // same answer, and nothing collides.
        session.passive = local > remote.ip();
        session.activation = activation.clone();
        session.authentication = authentication.clone();
        session.bfd = bfd.clone();
        session.restart_time = settings.mesh_restart_time;
        session.validate_origin = if sessions.validates_origin {
            OriginCheck::Direct
        } else {
            OriginCheck::Off
        };
        name_own_addresses(&mut session, ground.addresses);
        sessions.give_mesh_policies(&mut session);
        let name = format!("{MESH_PREFIX}{name}");
        sessions.claim_node(&other.addresses, &name);
        sessions.made.insert(PeerName(name), session);
    }
}

/// What nodes may say: prefixes of the pools and addresses of nodes.
pub(crate) fn pools_and_nodes(inputs: &Inputs<'_>) -> Vec<PrefixMatch> {
    let pools = inputs.pools.values().flat_map(subnets_of);
    let nodes = inputs.nodes.values().flat_map(internal_ips);
    let mut accepted: Vec<PrefixMatch> = pools.map(PrefixMatch::orlonger).collect();
    accepted.extend(nodes.map(|address| PrefixMatch::exact(Prefix::host(address))));
    accepted
}
