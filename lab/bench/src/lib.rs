//! Measures BGP daemons beside each other, in one run and on one generator.
//!
//! Owns the generator (raw sessions, pre-encoded UPDATEs, receivers that prove what they hold), the daemons'
//! configurations, the cases and the report. Does not own the daemons, ours included, which it starts as a user
//! would.
//!
//! ```text
//! plan: cases × placements × rounds × daemons
//!   └─ stage: arena (namespaces, links), daemon (process), generator (engine)
//!        ├─ routes ── wire ──► sessions ──► daemon ──► sessions ── digest ──► ledger: exact or not
//!        └─ process (CPU, memory), monitor (netlink), probe (traffic)
//! report: table, JSON, page, plot
//! ```

pub mod cases;
pub mod daemons;
pub mod digest;
pub mod engine;
pub mod interrupt;
pub mod ledger;
pub mod machine;
pub mod measure;
pub mod net;
pub mod options;
pub mod plan;
pub mod prefix;
pub mod process;
pub mod report;
pub mod rng;
pub mod routes;
pub mod session;
pub mod stage;
pub mod wire;

/// Does what the command line says.
///
/// # Errors
/// Not root, nothing to run, a file that cannot be written, or an interrupt.
pub fn run(options: &options::Options) -> anyhow::Result<()> {
    if options.list {
        for case in cases::ALL {
            println!("{:<16} {}", case.name, case.title);
        }
        return Ok(());
    }
    plan::check(options)?;
    interrupt::install()?;
    plan::raise_limits();
    let report = plan::run(options)?;
    print!("{}", report::text::render(&report));
    if let Some(file) = &options.json {
        report::write(file, &report::json(&report)?)?;
    }
    if let Some(file) = &options.docs {
        report::page::write_page(&report, file)?;
    }
    Ok(())
}
