//! What those who ask for much are told, a stretch at a time.

use super::*;
use crate::policy::{Action as RuleAction, Condition, PrefixSet, Rule, Verdict};

/// Every prefix of a listing, by as many stretches as it takes.
fn all(rib: &Rib, listed: Listed, within: Option<Prefix>) -> Vec<Prefix> {
    let mut prefixes = Vec::new();
    let mut cursor = Some(Cursor::default());
    while let Some(from) = cursor {
        let (found, next) = rib.listed(listed, within.as_ref(), from);
        prefixes.extend(found);
        cursor = next;
    }
    prefixes.sort();
    prefixes
}

fn long(index: u32) -> Prefix {
    let [_, a, b, c] = index.to_be_bytes();
    Prefix::v4([20 + a, b, c, 0].into(), 24).unwrap()
}

#[test]
fn a_listing_of_many_stretches_has_each_prefix_once() {
    let mut world = World::new(config(), None);
    world.up(0);
    let many = 2 * STRETCH + 5;
    let prefixes: Vec<Prefix> = (0..many).map(long).collect();
    for run in prefixes.chunks(1000) {
        world.tell(0, announcement(0, run, &[9]));
    }
    let mut expected = prefixes.clone();
    expected.push(prefix(7));
    expected.sort();
    assert_eq!(all(&world.rib, Listed::Table, None), expected);
    let within: Prefix = "20.0.0.0/16".parse().unwrap();
    let inside: Vec<Prefix> = prefixes
        .iter()
        .copied()
        .filter(|prefix| within.contains(prefix))
        .collect();
    let received = Listed::ReceivedFrom(PeerIndex(0));
    assert_eq!(all(&world.rib, received, Some(within)), inside);
    assert!(all(&world.rib, Listed::ReceivedFrom(PeerIndex(1)), None).is_empty());
    // What is gone leaves slots behind, which are nobody's.
    world.down(0, &[]);
    world.answer_all();
    assert_eq!(all(&world.rib, Listed::Table, None), [prefix(7)]);
}

#[test]
fn what_a_peer_told_stands_beside_what_the_policy_made_of_it() {
    let mut config = config();
    let rule = Rule::new(
        "prefer",
        vec![Condition::Prefix(PrefixSet::new(vec![
            PrefixMatch::orlonger(prefix(0)),
        ]))],
        RuleAction::Accept(vec![crate::policy::Operation::SetLocalPref(7)]),
    );
    let import = Policy::new(vec![rule], Verdict::Reject);
    config.peers.get_mut(&PeerIndex(0)).unwrap().import = Arc::new(import);
    let mut world = World::new(config, None);
    for peer in [0, 1] {
        world.up(peer);
        world.tell(peer, announcement(peer, &[prefix(0), prefix(1)], &[9]));
    }
    let rib = &world.rib;
    let of_zero = |index| {
        let mut paths = rib.received(PeerIndex(0), &prefix(index));
        assert_eq!(paths.len(), 1);
        paths.remove(0)
    };
    let changed = of_zero(0);
    assert_eq!(
        (
            changed.told.local_pref(),
            changed.told.attributes.local_pref
        ),
        (100, None)
    );
    assert_eq!(changed.entry.path.local_pref(), 7);
    assert!(!changed.best && changed.lost_at.is_some(), "{changed:?}");
    let rejected = of_zero(1);
    let why = rejected.entry.rejected.expect("no rule takes it");
    assert_eq!((why.word(), why.rule()), ("policy", None));
    let peer = PeerIndex(0);
    assert_eq!(all(rib, Listed::RejectedFrom(peer), None), [prefix(1)]);
    assert_eq!(all(rib, Listed::Rejected, None), [prefix(1)]);
    assert!(all(rib, Listed::RejectedFrom(PeerIndex(1)), None).is_empty());

    let traces = rib.explain_import(&prefix(1));
    let text: Vec<String> = traces.iter().flatten().map(ToString::to_string).collect();
    assert!(text[0].contains("'prefer' does not match"), "{text:?}");
    assert!(text[1].contains("accepted"), "{text:?}");
    assert_eq!(rib.explain_import(&prefix(7)), [None], "an own route");
}

