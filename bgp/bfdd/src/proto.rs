//! What is said on the socket `bfd.sock`: one JSON object per line, both ways.
//!
//! Owns the shapes. Does not own what is done about them.
//!
//! ```text
//! {"verb":"apply","owner":"node","sessions":[SessionConfig]}  -> {"ok": Applied}   these and no others
//! {"verb":"add","owner":"node","session":SessionConfig}       -> {"ok": Applied}
//! {"verb":"remove","owner":"node","key":SessionKey}           -> {"ok": Applied}
//! {"verb":"subscribe"}                                        -> {"ok": null}, then {"event": SessionEvent}…
//! {"verb":"sessions"}                                         -> {"ok": Snapshot}
//! anything else                                               -> {"error": "..."}
//! ```
//!
//! Answers come in the order of the requests; events come in between. A client that reads too slowly
//! for its events gets `{"lagged": [Adopted]}` with the state of every session in their place.
//!
//! The **owner** is the client's name. Sessions belong to owners, not to connections: they stay for a
//! while when the connection of their owner ends, and whoever comes back under the same name and
//! names the same sessions gets them as they are.

use std::fmt;
use std::net::IpAddr;

use caracal_bgp_core::bfd::{Diag, State};
use serde::{Deserialize, Serialize};

pub use crate::config::{AuthConfig, AuthMethod, KeyConfig, SecretConfig, SessionConfig};

/// The file name of the socket inside the run folder.
pub const SOCKET_NAME: &str = "bfd.sock";

/// Names a session.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SessionKey {
    /// The peer's address.
    pub peer: IpAddr,
    /// Our address; without it the kernel chooses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local: Option<IpAddr>,
    /// The interface that packets must leave and come by; without it the kernel chooses, and any is
    /// right. Link-local addresses need one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
    /// Whether the peer may be beyond the link (RFC 5883).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub multihop: bool,
}

impl SessionKey {
    /// A session over one hop.
    pub fn single_hop(local: Option<IpAddr>, peer: IpAddr, interface: Option<&str>) -> Self {
        Self {
            peer,
            local,
            interface: interface.map(str::to_owned),
            multihop: false,
        }
    }

    /// A session over any number of hops.
    pub fn multihop(local: Option<IpAddr>, peer: IpAddr) -> Self {
        Self {
            peer,
            local,
            interface: None,
            multihop: true,
        }
    }
}

impl fmt::Display for SessionKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.peer)?;
        if let Some(interface) = &self.interface {
            write!(f, "%{interface}")?;
        }
        if let Some(local) = &self.local {
            write!(f, " from {local}")?;
        }
        if self.multihop {
            f.write_str(" (multihop)")?;
        }
        Ok(())
    }
}

/// A request, as it stands on the line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "lowercase", deny_unknown_fields)]
pub enum Request {
    /// The owner wants these sessions and no others.
    Apply {
        /// The client's name.
        owner: String,
        /// All that it wants.
        sessions: Vec<SessionConfig>,
    },
    /// The owner wants this session too, or with these parameters from now on.
    Add {
        /// The client's name.
        owner: String,
        /// What it wants.
        session: SessionConfig,
    },
    /// The owner no longer wants this session.
    Remove {
        /// The client's name.
        owner: String,
        /// Which.
        key: SessionKey,
    },
    /// Changes of state are to be told on this connection from now on.
    Subscribe,
    /// Everything about every session.
    Sessions,
}

/// What stands on a line from the process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Message<T> {
    /// The answer to the oldest request without one.
    Ok(T),
    /// Why there is no such answer.
    Error(String),
    /// A session's state has changed.
    Event(SessionEvent),
    /// Events were left out; this is how things stand. The latest failure of each session is among what was
    /// missed, also where it has been told.
    Lagged(Vec<Adopted>),
}

/// What became of a wish.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The owner's sessions that the request named.
    pub sessions: Vec<Adopted>,
    /// Those that cannot be, with the reason. They are not run.
    #[serde(default)]
    pub refused: Vec<Refused>,
}

/// A session as its owner finds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// Which.
    pub key: SessionKey,
    /// Whether it ran before the request.
    pub existed: bool,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
    /// What happened while the owner was away, oldest first.
    #[serde(default)]
    pub missed: Vec<SessionEvent>,
    /// How many older events there were than are kept.
    #[serde(default)]
    pub missed_more: u64,
}

/// A session that cannot be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    /// Which.
    pub key: SessionKey,
    /// Why.
    pub why: String,
}

