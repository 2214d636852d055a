//! Who an address belongs to.
//!
//! Owns the list of claims on each address: nodes, endpoints of this node, and pod objects. Several may
//! claim one address for a while, when it is given again while the object of its former owner remains;
//! this decides who counts. Does not own the objects, they are looked up in the world.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::model::{Endpoint, Pod, PodName, World};
use crate::plan::InterfaceName;

/// One reason to think that an address belongs to someone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Claim {
    Node(String),
    Endpoint(InterfaceName),
    Pod(PodName),
}

/// The owner of an address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Owner<'a> {
    /// Nobody known, or a pod whose labels are not known.
    Nobody,
    ThisNode,
    OtherNode,
    Pod(&'a Pod),
}

/// Claims by address.
#[derive(Clone, Debug, Default)]
pub(super) struct AddressTable(BTreeMap<IpAddr, BTreeSet<Claim>>);

impl AddressTable {
    pub(super) fn claim(&mut self, address: IpAddr, claim: Claim) {
        self.0.entry(address).or_default().insert(claim);
    }

    pub(super) fn withdraw(&mut self, address: IpAddr, claim: &Claim) {
        if let Some(claims) = self.0.get_mut(&address) {
            claims.remove(claim);
            if claims.is_empty() {
                self.0.remove(&address);
            }
        }
    }

    /// Whose address it is. A node's address is never a pod's, whatever objects say; an endpoint of this
    /// node is certain knowledge; among pod objects the newest wins, because an address is given again
    /// only after it was taken back.
    pub(super) fn owner<'a>(&self, world: &'a World, address: IpAddr) -> Owner<'a> {
        let Some(claims) = self.0.get(&address) else {
            return Owner::Nobody;
        };
        let mut other_node = false;
        let mut endpoint: Option<Owner<'a>> = None;
        let mut newest: Option<&'a Pod> = None;
        for claim in claims {
            match claim {
                Claim::Node(name) if *name == world.this_node => return Owner::ThisNode,
                Claim::Node(_) => other_node = true,
                Claim::Endpoint(interface) => {
                    let pod = world
                        .endpoints
                        .get(interface)
                        .map(|e| labelled_pod(world, e));
                    endpoint = endpoint.or(match pod {
                        // The pod has ended: its address may already be someone else's.
                        Some(Some(pod)) if pod.terminated => None,
                        Some(Some(pod)) => Some(Owner::Pod(pod)),
                        Some(None) => Some(Owner::Nobody),
                        None => None,
                    });
                }
                Claim::Pod(name) => {
                    newest = newest
                        .into_iter()
                        .chain(world.pods.get(name))
                        .max_by_key(|pod| (pod.created, &pod.uid, &pod.name));
                }
            }
        }
        match (other_node, endpoint, newest) {
            (true, _, _) => Owner::OtherNode,
            (false, Some(owner), _) => owner,
            (false, None, Some(pod)) => Owner::Pod(pod),
            (false, None, None) => Owner::Nobody,
        }
    }
}

/// The addresses that a pod's object claims: none if it has ended, and none on the host network, where
/// the addresses are the node's.
pub(super) fn claimed_by(pod: &Pod) -> impl Iterator<Item = IpAddr> + '_ {
    let claims = !pod.terminated && !pod.host_network;
    pod.addresses.iter().copied().filter(move |_| claims)
}

/// The pod that `endpoint` was made for, if its object is known. A namesake with another UID is another
/// pod, whose labels say nothing about this one.
pub(super) fn labelled_pod<'a>(world: &'a World, endpoint: &Endpoint) -> Option<&'a Pod> {
    let pod = world.pods.get(&endpoint.pod)?;
    endpoint
        .pod_uid
        .as_ref()
        .is_none_or(|uid| *uid == pod.uid)
        .then_some(pod)
}
