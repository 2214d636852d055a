//! Peers that are left alone, and refreshes asked for.

use super::*;
use crate::wire::iana::RefreshError;
use crate::wire::{NotificationError, RefreshKind, RouteRefresh};

const V4: Family = Family::Ipv4Unicast;

fn exceeded() -> Event {
    Event::PrefixLimitExceeded {
        conn: CONN,
        family: V4,
        limit: 100,
    }
}

fn limit_of_100(restart: Option<u64>) -> PrefixLimit {
    PrefixLimit {
        limit: 100,
        restart_after: restart.map(Duration::from_secs),
    }
}

fn limited(restart: Option<u64>) -> Bench {
    let mut config = config();
    config.prefix_limits[V4.index()] = Some(limit_of_100(restart));
    let mut bench = Bench::established(config, open());
    bench.event(exceeded());
    bench
}

#[test]
fn too_many_prefixes_end_the_session_with_family_and_limit() {
    let bench = limited(None);
    let told: Vec<Notification> = bench.notifications(CONN).cloned().collect();
    assert_eq!(told, [Notification::prefix_limit(V4.into(), 100)]);
    assert!(bench.closed(CONN));
    let why = DownWhy::PrefixLimit {
        family: V4,
        limit: 100,
    };
    assert_eq!(bench.down(), Some((why.clone(), Vec::new())));
    assert_eq!(
        why.to_string(),
        "the peer sent more than 100 ipv4-unicast prefixes"
    );
    assert_eq!(bench.peer.state(), State::Idle);
    assert_eq!(
        bench.peer.idle_why().unwrap().to_string(),
        "the peer sent more than 100 ipv4-unicast prefixes; the session starts again when cleared \
         or with another limit"
    );
}

#[test]
fn a_peer_that_would_keep_our_routes_gets_a_hard_reset_for_its_excess() {
    let open = restart_open(&[(V4, true)], true, false);
    let mut config = config();
    config.prefix_limits[V4.index()] = Some(limit_of_100(None));
    let mut bench = Bench::established(config, open);
    bench.event(exceeded());
    let told: Vec<Notification> = bench.notifications(CONN).cloned().collect();
    let inner = told[0].inner().unwrap();
    assert_eq!(inner.exceeded_limit(), Some((V4.into(), 100)));
    assert_eq!(bench.retained(), []);
}

#[test]
fn without_a_restart_time_the_excess_waits_for_somebody_to_clear_it() {
    let mut bench = limited(None);
    assert_eq!(bench.peer.poll_timeout(), None);
    for event in [Event::PathUp, Event::Admin(Admin::Up), exceeded()] {
        assert!(!bench.event(event).contains(&Action::Dial));
        assert_eq!(bench.peer.state(), State::Idle);
    }
    bench.connected(OTHER, Role::Passive);
    assert_eq!(bench.notified(OTHER), [(6, 5)]);
    let text = String::new();
    let cleared = bench.event(Event::Admin(Admin::Clear { text }));
    assert!(cleared.contains(&Action::Dial));
    assert_eq!(bench.peer.idle_why(), None);
}

#[test]
fn with_a_restart_time_the_peer_is_dialled_again_when_it_is_over() {
    let mut bench = limited(Some(60));
    let waited = bench.until(|action| *action == Action::Dial);
    assert_eq!(waited, Duration::from_secs(60));
    assert_eq!(bench.peer.state(), State::Connect);
    assert_eq!(bench.peer.idle_why(), None);
}

#[test]
fn a_passive_peer_is_heard_again_when_the_restart_time_is_over() {
    let mut passive = config();
    passive.passive = true;
    passive.prefix_limits[V4.index()] = Some(limit_of_100(Some(60)));
    let mut bench = Bench::new(passive);
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Passive);
    bench.receive(CONN, Incoming::Open(open()));
    bench.receive(CONN, Incoming::Keepalive);
    bench.event(exceeded());
    assert_eq!(bench.peer.state(), State::Idle);
    bench.next_timer();
    assert_eq!(bench.peer.state(), State::Active);
    bench.connected(OTHER, Role::Passive);
    assert_eq!(bench.peer.state(), State::OpenSent);
}

#[test]
fn each_family_has_a_restart_time_of_its_own() {
    let v6 = Family::Ipv6Unicast;
    for (family, waits) in [(V4, Some(Duration::from_secs(60))), (v6, None)] {
        let mut config = config();
        config.prefix_limits[V4.index()] = Some(limit_of_100(Some(60)));
        config.prefix_limits[v6.index()] = Some(limit_of_100(None));
        let mut bench = Bench::established(config, open());
        bench.event(Event::PrefixLimitExceeded {
            conn: CONN,
            family,
            limit: 100,
        });
        let waited = bench.peer.poll_timeout().map(|until| until - bench.now);
        assert_eq!(waited, waits, "{family}");
    }
}

