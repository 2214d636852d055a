//! Whether an ADD may go on, judged by what is known of its pod.

use std::time::{Duration, Instant};

use crate::config::UnknownPods;

/// What becomes of an ADD now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// Wire it; its policy is whatever the compiler says of the pod.
    Wire,
    /// Ask again at this time, or when the pod's object arrives.
    Wait {
        /// When patience ends.
        until: Instant,
    },
    /// Wire it although its labels are unknown. The compiler isolates such an endpoint.
    WireIsolated,
    /// Answer "try again later".
    Refuse,
}

/// Judges an ADD that arrived at `since`. `known` says that the pod's object, with the UID that the
/// runtime named, has been seen, together with its namespace.
pub(crate) fn admit(
    known: bool,
    since: Instant,
    now: Instant,
    patience: Duration,
    unknown: UnknownPods,
) -> Admission {
    let until = since + patience;
    if known {
        Admission::Wire
    } else if now < until {
        Admission::Wait { until }
    } else {
        match unknown {
            UnknownPods::Isolate => Admission::WireIsolated,
            UnknownPods::Refuse => Admission::Refuse,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_with_unknown_labels_is_never_open() {
        let since = Instant::now();
        let patience = Duration::from_secs(5);
        let wait = Admission::Wait {
            until: since + patience,
        };
        for (known, after, unknown, expected) in [
            (true, 0, UnknownPods::Isolate, Admission::Wire),
            (true, 9, UnknownPods::Refuse, Admission::Wire),
            (false, 0, UnknownPods::Isolate, wait),
            (false, 4, UnknownPods::Refuse, wait),
            (false, 5, UnknownPods::Isolate, Admission::WireIsolated),
            (false, 5, UnknownPods::Refuse, Admission::Refuse),
        ] {
            let now = since + Duration::from_secs(after);
            let seen = admit(known, since, now, patience, unknown);
            assert_eq!(seen, expected, "known {known} after {after} s, {unknown:?}");
        }
    }
}
