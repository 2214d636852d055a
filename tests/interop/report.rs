//! What a run says: the comparison with the checked-in list of refusals, and docs/interop.md.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::course::Outcome;
use crate::daemons::Daemon;
use crate::feature::Feature;

/// What became of one daemon's cells.
pub(crate) struct Column {
    pub(crate) daemon: &'static dyn Daemon,
    pub(crate) version: Result<String, String>,
    pub(crate) cells: Vec<(Feature, Result<Outcome, String>)>,
}

impl Column {
    fn cell(&self, feature: Feature) -> Option<&Result<Outcome, String>> {
        let found = self.cells.iter().find(|(played, _)| *played == feature);
        found.map(|(_, outcome)| outcome)
    }
}

/// A run.
pub(crate) struct Report {
    columns: Vec<Column>,
}

impl Report {
    pub(crate) fn new(columns: Vec<Column>) -> Self {
        Self { columns }
    }

    /// The refusals of this run, one line each: daemon, feature and the daemon's words.
    fn refusals(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for column in &self.columns {
            for (feature, outcome) in &column.cells {
                if let Ok(Outcome::Unsupported(words)) = outcome {
                    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
                    let name = column.daemon.name();
                    lines.push(format!("{name} {}: {words}", feature.name()));
                }
            }
        }
        lines
    }

    /// Whether every cell passed or is in the checked-in list, word for word, and docs/interop.md says the same.
    pub(crate) fn check(&self) {
        let mut faults = String::new();
        for column in &self.columns {
            for (feature, outcome) in &column.cells {
                if let Err(why) = outcome {
                    let name = column.daemon.name();
                    let _ = writeln!(faults, "{name}:{} failed: {why}", feature.name());
                }
            }
        }
        let played = |line: &&str| {
            self.columns.iter().any(|column| {
                column.cells.iter().any(|(feature, _)| {
                    line.starts_with(&format!("{} {}:", column.daemon.name(), feature.name()))
                })
            })
        };
        let listed = std::fs::read_to_string(list()).unwrap_or_default();
        let listed: Vec<&str> = listed.lines().filter(played).collect();
        let seen = self.refusals();
        for line in listed
            .iter()
            .filter(|line| !seen.iter().any(|other| other == *line))
        {
            let _ = writeln!(faults, "in unsupported.txt, and did not happen: {line}");
        }
        for line in seen.iter().filter(|line| !listed.contains(&line.as_str())) {
            let _ = writeln!(faults, "not in unsupported.txt: {line}");
        }
        if self.is_complete() {
            for feature in Feature::ALL {
                let pass = |column: &Column| column.cell(feature) == Some(&Ok(Outcome::Pass));
                if !self.columns.iter().any(pass) {
                    let _ = writeln!(faults, "{} passes with nobody", feature.name());
                }
            }
            let document = std::fs::read_to_string(document()).unwrap_or_default();
            // Debian mends its packages without asking us.
            if without_versions(&document) != without_versions(&self.document()) {
                faults.push_str("docs/interop.md says otherwise: `make interop` writes it\n");
            }
        }
        assert!(faults.is_empty(), "\n{faults}");
    }

    /// Whether every cell was played.
    fn is_complete(&self) -> bool {
        self.columns.iter().all(|column| {
            let all = Feature::ALL
                .iter()
                .filter(|f| f.concerns(column.daemon.name()));
            all.count() == column.cells.len()
        })
    }

    /// Writes the list and the document.
    pub(crate) fn write(&self) {
        if !self.is_complete() {
            println!("not every cell was played: nothing is written");
            return;
        }
        let mut cells = self.columns.iter().flat_map(|column| &column.cells);
        if cells.any(|(_, outcome)| outcome.is_err()) {
            println!("a cell failed: nothing is written");
            return;
        }
        let mut text = self.refusals().join("\n");
        text.push('\n');
        std::fs::write(list(), text).unwrap();
        std::fs::write(document(), self.document()).unwrap();
    }

    fn document(&self) -> String {
        let mut text = String::from(INTRODUCTION);
        text.push_str(VERSIONS);
        text.push_str("| router | Debian's version |\n|---|---|\n");
        for column in &self.columns {
            let version = column.version.as_ref();
            let version = version.map_or_else(|why| format!("not run: {why}"), Clone::clone);
            let _ = writeln!(text, "| {} | {version} |", column.daemon.title());
        }
        text.push_str(MATRIX);
        text.push_str(&self.table());
        text.push_str(
            "\n## What they refuse\n\nIn the router's own words, as the run caught them.\n\n",
        );
        for line in self.refusals() {
            let (name, words) = line.split_once(": ").unwrap();
            let _ = writeln!(text, "- {name}: `{}`", words.replace('`', "'"));
        }
        text.push_str("\n## Peculiarities\n\nWhat the run had to allow for, and whoever peers with them will meet.\n");
        for column in &self.columns {
            let quirks = column.daemon.quirks();
            if !quirks.is_empty() {
                let _ = writeln!(text, "\n### {}\n", column.daemon.title());
                for quirk in quirks {
                    let _ = writeln!(text, "- {quirk}");
                }
            }
        }
        text
    }

    fn table(&self) -> String {
        let mut text = String::from("| |");
        for column in &self.columns {
            let _ = write!(text, " {} |", column.daemon.title());
        }
        text.push_str("\n|---|");
        text.push_str(&"---|".repeat(self.columns.len()));
        text.push('\n');
        for feature in Feature::ALL {
            let _ = write!(text, "| {} |", feature.title());
            for column in &self.columns {
                let word = match column.cell(feature) {
                    Some(Ok(Outcome::Pass)) => "PASS",
                    Some(Ok(Outcome::Unsupported(_))) => "UNSUPPORTED",
                    Some(Err(_)) => "FAIL",
                    None => "",
                };
                let _ = write!(text, " {word} |");
            }
            text.push('\n');
        }
        text
    }
}

const VERSIONS: &str = "\n## Versions\n\n";
const MATRIX: &str = "\n## The matrix\n\n";

const INTRODUCTION: &str = "\
# Interoperability

Written by `make interop`, which plays every cell below between `caracal speaker` and the router as Debian
packages it, in network namespaces of their own; `make test` plays them too and fails when a cell is not what
this table says.

PASS means: routes compared attribute by attribute on both sides, as each side's own commands show them, and in the
kernels of those that have one, where these and no others must be; after establishing, after a change (a route with
other attributes, one withdrawn, one new) and after a restart of the router. Where the feature shows on the wire
(capabilities, signatures, TTLs, refreshes, NOTIFICATIONs), it is read off the wire too. UNSUPPORTED means that the
router refused or offers no such thing: what it said, or what the run saw of it, is below. An empty cell was not
asked for.
";

fn without_versions(document: &str) -> (&str, &str) {
    let (before, rest) = document.split_once(VERSIONS).unwrap_or_default();
    let (_, after) = rest.split_once(MATRIX).unwrap_or_default();
    (before, after)
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn list() -> PathBuf {
    root().join("tests/interop/unsupported.txt")
}

fn document() -> PathBuf {
    root().join("docs/interop.md")
}
