//! Faults as values: each can be applied and undone.

use std::time::Duration;

use anyhow::Context;
use caracal_lab_topology::sidecar::FaultKind;

use crate::lab::Lab;
use crate::routers::{StartKind, StopKind};
use crate::routes;

/// Time that an operator gives the network to move its traffic away from a drained router.
const DRAIN_TIME: Duration = Duration::from_secs(2);

/// Something that happens to one box.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// To which box.
    pub node: String,
}

impl Fault {
    /// Makes it happen.
    ///
    /// # Errors
    /// The box is not of the kind that this can happen to, or the kernel or a daemon refuses.
    pub fn apply(&self, lab: &mut Lab) -> anyhow::Result<()> {
        match self.kind {
            FaultKind::PowerLoss => self.lose_power(lab),
            FaultKind::DaemonKill => lab.router_mut(&self.node)?.stop(StopKind::Kill),
            FaultKind::PlannedShutdown => self.shut_down(lab),
            FaultKind::AgentKill => lab.cluster_mut()?.kill_agent(&self.node),
        }
        .with_context(|| format!("cannot apply {self}"))
    }

    /// Brings the box back into service.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn undo(&self, lab: &mut Lab) -> anyhow::Result<()> {
        match self.kind {
            FaultKind::PowerLoss | FaultKind::PlannedShutdown => self.power_on(lab),
            FaultKind::DaemonKill => lab.router_mut(&self.node)?.start(StartKind::Recovery),
            FaultKind::AgentKill => lab.cluster_mut()?.start_agent(&self.node),
        }
        .with_context(|| format!("cannot undo {self}"))
    }

    /// Carrier, processes and kernel routes go at the same moment.
    fn lose_power(&self, lab: &mut Lab) -> anyhow::Result<()> {
        lab.fabric().set_carrier_of(&self.node, false)?;
        let namespace = lab.namespace(&self.node);
        lab.router_mut(&self.node)?.stop(StopKind::Kill)?;
        routes::flush(&namespace)
    }

    fn power_on(&self, lab: &mut Lab) -> anyhow::Result<()> {
        lab.fabric().set_carrier_of(&self.node, true)?;
        let plan = lab.plan().clone();
        let router = lab.router_mut(&self.node)?;
        router.configure(&plan)?;
        router.start(StartKind::Fresh)
    }

    /// Withdraw, wait for the traffic to leave, stop, pull the cables.
    fn shut_down(&self, lab: &mut Lab) -> anyhow::Result<()> {
        let plan = lab.plan().clone();
        let router = lab.router_mut(&self.node)?;
        router.drain(&plan)?;
        std::thread::sleep(DRAIN_TIME);
        router.stop(StopKind::Orderly)?;
        lab.fabric().set_carrier_of(&self.node, false)?;
        routes::flush(&lab.namespace(&self.node))
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.kind, self.node)
    }
}
