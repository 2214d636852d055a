//! Clients: those of the library, and those that behave badly.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;

use caracal_bfdd::client::{Client, ClientEvent, ClientOptions};
use caracal_bfdd::proto::{Adopted, Message, Request, SessionConfig, SessionKey};
use caracal_bfdd::{Daemon, Options};
use caracal_bgp_core::bfd::State;
use common::{Net, Process, SOON, can_make_namespaces, ip, ms, session, until};
use serde_json::Value;
use tokio::sync::mpsc;

/// A session that runs and has nobody at its other end.
fn lonely(last: u16) -> SessionConfig {
    let [high, low] = last.to_be_bytes();
    let peer = std::net::IpAddr::from([127, 1, high, low]);
    SessionConfig::new(SessionKey::multihop(Some(ip("127.0.0.1")), peer))
}

/// Two that hear each other.
fn pair() -> (Net, SessionKey, SessionKey) {
    let net = Net::new(&["a", "b"]);
    net.link([("a", "e1", &["10.0.0.0/31"]), ("b", "e1", &["10.0.0.1/31"])]);
    let ours = SessionKey::single_hop(None, ip("10.0.0.1"), None);
    let theirs = SessionKey::single_hop(None, ip("10.0.0.0"), None);
    (net, ours, theirs)
}

fn run<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

/// The next event that `pick` picks.
async fn next<T>(
    events: &mut mpsc::Receiver<ClientEvent>,
    what: &str,
    pick: impl Fn(&ClientEvent) -> Option<T>,
) -> T {
    let mut seen = Vec::new();
    let wait = async {
        loop {
            let event = events.recv().await.unwrap();
            if let Some(picked) = pick(&event) {
                return picked;
            }
            seen.push(event);
        }
    };
    let picked = tokio::time::timeout(SOON, wait).await;
    picked.unwrap_or_else(|_| panic!("{what}: seen {seen:#?}"))
}

fn adopted(event: &ClientEvent) -> Option<Adopted> {
    match event {
        ClientEvent::Adopted { session, .. } => Some(session.clone()),
        _ => None,
    }
}

