//! The last view that the agent acted on, kept in a file.
//!
//! Owns the file's format and its replacement. Does not decide when the view is worth keeping.
//!
//! A first line says what the rest is: magic, format, checksum and length of the JSON body. The
//! file is private (0600), because it holds the keys of sessions, and is replaced by rename, so
//! that a reader, or an agent killed half way, finds the old one whole.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::world::World;

const MAGIC: &str = "caracal-snapshot";
const FORMAT: u32 = 1;

/// Why a snapshot is not used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SnapshotError {
    /// The file could not be read or written.
    #[error("cannot access the snapshot {path}")]
    Access {
        /// Its path.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The first line is not ours.
    #[error("not a snapshot of format {FORMAT}: {head:?}")]
    Foreign {
        /// The first line.
        head: String,
    },
    /// The body is shorter or longer than the first line says, or was changed.
    #[error("the snapshot is damaged: {what}")]
    Damaged {
        /// What differs.
        what: &'static str,
    },
    /// The body is whole but cannot be read, or the view cannot be written.
    #[error("cannot encode or decode the snapshot's objects")]
    Body(#[from] serde_json::Error),
}

/// Replaces the snapshot at `path`.
///
/// # Errors
/// Where the file cannot be written; the old one is then still there.
pub(crate) fn write(path: &Path, world: &World) -> Result<(), SnapshotError> {
    let access = |source| SnapshotError::Access {
        path: path.into(),
        source,
    };
    let temporary = path.with_extension("new");
    let bytes = encode(world)?;
    let store = || -> io::Result<()> {
        let mut file: File = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&bytes)?;
        // No fsync: a snapshot must outlive the process, not the machine, whose reboot loses the
        // pods that it is about.
        fs::rename(&temporary, path)
    };
    store().map_err(access)
}

/// Reads the snapshot at `path`; none where there is no file.
///
/// # Errors
/// Where the file cannot be used.
pub(crate) fn read(path: &Path) -> Result<Option<World>, SnapshotError> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(SnapshotError::Access {
            path: path.into(),
            source,
        }),
    }
}

fn encode(world: &World) -> Result<Vec<u8>, SnapshotError> {
    let body = serde_json::to_vec(world)?;
    let checksum = crc32c::crc32c(&body);
    let mut bytes = format!("{MAGIC} {FORMAT} {checksum:08x} {}\n", body.len()).into_bytes();
    bytes.extend(body);
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<World, SnapshotError> {
    let end = bytes
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or(SnapshotError::Damaged {
            what: "no first line",
        })?;
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let body = &bytes[end + 1..];
    let words: Vec<&str> = head.split(' ').collect();
    let [magic, format, checksum, length] = words[..] else {
        return Err(SnapshotError::Foreign { head });
    };
    if magic != MAGIC || format.parse() != Ok(FORMAT) {
        return Err(SnapshotError::Foreign { head });
    }
    if length.parse() != Ok(body.len()) {
        return Err(SnapshotError::Damaged { what: "length" });
    }
    if u32::from_str_radix(checksum, 16) != Ok(crc32c::crc32c(body)) {
        return Err(SnapshotError::Damaged { what: "checksum" });
    }
    Ok(serde_json::from_slice(body)?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use k8s_openapi::api::core::v1::Namespace;

    use super::*;
    use crate::world::{Change, TableChange};

    fn sample() -> World {
        let mut world = World::default();
        let namespace: Namespace =
            serde_json::from_value(serde_json::json!({"metadata": {"name": "shop"}})).unwrap();
        world.apply(Change::Namespace(TableChange::Listed(vec![namespace])));
        world
    }

    #[test]
    fn a_snapshot_survives_the_file_and_is_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("snapshot");
        assert_eq!(read(&path).unwrap(), None);
        write(&path, &World::default()).unwrap();
        write(&path, &sample()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(sample()));
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn any_cut_and_any_flipped_bit_is_found() {
        let bytes = encode(&sample()).unwrap();
        assert_eq!(decode(&bytes).unwrap(), sample());
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "cut at {length}");
        }
        for index in 0..bytes.len() {
            for bit in 0..8 {
                let mut damaged = bytes.clone();
                damaged[index] ^= 1 << bit;
                // The case of a hexadecimal digit is the one bit that means nothing.
                let same = decode(&damaged).ok().is_none_or(|world| world == sample());
                assert!(
                    same,
                    "byte {index} bit {bit} was accepted with another meaning"
                );
            }
        }
    }
}
