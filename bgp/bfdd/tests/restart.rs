//! Sessions outlive the client that asked for them, its process group and its cgroup; the next one
//! finds them as they are, and learns what happened meanwhile.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use caracal_bfdd::client::{Client, ClientEvent, ClientOptions};
use caracal_bfdd::proto::{Adopted, Reason, SessionConfig, SessionEvent, SessionKey};
use caracal_bfdd::{Daemon, Options};
use caracal_bgp_core::bfd::{Packet, State};
use common::router::{Kind, Peering, Router, View};
use common::{Net, Process, SOON, can_make_namespaces, ip, ms, session, until};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// What the client process writes, one per line.
#[derive(Debug, Serialize, Deserialize)]
enum Told {
    Connected,
    Disconnected(String),
    Adopted(Adopted),
    Changed(SessionEvent),
}

/// Not a test: this binary as a process that runs the daemon, when told to by the environment.
#[test]
#[ignore = "a part of other tests"]
fn process_that_runs_the_daemon() {
    let Some(socket) = std::env::var_os("CARACAL_TEST_DAEMON") else {
        return;
    };
    Daemon::start(Options::new(socket)).unwrap().wait().unwrap();
}

/// Not a test: this binary as a client, when told to by the environment.
#[test]
#[ignore = "a part of other tests"]
fn process_that_wants_sessions() {
    let Some(socket) = std::env::var_os("CARACAL_TEST_CLIENT") else {
        return;
    };
    let sessions = std::env::var("CARACAL_TEST_SESSIONS").unwrap();
    let sessions: Vec<SessionConfig> = serde_json::from_str(&sessions).unwrap();
    // The cgroup is to be killed with all that is in it, so there is more than one.
    let mut other = Command::new("sleep").arg("1000").spawn().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    runtime.block_on(async {
        let (client, mut events) = Client::start(ClientOptions::new(socket, "agent"));
        client.apply(sessions);
        while let Some(event) = events.recv().await {
            let told = match event {
                ClientEvent::Connected => Told::Connected,
                ClientEvent::Disconnected { why } => Told::Disconnected(why),
                ClientEvent::Adopted { session, .. } => Told::Adopted(session),
                ClientEvent::Changed { event, .. } => Told::Changed(event),
                ClientEvent::Refused(refused) => panic!("{refused:?}"),
            };
            // Past the test harness, which keeps output to itself.
            let mut output = File::options().append(true).open("/dev/stdout").unwrap();
            writeln!(output, "TOLD {}", serde_json::to_string(&told).unwrap()).unwrap();
        }
    });
    let _ = other.kill();
    let _ = other.wait();
}

fn this_binary(helper: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", helper, "--ignored", "--nocapture"]);
    command
}

/// A cgroup of its own, where the second version of them is at hand and we may.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new() -> Option<Self> {
        let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
        let root = roots
            .into_iter()
            .find(|root| root.join("cgroup.controllers").exists());
        let Some(root) = root else {
            caracal_skip::skip!("the cgroup: there is no cgroup v2");
            return None;
        };
        let path = root.join(format!("caracal-bfd-{}", std::process::id()));
        match std::fs::create_dir(&path) {
            Ok(()) if path.join("cgroup.kill").exists() => Some(Self(path)),
            Ok(()) => {
                caracal_skip::skip!("the cgroup: this kernel has no cgroup.kill");
                let _ = std::fs::remove_dir(&path);
                None
            }
            Err(error) => {
                caracal_skip::skip!("the cgroup: {}: {error}", path.display());
                None
            }
        }
    }

    fn procs(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }

    fn kill(&self) {
        std::fs::write(self.0.join("cgroup.kill"), "1").unwrap();
        until("the cgroup empty", SOON, || {
            let left = std::fs::read_to_string(self.procs()).unwrap();
            left.is_empty().then_some(()).ok_or(left)
        });
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let deadline = Instant::now() + SOON;
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(ms(10));
        }
    }
}

/// A client in a process group and, where possible, a cgroup of its own.
struct ClientProcess {
    child: Child,
    told: Receiver<Told>,
    cgroup: Option<Cgroup>,
}

