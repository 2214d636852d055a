//! What BFD cannot do, shown: nobody should be surprised by it, and who changes it finds out.

use super::pair::{Link, Way, sides};
use super::*;

#[test]
fn as_many_losses_in_a_row_as_the_multiplier_may_take_a_session_down() {
    let timings = [timing(300, 300, 3); 2];
    let mut downs = 0;
    for seed in 0..20 {
        let mut link = Link::new(
            sides(timings, None),
            [0, 1].map(|_| Way::perfect(ms(0))),
            seed,
        );
        link.run(ms(4000 + seed * 37));
        link.ways[0].loss = [&[true; 3][..], &[false; 1000]].concat();
        link.ways[0].sent = 0;
        link.run(ms(5000));
        downs += usize::from(link.downs() > 0);
    }
    // Four intervals less jitter against three whole ones.
    assert!(downs > 15, "{downs} of 20");
}

#[test]
fn an_old_packet_takes_a_session_down_unless_it_is_authenticated_meticulously() {
    for (kind, survives) in [
        (None, false),
        (Some(AuthKind::KeyedSha1), true),
        (Some(AuthKind::MeticulousKeyedSha1), true),
    ] {
        let auth = kind.map(auth::auth);
        let mut bench = Bench::new(Config {
            auth: auth.clone(),
            ..config()
        });
        let signed = |mut packet: Packet, sequence| {
            if let Some(auth) = &auth {
                auth.sign(&mut packet, sequence);
            }
            packet
        };
        let old = signed(packet(State::Down), 1);
        bench.receive(old);
        bench.receive(signed(packet(State::Up), 2));
        assert_eq!(bench.session.state(), State::Up);
        bench.receive(old);
        assert_eq!(bench.session.state() == State::Up, survives, "{kind:?}");
    }
}

#[test]
fn who_repeats_the_last_packet_keeps_a_dead_peer_alive_unless_it_is_numbered() {
    for (kind, fooled) in [
        (None, true),
        (Some(AuthKind::SimplePassword), true),
        (Some(AuthKind::KeyedSha1), true),
        (Some(AuthKind::MeticulousKeyedSha1), false),
    ] {
        let auth = kind.map(auth::auth);
        let mut bench = Bench::new(Config {
            auth: auth.clone(),
            ..config()
        });
        let signed = |mut packet: Packet, sequence| {
            if let Some(auth) = &auth {
                auth.sign(&mut packet, sequence);
            }
            packet
        };
        bench.receive(signed(packet(State::Down), 1));
        let last = signed(packet(State::Up), 2);
        bench.receive(last);
        for _ in 0..20 {
            bench.run(ms(300));
            bench.receive(last);
        }
        assert_eq!(bench.session.state() == State::Up, fooled, "{kind:?}");
    }
}

#[test]
fn a_restarted_peer_with_numbered_packets_waits_until_its_old_number_is_forgotten() {
    let kind = AuthKind::MeticulousKeyedSha1;
    let timings = [timing(300, 300, 3); 2];
    let configs = sides(timings, Some(auth::auth(kind)));
    let mut link = Link::new(configs.clone(), [0, 1].map(|_| Way::perfect(ms(1))), 5);
    assert!(link.run_until(ms(5000), Link::both_up));
    link.run(ms(3000));
    let reborn = Config {
        seed: 0xdead_beef,
        discriminator: NonZeroU32::new(0x3333).unwrap(),
        ..configs[1].clone()
    };
    let restart = link.now;
    link.sides[1] = Session::new(reborn, link.now);
    let end = link.now - link.start + ms(10_000);
    assert!(link.run_until(end, |link| {
        link.both_up() && link.sides[0].remote().discriminator == NonZeroU32::new(0x3333)
    }));
    let took = link.now - restart;
    assert!(
        took >= ms(1800),
        "twice the detection time, but took {took:?}"
    );
    assert!(took <= ms(3500), "{took:?}");
}

#[test]
fn polls_are_answered_one_for_one_whatever_their_number() {
    let mut bench = Bench::settled();
    let poll = Packet {
        poll: true,
        ..packet(State::Up)
    };
    for _ in 0..10_000 {
        let answers = bench.receive(poll);
        assert_eq!(sent(&answers).len(), 1);
        assert_eq!(answers.len(), 1);
    }
}

#[test]
fn a_peer_may_stretch_the_detection_time_as_it_likes() {
    let mut bench = Bench::settled();
    bench.receive(Packet {
        desired_min_tx: Interval::from_micros(u32::MAX),
        detect_mult: NonZeroU8::MAX,
        ..packet(State::Up)
    });
    let twelve_days = Duration::from_secs(12 * 24 * 3600);
    assert!(bench.session.detection_time().unwrap() > twelve_days);
}

#[test]
fn one_way_loss_is_told_by_the_side_that_does_not_hear() {
    let timings = [timing(300, 300, 3); 2];
    let mut link = Link::new(sides(timings, None), [0, 1].map(|_| Way::perfect(ms(1))), 5);
    link.run(ms(3000));
    link.ways[0].cut = true;
    link.run(ms(1000));
    let [deaf, told] = [0, 1].map(|side| {
        let of_side =
            |(_, at, change): &&(Duration, usize, Change)| *at == side && change.from == State::Up;
        link.changes.iter().find(of_side).unwrap().2
    });
    assert_eq!(deaf.why, Why::DetectionTimeExpired);
    assert_eq!(
        told.why,
        Why::NeighborSignaledDown(Diag::DetectionTimeExpired)
    );
}
