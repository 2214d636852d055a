use proptest::prelude::*;

use super::*;

fn link(index: u32, name: &str, flags: u32) -> Change {
    Change::Link(LinkFacts {
        index,
        flags,
        name: name.into(),
        link_layer: None,
        carrier_changes: 0,
    })
}

fn held(index: u32, prefix: &str, flags: u32) -> AddressFacts {
    let (address, len) = prefix.split_once('/').unwrap();
    let local: IpAddr = address.parse().unwrap();
    AddressFacts {
        index,
        local,
        network: local,
        len: len.parse().unwrap(),
        flags,
    }
}

fn address(index: u32, prefix: &str) -> Change {
    Change::Address(held(index, prefix, 0))
}

fn node() -> InterfaceTable {
    InterfaceTable::new(&Facts::of(vec![
        link(1, "lo", IFF_UP | IFF_RUNNING | IFF_LOOPBACK),
        address(1, "127.0.0.1/8"),
        address(1, "::1/128"),
        address(1, "10.255.0.7/32"),
        address(1, "2001:db8:255::7/128"),
        link(2, "eth0", IFF_UP | IFF_RUNNING),
        Change::Address(held(2, "192.0.2.9/24", IFA_F_SECONDARY)),
        address(2, "192.0.2.1/24"),
        Change::Address(held(2, "2001:db8::99/64", IFA_F_SECONDARY)),
        Change::Address(held(2, "2001:db8::66/64", IFA_F_TENTATIVE)),
        address(2, "2001:db8::1/64"),
        address(2, "fe80::1/64"),
        link(3, "eth1", IFF_UP),
        address(3, "fe80::1/64"),
    ]))
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn an_address_names_its_interface_and_a_link_local_one_with_the_index() {
    let table = node();
    let name = |local, ifindex| {
        let found = table.interface_of(ip(local), ifindex);
        found.map(|interface| (interface.name, interface.running))
    };
    assert_eq!(name("192.0.2.1", None), Some(("eth0".into(), true)));
    assert_eq!(name("fe80::1", Some(3)), Some(("eth1".into(), false)));
    assert_eq!(name("fe80::1", Some(2)), Some(("eth0".into(), true)));
    assert_eq!(name("fe80::1", Some(9)), None);
    assert_eq!(name("127.77.3.4", None), Some(("lo".into(), true)));
    assert_eq!(name("198.51.100.1", None), None);
}

#[test]
fn a_neighbour_is_behind_the_link_of_its_subnet() {
    let table = InterfaceTable::new(&Facts::of(vec![
        link(2, "eth0", IFF_UP | IFF_RUNNING),
        address(2, "10.0.0.1/8"),
        link(3, "eth1", IFF_UP),
        address(3, "10.1.0.0/31"),
        address(3, "fe80::1/64"),
        link(4, "eth2", IFF_UP),
        address(4, "10.2.0.1/24"),
        link(5, "eth3", IFF_UP | IFF_RUNNING),
        address(5, "10.2.0.2/24"),
    ]));
    for (remote, ifindex, expected) in [
        ("10.9.9.9", None, Some(("eth0", true))),
        ("10.1.0.1", None, Some(("eth1", false))),
        ("10.2.0.9", None, Some(("eth3", true))),
        ("192.0.2.1", None, None),
        ("fe80::2", Some(3), Some(("eth1", false))),
        ("fe80::2", Some(9), None),
    ] {
        let found = table.towards(ip(remote), ifindex);
        let found = found.as_ref().map(|link| (&*link.name, link.running));
        assert_eq!(found, expected, "{remote}");
    }
}

#[test]
fn the_ends_of_a_session_are_the_addresses_of_its_interface() {
    let table = node();
    let v6 = |text: &str| text.parse::<Ipv6Addr>().unwrap();
    let cases = [
        (
            "over IPv4, with the IPv6 addresses that are no one's secondary or tentative ones",
            ("192.0.2.1", None, "192.0.2.2"),
            (
                Some("192.0.2.1"),
                Some((v6("2001:db8::1"), Some(v6("fe80::1")))),
                vec!["192.0.2.0/24"],
            ),
        ),
        (
            "over IPv6",
            ("2001:db8::1", None, "2001:db8::2"),
            (
                Some("192.0.2.1"),
                Some((v6("2001:db8::1"), Some(v6("fe80::1")))),
                vec!["2001:db8::/64"],
            ),
        ),
        (
            "between link-local addresses, with nothing else on the link",
            ("fe80::1", Some(3), "fe80::2"),
            (None, Some((v6("fe80::1"), None)), vec!["fe80::/64"]),
        ),
        (
            "between link-local addresses, with others on the link",
            ("fe80::1", Some(2), "fe80::2"),
            (
                Some("192.0.2.1"),
                Some((v6("2001:db8::1"), Some(v6("fe80::1")))),
                vec!["fe80::/64"],
            ),
        ),
        (
            "between loopbacks",
            ("10.255.0.7", None, "10.255.0.8"),
            (
                Some("10.255.0.7"),
                Some((v6("2001:db8:255::7"), None)),
                vec![],
            ),
        ),
        (
            "from an address that nobody holds",
            ("198.51.100.1", None, "198.51.100.2"),
            (Some("198.51.100.1"), None, vec![]),
        ),
    ];
    for (name, (local, ifindex, peer), (v4, v6, subnets)) in cases {
        let (ends, interface) = table.ends(ip(local), ifindex, ip(peer), &[]);
        assert_eq!(ends.peer, ip(peer), "{name}");
        assert_eq!(
            ends.local_v4,
            v4.map(|text| text.parse().unwrap()),
            "{name}"
        );
        assert_eq!(ends.local_v6, v6, "{name}");
        let shown: Vec<String> = ends.subnets.iter().map(ToString::to_string).collect();
        assert_eq!(shown, subnets, "{name}");
        assert_eq!(
            ends.interface,
            interface.map(|interface| interface.index),
            "{name}"
        );
    }
}

#[test]
fn of_an_ignored_interface_nothing_is_named_but_the_address_of_the_session() {
    let local = ip("192.0.2.1");
    let ignored = [InterfaceGlob::new("et*"), InterfaceGlob::new("lo")];
    let (ends, interface) = node().ends(local, None, ip("192.0.2.2"), &ignored);
    assert_eq!(ends.local_v4, Some("192.0.2.1".parse().unwrap()));
    assert_eq!((ends.local_v6, ends.subnets), (None, vec![]));
    assert_eq!(ends.interface, interface.map(|interface| interface.index));
}

#[test]
fn external_peers_on_a_connected_subnet_have_ttl_1() {
    let table = node();
    for (remote, ttl) in [
        ("192.0.2.200", Some(1)),
        ("192.0.3.1", None),
        ("2001:db8::2", Some(1)),
        ("2001:db8:1::2", None),
        ("fe80::2", Some(1)),
    ] {
        assert_eq!(table.external_ttl(ip(remote)), ttl, "{remote}");
    }
}

#[test]
fn the_other_end_of_a_point_to_point_link_is_connected() {
    let other_end = AddressFacts {
        network: ip("10.9.0.1"),
        ..held(2, "10.1.0.1/32", 0)
    };
    let changes = vec![link(2, "ppp0", IFF_UP), Change::Address(other_end)];
    let table = InterfaceTable::new(&Facts::of(changes));
    assert_eq!(table.external_ttl(ip("10.9.0.1")), Some(1));
    assert_eq!(table.external_ttl(ip("10.1.0.1")), None);
    let (ends, _) = table.ends(ip("10.1.0.1"), None, ip("10.9.0.1"), &[]);
    assert_eq!(ends.subnets, ["10.9.0.1/32".parse().unwrap()]);
}

#[test]
fn a_link_local_address_counts_when_it_is_known_to_be_ours() {
    for (flags, usable) in [
        (0, true),
        (IFA_F_TENTATIVE, false),
        (IFA_F_TENTATIVE | IFA_F_OPTIMISTIC, true),
        (IFA_F_TENTATIVE | IFA_F_DADFAILED, false),
    ] {
        let own = Change::Address(held(2, "fe80::5/64", flags));
        let table = InterfaceTable::new(&Facts::of(vec![link(2, "eth0", IFF_UP), own]));
        let found = table.by_name("eth0").unwrap().link_local();
        assert_eq!(found.is_some(), usable, "flags {flags:#x}");
    }
}

#[test]
fn why_there_is_no_link_local_address_is_told() {
    let reason = |changes: Vec<Change>| {
        let table = InterfaceTable::new(&Facts::of(changes));
        table.by_index(2).unwrap().no_link_local()
    };
    let with = |flags| {
        vec![
            link(2, "eth0", IFF_UP),
            Change::Address(held(2, "fe80::5/64", flags)),
        ]
    };
    assert!(reason(vec![link(2, "eth0", IFF_UP)]).contains("IPv6 disabled"));
    assert!(reason(with(IFA_F_TENTATIVE)).contains("not yet"));
    assert!(reason(with(IFA_F_TENTATIVE | IFA_F_DADFAILED)).contains("another node"));
}

#[test]
fn a_renamed_interface_is_found_by_its_new_name_only() {
    let mut facts = Facts::of(vec![link(2, "eth0", IFF_UP), address(2, "fe80::1/64")]);
    assert!(facts.apply(link(2, "uplink", IFF_UP)));
    let table = InterfaceTable::new(&facts);
    assert!(table.by_name("eth0").is_none());
    assert!(table.by_name("uplink").unwrap().link_local().is_some());
}

fn any_change() -> impl Strategy<Value = Change> {
    let index = 1_u32..4;
    let address = (
        index.clone(),
        0_u8..6,
        24_u8..27,
        prop_oneof![Just(0), Just(0x40_u32)],
    )
        .prop_map(|(index, low, len, flags)| held(index, &format!("10.0.0.{low}/{len}"), flags));
    prop_oneof![
        3 => (index.clone(), prop_oneof![Just("a"), Just("b")], 0_u32..2)
            .prop_map(|(index, name, flags)| link(index, name, flags)),
        1 => index.prop_map(Change::LinkGone),
        5 => address.clone().prop_map(Change::Address),
        4 => address.prop_map(Change::AddressGone),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Notifications that overlap a list, as they do when one is made while they come, lead to the
    /// same facts as the list and what came after it.
    #[test]
    fn changes_that_a_list_has_seen_may_come_again(
        before in proptest::collection::vec(any_change(), 0..40),
        during in proptest::collection::vec(any_change(), 0..20),
    ) {
        let mut kernel = Facts::of(before);
        for change in &during {
            kernel.apply(change.clone());
        }
        let mut ours = kernel.clone();
        let mut differed = false;
        for change in during {
            differed |= ours.apply(change);
        }
        // The order of addresses may differ, and with it nothing that anybody asks for.
        let sorted = |mut facts: Facts| {
            for held in facts.addresses.values_mut() {
                held.sort_by_key(|held| (held.local, held.len));
            }
            facts
        };
        if !differed {
            prop_assert_eq!(&ours, &kernel);
        }
        prop_assert_eq!(sorted(ours), sorted(kernel));
    }
}
