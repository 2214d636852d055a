//! Sessions that wait until BFD says that the path is up (draft-ietf-idr-bgp-bfd-strict-mode).

use super::*;
use crate::wire::Message;

fn strict() -> Config {
    Config {
        bfd_strict: true,
        ..config()
    }
}

/// [`open`], by a peer that waits for BFD too where it is `strict`.
fn open_of(strict: bool) -> Open {
    let mut open = open();
    open.capabilities
        .extend(strict.then_some(Capability::BfdStrict));
    open
}

/// A session for which both OPENs were exchanged, with a peer that is `strict` or not.
fn waiting(strict_peer: bool) -> Bench {
    let mut bench = Bench::new(strict());
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Active);
    bench.receive(CONN, Incoming::Open(open_of(strict_peer)));
    bench
}

fn keepalives(bench: &Bench) -> usize {
    let keepalive = Action::Send {
        conn: CONN,
        message: Message::Keepalive,
    };
    let sent = bench.last.iter().filter(|action| **action == keepalive);
    sent.count()
}

#[test]
fn the_peer_is_told_and_strict_mode_is_agreed_on_where_both_say_so() {
    for ours in [false, true] {
        let config = Config {
            bfd_strict: ours,
            ..config()
        };
        for theirs in [false, true] {
            let mut bench = Bench::new(config.clone());
            bench.event(Event::PathProved(true));
            bench.event(Event::Admin(Admin::Up));
            bench.connected(CONN, Role::Active);
            let told = bench.last.iter().any(|action| {
                matches!(action, Action::Send { message: Message::Open(open), .. }
                    if open.capabilities.contains(&Capability::BfdStrict))
            });
            assert_eq!(told, ours);
            bench.receive(CONN, Incoming::Open(open_of(theirs)));
            bench.receive(CONN, Incoming::Keepalive);
            let terms = bench.peer.negotiated().unwrap();
            assert_eq!(terms.bfd_strict, ours && theirs);
        }
    }
}

#[test]
fn the_session_waits_with_its_keepalive_until_bfd_is_up_whatever_the_peer_says() {
    for strict_peer in [false, true] {
        let mut bench = waiting(strict_peer);
        assert_eq!(bench.peer.state(), State::OpenSent);
        assert_eq!(keepalives(&bench), 0);
        assert!(bench.last.contains(&Action::Note(Note::AwaitsPath)));
        bench.event(Event::PathProved(false));
        assert_eq!(bench.peer.state(), State::OpenSent);

        bench.event(Event::PathProved(true));
        assert_eq!(bench.peer.state(), State::OpenConfirm);
        assert_eq!(keepalives(&bench), 1);
        bench.receive(CONN, Incoming::Keepalive);
        assert_eq!(bench.peer.state(), State::Established);
    }
}

#[test]
fn a_peer_that_saw_bfd_come_up_first_is_established_as_soon_as_we_see_it() {
    let mut bench = waiting(true);
    bench.receive(CONN, Incoming::Keepalive);
    assert_eq!(bench.peer.state(), State::OpenSent);
    bench.event(Event::PathProved(true));
    assert_eq!(keepalives(&bench), 1);
    assert_eq!(bench.peer.state(), State::Established);
}

#[test]
fn a_path_that_is_proved_before_the_open_costs_no_wait() {
    let mut bench = Bench::new(strict());
    bench.event(Event::PathProved(true));
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Active);
    bench.receive(CONN, Incoming::Open(open_of(true)));
    assert_eq!(bench.peer.state(), State::OpenConfirm);
    assert_eq!(keepalives(&bench), 1);
}

#[test]
fn a_session_that_need_not_wait_any_more_by_configuration_goes_on() {
    let mut bench = waiting(true);
    bench.event(Event::Configure {
        config: Box::new(config()),
        new_session: false,
    });
    assert_eq!(bench.peer.state(), State::OpenConfirm);
}

#[test]
fn a_session_that_runs_goes_on_when_it_would_have_to_wait_by_now() {
    let mut bench = Bench::established(config(), open());
    bench.event(Event::Configure {
        config: Box::new(strict()),
        new_session: false,
    });
    bench.event(Event::PathProved(false));
    assert_eq!(bench.peer.state(), State::Established);
}

#[test]
fn bfd_is_waited_for_no_longer_than_a_keepalive_would_be_and_the_peer_hears_why() {
    for (hold_time, patience) in [(30, 30), (0, 30), (9, 9)] {
        let mut open = open_of(true);
        open.hold_time = Duration::from_secs(hold_time);
        let mut bench = Bench::new(strict());
        bench.event(Event::Admin(Admin::Up));
        bench.connected(CONN, Role::Active);
        bench.receive(CONN, Incoming::Open(open));
        // The peer's keepalives do not make it longer.
        bench.receive(CONN, Incoming::Keepalive);
        let waited = bench.until(|action| *action == Action::Close { conn: CONN });
        assert_eq!(waited, Duration::from_secs(patience));
        assert_eq!(bench.notified(CONN), [(6, 10)]);
        let why = DownWhy::PathUnproved;
        let failed = Action::Note(Note::AttemptFailed { why });
        assert!(bench.last.contains(&failed));
        assert!(bench.peer.poll_timeout().is_some(), "it is tried again");
    }
}

#[test]
fn a_path_that_bfd_loses_again_ends_the_session_that_it_let_through() {
    let mut bench = waiting(true);
    bench.event(Event::PathProved(true));
    bench.event(Event::PathProved(false));
    let why = PathWhy::BfdDown;
    bench.event(Event::PathDown { why });
    assert_eq!(bench.notified(CONN), [(6, 10)]);
    bench.until(|action| *action == Action::Dial);
    bench.connected(OTHER, Role::Active);
    bench.receive(OTHER, Incoming::Open(open_of(true)));
    assert_eq!(bench.peer.state(), State::OpenSent);
}

#[test]
fn what_may_not_come_before_our_keepalive_is_an_error_in_open_sent() {
    for message in [
        Incoming::Update,
        Incoming::RouteRefresh,
        Incoming::Open(open()),
    ] {
        let mut bench = waiting(true);
        bench.receive(CONN, message);
        assert_eq!(bench.notified(CONN), [(5, 1)]);
    }
}

#[test]
fn of_two_connections_that_wait_one_is_chosen_as_ever() {
    // Our identifier is the higher one: the connection that we made stays.
    let mut bench = waiting(true);
    bench.connected(OTHER, Role::Passive);
    bench.receive(OTHER, Incoming::Open(open_of(true)));
    assert_eq!(bench.notified(OTHER), [(6, 7)]);
    assert!(!bench.closed(CONN));
    bench.event(Event::PathProved(true));
    bench.receive(CONN, Incoming::Keepalive);
    assert_eq!(bench.peer.state(), State::Established);
}
