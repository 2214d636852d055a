//! What a run shows of tests that do not run, told from a run of this very file.

use std::process::{Command, Output};

/// Set for the tests that are run by others here.
const WITHIN: &str = "CARACAL_SKIP_WITHIN";

fn run(test: &str, complete: bool) -> Output {
    let program = std::env::current_exe().expect("a test has a path");
    let mut command = Command::new(program);
    command.args(["--exact", test]).env(WITHIN, "1");
    command.env_remove(caracal_skip::COMPLETE);
    if complete {
        command.env(caracal_skip::COMPLETE, "1");
    }
    command.output().expect("a test can be run")
}

fn is_within() -> bool {
    std::env::var_os(WITHIN).is_some()
}

#[test]
fn cannot() {
    if is_within() {
        caracal_skip::skip!("this kernel has no {}", "wings");
    }
}

#[test]
fn lacks() {
    if is_within() {
        caracal_skip::missing!("{} is not installed", "nothing");
    }
}

#[test]
fn words_of_a_passing_test_are_seen_and_what_is_missing_fails_where_nothing_may_be() {
    let rows = [
        ("cannot", false, true, "SKIP this kernel has no wings\n"),
        ("cannot", true, true, "SKIP this kernel has no wings\n"),
        ("lacks", false, true, "SKIP nothing is not installed\n"),
        ("lacks", true, false, ""),
    ];
    for (test, complete, passes, said) in rows {
        let output = run(test, complete);
        let seen = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.success(), passes, "{test} {complete}: {seen}");
        assert_eq!(seen, said, "{test} {complete}");
    }
}
