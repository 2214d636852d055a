//! The loop's state: one owner of everything that the agent decides.
//!
//! Owns the order in which a change travels: objects, addresses, policy, links, routes, and at last
//! what is told to others. Does not own sockets or waiting, see [`crate::agent`].
//!
//! ```text
//!   Change ──▶ World ──┬─▶ Addresses ──▶ block status, requests ──┐
//!                      ├─▶ PolicyLayer ──▶ one transaction        ├──▶ Publisher
//!   CniCall ───────────┼─▶ Endpoints ──▶ links, host routes       │
//!                      └─▶ Routing ──▶ speaker, kernel routes ────┘
//! ```
//!
//! Nothing is written to the kernel before [`Core::begin`], which waits for a complete view.

mod calls;
mod questions;
mod report;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::path::Path;
use std::time::{Duration, Instant};

use caracal_cni::protocol::Outcome;
use caracal_cni::{AttachmentKey, PodReference};
use caracal_crds::BlockPhase;
use caracal_fib::{Rtnl, sysctl};
use caracal_resolve::Resolved;
use kube::ResourceExt;
use tracing::{error, info, warn};

use crate::addresses::{Addresses, Held};
use crate::config::Config;
use crate::endpoint::{Endpoints, Mark, Wired};
use crate::error::Error;
use crate::node::{self, NodeFacts};
use crate::pacing::Pacing;
use crate::policy::PolicyLayer;
use crate::routing::{Routing, View};
use crate::secrets::{News, SecretWatch};
use crate::snapshot;
use crate::world::{Change, Kind, World};
use calls::Waiting;
use report::Reporter;

/// Pause between two looks at what others may have changed: settings, loopback, leftovers.
const REPAIR_INTERVAL: Duration = Duration::from_secs(5);

/// Links compared per round. A comparison enters the pod's namespace and takes a millisecond; this
/// keeps a round below the time that a waiting ADD would notice.
const LINKS_PER_REPAIR: usize = 50;

/// How long changes gather before the snapshot is written again.
const SNAPSHOT_INTERVAL: Duration = Duration::from_secs(1);

/// The agent's state.
pub(crate) struct Core {
    pub(crate) config: Config,
    rtnl: Rtnl,
    world: World,
    node: NodeFacts,
    on_loopback: BTreeSet<IpAddr>,
    addresses: Addresses,
    endpoints: Endpoints,
    wired: BTreeMap<AttachmentKey, Wired>,
    policy: PolicyLayer,
    routing: Routing,
    /// Phases of the own blocks that the speaker carries out; none where it may do something else.
    routed: Option<BTreeMap<String, BlockPhase>>,
    secrets: SecretWatch,
    /// The speaker is behind the resources until Secrets are read.
    awaits_secrets: bool,
    reporter: Reporter,
    waiting: Vec<Waiting>,
    touched: BTreeSet<Kind>,
    snapshot: Pacing,
    next_repair: Instant,
    /// The last link that was compared; none starts from the first.
    repaired: Option<AttachmentKey>,
    begun: bool,
}

/// The parts that a core is made of, opened by [`crate::agent`].
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) rtnl: Rtnl,
    pub(crate) world: World,
    pub(crate) addresses: Addresses,
    pub(crate) endpoints: Endpoints,
    pub(crate) policy: PolicyLayer,
    pub(crate) routing: Routing,
    pub(crate) secrets: SecretWatch,
    pub(crate) reporter: Reporter,
}

pub(crate) use report::Reporter as StatusReporter;

impl Core {
    /// The state before anything is known beyond the snapshot.
    pub(crate) fn new(parts: Parts, now: Instant) -> Core {
        Core {
            config: parts.config,
            rtnl: parts.rtnl,
            world: parts.world,
            node: NodeFacts::default(),
            on_loopback: BTreeSet::new(),
            addresses: parts.addresses,
            endpoints: parts.endpoints,
            wired: BTreeMap::new(),
            policy: parts.policy,
            routing: parts.routing,
            routed: None,
            secrets: parts.secrets,
            awaits_secrets: false,
            reporter: parts.reporter,
            waiting: Vec::new(),
            touched: BTreeSet::new(),
            snapshot: Pacing::new(SNAPSHOT_INTERVAL),
            next_repair: now,
            repaired: None,
            begun: false,
        }
    }

    /// Whether the view is complete and calls are served.
    pub(crate) fn begun(&self) -> bool {
        self.begun
    }

    /// Takes one change in; [`Core::settle`] acts on all of them.
    pub(crate) fn take(&mut self, change: Change) {
        let (kind, keys) = self.world.apply(change);
        if keys.is_empty() && self.begun {
            return;
        }
        if self.begun {
            self.policy.touched(&self.world, kind, &keys);
        }
        self.touched.insert(kind);
    }

