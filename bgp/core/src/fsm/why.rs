//! Why sessions end, and why a peer is left alone.

use std::fmt;
use std::time::Instant;

use crate::types::{Asn, Family, PeerAs};
use crate::wire::iana::OpenError;
use crate::wire::{Notification, NotificationError};

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownWhy {
    /// An operator, or a shutdown, took the peer down.
    AdminDown,
    /// An operator asked for a new session.
    AdminClear,
    /// What is agreed in OPEN has another configuration.
    Reconfigured,
    /// The peer is no longer configured.
    Deconfigured,
    /// We restart and left without NOTIFICATION, so that the peer keeps our routes.
    LocalRestart,
    /// The path to the peer is gone, by BFD or by its link.
    PathDown(PathWhy),
    /// BFD did not come up while the session waited for it.
    PathUnproved,
    /// Nothing came for the hold time.
    HoldTimerExpired,
    /// Nothing could be written for the send hold time (RFC 9687).
    SendHoldTimerExpired,
    /// The peer said why.
    NotificationReceived(Notification),
    /// The peer broke a rule; this is what we told it.
    NotificationSent(Notification),
    /// The peer refused the AS that our OPEN named.
    OwnAsRefused {
        /// The AS that it named.
        said: Asn,
    },
    /// We refused the AS that the peer's OPEN named.
    PeerAsRefused {
        /// The AS that it named.
        said: Asn,
        /// What it should have been.
        configured: PeerAs,
    },
    /// The connection ended without a word.
    ConnectionLost(CloseWhy),
    /// The peer restarted faster than its old connection died.
    PeerRestarted,
    /// The connection lost a collision; the other one goes on.
    CollisionLost,
    /// The peer sent more prefixes than it may.
    PrefixLimit {
        /// Of this family.
        family: Family,
        /// How many it may send.
        limit: u32,
    },
}

impl fmt::Display for DownWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdminDown => f.write_str("administratively down"),
            Self::AdminClear => f.write_str("cleared by an operator"),
            Self::Reconfigured => f.write_str("the configuration of the session has changed"),
            Self::Deconfigured => f.write_str("peer removed from the configuration"),
            Self::LocalRestart => f.write_str("this speaker restarts"),
            Self::PathDown(why) => write!(f, "path down: {why}"),
            Self::PathUnproved => f.write_str("BFD has not said yet that the path is up"),
            Self::HoldTimerExpired => f.write_str("hold timer expired: nothing was received"),
            Self::SendHoldTimerExpired => {
                f.write_str("send hold timer expired: the peer does not read")
            }
            Self::NotificationReceived(notification) => {
                write!(f, "the peer sent {notification}")
            }
            Self::NotificationSent(notification) => write!(f, "we sent {notification}"),
            Self::OwnAsRefused { said } => {
                write!(
                    f,
                    "the peer sent {BAD_PEER_AS} (we say that we are AS {said})"
                )
            }
            Self::PeerAsRefused { said, configured } => write!(
                f,
                "we sent {BAD_PEER_AS} (the peer says that it is AS {said}, configured is {configured})"
            ),
            Self::ConnectionLost(why) => why.fmt(f),
            Self::PeerRestarted => f.write_str("the peer restarted"),
            Self::CollisionLost => f.write_str("lost to the peer's own connection"),
            Self::PrefixLimit { family, limit } => exceeded(*family, *limit, f),
        }
    }
}

const BAD_PEER_AS: NotificationError = NotificationError::Open(OpenError::BadPeerAs);

fn exceeded(family: Family, limit: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "the peer sent more than {limit} {family} prefixes")
}

/// Why a peer is left alone: it is neither dialled nor heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdleWhy {
    /// Nobody has started it yet.
    NotStarted,
    /// An operator, or a shutdown, took it down.
    AdminDown {
        /// What the peer was told; may be empty.
        text: String,
    },
    /// It is no longer configured.
    Deconfigured,
    /// This speaker restarts.
    Restarting,
    /// Who it is cannot be told.
    Unknown,
    /// It sent more prefixes than it may.
    PrefixLimit {
        /// Of this family.
        family: Family,
        /// How many it may send.
        limit: u32,
        /// When it gets another chance at the latest; `None` is when somebody clears it or the limit
        /// is another.
        until: Option<Instant>,
    },
}

impl fmt::Display for IdleWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotStarted => f.write_str("not started"),
            Self::AdminDown { text } if text.is_empty() => f.write_str("administratively down"),
            Self::AdminDown { text } => write!(f, "administratively down (\"{text}\")"),
            Self::Deconfigured => f.write_str("peer removed from the configuration"),
            Self::Restarting => f.write_str("this speaker restarts"),
            Self::Unknown => f.write_str("who the peer is cannot be told"),
            Self::PrefixLimit {
                family,
                limit,
                until,
            } => {
                exceeded(*family, *limit, f)?;
                f.write_str(match until {
                    Some(_) => "; the session starts again later",
                    None => "; the session starts again when cleared or with another limit",
                })
            }
        }
    }
}

/// What took the path away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathWhy {
    /// The interface towards the peer lost its carrier or is gone.
    LinkDown,
    /// BFD says so, and it is to be believed: the peer's BFD runs apart from its BGP (C bit, RFC 5882
    /// §4.3.1), or a dead path is the worse to miss.
    BfdDown,
    /// BFD says so, but the peer's BFD ends with its BGP: it may as well be a restart, over which the
    /// peer goes on forwarding (RFC 5882 §4.3.2), and to wait for that is preferred.
    BfdSilent,
}

impl fmt::Display for PathWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkDown => "link down",
            Self::BfdDown => "BFD down",
            Self::BfdSilent => "BFD down, perhaps with the peer's BGP alone",
        })
    }
}

/// How TCP ended, as far as the shell can tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CloseWhy {
    /// The peer closed in order.
    Eof,
    /// The peer reset the connection.
    Reset,
    /// The peer's host refused it.
    Refused,
    /// Nobody answered.
    TimedOut,
    /// There is no way to the peer's address, in the system's words.
    Unreachable(String),
    /// Anything else, in the system's words.
    Other(String),
}

impl fmt::Display for CloseWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Eof => f.write_str("the peer closed the connection"),
            Self::Reset => f.write_str("the peer reset the connection"),
            Self::Refused => f.write_str("connection refused"),
            Self::TimedOut => f.write_str("connection timed out"),
            Self::Unreachable(text) | Self::Other(text) => f.write_str(text),
        }
    }
}
