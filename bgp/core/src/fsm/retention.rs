//! What outlives a session: which routes of the peer's we keep, and how we keep it from keeping
//! ours (RFC 4724, RFC 8538).

use std::time::Duration;

use crate::fsm::config::Config;
use crate::fsm::terms::{DownWhy, Negotiated};
use crate::types::Family;
use crate::wire::Notification;

/// Families whose routes outlive a session with these terms that ended so, and for how long.
pub(super) fn retention(
    config: &Config,
    why: &DownWhy,
    negotiated: &Negotiated,
) -> (Vec<Family>, Duration) {
    let nothing = (Vec::new(), Duration::ZERO);
    if let (DownWhy::LocalRestart, Some(own)) = (why, &config.graceful_restart) {
        return (negotiated.families.clone(), own.restart_time);
    }
    let Some(restart) = &negotiated.graceful_restart else {
        return nothing;
    };
    let retains = match why {
        // RFC 4724 §4.2: TCP ended without a word, or the peer is back already.
        DownWhy::ConnectionLost(_) | DownWhy::PeerRestarted => true,
        // RFC 8538 §4: with the N bit NOTIFICATIONs, sent or received, are like a lost
        // connection, unless they are a Hard Reset.
        DownWhy::NotificationReceived(notification) => {
            restart.notification && !notification.is_hard_reset()
        }
        DownWhy::HoldTimerExpired
        | DownWhy::SendHoldTimerExpired
        | DownWhy::NotificationSent(_)
        | DownWhy::AdminClear => restart.notification,
        // A dead path carries no packets, however well the peer forwards.
        DownWhy::PathDown(_) => false,
        DownWhy::AdminDown
        | DownWhy::Deconfigured
        | DownWhy::LocalRestart
        | DownWhy::CollisionLost => false,
    };
    // A capability without families promises nothing about the peer's own routes, and a restart
    // time of zero no return.
    if !retains || restart.families.is_empty() || restart.restart_time.is_zero() {
        return nothing;
    }
    let families = restart.families.iter().map(|(family, _)| *family).collect();
    (families, restart.restart_time)
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