    /// Takes in what was seen of a Secret.
    pub(crate) fn take_secret(&mut self, news: News) {
        let (change, new) = self.secrets.take(news, &self.world);
        if let Some(change) = change {
            self.take(change);
        }
        if new {
            self.touched.insert(Kind::Secret);
        }
    }

    /// Acts on what was taken in, and on time that has passed.
    pub(crate) async fn settle(&mut self, now: Instant) -> Result<(), Error> {
        if !self.begun {
            if !self.world.complete() {
                if now >= self.next_repair {
                    self.next_repair = now + REPAIR_INTERVAL;
                    let missing: Vec<Kind> = self.world.missing().collect();
                    info!(?missing, "waiting for the first list of these kinds");
                }
                return Ok(());
            }
            self.begin(now)?;
        }
        let touched = std::mem::take(&mut self.touched);
        if !touched.is_empty() {
            self.snapshot.changed();
        }
        let repair = now >= self.next_repair;
        if repair {
            self.next_repair = now + REPAIR_INTERVAL;
            self.repair(now);
        }
        if repair || touched.contains(&Kind::Node) {
            self.look_at_node();
        }
        if let Err(error) = self.policy.commit(&self.node.addresses) {
            // The old ruleset stands; the next settle starts with a whole synchronisation.
            error!(%error, "the kernel refused a change of policy");
        }
        self.addresses.absorb(&self.world, &self.node);
        self.route(&touched, now).await?;
        self.retry_waiting(now);
        self.write_snapshot(now);
        self.report(now);
        Ok(())
    }

    /// When [`Core::settle`] has to be called at the latest.
    pub(crate) fn deadline(&self, now: Instant) -> Instant {
        let waiting = self.waiting.iter().map(|waiting| waiting.until);
        let others = [
            self.snapshot.due(now),
            self.reporter.due(now),
            self.secrets.awaited_until(now),
        ];
        waiting
            .chain(others.into_iter().flatten())
            .fold(self.next_repair, Instant::min)
    }

    /// Waits until the speaker has something new to tell.
    pub(crate) async fn routing_changed(&mut self) {
        self.routing.changed().await;
    }

    /// Ends, leaving the kernel as it is.
    pub(crate) async fn end(mut self) {
        for waiting in self.waiting.drain(..) {
            waiting.refuse("the agent is stopping");
        }
        if self.begun
            && let Err(error) = snapshot::write(&self.config.snapshot_path(), &self.world)
        {
            warn!(%error, "the next agent starts from an older view");
        }
        self.routing.end().await;
    }

    /// The first moment at which the whole view is there.
    fn begin(&mut self, now: Instant) -> Result<(), Error> {
        self.apply_settings();
        self.look_at_node();
        self.policy.load(&self.world);
        self.recover();
        // Before BGP says anything: while no agent ran, somebody may have flushed the ruleset, and
        // an announcement would draw packets to unprotected pods.
        self.policy
            .commit(&self.node.addresses)
            .map_err(Error::Policy)?;
        self.begun = true;
        self.replay_tombstones();
        self.next_repair = now + REPAIR_INTERVAL;
        info!(
            node = self.config.node_name,
            pods = self.wired.len(),
            "agent began"
        );
        Ok(())
    }

    /// Takes over what an earlier agent has left.
    fn recover(&mut self) {
        self.addresses.absorb(&self.world, &self.node);
        let marks = self.marks();
        self.judge(&marks);
        self.addresses.open_for_pods();
        let held: Vec<Held> = self.addresses.held().collect();
        for held in held {
            let Ok(interface) = self.endpoints.interface(&held.key) else {
                continue;
            };
            let wired = Wired {
                pod: self.pod_of(&held, marks.get(&held.key)),
                netns: (held.netns != Path::new("")).then_some(held.netns),
                interface,
                addresses: held.addresses,
                key: held.key,
            };
            self.policy.attach(&wired);
            self.wired.insert(wired.key.clone(), wired);
        }
    }

    /// The pod behind a record: by the mark of its link, else by its UID.
    fn pod_of(&self, held: &Held, mark: Option<&Mark>) -> Option<PodReference> {
        let uid = Some(held.pod_uid.clone()).filter(|uid| !uid.is_empty());
        let marked = mark.and_then(|mark| mark.pod.clone());
        let (namespace, name) = marked.or_else(|| {
            let pod = self.world.pods.iter().find(|pod| pod.metadata.uid == uid)?;
            Some((pod.namespace().unwrap_or_default(), pod.name_any()))
        })?;
        Some(PodReference {
            namespace,
            name,
            uid,
        })
    }

