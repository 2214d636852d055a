//! The record of who asked for what.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::Method;
use jiff::Timestamp;

use crate::request::{Request, ResourcePath};

/// Single requests kept; the counters cover all.
const KEPT: usize = 10_000;

/// What requests are counted by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestKind {
    /// `User-Agent`.
    pub user_agent: String,
    /// get, list, watch, create, update, patch, delete or deletecollection; for paths that are
    /// not of resources the HTTP method in lower case.
    pub verb: String,
    /// Plural of the resource with its subresource (`pods/status`), or the path.
    pub resource: String,
}

impl RequestKind {
    /// Whether it changes objects.
    #[must_use]
    pub fn is_write(&self) -> bool {
        matches!(
            self.verb.as_str(),
            "create" | "update" | "patch" | "delete" | "deletecollection"
        )
    }

    pub(crate) fn of(request: &Request) -> Self {
        let user_agent = request.user_agent.clone();
        let Some(path) = ResourcePath::parse(&request.segments) else {
            return Self {
                user_agent,
                verb: request.method.as_str().to_ascii_lowercase(),
                resource: format!("/{}", request.segments.join("/")),
            };
        };
        let named = path.name.is_some();
        let watching = path.watch || matches!(request.param("watch"), Some("true" | "1"));
        let verb = match (&request.method, named) {
            (&Method::GET, _) if watching => "watch",
            (&Method::GET, true) => "get",
            (&Method::GET, false) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "delete",
            (&Method::DELETE, false) => "deletecollection",
            _ => "other",
        };
        let resource = match &path.subresource {
            Some(subresource) => format!("{}/{subresource}", path.resource),
            None => path.resource,
        };
        Self {
            user_agent,
            verb: verb.into(),
            resource,
        }
    }
}

/// One request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// When it came in.
    pub time: Timestamp,
    /// Kind.
    pub kind: RequestKind,
    /// Namespace, or empty.
    pub namespace: String,
    /// Object name, or empty.
    pub name: String,
    /// HTTP status code of the answer; 0 if the connection was cut by a fault.
    pub code: u16,
}

#[derive(Debug, Default)]
struct Log {
    counts: BTreeMap<RequestKind, u64>,
    recent: VecDeque<Record>,
}

/// All requests a server has seen. Clones are handles to the same record.
#[derive(Debug, Clone, Default)]
pub struct Requests {
    log: Arc<Mutex<Log>>,
}

impl Requests {
    /// Counters of all requests so far.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<RequestKind, u64> {
        self.lock().counts.clone()
    }

    /// Number of requests whose kind fulfils a condition.
    #[must_use]
    pub fn count(&self, wanted: impl Fn(&RequestKind) -> bool) -> u64 {
        self.lock()
            .counts
            .iter()
            .filter(|(kind, _)| wanted(kind))
            .map(|(_, count)| count)
            .sum()
    }

    /// Number of writes by clients whose user agent contains `user_agent`.
    #[must_use]
    pub fn writes_by(&self, user_agent: &str) -> u64 {
        self.count(|kind| kind.is_write() && kind.user_agent.contains(user_agent))
    }

    /// The most recent requests, oldest first.
    #[must_use]
    pub fn recent(&self) -> Vec<Record> {
        self.lock().recent.iter().cloned().collect()
    }

    /// Forgets everything.
    pub fn reset(&self) {
        *self.lock() = Log::default();
    }

    pub(crate) fn record(&self, request: &Request, kind: RequestKind, code: u16) {
        let path = ResourcePath::parse(&request.segments);
        let (namespace, name) = path
            .map(|path| {
                (
                    path.namespace.unwrap_or_default(),
                    path.name.unwrap_or_default(),
                )
            })
            .unwrap_or_default();
        let mut log = self.lock();
        *log.counts.entry(kind.clone()).or_default() += 1;
        if log.recent.len() == KEPT {
            log.recent.pop_front();
        }
        log.recent.push_back(Record {
            time: request.received,
            kind,
            namespace,
            name,
            code,
        });
    }

    fn lock(&self) -> MutexGuard<'_, Log> {
        // A panic elsewhere cannot leave the log half written.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
