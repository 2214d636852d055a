//! How a test says that it cannot run here.
//!
//! A test that returns early passes, and the runner keeps what a passing test prints to itself. What is said here
//! goes past the runner, to the standard error output of the process, so that whoever reads the run sees it.

use std::fmt::Arguments;
use std::io::Write;

/// Set by `make test`, which runs as root and has installed everything that can be.
pub const COMPLETE: &str = "CARACAL_TEST_COMPLETE";

/// Says what is not tested because this kernel or machine cannot do it, formatted like `println!`.
#[macro_export]
macro_rules! skip {
    ($($why:tt)+) => {
        $crate::say(::std::format_args!($($why)+))
    };
}

/// Says what is not tested because root or a program is missing, formatted like `println!`.
///
/// Where nothing may be missing (see [`COMPLETE`]) the test fails instead.
#[macro_export]
macro_rules! missing {
    ($($why:tt)+) => {
        $crate::say_unless_complete(::std::format_args!($($why)+))
    };
}

/// What [`skip!`] does.
pub fn say(why: Arguments<'_>) {
    // Whoever closed the output does not want to know.
    let _ = writeln!(std::io::stderr(), "SKIP {why}");
}

/// What [`missing!`] does.
///
/// # Panics
/// Where nothing may be missing.
#[track_caller]
pub fn say_unless_complete(why: Arguments<'_>) {
    assert!(
        std::env::var_os(COMPLETE).is_none(),
        "{why}, and {COMPLETE} is set: nothing may be missing"
    );
    say(why);
}
