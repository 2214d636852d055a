//! From objects to the ruleset in the kernel.
//!
//! Owns the compiler's index, the dataplane and the order of things: a whole synchronisation once
//! the view is complete, then one transaction per batch of changes. Does not own the meaning of a
//! policy nor the layout of the ruleset.

pub(crate) mod convert;
mod drops;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use caracal_nft::conntrack::{Decision, Flow};
use caracal_nft::{Connection, Dataplane, Error, Guard, Options};
use caracal_policy::index::{Limits, PolicyIndex};
use caracal_policy::interpreter;
use caracal_policy::model::{Event, PodName};
use caracal_policy::packet::{Packet, Payload};
use caracal_policy::plan::{
    ClassId, Direction, EndpointPlan, InterfaceName, Plan, PlanDelta, PolicyName, Protocol,
};
use tracing::{debug, info, warn};

use crate::endpoint::Wired;
use crate::metrics::Counts;
use crate::policy_api;
use crate::world::{Key, Kind, World};
pub(crate) use drops::Reason;
use drops::{Counter, Drops};

/// Policy on this node: what it should be, and the kernel that holds it.
pub(crate) struct PolicyLayer {
    index: PolicyIndex,
    dataplane: Arc<Mutex<Dataplane>>,
    /// Puts back what others change.
    _guard: Guard,
    flows: Connection,
    /// Something was observed since the last commit.
    observed: bool,
    /// The kernel holds what the index says. False at first, and after a refused transaction.
    synchronised: bool,
    failure: Option<String>,
    drops: Drops,
    counts: Arc<Counts>,
}

impl PolicyLayer {
    /// Opens the dataplane. Nothing is written before the first [`PolicyLayer::commit`]. How long
    /// commits take is added to `counts`.
    ///
    /// # Errors
    /// Where the kernel has no nf_tables for us.
    pub(crate) fn open(
        node_name: &str,
        options: Options,
        counts: Arc<Counts>,
    ) -> Result<PolicyLayer, Error> {
        let mut dataplane = Dataplane::open(options)?;
        let drops = inherited_drops(&mut dataplane).unwrap_or_else(|error| {
            warn!(%error, "packets dropped before count as dropped now");
            Drops::default()
        });
        let mut index = PolicyIndex::new(node_name, Limits::default());
        // Two sets of selectors can compete for a number; with those in the kernel, a restart that
        // finds nothing changed writes nothing.
        index.seed_ids(dataplane.inherited_identities().clone());
        let dataplane = Arc::new(Mutex::new(dataplane));
        // Also where the kernel lets us own the table: until the first change after a restart it is
        // nobody's, because taking it over would be a write.
        let guard = Guard::start(Arc::clone(&dataplane), |repair| match repair.outcome {
            Ok(stats) => info!(cause = ?repair.cause, ?stats, "policy table repaired"),
            Err(error) => warn!(cause = ?repair.cause, %error, "cannot repair the policy table"),
        })?;
        Ok(PolicyLayer {
            index,
            dataplane,
            _guard: guard,
            flows: Connection::open()?,
            observed: false,
            synchronised: false,
            failure: None,
            drops,
            counts,
        })
    }

    /// Takes in that these objects changed; read from `world` at their new state.
    pub(crate) fn touched(&mut self, world: &World, kind: Kind, keys: &BTreeSet<Key>) {
        for key in keys {
            let event = match kind {
                Kind::Pod => world.pods.get(key).map_or_else(
                    || Event::PodDeleted(PodName::new(&key.namespace, &key.name)),
                    |pod| Event::PodUpserted(convert::pod(pod)),
                ),
                Kind::Namespace => world.namespaces.get(key).map_or_else(
                    || Event::NamespaceDeleted(key.name.clone()),
                    |namespace| Event::NamespaceUpserted(convert::namespace(namespace)),
                ),
                Kind::NetworkPolicy => world.network_policies.get(key).map_or_else(
                    || Event::PolicyDeleted(PolicyName::new(&key.namespace, &key.name)),
                    |policy| Event::PolicyUpserted(convert::network_policy(policy)),
                ),
                Kind::Node => world.nodes.get(key).map_or_else(
                    || Event::NodeDeleted(key.name.clone()),
                    |node| Event::NodeUpserted(convert::node(node)),
                ),
                _ => return,
            };
            self.observe(event);
        }
    }

