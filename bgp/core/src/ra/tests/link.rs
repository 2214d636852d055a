use super::*;

#[test]
fn three_advertisements_go_out_in_the_first_seconds_and_then_one_every_ten() {
    let mut bench = Bench::up();
    bench.pass(seconds(120));
    let sent = bench.advertisements();
    assert!(sent[0] <= millis(500), "{sent:?}");
    for pair in sent[..3].windows(2) {
        let pause = pair[1] - pair[0];
        assert!((seconds(3)..=millis(3500)).contains(&pause), "{sent:?}");
    }
    for pair in sent[2..].windows(2) {
        let pause = pair[1] - pair[0];
        assert!((millis(7500)..=seconds(10)).contains(&pause), "{sent:?}");
    }
    assert!(sent.len() >= 14, "{sent:?}");
}

#[test]
fn an_empty_link_is_asked_three_times_and_reported_silent_once() {
    let mut bench = Bench::up();
    bench.pass(seconds(600));
    let asked = bench.solicitations();
    assert_eq!(asked.len(), 3, "{asked:?}");
    assert!(asked[0] <= seconds(1), "{asked:?}");
    for pair in asked.windows(2) {
        assert_eq!(pair[1] - pair[0], seconds(4));
    }
    assert_eq!(bench.reports(), [View::Silent]);
}

#[test]
fn a_router_is_reported_when_it_is_heard_and_when_it_has_gone() {
    let mut bench = Bench::up();
    bench.give(advertised_by(neighbor(1)));
    bench.pass(NEIGHBOR_LIFETIME - millis(1));
    assert_eq!(bench.reports(), [View::Silent, View::Neighbor(neighbor(1))]);
    bench.pass(millis(1));
    assert_eq!(bench.reports().last(), Some(&View::Silent));
}

#[test]
fn a_quiet_router_is_asked_before_it_is_given_up() {
    let mut bench = Bench::up();
    bench.give(advertised_by(neighbor(1)));
    bench.pass(NEIGHBOR_LIFETIME);
    let asked = bench.solicitations();
    assert_eq!(asked, [seconds(15), seconds(19), seconds(23)]);
}

#[test]
fn one_that_advertises_every_ten_minutes_stays_known_by_its_answers() {
    let mut bench = Bench::up();
    bench.give(advertised_by(neighbor(1)));
    for _ in 0..40 {
        let before = bench.solicitations().len();
        bench.pass(seconds(15));
        assert!(bench.solicitations().len() > before);
        bench.give(advertised_by(neighbor(1)));
    }
    let expected = [View::Silent, View::Neighbor(neighbor(1))];
    assert_eq!(bench.reports(), expected);
}

#[test]
fn a_known_router_that_resolves_addresses_is_alive() {
    let mut bench = Bench::up();
    bench.give(advertised_by(neighbor(1)));
    for _ in 0..10 {
        bench.pass(seconds(10));
        bench.give(resolved_by(neighbor(1)));
    }
    assert_eq!(*bench.link.told(), View::Neighbor(neighbor(1)));
}

#[test]
fn hosts_that_ask_or_resolve_are_no_routers() {
    let mut bench = Bench::up();
    bench.give(solicited_by(neighbor(1)));
    bench.give(resolved_by(neighbor(2)));
    bench.pass(seconds(10));
    assert_eq!(bench.reports(), [View::Silent]);
}

#[test]
fn several_routers_are_an_error_that_ends_when_all_but_one_have_gone() {
    let mut bench = Bench::up();
    bench.give(advertised_by(neighbor(2)));
    bench.pass(seconds(10));
    for _ in 0..4 {
        bench.give(advertised_by(neighbor(1)));
        bench.pass(seconds(10));
    }
    assert_eq!(
        bench.reports(),
        [
            View::Silent,
            View::Neighbor(neighbor(2)),
            View::Several(vec![neighbor(1), neighbor(2)]),
            View::Neighbor(neighbor(1)),
        ]
    );
}

#[test]
fn a_link_full_of_routers_costs_no_more_memory_than_eight() {
    let mut bench = Bench::up();
    for number in 0..1000 {
        bench.give(advertised_by(neighbor(number)));
    }
    assert_eq!(bench.link.neighbors().count(), 8);
}

