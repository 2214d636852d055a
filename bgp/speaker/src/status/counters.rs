//! Counts that only grow, one set per peer.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use caracal_bgp_core::fsm::DownWhy;
use caracal_bgp_core::wire::{MessageType, Notification};
use serde::{Deserialize, Serialize};

/// Which way a message went.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// The peer sent it.
    Received,
    /// We did.
    Sent,
}

/// How many kinds of NOTIFICATIONs are told apart per peer: more than IANA knows.
const NOTIFICATION_KINDS: usize = 128;
/// What stands for all other kinds: the code is reserved.
const OTHER: u8 = 0;

/// Counts of one peer.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    received: ByType,
    sent: ByType,
    /// Rare, and of many kinds.
    rare: Mutex<Rare>,
}

/// Messages and octets by type of message: OPEN, UPDATE, NOTIFICATION, KEEPALIVE, ROUTE-REFRESH.
#[derive(Debug, Default)]
struct ByType {
    messages: [AtomicU64; 5],
    octets: AtomicU64,
}

#[derive(Debug, Default)]
struct Rare {
    notifications: BTreeMap<(Direction, u8, u8), u64>,
    flaps: BTreeMap<FlapReason, u64>,
    discarded_attributes: u64,
    treated_as_withdraw: u64,
}

/// Why a session that was up ended, in few words: a label of metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlapReason {
    /// By an operator or by configuration.
    Administrative,
    /// The path or link is gone, or BFD says so.
    PathDown,
    /// Nothing was heard, or nothing could be sent, for too long.
    Timer,
    /// The peer said why.
    NotificationReceived,
    /// We said why: the peer broke a rule.
    NotificationSent,
    /// The connection ended without a word.
    ConnectionLost,
    /// It told too many prefixes.
    PrefixLimit,
}

impl FlapReason {
    pub(crate) fn of(why: &DownWhy) -> Self {
        match why {
            DownWhy::AdminDown
            | DownWhy::AdminClear
            | DownWhy::Reconfigured
            | DownWhy::Deconfigured
            | DownWhy::LocalRestart => Self::Administrative,
            DownWhy::PathDown(_) | DownWhy::PathUnproved => Self::PathDown,
            DownWhy::HoldTimerExpired | DownWhy::SendHoldTimerExpired => Self::Timer,
            DownWhy::NotificationReceived(_) | DownWhy::OwnAsRefused { .. } => {
                Self::NotificationReceived
            }
            DownWhy::NotificationSent(_) | DownWhy::PeerAsRefused { .. } => Self::NotificationSent,
            DownWhy::ConnectionLost(_) | DownWhy::PeerRestarted | DownWhy::CollisionLost => {
                Self::ConnectionLost
            }
            DownWhy::PrefixLimit { .. } => Self::PrefixLimit,
        }
    }

    /// The word for labels.
    pub fn word(self) -> &'static str {
        match self {
            Self::Administrative => "administrative",
            Self::PathDown => "path-down",
            Self::Timer => "timer",
            Self::NotificationReceived => "notification-received",
            Self::NotificationSent => "notification-sent",
            Self::ConnectionLost => "connection-lost",
            Self::PrefixLimit => "prefix-limit",
        }
    }
}

impl Counters {
    /// Counts messages of one type.
    pub(crate) fn count(
        &self,
        direction: Direction,
        kind: MessageType,
        messages: u64,
        octets: u64,
    ) {
        let counts = self.of(direction);
        if let Some(at) = place(kind) {
            counts.messages[at].fetch_add(messages, Ordering::Relaxed);
        }
        counts.octets.fetch_add(octets, Ordering::Relaxed);
    }

    pub(crate) fn notification(&self, direction: Direction, notification: &Notification) {
        let (code, subcode) = notification.error.codes();
        self.rare(|rare| {
            let seen = &mut rare.notifications;
            let mut key = (direction, code, subcode);
            if seen.len() >= NOTIFICATION_KINDS && !seen.contains_key(&key) {
                // A peer may make up numbers as it likes, one with each session.
                key = (direction, OTHER, 0);
            }
            *seen.entry(key).or_default() += 1;
        });
    }

    pub(crate) fn flap(&self, reason: FlapReason) {
        self.rare(|rare| *rare.flaps.entry(reason).or_default() += 1);
    }

    pub(crate) fn attributes_discarded(&self, count: usize) {
        self.rare(|rare| rare.discarded_attributes += count as u64);
    }