    /// Takes in every object of a world, at start.
    pub(crate) fn load(&mut self, world: &World) {
        let nodes = world
            .nodes
            .iter()
            .map(|node| Event::NodeUpserted(convert::node(node)));
        let namespaces = world
            .namespaces
            .iter()
            .map(|it| Event::NamespaceUpserted(convert::namespace(it)));
        let policies = world
            .network_policies
            .iter()
            .map(|policy| Event::PolicyUpserted(convert::network_policy(policy)));
        let pods = world
            .pods
            .iter()
            .map(|pod| Event::PodUpserted(convert::pod(pod)));
        for event in nodes.chain(namespaces).chain(policies).chain(pods) {
            self.observe(event);
        }
    }

    /// Takes in an endpoint, which need not exist as a link yet.
    pub(crate) fn attach(&mut self, wired: &Wired) {
        if let Some(endpoint) = convert::endpoint(wired) {
            self.observe(Event::EndpointUpserted(endpoint));
        }
    }

    /// Takes in that an endpoint is gone.
    pub(crate) fn detach(&mut self, interface: &InterfaceName) {
        self.observe(Event::EndpointDeleted(interface.clone()));
    }

    /// Brings the kernel to what was taken in, as one transaction, and cuts the connections that it
    /// forbids. Nothing to say, nothing written.
    ///
    /// # Errors
    /// Where the kernel refuses. It then holds the old ruleset; the next call starts with a whole
    /// synchronisation.
    pub(crate) fn commit(&mut self, node: &BTreeSet<IpAddr>) -> Result<(), Error> {
        if !self.observed && self.synchronised {
            return Ok(());
        }
        let delta = self.index.commit();
        let whole = !self.synchronised;
        self.observed = false;
        if delta.is_empty() && !whole {
            return Ok(());
        }
        if !delta.removed_classes.is_empty()
            && let Err(error) = self.count_drops()
        {
            debug!(%error, "what a class dropped since the last look goes with it");
        }
        let (affected, written) = {
            let mut dataplane = self.dataplane();
            let plan = self.index.plan();
            // While no agent ran, policies may have changed for every pod.
            let affected = match whole {
                true => addresses(plan.endpoints.values()),
                false => affected(dataplane.plan(), plan, &delta),
            };
            let began = Instant::now();
            let written = if whole {
                dataplane.sync(plan)
            } else {
                dataplane.apply(&delta)
            };
            let took = match written {
                Ok(_) => &self.counts.acknowledged,
                Err(_) => &self.counts.failed,
            };
            took.observe(began.elapsed());
            (affected, written)
        };
        self.synchronised = written.is_ok();
        self.failure = written.as_ref().err().map(ToString::to_string);
        let stats = written?;
        debug!(?stats, whole, "policy committed");
        self.cut(&affected, node);
        Ok(())
    }

    /// The plan that the kernel should hold.
    pub(crate) fn plan(&self) -> &Plan {
        self.index.plan()
    }