/// How a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Our state.
    #[serde(with = "state")]
    pub state: State,
    /// Our diagnostic, by its number (RFC 5880 §4.1).
    #[serde(with = "diag")]
    pub diag: Diag,
    /// What led to the state.
    pub reason: Reason,
    /// The peer's state, as it said last.
    #[serde(with = "state")]
    pub remote_state: State,
    /// The peer's diagnostic, as it said last.
    #[serde(with = "diag")]
    pub remote_diag: Diag,
    /// Our C bit.
    pub local_c: bool,
    /// The peer's C bit, as it said last. Only with both set does a failure of BFD prove a failure of
    /// forwarding during a graceful restart (RFC 5882 §4.3).
    pub remote_c: bool,
    /// Since when, in milliseconds since 1970.
    pub since_unix_ms: u64,
    /// For how long, in microseconds, when this was written.
    pub age_us: u64,
    /// How often the state has changed.
    pub transitions: u64,
}

/// A change of a session's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEvent {
    /// Which session.
    pub key: SessionKey,
    /// The state before.
    #[serde(with = "state")]
    pub from: State,
    /// Whether the path must be taken for dead. Not so when somebody took the session down on
    /// purpose, here or there (RFC 5882 §3.2).
    pub failure: bool,
    /// How long nothing had been heard of the peer, in microseconds, where its silence was the cause:
    /// what the detection took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub silence_us: Option<u64>,
    /// How the session stands after it. `transitions` is this event's number.
    #[serde(flatten)]
    pub standing: Standing,
}

/// What led to a state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// It is new.
    NeverUp,
    /// Both sides hear each other.
    Heard,
    /// Nothing came for the detection time.
    DetectionTimeExpired,
    /// The peer says that its side is down.
    NeighborSignaledDown,
    /// The peer's administrator holds it down.
    NeighborAdminDown,
    /// Nobody here wants it any longer.
    AdminDown,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NeverUp => "it is new",
            Self::Heard => "both ends hear each other",
            Self::DetectionTimeExpired => "nothing heard for the detection time",
            Self::NeighborSignaledDown => "the peer says that it is down",
            Self::NeighborAdminDown => "held down by the peer's administrator",
            Self::AdminDown => "no longer wanted",
        })
    }
}

/// The process and its sessions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Of the program.
    pub version: String,
    /// Process id.
    pub pid: u32,
    /// When it started, in milliseconds since 1970.
    pub started_unix_ms: u64,
    /// How the kernel schedules the thread that sends and receives.
    pub scheduling: String,
    /// Packets that belong to no session, or did not get as far as one, by reason.
    pub unmatched: std::collections::BTreeMap<String, u64>,
    /// By key.
    pub sessions: Vec<SessionStatus>,
}

/// Everything about a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStatus {
    /// Which.
    pub key: SessionKey,
    /// Who wants it.
    pub owners: Vec<Owner>,
    /// How it stands.
    #[serde(flatten)]
    pub standing: Standing,
    /// Why it is not up, for people; empty when it is.
    pub why: String,
    /// Our address, as configured or as the kernel chose.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub local_address: Option<IpAddr>,
    /// UDP source port.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_port: Option<u16>,
    /// Our name for it.
    pub local_discriminator: u32,
    /// The peer's name for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_discriminator: Option<u32>,
    /// As configured, in microseconds.
    pub desired_min_tx_us: u32,
    /// As configured, in microseconds.
    pub required_min_rx_us: u32,
    /// As configured.
    pub detect_mult: u8,
    /// How often we send, before jitter, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub transmit_us: Option<u32>,
    /// How often the peer sends, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub receive_us: Option<u32>,
    /// How long the peer may be silent, in microseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detection_us: Option<u64>,
    /// The peer's multiplier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remote_detect_mult: Option<u8>,
    /// How packets are authenticated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub auth: Option<String>,
    /// What was counted.
    pub counters: Counters,
    /// The latest changes of state, oldest first.
    pub history: Vec<SessionEvent>,
}

/// Somebody who wants a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The client's name.
    pub name: String,
    /// While the client is away: after how many seconds its wish is forgotten.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forgotten_in_s: Option<u64>,
}

/// Packets of a session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Sent.
    pub sent: u64,
    /// Not sent, because the kernel refused.
    pub unsent: u64,
    /// Received and accepted.
    pub received: u64,
    /// Received and thrown away.
    pub discarded: u64,
    /// Why, the last time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_discard: Option<String>,
}

/// States by their names.
mod state {
    use super::State;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(state: &State, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(state)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<State, D::Error> {
        let name = String::deserialize(from)?;
        State::ALL
            .into_iter()
            .find(|state| state.to_string() == name)
            .ok_or_else(|| D::Error::custom(format!("'{name}' is not a state")))
    }
}

/// Diagnostics by their numbers.
mod diag {
    use super::Diag;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(diag: &Diag, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u8((*diag).into())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Diag, D::Error> {
        u8::deserialize(from).map(Diag::from)
    }
}
