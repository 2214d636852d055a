//! What was measured, for people and for programs.
//!
//! Owns the forms: a table on the terminal, JSON, a page with a plot. Does not own numbers: everything shown is
//! computed from what was measured.

mod origin;
pub mod page;
mod plot;
pub mod text;

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::json;

use crate::book::CaseResult;
use crate::cases::Case;
use crate::measure::{Bound, Metric, Series, Summary, Target, Unit};
use crate::options::Options;

/// A cell of a table: the median, and the lowest and highest round where they read differently.
fn cell(metric: &Metric, series: &Series) -> String {
    match series.summary(metric.key) {
        Summary::Median { median, low, high } => {
            let show = |number| metric.unit.show(number);
            if show(low) == show(high) {
                show(median)
            } else {
                format!("{} [{}–{}]", show(median), show(low), show(high))
            }
        }
        Summary::NotIn(limit) => format!("not in {limit:.0} s"),
        Summary::Nothing => "–".to_owned(),
    }
}

/// A column's head.
fn head(metric: &Metric) -> String {
    match metric.unit {
        Unit::Count | Unit::Ratio => metric.label.to_owned(),
        unit => format!("{} ({})", metric.label, unit.symbol()),
    }
}

/// A target in words.
fn wording(case: &Case, target: &Target) -> String {
    let metric = case.metric(target.metric);
    match target.bound {
        Bound::Ratio { to, at_most } => {
            format!("{} ≤ {at_most} × {}", metric.label, to.title())
        }
        Bound::AtMost(limit) => {
            let text = format!("{} ≤ {limit} {}", metric.label, metric.unit.symbol());
            text.trim().to_owned()
        }
    }
}

/// All that a run has measured so far, as JSON.
///
/// # Errors
/// A number that JSON does not have.
pub fn json(options: &Options, results: &[CaseResult]) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Row<'a> {
        summary: BTreeMap<&'static str, Summary>,
        rounds: &'a Series,
    }
    let mut shown = Vec::new();
    for result in results {
        let case = result.case;
        for (placement, daemons) in &result.placements {
            let rows: BTreeMap<&str, Row<'_>> = daemons
                .iter()
                .map(|(daemon, rounds)| {
                    let metrics = case.metrics.iter();
                    let summary = metrics.map(|m| (m.key, rounds.summary(m.key))).collect();
                    (daemon.name(), Row { summary, rounds })
                })
                .collect();
            let targets: Vec<serde_json::Value> = case
                .targets
                .iter()
                .map(|target| {
                    json!({
                        "target": target,
                        "text": wording(case, target),
                        "verdict": result.judge(*placement, target),
                    })
                })
                .collect();
            shown.push(json!({
                "case": case.name,
                "title": case.title,
                "placement": placement,
                "measured_with": result.setting,
                "metrics": case.metrics,
                "daemons": rows,
                "targets": targets,
            }));
        }
    }
    let whole = json!({
        "options": options,
        "results": shown,
    });
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}

#[cfg(test)]
mod tests;
