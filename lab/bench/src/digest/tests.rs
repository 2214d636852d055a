//! Which differences count.

use super::*;
use crate::routes::{Group, Shape};
use crate::wire::{Voice, announce, update};

const DAEMON: Ipv4Addr = Ipv4Addr::new(10, 20, 0, 1);
const SENDER: Ipv4Addr = Ipv4Addr::new(10, 20, 1, 1);
const ASN: u32 = 65000;

/// One path, and a catalogue of it.
struct Fixture {
    routes: Routes,
    id: PathId,
    catalogue: Catalogue,
}

impl Fixture {
    fn new(terms: Terms) -> Self {
        let (mut routes, _) = Routes::draw(1, 1.0, 1);
        let external = matches!(terms, Terms::External { .. }).then_some(65001);
        let shape = Shape {
            sender: 0,
            external,
            length: Some(4),
        };
        routes.draw_path(shape);
        let mut path = routes.paths[1].clone();
        path.communities = vec![0x03e9_0001, 0x03e9_0002];
        path.large_communities = vec![[200_000, 1, 2]];
        path.origin = 0;
        path.med = None;
        let id = routes.add_path(path);
        let sender = Sender {
            next_hop: SENDER,
            router_id: SENDER.to_bits(),
        };
        let catalogue = Catalogue::new(&routes, terms, DAEMON, vec![sender]);
        Self {
            routes,
            id,
            catalogue,
        }
    }

    /// The attributes as `voice` says them.
    fn said(&self, voice: Voice<'_>) -> Vec<u8> {
        let feed = vec![Group {
            path: self.id,
            prefixes: vec![0],
        }];
        let octets = announce(&self.routes, &feed, voice);
        update(&octets[19..]).unwrap().attributes.to_vec()
    }
}

fn external() -> (Fixture, Vec<u8>) {
    let fixture = Fixture::new(Terms::External { asn: ASN });
    let said = fixture.said(Voice::External {
        asn: ASN,
        next_hop: DAEMON,
    });
    (fixture, said)
}

fn reflected() -> (Fixture, Vec<u8>) {
    let fixture = Fixture::new(Terms::Reflector);
    let said = fixture.said(Voice::Reflector {
        cluster: 7,
        senders: &[SENDER],
    });
    (fixture, said)
}

/// The attributes one by one, so that they can be put together differently.
fn split(attributes: &[u8]) -> Vec<Vec<u8>> {
    let mut parts = Vec::new();
    let mut rest = attributes;
    while !rest.is_empty() {
        let (_, _, after) = attribute(rest).unwrap();
        parts.push(rest[..rest.len() - after.len()].to_vec());
        rest = after;
    }
    parts
}

fn without(attributes: &[u8], code: u8) -> Vec<u8> {
    let parts = split(attributes);
    parts
        .into_iter()
        .filter(|part| part[1] != code)
        .flatten()
        .collect()
}

fn with(attributes: &[u8], more: &[u8]) -> Vec<u8> {
    [attributes, more].concat()
}

/// The value of one attribute changed, its length kept.
fn changed(attributes: &[u8], code: u8, change: impl Fn(&mut [u8])) -> Vec<u8> {
    let mut parts = split(attributes);
    let part = parts.iter_mut().find(|part| part[1] == code).unwrap();
    change(&mut part[3..]);
    parts.concat()
}

#[test]
fn what_a_daemon_may_do_differently_makes_no_difference() {
    let (mut fixture, said) = external();
    let mut reversed = split(&said);
    reversed.reverse();
    // The same attribute with a length of two octets.
    let mut long = split(&said);
    for part in &mut long {
        part[0] |= 0x10;
        part.insert(2, 0);
    }
    let cases = [
        ("as it is", said.clone()),
        ("attributes in another order", reversed.concat()),
        ("long lengths", long.concat()),
        (
            "communities in another order",
            changed(&said, code::COMMUNITIES, |value| value.rotate_left(4)),
        ),
        (
            "the sender as next hop",
            changed(&said, code::NEXT_HOP, |value| {
                value.copy_from_slice(&SENDER.octets());
            }),
        ),
        (
            "a MED of its own",
            with(&said, &[0x80, code::MED, 4, 0, 0, 0, 9]),
        ),
        ("the Partial bit", changed(&said, code::COMMUNITIES, |_| {})),
    ];
    for (name, attributes) in cases {
        // A catalogue that has seen nothing yet, and one that has.
        assert_eq!(fixture.catalogue.resolve(&attributes), fixture.id, "{name}");
        assert_eq!(fixture.catalogue.resolve(&attributes), fixture.id, "{name}");
    }
    assert_eq!(fixture.catalogue.foreign(), None);
}

