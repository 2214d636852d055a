//! The screen that answers why.

use caracal_bgp_speaker::snapshot::{
    Explanation, FibSnapshot, KernelRoute, KernelSnapshot, PathSnapshot, RouteSnapshot,
};

use super::routes::{as_path, communities, from, mark};
use super::{ago, known};
use crate::table;

/// The candidates, the deciding step, the kernel, the policies, and who is told.
pub(super) fn screen(explanation: &Explanation, now_ms: u64) -> String {
    let mut text = String::new();
    if let Some(route) = &explanation.route {
        text.push_str(&format!("{}\n", route.prefix));
        text.push_str(&candidates(&route.paths));
        text.push('\n');
    }
    for sentence in &explanation.sentences {
        text.push_str(sentence);
        text.push('\n');
    }
    if let Some((route, kernel)) = explanation.route.as_ref().zip(explanation.kernel.as_ref()) {
        text.push_str(&in_kernel(route, kernel, now_ms));
    }
    if !explanation.import.is_empty() {
        text.push_str("\nImport policies:\n");
    }
    for trace in &explanation.import {
        let path = PathSnapshot {
            from: trace.from.clone(),
            path_id: trace.path_id,
            ..PathSnapshot::default()
        };
        text.push_str(&format!("  {}\n", from(&path)));
        for step in &trace.steps {
            text.push_str(&format!("    {step}\n"));
        }
    }
    if !explanation.told.is_empty() {
        let told = explanation.told.iter().map(|told| {
            vec![
                told.peer.clone(),
                known(told.next_hop),
                told.withheld.clone().unwrap_or_default(),
            ]
        });
        let rows: Vec<Vec<String>> = told.collect();
        text.push('\n');
        text.push_str(&table::render(&["TOLD TO", "NEXT-HOP", "WHY NOT"], &rows));
    }
    text
}

/// What the kernel holds; nothing where it holds nothing and need not.
fn in_kernel(route: &RouteSnapshot, kernel: &KernelSnapshot, now_ms: u64) -> String {
    let there = match &kernel.route {
        KernelRoute::Absent if kernel.in_sync && route.fib == FibSnapshot::None => {
            return String::new();
        }
        KernelRoute::Absent => "no route".to_owned(),
        KernelRoute::Forwarding {
            protocol,
            next_hops,
        } => {
            let ways = next_hops.iter();
            let ways = ways.map(|way| format!("{} {}", way.address, way.interface));
            let ways: Vec<String> = ways.collect();
            let ways = match ways.is_empty() {
                true => "nowhere".to_owned(),
                false => ways.join(", "),
            };
            format!("proto {protocol} next hops {ways}")
        }
        KernelRoute::Dropping { protocol } => format!("proto {protocol} packets are dropped"),
        KernelRoute::Foreign { protocol } => format!("proto {protocol} of another program"),
    };
    let sync = match kernel.in_sync {
        true => "in sync",
        false => "not as it should be",
    };
    let checked = ago(kernel.checked_ms, now_ms);
    format!(
        "kernel: {} {there}   {sync} (checked {checked} ago)\n",
        route.prefix
    )
}

fn candidates(paths: &[PathSnapshot]) -> String {
    let row = |(number, path): (usize, &PathSnapshot)| {
        vec![
            mark(path).to_owned(),
            (number + 1).to_string(),
            from(path),
            known(path.next_hop),
            as_path(path),
            known(path.local_pref),
            known(path.med),
            communities(path),
            reason(path),
        ]
    };
    let rows: Vec<Vec<String>> = paths.iter().enumerate().map(row).collect();
    let header = [
        "",
        "#",
        "VIA",
        "NEXT-HOP",
        "AS-PATH",
        "LP",
        "MED",
        "COMMUNITIES",
        "REASON",
    ];
    table::render(&header, &rows)
}

fn reason(path: &PathSnapshot) -> String {
    let reason = if path.best {
        "best".to_owned()
    } else if path.multipath {
        "shares the load".to_owned()
    } else if let Some(why) = &path.rejected {
        format!("rejected: {why}")
    } else if let Some(step) = &path.lost_at {
        format!("lost by {step}")
    } else {
        "waits for the selection".to_owned()
    };
    let stale = path.stale.then_some(", kept from before its restart");
    // So that nobody takes it for a route of the node that holds the block.
    let unconfirmed = path
        .unconfirmed
        .then_some(", in a block whose holder cannot be confirmed");
    reason + stale.unwrap_or_default() + unconfirmed.unwrap_or_default()
}
