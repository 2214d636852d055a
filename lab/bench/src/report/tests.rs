//! Results of everything that can happen, in every form.

use std::path::Path;

use clap::Parser;

use super::*;
use crate::book::{Book, example};
use crate::cases::ALL;
use crate::daemons::Daemon;
use crate::measure::{Outcome, Sample, Value};
use crate::options::Placement;
use crate::source::Source;

fn result() -> CaseResult {
    let measured = |announce: Value, memory: f64| {
        let mut sample = Sample::default();
        sample.values.insert("announce".to_owned(), announce);
        sample.number("memory", memory);
        sample.note("a <note> | with signs");
        Outcome::Measured(sample)
    };
    let series = |rounds: Vec<Outcome>| Series { rounds };
    let numbers = |numbers: &[f64], memory| {
        series(
            numbers
                .iter()
                .map(|number| measured(Value::Number(*number), memory))
                .collect(),
        )
    };
    let daemons = BTreeMap::from([
        (Daemon::Caracal, numbers(&[1.0, 3.0, 2.0], 100.0)),
        (Daemon::Bird, numbers(&[4.0, 4.0, 4.0], 50.0)),
        (
            Daemon::Frr,
            series(vec![measured(Value::NotIn(120.0), 1.0); 2]),
        ),
        (
            Daemon::Gobgp,
            series(vec![Outcome::NotApplicable("not here".into())]),
        ),
        (
            Daemon::Openbgpd,
            series(vec![Outcome::Failed("it died".into()); 2]),
        ),
        (
            Daemon::Direct,
            series(vec![Outcome::NotApplicable("no daemon".into())]),
        ),
    ]);
    let mut result = example(&["table"]).results()[0].clone();
    for placement in [Placement::Pinned, Placement::Unpinned] {
        result.placements.insert(placement, daemons.clone());
    }
    result
}

/// The table with everything that can happen, and the idle case with numbers alone.
fn book() -> Book {
    let mut book = example(&["idle"]);
    book.put(result()).unwrap();
    book
}

/// The book with another setting of its idle case.
fn changed(change: impl FnOnce(&mut CaseResult)) -> Book {
    let mut book = book();
    let mut idle = book.results()[1].clone();
    change(&mut idle);
    book.put(idle).unwrap();
    book
}

/// What the page says under the heading of a case before its first table.
fn line<'a>(page: &'a str, case: &str) -> &'a str {
    let case = format!("`{case}`. ");
    let mut lines = page.lines().skip_while(|line| !line.starts_with(&case));
    let mut lines = lines.by_ref().skip(1).filter(|line| !line.is_empty());
    lines.next().unwrap()
}

