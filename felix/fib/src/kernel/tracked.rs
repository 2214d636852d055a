//! Next hops of which the speaker wants to know where they lead. Pure.
//!
//! Owns what it was told last, and how soon it hears that one leads somewhere again: routes that lead to
//! each other's next hops could else chase each other as fast as they are written.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use caracal_bgp_speaker::FibNextHop;
use caracal_bgp_speaker::fib::Reachability;

/// After the second return; each one more doubles it.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(64);

/// One that led somewhere for so long has not returned before.
const SOUND_AFTER: Duration = Duration::from_secs(300);

#[derive(Debug, Default)]
pub(super) struct Tracked {
    hops: BTreeMap<FibNextHop, Hop>,
    /// When one that leads somewhere again may be told of.
    wake: Option<Instant>,
}

#[derive(Debug)]
struct Hop {
    told: Reachability,
    since: Instant,
    returns: u32,
}

impl Tracked {
    /// Begins or ends with these.
    pub(super) fn set(&mut self, now: Instant, next_hops: BTreeMap<FibNextHop, bool>) {
        for (next_hop, wanted) in next_hops {
            if wanted {
                let hop = Hop {
                    told: Reachability::Direct,
                    since: now,
                    returns: 0,
                };
                self.hops.insert(next_hop, hop);
            } else {
                self.hops.remove(&next_hop);
            }
        }
    }

    pub(super) fn next_hops(&self) -> impl Iterator<Item = &FibNextHop> {
        self.hops.keys()
    }

    /// When to judge again, though nothing has happened.
    pub(super) fn wake(&self) -> Option<Instant> {
        self.wake
    }

    /// What the speaker is to be told, where all lead as `found` says.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        found: impl Fn(&FibNextHop) -> Reachability,
    ) -> Vec<(FibNextHop, Reachability)> {
        self.wake = None;
        let mut news = Vec::new();
        for (next_hop, hop) in &mut self.hops {
            let found = found(next_hop);
            if found == hop.told {
                continue;
            }
            if hop.told == Reachability::Unreachable {
                let due = hop.since + wait(hop.returns);
                if due > now {
                    self.wake = Some(self.wake.map_or(due, |wake| wake.min(due)));
                    continue;
                }
                hop.returns += 1;
            } else if now.saturating_duration_since(hop.since) >= SOUND_AFTER {
                hop.returns = 0;
            }
            (hop.told, hop.since) = (found, now);
            news.push((*next_hop, found));
        }
        news
    }
}

/// How long one stays unreachable that has returned so often.
fn wait(returns: u32) -> Duration {
    match returns.checked_sub(1) {
        None => Duration::ZERO,
        Some(doubled) => LONGEST_WAIT.min(FIRST_WAIT * 2_u32.saturating_pow(doubled.min(16))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOP: FibNextHop = FibNextHop {
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(10, 250, 0, 7)),
        link_local: None,
        interface: None,
    };

    #[test]
    fn what_leads_nowhere_is_told_at_once_and_a_return_ever_later_until_one_lasts() {
        let mut now = Instant::now();
        let mut tracked = Tracked::default();
        tracked.set(now, [(HOP, true)].into());
        assert_eq!(tracked.judge(now, |_| Reachability::Direct), []);
        let mut waits = Vec::new();
        for _ in 0..9 {
            let lost = tracked.judge(now, |_| Reachability::Unreachable);
            assert_eq!(lost, [(HOP, Reachability::Unreachable)]);
            let lost_at = now;
            while tracked.judge(now, |_| Reachability::Direct).is_empty() {
                now = tracked.wake().unwrap();
            }
            waits.push((now - lost_at).as_secs());
        }
        assert_eq!(waits, [0, 1, 2, 4, 8, 16, 32, 64, 64]);
        now += SOUND_AFTER;
        tracked.judge(now, |_| Reachability::Unreachable);
        assert_eq!(tracked.judge(now, |_| Reachability::Direct).len(), 1);
    }

    #[test]
    fn who_asks_again_is_told_again_and_who_does_not_care_is_told_nothing() {
        let now = Instant::now();
        let mut tracked = Tracked::default();
        for _ in 0..2 {
            tracked.set(now, [(HOP, true)].into());
            assert_eq!(tracked.judge(now, |_| Reachability::Unreachable).len(), 1);
            assert_eq!(tracked.judge(now, |_| Reachability::Unreachable), []);
        }
        tracked.set(now, [(HOP, false)].into());
        assert_eq!(tracked.judge(now, |_| Reachability::Direct), []);
    }
}
