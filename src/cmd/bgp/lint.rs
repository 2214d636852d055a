//! `caracal bgp lint`: what is wrong with manifests.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use caracal_crds::manifest::Problem;
use caracal_resolve::files;
use caracal_resolve::lint::{Lint, lint};
use clap::Args;
use serde_json::json;

use super::{Output, counted, piped};
use crate::cmd::Unreachable;

/// Something is wrong.
const FOUND: u8 = 1;

#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    /// Manifest files, or folders of them
    #[arg(short = 'f', long = "filename", required = true)]
    files: Vec<PathBuf>,
    /// Only as this node understands them; all that they name without it
    #[arg(long)]
    node: Option<String>,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

/// Prints what is wrong; exits with 1 if anything is.
pub(super) fn run(arguments: &LintArgs) -> anyhow::Result<ExitCode> {
    let read = files::read_all(&arguments.files);
    let (manifests, problems) = read.map_err(|error| {
        anyhow::Error::new(error).context(Unreachable("nothing checked".into()))
    })?;
    // What the rest means cannot be told where a part could not be read.
    let lints = match problems.is_empty() {
        true => lint(&manifests, arguments.node.as_deref()),
        false => Vec::new(),
    };
    let text = match arguments.output {
        Output::Table => screen(&problems, &lints),
        Output::Json => super::json(&as_json(&problems, &lints))?,
    };
    let written = std::io::stdout().lock().write_all(text.as_bytes());
    piped(written.context("cannot write"))?;
    Ok(match problems.is_empty() && lints.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(FOUND),
    })
}

/// One line each, as compilers write them, then how many there are.
pub(super) fn screen(problems: &[Problem], lints: &[Lint]) -> String {
    let mut text = String::new();
    for problem in problems {
        let position = &problem.position;
        let said = problem.to_string();
        let place = format!("{position}: ");
        let said = said.strip_prefix(&place).unwrap_or(&said);
        text.push_str(&format!("{position}: error: {said}\n"));
    }
    for lint in lints {
        let place = match &lint.position {
            Some(position) => format!("{position}: "),
            None => String::new(),
        };
        let severity = severity(lint);
        text.push_str(&format!("{place}{severity}: {}", lint.finding));
        if !lint.nodes.is_empty() {
            text.push_str(&format!(" on {}", lint.nodes.join(", ")));
        }
        text.push('\n');
    }
    match problems.len() + lints.len() {
        0 => text.push_str("nothing found\n"),
        found => text.push_str(&format!("{} found\n", counted(found, "problem"))),
    }
    text
}

fn severity(lint: &Lint) -> &'static str {
    match lint.is_harmless() {
        true => "note",
        false => "warning",
    }
}

fn as_json(problems: &[Problem], lints: &[Lint]) -> serde_json::Value {
    let problems = problems.iter().map(|problem| {
        json!({
            "severity": "error",
            "file": problem.position.file,
            "line": problem.position.line,
            "object": problem.object,
            "field": problem.path,
            "message": problem.message,
        })
    });
    let lints = lints.iter().map(|lint| {
        let position = lint.position.as_ref();
        json!({
            "severity": severity(lint),
            "file": position.map(|position| &position.file),
            "line": position.map(|position| position.line),
            "object": lint.finding.object.to_string(),
            "field": lint.finding.field,
            "reason": lint.finding.reason,
            "message": lint.finding.message,
            "nodes": lint.nodes,
        })
    });
    problems.chain(lints).collect()
}
