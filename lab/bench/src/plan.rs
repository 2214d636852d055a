//! Which case runs when, where and with whom.
//!
//! Owns the order: daemons take turns within a round and rounds follow each other, so that what drifts on the
//! machine meets all of them alike. Does not own what a run does ([`crate::cases`]).

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::book::{Book, CaseResult};
use crate::cases::{ALL, Case};
use crate::clock::{span, time};
use crate::daemons::Daemon;
use crate::interrupt;
use crate::measure::{Outcome, Series, Value};
use crate::net::netns::cores;
use crate::options::{Options, Placement};
use crate::setting::{Setting, Versions};
use crate::source::stamp;
use crate::stage::Run;

/// After so many rounds without an end in sight, a daemon is not tried again in that case and placement.
const HOPELESS: usize = 2;
/// So many are enough where that was so in another placement already.
const HOPELESS_AGAIN: usize = 1;

/// Looks whether the command line can be carried out, before anything is started.
///
/// # Errors
/// It cannot; says why.
pub fn check(options: &Options) -> anyhow::Result<()> {
    selected(options)?;
    ensure!(options.rounds > 0, "no rounds to run");
    ensure!(
        options.prefixes_per_path >= 1.0 && options.scale > 0.0,
        "--prefixes-per-path is at least 1 and --scale more than 0"
    );
    if options.docs.is_some() {
        check_docs(options)?;
    }
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces need root"
    );
    Ok(())
}

/// What the page tells of a case must be all of it, and as it says.
fn check_docs(options: &Options) -> anyhow::Result<()> {
    let parts = [
        ("--quick", options.quick),
        ("--scale", options.scale != 1.0),
        ("--daemons", !options.daemons.is_empty()),
        ("--placements", !options.placements.is_empty()),
    ];
    for (flag, given) in parts {
        ensure!(
            !given,
            "the page is written from complete measurements only: {flag} does not go with --docs, --cases does"
        );
    }
    if let Some(page) = &options.docs {
        ensure!(
            page.extension().is_some_and(|extension| extension == "md"),
            "{} does not end in .md; its data and its plot have the same name and other endings",
            page.display()
        );
    }
    if let Err(reason) = Daemon::Caracal.version(&options.caracal) {
        bail!("the page is not written without our own daemon: {reason}");
    }
    ensure!(
        !cfg!(debug_assertions),
        "the page is not written by a debug build"
    );
    Ok(())
}

/// Raises the number of open files to what the system allows: thousands of sessions need thousands.
pub fn raise_limits() {
    if let Ok((_, most)) = getrlimit(Resource::RLIMIT_NOFILE) {
        // Where it cannot be raised, the cases that need it fail and say so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, most, most);
    }
}

/// Runs everything that was asked for, and hands over each case when it is done. `known` is what was measured
/// before, which tells how long it takes.
///
/// # Errors
/// An interrupt, our binary was replaced under way, or `done` fails. What goes wrong with a daemon is a result.
pub fn run(
    options: &Options,
    known: &Book,
    mut done: impl FnMut(CaseResult) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let cases = selected(options)?;
    say(&format!("to do: {}", to_go(options, &cases, known)));
    let begin = Instant::now();
    for (place, case) in cases.iter().enumerate() {
        let result = measure(options, case)?;
        let took = span(result.seconds);
        done(result)?;
        say(&format!(
            "{} took {took}; {} since the start; to do: {}",
            case.name,
            span(begin.elapsed().as_secs_f64()),
            to_go(options, &cases[place + 1..], known)
        ));
    }
    Ok(())
}

/// What is still to be run, and how long that will take.
fn to_go(options: &Options, cases: &[&Case], known: &Book) -> String {
    let names: Vec<&str> = cases.iter().map(|case| case.name).collect();
    if names.is_empty() {
        return "nothing".to_owned();
    }
    let seconds: f64 = cases
        .iter()
        .map(|case| expected(options, case, known).as_secs_f64())
        .sum();
    let word = match options.scale {
        1.0 => "about ",
        scale if scale < 1.0 => "less than ",
        _ => "more than ",
    };
    format!("{}, {word}{}", names.join(", "), span(seconds))
}

