//! Router discovery on a link with strangers: what is read is written and read back as the same, and the
//! machine of the link names only neighbours that it heard.
//!
//! Steps: an octet with the length of a message (0 to 127) that follows, from one of four neighbours by the
//! octet after it; or, from 128 on, the timer (even) or the link going and coming back (odd).
#![no_main]

use std::collections::BTreeSet;
use std::net::Ipv6Addr;
use std::time::Instant;

use caracal_bgp_core::ra::{Action, Envelope, Event, HOP_LIMIT, Link, Message, Settings, View};
use libfuzzer_sys::fuzz_target;

const OURS: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0xff);
const MAX_STEPS: usize = 200;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    let mut now = Instant::now();
    let mut link = Link::new(Settings::new(input.len() as u64));
    let mut actions = Vec::new();
    let mut heard = BTreeSet::new();
    let up = Event::Up {
        address: OURS,
        link_layer: Some([2, 0, 0, 0, 0, 1]),
    };
    link.handle(now, up.clone(), &mut actions);
    for _ in 0..MAX_STEPS {
        let Some((&step, left)) = rest.split_first() else {
            return;
        };
        rest = left;
        if step < 128 {
            let Some((&who, left)) = rest.split_first() else {
                return;
            };
            let (octets, left) = left.split_at(usize::from(step).min(left.len()));
            rest = left;
            let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(who % 4) + 1);
            let envelope = Envelope {
                source,
                hop_limit: HOP_LIMIT,
            };
            let Ok(message) = Message::decode(octets, envelope) else {
                continue;
            };
            assert_eq!(
                Message::decode(&message.encode(), envelope).as_ref(),
                Ok(&message)
            );
            heard.insert(source);
            let from = source;
            link.handle(now, Event::Heard { from, message }, &mut actions);
        } else if step % 2 == 0 {
            if let Some(due) = link.poll_timeout() {
                now = now.max(due);
                link.handle_timeout(now, &mut actions);
            }
        } else {
            link.handle(now, Event::Down, &mut actions);
            assert_eq!(link.told(), &View::Down);
            link.handle(now, up.clone(), &mut actions);
        }
        for action in actions.drain(..) {
            match action {
                Action::Send { message, .. } => {
                    let envelope = Envelope {
                        source: OURS,
                        hop_limit: HOP_LIMIT,
                    };
                    let octets = message.encode();
                    assert_eq!(Message::decode(&octets, envelope), Ok(message));
                }
                Action::Report(View::Neighbor(neighbor)) => assert!(heard.contains(&neighbor)),
                Action::Report(View::Several(several)) => {
                    assert!(several.len() > 1);
                    assert!(several.iter().all(|neighbor| heard.contains(neighbor)));
                }
                Action::Report(View::Down | View::Silent) => {}
            }
        }
    }
});