#[test]
fn another_limit_of_the_family_gives_another_chance_and_nothing_else_does() {
    let v6 = Family::Ipv6Unicast;
    let v4_limit = |limit: Option<PrefixLimit>| {
        let mut config = config();
        config.prefix_limits[V4.index()] = limit;
        config
    };
    let limit = limit_of_100(None);
    let raised = PrefixLimit {
        limit: 200,
        ..limit
    };
    let mut of_v6_too = v4_limit(Some(limit));
    of_v6_too.prefix_limits[v6.index()] = Some(raised);
    let cases = [
        ("raised", v4_limit(Some(raised)), false, true),
        ("gone, or only a warning", v4_limit(None), false, true),
        (
            "with a restart time",
            v4_limit(Some(limit_of_100(Some(60)))),
            false,
            true,
        ),
        ("the same", v4_limit(Some(limit)), false, false),
        ("one for the other family", of_v6_too, false, false),
        ("the same, other terms", v4_limit(Some(limit)), true, true),
    ];
    for (case, config, new_session, dialled) in cases {
        let mut bench = limited(None);
        let config = Box::new(config);
        let actions = bench.event(Event::Configure {
            config,
            new_session,
        });
        assert_eq!(actions.contains(&Action::Dial), dialled, "limit {case}");
        assert_eq!(bench.peer.idle_why().is_none(), dialled, "limit {case}");
    }
}

#[test]
fn an_excess_that_comes_before_its_limit_counts_once_the_limit_is_there() {
    let configure = |limit: Option<PrefixLimit>| {
        let mut config = config();
        config.prefix_limits[V4.index()] = limit;
        Event::Configure {
            config: Box::new(config),
            new_session: false,
        }
    };
    let raised = PrefixLimit {
        limit: 200,
        restart_after: None,
    };
    let limit = limit_of_100(None);
    for (before, after, ends) in [
        (None, Some(limit), true),
        (Some(raised), Some(limit), true),
        // The other way round: it was counted before the RIB knew of the new limit.
        (Some(raised), Some(raised), false),
        (None, None, false),
    ] {
        let mut bench = Bench::established(config(), open());
        bench.event(configure(before));
        bench.event(exceeded());
        assert_eq!(bench.peer.state(), State::Established, "before");
        bench.event(configure(after));
        let ended = bench.peer.state() == State::Idle;
        assert_eq!(ended, ends, "from {before:?} to {after:?}");
        // It is not kept for a later change.
        if !ends {
            bench.event(configure(Some(limit)));
            assert_eq!(bench.peer.state(), State::Established);
        }
    }
}

#[test]
fn a_count_that_comes_after_the_session_ended_means_nothing() {
    let mut config = config();
    config.prefix_limits[V4.index()] = Some(limit_of_100(None));
    let mut bench = Bench::established(config, open());
    bench.event(Event::Closed {
        conn: CONN,
        why: CloseWhy::Eof,
    });
    bench.event(exceeded());
    assert_eq!(bench.last, []);
    assert_eq!(bench.peer.state(), State::Active);
}

#[test]
fn what_took_a_peer_down_is_remembered_with_its_text() {
    let mut bench = Bench::new(config());
    assert_eq!(bench.peer.idle_why(), Some(&IdleWhy::NotStarted));
    bench.event(Event::Admin(Admin::Up));
    assert_eq!(bench.peer.idle_why(), None);
    let text = "line card swap".to_owned();
    bench.event(Event::Admin(Admin::Down { text }));
    let why = bench.peer.idle_why().unwrap().to_string();
    assert_eq!(why, "administratively down (\"line card swap\")");
    // Neither a returning path nor a clear starts it.
    bench.event(Event::PathUp);
    let text = String::new();
    bench.event(Event::Admin(Admin::Clear { text }));
    assert_eq!(bench.peer.idle_why().unwrap().to_string(), why);
    assert!(bench.event(Event::Admin(Admin::Up)).contains(&Action::Dial));
    bench.event(Event::Admin(Admin::Restart));
    assert_eq!(bench.peer.idle_why(), Some(&IdleWhy::Restarting));
    bench.event(Event::Admin(Admin::Deconfigure));
    assert_eq!(bench.peer.idle_why(), Some(&IdleWhy::Deconfigured));
}

#[test]
fn a_peer_taken_down_while_it_is_away_loses_what_was_retained() {
    let open = restart_open(&[(V4, true)], true, false);
    for wish in [
        Admin::Down {
            text: String::new(),
        },
        Admin::Deconfigure,
    ] {
        let mut bench = Bench::established(config(), open.clone());
        bench.event(Event::Closed {
            conn: CONN,
            why: CloseWhy::Eof,
        });
        assert!(
            bench
                .event(Event::Admin(wish))
                .contains(&Action::DropRetained)
        );
    }
}

#[test]
fn bfd_down_is_told_to_the_peer_and_a_dead_link_is_not() {
    for (keeps, why, told) in [
        (false, PathWhy::BfdDown, vec![(6, 10)]),
        (true, PathWhy::BfdDown, vec![(6, 9)]),
        (true, PathWhy::LinkDown, vec![]),
    ] {
        let open = restart_open(&[(V4, true)], keeps, false);
        let mut bench = Bench::established(config(), open);
        bench.event(Event::PathDown { why });
        assert_eq!(bench.notified(CONN), told, "{why:?}, N {keeps}");
        if keeps && why == PathWhy::BfdDown {
            let inner = bench.notifications(CONN).next().unwrap().inner().unwrap();
            assert_eq!(inner.error.codes(), (6, 10));
        }
    }
}

