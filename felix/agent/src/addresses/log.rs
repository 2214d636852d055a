//! The address log's file.
//!
//! Owns opening, appending, and rewriting when it has grown. Does not own the format.
//!
//! The file lies on a tmpfs: what it must outlive is the process, so nothing is forced to a disk.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use caracal_ipam_core::wal::{self, Record};
use tracing::warn;

/// Appended records after which the log is worth rewriting. At 250 bytes each that is 250 kB.
const REWRITE_AFTER: usize = 1000;

/// The open log.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    appended: usize,
    /// A write failed half way: the file has to be rewritten before anything follows.
    torn: bool,
}

impl LogFile {
    /// Opens the log at `path` and gives what it says. A damaged log is put aside: what it said in
    /// full cannot be known, and the node's own links speak for the pods.
    pub(super) fn open(path: &Path) -> io::Result<(LogFile, Vec<Record>)> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(error),
        };
        let (records, length) = match wal::decode(&bytes) {
            Ok(log) => (log.records, log.length),
            Err(error) => {
                let aside = path.with_extension("damaged");
                warn!(%error, aside = %aside.display(), "the address log cannot be believed");
                fs::rename(path, &aside)?;
                (Vec::new(), 0)
            }
        };
        let mut file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(path)?;
        // What follows the readable part is the torn record of an agent that was killed.
        file.set_len(length as u64)?;
        if length == 0 {
            file.write_all(wal::header().as_bytes())?;
        }
        let appended = records.len();
        Ok((
            LogFile {
                path: path.to_owned(),
                file,
                appended,
                torn: false,
            },
            records,
        ))
    }

    /// Writes one record; it is there when this returns.
    pub(super) fn append(&mut self, record: &Record) -> io::Result<()> {
        if self.torn {
            return Err(io::Error::other("an earlier record could not be written"));
        }
        let written = self.file.write_all(wal::encode(record).as_bytes());
        self.torn = written.is_err();
        self.appended += 1;
        written
    }

    /// Whether [`LogFile::rewrite`] is worth its while, or needed.
    pub(super) fn wants_rewrite(&self) -> bool {
        self.torn || self.appended > REWRITE_AFTER
    }

    /// Replaces the log by these records.
    pub(super) fn rewrite(&mut self, records: &[Record]) -> io::Result<()> {
        let temporary = self.path.with_extension("new");
        let text: String = std::iter::once(wal::header())
            .chain(records.iter().map(wal::encode))
            .collect();
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(text.as_bytes())?;
        fs::rename(&temporary, &self.path)?;
        self.file = OpenOptions::new().append(true).open(&self.path)?;
        self.appended = 0;
        self.torn = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use caracal_ipam_core::{AttachmentKey, Moment};

    use super::*;

    fn record(name: &str) -> Record {
        let key = AttachmentKey {
            container_id: name.into(),
            interface: "eth0".into(),
        };
        Record::Tombstone {
            key,
            until: Moment(7),
        }
    }

    #[test]
    fn a_torn_record_is_cut_off_and_the_log_goes_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipam.wal");
        let (mut log, records) = LogFile::open(&path).unwrap();
        assert!(records.is_empty());
        log.append(&record("a")).unwrap();
        log.append(&record("b")).unwrap();
        let length = fs::metadata(&path).unwrap().len();
        OpenOptions::new()
            .write(true)
            .open(&path)
            .unwrap()
            .set_len(length - 3)
            .unwrap();
        let (mut log, records) = LogFile::open(&path).unwrap();
        assert_eq!(records, [record("a")]);
        log.append(&record("c")).unwrap();
        assert_eq!(LogFile::open(&path).unwrap().1, [record("a"), record("c")]);
    }

    #[test]
    fn a_rewritten_log_says_what_it_was_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipam.wal");
        let (mut log, _) = LogFile::open(&path).unwrap();
        for _ in 0..=REWRITE_AFTER {
            log.append(&record("a")).unwrap();
        }
        assert!(log.wants_rewrite());
        log.rewrite(&[record("b")]).unwrap();
        assert!(!log.wants_rewrite());
        log.append(&record("c")).unwrap();
        assert_eq!(LogFile::open(&path).unwrap().1, [record("b"), record("c")]);
    }

    #[test]
    fn a_damaged_log_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ipam.wal");
        fs::write(&path, "another program's file\n").unwrap();
        let (mut log, records) = LogFile::open(&path).unwrap();
        assert!(records.is_empty() && path.with_extension("damaged").exists());
        log.append(&record("a")).unwrap();
        assert_eq!(LogFile::open(&path).unwrap().1, [record("a")]);
    }
}
