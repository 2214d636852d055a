//! Invariants of octets and timers over anything that may come.

use proptest::prelude::*;

use super::*;

fn link_layer() -> impl Strategy<Value = Option<LinkLayer>> {
    proptest::option::of(any::<LinkLayer>())
}

fn message() -> impl Strategy<Value = Message> {
    let advertisement = (
        any::<(u8, u8, u16, u32, u32)>(),
        link_layer(),
        proptest::option::of(any::<u32>()),
    )
        .prop_map(
            |((hop_limit, flags, lifetime, reachable, retransmission), source_link, mtu)| {
                Message::Advertisement(Advertisement {
                    hop_limit,
                    flags,
                    router_lifetime: seconds(lifetime.into()),
                    reachable_time: reachable,
                    retransmission_time: retransmission,
                    source_link,
                    mtu,
                })
            },
        );
    prop_oneof![
        link_layer().prop_map(|source_link| Message::Solicitation { source_link }),
        advertisement,
        (any::<u16>(), link_layer()).prop_map(|(number, source_link)| {
            Message::NeighborSolicitation {
                target: neighbor(number),
                source_link,
            }
        }),
    ]
}

/// One step of a random life.
#[derive(Clone, Debug)]
enum Step {
    Give(Event),
    Wait(Duration),
}

fn step() -> impl Strategy<Value = Step> {
    let who = prop_oneof![
        8 => (0_u16..12).prop_map(neighbor),
        1 => Just(OWN),
        1 => Just(Ipv6Addr::UNSPECIFIED),
    ];
    let rise = any::<bool>().prop_map(|other| Event::Up {
        address: if other { neighbor(999) } else { OWN },
        link_layer: None,
    });
    let heard = (who, message()).prop_map(|(from, message)| Event::Heard { from, message });
    prop_oneof![
        2 => rise.prop_map(Step::Give),
        1 => Just(Step::Give(Event::Down)),
        12 => heard.prop_map(Step::Give),
        8 => (0_u64..20_000).prop_map(|wait| Step::Wait(millis(wait))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn what_is_written_is_read_again(message in message()) {
        let envelope = Envelope { source: neighbor(1), hop_limit: HOP_LIMIT };
        let octets = message.encode();
        prop_assert!(octets.len().is_multiple_of(8));
        prop_assert_eq!(Message::decode(&octets, envelope), Ok(message));
    }

    #[test]
    fn any_octets_are_a_message_or_an_error_and_a_message_survives_being_written(
        mut octets in proptest::collection::vec(any::<u8>(), 0..200),
        kind in 132_u8..137,
        source in any::<u128>(),
        link_local in any::<bool>(),
    ) {
        // Random octets are hardly ever a message; a plausible beginning gets further.
        if let Some(start) = octets.first_chunk_mut::<2>() {
            *start = [kind, 0];
        }
        let source = if link_local { neighbor(3) } else { Ipv6Addr::from_bits(source) };
        let envelope = Envelope { source, hop_limit: HOP_LIMIT };
        if let Ok(message) = Message::decode(&octets, envelope) {
            prop_assert_eq!(Message::decode(&message.encode(), envelope), Ok(message));
        }
    }

    #[test]
    fn no_life_of_a_link_breaks_a_promise(
        steps in proptest::collection::vec(step(), 1..80),
        seed in any::<u64>(),
    ) {
        let mut bench = Bench::new(Settings::new(seed));
        // The beginnings of the lives of the link: a pace is kept within one.
        let mut lives = vec![Duration::ZERO];
        for step in steps {
            match step {
                Step::Give(event) => {
                    if event == Event::Down {
                        lives.push(bench.now - bench.start);
                    }
                    bench.give(event);
                }
                Step::Wait(wait) => bench.pass(wait),
            }
            // The view is the neighbours, and was reported.
            let known: Vec<_> = bench.link.neighbors().collect();
            let fresh = known.iter().all(|(_, heard)| *heard + NEIGHBOR_LIFETIME > bench.now);
            prop_assert!(fresh);
            let consistent = match bench.link.told() {
                View::Down | View::Silent => known.is_empty(),
                View::Neighbor(address) => known.len() == 1 && known[0].0 == *address,
                View::Several(addresses) => {
                    known.len() == addresses.len() && addresses.is_sorted() && known.len() >= 2
                }
            };
            prop_assert!(consistent, "{:?} but {known:?}", bench.link.told());
            let last = bench.reports().last().cloned().unwrap_or(View::Down);
            prop_assert_eq!(&last, bench.link.told());
        }
        for window in bench.reports().windows(2) {
            prop_assert_ne!(&window[0], &window[1]);
        }
        let paced = |times: Vec<Duration>, least: Duration| {
            times.windows(2).all(|pair| {
                let another_life = lives.iter().any(|life| pair[0] <= *life && *life <= pair[1]);
                another_life || pair[1] - pair[0] >= least
            })
        };
        prop_assert!(paced(bench.advertisements(), MIN_DELAY_BETWEEN_RAS));
        prop_assert!(paced(bench.answers(), seconds(1)));
        prop_assert!(paced(bench.solicitations(), seconds(4)));
        let default_router = bench.sent(|_, message| match message {
            Message::Advertisement(ours) => ours.router_lifetime != Duration::ZERO,
            _ => false,
        });
        prop_assert!(default_router.is_empty());
    }
}
