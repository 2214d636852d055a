//! Authentication (RFC 5880 §6.7).

use super::*;

const KINDS: [AuthKind; 5] = [
    AuthKind::SimplePassword,
    AuthKind::KeyedMd5,
    AuthKind::MeticulousKeyedMd5,
    AuthKind::KeyedSha1,
    AuthKind::MeticulousKeyedSha1,
];

fn key(id: u8, secret: &str) -> Key {
    Key {
        id,
        secret: Secret::new(secret),
    }
}

pub(super) fn auth(kind: AuthKind) -> Auth {
    Auth::new(kind, 1, vec![key(1, "first secret")]).unwrap()
}

fn signed(mut packet: Packet, auth: &Auth, sequence: u32) -> Packet {
    auth.sign(&mut packet, sequence);
    packet
}

fn bench(auth: Option<Auth>) -> Bench {
    let mut bench = Bench::new(Config { auth, ..config() });
    bench.timeout();
    bench
}

/// Octets and digests computed with another implementation of MD5 and SHA1 (Python's hashlib) over
/// the packet with the padded key in the digest's place.
#[test]
fn sections_are_as_another_implementation_makes_them() {
    for (kind, expected) in [
        (AuthKind::KeyedMd5, MD5_VECTOR),
        (AuthKind::MeticulousKeyedSha1, SHA1_VECTOR),
    ] {
        let packet = signed(packet(State::Up), &auth(kind), 0x0102_0304);
        let mut octets = [0; MAX_PACKET_LEN];
        let len = packet.encode(&mut octets);
        assert_eq!(octets[24..len], *expected, "{kind}");
        assert_eq!(auth(kind).verify(&packet, None), Ok(Some(0x0102_0304)));
    }
    let packet = signed(packet(State::Up), &auth(AuthKind::SimplePassword), 9);
    let mut octets = [0; MAX_PACKET_LEN];
    let len = packet.encode(&mut octets);
    assert_eq!(octets[24..len], *b"\x01\x0f\x01first secret");
}

const MD5_VECTOR: &[u8] = &[
    0x02, 0x18, 0x01, 0x00, 0x01, 0x02, 0x03, 0x04, 0x52, 0x90, 0xd0, 0xd8, 0x92, 0x10, 0xdb, 0x8a,
    0xcd, 0xdd, 0x48, 0x3b, 0x5f, 0x83, 0x25, 0x34,
];
const SHA1_VECTOR: &[u8] = &[
    0x05, 0x1c, 0x01, 0x00, 0x01, 0x02, 0x03, 0x04, 0x17, 0xca, 0x6b, 0x47, 0x13, 0x14, 0x21, 0x7c,
    0x7b, 0x39, 0xb7, 0x96, 0x36, 0x26, 0xb2, 0xcc, 0xf0, 0x6f, 0xd2, 0x10,
];

#[test]
fn two_sides_with_the_same_key_come_up_and_others_do_not() {
    for kind in KINDS {
        let others = [
            None,
            Some(Auth::new(kind, 1, vec![key(1, "other secret")]).unwrap()),
            Some(Auth::new(kind, 2, vec![key(2, "first secret")]).unwrap()),
            Some(Auth::new(kind, 1, vec![key(1, "first")]).unwrap()),
            Some(auth(
                KINDS[(KINDS.iter().position(|k| *k == kind).unwrap() + 1) % 5],
            )),
        ];
        for other in others {
            let mut bench = bench(Some(auth(kind)));
            let mut packet = packet(State::Down);
            if let Some(other) = &other {
                packet = signed(packet, other, 1);
            }
            let reason = discards(&bench.receive(packet))[0];
            let expected = match &other {
                None => reason == Discard::AuthMissing,
                Some(other) if other.kind() != kind => {
                    reason == Discard::AuthType(other.kind().into())
                }
                Some(other) if other.send_key() == 2 => reason == Discard::AuthKeyId(2),
                Some(_) if reason == Discard::AuthLength(8) => kind == AuthKind::SimplePassword,
                Some(_) => reason == Discard::AuthDigest,
            };
            assert!(expected, "{kind}: {other:?} gave {reason:?}");
            assert_eq!(bench.session.remote().discriminator, None);
            let packet = signed(self::packet(State::Down), &auth(kind), 1);
            bench.receive(packet);
            assert_eq!(bench.session.state(), State::Init, "{kind}");
        }
    }
    let mut plain = bench(None);
    let packet = signed(packet(State::Down), &auth(AuthKind::KeyedMd5), 1);
    assert_eq!(discards(&plain.receive(packet)), [Discard::AuthUnexpected]);
}

