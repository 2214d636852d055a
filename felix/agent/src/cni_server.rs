//! The Unix socket on which the CNI plugin asks.
//!
//! Owns the socket, the frames and who may speak. Does not own what a call does: each is handed to
//! the loop with a place for the answer.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use caracal_cni::protocol::{
    Call, FrameError, Outcome, PROTOCOL, Reply, Request, body_length, encode,
};
use caracal_cni::{CniError, ErrorCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

/// Calls waiting for the loop. A runtime starts at most a few hundred pods at once on a node; the
/// rest waits in the socket's backlog.
const CALLS_DEPTH: usize = 256;

/// A plugin that connected and says nothing is cut off: it sends at once.
const REQUEST_PATIENCE: Duration = Duration::from_secs(5);

/// What the loop may take at most, where the plugin would wait longer.
const LONGEST_ANSWER: Duration = Duration::from_secs(25);

/// A call with the place for its answer. The plugin may be gone by then; the answer is then lost,
/// which is fine, because it will ask again.
#[derive(Debug)]
pub(crate) struct CniCall {
    /// What is asked.
    pub(crate) call: Call,
    /// Where the answer goes.
    pub(crate) answer: oneshot::Sender<Outcome>,
}

/// Listens at `path`, replacing a socket that an earlier agent left.
///
/// # Errors
/// Where the socket cannot be made.
pub(crate) fn listen(path: &Path, tasks: &mut JoinSet<()>) -> io::Result<mpsc::Receiver<CniCall>> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let (sender, receiver) = mpsc::channel(CALLS_DEPTH);
    tasks.spawn(accept(listener, path.to_owned(), sender));
    Ok(receiver)
}

async fn accept(listener: UnixListener, path: PathBuf, calls: mpsc::Sender<CniCall>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve(stream, calls.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: give connections time to end.
                    warn!(socket = %path.display(), %error, "cannot accept a CNI call");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn serve(mut stream: UnixStream, calls: mpsc::Sender<CniCall>) {
    let reply = match timeout(REQUEST_PATIENCE, request(&mut stream)).await {
        Ok(Ok(request)) => Reply::new(outcome(&stream, request, calls).await),
        Ok(Err(error)) => {
            debug!(%error, "unreadable CNI request");
            let refusal = CniError::new(ErrorCode::Decode, "the agent cannot read the request");
            Reply::new(Outcome::Failed(refusal.because(error)))
        }
        Err(_) => {
            debug!("CNI peer connected and sent nothing");
            return;
        }
    };
    match encode(&reply) {
        Ok(frame) => {
            if let Err(error) = stream.write_all(&frame).await {
                debug!(%error, "the plugin left before its answer");
            }
        }
        Err(error) => warn!(%error, "cannot encode a CNI answer"),
    }
}

async fn request(stream: &mut UnixStream) -> Result<Request, FrameError> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; body_length(head)?];
    stream.read_exact(&mut body).await?;
    Ok(serde_json::from_slice(&body)?)
}

async fn outcome(stream: &UnixStream, request: Request, calls: mpsc::Sender<CniCall>) -> Outcome {
    let failed = |code, msg: &str| Outcome::Failed(CniError::new(code, msg));
    // The mode of the socket says the same; this holds where someone loosens it.
    if stream.peer_cred().map(|peer| peer.uid()).ok() != Some(0) {
        return failed(
            ErrorCode::Other(101),
            "only root may ask for pod interfaces",
        );
    }
    if request.protocol != PROTOCOL {
        return failed(
            ErrorCode::Other(102),
            "the plugin and the agent do not match",
        );
    }
    let patience = Duration::from_millis(request.patience_ms).min(LONGEST_ANSWER);
    let not_now = match request.call {
        Call::Status => ErrorCode::NotAvailable,
        _ => ErrorCode::TryAgainLater,
    };
    let (answer, answered) = oneshot::channel();
    let ask = async {
        calls
            .send(CniCall {
                call: request.call,
                answer,
            })
            .await
            .ok()?;
        answered.await.ok()
    };
    match timeout(patience, ask).await {
        Ok(Some(outcome)) => outcome,
        Ok(None) => failed(not_now, "the agent is stopping"),
        Err(_) => failed(not_now, "the agent is starting or busy"),
    }
}