#[test]
fn while_nobody_knows_who_the_peer_is_a_session_lives_and_none_begins() {
    let mut bench = Bench::established(config(), open());
    bench.event(Event::PeerKnown(false));
    assert_eq!(bench.peer.state(), State::Established);
    // Somebody who calls beside the session may be somebody else.
    bench.connected(OTHER, Role::Passive);
    assert_eq!(bench.notified(OTHER), [(6, 5)]);
    let why = CloseWhy::Eof;
    bench.event(Event::Closed { conn: CONN, why });
    assert_eq!(bench.peer.idle_why(), Some(&IdleWhy::Unknown));
    for event in [
        Event::PathUp,
        Event::Admin(Admin::Up),
        Event::Admin(Admin::Clear {
            text: String::new(),
        }),
    ] {
        assert!(!bench.event(event).contains(&Action::Dial));
        assert_eq!(bench.peer.poll_timeout(), None);
    }
    let newcomer = ConnId(3);
    bench.connected(newcomer, Role::Passive);
    assert_eq!(bench.notified(newcomer), [(6, 5)]);

    let known = bench.event(Event::PeerKnown(true));
    assert!(known.contains(&Action::Dial));
    assert_eq!(bench.peer.state(), State::Connect);
}

#[test]
fn a_peer_that_becomes_known_stays_as_down_as_somebody_wants_it() {
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    let text = String::new();
    bench.event(Event::PeerKnown(false));
    bench.event(Event::Admin(Admin::Down { text: text.clone() }));
    let down = IdleWhy::AdminDown { text };
    assert_eq!(bench.peer.idle_why(), Some(&down));
    assert!(!bench.event(Event::PeerKnown(true)).contains(&Action::Dial));
    assert_eq!(bench.peer.idle_why(), Some(&down));
}

#[test]
fn a_refresh_is_asked_for_where_the_session_allows_it() {
    let ask = Event::RequestRefresh { family: V4 };
    let request = Action::Send {
        conn: CONN,
        message: Message::RouteRefresh(RouteRefresh {
            family: V4.into(),
            kind: RefreshKind::Request,
        }),
    };
    let impossible = [Action::Note(Note::RefreshImpossible(V4))];
    let mut bench = Bench::established(config(), open());
    assert_eq!(bench.event(ask.clone()), [request]);
    let mut deaf = open();
    deaf.capabilities.retain(|c| *c != Capability::RouteRefresh);
    let mut bench = Bench::established(config(), deaf);
    assert_eq!(bench.event(ask.clone()), impossible);
    let mut other = open();
    other.capabilities.remove(0);
    let mut bench = Bench::established(config(), other);
    assert_eq!(bench.event(ask.clone()), impossible);
    let mut bench = Bench::new(config());
    assert_eq!(bench.event(ask), impossible);
}

#[test]
fn a_bracket_of_wrong_length_matters_to_those_who_agreed_on_brackets() {
    let bad = Event::Malformed {
        conn: CONN,
        notification: Notification::new(
            NotificationError::RouteRefresh(RefreshError::InvalidLength),
            [],
        ),
    };
    let mut bench = Bench::established(config(), open());
    bench.now += Duration::from_secs(20);
    assert_eq!(bench.event(bad.clone()), []);
    // It was a message all the same.
    let silence = bench.until(|action| matches!(action, Action::Down { .. }));
    assert_eq!(silence, Duration::from_secs(30));
    let mut enhanced = open();
    enhanced.capabilities.push(Capability::EnhancedRouteRefresh);
    let mut bench = Bench::established(config(), enhanced);
    bench.event(bad.clone());
    assert_eq!(bench.notified(CONN), [(7, 1)]);
    // Before a session nothing of the kind may come at all.
    let mut bench = Bench::new(config());
    bench.event(Event::Admin(Admin::Up));
    bench.connected(CONN, Role::Active);
    bench.event(bad);
    assert!(bench.closed(CONN));
}

#[test]
fn a_cleared_peer_is_dialled_when_it_has_had_a_moment_to_read_why() {
    let mut bench = Bench::established(config(), open());
    let text = String::new();
    bench.event(Event::Admin(Admin::Clear { text }));
    assert_eq!(bench.notified(CONN), [(6, 4)]);
    let waited = bench.until(|action| *action == Action::Dial);
    assert!((250..=500).contains(&waited.as_millis()), "{waited:?}");

    // Who has nothing to read waits for nothing.
    let text = String::new();
    let mut alone = Bench::new(config());
    alone.event(Event::Admin(Admin::Up));
    let cleared = alone.event(Event::Admin(Admin::Clear { text }));
    assert!(cleared.contains(&Action::Dial));
}
