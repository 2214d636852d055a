//! One term of leadership: what is seen goes to the allocator, what it says is carried out.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use caracal_crds as crds;
use caracal_ipam_core::controller::{
    self, Action, Answer, Controller, Event, Grant, PoolReport, Version,
};
use caracal_ipam_core::{BlockId, Moment, NodeName, PoolName};
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use k8s_openapi::api::core::v1::Node;
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use crate::convert::{self, SelectivePool};
use crate::metrics::{Claim, Counts};
use crate::watch::{Change, follow};
use crate::writes::{self, Outcome};
use crate::{Config, status};

/// Changes between the watches and the allocator: one page of a list.
const CHANGES: usize = 500;

/// Writes under way at once. A storm of nodes is served at this many creations per round trip.
const WRITES: usize = 16;

/// A later leader has granted blocks.
pub(crate) struct Deposed {
    /// Its epoch.
    pub(crate) epoch: u64,
}

enum Seen {
    Node(Change<NodeFacts>),
    Pool(Change<crds::IpPool>),
    Block(Change<crds::IpBlock>),
    Request(Change<crds::IpBlockRequest>),
}

/// What of a node matters: nodes are large, many, and change with every heartbeat.
struct NodeFacts {
    name: String,
    uid: String,
    labels: BTreeMap<String, String>,
}

/// Serves until a later leader is seen; dropped when the lease is lost. What is done and how things
/// stand goes into `counts`.
pub(crate) async fn serve(config: &Config, epoch: u64, counts: &Counts) -> Deposed {
    let (changes, mut seen) = mpsc::channel(CHANGES);
    let (client, all) = (&config.client, &counts.watches);
    let watches = async {
        tokio::join!(
            follow(client, all, changes.clone(), |node: Change<Node>| {
                Seen::Node(node.map(NodeFacts::of))
            }),
            follow(client, all, changes.clone(), Seen::Pool),
            follow(client, all, changes.clone(), Seen::Block),
            follow(client, all, changes.clone(), Seen::Request),
        )
    };
    tokio::pin!(watches);
    let mut term = Term::new(config, epoch, counts.clone());
    loop {
        if let Some(epoch) = term.deposed {
            return Deposed { epoch };
        }
        term.start_writes();
        let wake = term.wake();
        tokio::select! {
            Some(seen) = seen.recv() => term.seen(seen),
            Some(outcome) = term.under_way.next() => term.outcome(outcome),
            () = sleep_until(wake) => term.due(),
            _ = &mut watches => unreachable!("a watch ends only with its channel, which is open"),
        }
    }
}

type Write = Pin<Box<dyn Future<Output = Outcome> + Send>>;

struct Term {
    client: Client,
    counts: Counts,
    allocator: Controller,
    status_interval: Duration,
    deposed: Option<u64>,
    /// Kinds of which a first list is outstanding.
    unlisted: BTreeSet<&'static str>,
    nodes: BTreeMap<String, SeenNode>,
    pools: BTreeMap<String, SeenPool>,
    blocks: HashMap<String, SeenBlock>,
    requests: BTreeMap<String, SeenRequest>,
    queue: VecDeque<Queued>,
    under_way: FuturesUnordered<Write>,
    /// Pools and requests whose status may have to be written, and when.
    dirty_pools: BTreeSet<String>,
    dirty_requests: BTreeSet<String>,
    flush_at: Option<Instant>,
    writing_status: BTreeSet<String>,
}

/// A write to a block that waits for its turn; all but the first on the version that was judged.
enum Queued {
    Create(BlockId, Grant, Claim),
    Drain(BlockId, Version),
    Quarantine(BlockId, Version),
    Delete(BlockId, Version),
}

struct SeenNode {
    uid: String,
    labels: BTreeMap<String, String>,
    told: Option<controller::Node>,
}

struct SeenPool {
    object: crds::IpPool,
    usable: Result<SelectivePool, convert::Error>,
    report: Option<PoolReport>,
}

struct SeenBlock {
    object: crds::IpBlock,
    /// When its present phase was first seen.
    since: Moment,
}

struct SeenRequest {
    object: crds::IpBlockRequest,
    told: controller::Request,
    answer: Option<(u64, Answer)>,
}

impl NodeFacts {
    fn of(node: Node) -> Self {
        NodeFacts {
            name: node.name_any(),
            uid: node.uid().unwrap_or_default(),
            labels: node.metadata.labels.unwrap_or_default(),
        }
    }
}

