//! Numbers of BFD, one type per registry; unlisted values are kept.
//!
//! <https://www.iana.org/assignments/bfd-parameters/bfd-parameters.xhtml>

use std::fmt;

/// The states of RFC 5880 §4.1, in their order on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// 0: held down by an administrator.
    AdminDown,
    /// 1: down, or just created.
    Down,
    /// 2: the peer is heard, and does not yet hear us.
    Init,
    /// 3: both hear each other.
    Up,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    /// From the two bits on the wire; higher bits do not count.
    pub(super) fn from_bits(bits: u8) -> Self {
        match bits & 0b11 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }

    pub(super) fn bits(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

macro_rules! registry {
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $( $code:literal => $variant:ident, $text:literal; )* }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $( #[doc = concat!("Code ", stringify!($code), ": ", $text, ".")] $variant, )*
            /// A value that the registry did not list when this was written.
            Unknown(u8),
        }

        impl From<u8> for $name {
            fn from(code: u8) -> Self {
                match code {
                    $( $code => Self::$variant, )*
                    other => Self::Unknown(other),
                }
            }
        }

        impl From<$name> for u8 {
            fn from(value: $name) -> Self {
                match value {
                    $( $name::$variant => $code, )*
                    $name::Unknown(other) => other,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $( Self::$variant => f.pad($text), )*
                    Self::Unknown(code) => f.pad(&format!("code {code}")),
                }
            }
        }
    };
}

registry! {
    /// Why a system's session last went down, in its own words (RFC 5880 §4.1, RFC 6428 §5). Five
    /// bits on the wire.
    pub enum Diag {
        0 => None, "no diagnostic";
        1 => DetectionTimeExpired, "control detection time expired";
        2 => EchoFailed, "echo function failed";
        3 => NeighborSignaledDown, "neighbor signaled session down";
        4 => ForwardingPlaneReset, "forwarding plane reset";
        5 => PathDown, "path down";
        6 => ConcatenatedPathDown, "concatenated path down";
        7 => AdministrativelyDown, "administratively down";
        8 => ReverseConcatenatedPathDown, "reverse concatenated path down";
        9 => MisconnectivityDefect, "mis-connectivity defect";
    }
}

registry! {
    /// Kinds of authentication section (RFC 5880 §4.1).
    pub enum AuthType {
        0 => Reserved, "reserved";
        1 => SimplePassword, "simple password";
        2 => KeyedMd5, "keyed MD5";
        3 => MeticulousKeyedMd5, "meticulous keyed MD5";
        4 => KeyedSha1, "keyed SHA1";
        5 => MeticulousKeyedSha1, "meticulous keyed SHA1";
    }
}
