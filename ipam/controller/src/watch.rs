//! A watch that ends never and tells absences.
//!
//! Owns: the traps of a Kubernetes watch. After a server answers the *start* of a watch with status
//! 410, the runtime's watcher asks for the same version for ever: it is made anew here. An object
//! that vanished while nobody watched is only missing from the next list: here it is told as gone.
//! And the watcher itself does not pause between failures.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use caracal_metrics::Watches;
use futures::{StreamExt, pin_mut};
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tracing::{debug, warn};

/// What a watch tells.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Change<K> {
    /// The object is there, new or changed.
    Applied(K),
    /// The object of this name is gone.
    Gone(String),
    /// A list is complete: every object that exists has been told.
    Listed,
}

impl<K> Change<K> {
    /// The same change with what of the object matters.
    pub(crate) fn map<T>(self, facts: impl FnOnce(K) -> T) -> Change<T> {
        match self {
            Change::Applied(object) => Change::Applied(facts(object)),
            Change::Gone(name) => Change::Gone(name),
            Change::Listed => Change::Listed,
        }
    }
}

/// First and longest pause after a failure; doubled in between.
const PAUSES: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(30));

/// Failures in a row after which the watcher is made anew, whatever they were.
const FRESH_AFTER: u32 = 5;

/// Follows a kind until `changes` is closed. `wrap` makes of each change what the channel carries, and
/// `watches` shows how the watch stands.
pub(crate) async fn follow<K, C>(
    client: &Client,
    watches: &Watches,
    changes: mpsc::Sender<C>,
    wrap: impl Fn(Change<K>) -> C,
) where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let kind = K::kind(&());
    let watch = watches.begin(kind.clone());
    let service = watch.service(client, |client, request| async move {
        client.send(request).await
    });
    let api: Api<K> = Api::all(Client::new(service, client.default_namespace()));
    let mut known = BTreeSet::new();
    let mut listing = BTreeSet::new();
    let mut failures = 0_u32;
    loop {
        let stream = watcher(api.clone(), watcher::Config::default());
        pin_mut!(stream);
        while let Some(event) = stream.next().await {
            let change = match event {
                Ok(event) => {
                    failures = 0;
                    match event {
                        Event::Init => {
                            listing.clear();
                            continue;
                        }
                        Event::InitApply(object) => {
                            listing.insert(object.name_any());
                            Change::Applied(object)
                        }
                        Event::InitDone => {
                            for name in known.difference(&listing) {
                                let gone = wrap(Change::Gone(name.clone()));
                                if changes.send(gone).await.is_err() {
                                    return;
                                }
                            }
                            known = std::mem::take(&mut listing);
                            watch.stands();
                            Change::Listed
                        }
                        Event::Apply(object) => {
                            known.insert(object.name_any());
                            Change::Applied(object)
                        }
                        Event::Delete(object) => {
                            known.remove(&object.name_any());
                            Change::Gone(object.name_any())
                        }
                    }
                }
                Err(error) => {
                    watch.broke();
                    failures += 1;
                    let expired = is_expired(&error);
                    if expired {
                        debug!(%kind, "version is gone, listing again");
                    } else {
                        warn!(%kind, failures, %error, "watch failed");
                    }
                    if changes.is_closed() {
                        return;
                    }
                    sleep(pause(failures)).await;
                    if expired || failures.is_multiple_of(FRESH_AFTER) {
                        break;
                    }
                    continue;
                }
            };
            if changes.send(wrap(change)).await.is_err() {
                return;
            }
        }
    }
}

fn is_expired(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code == 410,
        // In band the watcher lists again by itself, on the stream that it has.
        _ => false,
    }
}

fn pause(failures: u32) -> Duration {
    let (first, longest) = PAUSES;
    first
        .saturating_mul(1 << failures.saturating_sub(1).min(10))
        .min(longest)
}