impl Term {
    fn new(config: &Config, epoch: u64, counts: Counts) -> Self {
        Term {
            client: config.client.clone(),
            counts,
            allocator: Controller::new(epoch, config.allocator),
            status_interval: config.status_interval,
            deposed: None,
            unlisted: BTreeSet::from(["Node", "IPPool", "IPBlock", "IPBlockRequest"]),
            nodes: BTreeMap::new(),
            pools: BTreeMap::new(),
            blocks: HashMap::new(),
            requests: BTreeMap::new(),
            queue: VecDeque::new(),
            under_way: FuturesUnordered::new(),
            dirty_pools: BTreeSet::new(),
            dirty_requests: BTreeSet::new(),
            flush_at: None,
            writing_status: BTreeSet::new(),
        }
    }

    fn seen(&mut self, seen: Seen) {
        match seen {
            Seen::Node(Change::Applied(node)) => self.node(node),
            Seen::Node(Change::Gone(name)) => {
                self.nodes.remove(&name);
                self.tell(Event::Node(NodeName(name), None));
            }
            Seen::Pool(Change::Applied(pool)) => self.pool(pool),
            Seen::Pool(Change::Gone(name)) => {
                self.pools.remove(&name);
                let name = PoolName(name);
                self.counts.forget(&name);
                self.tell(Event::Pool(name, None));
                self.match_nodes();
            }
            Seen::Block(Change::Applied(block)) => self.block(block),
            Seen::Block(Change::Gone(name)) => self.block_gone(&name),
            Seen::Request(Change::Applied(request)) => self.request(request),
            Seen::Request(Change::Gone(name)) => {
                if let Some(request) = self.requests.remove(&name) {
                    let spec = request.object.spec;
                    self.tell(Event::Request(
                        NodeName(spec.node_name),
                        PoolName(spec.pool),
                        None,
                    ));
                }
            }
            Seen::Node(Change::Listed) => self.listed("Node"),
            Seen::Pool(Change::Listed) => self.listed("IPPool"),
            Seen::Block(Change::Listed) => self.listed("IPBlock"),
            Seen::Request(Change::Listed) => self.listed("IPBlockRequest"),
        }
    }

    fn listed(&mut self, kind: &'static str) {
        if self.unlisted.remove(kind) && self.unlisted.is_empty() {
            self.tell(Event::Synced);
        }
    }

    /// A node's heartbeat is not news: only UID and labels are.
    fn node(&mut self, node: NodeFacts) {
        let NodeFacts { name, uid, labels } = node;
        let told = self.nodes.remove(&name).and_then(|seen| seen.told);
        self.nodes
            .insert(name.clone(), SeenNode { uid, labels, told });
        self.match_node(&name);
    }

    fn match_nodes(&mut self) {
        for name in self.nodes.keys().cloned().collect::<Vec<_>>() {
            self.match_node(&name);
        }
    }

    fn match_node(&mut self, name: &str) {
        let Some(node) = self.nodes.get_mut(name) else {
            return;
        };
        let pools = self
            .pools
            .iter()
            .filter(|(_, pool)| pool.object.spec.uses.contains(&crds::PoolUse::Pod))
            .filter(|(_, pool)| {
                pool.usable
                    .as_ref()
                    .is_ok_and(|p| p.nodes.matches(&node.labels))
            })
            .map(|(pool, _)| PoolName(pool.clone()))
            .collect();
        let matched = controller::Node {
            uid: node.uid.as_str().into(),
            pools,
        };
        if node.told.as_ref() != Some(&matched) {
            node.told = Some(matched.clone());
            self.tell(Event::Node(name.into(), Some(matched)));
        }
    }

    fn pool(&mut self, object: crds::IpPool) {
        let name = object.name_any();
        self.dirty_pool(name.clone());
        let before = self.pools.remove(&name);
        let same = |seen: &SeenPool| {
            seen.object.uid() == object.uid()
                && seen.object.metadata.generation == object.metadata.generation
                && seen.object.metadata.deletion_timestamp == object.metadata.deletion_timestamp
        };
        match before {
            Some(before) if same(&before) => {
                self.pools.insert(name, SeenPool { object, ..before });
            }
            before => {
                let usable = convert::pool(&object);
                let told = usable.as_ref().ok().map(|usable| usable.pool.clone());
                if let Err(error) = &usable {
                    warn!(pool = %name, %error, "pool cannot be used");
                    self.counts.unreported(&PoolName(name.clone()));
                }
                let report = before.and_then(|before| before.report);
                self.pools.insert(
                    name.clone(),
                    SeenPool {
                        object,
                        usable,
                        report,
                    },
                );
                self.tell(Event::Pool(PoolName(name), told));
                self.match_nodes();
            }
        }
    }

