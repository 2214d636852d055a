//! Intervals: what is said, what is done, and the Poll Sequences in between (RFC 5880 §6.8.2 to
//! §6.8.4).

use super::*;

fn up(tx: u64, rx: u64) -> Packet {
    Packet {
        desired_min_tx: ms(tx).try_into().unwrap(),
        required_min_rx: ms(rx).try_into().unwrap(),
        ..packet(State::Up)
    }
}

fn with_final(packet: Packet) -> Packet {
    Packet {
        is_final: true,
        ..packet
    }
}

/// The next periodic packet.
fn next(bench: &mut Bench) -> Packet {
    bench.now = bench.session.poll_timeout().unwrap();
    sent(&bench.timeout())[0]
}

fn interval(bench: &Bench) -> Duration {
    bench.session.send_interval().unwrap().as_duration()
}

#[test]
fn not_faster_than_once_a_second_while_not_up() {
    for state in [State::Down, State::Init, State::AdminDown] {
        let mut bench = Bench::at(state);
        let packet = next(&mut bench);
        assert_eq!(packet.desired_min_tx, Interval::SLOW, "{state}");
        assert_eq!(interval(&bench), ms(1000), "{state}");
    }
    // A slower wish is honoured in every state.
    let mut bench = Bench::new(Config {
        timing: timing(5000, 300, 3),
        ..config()
    });
    assert_eq!(
        sent(&bench.timeout())[0].desired_min_tx.as_micros(),
        5_000_000
    );
}

#[test]
fn coming_up_speeds_up_at_once_and_polls_until_the_final() {
    let mut bench = Bench::at(State::Init);
    let news = sent(&bench.receive(packet(State::Up)))[0];
    assert_eq!(news.desired_min_tx.as_micros(), 300_000);
    assert!(news.poll);
    assert_eq!(interval(&bench), ms(300));
    bench.receive(packet(State::Up));
    assert!(next(&mut bench).poll, "no Final yet");
    bench.receive(with_final(packet(State::Up)));
    assert!(!next(&mut bench).poll);
}

#[test]
fn going_down_slows_down_at_once() {
    let mut bench = Bench::settled();
    let news = sent(&bench.receive(packet(State::Down)))[0];
    assert_eq!(news.desired_min_tx, Interval::SLOW);
    assert_eq!(interval(&bench), ms(1000));
}

#[test]
fn the_slower_of_both_wishes_counts_each_way() {
    for (peer, sends, hears) in [
        (up(100, 100), 300, 300),
        (up(500, 100), 300, 500),
        (up(100, 500), 500, 300),
    ] {
        let mut bench = Bench::settled();
        bench.receive(peer);
        assert_eq!(interval(&bench), ms(sends), "{peer:?}");
        let receives = bench.session.receive_interval().unwrap();
        assert_eq!(receives.as_duration(), ms(hears), "{peer:?}");
        assert_eq!(bench.session.detection_time(), Some(ms(3 * hears)));
    }
    // The multiplier is the peer's own.
    let mut bench = Bench::settled();
    bench.receive(Packet {
        detect_mult: NonZeroU8::new(5).unwrap(),
        ..packet(State::Up)
    });
    assert_eq!(bench.session.detection_time(), Some(ms(1500)));
}

#[test]
fn periodic_packets_stay_within_the_jitter_of_the_interval() {
    for mult in [1, 3] {
        let mut bench = Bench::settled();
        bench.event(Event::Timing(timing(300, 300, mult)));
        let gaps = bench.gaps(ms(60_000), packet(State::Up));
        let (least, most) = (gaps.iter().min().unwrap(), gaps.iter().max().unwrap());
        assert!(*least >= ms(225), "{least:?}");
        let limit = if mult == 1 { ms(270) } else { ms(300) };
        assert!(*most <= limit, "{most:?}");
        assert!(*most - *least > ms(30), "no jitter: {least:?} to {most:?}");
    }
}

#[test]
fn a_peer_that_wishes_to_hear_more_often_does_so_at_once() {
    let mut bench = Bench::settled();
    bench.event(Event::Timing(timing(50, 300, 3)));
    bench.receive(with_final(up(300, 5000)));
    bench.receive(up(300, 5000));
    bench.now += ms(1000);
    bench.receive(up(300, 5000));
    assert!(bench.session.poll_timeout().unwrap() > bench.now + ms(500));
    // RFC 5880 §6.8.3: the new interval has passed since the last packet already.
    bench.receive(up(300, 100));
    assert_eq!(bench.session.poll_timeout(), Some(bench.now));
    assert_eq!(sent(&bench.timeout()).len(), 1);
    assert_eq!(interval(&bench), ms(100));
}

