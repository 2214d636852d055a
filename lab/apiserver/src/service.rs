//! The server as a `tower` service: HTTP requests in, HTTP answers and watch streams out.
//!
//! Owns the clock, the lock around the logic, the waiting of watches, and the showing of faults.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Body, Frame};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::api::{Answer, Api, MAX_BODY, Reply};
use crate::audit::{RequestKind, Requests};
use crate::faults::{Fault, Faults};
use crate::request::Request;
use crate::status::Refusal;
use crate::watch::Watch;

/// How long a watch-list that is ahead of the store waits for it before it is refused.
const AHEAD_WAIT: Duration = Duration::from_secs(3);

/// Body of answers.
pub type AnswerBody = UnsyncBoxBody<Bytes, BrokenOff>;

/// The stream was cut by a fault, or by the end of the server.
#[derive(Debug, thiserror::Error)]
#[error("connection broken off")]
pub struct BrokenOff;

/// Handle to a server that answers requests in the caller's process.
#[derive(Debug, Clone)]
pub struct ApiService {
    pub(crate) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    api: Mutex<Api>,
    /// Newest revision; wakes the watches.
    revision: watch::Sender<u64>,
    pub(crate) requests: Requests,
    pub(crate) faults: Faults,
    pub(crate) stop: CancellationToken,
}

impl Shared {
    pub(crate) fn new(api: Api) -> Self {
        let (revision, _) = watch::channel(api.revision());
        Self {
            api: Mutex::new(api),
            revision,
            requests: Requests::default(),
            faults: Faults::default(),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Api> {
        // The logic stores objects whole, so a panic leaves no half-written state behind.
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn handle(&self, request: &Request) -> Reply {
        let mut api = self.lock();
        let reply = api.handle(request);
        let revision = api.revision();
        drop(api);
        self.announce(revision);
        reply
    }

    pub(crate) fn announce(&self, revision: u64) {
        self.revision.send_if_modified(|current| {
            let newer = revision > *current;
            *current = revision.max(*current);
            newer
        });
    }
}

impl<B> tower::Service<http::Request<B>> for ApiService
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Response = Response<AnswerBody>;
    type Error = BrokenOff;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BrokenOff>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BrokenOff>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        Box::pin(async move { respond(shared, request).await })
    }
}

async fn respond<B>(
    shared: Arc<Shared>,
    request: http::Request<B>,
) -> Result<Response<AnswerBody>, BrokenOff>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = request.into_parts();
    let head = http::Request::from_parts(head, ());
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            return Ok(whole(&Answer::refusal(&Refusal::too_large(MAX_BODY))));
        }
        Err(_) => return Err(BrokenOff),
    };
    let mut request = Request::new(&head, body, Timestamp::now());
    let kind = RequestKind::of(&request);
    let plural = kind
        .resource
        .split('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let struck = shared.faults.strike(&kind.user_agent, &kind.verb, &plural);
    for fault in &struck {
        match fault {
            Fault::Partition => {
                shared.requests.record(&request, kind, 0);
                return Err(BrokenOff);
            }
            Fault::Delay(time) => tokio::time::sleep(*time).await,
            Fault::TooManyRequests(seconds) => {
                let answer = Answer::refusal(&Refusal::too_many_requests(*seconds));
                shared.requests.record(&request, kind, answer.code);
                return Ok(whole(&answer));
            }
            Fault::Forbidden => {
                let answer = Answer::refusal(&Refusal::not_allowed(&kind.verb, &kind.resource));
                shared.requests.record(&request, kind, answer.code);
                return Ok(whole(&answer));
            }
            Fault::Gone if kind.verb == "watch" => {
                let answer = Answer::refusal(&Refusal::expired("too old resource version"));
                shared.requests.record(&request, kind, answer.code);
                return Ok(whole(&answer));
            }
            Fault::Gone | Fault::GoneInBand | Fault::TimeoutAfterWrite | Fault::Stall => {}
        }
    }
    let reply = handle_when_current(&shared, &mut request, &kind).await;
    match reply {
        Reply::Answer(mut answer) => {
            if struck.contains(&Fault::TimeoutAfterWrite) && kind.verb != "watch" {
                answer = Answer::refusal(&Refusal::timeout());
            }
            shared.requests.record(&request, kind, answer.code);
            Ok(whole(&answer))
        }
        Reply::Watch(watch) => {
            shared.requests.record(&request, kind.clone(), 200);
            let running = Running {
                shared,
                user_agent: kind.user_agent,
                watch: *watch,
                expires: struck.contains(&Fault::GoneInBand),
                stalls: struck.contains(&Fault::Stall),
            };
            Ok(running.into_response())
        }
    }
}

