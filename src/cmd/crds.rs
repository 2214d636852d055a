//! `caracal crds`: the definitions that a cluster needs.

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum CrdsCommand {
    /// Print all definitions as YAML, for `kubectl apply -f -`
    Print,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(crate) fn run(command: CrdsCommand) -> anyhow::Result<ExitCode> {
    match command {
        CrdsCommand::Print => {
            for definition in caracal_crds::all() {
                print!("---\n{}", caracal_crds::yaml(&definition)?);
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
