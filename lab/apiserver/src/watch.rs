//! Watches: what a stream of events says, and when it ends.
//!
//! Owns the rules of initial events, selectors, bookmarks and expiry. Waiting and sending are
//! [`crate::server`]'s.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::Api;
use crate::crud::read::{self, Selectors};
use crate::negotiate::{self, Content, Form};
use crate::request::Request;
use crate::resource::ResourceType;
use crate::status::Refusal;
use crate::store::{Change, Event, Store, TooOld};
use crate::table;

/// Seconds between bookmarks.
const BOOKMARK_INTERVAL: i64 = 60;
/// Seconds before the end at which a last bookmark is sent.
const BOOKMARK_BEFORE_END: i64 = 2;
/// Seconds after which a watch without `timeoutSeconds` ends.
const DEFAULT_TIMEOUT: i64 = 1800;

/// An open watch.
#[derive(Debug)]
pub struct Watch {
    resource: Arc<ResourceType>,
    namespace: Option<String>,
    selectors: Selectors,
    form: Form,
    table: table::Options,
    bookmarks: bool,
    /// Frames that are due before anything else.
    ready: Vec<Bytes>,
    /// Revision up to which everything has been said.
    cursor: u64,
    /// Set once the watch has begun to run.
    times: Option<Times>,
    timeout: i64,
    ended: bool,
}

#[derive(Debug, Clone, Copy)]
struct Times {
    end: Timestamp,
    next_bookmark: Timestamp,
}

impl Watch {
    /// Opens a watch on a collection, or on one object of it.
    ///
    /// # Errors
    /// 400 and 422 for options that contradict each other; 504 for a watch-list ahead of the
    /// store. An expired revision is not an error here: it is said in the stream.
    pub fn open(
        api: &Api,
        resource: &Arc<ResourceType>,
        namespace: Option<&str>,
        name: Option<&str>,
        request: &Request,
    ) -> Result<Self, Refusal> {
        let form = Form::negotiate(&request.accept)?;
        let mut selectors = Selectors::read(request, resource)?;
        if let Some(name) = name {
            selectors.fields.require_name(name);
        }
        let revision = read::revision(request)?;
        let initial = request.flag("sendInitialEvents")?;
        let bookmarks = request.flag("allowWatchBookmarks")?.unwrap_or_default();
        let matching = request.param("resourceVersionMatch");
        check_options(initial, matching)?;
        let current = api.store.revision();
        let timeout = request
            .number("timeoutSeconds")?
            .and_then(|seconds| i64::try_from(seconds).ok())
            .filter(|seconds| *seconds > 0)
            .unwrap_or(DEFAULT_TIMEOUT);
        let mut watch = Self {
            resource: Arc::clone(resource),
            namespace: namespace.map(Into::into),
            selectors,
            table: negotiate::table_options(request)?,
            form,
            bookmarks,
            ready: Vec::new(),
            cursor: current,
            times: None,
            timeout,
            ended: false,
        };
        match (initial, revision) {
            (Some(true), asked) => {
                if let Some(asked) = asked.filter(|asked| *asked > current) {
                    return Err(Refusal::version_too_large(asked, current));
                }
                watch.add_initial(&api.store);
                if bookmarks {
                    let frame = watch.bookmark(true);
                    watch.ready.push(frame);
                }
            }
            (Some(false), None | Some(0)) => {}
            (None, None | Some(0)) => watch.add_initial(&api.store),
            (_, Some(revision)) => watch.cursor = revision,
        }
        Ok(watch)
    }

    /// `Content-Type` of the stream.
    #[must_use]
    pub fn content_type(&self) -> &str {
        &self.form.content_type
    }

    /// Plural of the watched resource.
    #[must_use]
    pub fn plural(&self) -> &str {
        &self.resource.plural
    }

