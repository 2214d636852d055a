//! The node's addresses: the allocator with its log, its blocks and its demands.
//!
//! Owns carrying out what the allocator decides: log first, then the answer; what to write about a
//! block; when to ask for another. Does not own the decisions, links, or the API client.

mod convert;
mod counts;
mod log;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use caracal_cni::{Attachment, CniError, ErrorCode};
use caracal_crds::{
    BlockPhase, IpBlock, IpBlockRequestSpec, IpBlockStatus, IpPool, PoolUse, Time, conditions,
    selector::Selector,
};
use caracal_ipam_core::node::{Action, Event, NodeAllocator, Offer, Refusal, Settings};
use caracal_ipam_core::reconcile::{self, Found, Suspicions, Verdict};
use caracal_ipam_core::{
    AddressPair, AttachmentKey, Block, BlockId, NodeName, NodeUid, PoolName, Range,
};
use jiff::Timestamp;
use kube::ResourceExt;
use tracing::{error, info, warn};

use crate::error::Error;
use crate::node::NodeFacts;
use crate::publish::BlockWrite;
use crate::world::{Key, World};
use convert::{from_core, moment, pair, to_core};
pub(crate) use counts::PoolAddresses;
use log::LogFile;

/// Pause between two looks at attachments whose namespace may be gone. Freeing takes two looks.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);

/// GC spares attachments younger than this: their ADD may have come after the runtime made its
/// list.
const GC_GRACE: Duration = Duration::from_secs(60);

/// An attachment as the log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Held {
    /// Whose it is.
    pub(crate) key: caracal_cni::AttachmentKey,
    /// UID of its pod; empty where the runtime did not say.
    pub(crate) pod_uid: String,
    /// Path of its namespace; empty where it was rebuilt from a link.
    pub(crate) netns: PathBuf,
    /// Its addresses, IPv4 first.
    pub(crate) addresses: Vec<IpAddr>,
}

/// A block of this node as the agent sees it.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    /// UID of the object that was judged; the same name with another UID is another grant.
    uid: String,
    phase: BlockPhase,
    epoch: Option<i64>,
    since: Timestamp,
}

/// The node's addresses.
pub(crate) struct Addresses {
    node: NodeName,
    node_uid: NodeUid,
    allocator: NodeAllocator,
    log: LogFile,
    random: u64,
    offers: BTreeMap<BlockId, Offer>,
    standings: BTreeMap<BlockId, Standing>,
    /// Generation of the demand for each pool that is not answered yet.
    demands: BTreeMap<PoolName, i64>,
    suspicions: Suspicions,
    next_look: Instant,
    added: BTreeMap<caracal_cni::AttachmentKey, Instant>,
}

impl Addresses {
    /// Opens the log below `run_dir`. `random` differs from boot to boot.
    ///
    /// # Errors
    /// Where the log's file cannot be opened.
    pub(crate) fn open(
        run_dir: &Path,
        node: &str,
        random: u64,
        now: Instant,
    ) -> Result<Addresses, Error> {
        let path = run_dir.join("ipam.wal");
        let (log, records) = LogFile::open(&path).map_err(|source| Error::File {
            doing: "open the address log",
            path,
            source,
        })?;
        Ok(Addresses {
            node: NodeName(node.to_owned()),
            node_uid: NodeUid(String::new()),
            allocator: NodeAllocator::replay(Settings::default(), &records),
            log,
            random,
            offers: BTreeMap::new(),
            standings: BTreeMap::new(),
            demands: BTreeMap::new(),
            suspicions: Suspicions::default(),
            next_look: now,
            added: BTreeMap::new(),
        })
    }

