//! The table of log lines in docs/operating-bgp.md is what the speaker, its services and its side of the
//! kernel write: people search for these words, and programs for these keys.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;

const DOCUMENT: &str = include_str!("../docs/operating-bgp.md");

/// Where they are written.
const SOURCES: [&str; 3] = ["bgp/speaker/src", "metrics/src", "felix/fib/src/kernel"];

/// From the least to the most.
const LEVELS: [&str; 4] = ["debug", "info", "warn", "error"];

/// Levels and keys of each line.
type Lines = BTreeMap<String, (BTreeSet<usize>, BTreeSet<String>)>;

#[test]
fn the_document_has_each_line_with_its_level_and_keys() {
    let mut lines = Lines::new();
    for folder in SOURCES {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
        read(&folder, &mut lines);
    }
    // What is only for debugging may change.
    lines.retain(|_, (levels, _)| levels.iter().any(|level| *level > 0));
    assert!(lines.contains_key("session down"), "{lines:#?}");
    let mut table = "| line | level | keys |\n|---|---|---|\n".to_owned();
    for (line, (levels, keys)) in &lines {
        let levels: Vec<&str> = levels.iter().rev().map(|level| LEVELS[*level]).collect();
        let keys: Vec<String> = keys.iter().map(|key| format!("`{key}`")).collect();
        let (levels, keys) = (levels.join(" or "), keys.join(", "));
        writeln!(table, "| `{line}` | {levels} | {keys} |").unwrap();
    }
    if let Ok(file) = std::env::var("CARACAL_LOG_TABLE") {
        std::fs::write(file, &table).unwrap();
    }
    assert!(
        DOCUMENT.contains(&table),
        "docs/operating-bgp.md has drifted; its table shall be\n{table}"
    );
}

#[test]
fn a_line_is_read_as_it_is_written() {
    let mut lines = Lines::new();
    let source = r#"
        tracing::info!(peer = %self.name(a, b), ?clear, count, "what, (ever");
        tracing::debug!("what, (ever");
        Err(error) => tracing::warn!(%error, reason = ?it.why, "not")
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

/// Reads all sources in a folder but tests.
fn read(folder: &Path, lines: &mut Lines) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name == "tests" || name == "tests.rs" {
            continue;
        }
        if path.is_dir() {
            read(&path, lines);
        } else {
            collect(&std::fs::read_to_string(&path).unwrap(), lines);
        }
    }
}

fn collect(source: &str, lines: &mut Lines) {
    for (at, opening) in source.match_indices("tracing::") {
        let rest = &source[at + opening.len()..];
        let Some((level, arguments)) = LEVELS.iter().enumerate().find_map(|(number, level)| {
            let rest = rest.strip_prefix(level)?.strip_prefix("!(")?;
            Some((number, rest))
        }) else {
            continue;
        };
        let (mut keys, mut message) = (BTreeSet::new(), None);
        for argument in split(arguments) {
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
