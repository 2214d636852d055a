//! Nodes as speakers of the cluster.
//!
//! Owns what a Node object says about its speaker. Does not own sessions.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use caracal_bgp_core::types::{Family, RouterId};
use caracal_crds::{BgpConfiguration, ROUTE_REFLECTOR_CLUSTER_ID, reasons};
use k8s_openapi::api::core::v1::Node;

use crate::finding::{Findings, ObjectRef};
use crate::resolve::internal_ips;
use crate::settings::Identity;

/// A node of the cluster.
#[derive(Clone, Debug)]
pub(crate) struct Speaker<'a> {
    pub(crate) name: &'a str,
    pub(crate) node: &'a Node,
    /// InternalIPs.
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) identity: Identity,
    /// The cluster that it reflects for.
    pub(crate) reflects_for: Option<RouterId>,
}

/// Every node, by name.
pub(crate) fn speakers<'a>(
    nodes: &'a BTreeMap<String, Node>,
    configurations: &BTreeMap<String, BgpConfiguration>,
    findings: &mut Findings,
) -> BTreeMap<&'a str, Speaker<'a>> {
    let speaker = |(name, node): (&'a String, &'a Node)| {
        let addresses = internal_ips(node);
        let speaker = Speaker {
            name,
            node,
            identity: Identity::of(name, &addresses, configurations),
            addresses,
            reflects_for: reflects_for(name, node, findings),
        };
        (name.as_str(), speaker)
    };
    nodes.iter().map(speaker).collect()
}

/// The cluster of a route reflector, from its label or annotation.
fn reflects_for(name: &str, node: &Node, findings: &mut Findings) -> Option<RouterId> {
    let found = |map: &Option<BTreeMap<String, String>>| {
        map.as_ref()?.get(ROUTE_REFLECTOR_CLUSTER_ID).cloned()
    };
    let label = found(&node.metadata.labels).map(|text| ("metadata.labels", text));
    let (place, text) =
        label.or_else(|| Some(("metadata.annotations", found(&node.metadata.annotations)?)))?;
    match text.parse::<Ipv4Addr>() {
        Ok(address) if !address.is_unspecified() => Some(address.into()),
        _ => {
            let message = format!(
                "'{text}' in {ROUTE_REFLECTOR_CLUSTER_ID} is no cluster identifier such as \
                 10.0.0.1: the node is no route reflector"
            );
            let object = ObjectRef::new("Node", name);
            findings.add(&object, place, reasons::INVALID_SPEC, message);
            None
        }
    }
}

/// Addresses of one family for both ends of a session, IPv4 where both have it, and the families
/// that both have an address of.
pub(crate) fn endpoints(
    own: &[IpAddr],
    theirs: &[IpAddr],
) -> Option<(IpAddr, IpAddr, Vec<Family>)> {
    let of = |addresses: &[IpAddr], family| {
        let mut addresses = addresses.iter().copied();
        addresses.find(|address| Family::of(*address) == family)
    };
    let shared: Vec<(Family, IpAddr, IpAddr)> = Family::ALL
        .into_iter()
        .filter_map(|family| Some((family, of(own, family)?, of(theirs, family)?)))
        .collect();
    let (_, local, remote) = *shared.first()?;
    let families = shared.iter().map(|(family, ..)| *family).collect();
    Some((local, remote, families))
}
