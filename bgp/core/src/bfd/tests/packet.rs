//! Octets and what they mean.

use proptest::prelude::*;

use super::*;

/// As on the wire: Up, C, to 0x2222 from 0x1111, 300 ms both ways, times three.
const UP: [u8; 24] = [
    0x20, 0xc8, 3, 24, 0, 0, 0x11, 0x11, 0, 0, 0x22, 0x22, 0, 4, 0x93, 0xe0, 0, 4, 0x93, 0xe0, 0,
    0, 0, 0,
];

#[test]
fn the_mandatory_section_reads_and_writes_as_rfc_5880_draws_it() {
    let value = Packet {
        my_discriminator: OURS,
        your_discriminator: Some(THEIRS),
        ..packet(State::Up)
    };
    assert_eq!(Packet::decode(&UP), Ok(value));
    let mut octets = [0xaa; MAX_PACKET_LEN];
    let len = value.encode(&mut octets);
    assert_eq!(octets[..len], UP);
}

#[test]
fn each_flag_has_its_bit() {
    type Flag = fn(&Packet) -> bool;
    let flags: [(u8, &str, Flag); 4] = [
        (0x20, "P", |packet| packet.poll),
        (0x10, "F", |packet| packet.is_final),
        (0x08, "C", |packet| packet.control_plane_independent),
        (0x02, "D", |packet| packet.demand),
    ];
    for (bit, name, flag) in flags {
        for set in [false, true] {
            let mut octets = UP;
            octets[1] = 0xc0 | if set { bit } else { 0 };
            let packet = Packet::decode(&octets).unwrap();
            assert_eq!(flag(&packet), set, "{name}");
            let others = flags.iter().filter(|other| other.0 != bit);
            assert!(others.into_iter().all(|other| !other.2(&packet)), "{name}");
        }
    }
}

#[test]
fn a_packet_that_fails_several_checks_is_thrown_away_by_the_first() {
    let mut octets = [0; 24];
    let expect = |octets: &[u8], reason: Discard| {
        assert_eq!(Packet::decode(octets), Err(reason), "{octets:02x?}");
    };
    expect(&octets[..0], Discard::Truncated { octets: 0 });
    expect(&octets[..3], Discard::Truncated { octets: 3 });
    octets[1] = 0xc0 | 0x01; // Up, multipoint
    expect(&octets, Discard::Version(0));
    octets[0] = 0x40;
    expect(&octets, Discard::Version(2));
    octets[0] = 0x20;
    octets[3] = 23;
    expect(&octets, Discard::LengthTooSmall(23));
    octets[1] |= 0x04;
    octets[3] = 25;
    expect(&octets, Discard::LengthTooSmall(25));
    octets[1] &= !0x04;
    let (length, payload) = (25, 24);
    expect(&octets, Discard::LengthBeyondPayload { length, payload });
    octets[3] = 24;
    expect(&octets, Discard::DetectMultZero);
    octets[2] = 1;
    expect(&octets, Discard::Multipoint);
    octets[1] &= !0x01;
    expect(&octets, Discard::MyDiscriminatorZero);
    octets[7] = 1;
    expect(&octets, Discard::YourDiscriminatorZero(State::Up));
    octets[1] = 0x80;
    expect(&octets, Discard::YourDiscriminatorZero(State::Init));
    for bits in [0x00, 0x40] {
        octets[1] = bits;
        assert!(Packet::decode(&octets).is_ok(), "{octets:02x?}");
    }
}

#[test]
fn octets_behind_the_length_are_nobodys() {
    let mut longer = UP.to_vec();
    longer.extend([1, 2, 3]);
    assert_eq!(Packet::decode(&longer), Packet::decode(&UP));
}

#[test]
fn a_section_of_unknown_type_or_impossible_length_is_kept_as_such() {
    for (section, kind, length) in [
        (&[0_u8, 2][..], AuthType::Reserved, 2),
        (&[99, 4, 0, 0], AuthType::Unknown(99), 4),
        (&[1, 3, 7], AuthType::SimplePassword, 3),
        (&[1, 2], AuthType::SimplePassword, 2),
        (&[1, 9, 7, b'x'], AuthType::SimplePassword, 9),
        (&[2, 3, 7], AuthType::KeyedMd5, 3),
        (&[5, 24], AuthType::MeticulousKeyedSha1, 24),
    ] {
        let mut octets = UP.to_vec();
        octets.extend(section);
        octets[1] |= 0x04;
        octets[3] += section.len() as u8;
        let other = AuthSection::Other { kind, length };
        assert_eq!(Packet::decode(&octets).unwrap().auth, Some(other));
    }
}

