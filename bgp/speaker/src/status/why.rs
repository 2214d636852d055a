//! Why there is no session: for programs in a word that never changes, for people in a sentence.
//!
//! Owns the words for programs. Does not own the sentences, which are those of whoever knows.

use std::fmt;

use caracal_bgp_core::fsm::{CloseWhy, DownWhy, IdleWhy, PathWhy};
use serde::{Deserialize, Serialize};

use crate::config::Lack;

/// Why a session is not up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// In a word.
    pub reason: DownReason,
    /// For people.
    pub text: String,
}

/// Why a session is not up, in few words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DownReason {
    /// An operator keeps it down.
    AdminDown,
    /// An operator asked for a new session.
    Cleared,
    /// What is agreed in OPEN has another configuration.
    Reconfigured,
    /// The peer is no longer configured.
    Deconfigured,
    /// This speaker restarts.
    Restarting,
    /// A Secret that holds its key is not there.
    MissingSecret,
    /// The Secret has no such key.
    MissingSecretKey,
    /// The key cannot be used.
    InvalidSecret,
    /// The kernel cannot do what the session needs.
    NotSupportedByKernel,
    /// What is configured makes no sense.
    InvalidSpec,
    /// The interface on which the peer is looked for is not there, or cannot be used.
    InterfaceNotReady,
    /// Nobody has been heard on the interface.
    PeerNotFound,
    /// There are several on the interface, and who the peer is cannot be told.
    SeveralPeers,
    /// The interface towards the peer has no carrier or is gone.
    LinkDown,
    /// BFD says that the path is dead.
    BfdDown,
    /// BFD has not said yet that the path is alive, and there may be no session before.
    AwaitsPath,
    /// Nothing was heard for the hold time.
    HoldTimerExpired,
    /// Nothing could be sent for the send hold time (RFC 9687).
    SendHoldTimerExpired,
    /// The peer said why.
    NotificationReceived,
    /// We said why: the peer broke a rule.
    NotificationSent,
    /// The peer's host refused the connection.
    ConnectionRefused,
    /// Nobody answered at the peer's address.
    ConnectTimeout,
    /// There is no way to the peer's address.
    Unreachable,
    /// The peer ended the connection without a word.
    ConnectionClosed,
    /// The connection could not be made, or it broke.
    ConnectionFailed,
    /// The peer restarted before its old connection had ended.
    PeerRestarted,
    /// The connection made way for the one that the peer had made.
    CollisionLost,
    /// The peer told too many prefixes.
    PrefixLimitExceeded,
}

impl Why {
    /// What ended a session, or an attempt at one.
    pub(crate) fn ended(why: &DownWhy) -> Self {
        let text = why.to_string();
        let reason = DownReason::of(why);
        Self { reason, text }
    }

    /// What a peer waits for that is left alone; nothing is known of one that nobody has started.
    pub(crate) fn idle(why: &IdleWhy) -> Option<Self> {
        let text = why.to_string();
        let reason = DownReason::of_idle(why)?;
        Some(Self { reason, text })
    }

