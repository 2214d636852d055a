use super::*;

const ON_LINK: Envelope = Envelope {
    source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 9),
    hop_limit: 255,
};

/// The fixed part of an advertisement with nothing said.
const BARE: [u8; 16] = [134, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn with(octets: &[u8], more: &[u8]) -> Vec<u8> {
    [octets, more].concat()
}

#[test]
fn our_advertisement_says_that_we_are_nobodys_default_router() {
    let ours = Message::Advertisement(Advertisement {
        source_link: Some(MAC),
        ..Advertisement::default()
    });
    let expected = with(&BARE, &[1, 1, 2, 0, 0, 0, 0, 1]);
    assert_eq!(ours.encode(), expected);
}

#[test]
fn what_others_advertise_is_read_field_by_field() {
    // As radvd would send it: hop limit 64, managed, 1800 s, MTU 9000, and a prefix.
    let mut octets = vec![134, 0, 0x12, 0x34, 64, 0x80, 7, 8, 0, 0, 0, 1, 0, 0, 0, 2];
    octets.extend([5, 1, 0, 0, 0, 0, 0x23, 0x28]);
    octets.extend([3, 4, 64, 0xc0]);
    octets.extend([0; 28]);
    octets.extend([1, 1, 2, 0, 0, 0, 0, 1]);
    let expected = Advertisement {
        hop_limit: 64,
        flags: 0x80,
        router_lifetime: seconds(1800),
        reachable_time: 1,
        retransmission_time: 2,
        source_link: Some(MAC),
        mtu: Some(9000),
    };
    assert_eq!(
        Message::decode(&octets, ON_LINK),
        Ok(Message::Advertisement(expected))
    );
}

#[test]
fn invalid_messages_name_the_rule_that_they_break() {
    let solicitation = [133, 0, 0, 0, 0, 0, 0, 0];
    let own_link = [1, 1, 2, 0, 0, 0, 0, 1];
    let mut resolution = vec![135, 0, 0, 0, 0, 0, 0, 0];
    resolution.extend(OWN.octets());
    let mut of_multicast = resolution.clone();
    of_multicast[8..].copy_from_slice(&ALL_NODES.octets());
    let routed = Envelope {
        hop_limit: 254,
        ..ON_LINK
    };
    let global = Envelope {
        source: "2001:db8::1".parse().unwrap(),
        ..ON_LINK
    };
    let nobody = Envelope {
        source: Ipv6Addr::UNSPECIFIED,
        ..ON_LINK
    };
    let many = Envelope {
        source: ALL_NODES,
        ..ON_LINK
    };
    let cases: Vec<(&str, Vec<u8>, Envelope, Invalid)> = vec![
        ("a routed one", BARE.into(), routed, Invalid::HopLimit(254)),
        ("nothing", vec![], ON_LINK, Invalid::TooShort(0)),
        ("half a header", vec![134, 0], ON_LINK, Invalid::TooShort(2)),
        (
            "an echo",
            with(&[128], &BARE[1..]),
            ON_LINK,
            Invalid::Type(128),
        ),
        (
            "a code",
            with(&[134, 1], &BARE[2..]),
            ON_LINK,
            Invalid::Code(1),
        ),
        (
            "15 octets",
            BARE[..15].into(),
            ON_LINK,
            Invalid::TooShort(15),
        ),
        (
            "an option of no length",
            with(&BARE, &[1, 0]),
            ON_LINK,
            Invalid::Option,
        ),
        (
            "half an option",
            with(&BARE, &[1, 1, 2]),
            ON_LINK,
            Invalid::Option,
        ),
        (
            "an option's type only",
            with(&BARE, &[1]),
            ON_LINK,
            Invalid::Option,
        ),
        (
            "a global router",
            BARE.into(),
            global,
            Invalid::Source(global.source),
        ),
        (
            "a router without address",
            BARE.into(),
            nobody,
            Invalid::Source(nobody.source),
        ),
        (
            "7 octets",
            solicitation[..7].into(),
            ON_LINK,
            Invalid::TooShort(7),
        ),
        (
            "a place without an address",
            with(&solicitation, &own_link),
            nobody,
            Invalid::Source(nobody.source),
        ),
        (
            "a group that asks",
            solicitation.into(),
            many,
            Invalid::Source(ALL_NODES),
        ),
        (
            "23 octets",
            resolution[..23].into(),
            ON_LINK,
            Invalid::TooShort(23),
        ),
        (
            "a group resolved",
            of_multicast,
            ON_LINK,
            Invalid::Target(ALL_NODES),
        ),
    ];
    for (name, octets, envelope, expected) in cases {
        assert_eq!(Message::decode(&octets, envelope), Err(expected), "{name}");
    }
}

#[test]
fn who_has_no_address_yet_may_ask_without_a_place() {
    let nobody = Envelope {
        source: Ipv6Addr::UNSPECIFIED,
        ..ON_LINK
    };
    let asked = Message::decode(&[133, 0, 0, 0, 0, 0, 0, 0], nobody);
    assert_eq!(asked, Ok(Message::Solicitation { source_link: None }));
}

#[test]
fn options_that_mean_nothing_here_are_skipped() {
    const CASES: &[(&str, &[u8])] = &[
        ("unknown", &[250, 1, 1, 2, 3, 4, 5, 6]),
        (
            "a link-layer address of 14 octets",
            &[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        ),
        ("a target's link-layer address", &[2, 1, 0, 0, 0, 0, 0, 9]),
    ];
    for (name, option) in CASES {
        let read = Message::decode(&with(&BARE, option), ON_LINK);
        let bare = Message::Advertisement(Advertisement::default());
        assert_eq!(read, Ok(bare), "{name}");
    }
}
