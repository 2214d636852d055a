//! docs/benchmarks.md and its plot.

use std::fmt::Write as _;
use std::path::Path;

use super::{CaseResult, Report, cell, head, plot, wording, write};
use crate::daemons::Daemon;
use crate::measure::Verdict;
use crate::options::Placement;

/// Writes the page to `file` and the plot beside it, with the same name and `.svg`.
///
/// # Errors
/// Something is missing in the report, or a file cannot be written.
pub fn write_page(report: &Report, file: &Path) -> anyhow::Result<()> {
    crate::plan::complete(report)?;
    let plot_file = file.with_extension("svg");
    let name = plot_file
        .file_name()
        .map(|name| name.to_string_lossy().into_owned())
        .unwrap_or_default();
    write(&plot_file, &plot::render(report))?;
    write(file, &render(report, &name))
}

/// The page's text; `plot` is how it refers to the plot.
pub(super) fn render(report: &Report, plot: &str) -> String {
    let mut text = String::from(HEAD);
    let _ = writeln!(text, "![Times and memory of each daemon, pinned]({plot})\n");
    targets(report, &mut text);
    how(report, &mut text);
    let mut shown = "";
    for result in &report.results {
        if result.case.name != shown {
            shown = result.case.name;
            let _ = writeln!(
                text,
                "## {}\n\n`{shown}`. {}\n",
                result.case.title, result.case.about
            );
        }
        case(result, &mut text);
    }
    text
}

const HEAD: &str = "# Benchmarks

Written by `make bench`; nothing here is written by hand. The daemons ran one after another, in turns within each
round, on the same generator and the same machine. Absolute times belong to this machine and this run; the ratios
are what to read. Medians over the rounds; in brackets the lowest and the highest round.

";

fn targets(report: &Report, text: &mut String) {
    text.push_str("## Targets\n\nThe pinned placement counts.\n\n");
    text.push_str("| case | target | measured | |\n|---|---|---|---|\n");
    for result in &report.results {
        if result.placement != Placement::Pinned {
            continue;
        }
        for target in result.case.targets {
            let (detail, word) = match result.judge(target) {
                Verdict::Reached(detail) => (detail, "reached"),
                Verdict::Missed(detail) => (detail, "**not reached**"),
                Verdict::Unknown(detail) => (detail, "unknown"),
            };
            let _ = writeln!(
                text,
                "| {} | {} | {detail} | {word} |",
                result.case.name,
                wording(&result.case, target)
            );
        }
    }
    text.push('\n');
}

fn how(report: &Report, text: &mut String) {
    let machine = &report.machine;
    let options = &report.options;
    let _ = writeln!(
        text,
        "## How it was measured\n\n\
         {day}, {cores} cores of {processor}, {memory:.0} GiB, Linux {kernel}. {rounds} rounds; a daemon that did \
         not reach the end twice was not tried again.\n",
        day = machine.day,
        cores = machine.cores,
        processor = machine.processor,
        memory = machine.memory,
        kernel = machine.kernel,
        rounds = options.rounds,
    );
    text.push_str("| daemon | version | configuration |\n|---|---|---|\n");
    for (daemon, version) in &report.versions {
        let file = match daemon {
            Daemon::Caracal => "caracal.yaml",
            Daemon::Bird => "bird.conf",
            Daemon::Frr => "frr-bgpd.conf",
            Daemon::Gobgp => "gobgpd.toml",
            Daemon::Openbgpd => "openbgpd.conf",
            Daemon::Direct => continue,
        };
        let version = match version {
            Ok(version) => version.clone(),
            Err(reason) => format!("none: {reason}"),
        };
        let _ = writeln!(
            text,
            "| {} | {version} | [{file}](../lab/bench/daemons/{file}) |",
            daemon.title()
        );
    }
    let _ = write!(
        text,
        "
To repeat it, as root: `make bench`, or one case with `target/release/caracal-bench --cases NAME`
(`--list` names them, `--quick` runs one round). The tables hold about {per_path} prefixes for each set of
attributes (`--prefixes-per-path`), with lengths as in the Internet's table, paths of two to eight ASes and some
communities.

The generator opens the sessions itself, from addresses of its own in a network namespace that one link joins to
the daemon's (two links where kernel routes are measured). Senders write UPDATEs that were encoded before;
receivers read on the same thread and compare every prefix with what it should be, so that the end is the instant
at which they hold exactly the expected table, attribute by attribute. Of those, the daemon's own part (its AS in
front, ORIGINATOR_ID and CLUSTER_LIST, the next hop) is checked for being right, and MED towards external peers is
left to the daemon. The row *{direct}* shows the same receivers when a second generator stands in the daemon's
place and writes at once what a daemon would say: what the generator itself can take.

*Pinned*: the daemon with all its threads on core {daemon_core}, the generator on core {generator_core}.
*Unpinned*: as the scheduler likes. Processor time is that of all the daemon's processes and threads, until nothing
comes any more; memory is the sum of their highest resident sets.

",
        per_path = options.prefixes_per_path,
        direct = Daemon::Direct.title(),
        daemon_core = options.daemon_core,
        generator_core = options.generator_core,
    );
}

fn case(result: &CaseResult, text: &mut String) {
    let _ = writeln!(text, "{}:\n", sentence(result.placement.name()));
    let metrics = result.case.metrics;
    let heads: Vec<String> = metrics.iter().map(head).collect();
    let _ = writeln!(text, "| | {} |", heads.join(" | "));
    let _ = writeln!(text, "|---|{}", "--:|".repeat(metrics.len()));
    for (daemon, series) in &result.series {
        if let Some(reason) = series.reason() {
            let rest = " |".repeat(metrics.len() - 1);
            let _ = writeln!(text, "| {} | {} |{rest}", daemon.title(), escape(&reason));
            continue;
        }
        let cells: Vec<String> = metrics.iter().map(|metric| cell(metric, series)).collect();
        let _ = writeln!(text, "| {} | {} |", daemon.title(), cells.join(" | "));
    }
    text.push('\n');
    let mut any = false;
    for (daemon, series) in &result.series {
        for note in series.notes() {
            let _ = writeln!(text, "- {}: {}", daemon.title(), escape(&note));
            any = true;
        }
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
fn escape(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
        .replace('|', "\\|")
        .replace('<', "&lt;")
}
