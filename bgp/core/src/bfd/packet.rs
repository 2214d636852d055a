//! The control packet (RFC 5880 §4): octets to value and back, and what makes one unacceptable.
//!
//! Owns the checks of §6.8.6 that need no session. Those that need one are [`super::Demux`]'s and
//! [`super::Session`]'s, with reasons from the same [`Discard`].

use std::fmt;
use std::num::{NonZeroU8, NonZeroU32};

use super::iana::{AuthType, Diag, State};
use super::interval::Interval;

/// Octets of the mandatory section.
const MANDATORY_LEN: usize = 24;
/// Octets of the longest packet that we send: with a SHA1 section.
pub const MAX_PACKET_LEN: usize = MANDATORY_LEN + SHA1_SECTION_LEN;

const VERSION: u8 = 1;
const MD5_SECTION_LEN: usize = 24;
const SHA1_SECTION_LEN: usize = 28;

const POLL: u8 = 0x20;
const FINAL: u8 = 0x10;
const CONTROL_PLANE_INDEPENDENT: u8 = 0x08;
const AUTHENTICATION: u8 = 0x04;
const DEMAND: u8 = 0x02;
const MULTIPOINT: u8 = 0x01;

/// A control packet. Of version one, and not multipoint: others do not get this far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Why the sender's session last went down.
    pub diag: Diag,
    /// The sender's state.
    pub state: State,
    /// P: the sender wants an answer with F.
    pub poll: bool,
    /// F: this answers a packet with P.
    pub is_final: bool,
    /// C: the sender's BFD lives on when its control plane dies.
    pub control_plane_independent: bool,
    /// D: the sender wishes to be spared periodic packets.
    pub demand: bool,
    /// How many of the sender's packets must be missing in a row.
    pub detect_mult: NonZeroU8,
    /// The sender's name for the session.
    pub my_discriminator: NonZeroU32,
    /// Our name for it, once the sender has heard us.
    pub your_discriminator: Option<NonZeroU32>,
    /// How often the sender would like to send.
    pub desired_min_tx: Interval,
    /// How often the sender is willing to hear from us; zero asks for no periodic packets.
    pub required_min_rx: Interval,
    /// How often the sender would return echoes; zero returns none.
    pub required_min_echo_rx: Interval,
    /// The authentication section, with A set.
    pub auth: Option<AuthSection>,
}

/// The authentication section (RFC 5880 §4.2 to §4.4).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AuthSection {
    /// A password in the clear.
    SimplePassword {
        /// Which of the keys.
        key_id: u8,
        /// The password.
        password: Password,
    },
    /// MD5 over packet and key.
    Md5 {
        /// Whether every packet has a new sequence number.
        meticulous: bool,
        /// Which of the keys.
        key_id: u8,
        /// Zero from us; ignored, but digested, when received.
        reserved: u8,
        /// Guards against replay.
        sequence: u32,
        /// The digest; the key in its place while it is computed.
        digest: [u8; 16],
    },
    /// SHA1 over packet and key.
    Sha1 {
        /// Whether every packet has a new sequence number.
        meticulous: bool,
        /// Which of the keys.
        key_id: u8,
        /// Zero from us; ignored, but digested, when received.
        reserved: u8,
        /// Guards against replay.
        sequence: u32,
        /// The hash; the key in its place while it is computed.
        hash: [u8; 20],
    },
    /// Of an unknown type, or with a length that its type cannot have. No session accepts it.
    Other {
        /// What it claims to be.
        kind: AuthType,
        /// Its length, type and length octets included.
        length: u8,
    },
}

impl AuthSection {
    /// What stands in the Auth Type field.
    pub fn kind(&self) -> AuthType {
        match self {
            Self::SimplePassword { .. } => AuthType::SimplePassword,
            Self::Md5 {
                meticulous: false, ..
            } => AuthType::KeyedMd5,
            Self::Md5 { .. } => AuthType::MeticulousKeyedMd5,
            Self::Sha1 {
                meticulous: false, ..
            } => AuthType::KeyedSha1,
            Self::Sha1 { .. } => AuthType::MeticulousKeyedSha1,
            Self::Other { kind, .. } => *kind,
        }
    }

