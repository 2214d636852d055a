//! Who holds which block, for judging who may announce it.

use std::collections::BTreeMap;
use std::sync::Arc;

use caracal_bgp_core::types::Prefix;
use caracal_bgp_speaker::config::BlockOwner;
use caracal_crds::{BlockPhase, IpBlock};

use crate::nodes::Speaker;
use crate::origin::prefixes_of;

/// Every block that somebody holds or held lately, by prefix.
pub(crate) fn owners(
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
    owners.sort_by_key(|(prefix, _)| *prefix);
    owners
}
