//! What is kept reads back as it was, replaces what it should, and is refused where it would not be true.

use proptest::prelude::*;

use super::*;
use crate::machine::Machine;
use crate::measure::{Sample, Value};
use crate::source::Source;

/// Complete results of the cases named: every metric is 1, 2, 3 in three rounds, for everyone.
pub(crate) fn example(names: &[&str]) -> Book {
    let mut book = Book::default();
    for case in ALL.iter().filter(|case| names.contains(&case.name)) {
        book.put(result(case)).unwrap();
    }
    book
}

fn result(case: &'static Case) -> CaseResult {
    let sample = |number: f64| {
        let mut sample = Sample::default();
        for metric in case.metrics {
            sample.number(metric.key, number);
        }
        Outcome::Measured(sample)
    };
    let series = Series {
        rounds: [1.0, 2.0, 3.0].map(sample).to_vec(),
    };
    let daemons: BTreeMap<Daemon, Series> =
        Daemon::ALL.map(|daemon| (daemon, series.clone())).into();
    CaseResult {
        case,
        setting: setting("2026-01-02"),
        seconds: 600.0,
        placements: Placement::ALL.map(|place| (place, daemons.clone())).into(),
    }
}

fn setting(day: &str) -> Setting {
    Setting {
        day: day.to_owned(),
        machine: Machine {
            processor: "a processor".into(),
            cores: 2,
            memory: 7.9,
            kernel: "6.1".into(),
        },
        source: Source::Commit {
            name: "0123456789ab".into(),
            changed: false,
        },
        versions: Daemon::ALL
            .map(|daemon| (daemon, Ok("1.2.3".into())))
            .into(),
        rounds: 3,
        prefixes_per_path: 6.0,
        daemon_core: 0,
        generator_core: 1,
    }
}

/// A folder with the text of a book, changed.
fn file(book: &Book, change: impl FnOnce(String) -> String) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.json");
    std::fs::write(&file, change(book.text().unwrap())).unwrap();
    (folder, file)
}

fn names(book: &Book) -> Vec<&'static str> {
    book.results()
        .iter()
        .map(|result| result.case.name)
        .collect()
}

fn case(name: &str) -> &'static Case {
    ALL.iter().find(|case| case.name == name).unwrap()
}

fn arbitrary_outcome() -> impl Strategy<Value = Outcome> {
    let keys = case("table").metrics.iter().map(|metric| metric.key);
    let keys = prop::sample::select(keys.collect::<Vec<_>>()).prop_map(str::to_owned);
    let finite = prop::num::f64::NORMAL | prop::num::f64::ZERO | prop::num::f64::SUBNORMAL;
    let value = prop_oneof![
        finite.prop_map(Value::Number),
        (0.0..1e4_f64).prop_map(Value::NotIn),
    ];
    let sample = (
        prop::collection::btree_map(keys, value, 0..5),
        prop::collection::vec(any::<String>(), 0..3),
    );
    prop_oneof![
        sample.prop_map(|(values, notes)| Outcome::Measured(Sample { values, notes })),
        any::<String>().prop_map(Outcome::NotApplicable),
        any::<String>().prop_map(Outcome::Failed),
    ]
}

