//! Which case runs when, where and with whom.
//!
//! Owns the order: daemons take turns within a round and rounds follow each other, so that what drifts on the
//! machine meets all of them alike. Does not own what a run does ([`crate::cases`]).

use std::collections::BTreeMap;

use anyhow::{Context, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cases::{ALL, Case};
use crate::daemons::Daemon;
use crate::interrupt;
use crate::machine::Machine;
use crate::measure::{Outcome, Series, Value};
use crate::net::netns::cores;
use crate::options::{Options, Placement};
use crate::report::{CaseResult, Report};
use crate::stage::Run;

/// After so many rounds without an end in sight, a daemon is not tried again in that case and placement.
const HOPELESS: usize = 2;

/// Looks whether the command line can be carried out, before anything is started.
///
/// # Errors
/// It cannot; says why.
pub fn check(options: &Options) -> anyhow::Result<()> {
    selected(options)?;
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces need root"
    );
    ensure!(options.rounds > 0, "no rounds to run");
    ensure!(
        options.prefixes_per_path >= 1.0 && options.scale > 0.0,
        "--prefixes-per-path is at least 1 and --scale more than 0"
    );
    if options.docs.is_some() {
        ensure!(
            options.scale == 1.0 && options.cases.is_empty() && options.daemons.is_empty(),
            "the page is written from complete runs only: no --scale, --cases or --daemons with --docs"
        );
        ensure!(
            !cfg!(debug_assertions),
            "the page is not written by a debug build"
        );
    }
    Ok(())
}

/// Raises the number of open files to what the system allows: thousands of sessions need thousands.
pub fn raise_limits() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, the cases that need it fail and say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Runs everything that was asked for.
///
/// # Errors
/// An interrupt. What goes wrong with a daemon is a result.
pub fn run(options: &Options) -> anyhow::Result<Report> {
    let daemons: Vec<Daemon> = match &options.daemons[..] {
        [] => Daemon::ALL.to_vec(),
        some => some.to_vec(),
    };
    let versions: BTreeMap<Daemon, Result<String, String>> = daemons
        .iter()
        .map(|daemon| (*daemon, daemon.version(&options.caracal)))
        .collect();
    let mut results = Vec::new();
    for case in selected(options)? {
        for placement in (case.placements)() {
            if options.placements.is_empty() || options.placements.contains(placement) {
                let series = play(options, case, *placement, &versions)?;
                results.push(CaseResult {
                    case: *case,
                    placement: *placement,
                    series,
                });
            }
        }
    }
    Ok(Report {
        machine: Machine::here(),
        options: options.clone(),
        versions,
        results,
    })
}

fn selected(options: &Options) -> anyhow::Result<Vec<&'static Case>> {
    if options.cases.is_empty() {
        return Ok(ALL.iter().collect());
    }
    let find = |name: &String| {
        ALL.iter()
            .find(|case| case.name == name)
            .with_context(|| format!("there is no case {name}; see --list"))
    };
    options.cases.iter().map(find).collect()
}

fn play(
    options: &Options,
    case: &Case,
    placement: Placement,
    versions: &BTreeMap<Daemon, Result<String, String>>,
) -> anyhow::Result<BTreeMap<Daemon, Series>> {
    let rounds = if options.quick { 1 } else { options.rounds };
    let mut all: BTreeMap<Daemon, Series> = BTreeMap::new();
    for round in 1..=rounds {
        for (daemon, version) in versions {
            let series = all.entry(*daemon).or_default();
            if hopeless(series) {
                continue;
            }
            let outcome = match (
                version,
                (case.lacks)(*daemon),
                placeable(options, placement),
            ) {
                (Err(reason), ..) => Outcome::NotApplicable(reason.clone()),
                (_, Some(reason), _) => Outcome::NotApplicable(reason.to_owned()),
                (.., Err(reason)) => Outcome::NotApplicable(reason),
                (Ok(_), None, Ok(())) => {
                    let run = Run {
                        options,
                        daemon: *daemon,
                        placement,
                        limit: case.limit,
                    };
                    match (case.run)(run) {
                        Ok(sample) => Outcome::Measured(sample),
                        Err(error) => {
                            interrupt::check()?;
                            Outcome::Failed(format!("{error:#}"))
                        }
                    }
                }
            };
            eprintln!(
                "{} {} round {round}/{rounds} {daemon}: {}",
                case.name,
                placement.name(),
                line(case, &outcome)
            );
            series.rounds.push(outcome);
        }
    }
    Ok(all)
}