#[test]
fn a_new_router_is_told_of_us_within_half_a_second() {
    let mut bench = Bench::up();
    bench.pass(seconds(60));
    // Some time after the last advertisement, so that the pace allows one.
    let last = *bench.advertisements().last().unwrap();
    bench.pass(last + seconds(4) - (bench.now - bench.start));
    let before = bench.advertisements().len();
    bench.give(advertised_by(neighbor(1)));
    bench.pass(millis(500));
    assert_eq!(bench.advertisements().len(), before + 1);
    // And twice more at the fast pace, in case it was not listening yet.
    bench.pass(seconds(7));
    assert_eq!(bench.advertisements().len(), before + 3);
}

#[test]
fn who_asks_is_answered_within_half_a_second_even_when_all_have_just_been_told() {
    let mut bench = Bench::up();
    bench.pass(millis(500));
    assert_eq!(bench.advertisements().len(), 1);
    bench.give(solicited_by(neighbor(1)));
    bench.pass(millis(500));
    assert_eq!(bench.advertisements().len(), 1, "the pace holds");
    assert_eq!(bench.answers().len(), 1);
}

#[test]
fn a_flood_of_solicitations_brings_one_answer_a_second_and_the_usual_pace() {
    let mut bench = Bench::up();
    for step in 0_u16..1000 {
        bench.give(solicited_by(neighbor(step % 50)));
        bench.pass(millis(10));
    }
    assert!(bench.answers().len() <= 11, "{:?}", bench.answers());
    assert!(bench.advertisements().len() <= 4);
    for pair in bench.answers().windows(2) {
        assert!(pair[1] - pair[0] >= seconds(1));
    }
}

#[test]
fn who_has_no_address_is_answered_by_telling_all() {
    let mut bench = Bench::up();
    bench.pass(seconds(60));
    let last = *bench.advertisements().last().unwrap();
    bench.pass(last + seconds(4) - (bench.now - bench.start));
    let before = bench.advertisements().len();
    bench.give(solicited_by(Ipv6Addr::UNSPECIFIED));
    bench.pass(millis(500));
    assert_eq!(bench.advertisements().len(), before + 1);
    assert_eq!(bench.answers(), []);
}

#[test]
fn a_link_that_goes_down_forgets_at_once_and_begins_anew_when_it_returns() {
    let mut bench = Bench::up();
    bench.give(advertised_by(neighbor(1)));
    bench.give(Event::Down);
    assert_eq!(bench.link.poll_timeout(), None);
    let before = bench.log.len();
    bench.pass(seconds(60));
    bench.give(advertised_by(neighbor(1)));
    assert_eq!(bench.log.len(), before, "a link that is down does nothing");
    bench.give(up());
    bench.pass(millis(500));
    assert_eq!(
        bench.reports()[1..],
        [View::Neighbor(neighbor(1)), View::Down, View::Silent]
    );
    let returned = bench.now - bench.start - millis(500);
    assert!(*bench.advertisements().last().unwrap() >= returned);
}

#[test]
fn a_new_address_of_ours_is_told_soon_and_the_same_one_is_no_news() {
    let mut bench = Bench::up();
    bench.pass(seconds(62));
    let before = bench.advertisements().len();
    bench.give(up());
    let planned = bench.link.poll_timeout();
    bench.give(Event::Up {
        address: OWN,
        link_layer: Some([2, 0, 0, 0, 0, 2]),
    });
    assert!(bench.link.poll_timeout() <= planned);
    bench.pass(millis(3500));
    assert!(bench.advertisements().len() > before);
    let (_, last) = bench.log.last().unwrap();
    let expected = Message::Advertisement(Advertisement {
        source_link: Some([2, 0, 0, 0, 0, 2]),
        ..Advertisement::default()
    });
    assert_eq!(
        *last,
        Action::Send {
            to: Destination::AllNodes,
            message: expected
        }
    );
}

#[test]
fn our_own_words_are_not_a_neighbour() {
    let mut bench = Bench::up();
    bench.give(advertised_by(OWN));
    assert_eq!(bench.reports(), [View::Silent]);
}

#[test]
fn intervals_outside_the_standard_are_brought_inside() {
    for (asked, shortest, longest) in [
        (Duration::ZERO, seconds(3), seconds(4)),
        (seconds(100_000), seconds(1350), seconds(1800)),
    ] {
        let mut bench = Bench::new(Settings {
            interval: asked,
            seed: 1,
        });
        bench.give(up());
        bench.pass(seconds(20_000));
        let sent = bench.advertisements();
        for pair in sent[3..].windows(2) {
            let pause = pair[1] - pair[0];
            assert!((shortest..=longest).contains(&pause), "{pause:?}");
        }
    }
}
