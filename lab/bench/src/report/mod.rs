//! What a run has shown, for people and for programs.
//!
//! Owns the forms: a table on the terminal, JSON, a page with a plot. Does not own numbers: everything shown is
//! computed from what was measured.

pub mod page;
mod plot;
pub mod text;

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use serde::Serialize;
use serde_json::json;

use crate::cases::Case;
use crate::daemons::Daemon;
use crate::machine::Machine;
use crate::measure::{Metric, Series, Summary, Target, Unit, Verdict};
use crate::options::{Options, Placement};

/// Everything that was measured.
#[derive(Clone, Debug)]
pub struct Report {
    /// On what.
    pub machine: Machine,
    /// How.
    pub options: Options,
    /// Versions of the daemons, or why one could not take part.
    pub versions: BTreeMap<Daemon, Result<String, String>>,
    /// By case and placement, in the order of the run.
    pub results: Vec<CaseResult>,
}

/// One case in one placement.
#[derive(Clone, Debug)]
pub struct CaseResult {
    /// The case.
    pub case: Case,
    /// Where daemon and generator ran.
    pub placement: Placement,
    /// The rounds of each daemon.
    pub series: BTreeMap<Daemon, Series>,
}

impl CaseResult {
    /// The verdict on a target.
    pub fn judge(&self, target: &Target) -> Verdict {
        let Some(ours) = self.series.get(&Daemon::Caracal) else {
            return Verdict::Unknown("ours was not measured".into());
        };
        let metric = self.case.metric(target.metric);
        let theirs = match target.bound {
            crate::measure::Bound::Ratio { to, .. } => self.series.get(&to),
            crate::measure::Bound::AtMost(_) => None,
        };
        target.judge(metric, ours, theirs)
    }
}

impl Case {
    /// A metric of the case by its key.
    ///
    /// # Panics
    /// There is none, which a test excludes.
    pub fn metric(&self, key: &str) -> &'static Metric {
        let mut metrics = self.metrics.iter();
        metrics
            .find(|metric| metric.key == key)
            .unwrap_or_else(|| panic!("{} does not measure {key}", self.name))
    }
}

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
        crate::measure::Bound::Ratio { to, at_most } => {
            format!("{} ≤ {at_most} × {}", metric.label, to.title())
        }
        crate::measure::Bound::AtMost(limit) => {
            let text = format!("{} ≤ {limit} {}", metric.label, metric.unit.symbol());
            text.trim().to_owned()
        }
    }
}

/// Everything as JSON.
///
/// # Errors
/// A number that JSON does not have.
pub fn json(report: &Report) -> anyhow::Result<String> {
    #[derive(Serialize)]
    struct Row<'a> {
        summary: BTreeMap<&'static str, Summary>,
        rounds: &'a Series,
    }
    let results: Vec<serde_json::Value> = report
        .results
        .iter()
        .map(|result| {
            let rows: BTreeMap<&str, Row<'_>> = result
                .series
                .iter()
                .map(|(daemon, series)| {
                    let metrics = result.case.metrics.iter();
                    let summary = metrics.map(|m| (m.key, series.summary(m.key))).collect();
                    let rounds = series;
                    (daemon.name(), Row { summary, rounds })
                })
                .collect();
            let targets: Vec<serde_json::Value> = result
                .case
                .targets
                .iter()
                .map(|target| {
                    json!({
                        "target": target,
                        "text": wording(&result.case, target),
                        "verdict": result.judge(target),
                    })
                })
                .collect();
            json!({
                "case": result.case.name,
                "title": result.case.title,
                "placement": result.placement,
                "metrics": result.case.metrics,
                "daemons": rows,
                "targets": targets,
            })
        })
        .collect();
    let whole = json!({
        "machine": report.machine,
        "options": report.options,
        "versions": report.versions,
        "results": results,
    });
    Ok(serde_json::to_string_pretty(&whole)? + "\n")
}

/// Writes a file whole.
///
/// # Errors
/// It cannot be written.
pub fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    std::fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

#[cfg(test)]
mod tests;
