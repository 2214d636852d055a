//! Octets to the messages that are no UPDATEs.
//!
//! Owns ROUTE-REFRESH and which decoder reads what. Does not own OPEN and NOTIFICATION, which have
//! modules of their own.

use crate::wire::frame::{Frame, HEADER_LEN};
use crate::wire::iana::{AfiSafi, HeaderError, MessageType, RefreshError, RefreshKind};
use crate::wire::message::{Message, RouteRefresh};
use crate::wire::notification::{Notification, NotificationError};
use crate::wire::open;

/// Decodes a message other than an UPDATE.
///
/// # Errors
/// The NOTIFICATION with which the session must end. An UPDATE is never accepted here: its outcome
/// has more shades, see [`super::decode_update`].
pub fn decode_control(frame: &Frame) -> Result<Message, Notification> {
    let bad_length = || {
        let length = u16::try_from(frame.body.len() + HEADER_LEN).unwrap_or(u16::MAX);
        Notification::new(HeaderError::BadLength, length.to_be_bytes())
    };
    match frame.kind {
        MessageType::Open => open::decode(&frame.body).map(Message::Open),
        MessageType::Notification => Notification::decode(&frame.body)
            .map(Message::Notification)
            .ok_or_else(bad_length),
        MessageType::Keepalive if frame.body.is_empty() => Ok(Message::Keepalive),
        MessageType::Keepalive => Err(bad_length()),
        MessageType::RouteRefresh => decode_refresh(frame, bad_length),
        MessageType::Update | MessageType::Unknown(_) => {
            Err(Notification::new(HeaderError::BadType, [frame.kind.into()]))
        }
    }
}

fn decode_refresh(
    frame: &Frame,
    bad_length: impl Fn() -> Notification,
) -> Result<Message, Notification> {
    let [afi_high, afi_low, kind, safi, tail @ ..] = &frame.body[..] else {
        return Err(bad_length());
    };
    let kind = RefreshKind::from(*kind);
    if !tail.is_empty() && matches!(kind, RefreshKind::Begin | RefreshKind::End) {
        // RFC 7313 §5: the data is the whole message. Other kinds may carry filters (RFC 5291).
        let mut message = vec![0xff; 16];
        let length = u16::try_from(frame.body.len() + HEADER_LEN).unwrap_or(u16::MAX);
        message.extend_from_slice(&length.to_be_bytes());
        message.push(frame.kind.into());
        message.extend_from_slice(&frame.body);
        let error = NotificationError::RouteRefresh(RefreshError::InvalidLength);
        return Err(Notification::new(error, message));
    }
    let afi = u16::from_be_bytes([*afi_high, *afi_low]);
    let family = AfiSafi { afi, safi: *safi };
    Ok(Message::RouteRefresh(RouteRefresh { family, kind }))
}
