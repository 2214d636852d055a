//! The process against BIRD and FRR, each in a network namespace of its own.

#![expect(
    clippy::unwrap_used,
    reason = "every function here serves a test, and a test ends at the first surprise"
)]

mod common;

use std::time::Duration;

use caracal_bfdd::proto::{
    AuthConfig, AuthMethod, KeyConfig, Reason, SecretConfig, SessionConfig, SessionKey,
};
use caracal_bgp_core::bfd::{Diag, State};
use common::router::{Kind, Peering, Router};
use common::{Net, Process, SOON, TestClient, can_make_namespaces, ip, ms, session, until};

/// The pace of both sides: what people use. Faster, a busy machine shows in the routers.
const PACE: Duration = ms(300);

/// What may pass beside the detection time until a loss is told: scheduling, on a busy machine.
const MARGIN: Duration = ms(100);

/// Two namespaces on one link: we are in `a`, the router is in `b`.
fn pair() -> Net {
    let net = Net::new(&["a", "b"]);
    net.link([
        ("a", "e1", &["10.0.0.0/31", "2001:db8::a/64", "fe80::a/64"]),
        ("b", "e1", &["10.0.0.1/31", "2001:db8::b/64", "fe80::b/64"]),
    ]);
    net
}

fn key(local: &str, peer: &str) -> SessionKey {
    SessionKey::single_hop(Some(ip(local)), ip(peer), Some("e1"))
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

fn runs(kind: Kind) -> bool {
    can_make_namespaces() && kind.is_installed()
}

/// Waits until the session is up on both sides and has stopped polling.
fn both_up(process: &Process, key: &SessionKey, router: &Router, peer: &str) {
    process.until_state(key, State::Up);
    router.until(peer, "up", common::router::View::is_up);
}

/// Cuts the way to us, and checks that it is noticed in time, and told.
fn notices_a_silent_cut(net: &Net, process: &Process, client: &mut TestClient, key: &SessionKey) {
    let detection = Duration::from_micros(process.session(key).detection_us.unwrap());
    let interval = Duration::from_micros(process.session(key).receive_us.unwrap().into());
    client.pending();
    let (before, after) = net.cut("a");
    let (event, at) = client.event(detection + SOON, |event| event.key == *key);
    assert_eq!(event.from, State::Up);
    assert_eq!(event.standing.state, State::Down);
    assert_eq!(event.standing.reason, Reason::DetectionTimeExpired);
    assert_eq!(event.standing.diag, Diag::DetectionTimeExpired);
    assert!(event.failure && event.standing.local_c);
    let took = at.saturating_duration_since(after);
    println!("{key}: cut noticed after {took:?}, detection time {detection:?}");
    assert!(took <= detection + MARGIN, "{took:?} for {detection:?}");
    // No earlier than the last packet allows.
    let least = detection - interval - MARGIN / 2;
    assert!(
        at.saturating_duration_since(before) >= least,
        "too early: {took:?}"
    );
    net.mend("a");
}

/// All that one session goes through.
fn lives_through_it_all(kind: Kind, net: &Net, key: &SessionKey, peering: &Peering) {
    let process = Process::start(net, "a");
    let router = Router::start(kind, net, "b", std::slice::from_ref(peering));
    let peer = peering.peer;
    let us: &'static str = peer;
    let mut client = process.client();
    client.subscribe();
    client.apply(&[session(key, PACE, 3)]);
    both_up(&process, key, &router, us);
    router.until(us, "our intervals", |view| view.timeout == Some(3 * PACE));

    notices_a_silent_cut(net, &process, &mut client, key);
    both_up(&process, key, &router, us);

    // New timing while up: a Poll Sequence, and no flap on either side.
    client.pending();
    let since = process.session(key).standing.transitions;
    let before = router.view(us).unwrap();
    let downs = (kind == Kind::Frr).then(|| router.frr_downs(us));
    for (interval, mult, timeout) in [(ms(500), 4, ms(2000)), (PACE, 3, 3 * PACE)] {
        client.apply(&[session(key, interval, mult)]);
        until("our timing at the peer", SOON, || {
            let view = router.view(us)?;
            let ours = process.session(key);
            let agreed = view.timeout == Some(timeout)
                && ours.transmit_us.map(u64::from) == Some(interval.as_micros() as u64);
            agreed.then_some(()).ok_or(format!("{view:?} {ours:#?}"))
        });
    }
    assert_eq!(client.pending(), []);
    assert_eq!(process.session(key).standing.transitions, since);
    if kind == Kind::Bird {
        assert!(router.view(us).unwrap().is_unbroken_since(&before));
    }
    assert_eq!((kind == Kind::Frr).then(|| router.frr_downs(us)), downs);

    // Removal is told, and the peer does not take it for a failure of the path.
    client.apply(&[]);
    let view = router.until(us, "not up", |view| !view.is_up());
    if kind == Kind::Frr {
        assert!(view.text.contains("administratively down"), "{}", view.text);
    }
    until("forgotten", SOON, || {
        let sessions = process.snapshot().sessions;
        sessions
            .is_empty()
            .then_some(())
            .ok_or(format!("{sessions:#?}"))
    });
    client.apply(&[session(key, PACE, 3)]);
    both_up(&process, key, &router, us);
}

#[test]
fn bird_single_hop_ipv4() {
    if runs(Kind::Bird) {
        let (net, key) = (pair(), key("10.0.0.0", "10.0.0.1"));
        lives_through_it_all(Kind::Bird, &net, &key, &peering("10.0.0.0", "10.0.0.1"));
    }
}

#[test]
fn frr_single_hop_ipv4() {
    if runs(Kind::Frr) {
        let (net, key) = (pair(), key("10.0.0.0", "10.0.0.1"));
        lives_through_it_all(Kind::Frr, &net, &key, &peering("10.0.0.0", "10.0.0.1"));
    }
}

#[test]
fn bird_single_hop_ipv6() {
    if runs(Kind::Bird) {
        let (net, key) = (pair(), key("2001:db8::a", "2001:db8::b"));
        lives_through_it_all(
            Kind::Bird,
            &net,
            &key,
            &peering("2001:db8::a", "2001:db8::b"),
        );
    }
}

#[test]
fn frr_single_hop_ipv6() {
    if runs(Kind::Frr) {
        let (net, key) = (pair(), key("2001:db8::a", "2001:db8::b"));
        lives_through_it_all(
            Kind::Frr,
            &net,
            &key,
            &peering("2001:db8::a", "2001:db8::b"),
        );
    }
}

#[test]
fn bird_link_local() {
    if runs(Kind::Bird) {
        let (net, key) = (pair(), key("fe80::a", "fe80::b"));
        lives_through_it_all(Kind::Bird, &net, &key, &peering("fe80::a", "fe80::b"));
    }
}

#[test]
fn frr_link_local() {
    if runs(Kind::Frr) {
        let (net, key) = (pair(), key("fe80::a", "fe80::b"));
        lives_through_it_all(Kind::Frr, &net, &key, &peering("fe80::a", "fe80::b"));
    }
}

/// We and the router, with another router between us.
fn through_a_router() -> Net {
    let net = Net::new(&["a", "m", "b"]);
    net.link([
        ("a", "e1", &["10.1.0.0/31", "2001:db8:1::a/64"]),
        ("m", "e1", &["10.1.0.1/31", "2001:db8:1::b/64"]),
    ]);
    net.link([
        ("m", "e2", &["10.2.0.0/31", "2001:db8:2::a/64"]),
        ("b", "e1", &["10.2.0.1/31", "2001:db8:2::b/64"]),
    ]);
    for setting in ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"] {
        let mut sysctl = net.command("m", "sysctl");
        sysctl.args(["-qw", &format!("{setting}=1")]);
        assert!(sysctl.status().unwrap().success());
    }
    net.ip("a", "addr add 10.9.0.1/32 dev lo");
    net.ip("b", "addr add 10.9.0.2/32 dev lo");
    net.ip("a", "route add 10.9.0.2 via 10.1.0.1 src 10.9.0.1");
    net.ip("b", "route add 10.9.0.1 via 10.2.0.0 src 10.9.0.2");
    net.ip("m", "route add 10.9.0.1 via 10.1.0.0");
    net.ip("m", "route add 10.9.0.2 via 10.2.0.1");
    net.ip("a", "route add 2001:db8:2::/64 via 2001:db8:1::b");
    net.ip("b", "route add 2001:db8:1::/64 via 2001:db8:2::a");
    net
}