impl ClientProcess {
    fn start(socket: &Path, sessions: &[SessionConfig]) -> Self {
        let cgroup = Cgroup::new();
        let mut command = Command::new("sh");
        // Joins the cgroup, then becomes the client, so that nothing of it was ever elsewhere.
        let join = match &cgroup {
            Some(cgroup) => format!("echo $$ > {} && ", cgroup.procs().display()),
            None => String::new(),
        };
        let helper = this_binary("process_that_wants_sessions");
        let program = helper.get_program().to_owned();
        command
            .arg("-c")
            .arg(format!("{join}exec \"$0\" \"$@\""))
            .arg(program)
            .args(helper.get_args())
            .env("CARACAL_TEST_CLIENT", socket)
            .env(
                "CARACAL_TEST_SESSIONS",
                serde_json::to_string(sessions).unwrap(),
            )
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, told) = channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, json)) = line.split_once("TOLD ")
                    && send.send(serde_json::from_str(json).unwrap()).is_err()
                {
                    return;
                }
            }
        });
        Self {
            child,
            told,
            cgroup,
        }
    }

    /// The next thing told that `pick` picks.
    fn told<T>(&self, what: &str, mut pick: impl FnMut(Told) -> Option<T>) -> T {
        let deadline = Instant::now() + SOON;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let told = self.told.recv_timeout(left);
            let told = told.unwrap_or_else(|error| panic!("{what}: {error}"));
            if let Some(picked) = pick(told) {
                return picked;
            }
        }
    }

    fn adopted(&self, key: &SessionKey) -> Adopted {
        self.told("adopted", |told| match told {
            Told::Adopted(adopted) if adopted.key == *key => Some(adopted),
            _ => None,
        })
    }

    /// Gone without a chance to say anything, with all that it had started.
    fn kill(mut self) {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
        let group = Pid::from_raw(self.child.id().try_into().unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        self.child.wait().unwrap();
    }
}

impl Drop for ClientProcess {
    fn drop(&mut self) {
        let group = Pid::from_raw(self.child.id().try_into().unwrap());
        let _ = killpg(group, Signal::SIGKILL);
        let _ = self.child.wait();
    }
}

/// The daemon as a process of its own in a namespace.
struct DaemonProcess {
    child: Child,
    folder: tempfile::TempDir,
}

