//! Two connections at once (RFC 4271 §6.8, RFC 6286 §2.3, RFC 4724 §5).

use super::*;

/// Both connections in OpenSent: [`CONN`] dialled by us, [`OTHER`] by the peer.
fn both(config: Config) -> Bench {
    let mut bench = Bench::new(config);
    bench.event(Event::Admin(Admin::Up));
    bench.connected(OTHER, Role::Passive);
    bench.connected(CONN, Role::Active);
    bench
}

fn open_with(router_id: u32) -> Incoming {
    let mut open = open();
    open.router_id = RouterId(router_id);
    Incoming::Open(open)
}

#[test]
fn the_connection_of_the_higher_identifier_wins_whichever_opened_first() {
    // Ours is 20.
    for (theirs, winner, loser) in [(10, CONN, OTHER), (30, OTHER, CONN)] {
        for order in [[CONN, OTHER], [OTHER, CONN]] {
            let mut bench = both(config());
            bench.receive(order[0], open_with(theirs));
            bench.receive(order[1], open_with(theirs));
            assert_eq!(bench.notified(loser), [(6, 7)], "{theirs} {order:?}");
            assert!(bench.closed(loser));
            bench.receive(winner, Incoming::Keepalive);
            assert_eq!(bench.peer.state(), State::Established);
        }
    }
}

#[test]
fn identifiers_compare_as_unsigned_integers() {
    let mut config = config();
    config.router_id = RouterId(0x0a00_0001);
    let mut bench = both(config);
    // 9.255.255.255 sorts after 10.0.0.1 as text, and before it as a number.
    bench.receive(CONN, open_with(0x09ff_ffff));
    bench.receive(OTHER, open_with(0x09ff_ffff));
    assert_eq!(bench.notified(OTHER), [(6, 7)]);
    // 192.0.0.1 is negative as a signed integer.
    let mut config = super::config();
    config.router_id = RouterId(0x0a00_0001);
    let mut bench = both(config);
    bench.receive(CONN, open_with(0xc000_0001));
    bench.receive(OTHER, open_with(0xc000_0001));
    assert_eq!(bench.notified(CONN), [(6, 7)]);
}

#[test]
fn equal_identifiers_are_decided_by_the_larger_as() {
    // Ours is AS 65000, the peer's is 65001: its connection stays.
    let mut bench = both(config());
    bench.receive(CONN, open_with(20));
    bench.receive(OTHER, open_with(20));
    assert_eq!(bench.notified(CONN), [(6, 7)]);
}

/// The connection that would lose has the peer's OPEN and KEEPALIVE, the other has neither. The
/// peer may have seen both of our OPENs and chosen the other one.
fn loser_first() -> Bench {
    let mut bench = both(config());
    bench.receive(CONN, open_with(30));
    assert!(bench.notified(CONN).is_empty() && bench.notified(OTHER).is_empty());
    bench.receive(CONN, Incoming::Keepalive);
    assert_eq!(bench.last, []);
    assert_eq!(bench.peer.state(), State::OpenConfirm);
    bench
}

fn up_on(bench: &Bench) -> Option<ConnId> {
    bench.last.iter().find_map(|action| match action {
        Action::Up { conn, .. } => Some(*conn),
        _ => None,
    })
}

fn opened(bench: &Bench, on: ConnId) -> bool {
    bench.last.iter().any(
        |action| matches!(action, Action::Send { conn, message: Message::Open(_) } if *conn == on),
    )
}

#[test]
fn the_winner_is_established_without_waiting_for_the_open_of_the_loser() {
    let mut bench = both(config());
    bench.receive(CONN, open_with(10));
    bench.receive(CONN, Incoming::Keepalive);
    assert_eq!(up_on(&bench), Some(CONN));
    assert_eq!(bench.notified(OTHER), [(6, 7)]);
}

#[test]
fn a_connection_that_would_lose_is_not_established_while_the_winners_open_may_come() {
    let mut bench = loser_first();
    bench.receive(CONN, Incoming::Keepalive);
    assert_eq!(bench.last, []);
    bench.receive(OTHER, open_with(30));
    assert_eq!(bench.notified(CONN), [(6, 7)]);
    assert!(bench.closed(CONN));
    bench.receive(OTHER, Incoming::Keepalive);
    assert_eq!(up_on(&bench), Some(OTHER));
}

#[test]
fn a_winner_that_never_opens_delays_the_session_by_a_second() {
    let mut bench = loser_first();
    let waited = bench.until(|action| matches!(action, Action::Up { .. }));
    assert_eq!(waited, Duration::from_secs(1));
    assert_eq!(up_on(&bench), Some(CONN));
    assert_eq!(bench.notified(OTHER), [(6, 7)]);
}

