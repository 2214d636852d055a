use std::net::{Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU8;

use libc::{BPF_ABS, BPF_B, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_LD, BPF_RET, BPF_W};
use proptest::prelude::*;

use super::*;

/// Floors from a table of prefixes.
fn floors<'a>(table: impl IntoIterator<Item = &'a (&'a str, u8)>) -> Floors {
    Floors::new(table.into_iter().map(|(prefix, floor)| {
        let remote = Remote::Prefix(prefix.parse().unwrap());
        (remote, with_floor(*floor))
    }))
}

fn with_floor(floor: u8) -> Hops {
    match NonZeroU8::new(floor) {
        Some(floor) => Hops::security(u8::MAX - floor.get() + 1),
        None => Hops::System,
    }
}

fn program(floors: &Floors, family: Family) -> Vec<sock_filter> {
    program::render(family, &floors.cuts(family))
}

/// Whether `program` takes a segment from `source`, as the kernel would say. Everything but what
/// programs of ours consist of is a failure.
fn takes(program: &[sock_filter], source: IpAddr, ttl: u8) -> bool {
    if program.is_empty() {
        return true;
    }
    let mut header = [0; 40];
    match source {
        IpAddr::V4(v4) => {
            header[8] = ttl;
            header[12..16].copy_from_slice(&v4.octets());
        }
        IpAddr::V6(v6) => {
            header[7] = ttl;
            header[8..24].copy_from_slice(&v6.octets());
        }
    }
    let at = |k: u32| usize::try_from(k.cast_signed() - libc::SKF_NET_OFF).unwrap();
    let (mut next, mut a) = (0, 0);
    loop {
        let sock_filter { code, jt, jf, k } = program[next];
        next += 1;
        let code = u32::from(code);
        let jump = |yes| usize::from(if yes { jt } else { jf });
        if code == BPF_LD | BPF_W | BPF_ABS {
            a = u32::from_be_bytes(header[at(k)..][..4].try_into().unwrap());
        } else if code == BPF_LD | BPF_B | BPF_ABS {
            a = header[at(k)].into();
        } else if code == BPF_JMP | BPF_JEQ {
            next += jump(a == k);
        } else if code == BPF_JMP | BPF_JGE {
            next += jump(a >= k);
        } else if code == BPF_JMP | BPF_JA {
            next += usize::try_from(k).unwrap();
        } else {
            assert_eq!(code, BPF_RET);
            assert!(k == 0 || k == u32::MAX);
            return k > 0;
        }
    }
}

/// What the longest prefix says.
fn floor_of(floors: &Floors, source: IpAddr) -> u8 {
    let holding = floors.0.iter();
    let holding = holding.filter(|(prefix, _)| prefix.contains_addr(source));
    let longest = holding.max_by_key(|(prefix, _)| prefix.len());
    longest.map_or(0, |(_, floor)| *floor)
}

/// That the programs of `floors` take from `sources` what they should, and no less.
fn check(floors: &Floors, sources: impl IntoIterator<Item = IpAddr>) {
    let programs = [Family::Ipv4Unicast, Family::Ipv6Unicast].map(|family| program(floors, family));
    for source in sources {
        let floor = floor_of(floors, source);
        let program = &programs[usize::from(source.is_ipv6())];
        for ttl in [0, 1, 64, 128, floor.saturating_sub(1), floor, 255] {
            let expected = ttl >= floor;
            assert_eq!(takes(program, source, ttl), expected, "{source} {ttl}");
        }
    }
}

/// The first and the last address of `prefix`, and those beside them.
fn edges(prefix: &Prefix) -> Vec<IpAddr> {
    match prefix.addr() {
        IpAddr::V4(first) => {
            let first = first.to_bits();
            let last = first | u32::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            let edges = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
            edges.map(|bits| Ipv4Addr::from_bits(bits).into()).into()
        }
        IpAddr::V6(first) => {
            let first = first.to_bits();
            let last = first | u128::MAX.checked_shr(prefix.len().into()).unwrap_or(0);
            let edges = [first.wrapping_sub(1), first, last, last.wrapping_add(1)];
            edges.map(|bits| Ipv6Addr::from_bits(bits).into()).into()
        }
    }
}

#[test]
fn the_longest_prefix_says_which_ttl_is_taken() {
    type Case = (&'static str, &'static [(&'static str, u8)]);
    const CASES: &[Case] = &[
        ("a peer", &[("10.0.0.2", 255)]),
        ("everybody", &[("0.0.0.0/0", 254), ("::/0", 255)]),
        (
            "the ends",
            &[
                ("0.0.0.0", 255),
                ("255.255.255.255", 254),
                ("::", 2),
                ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 255),
            ],
        ),
        (
            "one without it in a range with it",
            &[("10.0.0.0/24", 255), ("10.0.0.7", 0)],
        ),
        (
            "one with it in a range without",
            &[("10.0.0.0/24", 0), ("10.0.0.7", 255)],
        ),
        (
            "at the edges of a range",
            &[("10.0.0.0/24", 255), ("10.0.0.0", 0), ("10.0.0.255", 254)],
        ),
        (
            "ranges that touch",
            &[
                ("10.0.0.0/25", 255),
                ("10.0.0.128/25", 255),
                ("10.0.1.0/24", 254),
            ],
        ),
        (
            "a range in a range in a range",
            &[
                ("10.0.0.0/8", 255),
                ("10.1.0.0/16", 0),
                ("10.1.1.0/24", 200),
            ],
        ),
        (
            "IPv6, in each word",
            &[
                ("2001::/16", 255),
                ("2001:db8::/32", 254),
                ("2001:db8:1::/48", 0),
                ("2001:db8:1:1::/64", 253),
                ("2001:db8:1:1:0:1::/96", 255),
                ("2001:db8:1:1::1", 1),
                ("2001:db8:1:1::2", 0),
            ],
        ),
        (
            "the last of a word",
            &[
                ("2001:db8:ffff:ffff::1", 255),
                ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", 254),
            ],
        ),
        ("a link-local peer", &[("fe80::1", 255)]),
    ];
    for (what, table) in CASES {
        println!("{what}");
        let floors = floors(*table);
        check(&floors, floors.0.keys().flat_map(edges));
    }
}

#[test]
fn nothing_is_attached_where_any_ttl_will_do() {
    for table in [
        &[][..],
        &[("10.0.0.0/8", 0), ("10.0.0.1", 0), ("2001:db8::1", 0)],
    ] {
        let floors = floors(table);
        for family in Family::ALL {
            assert!(program(&floors, family).is_empty(), "{table:?}");
        }
    }
    // That of one family is no business of the other.
    let one = floors(&[("10.0.0.1", 255)]);
    assert!(!program(&one, Family::Ipv4Unicast).is_empty());
    assert!(program(&one, Family::Ipv6Unicast).is_empty());
}

#[test]
fn of_peers_at_one_address_the_lowest_floor_counts() {
    let at = |address: Option<&str>| Remote::Interface {
        address: address.map(|address| address.parse().unwrap()),
    };
    let floors = Floors::new([
        (at(Some("fe80::1")), Hops::security(1)),
        (at(Some("fe80::1")), Hops::security(3)),
        (at(Some("fe80::2")), Hops::System),
        (at(Some("fe80::2")), Hops::security(1)),
        (at(None), Hops::security(1)),
    ]);
    let floors: Vec<String> = floors.0.iter().map(|(p, f)| format!("{p} {f}")).collect();
    assert_eq!(floors, ["fe80::1/128 253", "fe80::2/128 0"]);
}

/// `count` peers with different floors, no two beside each other.
fn scattered(count: u32, six: bool, same: bool) -> Floors {
    Floors::new((0..count).map(|number| {
        let address: IpAddr = if six {
            // Each on a link of its own.
            let link = 0x2001_0db8_0000_0000_u128 + u128::from(number);
            Ipv6Addr::from_bits(link << 64 | 2).into()
        } else {
            Ipv4Addr::from_bits(0x0a00_0000 + 4 * number).into()
        };
        let hops = if same {
            1
        } else {
            u8::try_from(number % 3 + 1).unwrap()
        };
        (Remote::Prefix(Prefix::host(address)), Hops::security(hops))
    }))
}

#[test]
fn jumps_reach_however_many_peers_there_are() {
    for (count, six) in [
        (100, false),
        (300, false),
        (2_000, false),
        (30_000, false),
        (300, true),
        (5_000, true),
    ] {
        for same in [true, false] {
            let floors = scattered(count, six, same);
            let some = floors
                .0
                .keys()
                .step_by(usize::try_from(count / 50).unwrap());
            check(&floors, some.flat_map(edges));
        }
    }
}

#[test]
fn as_many_peers_as_the_docs_say_fit_in_a_filter() {
    for (count, six, family) in [
        (3_000, false, Family::Ipv4Unicast),
        (500, true, Family::Ipv6Unicast),
    ] {
        let length = program(&scattered(count, six, true), family).len();
        println!("{count} peers of {family}: {length} instructions");
        assert!(length <= program::MAX_LEN, "{family}: {length}");
    }
    // However many stand side by side.
    let side_by_side = Floors::new((0..60_000).map(|number| {
        let address = Ipv4Addr::from_bits(0x0a00_0000 + number);
        (
            Remote::Prefix(Prefix::host(address.into())),
            Hops::security(1),
        )
    }));
    assert!(program(&side_by_side, Family::Ipv4Unicast).len() < 10);
}

#[test]
fn a_thousand_peers_cost_a_segment_a_score_of_instructions() {
    /// The longest way through the program, as jumps lead forward only.
    fn longest(program: &[sock_filter]) -> usize {
        let mut ways = vec![0; program.len()];
        for (at, step) in program.iter().enumerate().rev() {
            let code = u32::from(step.code);
            let to = |way: usize| ways[at + 1 + way];
            ways[at] = 1 + match code {
                code if code & 7 == BPF_RET => 0,
                code if code & 7 == BPF_LD => to(0),
                code if code == BPF_JMP | BPF_JA => to(usize::try_from(step.k).unwrap()),
                _ => to(step.jt.into()).max(to(step.jf.into())),
            };
        }
        ways[0]
    }
    let way = longest(&program(
        &scattered(1_000, false, true),
        Family::Ipv4Unicast,
    ));
    assert!(way <= 25, "{way}");
}

#[test]
fn what_is_not_protected_is_named_with_what_helps() {
    let names = floors(&[
        ("10.0.0.1", 255),
        ("10.0.0.2", 0),
        ("10.0.0.3", 255),
        ("2001:db8::1", 255),
    ]);
    assert_eq!(names.names(Family::Ipv4Unicast), "10.0.0.1/32, 10.0.0.3/32");
    let many = scattered(9, false, true).names(Family::Ipv4Unicast);
    assert_eq!(many, "10.0.0.0/32, 10.0.0.4/32, 10.0.0.8/32 and 6 others");
    for (errno, expected) in [
        (Errno::ENOMEM, "net.core.optmem_max"),
        (Errno::ENOPROTOOPT, "10.0.0.0/8"),
    ] {
        let error = refused("10.0.0.0/8".into(), errno.into()).to_string();
        assert!(error.contains(expected), "{errno}: {error}");
    }
}

/// Prefixes that often lie in one another, and their floors.
fn tables() -> impl Strategy<Value = Vec<(Prefix, u8)>> {
    let v4 = (any::<u32>(), 0_u8..=32).prop_map(|(bits, len)| {
        let bits = bits & 0xc300_0007 | 0x0a00_0000;
        Prefix::v4(Ipv4Addr::from_bits(bits), len).unwrap()
    });
    let v6 = (any::<u128>(), 0_u8..=128).prop_map(|(bits, len)| {
        let bits = bits & 0x3_0000_0003_8000_0001_0000_0003_u128 | 0x2001_0db8 << 96;
        Prefix::v6(Ipv6Addr::from_bits(bits), len).unwrap()
    });
    let floor = prop_oneof![Just(0), Just(255), Just(254), any::<u8>()];
    proptest::collection::vec((prop_oneof![v4, v6], floor), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn programs_say_what_the_longest_prefix_says(table in tables()) {
        let peers = table.iter();
        let floors = Floors::new(peers.map(|(prefix, floor)| {
            let remote = Remote::Prefix(*prefix);
            (remote, with_floor(*floor))
        }));
        check(&floors, floors.0.keys().flat_map(edges));
    }
}