fn multihop(kind: Kind, local: &str, peer: &'static str, theirs: &'static str) {
    if !runs(kind) {
        return;
    }
    let net = through_a_router();
    let key = SessionKey::multihop(Some(ip(local)), ip(peer));
    let peering = Peering {
        peer: theirs,
        local: peer,
        interface: None,
        interval_ms: 300,
        mult: 3,
        auth: None,
    };
    lives_through_it_all(kind, &net, &key, &peering);
}

#[test]
fn bird_multihop_ipv4() {
    multihop(Kind::Bird, "10.9.0.1", "10.9.0.2", "10.9.0.1");
}

#[test]
fn frr_multihop_ipv4() {
    multihop(Kind::Frr, "10.9.0.1", "10.9.0.2", "10.9.0.1");
}

#[test]
fn bird_multihop_ipv6() {
    multihop(
        Kind::Bird,
        "2001:db8:1::a",
        "2001:db8:2::b",
        "2001:db8:1::a",
    );
}

#[test]
fn frr_multihop_ipv6() {
    multihop(Kind::Frr, "2001:db8:1::a", "2001:db8:2::b", "2001:db8:1::a");
}

#[test]
fn a_multihop_peer_that_is_too_far_is_not_heard_and_the_reason_says_so() {
    if !runs(Kind::Bird) {
        return;
    }
    let net = through_a_router();
    let process = Process::start(&net, "a");
    let peering = Peering {
        peer: "10.9.0.1",
        local: "10.9.0.2",
        interface: None,
        interval_ms: 300,
        mult: 3,
        auth: None,
    };
    let _router = Router::start(Kind::Bird, &net, "b", &[peering]);
    let key = SessionKey::multihop(Some(ip("10.9.0.1")), ip("10.9.0.2"));
    let with_ttl = |min_ttl| SessionConfig {
        min_ttl,
        ..session(&key, PACE, 3)
    };
    let mut client = process.client();
    // BIRD begins with 64, of which one hop takes one.
    client.apply(&[with_ttl(64)]);
    let why = "came with TTL 63, at least 64 is needed";
    until("the reason", SOON, || {
        let session = process.session(&key);
        let seen = session.counters.last_discard.as_deref() == Some(why)
            && session.why.contains(why)
            && session.standing.state == State::Down;
        seen.then_some(()).ok_or(format!("{session:#?}"))
    });
    client.apply(&[with_ttl(63)]);
    process.until_state(&key, State::Up);
}

