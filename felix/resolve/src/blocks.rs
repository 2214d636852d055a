//! Who holds which block and which node has which address, for judging who may announce them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::config::BlockOwner;
use caracal_crds::{BlockPhase, IpBlock, IpPool};

use crate::nodes::Speaker;
use crate::origin::{prefixes_of, subnets_of};

/// Every block that somebody holds or held lately, the nodes' addresses, and the pools' subnets for
/// what is in no block; by prefix.
pub(crate) fn owners(
    blocks: &BTreeMap<String, IpBlock>,
    pools: &BTreeMap<String, IpPool>,
    nodes: &BTreeMap<&str, Speaker<'_>>,
) -> Vec<(Prefix, Arc<BlockOwner>)> {
    let mut owners = held_blocks(blocks, nodes);
    owners.extend(addresses(nodes));
    // Nobody holds it, as far as is known: the object of a new block may be on its way to us, so it is
    // taken, but not like a holder's word.
    let unheld = Arc::new(BlockOwner {
        stale: true,
        ..BlockOwner::default()
    });
    let subnets = pools.values().flat_map(subnets_of);
    owners.extend(subnets.map(|subnet| (subnet, Arc::clone(&unheld))));
    owners.sort_by_key(|(prefix, _)| *prefix);
    // A pool may be one block: the block, which comes first, tells more.
    owners.dedup_by_key(|(prefix, _)| *prefix);
    owners
}

/// Whose the InternalIPs of the nodes are. Two Node objects have the same one for a while where a
/// machine got a new name: then it may come from either, and from nobody else.
fn addresses(nodes: &BTreeMap<&str, Speaker<'_>>) -> Vec<(Prefix, Arc<BlockOwner>)> {
    let record = |speaker: &Speaker<'_>| BlockOwner {
        node: speaker.name.to_owned(),
        router_ids: vec![speaker.identity.router_id],
        addresses: speaker.addresses.clone(),
        stale: false,
    };
    let mut by_address: BTreeMap<IpAddr, Arc<BlockOwner>> = BTreeMap::new();
    for speaker in nodes.values() {
        let own = Arc::new(record(speaker));
        for address in &speaker.addresses {
            by_address
                .entry(*address)
                .and_modify(|owner| {
                    if owner.node != own.node {
                        let owner = Arc::make_mut(owner);
                        owner.node = format!("{} or {}", owner.node, own.node);
                        owner.router_ids.extend(&own.router_ids);
                        owner.addresses.extend(&own.addresses);
                    }
                })
                .or_insert_with(|| Arc::clone(&own));
        }
    }
    let by_address = by_address.into_iter();
    by_address
        .map(|(address, owner)| (Prefix::host(address), owner))
        .collect()
}

fn held_blocks(
    blocks: &BTreeMap<String, IpBlock>,
    nodes: &BTreeMap<&str, Speaker<'_>>,
) -> Vec<(Prefix, Arc<BlockOwner>)> {
    // Blocks of one node share the record.
    let mut records: BTreeMap<(&str, bool), Arc<BlockOwner>> = BTreeMap::new();
    let mut owners = Vec::new();
    for block in blocks.values() {
        let phase = block.status.as_ref().map(|status| status.phase);
        if phase == Some(BlockPhase::Released) {
            continue;
        }
        let name = block.spec.node_name.as_str();
        let node = nodes.get(name);
        let uid = node.and_then(|node| node.node.metadata.uid.as_deref());
        // A node that is gone, or came back as another, may still be forwarding for its pods.
        let stale = phase == Some(BlockPhase::Quarantined)
            || node.is_none()
            || uid.is_some_and(|uid| uid != block.spec.node_uid);
        let record = records.entry((name, stale)).or_insert_with(|| {
            Arc::new(BlockOwner {
                node: name.to_owned(),
                router_ids: node
                    .map(|node| node.identity.router_id)
                    .into_iter()
                    .collect(),
                addresses: node.map(|node| node.addresses.clone()).unwrap_or_default(),
                stale,
            })
        });
        for prefix in prefixes_of(block) {
            owners.push((prefix, Arc::clone(record)));
        }
    }
    owners
}