    fn block(&mut self, object: crds::IpBlock) {
        let name = object.name_any();
        let since = match self.blocks.remove(&name) {
            Some(seen) if seen.object.phase() == object.phase() => seen.since,
            _ => now(),
        };
        match convert::block(&object, since) {
            Ok((id, block)) => {
                self.blocks.insert(name, SeenBlock { object, since });
                self.tell(Event::Block(id, Some(block)));
            }
            Err(error) => warn!(block = %name, %error, "block cannot be read and is left alone"),
        }
    }

    fn block_gone(&mut self, name: &str) {
        if let Some(seen) = self.blocks.remove(name) {
            let spec = seen.object.spec;
            let id = BlockId {
                pool: PoolName(spec.pool),
                index: spec.index,
            };
            self.tell(Event::Block(id, None));
        }
    }

    fn request(&mut self, object: crds::IpBlockRequest) {
        let name = object.name_any();
        let told = convert::request(&object);
        let before = self.requests.remove(&name);
        let news = before.as_ref().is_none_or(|before| before.told != told);
        let answer = before.and_then(|before| before.answer);
        if answer.is_some() {
            self.dirty_request(name.clone());
        }
        let key = (
            NodeName(object.spec.node_name.clone()),
            PoolName(object.spec.pool.clone()),
        );
        self.requests.insert(
            name,
            SeenRequest {
                object,
                told: told.clone(),
                answer,
            },
        );
        if news {
            self.tell(Event::Request(key.0, key.1, Some(told)));
        }
    }

    fn tell(&mut self, event: Event) {
        let mut actions = Vec::new();
        self.allocator.handle(now(), event, &mut actions);
        self.take(actions);
    }

