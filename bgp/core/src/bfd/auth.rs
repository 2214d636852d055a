//! Authentication (RFC 5880 §6.7): keys, signing, verifying, sequence numbers.
//!
//! Owns the keys of one session and what a section must look like under them. The sequence numbers
//! themselves are the session's state.

use std::fmt;

use md5::{Digest, Md5};
use sha1::Sha1;

use super::Invalid;
use super::iana::AuthType;
use super::packet::{AuthSection, Discard, MAX_PACKET_LEN, Packet, Password};

/// How the packets of a session are authenticated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthKind {
    /// A password in the clear.
    SimplePassword,
    /// MD5 over packet and key.
    KeyedMd5,
    /// The same, with a new sequence number in every packet.
    MeticulousKeyedMd5,
    /// SHA1 over packet and key.
    KeyedSha1,
    /// The same, with a new sequence number in every packet.
    MeticulousKeyedSha1,
}

impl AuthKind {
    /// Octets of the longest key.
    pub fn longest_secret(self) -> usize {
        match self {
            Self::SimplePassword => Password::MAX,
            Self::KeyedMd5 | Self::MeticulousKeyedMd5 => 16,
            Self::KeyedSha1 | Self::MeticulousKeyedSha1 => 20,
        }
    }

    /// Whether every packet has a new sequence number.
    pub fn is_meticulous(self) -> bool {
        matches!(self, Self::MeticulousKeyedMd5 | Self::MeticulousKeyedSha1)
    }
}

impl From<AuthKind> for AuthType {
    fn from(kind: AuthKind) -> Self {
        match kind {
            AuthKind::SimplePassword => Self::SimplePassword,
            AuthKind::KeyedMd5 => Self::KeyedMd5,
            AuthKind::MeticulousKeyedMd5 => Self::MeticulousKeyedMd5,
            AuthKind::KeyedSha1 => Self::KeyedSha1,
            AuthKind::MeticulousKeyedSha1 => Self::MeticulousKeyedSha1,
        }
    }
}

impl fmt::Display for AuthKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&AuthType::from(*self), f)
    }
}

/// A password or key; not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl Secret {
    /// Any octets; how many are allowed depends on the algorithm.
    pub fn new(octets: impl Into<Vec<u8>>) -> Self {
        Self(octets.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A key and the number by which packets name it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Auth Key ID.
    pub id: u8,
    /// The key.
    pub secret: Secret,
}

/// How a session is authenticated, and with what.
///
/// More than one key allows for a change without a flap: give both sides both keys, then change
/// which is sent with, then take the old one away.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    kind: AuthKind,
    /// Sent with the first; any is accepted. Not empty.
    keys: Vec<Key>,
}

impl Auth {
    /// Sends with the key `send`, accepts all of `keys`.
    ///
    /// # Errors
    /// A key has a length that `kind` does not take, two have one ID, or `send` is none of them.
    pub fn new(kind: AuthKind, send: u8, mut keys: Vec<Key>) -> Result<Self, Invalid> {
        keys.sort_by_key(|key| (key.id != send, key.id));
        let longest = kind.longest_secret();
        for (key, next) in keys.iter().zip(keys.iter().skip(1)) {
            if key.id == next.id {
                return Err(Invalid::DuplicateKey(key.id));
            }
        }
        for Key { id, secret } in &keys {
            let octets = secret.0.len();
            if !(1..=longest).contains(&octets) {
                return Err(Invalid::Secret {
                    id: *id,
                    octets,
                    kind,
                    longest,
                });
            }
        }
        match keys.first() {
            Some(first) if first.id == send => Ok(Self { kind, keys }),
            _ => Err(Invalid::NoSuchKey(send)),
        }
    }

    /// The algorithm.
    pub fn kind(&self) -> AuthKind {
        self.kind
    }

    /// The ID of the key that is sent with.
    pub fn send_key(&self) -> u8 {
        self.keys[0].id
    }

    /// Puts the section onto `packet`. `sequence` counts for the keyed kinds only.
    pub(super) fn sign(&self, packet: &mut Packet, sequence: u32) {
        let mut section = self.section(&self.keys[0], 0, sequence);
        packet.auth = Some(section);
        match &mut section {
            AuthSection::Md5 { digest, .. } => *digest = md5_of(packet),
            AuthSection::Sha1 { hash, .. } => *hash = sha1_of(packet),
            AuthSection::SimplePassword { .. } | AuthSection::Other { .. } => {}
        }
        packet.auth = Some(section);
    }

