//! The life of a BFD session that hears anything: what is read is written and read back as the same, what
//! the session sends can be read, and it is up only with a peer that it knows.
//!
//! The first octet of an input chooses the keys; then come steps:
//!
//! ```text
//! 0..=63  a packet of so many octets, they follow
//! 64      the session's timer fires
//! 65      the client gives the session up
//! 66      the client wants it
//! 67      other timing
//! 68      whether to wait for the peer, by the next octet
//! 69      a packet as the peer would send it: state and flags, then the sequence number it has
//! ```
#![no_main]

use std::num::{NonZeroU8, NonZeroU32};
use std::time::{Duration, Instant};

use caracal_bgp_core::bfd::{
    Action, Auth, AuthKind, AuthSection, Config, Diag, Event, Interval, Key, MAX_PACKET_LEN,
    Packet, Secret, Session, State, Timing,
};
use libfuzzer_sys::fuzz_target;

const OURS: NonZeroU32 = NonZeroU32::new(7).unwrap();
const MAX_STEPS: usize = 200;

fuzz_target!(|input: &[u8]| {
    let Some((&first, mut rest)) = input.split_first() else {
        return;
    };
    let mut now = Instant::now();
    let mut session = Session::new(config(first), now);
    let mut actions = Vec::new();
    for _ in 0..MAX_STEPS {
        let Some(step) = take(&mut rest, 1).first().copied() else {
            return;
        };
        match step {
            0..=63 => {
                let Ok(packet) = Packet::decode(take(&mut rest, step.into())) else {
                    continue;
                };
                reads_back(&packet);
                session.handle(now, Event::Received(packet), &mut actions);
            }
            64 => {
                if let Some(due) = session.poll_timeout() {
                    now = now.max(due);
                    session.handle_timeout(now, &mut actions);
                    assert!(
                        session.poll_timeout().is_none_or(|next| next > now),
                        "a timer that fired is due again at once"
                    );
                }
            }
            65 => {
                let diag = Diag::AdministrativelyDown;
                session.handle(now, Event::Disable { diag }, &mut actions);
            }
            66 => session.handle(now, Event::Enable, &mut actions),
            67 => {
                let millis = take(&mut rest, 1)
                    .first()
                    .map_or(1, |octet| u64::from(*octet) + 1);
                session.handle(now, Event::Timing(timing(millis)), &mut actions);
            }
            68 => {
                let passive = take(&mut rest, 1)
                    .first()
                    .is_some_and(|octet| octet & 1 != 0);
                session.handle(now, Event::Passive(passive), &mut actions);
            }
            _ => {
                let &[flags, sequence] = take(&mut rest, 2) else {
                    return;
                };
                let packet = expected(first, flags, sequence);
                session.handle(now, Event::Received(packet), &mut actions);
            }
        }
        check(&session, &mut actions);
    }
});

fn take<'a>(rest: &mut &'a [u8], octets: usize) -> &'a [u8] {
    let (taken, left) = rest.split_at(octets.min(rest.len()));
    *rest = left;
    taken
}

fn config(first: u8) -> Config {
    let kind = match first % 6 {
        1 => Some(AuthKind::SimplePassword),
        2 => Some(AuthKind::KeyedMd5),
        3 => Some(AuthKind::MeticulousKeyedMd5),
        4 => Some(AuthKind::KeyedSha1),
        5 => Some(AuthKind::MeticulousKeyedSha1),
        _ => None,
    };
    let auth = kind.map(|kind| {
        let secret = Secret::new(*b"key");
        Auth::new(kind, 1, vec![Key { id: 1, secret }]).expect("a key of three octets suits all")
    });
    Config {
        discriminator: OURS,
        timing: timing(300),
        passive: first & 0x80 != 0,
        auth,
        control_plane_independent: true,
        seed: first.into(),
    }
}

fn timing(millis: u64) -> Timing {
    let interval = Duration::from_millis(millis);
    Timing::new(interval, interval, 3).expect("neither zero nor long")
}

/// From the peer that hears us; with the right password where that is all it needs.
fn expected(first: u8, flags: u8, sequence: u8) -> Packet {
    let password = caracal_bgp_core::bfd::Password::new(b"key").expect("three octets");
    let auth = match first % 6 {
        1 => Some(AuthSection::SimplePassword {
            key_id: 1,
            password,
        }),
        4 => Some(AuthSection::Sha1 {
            meticulous: false,
            key_id: 1,
            reserved: 0,
            sequence: sequence.into(),
            hash: [0; 20],
        }),
        _ => None,
    };
    let state = match flags & 3 {
        0 => State::AdminDown,
        1 => State::Down,
        2 => State::Init,
        _ => State::Up,
    };
    Packet {
        diag: Diag::None,
        state,
        poll: flags & 4 != 0,
        is_final: flags & 8 != 0,
        control_plane_independent: flags & 16 != 0,
        demand: flags & 32 != 0,
        detect_mult: NonZeroU8::new(sequence % 4 + 1).expect("at least one"),
        my_discriminator: NonZeroU32::MIN,
        your_discriminator: Some(OURS),
        desired_min_tx: Interval::from_micros(u32::from(sequence) << 12),
        required_min_rx: Interval::from_micros(u32::from(flags) << 12),
        required_min_echo_rx: Interval::ZERO,
        auth,
    }
}

fn reads_back(packet: &Packet) {
    if matches!(packet.auth, Some(AuthSection::Other { .. })) {
        return;
    }
    let mut octets = [0; MAX_PACKET_LEN];
    let len = packet.encode(&mut octets);
    assert_eq!(Packet::decode(&octets[..len]).as_ref(), Ok(packet));
}

fn check(session: &Session, actions: &mut Vec<Action>) {
    for action in actions.drain(..) {
        match action {
            Action::Send(packet) => {
                assert_eq!(packet.my_discriminator, OURS);
                assert!(!(packet.poll && packet.is_final), "RFC 5880 §6.8.7");
                reads_back(&packet);
            }
            Action::Changed(change) => assert_ne!(change.from, change.to),
            Action::Discarded(why) => assert!(!why.name().is_empty()),
            Action::Finished => {}
        }
    }
    if session.state() == State::Up {
        assert!(session.remote().discriminator.is_some());
        assert!(session.detection_time().is_some());
    }
}