/// How long a case will take at full scale, by what it took before or else by what is usual, and by how much of it
/// is to be run.
fn expected(options: &Options, case: &Case, known: &Book) -> Duration {
    const USUAL_ROUNDS: usize = 5;
    let (took, of) = match known.get(case) {
        Some(result) => (result.seconds, result.setting.rounds),
        None => (case.usual.as_secs_f64(), USUAL_ROUNDS),
    };
    let share = |part: usize, whole: usize| part as f64 / whole as f64;
    let asked = Placement::ALL
        .into_iter()
        .filter(|place| wanted(options, *place));
    let seconds = took
        * share(options.rounds(), of)
        * share(daemons(options).len(), Daemon::ALL.len())
        * share(asked.count(), Placement::ALL.len());
    // What stands in a file may be anything.
    Duration::try_from_secs_f64(seconds).unwrap_or(case.usual)
}

/// The daemons asked for.
fn daemons(options: &Options) -> &[Daemon] {
    match &options.daemons[..] {
        [] => &Daemon::ALL,
        some => some,
    }
}

/// Whether a placement was asked for.
fn wanted(options: &Options, placement: Placement) -> bool {
    options.placements.is_empty() || options.placements.contains(&placement)
}

/// A line for those who wait, with the time of day in UTC.
fn say(text: &str) {
    eprintln!("[{}] {text}", time());
}

/// One case in all its placements.
fn measure(options: &Options, case: &'static Case) -> anyhow::Result<CaseResult> {
    let versions: Versions = daemons(options)
        .iter()
        .map(|daemon| (*daemon, daemon.version(&options.caracal)))
        .collect();
    let setting = Setting::here(options, versions);
    let binary = stamp(&options.caracal);
    let begin = Instant::now();
    let mut placements = BTreeMap::new();
    for placement in Placement::ALL {
        if wanted(options, placement) {
            let series = play(options, case, placement, &setting.versions, &placements)?;
            placements.insert(placement, series);
        }
    }
    ensure!(
        stamp(&options.caracal) == binary,
        "{} was replaced while {} was measured: its results are nobody's",
        options.caracal.display(),
        case.name
    );
    Ok(CaseResult {
        case,
        setting,
        seconds: begin.elapsed().as_secs_f64().round(),
        placements,
    })
}

/// The cases asked for, each once, in the order of the list.
///
/// # Errors
/// There is no such case.
pub fn selected(options: &Options) -> anyhow::Result<Vec<&'static Case>> {
    let find = |name: &String| {
        ALL.iter()
            .find(|case| case.name == name)
            .with_context(|| format!("there is no case {name}; see --list"))
    };
    for name in &options.cases {
        find(name)?;
    }
    let asked =
        |case: &&Case| options.cases.is_empty() || options.cases.iter().any(|n| n == case.name);
    Ok(ALL.iter().filter(asked).collect())
}

fn play(
    options: &Options,
    case: &Case,
    placement: Placement,
    versions: &Versions,
    before: &BTreeMap<Placement, BTreeMap<Daemon, Series>>,
) -> anyhow::Result<BTreeMap<Daemon, Series>> {
    let rounds = options.rounds();
    let mut all: BTreeMap<Daemon, Series> = BTreeMap::new();
    for round in 1..=rounds {
        for (daemon, version) in versions {
            let series = all.entry(*daemon).or_default();
            let elsewhere = before.values().filter_map(|daemons| daemons.get(daemon));
            if hopeless(series, elsewhere) {
                continue;
            }
            let begin = Instant::now();
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
                        Ok(sample) => match sample.unsound() {
                            None => Outcome::Measured(sample),
                            Some(key) => Outcome::Failed(format!("{key} came out as no number")),
                        },
                        Err(error) => {
                            interrupt::check()?;
                            Outcome::Failed(format!("{error:#}"))
                        }
                    }
                }
            };
            say(&format!(
                "{} {} round {round}/{rounds} {daemon}, {:.1} s: {}",
                case.name,
                placement.name(),
                begin.elapsed().as_secs_f64(),
                line(case, &outcome)
            ));
            series.rounds.push(outcome);
        }
    }
    Ok(all)
}

/// Whether more rounds would show nothing new, given those so far and those of other placements.
fn hopeless<'a>(series: &Series, elsewhere: impl IntoIterator<Item = &'a Series>) -> bool {
    if matches!(series.rounds.first(), Some(Outcome::NotApplicable(_))) {
        return true;
    }
    let enough = if elsewhere.into_iter().any(|other| endless(other, HOPELESS)) {
        HOPELESS_AGAIN
    } else {
        HOPELESS
    };
    endless(series, enough)
}

