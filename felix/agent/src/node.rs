//! What the agent has to know of its own node.

use std::collections::BTreeSet;
use std::net::IpAddr;

use caracal_fib::{Rtnl, link};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt;
use tracing::warn;

use crate::world::{Key, World};

/// The node as its object and its kernel show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct NodeFacts {
    /// `metadata.uid`; empty while there is no object.
    pub(crate) uid: String,
    /// Every address that the object lists.
    pub(crate) addresses: BTreeSet<IpAddr>,
    /// The InternalIPs that sit on the loopback: only those may be announced, because only those
    /// stay reachable whichever link fails.
    pub(crate) loopbacks: BTreeSet<IpAddr>,
}

impl NodeFacts {
    /// Reads the object of `name`; `on_loopback` holds the addresses of `lo`.
    pub(crate) fn of(world: &World, name: &str, on_loopback: &BTreeSet<IpAddr>) -> NodeFacts {
        let Some(node) = world.nodes.get(&Key::cluster(name)) else {
            return NodeFacts::default();
        };
        let listed = node
            .status
            .iter()
            .flat_map(|status| status.addresses.iter().flatten());
        let mut facts = NodeFacts {
            uid: node.uid().unwrap_or_default(),
            ..NodeFacts::default()
        };
        for entry in listed {
            let Ok(address) = entry.address.parse::<IpAddr>() else {
                continue;
            };
            facts.addresses.insert(address);
            if entry.type_ == "InternalIP" && on_loopback.contains(&address) {
                facts.loopbacks.insert(address);
            }
        }
        facts
    }

    /// The owner of what the agent creates, so that it goes with the node.
    pub(crate) fn owner(&self, name: &str) -> Option<OwnerReference> {
        (!self.uid.is_empty()).then(|| OwnerReference {
            api_version: "v1".into(),
            kind: "Node".into(),
            name: name.into(),
            uid: self.uid.clone(),
            ..OwnerReference::default()
        })
    }
}

/// The addresses of `lo`, without those of the loopback networks themselves.
pub(crate) fn loopback_addresses(rtnl: &mut Rtnl) -> BTreeSet<IpAddr> {
    let found = link::expect(rtnl, "lo").and_then(|lo| {
        let all = link::addresses(rtnl)?;
        Ok(all
            .into_iter()
            .filter(move |address| address.interface == lo.index))
    });
    match found {
        Ok(found) => found
            .map(|it| it.address)
            .filter(|it| !it.is_loopback())
            .collect(),
        Err(error) => {
            warn!(%error, "cannot read the loopback's addresses");
            BTreeSet::new()
        }
    }
}

/// The largest packet that every uplink takes: the smallest MTU among the links that are neither
/// the loopback nor pods'. None where there is no such link.
pub(crate) fn fabric_mtu(rtnl: &mut Rtnl, pod_link_prefix: &str) -> Option<u32> {
    match link::list(rtnl) {
        Ok(links) => links
            .iter()
            .filter(|link| link.up && link.mac.is_some())
            .filter(|link| link.name != "lo" && !link.name.starts_with(pod_link_prefix))
            .map(|link| link.mtu)
            .min(),
        Err(error) => {
            warn!(%error, "cannot read the links' MTU");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::world::{Change, TableChange};

    #[test]
    fn only_internal_addresses_on_the_loopback_are_announced() {
        let mut world = World::default();
        let node = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "n1", "uid": "u"},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "10.250.0.1"},
                {"type": "InternalIP", "address": "192.168.0.1"},
                {"type": "ExternalIP", "address": "fd00::1"},
                {"type": "Hostname", "address": "n1"},
            ]},
        }))
        .unwrap();
        world.apply(Change::Node(TableChange::Listed(vec![node])));
        let address = |text: &str| text.parse::<IpAddr>().unwrap();
        let lo = [address("10.250.0.1"), address("fd00::1")].into();
        let facts = NodeFacts::of(&world, "n1", &lo);
        assert_eq!(facts.loopbacks, [address("10.250.0.1")].into());
        assert_eq!(facts.addresses.len(), 3);
        assert_eq!(NodeFacts::of(&world, "n2", &lo), NodeFacts::default());
    }
}
