//! The Unix socket on which people and programs ask about policy.
//!
//! Owns the socket and its conversations. Does not own the protocol (see [`crate::policy_api`]) nor
//! the answers: each question is handed to the loop with a place for the answer.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::policy_api::{Request, Response};

/// Questions waiting for the loop: a handful of people, or one collector.
const QUESTIONS_DEPTH: usize = 16;

/// The longest request; the longest valid one is much shorter.
const MAX_REQUEST: u64 = 4096;

/// A client may take this long over one request or answer.
const CLIENT_PATIENCE: Duration = Duration::from_secs(30);

/// What the loop may take over an answer. It has none before it knows the cluster.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A question with the place for its answer, one line of JSON.
#[derive(Debug)]
pub(crate) struct Question {
    /// What is asked.
    pub(crate) request: Request,
    /// Where the answer goes. Nobody waits there where the client has left.
    pub(crate) answer: oneshot::Sender<String>,
}

/// Listens at `path`, replacing a socket that an earlier agent left.
///
/// # Errors
/// Where the socket cannot be made.
pub(crate) fn listen(path: &Path, tasks: &mut JoinSet<()>) -> io::Result<mpsc::Receiver<Question>> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let (sender, receiver) = mpsc::channel(QUESTIONS_DEPTH);
    tasks.spawn(accept(listener, path.to_owned(), sender));
    Ok(receiver)
}

/// The line that answers with `answer`, or says why there is none.
pub(crate) fn render<T: Serialize, E: std::fmt::Display>(answer: Result<T, E>) -> String {
    let response = match answer {
        Ok(answer) => Response::Ok(answer),
        Err(error) => Response::Error(error.to_string()),
    };
    serde_json::to_string(&response)
        .unwrap_or_else(|error| refusal(&format!("cannot write the answer: {error}")))
}

async fn accept(listener: UnixListener, path: PathBuf, questions: mpsc::Sender<Question>) {
    let mut conversations = JoinSet::new();
    loop {
        tokio::select! {
            Some(_) = conversations.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    conversations.spawn(converse(stream, questions.clone()));
                }
                Err(error) => {
                    // Out of descriptors, most likely: give others time to end.
                    warn!(socket = %path.display(), %error, "cannot accept a question");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn converse(stream: UnixStream, questions: mpsc::Sender<Question>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read);
    loop {
        let mut line = String::new();
        let mut limited = (&mut lines).take(MAX_REQUEST);
        match timeout(CLIENT_PATIENCE, limited.read_line(&mut line)).await {
            Ok(Ok(1..)) => {}
            _ => return,
        }
        let mut answer = answer(line.trim(), &questions).await;
        answer.push('\n');
        match timeout(CLIENT_PATIENCE, write.write_all(answer.as_bytes())).await {
            Ok(Ok(())) => {}
            _ => {
                debug!("a client left before its answer");
                return;
            }
        }
    }
}

async fn answer(line: &str, questions: &mpsc::Sender<Question>) -> String {
    let request = match serde_json::from_str(line) {
        Ok(request) => request,
        Err(error) => return refusal(&format!("cannot read the request: {error}")),
    };
    let (answer, answered) = oneshot::channel();
    let ask = async {
        questions.send(Question { request, answer }).await.ok()?;
        answered.await.ok()
    };
    match timeout(ANSWER_PATIENCE, ask).await {
        Ok(Some(line)) => line,
        Ok(None) => refusal("the agent is stopping"),
        Err(_) => refusal("the agent is starting or busy"),
    }
}

fn refusal(why: &str) -> String {
    serde_json::json!({ "error": why }).to_string()
}
