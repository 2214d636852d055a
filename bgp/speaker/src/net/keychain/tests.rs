use proptest::prelude::*;

use super::*;
use crate::net::Secret;

fn md5(secret: &str) -> Auth {
    Auth::Md5(Secret::new(secret).unwrap())
}

fn at(prefix: &str) -> Remote {
    Remote::Prefix(prefix.parse().unwrap())
}

/// Keys as text, for tables.
fn keys(peers: Vec<(Remote, Auth)>) -> Vec<String> {
    let (keychain, conflicts) = Keychain::new(peers);
    assert!(conflicts.is_empty(), "{conflicts:?}");
    keychain
        .keys()
        .map(|(prefix, auth)| match auth {
            Auth::Md5(secret) => {
                format!("{prefix} {}", String::from_utf8_lossy(secret.expose()))
            }
            other => format!("{prefix} {}", other.name()),
        })
        .collect()
}

#[test]
fn a_whole_mesh_with_one_secret_needs_one_key() {
    let peers = (0..2_500_u32).map(|number| {
        let address = Ipv4Addr::from_bits(0x0a01_0000 + number);
        (Remote::Prefix(Prefix::host(address.into())), md5("mesh"))
    });
    assert_eq!(keys(peers.collect()), ["10.1.0.0/20 mesh"]);
}

#[test]
fn keys_are_as_few_as_the_peers_allow() {
    type Case = (
        &'static str,
        &'static [(&'static str, &'static str)],
        &'static [&'static str],
    );
    const CASES: &[Case] = &[
        ("nobody signs", &[("10.0.0.1", ""), ("10.0.0.2", "")], &[]),
        ("one peer", &[("10.0.0.1", "a")], &["10.0.0.1/32 a"]),
        (
            "one secret each",
            &[("10.0.0.1", "a"), ("10.0.0.2", "b")],
            &["10.0.0.1/32 a", "10.0.0.2/32 b"],
        ),
        (
            "a range and a peer of it with the same secret",
            &[("10.0.0.0/24", "a"), ("10.0.0.7", "a")],
            &["10.0.0.0/24 a"],
        ),
        (
            "a range and a peer of it with a secret of its own",
            &[("10.0.0.0/24", "a"), ("10.0.0.7", "b")],
            &["10.0.0.0/24 a", "10.0.0.7/32 b"],
        ),
        (
            "a peer without a key in a range with one is not covered",
            &[("10.0.0.0/30", "a"), ("10.0.0.1", "")],
            &["10.0.0.0/32 a", "10.0.0.2/31 a"],
        ),
        (
            "a peer with a key in a range without",
            &[("10.0.0.0/24", ""), ("10.0.0.7", "a")],
            &["10.0.0.7/32 a"],
        ),
        (
            "peers that do not sign keep those apart who do",
            &[("10.0.0.1", "a"), ("10.0.0.2", ""), ("10.0.0.3", "a")],
            &["10.0.0.1/32 a", "10.0.0.3/32 a"],
        ),
        (
            "the rest of the world is not made to sign",
            &[("10.0.0.1", "a"), ("192.0.2.1", "a")],
            &["10.0.0.1/32 a", "192.0.2.1/32 a"],
        ),
        (
            "unless the operator says so",
            &[("0.0.0.0/0", "a"), ("192.0.2.1", "b")],
            &["0.0.0.0/0 a", "192.0.2.1/32 b"],
        ),
        (
            "both families",
            &[
                ("10.0.0.1", "a"),
                ("2001:db8::1", "a"),
                ("2001:db8::2", "a"),
            ],
            &["10.0.0.1/32 a", "2001:db8::/126 a"],
        ),
        (
            "an exception within an exception",
            &[
                ("10.0.0.0/24", "a"),
                ("10.0.0.0/28", "b"),
                ("10.0.0.1", "a"),
            ],
            &["10.0.0.0/24 a", "10.0.0.0/28 b", "10.0.0.1/32 a"],
        ),
    ];
    for (name, peers, expected) in CASES {
        let peers = peers.iter().map(|(prefix, secret)| {
            let auth = if secret.is_empty() {
                Auth::None
            } else {
                md5(secret)
            };
            (at(prefix), auth)
        });
        assert_eq!(keys(peers.collect()), *expected, "{name}");
    }
}