    /// Takes in the node's blocks as the view has them now.
    pub(crate) fn absorb(&mut self, world: &World, node: &NodeFacts) {
        // Without its object the node cannot tell its blocks from those of a namesake.
        if node.uid.is_empty() {
            return;
        }
        self.node_uid = NodeUid(node.uid.clone());
        let mut present = BTreeSet::new();
        let node_name = self.node.0.clone();
        for object in world
            .ip_blocks
            .iter()
            .filter(|block| block.spec.node_name == node_name)
        {
            // Given back already; it only rests until the controller deletes it.
            if object.phase() == BlockPhase::Released {
                continue;
            }
            let id = BlockId {
                pool: PoolName(object.spec.pool.clone()),
                index: object.spec.index,
            };
            let pool = world.ip_pools.get(&Key::cluster(&object.spec.pool));
            let Some(offer) = self.offer(object, pool) else {
                warn!(block = %id, "block with families of different size is not used");
                continue;
            };
            present.insert(id.clone());
            if self.offers.get(&id) != Some(&offer) {
                let uid = offer.uid.clone();
                self.offers.insert(id.clone(), offer.clone());
                self.tell(Event::Block(id.clone(), offer));
                // Where the allocator has nothing new to say, what it said holds for this object.
                if let Some(standing) = self.standings.get_mut(&id) {
                    standing.uid = uid;
                }
            }
        }
        let gone: Vec<BlockId> = self
            .offers
            .keys()
            .filter(|id| !present.contains(*id))
            .cloned()
            .collect();
        for id in gone {
            self.offers.remove(&id);
            self.tell(Event::BlockGone(id));
        }
        self.hear_refusals(world);
    }

    /// Starts to answer, once every block has been taken in and every link was judged.
    pub(crate) fn open_for_pods(&mut self) {
        self.tell(Event::Open);
    }

    /// Judges what the node shows: `links` are the attachments that have a link, with the addresses
    /// that it is marked with. Gives the attachments to be removed.
    pub(crate) fn judge(
        &mut self,
        links: &BTreeMap<caracal_cni::AttachmentKey, Vec<IpAddr>>,
    ) -> Vec<caracal_cni::AttachmentKey> {
        let veths: BTreeMap<AttachmentKey, AddressPair> = links
            .iter()
            .map(|(key, addresses)| (to_core(key), pair(addresses)))
            .collect();
        let log: BTreeMap<AttachmentKey, AddressPair> = self
            .allocator
            .attachments()
            .map(|(key, attachment)| (key.clone(), attachment.addresses))
            .collect();
        let namespaces = self
            .allocator
            .attachments()
            .filter(|(_, attachment)| Path::new(&attachment.netns).exists())
            .map(|(key, _)| key.clone())
            // A veth ends with the namespace of either end, so a link proves the pod's namespace
            // even where its path is not to be seen from here.
            .chain(veths.keys().cloned())
            .collect();
        let found = Found { veths, namespaces };
        let (verdicts, suspicions) = reconcile::judge(&log, &found, &self.suspicions);
        self.suspicions = suspicions;
        let mut doomed = Vec::new();
        for (key, verdict) in verdicts {
            match &verdict {
                Verdict::Keep => continue,
                Verdict::Suspect => info!(%key, "attachment without a link or a namespace"),
                Verdict::Free { .. } => {
                    info!(%key, "nothing is left of an attachment, freeing its addresses");
                    doomed.push(from_core(&key));
                    continue;
                }
                Verdict::Adopt(addresses) => {
                    warn!(%key, ?addresses, "adopting a pod that the log does not know");
                }
                Verdict::Quarantine { addresses, .. } => {
                    error!(%key, ?addresses, "addresses that nobody can explain are set aside");
                }
            }
            self.tell(Event::Judged { key, verdict });
        }
        doomed
    }

    /// Whether it is time for [`Addresses::judge`] again.
    pub(crate) fn look_due(&mut self, now: Instant) -> bool {
        let due = now >= self.next_look;
        if due {
            self.next_look = now + LOOK_INTERVAL;
        }
        due
    }

