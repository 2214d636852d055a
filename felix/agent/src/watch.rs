//! One watch per kind, joined into one stream of changes. Secrets are watched one by one, see
//! [`crate::secrets`].
//!
//! Owns reconnecting and relisting. Does not own the objects: a change is handed on and forgotten.
//!
//! The watcher resumes by itself after a lost connection, with one trap: a server that answers the
//! *start* of a watch with status 410 leaves it asking for the same version for ever. So a watcher
//! that keeps failing is dropped and made anew, which lists again.

use std::fmt::Debug;
use std::time::Duration;

use caracal_crds::{BgpConfiguration, BgpFilter, BgpPeer, IpBlock, IpBlockRequest, IpPool};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

use crate::world::{Change, Key, TableChange, Watched};

/// Changes on their way to the loop. A full list travels as one change, so this bounds the events
/// of a burst: the watches wait, and the server's own buffers hold the rest.
const CHANGES_DEPTH: usize = 256;

/// Failures in a row after which a watcher is made anew.
pub(crate) const FAILURES_BEFORE_RELIST: u32 = 5;

/// First and longest pause after a failure. The longest is how late an agent may notice that its
/// API server is back.
pub(crate) const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// Starts every watch; they end when `tasks` is dropped or the receiver is.
pub(crate) fn start(
    client: &Client,
    node_name: &str,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Change> {
    let (sender, receiver) = mpsc::channel(CHANGES_DEPTH);
    let everything = watcher::Config::default;
    let own = || watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    tasks.spawn(follow::<Node>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    tasks.spawn(follow::<Namespace>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    tasks.spawn(follow::<Pod>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    tasks.spawn(follow::<NetworkPolicy>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    tasks.spawn(follow::<IpPool>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    // All blocks, not only our own: what a mesh peer announces is judged by who holds the block.
    tasks.spawn(follow::<IpBlock>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    tasks.spawn(follow::<IpBlockRequest>(
        Api::all(client.clone()),
        own(),
        sender.clone(),
    ));
    tasks.spawn(follow::<BgpConfiguration>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    tasks.spawn(follow::<BgpPeer>(
        Api::all(client.clone()),
        everything(),
        sender.clone(),
    ));
    tasks.spawn(follow::<BgpFilter>(
        Api::all(client.clone()),
        everything(),
        sender,
    ));
    receiver
}

async fn follow<K>(api: Api<K>, config: watcher::Config, changes: mpsc::Sender<Change>)
where
    K: Watched + Resource + ResourceExt + Clone + Debug + DeserializeOwned + Send + 'static,
    K::DynamicType: Default,
{
    loop {
        let mut events = watcher(api.clone(), config.clone())
            .backoff(Pauses::default())
            .boxed();
        let mut listing = Vec::new();
        let mut failures = 0;
        while let Some(event) = events.next().await {
            let change = match event {
                Ok(Event::Init) => {
                    listing.clear();
                    continue;
                }
                Ok(Event::InitApply(object)) => {
                    listing.push(pruned(object));
                    continue;
                }
                Ok(Event::InitDone) => TableChange::Listed(std::mem::take(&mut listing)),
                Ok(Event::Apply(object)) => TableChange::Applied(pruned(object)),
                Ok(Event::Delete(object)) => TableChange::Deleted(Key::of(&object)),
                Err(error) => {
                    failures += 1;
                    debug!(kind = ?K::KIND, failures, %error, "watch interrupted");
                    if failures >= FAILURES_BEFORE_RELIST {
                        warn!(kind = ?K::KIND, %error, "watch keeps failing, listing again");
                        break;
                    }
                    continue;
                }
            };
            failures = 0;
            if changes.send(K::change(change)).await.is_err() {
                return;
            }
        }
        tokio::time::sleep(PAUSE.1).await;
    }
}

fn pruned<K: Watched>(mut object: K) -> K {
    object.prune();
    object
}

/// Doubling pauses between attempts, reset by success.
#[derive(Default)]
pub(crate) struct Pauses {
    doublings: u32,
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let pause = PAUSE
            .0
            .saturating_mul(1 << self.doublings.min(8))
            .min(PAUSE.1);
        self.doublings += 1;
        Some(pause)
    }
}

impl Backoff for Pauses {
    fn reset(&mut self) {
        self.doublings = 0;
    }
}
