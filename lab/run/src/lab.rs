//! A running lab: fabric, routers and cluster under one roof, and the order in which they come and go.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use caracal_lab_topology::{Driver, Plan, PlannedNode, Role, Sidecar};

use crate::cluster::{Binaries, Cluster};
use crate::fabric::Fabric;
use crate::namespace::Namespace;
use crate::process::until;
use crate::routers::{Router, StartKind, detect};
use crate::routes;
use crate::state::StateDir;

/// Which router implementations may and must be used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DriverChoice {
    /// A substitution of one of these is a failure.
    pub require: Vec<Driver>,
    /// Treated as not installed.
    pub without: Vec<Driver>,
}

/// What runs on a router.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Placement {
    /// The box.
    pub node: String,
    /// What it is for.
    pub role: String,
    /// What runs there.
    pub driver: String,
    /// Its version.
    pub version: String,
    /// What the topology asked for, where that is not installed.
    pub instead_of: Option<String>,
}

/// A lab that is up.
pub struct Lab {
    plan: Plan,
    state: StateDir,
    fabric: Fabric,
    routers: BTreeMap<String, Router>,
    cluster: Option<Cluster>,
    placements: Vec<Placement>,
    started: Instant,
}

impl Lab {
    /// Builds the fabric and starts everything. What was made is undone when something fails, by whoever
    /// holds the state folder.
    ///
    /// # Errors
    /// See [`Fabric::build`], [`Router::start`] and [`Cluster::start`]; a required driver is not installed.
    pub fn up(
        plan: &Plan,
        sidecar: &Sidecar,
        choice: &DriverChoice,
        binaries: &Binaries,
        state: &StateDir,
        runtime: &tokio::runtime::Handle,
    ) -> anyhow::Result<Self> {
        let placements = place(plan, choice)?;
        let fabric = Fabric::build(plan, state)?;
        let mut routers = BTreeMap::new();
        for placement in placements.iter().filter(|p| p.role != "node") {
            let node = &plan.nodes[&placement.node];
            let driver: Driver = placement.driver.parse().map_err(anyhow::Error::msg)?;
            let namespace = Namespace::at(&state.namespace(&node.name));
            let folder = state.folder(&node.name);
            let mut router =
                Router::new(plan, node, driver, namespace, &folder, &binaries.caracal)?;
            router.start(StartKind::Fresh)?;
            routers.insert(node.name.clone(), router);
        }
        let cluster = if plan.with_role(Role::Node).next().is_some() {
            Some(Cluster::start(
                plan, sidecar, &fabric, state, binaries, runtime,
            )?)
        } else {
            None
        };
        Ok(Self {
            plan: plan.clone(),
            state: state.clone(),
            fabric,
            routers,
            cluster,
            placements,
            started: Instant::now(),
        })
    }

    /// The plan it was built from.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Its folder.
    pub fn state(&self) -> &StateDir {
        &self.state
    }

    /// Its cables.
    pub fn fabric(&self) -> &Fabric {
        &self.fabric
    }

    /// Its cluster.
    ///
    /// # Errors
    /// The topology has no nodes.
    pub fn cluster(&self) -> anyhow::Result<&Cluster> {
        self.cluster
            .as_ref()
            .context("the topology has no cluster nodes")
    }

    /// Its cluster, to change it.
    ///
    /// # Errors
    /// The topology has no nodes.
    pub fn cluster_mut(&mut self) -> anyhow::Result<&mut Cluster> {
        self.cluster
            .as_mut()
            .context("the topology has no cluster nodes")
    }

    /// What runs where.
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// A router by name, to do something to it.
    ///
    /// # Errors
    /// There is no such router.
    pub fn router_mut(&mut self, name: &str) -> anyhow::Result<&mut Router> {
        self.routers
            .get_mut(name)
            .with_context(|| format!("{name} is not a router"))
    }

    /// A box's namespace.
    pub fn namespace(&self, node: &str) -> Namespace {
        Namespace::at(&self.state.namespace(node))
    }

    /// Waits until every session is up and every box has a route to every node and block, and says how
    /// long that took since the last process was started.
    ///
    /// # Errors
    /// The deadline passes (the message says what is missing), or a process ends.
    pub fn wait_converged(&mut self, within: Duration) -> anyhow::Result<Duration> {
        let deadline = self.started + within;
        let patience = deadline.saturating_duration_since(Instant::now());
        let mut dead = Vec::new();
        let result = until("convergence", patience, || {
            dead = self.casualties();
            if !dead.is_empty() {
                return Ok(());
            }
            self.missing().map_or(Ok(()), Err)
        });
        if !dead.is_empty() {
            bail!("a process ended:\n{}", dead.join("\n"));
        }
        result?;
        Ok(self.started.elapsed())
    }