fn arbitrary_setting() -> impl Strategy<Value = Setting> {
    let source = prop_oneof![
        any::<(String, bool)>().prop_map(|(name, changed)| Source::Commit { name, changed }),
        any::<String>().prop_map(Source::Unknown),
    ];
    let version = any::<Result<String, String>>();
    let versions = prop::array::uniform6(version)
        .prop_map(|versions| Daemon::ALL.into_iter().zip(versions).collect());
    let numbers = (1..99_usize, 1.0..99.0_f64, 0.1..1e4_f64, 0..99_usize);
    (any::<[String; 3]>(), source, versions, numbers).prop_map(
        |([day, processor, kernel], source, versions, (count, per_path, memory, core))| Setting {
            day,
            machine: Machine {
                processor,
                cores: count,
                memory,
                kernel,
            },
            source,
            versions,
            rounds: count,
            prefixes_per_path: per_path,
            daemon_core: core,
            generator_core: core + 1,
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_was_written_reads_back_to_the_last_bit(
        rounds in prop::collection::vec(arbitrary_outcome(), 1..4),
        setting in arbitrary_setting(),
        seconds in 0.0..1e5_f64,
    ) {
        let mut written = result(case("table"));
        written.setting = setting;
        written.seconds = seconds;
        for daemons in written.placements.values_mut() {
            daemons.insert(Daemon::Bird, Series { rounds: rounds.clone() });
        }
        let mut book = example(&["idle"]);
        book.put(written.clone()).unwrap();
        let (_folder, file) = file(&book, |text| text);
        let read = Book::read(&file).unwrap();
        prop_assert_eq!(read.text().unwrap(), book.text().unwrap());
        let read = read.get(written.case).unwrap();
        prop_assert_eq!(&read.setting, &written.setting);
        prop_assert_eq!(&read.placements, &written.placements);
        prop_assert_eq!(read.seconds, written.seconds);
    }
}

#[test]
fn a_result_replaces_that_of_its_case_and_no_other_in_the_order_of_the_list() {
    let mut book = example(&["idle", "fan-out", "table"]);
    assert_eq!(names(&book), ["table", "fan-out", "idle"]);
    let before = book.clone();
    let mut later = result(case("fan-out"));
    later.setting.day = "2026-03-04".into();
    book.put(later).unwrap();
    assert_eq!(names(&book), names(&before));
    assert_eq!(book.get(case("fan-out")).unwrap().setting.day, "2026-03-04");
    for name in ["table", "idle"] {
        let (after, before) = (book.get(case(name)), before.get(case(name)));
        assert_eq!(after.unwrap().setting, before.unwrap().setting);
        assert_eq!(after.unwrap().placements, before.unwrap().placements);
    }
}

#[test]
fn part_of_a_case_is_not_kept() {
    let whole = result(case("table"));
    let mut book = Book::default();
    let mut refused = |change: &dyn Fn(&mut CaseResult), expected: &str| {
        let mut short = whole.clone();
        change(&mut short);
        let error = book.put(short).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(book.results().is_empty());
    };
    refused(
        &|short| {
            short.placements.remove(&Placement::Unpinned);
        },
        "table: nothing of caracal, unpinned",
    );
    refused(
        &|short| {
            for daemons in short.placements.values_mut() {
                daemons.remove(&Daemon::Bird);
            }
        },
        "table: nothing of bird, pinned",
    );
    refused(
        &|short| {
            for daemons in short.placements.values_mut() {
                daemons.insert(Daemon::Frr, Series::default());
            }
        },
        "table: nothing of frr, pinned",
    );
}

#[test]
fn data_that_a_case_does_not_know_is_an_error_that_says_what_to_do() {
    let book = example(&["table", "idle"]);
    type Change = fn(String) -> String;
    let cases: &[(Change, &str)] = &[
        (
            |text| text.replace(r#""case": "idle""#, r#""case": "rest""#),
            "there is no case rest",
        ),
        (
            |text| text.replace(r#""withdraw":"#, r#""gone":"#),
            "table does not measure gone (any more), which caracal has, pinned; measure it again: --cases table",
        ),
        (
            |text| text.replace("1 sender × 800,000", "1 sender × 500,000"),
            "table was measured as \"1 sender × 500,000 prefixes → 1 receiver\" and is \"1 sender × 800,000",
        ),
        (
            |text| text.replace(r#""case": "idle""#, r#""case": "table""#),
            "table stands there twice",
        ),
        (
            |text| text.replace(r#""unpinned""#, r#""floating""#),
            "unknown variant `floating`",
        ),
        (
            |text| text.replace(r#""bird""#, r#""birds""#),
            "unknown variant `birds`",
        ),
        (
            |text| text.replace(r#""rounds": 3"#, r#""rounds": 3, "colour": 1"#),
            "unknown field `colour`",
        ),
        (|text| text[..text.len() / 2].to_owned(), "EOF"),
    ];
    for (change, expected) in cases {
        let (_folder, file) = file(&book, change);
        let error = format!("{:#}", Book::read(&file).unwrap_err());
        assert!(error.contains(expected), "{expected}\n{error}");
        assert!(error.contains("page.json"), "{error}");
    }
}

#[test]
fn what_is_about_to_be_replaced_may_be_wrong_and_nothing_else() {
    let book = example(&["table", "idle"]);
    let broken = |text: String| text.replace(r#""withdraw":"#, r#""gone":"#);
    let (_folder, broken) = file(&book, broken);
    let (open, lines) = Book::open(&broken, &[case("table")]).unwrap();
    assert_eq!(names(&open), ["idle"]);
    assert!(lines[0].contains("does not measure gone"), "{lines:?}");
    let error = Book::open(&broken, &[case("idle")]).unwrap_err();
    assert!(
        error.to_string().contains("does not measure gone"),
        "{error}"
    );
    // Results of a case that is no more go only where all are measured anew.
    let (_folder, orphan) = file(&book, |text| {
        text.replace(r#""case": "idle""#, r#""case": "rest""#)
    });
    assert!(Book::open(&orphan, &[case("table"), case("idle")]).is_err());
    let all: Vec<&Case> = ALL.iter().collect();
    let (open, lines) = Book::open(&orphan, &all).unwrap();
    assert_eq!(names(&open), ["table"]);
    assert!(lines[0].contains("no case rest"), "{lines:?}");
    let (none, lines) = Book::open(Path::new("/nowhere/page.json"), &all).unwrap();
    assert!(none.results().is_empty() && lines.is_empty());
}

#[test]
fn what_the_generator_takes_most_of_is_said_to_be_close_to_it() {
    let close = |ours: &[f64], generator: &[f64]| {
        let series = |times: &[f64]| {
            let sample = |time: &f64| {
                let mut sample = Sample::default();
                sample.number("announce", *time);
                Outcome::Measured(sample)
            };
            Series {
                rounds: times.iter().map(sample).collect(),
            }
        };
        let mut result = result(case("fan-out"));
        let pinned = result.placements.get_mut(&Placement::Pinned).unwrap();
        pinned.insert(Daemon::Caracal, series(ours));
        pinned.insert(Daemon::Direct, series(generator));
        let close = result.close_to_generator(Placement::Pinned);
        close.iter().map(|metric| metric.key).collect::<Vec<_>>()
    };
    assert_eq!(close(&[0.14, 0.14, 9.0], &[0.1, 0.1, 0.1]), ["announce"]);
    assert_eq!(close(&[0.16, 0.16, 0.1], &[0.1, 0.1, 0.1]), [] as [&str; 0]);
    assert_eq!(close(&[0.1], &[]), [] as [&str; 0]);
}

#[test]
fn a_round_is_a_line() {
    let book = example(&["idle"]);
    let text = book.text().unwrap();
    let rounds: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("measured\":"))
        .collect();
    let series = Placement::ALL.len() * Daemon::ALL.len();
    assert_eq!(rounds.len(), 3 * series, "{text}");
    let round = rounds[0].trim().trim_end_matches(',');
    let read: Outcome = serde_json::from_str(round).unwrap();
    let idle = book.get(case("idle")).unwrap();
    let series = idle.series(Placement::Pinned, Daemon::Caracal).unwrap();
    assert_eq!(read, series.rounds[0]);
}

#[test]
fn a_file_is_replaced_whole_with_its_mode_and_nothing_stays_beside_it() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("page.json");
    let mode = || std::fs::metadata(&file).unwrap().permissions().mode() & 0o777;
    write(&file, "one").unwrap();
    assert_eq!(mode() & 0o600, 0o600);
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o664)).unwrap();
    write(&file, "two").unwrap();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "two");
    assert_eq!(mode(), 0o664);
    let entries = std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(entries, 1);
    let error = write(Path::new("/nowhere/page.json"), "x").unwrap_err();
    assert!(error.to_string().contains("/nowhere/page.json"));
}

#[test]
fn after_each_case_the_page_is_that_of_what_is_kept_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("page.md");
    let both = [case("table"), case("idle")];
    crate::keep(result(both[0]), &page, &both).unwrap();
    let first = std::fs::read_to_string(&page).unwrap();
    crate::keep(result(both[1]), &page, &both).unwrap();
    let second = std::fs::read_to_string(&page).unwrap();
    assert_ne!(first, second);
    assert_eq!(
        names(&Book::read(&Book::beside(&page)).unwrap()),
        ["table", "idle"]
    );
    // Rendering again changes nothing.
    let plot = std::fs::read_to_string(page.with_extension("svg")).unwrap();
    let options = crate::options::Options {
        render: Some(page.clone()),
        ..clap::Parser::parse_from(["caracal-bench"])
    };
    crate::run(&options).unwrap();
    assert_eq!(std::fs::read_to_string(&page).unwrap(), second);
    assert_eq!(
        std::fs::read_to_string(page.with_extension("svg")).unwrap(),
        plot
    );
    let mut short = result(both[0]);
    short.placements.clear();
    assert!(crate::keep(short, &page, &both).is_err());
    assert_eq!(std::fs::read_to_string(&page).unwrap(), second);
}
