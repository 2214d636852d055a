//! The writes of a term, each with the condition that makes it safe.

use std::future::Future;
use std::time::Duration;

use caracal_crds as crds;
use caracal_crds::conditions::{self, Statement};
use caracal_ipam_core::BlockId;
use caracal_ipam_core::controller::{Event, Grant};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::convert;
use crate::metrics::Claim;

/// How long one request may take before its outcome is looked up.
const DEADLINE: Duration = Duration::from_secs(10);

/// Pause between two attempts to learn what became of a creation.
const LOOKUP_PAUSE: Duration = Duration::from_secs(1);

/// What came of a write.
pub(crate) enum Outcome {
    /// The block as it is now.
    Block(Box<crds::IpBlock>),
    /// The block of this name does not exist.
    BlockGone(String),
    /// For the allocator as it is.
    Told(Event),
    /// The pool's status was written, or not; the pool as it is now where known.
    Pool(String, Option<Box<crds::IpPool>>),
    /// The same for a request.
    Request(String, Option<Box<crds::IpBlockRequest>>),
}

/// Creates a block. The name is the claim: where the object exists, whoever made it has it. `claim`
/// learns who that is.
pub(crate) async fn create(client: Client, id: BlockId, grant: Grant, claim: Claim) -> Outcome {
    let api: Api<crds::IpBlock> = Api::all(client);
    let name = id.to_string();
    let (ipv4, ipv6) = convert::prefixes(&grant.block);
    let spec = crds::IpBlockSpec {
        pool: id.pool.0.clone(),
        index: id.index,
        ipv4,
        ipv6,
        node_name: grant.node.0.clone(),
        node_uid: grant.node_uid.0.clone(),
        epoch: i64::try_from(grant.epoch).unwrap_or(i64::MAX),
        request_generation: i64::try_from(grant.request_generation).unwrap_or(i64::MAX),
        drain: false,
    };
    let labels = [
        (crds::LABEL_POOL, &id.pool.0),
        (crds::LABEL_NODE, &grant.node.0),
    ];
    let object = crds::IpBlock {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            labels: Some(
                labels
                    .map(|(key, value)| (key.to_owned(), value.clone()))
                    .into(),
            ),
            ..ObjectMeta::default()
        },
        spec,
        status: None,
    };
    match within(api.create(&PostParams::default(), &object)).await {
        Written::Done(block) => {
            info!(block = %name, node = %grant.node, "granted");
            claim.won();
            Outcome::Block(Box::new(block))
        }
        Written::Refused(status) if status.code != 409 => {
            warn!(block = %name, node = %grant.node, error = %status.message, "cannot create the block");
            Outcome::Told(Event::CreateFailed(id))
        }
        // Exists already, or the answer was lost: the object itself tells whose it is. That may
        // be ours, since a client that sends a creation twice is told the second time that it
        // exists.
        Written::Refused(_) | Written::Unknown => loop {
            match within(api.get_opt(&name)).await {
                Written::Done(Some(block)) => {
                    if answers(&block, &grant) {
                        claim.won();
                    } else {
                        info!(block = %name, node = %block.spec.node_name, "another was faster");
                        claim.lost();
                    }
                    return Outcome::Block(Box::new(block));
                }
                Written::Done(None) => return Outcome::Told(Event::CreateFailed(id)),
                Written::Refused(_) | Written::Unknown => sleep(LOOKUP_PAUSE).await,
            }
        },
    }
}

/// Whether the block is what `grant` was to make. No other process has our epoch.
fn answers(block: &crds::IpBlock, grant: &Grant) -> bool {
    u64::try_from(block.spec.epoch) == Ok(grant.epoch) && block.spec.node_uid == grant.node_uid.0
}

/// Sets `spec.drain`, if the object is as it was seen.
pub(crate) async fn drain(client: Client, id: BlockId, mut block: crds::IpBlock) -> Outcome {
    let api: Api<crds::IpBlock> = Api::all(client);
    block.spec.drain = true;
    let name = block.name_any();
    let written = within(api.replace(&name, &PostParams::default(), &block)).await;
    changed(id, &name, written)
}