    fn len(&self) -> usize {
        match self {
            Self::SimplePassword { password, .. } => 3 + password.as_bytes().len(),
            Self::Md5 { .. } => MD5_SECTION_LEN,
            Self::Sha1 { .. } => SHA1_SECTION_LEN,
            // What cannot be sent is cut short rather than written past the longest packet.
            Self::Other { length, .. } => usize::from(*length).clamp(2, SHA1_SECTION_LEN),
        }
    }
}

impl fmt::Debug for AuthSection {
    /// Without passwords and digests: packets end up in logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("AuthSection");
        shown.field("kind", &self.kind());
        match self {
            Self::SimplePassword { key_id, .. } => shown.field("key_id", key_id),
            Self::Md5 {
                key_id, sequence, ..
            }
            | Self::Sha1 {
                key_id, sequence, ..
            } => shown.field("key_id", key_id).field("sequence", sequence),
            Self::Other { length, .. } => shown.field("length", length),
        };
        shown.finish_non_exhaustive()
    }
}

/// A password of 1 to 16 octets.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password {
    octets: [u8; Self::MAX],
    len: u8,
}

impl Password {
    /// Octets of the longest.
    pub const MAX: usize = 16;

    /// `None` unless there are 1 to 16 octets.
    pub fn new(octets: &[u8]) -> Option<Self> {
        let len = u8::try_from(octets.len()).ok()?;
        let mut padded = [0; Self::MAX];
        padded.get_mut(..octets.len())?.copy_from_slice(octets);
        (len > 0).then_some(Self {
            octets: padded,
            len,
        })
    }

    /// The octets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Why a packet was thrown away, by the first check that it failed.
///
/// The order is that of RFC 5880 §6.8.6, with the checks of the path (RFC 5881 §5, RFC 5883 §5)
/// where the session is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Discard {
    /// Too short to have a Length field.
    Truncated {
        /// What came.
        octets: usize,
    },
    /// Not version one.
    Version(u8),
    /// Length below 24, or below 26 with A set.
    LengthTooSmall(u8),
    /// Length says more than what came.
    LengthBeyondPayload {
        /// The field.
        length: u8,
        /// What came.
        payload: usize,
    },
    /// Detect Mult is zero.
    DetectMultZero,
    /// M is set.
    Multipoint,
    /// My Discriminator is zero.
    MyDiscriminatorZero,
    /// The session that Your Discriminator names does not exist.
    NoSuchDiscriminator(NonZeroU32),
    /// Your Discriminator is zero in a state that cannot be reached without hearing us.
    YourDiscriminatorZero(State),
    /// No session with the sender of a first packet.
    NoSession,
    /// The session that Your Discriminator names, or those with the sender of a first packet, have
    /// other addresses, another interface, or the other port.
    OtherPath,
    /// Came with a lower TTL or hop limit than it may have.
    HopLimit {
        /// As it came.
        received: u8,
        /// The least that would do.
        least: u8,
    },
    /// A is set and this session has no key.
    AuthUnexpected,
    /// A is clear and this session has a key.
    AuthMissing,
    /// Authenticated in another way than agreed.
    AuthType(AuthType),
    /// A key ID that this session does not have.
    AuthKeyId(u8),
    /// The section's length is not that of its type, or of its key, or does not fill the packet.
    AuthLength(u8),
    /// A sequence number that is too old, or too far ahead.
    AuthSequence {
        /// As it came.
        received: u32,
        /// The last one accepted.
        last: u32,
    },
    /// The password or digest is wrong.
    AuthDigest,
    /// The session is held down by an administrator here.
    AdminDown,
}

impl Discard {
    /// A short stable name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            Self::Truncated { .. } => "truncated",
            Self::Version(_) => "version",
            Self::LengthTooSmall(_) => "length_too_small",
            Self::LengthBeyondPayload { .. } => "length_beyond_payload",
            Self::DetectMultZero => "detect_mult_zero",
            Self::Multipoint => "multipoint",
            Self::MyDiscriminatorZero => "my_discriminator_zero",
            Self::NoSuchDiscriminator(_) => "no_such_discriminator",
            Self::YourDiscriminatorZero(_) => "your_discriminator_zero",
            Self::NoSession => "no_session",
            Self::OtherPath => "other_path",
            Self::HopLimit { .. } => "hop_limit",
            Self::AuthUnexpected => "auth_unexpected",
            Self::AuthMissing => "auth_missing",
            Self::AuthType(_) => "auth_type",
            Self::AuthKeyId(_) => "auth_key_id",
            Self::AuthLength(_) => "auth_length",
            Self::AuthSequence { .. } => "auth_sequence",
            Self::AuthDigest => "auth_digest",
            Self::AdminDown => "admin_down",
        }
    }
}

