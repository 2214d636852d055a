//! Many sessions: none flaps, and what they cost.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use caracal_bfdd::proto::{SessionConfig, SessionKey, Snapshot};
use caracal_bfdd::{Daemon, Options};
use caracal_bgp_core::bfd::State;
use common::{Net, SOON, TestClient, can_make_namespaces, ms, session, until};
use nix::sys::signal::{Signal, kill};

/// Flaps and cost are watched in so many windows of such a length.
const WINDOWS: usize = 10;
const WINDOW: Duration = Duration::from_secs(1);

/// A test that burns cores and one that counts what is used of them run one after the other.
static CORES: Mutex<()> = Mutex::new(());

/// Not a test: this binary as a process that runs the daemon, when told to by the environment.
#[test]
#[ignore = "a part of other tests"]
fn process_that_runs_the_daemon() {
    let Some(socket) = std::env::var_os("CARACAL_TEST_DAEMON") else {
        return;
    };
    Daemon::start(Options::new(socket)).unwrap().wait().unwrap();
}

/// The daemon as a process of its own, so that its cost is known.
struct DaemonProcess {
    child: Child,
    folder: tempfile::TempDir,
}

impl DaemonProcess {
    fn start(net: &Net, name: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = std::env::current_exe().unwrap();
        let child = net
            .command(name, &own.to_string_lossy())
            .args([
                "--exact",
                "process_that_runs_the_daemon",
                "--ignored",
                "--nocapture",
            ])
            .env("CARACAL_TEST_DAEMON", folder.path().join("bfd.sock"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let daemon = Self { child, folder };
        until("the daemon answers", SOON, || {
            let answer = caracal_bfdd::sessions(&daemon.socket());
            answer.map(drop).map_err(|error| error.to_string())
        });
        daemon
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("bfd.sock")
    }

    fn snapshot(&self) -> Snapshot {
        caracal_bfdd::sessions(&self.socket()).unwrap()
    }

    /// CPU time used by all threads.
    fn cpu(&self) -> Duration {
        let tasks = format!("/proc/{}/task", self.child.id());
        let tasks = std::fs::read_dir(tasks).unwrap();
        tasks
            .map(|task| {
                let ran = std::fs::read_to_string(task.unwrap().path().join("schedstat")).unwrap();
                // Nanoseconds on a CPU come first.
                let nanos = ran.split_whitespace().next().unwrap().parse().unwrap();
                Duration::from_nanos(nanos)
            })
            .sum()
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Two namespaces with `count` addresses each, all behind one pair of neighbours.
fn many_addresses(count: u16) -> Net {
    let net = Net::new(&["a", "b"]);
    net.link([("a", "e1", &["10.0.0.0/31"]), ("b", "e1", &["10.0.0.1/31"])]);
    for (name, ours, theirs, via) in [("a", 4, 5, "10.0.0.1"), ("b", 5, 4, "10.0.0.0")] {
        let mut batch = String::new();
        for number in 0..count {
            let _ = writeln!(batch, "addr add {}/32 dev lo", address(ours, number));
        }
        let _ = writeln!(batch, "route add 10.{theirs}.0.0/16 via {via}");
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), batch).unwrap();
        let done = Command::new("ip")
            .args(["-n", &net.full(name), "-batch"])
            .arg(file.path())
            .status()
            .unwrap();
        assert!(done.success());
    }
    net
}

fn address(side: u8, number: u16) -> IpAddr {
    let [high, low] = number.to_be_bytes();
    IpAddr::from([10, side, high, low])
}

fn sessions(ours: u8, theirs: u8, count: u16, interval: Duration) -> Vec<SessionConfig> {
    let key =
        |number| SessionKey::single_hop(Some(address(ours, number)), address(theirs, number), None);
    (0..count)
        .map(|number| session(&key(number), interval, 3))
        .collect()
}

/// Two daemons with sessions between them, all up and settled.
struct Fleet {
    sides: [(DaemonProcess, TestClient); 2],
    _net: Net,
}

/// How often the state of any session has changed.
fn changes(daemon: &DaemonProcess) -> u64 {
    let sessions = daemon.snapshot().sessions;
    sessions.iter().map(|s| s.standing.transitions).sum()
}

fn fleet(count: u16, interval: Duration) -> Fleet {
    let net = many_addresses(count);
    let sides = [("a", 4, 5), ("b", 5, 4)].map(|(name, ours, theirs)| {
        let daemon = DaemonProcess::start(&net, name);
        let mut client = TestClient::connect(&daemon.socket());
        client.apply(&sessions(ours, theirs, count, interval));
        (daemon, client)
    });
    let begun = Instant::now();
    for (daemon, _) in &sides {
        until("all up, and no longer polling", SOON, || {
            let sessions = daemon.snapshot().sessions;
            let ready = sessions.iter().filter(|session| {
                session.standing.state == State::Up
                    && session.transmit_us.map(u128::from) == Some(interval.as_micros())
                    && session.receive_us.map(u128::from) == Some(interval.as_micros())
            });
            let ready = ready.count();
            let all = ready == usize::from(count);
            all.then_some(()).ok_or(format!("{ready} of {count}"))
        });
    }
    println!("{count} sessions up after {:?}", begun.elapsed());
    Fleet { sides, _net: net }
}

/// Whether the kernel lets it run when it has to; says aloud if not.
fn is_realtime(daemon: &DaemonProcess) -> bool {
    let scheduling = daemon.snapshot().scheduling;
    let realtime = scheduling.starts_with("real time");
    if !realtime {
        caracal_skip::skip!("no real-time priority here: {scheduling}");
    }
    realtime
}

/// Runs `count` sessions; says what share of a core one side took in the cheapest window. What others
/// do to caches and clocks meanwhile adds to some windows and takes from none.
fn runs(count: u16, interval: Duration) -> Option<f64> {
    if !can_make_namespaces() {
        return None;
    }
    let Fleet { sides, _net } = fleet(count, interval);
    if interval < ms(100) && !sides.iter().all(|(daemon, _)| is_realtime(daemon)) {
        return None;
    }
    let before: Vec<u64> = sides.iter().map(|(daemon, _)| changes(daemon)).collect();
    let (daemon, _) = &sides[0];
    let shares: Vec<f64> = (0..WINDOWS).map(|_| share_of_a_core(daemon)).collect();
    let after: Vec<u64> = sides.iter().map(|(daemon, _)| changes(daemon)).collect();
    assert_eq!(before, after, "a session flapped");
    let snapshot = daemon.snapshot();
    assert_eq!(snapshot.unmatched, BTreeMap::new());
    assert!(snapshot.sessions.iter().all(|s| s.counters.unsent == 0));
    println!("{count} x {interval:?}: {shares:.4?} of a core");
    let (sent, received) = snapshot.sessions.iter().fold((0, 0), |sum, session| {
        (
            sum.0 + session.counters.sent,
            sum.1 + session.counters.received,
        )
    });
    println!(
        "{}; {sent} packets sent, {received} received",
        snapshot.scheduling
    );
    shares.into_iter().reduce(f64::min)
}

/// What the process takes of a core during one window, in all its threads.
fn share_of_a_core(daemon: &DaemonProcess) -> f64 {
    let (before, start) = (daemon.cpu(), Instant::now());
    std::thread::sleep(WINDOW);
    let (after, elapsed) = (daemon.cpu(), start.elapsed());
    let used = after.saturating_sub(before);
    used.as_secs_f64() / elapsed.as_secs_f64()
}

#[test]
fn a_thousand_sessions_at_three_times_300_ms_take_less_than_a_tenth_of_a_core() {
    let _cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(share) = runs(1000, ms(300)) {
        // Some 3 % where nothing else runs. Without optimization the figure says nothing.
        if !cfg!(debug_assertions) {
            assert!(share < 0.1, "{:.2} % of a core", share * 100.0);
        }
    }
}

#[test]
fn a_hundred_sessions_at_three_times_50_ms_do_not_flap() {
    runs(100, ms(50));
}

#[test]
fn a_busy_machine_and_busy_clients_take_no_session_down() {
    let _cores = CORES.lock().unwrap_or_else(PoisonError::into_inner);
    if !can_make_namespaces() {
        return;
    }
    let Fleet { sides, _net } = fleet(100, ms(50));
    if !sides.iter().all(|(daemon, _)| is_realtime(daemon)) {
        return;
    }
    let before: Vec<u64> = sides.iter().map(|(daemon, _)| changes(daemon)).collect();
    let end = Instant::now() + Duration::from_secs(3);
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let asked = std::thread::scope(|scope| {
        for _ in 0..3 * cores {
            scope.spawn(|| while Instant::now() < end {});
        }
        let askers: Vec<_> = (0..4)
            .map(|number| {
                let daemon = &sides[number % 2].0;
                scope.spawn(move || {
                    let mut asked = 0;
                    while Instant::now() < end {
                        daemon.snapshot();
                        asked += 1;
                    }
                    asked
                })
            })
            .collect();
        askers
            .into_iter()
            .map(|asker| asker.join().unwrap())
            .sum::<u64>()
    });
    let after: Vec<u64> = sides.iter().map(|(daemon, _)| changes(daemon)).collect();
    println!("{asked} snapshots were asked for meanwhile");
    assert!(asked > 0);
    assert_eq!(before, after, "a session flapped");
}

#[test]
fn a_process_that_was_kept_from_running_blames_no_peer_for_it() {
    if !can_make_namespaces() {
        return;
    }
    let net = many_addresses(1);
    // One side is patient with the other, which waits no longer than 150 ms.
    let [(stopped, _first), (patient, _second)] =
        [("a", 4, 5, 40), ("b", 5, 4, 3)].map(|(name, ours, theirs, mult)| {
            let daemon = DaemonProcess::start(&net, name);
            let mut client = TestClient::connect(&daemon.socket());
            let key = sessions(ours, theirs, 1, ms(50)).remove(0).key;
            client.apply(&[session(&key, ms(50), mult)]);
            (daemon, client)
        });
    for daemon in [&stopped, &patient] {
        until("up", SOON, || {
            let session = daemon.snapshot().sessions.remove(0);
            let settled = session.standing.state == State::Up
                && session.receive_us == Some(50_000)
                && session.transmit_us == Some(50_000);
            settled.then_some(()).ok_or(format!("{session:#?}"))
        });
    }
    let before = [&stopped, &patient].map(changes);
    // What the child of `ip netns exec` became.
    let process = nix::unistd::Pid::from_raw(stopped.child.id().try_into().unwrap());
    for _ in 0..3 {
        kill(process, Signal::SIGSTOP).unwrap();
        std::thread::sleep(ms(600));
        kill(process, Signal::SIGCONT).unwrap();
        std::thread::sleep(ms(300));
    }
    assert_eq!([&stopped, &patient].map(changes), before);
}
