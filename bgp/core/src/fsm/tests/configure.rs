//! Another configuration under a living session, and for the next one.

use super::*;

const V4: Family = Family::Ipv4Unicast;

fn configure(config: &Config, new_session: bool) -> Event {
    let config = Box::new(config.clone());
    Event::Configure {
        config,
        new_session,
    }
}

#[test]
fn a_living_session_takes_over_another_pace() {
    let mut bench = Bench::established(config(), open());
    let mut new = config();
    new.keepalive = Some(Duration::from_secs(2));
    new.send_hold_time = Some(Duration::from_secs(40));
    bench.event(configure(&new, false));
    assert_eq!(bench.last, []);
    let terms = bench.peer.negotiated().unwrap();
    assert_eq!(terms.keepalive, Duration::from_secs(2));
    assert_eq!(terms.send_hold_time, Duration::from_secs(40));
    let sent = |action: &Action| matches!(action, Action::Send { message, .. } if *message == Message::Keepalive);
    bench.until(sent);
    assert!(bench.until(sent) <= Duration::from_secs(2));
}

#[test]
fn other_terms_need_a_new_session_over_which_routes_stay() {
    let kept = restart_open(&[(V4, true)], true, false);
    let mut bench = Bench::established(config(), kept.clone());
    let mut new = config();
    new.families = vec![V4];
    bench.event(configure(&new, true));
    assert_eq!(bench.notified(CONN), [(6, 6)]);
    assert_eq!(bench.retained(), [V4]);
    assert!(bench.until(|action| *action == Action::Dial) < Duration::from_secs(1));
    bench.connected(OTHER, Role::Active);
    bench.receive(OTHER, Incoming::Open(kept));
    bench.receive(OTHER, Incoming::Keepalive);
    assert_eq!(bench.peer.negotiated().unwrap().families, [V4]);
}

#[test]
fn a_peer_that_becomes_passive_is_dialled_no_more_and_one_that_ceases_to_be_is() {
    let mut bench = Bench::new(config());
    assert!(bench.event(Event::Admin(Admin::Up)).contains(&Action::Dial));
    let passive = Config {
        passive: true,
        ..config()
    };
    let actions = bench.event(configure(&passive, false));
    assert!(actions.contains(&Action::CancelDial));
    assert_eq!(bench.peer.poll_timeout(), None);
    bench.event(configure(&config(), false));
    bench.until(|action| *action == Action::Dial);
}

#[test]
fn a_peer_that_is_down_stays_down_with_another_configuration() {
    let mut bench = Bench::established(config(), open());
    let text = String::new();
    bench.event(Event::Admin(Admin::Down { text }));
    for new_session in [false, true] {
        bench.event(configure(&config(), new_session));
        assert_eq!(bench.peer.state(), State::Idle);
        assert_eq!(bench.peer.poll_timeout(), None);
    }
}

#[test]
fn what_the_peer_was_offered_counts_whatever_is_configured_since() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Active);
    let since = Config {
        hold_time: Duration::from_secs(9),
        bfd_strict: true,
        send_hold_time: Some(Duration::from_secs(50)),
        ..config()
    };
    bench.event(configure(&since, false));
    bench.event(Event::PathProved(true));
    let mut open = open();
    open.capabilities.push(Capability::BfdStrict);
    bench.receive(CONN, Incoming::Open(open));
    bench.receive(CONN, Incoming::Keepalive);
    let terms = bench.peer.negotiated().unwrap();
    assert_eq!(terms.hold_time, Duration::from_secs(30));
    assert!(!terms.bfd_strict);
    // What is ours alone is of now.
    assert_eq!(terms.send_hold_time, Duration::from_secs(50));
}
