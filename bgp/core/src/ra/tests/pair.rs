//! Two links, one cable.

use proptest::prelude::*;

use super::*;

/// One end of the cable.
struct End {
    link: Link,
    address: Ipv6Addr,
    begins: Instant,
}

/// Runs both ends until `end`; message number n is lost where `lost` says so. When each end knew
/// the other first.
fn run(ends: &mut [End; 2], end: Instant, lost: impl Fn(u32) -> bool) -> [Option<Instant>; 2] {
    let mut knows = [None; 2];
    let mut number = 0;
    loop {
        let due = |end: &End| match end.link.told() {
            View::Down => Some(end.begins),
            _ => end.link.poll_timeout(),
        };
        let next = (0..2).filter_map(|side| due(&ends[side]).map(|at| (at, side)));
        let Some((now, side)) = next.min().filter(|(at, _)| *at <= end) else {
            return knows;
        };
        let mut out = Vec::new();
        let acting = &mut ends[side];
        if *acting.link.told() == View::Down {
            let rise = Event::Up {
                address: acting.address,
                link_layer: None,
            };
            acting.link.handle(now, rise, &mut out);
        } else {
            acting.link.handle_timeout(now, &mut out);
        }
        let from = acting.address;
        for action in out {
            let Action::Send { message, .. } = action else {
                continue;
            };
            number += 1;
            let other = &mut ends[1 - side];
            if lost(number) || *other.link.told() == View::Down {
                continue;
            }
            let mut reports = Vec::new();
            // Octets, not values: what is sent must be what can be read.
            let envelope = Envelope {
                source: from,
                hop_limit: HOP_LIMIT,
            };
            let message = Message::decode(&message.encode(), envelope).unwrap();
            other
                .link
                .handle(now, Event::Heard { from, message }, &mut reports);
            if *other.link.told() == View::Neighbor(from) {
                knows[1 - side].get_or_insert(now);
            }
        }
    }
}

fn ends(seeds: [u64; 2], late: Duration) -> [End; 2] {
    let start = Instant::now();
    let end = |number: u16, seed, begins| End {
        link: Link::new(Settings::new(seed)),
        address: neighbor(number),
        begins,
    };
    [end(1, seeds[0], start), end(2, seeds[1], start + late)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn both_know_each_other_within_a_second_and_a_half_of_the_later_ones_start(
        seeds in any::<[u64; 2]>(),
        late in 0_u64..60_000,
    ) {
        let mut ends = ends(seeds, millis(late));
        let begins = ends[1].begins;
        let knows = run(&mut ends, begins + seconds(300), |_| false);
        for known in knows {
            let took = known.unwrap() - begins;
            prop_assert!(took <= millis(1500), "{took:?}");
        }
        for end in &ends {
            prop_assert!(matches!(end.link.told(), View::Neighbor(_)), "{:?}", end.link.told());
        }
    }

    #[test]
    fn a_cable_that_loses_every_second_message_only_takes_longer(
        seeds in any::<[u64; 2]>(),
        late in 0_u64..60_000,
        pattern in any::<u64>(),
    ) {
        let mut ends = ends(seeds, millis(late));
        let begins = ends[1].begins;
        let lost = |number: u32| pattern.rotate_left(number) & 1 == 1 && number.is_multiple_of(2);
        let knows = run(&mut ends, begins + seconds(60), lost);
        for known in knows {
            let took = known.unwrap() - begins;
            prop_assert!(took <= seconds(25), "{took:?}");
        }
    }
}
