//! The `caracal` binary: the tree of verbs, wiring and exit codes. No logic.

mod cmd;
mod table;

use std::process::ExitCode;

use caracal_lab::cli::LabCommand;
use clap::{Parser, Subcommand};

// A RIB keeps what sessions allocate and gives back much of it from another thread: the system's allocator leaves
// as much again in holes.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// BGP-routed pod networking for Kubernetes, without encapsulation
#[derive(Debug, Parser)]
#[command(
    name = "caracal",
    version,
    propagate_version = true,
    infer_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent of one node: BGP, routes, policy, pods
    Node(cmd::node::NodeArgs),
    /// Run the controller that grants address blocks
    Controller(cmd::controller::ControllerArgs),
    /// Run the BGP speaker alone, from manifest files
    Speaker(cmd::speaker::SpeakerArgs),
    /// Run the BFD process, or look at its sessions
    Bfd(cmd::bfd::BfdArgs),
    /// Run the embedded Kubernetes API server
    Apiserver(cmd::apiserver::ApiserverArgs),
    /// Look at BGP sessions and routes, and clear them
    #[command(subcommand)]
    Bgp(cmd::bgp::BgpCommand),
    /// Print the custom resource definitions
    #[command(subcommand)]
    Crds(cmd::crds::CrdsCommand),
    /// Run topologies of routers and nodes in network namespaces
    #[command(subcommand)]
    Lab(LabCommand),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match cli.verb {
        Verb::Node(arguments) => cmd::node::run(arguments),
        Verb::Controller(arguments) => cmd::controller::run(arguments),
        Verb::Speaker(arguments) => cmd::speaker::run(arguments),
        Verb::Bfd(arguments) => cmd::bfd::run(arguments),
        Verb::Apiserver(arguments) => cmd::apiserver::run(arguments),
        Verb::Bgp(command) => cmd::bgp::run(command),
        Verb::Crds(command) => cmd::crds::run(command),
        Verb::Lab(command) => caracal_lab::cli::run(command),
    };
    result.unwrap_or_else(|error| {
        report(&error);
        match error.downcast_ref::<cmd::Unreachable>() {
            Some(_) => ExitCode::from(cmd::UNREACHABLE),
            None => ExitCode::FAILURE,
        }
    })
}

/// One line: what was being done to what, and why it failed. A hint, where there is one, comes with it.
#[expect(
    clippy::print_stderr,
    reason = "errors are for the person at the terminal"
)]
fn report(error: &anyhow::Error) {
    let text = format!("{error:#}");
    match text.split_once("\nhint:") {
        Some((line, hint)) => eprintln!("error: {line}\n\nhint:{hint}"),
        None => eprintln!("error: {text}"),
    }
}
