//! The tables of log lines in the docs are what the processes write: people search for these words, and
//! programs for these keys.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

/// A table of log lines.
struct Table {
    /// Where it stands.
    document: &'static str,
    /// Where its lines are written.
    sources: &'static [&'static str],
    /// One of them.
    such_as: &'static str,
}

const TABLES: [Table; 3] = [
    // The speaker, its services and its side of the kernel.
    Table {
        document: "docs/operating-bgp.md",
        sources: &[
            "bgp/speaker/src",
            "metrics/src",
            "felix/fib/src/kernel",
            "felix/resolve/src",
            "src/cmd/speaker.rs",
        ],
        such_as: "session down",
    },
    Table {
        document: "docs/operating-bgp.md",
        sources: &[
            "felix/agent/src",
            "felix/fib/src/link",
            "felix/fib/src/netns.rs",
        ],
        such_as: "agent began",
    },
    Table {
        document: "docs/bfd.md",
        sources: &["bgp/bfdd/src", "src/cmd/bfd.rs"],
        such_as: "session changed",
    },
];

/// From the least to the most.
const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

/// Levels and keys of each line.
type Lines = BTreeMap<String, (BTreeSet<usize>, BTreeSet<String>)>;

#[test]
fn the_documents_have_each_line_with_its_level_and_keys() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut tables, mut faults) = (String::new(), String::new());
    for Table {
        document,
        sources,
        such_as,
    } in TABLES
    {
        let mut lines = Lines::new();
        for source in sources {
            read(&root.join(source), &mut lines);
        }
        // What is only for debugging may change.
        lines.retain(|_, (levels, _)| levels.iter().any(|level| *level > 0));
        assert!(lines.contains_key(such_as), "{lines:#?}");
        let text = std::fs::read_to_string(root.join(document)).unwrap();
        let table = table(&lines);
        if !text.contains(&table) {
            writeln!(
                faults,
                "{document} has drifted; its table shall be\n{table}"
            )
            .unwrap();
        }
        let explained: BTreeSet<&str> = text.lines().filter_map(explains).flatten().collect();
        let keys: BTreeSet<&str> = lines
            .values()
            .flat_map(|(_, keys)| keys.iter().map(String::as_str))
            .collect();
        let dark: Vec<_> = keys.difference(&explained).collect();
        if !dark.is_empty() {
            writeln!(
                faults,
                "{document} does not say what these keys are: {dark:?}"
            )
            .unwrap();
        }
        writeln!(tables, "{document}\n{table}").unwrap();
    }
    if let Ok(file) = std::env::var("CARACAL_LOG_TABLE") {
        std::fs::write(file, &tables).unwrap();
    }
    assert!(faults.is_empty(), "{faults}");
}

fn table(lines: &Lines) -> String {
    let mut table = "| line | level | keys |\n|---|---|---|\n".to_owned();
    for (line, (levels, keys)) in lines {
        let levels: Vec<&str> = levels.iter().rev().map(|level| LEVELS[*level]).collect();
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        let (levels, keys) = (levels.join(" or "), keys.join(", "));
        writeln!(table, "| `{line}` | {levels} | {keys} |").unwrap();
    }
    table
}

/// The keys of a row that says what they are: one of two columns.
fn explains(row: &str) -> Option<Vec<&str>> {
    let cells: Vec<&str> = row
        .strip_prefix('|')?
        .strip_suffix('|')?
        .split('|')
        .collect();
    let [keys, _] = cells[..] else {
        return None;
    };
    Some(keys.split('`').skip(1).step_by(2).collect())
}

#[test]
fn a_line_is_read_as_it_is_written() {
    let mut lines = Lines::new();
    let source = r#"
        tracing::info!(peer = %self.name(a, b), ?clear, count, "what, (ever");
        tracing::debug!("what, (ever");
        Err(error) => warn!(%error, reason = ?it.why, "not"),
        Err(error) => no_error!(%error)
    "#;
    collect(source, &mut lines);
    let keys = |keys: &[&str]| {
        keys.iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    };
    let expected = [
        ("not", [2].into(), keys(&["error", "reason"])),
        (
            "what, (ever",
            [0, 1].into(),
            keys(&["clear", "count", "peer"]),
        ),
    ];
    let expected = expected.map(|(line, levels, keys)| (line.to_owned(), (levels, keys)));
    assert_eq!(lines, Lines::from(expected));
}

/// Reads a source, or all in a folder but tests.
fn read(path: &Path, lines: &mut Lines) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            let path = entry.unwrap().path();
            if !path.ends_with("tests") && !path.ends_with("tests.rs") {
                read(&path, lines);
            }
        }
    } else {
        collect(&std::fs::read_to_string(path).unwrap(), lines);
    }
}

fn collect(source: &str, lines: &mut Lines) {
    for unread in ["tracing::$", "tracing::event!", "tracing::Level", "event!("] {
        assert!(!source.contains(unread), "{unread} has no level to be read");
    }
    for (at, opening) in source.match_indices("!(") {
        let before = &source[..at];
        let name = before.rfind(|sign: char| !sign.is_alphanumeric() && sign != '_');
        let name = &before[name.map_or(0, |at| at + 1)..];
        let Some(level) = LEVELS.iter().position(|level| *level == name) else {
            continue;
        };
        let rest = &source[at + opening.len()..];
        let (mut keys, mut message) = (BTreeSet::new(), None);
        for argument in split(rest) {
            let argument = argument.trim();
            if let Some(text) = argument.strip_prefix('"') {
                message = text.strip_suffix('"');
            } else if !argument.is_empty() {
                let name = argument.split(" = ").next().unwrap();
                keys.insert(name.trim_start_matches(['%', '?']).to_owned());
            }
        }
        let message = message.unwrap_or_else(|| panic!("no message: {rest:.200}"));
        assert!(
            !message.contains(['{', '|']),
            "a line that is never the same cannot be searched for: {message}"
        );
        let line = lines.entry(message.to_owned()).or_default();
        line.0.insert(level);
        line.1.extend(keys);
    }
}

/// The arguments of a macro, up to its closing parenthesis.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut quoted, mut begin) = (0_usize, false, 0);
    let mut parts = Vec::new();
    for (at, sign) in text.char_indices() {
        match sign {
            '"' => quoted = !quoted,
            _ if quoted => {}
            '(' | '[' | '{' => depth += 1,
            ')' if depth == 0 => {
                parts.push(&text[begin..at]);
                return parts;
            }
            ')' | ']' | '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[begin..at]);
                begin = at + 1;
            }
            _ => {}
        }
    }
    panic!("a macro without an end: {text:.200}");
}
