//! NOTIFICATION: why a session ends, in numbers and in words.
//!
//! Owns codes, subcodes, the shutdown communication (RFC 9003) and the hard reset (RFC 8538).

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::wire::iana::{Cease, FsmError, HeaderError, OpenError, RefreshError, UpdateError};

/// Octets of text that a shutdown communication may carry (RFC 9003 §2).
const MAX_SHUTDOWN_TEXT: usize = 255;

/// A NOTIFICATION message (RFC 4271 §4.5).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Notification {
    /// What went wrong.
    pub error: NotificationError,
    /// Detail, in a form that depends on `error`.
    pub data: Vec<u8>,
}

/// Code and subcode of a NOTIFICATION.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NotificationError {
    /// Code 1.
    Header(HeaderError),
    /// Code 2.
    Open(OpenError),
    /// Code 3.
    Update(UpdateError),
    /// Code 4.
    HoldTimerExpired,
    /// Code 5.
    Fsm(FsmError),
    /// Code 6.
    Cease(Cease),
    /// Code 7.
    RouteRefresh(RefreshError),
    /// Code 8 (RFC 9687).
    SendHoldTimerExpired,
    /// Anything else, kept as it came.
    Unknown {
        /// Error code.
        code: u8,
        /// Error subcode.
        subcode: u8,
    },
}

impl NotificationError {
    /// The pair of octets read.
    pub fn from_codes(code: u8, subcode: u8) -> Self {
        match (code, subcode) {
            (1, _) => Self::Header(subcode.into()),
            (2, _) => Self::Open(subcode.into()),
            (3, _) => Self::Update(subcode.into()),
            (4, 0) => Self::HoldTimerExpired,
            (5, _) => Self::Fsm(subcode.into()),
            (6, _) => Self::Cease(subcode.into()),
            (7, _) => Self::RouteRefresh(subcode.into()),
            (8, 0) => Self::SendHoldTimerExpired,
            _ => Self::Unknown { code, subcode },
        }
    }

    /// The pair of octets to write.
    pub fn codes(self) -> (u8, u8) {
        match self {
            Self::Header(error) => (1, error.into()),
            Self::Open(error) => (2, error.into()),
            Self::Update(error) => (3, error.into()),
            Self::HoldTimerExpired => (4, 0),
            Self::Fsm(error) => (5, error.into()),
            Self::Cease(reason) => (6, reason.into()),
            Self::RouteRefresh(error) => (7, error.into()),
            Self::SendHoldTimerExpired => (8, 0),
            Self::Unknown { code, subcode } => (code, subcode),
        }
    }
}

impl fmt::Display for NotificationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(error) => write!(f, "message header error: {error}"),
            Self::Open(error) => write!(f, "OPEN error: {error}"),
            Self::Update(error) => write!(f, "UPDATE error: {error}"),
            Self::HoldTimerExpired => f.write_str("hold timer expired"),
            Self::Fsm(error) => write!(f, "state machine error: {error}"),
            Self::Cease(reason) => write!(f, "cease: {reason}"),
            Self::RouteRefresh(error) => write!(f, "ROUTE-REFRESH error: {error}"),
            Self::SendHoldTimerExpired => f.write_str("send hold timer expired"),
            Self::Unknown { code, subcode } => write!(f, "error {code} subcode {subcode}"),
        }
    }
}

impl From<HeaderError> for NotificationError {
    fn from(error: HeaderError) -> Self {
        Self::Header(error)
    }
}

impl From<OpenError> for NotificationError {
    fn from(error: OpenError) -> Self {
        Self::Open(error)
    }
}

impl From<UpdateError> for NotificationError {
    fn from(error: UpdateError) -> Self {
        Self::Update(error)
    }
}

impl From<FsmError> for NotificationError {
    fn from(error: FsmError) -> Self {
        Self::Fsm(error)
    }
}

impl From<Cease> for NotificationError {
    fn from(reason: Cease) -> Self {
        Self::Cease(reason)
    }
}

impl Notification {
    /// A NOTIFICATION with `data` as its detail.
    pub fn new(error: impl Into<NotificationError>, data: impl Into<Vec<u8>>) -> Self {
        Self {
            error: error.into(),
            data: data.into(),
        }
    }

    /// A Cease; `text` becomes a shutdown communication where RFC 9003 allows one, cut at a
    /// character boundary where it is too long.
    pub fn cease(reason: Cease, text: &str) -> Self {
        let carries_text = matches!(
            reason,
            Cease::AdministrativeShutdown | Cease::AdministrativeReset
        );
        if !carries_text || text.is_empty() {
            return Self::new(reason, []);
        }
        let cut = text.floor_char_boundary(MAX_SHUTDOWN_TEXT);
        let mut data = Vec::with_capacity(1 + cut);
        data.push(u8::try_from(cut).expect("the text was cut at 255 octets"));
        data.extend_from_slice(&text.as_bytes()[..cut]);
        Self::new(reason, data)
    }

