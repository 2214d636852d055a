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
//! report: table, JSON
//! book: what is kept beside the page ──► page, plot
//! ```

pub mod book;
pub mod cases;
pub mod clock;
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
pub mod setting;
pub mod source;
pub mod stage;
pub mod wire;

use std::path::Path;

use book::{Book, CaseResult};

/// Does what the command line says.
///
/// # Errors
/// Not root, nothing to run, a file that cannot be written, data that cannot be shown, or an interrupt.
pub fn run(options: &options::Options) -> anyhow::Result<()> {
    if options.list {
        for case in cases::ALL {
            println!("{:<16} {}", case.name, case.title);
        }
        return Ok(());
    }
    if let Some(page) = &options.render {
        return report::page::write_page(&Book::read(&Book::beside(page))?, page);
    }
    plan::check(options)?;
    let renewed = plan::selected(options)?;
    let mut known = Book::default();
    if let Some(page) = &options.docs {
        let file = Book::beside(page);
        let left_out;
        (known, left_out) = Book::open(&file, &renewed)?;
        for line in left_out {
            eprintln!("{} loses what it had: {line}", file.display());
        }
    }
    interrupt::install()?;
    plan::raise_limits();
    let mut results = Vec::new();
    plan::run(options, &known, |result| {
        print!("{}", report::text::render(&result));
        if let Some(page) = &options.docs {
            keep(result.clone(), page, &renewed)?;
        }
        results.push(result);
        if let Some(file) = &options.json {
            book::write(file, &report::json(options, &results)?)?;
        }
        Ok(())
    })
}

/// Puts a result into the book beside a page in the place of what was there of its case, and writes the page.
///
/// The book is read anew, because hours lie between two cases and somebody may have changed it. Results of the cases
/// `renewed`, which are about to be replaced, need not be right.
///
/// # Errors
/// The result is not complete, or a file cannot be read or written.
pub fn keep(result: CaseResult, page: &Path, renewed: &[&cases::Case]) -> anyhow::Result<()> {
    let file = Book::beside(page);
    let (mut book, _) = Book::open(&file, renewed)?;
    book.put(result)?;
    book.save(&file)?;
    report::page::write_page(&book, page)
}
