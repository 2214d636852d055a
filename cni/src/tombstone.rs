//! DEL while no agent answers: a file that the next agent replays.
//!
//! The runtime must be able to finish a DEL, or the pod hangs in Terminating for as long as the
//! agent is away. Answering success is safe because the address stays taken until the replay.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::protocol::{Attachment, AttachmentKey};

/// The directory of tombstones, beside the agent's socket.
pub fn directory(socket: &Path) -> PathBuf {
    socket.parent().unwrap_or(Path::new("/")).join("cni-del")
}

/// Writes the tombstone of `attachment`. The name is whole once the file exists: the body is
/// written under another name and renamed.
///
/// # Errors
/// Where the directory or the file cannot be written.
pub fn write(directory: &Path, attachment: &Attachment) -> io::Result<()> {
    fs::create_dir_all(directory)?;
    let key = &attachment.key;
    let name = format!("{}.{}", key.container_id, key.interface);
    let temporary = directory.join(format!(".{name}.{}", std::process::id()));
    fs::write(&temporary, serde_json::to_vec(attachment)?)?;
    fs::rename(temporary, directory.join(name))
}

/// Every tombstone with its path, to be removed after the replay. A file that does not parse is
/// taken by its name, because a full tmpfs can leave it empty.
///
/// # Errors
/// Where the directory exists but cannot be read.
pub fn list(directory: &Path) -> io::Result<Vec<(PathBuf, Attachment)>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if name.starts_with('.') {
            continue;
        }
        let parsed = fs::read(&path)
            .ok()
            .and_then(|body| serde_json::from_slice(&body).ok());
        // Interface names hold dots more rarely than container IDs do: split at the last.
        let from_name = || {
            let (container_id, interface) = name.rsplit_once('.')?;
            let key = AttachmentKey {
                container_id: container_id.into(),
                interface: interface.into(),
            };
            Some(Attachment {
                key,
                netns: None,
                pod: None,
            })
        };
        if let Some(attachment) = parsed.or_else(from_name) {
            found.push((path, attachment));
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_still_names_its_attachment() {
        let directory = tempfile::tempdir().unwrap();
        assert!(list(&directory.path().join("absent")).unwrap().is_empty());
        fs::write(directory.path().join("abc.eth0"), b"").unwrap();
        fs::write(directory.path().join(".half.eth0.12"), b"").unwrap();
        let key = AttachmentKey {
            container_id: "def".into(),
            interface: "eth0".into(),
        };
        write(
            directory.path(),
            &Attachment {
                key,
                netns: None,
                pod: None,
            },
        )
        .unwrap();
        let names: Vec<String> = list(directory.path())
            .unwrap()
            .into_iter()
            .map(|(_, attachment)| attachment.key.container_id)
            .collect();
        assert_eq!(names, ["abc", "def"]);
    }
}
