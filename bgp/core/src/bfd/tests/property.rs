//! Any events in any order.

use proptest::prelude::*;

use super::packet::any_packet;
use super::*;

#[derive(Clone, Debug)]
enum Op {
    Event(Event),
    Wait(u64),
    /// The shell is kept from running for so long.
    Oversleep(u64),
}

fn any_op() -> impl Strategy<Value = Op> {
    let likely = prop::sample::select(&State::ALL[..]).prop_map(packet);
    let timings =
        (1_u64..3000, 1_u64..3000, 1_u8..).prop_map(|(tx, rx, mult)| timing(tx, rx, mult));
    prop_oneof![
        4 => any_packet().prop_map(|packet| Op::Event(Event::Received(packet))),
        8 => likely.prop_map(|packet| Op::Event(Event::Received(packet))),
        2 => timings.prop_map(|timing| Op::Event(Event::Timing(timing))),
        1 => Just(Op::Event(Event::Enable)),
        1 => any::<bool>().prop_map(|passive| Op::Event(Event::Passive(passive))),
        1 => (0_u8..32).prop_map(|diag| Op::Event(Event::Disable { diag: diag.into() })),
        1 => any::<bool>().prop_map(|on| Op::Event(Event::Auth(
            on.then(|| auth::auth(AuthKind::MeticulousKeyedSha1))
        ))),
        6 => (0_u64..5000).prop_map(Op::Wait),
        2 => (0_u64..5000).prop_map(Op::Oversleep),
    ]
}

fn check(bench: &Bench, before: State, event: Option<&Event>, actions: &[Action]) {
    let session = &bench.session;
    // Nothing that comes in makes more than one packet go out.
    assert!(sent(actions).len() <= 1, "{actions:?}");
    for packet in sent(actions) {
        assert_eq!(packet.state, session.state());
        assert_eq!(packet.my_discriminator, OURS);
        assert!(!packet.poll || !packet.is_final);
        assert!(!packet.demand);
        assert!(packet.state == State::Up || packet.desired_min_tx >= Interval::SLOW);
        let heard = packet.your_discriminator.is_some();
        assert!(heard || matches!(packet.state, State::Down | State::AdminDown));
        let mut octets = [0; MAX_PACKET_LEN];
        let len = packet.encode(&mut octets);
        assert_eq!(
            Packet::decode(&octets[..len]),
            Ok(packet),
            "not what we would accept"
        );
    }
    // Every change of state is told, once, in order.
    let mut state = before;
    for change in changes(actions) {
        assert_eq!(change.from, state);
        assert_ne!(change.to, state);
        state = change.to;
    }
    assert_eq!(state, session.state());
    if before == State::AdminDown && state != before {
        assert_eq!(event, Some(&Event::Enable));
    }
    if state == State::Up {
        assert!(session.remote().discriminator.is_some());
        assert!(session.detection_time().is_some());
    }
    if let Some(interval) = session.send_interval() {
        assert!(interval >= session.remote().required_min_rx);
        assert!(state == State::Up || interval >= Interval::SLOW);
    }
}

proptest! {
    #[test]
    fn no_sequence_of_events_breaks_a_rule(
        ops in prop::collection::vec(any_op(), 0..200),
        passive: bool,
        seed: u64,
    ) {
        let mut bench = Bench::new(Config { passive, seed, ..config() });
        for op in ops {
            match op {
                Op::Event(event) => {
                    let before = bench.session.state();
                    let actions = bench.event(event.clone());
                    check(&bench, before, Some(&event), &actions);
                }
                Op::Oversleep(millis) => {
                    bench.now += ms(millis);
                    let before = bench.session.state();
                    let actions = bench.timeout();
                    check(&bench, before, None, &actions);
                }
                Op::Wait(millis) => {
                    let end = bench.now + ms(millis);
                    while let Some(due) = bench.session.poll_timeout().filter(|due| *due <= end) {
                        bench.now = due.max(bench.now);
                        let before = bench.session.state();
                        let actions = bench.timeout();
                        check(&bench, before, None, &actions);
                        let next = bench.session.poll_timeout();
                        prop_assert!(next.is_none_or(|next| next > bench.now), "a timer stands still");
                    }
                    bench.now = end;
                }
            }
        }
        // A spurious timeout does nothing.
        if bench.session.poll_timeout().is_none_or(|due| due > bench.now) {
            prop_assert_eq!(bench.timeout(), []);
        }
    }
}