#[test]
fn bird_authenticates_in_every_way_and_a_wrong_key_is_told() {
    if !runs(Kind::Bird) {
        return;
    }
    for (method, name) in [
        (AuthMethod::SimplePassword, "simple"),
        (AuthMethod::KeyedMd5, "keyed md5"),
        (AuthMethod::MeticulousKeyedMd5, "meticulous keyed md5"),
        (AuthMethod::KeyedSha1, "keyed sha1"),
        (AuthMethod::MeticulousKeyedSha1, "meticulous keyed sha1"),
    ] {
        let net = pair();
        let process = Process::start(&net, "a");
        let peering = Peering {
            auth: Some(format!(
                "authentication {name}; password \"caracal\" {{ id 7; }};"
            )),
            ..peering("10.0.0.0", "10.0.0.1")
        };
        let router = Router::start(Kind::Bird, &net, "b", &[peering]);
        let key = key("10.0.0.0", "10.0.0.1");
        let with = |secret: &str| SessionConfig {
            auth: Some(AuthConfig {
                method,
                send_key: 7,
                keys: vec![KeyConfig {
                    id: 7,
                    secret: SecretConfig::Text(secret.to_owned()),
                }],
            }),
            ..session(&key, PACE, 3)
        };
        let mut client = process.client();
        client.apply(&[with("serval!")]);
        until("the wrong key told", SOON, || {
            let session = process.session(&key);
            let seen = session.why.contains("wrong password or digest");
            seen.then_some(()).ok_or(format!("{name}: {session:#?}"))
        });
        client.apply(&[with("caracal")]);
        both_up(&process, &key, &router, "10.0.0.0");
        client.subscribe();
        notices_a_silent_cut(&net, &process, &mut client, &key);
        both_up(&process, &key, &router, "10.0.0.0");
    }
}

#[test]
fn frr_holding_a_session_down_is_no_failure_of_the_path() {
    if !runs(Kind::Frr) {
        return;
    }
    let net = pair();
    let process = Process::start(&net, "a");
    let peering = peering("10.0.0.0", "10.0.0.1");
    let router = Router::start(Kind::Frr, &net, "b", std::slice::from_ref(&peering));
    let key = key("10.0.0.0", "10.0.0.1");
    let mut client = process.client();
    client.subscribe();
    client.apply(&[session(&key, PACE, 3)]);
    both_up(&process, &key, &router, "10.0.0.0");
    client.pending();
    router.shutdown_frr(&peering, true);
    let (event, _) = client.event(SOON, |_| true);
    assert_eq!(event.standing.state, State::Down);
    assert_eq!(event.standing.reason, Reason::NeighborAdminDown);
    assert_eq!(event.standing.remote_state, State::AdminDown);
    assert!(!event.failure);
    assert!(
        process
            .session(&key)
            .why
            .contains("held down by the peer's administrator")
    );
    router.shutdown_frr(&peering, false);
    both_up(&process, &key, &router, "10.0.0.0");
}