    /// Checks the section of a received packet. `last` is the sequence number accepted last, while
    /// it is known; the answer is the one to know from now on, for kinds that have one.
    ///
    /// The order is that of RFC 5880 §6.7.2 to §6.7.4, but for one thing: without a known sequence
    /// number the RFC takes the packet's before it looks at the digest, which would let anybody set
    /// it. Here it counts once the digest is right.
    pub(super) fn verify(
        &self,
        packet: &Packet,
        last: Option<u32>,
    ) -> Result<Option<u32>, Discard> {
        let section = packet.auth.as_ref().ok_or(Discard::AuthMissing)?;
        if section.kind() != self.kind.into() {
            return Err(Discard::AuthType(section.kind()));
        }
        let (key_id, reserved, sequence) = match *section {
            AuthSection::SimplePassword { key_id, .. } => (key_id, 0, None),
            AuthSection::Md5 {
                key_id,
                reserved,
                sequence,
                ..
            }
            | AuthSection::Sha1 {
                key_id,
                reserved,
                sequence,
                ..
            } => (key_id, reserved, Some(sequence)),
            AuthSection::Other { length, .. } => return Err(Discard::AuthLength(length)),
        };
        let key = self.keys.iter().find(|key| key.id == key_id);
        let key = key.ok_or(Discard::AuthKeyId(key_id))?;
        if let (Some(received), Some(last)) = (sequence, last)
            && !self.follows(received, last, packet.detect_mult.get())
        {
            return Err(Discard::AuthSequence { received, last });
        }
        let mut expected = *packet;
        let template = self.section(key, reserved, sequence.unwrap_or(0));
        expected.auth = Some(template);
        let genuine = match (section, template) {
            (
                AuthSection::SimplePassword { password, .. },
                AuthSection::SimplePassword { password: ours, .. },
            ) => {
                if password.as_bytes().len() != ours.as_bytes().len() {
                    let length = 3 + password.as_bytes().len() as u8;
                    return Err(Discard::AuthLength(length));
                }
                same(password.as_bytes(), ours.as_bytes())
            }
            (AuthSection::Md5 { digest, .. }, _) => same(digest, &md5_of(&expected)),
            (AuthSection::Sha1 { hash, .. }, _) => same(hash, &sha1_of(&expected)),
            _ => false,
        };
        if genuine {
            Ok(sequence)
        } else {
            Err(Discard::AuthDigest)
        }
    }

    /// RFC 5880 §6.7.3: from the last number, or the next where every packet has its own, up to
    /// three detection times ahead, in circles.
    fn follows(&self, received: u32, last: u32, detect_mult: u8) -> bool {
        let ahead = received.wrapping_sub(last);
        let least = u32::from(self.kind.is_meticulous());
        (least..=3 * u32::from(detect_mult)).contains(&ahead)
    }

    /// The section with the key where the digest will be (RFC 5880 §6.7.3: padded with zeros).
    fn section(&self, key: &Key, reserved: u8, sequence: u32) -> AuthSection {
        let (key_id, secret) = (key.id, &key.secret.0);
        let meticulous = self.kind.is_meticulous();
        match self.kind {
            AuthKind::SimplePassword => AuthSection::SimplePassword {
                key_id,
                password: Password::new(secret).expect("Auth::new checks the length"),
            },
            AuthKind::KeyedMd5 | AuthKind::MeticulousKeyedMd5 => AuthSection::Md5 {
                meticulous,
                key_id,
                reserved,
                sequence,
                digest: padded(secret),
            },
            AuthKind::KeyedSha1 | AuthKind::MeticulousKeyedSha1 => AuthSection::Sha1 {
                meticulous,
                key_id,
                reserved,
                sequence,
                hash: padded(secret),
            },
        }
    }
}

fn padded<const N: usize>(secret: &[u8]) -> [u8; N] {
    let mut field = [0; N];
    field[..secret.len()].copy_from_slice(secret);
    field
}

fn md5_of(packet: &Packet) -> [u8; 16] {
    let mut octets = [0; MAX_PACKET_LEN];
    let len = packet.encode(&mut octets);
    Md5::digest(&octets[..len]).into()
}

fn sha1_of(packet: &Packet) -> [u8; 20] {
    let mut octets = [0; MAX_PACKET_LEN];
    let len = packet.encode(&mut octets);
    Sha1::digest(&octets[..len]).into()
}

/// Takes the same time wherever the first difference is.
fn same(a: &[u8], b: &[u8]) -> bool {
    let differences = a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b));
    a.len() == b.len() && differences == 0
}
