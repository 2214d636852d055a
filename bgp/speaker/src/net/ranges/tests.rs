use proptest::prelude::*;

use super::*;

fn range(name: &'static str, prefix: &str, limit: usize) -> Range<&'static str> {
    let prefix = prefix.parse().unwrap();
    Range {
        name,
        prefix,
        limit,
    }
}

fn from(address: &str) -> Source {
    Source {
        address: address.parse().unwrap(),
        ifindex: None,
    }
}

#[test]
fn the_longest_range_that_holds_an_address_counts() {
    let ranges = Ranges::new([
        range("all", "0.0.0.0/0", 9),
        range("rack", "10.1.0.0/16", 9),
        range("one", "10.1.2.3/32", 9),
        range("six", "2001:db8::/32", 9),
        range("second of the same", "10.1.0.0/16", 9),
    ]);
    for (address, expected) in [
        ("10.1.2.3", Some("one")),
        ("10.1.2.4", Some("rack")),
        ("10.2.0.1", Some("all")),
        ("2001:db8::1", Some("six")),
        ("2001:db9::1", None),
    ] {
        let found = ranges.lookup(address.parse().unwrap());
        assert_eq!(found.map(|range| range.name), expected, "{address}");
    }
}

#[test]
fn a_range_admits_as_many_peers_as_it_may_and_each_only_once() {
    let mut ranges = Ranges::new([range("rack", "10.1.0.0/16", 2)]);
    assert_eq!(ranges.admit(from("10.1.0.1")), Admission::New(&"rack"));
    assert_eq!(ranges.admit(from("10.1.0.1")), Admission::Known(&"rack"));
    assert_eq!(ranges.admit(from("10.1.0.2")), Admission::New(&"rack"));
    assert_eq!(ranges.admit(from("10.1.0.3")), Admission::Full(&"rack"));
    assert_eq!(ranges.admit(from("10.2.0.1")), Admission::Stranger);
    // Who is in stays known when it is full.
    assert_eq!(ranges.admit(from("10.1.0.2")), Admission::Known(&"rack"));
    assert!(ranges.release(from("10.1.0.1")));
    assert!(!ranges.release(from("10.1.0.1")));
    assert_eq!(ranges.admit(from("10.1.0.3")), Admission::New(&"rack"));
}

#[test]
fn link_local_peers_on_two_links_are_two() {
    let mut ranges = Ranges::new([range("links", "fe80::/10", 1)]);
    let on = |ifindex| Source {
        ifindex: Some(ifindex),
        ..from("fe80::1")
    };
    assert_eq!(ranges.admit(on(1)), Admission::New(&"links"));
    assert_eq!(ranges.admit(on(2)), Admission::Full(&"links"));
}

#[test]
fn new_ranges_keep_those_who_still_belong_and_name_the_others() {
    let mut ranges = Ranges::new([range("rack", "10.1.0.0/16", 9), range("six", "::/0", 9)]);
    for address in ["10.1.0.1", "10.1.0.2", "10.1.0.3", "10.1.9.1", "::1"] {
        ranges.admit(from(address));
    }
    let displaced = ranges.configure([range("rack", "10.1.0.0/24", 2), range("other", "::/0", 9)]);
    // One too many, one outside, one in a range of another name.
    assert_eq!(displaced, ["10.1.0.3", "10.1.9.1", "::1"].map(from));
    let used: Vec<usize> = ranges.usage().map(|(_, used)| used).collect();
    assert_eq!(used, [2, 0]);
}

fn some_range() -> impl Strategy<Value = Range<u8>> {
    (0_u8..6, any::<u8>(), 20_u8..=32, 0_usize..4).prop_map(|(name, low, len, limit)| {
        let address = IpAddr::from([10, 0, low >> 4, low << 4]);
        let prefix = Prefix::new(address, len).unwrap();
        Range {
            name,
            prefix,
            limit,
        }
    })
}

#[derive(Clone, Debug)]
enum Step {
    Admit(u8),
    Release(u8),
    Configure(Vec<Range<u8>>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => any::<u8>().prop_map(Step::Admit),
        3 => any::<u8>().prop_map(Step::Release),
        1 => proptest::collection::vec(some_range(), 0..6).prop_map(Step::Configure),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn no_range_has_more_peers_than_it_may_and_each_peer_is_in_the_longest(
        steps in proptest::collection::vec(step(), 1..120),
    ) {
        let source = |low: u8| Source {
            address: IpAddr::from([10, 0, low >> 4, low << 4]),
            ifindex: None,
        };
        let mut ranges: Ranges<u8> = Ranges::default();
        let mut configured: Vec<Range<u8>> = Vec::new();
        let mut members: BTreeMap<Source, u8> = BTreeMap::new();
        // The oracle: a walk over all ranges. `max_by_key` takes the last, so the first is last.
        let longest = |configured: &[Range<u8>], address| {
            let holding = configured.iter().rev();
            let holding = holding.filter(|range: &&Range<u8>| range.prefix.contains_addr(address));
            holding.max_by_key(|range| range.prefix.len()).cloned()
        };
        for step in steps {
            match step {
                Step::Admit(low) => {
                    let source = source(low);
                    let expected = longest(&configured, source.address);
                    let admission = match ranges.admit(source) {
                        Admission::New(name) => {
                            members.insert(source, *name);
                            Some(*name)
                        }
                        Admission::Known(name) => {
                            prop_assert_eq!(members.get(&source), Some(name));
                            Some(*name)
                        }
                        Admission::Full(name) => {
                            prop_assert!(!members.contains_key(&source));
                            Some(*name)
                        }
                        Admission::Stranger => None,
                    };
                    prop_assert_eq!(admission, expected.map(|range| range.name));
                }
                Step::Release(low) => {
                    let was = members.remove(&source(low)).is_some();
                    prop_assert_eq!(ranges.release(source(low)), was);
                }
                Step::Configure(new) => {
                    configured = new.clone();
                    for gone in ranges.configure(new) {
                        prop_assert!(members.remove(&gone).is_some());
                    }
                    for (source, name) in &members {
                        let now = longest(&configured, source.address);
                        prop_assert_eq!(now.map(|range| range.name), Some(*name));
                    }
                }
            }
            let used: usize = ranges.usage().map(|(_, used)| used).sum();
            prop_assert_eq!(used, members.len());
            for (range, used) in ranges.usage() {
                prop_assert!(used <= range.limit);
            }
        }
    }
}
