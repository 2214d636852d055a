//! How the watches stand that a process has at an API server.
//!
//! Owns since when what a watch tells may be out of date, and how often it was made anew. Does not own
//! the watches: who makes one says what happens to it.
//!
//! Who follows objects learns of a watch that breaks, and of a whole list. That a broken watch goes on
//! where it ended nobody tells: with nothing new to say, a server says nothing. [`Watch::service`]
//! sees it in the answer that begins the watch.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use hyper::{Request, Response};
use tower::{Service, service_fn};

use crate::metric::{Metric, Read, Sample};

/// What is told of watches.
pub const WATCHES: &[Metric<Vec<WatchSnapshot>>] = &[
    Metric {
        name: "caracal_k8s_watch_lag_seconds",
        labels: &["kind"],
        help: "For how long the objects of a kind have not been followed, 0 while they are",
        read: Read::Seconds(|watches| {
            let lags = watches.iter().filter_map(|watch| {
                let lag = watch.behind?;
                Some(Sample(vec![watch.kind.clone()], lag))
            });
            lags.collect()
        }),
    },
    Metric {
        name: "caracal_k8s_reconnects_total",
        labels: &["kind"],
        help: "How often a watch that broke was taken up again",
        read: Read::Counter(|watches| {
            let counts = watches.iter();
            counts
                .map(|watch| Sample(vec![watch.kind.clone()], watch.reconnects))
                .collect()
        }),
    },
];

/// All watches of a process, one a kind. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Watches(Arc<Mutex<BTreeMap<String, Record>>>);

/// One of them. Clones are the same.
#[derive(Clone, Debug)]
pub struct Watch {
    all: Watches,
    kind: String,
}

/// A watch at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatchSnapshot {
    /// Of which objects.
    pub kind: String,
    /// For how long it has not stood: zero where it does, none where nobody wants it to.
    pub behind: Option<Duration>,
    /// How often it was taken up again after it had broken.
    pub reconnects: u64,
}

impl WatchSnapshot {
    /// Whether what was seen of the kind may be out of date.
    pub fn lags(&self) -> bool {
        self.behind.is_some_and(|behind| !behind.is_zero())
    }
}

#[derive(Debug)]
struct Record {
    standing: Standing,
    reconnects: u64,
}

#[derive(Clone, Copy, Debug)]
enum Standing {
    /// Nobody watches.
    Ended,
    /// It has not stood yet, since then.
    Awaited(Instant),
    /// What was seen is what is.
    Stands,
    /// It stood until then.
    Broken(Instant),
}

impl Watches {
    /// The watch of a kind, which does not stand yet.
    pub fn begin(&self, kind: impl Into<String>) -> Watch {
        let kind = kind.into();
        let standing = Standing::Awaited(Instant::now());
        let mut records = self.records();
        let before = records.get(&kind).map_or(0, |record| record.reconnects);
        let record = Record {
            standing,
            reconnects: before,
        };
        records.insert(kind.clone(), record);
        drop(records);
        Watch {
            all: self.clone(),
            kind,
        }
    }

    /// Nobody watches any more; what was counted stays.
    pub fn end(&self) {
        for record in self.records().values_mut() {
            record.standing = Standing::Ended;
        }
    }

    /// As they stand now, by kind.
    pub fn snapshot(&self) -> Vec<WatchSnapshot> {
        let records = self.records();
        let each = records.iter().map(|(kind, record)| WatchSnapshot {
            kind: kind.clone(),
            behind: match record.standing {
                Standing::Ended => None,
                Standing::Stands => Some(Duration::ZERO),
                Standing::Awaited(since) | Standing::Broken(since) => Some(since.elapsed()),
            },
            reconnects: record.reconnects,
        });
        each.collect()
    }