impl DaemonProcess {
    fn start(net: &Net, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("bfd.sock");
        let helper = this_binary("process_that_runs_the_daemon");
        let mut command = net.command(name, &helper.get_program().to_string_lossy());
        command
            .args(helper.get_args())
            .env("CARACAL_TEST_DAEMON", &socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0);
        let child = command.spawn().unwrap();
        until("the daemon answers", SOON, || {
            let answer = caracal_bfdd::sessions(&socket);
            answer.map(drop).map_err(|error| error.to_string())
        });
        Self { child, folder }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bfd.sock")
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The next BFD packet from `source` that comes in by any interface of the namespace.
fn capture(net: &Net, name: &str, source: &str) -> Packet {
    // Every protocol, in the byte order of the network, as packet(7) has it.
    const ALL: u16 = 0x0003;
    let socket = net.inside(name, || {
        let protocol = Protocol::from(i32::from(ALL.to_be()));
        Socket::new(Domain::PACKET, Type::DGRAM, Some(protocol)).unwrap()
    });
    socket.set_read_timeout(Some(SOON)).unwrap();
    let deadline = Instant::now() + SOON;
    loop {
        let mut octets = [0; 2048];
        let len = std::io::Read::read(&mut &socket, &mut octets).unwrap();
        let datagram = &octets[..len];
        // IPv4 and UDP, to the port of BFD.
        let header = usize::from(datagram[0] & 0xf) * 4;
        let is_ours = datagram[0] >> 4 == 4
            && datagram[9] == 17
            && datagram[12..16] == ip_octets(source)
            && datagram.get(header + 2..header + 4) == Some(&3784_u16.to_be_bytes()[..]);
        if is_ours {
            return Packet::decode(&datagram[header + 8..]).unwrap();
        }
        assert!(Instant::now() < deadline, "no packet from {source}");
    }
}

fn ip_octets(text: &str) -> [u8; 4] {
    text.parse::<std::net::Ipv4Addr>().unwrap().octets()
}

fn peering(peer: &'static str, local: &'static str) -> Peering {
    Peering {
        peer,
        local,
        interface: Some("e1"),
        interval_ms: 300,
        mult: 3,
        auth: None,
    }
}

fn assert_unbroken(bird: &Router, before: &View) {
    let now = bird.view("10.0.1.0").unwrap();
    assert!(now.is_unbroken_since(before), "{before:?}, then {now:?}");
}

#[test]
fn sessions_outlive_the_process_group_and_cgroup_of_their_client() {
    if !can_make_namespaces() || !Kind::Bird.is_installed() || !Kind::Frr.is_installed() {
        return;
    }
    let net = Net::new(&["a", "b", "c"]);
    net.link([("a", "e1", &["10.0.1.0/31"]), ("b", "e1", &["10.0.1.1/31"])]);
    net.link([("a", "e2", &["10.0.2.0/31"]), ("c", "e1", &["10.0.2.1/31"])]);
    let bird = Router::start(Kind::Bird, &net, "b", &[peering("10.0.1.0", "10.0.1.1")]);
    let frr = Router::start(Kind::Frr, &net, "c", &[peering("10.0.2.0", "10.0.2.1")]);
    let daemon = DaemonProcess::start(&net, "a");
    let to_bird = SessionKey::single_hop(Some(ip("10.0.1.0")), ip("10.0.1.1"), Some("e1"));
    let to_frr = SessionKey::single_hop(Some(ip("10.0.2.0")), ip("10.0.2.1"), Some("e2"));
    let sessions = [&to_bird, &to_frr].map(|key| session(key, ms(300), 3));

    let first = ClientProcess::start(&daemon.socket(), &sessions);
    assert!(!first.adopted(&to_bird).existed);
    let mut missing = vec![to_bird.clone(), to_frr.clone()];
    first.told("both up", |told| {
        if let Told::Changed(event) = told
            && event.standing.state == State::Up
        {
            assert!(event.standing.local_c);
            missing.retain(|key| *key != event.key);
        }
        missing.is_empty().then_some(())
    });
    let bird_before = bird.until("10.0.1.0", "up", View::is_up);
    frr.until("10.0.2.0", "up", View::is_up);
    let frr_downs = frr.frr_downs("10.0.2.0");

    // The client is gone, and peers see nothing of it.
    first.kill();
    let gone = Instant::now();
    let packet = capture(&net, "b", "10.0.1.0");
    assert!(packet.control_plane_independent, "{packet:?}");
    assert_eq!(packet.state, State::Up);
    while gone.elapsed() < Duration::from_secs(3) {
        assert_unbroken(&bird, &bird_before);
        assert_eq!(frr.frr_downs("10.0.2.0"), frr_downs);
        std::thread::sleep(ms(50));
    }
    let snapshot = caracal_bfdd::sessions(&daemon.socket()).unwrap();
    for session in &snapshot.sessions {
        let left = session.owners[0].forgotten_in_s.unwrap();
        assert!((570..600).contains(&left), "{session:#?}");
    }

    // What fails while it is away is kept for it.
    net.cut("c");
    net.cut("a");
    let state = |key: &SessionKey| {
        let snapshot = caracal_bfdd::sessions(&daemon.socket()).unwrap();
        let session = snapshot.sessions.into_iter().find(|s| s.key == *key);
        session.unwrap().standing.state
    };
    until("noticed", SOON, || {
        let states = (state(&to_bird), state(&to_frr));
        let seen = states == (State::Down, State::Down);
        seen.then_some(()).ok_or(format!("{states:?}"))
    });
    net.mend("a");
    net.mend("c");
    until("back", SOON, || {
        let states = (state(&to_bird), state(&to_frr));
        let seen = states == (State::Up, State::Up);
        seen.then_some(()).ok_or(format!("{states:?}"))
    });
    let bird_before = bird.until("10.0.1.0", "up", View::is_up);
    frr.until("10.0.2.0", "up", View::is_up);
    let frr_downs = frr.frr_downs("10.0.2.0");

    // The next one finds them, without a flap, and learns what it missed.
    let second = ClientProcess::start(&daemon.socket(), &sessions);
    for _ in 0..2 {
        let adopted = second.told("adopted", |told| match told {
            Told::Adopted(adopted) => Some(adopted),
            _ => None,
        });
        assert!(adopted.existed);
        assert_eq!(adopted.standing.state, State::Up);
        assert!(adopted.standing.age_us < SOON.as_micros() as u64);
        let failures: Vec<_> = adopted
            .missed
            .iter()
            .filter(|event| event.failure)
            .collect();
        let [failure] = failures[..] else {
            panic!("{adopted:#?}");
        };
        assert_eq!(failure.from, State::Up);
        assert!(matches!(
            failure.standing.reason,
            Reason::DetectionTimeExpired | Reason::NeighborSignaledDown
        ));
        assert_eq!(adopted.missed.last().unwrap().standing.state, State::Up);
        assert_eq!(adopted.missed_more, 0);
    }
    for session in caracal_bfdd::sessions(&daemon.socket()).unwrap().sessions {
        assert_eq!(session.owners[0].forgotten_in_s, None);
    }
    let watched = Instant::now();
    while watched.elapsed() < Duration::from_secs(2) {
        assert_unbroken(&bird, &bird_before);
        assert_eq!(frr.frr_downs("10.0.2.0"), frr_downs);
        std::thread::sleep(ms(50));
    }
    // And once more, without anything to miss.
    second.kill();
    let third = ClientProcess::start(&daemon.socket(), &sessions);
    let adopted = third.adopted(&to_bird);
    assert!(adopted.existed && adopted.missed.is_empty(), "{adopted:#?}");
    assert_unbroken(&bird, &bird_before);
}

#[test]
fn sessions_of_a_client_that_stays_away_end_with_admin_down() {
    if !can_make_namespaces() || !Kind::Frr.is_installed() {
        return;
    }
    let net = Net::new(&["a", "b"]);
    net.link([("a", "e1", &["10.0.1.0/31"]), ("b", "e1", &["10.0.1.1/31"])]);
    let frr = Router::start(Kind::Frr, &net, "b", &[peering("10.0.1.0", "10.0.1.1")]);
    let hold = ms(1500);
    let process = Process::start_with(&net, "a", |options| options.hold = hold);
    let key = SessionKey::single_hop(Some(ip("10.0.1.0")), ip("10.0.1.1"), Some("e1"));
    let mut client = process.client();
    client.apply(&[session(&key, ms(300), 3)]);
    process.until_state(&key, State::Up);
    let left = Instant::now();
    drop(client);
    let view = frr.until("10.0.1.0", "not up", |view| !view.is_up());
    assert!(left.elapsed() >= hold, "{:?}", left.elapsed());
    assert!(view.text.contains("administratively down"), "{}", view.text);
}

#[test]
fn the_end_of_the_process_is_told_to_peers_as_intended() {
    if !can_make_namespaces() || !Kind::Frr.is_installed() {
        return;
    }
    let net = Net::new(&["a", "b"]);
    net.link([("a", "e1", &["10.0.1.0/31"]), ("b", "e1", &["10.0.1.1/31"])]);
    let frr = Router::start(Kind::Frr, &net, "b", &[peering("10.0.1.0", "10.0.1.1")]);
    let mut process = Process::start(&net, "a");
    let key = SessionKey::single_hop(Some(ip("10.0.1.0")), ip("10.0.1.1"), Some("e1"));
    let mut client = process.client();
    client.apply(&[session(&key, ms(300), 3)]);
    process.until_state(&key, State::Up);
    frr.until("10.0.1.0", "up", View::is_up);
    let stopped = Instant::now();
    process.stop();
    assert!(
        stopped.elapsed() < Duration::from_secs(6),
        "{:?}",
        stopped.elapsed()
    );
    let view = frr.until("10.0.1.0", "not up", |view| !view.is_up());
    assert!(view.text.contains("administratively down"), "{}", view.text);
}
