//! Network namespaces that the lab owns: they outlive the processes in them, so that a process which is
//! killed and started again finds its links.

use std::fs::File;
use std::future::Future;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

/// A network namespace, known by the file it is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    path: PathBuf,
}

impl Namespace {
    /// Makes a new namespace and binds it to `path`, which must not exist.
    ///
    /// # Errors
    /// The file cannot be made, or the kernel refuses (not root).
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        File::create_new(path).with_context(|| format!("cannot create {}", path.display()))?;
        let target = path.to_owned();
        on_thread(move || {
            unshare(CloneFlags::CLONE_NEWNET)?;
            let own = Path::new("/proc/thread-self/ns/net");
            mount(
                Some(own),
                &target,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )?;
            Ok(())
        })
        .with_context(|| format!("cannot make network namespace {}", path.display()))?;
        Ok(Self {
            path: path.to_owned(),
        })
    }

    /// Takes an existing namespace by its file.
    pub fn at(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
        }
    }

    /// The file that stands for the namespace; also what CNI calls `CNI_NETNS`.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on a thread of its own inside the namespace and waits for it. Processes that it spawns
    /// and sockets that it opens stay in the namespace.
    ///
    /// # Errors
    /// The namespace is gone, or `work` fails.
    pub fn run<T: Send>(
        &self,
        work: impl FnOnce() -> anyhow::Result<T> + Send,
    ) -> anyhow::Result<T> {
        let file = File::open(&self.path)
            .with_context(|| format!("cannot open network namespace {}", self.path.display()))?;
        let enter = || -> anyhow::Result<T> {
            setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| {
                format!("cannot enter network namespace {}", self.path.display())
            })?;
            work()
        };
        std::thread::scope(|scope| match scope.spawn(enter).join() {
            Ok(result) => result,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    }

    /// Runs `work` on a thread of its own inside the namespace without waiting for it.
    ///
    /// # Errors
    /// The namespace is gone or no thread can be made.
    pub fn spawn<T: Send + 'static>(
        &self,
        name: &str,
        work: impl FnOnce() -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<std::thread::JoinHandle<anyhow::Result<T>>> {
        let namespace = self.clone();
        let file = File::open(&self.path)
            .with_context(|| format!("cannot open network namespace {}", self.path.display()))?;
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                setns(&file, CloneFlags::CLONE_NEWNET).with_context(|| {
                    format!(
                        "cannot enter network namespace {}",
                        namespace.path.display()
                    )
                })?;
                work()
            })
            .context("cannot start a thread")
    }

    /// Runs `work` with a route netlink handle that belongs to the namespace.
    ///
    /// # Errors
    /// No socket can be opened there, or `work` fails.
    pub fn rtnl<T, F>(&self, work: impl FnOnce(rtnetlink::Handle) -> F + Send) -> anyhow::Result<T>
    where
        T: Send,
        F: Future<Output = anyhow::Result<T>>,
    {
        self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            runtime.block_on(async {
                let (connection, handle, _) = rtnetlink::new_connection()?;
                let driver = tokio::spawn(connection);
                let result = work(handle).await;
                driver.abort();
                result
            })
        })
    }

    /// Inode of the namespace: equal to that of `/proc/PID/ns/net` for every process inside.
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn inode(&self) -> io::Result<u64> {
        use std::os::unix::fs::MetadataExt;
        Ok(std::fs::metadata(&self.path)?.ino())
    }

    /// Lets go of the namespace. The kernel frees it and its links once no process is left in it.
    ///
    /// # Errors
    /// The bind mount cannot be taken away. A namespace that is gone already is no error.
    pub fn delete(&self) -> anyhow::Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        match umount2(&self.path, MntFlags::MNT_DETACH) {
            // EINVAL: the file is there and nothing is mounted on it.
            Ok(()) | Err(nix::errno::Errno::EINVAL) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("cannot unmount {}", self.path.display()));
            }
        }
        std::fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
