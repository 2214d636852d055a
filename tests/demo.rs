//! The whole system, as `make demo` runs it: both plans, with the routers of others and without, twice.
//!
//! Every case runs the real binary and judges its report; one case at a time, since each measures lost
//! milliseconds on the machine it shares.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod common;

use std::path::PathBuf;
use std::process::{Command, Stdio};

use caracal_lab::state::StateDir;
use common::is_root;
use serde_json::Value;

/// Two labs at once would measure each other, also those of two runs of the tests.
fn alone_on_the_machine() -> std::fs::File {
    let file = std::env::temp_dir().join("caracal-demo-tests.lock");
    let file = std::fs::File::create(file).unwrap();
    file.lock().unwrap();
    file
}

/// What the labs of this run are called.
fn lab_name() -> String {
    format!("demo-{}", std::process::id())
}

struct Outcome {
    success: bool,
    output: String,
    report: Value,
}

fn demo(arguments: &[&str]) -> Option<Outcome> {
    if !is_root() {
        caracal_skip::missing!("the lab needs root");
        return None;
    }
    let _alone = alone_on_the_machine();
    let json = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!(
        "demo-{}.json",
        arguments.join("").replace(['/', '-', ','], "_")
    ));
    let _ = std::fs::remove_file(&json);
    let output = Command::new(env!("CARGO_BIN_EXE_caracal"))
        .args(["lab", "demo", "--json"])
        .arg(&json)
        .args(["--name", &lab_name()])
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    let report = std::fs::read_to_string(&json)
        .ok()
        .and_then(|text| serde_json::from_str(&text).ok())
        .unwrap_or(Value::Null);
    Some(Outcome {
        success: output.status.success(),
        output: text,
        report,
    })
}

/// What every passing run has to show, besides its exit status.
fn assert_complete(outcome: &Outcome) {
    let Outcome {
        success,
        output,
        report,
    } = outcome;
    assert!(success, "{output}");
    println!("{output}");
    assert!(
        report["convergedMs"].as_u64().unwrap() <= 10_000,
        "{output}"
    );
    for matrix in report["matrices"].as_array().unwrap() {
        assert_eq!(matrix["cells"], matrix["asExpected"], "{output}");
    }
    assert_eq!(report["failures"].as_array().unwrap().len(), 0, "{output}");
}

fn passes(arguments: &[&str]) {
    if let Some(outcome) = demo(arguments) {
        assert_complete(&outcome);
    }
}

#[test]
fn plan_a_with_frr_and_bird() {
    passes(&["--plan", "a", "--require", "frr,bird"]);
}

#[test]
fn plan_a_with_frr_and_bird_again() {
    passes(&["--plan=a", "--require=frr,bird"]);
}

#[test]
fn plan_b_with_frr_and_bird() {
    passes(&["--plan", "b", "--require", "frr,bird"]);
}

#[test]
fn plan_b_with_frr_and_bird_again() {
    passes(&["--plan=b", "--require=frr,bird"]);
}

#[test]
fn plan_a_with_our_own_speaker_alone() {
    passes(&["--plan", "a", "--without", "frr,bird"]);
}

#[test]
fn plan_b_with_our_own_speaker_alone() {
    passes(&["--plan", "b", "--without", "frr,bird"]);
}

#[test]
fn another_topology_runs_without_a_change() {
    passes(&["--topology", "lab/topologies/one-rack.clab.yml"]);
}

/// A defect of the input, and what the one line about it must contain.
const DEFECTS: &[(&str, &str)] = &[
    ("/nonexistent.clab.yml", "cannot read /nonexistent.clab.yml"),
    (
        "lab/topologies/two-rack.lab.yml",
        "a topology file is called NAME.clab.yml",
    ),
];

#[test]
fn a_topology_that_cannot_be_read_is_one_clear_error() {
    for (file, message) in DEFECTS {
        let Some(outcome) = demo(&["--topology", file]) else {
            return;
        };
        assert!(!outcome.success);
        assert!(outcome.output.contains(message), "{}", outcome.output);
    }
}

#[test]
fn a_missing_router_that_is_required_is_a_failure() {
    let arguments = ["--require", "bird", "--without", "bird"];
    let Some(outcome) = demo(&arguments) else {
        return;
    };
    assert!(!outcome.success);
    assert!(
        outcome
            .output
            .contains("bird, which is required and not installed"),
        "{}",
        outcome.output
    );
    assert!(
        !StateDir::of(&lab_name()).root().exists(),
        "the lab was not taken down"
    );
}
