//! Between objects and the allocator's types.

use std::time::Duration;

use caracal_crds as crds;
use caracal_crds::selector::{InvalidSelector, Selector};
use caracal_ipam_core::controller::{HeldBlock, Phase, Pool, Request, Version};
use caracal_ipam_core::{Block, BlockId, Layout, Moment, Range, Subnet};
use ipnetwork::{Ipv4Network, Ipv6Network};
use kube::ResourceExt;

/// Why an object cannot be used. Its conditions tell it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The subnets do not divide into blocks.
    #[error("cannot divide the subnets of pool {pool} into blocks")]
    Layout {
        /// Name of the pool.
        pool: String,
        /// What is wrong with them.
        #[source]
        source: caracal_ipam_core::Error,
    },
    /// A selector does not parse.
    #[error("cannot read {field} of pool {pool}")]
    Selector {
        /// Name of the pool.
        pool: String,
        /// Which of its selectors.
        field: &'static str,
        /// Where it goes wrong.
        #[source]
        source: InvalidSelector,
    },
    /// A block without addresses, or with families of different size.
    #[error("block {block} has no addresses, or differently many of each family")]
    BlockAddresses {
        /// Name of the block.
        block: String,
    },
}

/// A pool and whom it serves.
#[derive(Debug)]
pub(crate) struct SelectivePool {
    pub(crate) pool: Pool,
    pub(crate) nodes: Selector,
}

pub(crate) fn pool(object: &crds::IpPool) -> Result<SelectivePool, Error> {
    let name = object.name_any();
    let spec = &object.spec;
    let selector = |field, text: &str| {
        text.parse::<Selector>().map_err(|source| Error::Selector {
            pool: name.clone(),
            field,
            source,
        })
    };
    let nodes = selector("spec.nodeSelector", &spec.node_selector)?;
    selector("spec.namespaceSelector", &spec.namespace_selector)?;
    let subnets = spec
        .subnets
        .iter()
        .map(|subnet| Subnet {
            ipv4: subnet.ipv4.map(|net| (net.ip(), net.prefix())),
            ipv6: subnet.ipv6.map(|net| (net.ip(), net.prefix())),
            active: subnet.state == crds::SubnetState::Active,
        })
        .collect();
    let layout = Layout::new(subnets, spec.block_bits).map_err(|source| Error::Layout {
        pool: name.clone(),
        source,
    })?;
    let for_pods = spec.uses.contains(&crds::PoolUse::Pod);
    let pool = Pool {
        layout,
        reserved: spec
            .reserved
            .iter()
            .map(|r| Range {
                first: r.first(),
                last: r.last(),
            })
            .collect(),
        cooldown: Duration::from_secs(spec.cooldown_seconds.into()),
        max_blocks_per_node: spec.max_blocks_per_node,
        grants: for_pods && !spec.disabled && object.metadata.deletion_timestamp.is_none(),
        created: created(&object.metadata),
    };
    Ok(SelectivePool { pool, nodes })
}

/// `first_released` is when this controller first saw the block released: the rest is counted on
/// its own clock, not on the agent's.
pub(crate) fn block(
    object: &crds::IpBlock,
    first_released: Moment,
) -> Result<(BlockId, HeldBlock), Error> {
    let spec = &object.spec;
    let addresses = addresses(spec.ipv4, spec.ipv6).ok_or_else(|| Error::BlockAddresses {
        block: object.name_any(),
    })?;
    let phase = match object.phase() {
        crds::BlockPhase::Offered => Phase::Offered,
        crds::BlockPhase::Active => Phase::Active,
        crds::BlockPhase::Draining => Phase::Draining,
        crds::BlockPhase::Released => Phase::Released,
        crds::BlockPhase::Quarantined => Phase::Quarantined,
    };
    let stated = object
        .status
        .as_ref()
        .and_then(|status| status.since.as_ref())
        .map(moment);
    let since = match phase {
        Phase::Released => first_released,
        _ => stated.unwrap_or(first_released),
    };
    let held = HeldBlock {
        version: version(object),
        block: addresses,
        node: spec.node_name.as_str().into(),
        node_uid: spec.node_uid.as_str().into(),
        epoch: u64::try_from(spec.epoch).unwrap_or(0),
        request_generation: u64::try_from(spec.request_generation).unwrap_or(0),
        drain: spec.drain,
        phase,
        since,
        created: created(&object.metadata),
    };
    Ok((
        BlockId {
            pool: spec.pool.as_str().into(),
            index: spec.index,
        },
        held,
    ))
}

/// What a write to the block is conditional on.
pub(crate) fn version(object: &crds::IpBlock) -> Version {
    Version {
        uid: object.uid().unwrap_or_default(),
        resource_version: object.resource_version().unwrap_or_default(),
    }
}

pub(crate) fn request(object: &crds::IpBlockRequest) -> Request {
    let status = object.status.as_ref();
    let granted = status
        .filter(|status| crds::conditions::holds(&status.conditions, crds::conditions::GRANTED))
        .and_then(|status| status.observed_generation);
    Request {
        node_uid: object.spec.node_uid.as_str().into(),
        generation: u64::try_from(object.spec.generation).unwrap_or(0),
        want: object.spec.want,
        granted: granted.and_then(|generation| u64::try_from(generation).ok()),
    }
}

/// The prefixes of a block, for its object.
pub(crate) fn prefixes(block: &Block) -> (Option<Ipv4Network>, Option<Ipv6Network>) {
    let ipv4 = block
        .ipv4
        .and_then(|base| Ipv4Network::new(base, 32 - block.bits).ok());
    let ipv6 = block
        .ipv6
        .and_then(|base| Ipv6Network::new(base, 128 - block.bits).ok());
    (ipv4, ipv6)
}

fn addresses(ipv4: Option<Ipv4Network>, ipv6: Option<Ipv6Network>) -> Option<Block> {
    let bits = match (
        ipv4.map(|net| 32 - net.prefix()),
        ipv6.map(|net| 128 - net.prefix()),
    ) {
        (Some(a), Some(b)) if a != b => return None,
        (Some(bits), _) | (None, Some(bits)) => bits,
        (None, None) => return None,
    };
    // A block larger than any that is ever made would overflow positions.
    (bits <= 16).then(|| Block {
        ipv4: ipv4.map(|net| net.network()),
        ipv6: ipv6.map(|net| net.network()),
        bits,
    })
}

pub(crate) fn moment(time: &crds::Time) -> Moment {
    Moment(u64::try_from(time.0.as_millisecond()).unwrap_or(0))
}

fn created(metadata: &kube::api::ObjectMeta) -> Moment {
    metadata
        .creation_timestamp
        .as_ref()
        .map_or(Moment(0), moment)
}
