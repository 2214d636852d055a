//! Network namespaces, the process in one of them, and a client that can be told line by line.
#![allow(dead_code, reason = "each test binary uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

pub(crate) mod router;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::IpAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant, SystemTime};

use caracal_bfdd::proto::{
    Applied, Message, Request, SessionConfig, SessionEvent, SessionKey, SessionStatus, Snapshot,
};
use caracal_bfdd::{Daemon, Options, Stopper};
use caracal_bgp_core::bfd::State;
use nix::sched::{CloneFlags, setns};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// For what takes a handshake or a second of slow packets.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// Whether namespaces can be made here; says aloud if not.
pub(crate) fn can_make_namespaces() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        caracal_skip::missing!("network namespaces need root");
    }
    root
}

/// Namespaces that are gone with it, also by a panic.
pub(crate) struct Net {
    prefix: String,
    names: Vec<String>,
}

impl Net {
    /// Namespaces by short names, with their loopback up.
    pub(crate) fn new(names: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("cbfd{}x{number}", std::process::id());
        let mut net = Self {
            prefix,
            names: Vec::new(),
        };
        for name in names {
            let full = net.full(name);
            run("ip", &["netns", "add", &full]);
            net.names.push(full.clone());
            run("ip", &["-n", &full, "link", "set", "lo", "up"]);
        }
        net
    }

    /// The name that the system knows it by.
    pub(crate) fn full(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// `ip` in a namespace, words by blanks.
    pub(crate) fn ip(&self, name: &str, words: &str) {
        let full = self.full(name);
        let words: Vec<&str> = words.split_whitespace().collect();
        run("ip", &[&["-n", full.as_str()][..], &words].concat());
    }

    /// A link between two namespaces, one end each, with addresses and up.
    pub(crate) fn link(&self, ends: [(&str, &str, &[&str]); 2]) {
        let [(a, a_name, _), (b, b_name, _)] = ends;
        let b_full = self.full(b);
        self.ip(
            a,
            &format!("link add {a_name} type veth peer name {b_name} netns {b_full}"),
        );
        for (name, interface, addresses) in ends {
            for address in addresses {
                let nodad = if address.contains(':') { "nodad" } else { "" };
                self.ip(name, &format!("addr add {address} dev {interface} {nodad}"));
            }
            self.ip(name, &format!("link set {interface} up"));
        }
    }

    /// A command in a namespace.
    pub(crate) fn command(&self, name: &str, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.full(name), program]);
        command
    }

    /// Runs `work` on a thread inside a namespace. Threads that it starts stay there.
    pub(crate) fn inside<T: Send>(&self, name: &str, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.full(name))).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            match thread.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Drops BFD packets that come into a namespace, from some moment between the two returned.
    pub(crate) fn cut(&self, name: &str) -> (Instant, Instant) {
        let before = Instant::now();
        self.nft(
            name,
            "table inet cut {\n chain arriving {\n type filter hook input priority 0\n udp dport { 3784, 4784 } drop\n }\n}\n",
        );
        (before, Instant::now())
    }

    /// Undoes [`Self::cut`].
    pub(crate) fn mend(&self, name: &str) {
        self.nft(name, "delete table inet cut\n");
    }

    fn nft(&self, name: &str, rules: &str) {
        let mut child = self
            .command(name, "nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(rules.as_bytes()).unwrap();
        drop(input);
        assert!(child.wait().unwrap().success(), "nft: {rules}");
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for name in &self.names {
            let _ = Command::new("ip").args(["netns", "del", name]).status();
        }
    }
}

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?}: {error}");
}

/// Waits until `check` finds what it looks for; it says what it saw instead.
pub(crate) fn until<T>(
    what: &str,
    within: Duration,
    mut check: impl FnMut() -> Result<T, String>,
) -> T {
    let deadline = Instant::now() + within;
    loop {
        match check() {
            Ok(found) => return found,
            Err(seen) if Instant::now() > deadline => panic!("{what}: last seen {seen}"),
            Err(_) => std::thread::sleep(ms(20)),
        }
    }
}

/// The process, as threads of the test.
pub(crate) struct Process {
    daemon: Option<Daemon>,
    stopper: Stopper,
    _folder: tempfile::TempDir,
    pub(crate) socket: PathBuf,
}

impl Process {
    pub(crate) fn start(net: &Net, name: &str) -> Self {
        Self::start_with(net, name, |_| {})
    }

    pub(crate) fn start_with(net: &Net, name: &str, adjust: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bfd.sock");
        let mut options = Options::new(&socket);
        adjust(&mut options);
        let daemon = net.inside(name, || Daemon::start(options)).unwrap();
        Self {
            stopper: daemon.stopper(),
            daemon: Some(daemon),
            _folder: folder,
            socket,
        }
    }