    fn take(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Answer {
                    node,
                    pool,
                    generation,
                    answer,
                } => {
                    self.answer(&node, &pool, generation, answer);
                }
                Action::Report(pool, report) => {
                    self.counts.reported(&pool, report.clone());
                    if let Some(seen) = self.pools.get_mut(&pool.0) {
                        seen.report = Some(report);
                        self.dirty_pool(pool.0);
                    }
                }
                Action::Resign { epoch } => self.deposed = Some(epoch),
                Action::Create(id, grant) => {
                    let claim = self.counts.claim(&id.pool);
                    self.queue.push_back(Queued::Create(id, grant, claim));
                }
                Action::Drain(id, version) => self.queue.push_back(Queued::Drain(id, version)),
                Action::Quarantine(id, version) => {
                    self.queue.push_back(Queued::Quarantine(id, version));
                }
                Action::Delete(id, version) => self.queue.push_back(Queued::Delete(id, version)),
            }
        }
    }

    fn answer(&mut self, node: &NodeName, pool: &PoolName, generation: u64, answer: Answer) {
        let named = self.requests.iter_mut().find(|(_, request)| {
            request.object.spec.node_name == node.0 && request.object.spec.pool == pool.0
        });
        if let Some((name, request)) = named {
            let name = name.clone();
            request.answer = Some((generation, answer));
            self.dirty_request(name);
        }
    }

    fn start_writes(&mut self) {
        while self.under_way.len() < WRITES
            && let Some(queued) = self.queue.pop_front()
        {
            if let Some(write) = self.write(queued) {
                self.under_way.push(write);
            }
        }
    }

    /// The write; none where its block is no more what was judged.
    fn write(&mut self, queued: Queued) -> Option<Write> {
        let client = self.client.clone();
        match queued {
            Queued::Create(id, grant, claim) => {
                Some(Box::pin(writes::create(client, id, grant, claim)))
            }
            Queued::Drain(id, version) => {
                let block = self.object(&id, &version)?;
                Some(Box::pin(writes::drain(client, id, block)))
            }
            Queued::Quarantine(id, version) => {
                let block = self.object(&id, &version)?;
                Some(Box::pin(writes::quarantine(client, id, block, time())))
            }
            Queued::Delete(id, version) => {
                let block = self.object(&id, &version)?;
                Some(Box::pin(writes::delete(client, id, block)))
            }
        }
    }

    /// The block, if it is still as it was when the allocator judged it. Where it is not, the
    /// allocator has been told of the change and has judged anew.
    fn object(&self, id: &BlockId, version: &Version) -> Option<crds::IpBlock> {
        let object = &self.blocks.get(&id.to_string())?.object;
        (convert::version(object) == *version).then(|| object.clone())
    }

    fn outcome(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Block(block) => self.block(*block),
            Outcome::BlockGone(name) => self.block_gone(&name),
            Outcome::Told(event) => self.tell(event),
            Outcome::Pool(name, pool) => {
                self.writing_status.remove(&format!("pool/{name}"));
                match pool {
                    Some(pool) if self.pools.contains_key(&name) => self.pool(*pool),
                    _ => self.dirty_pool(name),
                }
            }
            Outcome::Request(name, request) => {
                self.writing_status.remove(&format!("request/{name}"));
                match request {
                    Some(request) if self.requests.contains_key(&name) => self.request(*request),
                    _ => self.dirty_request(name),
                }
            }
        }
    }

    fn dirty_pool(&mut self, name: String) {
        self.dirty_pools.insert(name);
        self.flush_at
            .get_or_insert(Instant::now() + self.status_interval);
    }

    fn dirty_request(&mut self, name: String) {
        self.dirty_requests.insert(name);
        self.flush_at
            .get_or_insert(Instant::now() + self.status_interval);
    }

    /// Writes each status that says something new.
    fn flush(&mut self) {
        self.flush_at = None;
        if !self.unlisted.is_empty() {
            self.flush_at = Some(Instant::now() + self.status_interval);
            return;
        }
        let now = time();
        for name in std::mem::take(&mut self.dirty_pools) {
            let Some(seen) = self.pools.get(&name) else {
                continue;
            };
            let status = match (&seen.usable, &seen.report) {
                (Err(error), _) => status::unusable_pool(&seen.object, error, &now),
                (Ok(_), Some(report)) => status::pool(&seen.object, report, &now),
                (Ok(_), None) => None,
            };
            let Some(status) = status else { continue };
            let object = crds::IpPool {
                status: Some(status),
                ..seen.object.clone()
            };
            if self.writing_status.insert(format!("pool/{name}")) {
                self.under_way
                    .push(Box::pin(writes::pool_status(self.client.clone(), object)));
            } else {
                self.dirty_pool(name);
            }
        }
        for name in std::mem::take(&mut self.dirty_requests) {
            let Some(seen) = self.requests.get(&name) else {
                continue;
            };
            let Some((generation, answer)) = &seen.answer else {
                continue;
            };
            if *generation != seen.told.generation {
                continue; // an answer to this generation follows
            }
            let Some(status) = status::request(&seen.object, answer, &now) else {
                continue;
            };
            let object = crds::IpBlockRequest {
                status: Some(status),
                ..seen.object.clone()
            };
            if self.writing_status.insert(format!("request/{name}")) {
                self.under_way.push(Box::pin(writes::request_status(
                    self.client.clone(),
                    object,
                )));
            } else {
                self.dirty_request(name);
            }
        }
    }

    fn due(&mut self) {
        if self.flush_at.is_some_and(|at| at <= Instant::now()) {
            self.flush();
        }
        let mut actions = Vec::new();
        self.allocator.handle_timeout(now(), &mut actions);
        self.take(actions);
    }

    /// When [`Term::due`] is to be called.
    fn wake(&self) -> Instant {
        let allocator = self
            .allocator
            .poll_timeout()
            .map(|at| Instant::now() + at.since(now()).max(TICK));
        [self.flush_at, allocator]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or_else(|| Instant::now() + IDLE)
    }
}

/// A deadline that has come is met at the next turn of the loop, not before.
const TICK: Duration = Duration::from_millis(1);

/// With nothing due the loop turns this often, which costs nothing and writes nothing.
const IDLE: Duration = Duration::from_secs(60);

fn now() -> Moment {
    Moment(u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0))
}

/// The time as objects say it, in whole seconds.
fn time() -> crds::Time {
    let now = jiff::Timestamp::now();
    crds::Time(jiff::Timestamp::from_second(now.as_second()).unwrap_or(now))
}
