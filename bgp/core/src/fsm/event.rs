//! The vocabulary between the peer machine and its shell: plain data, both ways.

use std::time::Duration;

use crate::fsm::config::Config;
use crate::fsm::terms::{Negotiated, Retention};
use crate::fsm::why::{CloseWhy, DownWhy, PathWhy};
use crate::types::Family;
use crate::wire::{Message, Notification, Open};

/// Names one TCP connection for as long as the peer machine lives; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Who opened a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// We did.
    Active,
    /// The peer did.
    Passive,
}

/// The states of RFC 4271 §8.2.2, as seen from outside: that of the more advanced connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// Left alone; [`super::Peer::idle_why`] says why.
    Idle,
    /// Waiting: for the next dial, or for the peer to connect.
    Active,
    /// Dialling.
    Connect,
    /// Connected; our OPEN is out.
    OpenSent,
    /// The peer's OPEN was accepted; its KEEPALIVE is awaited.
    OpenConfirm,
    /// Routes may flow.
    Established,
}

/// What happened, told by the shell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A TCP connection with the peer is usable; `conn` names it from now on.
    Connected {
        /// A fresh name.
        conn: ConnId,
        /// `Active` answers [`Action::Dial`].
        role: Role,
    },
    /// The last [`Action::Dial`] failed.
    DialFailed {
        /// How.
        why: CloseWhy,
    },
    /// A whole message was framed and decoded.
    Received {
        /// Where.
        conn: ConnId,
        /// What.
        message: Incoming,
    },
    /// What came cannot be decoded and the session cannot go on.
    Malformed {
        /// Where.
        conn: ConnId,
        /// What to tell the peer (RFC 4271 §6).
        notification: Notification,
    },
    /// The connection ended without our asking.
    Closed {
        /// Which.
        conn: ConnId,
        /// How.
        why: CloseWhy,
    },
    /// Octets of at least one message reached the socket (feeds the send hold timer).
    Wrote {
        /// Where.
        conn: ConnId,
    },
    /// The path to the peer is gone: whatever was retained from it is dead too.
    PathDown {
        /// By whose word.
        why: PathWhy,
    },
    /// The path is back: dial now.
    PathUp,
    /// Whether BFD says from now on that the path is up. Ends no session: that is [`Event::PathDown`]'s.
    PathProved(bool),
    /// Whether it is known from now on who the peer is. While it is not, no session is begun; one that is up
    /// goes on.
    PeerKnown(bool),
    /// Our own restart is over: OPENs sent from now on leave the R bit clear (RFC 4724 §4.1).
    RestartComplete,
    /// The RIB counts more prefixes of the peer than are configured as its limit: end the session
    /// and leave the peer alone for as long as is configured. Where [`Config::prefix_limits`] has
    /// another limit, the RIB has heard earlier or later of a change than the machine: the event
    /// waits for the next [`Event::Configure`], and means nothing if that does not have its limit.
    PrefixLimitExceeded {
        /// The connection of the session that they came over.
        conn: ConnId,
        /// The family counted.
        family: Family,
        /// The limit, as the RIB knows it.
        limit: u32,
    },
    /// Ask the peer for its routes of a family again, as after a change of import policy. Where
    /// that is impossible [`Note::RefreshImpossible`] says so.
    RequestRefresh {
        /// The family.
        family: Family,
    },
    /// Another configuration of the same peer.
    Configure {
        /// The whole of it.
        config: Box<Config>,
        /// What is agreed in OPEN differs: end the session, so that the next one agrees on it. Routes
        /// stay meanwhile where the peer keeps them across a NOTIFICATION (RFC 8538). Otherwise the
        /// session goes on: pace, limits and keepalives are the new ones, terms stay as agreed.
        /// A peer that is left alone because of its prefix limit gets another chance with another
        /// limit of that family, or other terms.
        new_session: bool,
    },
    /// An operator's wish.
    Admin(Admin),
}

