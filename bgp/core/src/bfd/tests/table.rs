//! Every state, and all that can happen in it.

use super::*;

/// What a session in each state (down) makes of a packet in each state (across): RFC 5880 §6.8.6.
#[rustfmt::skip]
const TRANSITIONS: [(State, [State; 4]); 4] = {
    use State::{AdminDown, Down, Init, Up};
    [
        //            AdminDown  Down       Init       Up
        (AdminDown, [AdminDown, AdminDown, AdminDown, AdminDown]),
        (Down,      [Down,      Init,      Up,        Down]),
        (Init,      [Down,      Init,      Up,        Up]),
        (Up,        [Down,      Down,      Up,        Up]),
    ]
};

#[test]
fn every_state_follows_every_received_state_as_the_table_says() {
    for (from, row) in TRANSITIONS {
        for (received, to) in State::ALL.into_iter().zip(row) {
            let mut bench = Bench::at(from);
            let actions = bench.receive(packet(received));
            let case = format!("{from} hears {received}");
            assert_eq!(bench.session.state(), to, "{case}");
            let told: Vec<_> = changes(&actions).iter().map(|c| (c.from, c.to)).collect();
            let sent: Vec<_> = sent(&actions).iter().map(|packet| packet.state).collect();
            if from == to {
                assert!(told.is_empty() && sent.is_empty(), "{case}: {actions:?}");
            } else {
                // RFC 5880 §6.8.7: news do not wait for the timer.
                assert_eq!(told, [(from, to)], "{case}");
                assert_eq!(sent, [to], "{case}");
            }
        }
    }
}

#[test]
fn the_diagnostic_and_the_reason_say_what_happened() {
    let admin = Packet {
        diag: Diag::AdministrativelyDown,
        ..packet(State::AdminDown)
    };
    let deaf = Packet {
        diag: Diag::DetectionTimeExpired,
        ..packet(State::Down)
    };
    let (signaled, why) = (Diag::NeighborSignaledDown, Why::NeighborSignaledDown);
    for (from, packet, diag, why) in [
        (State::Up, deaf, signaled, why(Diag::DetectionTimeExpired)),
        (
            State::Up,
            admin,
            signaled,
            Why::NeighborAdminDown(Diag::AdministrativelyDown),
        ),
        (
            State::Init,
            admin,
            signaled,
            Why::NeighborAdminDown(Diag::AdministrativelyDown),
        ),
        (State::Init, packet(State::Up), Diag::None, Why::Heard),
    ] {
        let mut bench = Bench::at(from);
        let change = changes(&bench.receive(packet))[0];
        assert_eq!((change.diag, change.why), (diag, why), "{from} {packet:?}");
        assert_eq!(change.remote.diag, packet.diag);
        assert_eq!((bench.session.diag(), bench.session.why()), (diag, why));
    }
}

#[test]
fn a_session_that_is_down_says_that_the_peer_is_held_down() {
    let mut bench = Bench::at(State::Down);
    assert_eq!(bench.session.why(), Why::NeverUp);
    let held = Packet {
        diag: Diag::AdministrativelyDown,
        ..packet(State::AdminDown)
    };
    assert_eq!(bench.receive(held), []);
    let why = Why::NeighborAdminDown(Diag::AdministrativelyDown);
    assert_eq!(bench.session.why(), why);
}

#[test]
fn only_a_failure_of_an_up_session_counts_as_failure() {
    let failures = |state: State, heard: State| {
        let mut bench = Bench::at(state);
        let actions = bench.receive(packet(heard));
        changes(&actions).iter().any(Change::is_failure)
    };
    assert!(failures(State::Up, State::Down));
    // RFC 5882 §3.2: an administrator's word says nothing about the path.
    let told = |state, word| {
        let mut bench = Bench::at(state);
        changes(&bench.receive(packet(word)))[0].silence
    };
    assert_eq!(told(State::Up, State::Down), None, "the peer spoke");
    assert!(!failures(State::Up, State::AdminDown));
    assert!(!failures(State::Init, State::AdminDown));
    let mut silent = Bench::at(State::Up);
    let actions: Vec<Action> = silent.run(ms(2000)).into_iter().map(|(_, a)| a).collect();
    assert!(changes(&actions)[0].is_failure());
    let mut never_up = Bench::at(State::Init);
    let actions: Vec<Action> = never_up.run(ms(4000)).into_iter().map(|(_, a)| a).collect();
    assert!(!changes(&actions)[0].is_failure());
}