#[test]
fn routes_on_the_connection_that_would_lose_prove_that_the_peer_chose_it() {
    for message in [Incoming::Update, Incoming::RouteRefresh] {
        let mut bench = loser_first();
        bench.receive(CONN, message);
        assert_eq!(up_on(&bench), Some(CONN));
        assert_eq!(bench.notified(OTHER), [(6, 7)]);
        let at = |wanted: &dyn Fn(&Action) -> bool| bench.last.iter().position(wanted);
        let up = at(&|action| matches!(action, Action::Up { .. }));
        let delivered = at(&|action| *action == Action::Deliver { conn: CONN });
        assert!(up < delivered, "{:?}", bench.last);
    }
}

#[test]
fn the_end_of_the_winner_establishes_the_other_at_once() {
    let notification = || Notification::new(crate::wire::Cease::ConnectionRejected, []);
    let ends = [
        Event::Closed {
            conn: OTHER,
            why: CloseWhy::Reset,
        },
        Event::Received {
            conn: OTHER,
            message: Incoming::Notification(notification()),
        },
        Event::Malformed {
            conn: OTHER,
            notification: notification(),
        },
    ];
    for end in ends {
        let mut bench = loser_first();
        bench.event(end);
        assert_eq!(up_on(&bench), Some(CONN));
    }
}

#[test]
fn the_end_of_the_connection_that_waits_leaves_the_winner_alone() {
    let mut bench = loser_first();
    let message = Incoming::Notification(Notification::cease(
        crate::wire::Cease::CollisionResolution,
        "",
    ));
    bench.receive(CONN, message);
    assert_eq!(up_on(&bench), None);
    bench.receive(OTHER, open_with(30));
    bench.receive(OTHER, Incoming::Keepalive);
    assert_eq!(up_on(&bench), Some(OTHER));
}

#[test]
fn a_newcomer_gets_no_open_beside_a_session_and_gets_it_when_the_session_ends() {
    let mut bench = Bench::established(config(), open());
    bench.connected(OTHER, Role::Passive);
    assert_eq!(bench.last, []);
    bench.event(Event::Closed {
        conn: CONN,
        why: CloseWhy::Reset,
    });
    assert!(opened(&bench, OTHER));
    bench.receive(OTHER, Incoming::Open(open()));
    bench.receive(OTHER, Incoming::Keepalive);
    assert_eq!(up_on(&bench), Some(OTHER));
}

#[test]
fn an_established_session_outlives_a_newcomer() {
    let mut bench = Bench::established(config(), open());
    bench.connected(OTHER, Role::Passive);
    bench.receive(OTHER, open_with(30));
    assert_eq!(bench.notified(OTHER), [(6, 7)]);
    assert_eq!(bench.peer.state(), State::Established);
    assert_eq!(bench.down(), None);
}

#[test]
fn a_restarted_peer_replaces_its_old_session_and_keeps_its_routes() {
    let families = [(Family::Ipv4Unicast, true)];
    let mut bench = Bench::established(config(), restart_open(&families, false, false));
    bench.now += Duration::from_secs(1);
    bench.connected(OTHER, Role::Passive);
    let open = restart_open(&families, false, true);
    bench.receive(OTHER, Incoming::Open(open));
    assert!(opened(&bench, OTHER));
    let (why, _) = bench.down().unwrap();
    assert_eq!(why, DownWhy::PeerRestarted);
    assert_eq!(bench.retained(), [Family::Ipv4Unicast]);
    assert!(bench.closed(CONN) && bench.notified(CONN).is_empty());
    bench.receive(OTHER, Incoming::Keepalive);
    assert_eq!(bench.peer.state(), State::Established);
}

#[test]
fn a_restarting_open_on_the_late_half_of_a_simultaneous_open_ends_nothing() {
    let families = [(Family::Ipv4Unicast, true)];
    let open = || restart_open(&families, false, true);
    let mut bench = Bench::established(config(), open());
    // Dialled before the session came up, accepted after.
    bench.now += Duration::from_millis(900);
    bench.connected(OTHER, Role::Passive);
    bench.receive(OTHER, Incoming::Open(open()));
    assert_eq!(bench.notified(OTHER), [(6, 7)]);
    assert_eq!(bench.peer.state(), State::Established);
    assert_eq!(bench.down(), None);
}

#[test]
fn a_second_connection_of_the_peer_replaces_its_first() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Passive);
    bench.connected(OTHER, Role::Passive);
    assert!(bench.closed(CONN));
    bench.receive(OTHER, Incoming::Open(open()));
    bench.receive(OTHER, Incoming::Keepalive);
    assert_eq!(bench.peer.state(), State::Established);
}

#[test]
fn the_answer_to_a_cancelled_dial_is_closed() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    bench.connected(OTHER, Role::Passive);
    bench.receive(OTHER, Incoming::Open(open()));
    let up = bench.receive(OTHER, Incoming::Keepalive);
    assert!(up.contains(&Action::CancelDial));
    bench.connected(CONN, Role::Active);
    assert!(bench.closed(CONN));
    assert_eq!(bench.peer.state(), State::Established);
}