#[test]
fn unnumbered_peers_share_a_key_or_have_one_by_the_address_that_they_showed() {
    let on_link = |address: &str, auth| {
        let address = address.parse().ok();
        (Remote::Interface { address }, auth)
    };
    let same = vec![on_link("fe80::1", md5("a")), on_link("", md5("a"))];
    assert_eq!(keys(same), ["fe80::/10 a"]);
    let different = vec![on_link("fe80::1", md5("a")), on_link("fe80::2", md5("b"))];
    assert_eq!(keys(different), ["fe80::1/128 a", "fe80::2/128 b"]);
    let half = vec![on_link("fe80::1", md5("a")), on_link("", Auth::None)];
    assert_eq!(keys(half), ["fe80::1/128 a"]);
    assert_eq!(keys(vec![on_link("fe80::1", Auth::None)]), [] as [&str; 0]);
}

#[test]
fn two_secrets_for_one_address_are_a_conflict_and_the_first_counts() {
    let peers = [(at("10.0.0.1"), md5("a")), (at("10.0.0.1"), md5("b"))];
    let (keychain, conflicts) = Keychain::new(peers);
    assert_eq!(
        keychain.key_of("10.0.0.1".parse().unwrap()),
        Some(&md5("a"))
    );
    assert_eq!(conflicts.len(), 1);
    assert!(conflicts[0].to_string().contains("10.0.0.1/32"));
    // The same secret twice is none.
    let peers = [(at("10.0.0.1"), md5("a")), (at("10.0.0.1"), md5("a"))];
    assert!(Keychain::new(peers).1.is_empty());
}

/// Prefixes close together, so that they nest and touch.
fn entry() -> impl Strategy<Value = (Prefix, Option<&'static str>)> {
    let secret = prop_oneof![
        Just(None),
        Just(Some("a")),
        Just(Some("b")),
        Just(Some("c"))
    ];
    let v4 = (0_u32..64, 24_u8..=32).prop_map(|(low, len)| {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + (low << 2));
        Prefix::v4(address, len).unwrap()
    });
    let v6 = (0_u128..64, 118_u8..=128).prop_map(|(low, len)| {
        let address = Ipv6Addr::from_bits((0x2001_0db8_u128 << 96) + (low << 3));
        Prefix::v6(address, len).unwrap()
    });
    let wide = (any::<u32>(), 0_u8..12)
        .prop_map(|(address, len)| Prefix::v4(Ipv4Addr::from_bits(address), len).unwrap());
    (prop_oneof![6 => v4, 3 => v6, 1 => wide], secret)
}

/// Addresses at the edges of `prefix`, within and beyond.
fn edges(prefix: Prefix) -> Vec<IpAddr> {
    match prefix.addr() {
        IpAddr::V4(v4) => {
            let size = 1_u64 << (32 - prefix.len());
            let last = u64::from(v4.to_bits()) + size - 1;
            [u64::from(v4.to_bits()), last, last + 1]
                .into_iter()
                .filter_map(|bits| u32::try_from(bits).ok())
                .map(|bits| Ipv4Addr::from_bits(bits).into())
                .collect()
        }
        IpAddr::V6(v6) => {
            let size = 1_u128
                .checked_shl(128 - u32::from(prefix.len()))
                .unwrap_or(0);
            let last = v6.to_bits().wrapping_add(size).wrapping_sub(1);
            [v6.to_bits(), last, last.wrapping_add(1)]
                .map(|bits| Ipv6Addr::from_bits(bits).into())
                .into()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn each_peer_is_checked_with_its_own_key_and_who_has_none_with_none(
        list in proptest::collection::vec(entry(), 0..40),
    ) {
        let mut entries = BTreeMap::new();
        for (prefix, secret) in list {
            entries.entry(prefix).or_insert(secret.map_or(Auth::None, md5));
        }
        let peers = entries.iter().map(|(prefix, auth)| (Remote::Prefix(*prefix), auth.clone()));
        let (keychain, conflicts) = Keychain::new(peers);
        prop_assert!(conflicts.is_empty());
        for prefix in entries.keys() {
            for address in edges(*prefix) {
                let holding = entries.iter().filter(|(prefix, _)| prefix.contains_addr(address));
                let longest = holding.max_by_key(|(prefix, _)| prefix.len());
                // What no peer has does not matter.
                let Some((_, wanted)) = longest else { continue };
                let wanted = Some(wanted).filter(|auth| **auth != Auth::None);
                prop_assert_eq!(keychain.key_of(address), wanted, "{} of {:?}", address, keychain);
            }
        }
    }
}