#[test]
fn the_library_connects_whenever_the_process_is_there_and_tells_of_sessions() {
    if !can_make_namespaces() {
        return;
    }
    let (net, ours, theirs) = pair();
    let other = Process::start(&net, "b");
    let mut peer = other.client();
    peer.apply(&[session(&theirs, ms(50), 3)]);
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("bfd.sock");
    run(async {
        let (client, mut events) = Client::start(ClientOptions::new(&socket, "node"));
        client.apply([session(&ours, ms(50), 3)]);
        let why = next(&mut events, "no process yet", |event| match event {
            ClientEvent::Disconnected { why } => Some(why.clone()),
            _ => None,
        });
        let why = why.await;
        assert!(why.contains("No such file"), "{why}");

        let start = || {
            net.inside("a", || Daemon::start(Options::new(&socket)))
                .unwrap()
        };
        let process = start();
        let connected = |event: &ClientEvent| (*event == ClientEvent::Connected).then_some(());
        next(&mut events, "connected", connected).await;
        let first = next(&mut events, "adopted", adopted).await;
        assert_eq!((&first.key, first.existed), (&ours, false));
        let up = |event: &ClientEvent| match event {
            ClientEvent::Changed { event, at } if event.standing.state == State::Up => Some(*at),
            _ => None,
        };
        let at = next(&mut events, "up", up).await;
        assert!(at.elapsed() < SOON);

        // A failure is told within the detection time.
        let (_, cut) = net.cut("a");
        let failed = |event: &ClientEvent| match event {
            ClientEvent::Changed { event, at } if event.failure => Some((*at, event.silence_us)),
            _ => None,
        };
        let (at, silence_us) = next(&mut events, "failed", failed).await;
        // What the process measured: the silence that it waited for.
        let silence = std::time::Duration::from_micros(silence_us.expect("nothing was heard"));
        assert!(silence >= ms(150) && silence < SOON, "{silence:?}");
        // Its age grows while we wait for a core, so this is no measure of the process.
        assert!(at.saturating_duration_since(cut) < ms(1000));
        net.mend("a");
        next(&mut events, "up again", up).await;

        // The process goes: nothing is known, and nothing is said to be down.
        process.stopper().stop();
        process.wait().unwrap();
        loop {
            match tokio::time::timeout(SOON, events.recv())
                .await
                .unwrap()
                .unwrap()
            {
                ClientEvent::Disconnected { .. } => break,
                ClientEvent::Changed { event, .. } => assert!(!event.failure, "{event:?}"),
                other => panic!("{other:?}"),
            }
        }
        let process = start();
        let again = next(&mut events, "adopted by the next", adopted).await;
        assert!(!again.existed);
        next(&mut events, "up with the next", up).await;

        // More and less.
        client.add(lonely(1));
        client.add(lonely(2));
        client.settled().await;
        let keys = || {
            let sessions = caracal_bfdd::sessions(&socket).unwrap().sessions;
            let wanted = sessions.into_iter().filter(|s| !s.owners.is_empty());
            wanted.map(|session| session.key).collect::<Vec<_>>()
        };
        assert_eq!(keys(), [ours.clone(), lonely(1).key, lonely(2).key]);
        client.remove(&lonely(1).key);
        client.settled().await;
        assert_eq!(keys(), [ours.clone(), lonely(2).key]);
        let many: Vec<_> = (1..30).map(lonely).collect();
        client.apply(many.clone());
        client.settled().await;
        assert_eq!(keys().len(), 29);
        client.add(SessionConfig {
            detect_mult: 0,
            ..lonely(99)
        });
        let refused = next(&mut events, "refused", |event| match event {
            ClientEvent::Refused(refused) => Some(refused.clone()),
            _ => None,
        });
        let refused = refused.await;
        assert_eq!(refused.key, lonely(99).key);
        assert!(refused.why.contains("multiplier"), "{refused:?}");

        // Dropped, it leaves everything as it is.
        drop((client, events));
        until("the client gone", SOON, || {
            let sessions = caracal_bfdd::sessions(&socket).unwrap().sessions;
            let owners = sessions.iter().flat_map(|session| &session.owners);
            let away = owners
                .filter(|owner| owner.forgotten_in_s.is_some())
                .count();
            (away == 29).then_some(()).ok_or(format!("{sessions:#?}"))
        });
        let (client, mut events) = Client::start(ClientOptions::new(&socket, "node"));
        // It does not know yet what it wants, and ends nothing.
        let connected = |event: &ClientEvent| (*event == ClientEvent::Connected).then_some(());
        next(&mut events, "connected", connected).await;
        client.settled().await;
        assert_eq!(keys().len(), 29);
        client.add(lonely(2));
        let back = next(&mut events, "adopted again", adopted).await;
        assert!(back.existed);
        client.settled().await;
        assert_eq!(keys().len(), 29);
        client.apply(many);
        let back = next(&mut events, "adopted again", adopted).await;
        assert!(back.existed);
        client.settled().await;
        assert_eq!(keys().len(), 29);
        client.apply([]);
        client.settled().await;
        assert_eq!(keys(), []);
        process.stopper().stop();
        process.wait().unwrap();
    });
}