    /// This NOTIFICATION inside a Hard Reset, so that a peer that keeps routes across
    /// NOTIFICATIONs drops them all the same (RFC 8538 §3.1).
    #[must_use]
    pub fn into_hard_reset(self) -> Self {
        let (code, subcode) = self.error.codes();
        let mut data = vec![code, subcode];
        data.extend_from_slice(&self.data);
        Self::new(Cease::HardReset, data)
    }

    /// Whether retained routes go, whatever was negotiated (RFC 8538 §3.1).
    pub fn is_hard_reset(&self) -> bool {
        self.error == NotificationError::Cease(Cease::HardReset)
    }

    /// The NOTIFICATION that a Hard Reset wraps.
    pub fn inner(&self) -> Option<Self> {
        match self.data.as_slice() {
            [code, subcode, data @ ..] if self.is_hard_reset() => Some(Self {
                error: NotificationError::from_codes(*code, *subcode),
                data: data.to_vec(),
            }),
            _ => None,
        }
    }

    /// The shutdown communication, with what is no text replaced so that it is safe to log
    /// (RFC 9003 §2); `None` when there is none or its length is wrong.
    pub fn shutdown_communication(&self) -> Option<String> {
        let NotificationError::Cease(Cease::AdministrativeShutdown | Cease::AdministrativeReset) =
            self.error
        else {
            return None;
        };
        let (length, text) = self.data.split_first()?;
        let text = text
            .get(..usize::from(*length))
            .filter(|text| !text.is_empty())?;
        let clean = |character: char| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        };
        Some(String::from_utf8_lossy(text).chars().map(clean).collect())
    }

    /// Reads the body; `None` when it is shorter than its two codes.
    pub(super) fn decode(body: &[u8]) -> Option<Self> {
        let [code, subcode, data @ ..] = body else {
            return None;
        };
        Some(Self {
            error: NotificationError::from_codes(*code, *subcode),
            data: data.to_vec(),
        })
    }

    /// Writes the body; detail beyond `room` octets is cut.
    pub(super) fn encode(&self, out: &mut BytesMut, room: usize) {
        let (code, subcode) = self.error.codes();
        out.put_u8(code);
        out.put_u8(subcode);
        let length = self.data.len().min(room.saturating_sub(2));
        out.put_slice(&self.data[..length]);
    }
}

impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        if let Some(inner) = self.inner() {
            return write!(f, " ({inner})");
        }
        if let Some(text) = self.shutdown_communication() {
            return write!(f, " (\"{text}\")");
        }
        if !self.data.is_empty() {
            f.write_str(" (data")?;
            // Detail may hold a whole attribute; the start names it.
            for octet in self.data.iter().take(16) {
                write!(f, " {octet:02x}")?;
            }
            if self.data.len() > 16 {
                f.write_str(" …")?;
            }
            f.write_str(")")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (code, subcode) = self.error.codes();
        write!(f, "{code}/{subcode} {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_codes_survives_the_enums() {
        for code in 0..=u8::MAX {
            for subcode in 0..=u8::MAX {
                let error = NotificationError::from_codes(code, subcode);
                assert_eq!(error.codes(), (code, subcode));
                assert!(!error.to_string().is_empty());
            }
        }
    }

    #[test]
    fn shutdown_text_is_cut_between_characters_and_read_back() {
        let notification = Notification::cease(Cease::AdministrativeShutdown, &"ä".repeat(200));
        let text = notification.shutdown_communication().unwrap();
        assert_eq!(text, "ä".repeat(127));
        assert_eq!(notification.data.len(), 255);
        assert!(
            Notification::cease(Cease::PeerDeconfigured, "x")
                .data
                .is_empty()
        );
    }

    #[test]
    fn shutdown_text_from_a_peer_is_made_safe_to_log() {
        let lie = Notification::new(Cease::AdministrativeReset, [9, b'x']);
        assert_eq!(lie.shutdown_communication(), None);
        let dirty = Notification::new(Cease::AdministrativeReset, [3, b'a', 0xff, b'\n']);
        assert_eq!(dirty.shutdown_communication().unwrap(), "a\u{fffd} ");
    }

    #[test]
    fn a_hard_reset_tells_what_it_wraps() {
        let reset = Notification::cease(Cease::AdministrativeShutdown, "bye").into_hard_reset();
        assert!(reset.is_hard_reset());
        assert_eq!(
            reset.to_string(),
            "cease: hard reset (cease: administrative shutdown (\"bye\"))"
        );
    }
}