    /// Lets time pass.
    pub(crate) fn tick(&mut self, now: Instant) {
        let mut actions = Vec::new();
        self.allocator.handle_timeout(moment(), &mut actions);
        self.carry_out(actions);
        self.added
            .retain(|_, at| now.duration_since(*at) < GC_GRACE);
        if self.log.wants_rewrite()
            && let Err(error) = self.log.rewrite(&self.allocator.records(moment()))
        {
            warn!(%error, "cannot rewrite the address log");
        }
    }

    /// Addresses for an attachment, logged before this returns.
    ///
    /// # Errors
    /// Code 11 with the reason.
    pub(crate) fn assign(
        &mut self,
        attachment: &Attachment,
        pod_uid: String,
        world: &World,
        now: Instant,
    ) -> Result<Held, CniError> {
        let key = to_core(&attachment.key);
        let netns = attachment
            .netns
            .clone()
            .unwrap_or_default()
            .display()
            .to_string();
        let pools = self.pools(attachment, world);
        let add = Event::Add {
            key: key.clone(),
            pod_uid,
            netns,
            pools,
        };
        let mut actions = Vec::new();
        self.allocator.handle(moment(), add, &mut actions);
        let refused = actions.iter().find_map(|action| match action {
            Action::Refused { why, .. } => Some(*why),
            _ => None,
        });
        if !self.carry_out(actions) {
            // The allocator has the attachment, the log does not. The next ADD must not be answered
            // from memory alone, so it is taken back; its record rests unwritten.
            let mut undo = Vec::new();
            self.allocator.handle(moment(), Event::Del(key), &mut undo);
            return Err(later("the address log cannot be written"));
        }
        if let Some(why) = refused {
            return Err(match why {
                Refusal::Deleted => CniError::new(ErrorCode::UnknownContainer, why.to_string()),
                _ => later(&why.to_string()),
            });
        }
        self.added.insert(attachment.key.clone(), now);
        self.held()
            .find(|held| held.key == attachment.key)
            .ok_or_else(|| later("no address"))
    }

    /// Frees the addresses of an attachment after their rest; one that is unknown is remembered, so
    /// that its ADD, if it is still on its way, fails.
    ///
    /// # Errors
    /// Code 11 where the log cannot be written; the addresses are then still taken.
    pub(crate) fn release(&mut self, key: &caracal_cni::AttachmentKey) -> Result<(), CniError> {
        self.added.remove(key);
        let mut actions = Vec::new();
        self.allocator
            .handle(moment(), Event::Del(to_core(key)), &mut actions);
        match self.carry_out(actions) {
            true => Ok(()),
            false => Err(later("the address log cannot be written")),
        }
    }

    /// Every attachment.
    pub(crate) fn held(&self) -> impl Iterator<Item = Held> {
        self.allocator.attachments().map(|(key, attachment)| Held {
            key: from_core(key),
            pod_uid: attachment.pod_uid.clone(),
            netns: PathBuf::from(&attachment.netns),
            addresses: attachment.addresses.iter().collect(),
        })
    }

    /// Attachments old enough to be collected by GC.
    pub(crate) fn collectable(&self, now: Instant) -> Vec<caracal_cni::AttachmentKey> {
        let young = |key: &caracal_cni::AttachmentKey| {
            self.added
                .get(key)
                .is_some_and(|at| now.duration_since(*at) < GC_GRACE)
        };
        self.held()
            .map(|held| held.key)
            .filter(|key| !young(key))
            .collect()
    }

    /// Address positions that could be given out now.
    pub(crate) fn free(&self) -> usize {
        let usage = self.allocator.usage(moment());
        usage
            .values()
            .filter(|usage| usage.active)
            .map(|usage| usage.ready as usize)
            .sum()
    }

    /// Phase of each block that the node holds, by name.
    pub(crate) fn phases(&self) -> BTreeMap<String, BlockPhase> {
        self.standings
            .iter()
            .map(|(id, standing)| (id.to_string(), standing.phase))
            .collect()
    }