    /// Whether nothing more will come.
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }

    /// When [`Watch::poll`] has to be called again at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        let times = self.times?;
        Some(if self.bookmarks {
            times.end.min(times.next_bookmark)
        } else {
            times.end
        })
    }

    /// Frames that are due: events since the last call, bookmarks, an error.
    ///
    /// A watch that is too far behind gets the error 410 and ends.
    pub fn poll(&mut self, now: Timestamp, store: &Store) -> Vec<Bytes> {
        if self.ended {
            return Vec::new();
        }
        self.table.now = now;
        let times = *self
            .times
            .get_or_insert_with(|| Times::start(now, self.timeout));
        let mut frames = std::mem::take(&mut self.ready);
        match store.events_after(&self.resource.key(), self.cursor) {
            Ok(events) => {
                let events: Vec<&Event> = events.collect();
                for event in events {
                    frames.extend(self.frame(event));
                }
                self.cursor = self.cursor.max(store.revision());
            }
            Err(TooOld { floor }) => {
                frames.push(expired(self.cursor, floor));
                self.ended = true;
                return frames;
            }
        }
        if self.bookmarks && now >= times.next_bookmark {
            frames.push(self.bookmark(false));
            self.times = Some(times.after_bookmark(now));
        }
        if now >= times.end {
            self.ended = true;
        }
        frames
    }

    /// Ends the watch with the error that its revision is gone, whatever the store says.
    pub fn expire(&mut self) -> Bytes {
        self.ended = true;
        expired(self.cursor, self.cursor + 1)
    }

    fn add_initial(&mut self, store: &Store) {
        let objects: Vec<Arc<Value>> = store
            .list(&self.resource.key(), self.namespace.as_deref())
            .map(|(_, object)| Arc::clone(object))
            .filter(|object| self.selectors.matches(object))
            .collect();
        for object in objects {
            let frame = self.encode("ADDED", &object);
            self.ready.push(frame);
        }
    }

    /// What an event means for this watch: an object that leaves the selection is as if deleted,
    /// one that enters it is as if made.
    fn frame(&mut self, event: &Event) -> Option<Bytes> {
        if self
            .namespace
            .as_ref()
            .is_some_and(|namespace| *namespace != event.key.namespace)
        {
            return None;
        }
        let selects = |object: &Value| self.selectors.matches(object);
        let before = event
            .previous
            .as_ref()
            .is_some_and(|object| selects(object));
        let after = event.change != Change::Deleted && selects(&event.object);
        match (before, after) {
            (false, false) => None,
            (false, true) => Some(self.encode("ADDED", &event.object)),
            (true, true) => Some(self.encode("MODIFIED", &event.object)),
            (true, false) if event.change == Change::Deleted => {
                Some(self.encode("DELETED", &event.object))
            }
            (true, false) => {
                let mut old = event.previous.as_deref().cloned().unwrap_or_default();
                old["metadata"]["resourceVersion"] = json!(event.revision.to_string());
                Some(self.encode("DELETED", &Arc::new(old)))
            }
        }
    }

    fn encode(&mut self, kind: &str, object: &Arc<Value>) -> Bytes {
        let object = negotiate::served(&self.resource, object);
        let shown = match self.form.content {
            Content::Objects => (*object).clone(),
            Content::Metadata => table::partial(&object),
            Content::Table => {
                let metadata = json!({"resourceVersion": object["metadata"]["resourceVersion"]});
                let objects = std::iter::once(&*object);
                let table = table::table(&self.resource, objects, metadata, self.table);
                // Only the first frame of a stream carries the columns.
                self.table.with_columns = false;
                table
            }
        };
        line(kind, &shown)
    }

    fn bookmark(&self, initial_end: bool) -> Bytes {
        let mut metadata = json!({"resourceVersion": self.cursor.to_string()});
        if initial_end {
            metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        }
        let (kind, api_version) = match self.form.content {
            Content::Objects => (self.resource.kind.clone(), self.resource.api_version()),
            Content::Metadata => ("PartialObjectMetadata".into(), "meta.k8s.io/v1".into()),
            Content::Table => ("Table".into(), "meta.k8s.io/v1".into()),
        };
        let mut object = json!({"kind": kind, "apiVersion": api_version, "metadata": metadata});
        if self.form.content == Content::Table {
            object["columnDefinitions"] = Value::Null;
            object["rows"] = json!([]);
        }
        line("BOOKMARK", &object)
    }
}

impl Times {
    fn start(now: Timestamp, timeout: i64) -> Self {
        let end = later(now, timeout);
        let last = later(end, -BOOKMARK_BEFORE_END);
        // A watch too short for a last bookmark gets none.
        let last = if last <= now {
            later(end, BOOKMARK_INTERVAL)
        } else {
            last
        };
        Self {
            end,
            next_bookmark: later(now, BOOKMARK_INTERVAL).min(last),
        }
    }

    fn after_bookmark(self, now: Timestamp) -> Self {
        let last = later(self.end, -BOOKMARK_BEFORE_END);
        let next = later(now, BOOKMARK_INTERVAL);
        let next_bookmark = if now >= last {
            later(self.end, BOOKMARK_INTERVAL)
        } else {
            next.min(last)
        };
        Self {
            end: self.end,
            next_bookmark,
        }
    }
}

fn later(from: Timestamp, seconds: i64) -> Timestamp {
    from.checked_add(jiff::SignedDuration::from_secs(seconds))
        .unwrap_or(from)
}

fn check_options(initial: Option<bool>, matching: Option<&str>) -> Result<(), Refusal> {
    match (initial, matching) {
        (Some(true), Some("NotOlderThan")) | (None | Some(false), None) => Ok(()),
        (Some(_), Some("NotOlderThan")) => Ok(()),
        (Some(_), _) => Err(Refusal::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        )),
        (None, Some(_)) => Err(Refusal::unprocessable(
            "ListOptions.meta.k8s.io \"\" is invalid: resourceVersionMatch: Forbidden: \
             resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        )),
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({"type": kind, "object": object}).to_string();
    text.push('\n');
    text.into()
}

fn expired(asked: u64, floor: u64) -> Bytes {
    let refusal = Refusal::expired(format!("too old resource version: {asked} ({floor})"));
    line("ERROR", &refusal.to_status())
}