    fn marks(&mut self) -> BTreeMap<AttachmentKey, Mark> {
        self.endpoints.marks().unwrap_or_else(|error| {
            // Without a look at the links nobody can be judged missing: every record counts as
            // linked, which frees nothing.
            warn!(%error, "cannot list the pods' links");
            let held = self.addresses.held();
            held.map(|held| {
                let mark = Mark {
                    key: held.key.clone(),
                    addresses: held.addresses,
                    pod: None,
                };
                (held.key, mark)
            })
            .collect()
        })
    }

    fn judge(&mut self, marks: &BTreeMap<AttachmentKey, Mark>) {
        let links = marks
            .iter()
            .map(|(key, mark)| (key.clone(), mark.addresses.clone()));
        for key in self.addresses.judge(&links.collect()) {
            if let Outcome::Failed(error) = self.delete(&key) {
                warn!(%error, "cannot remove what nothing is left of");
            }
        }
    }

    fn repair(&mut self, now: Instant) {
        self.apply_settings();
        if self.addresses.look_due(now) {
            let marks = self.marks();
            self.judge(&marks);
        }
        self.repair_links();
        self.addresses.tick(now);
    }

    /// Compares some links with their records, going on where the last round ended.
    fn repair_links(&mut self) {
        let after = self
            .repaired
            .take()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let mut round = self
            .wired
            .range((after, Bound::Unbounded))
            .take(LINKS_PER_REPAIR);
        let last = round.by_ref().fold(None, |_, (key, wired)| {
            if let Err(error) = self.endpoints.repair(wired) {
                warn!(interface = %wired.interface, %error, "cannot repair a pod's link");
            }
            Some(key.clone())
        });
        self.repaired = last;
    }

    fn apply_settings(&self) {
        match sysctl::node_settings(&self.config.interface_prefix) {
            Ok(settings) => {
                let report = sysctl::repair(&settings);
                for change in &report.changed {
                    info!(%change, "kernel setting repaired");
                }
                for error in &report.failed {
                    warn!(%error, "kernel setting");
                }
            }
            Err(error) => warn!(%error, "cannot list the links' settings"),
        }
    }

    fn look_at_node(&mut self) {
        let on_loopback = node::loopback_addresses(&mut self.rtnl);
        let facts = NodeFacts::of(&self.world, &self.config.node_name, &on_loopback);
        if facts != self.node || on_loopback != self.on_loopback {
            self.on_loopback = on_loopback;
            if !facts.uid.is_empty() && facts.loopbacks.is_empty() {
                warn!(
                    addresses = ?facts.addresses,
                    "no InternalIP of the node sits on its loopback, so none is announced"
                );
            }
            self.endpoints.set_sources(&facts);
            self.node = facts;
            self.touched.insert(Kind::Node);
        }
    }

    async fn route(&mut self, touched: &BTreeSet<Kind>, now: Instant) -> Result<(), Error> {
        const KINDS: [Kind; 7] = [
            Kind::Node,
            Kind::IpPool,
            Kind::IpBlock,
            Kind::BgpConfiguration,
            Kind::BgpPeer,
            Kind::BgpFilter,
            Kind::Secret,
        ];
        let phases = self.addresses.phases();
        let wanted = KINDS.iter().any(|kind| touched.contains(kind))
            || self.routed.as_ref() != Some(&phases)
            || self.awaits_secrets
            || !self.routing.running();
        // Without its object a node has no identity to speak with.
        if !wanted || self.node.uid.is_empty() {
            return Ok(());
        }
        let resolved = self.resolve(&phases);
        for forgotten in self.secrets.want(&resolved.secrets, &self.world, now) {
            self.world.apply(forgotten);
            self.snapshot.changed();
        }
        self.awaits_secrets = self.secrets.awaited_until(now).is_some();
        if self.awaits_secrets {
            return Ok(());
        }
        let first = !self.routing.running();
        match self.routing.apply(resolved).await {
            Ok(()) => self.routed = Some(phases),
            // A port in use is the operator's to solve, and better seen as an agent that does not
            // start than as one that runs without routes.
            Err(error) if first => return Err(error),
            Err(error) => {
                self.routed = None;
                error!(%error, "cannot bring the speaker to its configuration");
            }
        }
        Ok(())
    }

    fn resolve(&self, phases: &BTreeMap<String, BlockPhase>) -> Resolved {
        let unread = self.secrets.unread();
        self.routing.resolve(&View {
            world: &self.world,
            loopbacks: &self.on_loopback,
            phases,
            namespace: self.secrets.namespace(),
            unread: &unread,
        })
    }

    fn write_snapshot(&mut self, now: Instant) {
        if self.snapshot.take(now)
            && let Err(error) = snapshot::write(&self.config.snapshot_path(), &self.world)
        {
            warn!(%error, "a restart without the API server would start from an older view");
            self.snapshot.changed();
        }
    }
}
