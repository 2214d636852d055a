//! What two speakers agree on, and how a session ends.
//!
//! Owns the values that pass from the session to the RIB. Does not own the negotiation itself.

use std::fmt;
use std::time::Duration;

use crate::types::{Asn, Family, RouterId};
use crate::wire::Notification;

/// The terms of an established session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiated {
    /// The peer's AS.
    pub peer_asn: Asn,
    /// The peer's identifier.
    pub peer_router_id: RouterId,
    /// Silence after which the session ends; zero means never.
    pub hold_time: Duration,
    /// Time between our keepalives, before jitter; zero means none.
    pub keepalive: Duration,
    /// Families that both sides listed, ascending.
    pub families: Vec<Family>,
    /// Whether AS numbers take four octets in UPDATEs (RFC 6793).
    pub four_octet_as: bool,
    /// Whether the peer answers ROUTE-REFRESH (RFC 2918).
    pub route_refresh: bool,
    /// Whether both sides bracket refreshes (RFC 7313); never so far, as we do not offer it.
    pub enhanced_route_refresh: bool,
    /// What the peer said of its restarts; `None` also when we do not take part.
    pub graceful_restart: Option<PeerGracefulRestart>,
}

/// The peer's side of graceful restart (RFC 4724 §3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerGracefulRestart {
    /// R bit: the peer has restarted and waits for our End-of-RIB.
    pub restarting: bool,
    /// N bit of both sides: retention survives NOTIFICATIONs (RFC 8538 §2).
    pub notification: bool,
    /// How long to keep its routes while it is away.
    pub restart_time: Duration,
    /// Negotiated families that it keeps, with its F bit; empty for a peer that only helps others.
    pub families: Vec<(Family, bool)>,
}

/// Why a session, or an attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DownWhy {
    /// An operator, or a shutdown, took the peer down.
    AdminDown,
    /// An operator asked for a new session.
    AdminClear,
    /// The peer is no longer configured.
    Deconfigured,
    /// We restart and left without NOTIFICATION, so that the peer keeps our routes.
    LocalRestart,
    /// The path to the peer is gone, by BFD or by its link.
    PathDown(PathWhy),
    /// Nothing came for the hold time.
    HoldTimerExpired,
    /// Nothing could be written for the send hold time (RFC 9687).
    SendHoldTimerExpired,
    /// The peer said why.
    NotificationReceived(Notification),
    /// The peer broke a rule; this is what we told it.
    NotificationSent(Notification),
    /// The connection ended without a word.
    ConnectionLost(CloseWhy),
    /// The peer restarted faster than its old connection died.
    PeerRestarted,
    /// The connection lost a collision; the other one goes on.
    CollisionLost,
}

impl fmt::Display for DownWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AdminDown => f.write_str("administratively down"),
            Self::AdminClear => f.write_str("cleared by an operator"),
            Self::Deconfigured => f.write_str("peer removed from the configuration"),
            Self::LocalRestart => f.write_str("this speaker restarts"),
            Self::PathDown(why) => write!(f, "path down: {why}"),
            Self::HoldTimerExpired => f.write_str("hold timer expired: nothing was received"),
            Self::SendHoldTimerExpired => {
                f.write_str("send hold timer expired: the peer does not read")
            }
            Self::NotificationReceived(notification) => {
                write!(f, "the peer sent {notification}")
            }
            Self::NotificationSent(notification) => write!(f, "we sent {notification}"),
            Self::ConnectionLost(why) => why.fmt(f),
            Self::PeerRestarted => f.write_str("the peer restarted"),
            Self::CollisionLost => f.write_str("lost to the peer's own connection"),
        }
    }
}

/// What took the path away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathWhy {
    /// The interface towards the peer lost its carrier or is gone.
    LinkDown,
    /// BFD says so.
    BfdDown,
}

impl fmt::Display for PathWhy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LinkDown => "link down",
            Self::BfdDown => "BFD down",
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
            Self::Other(text) => f.write_str(text),
        }
    }
}
