//! Answers to those who scrape.
//!
//! Owns one HTTP listener with one page. Does not own the page.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

use crate::accept;
use crate::page::Page;

/// Connections at a time: a handful of Prometheus servers. More wait for others to close.
const CONNECTIONS: usize = 16;
/// How long a connection may last; a scraper opens another.
const PATIENCE: Duration = Duration::from_secs(300);

/// Until a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(10);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves `/metrics` on `address` for as long as it is polled. `page` makes the answer to a scrape, or
/// says why there is none. The rest of the process does not depend on it: a port that is taken is
/// tried again.
pub async fn serve<P, F>(address: SocketAddr, page: P)
where
    P: Fn() -> F + Clone + Send + 'static,
    F: Future<Output = Result<Page, String>> + Send + 'static,
{
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "metrics are served");
                let converse = |stream| converse(stream, page.clone());
                accept::serve(&listener, CONNECTIONS, "metrics", converse).await;
            }
            Err(error) => tracing::error!(%address, %error, "metrics are not served"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse<P, F>(stream: TcpStream, page: P)
where
    P: Fn() -> F + Clone + Send,
    F: Future<Output = Result<Page, String>> + Send,
{
    let service = service_fn(move |request| {
        let page = page.clone();
        async move { Ok::<_, Infallible>(answer(&request, page).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, connection).await {
        tracing::debug!(%error, "a scraper went away");
    }
}

async fn answer<F>(request: &Request<Incoming>, page: impl Fn() -> F) -> Response<Full<Bytes>>
where
    F: Future<Output = Result<Page, String>>,
{
    let plain = |status: StatusCode, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/metrics" {
        return plain(StatusCode::NOT_FOUND, "see /metrics\n".to_owned());
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, String::new());
        let allowed = hyper::header::HeaderValue::from_static("GET, HEAD");
        response.headers_mut().insert(ALLOW, allowed);
        return response;
    }
    let text = page().await;
    match text.and_then(|page| page.text().map_err(|error| error.to_string())) {
        Ok(text) => {
            let mut response = plain(StatusCode::OK, text);
            let kind = hyper::header::HeaderValue::from_static(OPEN_METRICS);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}