#[test]
fn whatever_is_changed_on_the_way_is_found_out() {
    for kind in &KINDS[1..] {
        let auth = auth(*kind);
        let mut octets = [0; MAX_PACKET_LEN];
        let len = signed(packet(State::Up), &auth, 5).encode(&mut octets);
        for at in 0..len {
            for bit in 0..8 {
                let mut changed = octets;
                changed[at] ^= 1 << bit;
                let Ok(packet) = Packet::decode(&changed[..len]) else {
                    continue;
                };
                assert!(
                    auth.verify(&packet, None).is_err(),
                    "{kind}: octet {at} bit {bit}"
                );
            }
        }
    }
}

#[test]
fn sequence_numbers_go_on_from_the_last_within_three_detection_times() {
    // The peer's detect multiplier is three, so nine packets.
    for (kind, last, received, fine) in [
        (AuthKind::KeyedSha1, 100, 99, false),
        (AuthKind::KeyedSha1, 100, 100, true),
        (AuthKind::KeyedSha1, 100, 109, true),
        (AuthKind::KeyedSha1, 100, 110, false),
        (AuthKind::MeticulousKeyedSha1, 100, 100, false),
        (AuthKind::MeticulousKeyedSha1, 100, 101, true),
        (AuthKind::MeticulousKeyedSha1, 100, 109, true),
        (AuthKind::MeticulousKeyedSha1, 100, 110, false),
        (AuthKind::MeticulousKeyedMd5, u32::MAX, 0, true),
        (AuthKind::MeticulousKeyedMd5, u32::MAX, 8, true),
        (AuthKind::MeticulousKeyedMd5, u32::MAX, 9, false),
        (AuthKind::KeyedMd5, 0, u32::MAX, false),
    ] {
        let auth = auth(kind);
        let mut bench = bench(Some(auth.clone()));
        bench.receive(signed(packet(State::Down), &auth, last));
        let reasons = discards(&bench.receive(signed(packet(State::Up), &auth, received)));
        let case = format!("{kind}: {received} after {last}");
        if fine {
            assert_eq!(reasons, [], "{case}");
        } else {
            assert_eq!(
                reasons,
                [Discard::AuthSequence { received, last }],
                "{case}"
            );
        }
    }
}

#[test]
fn a_forged_packet_does_not_move_the_sequence_number() {
    let auth = auth(AuthKind::MeticulousKeyedSha1);
    let mut bench = bench(Some(auth.clone()));
    let forger = Auth::new(auth.kind(), 1, vec![key(1, "guess")]).unwrap();
    bench.receive(signed(packet(State::Down), &forger, 5_000_000));
    assert_eq!(
        discards(&bench.receive(signed(packet(State::Down), &auth, 7))),
        []
    );
    bench.receive(signed(packet(State::Down), &forger, 9));
    assert_eq!(
        discards(&bench.receive(signed(packet(State::Up), &auth, 8))),
        []
    );
}

#[test]
fn any_sequence_number_will_do_after_twice_the_detection_time() {
    let auth = auth(AuthKind::MeticulousKeyedSha1);
    for (silence, fine) in [(1799, false), (1800, true)] {
        let mut bench = bench(Some(auth.clone()));
        bench.receive(signed(packet(State::Down), &auth, 1));
        bench.receive(signed(packet(State::Up), &auth, 2));
        assert_eq!(bench.session.detection_time(), Some(ms(900)));
        // The peer begins anew, from anywhere; the session went down meanwhile and sends on.
        let down = bench.now + ms(silence);
        while bench.session.poll_timeout().unwrap() < down {
            bench.now = bench.session.poll_timeout().unwrap();
            bench.timeout();
        }
        bench.now = down;
        let again = Packet {
            your_discriminator: None,
            ..packet(State::Down)
        };
        let reasons = discards(&bench.receive(signed(again, &auth, 77_777_777)));
        assert_eq!(reasons.is_empty(), fine, "{silence} ms: {reasons:?}");
    }
}