#[test]
fn what_a_daemon_must_not_do_makes_a_route_foreign() {
    let (_, said) = external();
    let cases = [
        ("no origin", without(&said, code::ORIGIN)),
        ("another origin", changed(&said, code::ORIGIN, |v| v[0] = 2)),
        (
            "not its AS in front",
            changed(&said, code::AS_PATH, |v| v[5] ^= 1),
        ),
        (
            "another AS further on",
            changed(&said, code::AS_PATH, |v| v[12] ^= 1),
        ),
        ("a set of ASes", changed(&said, code::AS_PATH, |v| v[0] = 1)),
        ("no AS path", without(&said, code::AS_PATH)),
        ("no next hop", without(&said, code::NEXT_HOP)),
        (
            "somebody else as next hop",
            changed(&said, code::NEXT_HOP, |v| v[3] = 99),
        ),
        ("no communities", without(&said, code::COMMUNITIES)),
        (
            "another community",
            changed(&said, code::COMMUNITIES, |v| v[3] ^= 1),
        ),
        (
            "no large communities",
            without(&said, code::LARGE_COMMUNITIES),
        ),
        (
            "a local preference to an external peer",
            with(&said, &[0x40, code::LOCAL_PREF, 4, 0, 0, 0, 100]),
        ),
        (
            "an attribute that nobody sent",
            with(&said, &[0xc0, 16, 8, 0, 2, 0, 0, 0, 0, 0, 1]),
        ),
        ("an end in the middle", said[..said.len() - 1].to_vec()),
    ];
    for (name, attributes) in cases {
        let (mut fixture, _) = external();
        let path = fixture.catalogue.resolve(&attributes);
        assert_eq!(path, PathId::FOREIGN, "{name}");
        assert!(fixture.catalogue.foreign().is_some(), "{name}");
    }
}

#[test]
fn a_reflector_changes_nothing_and_adds_its_two_attributes() {
    let (mut fixture, said) = reflected();
    assert_eq!(fixture.catalogue.resolve(&said), fixture.id);
    // Absent and zero mean the same.
    let zero = with(&said, &[0x80, code::MED, 4, 0, 0, 0, 0]);
    assert_eq!(fixture.catalogue.resolve(&zero), fixture.id);
    let cases = [
        ("no originator", without(&said, code::ORIGINATOR_ID)),
        (
            "another originator",
            changed(&said, code::ORIGINATOR_ID, |v| v[3] ^= 1),
        ),
        ("no cluster", without(&said, code::CLUSTER_LIST)),
        (
            "two clusters",
            with(
                &without(&said, code::CLUSTER_LIST),
                &[0x80, code::CLUSTER_LIST, 8, 0, 0, 0, 7, 0, 0, 0, 7],
            ),
        ),
        ("no local preference", without(&said, code::LOCAL_PREF)),
        (
            "itself as next hop",
            changed(&said, code::NEXT_HOP, |v| {
                v.copy_from_slice(&DAEMON.octets())
            }),
        ),
        (
            "a MED of its own",
            with(&said, &[0x80, code::MED, 4, 0, 0, 0, 9]),
        ),
        (
            "its AS in front",
            fixture.said(Voice::External {
                asn: ASN,
                next_hop: SENDER,
            }),
        ),
    ];
    for (name, attributes) in cases {
        let path = fixture.catalogue.resolve(&attributes);
        assert_eq!(path, PathId::FOREIGN, "{name}");
    }
}
