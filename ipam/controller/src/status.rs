//! What the controller says in the status of pools and requests, in words.

use std::error::Error as _;

use caracal_crds as crds;
use caracal_crds::conditions::{self, Statement};
use caracal_crds::reasons;
use caracal_ipam_core::controller::{Answer, PoolReport, Refusal};
use kube::ResourceExt;

use crate::convert::Error;

/// The pool's next status, or None where it says the same already.
pub(crate) fn pool(
    object: &crds::IpPool,
    report: &PoolReport,
    now: &crds::Time,
) -> Option<crds::IpPoolStatus> {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let overlaps: Vec<String> = report.overlaps.iter().map(ToString::to_string).collect();
    let overlaps = overlaps.join(", ");
    let (ready, reason, message) = if !overlaps.is_empty() {
        let message =
            format!("shares addresses with the older pool {overlaps}; no block is granted");
        (false, reasons::OVERLAPS_POOL, message)
    } else if object.spec.disabled {
        (
            false,
            reasons::DISABLED,
            "spec.disabled is set; no block is granted".to_owned(),
        )
    } else if let Some(range) = reserved_outside(object) {
        let message = format!("spec.reserved: {range} lies outside every subnet of the pool");
        (true, reasons::RESERVED_OUTSIDE_POOL, message)
    } else {
        (true, reasons::OK, String::new())
    };
    let overlap = !report.overlaps.is_empty();
    let statements = [
        (conditions::READY, ready, reason, message),
        (
            conditions::OVERLAP,
            overlap,
            if overlap {
                reasons::OVERLAPS_POOL
            } else {
                reasons::NO_OVERLAP
            },
            if overlap {
                format!("with {overlaps}")
            } else {
                String::new()
            },
        ),
        (
            conditions::EXHAUSTED,
            report.exhausted,
            if report.exhausted {
                reasons::NO_FREE_BLOCKS
            } else {
                reasons::BLOCKS_AVAILABLE
            },
            if report.exhausted {
                format!("none of {} blocks is free: append a subnet", report.total)
            } else {
                String::new()
            },
        ),
    ];
    let mut changed = false;
    for (condition, holds, reason, message) in statements {
        let statement = Statement {
            condition,
            holds,
            reason,
            message,
            observed_generation: generation,
        };
        changed |= conditions::set(&mut status.conditions, &statement, now);
    }
    let blocks = Some(crds::BlockCounts {
        total: report.total,
        used: report.used,
        draining: report.draining,
        quarantined: report.quarantined,
    });
    let addresses = Some(crds::AddressCounts {
        total: report.addresses,
        reserved: report.reserved,
    });
    changed |= status.blocks != blocks || status.addresses != addresses;
    status.blocks = blocks;
    status.addresses = addresses;
    changed.then_some(status)
}

/// The status of a pool that cannot be used, or None where it says so already.
pub(crate) fn unusable_pool(
    object: &crds::IpPool,
    error: &Error,
    now: &crds::Time,
) -> Option<crds::IpPoolStatus> {
    let mut status = object.status.clone().unwrap_or_default();
    let reason = match error {
        Error::Selector { .. } => reasons::INVALID_SELECTOR,
        Error::Layout { .. } | Error::BlockAddresses { .. } => reasons::INVALID_SPEC,
    };
    let cause = error
        .source()
        .map(|source| format!(": {source}"))
        .unwrap_or_default();
    let statement = Statement {
        condition: conditions::READY,
        holds: false,
        reason,
        message: format!("{error}{cause}"),
        observed_generation: object.metadata.generation,
    };
    conditions::set(&mut status.conditions, &statement, now).then_some(status)
}

/// The request's next status, or None where it says the same already.
pub(crate) fn request(
    object: &crds::IpBlockRequest,
    answer: &Answer,
    now: &crds::Time,
) -> Option<crds::IpBlockRequestStatus> {
    let mut status = object.status.clone().unwrap_or_default();
    let generation = Some(object.spec.generation);
    let (holds, reason, message, granted) = match answer {
        Answer::Granted(blocks) => {
            let names: Vec<String> = blocks.iter().map(ToString::to_string).collect();
            (true, reasons::BLOCKS_GRANTED, String::new(), names)
        }
        Answer::Refused(refusal) => {
            let (reason, message) = refused(object, *refusal);
            (false, reason, message, Vec::new())
        }
    };
    let statement = Statement {
        condition: conditions::GRANTED,
        holds,
        reason,
        message,
        observed_generation: object.metadata.generation,
    };
    let mut changed = conditions::set(&mut status.conditions, &statement, now);
    changed |= status.granted != granted || status.observed_generation != generation;
    status.granted = granted;
    status.observed_generation = generation;
    changed.then_some(status)
}

fn refused(object: &crds::IpBlockRequest, refusal: Refusal) -> (&'static str, String) {
    let pool = &object.spec.pool;
    let node = &object.spec.node_name;
    match refusal {
        Refusal::PoolNotFound => (
            reasons::POOL_NOT_FOUND,
            format!("there is no IPPool {pool}"),
        ),
        Refusal::PoolNotReady => (
            reasons::POOL_NOT_READY,
            format!("IPPool {pool} grants no blocks; see its conditions"),
        ),
        Refusal::PoolNotForNode => (
            reasons::POOL_NOT_FOR_NODE,
            format!("the nodeSelector of IPPool {pool} does not match node {node}"),
        ),
        Refusal::NodeNotFound => (
            reasons::NODE_NOT_FOUND,
            format!("there is no Node {node} with UID {}", object.spec.node_uid),
        ),
        Refusal::NodeLimitReached => (
            reasons::NODE_LIMIT_REACHED,
            format!("node {node} holds as many blocks of IPPool {pool} as maxBlocksPerNode allows"),
        ),
        Refusal::NoFreeBlocks => (
            reasons::NO_FREE_BLOCKS,
            format!("every block of IPPool {pool} is held or rests"),
        ),
        Refusal::Pending => (
            reasons::BLOCKS_AVAILABLE,
            "the grant is on its way".to_owned(),
        ),
    }
}

fn reserved_outside(object: &crds::IpPool) -> Option<String> {
    let spec = &object.spec;
    let outside = spec.reserved.iter().find(|range| {
        !spec.subnets.iter().any(|subnet| {
            let ipv4 = subnet.ipv4.map(ipnetwork::IpNetwork::V4);
            let ipv6 = subnet.ipv6.map(ipnetwork::IpNetwork::V6);
            [ipv4, ipv6]
                .into_iter()
                .flatten()
                .any(|net| net.contains(range.first()) && net.contains(range.last()))
        })
    });
    outside.map(|range| format!("{range} of {}", object.name_any()))
}
