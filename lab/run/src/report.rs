//! What a run found, for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::lab::Placement;
use crate::probe::flow::FlowLoss;

/// Everything a run has to say.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Name of the topology.
    pub lab: String,
    /// How the fabric speaks BGP.
    pub plan: String,
    /// What ran where.
    pub placements: Vec<Placement>,
    /// From the last process's start until every box had every route, in milliseconds.
    pub converged_ms: u64,
    /// Share of 1,000 flows over each uplink.
    pub uplinks: Vec<UplinkShare>,
    /// The reachability matrix in each phase.
    pub matrices: Vec<MatrixResult>,
    /// What the captures saw.
    pub wire: Option<WireResult>,
    /// What each fault cost.
    pub faults: Vec<FaultResult>,
    /// What was not as expected, in the order in which it was found.
    pub failures: Vec<String>,
}

/// How much of a node's traffic took one uplink.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UplinkShare {
    /// The node.
    pub node: String,
    /// Address family of the flows.
    pub family: String,
    /// The router at the far end.
    pub uplink: String,
    /// Percent of the packets.
    pub percent: u32,
}

/// One phase of the matrix.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MatrixResult {
    /// Which phase.
    pub phase: String,
    /// Cells asked.
    pub cells: usize,
    /// Cells that answered as expected.
    pub as_expected: usize,
    /// Cells that had to be refused.
    pub refused: usize,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
}

/// What the captures saw.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WireResult {
    /// Packets between pods, nodes and the outside.
    pub packets: u64,
    /// Cables that carried some.
    pub links: usize,
    /// Pairs of addresses that were seen as outer addresses.
    pub pairs: usize,
    /// Encapsulated packets and wrong TTLs.
    pub violations: u64,
    /// Largest packet in octets that crossed the fabric with fragmentation forbidden, IPv4 and IPv6.
    pub largest_whole: [u16; 2],
    /// Foreign packets on the management network.
    pub on_management: u64,
}

/// What a fault and its end cost.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultResult {
    /// What happened to whom.
    pub fault: String,
    /// The implementation it happened to.
    pub driver: String,
    /// Loss when it began.
    pub applied: LossSummary,
    /// Loss when the box came back.
    pub returned: LossSummary,
    /// Whether both kept to their budgets.
    pub within_budget: bool,
}

/// Loss over all flows; one datagram is one millisecond.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LossSummary {
    /// Number of flows.
    pub flows: usize,
    /// Datagrams sent in all.
    pub sent: u64,
    /// Datagrams lost in all.
    pub lost: u64,
    /// Loss of the median flow.
    pub p50: u64,
    /// Loss of the flow that 99 % are not worse than.
    pub p99: u64,
    /// Loss of the worst flow.
    pub max: u64,
    /// Its name, when it lost anything.
    pub worst: Option<String>,
    /// When its longest gap began after the flows started, in milliseconds.
    pub worst_at_ms: Option<u64>,
    /// What it may be.
    pub budget: Option<u64>,
}

impl LossSummary {
    /// Sums up flows.
    pub fn new(flows: &[FlowLoss], budget: Option<u64>) -> Self {
        let mut losses: Vec<u64> = flows.iter().map(|flow| flow.lost).collect();
        losses.sort_unstable();
        let rank = |percent: usize| {
            let at = (losses.len() * percent).div_ceil(100).saturating_sub(1);
            losses.get(at).copied().unwrap_or_default()
        };
        let worst = flows
            .iter()
            .max_by_key(|flow| flow.lost)
            .filter(|flow| flow.lost > 0);
        Self {
            flows: flows.len(),
            sent: flows.iter().map(|flow| flow.sent).sum(),
            lost: losses.iter().sum(),
            p50: rank(50),
            p99: rank(99),
            max: losses.last().copied().unwrap_or_default(),
            worst: worst.map(|flow| flow.name.clone()),
            worst_at_ms: worst
                .and_then(|flow| flow.gap_at)
                .map(|at| at.as_millis() as u64),
            budget,
        }
    }

