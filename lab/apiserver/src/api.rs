//! The logic of the server: a request (with its time) in, an answer out.
//!
//! Owns the state and the routing of requests. Knows no sockets, clocks or tasks; those are
//! [`crate::server`]'s.

use std::sync::Arc;

use http::Method;
use jiff::Timestamp;
use serde_json::Value;

use crate::builtin::{self, Definitions};
use crate::crud::{self, Outcome, WriteOptions, body, create, delete, read, update};
use crate::discovery;
use crate::names::Identifiers;
use crate::negotiate::{self, Form};
use crate::object;
use crate::openapi;
use crate::request::{Request, ResourcePath};
use crate::resource::{Registry, ResourceType};
use crate::review;
use crate::status::Refusal;
use crate::store::{ObjectKey, Store};
use crate::watch::Watch;

/// Largest request body, in bytes.
pub const MAX_BODY: usize = 3 * 1024 * 1024;

/// A complete answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status code.
    pub code: u16,
    /// `Content-Type`.
    pub content_type: String,
    /// Texts for `Warning` headers.
    pub warnings: Vec<String>,
    /// `Retry-After`, in seconds.
    pub retry_after: Option<u32>,
    /// `ETag`.
    pub etag: Option<String>,
    /// Body.
    pub body: Vec<u8>,
}

impl Answer {
    /// Plain text.
    #[must_use]
    pub fn text(code: u16, text: &str) -> Self {
        let content_type = "text/plain; charset=utf-8".into();
        Self {
            content_type,
            ..Self::new(code, text.as_bytes().to_vec())
        }
    }

    /// JSON.
    #[must_use]
    pub fn json(code: u16, value: &Value) -> Self {
        let mut body = value.to_string().into_bytes();
        body.push(b'\n');
        Self::new(code, body)
    }

    fn new(code: u16, body: Vec<u8>) -> Self {
        let content_type = "application/json".into();
        Self {
            code,
            content_type,
            warnings: Vec::new(),
            retry_after: None,
            etag: None,
            body,
        }
    }

    /// The `Status` of a refusal.
    #[must_use]
    pub fn refusal(refusal: &Refusal) -> Self {
        let mut answer = Self::json(refusal.code, &refusal.to_status());
        answer.retry_after = refusal.retry_after;
        answer
    }
}

/// What a request is answered with.
#[derive(Debug)]
pub enum Reply {
    /// At once and whole.
    Answer(Answer),
    /// By a stream of events.
    Watch(Box<Watch>),
}

/// The whole state of a server.
#[derive(Debug)]
pub struct Api {
    pub(crate) store: Store,
    pub(crate) registry: Registry,
    pub(crate) identifiers: Identifiers,
    pub(crate) definitions: Definitions,
}

impl Api {
    /// A server with the built-in resources and the namespaces every cluster has.
    ///
    /// `history` is the number of events kept per resource, `seed` that of all identifiers.
    #[must_use]
    pub fn new(now: Timestamp, history: usize, seed: u64) -> Self {
        let definitions = builtin::definitions();
        let mut registry = Registry::default();
        builtin::register(&mut registry, &definitions);
        let store = Store::new(history);
        let mut api = Self {
            store,
            registry,
            identifiers: Identifiers::new(seed),
            definitions,
        };
        api.create_permanent_namespaces(now);
        api
    }