    /// What the API server should hold and does not: status of blocks, and requests.
    pub(crate) fn wanted(
        &self,
        world: &World,
    ) -> (
        BTreeMap<String, BlockWrite>,
        BTreeMap<String, IpBlockRequestSpec>,
    ) {
        let usage = self.allocator.usage(moment());
        let mut blocks = BTreeMap::new();
        for (id, standing) in &self.standings {
            let name = id.to_string();
            let Some(object) = world.ip_blocks.get(&Key::cluster(&name)) else {
                continue;
            };
            // What was judged is another grant of the name, or not known to the version.
            let (Some(object_uid), Some(version)) = (object.uid(), object.resource_version())
            else {
                continue;
            };
            if object_uid != standing.uid {
                continue;
            }
            let said = object.status.clone().unwrap_or_default();
            let uid = Some(self.node_uid.0.clone());
            // The controller's word on a node that is gone stands.
            let settled = said.phase == standing.phase && said.observed_node_uid == uid;
            if settled || said.phase == BlockPhase::Quarantined {
                continue;
            }
            let status = IpBlockStatus {
                phase: standing.phase,
                observed_node_uid: uid,
                observed_epoch: standing.epoch.or(said.observed_epoch),
                used: usage.get(id).map(|usage| usage.used),
                since: Some(Time(standing.since)),
                conditions: said.conditions,
            };
            let write = BlockWrite {
                uid: object_uid,
                resource_version: version,
                status,
            };
            blocks.insert(name, write);
        }
        let mut requests = BTreeMap::new();
        for (pool, generation) in &self.demands {
            let spec = IpBlockRequestSpec {
                node_name: self.node.0.clone(),
                node_uid: self.node_uid.0.clone(),
                pool: pool.0.clone(),
                generation: *generation,
                want: 1,
            };
            let object = world
                .ip_block_requests
                .get(&Key::cluster(spec.request_name()));
            if object.is_none_or(|object| object.spec.generation < *generation) {
                requests.insert(spec.request_name(), spec);
            }
        }
        (blocks, requests)
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.allocator.handle(moment(), event, &mut actions);
        if !self.carry_out(actions) {
            error!("a step of the allocator could not be logged");
        }
    }

    /// Does what the allocator says, in order; false where the log failed and the rest was left.
    fn carry_out(&mut self, actions: Vec<Action>) -> bool {
        for action in actions {
            match action {
                Action::Append(record) => {
                    if let Err(error) = self.log.append(&record) {
                        error!(%error, "cannot write the address log");
                        return false;
                    }
                }
                // Answered from the allocator's tables by whoever asked.
                Action::Assigned { .. } | Action::Refused { .. } | Action::Freed { .. } => {}
                Action::Activate { block, epoch } => {
                    let epoch = i64::try_from(epoch).ok();
                    self.stand(block, BlockPhase::Active, epoch);
                }
                Action::Drain(block) => self.stand(block, BlockPhase::Draining, None),
                Action::Release(block) => self.stand(block, BlockPhase::Released, None),
                Action::Lost(block) => {
                    error!(%block, "the object of a block in use is gone; it stays announced");
                }
                Action::Forget(block) => {
                    info!(%block, "block is gone");
                    self.standings.remove(&block);
                }
                Action::Request(pool) => {
                    self.demands.entry(pool).or_insert(0);
                }
            }
        }
        true
    }

    fn stand(&mut self, block: BlockId, phase: BlockPhase, epoch: Option<i64>) {
        info!(%block, ?phase, "block");
        let epoch = epoch.or(self
            .standings
            .get(&block)
            .and_then(|standing| standing.epoch));
        let offer = self.offers.get(&block);
        let uid = offer.map_or_else(String::new, |offer| offer.uid.clone());
        self.standings.insert(
            block,
            Standing {
                uid,
                phase,
                epoch,
                since: Timestamp::now(),
            },
        );
    }

