//! One request and one reply per connection, each a frame: four bytes of length (big endian), then
//! that many bytes of JSON.
//!
//! The plugin file and the agent are upgraded apart, so each side refuses a protocol number other
//! than its own with a sentence rather than a decode error.

use std::io::{Read, Write};
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::error::CniError;
use crate::result::AddResult;

/// The number of this protocol; changes when an old peer would misread a message.
pub const PROTOCOL: u32 = 1;

/// The longest frame accepted, in bytes. A GC call names every attachment of the node: 100 bytes
/// each for some thousands of pods; a length beyond this is another program on the socket.
pub const MAX_FRAME: u32 = 4 * 1024 * 1024;

/// Names one interface of one container: what ADD is idempotent by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttachmentKey {
    /// The runtime's container ID.
    #[serde(rename = "containerID")]
    pub container_id: String,
    /// The interface's name in the container.
    #[serde(rename = "ifname")]
    pub interface: String,
}

/// A pod as the runtime names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PodReference {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, where the runtime gives it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
}

/// An attachment with its surroundings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// What it is.
    pub key: AttachmentKey,
    /// Path of the network namespace; absent for DEL when it is gone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// The pod; absent outside Kubernetes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<PodReference>,
}

/// What the agent is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "UPPERCASE")]
pub enum Call {
    /// Wire an interface.
    Add {
        /// Which.
        attachment: Attachment,
    },
    /// Take an interface away; success where it is unknown.
    Del {
        /// Which.
        attachment: Attachment,
    },
    /// Compare the interface with what ADD returned.
    Check {
        /// Which.
        attachment: Attachment,
        /// What ADD returned.
        previous: AddResult,
    },
    /// Can ADD be served?
    Status,
    /// Forget every attachment that is not in the list.
    Gc {
        /// The attachments still in use.
        valid: Vec<AttachmentKey>,
    },
}

/// One frame to the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// How long the plugin goes on waiting, in milliseconds.
    pub patience_ms: u64,
    /// The work.
    pub call: Call,
}

/// One frame from the agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// [`PROTOCOL`].
    pub protocol: u32,
    /// What came of it.
    pub outcome: Outcome,
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// ADD succeeded.
    Added(AddResult),
    /// Any other verb succeeded.
    Done,
    /// Refused.
    Failed(CniError),
}

impl Reply {
    /// A reply in this protocol.
    pub fn new(outcome: Outcome) -> Reply {
        Reply {
            protocol: PROTOCOL,
            outcome,
        }
    }
}

/// Why a frame could not be exchanged.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The socket failed or closed early.
    #[error("cannot exchange a frame with the peer")]
    Io(#[from] std::io::Error),
    /// The length makes no sense.
    #[error("frame of {length} bytes is longer than {MAX_FRAME}")]
    TooLong {
        /// The length announced or needed.
        length: u64,
    },
    /// The bytes are not the JSON expected.
    #[error("cannot decode a frame")]
    Decode(#[from] serde_json::Error),
}

/// The bytes of one frame.
///
/// # Errors
/// Where the message is longer than [`MAX_FRAME`].
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    let body = serde_json::to_vec(message)?;
    let length = u32::try_from(body.len())
        .ok()
        .filter(|length| *length <= MAX_FRAME)
        .ok_or(FrameError::TooLong {
            length: body.len() as u64,
        })?;
    let mut frame = length.to_be_bytes().to_vec();
    frame.extend(body);
    Ok(frame)
}

/// The length in a frame's head.
///
/// # Errors
/// Where it is longer than [`MAX_FRAME`].
pub fn body_length(head: [u8; 4]) -> Result<usize, FrameError> {
    let length = u32::from_be_bytes(head);
    if length > MAX_FRAME {
        return Err(FrameError::TooLong {
            length: length.into(),
        });
    }
    Ok(length as usize)
}

/// Writes one frame.
///
/// # Errors
/// Where the socket fails or the message is too long.
pub fn write_frame<T: Serialize>(socket: &mut impl Write, message: &T) -> Result<(), FrameError> {
    socket.write_all(&encode(message)?)?;
    Ok(socket.flush()?)
}

/// Reads one frame.
///
/// # Errors
/// Where the socket fails, or the frame is too long or not what is expected.
pub fn read_frame<T: DeserializeOwned>(socket: &mut impl Read) -> Result<T, FrameError> {
    let mut head = [0; 4];
    socket.read_exact(&mut head)?;
    let mut body = vec![0; body_length(head)?];
    socket.read_exact(&mut body)?;
    Ok(serde_json::from_slice(&body)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_way() {
        let request = Request {
            protocol: PROTOCOL,
            patience_ms: 7,
            call: Call::Gc {
                valid: vec![AttachmentKey {
                    container_id: "a".into(),
                    interface: "eth0".into(),
                }],
            },
        };
        let bytes = encode(&request).unwrap();
        assert_eq!(
            read_frame::<Request>(&mut bytes.as_slice()).unwrap(),
            request
        );
    }

    #[test]
    fn a_foreign_program_on_the_socket_is_named_by_its_length() {
        let error = read_frame::<Request>(&mut &b"GET / HTTP/1.1\r\n"[..]).unwrap_err();
        assert!(matches!(error, FrameError::TooLong { .. }), "{error}");
    }

    #[test]
    fn a_cut_frame_is_an_error_at_every_length() {
        let bytes = encode(&Reply::new(Outcome::Done)).unwrap();
        for length in 0..bytes.len() {
            assert!(
                read_frame::<Reply>(&mut &bytes[..length]).is_err(),
                "{length}"
            );
        }
    }
}