    /// Stops it and waits for its end.
    pub(crate) fn stop(&mut self) {
        self.stopper.stop();
        if let Some(daemon) = self.daemon.take() {
            daemon.wait().unwrap();
        }
    }

    pub(crate) fn client(&self) -> TestClient {
        TestClient::connect(&self.socket)
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        caracal_bfdd::sessions(&self.socket).unwrap()
    }

    pub(crate) fn session(&self, key: &SessionKey) -> SessionStatus {
        let sessions = self.snapshot().sessions;
        let found = sessions.into_iter().find(|session| session.key == *key);
        found.unwrap_or_else(|| panic!("no session {key}"))
    }

    pub(crate) fn until_state(&self, key: &SessionKey, state: State) -> SessionStatus {
        until(&format!("{key} {state}"), SOON, || {
            let session = self.session(key);
            if session.standing.state == state {
                Ok(session)
            } else {
                Err(format!("{session:#?}"))
            }
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stopper.stop();
        // A test that failed need not wait for the farewell.
        if !std::thread::panicking()
            && let Some(daemon) = self.daemon.take()
        {
            daemon.wait().unwrap();
        }
    }
}

/// A client without any intelligence.
pub(crate) struct TestClient {
    stream: UnixStream,
    lines: Receiver<Message<Value>>,
    events: Vec<SessionEvent>,
}

impl TestClient {
    pub(crate) fn connect(socket: &Path) -> Self {
        let stream = UnixStream::connect(socket).unwrap();
        let (send, lines) = channel();
        let read = BufReader::new(stream.try_clone().unwrap());
        std::thread::spawn(move || {
            for line in read.lines() {
                let Ok(line) = line else { return };
                if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                    return;
                }
            }
        });
        Self {
            stream,
            lines,
            events: Vec::new(),
        }
    }

    pub(crate) fn say(&mut self, line: &str) {
        self.stream.write_all(line.as_bytes()).unwrap();
        self.stream.write_all(b"\n").unwrap();
    }

    /// The answer, or the refusal.
    pub(crate) fn answer(&mut self) -> Result<Value, String> {
        loop {
            match self.lines.recv_timeout(SOON).unwrap() {
                Message::Ok(value) => return Ok(value),
                Message::Error(why) => return Err(why),
                Message::Event(event) => self.events.push(event),
                Message::Lagged(_) => panic!("lagged"),
            }
        }
    }

    pub(crate) fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> T {
        self.say(&serde_json::to_string(request).unwrap());
        serde_json::from_value(self.answer().unwrap()).unwrap()
    }

    pub(crate) fn apply(&mut self, sessions: &[SessionConfig]) -> Applied {
        let applied: Applied = self.ask(&Request::Apply {
            owner: "test".to_owned(),
            sessions: sessions.to_vec(),
        });
        assert_eq!(applied.refused, []);
        applied
    }

    pub(crate) fn subscribe(&mut self) {
        let () = self.ask(&Request::Subscribe);
    }

    /// The next event that fits, with the moment it tells of.
    pub(crate) fn event(
        &mut self,
        within: Duration,
        fits: impl Fn(&SessionEvent) -> bool,
    ) -> (SessionEvent, Instant) {
        let deadline = Instant::now() + within;
        loop {
            while !self.events.is_empty() {
                let event = self.events.remove(0);
                if fits(&event) {
                    let at = moment(event.standing.since_unix_ms);
                    return (event, at);
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(Message::Event(event)) => self.events.push(event),
                Ok(other) => panic!("{other:?}"),
                Err(RecvTimeoutError::Timeout) => panic!("no event within {within:?}"),
                Err(RecvTimeoutError::Disconnected) => panic!("the process is gone"),
            }
        }
    }

    /// Events that have come and were not asked for.
    pub(crate) fn pending(&mut self) -> Vec<SessionEvent> {
        while let Ok(message) = self.lines.try_recv() {
            match message {
                Message::Event(event) => self.events.push(event),
                other => panic!("{other:?}"),
            }
        }
        std::mem::take(&mut self.events)
    }
}

impl Drop for TestClient {
    fn drop(&mut self) {
        // The thread that reads has the connection as well.
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
    }
}

/// The moment that the process tells of. Its age would do as well, but it grows while the test waits
/// for a core of a busy machine.
fn moment(unix_ms: u64) -> Instant {
    let told = SystemTime::UNIX_EPOCH + Duration::from_millis(unix_ms);
    let (now, wall) = (Instant::now(), SystemTime::now());
    now - wall.duration_since(told).unwrap_or_default()
}

/// A session with the given timing.
pub(crate) fn session(key: &SessionKey, interval: Duration, mult: u8) -> SessionConfig {
    let micros = u32::try_from(interval.as_micros()).unwrap();
    SessionConfig {
        desired_min_tx_us: micros,
        required_min_rx_us: micros,
        detect_mult: mult,
        ..SessionConfig::new(key.clone())
    }
}
