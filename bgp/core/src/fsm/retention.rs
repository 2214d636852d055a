//! What outlives a session: which routes of the peer's we keep, and how we keep it from keeping
//! ours (RFC 4724, RFC 8538, RFC 9494).

use std::time::Duration;

use crate::fsm::config::Config;
use crate::fsm::terms::{Negotiated, Retention};
use crate::fsm::why::{DownWhy, PathWhy};
use crate::wire::Notification;

/// Families whose routes outlive a session with these terms that ended so, and for how long.
pub(super) fn retention(config: &Config, why: &DownWhy, negotiated: &Negotiated) -> Vec<Retention> {
    if let (DownWhy::LocalRestart, Some(own)) = (why, &config.graceful_restart) {
        let families = negotiated.families.iter();
        return families
            .map(|family| Retention {
                family: *family,
                restart_time: own.restart_time,
                long_lived_time: Duration::ZERO,
            })
            .collect();
    }
    let Some(restart) = &negotiated.graceful_restart else {
        return Vec::new();
    };
    let retains = match why {
        // RFC 4724 §4.2: TCP ended without a word, or the peer is back already.
        DownWhy::ConnectionLost(_)
        | DownWhy::PeerRestarted
        | DownWhy::PathDown(PathWhy::BfdSilent) => true,
        // RFC 8538 §4: with the N bit NOTIFICATIONs, sent or received, are like a lost
        // connection, unless they are a Hard Reset.
        DownWhy::NotificationReceived(notification) => {
            restart.notification && !notification.is_hard_reset()
        }
        DownWhy::HoldTimerExpired
        | DownWhy::SendHoldTimerExpired
        | DownWhy::NotificationSent(_)
        | DownWhy::OwnAsRefused { .. }
        | DownWhy::PeerAsRefused { .. }
        | DownWhy::AdminClear
        | DownWhy::Reconfigured => restart.notification,
        // A dead path carries no packets, however well the peer forwards.
        DownWhy::PathDown(PathWhy::LinkDown | PathWhy::BfdDown) | DownWhy::PathUnproved => false,
        DownWhy::AdminDown
        | DownWhy::Deconfigured
        | DownWhy::LocalRestart
        | DownWhy::CollisionLost
        | DownWhy::PrefixLimit { .. } => false,
    };
    if !retains {
        return Vec::new();
    }
    negotiated
        .families
        .iter()
        .map(|family| {
            // RFC 9494 §4.2: a time is zero for families that its capability does not list.
            // Without the long-lived one, a capability without families promises nothing about
            // the peer's own routes, and a restart time of zero no return.
            let restarts = restart.families.iter().any(|(listed, _)| listed == family);
            let long_lived = negotiated.long_lived.iter().flatten();
            let long_lived = long_lived.filter(|listed| listed.family == *family);
            Retention {
                family: *family,
                restart_time: if restarts {
                    restart.restart_time
                } else {
                    Duration::ZERO
                },
                long_lived_time: long_lived
                    .map(|listed| listed.stale_time)
                    .next()
                    .unwrap_or_default(),
            }
        })
        .filter(|kept| !(kept.restart_time.is_zero() && kept.long_lived_time.is_zero()))
        .collect()
}

/// What to say to a peer that is to drop our routes: where it would keep them across a plain
/// NOTIFICATION, a Hard Reset (RFC 8538 §4).
pub(super) fn final_word(
    notification: &Notification,
    negotiated: Option<&Negotiated>,
) -> Notification {
    let keeps = negotiated
        .and_then(|negotiated| negotiated.graceful_restart.as_ref())
        .is_some_and(|restart| restart.notification);
    if keeps {
        notification.clone().into_hard_reset()
    } else {
        notification.clone()
    }
}
