//! A report of everything that can happen, in every form.

use clap::Parser;

use super::*;
use crate::cases::ALL;
use crate::measure::{Outcome, Sample, Value};

fn report() -> Report {
    let case = ALL.iter().find(|case| case.name == "table").unwrap();
    let measured = |announce: Value, memory: f64| {
        let mut sample = Sample::default();
        sample.values.insert("announce", announce);
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
    let of = |placement| CaseResult {
        case: *case,
        placement,
        series: BTreeMap::from([
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
        ]),
    };
    let versions = Daemon::ALL[..5]
        .iter()
        .map(|daemon| (*daemon, Ok("1.2.3".to_owned())));
    Report {
        machine: Machine {
            processor: "a processor".into(),
            cores: 2,
            memory: 8.0,
            kernel: "6.1".into(),
            day: "2026-01-02".into(),
        },
        options: Options::parse_from(["caracal-bench"]),
        versions: versions.collect(),
        results: vec![of(Placement::Pinned), of(Placement::Unpinned)],
    }
}

#[test]
fn the_table_tells_numbers_misses_failures_and_verdicts() {
    let text = text::render(&report());
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
    let text = page::render(&report(), "benchmarks.svg");
    for expected in [
        "](benchmarks.svg)",
        "2 cores of a processor",
        "| BIRD | 1.2.3 | [bird.conf](../lab/bench/daemons/bird.conf) |",
        "| table | all arrived ≤ 0.8 × BIRD | 0.50 | reached |",
        "| table | peak memory ≤ 1.2 × BIRD | 2.00 | **not reached** |",
        "| OpenBGPD | failed (it died) |",
        "| FRR | not in 120 s |",
        "- BIRD: a &lt;note> \\| with signs",
        "Unpinned:",
    ] {
        assert!(text.contains(expected), "{expected}\n{text}");
    }
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
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| Caracal"))
        .collect();
    let columns = |row: &str| row.replace("\\|", "").matches('|').count();
    let metrics = report().results[0].case.metrics.len();
    for row in &rows[1..] {
        assert_eq!(columns(row), metrics + 2, "{row}");
    }
}

#[test]
fn the_plot_has_a_bar_for_every_median_and_words_for_what_did_not_end() {
    let text = plot::render(&report());
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
    let text = json(&report()).unwrap();
    let value: serde_json::Value = serde_json::from_str(&text).unwrap();
    let caracal = &value["results"][0]["daemons"]["caracal"];
    assert_eq!(caracal["summary"]["announce"]["median"]["median"], 2.0);
    assert_eq!(
        caracal["rounds"]["rounds"].as_array().map(Vec::len),
        Some(3)
    );
    assert_eq!(value["results"][1]["placement"], "unpinned");
    assert_eq!(value["versions"]["bird"]["Ok"], "1.2.3");
    assert!(value["results"][0]["targets"][0]["verdict"]["Reached"].is_string());
}

#[test]
fn a_page_is_not_written_when_a_daemon_is_missing() {
    let mut short = report();
    short.results[1].series.remove(&Daemon::Bird);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("benchmarks.md");
    assert!(page::write_page(&short, &file).is_err());
    assert!(!file.exists());
    page::write_page(&report(), &file).unwrap();
    assert!(folder.path().join("benchmarks.svg").exists());
}
