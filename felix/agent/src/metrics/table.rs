//! The metrics of the agent, one by one: names, labels, and what is read for them.
//!
//! Owns the table and nothing beside.

use caracal_metrics::{HistogramSnapshot, Metric, Read, Sample};

use super::{AgentSnapshot, PoolAddresses};

/// Every metric that only an agent has, in the order of the documentation.
pub(super) const METRICS: &[Metric<AgentSnapshot>] = &[
    Metric {
        name: "caracal_policy_rules",
        labels: &["direction", "kind"],
        help: "Allowances of NetworkPolicies in the kernel, by what they name: cell (a peer and a port), \
               any-port, any-peer, chain (ranges)",
        read: Read::Gauge(|agent| {
            let rules = agent.figures.iter().flat_map(|it| &it.rules);
            let rules = rules.map(|((direction, kind), count)| {
                let labels = vec![direction.to_string(), (*kind).to_owned()];
                Sample(labels, *count as u64)
            });
            rules.collect()
        }),
    },
    Metric {
        name: "caracal_policy_apply_seconds",
        labels: &["outcome"],
        help: "How long it took to bring the kernel to what the policies want, by outcome: \
               acknowledged, failed",
        read: Read::Histogram(|agent| {
            let all: [(&str, &HistogramSnapshot); 2] = [
                ("acknowledged", &agent.acknowledged),
                ("failed", &agent.failed),
            ];
            let series = all.map(|(outcome, took)| Sample(vec![outcome.to_owned()], took.clone()));
            series.to_vec()
        }),
    },
    Metric {
        name: "caracal_policy_dropped_packets_total",
        labels: &["reason"],
        help: "Packets to and from pods that were dropped: by a policy (ingress-policy, \
               egress-policy) or isolated, spoofed, unknown-interface, invalid, midstream",
        read: Read::Counter(|agent| {
            let dropped = agent.figures.iter().flat_map(|it| &it.dropped);
            dropped
                .map(|(reason, count)| Sample(vec![reason.word().to_owned()], *count))
                .collect()
        }),
    },
    Metric {
        name: "caracal_ipam_addresses",
        labels: &["pool", "state"],
        help: "Addresses in the node's blocks: used, free, reserved, cooling (freed a moment ago), \
               leaked (in use by what no record explains)",
        read: Read::Gauge(|agent| {
            let pools = agent.figures.iter().flat_map(|it| &it.addresses);
            pools
                .flat_map(|(pool, counts)| states(pool, *counts))
                .collect()
        }),
    },
    Metric {
        name: "caracal_config_stale",
        labels: &[],
        help: "Whether the agent acts on objects that may be out of date, after a start those of its \
               snapshot, as it cannot follow them at the API server",
        read: Read::Gauge(|agent| vec![Sample(Vec::new(), u64::from(agent.config_stale))]),
    },
    Metric {
        name: "caracal_status_stale",
        labels: &[],
        help: "Whether the API server has not taken what the agent has to say: status of the node and \
               of its blocks, requests for blocks",
        read: Read::Gauge(|agent| vec![Sample(Vec::new(), u64::from(agent.status_stale))]),
    },
];

fn states(pool: &str, counts: PoolAddresses) -> [Sample; 5] {
    [
        ("used", counts.used),
        ("free", counts.free),
        ("reserved", counts.reserved),
        ("cooling", counts.cooling),
        ("leaked", counts.leaked),
    ]
    .map(|(state, count)| Sample([pool, state].map(str::to_owned).to_vec(), count))
}