#[test]
fn sending_more_slowly_waits_for_the_final() {
    let mut bench = Bench::settled();
    assert_eq!(bench.event(Event::Timing(timing(800, 300, 3))), []);
    // RFC 5880 §6.5: no packet of its own for the poll; the next periodic one carries it.
    let poll = next(&mut bench);
    assert!(poll.poll);
    assert_eq!(poll.desired_min_tx.as_micros(), 800_000);
    assert_eq!(interval(&bench), ms(300));
    bench.receive(packet(State::Up));
    assert_eq!(interval(&bench), ms(300));
    bench.receive(with_final(packet(State::Up)));
    assert_eq!(interval(&bench), ms(800));
}

#[test]
fn sending_faster_does_not_wait() {
    let mut bench = Bench::settled();
    bench.receive(up(300, 10));
    bench.event(Event::Timing(timing(100, 300, 3)));
    assert_eq!(interval(&bench), ms(100));
    assert!(next(&mut bench).poll);
}

#[test]
fn expecting_more_often_waits_for_the_final_and_expecting_less_often_does_not() {
    let mut bench = Bench::settled();
    bench.receive(up(10, 300));
    bench.event(Event::Timing(timing(300, 100, 3)));
    assert_eq!(bench.session.detection_time(), Some(ms(900)));
    assert_eq!(next(&mut bench).required_min_rx.as_micros(), 100_000);
    bench.receive(with_final(up(10, 300)));
    assert_eq!(bench.session.detection_time(), Some(ms(300)));
    bench.receive(up(10, 300));
    bench.event(Event::Timing(timing(300, 2000, 3)));
    assert_eq!(bench.session.detection_time(), Some(ms(6000)));
}

#[test]
fn a_change_during_a_poll_waits_until_a_final_cannot_be_mistaken() {
    let mut bench = Bench::settled();
    bench.event(Event::Timing(timing(400, 300, 3)));
    assert_eq!(next(&mut bench).desired_min_tx.as_micros(), 400_000);
    bench.event(Event::Timing(timing(500, 300, 3)));
    bench.event(Event::Timing(timing(600, 300, 3)));
    assert_eq!(bench.session.timing(), timing(600, 300, 3));
    assert_eq!(next(&mut bench).desired_min_tx.as_micros(), 400_000);
    bench.receive(with_final(packet(State::Up)));
    bench.receive(with_final(packet(State::Up)));
    let between = next(&mut bench);
    assert_eq!(
        (between.desired_min_tx.as_micros(), between.poll),
        (400_000, false)
    );
    // The first packet without F ends the wait.
    bench.receive(packet(State::Up));
    let second = next(&mut bench);
    assert_eq!(
        (second.desired_min_tx.as_micros(), second.poll),
        (600_000, true)
    );
    assert_eq!(interval(&bench), ms(400));
    bench.receive(with_final(packet(State::Up)));
    assert_eq!(interval(&bench), ms(600));
}

#[test]
fn a_waiting_change_takes_effect_when_the_session_goes_down() {
    let mut bench = Bench::settled();
    bench.event(Event::Timing(timing(300, 400, 3)));
    bench.event(Event::Timing(timing(2000, 500, 4)));
    let news = sent(&bench.receive(packet(State::Down)))[0];
    assert_eq!(news.desired_min_tx.as_micros(), 2_000_000);
    assert_eq!(news.required_min_rx.as_micros(), 500_000);
    assert_eq!(news.detect_mult.get(), 4);
}

#[test]
fn a_changed_multiplier_is_told_without_a_poll() {
    let mut bench = Bench::settled();
    bench.event(Event::Timing(timing(300, 300, 7)));
    let packet = next(&mut bench);
    assert_eq!((packet.detect_mult.get(), packet.poll), (7, false));
}

#[test]
fn the_same_timing_again_changes_nothing() {
    let mut bench = Bench::settled();
    let due = bench.session.poll_timeout();
    bench.event(Event::Timing(timing(300, 300, 3)));
    assert_eq!(bench.session.poll_timeout(), due);
    assert!(!next(&mut bench).poll);
}

#[test]
fn a_poll_is_answered_at_once_in_one_packet_with_any_news() {
    for (state, heard) in [
        (State::Down, State::Up),
        (State::Down, State::Down),
        (State::Init, State::Down),
        (State::Up, State::Up),
        (State::Up, State::Down),
    ] {
        let mut bench = Bench::at(state);
        let poll = Packet {
            poll: true,
            ..packet(heard)
        };
        let answers = sent(&bench.receive(poll));
        let [answer] = answers[..] else {
            panic!("{state} hears {heard}: {answers:?}");
        };
        assert!(answer.is_final && !answer.poll, "{answer:?}");
        assert_eq!(answer.state, bench.session.state());
    }
}