/// Requests ahead of the store get a chance to be overtaken by a write.
async fn handle_when_current(shared: &Shared, request: &mut Request, kind: &RequestKind) -> Reply {
    let deadline = tokio::time::Instant::now() + AHEAD_WAIT;
    let mut revision = shared.revision.subscribe();
    loop {
        revision.mark_unchanged();
        let reply = shared.handle(request);
        let ahead = matches!(&reply, Reply::Answer(answer) if answer.code == 504)
            && matches!(kind.verb.as_str(), "watch" | "list" | "get");
        if !ahead
            || tokio::time::timeout_at(deadline, revision.changed())
                .await
                .is_err()
        {
            return reply;
        }
        request.received = Timestamp::now();
    }
}

fn whole(answer: &Answer) -> Response<AnswerBody> {
    let body = Full::new(Bytes::from(answer.body.clone()));
    let body = body
        .map_err(|never: Infallible| match never {})
        .boxed_unsync();
    let mut response = Response::new(body);
    *response.status_mut() = http::StatusCode::from_u16(answer.code)
        .expect("the logic answers with registered status codes");
    let headers = response.headers_mut();
    let mut set = |name: header::HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.append(name, value);
        }
    };
    set(header::CONTENT_TYPE, &answer.content_type);
    set(header::CACHE_CONTROL, "no-cache, private");
    if let Some(etag) = &answer.etag {
        set(header::ETAG, etag);
    }
    if let Some(seconds) = answer.retry_after {
        set(header::RETRY_AFTER, &seconds.to_string());
    }
    for warning in &answer.warnings {
        let text = warning.replace('\\', "\\\\").replace('"', "\\\"");
        set(header::WARNING, &format!("299 - \"{text}\""));
    }
    response
}

/// A watch whose stream is being read.
struct Running {
    shared: Arc<Shared>,
    user_agent: String,
    watch: Watch,
    expires: bool,
    stalls: bool,
}

impl Running {
    fn into_response(self) -> Response<AnswerBody> {
        let content_type = HeaderValue::from_str(self.watch.content_type())
            .unwrap_or(HeaderValue::from_static("application/json"));
        let revision = self.shared.revision.subscribe();
        let frames = stream::unfold(Some((self, revision)), |state| async move {
            let (mut running, mut revision) = state?;
            match running.next(&mut revision).await {
                Some(Ok(bytes)) => Some((Ok(Frame::data(bytes)), Some((running, revision)))),
                Some(Err(broken)) => Some((Err(broken), None)),
                None => None,
            }
        });
        let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(frames)));
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
        response.headers_mut().insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, private"),
        );
        response
    }

    /// Waits for the next frames; `None` at the regular end.
    async fn next(
        &mut self,
        revision: &mut watch::Receiver<u64>,
    ) -> Option<Result<Bytes, BrokenOff>> {
        loop {
            let shared = Arc::clone(&self.shared);
            let faults_changed = shared.faults.changed();
            tokio::pin!(faults_changed);
            faults_changed.as_mut().enable();
            revision.mark_unchanged();
            let lasting = shared
                .faults
                .on_running_watch(&self.user_agent, self.watch.plural());
            if lasting.contains(&Fault::Partition) {
                return Some(Err(BrokenOff));
            }
            if std::mem::take(&mut self.expires) || lasting.contains(&Fault::GoneInBand) {
                if self.watch.is_ended() {
                    return None;
                }
                return Some(Ok(self.watch.expire()));
            }
            let stalled = self.stalls || lasting.contains(&Fault::Stall);
            if !stalled {
                let frames = self.watch.poll(Timestamp::now(), &shared.lock().store);
                if !frames.is_empty() {
                    return Some(Ok(frames.concat().into()));
                }
                if self.watch.is_ended() {
                    return None;
                }
            }
            let pause = self.watch.deadline().filter(|_| !stalled).map_or(
                Duration::from_secs(3600),
                |deadline| {
                    Duration::try_from(deadline.duration_since(Timestamp::now()))
                        .unwrap_or_default()
                },
            );
            tokio::select! {
                changed = revision.changed() => changed.ok()?,
                () = faults_changed => {}
                // A little late is better than a busy loop just before the deadline.
                () = tokio::time::sleep(pause + Duration::from_millis(1)) => {}
                () = shared.stop.cancelled() => return None,
            }
        }
    }
}