#[test]
fn silence_takes_init_and_up_down_after_the_detection_time_and_forgets_the_peer() {
    // In Init the peer's slow second counts, three times.
    for (state, time) in [(State::Init, ms(3000)), (State::Up, ms(900))] {
        let mut bench = Bench::at(state);
        assert_eq!(bench.session.detection_time(), Some(time));
        let just_before = bench.run(time - Duration::from_micros(1));
        assert!(
            just_before
                .iter()
                .all(|(_, a)| matches!(a, Action::Send(_)))
        );
        let actions: Vec<Action> = bench.run(ms(1)).into_iter().map(|(_, a)| a).collect();
        let change = changes(&actions)[0];
        assert_eq!((change.from, change.to), (state, State::Down));
        assert_eq!(change.why, Why::DetectionTimeExpired);
        // Late by as much as whoever runs the timers.
        let silence = change.silence.unwrap();
        assert!(silence >= time && silence <= time + ms(1), "{silence:?}");
        // The client is told with what the peer said, the peer with the reason.
        assert!(change.remote.control_plane_independent);
        let news = sent(&actions)[0];
        assert_eq!(news.state, State::Down);
        assert_eq!(news.diag, Diag::DetectionTimeExpired);
        // RFC 5880 §6.8.1, §6.8.18.
        assert_eq!(news.your_discriminator, None);
        let remote = bench.session.remote();
        assert_eq!(remote.required_min_rx, Interval::from_micros(1));
        assert_eq!(bench.session.detection_time(), None);
    }
    // Down stays down, and forgets as well.
    let mut bench = Bench::at(State::Up);
    bench.receive(packet(State::AdminDown));
    assert!(bench.session.remote().discriminator.is_some());
    let seen = bench.run(ms(4000));
    assert!(seen.iter().all(|(_, a)| matches!(a, Action::Send(_))));
    assert_eq!(bench.session.remote().discriminator, None);
    assert!(matches!(bench.session.why(), Why::NeighborAdminDown(_)));
}

#[test]
fn removal_tells_admin_down_at_once_and_for_a_detection_time_and_then_ends() {
    for state in [State::Down, State::Init, State::Up] {
        let mut bench = Bench::at(state);
        let diag = Diag::AdministrativelyDown;
        let actions = bench.event(Event::Disable { diag });
        assert_eq!(changes(&actions)[0].why, Why::AdminDown(diag));
        let first = sent(&actions)[0];
        assert_eq!((first.state, first.diag), (State::AdminDown, diag));
        // Told again: nothing new.
        assert_eq!(bench.event(Event::Disable { diag }), []);
        let seen = bench.run(ms(10_000));
        let (last, end) = seen.last().unwrap();
        assert_eq!((*last, end), (ms(3000), &Action::Finished), "{state}");
        let told = seen.len() - 1;
        assert!((2..=4).contains(&told), "{told} packets in three seconds");
        assert_eq!(bench.session.poll_timeout(), None);
    }
}

#[test]
fn a_session_held_down_hears_nothing_and_a_returning_client_gets_it_back() {
    let mut bench = Bench::at(State::AdminDown);
    for state in State::ALL {
        let poll = Packet {
            poll: true,
            ..packet(state)
        };
        // RFC 5880 §6.8.6 throws it away before it looks at P.
        assert_eq!(bench.receive(poll), [Action::Discarded(Discard::AdminDown)]);
    }
    let actions = bench.event(Event::Enable);
    assert_eq!(bench.session.state(), State::Down);
    assert_eq!(sent(&actions)[0].state, State::Down);
    // Also after the end.
    let diag = Diag::AdministrativelyDown;
    bench.event(Event::Disable { diag });
    bench.run(ms(10_000));
    bench.event(Event::Enable);
    assert!(bench.session.poll_timeout().is_some());
    assert_eq!(bench.event(Event::Enable), []);
}

#[test]
fn the_passive_side_speaks_when_spoken_to_and_only_then() {
    let mut bench = Bench::new(Config {
        passive: true,
        ..config()
    });
    assert_eq!(bench.run(ms(60_000)), []);
    let first = Packet {
        your_discriminator: None,
        ..packet(State::Down)
    };
    assert_eq!(sent(&bench.receive(first)).len(), 1);
    bench.receive(packet(State::Init));
    assert_eq!(bench.session.state(), State::Up);
    let seen = bench.run(ms(60_000));
    let down = changes(&seen.iter().map(|(_, a)| a.clone()).collect::<Vec<_>>());
    assert_eq!(down.len(), 1);
    // RFC 5880 §6.8.7: the peer's name is forgotten, so not a word about it.
    let last = seen.iter().rfind(|(_, a)| matches!(a, Action::Send(_)));
    assert!(last.unwrap().0 < ms(3000));
    // Told to be active, it speaks at once.
    bench.event(Event::Passive(false));
    assert_eq!(bench.session.poll_timeout(), Some(bench.now));
    // Removal without a peer has nobody to tell.
    let mut alone = Bench::new(Config {
        passive: true,
        ..config()
    });
    let diag = Diag::AdministrativelyDown;
    assert_eq!(sent(&alone.event(Event::Disable { diag })), []);
    assert_eq!(alone.timeout(), [Action::Finished]);
}

#[test]
fn packets_carry_the_c_bit_as_configured_and_never_d() {
    for independent in [false, true] {
        let mut bench = Bench::new(Config {
            control_plane_independent: independent,
            ..config()
        });
        let first = sent(&bench.timeout())[0];
        assert_eq!(first.control_plane_independent, independent);
        assert!(!first.demand);
        assert_eq!(first.required_min_echo_rx, Interval::ZERO);
    }
}