#[test]
fn an_answer_does_not_delay_the_next_periodic_packet() {
    let mut bench = Bench::settled();
    let due = bench.session.poll_timeout().unwrap();
    bench.now = due - ms(1);
    let poll = Packet {
        poll: true,
        ..packet(State::Up)
    };
    assert_eq!(sent(&bench.receive(poll)).len(), 1);
    assert_eq!(bench.session.poll_timeout(), Some(due));
}

#[test]
fn a_peer_that_wants_no_periodic_packets_gets_none_but_answers_and_news() {
    let mut bench = Bench::settled();
    let quiet = Packet {
        required_min_rx: Interval::ZERO,
        ..packet(State::Up)
    };
    bench.receive(quiet);
    assert_eq!(bench.session.send_interval(), None);
    assert_eq!(bench.run(ms(890)), []);
    let poll = Packet {
        poll: true,
        ..quiet
    };
    assert_eq!(sent(&bench.receive(poll)).len(), 1);
    let actions: Vec<Action> = bench.run(ms(901)).into_iter().map(|(_, a)| a).collect();
    assert_eq!(changes(&actions).len(), 1);
    assert_eq!(sent(&actions)[0].state, State::Down);
}

#[test]
fn a_peer_in_demand_mode_is_spared_until_it_is_not_or_there_is_something_to_say() {
    let mut bench = Bench::settled();
    let demand = Packet {
        demand: true,
        ..packet(State::Up)
    };
    bench.receive(demand);
    assert_eq!(bench.session.send_interval(), None);
    assert_eq!(bench.run(ms(800)), []);
    // RFC 5880 §6.6: whatever changes is polled for, beginning at once.
    bench.receive(demand);
    bench.event(Event::Timing(timing(300, 300, 5)));
    let poll = next(&mut bench);
    assert!(poll.poll && poll.detect_mult.get() == 5);
    assert_eq!(
        bench.session.send_interval(),
        Some(Interval::from_micros(300_000))
    );
    bench.receive(with_final(demand));
    assert_eq!(bench.session.send_interval(), None);
    bench.receive(demand);
    // RFC 5880 §6.8.14.
    bench.receive(packet(State::Up));
    assert!(bench.session.send_interval().is_some());
    // Demand counts between two sides that are up, and not otherwise.
    bench.receive(Packet {
        demand: true,
        ..packet(State::Down)
    });
    assert!(bench.session.send_interval().is_some());
}

#[test]
fn a_change_of_state_is_polled_for_when_the_peer_is_in_demand_mode() {
    for demand in [false, true] {
        // Slow enough that coming up and going down change no interval.
        let mut bench = Bench::new(Config {
            timing: timing(2000, 300, 3),
            ..config()
        });
        bench.go_to(State::Up);
        assert!(!bench.session.polling());
        let news = sent(&bench.receive(Packet {
            demand,
            ..packet(State::Down)
        }))[0];
        assert_eq!(news.poll, demand);
    }
}

#[test]
fn what_changes_during_a_poll_is_polled_for_afterwards() {
    let mut bench = Bench::at(State::Up);
    assert!(bench.session.polling());
    bench.receive(packet(State::Down));
    bench.receive(with_final(packet(State::Init)));
    assert!(
        !bench.session.polling(),
        "a Final that may be for the first"
    );
    bench.receive(packet(State::Up));
    assert!(bench.session.polling());
    bench.receive(with_final(packet(State::Up)));
    bench.receive(packet(State::Up));
    assert!(!bench.session.polling());
}

#[test]
fn silence_counts_in_demand_mode_too() {
    let mut bench = Bench::settled();
    bench.receive(Packet {
        demand: true,
        ..packet(State::Up)
    });
    let actions: Vec<Action> = bench.run(ms(900)).into_iter().map(|(_, a)| a).collect();
    assert_eq!(changes(&actions)[0].why, Why::DetectionTimeExpired);
}

#[test]
fn a_peers_slower_pace_ends_with_its_silence_and_what_is_overdue_goes_out_with_it() {
    let mut bench = Bench::at(State::Down);
    bench.receive(Packet {
        required_min_rx: Interval::from_micros(20_000_000),
        ..packet(State::AdminDown)
    });
    bench.now = bench.session.poll_timeout().unwrap();
    let silence = bench.timeout();
    assert_eq!(bench.session.remote().discriminator, None);
    assert_eq!(sent(&silence).len(), 1, "{silence:?}");
    assert!(bench.session.poll_timeout().unwrap() > bench.now);
}