    /// Whether the worst flow kept to the budget; without one nothing is exceeded.
    pub fn within_budget(&self) -> bool {
        self.budget.is_none_or(|budget| self.max <= budget)
    }
}

impl Report {
    /// Whether all was as expected.
    pub fn passed(&self) -> bool {
        self.failures.is_empty()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "lab {}, plan {}", self.lab, self.plan)?;
        for placement in &self.placements {
            write!(
                f,
                "  {:<6} {:<6} {} {}",
                placement.node, placement.role, placement.driver, placement.version
            )?;
            match &placement.instead_of {
                Some(wanted) => writeln!(f, "  (instead of {wanted}, which is not installed)")?,
                None => writeln!(f)?,
            }
        }
        let seconds = Duration::from_millis(self.converged_ms).as_secs_f64();
        writeln!(
            f,
            "\nconverged {seconds:.1} s after the last process was started"
        )?;
        if !self.uplinks.is_empty() {
            writeln!(f, "\nshare of 1,000 flows on each uplink")?;
            for share in &self.uplinks {
                writeln!(
                    f,
                    "  {:<4} {}  to {:<4} {:>3} %",
                    share.node, share.family, share.uplink, share.percent
                )?;
            }
        }
        writeln!(f, "\nmatrix")?;
        for matrix in &self.matrices {
            writeln!(
                f,
                "  {:<34} {:>5}/{} as expected, {} refused, {} ms",
                matrix.phase, matrix.as_expected, matrix.cells, matrix.refused, matrix.took_ms
            )?;
        }
        if let Some(wire) = &self.wire {
            writeln!(
                f,
                "\nwire: {} packets on {} cables, {} address pairs, {} encapsulated or with a wrong TTL, {}/{} octets unfragmented, {} strayed to the management network",
                wire.packets,
                wire.links,
                wire.pairs,
                wire.violations,
                wire.largest_whole[0],
                wire.largest_whole[1],
                wire.on_management
            )?;
        }
        if !self.faults.is_empty() {
            writeln!(
                f,
                "\nloss per flow in ms (p50/p99/max, budget)\n  {:<28} {:<8} {:<24} {:<24}",
                "fault", "driver", "when it began", "when it ended"
            )?;
        }
        for fault in &self.faults {
            let column = |loss: &LossSummary| {
                let budget = match loss.budget {
                    Some(budget) => format!("<= {budget}"),
                    None => "reported".to_owned(),
                };
                format!("{}/{}/{} ({budget})", loss.p50, loss.p99, loss.max)
            };
            writeln!(
                f,
                "  {:<28} {:<8} {:<24} {:<24} {}",
                fault.fault,
                fault.driver,
                column(&fault.applied),
                column(&fault.returned),
                if fault.within_budget {
                    "ok"
                } else {
                    "EXCEEDED"
                }
            )?;
        }
        if self.failures.is_empty() {
            return writeln!(f, "\nall as expected");
        }
        writeln!(f, "\nnot as expected")?;
        for failure in &self.failures {
            writeln!(f, "  {failure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flow(lost: u64) -> FlowLoss {
        FlowLoss {
            name: format!("f{lost}"),
            sent: 100,
            lost,
            longest_gap: lost,
            gap_at: None,
        }
    }

    #[test]
    fn the_summary_ranks_flows_by_what_they_lost() {
        let flows: Vec<FlowLoss> = (0..100).map(flow).collect();
        let summary = LossSummary::new(&flows, Some(98));
        assert_eq!((summary.p50, summary.p99, summary.max), (49, 98, 99));
        assert_eq!(summary.worst.as_deref(), Some("f99"));
        assert!(!summary.within_budget());
    }

    #[test]
    fn no_flow_loses_nothing() {
        let summary = LossSummary::new(&[], Some(0));
        assert_eq!(summary.max, 0);
        assert!(summary.within_budget());
    }
}
