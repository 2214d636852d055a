//! Servers to test against, and plain HTTP requests to them.

use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use caracal_apiserver::{ApiServer, Options};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::{Client, Config};
use serde_json::{Value, json};

/// Longest wait for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// A server under test, with a namespace of the test's own.
pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    /// `None` for a real one.
    pub(crate) embedded: Option<ApiServer>,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) text: String,
    pub(crate) body: Value,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }

    #[track_caller]
    pub(crate) fn expect(self, code: u16) -> Self {
        assert_eq!(self.code, code, "answer: {}", self.text);
        self
    }

    /// Asserts a refusal with a code and a reason.
    #[track_caller]
    pub(crate) fn refused(self, code: u16, reason: &str) -> Self {
        let this = self.expect(code);
        assert_eq!(this.body["kind"], "Status", "answer: {}", this.text);
        assert_eq!(this.body["reason"], reason, "answer: {}", this.text);
        this
    }

    pub(crate) fn version(&self) -> String {
        self.body["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .into()
    }
}

static SERIAL: AtomicU64 = AtomicU64::new(0);

/// Whether it was said that there is no real server; once will do.
static SAID: Once = Once::new();

/// A name nobody else uses.
pub(crate) fn unique(prefix: &str) -> String {
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    format!("{prefix}-{}-{serial}", std::process::id())
}

/// The embedded server, and the real one if there is one; each with a fresh namespace.
pub(crate) async fn servers() -> Vec<Server> {
    let mut servers = vec![Server::embedded().await];
    match crate::real::url().await {
        Some(url) => servers.push(Server::at(&url, None).await),
        None => SAID.call_once(|| {
            caracal_skip::skip!(
                "real kube-apiserver: neither KUBECONFIG nor KUBEBUILDER_ASSETS set"
            );
        }),
    }
    servers
}

impl Server {
    pub(crate) async fn embedded() -> Self {
        let server = ApiServer::start(Options::loopback())
            .await
            .expect("start on the loopback");
        Self::over(server).await
    }

    /// Tests against an embedded server started by the test.
    pub(crate) async fn over(server: ApiServer) -> Self {
        let url = server.url();
        Self::at(&url, Some(server)).await
    }

    async fn at(url: &str, embedded: Option<ApiServer>) -> Self {
        let client = client(url);
        let server = Self {
            client,
            namespace: unique("test"),
            embedded,
        };
        let namespace = json!({"metadata": {"name": server.namespace}});
        server
            .post("/api/v1/namespaces", &namespace)
            .await
            .expect(201);
        server
    }

