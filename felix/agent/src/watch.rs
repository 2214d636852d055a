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
use caracal_metrics::{Watch, Watches};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::runtime::WatchStreamExt;
use kube::runtime::utils::Backoff;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource};
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

/// Starts every watch; they end when `tasks` is dropped or the receiver is. `watches` shows how they
/// stand.
pub(crate) fn start(
    client: &Client,
    node_name: &str,
    watches: &Watches,
    tasks: &mut JoinSet<()>,
) -> mpsc::Receiver<Change> {
    let (changes, receiver) = mpsc::channel(CHANGES_DEPTH);
    let mut starter = Starter {
        client,
        watches,
        changes,
        tasks,
    };
    let everything = watcher::Config::default;
    let own = watcher::Config::default().fields(&format!("spec.nodeName={node_name}"));
    starter.start::<Node>(everything());
    starter.start::<Namespace>(everything());
    starter.start::<Pod>(everything());
    starter.start::<NetworkPolicy>(everything());
    starter.start::<IpPool>(everything());
    // All blocks, not only our own: what a mesh peer announces is judged by who holds the block.
    starter.start::<IpBlock>(everything());
    starter.start::<IpBlockRequest>(own);
    starter.start::<BgpConfiguration>(everything());
    starter.start::<BgpPeer>(everything());
    starter.start::<BgpFilter>(everything());
    receiver
}

/// What every watch is started with.
struct Starter<'a> {
    client: &'a Client,
    watches: &'a Watches,
    changes: mpsc::Sender<Change>,
    tasks: &'a mut JoinSet<()>,
}

impl Starter<'_> {
    fn start<K>(&mut self, config: watcher::Config)
    where
        K: Watched + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
    {
        let watch = self.watches.begin(K::kind(&()));
        let service = watch.service(self.client, |client, request| async move {
            client.send(request).await
        });
        let client = Client::new(service, self.client.default_namespace());
        let api = Api::all(client);
        let changes = self.changes.clone();
        self.tasks.spawn(follow::<K>(api, config, changes, watch));
    }
}

async fn follow<K>(
    api: Api<K>,
    config: watcher::Config,
    changes: mpsc::Sender<Change>,
    watch: Watch,
) where
    K: Watched + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + 'static,
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
                Ok(Event::InitDone) => {
                    watch.stands();
                    TableChange::Listed(std::mem::take(&mut listing))
                }
                Ok(Event::Apply(object)) => TableChange::Applied(pruned(object)),
                Ok(Event::Delete(object)) => TableChange::Deleted(Key::of(&object)),
                Err(error) => {
                    watch.broke();
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
