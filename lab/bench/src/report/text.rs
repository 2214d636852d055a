//! The table on the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{cell, head, wording};
use crate::book::CaseResult;
use crate::cases::Case;
use crate::daemons::Daemon;
use crate::measure::{Series, Verdict};

/// A case, a table for each placement.
pub fn render(result: &CaseResult) -> String {
    let case = result.case;
    let mut text = String::new();
    for (placement, daemons) in &result.placements {
        let _ = writeln!(
            text,
            "\n{} [{}, {}]",
            case.title,
            case.name,
            placement.name()
        );
        text += &table(&rows(case, daemons));
        for (daemon, series) in daemons {
            for note in series.notes() {
                let _ = writeln!(text, "  {}: {note}", daemon.title());
            }
        }
        for target in case.targets {
            let (word, detail) = match result.judge(*placement, target) {
                Verdict::Reached(detail) => ("reached", detail),
                Verdict::Missed(detail) => ("not reached", detail),
                Verdict::Unknown(detail) => ("unknown", detail),
            };
            let _ = writeln!(text, "  target {}: {detail}, {word}", wording(case, target));
        }
    }
    text
}

fn rows(case: &Case, daemons: &BTreeMap<Daemon, Series>) -> Vec<Vec<String>> {
    let mut rows = vec![vec!["".to_owned()]];
    rows[0].extend(case.metrics.iter().map(head));
    for (daemon, series) in daemons {
        let mut row = vec![daemon.title().to_owned()];
        match series.reason() {
            Some(reason) => row.push(reason),
            None => row.extend(case.metrics.iter().map(|metric| cell(metric, series))),
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
