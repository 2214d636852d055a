//! The plot: bars by case, in an SVG that reads on light and dark ground.

use std::fmt::Write as _;

use crate::book::{Book, CaseResult};
use crate::daemons::Daemon;
use crate::measure::{Metric, Summary};
use crate::options::Placement;

const WIDTH: f64 = 860.0;
/// Where bars begin, after the daemon's name.
const LEFT: f64 = 110.0;
/// Room behind the longest bar for its number.
const RIGHT: f64 = 110.0;
const BAR: f64 = 14.0;
const STEP: f64 = 20.0;
const TITLE: f64 = 26.0;
const GAP: f64 = 18.0;

/// Pinned results: of each case what has a target.
pub(super) fn render(book: &Book) -> String {
    let mut body = String::new();
    let mut y = 20.0;
    for result in book.results() {
        for target in result.case.targets {
            let metric = result.case.metric(target.metric);
            y = panel(result, metric, y, &mut body);
        }
    }
    format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y}" width="{WIDTH}" height="{y}" role="img" aria-label="Benchmarks of BGP daemons">
<style>
  text {{ font: 12px system-ui, sans-serif; fill: #24292f; }}
  .title {{ font-weight: 600; font-size: 13px; }}
  .late {{ font-style: italic; }}
  rect {{ fill: #8c959f; }}
  rect.ours {{ fill: #b3541e; }}
  @media (prefers-color-scheme: dark) {{
    text {{ fill: #e6edf3; }}
    rect {{ fill: #6e7681; }}
    rect.ours {{ fill: #e8894f; }}
  }}
</style>
{body}</svg>
"##
    )
}

/// Bars of one metric, all to one scale; gives back where the next panel begins.
fn panel(result: &CaseResult, metric: &Metric, y: f64, body: &mut String) -> f64 {
    let rows: Vec<(Daemon, Summary)> = result
        .placements
        .get(&Placement::Pinned)
        .into_iter()
        .flatten()
        .map(|(daemon, series)| (*daemon, series.summary(metric.key)))
        .filter(|(_, summary)| *summary != Summary::Nothing)
        .collect();
    let longest = rows
        .iter()
        .filter_map(|(_, summary)| match summary {
            Summary::Median { median, .. } => Some(*median),
            _ => None,
        })
        .fold(0.0, f64::max);
    if longest <= 0.0 {
        return y;
    }
    let _ = writeln!(
        body,
        r#"<text class="title" x="10" y="{}">{}: {}</text>"#,
        y,
        xml(result.case.name),
        xml(metric.label)
    );
    let mut y = y + TITLE - BAR;
    for (daemon, summary) in rows {
        let base = y + BAR - 3.0;
        let _ = writeln!(
            body,
            r#"<text x="{}" y="{base}" text-anchor="end">{}</text>"#,
            LEFT - 8.0,
            daemon.title()
        );
        match summary {
            Summary::Median { median, .. } => {
                let length = (WIDTH - LEFT - RIGHT) * median / longest;
                let class = if daemon == Daemon::Caracal {
                    r#" class="ours""#
                } else {
                    ""
                };
                let _ = writeln!(
                    body,
                    r#"<rect{class} x="{LEFT}" y="{y}" width="{:.1}" height="{BAR}" rx="2"/><text x="{:.1}" y="{base}">{} {}</text>"#,
                    length.max(1.0),
                    LEFT + length.max(1.0) + 6.0,
                    metric.unit.show(median),
                    metric.unit.symbol()
                );
            }
            Summary::NotIn(limit) => {
                let _ = writeln!(
                    body,
                    r#"<text class="late" x="{LEFT}" y="{base}">not in {limit:.0} s</text>"#
                );
            }
            Summary::Nothing => {}
        }
        y += STEP;
    }
    y + GAP
}

fn xml(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
