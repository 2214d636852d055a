//! What documents refer to is there: files, headings, and in docs/standards.md tests and fields.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

const STANDARDS: &str = include_str!("../docs/standards.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document of the repository.
fn documents() -> Vec<PathBuf> {
    let folders = [".", "docs", "fuzz", "tests/vectors/bgp"].map(|folder| root().join(folder));
    let files = folders.into_iter().flat_map(|folder| {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().path())
    });
    files
        .filter(|file| file.extension().is_some_and(|ending| ending == "md"))
        .collect()
}

/// Where links of a document lead: file and heading, either of which may be empty.
fn links(text: &str) -> Vec<(String, String)> {
    let targets = text.split("](").skip(1);
    let targets = targets.filter_map(|rest| rest.split_once(')').map(|(target, _)| target));
    targets
        .filter(|target| !target.contains("://") && !target.contains(char::is_whitespace))
        .map(|target| {
            let (file, heading) = target.split_once('#').unwrap_or((target, ""));
            (file.to_owned(), heading.to_owned())
        })
        .collect()
}

/// The names by which headings of a document are linked to.
fn headings(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let name = |heading: &str| -> String {
        let words = heading.trim_start_matches('#').trim().to_lowercase();
        let kept = words
            .chars()
            .filter(|sign| sign.is_alphanumeric() || [' ', '-', '_'].contains(sign));
        kept.map(|sign| if sign == ' ' { '-' } else { sign })
            .collect()
    };
    headings.map(name).collect()
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let mut seen = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        for (file, heading) in links(&text) {
            let target = match file.as_str() {
                "" => document.clone(),
                file => document.with_file_name(file),
            };
            let place = format!("{}: {file}#{heading}", document.display());
            assert!(target.exists(), "{place}: no such file");
            if !heading.is_empty() {
                let headings = headings(&fs::read_to_string(&target).unwrap());
                assert!(headings.contains(&heading), "{place}: no such heading");
            }
            seen += 1;
        }
    }
    assert!(seen > 20, "{seen} links");
}

/// The cells of the rows of a table with this many columns, without the head.
fn rows(text: &str, columns: usize) -> Vec<Vec<&str>> {
    let lines = text.lines().filter(|line| line.starts_with("| "));
    let cells = lines.map(|line| {
        let inner = line.trim_matches('|');
        inner.split('|').map(str::trim).collect::<Vec<_>>()
    });
    cells
        .filter(|cells| cells.len() == columns)
        .skip(1)
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn each_standard_is_set_by_fields_of_the_resources_and_shown_in_tests() {
    let definitions = ["bgpconfigurations", "bgpfilters", "bgppeers"].map(|kind| {
        let file = root().join(format!("deploy/crds/caracal.dev_{kind}.yaml"));
        fs::read_to_string(file).unwrap()
    });
    let is_field = |name: &str| {
        let line = format!(" {name}:\n");
        definitions.iter().any(|text| text.contains(&line))
    };
    let rows = rows(STANDARDS, 4);
    assert!(rows.len() > 30, "{} rows", rows.len());
    for row in rows {
        let [name, what, fields, tests] = row[..] else {
            panic!("four columns");
        };
        for field in quoted(fields).flat_map(|path| path.split('.')) {
            assert!(is_field(field), "{name} ({what}): no field {field}");
        }
        assert!(quoted(tests).next().is_some(), "{name}: shown nowhere");
        for file in quoted(tests) {
            let text = fs::read_to_string(root().join(file));
            let text = text.unwrap_or_else(|error| panic!("{name}: {file}: {error}"));
            let is_test = text.contains("#[test]") || text.contains("#[tokio::test");
            let is_vectors = file.starts_with("tests/vectors/");
            assert!(is_test || is_vectors, "{name}: {file} holds no test");
        }
    }
}
