//! The plugin's end of the socket: dial, ask, wait, and dial again when the agent restarts.

use std::io;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::protocol::{
    Call, FrameError, Outcome, PROTOCOL, Reply, Request, read_frame, write_frame,
};

/// Pause between two attempts to reach the agent.
const RETRY: Duration = Duration::from_millis(50);

/// How long the plugin tries, and how long it waits for the answer once it is asked.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// From the first attempt to connect to the last.
    pub connect: Duration,
    /// From a sent request to its reply.
    pub answer: Duration,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or whoever listened went away before the reply.
    #[error("the agent does not answer at {socket}")]
    Unreachable {
        /// The socket's path.
        socket: String,
        /// What the last attempt said.
        #[source]
        source: FrameError,
    },
    /// The agent is there but did not reply in time.
    #[error("the agent at {socket} has not answered for {waited:?}")]
    Late {
        /// The socket's path.
        socket: String,
        /// How long the plugin waited.
        waited: Duration,
    },
    /// The agent answered something that this plugin cannot read.
    #[error("the agent at {socket} speaks another protocol than this plugin ({PROTOCOL})")]
    Foreign {
        /// The socket's path.
        socket: String,
        /// What was wrong with the reply, where it was not merely the number.
        #[source]
        source: Option<FrameError>,
    },
}

/// Asks the agent. A connection that breaks before the reply is dialled again until the patience
/// ends: every verb is idempotent, so an agent that died after the work and before the reply gives
/// the same answer to the repetition.
///
/// # Errors
/// See [`ClientError`].
pub fn ask(socket: &Path, call: &Call, patience: Patience) -> Result<Outcome, ClientError> {
    let request = Request {
        protocol: PROTOCOL,
        patience_ms: u64::try_from(patience.answer.as_millis()).unwrap_or(u64::MAX),
        call: call.clone(),
    };
    let name = || socket.display().to_string();
    let started = Instant::now();
    loop {
        let error = match exchange(socket, &request, patience.answer) {
            Ok(reply) if reply.protocol == PROTOCOL => return Ok(reply.outcome),
            Ok(_) => {
                return Err(ClientError::Foreign {
                    socket: name(),
                    source: None,
                });
            }
            Err(FrameError::Io(error)) => error,
            Err(error) => {
                return Err(ClientError::Foreign {
                    socket: name(),
                    source: Some(error),
                });
            }
        };
        // A timed-out read says WouldBlock on Linux.
        if matches!(
            error.kind(),
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
        ) {
            return Err(ClientError::Late {
                socket: name(),
                waited: patience.answer,
            });
        }
        if started.elapsed() + RETRY > patience.connect {
            return Err(ClientError::Unreachable {
                socket: name(),
                source: error.into(),
            });
        }
        thread::sleep(RETRY);
    }
}

fn exchange(socket: &Path, request: &Request, answer: Duration) -> Result<Reply, FrameError> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(answer))?;
    stream.set_write_timeout(Some(answer))?;
    write_frame(&mut stream, request)?;
    read_frame(&mut stream)
}
