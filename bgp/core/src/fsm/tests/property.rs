//! Invariants over any sequence of events.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::types::{BgpRole, FamilySet, PeerAs};
use crate::wire::iana::RefreshError;
use crate::wire::{LongLived, NotificationError};

/// One step of a random life; connections are named by their age, so that names stay fresh.
#[derive(Clone, Debug)]
enum Step {
    Connect(Role),
    OnConnection(usize, Touch),
    Plain(Event),
    Wait(Duration),
    Timer,
}

#[derive(Clone, Debug)]
enum Touch {
    Receive(Incoming),
    Malformed(Notification),
    TooManyPrefixes,
    Closed,
    Wrote,
}

/// An OPEN with any choice of the capabilities that have to be agreed on.
fn extended_open() -> impl Strategy<Value = Open> {
    let family = || prop_oneof![Just(Family::Ipv4Unicast), Just(Family::Ipv6Unicast)];
    let long_lived = (family(), any::<bool>(), 0..100_u64).prop_map(|(family, kept, seconds)| {
        Capability::LongLivedRestart(vec![LongLived {
            family: family.into(),
            forwarding: kept,
            stale_time: Duration::from_secs(seconds),
        }])
    });
    let capability = prop_oneof![
        Just(Capability::EnhancedRouteRefresh),
        Just(Capability::ExtendedMessage),
        Just(Capability::BfdStrict),
        Just(Capability::LinkLocalNextHop),
        (family(), 0..5_u8).prop_map(|(f, mode)| Capability::AddPath(vec![(f.into(), mode)])),
        Just(Capability::ExtendedNextHop(vec![(
            Family::Ipv4Unicast.into(),
            2
        )])),
        (0..6_u8).prop_map(Capability::Role),
        long_lived,
    ];
    (
        proptest::collection::vec(capability, 0..6),
        any::<(bool, bool)>(),
    )
        .prop_map(|(capabilities, (notification, restarting))| {
            let families = [(Family::Ipv4Unicast, true)];
            let mut open = restart_open(&families, notification, restarting);
            open.capabilities.extend(capabilities);
            open
        })
}

/// A configuration with any choice of what can be configured.
fn any_config() -> impl Strategy<Value = Config> {
    let seconds = || (0..100_u64).prop_map(Duration::from_secs);
    let sets = || prop_oneof![Just(FamilySet::EMPTY), Just(FamilySet::ALL)];
    let peer_asn = prop_oneof![
        2 => Just(PeerAs::Number(Asn(65001))),
        1 => Just(PeerAs::External),
        1 => Just(PeerAs::Internal),
    ];
    let role = (0..5_u8, any::<bool>()).prop_map(|(code, strict)| LocalRole {
        role: BgpRole::from_code(code).unwrap(),
        strict,
    });
    (
        (any::<bool>(), peer_asn, any::<(bool, bool, bool, bool)>()),
        prop::option::of(seconds()),
        prop::option::of(seconds()),
        [prop::option::of(seconds()), prop::option::of(seconds())],
        (sets(), sets()),
        prop::option::weighted(0.3, role),
    )
        .prop_map(
            |((passive, peer_asn, extensions), keepalive, send_hold, limit, paths, role)| {
                let (extended_next_hop, extended_messages, long_lived, bfd_strict) = extensions;
                Config {
                    passive,
                    peer_asn,
                    keepalive,
                    send_hold_time: send_hold,
                    prefix_limits: limit.map(|after| {
                        after.map(|after| PrefixLimit {
                            limit: 10,
                            restart_after: (!after.is_zero()).then_some(after),
                        })
                    }),
                    add_path: AddPath {
                        send: paths.0,
                        receive: paths.1,
                    },
                    extended_next_hop,
                    extended_messages,
                    bfd_strict,
                    long_lived: long_lived.then(LocalLongLived::default),
                    role,
                    ..config()
                }
            },
        )
}

