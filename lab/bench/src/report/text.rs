//! The table on the terminal.

use std::fmt::Write as _;

use super::{CaseResult, Report, cell, head, wording};
use crate::measure::Verdict;

/// The whole report.
pub fn render(report: &Report) -> String {
    let mut text = String::new();
    for result in &report.results {
        let _ = writeln!(
            text,
            "\n{} [{}, {}]",
            result.case.title,
            result.case.name,
            result.placement.name()
        );
        text += &table(&rows(result));
        for (daemon, series) in &result.series {
            for note in series.notes() {
                let _ = writeln!(text, "  {}: {note}", daemon.title());
            }
        }
        for target in result.case.targets {
            let (word, detail) = match result.judge(target) {
                Verdict::Reached(detail) => ("reached", detail),
                Verdict::Missed(detail) => ("not reached", detail),
                Verdict::Unknown(detail) => ("unknown", detail),
            };
            let _ = writeln!(
                text,
                "  target {}: {detail}, {word}",
                wording(&result.case, target)
            );
        }
    }
    text
}

fn rows(result: &CaseResult) -> Vec<Vec<String>> {
    let metrics = result.case.metrics;
    let mut rows = vec![vec!["".to_owned()]];
    rows[0].extend(metrics.iter().map(head));
    for (daemon, series) in &result.series {
        let mut row = vec![daemon.title().to_owned()];
        match series.reason() {
            Some(reason) => row.push(reason),
            None => row.extend(metrics.iter().map(|metric| cell(metric, series))),
        }
        rows.push(row);
    }
    rows
}

/// Columns as wide as their widest cell; a row with one reason instead of numbers is left as it is.
fn table(rows: &[Vec<String>]) -> String {
    let columns = rows[0].len();
    let whole = |row: &&Vec<String>| row.len() == columns;
    let widths: Vec<usize> = (0..columns)
        .map(|column| {
            let cells = rows
                .iter()
                .filter(whole)
                .map(|row| row[column].chars().count());
            cells.max().unwrap_or(0)
        })
        .collect();
    let first = rows
        .iter()
        .map(|row| row[0].chars().count())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for row in rows {
        let mut line = format!("  {:<first$}", row[0]);
        for (column, cell) in row.iter().enumerate().skip(1) {
            let width = if row.len() == columns {
                widths[column]
            } else {
                0
            };
            let _ = write!(line, "  {cell:>width$}");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    text
}
