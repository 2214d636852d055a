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
use crate::handle::SpeakerHandle;
use crate::metrics::encode;

/// Connections at a time: a handful of Prometheus servers. More wait for others to close.
const CONNECTIONS: usize = 16;
/// How long a connection may last; a scraper opens another.
const PATIENCE: Duration = Duration::from_secs(300);

/// Until a port that is taken is tried again.
const RETRY: Duration = Duration::from_secs(10);

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves the page on `address` for as long as it is polled. BGP does not depend on it: a port that
/// is taken is tried again.
pub(crate) async fn serve(address: SocketAddr, handle: SpeakerHandle) {
    loop {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                tracing::info!(%address, "metrics are served");
                let converse = |stream| converse(stream, handle.clone());
                accept::serve(&listener, CONNECTIONS, "metrics", converse).await;
            }
            Err(error) => tracing::error!(%address, %error, "metrics are not served"),
        }
        tokio::time::sleep(RETRY).await;
    }
}

async fn converse(stream: TcpStream, handle: SpeakerHandle) {
    let service = service_fn(move |request| {
        let handle = handle.clone();
        async move { Ok::<_, Infallible>(answer(&request, &handle).await) }
    });
    let connection =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, connection).await {
        tracing::debug!(%error, "a scraper went away");
    }
}

async fn answer(request: &Request<Incoming>, handle: &SpeakerHandle) -> Response<Full<Bytes>> {
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
    let page = match handle.snapshot().await {
        Ok(snapshot) => encode(snapshot).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match page {
        Ok(page) => {
            let mut response = plain(StatusCode::OK, page);
            let kind = hyper::header::HeaderValue::from_static(OPEN_METRICS);
            response.headers_mut().insert(CONTENT_TYPE, kind);
            response
        }
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
    }
}
