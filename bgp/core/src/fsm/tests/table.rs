//! Every event in every state, and what an OPEN may say.

use super::*;
use crate::wire::iana::{HeaderError, OpenError};

const STATES: [State; 6] = [
    State::Idle,
    State::Active,
    State::Connect,
    State::OpenSent,
    State::OpenConfirm,
    State::Established,
];

/// A machine in `state`, on [`CONN`] where there is a connection.
fn at(state: State) -> Bench {
    let mut bench = Bench::new(config());
    if state == State::Idle {
        return bench;
    }
    bench.event(Event::Admin(Admin::Up));
    match state {
        State::Connect => {}
        State::Active => {
            let why = CloseWhy::Refused;
            bench.event(Event::DialFailed { why });
        }
        _ => {
            bench.connected(CONN, Role::Active);
        }
    }
    if state >= State::OpenConfirm {
        bench.receive(CONN, Incoming::Open(open()));
    }
    if state == State::Established {
        bench.receive(CONN, Incoming::Keepalive);
    }
    assert_eq!(bench.peer.state(), state);
    bench
}

/// Breaks when an event is added, so that the table below is not forgotten.
fn kind(event: &Event) -> usize {
    match event {
        Event::Connected {
            role: Role::Passive,
            ..
        } => 0,
        Event::Connected {
            role: Role::Active, ..
        } => 1,
        Event::DialFailed { .. } => 2,
        Event::Received { message, .. } => match message {
            Incoming::Open(_) => 3,
            Incoming::Keepalive => 4,
            Incoming::Update => 5,
            Incoming::RouteRefresh => 6,
            Incoming::Notification(_) => 7,
        },
        Event::Malformed { .. } => 8,
        Event::Closed { .. } => 9,
        Event::Wrote { .. } => 10,
        Event::PathDown { .. } => 11,
        Event::PathUp => 12,
        Event::PathProved(_) => 22,
        Event::PeerKnown(_) => 23,
        Event::RestartComplete => 13,
        Event::PrefixLimitExceeded { .. } => 14,
        Event::RequestRefresh { .. } => 15,
        Event::Admin(wish) => match wish {
            Admin::Up => 16,
            Admin::Down { .. } => 17,
            Admin::Clear { .. } => 18,
            Admin::Deconfigure => 19,
            Admin::Restart => 20,
        },
        Event::Configure { .. } => 21,
    }
}
const KINDS: usize = 24;

/// Each event with the state after it, by state before it in the order of [`STATES`].
#[rustfmt::skip]
fn table() -> Vec<(Event, [State; 6])> {
    use State::{Active, Connect, Established, Idle, OpenConfirm, OpenSent};
    let received = |message| Event::Received { conn: CONN, message };
    let admin = Event::Admin;
    let text = String::new;
    let unchanged = STATES;
    let lost = [Idle, Active, Connect, Active, Active, Active];
    vec![
        (Event::Connected { conn: OTHER, role: Role::Passive },
            [Idle, OpenSent, OpenSent, OpenSent, OpenConfirm, Established]),
        (Event::Connected { conn: OTHER, role: Role::Active },
            [Idle, Active, OpenSent, OpenSent, OpenConfirm, Established]),
        (Event::DialFailed { why: CloseWhy::Refused },
            [Idle, Active, Active, OpenSent, OpenConfirm, Established]),
        (received(Incoming::Open(open())), [Idle, Active, Connect, OpenConfirm, Active, Active]),
        (received(Incoming::Keepalive), [Idle, Active, Connect, Active, Established, Established]),
        (received(Incoming::Update), [Idle, Active, Connect, Active, Active, Established]),
        (received(Incoming::RouteRefresh), [Idle, Active, Connect, Active, Active, Established]),
        (received(Incoming::Notification(Notification::new(HeaderError::BadType, []))), lost),
        (Event::Malformed { conn: CONN, notification: Notification::new(HeaderError::BadType, []) }, lost),
        (Event::Closed { conn: CONN, why: CloseWhy::Eof }, lost),
        (Event::Wrote { conn: CONN }, unchanged),
        (Event::PathDown { why: PathWhy::LinkDown }, lost),
        (Event::PathUp, [Idle, Connect, Connect, OpenSent, OpenConfirm, Established]),
        (Event::RestartComplete, unchanged),
        (Event::PrefixLimitExceeded { conn: CONN, family: Family::Ipv4Unicast, limit: 1 },
            [Idle, Active, Connect, OpenSent, OpenConfirm, Idle]),
        (Event::RequestRefresh { family: Family::Ipv4Unicast }, unchanged),
        (admin(Admin::Up), [Connect, Active, Connect, OpenSent, OpenConfirm, Established]),
        (admin(Admin::Down { text: text() }), [Idle; 6]),
        (admin(Admin::Clear { text: text() }), [Idle, Connect, Connect, Active, Active, Active]),
        (admin(Admin::Deconfigure), [Idle; 6]),
        (admin(Admin::Restart), [Idle; 6]),
        (Event::Configure { config: Box::new(config()), new_session: true },
            [Idle, Connect, Connect, Active, Active, Active]),
        (Event::PathProved(false), unchanged),
        (Event::PeerKnown(false), [Idle, Idle, Idle, Idle, Idle, Established]),
    ]
}