    fn records(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        // No step in here can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// What was seen is what is: a list is complete, or the server goes on with the watch.
    pub fn stands(&self) {
        if let Some(record) = self.all.records().get_mut(&self.kind) {
            record.reconnects += u64::from(matches!(record.standing, Standing::Broken(_)));
            if !matches!(record.standing, Standing::Ended) {
                record.standing = Standing::Stands;
            }
        }
    }

    /// What was seen may be out of date.
    pub fn broke(&self) {
        if let Some(record) = self.all.records().get_mut(&self.kind)
            && matches!(record.standing, Standing::Stands)
        {
            record.standing = Standing::Broken(Instant::now());
        }
    }

    /// What sends requests of the watch through `client` by `send`, and notices in the answers where
    /// the server takes the watch up. Errors are those of `send`.
    pub fn service<C, Q, R, E, F>(
        &self,
        client: &C,
        send: impl Fn(C, Request<Q>) -> F + Clone + Send + 'static,
    ) -> impl Service<Request<Q>, Response = Response<R>, Error = E, Future: Send + 'static>
    + Send
    + 'static
    where
        C: Clone + Send + 'static,
        Q: Send + 'static,
        R: 'static,
        E: 'static,
        F: Future<Output = Result<Response<R>, E>> + Send + 'static,
    {
        let (watch, client) = (self.clone(), client.clone());
        service_fn(move |request: Request<Q>| {
            let query = request.uri().query().unwrap_or_default();
            let begins = query.split('&').any(|part| part == "watch=true");
            let (watch, answer) = (watch.clone(), send(client.clone(), request));
            async move {
                let response = answer.await?;
                if begins && response.status().is_success() {
                    watch.stands();
                }
                Ok(response)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::ready;

    use tower::ServiceExt;

    use super::*;
    use crate::testing;

    const DOCUMENT: &str = include_str!("../../docs/metrics.md");

    /// Whether the only watch stands, and how often it was taken up again.
    fn only(watches: &Watches) -> (Option<bool>, u64) {
        let snapshot = watches.snapshot();
        let [watch] = &snapshot[..] else {
            panic!("{snapshot:?}");
        };
        let stands = watch.behind.map(|behind| behind.is_zero());
        (stands, watch.reconnects)
    }

    async fn answer(watch: &Watch, target: &str, status: u16) {
        let request = Request::get(target).body(()).unwrap();
        let response = Response::builder().status(status).body(()).unwrap();
        let service = watch.service(&response, |response, _| {
            ready(Ok::<_, Infallible>(response))
        });
        service.oneshot(request).await.unwrap();
    }

    #[test]
    fn what_breaks_and_stands_again_is_counted_and_what_never_stood_is_not() {
        let watches = Watches::default();
        let watch = watches.begin("Node");
        watch.broke();
        assert_eq!(only(&watches), (Some(false), 0));
        watch.stands();
        assert_eq!(only(&watches), (Some(true), 0), "the first time");
        watch.broke();
        watch.broke();
        assert_eq!(only(&watches), (Some(false), 0), "not before it stands");
        watch.stands();
        watch.stands();
        assert_eq!(only(&watches), (Some(true), 1));
    }

    #[test]
    fn who_watches_again_goes_on_counting() {
        let watches = Watches::default();
        let watch = watches.begin("Node");
        watch.stands();
        watch.broke();
        watch.stands();
        watches.end();
        assert_eq!(only(&watches), (None, 1));
        watch.stands();
        assert_eq!(only(&watches), (None, 1), "late news of one that has ended");
        watches.begin("Node").stands();
        assert_eq!(only(&watches), (Some(true), 1), "another first time");
    }

    #[tokio::test]
    async fn a_watch_stands_when_the_server_takes_it_up_and_not_by_other_answers() {
        let watches = Watches::default();
        let watch = watches.begin("Node");
        for (target, status) in [
            ("/api/v1/nodes?limit=500", 200),
            ("/api/v1/nodes", 200),
            ("/api/v1/nodes?watch=true&resourceVersion=5", 410),
        ] {
            answer(&watch, target, status).await;
            assert_eq!(only(&watches), (Some(false), 0), "{target} {status}");
        }
        let target = "/api/v1/nodes?resourceVersion=5&watch=true";
        answer(&watch, target, 200).await;
        assert_eq!(only(&watches), (Some(true), 0));
    }

    #[test]
    fn the_document_has_the_table_of_the_code() {
        let watches = Watches::default();
        watches.begin("Node").stands();
        testing::check(WATCHES, &watches.snapshot());
        testing::check_documented(WATCHES, DOCUMENT);
    }
}