    /// Path of a core resource in the test's namespace.
    pub(crate) fn core(&self, rest: &str) -> String {
        format!("/api/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// Path of a resource of another group in the test's namespace.
    pub(crate) fn group(&self, group: &str, rest: &str) -> String {
        format!("/apis/{group}/v1/namespaces/{}/{rest}", self.namespace)
    }

    /// Sends a request; `headers` are pairs of name and value.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        let response = self.open(method, path, headers, body).await;
        let (head, body) = response.into_parts();
        let bytes = body.collect().await.expect("read the body").to_bytes();
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let body = serde_json::from_str(&text).unwrap_or(Value::Null);
        Reply {
            code: head.status.as_u16(),
            headers: head.headers,
            text,
            body,
        }
    }

    /// As [`Server::send`], without waiting for the end of the body.
    pub(crate) async fn open(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> http::Response<Body> {
        let mut request = http::Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request
            .body(Body::from(body.into().to_vec()))
            .expect("a valid request");
        tokio::time::timeout(PATIENCE, self.client.send(request))
            .await
            .unwrap_or_else(|_| panic!("no answer to {method} {path}"))
            .unwrap_or_else(|error| panic!("{method} {path}: {error}"))
    }

    pub(crate) async fn get(&self, path: &str) -> Reply {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn get_as(&self, path: &str, accept: &str) -> Reply {
        self.send("GET", path, &[("accept", accept)], "").await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Reply {
        self.send(
            "POST",
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Reply {
        self.send(
            "PUT",
            path,
            &[("content-type", "application/json")],
            body.to_string(),
        )
        .await
    }

    pub(crate) async fn patch(&self, path: &str, kind: &str, body: &Value) -> Reply {
        let media_type = match kind {
            "apply" => "application/apply-patch+yaml".to_owned(),
            kind => format!("application/{kind}+json"),
        };
        self.send(
            "PATCH",
            path,
            &[("content-type", &media_type)],
            body.to_string(),
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str, options: &Value) -> Reply {
        let headers = [("content-type", "application/json")];
        let body = if options.is_null() {
            String::new()
        } else {
            options.to_string()
        };
        self.send("DELETE", path, &headers, body).await
    }

    /// Creates a ConfigMap in the test's namespace.
    pub(crate) async fn config_map(&self, name: &str, data: &Value) -> Reply {
        let body = json!({"metadata": {"name": name}, "data": data});
        self.post(&self.core("configmaps"), &body).await.expect(201)
    }

    /// Polls until an answer fulfils a condition.
    pub(crate) async fn until(
        &self,
        path: &str,
        what: &str,
        done: impl Fn(&Reply) -> bool,
    ) -> Reply {
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let reply = self.get(path).await;
            if done(&reply) {
                return reply;
            }
            let late = tokio::time::Instant::now() > deadline;
            assert!(!late, "{path}: not {what}; last answer: {}", reply.text);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Opens a watch.
    pub(crate) async fn watch(&self, path: &str, query: &str) -> Frames {
        self.watch_as(path, query, "application/json").await
    }

    pub(crate) async fn watch_as(&self, path: &str, query: &str, accept: &str) -> Frames {
        let path = format!("{path}?watch=true&{query}");
        let response = self.open("GET", &path, &[("accept", accept)], "").await;
        assert_eq!(response.status(), 200, "{path}");
        Frames {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }

    /// Defines a custom resource `things` in a group of the test's own; returns group and path.
    pub(crate) async fn define(&self, version: Value) -> (String, String) {
        let group = format!("{}.example.com", unique("g"));
        let definition = definition(&group, version);
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        self.post(path, &definition).await.expect(201);
        let things = format!("/apis/{group}/v1/namespaces/{}/things", self.namespace);
        self.until(&things, "served", |reply| reply.code == 200)
            .await;
        (group, things)
    }
}

/// A CRD of kind Thing; `version` is laid over its version v1.
pub(crate) fn definition(group: &str, version: Value) -> Value {
    let mut v1 = json!({
        "name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
                "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            },
        }},
        "subresources": {"status": {}},
    });
    for (key, value) in version.as_object().into_iter().flatten() {
        v1[key] = value.clone();
    }
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing"},
            "versions": [v1],
        },
    })
}

/// A schema whose `spec` has the given properties.
pub(crate) fn spec_schema(spec: Value) -> Value {
    json!({"schema": {"openAPIV3Schema": {
        "type": "object",
        "properties": {
            "spec": spec,
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    }}})
}

pub(crate) fn client(url: &str) -> Client {
    let mut config = Config::new(url.parse().expect("a valid URL"));
    // Refusals that ask for a retry are what is tested.
    config.default_retry = false;
    Client::try_from(config).expect("a client without TLS")
}

/// The lines of a watch.
pub(crate) struct Frames {
    body: Body,
    buffer: Vec<u8>,
}

impl Frames {
    /// The next event, or `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = tokio::time::timeout(PATIENCE, self.line());
        line.await.expect("a watch event or the end of the stream")
    }

    /// The next event, which has to be of a type and about an object.
    #[track_caller]
    pub(crate) fn expect<'a>(
        &'a mut self,
        kind: &'a str,
        name: &'a str,
    ) -> impl Future<Output = Value> + 'a {
        let caller = std::panic::Location::caller();
        async move {
            let event = self
                .next()
                .await
                .unwrap_or_else(|| panic!("stream ended at {caller}"));
            let got = (
                event["type"].as_str(),
                event["object"]["metadata"]["name"].as_str(),
            );
            assert_eq!(got, (Some(kind), Some(name)), "at {caller}: {event}");
            event
        }
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(300), self.line())
            .await
            .is_err()
    }

    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).expect("a JSON line"));
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
