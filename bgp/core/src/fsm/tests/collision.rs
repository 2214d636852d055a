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

#[test]
fn a_connection_without_open_does_not_collide_yet() {
    let mut bench = both(config());
    bench.receive(CONN, open_with(30));
    assert!(bench.notified(CONN).is_empty() && bench.notified(OTHER).is_empty());
    bench.receive(CONN, Incoming::Keepalive);
    // Established first: the other one goes, whoever has the higher identifier.
    assert_eq!(bench.notified(OTHER), [(6, 7)]);
    assert_eq!(bench.peer.state(), State::Established);
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
    bench.connected(OTHER, Role::Passive);
    let open = restart_open(&families, false, true);
    bench.receive(OTHER, Incoming::Open(open));
    let (why, retain, _) = bench.down().unwrap();
    assert_eq!(why, DownWhy::PeerRestarted);
    assert_eq!(retain, [Family::Ipv4Unicast]);
    assert!(bench.closed(CONN) && bench.notified(CONN).is_empty());
    bench.receive(OTHER, Incoming::Keepalive);
    assert_eq!(bench.peer.state(), State::Established);
}

#[test]
fn a_restarting_open_on_the_late_half_of_a_simultaneous_open_ends_nothing() {
    let families = [(Family::Ipv4Unicast, true)];
    let open = || Incoming::Open(restart_open(&families, false, true));
    let mut bench = both(config());
    bench.receive(CONN, open());
    bench.receive(CONN, Incoming::Keepalive);
    bench.receive(OTHER, open());
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