impl fmt::Display for Discard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { octets } => write!(f, "only {octets} octets"),
            Self::Version(version) => write!(f, "version {version} instead of 1"),
            Self::LengthTooSmall(length) => write!(f, "length {length} is too small"),
            Self::LengthBeyondPayload { length, payload } => {
                write!(f, "length {length}, but only {payload} octets came")
            }
            Self::DetectMultZero => f.write_str("detect multiplier zero"),
            Self::Multipoint => f.write_str("multipoint bit set"),
            Self::MyDiscriminatorZero => f.write_str("my discriminator zero"),
            Self::NoSuchDiscriminator(discriminator) => {
                write!(f, "no session has discriminator {discriminator}")
            }
            Self::YourDiscriminatorZero(state) => {
                write!(f, "your discriminator zero in state {state}")
            }
            Self::NoSession => f.write_str("no session with this sender"),
            Self::OtherPath => {
                f.write_str("not from the address, interface or port of its session")
            }
            Self::HopLimit { received, least } => {
                write!(f, "came with TTL {received}, at least {least} is needed")
            }
            Self::AuthUnexpected => f.write_str("authenticated, but no key is configured here"),
            Self::AuthMissing => f.write_str("not authenticated, but a key is configured here"),
            Self::AuthType(kind) => write!(f, "authenticated by {kind}, which is not agreed"),
            Self::AuthKeyId(id) => write!(f, "key {id} is not configured here"),
            Self::AuthLength(length) => write!(f, "authentication section of {length} octets"),
            Self::AuthSequence { received, last } => {
                write!(f, "sequence number {received} does not follow {last}")
            }
            Self::AuthDigest => f.write_str("wrong password or digest"),
            Self::AdminDown => f.write_str("session is administratively down here"),
        }
    }
}

impl Packet {
    /// Reads the payload of a datagram.
    ///
    /// # Errors
    /// The first check of RFC 5880 §6.8.6 that it fails, of those that need no session.
    pub fn decode(payload: &[u8]) -> Result<Self, Discard> {
        let Some(&[first, second, detect_mult, length]) = payload.first_chunk::<4>() else {
            let octets = payload.len();
            return Err(Discard::Truncated { octets });
        };
        if first >> 5 != VERSION {
            return Err(Discard::Version(first >> 5));
        }
        let authenticated = second & AUTHENTICATION != 0;
        let least = MANDATORY_LEN + if authenticated { 2 } else { 0 };
        if usize::from(length) < least {
            return Err(Discard::LengthTooSmall(length));
        }
        // Octets beyond Length are not the packet's.
        let Some(octets) = payload.get(..usize::from(length)) else {
            let payload = payload.len();
            return Err(Discard::LengthBeyondPayload { length, payload });
        };
        let detect_mult = NonZeroU8::new(detect_mult).ok_or(Discard::DetectMultZero)?;
        if second & MULTIPOINT != 0 {
            return Err(Discard::Multipoint);
        }
        let word = |at: usize| {
            let octets = octets[at..at + 4].try_into().expect("four octets");
            u32::from_be_bytes(octets)
        };
        let my_discriminator = NonZeroU32::new(word(4)).ok_or(Discard::MyDiscriminatorZero)?;
        let your_discriminator = NonZeroU32::new(word(8));
        let state = State::from_bits(second >> 6);
        if your_discriminator.is_none() && !matches!(state, State::Down | State::AdminDown) {
            return Err(Discard::YourDiscriminatorZero(state));
        }
        Ok(Self {
            diag: Diag::from(first & 0x1f),
            state,
            poll: second & POLL != 0,
            is_final: second & FINAL != 0,
            control_plane_independent: second & CONTROL_PLANE_INDEPENDENT != 0,
            demand: second & DEMAND != 0,
            detect_mult,
            my_discriminator,
            your_discriminator,
            desired_min_tx: Interval::from_micros(word(12)),
            required_min_rx: Interval::from_micros(word(16)),
            required_min_echo_rx: Interval::from_micros(word(20)),
            auth: authenticated.then(|| decode_auth(&octets[MANDATORY_LEN..])),
        })
    }

