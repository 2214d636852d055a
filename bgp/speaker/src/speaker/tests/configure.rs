//! Another configuration, and what operators ask for, under living sessions.

use super::*;
use crate::config::{
    Activation, AoAlgorithm, AoKey, AoKeys, Auth, Endpoint, Lack, MaxPrefixAction, MaxPrefixes,
    PeerAs, Secret,
};
use crate::handle::Clear;

/// Two speakers with a session: the first one's configuration and handle, and the second's handle.
async fn pair(
    change: impl FnOnce(&mut SpeakerConfig),
) -> (SpeakerConfig, SpeakerHandle, SpeakerHandle) {
    let lab = Lab::new();
    let (mut a, mut b) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut a, &mut b);
    change(&mut a);
    let (config, a, b) = (a.clone(), start(a).await, start(b).await);
    (config, a, b)
}

fn rejected(route: &Option<RouteSnapshot>) -> bool {
    let path = route.as_ref().map(|route| &route.paths[0]);
    path.is_some_and(|path| path.rejected.is_some())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_configuration_touches_only_the_peers_concerned_and_no_session_without_need() {
    let lab = Lab::new();
    let mut configs = [
        lab.speaker(1, 65_001),
        lab.speaker(2, 65_002),
        lab.speaker(3, 65_003),
    ];
    let [a, b, c] = &mut configs;
    lab.link(a, b);
    lab.link(a, c);
    let [a, b, c] = configs;
    let mut next = a.clone();
    let (a, b, _c) = (start(a).await, start(b).await, start(c).await);
    let prefix = own(2, Family::Ipv4Unicast);
    reachable(&a, prefix).await;
    established(&a, 3).await;

    // Policies work on what is there.
    next.peers.get_mut(&name(2)).unwrap().import = Policy::reject_all().into();
    a.apply(next.clone()).await.unwrap();
    until("rejected with its reason", || route(&a, prefix), rejected).await;
    next.peers.get_mut(&name(2)).unwrap().export = Policy::reject_all().into();
    a.apply(next.clone()).await.unwrap();
    gone(&b, own(1, Family::Ipv4Unicast)).await;

    // What is said in OPEN but not worth a session waits for the next one.
    let peer_config = next.peers.get_mut(&name(2)).unwrap();
    peer_config.hold_time = Duration::from_secs(30);
    peer_config.keepalive_time = Some(Duration::from_secs(5));
    a.apply(next.clone()).await.unwrap();
    let seen = peer(&a, 2).await;
    assert_eq!(seen.established_count, 1);
    assert_eq!(seen.terms.unwrap().hold_time_secs, 90);

    // Families are.
    next.peers.get_mut(&name(2)).unwrap().families = vec![Family::Ipv4Unicast];
    a.apply(next.clone()).await.unwrap();
    let anew = |seen: &PeerSnapshot| {
        let terms = seen.terms.as_ref();
        terms.is_some_and(|terms| (terms.hold_time_secs, terms.keepalive_secs) == (30, 5))
    };
    let seen = until("a session with the new terms", || peer(&a, 2), anew).await;
    assert_eq!(seen.established_count, 2);
    let told = until(
        "what it was told",
        || peer(&b, 1),
        |peer| peer.last_received_error.is_some(),
    );
    let text = told.await.last_received_error.unwrap().text;
    assert!(text.contains("other configuration change"), "{text}");

    next.peers.remove(&name(2));
    a.apply(next).await.unwrap();
    gone(&a, prefix).await;
    assert_eq!(peer(&a, 3).await.established_count, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_takes_a_peer_down_with_a_word_and_brings_it_up_again() {
    let (mut config, a, b) = pair(|_| ()).await;
    established(&b, 1).await;
    let message = "fibre works until noon".to_owned();
    config.peers.get_mut(&name(2)).unwrap().activation = Activation::Down { message };
    a.apply(config.clone()).await.unwrap();
    let down = |peer: &PeerSnapshot| {
        let error = peer.last_received_error.as_ref();
        error.is_some_and(|error| error.text.contains("fibre works until noon"))
    };
    until("the word at the peer", || peer(&b, 1), down).await;
    let idle = |peer: &PeerSnapshot| peer.state == SessionState::Idle;
    let seen = until("down", || peer(&a, 2), idle).await;
    let why = Why {
        reason: DownReason::AdminDown,
        text: "administratively down (\"fibre works until noon\")".to_owned(),
    };
    assert_eq!((seen.why, seen.admin_enabled), (Some(why), false));
    config.peers.get_mut(&name(2)).unwrap().activation = Activation::Run;
    a.apply(config).await.unwrap();
    reachable(&b, own(1, Family::Ipv6Unicast)).await;
    assert!(peer(&a, 2).await.admin_enabled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_nobody_tries_says_so_and_not_how_the_last_attempt_failed() {
    let lab = Lab::new();
    let (mut config, mut nobody) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut config, &mut nobody);
    let a = start(config.clone()).await;
    let because = |reason| {
        move |peer: &PeerSnapshot| peer.why.as_ref().is_some_and(|why| why.reason == reason)
    };
    let refused = because(DownReason::ConnectionRefused);
    until("an attempt", || peer(&a, 2), refused).await;
    let message = "not yet".to_owned();
    config.peers.get_mut(&name(2)).unwrap().activation = Activation::Down { message };
    a.apply(config.clone()).await.unwrap();
    let idle = because(DownReason::AdminDown);
    let seen = until("left alone", || peer(&a, 2), idle).await;
    assert_eq!((seen.state, seen.attempts), (SessionState::Idle, 0));
    config.peers.get_mut(&name(2)).unwrap().activation = Activation::Run;
    a.apply(config).await.unwrap();
    until("an attempt again", || peer(&a, 2), refused).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lacks_something_neither_dials_nor_is_heard_until_it_is_there() {
    let held = Activation::Held {
        lack: Lack::Secret,
        why: "there is no Secret bgp".into(),
    };
    let (mut config, a, _b) = pair(|config| {
        let peer = config.peers.get_mut(&name(2)).unwrap();
        peer.activation = held.clone();
    })
    .await;
    let why = Why {
        reason: DownReason::MissingSecret,
        text: "there is no Secret bgp".to_owned(),
    };
    let is_held = |seen: &PeerSnapshot| {
        assert_eq!(seen.state, SessionState::Idle);
        assert_eq!(seen.why.as_ref(), Some(&why));
    };
    let seen = peer(&a, 2).await;
    is_held(&seen);
    // Whatever else changes, it is held since then.
    config.peers.get_mut(&name(2)).unwrap().description = "the other one".into();
    a.apply(config.clone()).await.unwrap();
    assert_eq!(peer(&a, 2).await.why_ms, seen.why_ms);
    config.peers.get_mut(&name(2)).unwrap().activation = Activation::Run;
    a.apply(config.clone()).await.unwrap();
    established(&a, 2).await;
    config.peers.get_mut(&name(2)).unwrap().activation = held;
    a.apply(config).await.unwrap();
    is_held(&peer(&a, 2).await);
    // What it told goes with it.
    gone(&a, own(2, Family::Ipv4Unicast)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_lacks_something_says_so_whatever_its_link_lacks() {
    let mut config = Lab::new().speaker(1, 65_001);
    let remote = Endpoint::Interface {
        name: "absent".to_owned(),
        port: 179,
    };
    let on_link = PeerConfig::at(remote, PeerAs::External);
    let held = PeerConfig {
        activation: Activation::Held {
            lack: Lack::Secret,
            why: "there is no Secret bgp".into(),
        },
        ..on_link.clone()
    };
    // In the order in which they hear of their link.
    config.peers = [(name(2), held), (name(3), on_link)].into();
    let a = start(config).await;
    let reason = async |other| peer(&a, other).await.why.map(|why| why.reason);
    let not_ready = |seen: &_| *seen == Some(DownReason::InterfaceNotReady);
    until("news of the link", || reason(3), not_ready).await;
    assert_eq!(reason(2).await, Some(DownReason::MissingSecret));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_prefixes_end_the_session_until_the_restart_time_or_the_limit_allows_it() {
    let limit = |limit, restart_after| MaxPrefixes {
        limit,
        warning_percent: 100,
        action: MaxPrefixAction::Terminate { restart_after },
    };
    let family = Family::Ipv4Unicast;
    let (mut config, a, _b) = pair(|config| {
        let peer = config.peers.get_mut(&name(2)).unwrap();
        peer.max_prefixes = [(family, limit(1, Some(Duration::from_secs(1))))].into();
    })
    .await;
    // One prefix is what the peer has.
    reachable(&a, own(2, family)).await;
    let again = |peer: &PeerSnapshot| peer.established_count >= 2;
    config.peers.get_mut(&name(2)).unwrap().max_prefixes =
        [(family, limit(0, Some(Duration::from_secs(1))))].into();
    a.apply(config.clone()).await.unwrap();
    let ended = |peer: &PeerSnapshot| {
        let why = peer.why.as_ref();
        why.is_some_and(|why| why.reason == DownReason::PrefixLimitExceeded)
    };
    let seen = until("the end of the session", || peer(&a, 2), ended).await;
    let text = seen.why.unwrap().text;
    assert!(text.contains("sent more than 0"), "{text}");
    let seen = until("another chance", || peer(&a, 2), again).await;
    let sent = &seen.last_sent_error.unwrap().text;
    assert!(sent.contains("maximum number of prefixes"), "{sent}");

    config.peers.get_mut(&name(2)).unwrap().max_prefixes = [(
        family,
        MaxPrefixes {
            action: MaxPrefixAction::Warn,
            ..limit(0, None)
        },
    )]
    .into();
    a.apply(config).await.unwrap();
    reachable(&a, own(2, family)).await;
    let count = peer(&a, 2).await.established_count;
    let warned = || async {
        let history = a.history(name(2)).await.unwrap().unwrap();
        let mut events = history.events.into_iter();
        events.any(|event| event.text == "1 ipv4-unicast prefixes of at most 0")
    };
    until("a warning", warned, |warned| *warned).await;
    assert_eq!(peer(&a, 2).await.established_count, count);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warning_becomes_the_end_and_another_limit_the_beginning_of_a_session() {
    let family = Family::Ipv4Unicast;
    let limited = |limit, action| {
        let warning_percent = 100;
        let max = MaxPrefixes {
            limit,
            warning_percent,
            action,
        };
        [(family, max)].into()
    };
    // One prefix is what the peer has.
    let (mut config, a, _b) = pair(|config| {
        let peer = config.peers.get_mut(&name(2)).unwrap();
        peer.max_prefixes = limited(0, MaxPrefixAction::Warn);
    })
    .await;
    reachable(&a, own(2, family)).await;
    let terminate = MaxPrefixAction::Terminate {
        restart_after: None,
    };
    let ended = |peer: &PeerSnapshot| {
        let why = peer.why.as_ref();
        why.is_some_and(|why| why.text.contains("sent more than 0"))
    };
    config.peers.get_mut(&name(2)).unwrap().max_prefixes = limited(0, terminate);
    a.apply(config.clone()).await.unwrap();
    until("the end of the session", || peer(&a, 2), ended).await;
    config.peers.get_mut(&name(2)).unwrap().max_prefixes = limited(1, terminate);
    a.apply(config).await.unwrap();
    reachable(&a, own(2, family)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_cleared_hard_and_routes_softly() {
    let (_, a, b) = pair(|_| ()).await;
    for family in Family::ALL {
        reachable(&a, own(2, family)).await;
        reachable(&b, own(1, family)).await;
    }
    let refreshes = |peer: &PeerSnapshot| peer.counters.received.route_refresh;
    // A request of each family, and the two brackets of each answer come back.
    assert_eq!(a.clear(Some(name(2)), Clear::In).await.unwrap(), 1);
    until(
        "requests at the peer",
        || peer(&b, 1),
        |peer| refreshes(peer) == 2,
    )
    .await;
    until("brackets", || peer(&a, 2), |peer| refreshes(peer) == 4).await;
    let before = peer(&b, 1).await.counters.received;
    assert_eq!(a.clear(None, Clear::Out).await.unwrap(), 1);
    let told = |peer: &PeerSnapshot| {
        let now = peer.counters.received;
        now.route_refresh == before.route_refresh + 4 && now.update > before.update
    };
    until("everything told again", || peer(&b, 1), told).await;
    assert_eq!(peer(&a, 2).await.established_count, 1);

    let message = "new optics".to_owned();
    let hard = Clear::Hard { message };
    assert_eq!(a.clear(Some(name(2)), hard.clone()).await.unwrap(), 1);
    let again = |peer: &PeerSnapshot| {
        peer.established_count == 2 && peer.state == SessionState::Established
    };
    let seen = until("a new session", || peer(&b, 1), again).await;
    let text = seen.last_received_error.unwrap().text;
    assert!(text.contains("new optics"), "{text}");
    assert_eq!(a.clear(Some(name(9)), hard).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_becomes_a_client_under_its_living_session() {
    let lab = Lab::new();
    let mut configs = [1, 2, 3].map(|number| lab.speaker(number, 65_000));
    let [a, b, c] = &mut configs;
    lab.link(a, b);
    lab.link(a, c);
    let [a, b, c] = configs;
    let mut next = a.clone();
    let (a, b, _c) = (start(a).await, start(b).await, start(c).await);
    let prefix = own(3, Family::Ipv4Unicast);
    reachable(&a, prefix).await;
    established(&a, 2).await;
    assert!(route(&b, prefix).await.is_none());
    next.peers.get_mut(&name(3)).unwrap().route_reflector_client = true;
    a.apply(next.clone()).await.unwrap();
    let reflected = reachable(&b, prefix).await;
    assert_eq!(reflected.paths[0].cluster_list, ["0.0.0.1"]);
    next.peers.get_mut(&name(3)).unwrap().route_reflector_client = false;
    a.apply(next).await.unwrap();
    gone(&b, prefix).await;
    for other in [2, 3] {
        assert_eq!(peer(&a, other).await.established_count, 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_port_that_fails_is_an_error_each_time_until_the_port_is_free() {
    let lab = Lab::new();
    let (mut config, mut other) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    // The other one dials.
    lab.link(&mut other, &mut config);
    let elsewhere = Lab::new();
    let taken = SocketAddr::new(elsewhere.address(1), lab.port + 1);
    let stranger = std::net::TcpListener::bind(taken).unwrap();
    let a = start(config.clone()).await;
    let before = config.clone();
    config.listen = Some(ListenConfig {
        addrs: vec![taken.ip()],
        port: taken.port(),
    });
    for attempt in ["the first attempt", "the same once more"] {
        let error = a.apply(config.clone()).await.unwrap_err().to_string();
        assert!(error.contains("the port is in use"), "{attempt}: {error}");
    }
    // Nobody is worse off meanwhile.
    let other = start(other).await;
    established(&other, 1).await;
    drop(stranger);
    a.apply(config).await.unwrap();
    assert!(std::net::TcpStream::connect(taken).is_ok(), "listens there");
    assert_eq!(peer(&other, 1).await.established_count, 1);
    a.apply(before).await.unwrap();
    assert!(
        std::net::TcpStream::connect(taken).is_err(),
        "and no longer"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_cannot_be_had_leaves_those_that_there_were() {
    let lab = Lab::new();
    let (mut config, mut other) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut other, &mut config);
    let a = start(config.clone()).await;
    // TEST-NET-3 is no host's (RFC 5737).
    let nobodys = "203.0.113.9".parse().unwrap();
    config.listen.as_mut().unwrap().addrs.push(nobodys);
    a.apply(config).await.unwrap_err();
    let other = start(other).await;
    established(&other, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_restart_nobody_waits_for_peers_that_are_kept_down() {
    let lab = Lab::new();
    let (mut config, mut other) = (lab.speaker(1, 65_001), lab.speaker(2, 65_002));
    lab.link(&mut config, &mut other);
    let down = Activation::Down {
        message: String::new(),
    };
    let held = Activation::Held {
        lack: Lack::Secret,
        why: "there is no Secret bgp".into(),
    };
    for (number, activation) in [(3, held), (4, down.clone()), (5, Activation::Run)] {
        let nobody = lab.speaker(number, 65_003);
        lab.add_peer(&mut config, &nobody);
        config.peers.get_mut(&name(number)).unwrap().activation = activation;
    }
    config.restarting = true;
    // Longer than anybody waits here.
    config.graceful_restart.selection_deferral = Duration::from_secs(600);
    let (a, _other) = (start(config.clone()).await, start(other).await);
    let ended = |peer: &PeerSnapshot| {
        !peer.families().is_empty() && peer.families().iter().all(|f| f.end_of_rib_received)
    };
    until("all routes of the one that is up", || peer(&a, 2), ended).await;
    let deferring = async || a.snapshot().await.unwrap().rib.unwrap().deferring;
    assert!(deferring().await, "one may still come");
    config.peers.get_mut(&name(5)).unwrap().activation = down;
    a.apply(config).await.unwrap();
    until("selection", &deferring, |deferring| !deferring).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_has_to_end_for_other_keys_is_not_asked_to_take_them_over() {
    let (mut config, a, _b) = pair(|_| {}).await;
    established(&a, 2).await;
    let secret = Secret::new("secret").unwrap();
    let key = AoKey::new(1, 1, AoAlgorithm::HmacSha1, secret);
    config.peers.get_mut(&name(2)).unwrap().authentication =
        Auth::Ao(AoKeys::new(vec![key]).unwrap());
    a.apply(config).await.unwrap();
    let ended = |peer: &PeerSnapshot| peer.state != SessionState::Established;
    until("the end of the session", || peer(&a, 2), ended).await;
    let history = a.history(name(2)).await.unwrap().unwrap();
    let failed = |text: &str| text.contains("cannot change the key");
    let failed = history.events.iter().any(|event| failed(&event.text));
    assert!(!failed, "{:#?}", history.events);
}
