//! Dumps to files of a folder, by configuration.
//!
//! Owns the files: their names, when one ends and the next begins. Does not own what is in them, nor
//! their removal, which is for whoever collects them.
//!
//! `rib.20261125.140000.mrt` is a whole table; it has its name once it is complete.
//! `updates.20261125.140000.mrt` holds messages from that time on. Times are UTC.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::fs::File;
use tokio::io::{AsyncWriteExt, BufWriter};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until};

use crate::config::MrtDump;
use crate::error::Error;
use crate::export::dump::{DumpPart, DumpStream};
use crate::export::station::stop;
use crate::export::{Own, Trace};
use crate::rib_thread::RibHandle;

/// How long to wait after a file could not be written.
const PAUSE: Duration = Duration::from_secs(10);
/// How long a message may wait in memory before it is in the file.
const FLUSH: Duration = Duration::from_secs(1);

/// Where dumps come from.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) own: Own,
    pub(super) rib: RibHandle,
    pub(super) trace: Trace,
}

/// Why a file is not written.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error("cannot write {}: {source}", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error(transparent)]
    Dump(#[from] Error),
}

/// Writes until `stopped` turns true.
pub(super) async fn run(dump: MrtDump, source: Source, stopped: watch::Receiver<bool>) {
    let directory = &dump.directory;
    let tables = async {
        if let Some(interval) = dump.tables {
            tables(directory, interval, &source, stopped.clone()).await;
        }
    };
    let updates = async {
        if let Some(rotation) = dump.updates {
            updates(directory, rotation, &source, stopped.clone()).await;
        }
    };
    tokio::join!(tables, updates);
}

/// Writes a table now, and again each time that `interval` is over.
async fn tables(
    directory: &Path,
    interval: Duration,
    source: &Source,
    mut stopped: watch::Receiver<bool>,
) {
    let mut due = interval_at(Instant::now(), interval);
    due.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = due.tick() => {}
            () = stop(&mut stopped) => return,
        }
        let written = tokio::select! {
            written = table(directory, source) => written,
            // The part that there is keeps its name, which says that it is one.
            () = stop(&mut stopped) => return,
        };
        match written {
            Ok(path) => tracing::info!(path = %path.display(), "table dumped"),
            Err(error) => tracing::error!(%error, "the table is not dumped"),
        }
    }
}

async fn table(directory: &Path, source: &Source) -> Result<PathBuf, Failed> {
    let path = directory.join(name("rib"));
    let mut part = path.clone().into_os_string();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_table(&part, source).await;
    let renamed = match written {
        Ok(()) => tokio::fs::rename(&part, &path).await,
        Err(error) => {
            // What is not whole is of no use; if it cannot be removed either, the error says where.
            let _ = tokio::fs::remove_file(&part).await;
            return Err(error);
        }
    };
    renamed.map_err(|source| Failed::File {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

async fn write_table(path: &Path, source: &Source) -> Result<(), Failed> {
    let failed = |error| file_error(path, error);
    let file = File::create(path).await.map_err(failed)?;
    let mut file = BufWriter::new(file);
    let (mut stream, work) = DumpStream::table(source.own, source.rib.clone());
    // Ends when the stream is dropped.
    tokio::spawn(work);
    loop {
        match stream.next().await? {
            DumpPart::Records(octets) => file.write_all(&octets).await.map_err(failed)?,
            DumpPart::Lost(_) => {}
            DumpPart::End => break,
        }
    }
    file.flush().await.map_err(failed)?;
    file.get_ref().sync_all().await.map_err(failed)
}

/// Writes messages, into a new file each time that `rotation` is over.
async fn updates(
    directory: &Path,
    rotation: Duration,
    source: &Source,
    mut stopped: watch::Receiver<bool>,
) {
    let mut stream = DumpStream::updates(source.trace.read());
    loop {
        let path = directory.join(name("updates"));
        let until = Instant::now() + rotation;
        match write_updates(&path, until, &mut stream, &mut stopped).await {
            Ok(true) => {}
            Ok(false) => return,
            Err(error) => {
                // What passes meanwhile waits, and what is too much is counted.
                tracing::error!(%error, "messages are not recorded");
                tokio::select! {
                    () = tokio::time::sleep(PAUSE) => {}
                    () = stop(&mut stopped) => return,
                }
            }
        }
    }
}

/// Writes one file; whether there is to be another.
async fn write_updates(
    path: &Path,
    until: Instant,
    stream: &mut DumpStream,
    stopped: &mut watch::Receiver<bool>,
) -> Result<bool, Failed> {
    let failed = |error| file_error(path, error);
    // One of the same second, from before a change of configuration, goes on.
    let mut options = File::options();
    let file = options.create(true).append(true).open(path).await;
    let mut file = BufWriter::new(file.map_err(failed)?);
    let mut flush = interval_at(Instant::now() + FLUSH, FLUSH);
    flush.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let again = loop {
        tokio::select! {
            biased;
            () = stop(stopped) => break false,
            () = sleep_until(until) => break true,
            _ = flush.tick() => file.flush().await.map_err(failed)?,
            part = stream.next() => match part? {
                DumpPart::Records(octets) => file.write_all(&octets).await.map_err(failed)?,
                DumpPart::Lost(messages) => {
                    tracing::warn!(messages, path = %path.display(), "messages are missing: the file is too slow");
                }
                DumpPart::End => break false,
            },
        }
    };
    file.flush().await.map_err(failed)?;
    Ok(again)
}

fn file_error(path: &Path, source: io::Error) -> Failed {
    Failed::File {
        path: path.to_owned(),
        source,
    }
}

fn name(kind: &str) -> String {
    let now = jiff::Timestamp::now();
    format!("{kind}.{}.mrt", now.strftime("%Y%m%d.%H%M%S"))
}
