//! The local API: one Unix socket, one JSON object per line, one answer per line.
//!
//! Owns the protocol. Does not own the answers, which are the handle's.
//!
//! ```text
//! {"verb":"peers"}                                  -> {"ok": SpeakerSnapshot}
//! {"verb":"routes","prefix":"10.0.0.0/8"}           -> {"ok": [RouteSnapshot]}   prefix optional
//! {"verb":"explain","prefix":"10.244.1.7"}          -> {"ok": Explanation}
//! {"verb":"history","peer":"tor1"}                  -> {"ok": HistorySnapshot}
//! anything else                                     -> {"error": "..."}
//! ```

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use caracal_bgp_core::types::Prefix;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::config::PeerName;
use crate::error::Error;
use crate::handle::SpeakerHandle;

/// The longest request; the longest valid one is much shorter.
const MAX_REQUEST: u64 = 4096;
/// A client may take this long over one request or answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request, as it stands on the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The speaker and its sessions.
    Peers,
    /// The table, or the part inside `prefix`.
    Routes {
        /// `address/length`, or an address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
    },
    /// Why packets to `prefix` go where they go.
    Explain {
        /// `address/length`, or an address.
        prefix: String,
    },
    /// What happened last with a peer.
    History {
        /// What the configuration calls it.
        peer: String,
    },
}

/// An answer, as it stands on the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response<T> {
    /// What was asked for.
    Ok(T),
    /// Why there is no answer.
    Error(String),
}

/// Serves the API on `path` until the task is aborted. A socket that a former life left behind is
/// replaced.
pub(crate) fn serve(path: &Path, handle: SpeakerHandle) -> Result<JoinHandle<()>, Error> {
    let failed = |source| Error::Api {
        path: path.to_owned(),
        source,
    };
    let listener = bind(path).map_err(failed)?;
    Ok(tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    tokio::spawn(converse(stream, handle.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept on the local API");
                    // Out of descriptors: others may close theirs meanwhile.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }))
}

fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

async fn converse(stream: UnixStream, handle: SpeakerHandle) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut limited = (&mut lines).take(MAX_REQUEST);
        match tokio::time::timeout(PATIENCE, limited.read_line(&mut line)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
        let mut reply = answer(line.trim(), &handle).await;
        reply.push('\n');
        match tokio::time::timeout(PATIENCE, write.write_all(reply.as_bytes())).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

async fn answer(line: &str, handle: &SpeakerHandle) -> String {
    let request: Request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => return refuse(&format!("cannot read the request: {error}")),
    };
    let outcome = match request {
        Request::Peers => handle.snapshot().await.map(|answer| render(&answer)),
        Request::Routes { prefix: None } => handle.routes(None).await.map(|answer| render(&answer)),
        Request::Routes {
            prefix: Some(prefix),
        } => match prefix.parse::<Prefix>() {
            Ok(prefix) => handle
                .routes(Some(prefix))
                .await
                .map(|answer| render(&answer)),
            Err(error) => return refuse(&error.to_string()),
        },
        Request::Explain { prefix } => match prefix.parse::<Prefix>() {
            Ok(prefix) => handle.explain(prefix).await.map(|answer| render(&answer)),
            Err(error) => return refuse(&error.to_string()),
        },
        Request::History { peer } => match handle.history(PeerName(peer.clone())).await {
            Ok(None) => return refuse(&format!("no peer is called {peer:?}")),
            answer => answer.map(|answer| render(&answer)),
        },
    };
    outcome.unwrap_or_else(|error| refuse(&error.to_string()))
}

fn render<T: Serialize>(answer: &T) -> String {
    serde_json::to_string(&Response::Ok(answer))
        .unwrap_or_else(|error| refuse(&format!("cannot write the answer: {error}")))
}

fn refuse(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}
