//! Puts the two threads together.

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::{Command, Engine, Receiver};
use crate::error::Error;
use crate::server::{Listener, Server};
use crate::wake::Wake;

/// Orders that may wait for the engine, which looks every time it wakes.
const COMMANDS: usize = 64;
/// Reports that may wait for the other thread; what does not fit waits with the engine.
const REPORTS: usize = 1024;

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where clients find us. Mode 0600: who can open it can take sessions down.
    pub socket: PathBuf,
    /// How long sessions stay after the connection of their owner has ended.
    pub hold: Duration,
    /// Whether to ask the kernel for real-time priority.
    pub realtime: bool,
}

impl Options {
    /// Ten minutes, at real-time priority.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            hold: Duration::from_secs(600),
            realtime: true,
        }
    }
}

/// The process, running. It belongs to the network namespace of the thread that started it.
#[derive(Debug)]
pub struct Daemon {
    commands: SyncSender<Command>,
    engine_wake: Wake,
    engine: JoinHandle<()>,
    server: JoinHandle<()>,
}

impl Daemon {
    /// Opens every socket, then starts the threads.
    ///
    /// # Errors
    /// A port or the socket cannot be had; nothing runs then.
    pub fn start(options: Options) -> Result<Self, Error> {
        let receivers = Receiver::bind_all()?;
        let listener = Listener::bind(&options.socket)?;
        let (commands, orders) = sync_channel(COMMANDS);
        let (reports, reader) = sync_channel(REPORTS);
        let (engine_wake, server_wake) = (Wake::new()?, Wake::new()?);
        let last_wake = server_wake.clone();
        let engine = Engine::new(
            receivers,
            orders,
            engine_wake.clone(),
            reports,
            server_wake.clone(),
        )?;
        let server = Server::new(
            listener,
            options.hold,
            commands.clone(),
            engine_wake.clone(),
            reader,
            server_wake,
        )?;
        let failed = |source| Error::System {
            doing: "start a thread",
            source,
        };
        // Neither thread is of use without the other, so each one's end, also by a panic, ends both.
        let stop_engine = OnDrop(Stopper {
            commands: commands.clone(),
            engine_wake: engine_wake.clone(),
        });
        let server = std::thread::Builder::new()
            .name("bfd-clients".to_owned())
            .spawn(move || {
                let _stop_engine = stop_engine;
                server.run();
            })
            .map_err(failed)?;
        let wake_server = OnDrop(last_wake);
        let engine = std::thread::Builder::new()
            .name("bfd-engine".to_owned())
            .spawn(move || {
                // Dropped after the engine, so the server finds its reports at an end.
                let _wake_server = wake_server;
                engine.run(options.realtime);
            })
            .map_err(failed)?;
        Ok(Self {
            commands,
            engine_wake,
            engine,
            server,
        })
    }

    /// Something that can stop the process from elsewhere.
    pub fn stopper(&self) -> Stopper {
        Stopper {
            commands: self.commands.clone(),
            engine_wake: self.engine_wake.clone(),
        }
    }

    /// Waits for the end: [`Stopper::stop`], or a thread that failed.
    ///
    /// # Errors
    /// A thread ended by a panic; the sessions are gone.
    pub fn wait(self) -> Result<(), Error> {
        self.engine
            .join()
            .map_err(|_| Error::ThreadEnded("bfd-engine"))?;
        drop(self.commands);
        self.server
            .join()
            .map_err(|_| Error::ThreadEnded("bfd-clients"))
    }
}

/// Stops the process.
#[derive(Clone, Debug)]
pub struct Stopper {
    commands: SyncSender<Command>,
    engine_wake: Wake,
}

impl Stopper {
    /// Tells every peer that its session is held down on purpose (AdminDown), so that none takes the
    /// path for dead, and ends, after five seconds at most.
    pub fn stop(&self) {
        // It cannot be told if it has ended, which is what is asked for.
        if self.commands.send(Command::Stop).is_ok() {
            self.engine_wake.wake();
        }
    }
}

/// Does its work when it is dropped.
struct OnDrop<T: AtEnd>(T);

trait AtEnd {
    fn at_end(&self);
}

impl AtEnd for Stopper {
    fn at_end(&self) {
        self.stop();
    }
}

impl AtEnd for Wake {
    fn at_end(&self) {
        self.wake();
    }
}

impl<T: AtEnd> Drop for OnDrop<T> {
    fn drop(&mut self) {
        self.0.at_end();
    }
}
