//! Dials, hold, keepalive and send hold.

use super::*;

#[test]
fn the_first_dial_is_at_once_and_waits_grow_to_the_configured_longest() {
    let mut bench = Bench::new(config());
    assert!(bench.event(Event::Admin(Admin::Up)).contains(&Action::Dial));
    let mut waits = Vec::new();
    for _ in 0..12 {
        bench.event(Event::DialFailed {
            why: CloseWhy::Refused,
        });
        waits.push(bench.until(|action| *action == Action::Dial));
    }
    assert!(waits[0] <= Duration::from_secs(1), "{waits:?}");
    assert!(waits[1] <= Duration::from_secs(1), "{waits:?}");
    for (shorter, longer) in waits.iter().zip(&waits[1..]) {
        // Growth is by half, jitter takes at most a quarter.
        assert!(
            longer.as_secs_f64() <= shorter.as_secs_f64() * 2.01,
            "{waits:?}"
        );
    }
    let last = *waits.last().unwrap();
    assert!(last <= Duration::from_secs(5) && last >= Duration::from_millis(3750));
}

#[test]
fn a_dial_that_nobody_answers_is_given_up_and_tried_again() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    let unanswered = bench.until(|action| *action == Action::CancelDial);
    assert_eq!(unanswered, Duration::from_secs(4));
    bench.until(|action| *action == Action::Dial);
}

#[test]
fn a_session_lost_is_dialled_again_within_a_second() {
    let mut bench = Bench::established(config(), open());
    bench.event(Event::Closed {
        conn: CONN,
        why: CloseWhy::Eof,
    });
    assert!(bench.until(|action| *action == Action::Dial) <= Duration::from_secs(1));
}

#[test]
fn sessions_that_end_at_once_are_dialled_ever_later_until_one_has_lived() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    let mut wait_after = |life: Duration| {
        bench.connected(CONN, Role::Active);
        bench.receive(CONN, Incoming::Open(open()));
        bench.receive(CONN, Incoming::Keepalive);
        assert_eq!(bench.peer.state(), State::Established);
        bench.now += life;
        bench.event(Event::Closed {
            conn: CONN,
            why: CloseWhy::Eof,
        });
        bench.until(|action| *action == Action::Dial)
    };
    let last = (0..12).map(|_| wait_after(Duration::from_secs(9))).last();
    assert!(last.unwrap() >= Duration::from_millis(3750), "{last:?}");
    let sound = wait_after(Duration::from_secs(10));
    assert!(sound <= Duration::from_secs(1), "{sound:?}");
}

#[test]
fn a_passive_peer_waits_to_be_connected() {
    let mut passive = config();
    passive.passive = true;
    let mut bench = Bench::new(passive);
    assert!(!bench.event(Event::Admin(Admin::Up)).contains(&Action::Dial));
    assert_eq!(bench.peer.poll_timeout(), None);
    bench.connected(CONN, Role::Passive);
    bench.receive(CONN, Incoming::Open(open()));
    bench.receive(CONN, Incoming::Keepalive);
    assert_eq!(bench.peer.state(), State::Established);
    bench.event(Event::Closed {
        conn: CONN,
        why: CloseWhy::Reset,
    });
    assert_eq!(bench.peer.poll_timeout(), None);
    assert_eq!(bench.peer.state(), State::Active);
}

#[test]
fn no_dial_starts_while_a_connection_of_the_peer_is_on_its_way() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    bench.event(Event::DialFailed {
        why: CloseWhy::Refused,
    });
    bench.connected(CONN, Role::Passive);
    while bench.peer.state() == State::OpenSent {
        assert!(!bench.next_timer().contains(&Action::Dial));
    }
    bench.until(|action| *action == Action::Dial);
}

#[test]
fn a_peer_that_never_opens_is_given_up() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Active);
    let waited = bench.until(|action| *action == Action::Close { conn: CONN });
    assert_eq!(waited, Duration::from_secs(30));
    assert_eq!(bench.notified(CONN), [(4, 0)]);
}

#[test]
fn keepalives_go_out_well_inside_the_hold_time_with_jitter() {
    let mut bench = Bench::established(config(), open());
    let keepalive = Action::Send {
        conn: CONN,
        message: Message::Keepalive,
    };
    let mut gaps = Vec::new();
    for _ in 0..20 {
        gaps.push(bench.until(|action| *action == keepalive));
        bench.receive(CONN, Incoming::Keepalive);
    }
    let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
    assert!(*least >= Duration::from_millis(7500) && *most <= Duration::from_secs(10));
    assert!(least < most, "no jitter: {gaps:?}");
}

#[test]
fn the_hold_timer_runs_from_the_last_message() {
    for message in [
        Incoming::Keepalive,
        Incoming::Update,
        Incoming::RouteRefresh,
    ] {
        let mut bench = Bench::established(config(), open());
        bench.now += Duration::from_secs(29);
        bench.receive(CONN, message);
        let silence = bench.until(|action| matches!(action, Action::Down { .. }));
        assert_eq!(silence, Duration::from_secs(30));
        assert_eq!(bench.notified(CONN), [(4, 0)]);
    }
}

// frr PR 4985: a keepalive time of zero was a timer that was always due.
#[test]
fn hold_time_zero_means_no_keepalives_and_no_expiry() {
    let mut open = open();
    open.hold_time = Duration::ZERO;
    let bench = Bench::established(config(), open);
    assert_eq!(bench.peer.poll_timeout(), None);
}

// frr PR 6959: nothing ended a connection that stayed in OpenConfirm.
#[test]
fn with_hold_time_zero_a_peer_stuck_in_open_confirm_is_still_given_up() {
    let mut open = open();
    open.hold_time = Duration::ZERO;
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Active);
    bench.receive(CONN, Incoming::Open(open));
    let waited = bench.until(|action| *action == Action::Close { conn: CONN });
    assert_eq!(waited, Duration::from_secs(30));
}

// frr PR 8530, which became RFC 9687.
#[test]
fn a_peer_that_does_not_read_is_dropped_after_the_send_hold_time() {
    let mut bench = Bench::established(config(), open());
    let mut waited = Duration::ZERO;
    // The peer talks, but nothing we send leaves: the hold timer never fires.
    while bench.down().is_none() {
        let before = bench.now;
        bench.next_timer();
        waited += bench.now - before;
        if bench.down().is_none() {
            let mut ignored = Vec::new();
            let message = Incoming::Keepalive;
            let event = Event::Received {
                conn: CONN,
                message,
            };
            bench.peer.handle(bench.now, event, &mut ignored);
        }
    }
    assert_eq!(bench.down().unwrap().0, DownWhy::SendHoldTimerExpired);
    assert_eq!(bench.notified(CONN), [(8, 0)]);
    assert_eq!(waited, Duration::from_secs(480));
}

#[test]
fn writing_restarts_the_send_hold_timer() {
    let mut bench = Bench::established(config(), open());
    let start = bench.now;
    while bench.now - start < Duration::from_secs(1000) {
        bench.next_timer();
        bench.event(Event::Wrote { conn: CONN });
        bench.receive(CONN, Incoming::Keepalive);
        assert_eq!(bench.peer.state(), State::Established);
    }
}

#[test]
fn a_path_that_comes_back_is_dialled_at_once() {
    let mut bench = Bench::established(config(), open());
    bench.event(Event::PathDown {
        why: PathWhy::LinkDown,
    });
    assert!(bench.event(Event::PathUp).contains(&Action::Dial));
}
