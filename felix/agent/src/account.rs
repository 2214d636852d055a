//! What the speaker does, kept for the node's status.
//!
//! Owns looking at the speaker when it has changed, and when its rejected routes are gone through.
//! Does not own the speaker (see [`crate::routing`]) nor what is said of it (see [`crate::status`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use caracal_bgp_core::types::Family;
use caracal_bgp_speaker::config::PeerName;
use caracal_bgp_speaker::snapshot::{FibCountSnapshot, RejectedSnapshot};
use caracal_bgp_speaker::{SpeakerHandle, SpeakerSnapshot};
use caracal_crds::RouteCounts;
use tokio::sync::watch;

/// Pause between two looks at the speaker: a table that converges changes all the time.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// What the speaker does, for the node's status.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Account {
    /// The speaker and its sessions; none before it runs.
    pub(crate) speaker: Option<SpeakerSnapshot>,
    /// Its routes in the kernel.
    pub(crate) routes: RouteCounts,
    /// What it rejects, by session and reason, the most frequent first.
    pub(crate) rejected: Vec<(PeerName, RejectedSnapshot)>,
}

impl Account {
    /// With the speaker as it is now. What it could not count, because its RIB was too busy, is as it was;
    /// so are rejected routes, as long as there are any.
    pub(crate) fn followed_by(&self, mut speaker: SpeakerSnapshot) -> Self {
        let routes = match &speaker.rib {
            Some(rib) => count(&rib.fib),
            None => {
                let before = self.speaker.iter().flat_map(|speaker| &speaker.peers);
                let mut known: BTreeMap<_, _> =
                    before.map(|peer| (&peer.name, &peer.routes)).collect();
                for peer in &mut speaker.peers {
                    peer.routes = known.remove(&peer.name).cloned().flatten();
                }
                self.routes
            }
        };
        let mut next = Self {
            speaker: Some(speaker),
            routes,
            rejected: Vec::new(),
        };
        if next.rejects() {
            next.rejected.clone_from(&self.rejected);
        }
        next
    }

    /// Whether the RIB had no time to be counted: it has none to go through its routes either.
    fn is_of_a_busy_rib(&self) -> bool {
        let speaker = self.speaker.as_ref();
        speaker.is_some_and(|speaker| speaker.rib.is_none())
    }

    /// Whether there are rejected routes.
    fn rejects(&self) -> bool {
        let peers = self.speaker.iter().flat_map(|speaker| &speaker.peers);
        let mut families = peers.flat_map(|peer| peer.families());
        families.any(|family| family.received > family.accepted)
    }
}

/// Keeps `account` for as long as the speaker runs.
pub(crate) async fn keep(handle: SpeakerHandle, account: watch::Sender<Account>) {
    let mut changes = handle.changes();
    let mut survey = Survey::new(Instant::now());
    loop {
        changes.borrow_and_update();
        let Ok(speaker) = handle.snapshot().await else {
            return;
        };
        let next = account.borrow().followed_by(speaker);
        let (rejects, busy) = (next.rejects(), next.is_of_a_busy_rib());
        publish(&account, next);
        let began = Instant::now();
        if !rejects {
            survey.needless();
        } else if !busy && survey.due().is_some_and(|due| due <= began) {
            let Ok(rejected) = handle.rejected().await else {
                return;
            };
            survey.made(began, Instant::now());
            let next = Account {
                rejected,
                ..account.borrow().clone()
            };
            publish(&account, next);
        }
        tokio::select! {
            changed = changes.changed() => match changed {
                Ok(()) => survey.outdated(),
                Err(_) => return,
            },
            () = sleep_until(survey.due()) => {}
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
    }
}

/// For ever where there is nothing to wait for.
async fn sleep_until(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

fn publish(account: &watch::Sender<Account>, next: Account) {
    account.send_if_modified(|current| {
        let modified = *current != next;
        *current = next;
        modified
    });
}

/// When rejected routes are gone through.
///
/// It takes the RIB's time: each of them is judged again. So it pauses after it, and the longer the
/// longer it took, however often the table changes.
#[derive(Clone, Debug)]
struct Survey {
    outdated: bool,
    not_before: Instant,
}

impl Survey {
    /// The shortest pause.
    const PAUSE: Duration = Duration::from_secs(10);
    /// How much longer than the survey the pause is.
    const SHARE: u32 = 20;

    /// None has been made.
    fn new(now: Instant) -> Self {
        Self {
            outdated: true,
            not_before: now,
        }
    }

    /// Something has changed since the last one.
    fn outdated(&mut self) {
        self.outdated = true;
    }

    /// There is nothing to go through.
    fn needless(&mut self) {
        self.outdated = false;
    }

    /// One has been made.
    fn made(&mut self, began: Instant, ended: Instant) {
        let pause = (ended - began) * Self::SHARE;
        self.outdated = false;
        self.not_before = ended + pause.max(Self::PAUSE);
    }

    /// When the next one is to be made, if any is. May lie in the past.
    fn due(&self) -> Option<Instant> {
        self.outdated.then_some(self.not_before)
    }
}

fn count(fib: &[FibCountSnapshot]) -> RouteCounts {
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let mut counts = RouteCounts::default();
    for family in fib {
        match family.family {
            Family::Ipv4Unicast => counts.ipv4 = number(family.installed),
            Family::Ipv6Unicast => counts.ipv6 = number(family.installed),
        }
        counts.failed = counts.failed.saturating_add(number(family.failed));
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rejected_routes_are_gone_through_when_something_has_changed_and_not_without_a_pause() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut survey = Survey::new(at(0));
        assert_eq!(survey.due(), Some(at(0)), "at once at first");
        survey.made(at(0), at(0));
        assert_eq!(survey.due(), None, "nothing is new");
        survey.outdated();
        assert_eq!(survey.due(), Some(at(10)));
        survey.made(at(10), at(12));
        survey.outdated();
        assert_eq!(survey.due(), Some(at(52)), "2 s of work, 40 s of pause");
        survey.needless();
        assert_eq!(survey.due(), None);
        survey.outdated();
        assert_eq!(survey.due(), Some(at(52)));
    }
}
