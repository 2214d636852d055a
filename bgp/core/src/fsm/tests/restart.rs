//! What outlives a session (RFC 4724, RFC 8538).

use super::*;
use crate::wire::iana::UpdateError;
use crate::wire::{Cease, LongLived};

const BOTH: [(Family, bool); 2] = [(Family::Ipv4Unicast, true), (Family::Ipv6Unicast, false)];

/// Both families, kept for this many seconds, and then for this many more.
fn both(restart_time: u64, long_lived_time: u64) -> Vec<Retention> {
    let kept = |family| Retention {
        family,
        restart_time: Duration::from_secs(restart_time),
        long_lived_time: Duration::from_secs(long_lived_time),
    };
    Family::ALL.map(kept).to_vec()
}

fn notification() -> Notification {
    Notification::new(UpdateError::MalformedAttributeList, [])
}

fn hard_reset() -> Notification {
    Notification::cease(Cease::AdministrativeShutdown, "").into_hard_reset()
}

fn received(notification: Notification) -> Event {
    Event::Received {
        conn: CONN,
        message: Incoming::Notification(notification),
    }
}

/// Each end of a session, and whether routes outlive it without and with the N bit.
fn ends() -> Vec<(Event, bool, bool)> {
    let text = String::new;
    let closed = |why| Event::Closed { conn: CONN, why };
    let malformed = Event::Malformed {
        conn: CONN,
        notification: notification(),
    };
    vec![
        (closed(CloseWhy::Eof), true, true),
        (closed(CloseWhy::Reset), true, true),
        (closed(CloseWhy::TimedOut), true, true),
        (received(notification()), false, true),
        (received(hard_reset()), false, false),
        (malformed, false, true),
        (
            Event::PathDown {
                why: PathWhy::LinkDown,
            },
            false,
            false,
        ),
        (
            Event::PathDown {
                why: PathWhy::BfdDown,
            },
            false,
            false,
        ),
        (
            Event::PathDown {
                why: PathWhy::BfdSilent,
            },
            true,
            true,
        ),
        (
            Event::PrefixLimitExceeded {
                conn: CONN,
                family: Family::Ipv4Unicast,
                limit: 1,
            },
            false,
            false,
        ),
        (Event::Admin(Admin::Down { text: text() }), false, false),
        (Event::Admin(Admin::Clear { text: text() }), false, true),
        (Event::Admin(Admin::Deconfigure), false, false),
    ]
}

#[test]
fn routes_outlive_the_session_as_the_peers_capability_says() {
    for (event, plain, with_n_bit) in ends() {
        for (notification, kept) in [(false, plain), (true, with_n_bit)] {
            let open = restart_open(&BOTH, notification, false);
            let mut bench = Bench::established(config(), open);
            bench.event(event.clone());
            let (_, retain) = bench.down().unwrap();
            let expected = if kept { both(60, 0) } else { Vec::new() };
            assert_eq!(retain, expected, "{event:?}, N {notification}");
        }
    }
}

#[test]
fn hold_expiry_keeps_routes_with_the_n_bit_only() {
    for notification in [false, true] {
        let open = restart_open(&BOTH, notification, false);
        let mut bench = Bench::established(config(), open);
        bench.until(|action| matches!(action, Action::Down { .. }));
        let (why, retain) = bench.down().unwrap();
        assert_eq!(why, DownWhy::HoldTimerExpired);
        assert_eq!(bench.notified(CONN), [(4, 0)]);
        assert_eq!(!retain.is_empty(), notification);
    }
}

#[test]
fn nothing_is_kept_of_a_peer_that_only_helps_or_takes_no_part() {
    for open in [restart_open(&[], true, false), open()] {
        let mut bench = Bench::established(config(), open);
        bench.event(Event::Closed {
            conn: CONN,
            why: CloseWhy::Eof,
        });
        assert_eq!(bench.retained(), []);
    }
    let mut alone = config();
    alone.graceful_restart = None;
    let mut bench = Bench::established(alone, restart_open(&BOTH, true, false));
    assert_eq!(bench.peer.negotiated().unwrap().graceful_restart, None);
    bench.event(Event::Closed {
        conn: CONN,
        why: CloseWhy::Eof,
    });
    assert_eq!(bench.retained(), []);
}

/// [`restart_open`] that also asks for long retention of these families.
fn long_lived_open(restart: &[(Family, bool)], seconds: u64, stale: &[(Family, u64)]) -> Open {
    let mut open = restart_open(restart, true, false);
    if let Some(Capability::GracefulRestart(restart)) = open.capabilities.last_mut() {
        restart.restart_time = Duration::from_secs(seconds);
    }
    let families = stale.iter().map(|(family, seconds)| LongLived {
        family: (*family).into(),
        forwarding: true,
        stale_time: Duration::from_secs(*seconds),
    });
    let capability = Capability::LongLivedRestart(families.collect());
    open.capabilities.push(capability);
    open
}