/// A received message, as much of it as the machine needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// OPEN.
    Open(Open),
    /// UPDATE; its content goes to the RIB on [`Action::Deliver`].
    Update,
    /// NOTIFICATION.
    Notification(Notification),
    /// KEEPALIVE.
    Keepalive,
    /// ROUTE-REFRESH; its content goes to the RIB on [`Action::Deliver`].
    RouteRefresh,
}

impl From<Message> for Incoming {
    fn from(message: Message) -> Self {
        match message {
            Message::Open(open) => Self::Open(open),
            Message::Update(_) => Self::Update,
            Message::Notification(notification) => Self::Notification(notification),
            Message::Keepalive => Self::Keepalive,
            Message::RouteRefresh(_) => Self::RouteRefresh,
        }
    }
}

/// An operator's wish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admin {
    /// Run the peer, unless it runs or is held down for its prefix limit.
    Up,
    /// Take it down and keep it down; the peer reads `text` (RFC 9003).
    Down {
        /// Shutdown communication; may be empty.
        text: String,
    },
    /// End the session and start a new one, when the peer has had a moment to read why; also ends the
    /// time that a peer is held down for its prefix limit. A peer that is down otherwise stays down.
    Clear {
        /// Shutdown communication; may be empty.
        text: String,
    },
    /// The peer is no longer configured: end the session for good.
    Deconfigure,
    /// This process restarts: leave without NOTIFICATION, so that peers keep our routes.
    Restart,
}

/// What the shell must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Open TCP to the peer; answer with `Connected { role: Active }` or `DialFailed`. Replaces
    /// any dial under way.
    Dial,
    /// Give up the dial under way. No answer is expected; a late `Connected` is closed.
    CancelDial,
    /// Write the message to the connection.
    Send {
        /// Where.
        conn: ConnId,
        /// OPEN, KEEPALIVE, NOTIFICATION or a request for a refresh; the rest is the RIB's to
        /// send.
        message: Message,
    },
    /// Flush what was sent, then close. Nothing more is sent on `conn`, and nothing that arrives
    /// on it matters. Do not wait for a peer that does not read.
    Close {
        /// Which.
        conn: ConnId,
    },
    /// The session is up: decode and encode UPDATEs with these terms and tell the RIB.
    Up {
        /// The connection that carries it.
        conn: ConnId,
        /// Its terms.
        negotiated: Negotiated,
    },
    /// The UPDATE or ROUTE-REFRESH of the event just handled is valid here: hand it to the RIB.
    /// Without this action it must be thrown away.
    Deliver {
        /// Where it came from.
        conn: ConnId,
    },
    /// The session left Established: tell the RIB.
    Down {
        /// Why.
        why: DownWhy,
        /// Families whose routes stay, marked stale, until the peer is back, and for how long if
        /// it does not come back. All other routes of the peer go now.
        retain: Vec<Retention>,
    },
    /// Routes retained from an earlier session go now: the path they point along is dead, or the
    /// peer is taken down. Follows no `Down` of its own; the RIB sweeps what is marked stale.
    DropRetained,
    /// For logs, metrics and people; never needed for correctness.
    Note(Note),
}

/// Something worth telling people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The outside view of the peer changed.
    StateChanged {
        /// Before.
        from: State,
        /// After.
        to: State,
    },
    /// A connection or a dial ended before a session came of it.
    AttemptFailed {
        /// Why.
        why: DownWhy,
    },
    /// The peer's OPEN was accepted; the session waits until BFD says that the path is up.
    AwaitsPath,
    /// The next dial is due after this time.
    RetryIn(Duration),
    /// The peer proposed families that we do not route, or that are not configured.
    FamiliesIgnored(Vec<crate::wire::AfiSafi>),
    /// No session carries the family, or the peer does not answer ROUTE-REFRESH: only a new session
    /// brings its routes again.
    RefreshImpossible(Family),
}
