//! The metrics of the controller, one by one: names, labels, and what is read for them.
//!
//! Owns the table and nothing beside.

use caracal_ipam_core::controller::PoolReport;
use caracal_metrics::{Metric, Read, Sample};

use super::PoolSnapshot;

/// Every metric that only a controller has, in the order of the documentation.
pub(super) const METRICS: &[Metric<Vec<PoolSnapshot>>] = &[
    Metric {
        name: "caracal_ipam_blocks",
        labels: &["pool", "state"],
        help: "Blocks of a pool, as the leader sees them: used, draining (no new pods), quarantined \
               (at rest, or of a node that is gone), free",
        read: Read::Gauge(|pools| {
            let states = |pool: &PoolSnapshot| {
                let report = pool.report.iter();
                let of = report.flat_map(|report| states(&pool.name, report));
                of.collect::<Vec<_>>()
            };
            pools.iter().flat_map(states).collect()
        }),
    },
    Metric {
        name: "caracal_ipam_claim_seconds",
        labels: &["pool"],
        help: "From the decision to grant a block until its object stood",
        read: Read::Histogram(|pools| {
            let took = pools.iter();
            took.map(|pool| Sample(vec![pool.name.clone()], pool.claims.clone()))
                .collect()
        }),
    },
    Metric {
        name: "caracal_ipam_claim_conflicts_total",
        labels: &["pool"],
        help: "How often somebody else already had the block that was to be granted",
        read: Read::Counter(|pools| {
            let counts = pools.iter();
            counts
                .map(|pool| Sample(vec![pool.name.clone()], pool.conflicts))
                .collect()
        }),
    },
];

fn states(pool: &str, report: &PoolReport) -> [Sample; 4] {
    // Reserved blocks and what other pools claim make the difference an upper bound; that nothing is
    // left to grant is known for sure.
    let left = report
        .total
        .saturating_sub(report.used + report.quarantined);
    let free = if report.exhausted { 0 } else { left };
    [
        ("used", report.used.saturating_sub(report.draining)),
        ("draining", report.draining),
        ("quarantined", report.quarantined),
        ("free", free),
    ]
    .map(|(state, count)| Sample([pool, state].map(str::to_owned).to_vec(), u64::from(count)))
}