#[test]
fn an_answer_comes_to_every_line_and_nonsense_is_called_so() {
    if !can_make_namespaces() {
        return;
    }
    let net = Net::new(&["a"]);
    let process = Process::start(&net, "a");
    let mut client = process.client();
    for (line, expected) in [
        ("", "cannot read the request: EOF"),
        ("hello", "cannot read the request: expected value"),
        (r#"{"verb":"fly"}"#, "unknown variant `fly`"),
        (
            r#"{"verb":"apply","owner":"x"}"#,
            "missing field `sessions`",
        ),
        (
            r#"{"verb":"apply","owner":"","sessions":[]}"#,
            "an owner's name has 1 to 64 printable octets",
        ),
        (
            r#"{"verb":"remove","owner":"a\nb","key":{"peer":"10.0.0.1"}}"#,
            "an owner's name has 1 to 64 printable octets",
        ),
        ("\u{0}\u{1}\u{ff}", "cannot read the request"),
    ] {
        client.say(line);
        let why = client.answer().unwrap_err();
        assert!(why.contains(expected), "{line}: {why}");
    }
    client.apply(&[lonely(1)]);
    let other = Request::Apply {
        owner: "somebody else".to_owned(),
        sessions: Vec::new(),
    };
    client.say(&serde_json::to_string(&other).unwrap());
    let why = client.answer().unwrap_err();
    assert!(why.contains("this connection speaks for 'test'"), "{why}");
    // Many at once come back in order.
    for last in 2..50 {
        let add = Request::Add {
            owner: "test".to_owned(),
            session: lonely(last),
        };
        client.say(&serde_json::to_string(&add).unwrap());
        client.say(r#"{"verb":"sessions"}"#);
    }
    for last in 2..50 {
        let added = client.answer().unwrap();
        let peer = lonely(last).key.peer.to_string();
        assert_eq!(added["sessions"][0]["key"]["peer"], peer);
        let snapshot = client.answer().unwrap();
        assert_eq!(
            snapshot["sessions"].as_array().unwrap().len(),
            usize::from(last)
        );
    }
}

#[test]
fn a_request_without_end_is_refused_and_the_client_parted_from() {
    if !can_make_namespaces() {
        return;
    }
    let net = Net::new(&["a"]);
    let process = Process::start(&net, "a");
    let mut stream = UnixStream::connect(&process.socket).unwrap();
    let chunk = vec![b'x'; 1 << 16];
    while stream.write_all(&chunk).is_ok() {}
    let mut answer = String::new();
    // What was written after the end may have reset the connection before the answer was read.
    let _ = stream.read_to_string(&mut answer);
    assert!(
        answer.is_empty() || answer.contains("more than 4194304 octets"),
        "{answer}"
    );
    assert_eq!(process.snapshot().sessions.len(), 0);
}

#[test]
fn more_clients_than_there_is_room_for_are_turned_away_and_room_comes_back() {
    if !can_make_namespaces() {
        return;
    }
    let net = Net::new(&["a"]);
    let process = Process::start(&net, "a");
    let clients: Vec<_> = (0..64).map(|_| process.client()).collect();
    let mut one_too_many = UnixStream::connect(&process.socket).unwrap();
    one_too_many.set_read_timeout(Some(SOON)).unwrap();
    assert_eq!(one_too_many.read(&mut [0; 10]).unwrap(), 0);
    drop(clients);
    until("room", SOON, || {
        let answer = caracal_bfdd::sessions(&process.socket);
        answer.map(drop).map_err(|error| error.to_string())
    });
}

#[test]
fn a_client_that_does_not_read_costs_a_bounded_amount_and_is_told_how_things_stand_later() {
    if !can_make_namespaces() {
        return;
    }
    let net = Net::new(&["a"]);
    let process = Process::start(&net, "a");
    let mut lazy = UnixStream::connect(&process.socket).unwrap();
    lazy.write_all(b"{\"verb\":\"subscribe\"}\n").unwrap();
    let mut client = process.client();
    let all: Vec<_> = (0..500).map(lonely).collect();
    let running = || {
        let sessions = process.snapshot().sessions;
        let up = sessions.iter().filter(|s| s.local_discriminator != 0);
        up.count()
    };
    // Each round is two changes of each session: more octets than may wait for one client.
    for round in 0..5 {
        client.apply(&all);
        until("all run", SOON, || {
            let count = running();
            (count == all.len())
                .then_some(())
                .ok_or(format!("{round}: {count}"))
        });
        client.apply(&[]);
    }
    // Others are answered meanwhile.
    client.apply(&all);
    process.snapshot();

    lazy.set_read_timeout(Some(SOON)).unwrap();
    let mut lines = BufReader::new(lazy).lines();
    let (mut events, mut octets) = (0_u64, 0);
    loop {
        let line = lines.next().unwrap().unwrap();
        octets += line.len();
        match serde_json::from_str(&line).unwrap() {
            Message::Ok(Value::Null) => {}
            Message::Event(_) => events += 1,
            Message::Lagged(sessions) => {
                assert_eq!(sessions.len(), all.len());
                let changes: u64 = sessions.iter().map(|s| s.standing.transitions).sum();
                assert!(changes > events, "{changes} changes, {events} events");
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(octets < 4 << 20, "{octets} octets waited");
}