    /// What a peer lacks that is held for it.
    pub(crate) fn lacks(lack: Lack, text: &str) -> Self {
        Self {
            reason: DownReason::of_lack(lack),
            text: text.to_owned(),
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl DownReason {
    fn of(why: &DownWhy) -> Self {
        match why {
            DownWhy::AdminDown => Self::AdminDown,
            DownWhy::AdminClear => Self::Cleared,
            DownWhy::Reconfigured => Self::Reconfigured,
            DownWhy::Deconfigured => Self::Deconfigured,
            DownWhy::LocalRestart => Self::Restarting,
            DownWhy::PathDown(PathWhy::LinkDown) => Self::LinkDown,
            DownWhy::PathDown(PathWhy::BfdDown | PathWhy::BfdSilent) => Self::BfdDown,
            DownWhy::PathUnproved => Self::AwaitsPath,
            DownWhy::HoldTimerExpired => Self::HoldTimerExpired,
            DownWhy::SendHoldTimerExpired => Self::SendHoldTimerExpired,
            DownWhy::NotificationReceived(_) | DownWhy::OwnAsRefused { .. } => {
                Self::NotificationReceived
            }
            DownWhy::NotificationSent(_) | DownWhy::PeerAsRefused { .. } => Self::NotificationSent,
            DownWhy::ConnectionLost(CloseWhy::Refused) => Self::ConnectionRefused,
            DownWhy::ConnectionLost(CloseWhy::TimedOut) => Self::ConnectTimeout,
            DownWhy::ConnectionLost(CloseWhy::Unreachable(_)) => Self::Unreachable,
            DownWhy::ConnectionLost(CloseWhy::Eof | CloseWhy::Reset) => Self::ConnectionClosed,
            DownWhy::ConnectionLost(CloseWhy::Other(_)) => Self::ConnectionFailed,
            DownWhy::PeerRestarted => Self::PeerRestarted,
            DownWhy::CollisionLost => Self::CollisionLost,
            DownWhy::PrefixLimit { .. } => Self::PrefixLimitExceeded,
        }
    }

    fn of_idle(why: &IdleWhy) -> Option<Self> {
        Some(match why {
            IdleWhy::NotStarted => return None,
            IdleWhy::AdminDown { .. } => Self::AdminDown,
            IdleWhy::Deconfigured => Self::Deconfigured,
            IdleWhy::Restarting => Self::Restarting,
            IdleWhy::Unknown => Self::SeveralPeers,
            IdleWhy::PrefixLimit { .. } => Self::PrefixLimitExceeded,
        })
    }

    fn of_lack(lack: Lack) -> Self {
        match lack {
            Lack::Secret => Self::MissingSecret,
            Lack::SecretKey => Self::MissingSecretKey,
            Lack::ValidSecret => Self::InvalidSecret,
            Lack::KernelSupport => Self::NotSupportedByKernel,
            Lack::ValidConfiguration => Self::InvalidSpec,
        }
    }
}

#[cfg(test)]
mod tests {
    use caracal_bgp_core::types::{Asn, Family};
    use caracal_bgp_core::wire::{Cease, Notification};

    use super::*;

    fn word(reason: DownReason) -> String {
        let word = serde_json::to_value(reason).unwrap();
        word.as_str().unwrap().to_owned()
    }

    #[test]
    fn every_end_has_a_word_that_does_not_hang_on_what_is_said_in_it() {
        let lost = DownWhy::ConnectionLost;
        // What a peer may write, and what an error may be called, reads like other reasons.
        let text = "refused: hold timer, timed out, unreachable";
        let cease = || Notification::cease(Cease::AdministrativeShutdown, text);
        let family = Family::Ipv4Unicast;
        for (why, expected) in [
            (DownWhy::AdminDown, "admin-down"),
            (DownWhy::AdminClear, "cleared"),
            (DownWhy::Reconfigured, "reconfigured"),
            (DownWhy::Deconfigured, "deconfigured"),
            (DownWhy::LocalRestart, "restarting"),
            (DownWhy::PathDown(PathWhy::LinkDown), "link-down"),
            (DownWhy::PathDown(PathWhy::BfdDown), "bfd-down"),
            (DownWhy::PathDown(PathWhy::BfdSilent), "bfd-down"),
            (DownWhy::PathUnproved, "awaits-path"),
            (DownWhy::HoldTimerExpired, "hold-timer-expired"),
            (DownWhy::SendHoldTimerExpired, "send-hold-timer-expired"),
            (
                DownWhy::NotificationReceived(cease()),
                "notification-received",
            ),
            (DownWhy::NotificationSent(cease()), "notification-sent"),
            (
                DownWhy::OwnAsRefused { said: Asn(1) },
                "notification-received",
            ),
            (
                DownWhy::PeerAsRefused {
                    said: Asn(1),
                    configured: Asn(2).into(),
                },
                "notification-sent",
            ),
            (lost(CloseWhy::Refused), "connection-refused"),
            (lost(CloseWhy::TimedOut), "connect-timeout"),
            (lost(CloseWhy::Unreachable(text.into())), "unreachable"),
            (lost(CloseWhy::Eof), "connection-closed"),
            (lost(CloseWhy::Reset), "connection-closed"),
            (lost(CloseWhy::Other(text.into())), "connection-failed"),
            (DownWhy::PeerRestarted, "peer-restarted"),
            (DownWhy::CollisionLost, "collision-lost"),
            (
                DownWhy::PrefixLimit { family, limit: 5 },
                "prefix-limit-exceeded",
            ),
        ] {
            let said = Why::ended(&why);
            assert_eq!(word(said.reason), expected, "{why:?}");
            assert_eq!(said.to_string(), why.to_string());
        }
    }

    #[test]
    fn what_is_left_alone_or_held_has_a_word_too() {
        let limit = IdleWhy::PrefixLimit {
            family: Family::Ipv6Unicast,
            limit: 5,
            until: None,
        };
        let text = "refused".to_owned();
        for (why, expected) in [
            (IdleWhy::NotStarted, None),
            (IdleWhy::AdminDown { text }, Some("admin-down")),
            (IdleWhy::Deconfigured, Some("deconfigured")),
            (IdleWhy::Restarting, Some("restarting")),
            (IdleWhy::Unknown, Some("several-peers")),
            (limit, Some("prefix-limit-exceeded")),
        ] {
            let said = Why::idle(&why);
            let said = said.map(|it| (word(it.reason), it.text));
            let expected = expected.map(|word| (word.to_owned(), why.to_string()));
            assert_eq!(said, expected);
        }
        for (lack, expected) in [
            (Lack::Secret, "missing-secret"),
            (Lack::SecretKey, "missing-secret-key"),
            (Lack::ValidSecret, "invalid-secret"),
            (Lack::KernelSupport, "not-supported-by-kernel"),
            (Lack::ValidConfiguration, "invalid-spec"),
        ] {
            assert_eq!(word(Why::lacks(lack, "").reason), expected);
        }
    }
}
