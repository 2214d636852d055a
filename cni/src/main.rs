//! The `caracal-cni` plugin: reads the call, asks the agent, prints the answer.

use std::io::{Read, Write};
use std::process::ExitCode;

use caracal_cni::config::Environment;
use caracal_cni::error::{CniError, ErrorCode};
use caracal_cni::plugin::{self, Exit};

fn main() -> ExitCode {
    let environment = Environment::from_lookup(|name| std::env::var(name).ok());
    let mut stdin = Vec::new();
    let exit = match std::io::stdin().read_to_end(&mut stdin) {
        Ok(_) => plugin::run(&environment, &stdin),
        Err(cause) => {
            let error = CniError::new(ErrorCode::Io, "cannot read standard input").because(cause);
            Exit {
                stdout: serde_json::json!(error).to_string(),
                status: 1,
            }
        }
    };
    // A runtime that closed the pipe has stopped caring about the text; the status still counts.
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(exit.stdout.as_bytes());
    let _ = stdout.flush();
    ExitCode::from(exit.status)
}