/// Sets phase Quarantined, if the object is as it was seen.
pub(crate) async fn quarantine(
    client: Client,
    id: BlockId,
    mut block: crds::IpBlock,
    now: crds::Time,
) -> Outcome {
    let api: Api<crds::IpBlock> = Api::all(client);
    let name = block.name_any();
    let mut status = block.status.take().unwrap_or_default();
    status.phase = crds::BlockPhase::Quarantined;
    status.since = Some(now.clone());
    let statement = Statement {
        condition: conditions::QUARANTINED,
        holds: true,
        reason: crds::reasons::NODE_DELETED,
        message: format!("node {} is gone; its addresses rest", block.spec.node_name),
        observed_generation: block.metadata.generation,
    };
    conditions::set(&mut status.conditions, &statement, &now);
    block.status = Some(status);
    let written = within(api.replace_status(&name, &PostParams::default(), &block)).await;
    info!(block = %name, node = %block.spec.node_name, "quarantined: its node is gone");
    changed(id, &name, written)
}

/// Deletes the block, if the object is as it was seen.
pub(crate) async fn delete(client: Client, id: BlockId, block: crds::IpBlock) -> Outcome {
    let api: Api<crds::IpBlock> = Api::all(client);
    let name = block.name_any();
    let preconditions = Preconditions {
        uid: block.uid(),
        resource_version: block.resource_version(),
    };
    let params = DeleteParams {
        preconditions: Some(preconditions),
        ..DeleteParams::default()
    };
    match within(api.delete(&name, &params)).await {
        Written::Done(_) => {
            info!(block = %name, "free again");
            Outcome::BlockGone(name)
        }
        Written::Refused(status) if status.code == 404 => Outcome::BlockGone(name),
        Written::Refused(_) | Written::Unknown => Outcome::Told(Event::ActionFailed(id)),
    }
}

/// Writes a pool's status, if the object is as it was seen.
pub(crate) async fn pool_status(client: Client, pool: crds::IpPool) -> Outcome {
    let api: Api<crds::IpPool> = Api::all(client);
    let name = pool.name_any();
    match within(api.replace_status(&name, &PostParams::default(), &pool)).await {
        Written::Done(pool) => Outcome::Pool(name, Some(Box::new(pool))),
        Written::Refused(_) | Written::Unknown => Outcome::Pool(name, None),
    }
}

/// Writes a request's status, if the object is as it was seen.
pub(crate) async fn request_status(client: Client, request: crds::IpBlockRequest) -> Outcome {
    let api: Api<crds::IpBlockRequest> = Api::all(client);
    let name = request.name_any();
    match within(api.replace_status(&name, &PostParams::default(), &request)).await {
        Written::Done(request) => Outcome::Request(name, Some(Box::new(request))),
        Written::Refused(_) | Written::Unknown => Outcome::Request(name, None),
    }
}

enum Written<T> {
    Done(T),
    /// The server said no.
    Refused(Box<kube::core::Status>),
    /// It may have happened.
    Unknown,
}

async fn within<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Written<T> {
    match timeout(DEADLINE, request).await {
        Ok(Ok(answer)) => Written::Done(answer),
        Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) => {
            Written::Refused(status)
        }
        Ok(Err(error)) => {
            warn!(%error, "no clear answer from the API server");
            Written::Unknown
        }
        Err(_elapsed) => Written::Unknown,
    }
}

fn changed(id: BlockId, name: &str, written: Written<crds::IpBlock>) -> Outcome {
    match written {
        Written::Done(block) => Outcome::Block(Box::new(block)),
        Written::Refused(status) if status.code == 404 => Outcome::BlockGone(name.to_owned()),
        Written::Refused(_) | Written::Unknown => Outcome::Told(Event::ActionFailed(id)),
    }
}
