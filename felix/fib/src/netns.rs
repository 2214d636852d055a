//! Network namespaces: opening, making, removing, and working inside one.
//!
//! Owns the rule that a thread which enters a namespace ends there: a pooled thread never changes
//! its namespace, so nothing leaks into unrelated work. Does not own what is done inside.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::path::{Path, PathBuf};
use std::thread;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::error::{Error, Result};

/// Where named namespaces live; shared with iproute2, so that `ip netns` sees ours.
pub const NETNS_DIR: &str = "/run/netns";

/// The namespace of the calling thread; `/proc/self` would be the first thread's.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// An open network namespace. It lives as long as this handle, whatever happens to its path.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
}

impl Netns {
    /// Opens the namespace that `path` stands for: a bind mount or `/proc/<pid>/ns/net`.
    ///
    /// # Errors
    /// [`Error::Namespace`] when the file cannot be opened.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(namespace_error("open", &path, source)),
        }
    }

    /// Opens the namespace that `ip netns` calls `name`.
    ///
    /// # Errors
    /// [`Error::Namespace`] when there is none.
    pub fn named(name: &str) -> Result<Self> {
        Self::open(Path::new(NETNS_DIR).join(name))
    }

    /// Opens the calling thread's namespace.
    ///
    /// # Errors
    /// [`Error::Namespace`] when `/proc` is not mounted.
    pub fn current() -> Result<Self> {
        Self::open(OWN_NETNS)
    }

    /// The path by which the namespace was opened; for messages, it may be gone.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The number that tells namespaces apart, as `readlink` shows it; reused after removal.
    ///
    /// # Errors
    /// [`Error::Namespace`] when the handle cannot be examined.
    pub fn inode(&self) -> Result<u64> {
        let metadata = self.file.metadata();
        metadata
            .map(|metadata| metadata.ino())
            .map_err(|source| namespace_error("examine", &self.path, source))
    }

    /// Runs `work` inside the namespace, on a thread of its own that ends with it.
    ///
    /// Sockets that `work` opens stay in the namespace and may be returned. A panic passes through.
    ///
    /// # Errors
    /// [`Error::Namespace`] when the namespace cannot be entered, [`Error::Thread`] when no thread
    /// can be started; `work` has not run then.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        thread::scope(|scope| {
            let inside = || {
                setns(&self.file, CloneFlags::CLONE_NEWNET)
                    .map_err(|errno| namespace_error("enter", &self.path, errno.into()))?;
                Ok(work())
            };
            let worker = thread::Builder::new()
                .name("netns".into())
                .spawn_scoped(scope, inside)
                .map_err(|source| Error::Thread {
                    name: "netns",
                    source,
                })?;
            worker
                .join()
                .unwrap_or_else(|panic| panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// A namespace with a name below [`NETNS_DIR`], removed when the value is dropped.
#[derive(Debug)]
pub struct NamedNetns {
    netns: Netns,
    name: String,
    kept: bool,
}

impl NamedNetns {
    /// Makes a new, empty namespace: only `lo`, and that down.
    ///
    /// # Errors
    /// [`Error::Namespace`] when the name is taken or the process lacks privilege.
    pub fn create(name: &str) -> Result<Self> {
        let path = Path::new(NETNS_DIR).join(name);
        let failed = |source| namespace_error("create", &path, source);
        share_netns_dir().map_err(failed)?;
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(failed)?;
        let made = bind_new_namespace(&path).map_err(failed);
        match made.and_then(|()| Netns::open(&path)) {
            Ok(netns) => Ok(Self {
                netns,
                name: name.to_owned(),
                kept: false,
            }),
            Err(error) => {
                // The first error is the one that explains; a leftover name would block a retry.
                let _ = delete(name);
                Err(error)
            }
        }
    }

    /// The name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The bind mount.
    pub fn path(&self) -> &Path {
        self.netns.path()
    }

    /// The open namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Leaves the name in place when the value is dropped.
    pub fn keep(mut self) {
        self.kept = true;
    }

    /// Removes the name now and says whether that went well.
    ///
    /// # Errors
    /// [`Error::Namespace`] when the mount cannot be undone.
    pub fn delete(mut self) -> Result<()> {
        self.kept = true;
        delete(&self.name)
    }
}

impl Drop for NamedNetns {
    fn drop(&mut self) {
        if !self.kept
            && let Err(error) = delete(&self.name)
        {
            tracing::warn!(netns = %self.name, %error, "namespace stays behind");
        }
    }
}

/// Removes the name of a namespace; the namespace ends with its last process, socket and handle.
/// A name that does not exist is no error.
///
/// # Errors
/// [`Error::Namespace`] when the mount cannot be undone.
pub fn delete(name: &str) -> Result<()> {
    let path = Path::new(NETNS_DIR).join(name);
    match umount2(&path, MntFlags::MNT_DETACH) {
        // EINVAL: a plain file, left by someone who died between creating and mounting.
        Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
        Err(errno) => return Err(namespace_error("unmount", &path, errno.into())),
    }
    match fs::remove_file(&path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(namespace_error("delete", &path, source))
        }
        _ => Ok(()),
    }
}

/// Makes [`NETNS_DIR`] a shared mount, as iproute2 does: without it a removal would not reach
/// other mount namespaces, and the network namespace would live on there.
fn share_netns_dir() -> io::Result<()> {
    fs::create_dir_all(NETNS_DIR)?;
    let directory = File::open(NETNS_DIR)?;
    // Two processes that do this at once would stack two mounts.
    let _lock = Flock::lock(directory, FlockArg::LockExclusive)
        .map_err(|(_, errno)| io::Error::from(errno))?;
    let share = || {
        let flags = MsFlags::MS_SHARED | MsFlags::MS_REC;
        mount(None::<&str>, NETNS_DIR, None::<&str>, flags, None::<&str>)
    };
    match share() {
        // EINVAL: not a mount point yet.
        Err(Errno::EINVAL) => {
            let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
            mount(
                Some(NETNS_DIR),
                NETNS_DIR,
                None::<&str>,
                flags,
                None::<&str>,
            )?;
            share()?;
        }
        other => other?,
    }
    Ok(())
}

fn bind_new_namespace(path: &Path) -> io::Result<()> {
    let bind = || -> io::Result<()> {
        unshare(CloneFlags::CLONE_NEWNET)?;
        let flags = MsFlags::MS_BIND;
        mount(Some(OWN_NETNS), path, None::<&str>, flags, None::<&str>)?;
        Ok(())
    };
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".into())
            .spawn_scoped(scope, bind)?;
        worker
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic))
    })
}

fn namespace_error(doing: &'static str, path: &Path, source: io::Error) -> Error {
    Error::Namespace {
        doing,
        path: path.to_owned(),
        source,
    }
}
