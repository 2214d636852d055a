//! Resources from files, for processes that run without an API server.
//!
//! Owns opening files and directories. Does not own their syntax, which is
//! [`caracal_crds::manifest`]'s.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use caracal_crds::manifest::{Manifests, Problem, Problems};

/// Endings of the files that are read from a directory.
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Why manifests could not be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory that cannot be opened or read.
    #[error("cannot read manifests from {path}", path = path.display())]
    Read {
        /// As it was named, or as found in a directory that was named.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// A directory without a single manifest in it: most likely the wrong one.
    #[error("no .yaml, .yml or .json file in directory {path}", path = path.display())]
    EmptyDirectory {
        /// As it was named.
        path: PathBuf,
    },
    /// Manifests that do not hold; each problem has its file and line.
    #[error("{0}")]
    Invalid(Problems),
}

/// Reads the manifests of files and of directories, in the order given; of a directory, its own
/// files in the order of their names.
///
/// # Errors
/// The first that occurs; all problems of one file are reported together.
pub fn read(paths: &[PathBuf]) -> Result<Manifests, Error> {
    let mut manifests = Manifests::default();
    for path in paths {
        for file in files_of(path)? {
            let text = fs::read_to_string(&file).map_err(|source| Error::Read {
                path: file.clone(),
                source,
            })?;
            manifests.read(&file, &text).map_err(Error::Invalid)?;
        }
    }
    Ok(manifests)
}

/// Reads the same, but goes on after a file that does not hold, and returns what is wrong with all
/// of them beside what could be read.
///
/// # Errors
/// Where a file or directory cannot be read.
pub fn read_all(paths: &[PathBuf]) -> Result<(Manifests, Vec<Problem>), Error> {
    let mut manifests = Manifests::default();
    let mut problems = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let text = fs::read_to_string(&file).map_err(|source| Error::Read {
                path: file.clone(),
                source,
            })?;
            if let Err(found) = manifests.read(&file, &text) {
                problems.extend_from_slice(found.as_slice());
            }
        }
    }
    Ok((manifests, problems))
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let cannot_read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    if !fs::metadata(path).map_err(cannot_read)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(cannot_read)? {
        let file = entry.map_err(cannot_read)?.path();
        let ending = file.extension().and_then(|ending| ending.to_str());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending)) {
            files.push(file);
        }
    }
    if files.is_empty() {
        let path = path.to_owned();
        return Err(Error::EmptyDirectory { path });
    }
    files.sort();
    Ok(files)
}
