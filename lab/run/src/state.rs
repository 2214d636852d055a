//! Where a lab keeps what it has made, so that another process can take it down.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::namespace::Namespace;
use crate::process::kill_all_in;

/// Parent of all labs' folders.
const ROOT: &str = "/run/caracal-lab";

/// A lab's folder under `/run`: namespaces, configurations, sockets, logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateDir {
    root: PathBuf,
}

impl StateDir {
    /// The folder of a lab, existing or not.
    pub fn of(name: &str) -> Self {
        Self {
            root: Path::new(ROOT).join(name),
        }
    }

    /// Makes the folder, which must not exist.
    pub(crate) fn create(&self) -> anyhow::Result<()> {
        // Others may pass through but not look around: FRR's daemons run under an account of their own and
        // have to reach their folder. What is secret has a mode of its own.
        let mut folder = std::fs::DirBuilder::new();
        folder.mode(0o711);
        folder
            .recursive(true)
            .create(ROOT)
            .with_context(|| format!("cannot create {ROOT}"))?;
        folder.recursive(false);
        for path in [&self.root, &self.root.join("ns")] {
            folder
                .create(path)
                .with_context(|| format!("cannot create {}", path.display()))?;
        }
        Ok(())
    }

    /// Names of the labs that are there.
    pub fn all() -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(ROOT) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// The lab's name.
    pub fn name(&self) -> std::borrow::Cow<'_, str> {
        self.root.file_name().unwrap_or_default().to_string_lossy()
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// File of a box's namespace.
    pub fn namespace(&self, node: &str) -> PathBuf {
        self.root.join("ns").join(node)
    }

    /// Folder of a box: configuration, sockets, logs.
    pub fn folder(&self, node: &str) -> PathBuf {
        self.root.join("box").join(node)
    }

    /// Credentials for the lab's API server, reached over loopback.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join("kubeconfig")
    }

    /// Every namespace of the lab.
    pub fn namespaces(&self) -> Vec<Namespace> {
        let Ok(entries) = std::fs::read_dir(self.root.join("ns")) else {
            return Vec::new();
        };
        entries
            .filter_map(|entry| Some(Namespace::at(&entry.ok()?.path())))
            .collect()
    }

    /// Ends every process in the lab's namespaces, lets go of the namespaces and removes the folder.
    /// Works on whatever is left of a lab, and twice.
    ///
    /// # Errors
    /// Something cannot be removed; the rest is.
    pub fn tear_down(&self) -> anyhow::Result<()> {
        let namespaces = self.namespaces();
        for pid in kill_all_in(&namespaces) {
            crate::routers::remove_leftovers(pid);
        }
        let mut first_error = None;
        for namespace in &namespaces {
            if let Err(error) = namespace.delete() {
                first_error.get_or_insert(error);
            }
        }
        if self.root.exists()
            && let Err(error) = std::fs::remove_dir_all(&self.root)
        {
            first_error.get_or_insert(
                anyhow::Error::new(error).context(format!("cannot remove {}", self.root.display())),
            );
        }
        // The parent goes with the last lab; while another is there this fails, as it should.
        let _ = std::fs::remove_dir(ROOT);
        first_error.map_or(Ok(()), Err)
    }
}
