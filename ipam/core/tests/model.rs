//! Two nodes, two leaders and three blocks in every order of events that a few steps allow: watches
//! that lag, writes that are lost, answers that are lost, a leader that does not know that it was
//! deposed, a block drained, a node gone, a node made again.
//!
//! What must hold in every state: no address of a block can be given out on one node while the
//! other node announces the block.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use caracal_ipam_core::controller::{
    Action as Write, Controller, Event as Sight, HeldBlock, Node, Phase, Pool, Request,
    Settings as ControllerSettings, Version,
};
use caracal_ipam_core::node::{Action as Duty, Event, NodeAllocator, Offer, Settings};
use caracal_ipam_core::{AttachmentKey, BlockId, Layout, Moment, NodeName, NodeUid, Subnet};

const BLOCKS: u32 = 3;
const NOW: Moment = Moment(1_000);

/// Steps in every order from each state explored.
const DEPTH: usize = 4;

/// Random walks around whose states every order is explored, and every how many steps.
const EXPLORED_WALKS: u64 = 3;
const EXPLORED_EVERY: usize = 10;

/// Random walks, which reach further.
const WALKS: u64 = 1500;
const WALK_LENGTH: usize = 80;

#[derive(Clone, PartialEq, Eq, Hash)]
struct World {
    objects: BTreeMap<u32, Object>,
    /// Each write gets the next number, as UID of what it creates and as version.
    writes: u32,
    /// UIDs of the Node objects; None where deleted.
    nodes: [Option<u8>; 2],
    leaders: [Leader; 2],
    agents: [Agent; 2],
    drains_left: u8,
    node_changes_left: u8,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Object {
    uid: u32,
    held: HeldBlock,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Leader {
    controller: Controller,
    seen: BTreeMap<u32, Object>,
    seen_nodes: [Option<u8>; 2],
    todo: Vec<Write>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Agent {
    allocator: NodeAllocator,
    seen: BTreeMap<u32, Object>,
    todo: Vec<Step>,
    announced: BTreeSet<u32>,
    pod: bool,
    alive: bool,
}

/// What an agent does in order, each at some later time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Step {
    Announce(u32),
    Withdraw(u32),
    WritePhase { index: u32, uid: u32, phase: Phase },
}

#[derive(Clone, Copy, Debug)]
enum Move {
    LeaderSees(usize, u32),
    LeaderSeesNode(usize, usize),
    LeaderWrites {
        leader: usize,
        position: usize,
        answered: bool,
    },
    WriteLost {
        leader: usize,
        position: usize,
    },
    AgentSees(usize, u32),
    AgentDoes(usize),
    AddPod(usize),
    DeletePod(usize),
    DrainBlock(u32),
    NodeDies(usize),
    NodeIsMadeAgain(usize),
}

fn id(index: u32) -> BlockId {
    BlockId {
        pool: "p".into(),
        index,
    }
}

fn name(node: usize) -> NodeName {
    NodeName(format!("n{node}"))
}

fn uid(node: usize, generation: u8) -> NodeUid {
    NodeUid(format!("n{node}-{generation}"))
}

fn sight(node: usize, generation: Option<u8>) -> Sight {
    let pools = BTreeSet::from(["p".into()]);
    Sight::Node(
        name(node),
        generation.map(|g| Node {
            uid: uid(node, g),
            pools,
        }),
    )
}

impl World {
    fn new() -> Self {
        let subnet = |base: [u8; 4], len| Subnet {
            ipv4: Some((base.into(), len)),
            ipv6: None,
            active: true,
        };
        let subnets = vec![subnet([10, 0, 0, 0], 29), subnet([10, 0, 1, 0], 30)];
        let pool = Pool {
            layout: Layout::new(subnets, 2).expect("the subnets divide into blocks"),
            reserved: Vec::new(),
            // Rests only delay; without them every order is reached in few steps.
            cooldown: Duration::ZERO,
            max_blocks_per_node: 2,
            grants: true,
            created: NOW,
        };
        let leader = |epoch| {
            let settings = ControllerSettings {
                quarantine: Duration::ZERO,
                retry: Duration::ZERO,
            };
            let mut controller = Controller::new(epoch, settings);
            let mut todo = Vec::new();
            let request = Request {
                node_uid: uid(0, 0),
                generation: 1,
                want: 1,
                granted: None,
            };
            for event in [
                Sight::Pool("p".into(), Some(pool.clone())),
                sight(0, Some(0)),
                sight(1, Some(0)),
                Sight::Request(name(0), "p".into(), Some(request)),
                Sight::Synced,
            ] {
                controller.handle(NOW, event, &mut todo);
            }
            let todo = todo.into_iter().filter(is_block_write).collect();
            Leader {
                controller,
                seen: BTreeMap::new(),
                seen_nodes: [Some(0); 2],
                todo,
            }
        };
        let agent = || {
            let mut allocator = NodeAllocator::new(Settings::default());
            allocator.handle(NOW, Event::Open, &mut Vec::new());
            Agent {
                allocator,
                seen: BTreeMap::new(),
                todo: Vec::new(),
                announced: BTreeSet::new(),
                pod: false,
                alive: true,
            }
        };
        World {
            objects: BTreeMap::new(),
            writes: 0,
            nodes: [Some(0); 2],
            leaders: [leader(1), leader(2)],
            agents: [agent(), agent()],
            drains_left: 1,
            node_changes_left: 1,
        }
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = Vec::new();
        for (l, leader) in self.leaders.iter().enumerate() {
            let unseen = |index: &u32| leader.seen.get(index) != self.objects.get(index);
            moves.extend(
                (0..BLOCKS)
                    .filter(unseen)
                    .map(|index| Move::LeaderSees(l, index)),
            );
            for node in 0..2 {
                if leader.seen_nodes[node] != self.nodes[node] {
                    moves.push(Move::LeaderSeesNode(l, node));
                }
            }
            for position in 0..leader.todo.len() {
                for answered in [true, false] {
                    moves.push(Move::LeaderWrites {
                        leader: l,
                        position,
                        answered,
                    });
                }
                moves.push(Move::WriteLost {
                    leader: l,
                    position,
                });
            }
        }
        for (a, agent) in self
            .agents
            .iter()
            .enumerate()
            .filter(|(_, agent)| agent.alive)
        {
            let unseen = |index: &u32| agent.seen.get(index) != self.shown_to(a, *index);
            moves.extend(
                (0..BLOCKS)
                    .filter(unseen)
                    .map(|index| Move::AgentSees(a, index)),
            );
            if !agent.todo.is_empty() {
                moves.push(Move::AgentDoes(a));
            }
            moves.push(if agent.pod {
                Move::DeletePod(a)
            } else {
                Move::AddPod(a)
            });
            if self.node_changes_left > 0 && self.nodes[a].is_some() {
                moves.extend([Move::NodeDies(a), Move::NodeIsMadeAgain(a)]);
            }
        }
        if self.drains_left > 0 {
            moves.extend(self.objects.keys().map(|index| Move::DrainBlock(*index)));
        }
        moves
    }

    /// The object, as far as an agent's selector shows it.
    fn shown_to(&self, agent: usize, index: u32) -> Option<&Object> {
        self.objects
            .get(&index)
            .filter(|object| object.held.node == name(agent))
    }

    fn apply(&mut self, step: Move) {
        match step {
            Move::LeaderSees(l, index) => self.leader_sees(l, index),
            Move::LeaderSeesNode(l, node) => {
                self.leaders[l].seen_nodes[node] = self.nodes[node];
                self.tell_leader(l, sight(node, self.nodes[node]));
            }
            Move::LeaderWrites {
                leader,
                position,
                answered,
            } => {
                let write = self.leaders[leader].todo.remove(position);
                self.write(leader, write, answered);
            }
            Move::WriteLost { leader, position } => {
                let failed = match self.leaders[leader].todo.remove(position) {
                    // Nothing was made, and the shell has looked: unless another made it.
                    Write::Create(id, _) if self.objects.contains_key(&id.index) => {
                        return self.leader_sees(leader, id.index);
                    }
                    Write::Create(id, _) => Sight::CreateFailed(id),
                    Write::Drain(id, _) | Write::Quarantine(id, _) | Write::Delete(id, _) => {
                        Sight::ActionFailed(id)
                    }
                    _ => return,
                };
                self.tell_leader(leader, failed);
            }
            Move::AgentSees(a, index) => {
                let shown = self.shown_to(a, index).cloned();
                let event = match &shown {
                    None => Event::BlockGone(id(index)),
                    Some(object) => {
                        let own = self.nodes[a].map(|generation| uid(a, generation));
                        let mine = own.as_ref() == Some(&object.held.node_uid);
                        Event::Block(id(index), offer(object, !mine))
                    }
                };
                match shown {
                    Some(object) => self.agents[a].seen.insert(index, object),
                    None => self.agents[a].seen.remove(&index),
                };
                self.tell_agent(a, event);
            }
            Move::AgentDoes(a) => self.agent_does(a),
            Move::AddPod(a) => {
                self.agents[a].pod = true;
                let pools = vec!["p".into()];
                let add = Event::Add {
                    key: key(),
                    pod_uid: String::new(),
                    netns: String::new(),
                    pools,
                };
                self.tell_agent(a, add);
            }
            Move::DeletePod(a) => {
                self.agents[a].pod = false;
                self.tell_agent(a, Event::Del(key()));
            }
            Move::DrainBlock(index) => {
                self.drains_left -= 1;
                self.change(index, |held| held.drain = true);
            }
            Move::NodeDies(a) => {
                self.node_changes_left -= 1;
                self.nodes[a] = None;
                self.agents[a].alive = false;
                self.agents[a].announced.clear();
            }
            Move::NodeIsMadeAgain(a) => {
                self.node_changes_left -= 1;
                self.nodes[a] = Some(1);
            }
        }
    }

    fn write(&mut self, leader: usize, write: Write, answered: bool) {
        let index = match &write {
            Write::Create(id, _)
            | Write::Drain(id, _)
            | Write::Quarantine(id, _)
            | Write::Delete(id, _) => id.index,
            _ => return,
        };
        let as_judged = match &write {
            Write::Drain(_, version)
            | Write::Quarantine(_, version)
            | Write::Delete(_, version) => self
                .objects
                .get(&index)
                .is_some_and(|object| object.held.version == *version),
            _ => true,
        };
        match write {
            Write::Create(_, grant) => {
                if !self.objects.contains_key(&index) {
                    self.writes += 1;
                    let held = HeldBlock {
                        version: version(self.writes, self.writes),
                        block: grant.block,
                        node: grant.node,
                        node_uid: grant.node_uid,
                        epoch: grant.epoch,
                        request_generation: grant.request_generation,
                        drain: false,
                        phase: Phase::Offered,
                        since: NOW,
                        created: NOW,
                    };
                    let object = Object {
                        uid: self.writes,
                        held,
                    };
                    self.objects.insert(index, object);
                }
                if answered {
                    self.leader_sees(leader, index);
                }
            }
            _ if !as_judged => self.tell_leader(leader, Sight::ActionFailed(id(index))),
            Write::Delete(..) => {
                self.objects.remove(&index);
                if answered {
                    self.leader_sees(leader, index);
                }
            }
            other => {
                self.change(index, |held| match other {
                    Write::Drain(..) => held.drain = true,
                    _ => held.phase = Phase::Quarantined,
                });
                if answered {
                    self.leader_sees(leader, index);
                }
            }
        }
    }

    fn change(&mut self, index: u32, change: impl FnOnce(&mut HeldBlock)) {
        self.writes += 1;
        if let Some(object) = self.objects.get_mut(&index) {
            object.held.version = version(object.uid, self.writes);
            change(&mut object.held);
        }
    }

    fn leader_sees(&mut self, l: usize, index: u32) {
        let object = self.objects.get(&index).cloned();
        match &object {
            Some(object) => self.leaders[l].seen.insert(index, object.clone()),
            None => self.leaders[l].seen.remove(&index),
        };
        self.tell_leader(l, Sight::Block(id(index), object.map(|object| object.held)));
    }

    fn tell_leader(&mut self, l: usize, event: Sight) {
        let leader = &mut self.leaders[l];
        let mut writes = Vec::new();
        leader.controller.handle(NOW, event, &mut writes);
        leader.controller.handle_timeout(NOW, &mut writes);
        leader
            .todo
            .extend(writes.into_iter().filter(is_block_write));
    }

    fn tell_agent(&mut self, a: usize, event: Event) {
        let agent = &mut self.agents[a];
        let mut duties = Vec::new();
        agent.allocator.handle(NOW, event, &mut duties);
        for duty in duties {
            let uid = |index: u32| agent.seen.get(&index).map_or(0, |object| object.uid);
            let phase = |index, phase| Step::WritePhase {
                index,
                uid: uid(index),
                phase,
            };
            match duty {
                Duty::Activate {
                    block: BlockId { index, .. },
                    ..
                } => {
                    agent
                        .todo
                        .extend([Step::Announce(index), phase(index, Phase::Active)]);
                }
                Duty::Drain(BlockId { index, .. }) => {
                    agent.todo.push(phase(index, Phase::Draining))
                }
                Duty::Release(BlockId { index, .. }) => {
                    agent
                        .todo
                        .extend([Step::Withdraw(index), phase(index, Phase::Released)]);
                }
                Duty::Forget(BlockId { index, .. }) => agent.todo.push(Step::Withdraw(index)),
                _ => {}
            }
        }
    }

    fn agent_does(&mut self, a: usize) {
        match self.agents[a].todo.remove(0) {
            Step::Announce(index) => {
                self.agents[a].announced.insert(index);
            }
            Step::Withdraw(index) => {
                self.agents[a].announced.remove(&index);
            }
            Step::WritePhase { index, uid, phase } => {
                if self
                    .objects
                    .get(&index)
                    .is_some_and(|object| object.uid == uid)
                {
                    self.change(index, |held| held.phase = phase);
                }
            }
        }
    }

    /// What is wrong, if anything.
    fn violation(&self) -> Option<String> {
        for (a, b) in [(0, 1), (1, 0)] {
            let usage = self.agents[a].allocator.usage(NOW);
            for (block, usage) in usage.iter().filter(|_| self.agents[a].alive) {
                let assignable = usage.active || usage.used > 0;
                if assignable && self.agents[b].announced.contains(&block.index) {
                    return Some(format!(
                        "{block} can be given out on n{a} and is announced by n{b}"
                    ));
                }
            }
        }
        None
    }
}

fn offer(object: &Object, foreign: bool) -> Offer {
    Offer {
        uid: object.uid.to_string(),
        block: object.held.block,
        epoch: object.held.epoch,
        offered: object.held.phase == Phase::Offered,
        drain: object.held.drain || foreign || object.held.phase == Phase::Quarantined,
        reserved: Vec::new(),
        cooldown: Duration::ZERO,
        start: 0,
    }
}

fn version(uid: u32, write: u32) -> Version {
    Version {
        uid: uid.to_string(),
        resource_version: write.to_string(),
    }
}

fn key() -> AttachmentKey {
    AttachmentKey {
        container_id: "c".to_owned(),
        interface: "eth0".to_owned(),
    }
}

fn is_block_write(write: &Write) -> bool {
    matches!(
        write,
        Write::Create(..) | Write::Drain(..) | Write::Quarantine(..) | Write::Delete(..)
    )
}

/// Every order of `depth` steps from `start`, which `path` led to. Returns the number of states.
fn explore(start: &World, path: &[Move], depth: usize) -> usize {
    let mut seen = HashSet::from([fingerprint(start)]);
    let mut frontier = vec![(start.clone(), path.to_vec())];
    for level in 1..=depth {
        let mut next = Vec::new();
        for (world, path) in &frontier {
            for step in world.moves() {
                let mut after = world.clone();
                after.apply(step);
                let path: Vec<Move> = path.iter().copied().chain([step]).collect();
                assert_eq!(after.violation(), None, "after {path:#?}");
                if seen.insert(fingerprint(&after)) && level < depth {
                    next.push((after, path));
                }
            }
        }
        frontier = next;
    }
    seen.len()
}

/// Worlds are large; their hashes are told apart well enough to prune what was visited.
fn fingerprint(world: &World) -> u64 {
    let mut hasher = DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

#[test]
fn no_order_of_events_gives_an_address_to_two_nodes() {
    let mut states = explore(&World::new(), &[], DEPTH);
    // The start is far from where blocks change hands: explore around later states too.
    for walk in 0..EXPLORED_WALKS {
        let mut world = World::new();
        let mut random = Random::new(walk);
        let mut path = Vec::new();
        for length in 1..=WALK_LENGTH {
            let Some(step) = random.pick(&world.moves()) else {
                break;
            };
            path.push(step);
            world.apply(step);
            if length.is_multiple_of(EXPLORED_EVERY) {
                states += explore(&world, &path, DEPTH);
            }
        }
    }
    println!("{states} states");
}

struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn pick(&mut self, moves: &[Move]) -> Option<Move> {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        moves
            .get((self.0 % moves.len().max(1) as u64) as usize)
            .copied()
    }
}

#[test]
fn long_random_walks_neither() {
    let mut released = 0;
    let mut granted_again = 0;
    for walk in 0..WALKS {
        let mut world = World::new();
        let mut random = Random::new(walk);
        let mut path = Vec::new();
        let mut owners: BTreeMap<u32, BTreeSet<NodeName>> = BTreeMap::new();
        for _ in 0..WALK_LENGTH {
            let Some(step) = random.pick(&world.moves()) else {
                break;
            };
            path.push(step);
            world.apply(step);
            assert_eq!(world.violation(), None, "after {path:#?}");
            for (index, object) in &world.objects {
                owners
                    .entry(*index)
                    .or_default()
                    .insert(object.held.node.clone());
                released += u32::from(object.held.phase == Phase::Released);
            }
        }
        granted_again += owners.values().filter(|nodes| nodes.len() > 1).count();
    }
    // The walks are worth something only if blocks did change hands.
    assert!(
        released > 0 && granted_again > 0,
        "{released} released, {granted_again} granted again"
    );
    println!(
        "{released} states with a released block, {granted_again} blocks of two nodes in turn"
    );
}