    /// Why the kernel does not hold what the policies want.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// Packets that each class dropped.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub(crate) fn drop_counters(&self) -> Result<BTreeMap<ClassId, u64>, Error> {
        self.dataplane().drop_counters()
    }

    /// Packets dropped for other reasons than a class.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub(crate) fn other_drops(&self) -> Result<policy_api::OtherDrops, Error> {
        let drops = self.dataplane().other_drops()?;
        Ok(policy_api::OtherDrops {
            spoofed: drops.spoofed,
            unknown_interface: drops.unknown_interface,
            isolated: drops.isolated,
            invalid: drops.invalid,
            midstream: drops.midstream,
        })
    }

    /// Packets dropped since the start, by reason, spread over classes that may be gone.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub(crate) fn dropped(&mut self) -> Result<BTreeMap<Reason, u64>, Error> {
        self.count_drops()?;
        Ok(self.drops.sums())
    }

    /// How many allowances of each kind the kernel holds.
    pub(crate) fn rules(&self) -> BTreeMap<(Direction, &'static str), usize> {
        let mut rules = BTreeMap::new();
        for direction in [Direction::Ingress, Direction::Egress] {
            for kind in ["cell", "any-port", "any-peer", "chain"] {
                rules.insert((direction, kind), 0);
            }
        }
        for class in self.dataplane().plan().classes.values() {
            for (kind, count) in [
                ("cell", class.cells.len()),
                ("any-port", class.any_port.len()),
                ("any-peer", class.any_peer.len()),
                ("chain", class.chain.len()),
            ] {
                *rules.entry((class.direction, kind)).or_default() += count;
            }
        }
        rules
    }

    /// Adds what the kernel's counters have grown by.
    fn count_drops(&mut self) -> Result<(), Error> {
        let mut dataplane = self.dataplane();
        let classes = dataplane.drop_counters()?;
        let others = other_counters(&mut dataplane)?;
        let plan = dataplane.plan();
        let classes = classes.into_iter().filter_map(|(id, count)| {
            let class = plan.classes.get(&id)?;
            let reason = Reason::of_class(class.direction);
            Some((Counter::Class(id), reason, count))
        });
        let others = others.map(|(reason, count)| (Counter::Other(reason), reason, count));
        let now: Vec<(Counter, Reason, u64)> = classes.chain(others).collect();
        drop(dataplane);
        self.drops.observe(now);
        Ok(())
    }

    fn observe(&mut self, event: Event) {
        self.index.observe(event);
        self.observed = true;
    }

    fn dataplane(&self) -> MutexGuard<'_, Dataplane> {
        // A panic elsewhere leaves the dataplane's view at worst stale, which a sync corrects.
        self.dataplane
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends connections of `pods` that the plan forbids now. The ruleset lets established ones pass
    /// before it asks any policy.
    fn cut(&mut self, pods: &BTreeSet<IpAddr>, node: &BTreeSet<IpAddr>) {
        let plan = self.index.plan();
        let decide = |flow: &Flow| {
            // The node may always reach its own pods, and those packets meet no policy.
            let stays =
                node.contains(&flow.source()) || interpreter::pass(plan, &packet(flow)).passes();
            if stays { Decision::Keep } else { Decision::Cut }
        };
        match self.flows.cut_flows(pods, decide) {
            Ok(cut) if cut.cut.is_empty() => {}
            Ok(cut) => {
                let (connections, reopened) = (cut.cut.len(), cut.reopened);
                info!(connections, reopened, "cut what policy forbids now");
            }
            Err(error) => warn!(%error, "cannot look for connections that policy forbids"),
        }
    }
}

/// What was dropped before this agent began.
fn inherited_drops(dataplane: &mut Dataplane) -> Result<Drops, Error> {
    let classes = dataplane.drop_counters()?.into_iter();
    let classes = classes.map(|(id, count)| (Counter::Class(id), count));
    let others = other_counters(dataplane)?;
    let others = others.map(|(reason, count)| (Counter::Other(reason), count));
    Ok(Drops::since(classes.chain(others)))
}

fn other_counters(dataplane: &mut Dataplane) -> Result<[(Reason, u64); 5], Error> {
    let drops = dataplane.other_drops()?;
    Ok([
        (Reason::Isolated, drops.isolated),
        (Reason::Spoofed, drops.spoofed),
        (Reason::UnknownInterface, drops.unknown_interface),
        (Reason::Invalid, drops.invalid),
        (Reason::Midstream, drops.midstream),
    ])
}

/// Addresses of the pods whose verdicts the change can turn to "no". A change that only adds pods,
/// classes or allowances forbids nothing that flowed before.
fn affected(before: &Plan, after: &Plan, delta: &PlanDelta) -> BTreeSet<IpAddr> {
    // An identity that an address loses takes its allowances along, in whichever class they are.
    let identities = delta
        .identities
        .keys()
        .any(|address| before.identities.contains_key(address));
    let shrinks = |class: &caracal_policy::plan::ClassDelta| {
        !class.removed_cells.is_empty()
            || !class.removed_any_port.is_empty()
            || !class.removed_any_peer.is_empty()
            || class.open == Some(false)
            || class.chain.is_some()
    };
    let classes = identities || delta.changed_classes.values().any(shrinks);
    let concerned = after.endpoints.iter().filter(|(interface, endpoint)| {
        classes
            || before
                .endpoints
                .get(*interface)
                .is_some_and(|old| old != *endpoint)
    });
    concerned
        .flat_map(|(_, endpoint)| endpoint.addresses.iter().copied())
        .collect()
}

fn addresses<'a>(endpoints: impl Iterator<Item = &'a EndpointPlan>) -> BTreeSet<IpAddr> {
    endpoints
        .flat_map(|endpoint| endpoint.addresses.iter().copied())
        .collect()
}

fn packet(flow: &Flow) -> Packet {
    let number = flow.original.protocol;
    let protocol = Protocol::ALL
        .into_iter()
        .find(|known| known.number() == number);
    let payload = match (protocol, flow.destination_port()) {
        (Some(protocol), Some(port)) => Payload::Port(protocol, port),
        _ => Payload::Other(number),
    };
    Packet {
        source: flow.source(),
        destination: flow.destination(),
        payload,
    }
}

