//! What is told to the API server.

use std::time::{Duration, Instant};

use caracal_crds::{BlockPhase, DataplaneSummary, NodeNetworkStatusStatus};
use jiff::Timestamp;
use tokio::sync::watch;

use super::Core;
use crate::pacing::Pacing;
use crate::publish::Wanted;
use crate::status::{Facts, differ_in_counts_alone, summarise};

/// At least this long between two writes of one node's status, plus the jitter: a flapping session
/// of 5,000 nodes must not become a load on the API server.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);

/// Decides when the status is due and remembers what was said.
pub(crate) struct Reporter {
    wanted: watch::Sender<Wanted>,
    said: NodeNetworkStatusStatus,
    pacing: Pacing,
}

impl Reporter {
    /// `said` is what the server's object holds. `random` spreads the nodes' writes.
    pub(crate) fn new(
        wanted: watch::Sender<Wanted>,
        said: Option<NodeNetworkStatusStatus>,
        random: u64,
        now: Instant,
    ) -> Reporter {
        let jitter = Duration::from_millis(random % 1000);
        // A start passes through states that last for milliseconds: nobody wants to read them, and
        // after a restart the last of them is mostly what was said before.
        let pacing = Pacing::not_before(now, STATUS_INTERVAL + jitter);
        Reporter {
            wanted,
            said: said.unwrap_or_default(),
            pacing,
        }
    }

    /// When a status waits to be written.
    pub(super) fn due(&self, now: Instant) -> Option<Instant> {
        self.pacing.due(now)
    }
}

impl Core {
    /// Hands the publisher what the server should hold.
    pub(super) fn report(&mut self, now: Instant) {
        let (mut blocks, requests) = self.addresses.wanted(&self.world);
        // A released block may be another node's at once, so its routes go first.
        blocks.retain(|name, write| {
            write.status.phase != BlockPhase::Released
                || self.routed.as_ref().and_then(|routed| routed.get(name))
                    == Some(&BlockPhase::Released)
        });
        let status = summarise(&self.facts(), &self.reporter.said, Timestamp::now());
        if status == self.reporter.said {
            self.reporter.pacing.settled();
        } else if differ_in_counts_alone(&status, &self.reporter.said) {
            self.reporter.pacing.drifted();
        } else {
            self.reporter.pacing.changed();
        }
        let said = self.reporter.pacing.take(now).then_some(status);
        let (name, owner) = (
            &self.config.node_name,
            self.node.owner(&self.config.node_name),
        );
        if owner.is_none() {
            // Without its Node object the agent owns nothing and says nothing.
            return;
        }
        if let Some(status) = &said {
            self.reporter.said = status.clone();
        }
        self.reporter.wanted.send_if_modified(|wanted| {
            let mut next = Wanted {
                owner,
                blocks,
                requests,
                node: wanted.node.clone(),
            };
            if let Some(status) = said {
                next.node = Some((name.clone(), status));
            }
            let modified = *wanted != next;
            *wanted = next;
            modified
        });
    }

    fn facts(&self) -> Facts {
        let plan = self.policy.plan();
        let identities: std::collections::BTreeSet<_> = plan.identities.values().collect();
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        Facts {
            account: self.routing.account(),
            findings: self.routing.findings().map(<[_]>::to_vec),
            blocks: self.addresses.phases(),
            dataplane: DataplaneSummary {
                classes: count(plan.classes.len()),
                identities: count(identities.len()),
            },
            policy_failure: self.policy.failure().map(str::to_owned),
            free_addresses: self.addresses.free(),
        }
    }
}