#[test]
fn rejected_routes_are_counted_by_peer_and_reason() {
    let mut world = World::new(config(), None);
    for peer in [0, 1] {
        world.up(peer);
    }
    world.tell(0, announcement(0, &[prefix(1), prefix(0)], &[65_000]));
    world.tell(0, announcement(0, &[prefix(255)], &[9]));
    world.tell(1, announcement(1, &[prefix(0)], &[65_000]));
    let of = |peer: Option<u32>| {
        let of = peer.map(PeerIndex);
        let (rejections, next) = world.rib.rejections(of, Cursor::default());
        assert_eq!(next, None);
        rejections
    };
    let counts = |peer| -> Vec<_> {
        let rejections = of(peer).into_iter();
        rejections
            .map(|((peer, reason), rejected)| (peer.0, reason.word, rejected.count))
            .collect()
    };
    let (of_zero, of_one) = (
        [(0, "as-loop", 2), (0, "protected", 1)],
        [(1, "as-loop", 1)],
    );
    assert_eq!(counts(Some(0)), of_zero);
    assert_eq!(counts(Some(1)), of_one);
    assert_eq!(counts(Some(7)), [], "nobody");
    assert_eq!(counts(None), [&of_zero[..], &of_one].concat());
    let of_zero = of(Some(0));
    let examples: Vec<_> = of_zero.values().map(|it| &it.examples[..]).collect();
    assert_eq!(examples, [&[prefix(0), prefix(1)][..], &[prefix(255)]]);
    let why: Vec<_> = of_zero.values().map(|it| &*it.why).collect();
    assert_eq!(
        why,
        [
            "our AS is in its path",
            "it lies in 10.255.0.0/16, which is ours alone"
        ]
    );
}

#[test]
fn of_many_rejected_routes_the_first_are_named_in_whatever_order_they_come() {
    let mut world = World::new(config(), None);
    world.up(0);
    for index in [9, 3, 8, 0, 5, 2, 7, 1, 6, 4, 10] {
        world.tell(0, announcement(0, &[prefix(index)], &[65_000]));
    }
    let (rejections, _) = world.rib.rejections(None, Cursor::default());
    let [rejected] = &rejections.into_values().collect::<Vec<_>>()[..] else {
        panic!("one reason");
    };
    let first: Vec<_> = (0..8).map(prefix).collect();
    assert_eq!((rejected.count, &rejected.examples), (11, &first));

    let part = |count, examples: &[u8], why: &str| Rejected {
        count,
        examples: examples.iter().copied().map(prefix).collect(),
        why: why.to_owned(),
    };
    let mut joined = part(5, &[2, 4, 6, 8, 10], "the second");
    joined.join(part(6, &[1, 2, 3, 5, 7, 9], "the first"));
    assert_eq!(joined, part(11, &[1, 2, 3, 4, 5, 6, 7, 8], "the first"));
}

#[test]
fn a_peer_is_told_a_route_or_there_is_a_reason() {
    let mut world = World::new(config(), None);
    for peer in [0, 1, 3] {
        world.up(peer);
    }
    world.tell(0, announcement(0, &[prefix(0), prefix(1)], &[9]));
    world.answer_all();
    world.pull_all();
    let rib = &world.rib;
    assert_eq!(
        all(rib, Listed::Announced, None),
        [prefix(0), prefix(1), prefix(7)]
    );
    // Peer 1 has a policy for prefix 0 alone.
    assert_eq!(rib.withheld(PeerIndex(1), &prefix(0)), None);
    assert_eq!(
        rib.withheld(PeerIndex(1), &prefix(1)),
        Some(Withheld::Policy { rule: None })
    );
    assert_eq!(
        rib.withheld(PeerIndex(0), &prefix(0)),
        Some(Withheld::SplitHorizon)
    );
    assert_eq!(rib.withheld(PeerIndex(3), &prefix(1)), None);
    assert_eq!(rib.withheld(PeerIndex(2), &prefix(1)), None, "no session");
    let told = rib.advertised(PeerIndex(3), &prefix(1));
    let [(_, told)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(told.attributes.as_path.to_string(), "65001 9");
    assert_eq!(told.attributes.local_pref, Some(100));
}

#[test]
fn routes_are_counted_where_they_stand_on_their_way_to_the_fib() {
    let mut world = World::new(config(), None);
    world.up(0);
    let counts = |world: &World| {
        let FibCounts {
            pending,
            installed,
            failed,
        } = world.rib.counts().fib[V4.index()];
        [pending, installed, failed]
    };
    world.tell(0, announcement(0, &[prefix(0), prefix(1)], &[9]));
    assert_eq!(counts(&world), [2, 0, 0]);
    let changes = |world: &World| world.rib.counts().best_changes[V4.index()];
    assert_eq!(changes(&world), 1, "our own route; the others wait");
    world.answer_all();
    assert_eq!(counts(&world), [0, 2, 0]);
    assert_eq!(changes(&world), 3);
    world.tell(0, announcement(0, &[prefix(2)], &[9]));
    world.answer_all_with(Some("no room".into()));
    assert_eq!(counts(&world), [0, 2, 1]);
    world.down(0, &[]);
    assert_eq!(counts(&world), [0, 0, 0]);
    assert_eq!(changes(&world), 5);
    assert_eq!(world.rib.counts().prefixes, 1);
}