    /// Writes the packet; the octets to send are the first as many as the answer says.
    pub fn encode(&self, out: &mut [u8; MAX_PACKET_LEN]) -> usize {
        let auth_len = self.auth.as_ref().map_or(0, AuthSection::len);
        let len = MANDATORY_LEN + auth_len;
        out[0] = VERSION << 5 | u8::from(self.diag) & 0x1f;
        let flag = |set: bool, bit: u8| if set { bit } else { 0 };
        out[1] = self.state.bits() << 6
            | flag(self.poll, POLL)
            | flag(self.is_final, FINAL)
            | flag(self.control_plane_independent, CONTROL_PLANE_INDEPENDENT)
            | flag(self.auth.is_some(), AUTHENTICATION)
            | flag(self.demand, DEMAND);
        out[2] = self.detect_mult.get();
        out[3] = len as u8;
        let your_discriminator = self.your_discriminator.map_or(0, NonZeroU32::get);
        let words = [
            self.my_discriminator.get(),
            your_discriminator,
            self.desired_min_tx.as_micros(),
            self.required_min_rx.as_micros(),
            self.required_min_echo_rx.as_micros(),
        ];
        for (octets, word) in out[4..MANDATORY_LEN].chunks_exact_mut(4).zip(words) {
            octets.copy_from_slice(&word.to_be_bytes());
        }
        if let Some(auth) = &self.auth {
            encode_auth(auth, &mut out[MANDATORY_LEN..len]);
        }
        len
    }
}

/// `section` runs to the end of the packet and has at least two octets.
fn decode_auth(section: &[u8]) -> AuthSection {
    let (kind, length) = (AuthType::from(section[0]), section[1]);
    let other = AuthSection::Other { kind, length };
    // No rule of RFC 5880 says that the section ends with the packet, but digests cover the packet
    // to its end, and what is behind a section would be nobody's.
    if usize::from(length) != section.len() {
        return other;
    }
    let sequence = |section: &[u8]| {
        let octets = section[4..8].try_into().expect("four octets");
        u32::from_be_bytes(octets)
    };
    match kind {
        AuthType::SimplePassword => match section.get(3..).and_then(Password::new) {
            Some(password) => AuthSection::SimplePassword {
                key_id: section[2],
                password,
            },
            None => other,
        },
        AuthType::KeyedMd5 | AuthType::MeticulousKeyedMd5 => {
            let Ok::<&[u8; MD5_SECTION_LEN], _>(section) = section.try_into() else {
                return other;
            };
            AuthSection::Md5 {
                meticulous: kind == AuthType::MeticulousKeyedMd5,
                key_id: section[2],
                reserved: section[3],
                sequence: sequence(section),
                digest: section[8..].try_into().expect("sixteen octets"),
            }
        }
        AuthType::KeyedSha1 | AuthType::MeticulousKeyedSha1 => {
            let Ok::<&[u8; SHA1_SECTION_LEN], _>(section) = section.try_into() else {
                return other;
            };
            AuthSection::Sha1 {
                meticulous: kind == AuthType::MeticulousKeyedSha1,
                key_id: section[2],
                reserved: section[3],
                sequence: sequence(section),
                hash: section[8..].try_into().expect("twenty octets"),
            }
        }
        AuthType::Reserved | AuthType::Unknown(_) => other,
    }
}

/// `out` has [`AuthSection::len`] octets.
fn encode_auth(auth: &AuthSection, out: &mut [u8]) {
    out[0] = auth.kind().into();
    out[1] = out.len() as u8;
    match auth {
        AuthSection::SimplePassword { key_id, password } => {
            out[2] = *key_id;
            out[3..].copy_from_slice(password.as_bytes());
        }
        AuthSection::Md5 {
            key_id,
            reserved,
            sequence,
            digest,
            ..
        } => {
            (out[2], out[3]) = (*key_id, *reserved);
            out[4..8].copy_from_slice(&sequence.to_be_bytes());
            out[8..].copy_from_slice(digest);
        }
        AuthSection::Sha1 {
            key_id,
            reserved,
            sequence,
            hash,
            ..
        } => {
            (out[2], out[3]) = (*key_id, *reserved);
            out[4..8].copy_from_slice(&sequence.to_be_bytes());
            out[8..].copy_from_slice(hash);
        }
        AuthSection::Other { .. } => out[2..].fill(0),
    }
}