#[cfg(test)]
mod tests {
    use caracal_policy::model::Endpoint;
    use caracal_policy::plan::{Binding, IdentityId};

    use super::*;
    use crate::world::{Change, TableChange};

    fn plan(ingress: Binding) -> Plan {
        let addresses = ["10.0.0.1".parse().unwrap()].into();
        let endpoint = EndpointPlan {
            addresses,
            ingress,
            egress: Binding::Open,
        };
        let mut plan = Plan::default();
        plan.endpoints
            .insert(InterfaceName::new("cara0").unwrap(), endpoint);
        plan
    }

    #[test]
    fn identities_keep_the_numbers_that_an_earlier_agent_gave_them() {
        let name = format!("ca-ids-{}", std::process::id());
        let netns = match caracal_fib::netns::NamedNetns::create(&name) {
            Ok(netns) => netns,
            Err(error) => return caracal_skip::missing!("cannot make network namespaces: {error}"),
        };
        let peer: IpAddr = "10.9.9.9".parse().unwrap();
        let given = IdentityId(777);
        let options = Options {
            table: "caracal".into(),
            owner: false,
            interface_prefix: "cara".into(),
        };
        let open = || {
            let mut layer = PolicyLayer::open("n1", options.clone(), Arc::default()).unwrap();
            layer.load(&world());
            let interface = InterfaceName::new("cara0").unwrap();
            layer.observe(Event::EndpointUpserted(Endpoint {
                interface,
                pod: PodName::new("shop", "web"),
                pod_uid: None,
                addresses: ["10.9.9.1".parse().unwrap()].into(),
            }));
            layer.commit(&BTreeSet::new()).unwrap();
            layer.plan().identities.get(&peer).copied()
        };
        let run = || {
            let fresh = open().expect("a policy selects the peer");
            assert_ne!(fresh, given);
            // Where sets compete for numbers, the earlier agent may have given another one.
            let mut earlier = Dataplane::open(options.clone()).unwrap();
            let mut plan = Plan::default();
            plan.identities.insert(peer, given);
            earlier.sync(&plan).unwrap();
            drop(earlier);
            assert_eq!(open(), Some(given));
        };
        netns.netns().run(run).unwrap();
    }

    /// Two pods, and a policy that lets one reach the other.
    fn world() -> World {
        let pod = |name: &str, address: &str| {
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": name, "namespace": "shop", "uid": name,
                    "labels": {"app": name}},
                "spec": {"nodeName": "n1", "containers": []},
                "status": {"podIP": address, "podIPs": [{"ip": address}]},
            }))
            .unwrap()
        };
        let policy = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "to-web", "namespace": "shop"},
            "spec": {"podSelector": {"matchLabels": {"app": "web"}},
                "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]}]},
        }));
        let namespace = serde_json::from_value(serde_json::json!({"metadata": {"name": "shop"}}));
        let mut world = World::default();
        for change in [
            Change::Namespace(TableChange::Applied(namespace.unwrap())),
            Change::NetworkPolicy(TableChange::Applied(policy.unwrap())),
            Change::Pod(TableChange::Applied(pod("web", "10.9.9.1"))),
            Change::Pod(TableChange::Applied(pod("client", "10.9.9.9"))),
        ] {
            world.apply(change);
        }
        world
    }

    #[test]
    fn a_new_pod_is_not_examined_and_a_rebound_one_is() {
        let (empty, open, isolated) = (
            Plan::default(),
            plan(Binding::Open),
            plan(Binding::Isolated),
        );
        let delta = PlanDelta::default();
        assert!(affected(&empty, &open, &delta).is_empty());
        assert!(affected(&open, &open, &delta).is_empty());
        assert_eq!(affected(&open, &isolated, &delta).len(), 1);
    }

    #[test]
    fn an_address_that_loses_its_identity_has_every_pod_examined() {
        let peer: IpAddr = "10.9.9.9".parse().unwrap();
        let mut before = plan(Binding::Open);
        let mut delta = PlanDelta::default();
        delta.identities.insert(peer, None);
        assert!(affected(&before, &before, &delta).is_empty());
        before.identities.insert(peer, IdentityId::FIRST_POD);
        assert_eq!(affected(&before, &plan(Binding::Open), &delta).len(), 1);
    }
}