#[test]
fn the_table_tells_numbers_misses_failures_and_verdicts() {
    let text = text::render(&result());
    for expected in [
        "1 sender × 800,000 prefixes → 1 receiver [table, pinned]",
        "2.000 [1.000–3.000]",
        "4.000",
        "not in 120 s",
        "n/a (not here)",
        "failed (it died)",
        "target all arrived ≤ 0.8 × BIRD: 0.50, reached",
        "target peak memory ≤ 1.2 × BIRD: 2.00, not reached",
        "target all gone ≤ 0.8 × BIRD: not measured, unknown",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
}

#[test]
fn the_page_names_machine_versions_files_and_every_daemon_in_every_case() {
    let text = page::render(&book(), "benchmarks");
    for expected in [
        "](benchmarks.svg)",
        "](benchmarks.json)",
        "Measured on 2026-01-02, on 2 cores of a processor, 8 GiB, Linux 6.1. 3 rounds.",
        "| BIRD | 1.2.3 | [bird.conf](../lab/bench/daemons/bird.conf) |",
        "| Caracal | 1.2.3 (commit 0123456789ab) | [caracal.yaml]",
        "| table | all arrived ≤ 0.8 × BIRD | 0.50 | reached |",
        "| table | peak memory ≤ 1.2 × BIRD | 2.00 | **not reached** |",
        "| OpenBGPD | failed (it died) |",
        "| FRR | not in 120 s |",
        "- BIRD: a &lt;note> \\| with signs",
        "Unpinned:",
        "all its threads on core 0, the generator on core 1",
        "about 6 prefixes",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert_eq!(
        line(&text, "table"),
        "Measured on 2026-01-02: Caracal 1.2.3 (commit 0123456789ab); 3 rounds."
    );
    // The files that it points to are there.
    for name in [
        "bird.conf",
        "caracal.yaml",
        "frr-bgpd.conf",
        "gobgpd.toml",
        "openbgpd.conf",
    ] {
        let file = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("daemons")
            .join(name);
        assert!(file.exists(), "{name}");
        assert!(text.contains(name), "{name}");
    }
    let table = text.split_once("## 1 sender").unwrap().1;
    let table = table.split_once("\n## ").unwrap().0;
    let columns = |row: &str| row.replace("\\|", "").matches('|').count();
    let rows: Vec<&str> = table.lines().filter(|l| l.starts_with("| ")).collect();
    assert_eq!(rows.len(), 2 * (1 + Daemon::ALL.len()), "{table}");
    for row in rows {
        assert_eq!(columns(row), result().case.metrics.len() + 2, "{row}");
    }
}

#[test]
fn what_was_not_measured_is_on_the_page_and_says_so() {
    let text = page::render(&book(), "benchmarks");
    for case in ALL {
        let measured = ["table", "idle"].contains(&case.name);
        assert!(text.contains(&format!("## {}\n", case.title)), "{text}");
        assert_eq!(line(&text, case.name) == "Not measured yet.", !measured);
        for target in case.targets {
            let row = format!("| {} | {} | ", case.name, wording(case, target));
            let row = text.lines().find(|line| line.starts_with(&row)).unwrap();
            assert_eq!(row.contains("not measured yet"), !measured, "{row}");
        }
    }
    let nothing = page::render(&Book::default(), "benchmarks");
    assert!(nothing.contains("Nothing was measured yet."), "{nothing}");
    assert!(nothing.contains("| BIRD | not measured yet |"), "{nothing}");
    assert_eq!(nothing.matches("\nNot measured yet.\n").count(), ALL.len());
}

#[test]
fn what_cases_do_not_share_stands_with_each_of_them() {
    let later = changed(|idle| {
        idle.setting.day = "2026-03-04".into();
        idle.setting.rounds = 1;
        idle.setting.source = Source::Commit {
            name: "ba9876543210".into(),
            changed: true,
        };
        idle.setting.versions.insert(Daemon::Frr, Ok("9.9".into()));
        idle.setting.prefixes_per_path = 2.0;
        idle.setting.daemon_core = 3;
    });
    let text = page::render(&later, "benchmarks");
    for expected in [
        "Measured from 2026-01-02 to 2026-03-04, on 2 cores of a processor, 8 GiB, Linux 6.1. Not all cases",
        "| Caracal | differs, see the cases |",
        "| BIRD | 1.2.3 |",
        "| FRR | differs, see the cases |",
        "on one core, the generator on core 1",
        "several prefixes",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(!text.contains("the same machine: compare"));
    let rest =
        "; about 6 prefixes for each set of attributes; pinned to core 0, the generator to core 1.";
    assert_eq!(
        line(&text, "table"),
        format!(
            "Measured on 2026-01-02: Caracal 1.2.3 (commit 0123456789ab); 3 rounds; FRR 1.2.3{rest}"
        )
    );
    assert_eq!(
        line(&text, "idle"),
        "Measured on 2026-03-04: Caracal 1.2.3 (commit ba9876543210, with changes that were not committed); 1 round; \
         FRR 9.9; about 2 prefixes for each set of attributes; pinned to core 3, the generator to core 1."
    );
    let unknown = changed(|idle| idle.setting.source = Source::Unknown("no notes".into()));
    let text = page::render(&unknown, "benchmarks");
    assert!(line(&text, "idle").contains("Caracal 1.2.3 (commit unknown: no notes);"));
}

#[test]
fn a_case_from_another_machine_is_told_at_the_head_and_with_the_case() {
    let elsewhere = changed(|idle| idle.setting.machine.cores = 64);
    let text = page::render(&elsewhere, "benchmarks");
    for expected in [
        "**Not all cases were measured on the same machine: compare within a case only.**",
        "\n- 2 cores of a processor, 8 GiB, Linux 6.1: table\n",
        "\n- 64 cores of a processor, 8 GiB, Linux 6.1: idle\n",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
    assert!(line(&text, "idle").ends_with("; 64 cores of a processor, 8 GiB, Linux 6.1."));
    assert!(line(&text, "table").ends_with("; 2 cores of a processor, 8 GiB, Linux 6.1."));
}

#[test]
fn the_plot_has_a_bar_for_every_median_and_words_for_what_did_not_end() {
    let mut book = Book::default();
    book.put(result()).unwrap();
    let text = plot::render(&book);
    assert_eq!(text.matches("<rect").count(), 2 + 2 + 1, "{text}");
    assert_eq!(text.matches(r#"class="ours""#).count(), 2);
    assert_eq!(text.matches("not in 120 s").count(), 1);
    assert!(text.contains("prefers-color-scheme: dark"));
    assert_eq!(
        text.matches("<text").count(),
        text.matches("</text>").count()
    );
}

#[test]
fn json_reads_back_with_rounds_and_summaries() {
    let text = json(&Options::parse_from(["caracal-bench"]), &[result()]).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let caracal = &value["results"][0]["daemons"]["caracal"];
    assert_eq!(caracal["summary"]["announce"]["median"]["median"], 2.0);
    assert_eq!(
        caracal["rounds"]["rounds"].as_array().map(Vec::len),
        Some(3)
    );
    let unpinned = &value["results"][1];
    assert_eq!(unpinned["placement"], "unpinned");
    assert_eq!(unpinned["measured_with"]["versions"]["bird"]["Ok"], "1.2.3");
    assert!(value["results"][0]["targets"][0]["verdict"]["Reached"].is_string());
    assert_eq!(value["options"]["rounds"], 5);
}
