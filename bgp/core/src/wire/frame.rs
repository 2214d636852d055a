//! Cuts the octets of a connection into messages.
//!
//! Owns the header of RFC 4271 §4.1 and its errors (§6.1). Does not look into bodies.

use bytes::{Buf, Bytes, BytesMut};

use crate::wire::iana::{HeaderError, MessageType};
use crate::wire::notification::Notification;

/// Length of the header: marker, length, type.
pub const HEADER_LEN: usize = 19;
/// The longest message of RFC 4271.
pub const MAX_MESSAGE_LEN: usize = 4096;
/// The longest message of a speaker that has offered to take extended ones (RFC 8654).
pub const MAX_EXTENDED_LEN: usize = 65535;

const MARKER_LEN: usize = 16;

/// One message: its type and what follows the header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// The type octet; never `Unknown`.
    pub kind: MessageType,
    /// What follows the header.
    pub body: Bytes,
}

/// Takes the first message out of `buffer`; `None` until the whole of it is there. `max_len` is the
/// longest message that we have offered to take.
///
/// # Errors
/// The NOTIFICATION with which the connection must end; `buffer` is of no more use then.
pub fn frame(buffer: &mut BytesMut, max_len: usize) -> Result<Option<Frame>, Notification> {
    let Some(header) = buffer.first_chunk::<HEADER_LEN>() else {
        return Ok(None);
    };
    // RFC 4271 §6.1: a marker that is not all ones means that the streams are out of step.
    if header[..MARKER_LEN].iter().any(|octet| *octet != 0xff) {
        return Err(Notification::new(HeaderError::NotSynchronized, []));
    }
    let length = u16::from_be_bytes([header[16], header[17]]);
    let kind = MessageType::from(header[18]);
    // RFC 4271 §6.1: the erroneous length, or type, is the data of the NOTIFICATION.
    let bad_length = || Notification::new(HeaderError::BadLength, length.to_be_bytes());
    if !(HEADER_LEN..=max_len).contains(&usize::from(length)) {
        return Err(bad_length());
    }
    let acceptable = match kind {
        // RFC 8654 §4: what opens a session cannot presume its terms.
        MessageType::Open => (29..=MAX_MESSAGE_LEN).contains(&usize::from(length)),
        MessageType::Update => length >= 23,
        MessageType::Notification => length >= 21,
        MessageType::Keepalive => length == 19,
        // Shorter ones have an error of their own (RFC 7313 §5), found with the body.
        MessageType::RouteRefresh => true,
        MessageType::Unknown(octet) => {
            return Err(Notification::new(HeaderError::BadType, [octet]));
        }
    };
    if !acceptable {
        return Err(bad_length());
    }
    let length = usize::from(length);
    if buffer.len() < length {
        buffer.reserve(length - buffer.len());
        return Ok(None);
    }
    let mut body = buffer.split_to(length).freeze();
    body.advance(HEADER_LEN);
    Ok(Some(Frame { kind, body }))
}

/// Type and length of the message at the beginning of `octets`, which hold it whole, as encoders
/// leave them; `None` at their end.
pub fn message_at(octets: &[u8]) -> Option<(MessageType, usize)> {
    let header = octets.first_chunk::<HEADER_LEN>()?;
    let length = usize::from(u16::from_be_bytes([header[16], header[17]]));
    Some((MessageType::from(header[18]), length.max(HEADER_LEN)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(marker: u8, length: u16, kind: u8, body: &[u8]) -> BytesMut {
        let mut octets = BytesMut::new();
        octets.extend_from_slice(&[marker; 16]);
        octets.extend_from_slice(&length.to_be_bytes());
        octets.extend_from_slice(&[kind]);
        octets.extend_from_slice(body);
        octets
    }

    #[test]
    fn messages_come_out_whole_however_the_octets_arrive() {
        let mut stream = message(0xff, 19, 4, &[]);
        stream.extend_from_slice(&message(0xff, 21, 3, &[6, 2]));
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for octet in stream {
            buffer.extend_from_slice(&[octet]);
            while let Some(frame) = frame(&mut buffer, MAX_MESSAGE_LEN).unwrap() {
                frames.push((frame.kind, frame.body.to_vec()));
            }
        }
        let expected = [
            (MessageType::Keepalive, vec![]),
            (MessageType::Notification, vec![6, 2]),
        ];
        assert_eq!(frames, expected);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_bad_header_ends_the_connection_with_the_exact_notification() {
        let cases: &[(&str, BytesMut, HeaderError, &[u8])] = &[
            (
                "marker",
                message(0xfe, 19, 4, &[]),
                HeaderError::NotSynchronized,
                &[],
            ),
            (
                "too short",
                message(0xff, 18, 4, &[]),
                HeaderError::BadLength,
                &[0, 18],
            ),
            (
                "too long",
                message(0xff, 4097, 2, &[]),
                HeaderError::BadLength,
                &[16, 1],
            ),
            (
                "keepalive body",
                message(0xff, 20, 4, &[0]),
                HeaderError::BadLength,
                &[0, 20],
            ),
            (
                "short OPEN",
                message(0xff, 28, 1, &[]),
                HeaderError::BadLength,
                &[0, 28],
            ),
            (
                "short UPDATE",
                message(0xff, 22, 2, &[]),
                HeaderError::BadLength,
                &[0, 22],
            ),
            (
                "short NOTIFICATION",
                message(0xff, 20, 3, &[]),
                HeaderError::BadLength,
                &[0, 20],
            ),
            (
                "type 0",
                message(0xff, 19, 0, &[]),
                HeaderError::BadType,
                &[0],
            ),
            (
                "type 6",
                message(0xff, 19, 6, &[]),
                HeaderError::BadType,
                &[6],
            ),
        ];
        for (name, octets, error, data) in cases {
            let notification = frame(&mut octets.clone(), MAX_MESSAGE_LEN).unwrap_err();
            assert_eq!(notification, Notification::new(*error, *data), "{name}");
        }
    }
}