#[test]
fn each_family_is_kept_for_its_restart_time_and_then_for_its_long_stale_time() {
    const V4: Family = Family::Ipv4Unicast;
    const V6: Family = Family::Ipv6Unicast;
    type Kept = (Family, u64, u64);
    type Case<'a> = (&'a [(Family, bool)], u64, &'a [(Family, u64)], &'a [Kept]);
    let cases: [Case<'_>; 7] = [
        (
            &BOTH,
            60,
            &[(V4, 600), (V6, 700)],
            &[(V4, 60, 600), (V6, 60, 700)],
        ),
        (&BOTH, 60, &[(V4, 600)], &[(V4, 60, 600), (V6, 60, 0)]),
        // RFC 9494 §4.2: a time is zero where its capability does not list the family.
        (
            &[(V6, true)],
            60,
            &[(V4, 600)],
            &[(V4, 0, 600), (V6, 60, 0)],
        ),
        (&[], 60, &[(V4, 600)], &[(V4, 0, 600)]),
        (&BOTH, 0, &[(V4, 600)], &[(V4, 0, 600)]),
        (&BOTH, 60, &[(V4, 0)], &[(V4, 60, 0), (V6, 60, 0)]),
        (&[], 0, &[(V4, 0)], &[]),
    ];
    for (restart, seconds, stale, expected) in cases {
        let mut config = config();
        config.long_lived = Some(LocalLongLived::default());
        let open = long_lived_open(restart, seconds, stale);
        let mut bench = Bench::established(config, open);
        bench.event(Event::Closed {
            conn: CONN,
            why: CloseWhy::Eof,
        });
        let retain = bench.down().unwrap().1;
        let kept: Vec<Kept> = retain
            .iter()
            .map(|kept| {
                let (restart, stale) = (kept.restart_time, kept.long_lived_time);
                (kept.family, restart.as_secs(), stale.as_secs())
            })
            .collect();
        assert_eq!(kept, expected, "{restart:?} {seconds} {stale:?}");
    }
}

#[test]
fn only_negotiated_families_are_kept() {
    let mut one = config();
    one.families = vec![Family::Ipv6Unicast];
    let mut bench = Bench::established(one, restart_open(&BOTH, false, false));
    bench.event(Event::Closed {
        conn: CONN,
        why: CloseWhy::Eof,
    });
    assert_eq!(bench.retained(), [Family::Ipv6Unicast]);
}

#[test]
fn a_path_that_dies_while_the_peer_is_away_takes_the_retained_routes() {
    for (why, taken) in [
        (PathWhy::LinkDown, true),
        (PathWhy::BfdDown, true),
        (PathWhy::BfdSilent, false),
    ] {
        let mut bench = Bench::established(config(), restart_open(&BOTH, true, false));
        bench.event(Event::Closed {
            conn: CONN,
            why: CloseWhy::Eof,
        });
        let actions = bench.event(Event::PathDown { why });
        assert_eq!(actions.contains(&Action::DropRetained), taken, "{why:?}");
    }
}

#[test]
fn a_shutdown_is_a_hard_reset_for_peers_that_would_keep_our_routes() {
    let text = || "gone".to_string();
    for (notification, codes) in [(false, (6, 2)), (true, (6, 9))] {
        let open = restart_open(&BOTH, notification, false);
        let mut bench = Bench::established(config(), open);
        bench.event(Event::Admin(Admin::Down { text: text() }));
        assert_eq!(bench.notified(CONN), [codes]);
    }
}

#[test]
fn a_restart_leaves_without_a_word() {
    let mut bench = Bench::established(config(), restart_open(&BOTH, true, false));
    bench.event(Event::Admin(Admin::Restart));
    assert!(bench.notified(CONN).is_empty());
    assert!(bench.closed(CONN));
    assert_eq!(bench.retained(), Family::ALL);
}

#[test]
fn the_r_bit_is_set_until_the_restart_is_over() {
    let mut restarted = config();
    restarted.graceful_restart.as_mut().unwrap().restarting = true;
    let mut bench = Bench::new(restarted);
    bench.event(Event::Admin(Admin::Up));
    let r_bit = |actions: &[Action]| {
        actions.iter().find_map(|action| match action {
            Action::Send {
                message: Message::Open(open),
                ..
            } => Some(open.graceful_restart()?.restarting),
            _ => None,
        })
    };
    assert_eq!(r_bit(bench.connected(CONN, Role::Active)), Some(true));
    bench.event(Event::RestartComplete);
    assert_eq!(r_bit(bench.connected(OTHER, Role::Passive)), Some(false));
}