/// Whether more rounds would show nothing new.
fn hopeless(series: &Series) -> bool {
    let without_end = |outcome: &&Outcome| match outcome {
        Outcome::Measured(sample) => sample.incomplete(),
        Outcome::NotApplicable(_) | Outcome::Failed(_) => true,
    };
    let applicable = !matches!(series.rounds.first(), Some(Outcome::NotApplicable(_)));
    !applicable
        || series.rounds.len() >= HOPELESS
            && series.rounds.iter().filter(without_end).count() == series.rounds.len()
}

fn placeable(options: &Options, placement: Placement) -> Result<(), String> {
    let cores = cores();
    let has = |core| cores.contains(&core);
    if placement == Placement::Unpinned
        || has(options.daemon_core)
            && has(options.generator_core)
            && options.daemon_core != options.generator_core
    {
        return Ok(());
    }
    Err(format!(
        "cores {} and {} are not both there",
        options.daemon_core, options.generator_core
    ))
}

/// An outcome in a line, for those who wait.
fn line(case: &Case, outcome: &Outcome) -> String {
    match outcome {
        Outcome::NotApplicable(reason) => format!("n/a ({reason})"),
        Outcome::Failed(reason) => format!("failed ({reason})"),
        Outcome::Measured(sample) => {
            let mut parts: Vec<String> = case
                .metrics
                .iter()
                .filter_map(|metric| {
                    let text = match sample.values.get(metric.key)? {
                        Value::Number(number) => {
                            format!("{} {}", metric.unit.show(*number), metric.unit.symbol())
                        }
                        Value::NotIn(limit) => format!("not in {limit:.0} s"),
                    };
                    Some(format!("{} {}", metric.label, text.trim()))
                })
                .collect();
            parts.extend(sample.notes.iter().cloned());
            parts.join(", ")
        }
    }
}

/// Fails when a result is missing that was asked for. Every daemon of every case must appear, be it as "n/a".
///
/// # Errors
/// Names what is missing.
pub fn complete(report: &Report) -> anyhow::Result<()> {
    for result in &report.results {
        for daemon in report.versions.keys() {
            if result
                .series
                .get(daemon)
                .is_none_or(|series| series.rounds.is_empty())
            {
                bail!("{}: nothing of {daemon}", result.case.name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;
    use clap::Parser;

    #[test]
    fn cases_are_found_by_name_and_unknown_ones_are_an_error() {
        let options = Options::parse_from(["caracal-bench", "--cases", "table,idle"]);
        let names: Vec<&str> = selected(&options).unwrap().iter().map(|c| c.name).collect();
        assert_eq!(names, ["table", "idle"]);
        let options = Options::parse_from(["caracal-bench", "--cases", "tables"]);
        assert!(
            selected(&options)
                .unwrap_err()
                .to_string()
                .contains("--list")
        );
    }

    #[test]
    fn a_daemon_without_an_end_is_given_up_after_two_rounds_and_one_that_cannot_after_one() {
        let measured = |value| {
            let mut sample = Sample::default();
            sample.values.insert("time", value);
            Outcome::Measured(sample)
        };
        let late = || measured(Value::NotIn(1.0));
        let good = || measured(Value::Number(1.0));
        let failed = || Outcome::Failed("x".into());
        let cases = [
            (vec![], false),
            (vec![late()], false),
            (vec![late(), failed()], true),
            (vec![late(), good()], false),
            (vec![good(), late(), late()], false),
            (vec![Outcome::NotApplicable("x".into())], true),
        ];
        for (rounds, expected) in cases {
            let series = Series { rounds };
            assert_eq!(hopeless(&series), expected, "{series:?}");
        }
    }

    #[test]
    fn the_page_is_not_written_from_part_of_a_run() {
        let options = Options::parse_from(["caracal-bench", "--docs", "x.md", "--cases", "table"]);
        let error = check(&options).unwrap_err().to_string();
        assert!(
            error.contains("complete") || error.contains("root"),
            "{error}"
        );
        assert!(Options::try_parse_from(["caracal-bench", "--docs", "x", "--quick"]).is_err());
    }
}
