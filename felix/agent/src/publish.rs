//! Writes to the API server, behind the loop's back.
//!
//! Owns the client's writing half: what is wanted is put in one place, and a task brings the server
//! to it, retrying for as long as the server is away. Does not own what is wanted, nor reads.
//!
//! The loop never waits for the server. What is wanted and already written is not written again,
//! so a steady node writes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use caracal_crds::{
    IpBlock, IpBlockRequest, IpBlockRequestSpec, IpBlockStatus, NodeNetworkStatus,
    NodeNetworkStatusSpec, NodeNetworkStatusStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{debug, info, warn};

use crate::metrics::Counts;

/// Who the server's managed fields say has written.
const FIELD_MANAGER: &str = "caracal-node";

/// First and longest pause after the server failed.
const PAUSE: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// A write that takes longer than this counts as failed. The server may have applied it all the
/// same; every write here can be repeated.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// What a start waits at most for the server: routes and policies must not wait for it.
const START_PATIENCE: Duration = Duration::from_secs(1);

/// What the status of a block should be, and the object from which that was judged.
///
/// A block's name is used again for the next grant of the same addresses. A write that arrives late
/// must not hit that one: it would take from a node what it uses.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct BlockWrite {
    /// `metadata.uid` of the object.
    pub(crate) uid: String,
    /// Its `metadata.resourceVersion`.
    pub(crate) resource_version: String,
    /// What it should say.
    pub(crate) status: IpBlockStatus,
}

/// What the server should hold, as far as it is this agent's to write.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wanted {
    /// Owner of what is created.
    pub(crate) owner: Option<OwnerReference>,
    /// Status of own blocks, where the server's differs.
    pub(crate) blocks: BTreeMap<String, BlockWrite>,
    /// Requests for blocks, by name, where the server's differ.
    pub(crate) requests: BTreeMap<String, IpBlockRequestSpec>,
    /// Status of the node, when it is time to write it.
    pub(crate) node: Option<(String, NodeNetworkStatusStatus)>,
}

/// Starts the writer. It ends with `tasks`, or when the sender is dropped. `counts` shows whether the
/// server lacks something.
pub(crate) fn start(
    client: Client,
    counts: Arc<Counts>,
    tasks: &mut JoinSet<()>,
) -> watch::Sender<Wanted> {
    let (sender, receiver) = watch::channel(Wanted::default());
    tasks.spawn(
        Publisher {
            client,
            written: Wanted::default(),
            counts,
        }
        .run(receiver),
    );
    sender
}

struct Publisher {
    client: Client,
    written: Wanted,
    counts: Arc<Counts>,
}

impl Publisher {
    async fn run(mut self, mut wanted: watch::Receiver<Wanted>) {
        let mut pause = PAUSE.0;
        loop {
            let target = wanted.borrow_and_update().clone();
            let whole = self.converge(&target).await;
            self.counts.unwritten.store(!whole, Ordering::Relaxed);
            if whole {
                pause = PAUSE.0;
                if wanted.changed().await.is_err() {
                    return;
                }
            } else {
                // A newer wish does not shorten the pause: the server is what is waited for.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE.1);
            }
        }
    }

    /// Writes what differs; true when all of it succeeded.
    async fn converge(&mut self, target: &Wanted) -> bool {
        // What is wanted no more has been seen at the server, or does not matter any longer.
        self.written
            .blocks
            .retain(|name, _| target.blocks.contains_key(name));
        self.written
            .requests
            .retain(|name, _| target.requests.contains_key(name));
        let mut whole = true;
        for (name, write) in &target.blocks {
            if self.written.blocks.get(name) == Some(write) {
                continue;
            }
            match attempt(self.write_block(name, write)).await {
                Ok(()) => drop(self.written.blocks.insert(name.clone(), write.clone())),
                Err(error) => whole = complain("block status", name, &error),
            }
        }
        for (name, spec) in &target.requests {
            if self.written.requests.get(name) == Some(spec) {
                continue;
            }
            match attempt(self.write_request(name, spec, target.owner.as_ref())).await {
                Ok(()) => {
                    info!(
                        request = name,
                        generation = spec.generation,
                        "asked for a block"
                    );
                    self.written.requests.insert(name.clone(), spec.clone());
                }
                Err(error) => whole = complain("block request", name, &error),
            }
        }
        if let Some((name, status)) = &target.node
            && self.written.node != target.node
        {
            match attempt(self.write_node(name, status, target.owner.as_ref())).await {
                Ok(()) => self.written.node.clone_from(&target.node),
                Err(error) => whole = complain("node status", name, &error),
            }
        }
        whole
    }

