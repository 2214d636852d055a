//! `caracal-bench`: see the library.

use std::process::ExitCode;

use caracal_bench::options::Options;
use clap::Parser;

fn main() -> ExitCode {
    match caracal_bench::run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