fn touch() -> impl Strategy<Value = Touch> {
    let families = [(Family::Ipv4Unicast, true)];
    let opens = prop_oneof![
        Just(open()),
        any::<(bool, bool)>().prop_map(move |(n, r)| restart_open(&families, n, r)),
        Just(Open {
            router_id: RouterId(30),
            ..open()
        }),
        Just(Open {
            asn: Asn(1),
            ..open()
        }),
        Just(Open {
            asn: Asn(65000),
            ..open()
        }),
        Just(Open {
            hold_time: Duration::ZERO,
            ..open()
        }),
        extended_open(),
    ];
    let refresh = NotificationError::RouteRefresh(RefreshError::InvalidLength);
    let notification = Notification::new(crate::wire::Cease::OutOfResources, []);
    prop_oneof![
        4 => opens.prop_map(|open| Touch::Receive(Incoming::Open(open))),
        6 => Just(Touch::Receive(Incoming::Keepalive)),
        1 => Just(Touch::Receive(Incoming::Update)),
        1 => Just(Touch::Receive(Incoming::RouteRefresh)),
        1 => Just(Touch::Receive(Incoming::Notification(notification))),
        1 => Just(Touch::Malformed(Notification::new(crate::wire::Cease::Unspecific, []))),
        1 => Just(Touch::Malformed(Notification::new(refresh, []))),
        1 => Just(Touch::TooManyPrefixes),
        1 => Just(Touch::Closed),
        1 => Just(Touch::Wrote),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let text = String::new;
    let plain = prop_oneof![
        3 => Just(Event::Admin(Admin::Up)),
        1 => Just(Event::Admin(Admin::Down { text: text() })),
        1 => Just(Event::Admin(Admin::Clear { text: text() })),
        1 => Just(Event::Admin(Admin::Deconfigure)),
        3 => any::<bool>().prop_map(Event::PathProved),
        2 => any::<bool>().prop_map(Event::PeerKnown),
        1 => Just(Event::Admin(Admin::Restart)),
        1 => Just(Event::DialFailed { why: CloseWhy::Refused }),
        1 => Just(Event::PathDown { why: PathWhy::BfdDown }),
        1 => Just(Event::PathDown { why: PathWhy::BfdSilent }),
        1 => (any_config(), any::<bool>()).prop_map(|(config, new_session)| Event::Configure {
            config: Box::new(config),
            new_session,
        }),
        1 => Just(Event::PathUp),
        1 => Just(Event::PathDown { why: PathWhy::LinkDown }),
        1 => Just(Event::RequestRefresh { family: Family::Ipv6Unicast }),
        1 => Just(Event::RestartComplete),
    ];
    prop_oneof![
        3 => prop_oneof![Just(Role::Active), Just(Role::Passive)].prop_map(Step::Connect),
        8 => (0..3_usize, touch()).prop_map(|(age, touch)| Step::OnConnection(age, touch)),
        2 => plain.prop_map(Step::Plain),
        1 => (0..100_u64).prop_map(|seconds| Step::Wait(Duration::from_secs(seconds))),
        2 => Just(Step::Timer),
    ]
}

/// What must hold whatever happened before.
#[derive(Default)]
struct Watch {
    up: Option<ConnId>,
    closed: BTreeSet<ConnId>,
}

impl Watch {
    fn actions(&mut self, actions: &[Action]) {
        for action in actions {
            match action {
                Action::Up { conn, .. } => {
                    assert_eq!(self.up, None, "Up twice");
                    assert!(!self.closed.contains(conn), "Up on a closed connection");
                    self.up = Some(*conn);
                }
                Action::Down { retain, .. } => {
                    assert!(self.up.is_some(), "Down without Up");
                    for kept in retain {
                        assert!(!kept.restart_time.is_zero() || !kept.long_lived_time.is_zero());
                    }
                    self.up = None;
                }
                Action::Send { conn, message } => {
                    assert!(!self.closed.contains(conn), "{action:?} after Close");
                    if let Message::RouteRefresh(_) = message {
                        assert_eq!(self.up, Some(*conn), "a refresh outside the session");
                    }
                }
                Action::Deliver { conn } => {
                    assert_eq!(self.up, Some(*conn), "delivered from outside the session");
                }
                Action::Close { conn } => {
                    assert!(self.closed.insert(*conn), "{conn:?} closed twice");
                }
                Action::Dial | Action::CancelDial | Action::DropRetained | Action::Note(_) => {}
            }
        }
    }

    fn state(&self, peer: &Peer) {
        let state = peer.state();
        let up = self.up.is_some();
        assert_eq!(up, state == State::Established);
        assert_eq!(peer.negotiated().is_some(), up);
        assert_eq!(peer.idle_why().is_some(), state == State::Idle);
        if let Some(terms) = peer.negotiated() {
            assert_eq!(terms.keepalive.is_zero(), terms.hold_time.is_zero());
            assert!(terms.keepalive * 3 <= terms.hold_time);
            assert!(terms.send_hold_time.is_zero() || terms.send_hold_time > terms.hold_time);
        }
        let armed = peer.poll_timeout().is_some();
        let needed = match state {
            State::Idle => matches!(
                peer.idle_why(),
                Some(IdleWhy::PrefixLimit { until: Some(_), .. })
            ),
            State::Active => !peer.config().passive,
            State::Connect | State::OpenSent | State::OpenConfirm => true,
            State::Established => {
                // A newcomer beside a session without hold time has a timer of its own.
                let silent = peer.negotiated().unwrap().hold_time.is_zero();
                if silent { armed } else { true }
            }
        };
        assert_eq!(armed, needed, "timers in {state:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_sequence_of_events_breaks_the_machine(
        config in any_config(),
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let mut bench = Bench::new(config);
        let mut watch = Watch::default();
        let mut names = 0;
        bench.event(Event::Admin(Admin::Up));
        watch.actions(&bench.last);
        for step in steps {
            let conn_of = |age: usize| ConnId(names - (age as u64).min(names));
            let event = match step {
                Step::Connect(role) => {
                    names += 1;
                    Event::Connected { conn: ConnId(names), role }
                }
                Step::OnConnection(age, touch) => {
                    let conn = conn_of(age);
                    match touch {
                        Touch::Receive(message) => Event::Received { conn, message },
                        Touch::Malformed(notification) => Event::Malformed { conn, notification },
                        Touch::TooManyPrefixes => Event::PrefixLimitExceeded {
                            conn,
                            family: Family::Ipv4Unicast,
                            limit: 10,
                        },
                        Touch::Closed => {
                            // A connection that ended is as closed as one that we ended.
                            if !watch.closed.contains(&conn) {
                                bench.event(Event::Closed { conn, why: CloseWhy::Eof });
                                watch.actions(&bench.last);
                                watch.closed.insert(conn);
                                watch.state(&bench.peer);
                            }
                            continue;
                        }
                        Touch::Wrote => Event::Wrote { conn },
                    }
                }
                Step::Plain(event) => event,
                Step::Wait(duration) => {
                    bench.now += duration;
                    run_due(&mut bench, &mut watch);
                    continue;
                }
                Step::Timer => {
                    if let Some(at) = bench.peer.poll_timeout() {
                        bench.now = bench.now.max(at);
                    }
                    run_due(&mut bench, &mut watch);
                    continue;
                }
            };
            bench.event(event);
            watch.actions(&bench.last);
            watch.state(&bench.peer);
        }
    }
}

/// Runs what is due; it must come to an end.
fn run_due(bench: &mut Bench, watch: &mut Watch) {
    for _ in 0..50 {
        if bench.peer.poll_timeout().is_none_or(|at| at > bench.now) {
            return;
        }
        bench.last.clear();
        bench.peer.handle_timeout(bench.now, &mut bench.last);
        watch.actions(&bench.last);
        watch.state(&bench.peer);
    }
    panic!("timers due at the same instant never end");
}