    /// Revision of the newest write.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.store.revision()
    }

    /// Drops all history, so that every resumed watch is answered with 410.
    pub fn compact(&mut self) {
        self.store.compact();
    }

    /// Answers a request.
    pub fn handle(&mut self, request: &Request) -> Reply {
        match self.route(request) {
            Ok(reply) => reply,
            Err(refusal) => Reply::Answer(Answer::refusal(&refusal)),
        }
    }

    fn route(&mut self, request: &Request) -> Result<Reply, Refusal> {
        let now = request.received;
        if request.body.len() > MAX_BODY {
            return Err(Refusal::too_large(MAX_BODY));
        }
        let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
        let read_only = matches!(request.method, Method::GET | Method::HEAD);
        if let ["healthz" | "livez" | "readyz", ..] = segments.as_slice() {
            return Ok(Reply::Answer(Answer::text(200, "ok")));
        }
        if let Some(answer) = discovery::answer(&self.registry, request, &segments)? {
            return if read_only {
                Ok(Reply::Answer(answer))
            } else {
                Err(Refusal::method_not_allowed())
            };
        }
        if let Some(answer) = openapi::answer(self, request, &segments)? {
            return if read_only {
                Ok(Reply::Answer(answer))
            } else {
                Err(Refusal::method_not_allowed())
            };
        }
        if let Some(answer) = review::answer(request, &segments)? {
            return Ok(Reply::Answer(answer));
        }
        let path = ResourcePath::parse(&request.segments).ok_or_else(Refusal::no_such_path)?;
        let resource = self
            .registry
            .get(&path.group, &path.version, &path.resource)
            .cloned()
            .ok_or_else(Refusal::no_such_path)?;
        if path.namespace.is_some() && !resource.namespaced {
            return Err(Refusal::no_such_path());
        }
        match (&path.name, path.subresource.as_deref()) {
            (Some(name), None) => self.object(now, request, &path, &resource, name, ""),
            (Some(name), Some("status")) if resource.has_status => {
                self.object(now, request, &path, &resource, name, "status")
            }
            (Some(name), Some("finalize")) if resource.is_core("namespaces") => {
                self.object(now, request, &path, &resource, name, "finalize")
            }
            (None, None) => self.collection(now, request, &path, &resource),
            _ => Err(Refusal::no_such_path()),
        }
    }

    fn collection(
        &mut self,
        now: Timestamp,
        request: &Request,
        path: &ResourcePath,
        resource: &Arc<ResourceType>,
    ) -> Result<Reply, Refusal> {
        let namespace = path.namespace.as_deref();
        match request.method {
            Method::GET if path.watch || request.flag("watch")?.unwrap_or_default() => {
                let watch = Watch::open(self, resource, namespace, None, request)?;
                Ok(Reply::Watch(Box::new(watch)))
            }
            Method::GET => {
                let form = Form::negotiate(&request.accept)?;
                let list = read::list(self, resource, namespace, request)?;
                Ok(Reply::Answer(negotiate::list(
                    resource, &list, &form, request,
                )?))
            }
            Method::POST => {
                let form = Form::negotiate(&request.accept)?;
                if resource.namespaced && namespace.is_none() {
                    return Err(Refusal::method_not_allowed());
                }
                let options = WriteOptions::read(request, now, "")?;
                let body = body::decode(&request.media_type(), &request.body)?;
                let outcome = create::create(self, resource, namespace, body, &options)?;
                written(resource, outcome, &form, request)
            }
            Method::DELETE => {
                let form = Form::negotiate(&request.accept)?;
                let mut write = WriteOptions::read(request, now, "")?;
                let options = delete::DeleteOptions::read(request, &mut write)?;
                let list = delete::delete_collection(
                    self, resource, namespace, request, &options, &write,
                )?;
                Ok(Reply::Answer(negotiate::list(
                    resource, &list, &form, request,
                )?))
            }
            _ => Err(Refusal::method_not_allowed()),
        }
    }

    fn object(
        &mut self,
        now: Timestamp,
        request: &Request,
        path: &ResourcePath,
        resource: &Arc<ResourceType>,
        name: &str,
        subresource: &str,
    ) -> Result<Reply, Refusal> {
        if resource.namespaced && path.namespace.is_none() {
            return Err(Refusal::no_such_path());
        }
        let key = ObjectKey::new(path.namespace.as_deref().unwrap_or_default(), name);
        if request.method == Method::GET
            && subresource.is_empty()
            && (path.watch || request.flag("watch")?.unwrap_or_default())
        {
            let namespace = path.namespace.as_deref();
            let watch = Watch::open(self, resource, namespace, Some(name), request)?;
            return Ok(Reply::Watch(Box::new(watch)));
        }
        let form = Form::negotiate(&request.accept)?;
        match request.method {
            Method::GET => {
                let object = read::get(self, resource, &key, request)?;
                Ok(Reply::Answer(negotiate::object(
                    resource, 200, &object, &form, request,
                )?))
            }
            Method::PUT => {
                let options = WriteOptions::read(request, now, subresource)?;
                let body = body::decode(&request.media_type(), &request.body)?;
                let outcome = update::replace(self, resource, &key, body, &options)?;
                written(resource, outcome, &form, request)
            }
            Method::PATCH => {
                let options = WriteOptions::read(request, now, subresource)?;
                let outcome = crud::patch::patch(self, resource, &key, request, &options)?;
                written(resource, outcome, &form, request)
            }
            Method::DELETE if subresource.is_empty() => {
                let mut write = WriteOptions::read(request, now, "")?;
                let options = delete::DeleteOptions::read(request, &mut write)?;
                match delete::delete(self, resource, &key, &options, &write)? {
                    delete::Deleted::Pending(outcome) => written(resource, outcome, &form, request),
                    delete::Deleted::Gone(status) => Ok(Reply::Answer(Answer::json(200, &status))),
                }
            }
            _ => Err(Refusal::method_not_allowed()),
        }
    }

    /// Refuses creates in namespaces that are not there or going away.
    pub(crate) fn check_namespace_open(
        &self,
        resource: &ResourceType,
        namespace: &str,
        name: &str,
    ) -> Result<(), Refusal> {
        let key = ObjectKey::new("", namespace);
        let namespaces = crate::machinery::namespaces();
        let Some(object) = self.store.get(&namespaces, &key) else {
            let about = crate::status::About::new("", "namespaces", namespace);
            return Err(Refusal::not_found(about));
        };
        if object::is_terminating(object) {
            return Err(Refusal::namespace_terminating(
                resource.about(name),
                namespace,
            ));
        }
        Ok(())
    }
}

fn written(
    resource: &ResourceType,
    outcome: Outcome,
    form: &Form,
    request: &Request,
) -> Result<Reply, Refusal> {
    let mut answer = negotiate::object(resource, outcome.code, &outcome.object, form, request)?;
    answer.warnings = outcome.warnings;
    Ok(Reply::Answer(answer))
}