/// Whether so many rounds or more were run, and none of them came to its end.
fn endless(series: &Series, least: usize) -> bool {
    let without_end = |outcome: &Outcome| match outcome {
        Outcome::Measured(sample) => sample.incomplete(),
        Outcome::Failed(_) => true,
        Outcome::NotApplicable(_) => false,
    };
    series.rounds.len() >= least && series.rounds.iter().all(without_end)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::Sample;
    use clap::Parser;

    #[test]
    fn cases_are_found_by_name_and_each_runs_once_and_unknown_ones_are_an_error() {
        let options = Options::parse_from(["caracal-bench", "--cases", "idle,table,idle"]);
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
            sample.values.insert("time".to_owned(), value);
            Outcome::Measured(sample)
        };
        let late = || measured(Value::NotIn(1.0));
        let good = || measured(Value::Number(1.0));
        let failed = || Outcome::Failed("x".into());
        let lacking = || Outcome::NotApplicable("x".into());
        let series = |rounds| Series { rounds };
        let cases = [
            (vec![], vec![], false),
            (vec![late()], vec![], false),
            (vec![late(), failed()], vec![], true),
            (vec![late(), good()], vec![], false),
            (vec![good(), late(), late()], vec![], false),
            (vec![lacking()], vec![], true),
            // Where it never came to an end in another placement, one more is enough.
            (vec![], vec![late(), late()], false),
            (vec![late()], vec![late(), late()], true),
            (vec![good()], vec![late(), late()], false),
            (vec![good(), late()], vec![late(), late()], false),
            (vec![late()], vec![late(), good()], false),
            (vec![late()], vec![late()], false),
            (vec![late()], vec![lacking()], false),
        ];
        for (rounds, elsewhere, expected) in cases {
            let (rounds, elsewhere) = (series(rounds), series(elsewhere));
            assert_eq!(
                hopeless(&rounds, [&elsewhere]),
                expected,
                "{rounds:?} after {elsewhere:?}"
            );
        }
    }

    #[test]
    fn what_is_not_the_whole_of_a_case_does_not_get_onto_the_page() {
        let cases: &[(&[&str], &str)] = &[
            (&["--quick"], "--quick does not go with --docs"),
            (&["--scale", "0.5"], "--scale does not go with --docs"),
            (&["--daemons", "bird"], "--daemons does not go with --docs"),
            (
                &["--placements", "pinned"],
                "--placements does not go with --docs",
            ),
            (&["--caracal", "/nowhere"], "without our own daemon"),
        ];
        for (more, expected) in cases {
            let all = [
                &["caracal-bench", "--docs", "x.md", "--cases", "table"],
                *more,
            ]
            .concat();
            let error = check(&Options::parse_from(all)).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let options = Options::parse_from(["caracal-bench", "--docs", "x.json"]);
        let error = check(&options).unwrap_err().to_string();
        assert!(error.contains("does not end in .md"), "{error}");
        let both = ["caracal-bench", "--render", "x.md", "--cases", "table"];
        assert!(Options::try_parse_from(both).is_err());
    }

    #[test]
    fn how_long_it_takes_is_what_it_took_by_the_share_that_is_run() {
        let case = &ALL[0];
        let usual = case.usual;
        let book = crate::book::example(&[case.name]);
        let before = Duration::from_secs_f64(book.results()[0].seconds);
        let nothing = Book::default();
        let cases: &[(&[&str], &Book, Duration)] = &[
            (&[], &nothing, usual),
            (&["--rounds", "10"], &nothing, usual * 2),
            (&["--quick"], &nothing, usual / 5),
            (&["--placements", "pinned"], &nothing, usual / 2),
            (&["--daemons", "caracal,bird"], &nothing, usual / 3),
            (&["--rounds", "3"], &book, before),
            (&["--rounds", "6"], &book, before * 2),
        ];
        for (more, known, time) in cases {
            let options = Options::parse_from([&["caracal-bench"], *more].concat());
            let seconds = expected(&options, case, known).as_secs_f64();
            let off = (seconds - time.as_secs_f64()).abs();
            assert!(off < 0.001, "{more:?}: {seconds} s instead of {time:?}");
        }
    }

    #[test]
    fn those_who_wait_are_told_what_is_to_do_and_how_long() {
        let told = |arguments: &[&str], cases: &[&Case]| {
            let options = Options::parse_from([&["caracal-bench"], arguments].concat());
            to_go(&options, cases, &Book::default())
        };
        let find = |name: &str| ALL.iter().find(|case| case.name == name).unwrap();
        let cases = [find("table"), find("fan-out")];
        assert_eq!(told(&[], &cases), "table, fan-out, about 27 min");
        assert_eq!(
            told(&["--scale", "0.1"], &cases[..1]),
            "table, less than 15 min"
        );
        assert_eq!(
            told(&["--scale", "2"], &cases[..1]),
            "table, more than 15 min"
        );
        assert_eq!(told(&[], &[]), "nothing");
    }
}