    /// The first thing that is not yet as it shall be.
    pub fn missing(&self) -> Option<String> {
        for router in self.routers.values() {
            let want = self.plan.sessions(router.name()).len();
            match router.established() {
                Ok(have) if have >= want => {}
                Ok(have) => {
                    return Some(format!("{} has {have} of {want} sessions", router.name()));
                }
                Err(error) => return Some(format!("{}: {error:#}", router.name())),
            }
        }
        let blocks = match self.blocks() {
            Ok(blocks) => blocks,
            Err(error) => return Some(format!("{error:#}")),
        };
        for node in self.plan.with_role(Role::Node) {
            if !blocks.iter().any(|(owner, _)| *owner == node.name) {
                return Some(format!("{} has no active block", node.name));
            }
        }
        for observer in self.plan.nodes.values().filter(|n| n.role != Role::Outside) {
            let have = match routes::destinations(&self.namespace(&observer.name)) {
                Ok(have) => have,
                Err(error) => return Some(format!("routes of {}: {error:#}", observer.name)),
            };
            for (owner, prefix) in self.announced().chain(blocks.iter().cloned()) {
                if !self.hears(observer, &owner) {
                    continue;
                }
                let want = self.plan.equal_paths(&observer.name, &owner);
                let have = have.get(&prefix).copied().unwrap_or_default();
                if have < want {
                    return Some(format!(
                        "{} has {have} of {want} next hops to {prefix} of {owner}",
                        observer.name
                    ));
                }
            }
        }
        None
    }

    /// Whether a box can learn what another announces. Routers of one AS without a session between them
    /// (the spines, a rack's ToRs) refuse each other's routes: their own AS is in the path.
    fn hears(&self, observer: &PlannedNode, owner: &str) -> bool {
        let owner = &self.plan.nodes[owner];
        let routers = owner.role != Role::Node && observer.role != Role::Node;
        observer.name != owner.name && !(routers && observer.asn == owner.asn)
    }

    /// What boxes announce besides blocks and every other box has to learn: their loopbacks, and the links
    /// to hosts beyond the fabric.
    fn announced(&self) -> impl Iterator<Item = (String, String)> {
        let speakers = self
            .plan
            .nodes
            .values()
            .filter(|node| node.role != Role::Outside);
        let loopbacks = speakers.flat_map(|node| {
            [
                (node.name.clone(), format!("{}/32", node.loopback_v4)),
                (node.name.clone(), format!("{}/128", node.loopback_v6)),
            ]
        });
        let outside = self
            .plan
            .links
            .iter()
            .filter(|link| self.plan.nodes[&link.lower.node].role == Role::Outside);
        loopbacks.chain(outside.flat_map(|link| {
            let owner = link.upper.node.clone();
            [
                (owner.clone(), format!("{}/31", link.upper.v4)),
                (owner, format!("{}/127", link.upper.v6)),
            ]
        }))
    }

    /// Processes that have ended although nobody stopped them.
    pub fn casualties(&mut self) -> Vec<String> {
        let mut dead = self
            .cluster
            .as_mut()
            .map(Cluster::casualties)
            .unwrap_or_default();
        for router in self.routers.values_mut() {
            dead.extend(router.casualties());
        }
        dead
    }

    /// Active blocks: their node and each prefix.
    fn blocks(&self) -> anyhow::Result<Vec<(String, String)>> {
        let Some(cluster) = &self.cluster else {
            return Ok(Vec::new());
        };
        let blocks = cluster
            .api()
            .list(crate::cluster::objects::API, "IPBlock")?;
        let mut prefixes = Vec::new();
        for block in blocks
            .iter()
            .filter(|block| block.data["status"]["phase"] == "Active")
        {
            let spec = &block.data["spec"];
            let Some(node) = spec["nodeName"].as_str() else {
                continue;
            };
            for family in ["ipv4", "ipv6"] {
                if let Some(prefix) = spec[family].as_str() {
                    prefixes.push((node.to_owned(), prefix.to_owned()));
                }
            }
        }
        Ok(prefixes)
    }
}

/// Decides what runs where.
fn place(plan: &Plan, choice: &DriverChoice) -> anyhow::Result<Vec<Placement>> {
    let mut placements = Vec::new();
    for node in plan.nodes.values() {
        let wanted = match node.role {
            Role::Outside => continue,
            Role::Node => Driver::Caracal,
            Role::Tor | Role::Spine => node.driver,
        };
        let version = (!choice.without.contains(&wanted))
            .then(|| detect(wanted))
            .flatten();
        if version.is_none() && choice.require.contains(&wanted) {
            bail!(
                "{} asks for {wanted}, which is required and not installed\nhint: install it, or leave out --require {wanted}",
                node.name
            );
        }
        let (driver, version, instead_of) = match version {
            Some(version) => (wanted, version, None),
            None => {
                let own = detect(Driver::Caracal).unwrap_or_default();
                (Driver::Caracal, own, Some(wanted.to_string()))
            }
        };
        placements.push(Placement {
            node: node.name.clone(),
            role: node.role.to_string(),
            driver: driver.to_string(),
            version,
            instead_of,
        });
    }
    Ok(placements)
}
