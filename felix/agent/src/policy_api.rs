//! What an agent tells about policy on its node: requests, answers, and a client.
//!
//! Owns the protocol of `policy.sock`: one JSON object per line, one answer per line. Does not own
//! the answers (see [`Agent`](crate::Agent)) nor the meaning of a class.
//!
//! ```text
//! {"verb":"classes"}  -> {"ok": [ClassDrops]}
//! {"verb":"drops"}    -> {"ok": OtherDrops}
//! anything else       -> {"error": "..."}
//! ```

use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Name of the socket below [`Config::run_dir`](crate::Config::run_dir).
pub const SOCKET: &str = "policy.sock";

/// How long [`ask`] waits: longer than the agent takes to say that it has no answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// A request, as it stands on the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase")]
pub enum Request {
    /// The classes and what each dropped; answered by a list of [`ClassDrops`].
    Classes,
    /// What was dropped for other reasons; answered by [`OtherDrops`].
    Drops,
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

/// A class of pods that the same policies isolate in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassDrops {
    /// Its number in eight hexadecimal digits, as in the names of its chain and counter.
    pub class: String,
    /// Whether it judges packets to these pods or from them.
    pub direction: Direction,
    /// The policies that isolate its pods, as `namespace/name`: to them a drop is due.
    pub policies: Vec<String>,
    /// Its pods on this node, as `namespace/name`; a pod that the agent cannot name is shown as the
    /// interface at its host end.
    pub endpoints: Vec<String>,
    /// Packets that it dropped since the class was first written.
    pub dropped_packets: u64,
}

/// Which way a class judges, seen from the pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

/// Packets dropped by no class, since the table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherDrops {
    /// From an address that the pod does not own.
    pub spoofed: u64,
    /// To or from an interface of a pod that is not known.
    pub unknown_interface: u64,
    /// To or from a pod whose labels are not known.
    pub isolated: u64,
    /// In no state that connection tracking accepts.
    pub invalid: u64,
    /// TCP packets of unknown connections, answered by a reset.
    pub midstream: u64,
}

/// The classes of the agent that listens at `socket`. Blocks.
///
/// # Errors
/// [`Error::Ask`] where nobody answers, [`Error::Refused`] with the agent's own words.
pub fn classes(socket: &Path) -> Result<Vec<ClassDrops>, Error> {
    ask(socket, &Request::Classes)
}

/// Drops by no class of the agent that listens at `socket`. Blocks.
///
/// # Errors
/// Those of [`classes`].
pub fn other_drops(socket: &Path) -> Result<OtherDrops, Error> {
    ask(socket, &Request::Drops)
}

/// Asks the agent that listens at `socket`. `T` is what [`Request`] says of the verb. Blocks for at
/// most fifteen seconds between two octets.
///
/// # Errors
/// Those of [`classes`].
pub fn ask<T: DeserializeOwned>(socket: &Path, request: &Request) -> Result<T, Error> {
    let exchange = || -> io::Result<Response<T>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        stream.write_all(line.as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(serde_json::from_str(&answer)?)
    };
    match exchange() {
        Ok(Response::Ok(answer)) => Ok(answer),
        Ok(Response::Error(why)) => Err(Error::Refused {
            socket: socket.into(),
            why,
        }),
        Err(source) => Err(Error::Ask {
            socket: socket.into(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_what_the_protocol_says() {
        let request: Request = serde_json::from_str(r#"{"verb":"classes"}"#).unwrap();
        assert_eq!(request, Request::Classes);
        assert!(serde_json::from_str::<Request>(r#"{"verb":"everything"}"#).is_err());
        let answer = Response::Ok(vec![ClassDrops {
            class: "0000beef".into(),
            direction: Direction::Ingress,
            policies: vec!["shop/deny".into()],
            endpoints: vec!["shop/web".into()],
            dropped_packets: 3,
        }]);
        let text = r#"{"ok":[{"class":"0000beef","direction":"ingress","policies":["shop/deny"],"endpoints":["shop/web"],"dropped_packets":3}]}"#;
        assert_eq!(serde_json::to_string(&answer).unwrap(), text);
        assert_eq!(
            serde_json::from_str::<Response<Vec<ClassDrops>>>(text).unwrap(),
            answer
        );
    }
}