    /// Numbers new demands after those at the server, and hears the controller's refusals.
    fn hear_refusals(&mut self, world: &World) {
        let mut refused = Vec::new();
        for (pool, generation) in &mut self.demands {
            let name = format!("{}.{pool}", self.node);
            let object = world.ip_block_requests.get(&Key::cluster(name));
            let at_server = object.map_or(0, |object| object.spec.generation);
            if *generation == 0 {
                *generation = at_server + 1;
            }
            let status = object.and_then(|object| object.status.as_ref());
            let answered = status.is_some_and(|status| {
                status
                    .observed_generation
                    .is_some_and(|observed| observed >= *generation)
            });
            if answered {
                let granted = status.is_some_and(|status| {
                    conditions::holds(&status.conditions, conditions::GRANTED)
                });
                refused.push((pool.clone(), granted));
            }
        }
        for (pool, granted) in refused {
            self.demands.remove(&pool);
            if !granted {
                self.tell(Event::RequestRefused(pool));
            }
        }
    }

    fn offer(&self, object: &IpBlock, pool: Option<&IpPool>) -> Option<Offer> {
        let spec = &object.spec;
        let host_bits = |length: u8, width: u8| width.checked_sub(length);
        let ipv4 = spec
            .ipv4
            .map(|net| (net.network(), host_bits(net.prefix(), 32)));
        let ipv6 = spec
            .ipv6
            .map(|net| (net.network(), host_bits(net.prefix(), 128)));
        let bits = match (ipv4, ipv6) {
            (Some((_, a)), Some((_, b))) if a != b => return None,
            (Some((_, bits)), _) | (None, Some((_, bits))) => bits?,
            (None, None) => return None,
        };
        let block = Block {
            ipv4: ipv4.map(|(base, _)| base),
            ipv6: ipv6.map(|(base, _)| base),
            bits,
        };
        let reserved = pool.iter().flat_map(|pool| &pool.spec.reserved);
        let cooldown = pool.map_or(130, |pool| pool.spec.cooldown_seconds);
        Some(Offer {
            uid: object.uid().unwrap_or_default(),
            block,
            epoch: u64::try_from(spec.epoch).unwrap_or_default(),
            offered: object.phase() == BlockPhase::Offered,
            drain: spec.drain
                || object.phase() == BlockPhase::Quarantined
                || spec.node_uid != self.node_uid.0,
            reserved: reserved
                .map(|range| Range {
                    first: range.first(),
                    last: range.last(),
                })
                .collect(),
            cooldown: Duration::from_secs(cooldown.into()),
            start: (self.random >> 16) as u32,
        })
    }

    /// The pools that fit the pod, best first.
    fn pools(&self, attachment: &Attachment, world: &World) -> Vec<PoolName> {
        let namespace_name = attachment.pod.as_ref().map(|pod| pod.namespace.clone());
        let mut namespace_labels = BTreeMap::new();
        if let Some(name) = namespace_name {
            if let Some(namespace) = world.namespaces.get(&Key::cluster(&name)) {
                namespace_labels.clone_from(namespace.labels());
            }
            namespace_labels.insert("kubernetes.io/metadata.name".to_owned(), name);
        }
        let node_labels = world
            .nodes
            .get(&Key::cluster(&self.node.0))
            .map(|node| node.labels().clone())
            .unwrap_or_default();
        let selects = |text: &str, labels: &BTreeMap<String, String>| {
            text.parse::<Selector>()
                .is_ok_and(|selector| selector.matches(labels))
        };
        let mut fitting: Vec<&IpPool> = world
            .ip_pools
            .iter()
            .filter(|pool| pool.spec.uses.contains(&PoolUse::Pod))
            .filter(|pool| selects(&pool.spec.node_selector, &node_labels))
            .filter(|pool| selects(&pool.spec.namespace_selector, &namespace_labels))
            .collect();
        fitting.sort_by_key(|pool| (pool.spec.priority, pool.name_any()));
        fitting
            .into_iter()
            .map(|pool| PoolName(pool.name_any()))
            .collect()
    }
}

fn later(why: &str) -> CniError {
    CniError::new(ErrorCode::TryAgainLater, "try again later").because(why)
}

#[cfg(test)]
mod tests;
