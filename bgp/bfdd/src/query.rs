//! One question, for those who do not stay.

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::error::Error;
use crate::proto::{Message, Request, Snapshot};

/// The process answers in milliseconds, unless its host is very busy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Everything about every session of the process at `socket`.
///
/// # Errors
/// Nobody answers there, or not in this language.
pub fn sessions(socket: &Path) -> Result<Snapshot, Error> {
    let failed = |source| Error::Ask {
        path: socket.to_owned(),
        source,
    };
    let unreadable = |source| Error::Answer {
        path: socket.to_owned(),
        source,
    };
    let mut stream = UnixStream::connect(socket).map_err(failed)?;
    stream.set_read_timeout(Some(PATIENCE)).map_err(failed)?;
    let mut line = serde_json::to_vec(&Request::Sessions).map_err(unreadable)?;
    line.push(b'\n');
    stream.write_all(&line).map_err(failed)?;
    let mut answer = String::new();
    BufReader::new(stream)
        .read_line(&mut answer)
        .map_err(|source| match source.kind() {
            // What the kernel calls a time that is over.
            io::ErrorKind::WouldBlock => io::Error::new(
                io::ErrorKind::TimedOut,
                format!("no answer within {PATIENCE:?}"),
            ),
            _ => source,
        })
        .map_err(failed)?;
    match serde_json::from_str(&answer).map_err(unreadable)? {
        Message::Ok(snapshot) => Ok(snapshot),
        Message::Error(why) => Err(Error::Refused(why)),
        Message::Event(_) | Message::Lagged(_) => Err(Error::Refused(
            "it tells of changes nobody asked for".to_owned(),
        )),
    }
}
