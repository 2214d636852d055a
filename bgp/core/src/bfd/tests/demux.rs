//! Which session a packet belongs to.

use std::net::IpAddr;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn arrival() -> Arrival {
    Arrival {
        local: ip("10.0.0.1"),
        peer: ip("10.0.0.2"),
        interface: 7,
        ttl: 255,
        multihop: false,
    }
}

fn path() -> Path {
    Path {
        local: Some(ip("10.0.0.1")),
        peer: ip("10.0.0.2"),
        interface: Some(7),
        hops: Hops::Single,
    }
}

fn first() -> Packet {
    Packet {
        your_discriminator: None,
        ..packet(State::Down)
    }
}

#[test]
fn a_packet_must_come_the_way_of_its_session_by_name_or_by_address() {
    let multi = |min_ttl| Path {
        hops: Hops::Multi { min_ttl },
        ..path()
    };
    let anywhere = Path {
        local: None,
        interface: None,
        ..path()
    };
    let here = arrival();
    let far = Arrival {
        multihop: true,
        ttl: 60,
        ..here
    };
    let low = |received, least| Err(Discard::HopLimit { received, least });
    type Answer = Result<(), Discard>;
    let other = Err(Discard::OtherPath);
    let wrong: (Answer, Answer) = (other, other);
    let stranger: (Answer, Answer) = (other, Err(Discard::NoSession));
    let right: (Answer, Answer) = (Ok(()), Ok(()));
    let cases = [
        ("as it should be", path(), here, right),
        (
            "local address",
            path(),
            Arrival {
                local: ip("10.0.0.9"),
                ..here
            },
            wrong,
        ),
        (
            "peer",
            path(),
            Arrival {
                peer: ip("10.0.0.9"),
                ..here
            },
            stranger,
        ),
        (
            "interface",
            path(),
            Arrival {
                interface: 8,
                ..here
            },
            wrong,
        ),
        (
            "port",
            path(),
            Arrival {
                multihop: true,
                ..here
            },
            wrong,
        ),
        ("port, the other way", multi(1), here, wrong),
        (
            "TTL of one hop",
            path(),
            Arrival { ttl: 254, ..here },
            (low(254, 255), low(254, 255)),
        ),
        ("any TTL", multi(1), far, right),
        ("TTL that just does", multi(60), far, right),
        (
            "TTL that does not",
            multi(61),
            far,
            (low(60, 61), low(60, 61)),
        ),
        (
            "anywhere",
            anywhere,
            Arrival {
                local: ip("10.0.0.9"),
                interface: 8,
                ..here
            },
            right,
        ),
    ];
    for (name, path, arrival, (by_name, by_address)) in cases {
        let mut demux = Demux::default();
        demux.insert(OURS, path, ());
        assert_eq!(
            demux.select(&arrival, &packet(State::Up)),
            by_name,
            "{name}"
        );
        assert_eq!(demux.select(&arrival, &first()), by_address, "{name}");
    }
}

#[test]
fn the_more_precise_session_gets_a_first_packet() {
    let mut demux = Demux::default();
    let number = |n: u32| NonZeroU32::new(n).unwrap();
    let (local, interface) = (path().local, path().interface);
    for (n, local, interface) in [
        (1, None, None),
        (2, local, None),
        (3, None, interface),
        (4, local, interface),
    ] {
        let path = Path {
            local,
            interface,
            ..path()
        };
        demux.insert(number(n), path, n);
    }
    let select = |demux: &Demux<u32>, arrival: &Arrival| demux.select(arrival, &first());
    assert_eq!(select(&demux, &arrival()), Ok(4));
    let elsewhere = Arrival {
        interface: 8,
        ..arrival()
    };
    assert_eq!(select(&demux, &elsewhere), Ok(2));
    demux.remove(number(4));
    assert_eq!(select(&demux, &arrival()), Ok(3));
    for n in 1..4 {
        demux.remove(number(n));
    }
    assert_eq!(select(&demux, &arrival()), Err(Discard::NoSession));
}

#[test]
fn link_local_peers_of_one_address_are_told_apart_by_interface() {
    let mut demux = Demux::default();
    for interface in 1..=50 {
        let path = Path {
            local: Some(ip("fe80::1")),
            peer: ip("fe80::2"),
            interface: Some(interface),
            hops: Hops::Single,
        };
        demux.insert(NonZeroU32::new(interface).unwrap(), path, interface);
    }
    for interface in 1..=50 {
        let arrival = Arrival {
            local: ip("fe80::1"),
            peer: ip("fe80::2"),
            interface,
            ..arrival()
        };
        assert_eq!(demux.select(&arrival, &first()), Ok(interface));
    }
}

#[test]
fn what_is_removed_is_forgotten_by_name_and_by_address() {
    let mut demux = Demux::default();
    demux.insert(OURS, path(), 1);
    assert!(demux.contains(OURS));
    // Put again, at another address: the old one no longer leads there.
    let moved = Path {
        peer: ip("10.0.0.3"),
        ..path()
    };
    demux.insert(OURS, moved, 2);
    assert_eq!(demux.select(&arrival(), &first()), Err(Discard::NoSession));
    demux.remove(OURS);
    let nobody = Err(Discard::NoSuchDiscriminator(OURS));
    assert_eq!(demux.select(&arrival(), &packet(State::Up)), nobody);
    assert!(!demux.contains(OURS));
}
