//! docs/benchmarks.md and its plot.

use std::fmt::Write as _;
use std::path::Path;

use super::origin::Origins;
use super::{cell, head, plot, wording};
use crate::book::{Book, CaseResult, write};
use crate::cases::ALL;
use crate::daemons::Daemon;
use crate::measure::{Series, Verdict};
use crate::options::Placement;

/// Writes the page to `file`, which ends in `.md`, and the plot beside it, with the same name and `.svg`.
///
/// # Errors
/// A file cannot be written.
pub fn write_page(book: &Book, file: &Path) -> anyhow::Result<()> {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    write(&file.with_extension("svg"), &plot::render(book))?;
    write(file, &render(book, &stem))
}

/// The text of the page `stem`.md.
pub(super) fn render(book: &Book, stem: &str) -> String {
    let origins = Origins::of(book);
    let mut text = head_of_page(stem);
    targets(book, &mut text);
    how(&origins, &mut text);
    for case in ALL {
        let _ = writeln!(
            text,
            "## {}\n\n`{}`. {}\n",
            case.title, case.name, case.about
        );
        match book.get(case) {
            Some(result) => {
                let _ = writeln!(text, "{}\n", origins.line(&result.setting));
                for placement in Placement::ALL {
                    tables(result, placement, &mut text);
                }
            }
            None => text.push_str("Not measured yet.\n\n"),
        }
    }
    // A file ends with one end of a line.
    text.truncate(text.trim_end().len());
    text + "\n"
}

fn head_of_page(stem: &str) -> String {
    format!(
        "# Benchmarks

Written by `make bench` from what it measured, which is kept in [{stem}.json]({stem}.json); nothing here is written by
hand. Within a case the daemons ran one after another, in turns within each round, on the same generator and the same
machine. Absolute times belong to that machine and that run; the ratios are what to read. Medians over the rounds; in
brackets the lowest and the highest round.

![Times and memory of each daemon, pinned]({stem}.svg)

"
    )
}

fn targets(book: &Book, text: &mut String) {
    text.push_str("## Targets\n\nThe pinned placement counts.\n\n");
    text.push_str("| case | target | measured | |\n|---|---|---|---|\n");
    for case in ALL {
        for target in case.targets {
            let verdict = book
                .get(case)
                .map(|result| result.judge(Placement::Pinned, target));
            let (detail, word) = match verdict {
                Some(Verdict::Reached(detail)) => (detail, "reached"),
                Some(Verdict::Missed(detail)) => (detail, "**not reached**"),
                Some(Verdict::Unknown(detail)) => (detail, "unknown"),
                None => (String::new(), "not measured yet"),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {word} |",
                case.name,
                wording(case, target),
                escape(&detail)
            );
        }
    }
    text.push('\n');
}

fn how(origins: &Origins<'_>, text: &mut String) {
    let _ = writeln!(text, "## How it was measured\n\n{}\n", origins.head());
    text.push_str("| daemon | version | configuration |\n|---|---|---|\n");
    for daemon in Daemon::ALL {
        let file = match daemon {
            Daemon::Caracal => "caracal.yaml",
            Daemon::Bird => "bird.conf",
            Daemon::Frr => "frr-bgpd.conf",
            Daemon::Gobgp => "gobgpd.toml",
            Daemon::Openbgpd => "openbgpd.conf",
            Daemon::Direct => continue,
        };
        let _ = writeln!(
            text,
            "| {} | {} | [{file}](../lab/bench/daemons/{file}) |",
            daemon.title(),
            escape(&origins.version(daemon))
        );
    }
    let (daemon_core, generator_core) = origins.cores();
    let _ = write!(
        text,
        "
A daemon that did not come to the end of a case in its first two rounds was not tried again there; in the second
placement, one such round was then enough.

To repeat it, as root: `make bench`, or some cases with `make bench CASES=table,fan-out`, which leaves the others as
they are (`target/release/caracal-bench --list` names them). The tables hold {per_path} prefixes for each set of
attributes (`--prefixes-per-path`), with lengths as in the Internet's table, paths of two to eight ASes and some
communities.

The generator opens the sessions itself, from addresses of its own in a network namespace that one link joins to
the daemon's (two links where kernel routes are measured). Senders write UPDATEs that were encoded before;
receivers read on the same thread and compare every prefix with what it should be, so that the end is the instant
at which they hold exactly the expected table, attribute by attribute. Of those, the daemon's own part (its AS in
front, ORIGINATOR_ID and CLUSTER_LIST, the next hop) is checked for being right, and MED towards external peers is
left to the daemon. The row *{direct}* shows the same receivers when a second generator stands in the daemon's
place and writes at once what a daemon would say: what the generator itself can take.

*Pinned*: the daemon with all its threads on {daemon_core}, the generator on {generator_core}.
*Unpinned*: as the scheduler likes. Processor time is that of all the daemon's processes and threads, until nothing
comes any more; memory is the sum of their highest resident sets.

",
        per_path = origins.per_path(),
        direct = Daemon::Direct.title(),
    );
}

fn tables(result: &CaseResult, placement: Placement, text: &mut String) {
    let metrics = result.case.metrics;
    let _ = writeln!(text, "{}:\n", sentence(placement.name()));
    let heads: Vec<String> = metrics.iter().map(head).collect();
    let _ = writeln!(text, "| | {} |", heads.join(" | "));
    let _ = writeln!(text, "|---|{}", "--:|".repeat(metrics.len()));
    for daemon in Daemon::ALL {
        // A daemon or a placement may have come to the bench after the case was measured.
        let series = result.series(placement, daemon);
        let reason = series.map_or(Some("not measured yet".to_owned()), Series::reason);
        match (series, reason) {
            (Some(series), None) => {
                let cells: Vec<String> =
                    metrics.iter().map(|metric| cell(metric, series)).collect();
                let _ = writeln!(text, "| {} | {} |", daemon.title(), cells.join(" | "));
            }
            (_, reason) => {
                let rest = " |".repeat(metrics.len() - 1);
                let reason = escape(&reason.unwrap_or_default());
                let _ = writeln!(text, "| {} | {reason} |{rest}", daemon.title());
            }
        }
    }
    text.push('\n');
    let mut any = false;
    for daemon in Daemon::ALL {
        let series = result.series(placement, daemon);
        for note in series.map(Series::notes).unwrap_or_default() {
            let _ = writeln!(text, "- {}: {}", daemon.title(), escape(&note));
            any = true;
        }
    }
    for metric in result.close_to_generator(placement) {
        let _ = writeln!(
            text,
            "- {}: of \"{}\" the generator takes the greater part for itself.",
            Daemon::Caracal.title(),
            metric.label
        );
        any = true;
    }
    if any {
        text.push('\n');
    }
}

fn sentence(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

/// What a daemon said may hold anything.
pub(super) fn escape(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
        .replace('|', "\\|")
        .replace('<', "&lt;")
}