#[test]
fn registries_keep_what_they_do_not_know() {
    for code in 0..=31 {
        assert_eq!(u8::from(Diag::from(code)), code);
    }
    assert_eq!(Diag::from(1), Diag::DetectionTimeExpired);
    assert_eq!(Diag::from(31), Diag::Unknown(31));
    for code in 0..=255 {
        assert_eq!(u8::from(AuthType::from(code)), code);
    }
}

#[test]
fn secrets_do_not_show_in_debug_output() {
    let password = Password::new(b"hunter2").unwrap();
    let section = AuthSection::SimplePassword {
        key_id: 1,
        password,
    };
    let shown = format!("{section:?} {password:?} {:?}", Secret::new("hunter2"));
    assert!(
        !shown.contains("hunter2") && !shown.contains("104"),
        "{shown}"
    );
}

fn any_section() -> impl Strategy<Value = AuthSection> {
    let password = prop::collection::vec(any::<u8>(), 1..=16);
    prop_oneof![
        (any::<u8>(), password).prop_map(|(key_id, password)| AuthSection::SimplePassword {
            key_id,
            password: Password::new(&password).unwrap(),
        }),
        any::<(bool, u8, u8, u32, [u8; 16])>().prop_map(
            |(meticulous, key_id, reserved, sequence, digest)| AuthSection::Md5 {
                meticulous,
                key_id,
                reserved,
                sequence,
                digest,
            }
        ),
        any::<(bool, u8, u8, u32, [u8; 20])>().prop_map(
            |(meticulous, key_id, reserved, sequence, hash)| AuthSection::Sha1 {
                meticulous,
                key_id,
                reserved,
                sequence,
                hash,
            }
        ),
    ]
}

/// Any packet that decodes.
pub(super) fn any_packet() -> impl Strategy<Value = Packet> {
    let flags = any::<(bool, bool, bool, bool)>();
    let numbers = (1_u8.., 1_u32.., any::<(u32, u32, u32, u32)>());
    let state = prop::sample::select(&State::ALL[..]);
    let auth = prop::option::of(any_section());
    (0_u8..32, state, flags, numbers, auth).prop_map(|(diag, state, flags, numbers, auth)| {
        let (mult, mine, (yours, tx, rx, echo)) = numbers;
        let unheard = matches!(state, State::Down | State::AdminDown);
        Packet {
            diag: diag.into(),
            state,
            poll: flags.0,
            is_final: flags.1,
            control_plane_independent: flags.2,
            demand: flags.3,
            detect_mult: NonZeroU8::new(mult).unwrap(),
            my_discriminator: NonZeroU32::new(mine).unwrap(),
            your_discriminator: NonZeroU32::new(if unheard { yours } else { yours | 1 }),
            desired_min_tx: Interval::from_micros(tx),
            required_min_rx: Interval::from_micros(rx),
            required_min_echo_rx: Interval::from_micros(echo),
            auth,
        }
    })
}

proptest! {
    #[test]
    fn every_packet_comes_back_as_it_was(packet in any_packet()) {
        let mut octets = [0; MAX_PACKET_LEN];
        let len = packet.encode(&mut octets);
        prop_assert_eq!(Packet::decode(&octets[..len]), Ok(packet));
    }

    #[test]
    fn octets_that_decode_are_written_back_the_same(
        mut octets in prop::collection::vec(any::<u8>(), 0..80),
        plausible: bool,
    ) {
        if plausible && octets.len() >= 26 {
            octets[0] = 0x20 | octets[0] & 0x1f;
            octets[1] &= !0x01;
            octets[3] = octets.len() as u8;
            octets[25] = (octets.len() - 24) as u8;
        }
        if let Ok(packet) = Packet::decode(&octets) {
            let mut again = [0; MAX_PACKET_LEN];
            let len = packet.encode(&mut again);
            match packet.auth {
                // What no session accepts is not kept whole.
                Some(AuthSection::Other { .. }) => prop_assert_eq!(&again[4..24], &octets[4..24]),
                Some(_) => prop_assert_eq!(&again[..len], &octets[..len]),
                None => {
                    prop_assert_eq!(&again[4..24], &octets[4..24]);
                    prop_assert_eq!(&again[..3], &octets[..3]);
                }
            }
        }
    }
}