    pub(crate) fn treated_as_withdraw(&self) {
        self.rare(|rare| rare.treated_as_withdraw += 1);
    }

    pub(crate) fn treated_as_withdraw_count(&self) -> u64 {
        let mut count = 0;
        self.rare(|rare| count = rare.treated_as_withdraw);
        count
    }

    pub(crate) fn snapshot(&self) -> CounterSnapshot {
        let mut snapshot = CounterSnapshot {
            received: self.received.snapshot(),
            sent: self.sent.snapshot(),
            ..CounterSnapshot::default()
        };
        self.rare(|rare| {
            snapshot.notifications = rare
                .notifications
                .iter()
                .map(|((direction, code, subcode), count)| NotificationCount {
                    direction: *direction,
                    code: *code,
                    subcode: *subcode,
                    count: *count,
                })
                .collect();
            snapshot.flaps = rare.flaps.clone();
            snapshot.discarded_attributes = rare.discarded_attributes;
            snapshot.treated_as_withdraw = rare.treated_as_withdraw;
        });
        snapshot
    }

    fn of(&self, direction: Direction) -> &ByType {
        match direction {
            Direction::Received => &self.received,
            Direction::Sent => &self.sent,
        }
    }

    fn rare(&self, change: impl FnOnce(&mut Rare)) {
        // Counts stay true whatever became of a task that counted.
        let mut rare = self
            .rare
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        change(&mut rare);
    }
}

impl ByType {
    fn snapshot(&self) -> MessageCounts {
        let at = |kind| place(kind).map_or(0, |at| self.messages[at].load(Ordering::Relaxed));
        MessageCounts {
            open: at(MessageType::Open),
            update: at(MessageType::Update),
            notification: at(MessageType::Notification),
            keepalive: at(MessageType::Keepalive),
            route_refresh: at(MessageType::RouteRefresh),
            octets: self.octets.load(Ordering::Relaxed),
        }
    }
}

fn place(kind: MessageType) -> Option<usize> {
    Some(match kind {
        MessageType::Open => 0,
        MessageType::Update => 1,
        MessageType::Notification => 2,
        MessageType::Keepalive => 3,
        MessageType::RouteRefresh => 4,
        MessageType::Unknown(_) => return None,
    })
}

/// Counts of one peer since the speaker started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CounterSnapshot {
    /// Messages that the peer sent.
    pub received: MessageCounts,
    /// Messages that we sent.
    pub sent: MessageCounts,
    /// NOTIFICATIONs by direction, code and subcode.
    pub notifications: Vec<NotificationCount>,
    /// How often a session that was up ended, by reason.
    pub flaps: BTreeMap<FlapReason, u64>,
    /// Malformed attributes that were left out (RFC 7606).
    pub discarded_attributes: u64,
    /// Malformed UPDATEs that were treated as withdrawals (RFC 7606).
    pub treated_as_withdraw: u64,
}

/// Messages by type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageCounts {
    /// OPEN.
    pub open: u64,
    /// UPDATE.
    pub update: u64,
    /// NOTIFICATION.
    pub notification: u64,
    /// KEEPALIVE.
    pub keepalive: u64,
    /// ROUTE-REFRESH.
    pub route_refresh: u64,
    /// Octets of all of them.
    pub octets: u64,
}

/// How often a NOTIFICATION was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationCount {
    /// Who sent it.
    pub direction: Direction,
    /// Error code; zero for all that are beyond those told apart.
    pub code: u8,
    /// Error subcode.
    pub subcode: u8,
    /// How often.
    pub count: u64,
}

#[cfg(test)]
mod tests {
    use caracal_bgp_core::wire::NotificationError;

    use super::*;

    #[test]
    fn a_peer_that_makes_up_codes_is_counted_in_bounded_memory() {
        let counters = Counters::default();
        for code in 100..=255 {
            for subcode in 0..=255 {
                let notification = Notification {
                    error: NotificationError::Unknown { code, subcode },
                    data: Vec::new(),
                };
                counters.notification(Direction::Received, &notification);
            }
        }
        let seen = counters.snapshot().notifications;
        assert_eq!(seen.len(), NOTIFICATION_KINDS + 1);
        assert_eq!(seen.iter().map(|it| it.count).sum::<u64>(), 156 * 256);
        let others = seen.iter().find(|it| it.code == OTHER).unwrap();
        assert_eq!(others.count, 156 * 256 - NOTIFICATION_KINDS as u64);
    }
}