    /// Writes a block's status, unless the object is no more the one that was judged.
    async fn write_block(&self, name: &str, write: &BlockWrite) -> kube::Result<()> {
        let api: Api<IpBlock> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({
            "metadata": {"uid": write.uid, "resourceVersion": write.resource_version},
            "status": write.status,
        }));
        match api.patch_status(name, &parameters(), &patch).await {
            Ok(_) => Ok(()),
            // Nothing is owed to a block that is gone.
            Err(error) if is(&error, 404) => Ok(()),
            // This very write can never succeed any more, so it is done with. The watch brings the
            // newer object, and what is wanted then is judged from that.
            Err(error) if is(&error, 409) => {
                info!(block = name, phase = ?write.status.phase, "block has changed, judging again");
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    async fn write_request(
        &self,
        name: &str,
        spec: &IpBlockRequestSpec,
        owner: Option<&OwnerReference>,
    ) -> kube::Result<()> {
        let api: Api<IpBlockRequest> = Api::all(self.client.clone());
        let patch = Patch::Merge(json!({ "spec": spec }));
        match api.patch(name, &parameters(), &patch).await {
            Err(error) if is(&error, 404) => {
                let mut object = IpBlockRequest::new(name, spec.clone());
                object.metadata.owner_references = owner.map(|owner| vec![owner.clone()]);
                api.create(&creation(), &object).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    async fn write_node(
        &self,
        name: &str,
        status: &NodeNetworkStatusStatus,
        owner: Option<&OwnerReference>,
    ) -> kube::Result<()> {
        let api: Api<NodeNetworkStatus> = Api::all(self.client.clone());
        let mut object = match api.get(name).await {
            Ok(object) => object,
            Err(error) if is(&error, 404) => {
                let spec = NodeNetworkStatusSpec {
                    node_name: name.to_owned(),
                };
                let mut object = NodeNetworkStatus::new(name, spec);
                object.metadata = ObjectMeta {
                    name: Some(name.to_owned()),
                    owner_references: owner.map(|owner| vec![owner.clone()]),
                    ..ObjectMeta::default()
                };
                api.create(&creation(), &object).await?
            }
            Err(error) => return Err(error),
        };
        if object.status.as_ref() == Some(status) {
            return Ok(());
        }
        // A whole replacement, not a merge: a session that is gone has to go from the list's
        // entries' fields too.
        object.status = Some(status.clone());
        api.replace_status(name, &creation(), &object)
            .await
            .map(drop)
    }
}

/// The status that a node's object has now, so that an agent that restarts keeps transition times
/// and writes nothing where nothing changed. None where there is no object or no server.
pub(crate) async fn node_status(client: &Client, name: &str) -> Option<NodeNetworkStatusStatus> {
    let api: Api<NodeNetworkStatus> = Api::all(client.clone());
    let read = tokio::time::timeout(START_PATIENCE, api.get(name)).await;
    read.ok()?.ok()?.status
}

async fn attempt<T>(write: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
    match tokio::time::timeout(WRITE_PATIENCE, write).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer within {WRITE_PATIENCE:?}")),
    }
}

fn complain(what: &str, name: &str, error: &str) -> bool {
    // A server that is away is the watches' news; a refusal is worth a warning.
    if error.contains("ApiError") {
        warn!(what, name, error, "the API server refused a write");
    } else {
        debug!(what, name, error, "cannot write to the API server");
    }
    false
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn parameters() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PatchParams::default()
    }
}

fn creation() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER.into()),
        ..PostParams::default()
    }
}

#[cfg(test)]
mod tests;
