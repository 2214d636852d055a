//! Our speaker against the routers that Debian packages, feature by feature: the matrix of docs/interop.md.
//!
//! Every cell has network namespaces of its own. It passes when routes were the same on both sides, attribute by
//! attribute, after establishing, after a change and after a restart; or the router itself refuses the feature, in
//! words that `unsupported.txt` has. `CARACAL_INTEROP=bird:md5,frr` plays only these cells, `UPDATE_INTEROP=1`
//! writes what it saw into `unsupported.txt` and docs/interop.md.
#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod arena;
mod cell;
mod course;
mod daemons;
mod feature;
mod ours;
mod report;
mod route;
mod scripted;
mod setup;
mod tap;
mod told;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use course::play;
use daemons::Daemon;
use feature::Feature;
use report::{Column, Report};

#[test]
fn every_cell_is_as_the_table_says() {
    if !nix::unistd::geteuid().is_root() {
        caracal_skip::missing!("network namespaces need root");
        return;
    }
    let wanted = std::env::var("CARACAL_INTEROP").ok();
    let begin = Instant::now();
    let columns: Vec<Column> = std::thread::scope(|scope| {
        let threads: Vec<_> = daemons::ALL
            .into_iter()
            .map(|daemon| scope.spawn(|| column(daemon, wanted.as_deref())))
            .collect();
        let columns = threads.into_iter().map(|thread| thread.join().unwrap());
        columns.collect()
    });
    println!("the matrix took {:.0?}", begin.elapsed());
    let report = Report::new(columns);
    if std::env::var_os("UPDATE_INTEROP").is_some() {
        report.write();
    }
    report.check();
}

/// Plays what is wanted of one daemon.
fn column(daemon: &'static dyn Daemon, wanted: Option<&str>) -> Column {
    let version = daemon.version();
    let mut cells = Vec::new();
    match &version {
        Err(why) => caracal_skip::missing!("{}: {why}", daemon.title()),
        Ok(version) => {
            println!("{} {version}", daemon.title());
            for feature in Feature::ALL {
                if feature.concerns(daemon.name()) && is_wanted(wanted, daemon.name(), feature) {
                    cells.push((feature, cell(daemon, feature)));
                }
            }
        }
    }
    Column {
        daemon,
        version,
        cells,
    }
}

fn cell(daemon: &'static dyn Daemon, feature: Feature) -> Result<course::Outcome, String> {
    let begin = Instant::now();
    let played = catch_unwind(AssertUnwindSafe(|| play(daemon, feature)));
    let outcome = played.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        text.unwrap_or_else(|| "no message".to_owned())
    });
    let (took, name) = (begin.elapsed(), feature.name());
    println!(
        "{:>5.1} s {}:{name} {outcome:?}",
        took.as_secs_f64(),
        daemon.name()
    );
    outcome
}

/// Whether `daemon` or `daemon:feature` is in the list; all are when there is none.
fn is_wanted(wanted: Option<&str>, daemon: &str, feature: Feature) -> bool {
    wanted.is_none_or(|list| {
        list.split(',').any(|entry| match entry.split_once(':') {
            Some((one, other)) => one == daemon && other == feature.name(),
            None => entry == daemon,
        })
    })
}