#[test]
fn meticulous_packets_are_all_numbered_and_others_when_they_differ() {
    let sequence = |packet: &Packet| match packet.auth {
        Some(AuthSection::Md5 { sequence, .. } | AuthSection::Sha1 { sequence, .. }) => sequence,
        _ => panic!("{packet:?}"),
    };
    for kind in &KINDS[1..] {
        let mut bench = bench(Some(auth(*kind)));
        let mut packets: Vec<Packet> = Vec::new();
        for (_, action) in bench.run(ms(4000)) {
            packets.extend(sent(&[action]));
        }
        let received = signed(packet(State::Down), &auth(*kind), 1);
        packets.extend(sent(&bench.receive(received)));
        assert!(packets.len() > 4);
        for pair in packets.windows(2) {
            let step = sequence(&pair[1]).wrapping_sub(sequence(&pair[0]));
            let differs = pair[0].state != pair[1].state;
            let expected = u32::from(kind.is_meticulous() || differs);
            assert_eq!(step, expected, "{kind}: {pair:?}");
        }
    }
    let other_seed = bench(Some(auth(AuthKind::KeyedMd5)));
    let mut same_kind = Bench::new(Config {
        seed: 2,
        auth: Some(auth(AuthKind::KeyedMd5)),
        ..config()
    });
    let mut bench = other_seed;
    let first = sequence(
        &sent(
            &bench
                .run(ms(1000))
                .into_iter()
                .map(|(_, a)| a)
                .collect::<Vec<_>>(),
        )[0],
    );
    assert_ne!(
        first,
        sequence(&sent(&same_kind.timeout())[0]),
        "not by chance"
    );
}

#[test]
fn keys_change_without_a_flap_when_both_sides_have_both() {
    let (old, new) = (key(1, "old"), key(2, "new"));
    let kind = AuthKind::MeticulousKeyedSha1;
    let with = |send, keys: &[&Key]| {
        Auth::new(kind, send, keys.iter().copied().cloned().collect()).unwrap()
    };
    let only_old = with(1, &[&old]);
    let mut bench = bench(Some(only_old.clone()));
    bench.receive(signed(packet(State::Down), &only_old, 1));
    bench.receive(signed(packet(State::Up), &only_old, 2));
    let mut sequence = 2;
    let steps = [
        (with(1, &[&old, &new]), only_old.clone()),
        (with(2, &[&old, &new]), with(1, &[&old, &new])),
        (with(2, &[&old, &new]), with(2, &[&old, &new])),
        (with(2, &[&new]), with(2, &[&new])),
    ];
    for (ours, theirs) in steps {
        bench.event(Event::Auth(Some(ours.clone())));
        sequence += 1;
        assert_eq!(
            discards(&bench.receive(signed(packet(State::Up), &theirs, sequence))),
            []
        );
        assert_eq!(bench.session.state(), State::Up);
        bench.now = bench.session.poll_timeout().unwrap();
        let ours_sent = sent(&bench.timeout())[0];
        assert!(
            matches!(ours_sent.auth, Some(AuthSection::Sha1 { key_id, .. }) if key_id == ours.send_key())
        );
    }
    let reasons = discards(&bench.receive(signed(packet(State::Up), &only_old, sequence + 1)));
    assert_eq!(reasons, [Discard::AuthKeyId(1)]);
}

#[test]
fn keys_that_cannot_be_are_refused_with_the_reason() {
    let longest = |kind: AuthKind| "x".repeat(kind.longest_secret());
    for kind in KINDS {
        assert!(Auth::new(kind, 1, vec![key(1, &longest(kind))]).is_ok());
        for secret in ["", &format!("{}y", longest(kind))] {
            let refused = Auth::new(kind, 1, vec![key(1, secret)]);
            assert!(
                matches!(refused, Err(Invalid::Secret { id: 1, .. })),
                "{kind}"
            );
        }
    }
    let kind = AuthKind::KeyedSha1;
    assert_eq!(Auth::new(kind, 1, vec![]), Err(Invalid::NoSuchKey(1)));
    assert_eq!(
        Auth::new(kind, 1, vec![key(2, "x")]),
        Err(Invalid::NoSuchKey(1))
    );
    let twice = vec![key(2, "x"), key(1, "y"), key(2, "z")];
    assert_eq!(Auth::new(kind, 1, twice), Err(Invalid::DuplicateKey(2)));
}