#[test]
fn every_event_in_every_state_leads_where_the_table_says() {
    let mut wrong = Vec::new();
    for (event, expected) in table() {
        for (before, expected) in STATES.into_iter().zip(expected) {
            let mut bench = at(before);
            bench.event(event.clone());
            let after = bench.peer.state();
            if after != expected {
                wrong.push(format!(
                    "{before:?} + {event:?}: {after:?}, not {expected:?}"
                ));
            }
            let left = before == State::Established && after != State::Established;
            assert_eq!(bench.down().is_some(), left, "{before:?} + {event:?}");
            let noted = bench.last.contains(&Action::Note(Note::StateChanged {
                from: before,
                to: after,
            }));
            assert_eq!(noted, before != after, "{before:?} + {event:?}");
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_table_has_every_kind_of_event() {
    let kinds: Vec<usize> = table().iter().map(|(event, _)| kind(event)).collect();
    assert_eq!(kinds, (0..KINDS).collect::<Vec<_>>());
}

#[test]
fn unexpected_messages_are_answered_with_the_subcode_of_the_state() {
    let cases = [
        (State::OpenSent, Incoming::Keepalive, (5, 1)),
        (State::OpenSent, Incoming::Update, (5, 1)),
        (State::OpenSent, Incoming::RouteRefresh, (5, 1)),
        (State::OpenConfirm, Incoming::Open(open()), (5, 2)),
        (State::OpenConfirm, Incoming::Update, (5, 2)),
        (State::OpenConfirm, Incoming::RouteRefresh, (5, 2)),
        (State::Established, Incoming::Open(open()), (5, 3)),
    ];
    for (state, message, codes) in cases {
        let mut bench = at(state);
        bench.receive(CONN, message.clone());
        assert_eq!(bench.notified(CONN), [codes], "{state:?} + {message:?}");
        assert!(bench.closed(CONN));
    }
}

#[test]
fn routes_are_delivered_in_established_only() {
    for state in STATES {
        for message in [Incoming::Update, Incoming::RouteRefresh] {
            let mut bench = at(state);
            let delivered = bench
                .receive(CONN, message)
                .contains(&Action::Deliver { conn: CONN });
            assert_eq!(delivered, state == State::Established);
        }
    }
}

#[test]
fn opens_that_do_not_suit_are_refused_with_the_exact_codes() {
    type Change = fn(&mut Config, &mut Open);
    let cases: [(&str, Change, (u8, u8)); 9] = [
        ("another AS", |_, open| open.asn = Asn(65002), (2, 2)),
        (
            "AS 0 on both sides",
            |config, open| {
                config.peer_asn = Asn::ZERO.into();
                open.asn = Asn::ZERO;
            },
            (2, 2),
        ),
        (
            "identifier 0",
            |_, open| open.router_id = RouterId(0),
            (2, 3),
        ),
        (
            "our identifier in our AS",
            |config, open| {
                config.peer_asn = config.local_asn.into();
                open.asn = config.local_asn;
                open.router_id = config.router_id;
            },
            (2, 3),
        ),
        (
            "hold time 1",
            |_, open| open.hold_time = Duration::from_secs(1),
            (2, 6),
        ),
        (
            "hold time 2",
            |_, open| open.hold_time = Duration::from_secs(2),
            (2, 6),
        ),
        (
            "no common family",
            |config, open| {
                config.families = vec![Family::Ipv6Unicast];
                open.capabilities.remove(1);
            },
            (2, 7),
        ),
        (
            "no family but the implied one",
            |config, open| {
                config.families = vec![Family::Ipv6Unicast];
                open.capabilities.clear();
            },
            (2, 7),
        ),
        (
            "the two-octet half of our four-octet peer",
            |config, _| config.peer_asn = Asn(65001 + 65536).into(),
            (2, 2),
        ),
    ];
    for (name, change, codes) in cases {
        let (mut config, mut open) = (config(), open());
        change(&mut config, &mut open);
        let mut bench = Bench::new(config);
        bench.event(Event::Admin(Admin::Up));
        bench.connected(CONN, Role::Active);
        bench.receive(CONN, Incoming::Open(open));
        assert_eq!(bench.notified(CONN), [codes], "{name}");
        assert!(bench.closed(CONN), "{name}");
    }
}

#[test]
fn an_as_that_is_refused_is_named() {
    let why = |actions: &[Action]| {
        let mut reasons = actions.iter().filter_map(|action| match action {
            Action::Note(Note::AttemptFailed { why }) | Action::Down { why, .. } => {
                Some(why.to_string())
            }
            _ => None,
        });
        reasons.next().unwrap()
    };
    let dialled = || {
        let mut bench = Bench::new(config());
        bench.event(Event::Admin(Admin::Up));
        bench.connected(CONN, Role::Active);
        bench
    };
    let refusal = || Incoming::Notification(Notification::new(OpenError::BadPeerAs, []));

    let other = Open {
        asn: Asn(65002),
        ..open()
    };
    let mut bench = dialled();
    assert_eq!(
        why(bench.receive(CONN, Incoming::Open(other))),
        "we sent OPEN error: bad peer AS (the peer says that it is AS 65002, configured is 65001)"
    );
    let ours = "the peer sent OPEN error: bad peer AS (we say that we are AS 65000)";
    let mut bench = dialled();
    assert_eq!(why(bench.receive(CONN, refusal())), ours);
    let mut bench = dialled();
    bench.receive(CONN, Incoming::Open(open()));
    assert_eq!(why(bench.receive(CONN, refusal())), ours);
    // It has accepted it before.
    let mut bench = Bench::established(config(), open());
    assert_eq!(
        why(bench.receive(CONN, refusal())),
        "the peer sent OPEN error: bad peer AS"
    );
}

#[test]
fn the_same_identifier_in_another_as_is_fine() {
    let mut open = open();
    open.router_id = config().router_id;
    Bench::established(config(), open);
}

#[test]
fn terms_are_the_smaller_hold_time_and_the_common_families() {
    let mut open = open();
    open.capabilities.remove(0);
    let bench = Bench::established(config(), open);
    let terms = bench.peer.negotiated().unwrap();
    assert_eq!(terms.hold_time, Duration::from_secs(30));
    assert_eq!(terms.keepalive, Duration::from_secs(10));
    assert_eq!(terms.families, [Family::Ipv6Unicast]);
    assert!(terms.four_octet_as && terms.route_refresh);
    assert_eq!(terms.graceful_restart, None);
}

#[test]
fn shutdowns_reach_the_peer_with_their_reason() {
    let mut bench = Bench::established(config(), open());
    let text = "maintenance".to_string();
    bench.event(Event::Admin(Admin::Down { text: text.clone() }));
    let said: Vec<_> = bench.notifications(CONN).cloned().collect();
    assert_eq!(said[0].error.codes(), (6, 2));
    assert_eq!(said[0].shutdown_communication(), Some(text));
    bench.connected(OTHER, Role::Passive);
    assert_eq!(bench.notified(OTHER), [(6, 5)]);
    assert!(bench.closed(OTHER));
    assert_eq!(bench.peer.poll_timeout(), None);
}
