//! NOTIFICATION: why a session ends, in numbers and in words.
//!
//! Owns codes, subcodes, the shutdown communication (RFC 9003) and the hard reset (RFC 8538).

use std::fmt;

use bytes::{BufMut, BytesMut};

use crate::wire::iana::{
    AfiSafi, Cease, FsmError, HeaderError, OpenError, RefreshError, UpdateError,
};
use crate::wire::text;

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

    /// A Cease for having sent more than `limit` prefixes of `family`, with both as its data
    /// (RFC 4486 §4).
    pub fn prefix_limit(family: AfiSafi, limit: u32) -> Self {
        let mut data = Vec::with_capacity(7);
        data.extend_from_slice(&family.afi.to_be_bytes());
        data.push(family.safi);
        data.extend_from_slice(&limit.to_be_bytes());
        Self::new(Cease::MaximumPrefixes, data)
    }

    /// The family and the limit that were exceeded, where a Cease for that tells them.
    pub fn exceeded_limit(&self) -> Option<(AfiSafi, u32)> {
        let data = match self.error {
            NotificationError::Cease(Cease::MaximumPrefixes) => self.data.first_chunk::<7>()?,
            _ => return None,
        };
        let [afi_high, afi_low, safi, limit @ ..] = *data;
        let afi = u16::from_be_bytes([afi_high, afi_low]);
        Some((AfiSafi { afi, safi }, u32::from_be_bytes(limit)))
    }

    /// The shutdown communication, safe to log: what is no text is shown as escapes
    /// (RFC 9003 §§4, 6). `None` when there is none or its length is wrong.
    pub fn shutdown_communication(&self) -> Option<String> {
        let NotificationError::Cease(Cease::AdministrativeShutdown | Cease::AdministrativeReset) =
            self.error
        else {
            return None;
        };
        let (length, text) = self.data.split_first()?;
        let text = text.get(..usize::from(*length))?;
        (!text.is_empty()).then(|| text::printable(text))
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
        if let Some((family, limit)) = self.exceeded_limit() {
            return write!(f, " ({family}, limit {limit})");
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
    use crate::types::Family;

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
    fn shutdown_text_from_a_peer_is_shown_with_escapes_for_what_is_no_text() {
        const CASES: &[(&[u8], Option<&str>)] = &[
            (b"\x03bye", Some("bye")),
            (b"\x02bye", Some("by")),
            (b"\x09bye", None),
            (b"\x00", None),
            (b"", None),
            (b"\x03a\xff\n", Some("a\\xff\\n")),
        ];
        for (data, shown) in CASES {
            for reason in [Cease::AdministrativeShutdown, Cease::AdministrativeReset] {
                let notification = Notification::new(reason, *data);
                let text = notification.shutdown_communication();
                assert_eq!(text.as_deref(), *shown, "{data:?}");
            }
            let other = Notification::new(Cease::PeerDeconfigured, *data);
            assert_eq!(other.shutdown_communication(), None);
        }
    }

    #[test]
    fn an_exceeded_limit_is_told_with_family_and_number() {
        let limited = Notification::prefix_limit(Family::Ipv6Unicast.into(), 1000);
        assert_eq!(limited.data, [0, 2, 1, 0, 0, 3, 232]);
        assert_eq!(
            limited.to_string(),
            "cease: maximum number of prefixes reached (ipv6-unicast, limit 1000)"
        );
        let bare = Notification::new(Cease::MaximumPrefixes, []);
        assert_eq!(bare.exceeded_limit(), None);
        let other = Notification::new(Cease::OutOfResources, limited.data);
        assert_eq!(other.exceeded_limit(), None);
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
